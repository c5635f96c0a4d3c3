"""The commands as people type them: what is missing, what is left behind, what is said while one waits."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from typer.testing import CliRunner

from hil.bench.run import RunFolder
from hil.cli import app
from hil.host import tiles_in
from hil.profiles.demand import read_demand
from hil.progress import _Lines
from payload.errors import InputError
from payload.sensor import SENTINEL2_RGBN

ROOT = Path(__file__).parents[2]
#: Python with modules hidden, as the base install has it.
WITHOUT = """
import runpy, sys
class Hide:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {hidden!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Hide())
sys.argv = {arguments!r}
runpy.run_module({module!r}, run_name="__main__", alter_sys=True)
"""
EXTRAS = ("typer", "rich", "jinja2", "rasterio", "scipy", "serial", "asyncssh", "pyvisa", "cryptography")


def base_install(module, *arguments):
    script = WITHOUT.format(hidden=EXTRAS, arguments=[module, *arguments], module=module)
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, cwd=ROOT)


def hil(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "hil", *arguments], capture_output=True, text=True, timeout=120, cwd=ROOT
    )


def test_without_the_extra_help_is_one_line_that_names_it():
    done = base_install("hil", "--help")
    assert done.returncode == 2
    assert done.stderr == "hil: typer is not installed; pip install 'nadir-payload[ground,bench]'\n"


@pytest.mark.parametrize("module", ["hil.agent.serve", "hil"])
def test_the_agent_runs_with_the_base_install(module, tiny_bundle):
    """HELLO over stdin and stdout, with no typer and nothing else of the extras there."""
    from hil.line.protocol import Frame, FrameReader, Type, pack, pack_body, unpack_body

    arguments = [module, *(["agent"] if module == "hil" else []), "--stdio", "--bundle", str(tiny_bundle.directory)]
    script = WITHOUT.format(hidden=EXTRAS, arguments=arguments, module=module)
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT
    ) as agent:
        agent.stdin.write(pack(Frame(Type.HELLO, 1, 1, pack_body({}))))
        agent.stdin.flush()
        reader, replies = FrameReader(), []
        while not replies and (octets := agent.stdout.read1()):
            replies = list(reader.feed(octets))
        agent.stdin.close()
    assert unpack_body(replies[0].body)[0]["bundle"] == "tiny"


def test_version_says_release_protocol_and_code():
    done = hil("--version")
    assert done.returncode == 0
    assert done.stdout.startswith("hil 0.") and ", protocol 2, agent code " in done.stdout


def test_devices_are_listed_with_what_is_missing():
    done = CliRunner().invoke(app, ["devices"], catch_exceptions=False)
    assert done.exit_code == 0
    for url in ("host:", "tcp://", "serial://", "ssh://", "stdio:", "emulated:Haswell"):
        assert url in done.output


@pytest.mark.parametrize("device", ["usb:", "emulated:z80", "tcp://board", "serial:///dev/x?baud=fast"])
def test_a_device_that_cannot_be_leaves_no_folder_behind(device, tmp_path):
    """On the tree before, --out was made first, and blocked the corrected command."""
    done = hil("run", "--device", device, "--scene", "demo", "--out", str(tmp_path / "out"))
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_device_that_refuses_leaves_no_folder_behind(tmp_path):
    done = hil("run", "--device", "stdio:true", "--scene", "demo", "--out", str(tmp_path / "out"))
    assert done.returncode == 2 and "lost after" in done.stderr
    assert not (tmp_path / "out").exists()


def test_starting_anew_removes_what_a_run_wrote_and_nothing_else(tmp_path):
    (tmp_path / "mine.txt").write_text("keep")
    (tmp_path / "report.json").write_text("old")
    RunFolder(tmp_path, {"scene": "s"}, resume=False, overwrite=True).open()
    assert (tmp_path / "mine.txt").read_text() == "keep" and not (tmp_path / "report.json").exists()


def test_two_runs_into_one_folder_are_refused_in_one_line_and_harm_nothing(tmp_path):
    first = RunFolder(tmp_path, {"scene": "s"}, resume=False, overwrite=True)
    first.open()
    (tmp_path / "codes" / "r00000c00000.tile").write_bytes(b"done")
    with pytest.raises(InputError, match="another run writes there"):
        RunFolder(tmp_path, {"scene": "t"}, resume=False, overwrite=True).open()
    assert (tmp_path / "codes" / "r00000c00000.tile").read_bytes() == b"done"
    first.close()
    RunFolder(tmp_path, {"scene": "t"}, resume=False, overwrite=True).open()


def test_a_mission_is_found_by_its_name():
    assert read_demand("phisat2").name == "phisat2"
    assert read_demand("phisat2").realtime_factor == 0.04
    with pytest.raises(InputError, match=r"mission 'phisat3'.*phisat2"):
        read_demand("phisat3")


def test_the_names_of_a_files_bands_reach_the_reader_of_scenes(monkeypatch):
    asked = []

    class Info:
        height_px, width_px = 40, 70

    class Made:
        info = Info

    def reader(where, bands, sensor, *, scale, offset):
        asked.append((where, bands, sensor, scale, offset))
        return Made

    monkeypatch.setattr(tiles_in, "_reader", lambda: reader)
    source = tiles_in.scene_tiles("s.tif", 32, SENTINEL2_RGBN, tiles_in.FileReading(("blue", "green"), 0.5))
    assert asked == [("s.tif", ("blue", "green"), SENTINEL2_RGBN, 0.5, None)]
    assert source.total == 2 * 3


@pytest.mark.parametrize("option", ["--bands", "--scale", "--offset"])
def test_every_command_that_reads_scenes_takes_what_a_file_does_not_say(option):
    for command in ("run", "equal", "profile"):
        assert option in CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "200"}).output


def test_a_log_line_when_piped_and_not_for_every_tile(capsys, monkeypatch):
    clock = iter(np.arange(0.0, 1000.0, 3.0))
    # The module's own name `time` is replaced, not the library's clock: other threads read that one too.
    monkeypatch.setattr("hil.progress.time", SimpleNamespace(monotonic=lambda: float(next(clock))))
    told = _Lines()
    for done in range(1, 11):
        told("tiles", done, 10)
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["tiles: 4 of 10, 14 s left", "tiles: 8 of 10, 5 s left"]
