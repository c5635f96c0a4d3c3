"""A tile without the bundle's networks: spectral rotation, then JPEG 2000. Code kind FALLBACK.

For tiles on which the trained codec does worse than that (mission rule `compare`), and for whole scenes when the bundle
on board fails its checks (rule `broken`). Nothing here reads a bundle. OpenJPEG comes in imagecodecs, which is needed
only where a mission asks for this.

Side information: means 16 bits each, angles 12 bits each (payload/codec/rotation.py), shift 8. One layer: a JPEG 2000
codestream (9/7, all bands as components) of rotated values + 32768.
"""

import math
from typing import Any

import numpy as np

from payload.codec.interface import Coded, Quality, Stopwatch
from payload.codec.lapped.codec import PEAK_DN, pack_rotation, rotation_octets, unpack_rotation
from payload.codec.rotation import SHIFT_LIMIT, fit, rotate, unrotate
from payload.errors import InputError, StreamError
from payload.scene import Dn
from payload.tiles import Tile, require_tile

OFFSET = 1 << 15
#: Root mean squared error that the trained codec leaves at a step, in steps: what a step means here.
RMSE_PER_STEP = 0.3
#: The comment that OpenJPEG signs with (ISO 15444-1 A.9.2) carries no picture.
COMMENT, TILE_PART = b"\xff\x64", b"\xff\x90"


class FallbackCodec:
    """The codec of no bundle. One layer, coded to a wanted error."""

    layers = 1

    def __init__(self, bands: int, tile_px: int) -> None:
        self._library = _library()
        self._bands, self._tile_px = bands, tile_px

    def encode(self, tile: Tile, quality: Quality, watch: Stopwatch) -> Coded:
        require_tile(tile, self._bands, self._tile_px)
        rmse_dn = RMSE_PER_STEP * quality.step_dn
        if quality.psnr_db is not None:
            rmse_dn = PEAK_DN * 10 ** (-quality.psnr_db / 20)
        with watch.stage("rotate"):
            turned = fit(tile.dn, tile.valid)
            rotated = rotate(tile.dn, tile.valid, turned)
        with watch.stage("fallback"):
            stream = self._library.jpeg2k_encode(
                (rotated + OFFSET).astype(np.uint16),
                level=20 * math.log10(65535 / (rmse_dn * 0.5**turned.shift)),  # wanted as PSNR at the container's peak
                codecformat="j2k", reversible=False, mct=False, planar=True, numthreads=1,
            )  # fmt: skip
        error = rmse_dn**2 * tile.dn.size
        energy = float((rotated.astype(np.float64) ** 2).sum()) * 4.0**turned.shift
        return Coded(pack_rotation(turned) + bytes([turned.shift]), (_unsigned(bytes(stream)),), (energy, error))

    def decode(self, side: bytes, layers: tuple[bytes, ...]) -> tuple[Dn, None]:
        """DN uint16 [B, T, T]. StreamError where the octets are no such tile."""
        if len(side) != rotation_octets(self._bands) + 1 or side[-1] > SHIFT_LIMIT or len(layers) != 1:
            raise StreamError(f"{len(side)} octets of side information and {len(layers)} layers are no fallback tile")
        try:
            found = np.asarray(self._library.jpeg2k_decode(layers[0], planar=True, numthreads=1))
        except (RuntimeError, ValueError) as error:
            raise StreamError(f"JPEG 2000: {str(error).splitlines()[0][:100]}") from None
        wanted = (self._bands, self._tile_px, self._tile_px)
        if found.shape != wanted or found.dtype != np.uint16:
            raise StreamError(f"JPEG 2000 of {found.dtype} {list(found.shape)}, wanted uint16 {list(wanted)}")
        turned = unpack_rotation(side[:-1], self._bands, side[-1])
        dn = unrotate(found.astype(np.float32) - OFFSET, turned)
        return np.clip(np.rint(dn), 0, 65535).astype(np.uint16), None

    def shorten(self, layers: tuple[bytes, ...], octets: int) -> tuple[bytes, ...]:
        """A codestream comes whole or not at all."""
        return layers


def _library() -> Any:
    try:
        import imagecodecs
    except ImportError:
        raise InputError("fallback tiles need imagecodecs; pip install it, or set fallback = 'never'") from None
    return imagecodecs


def _unsigned(stream: bytes) -> bytes:
    at = stream.find(COMMENT)
    if not 0 <= at < stream.find(TILE_PART):
        return stream
    return stream[:at] + stream[at + 2 + int.from_bytes(stream[at + 2 : at + 4], "big") :]
