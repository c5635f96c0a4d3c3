"""Registration of bands on board: drawn shifts are found, noise is no shift, and the header carries them by hand."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from payload.errors import StreamError
from payload.imager.registration import MovedBands, band_shifts, registered
from payload.link.scene_header import SceneHeader, pack, unpack
from payload.scene import Dn, Mask, SceneInfo
from payload.sensor import RGBN

INFO = SceneInfo("s", 300, 320, RGBN, 10.0)


class Drawn:
    """A scene in memory."""

    def __init__(self, dn: Dn, valid: Mask | None = None) -> None:
        self.dn, self.valid = dn, np.ones(dn.shape[1:], bool) if valid is None else valid
        self.info = replace(INFO, height_px=dn.shape[1], width_px=dn.shape[2])

    def read(self, row_px: int, col_px: int, height_px: int, width_px: int) -> tuple[Dn, Mask]:
        window = slice(row_px, row_px + height_px), slice(col_px, col_px + width_px)
        return self.dn[:, *window], self.valid[window]


def land(seed: int, shifts: tuple[tuple[int, int], ...]) -> Dn:
    """Fields [4, 300, 320] that the last band sees the other way round, each band off by its shift, with noise."""
    random = np.random.default_rng(seed)
    fields = np.kron(random.integers(0, 2000, (40, 40)), np.ones((10, 10)))
    fields = ndimage.gaussian_filter(fields, 0.7)
    planes = [fields[20 + y : 320 + y, 20 + x : 340 + x] for y, x in shifts]
    planes[3] = 2000 - planes[3]
    return np.stack([plane + random.normal(1000, 15, plane.shape) for plane in planes]).astype(np.uint16)


@pytest.mark.parametrize("seed", range(3))
def test_shifts_that_were_drawn_are_found_and_undone(seed: int) -> None:
    shifts = ((0, 0), (0, 1), (2, -1), (-8, 5))
    scene = Drawn(land(seed, shifts))
    found, info = registered(scene)
    assert found == tuple((-y, -x) for y, x in shifts) == info.band_shifts
    assert "registered on board" in info.notes[-1] and "B04 -2 +1" in info.notes[-1]
    dn, valid = MovedBands(scene, found, info).read(40, 50, 100, 120)
    assert valid.all()
    straight = land(seed, ((0, 0),) * 4)[:, 40:140, 50:170].astype(int)
    assert np.abs(dn - straight).mean() < 25  # noise alone


@pytest.mark.parametrize("seed", range(3))
def test_what_shows_nothing_is_not_moved(seed: int) -> None:
    noise = np.random.default_rng(seed).integers(900, 1100, (4, 300, 320)).astype(np.uint16)
    for dn, valid in (
        (noise, None), (np.full((4, 300, 320), 7, np.uint16), None),
        (land(seed, ((0, 0), (3, 3), (0, 0), (0, 0))), np.zeros((300, 320), bool)),
    ):  # fmt: skip
        scene = Drawn(dn, valid)
        assert band_shifts(scene) == ((0, 0),) * 4
        assert registered(scene) == ((), scene.info)


def test_windows_join_and_edges_repeat() -> None:
    dn = np.random.default_rng(1).integers(0, 9000, (4, 60, 70)).astype(np.uint16)
    valid = np.ones((60, 70), bool)
    valid[30, 40] = False
    scene = Drawn(dn, valid)
    moved = MovedBands(scene, ((0, 0), (2, -3), (0, 1), (-1, 0)), scene.info)
    whole, known = moved.read(0, 0, 60, 70)
    assert np.array_equal(whole[1][:58, 3:], dn[1][2:, :67]) and np.array_equal(whole[1][58], whole[1][59])
    assert sorted(map(tuple, np.argwhere(~known))) == [(28, 43), (30, 39), (30, 40), (31, 40)]
    for top, left in ((0, 0), (17, 33), (40, 50)):
        part, mask = moved.read(top, left, 20, 20)
        assert np.array_equal(part, whole[:, top : top + 20, left : left + 20])
        assert np.array_equal(mask, known[top : top + 20, left : left + 20])


def test_the_header_carries_two_signed_octets_a_band() -> None:
    header = SceneHeader(1, 2, 256, replace(INFO, band_shifts=((0, 0), (0, 1), (-2, 3), (-8, 8))))
    field = bytes.fromhex("0a 0008 0000 0001 fe03 f808")
    assert field in pack(header) and unpack(pack(header)).info.band_shifts == header.info.band_shifts
    assert pack(replace(header, info=INFO)).find(b"\x0a\x00\x08") < 0
    with pytest.raises(StreamError, match="3 shifts of 4 bands"):
        unpack(pack(replace(header, info=replace(INFO, band_shifts=((0, 0),) * 3))))
