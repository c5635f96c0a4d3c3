"""The pages tell the truth about the tree: commands exist, links resolve, nothing names a place outside of it."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
#: Absolute paths of one machine and hosts of package indexes: true on the author's desk and nowhere else.
FOREIGN = re.compile(r"(?<![\w.<])/(?:home|root|Users|work)/\w|\b(?:pypi|files\.pythonhosted)\.org\b")
TEXT = {".py", ".md", ".toml", ".txt", ".html", ".css", ".js", ".json", ".yml", ".cfg", ""}


def tracked_files() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode != 0:
        pytest.skip("not a git checkout: no list of the repository's files")
    return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


def commands(program: str) -> set[tuple[str, str]]:
    """(page, first word after `program`) of every command in the pages' code, fenced or inline."""
    found = set()
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        code = re.findall(r"```.*?\n(.*?)```", text, re.S) + re.findall(r"`([^`\n]+)`", text)
        for line in "\n".join(code).splitlines():
            match = re.match(rf"(?:\$ |\.venv/bin/)?{program} ([a-z][\w-]*)", line.strip())
            if match:
                found.add((str(page.relative_to(ROOT)), match[1]))
    return found


def subcommands(*program: str) -> str:
    done = subprocess.run([*program, "--help"], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout


def test_the_readme_shows_both_commands() -> None:
    assert {("README.md", "demo"), ("README.md", "test")} <= commands("make")


def test_every_make_target_named_exists() -> None:
    targets = set(re.findall(r"^([a-z][\w-]*):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
    assert {(page, name) for page, name in commands("make") if name not in targets} == set()


@pytest.mark.parametrize(
    ("written", "run"),
    [
        ("sim", (sys.executable, "-m", "sim.cli")),
        ("hil", (sys.executable, "-m", "hil.cli")),
        ("python -m export", (sys.executable, "-m", "export")),
    ],
)
def test_every_command_named_exists(written: str, run: tuple[str, ...]) -> None:
    named = commands(written)
    if not named:
        pytest.skip(f"no page names a command of {written}")
    known = subcommands(*run)
    assert {(page, name) for page, name in named if not re.search(rf"\b{re.escape(name)}\b", known)} == set()


def command_lines(page: Path) -> list[list[str]]:
    """Words of every command of ours in a page's fenced blocks, lines that go on joined."""
    blocks = re.findall(r"```[^\n]*\n(.*?)```", page.read_text(encoding="utf-8"), re.S)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    words = [line.partition("#")[0].strip().removeprefix("$ ").removeprefix(".venv/bin/").split() for line in lines]
    return [w for w in words if w[:1] in (["sim"], ["hil"]) or w[:3] == ["python", "-m", "export"]]


def runner(words: list[str]) -> tuple[list[str], list[str]]:
    """How to run a command of a page with this interpreter, and its options."""
    start = 3 if words[0] == "python" else 1
    program = [sys.executable, "-m", "export" if words[0] == "python" else f"{words[0]}.cli"]
    return [*program, *words[start:]], [w.partition("=")[0] for w in words[start:] if re.match(r"--[a-z]", w)]


#: Commands that hold commands.
GROUPS = {"archive": ("put", "get", "list", "verify"), "mission": ("show", "new", "check")}


@pytest.mark.slow
def test_every_option_that_a_page_uses_is_an_option_of_its_command() -> None:
    helps: dict[tuple[str, ...], str] = {}
    wrong = []
    for page in PAGES:
        for words in command_lines(page):
            run, options = runner(words)
            if len(run) < 4 or run[3].startswith("-") or not options:
                continue
            command = run[: 5 if run[4:5] and run[4] in GROUPS.get(run[3], ()) else 4]
            if tuple(command) not in helps:
                helps[tuple(command)] = subcommands(*command)
            told = helps[tuple(command)]
            wrong += [f"{page.name}: {' '.join(words[:4])} ... {o}" for o in options if o not in told]
    assert wrong == []


#: Beginning of a command in the pages -> why no test runs it. Everything else is run.
NOT_RUN = {
    "python -m export train": "hours of training",
    "python -m export adapt": "minutes of training; tests/workshop/test_adapt.py runs a few steps",
    "python -m export join": "joins bundles that adapt made; tests/system/test_native_line.py flies one that ships",
    "python -m export.sensor_pools": "needs the data folder; tests/workshop/test_adapt.py tests its parts",
    "python -m export build": "needs what hours of training write",
    "python -m export single-rate": "hours of training",
    "python -m export check build/": "needs what hours of training write",
    "sim evaluate-apps": "needs the data folder; tests/ground/test_apps_products.py runs a part",
    "sim mission new salt": "tests/system/test_own_app.py follows that page",
    "sim downlink --scene demo:512 --mission salt.toml": "tests/system/test_own_app.py follows that page",
    "sim mission new green": "tests/system/test_own_app.py follows that page",
    "sim downlink --scene demo:512 --mission green.toml": "tests/system/test_own_app.py follows that page",
    "python -m export codes": "needs the data folder; tests/workshop runs it on drawn tiles",
    "python -m export compile": "needs the old toolkit; tests/workshop/test_myriad.py runs it where that is",
    "sim evaluate-corsa --tiles TILES.npz": "needs real tiles; tests/ground/test_published.py runs it",
    "hil run --device emulated": "needs qemu; `make equal` runs it",
    "hil run --device 'ssh": "needs a board",
    "hil deploy --to 'ssh": "needs a board",
    "sim downlink --scene scene.tif --archive": "needs dates of one's own; tests/system/test_aided_line.py has some",
    "sim receive --stream out/aided/frames.bin": "needs dates of one's own; tests/system/test_aided_line.py has some",
    "sim archive get NAME --store archive": "needs dates of one's own; tests/system/test_aided_line.py has some",
    "sim evaluate-aided": "needs the data folder; tests/ground/test_aided.py runs a part",
    "sim evaluate-tasks": "needs the data folder; tests/ground/test_tasks.py runs it",
    "sim serve": "runs until it is stopped; tests/system/test_viewer.py asks it",
    "sim downlink --scene demo --live": "serves until it is stopped; tests/system/test_live_browser.py looks at it",
    "python -m export sign my-bundle": "needs a bundle of one's own; tests/system/test_signed_bundle.py signs one",
    "sim downlink --scene demo --bundle my-bundle": "needs a bundle of one's own; tests/system/test_signed_bundle.py",
    "sim downlink --scene demo --upload my-bundle": "needs a bundle of one's own; tests/system/test_uplink.py has one",
    "sim downlink --scene demo --commands": "needs a key of one's own; tests/system/test_uplink.py has one",
    "sim command": "needs a key of one's own; tests/system/test_uplink.py has one",
    "sim view": "serves until it is stopped; tests/system/test_live_browser.py looks at it",
    "sim campaign --catalog demo:40": "forty scenes; tests/system/test_campaign.py runs others",
    "sim faults": "thousands of trials; tests/ground/test_faults.py runs some",
    "sim soak": "a week's orbits; tests/ground/test_faults.py runs half a day",
    "sim mission --mission": "hundreds of scenes; tests/ground/test_planning.py runs some",
    "hil sweep --device host:": "eighteen settings; tests/bench/test_reports.py sweeps some",
    "hil campaign day.toml": "a day; tests/bench/test_device_campaign.py runs one in small",
    "hil budget profile.json": "an overview's line; tests/bench runs it",
    "hil devices the kinds": "an overview's line; tests/bench runs it",
    "hil compare A/": "an overview's line; tests/bench runs it",
    "hil sysroot": "needs qemu and debootstrap; `make equal` runs it",
    "sim downlink --scene demo:512 --bundle nadir-zlib": "tests/system/test_own_codec.py follows that page",
    "sim evaluate --tiles demo:512 --limit 1 --bundle edge --bundle nadir-zlib": "tests/system/test_own_codec.py",
}


def is_synopsis(words: list[str]) -> bool:
    """A line of an overview, with words of explanation or capitals in the place of values."""
    return any(re.fullmatch(r"[A-Z]{1,5}|[A-Z]+/\S+|.*\.\.\..*", word) or word == "|" for word in words)


def write_stack(path: Path, bands: int) -> None:
    import numpy as np
    import rasterio

    dn = np.random.default_rng(1).integers(300, 3000, (bands, 256, 256)).astype(np.uint16)
    with rasterio.open(path, "w", driver="GTiff", count=bands, height=256, width=256, dtype="uint16") as file:
        file.write(dn)
        if bands == 4:
            file.descriptions = ("B02", "B03", "B04", "B08")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_commands_of_the_pages_run_as_they_stand(tmp_path: Path) -> None:
    """In the order of the pages, in one folder; the generated scene is made small."""
    write_stack(tmp_path / "stack.tif", 10)
    write_stack(tmp_path / "SCENE.tif", 4)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    lines = [["sim", "downlink", "--scene", "demo:256", "--out", "out/demo"]]
    lines += [words for page in PAGES for words in command_lines(page)]
    run = 0
    for words in lines:
        if any(" ".join(words).startswith(beginning) for beginning in NOT_RUN) or is_synopsis(words):
            continue
        command, _ = runner(["demo:256" if word == "demo" else word for word in words])
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, env=environment)
        assert done.returncode in (0, 1) and "Traceback" not in done.stderr, f"{words}: {done.stderr[-400:]}"
        run += 1
    assert run >= 15


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_within_the_tree_resolves(page: Path) -> None:
    links = re.findall(
        r"\]\(([^)\s]+)\)|<(?:img|source)[^>]*?(?:src|srcset)=\"([^\"]+)\"", page.read_text(encoding="utf-8")
    )
    targets = {a or b for a, b in links}
    local = {t.partition("#")[0] for t in targets if not re.match(r"[a-z]+:|#", t)}
    assert {t for t in local if not (page.parent / t).exists()} == set()


def test_no_file_names_a_place_outside_the_repository() -> None:
    found = []
    for path in tracked_files():
        if path.suffix not in TEXT or path == Path(__file__).resolve():
            continue
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
            if FOREIGN.search(line):
                found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]}")
    assert found == []


def test_the_search_for_foreign_places_finds_one() -> None:
    assert FOREIGN.search("open('/home/somebody/x')") and FOREIGN.search("index at pypi.org")
    assert not FOREIGN.search("/work/ is ignored") and not FOREIGN.search("docs/work/page")


def test_versions_are_pinned_one_by_one() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.]*", pin) for pin in pins)
    assert "torch==2.13.0" in pins
