"""Tile codes, cut to so many layers -> small PNGs: the ground's decoder at work, a tile at a time."""

import io
import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import replace
from math import ceil

import numpy as np
from PIL import Image

from payload.bundle import Bundle
from payload.engine import Engine
from payload.errors import StreamError
from payload.link.tile_code import TileCode
from payload.link.valid_mask import unpack_mask
from sim.ground.decoder import Decoder
from sim.ground.reception import PICTURED
from sim.products.band_facts import picture_bands

#: Longest side of the whole scene on the page.
LONGEST_SIDE_PX = 1600
#: DN shown as white, and the exponent: one for all tiles, as no tile knows the others.
WHITE_DN, GAMMA = 3000.0, 0.8
MOST_KEPT = 4096


class TilePictures:
    """PNGs of tiles. `codes` may grow meanwhile; one thread decodes at a time."""

    def __init__(
        self, codes: Mapping[tuple[int, int], TileCode], bundle: Bundle, engine: Engine, scene_px: int
    ) -> None:
        self._codes, self._lock = codes, threading.Lock()
        self._decoder = Decoder(bundle, engine)
        self._rgb = list(picture_bands(bundle.sensor))
        self._step = max(1, ceil(scene_px / LONGEST_SIDE_PX))
        self._kept: OrderedDict[tuple[int, int, int], bytes] = OrderedDict()

    def png(self, row: int, col: int, layers: int) -> bytes | None:
        """The tile as its first `layers` layers give it; None where they are not here, or decode to nothing."""
        code = self._codes.get((row, col))
        if code is None or code.kind not in PICTURED or not 1 <= layers <= len(code.layers):
            return None
        with self._lock:
            key = (row, col, layers)
            if key not in self._kept:
                try:
                    self._kept[key] = self._decoded(replace(code, layers=code.layers[:layers]))
                except StreamError:
                    return None
                if len(self._kept) > MOST_KEPT:
                    self._kept.popitem(last=False)
            return self._kept[key]

    def _decoded(self, code: TileCode) -> bytes:
        dn = self._decoder.decode_tile(code)[self._rgb][:, :: self._step, :: self._step]  # [3, h, w]
        known = unpack_mask(code.mask, self._decoder.tile_px)[:: self._step, :: self._step]
        shade = np.rint(255 * np.clip(dn / WHITE_DN, 0, 1) ** GAMMA).astype(np.uint8)
        picture = np.dstack([*shade, np.where(known, 255, 0).astype(np.uint8)])  # [h, w, 4]
        file = io.BytesIO()
        Image.fromarray(picture, "RGBA").save(file, format="PNG", compress_level=1)
        return file.getvalue()
