"""Of two codes of a tile the one of fewer octets, at the same error."""

import numpy as np

from payload.codec.interface import PEAK_DN, Codec, CodedTile, Quality
from payload.link.tile_code import Kind
from payload.stopwatch import Stopwatch
from payload.tiles import Tile


def shorter(
    tile: Tile, coded: CodedTile, codec: Codec, other: Codec | None, watch: Stopwatch
) -> tuple[Kind, CodedTile]:
    """`coded` as `codec` made it, or the tile by `other` where that says the same in fewer octets."""
    if other is None or not coded.errors:
        return codec.code_kind, coded
    mse = max(coded.errors[-1] / (len(tile.dn) * np.count_nonzero(tile.valid)), 1e-3)
    wanted = Quality(psnr_db=10 * np.log10(PEAK_DN**2 / mse))
    again = other.encode(tile, wanted, watch)
    chosen, code = (other, again) if again.octets < coded.octets else (codec, coded)
    return chosen.code_kind, code
