"""What a tile code decodes to, beside the tile it was made of: the figures that an archive's index keeps."""

from dataclasses import replace

import numpy as np

from payload.link.tile_code import Kind, TileCode
from payload.scene import Dn
from payload.tiles import Tile
from sim.ground.decoder import Decoder
from sim.metrics.distortion import psnr_db

PICTURED = (Kind.CODED, Kind.FALLBACK)


class Proof:
    """Decodes what was coded."""

    def __init__(self, decoder: Decoder) -> None:
        self._decoder, self.samples_per_px = decoder, decoder.samples_per_px

    def of(self, code: TileCode, tile: Tile) -> tuple[float, ...]:
        """PSNR (peak 10 000, all bands, valid pixels) of a tile decoded up to each of its layers."""
        if code.kind not in PICTURED:
            return ()
        depths = range(1, len(code.layers) + 1)
        return tuple(self._psnr_db(replace(code, layers=code.layers[:depth]), tile) for depth in depths)

    def largest_error_dn(self, code: TileCode, tile: Tile) -> int:
        """How far the worst valid sample of a tile is off when all of it is decoded."""
        if code.kind not in PICTURED:
            return 0
        error = self._decoder.decode_tile(code).astype(np.int64) - tile.dn
        return int(np.abs(error[:, tile.valid]).max(initial=0))

    def _psnr_db(self, code: TileCode, tile: Tile) -> float:
        return tile_psnr_db(self._decoder.decode_tile(code), tile)


def tile_psnr_db(found: Dn, tile: Tile) -> float:
    """PSNR (peak 10 000) over a tile's valid pixels, from exact sums."""
    error = found[:, tile.valid].astype(np.int64) - tile.dn[:, tile.valid]
    return psnr_db(int((error * error).sum()) / max(error.size, 1))
