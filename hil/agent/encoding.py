"""The payload as the agent sees it: a tile in, octets out. Behind it the real pipeline, or a fake in tests."""

from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from hil.agent.blobs import myriad
from hil.agent.ceilings import best_of, ceilings
from hil.agent.layers import batched, network_times
from payload.bundle import load_bundle
from payload.clouds.gate import detect_clouds
from payload.clouds.layered import LayeredNetwork
from payload.engine import NATIVE, Engine, open_engine
from payload.link.tile_code import pack
from payload.memory import RunsInside
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
        self._runtime = runtime.name
        self.engine = f"{runtime.name} {runtime.version.partition('-')[0]}"  # without the build's hash
        kernel = "compiled kernel" if library.available else "numpy"
        self.stages_s: dict[str, float] = {}
        self.kind = ""
        self._payload = Payload(loaded, policy, runtime)
        encoder = kernel if runtime.name == NATIVE else self.engine
        net = self._payload.clouds
        clouds = kernel if net is not None and isinstance(net.network, LayeredNetwork) else self.engine
        self.ran = {"own code": kernel, "encoder network": encoder, "cloud network": clouds}

    def encode(self, tile: Tile) -> bytes:
        code = self._payload.encode_tile(tile)
        octets = pack(code)
        self.kind, self.stages_s = code.kind.name.lower(), dict(self._payload.last_stages)
        return octets

    def mask(self, tile: Tile) -> bytes | None:
        """A bit for every pixel that the cloud network takes for cloud; None where the bundle has none."""
        net = self._payload.clouds
        return None if net is None else np.packbits(detect_clouds(tile, net).cloudy).tobytes()

    def networks(self, tile: Tile, threads: int, batch: int, runs: int, layers: bool) -> dict[str, Any]:
        """Every flight network that a runtime runs, alone: as JSON values. With `layers`, the ceilings too."""
        before = ceilings(self._runtime, threads) if layers else None
        found = [self._network(inside, threads, batch, runs, layers) for inside in self._inside(tile)]
        best = before and best_of(before, ceilings(self._runtime, threads))
        return {"networks": found, "ceilings": best, "why": ""}

    def _inside(self, tile: Tile) -> Iterator[RunsInside]:
        parts = [self._payload.codec, *([self._payload.clouds] if self._payload.clouds else [])]
        return chain.from_iterable(part.runs_inside(tile) for part in parts if hasattr(part, "runs_inside"))

    def _network(self, inside: RunsInside, threads: int, batch: int, runs: int, layers: bool) -> dict[str, Any]:
        inputs = batched(inside.inputs, batch)
        told = {"name": inside.name, "shapes": [list(array.shape) for array in inputs]}
        try:
            path = self._payload.bundle.file(f"flight/{inside.name}.onnx")
            times = network_times(path, inputs, self._runtime, threads, runs, layers)
        except Exception as error:  # runtimes raise families of their own; the host hears why there are no times
            return told | {"run_s": [], "layers": [], "why": " ".join(str(error).split())[-200:]}
        return told | times.fields() | {"why": ""}
