// Draws the figures, each when it first comes into view, in the page's light or dark colours.
"use strict";
(() => {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const night = JSON.parse(document.getElementById("night").textContent);
  const boxes = [...document.querySelectorAll(".figure")];

  function draw(box) {
    let text = box.querySelector("script").textContent;
    if (dark.matches) {
      for (const [day, colour] of Object.entries(night)) text = text.replaceAll(day, colour);
    }
    const figure = JSON.parse(text);
    Plotly.react(box.querySelector(".plot"), figure.data, figure.layout, figure.config);
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
  draw(boxes[0]); // the first without waiting to be seen
  boxes.slice(1).forEach((box) => seen.observe(box));
  dark.addEventListener("change", () => boxes.filter((box) => box.dataset.drawn).forEach(draw));
  addEventListener("beforeprint", () => {
    document.querySelectorAll("details").forEach((one) => (one.open = true));
    boxes.filter((box) => !box.dataset.drawn).forEach(draw);
  });
})();
