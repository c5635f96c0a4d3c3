"""The payload as the agent sees it: a tile in, octets out. Behind it the real pipeline, or a fake in tests."""

from pathlib import Path
from typing import Protocol

from hil.agent import myriad
from payload.bundle import load_bundle
from payload.engine import NATIVE, Engine, open_engine
from payload.link.tile_code import pack
from payload.native import library
from payload.pipeline import Payload
from payload.policy import Policy
from payload.tiles import Tile


class TileEncoder(Protocol):
    """Encodes tiles one at a time."""

    engine: str  # name and release of the runtime
    ran: dict[str, str]  # part of the payload -> what computes it here
    kind: str  # what became of the last tile
    stages_s: dict[str, float]  # of the last tile, in order

    def encode(self, tile: Tile) -> bytes:
        """The tile code's octets."""
        ...


class PayloadEncoder:
    """What flies, on this machine's runtime."""

    def __init__(self, bundle: Path, policy: Policy, engine: str, threads: int) -> None:
        loaded = load_bundle(bundle, flight_only=True)
        runtime: Engine = myriad.MyriadEngine(loaded) if engine == myriad.NAME else open_engine(engine, threads)
        self.engine = f"{runtime.name} {runtime.version.partition('-')[0]}"  # without the build's hash
        kernel = "compiled kernel" if library.available else "numpy"
        encoder = kernel if runtime.name == NATIVE else self.engine
        self.ran = {"own code": kernel, "encoder network": encoder, "cloud network": self.engine}
        self.stages_s: dict[str, float] = {}
        self.kind = ""
        self._payload = Payload(loaded, policy, runtime)

    def encode(self, tile: Tile) -> bytes:
        code = self._payload.encode_tile(tile)
        octets = pack(code)
        self.kind, self.stages_s = code.kind.name.lower(), dict(self._payload.last_stages)
        return octets
