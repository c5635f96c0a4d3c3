"""A tile within a bound: the base picture of its layers in integers, and the residual layer behind them."""

import numpy as np

from payload.codec.interface import CodedTile
from payload.codec.lapped.quantiser import Indices
from payload.codec.lapped.residual import layer
from payload.codec.lapped.residual.base_picture import BasePicture
from payload.codec.lapped.tables import Kernels
from payload.codec.rotation import Rotation
from payload.errors import BundleError, StreamError
from payload.link.tile_code import Bound, crc_of_samples
from payload.policy import MOST_BOUND_DN
from payload.scene import Dn, Mask
from payload.tiles import Tile

#: The base's finest step in companded values, whatever the bound: from 180 to 360 all take the same octets within
#: 0.2 %, finer ones more (docs/codec.md).
BASE_STEP = 256.0


#: What `FsqCodec.decode` gives: rotation and step index, and the indices.
Decoded = tuple[tuple[Rotation, int], Indices]


class Bounded:
    """The residual layers of one bundle."""

    def __init__(self, kernels: Kernels, gamma: float, gain: int, averages_tell: bool = False) -> None:
        self._picture = BasePicture(kernels, gamma, gain, averages_tell)

    def behind(self, coded: CodedTile, decoded: Decoded, tile: Tile, bound_dn: int) -> CodedTile:
        """A tile that was coded, with its residual layer. `decoded` as the ground decodes it. BundleError where the
        bound would not hold, which only memory that was hit can do."""
        base = self._base(decoded)
        octets, found = layer.encode(tile.dn, base, tile.valid, bound_dn)
        largest = int(np.abs(found.astype(np.int64) - tile.dn)[:, tile.valid].max())
        if largest > bound_dn:
            raise BundleError(f"a sample would be off by {largest} DN, wanted {bound_dn}; load the bundle again")
        bound = Bound(bound_dn, crc_of_samples(found, tile.valid))
        return CodedTile(coded.side, (*coded.layers, octets), bound=bound)

    def _base(self, decoded: Decoded) -> Dn:
        (rotation, step_index), indices = decoded
        return self._picture.of(indices, rotation, step_index)

    def tile(self, decoded: Decoded, octets: bytes, valid: Mask, bound: Bound) -> Dn:
        """DN uint16 [B, T, T]. StreamError where the samples are not those that were sent."""
        if bound.error_dn > MOST_BOUND_DN:
            raise StreamError(f"a bound of {bound.error_dn} DN, wanted {MOST_BOUND_DN} at most")
        found = layer.decode(octets, self._base(decoded), valid, bound.error_dn)
        if crc_of_samples(found, valid) != bound.samples_crc:
            raise StreamError("the samples are not those that were sent: their checksum does not match")
        return found
