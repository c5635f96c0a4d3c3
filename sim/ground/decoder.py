"""Tile codes -> tiles of DN, with the ground part of a bundle.

tile code -> indices -> levels -> decoder network -> rotated bands -> DN
"""

import time
from functools import cached_property

from payload.bundle import Bundle
from payload.codec.interface import Codec
from payload.codec.registry import open_codec, open_fallback
from payload.engine import Engine, Network
from payload.errors import StreamError
from payload.link.tile_code import Kind, TileCode
from payload.scene import Dn


class Decoder:
    """Tile codes -> tiles, with the ground part of a bundle. Fallback tiles need no bundle."""

    def __init__(self, bundle: Bundle, engine: Engine) -> None:
        self._bundle, self._codec = bundle, open_codec(bundle)
        self.tile_px, self.bands = bundle.tile_px, len(bundle.bands)
        file = self._codec.ground_network
        self._network = None if file is None else engine.load(bundle.file(file))
        self._decoded_px, self._seconds = 0, 0.0  # of tiles that went through the network; of the processor

    def decode_tile(self, code: TileCode) -> Dn:
        """DN uint16 [B, T, T]. StreamError if the octets make no sense: nothing is invented."""
        codec, network = self._for(code)
        start_s = time.process_time()
        dn = codec.reconstruct(codec.decode(code.side, code.layers), network)
        if network is not None:
            self._decoded_px += self.tile_px**2
            self._seconds += time.process_time() - start_s
        return dn

    @property
    def speed_mpx_s(self) -> float | None:
        """Mpx a second of the processor, tile code to DN, over the tiles decoded so far; None before the first."""
        return self._decoded_px / self._seconds / 1e6 if self._seconds else None

    def step_of(self, code: TileCode) -> float:
        """Quantiser step of a tile as decoded, in DN: how far its pixels may be off."""
        codec, _ = self._for(code)
        return codec.step_of(code.side, len(code.layers))

    @cached_property
    def _fallback(self) -> Codec:
        return open_fallback(self._bundle)

    def _for(self, code: TileCode) -> tuple[Codec, Network | None]:
        if code.kind is Kind.FALLBACK:
            return self._fallback, None
        if self._codec.code_kind is Kind.FALLBACK:
            raise StreamError("coded with a bundle that this ground does not hold")
        return self._codec, self._network
