"""Files of arrays from anywhere: read as numpy wrote them, or refused before they take time or memory."""

import os
import struct
import zipfile
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as some

from payload.array_files import ArrayFileError, read_arrays


@given(some.arrays(st.sampled_from(["<u2", ">f4", "|i1", "<U3"]), some.array_shapes(max_dims=4), elements=None))
def test_what_numpy_writes_is_read_back(tmp_path_factory: pytest.TempPathFactory, array: np.ndarray) -> None:
    path = tmp_path_factory.mktemp("a") / "a.npz"
    np.savez_compressed(path, x=array, order=np.asfortranarray(array))
    found = read_arrays(path, kinds="iufU")
    for name in ("x", "order"):
        assert found[name].shape == array.shape and found[name].dtype == array.dtype.newbyteorder("=")
        np.testing.assert_array_equal(found[name], array)


def test_only_what_is_asked_for_is_read(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.zeros(3), y=np.zeros(3), z=np.array([object()], dtype=object))
    assert set(read_arrays(tmp_path / "a.npz", ("x", "w"))) == {"x"}


def npy(header: str, body: bytes = b"") -> bytes:
    text = header.encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + body


def archive(path: Path, octets: bytes, how: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", how) as file:
        file.writestr("x.npy", octets)
    return path


@pytest.mark.parametrize(
    "octets",
    [
        npy("{'descr': '<u2', 'fortran_order': False, 'shape': (1000000000000, 4), }", bytes(8)),
        npy("{'descr': '<u2', 'fortran_order': False, 'shape': (-1, 4), }", bytes(8)),
        npy("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }", bytes(8)),
        npy("{'descr': '<u2', 'fortran_order': False, 'shape': (4,), }", bytes(7)),
        npy("{'descr': [('a', '<u2')], 'fortran_order': False, 'shape': (4,), }", bytes(8)),
        npy("(" * 60),
        b"\x93NUMPY\x09\x00",
        b"",
    ],
)
def test_headers_that_lie_are_refused(tmp_path: Path, octets: bytes) -> None:
    with pytest.raises(ArrayFileError) as caught:
        read_arrays(archive(tmp_path / "a.npz", octets))
    assert "\n" not in str(caught.value) and len(str(caught.value)) <= 120


def test_a_bomb_is_refused_before_it_is_inflated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("payload.array_files.FREE_OCTETS", 1000)
    stream = BytesIO()
    np.save(stream, np.zeros(2_000_000, np.uint16))
    with pytest.raises(ArrayFileError, match="inflates"):
        read_arrays(archive(tmp_path / "a.npz", stream.getvalue()))
    with pytest.raises(ArrayFileError, match="more than 100 octets"):
        read_arrays(archive(tmp_path / "b.npz", stream.getvalue(), zipfile.ZIP_STORED), most_octets=100)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 0.99])
def test_a_cut_file_is_refused(tmp_path: Path, share: float) -> None:
    path = tmp_path / "a.npz"
    np.savez_compressed(path, x=np.random.default_rng(0).integers(0, 9, 5000))
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(ArrayFileError):
        read_arrays(path)


def test_damage_inside_is_found_by_the_archives_checksum(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, x=np.arange(5000))
    octets = bytearray(path.read_bytes())
    octets[20_000] ^= 1
    path.write_bytes(octets)
    with pytest.raises(ArrayFileError, match="CRC"):
        read_arrays(path)


def nothing(path: Path) -> Any:
    return None


@pytest.mark.parametrize("make", [nothing, Path.mkdir, os.mkfifo], ids=["absent", "folder", "fifo"])
def test_what_is_no_regular_file_is_not_waited_for(tmp_path: Path, make: Any) -> None:
    make(tmp_path / "a.npz")
    with pytest.raises(ArrayFileError):
        read_arrays(tmp_path / "a.npz")
