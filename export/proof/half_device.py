"""A VPU in simulation, end to end: the payload on FP16 networks, its tile codes decoded, beside the payload on INT8.

What differs in a latent moves an index; what moves an index moves the contexts of those after it, and the octets; what
comes out is compared in pixels. Latents and classes alone: export/proof/half_precision.py.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from export.builds import flight_networks
from export.graphs.ends import Ends, ends_of
from export.graphs.fewer_stages import forms
from export.graphs.graph import load_graph
from export.graphs.to_float import to_float_model
from export.proof.front_ends import feeder_for, front_end_for, quantiser_for
from export.proof.half_precision import PEAK_DN, Agreement, Run, compare, open_half
from export.proof.half_sums import open_half_sums
from export.proof.inputs import TilePool
from payload.bundle import Bundle
from payload.codec.registry import open_codec
from payload.engine import Engine, Network, as_integers, open_engine
from payload.link.tile_code import Kind, TileCode
from payload.pipeline import Payload
from payload.policy import SENDS_EVERYTHING, Policy

#: How sums are kept -> what opens a float network that way.
SUMS: dict[str, Callable[[onnx.ModelProto], Run]] = {"f32": open_half, "FP16": open_half_sums}


class HalfEngine:
    """The float twins of a bundle's networks in simulated FP16, as the payload's runtime."""

    name = "fp16"

    def __init__(self, bundle: Bundle, sums: str) -> None:
        self.version, self._tile_px = f"sums in {sums}", bundle.tile_px

    def load(self, path: Path, require_int8: bool = False, shape: tuple[int, ...] | None = None) -> Network:
        graph = load_graph(path, free_px=self._tile_px)
        *_, form = forms(to_float_model(graph, for_vpu=True)).values()
        return HalfNetwork(SUMS[self.version.removeprefix("sums in ")](form), ends_of(graph))


class HalfNetwork:
    """One network with what the host does at its ends."""

    def __init__(self, run: Run, ends: Ends) -> None:
        self._run, self._ends = run, ends
        self._last: tuple[tuple[NDArray[Any], ...], list[NDArray[Any]]] = (), []  # a tile comes once for every step

    def run(self, *inputs: NDArray[Any]) -> list[NDArray[Any]]:
        given, found = self._last
        if len(given) != len(inputs) or not all(map(np.array_equal, given, inputs)):
            found = self._outputs(inputs)
            self._last = tuple(a.copy() for a in inputs), found
        return [a.copy() for a in found]

    def _outputs(self, inputs: tuple[NDArray[Any], ...]) -> list[NDArray[Any]]:
        bounded = [np.clip(a, end.low, end.high) for a, end in zip(inputs, self._ends.inputs, strict=True)]
        return [as_integers(a, end.dtype) for a, end in zip(self._run(*bounded), self._ends.outputs, strict=True)]


@dataclass(frozen=True)
class EndToEnd:
    """FP16 against INT8 over some tiles at one quantiser step. PSNR: of what is decoded, peak 10 000 DN."""

    sums: str
    step_dn: float
    tiles: int
    indices: int
    differing: int
    octets_int8: int
    octets_half: int
    psnr_int8_db: float
    psnr_half_db: float

    @property
    def agreement_percent(self) -> float:
        return 100.0 * (1 - self.differing / self.indices)


def end_to_end(bundle: Bundle, pool: TilePool, tiles: int, sums: str, steps_dn: Sequence[float]) -> list[EndToEnd]:
    """The payload on both runtimes over the pool's first tiles, one result per step; the gate is left out."""
    runtime = open_engine("onnxruntime")
    codec = open_codec(bundle)
    decoder = None if codec.ground_network is None else runtime.load(bundle.file(codec.ground_network))
    engines: tuple[Engine, Engine] = (runtime, HalfEngine(bundle, sums))
    payloads = [Payload(bundle, Policy(gate=SENDS_EVERYTHING), engine) for engine in engines]
    tallies = {step_dn: _Tally() for step_dn in steps_dn}
    for number in range(tiles):
        tile = pool.tile(number, bundle.tile_px)
        for step_dn, tally in tallies.items():
            found = []
            for payload in payloads:
                payload.policy = Policy(step_dn=step_dn, gate=SENDS_EVERYTHING)
                code = payload.encode_tile(tile)
                indices = codec.decode(code.side, code.layers) if code.kind is Kind.CODED else None
                found.append((code, indices, None if indices is None else codec.reconstruct(indices, decoder)))
            if all(dn is not None for _, _, dn in found):
                tally.add(tile.dn, [(code, codec.finest(i), dn) for code, i, dn in found if dn is not None])
    return [tally.result(sums, step_dn) for step_dn, tally in tallies.items()]


def network_agreement(
    bundle: Bundle, pool: TilePool, tiles: int, sums: str, steps_dn: Sequence[float]
) -> list[Agreement]:
    """Latents and classes of every flight network that the payload has a front end for, FP16 against INT8."""
    agreements = []
    for name in flight_networks(bundle):
        if front_end_for(bundle, name) is not None:
            quantisers = {q.name: q for q in (quantiser_for(bundle, name, step) for step in steps_dn)}
            reference, half = (
                e.load(bundle.file(name)) for e in (open_engine("onnxruntime"), HalfEngine(bundle, sums))
            )
            feeder = feeder_for(bundle, name, pool)
            agreements += compare(name, reference.run, half.run, feeder, tiles, list(quantisers.values()))
    return agreements


class _Tally:
    """Running sums of one comparison; INT8 first, FP16 second."""

    def __init__(self) -> None:
        self.tiles = self.indices = self.differing = self.samples = 0
        self.octets, self.error = [0, 0], [0.0, 0.0]

    def add(self, dn: NDArray[Any], found: Sequence[tuple[TileCode, NDArray[Any], NDArray[Any]]]) -> None:
        (_, wanted, _), (_, half, _) = found
        self.tiles += 1
        self.indices += wanted.size
        self.differing += int(np.count_nonzero(wanted != half))
        self.samples += dn.size
        for which, (code, _, decoded) in enumerate(found):
            self.octets[which] += sum(map(len, code.layers))
            self.error[which] += float(np.square(decoded.astype(np.float64) - dn).sum())

    def result(self, sums: str, step_dn: float) -> EndToEnd:
        psnr = [10 * float(np.log10(PEAK_DN**2 * self.samples / max(error, 1e-9))) for error in self.error]
        return EndToEnd(sums, step_dn, self.tiles, self.indices, self.differing, *self.octets, *psnr)


def as_text(found: Sequence[EndToEnd]) -> str:
    """The comparison as a table."""
    lines = ["FP16 end to end: encoded, entropy coded, decoded; octets and PSNR of INT8, then of FP16"]
    for e in found:
        lines.append(
            f"  sums {e.sums:4} step {e.step_dn:g} DN, {e.tiles} tiles: indices {e.agreement_percent:.4f} % of "
            f"{e.indices}, {e.octets_int8} / {e.octets_half} octets, {e.psnr_int8_db:.3f} / {e.psnr_half_db:.3f} dB"
        )
    return "\n".join(lines)
