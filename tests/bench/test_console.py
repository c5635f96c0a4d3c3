"""What the commands of the bench say: notes unless quiet, one line for whatever goes wrong, tracebacks on request."""

import io
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from hil.cli import app
from hil.console import guarded, say, set_up_logging
from hil.host.tiles_in import npz_tiles
from hil.progress import _Lines, progress
from payload.errors import InputError


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    import logging

    root = logging.getLogger()
    before = root.handlers, root.level
    yield
    root.handlers, root.level = before
    root.setLevel(before[1])


def test_quiet_leaves_errors_and_no_notes(capsys) -> None:
    for quiet, said in ((False, "a note\n"), (True, "")):
        set_up_logging("hil", verbose=False, quiet=quiet)
        say("a note")
        assert capsys.readouterr().err == said
    with progress() as told:
        assert not isinstance(told, _Lines)  # nothing is said, however long the work takes


@pytest.mark.parametrize("words", [("-q", "key"), ("key", "--quiet"), ("key", "-q"), ("--quiet", "key")])
def test_quiet_stands_before_or_after_the_command(tmp_path: Path, words, capfd) -> None:
    done = CliRunner().invoke(app, [*words, str(tmp_path / "line.key")])
    assert done.exit_code == 0 and (done.output, capfd.readouterr().err) == ("", "")
    assert (tmp_path / "line.key").stat().st_size > 0


def test_what_nobody_foresaw_is_one_line_and_a_traceback_on_request(capsys) -> None:
    def breaks() -> None:
        raise KeyError("tiles")

    for verbose in (False, True):
        set_up_logging("hil", verbose, quiet=False)
        assert guarded("hil", breaks) == 2
        told = capsys.readouterr().err
        assert told.splitlines()[-1].startswith("hil: KeyError: 'tiles' (at test_console.py:")
        assert ("Traceback" in told) is verbose and (verbose or told.count("\n") == 1)


def test_a_disk_that_refuses_is_one_line_with_its_name(capsys) -> None:
    def breaks() -> None:
        Path("/proc/version/nothing").read_bytes()

    assert guarded("hil", breaks) == 2
    assert capsys.readouterr().err == "hil: /proc/version/nothing: Not a directory\n"


def test_bad_input_of_a_command_is_one_line_and_exit_2(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "hil", "compare", str(tmp_path / "none.json"), "-v"], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (2, "hil: 1 profile given, wanted two or more\n")


def npz(path: Path, **entries: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, octets in entries.items():
            archive.writestr(f"{name}.npy", octets)
    return path


def npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def test_tiles_whose_header_promises_a_terabyte_are_refused_without_trying(tmp_path: Path) -> None:
    """On the tree before, numpy believed the header and asked for the memory."""
    header = npy(np.zeros((2, 4, 8, 8), np.uint16)).replace(b"(2, 4, 8, 8)", b"(2, 4, 9999999, 8)")
    with pytest.raises(InputError, match=r"t\.npz: not a usable \.npz .*wanted x uint16"):
        npz_tiles(npz(tmp_path / "t.npz", x=header), 8, ("B02",) * 4)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"y": np.zeros((1, 4, 8, 8), np.uint16)}, "no array x"),
        ({"x": np.zeros((0, 4, 8, 8), np.uint16)}, "holds nothing"),
        ({"x": np.zeros((1, 4, 8, 8), np.float32)}, "x is float32"),
        ({"x": np.array([{"a": 1}], object)}, "not a usable"),
    ],
)
def test_tiles_that_are_none_are_refused_in_a_line(tmp_path: Path, arrays, message) -> None:
    np.savez(tmp_path / "t.npz", **arrays)
    with pytest.raises(InputError, match=message):
        npz_tiles(tmp_path / "t.npz", 8, ("B02", "B03", "B04", "B08"))


def test_names_of_bands_stored_as_octets_are_names(tmp_path: Path) -> None:
    x = np.arange(2 * 64, dtype=np.uint16).reshape(1, 2, 8, 8)
    np.savez(tmp_path / "t.npz", x=x, bands=np.array([b"B04", b"B02"]))
    (tile,) = npz_tiles(tmp_path / "t.npz", 8, ("B02", "B04")).tiles
    assert np.array_equal(tile.dn, x[0, ::-1])


def test_fill_in_an_npz_is_no_picture(tmp_path: Path) -> None:
    """On the tree before, half-empty tiles counted whole: octets and speeds were those of nothing."""
    x = np.full((2, 2, 8, 8), 900, np.uint16)
    x[0, :, :, 4:] = 0
    x[1, :, 6:] = 65_535
    x[1, 0, 0, 0] = 0  # one band only: a measured pixel
    np.savez(tmp_path / "t.npz", x=x)
    first, second = npz_tiles(tmp_path / "t.npz", 8, ("B02", "B03")).tiles
    assert first.valid[:, :4].all() and not first.valid[:, 4:].any()
    assert second.valid[:6].all() and not second.valid[6:].any()
