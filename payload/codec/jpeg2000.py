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
from numpy.typing import NDArray

from payload.bundle import Bundle
from payload.codec.interface import PEAK_DN, CodedTile, LatentQuantiser, Quality, to_dn
from payload.codec.rotation import (
    SHIFT_LIMIT,
    Rotation,
    fit,
    pack_rotation,
    rotate,
    rotation_octets,
    unpack_rotation,
    unrotate,
)
from payload.engine import Engine, Network
from payload.errors import InputError, StreamError
from payload.link.tile_code import Kind
from payload.scene import Dn
from payload.stopwatch import Stopwatch
from payload.tiles import Tile, require_tile

OFFSET = 1 << 15
#: Root mean squared error that the trained codec leaves at a step, in steps: what a step means here.
RMSE_PER_STEP = 0.3
#: The comment that OpenJPEG signs with (ISO 15444-1 A.9.2) carries no picture.
COMMENT, TILE_PART = b"\xff\x64", b"\xff\x90"


class FallbackCodec:
    """One layer, coded to a wanted error. Of a bundle it takes the number of bands and the size of a tile."""

    layers = 1
    code_kind = Kind.FALLBACK
    follows_quality = True
    flight_network = None
    ground_network = None
    decodes_alone = True

    def __init__(self, bundle: Bundle, engine: Engine | None = None) -> None:
        self._library = _library()
        self._bands, self._tile_px = len(bundle.bands), bundle.tile_px

    def encode(self, tile: Tile, quality: Quality, watch: Stopwatch) -> CodedTile:
        require_tile(tile, self._bands, self._tile_px)
        rmse_dn = RMSE_PER_STEP * quality.step_dn
        if quality.psnr_db is not None:
            rmse_dn = PEAK_DN * 10 ** (-quality.psnr_db / 20)
        with watch.stage("rotate"):
            rotation = fit(tile.dn, tile.valid)
            rotated = rotate(tile.dn, tile.valid, rotation)
        with watch.stage("fallback"):
            stream = self._library.jpeg2k_encode(
                (rotated + OFFSET).astype(np.uint16),
                level=20 * math.log10(65535 / (rmse_dn * 0.5**rotation.shift)),  # as PSNR at the container's peak
                codecformat="j2k", reversible=False, mct=False, planar=True, numthreads=1,
            )  # fmt: skip
        error = rmse_dn**2 * tile.dn.size
        energy = float((rotated.astype(np.float64) ** 2).sum()) * 4.0**rotation.shift
        side = pack_rotation(rotation) + bytes([rotation.shift])
        return CodedTile(side, (_unsigned(bytes(stream)),), (energy, error))

    def decode(self, side: bytes, layers: tuple[bytes, ...]) -> tuple[Rotation, NDArray[np.uint16]]:
        """The rotation, and rotated values + 32768 [B, T, T]. StreamError where the octets are no such tile."""
        if len(side) != rotation_octets(self._bands) + 1 or side[-1] > SHIFT_LIMIT or len(layers) != 1:
            raise StreamError(f"{len(side)} octets of side information and {len(layers)} layers are no fallback tile")
        try:
            found = np.asarray(self._library.jpeg2k_decode(layers[0], planar=True, numthreads=1))
        except (RuntimeError, ValueError) as error:
            raise StreamError(f"JPEG 2000: {str(error).splitlines()[0][:100]}") from None
        wanted = (self._bands, self._tile_px, self._tile_px)
        if found.shape != wanted or found.dtype != np.uint16:
            raise StreamError(f"JPEG 2000 of {found.dtype} {list(found.shape)}, wanted uint16 {list(wanted)}")
        return unpack_rotation(side[:-1], self._bands, side[-1]), found

    def reconstruct(self, indices: tuple[Rotation, NDArray[np.uint16]], network: Network | None) -> Dn:
        rotation, found = indices
        return to_dn(unrotate(found.astype(np.float32) - OFFSET, rotation))

    def step_of(self, side: bytes, layers: int) -> float:
        """Its edges are not evened out."""
        return 0.0

    def finest(self, indices: tuple[Rotation, NDArray[np.uint16]]) -> NDArray[np.uint16]:
        return indices[1]

    def network_inputs(self, tile: Tile) -> tuple[NDArray[Any], ...]:
        raise InputError("fallback tiles go through no network")

    def latent_quantiser(self, step_dn: float) -> LatentQuantiser:
        raise InputError("fallback tiles go through no network")

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
