"""KLT + JPEG 2000 of more than four bands: side information as short as the payload's, and what comes back."""

import numpy as np
import pytest

from sim.compare.classical import KltJpeg2000, unpack_streams
from sim.compare.klt import Klt, side_octets


def bands_of(count: int) -> np.ndarray:
    rng = np.random.default_rng(count)
    y, x = np.mgrid[:64, :64]
    pictures = np.stack([np.sin(x / (5 + k)) * np.cos(y / (9 - k)) for k in range(3)])
    mixed = np.einsum("bk,kyx->byx", rng.normal(size=(count, 3)), pictures)
    return np.clip(2000 + 300 * mixed + rng.normal(0, 4, mixed.shape), 0, 65535).astype(np.uint16)


@pytest.mark.parametrize(("bands", "octets"), [(4, 80), (12, 2 * 12 + 99 + 4), (13, 2 * 13 + 117 + 4)])
def test_the_basis_of_more_than_four_bands_is_sent_as_angles(bands: int, octets: int) -> None:
    dn = bands_of(bands)
    packed = Klt.fit(dn, 32_700).pack()
    assert len(packed) == octets == side_octets(bands, packed)


@pytest.mark.parametrize("bands", [5, 12, 40])
@pytest.mark.parametrize("joint", [False, True])
def test_many_bands_come_back_as_near_as_was_asked(bands: int, joint: bool) -> None:
    dn = bands_of(bands)
    codec = KltJpeg2000(joint=joint)
    octets = codec.encode(dn, 10.0)
    error = np.sqrt(((codec.decode(octets).astype(float) - dn) ** 2).mean())
    assert error < 12 and len(octets) < dn.nbytes / 8
    assert len(unpack_streams(octets[1 + side_octets(bands, octets[1:]) :])) == (1 if joint else bands)
