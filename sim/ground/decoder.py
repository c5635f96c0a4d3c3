"""Tile codes -> tiles of DN, with the ground part of a bundle.

tile code -> indices -> levels -> decoder network -> rotated bands -> DN

Three decoders read the same octets: `fast` undoes the transform and runs no network, `full` runs the bundle's network
for some tenths of a decibel more, `best` asks it about all eight turns of a tile.
"""

import threading
import time

from payload.bundle import Bundle
from payload.codec.interface import Bounding, Codec, Grid, NativeGrids
from payload.codec.registry import open_codec, open_fallback
from payload.engine import Engine, Network
from payload.errors import InputError, StreamError
from payload.link.tile_code import Kind, TileCode
from payload.link.valid_mask import unpack_mask
from payload.scene import Dn
from payload.sensor import Sensor
from sim.ground.averaged_network import AveragedNetwork
from sim.ground.residual_network import open_network

FAST, FULL, BEST = "fast", "full", "best"
DECODERS = (FAST, FULL, BEST)
#: Not a decoder: `full`, and `fast` for a scene of more pixels than LARGE_PX, where the bundle has it.
AUTO = "auto"
LARGE_PX = 1 << 25


class Decoder:
    """Tile codes -> tiles, with the ground part of a bundle. Fallback tiles need no bundle."""

    def __init__(self, bundle: Bundle, engine: Engine, kind: str = FULL) -> None:
        self._bundle, self.engine, self.kind = bundle, engine, kind
        self.name, self.tile_px, self.bands = bundle.name, bundle.tile_px, len(bundle.bands)
        self._threads, self._lock = threading.local(), threading.Lock()
        self._decoded_px, self._seconds = 0, 0.0  # of tiles of the bundle's codec; of the processor
        self.own()  # a bundle that has no such decoder is refused now

    def decode_tile(self, code: TileCode) -> Dn:
        """DN uint16 [B, T, T]. StreamError if the octets make no sense: nothing is invented. Any thread may ask."""
        codec, network = self.opened_for(code)
        start_s = time.thread_time()
        if code.bound is not None and code.bounded:
            dn = _bounding(codec).reconstruct_bounded(
                code.side, code.layers, unpack_mask(code.mask, self.tile_px), code.bound
            )
        else:
            dn = codec.reconstruct(codec.decode(code.side, code.layers), network)
        if code.kind is not Kind.FALLBACK:
            with self._lock:
                self._decoded_px += self.tile_px**2
                self._seconds += time.thread_time() - start_s
        return dn

    @property
    def speed_mpx_s(self) -> float | None:
        """Mpx a second of the processor, tile code to DN, over the tiles decoded so far; None before the first."""
        return self._decoded_px / self._seconds / 1e6 if self._seconds else None

    @property
    def sensor(self) -> Sensor:
        """Whose bands it gives."""
        return self._bundle.sensor

    @property
    def grids(self) -> tuple[Grid, ...]:
        """Of a picture whose bands have several resolutions; none of a usual one."""
        codec, _ = self.own()
        return codec.grids if isinstance(codec, NativeGrids) else ()

    @property
    def samples_per_px(self) -> float:
        """Samples that were measured for each pixel of the finest grid."""
        return sum(len(grid.places) / grid.times**2 for grid in self.grids) or float(self.bands)

    def step_of(self, code: TileCode) -> float:
        """Quantiser step of a tile as decoded, in DN: how far its pixels may be off. 0 for one within its bound:
        nothing may move its pixels."""
        codec, _ = self.opened_for(code)
        return 0.0 if code.bounded else codec.step_of(code.side, len(code.layers))

    def opened_for(self, code: TileCode) -> tuple[Codec, Network | None]:
        """The codec and the network that decode a tile, of this thread. StreamError where this ground has none."""
        if code.kind is Kind.FALLBACK:
            if not hasattr(self._threads, "fallback"):
                self._threads.fallback = open_fallback(self._bundle)
            return self._threads.fallback, None
        codec, network = self.own()
        if codec.code_kind is Kind.FALLBACK:
            raise StreamError("coded with a bundle that this ground does not hold")
        return codec, network

    def own(self) -> tuple[Codec, Network | None]:
        """The bundle's codec and network, of this thread: both have memory that they write to."""
        if not hasattr(self._threads, "own"):
            codec = open_codec(self._bundle)
            file = network_of(self._bundle, codec, self.kind)
            network = None if file is None else open_network(self._bundle.file(file), self.engine)
            if network is not None and self.kind == BEST:
                network = AveragedNetwork(network)
            self._threads.own = codec, network
        own: tuple[Codec, Network | None] = self._threads.own
        return own


def decoder_for(asked: str, pixels: int, bundle: Bundle) -> tuple[str, tuple[str, ...]]:
    """The decoder that is meant for a scene of so many pixels, and what is to be said of it where AUTO chose `fast`."""
    if asked != AUTO:
        return asked, ()
    codec = open_codec(bundle)
    if pixels <= LARGE_PX or codec.ground_network is None or not getattr(codec, "decodes_alone", False):
        return FULL, ()
    why = f"decoded by the fast decoder: {pixels / 1e6:.0f} Mpx are more than {LARGE_PX / 1e6:.0f}"
    return FAST, (f"{why}; --decoder full gives some tenths of a decibel more at ten times the work",)


def _bounding(codec: Codec) -> Bounding:
    if not isinstance(codec, Bounding):
        raise StreamError("a residual layer, which the codec of this bundle does not read")
    return codec


def network_of(bundle: Bundle, codec: Codec, kind: str) -> str | None:
    """The file of the network that a decoder runs; None where it runs none. InputError where a bundle has no such
    decoder, or there is none of that name."""
    if kind not in DECODERS:
        raise InputError(f"decoder {kind[:60]!r} is unknown; choose one of {', '.join(DECODERS)}")
    if kind == FULL or codec.ground_network is None:
        return codec.ground_network
    if not getattr(codec, "decodes_alone", False):
        raise InputError(f"bundle {bundle.name} has no decoder {kind!r}; choose {FULL}")
    return None if kind == FAST else codec.ground_network
