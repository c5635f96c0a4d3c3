"""The command line as people of this field expect one, and the net under it: whatever goes wrong is one line."""

import errno
import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin

import sim
from hil.console import guarded
from payload.errors import InputError
from payload.version import commit, software
from sim.commands.console import progress

ROOT = Path(__file__).resolve().parents[2]


def run(*arguments: str | Path, cwd: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sim", *map(str, arguments)]
    everything = os.environ | {"COLUMNS": "200", "PYTHONPATH": str(ROOT)} | environment
    return subprocess.run(command, cwd=cwd, env=everything, capture_output=True, text=True, check=False, timeout=250)


def one_line(done: subprocess.CompletedProcess[str], *words: str) -> None:
    assert done.returncode == 2 and done.stdout == "", (done.stdout, done.stderr)
    assert done.stderr.startswith("sim: ") and done.stderr.count("\n") == 1, done.stderr
    for word in words:
        assert word in done.stderr, done.stderr


# -- what is expected of a command line --------------------------------------------------------------------------------


def test_version_and_commit() -> None:
    done = run("--version")
    assert done.returncode == 0 and done.stdout.startswith(f"sim {sim.__version__}")
    said = software()
    assert said["name"] == "nadir-payload" and said["version"] == sim.__version__


def test_the_commit_is_gits_own_answer(tmp_path: Path) -> None:
    def git(*words: str) -> str:
        command = ["git", "-C", str(tmp_path / "a"), "-c", "user.name=n", "-c", "user.email=e", *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    (tmp_path / "a").mkdir()
    assert commit(tmp_path / "a") is None
    git("init", "-q")
    git("commit", "-q", "--allow-empty", "-m", "one")
    assert commit(tmp_path / "a") == git("rev-parse", "HEAD")
    git("pack-refs", "--all")
    assert commit(tmp_path / "a") == git("rev-parse", "HEAD")
    git("worktree", "add", "-q", str(tmp_path / "b"))
    assert commit(tmp_path / "b") == git("rev-parse", "HEAD")
    git("checkout", "-q", "--detach")
    assert commit(tmp_path / "a") == git("rev-parse", "HEAD")


@pytest.mark.parametrize("name", ["missions", "bundles", "devices", "engines"])
def test_what_ships_is_listed(name: str) -> None:
    table, rows = run(name), json.loads(run(name, "--json").stdout)
    assert table.returncode == 0 and len(table.stdout.splitlines()) == 1 + len(rows) > 2
    assert all(line.startswith(row["name"]) for line, row in zip(table.stdout.splitlines()[1:], rows, strict=True))


def test_a_mission_is_shown_copied_and_checked(tmp_path: Path) -> None:
    assert run("mission", "show", "phisat2").stdout == (ROOT / "sim/missions/phisat2.toml").read_text()
    assert json.loads(run("mission", "show", "phisat2", "--json").stdout)["imager"]["gsd_m"] == 4.75
    done = run("mission", "new", "mine", "--from", "sentinel2", cwd=tmp_path)
    assert done.returncode == 0 and "sim mission check mine.toml" in done.stdout
    assert run("mission", "check", "mine.toml", cwd=tmp_path).stdout.startswith("mine.toml: mine, ")
    one_line(run("mission", "new", "mine", cwd=tmp_path), "already there")
    one_line(run("mission", "new", "../x", cwd=tmp_path), "is no name")
    (tmp_path / "mine.toml").write_text("name = 3")
    one_line(run("mission", "check", "mine.toml", cwd=tmp_path), "mine.toml: name is 3")


def test_quiet_and_verbose_stand_before_or_after_the_command(tmp_path: Path) -> None:
    (tmp_path / "demo").mkdir()
    for arguments, said in (((), True), (("-q",), False), (("--quiet",), False)):
        done = run("downlink", "--scene", "demo:64", "--seed", "-1", *arguments, cwd=tmp_path)
        assert done.returncode == 2
        assert said or done.stderr.count("\n") == 1
    assert run("-q", "passes", "--days", "0").returncode == run("passes", "--days", "0", "-q").returncode == 2
    assert "completion" in run("--help").stdout


def test_options_on_how_scenes_are_read_are_everywhere_that_scenes_are_read() -> None:
    for command in ("downlink", "evaluate", "evaluate-corsa", "bench"):
        said = run(command, "--help").stdout
        assert all(option in said for option in ("--bands", "--scale", "--offset", "--max-pixels")), command


def test_the_remedy_for_layers_without_names_works_in_evaluate(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    values = np.random.default_rng(0).integers(1, 3000, (4, 256, 256)).astype(np.uint16)
    with rasterio.open(
        path, "w", driver="GTiff", count=4, height=256, width=256, dtype="uint16", crs="EPSG:32643",
        transform=from_origin(0, 0, 10, 10),
    ) as file:  # fmt: skip
        file.write(values)
    common = ("evaluate", "--tiles", path, "--bundle", "none", "--against", "jpeg", "--out", tmp_path / "out")
    done = run(*common)
    one_line(done, "as in --bands B02,B03,B04,B08")
    assert run(*common, "--bands", "B02,B03,B04,B08").returncode == 0


NO_TYPER = """
import sys
class Gone:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in ('typer', 'rasterio', 'rich'):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Gone())
sys.argv = ['sim', *sys.argv[1:]]
from sim.cli import main
main()
"""


@pytest.mark.parametrize("words", [["--help"], ["downlink", "--scene", "demo"], []])
def test_without_the_ground_one_line_names_the_extra(words: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", NO_TYPER, *words], cwd=ROOT, capture_output=True, text=True, check=False
    )
    one_line(done, "is not installed; pip install 'nadir-payload[ground]'")


def test_without_the_ground_the_version_is_still_told() -> None:
    done = subprocess.run(
        [sys.executable, "-c", NO_TYPER, "--version"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("sim ")


# -- progress ----------------------------------------------------------------------------------------------------------


def test_long_work_that_nobody_watches_writes_a_line_now_and_then(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([0.0, 5.0, 11.0, 20.0, 45.0])
    # The module's own name `time` is replaced, not the library's clock: other threads read that one too.
    monkeypatch.setattr("sim.commands.console.time", SimpleNamespace(monotonic=lambda: next(clock)))
    with caplog.at_level(logging.WARNING), progress("tiles") as advance:
        for _ in range(4):
            advance("coded", 8)
    assert [record.getMessage() for record in caplog.records] == [
        "tiles: coded, 2 of 8, 33 s left",
        "tiles: coded, 4 of 8, 45 s left",
    ]


def test_progress_counts_each_stage_of_the_work_anew(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([0.0, 1.0, 2.0, 12.0, 50.0, 90.0])
    monkeypatch.setattr("sim.commands.console.time", SimpleNamespace(monotonic=lambda: next(clock)))
    with caplog.at_level(logging.WARNING), progress("mission") as advance:
        for label, total in (("coded", 2), ("coded", 2), ("coded", 2), ("planned", 4), ("planned", 4)):
            advance(label, total)
    assert [record.getMessage() for record in caplog.records] == [
        "mission: coded, 1 of 2, 10 s left",
        "mission: planned, 1 of 4, 114 s left",
        "mission: planned, 2 of 4, 78 s left",
    ]


# -- the net -----------------------------------------------------------------------------------------------------------


def raises(error: BaseException) -> object:
    raise error


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (InputError("a bad thing"), "sim: a bad thing"),
        (MemoryError("Unable to allocate 3.8 GiB"), "out of memory (Unable to allocate 3.8 GiB); free some"),
        (RuntimeError("std::bad_alloc"), "out of memory (std::bad_alloc)"),
        (
            OSError(errno.ENOSPC, "No space left on device", "/x/packets.bin"),
            "/x/packets.bin: No space left on device; make room",
        ),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "out of memory"),
        (OSError(errno.ENAMETOOLONG, "File name too long", "x" * 5000), "File name too long"),
        (RecursionError("maximum recursion depth exceeded"), "RecursionError"),
        (KeyError("two\nlines"), "KeyError: 'two"),
    ],
)
def test_whatever_goes_wrong_is_one_line_and_exit_2(
    error: BaseException, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert guarded("sim", lambda: raises(error)) == 2
    said = capsys.readouterr().err
    assert words in said and said.count("\n") == 1 and len(said) < 500


def test_a_full_disk_is_told_by_its_name(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    done = subprocess.run(
        f"{sys.executable} -m sim missions --json > /dev/full", shell=True, cwd=ROOT, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    one_line(done, "No space left on device")


def test_a_reader_that_goes_away_is_no_error() -> None:
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {sys.executable} -m sim mission show phisat2 --json | head -c 5"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stderr == ""


# -- files from anywhere -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x = " + "[" * 5000, "not valid TOML"),
        ("x = 1" + "0" * 5000, "not valid TOML"),
        ("name = 'a'\nseed = 1" + "0" * 400, "unknown key 'seed'"),
        (".".join("a" * 100_000) + " = 1", "a key of 100000 parts"),
        ("[" + " . ".join("a" * 50_000) + "]", "a key of 50000 parts"),
        ("x = 1 # " + "y" * 300_000, "longer than 262144 octets"),
        ("# " + "." * 100 + "\nname = 1", "name is 1"),
    ],
)
def test_a_hostile_mission_is_refused_at_once(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "m.toml").write_text(text)
    one_line(run("mission", "check", tmp_path / "m.toml"), "m.toml", words)


def test_huge_numbers_in_a_mission(tmp_path: Path) -> None:
    text = (ROOT / "sim/missions/phisat2.toml").read_text()
    for old in ("swath_px = 4096", "gsd_m = 4.75"):
        assert old in text
        (tmp_path / "m.toml").write_text(text.replace(old, f"{old.split()[0]} = 1{'0' * 400}"))
        one_line(run("mission", "check", tmp_path / "m.toml"), old.split()[0])


def test_fifos_are_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "m.toml")
    one_line(run("mission", "check", tmp_path / "m.toml"), "m.toml")
    os.mkfifo(tmp_path / "report.json")
    one_line(run("audit", tmp_path / "report.json"), "report.json: is no regular file")


def test_deep_and_large_json_is_refused(tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text("[" * 200_000)
    one_line(run("audit", tmp_path / "report.json"), "nested too deeply")
    with (tmp_path / "large.json").open("wb") as file:
        file.truncate(2**27)
    one_line(run("audit", tmp_path / "large.json"), "longer than")


def test_what_a_library_raises_where_nobody_can_catch_it_prints_nothing() -> None:
    """As rasterio does where a message of GDAL is no UTF-8: five lines of a traceback before the one of ours."""
    code = (
        "from sim import cli\n"
        "class Loud:\n    def __del__(self): raise ValueError('nobody hears')\n"
        "cli.app = lambda: [Loud()].clear()\ncli.main()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
