"""The output folder: whole or absent, held by one run, and nothing in it deleted that is not a run's."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from payload.errors import InputError
from sim.products.delivery import whole_or_nothing

ROOT = Path(__file__).resolve().parents[2]


def fill(folder: Path, text: str = "{}") -> None:
    (folder / "report.json").write_text(text)
    (folder / "packets.bin").write_bytes(b"\0")


def listing(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_it_appears_whole(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    with whole_or_nothing(out, False) as folder:
        fill(folder)
        assert not out.exists()
    assert listing(tmp_path) == ["deep", "deep/out", "deep/out/packets.bin", "deep/out/report.json"]


def test_it_vanishes_with_every_folder_that_was_made_for_it(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), whole_or_nothing(tmp_path / "deep" / "out", False) as folder:
        fill(folder)
        raise RuntimeError
    assert listing(tmp_path) == []


def test_an_earlier_run_is_replaced_only_with_leave(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with whole_or_nothing(out, False) as folder:
        fill(folder, "old")
    with pytest.raises(InputError, match=r"already there.*--overwrite"), whole_or_nothing(out, False):
        pass
    with whole_or_nothing(out, True) as folder:
        fill(folder, "new")
    assert (out / "report.json").read_text() == "new" and os.listdir(tmp_path) == ["out"]  # noqa: PTH208


@pytest.mark.parametrize("name", ["thesis.tex", "holiday.png", "scenes/report.json"])
def test_what_is_no_runs_is_never_deleted(tmp_path: Path, name: str) -> None:
    out = tmp_path / "out"
    (out / name).parent.mkdir(parents=True)
    fill(out)
    (out / name).write_text("precious")
    with pytest.raises(InputError, match=f"{name} among them"), whole_or_nothing(out, True):
        pass
    assert (out / name).read_text() == "precious"


def test_scenes_of_a_received_stream_are_a_runs(tmp_path: Path) -> None:
    out = tmp_path / "out"
    (out / "0123abcd").mkdir(parents=True)
    fill(out / "0123abcd")
    with whole_or_nothing(out, True) as folder:
        fill(folder)
    assert listing(out) == ["packets.bin", "report.json"]


def test_a_second_run_into_the_same_folder_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with whole_or_nothing(out, True) as folder:
        fill(folder, "first")
        with pytest.raises(InputError, match="another run is writing there"), whole_or_nothing(out, True):
            pass
    assert (out / "report.json").read_text() == "first" and listing(tmp_path)[0] == "out"


def test_what_came_there_during_the_run_stays_and_so_does_the_result(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with (
        pytest.raises(InputError, match=r"thesis\.tex among them.*result is in .*out-1"),
        whole_or_nothing(out, True) as folder,
    ):
        fill(folder)
        out.mkdir()
        (out / "thesis.tex").write_text("precious")
    assert listing(tmp_path) == ["out", "out-1", "out-1/packets.bin", "out-1/report.json", "out/thesis.tex"]


def test_a_link_to_a_folder_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    fill(tmp_path / "real", "old")
    (tmp_path / "out").symlink_to("real")
    with whole_or_nothing(tmp_path / "out", True) as folder:
        fill(folder, "new")
    assert (tmp_path / "out").is_symlink() and (tmp_path / "real" / "report.json").read_text() == "new"


RUN = """
import sys, time
from pathlib import Path
from sim.products.delivery import whole_or_nothing
{before}
with whole_or_nothing(Path(sys.argv[1]), True) as folder:
    (folder / "report.json").write_text("half")
    print("writing", flush=True)
    time.sleep(60)
"""


def interrupted(out: Path, how: signal.Signals, before: str = "") -> subprocess.Popen[str]:
    """A run that got this signal while it was writing."""
    process = subprocess.Popen(
        [sys.executable, "-c", RUN.format(before=before), out],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None and process.stdout.readline() == "writing\n"
    process.send_signal(how)
    process.wait(timeout=30)
    return process


def test_the_next_run_removes_what_a_kill_left_and_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    out = tmp_path / "out"
    interrupted(out, signal.SIGKILL)
    assert any(name.startswith(".out.") and name.endswith(".part") for name in listing(tmp_path))
    (tmp_path / ".out.notours").mkdir()
    (tmp_path / ".outer.abcdefgh.part").mkdir()  # another run's
    with whole_or_nothing(out, False) as folder:
        fill(folder)
    assert "left by a run that was killed" in caplog.text
    assert listing(tmp_path) == [
        ".out.notours", ".outer.abcdefgh.part", "out", "out/packets.bin", "out/report.json",
    ]  # fmt: skip


def test_of_two_runs_at_once_one_is_told(tmp_path: Path) -> None:
    """Whichever comes second is refused, and the other one's result is there."""
    code = RUN.format(before="").replace("time.sleep(60)", "time.sleep(3)")
    runs = [
        subprocess.Popen([sys.executable, "-c", code, tmp_path / "out"], cwd=ROOT, stdout=-1, stderr=-1, text=True)
        for _ in range(2)
    ]
    start = time.monotonic()
    ended = [run.communicate(timeout=60) for run in runs]
    assert time.monotonic() - start < 60
    assert sorted(run.returncode for run in runs) == [0, 1]
    assert any("another run is writing there" in errors for _, errors in ended)
    assert listing(tmp_path) == ["out", "out/report.json"]


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_run_that_is_asked_to_stop_cleans_up_and_says_so_in_one_line(tmp_path: Path, how: signal.Signals) -> None:
    if signal.getsignal(how) is signal.SIG_IGN:
        pytest.skip(f"{how.name} is ignored here, as nohup asks for, and so it stays below")
    before = "from sim.commands.console import stop_on_signals; stop_on_signals('sim')"
    process = interrupted(tmp_path / "out", how, before)
    assert process.returncode == 128 + how and listing(tmp_path) == []
    assert process.stderr is not None
    said = process.stderr.read()
    assert said.count("\n") == 1 and said.startswith("sim: stopped") and how.name in said
