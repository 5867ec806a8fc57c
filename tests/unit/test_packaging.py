"""What is committed and installed: locks, bounds, the wheel, and no word about a machine."""

from __future__ import annotations

import re
import subprocess
import tomllib
import zipfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
PYTHONS = ("3.11", "3.12", "3.13")
LOCKS = ("requirements.lock", "requirements-live.lock")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
CORE = tuple(PROJECT["dependencies"])
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]
EVERYTHING = (*CORE, *(line for extra in EXTRAS.values() for line in extra))

# In pieces, so that this file does not hold what it looks for.
FORBIDDEN = {
    "a registry host": re.compile(
        "|".join(
            (r"pypi\." + "org", "python" + "hosted", r"npm" + r"js\.", r"conda\." + "anaconda")
        )
    ),
    "an index option": re.compile(
        "|".join(("index" + "-url", "find" + "-links", "INDEX" + "_URL", r"trusted" + "-host"))
        + r"|registry\s*=\s*[{\"']*\s*(url\s*=\s*[\"'])?htt"
        + "p"
    ),
    "a path of one machine": re.compile(
        "|".join(
            (
                r"/work" + r"/(main|shared|\.)",
                r"(?<![\w.])/ro" + r"ot/",
                r"/ho" + r"me/(?!you/|candlebook/)\w",
                r"/Us" + r"ers/(?!you/)\w",
                r"\.py" + r"env/versions",
            )
        )
    ),
}


def faults_in(text: str) -> list[str]:
    """``line number: kind: what`` for everything in ``text`` that must not be committed."""
    return [
        f"{number}: {kind}: {match.group()}"
        for number, line in enumerate(text.splitlines(), start=1)
        for kind, pattern in FORBIDDEN.items()
        if (match := pattern.search(line))
    ]


PIN = re.compile(r"([a-z0-9-]+)==([^\s;]+)(?: ; (.+?))?((?:\s+--hash=sha256:[0-9a-f]{64})+)")


@dataclass(frozen=True)
class Pin:
    """One requirement of a lock: an exact version, where it applies, and its hashes."""

    name: str
    version: str
    marker: str
    hashes: tuple[str, ...]

    def applies(self, python: str) -> bool:
        environment = {"python_version": python, "python_full_version": f"{python}.9"}
        return not self.marker or Marker(self.marker).evaluate(environment)


def pins(text: str) -> list[Pin]:
    """The pins of a lock; a line that is neither a pin nor a hash of one raises ValueError."""
    found = []
    for entry in text.replace("\\\n", " ").strip().splitlines():
        match = re.fullmatch(
            r"([a-z0-9-]+)==([^\s;]+)(?: ; (.+?))?((?:\s+--hash=sha256:[0-9a-f]{64})+)",
            entry.strip(),
        )
        if match is None:
            raise ValueError(f"not an exact, hashed pin: {entry[:100]}")
        name, version, marker, hashes = match.groups()
        found.append(Pin(name, version, marker or "", tuple(hashes.split())))
    return found


@pytest.fixture(scope="module")
def locks() -> dict[str, list[Pin]]:
    return {name: pins((ROOT / name).read_text(encoding="utf-8")) for name in LOCKS}


# --- what is committed


def committed() -> list[Path]:
    """Files that are in git, or would be after `git add`; skips where this is no clone."""
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    if listing.returncode != 0:
        pytest.skip("not a git clone: nothing says which files are committed")
    names = listing.stdout.decode().rstrip("\0").split("\0")
    return [ROOT / name for name in names if (ROOT / name).is_file()]


def test_no_committed_file_names_a_registry_or_a_machine() -> None:
    faults = [
        f"{path.relative_to(ROOT)}:{fault}"
        for path in committed()
        for fault in faults_in(path.read_bytes().decode("utf-8", errors="replace"))
    ]
    assert faults == []


@pytest.mark.parametrize(
    "line",
    [
        "[badge](https://pypi." + "org/p/candlebook)",
        "https://files.python" + "hosted.org/packages/x.whl",
        "--extra-index" + "-url https://example.test/simple",
        "RUN pip install --find" + "-links wheels .",
        "ENV PIP_INDEX" + "_URL=x",
        'source = { registry = "htt' + 'ps://example.test/simple" }',
        "registry=htt" + "ps://registry.example.test",
        "store = '/work" + "/main/data'",
        "#!/ro" + "ot/bin/python",
        '"/ho' + 'me/ann/candlebook"',
        "/Us" + "ers/ann/candlebook",
        "~/.py" + "env/versions/3.11.7",
    ],
)
def test_a_planted_host_or_path_is_caught(line: str) -> None:
    assert len(faults_in(f"first\n{line}\n")) == 1


@pytest.mark.parametrize(
    "line",
    [
        "the registry in research/strategy.py",
        "WorkingDirectory=/home/candlebook/candlebook",
        "https://www.example.test/root/x",
        "framework/main/x",
        "pip install --require-hashes -r requirements.lock",
    ],
)
def test_innocent_lines_pass(line: str) -> None:
    assert faults_in(line) == []


def test_the_licence_is_the_whole_mit_text() -> None:
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert text.startswith("MIT License\n")
    assert "The Candlebook authors" in text
    assert "WITHOUT WARRANTY OF ANY KIND" in text


# --- what is asked for


def test_python_is_311_to_313() -> None:
    allowed = SpecifierSet(PROJECT["requires-python"])
    assert [v for v in ("3.10.14", "3.11.0", "3.12.9", "3.13.5", "3.14.0") if v in allowed] == [
        "3.11.0",
        "3.12.9",
        "3.13.5",
    ]


@pytest.mark.parametrize("line", EVERYTHING)
def test_every_dependency_has_a_lower_and_an_upper_bound(line: str) -> None:
    operators = {clause.operator for clause in Requirement(line).specifier}
    assert operators == {">=", "<"}


# --- what is locked


@pytest.mark.parametrize(
    "entry",
    [
        "numpy==2.4.6",
        "numpy>=2.4 --hash=sha256:" + "0" * 64,
        "numpy==2.4.6 --hash=sha256:" + "0" * 63,
        "numpy @ file:x.whl --hash=sha256:" + "0" * 64,
        "-e .",
        "--index" + "-url x",
    ],
)
def test_a_pin_without_a_version_or_hash_is_refused(entry: str) -> None:
    with pytest.raises(ValueError, match="not an exact, hashed pin"):
        pins(entry)


@pytest.mark.parametrize("lock", LOCKS)
def test_a_library_has_one_version_on_every_python(locks: dict[str, list[Pin]], lock: str) -> None:
    counts = Counter(pin.name for pin in locks[lock])
    assert [name for name, count in counts.items() if count > 1] == []


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize(
    ("lock", "wanted"),
    [("requirements.lock", EVERYTHING), ("requirements-live.lock", (*CORE, *EXTRAS["build"]))],
)
def test_every_dependency_is_locked_within_its_bounds(
    locks: dict[str, list[Pin]], lock: str, wanted: tuple[str, ...], python: str
) -> None:
    locked = {pin.name: pin.version for pin in locks[lock] if pin.applies(python)}
    missed = []
    for line in wanted:
        requirement = Requirement(line)
        version = locked.get(canonicalize_name(requirement.name))
        if version is None or version not in requirement.specifier:
            missed.append(f"{line}: locked {version}; run `make lock`")
    assert missed == []


@pytest.mark.parametrize("python", PYTHONS)
def test_a_live_machine_runs_the_versions_that_research_used(
    locks: dict[str, list[Pin]], python: str
) -> None:
    full, live = (
        {(pin.name, pin.version, pin.hashes) for pin in locks[lock] if pin.applies(python)}
        for lock in LOCKS
    )
    assert live - full == set()
    assert len(live) < len(full) / 2


def test_a_live_machine_needs_no_lab_no_vectorbt_no_language_model(
    locks: dict[str, list[Pin]],
) -> None:
    heavy = {"jupyterlab", "notebook", "vectorbt", "llama-index", "llama-index-core", "openai"}
    assert heavy & {pin.name for pin in locks["requirements-live.lock"]} == set()
    assert heavy - {"notebook"} <= {pin.name for pin in locks["requirements.lock"]}


# --- what is shipped


def test_the_wheel_holds_both_packages_and_nothing_else(tmp_path: Path) -> None:
    from hatchling.builders.wheel import WheelBuilder

    wheel = next(iter(WheelBuilder(str(ROOT)).build(directory=str(tmp_path))))
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        scripts = archive.read(f"candlebook-{PROJECT['version']}.dist-info/entry_points.txt")
    in_tree = {
        path.relative_to(ROOT).as_posix()
        for package in ("research", "live")
        for path in (ROOT / package).rglob("*")
        if path.suffix in {".py", ".typed"}
    }
    tops = {name.split("/")[0] for name in names}
    assert tops == {"research", "live", f"candlebook-{PROJECT['version']}.dist-info"}
    assert in_tree <= names
    assert {"research/py.typed", "live/py.typed"} <= names
    assert b"candlebook = live.cli:main" in scripts


@pytest.mark.parametrize("folder", ["data", "params", "knowledge", "notebooks"])
def test_folders_of_data_are_no_packages(folder: str) -> None:
    assert not (ROOT / folder / "__init__.py").exists()
