// Draws each figure when it first comes into view, in the page's light or dark colours.
"use strict";
(() => {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const night = JSON.parse(document.getElementById("night").textContent);
  const config = {
    responsive: true,
    displaylogo: false,
    modeBarButtons: [["toImage", "zoom2d", "pan2d", "resetScale2d"]], // none that uploads
  };
  const boxes = [...document.querySelectorAll(".figure")];

  function draw(box) {
    let text = box.querySelector("script").textContent;
    if (dark.matches) {
      for (const [day, colour] of Object.entries(night)) text = text.replaceAll(day, colour);
    }
    const figure = JSON.parse(text);
    Plotly.react(box.querySelector(".plot"), figure.data, figure.layout, config);
    box.dataset.drawn = "yes";
  }

  const seen = new IntersectionObserver(
    (entries) => {
      for (const entry of entries) {
        if (!entry.isIntersecting) continue;
        seen.unobserve(entry.target);
        draw(entry.target);
      }
    },
    { rootMargin: "600px" }
  );
  boxes.forEach((box) => seen.observe(box));
  dark.addEventListener("change", () => boxes.filter((box) => box.dataset.drawn).forEach(draw));
  addEventListener("beforeprint", () => {
    document.querySelectorAll("details").forEach((one) => (one.open = true));
    boxes.filter((box) => !box.dataset.drawn).forEach(draw);
  });
})();
