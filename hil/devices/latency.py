"""The one latency model: what a tile asks of a device, and how long that takes and what it draws.

    latency = calls x start + MACs / rate + stages x overhead + octets moved / bandwidth      energy = latency x power

for a low, a middle and a high assumption. `sim`, `python -m export targets` and `compile` all ask here. A bundle's
manifest says what its networks ask (export/bundle/assemble.py writes it); where the Myriad's compiler has run,
`compiled.json` beside the manifest holds what it made, and that counts.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hil.devices.targets import Target
from payload.bundle import Bundle
from payload.errors import InputError

#: What the model counts and what it leaves out, in one sentence for every report.
STATEMENT = (
    "counted are the flight networks and the codec's context model (multiply-accumulates, stages, memory traffic); "
    "rotation, quantiser, range coder, packets, reading and idle are left out, so time and energy are lower bounds"
)
GATE = "flight/clouds.onnx"
#: Networks of applications: what they cost is counted as they work, not with every tile.
APPS = "flight/apps/"
COMPILED_FILE = "compiled.json"
#: Build of a bundle -> the precision its networks run in.
PRECISIONS = {"int8-po2w7": "int8", "fp16-vpu": "fp16", "fp32": "fp32"}


@dataclass(frozen=True)
class Work:
    """What something asks of a device. `entropy_macs`: of the context model, which runs beside the networks.

    `stages`: steps that the device starts one by one; None where nobody counted them. `calls`: of a network as a whole.
    """

    macs: float = 0.0
    stages: float | None = 0.0
    octets_moved: float = 0.0
    entropy_macs: float = 0.0
    calls: float = 0.0

    def __add__(self, other: "Work") -> "Work":
        stages = None if self.stages is None or other.stages is None else self.stages + other.stages
        moved, entropy = self.octets_moved + other.octets_moved, self.entropy_macs + other.entropy_macs
        return Work(self.macs + other.macs, stages, moved, entropy, self.calls + other.calls)

    def times(self, count: float) -> "Work":
        stages = None if self.stages is None else count * self.stages
        moved, entropy = count * self.octets_moved, count * self.entropy_macs
        return Work(count * self.macs, stages, moved, entropy, count * self.calls)


@dataclass(frozen=True)
class Estimate:
    """Modelled latency and energy of some work: at the optimistic end, in the middle, at the pessimistic end."""

    latency_ms: tuple[float, float, float]
    energy_mj: tuple[float, float, float]


def estimate(target: Target, work: Work) -> Estimate:
    """The model. The context model's multiply-accumulates run at the networks' rate, which is kind to it."""
    rate, overhead = target.figure("rate_gmac_per_s"), target.figure("stage_overhead_us")
    bandwidth, power, start = target.figure("bandwidth_gb_per_s"), target.figure("power_w"), target.call_overhead
    macs, stages = work.macs + work.entropy_macs, work.stages or 0.0

    def latency(c: float, r: float, o: float, b: float) -> float:
        return work.calls * c / 1e3 + macs / (r * 1e6) + stages * o / 1e3 + work.octets_moved / (b * 1e6)

    ms = (
        latency(start.low, rate.high, overhead.low, bandwidth.high),
        latency(start.mid, rate.mid, overhead.mid, bandwidth.mid),
        latency(start.high, rate.low, overhead.high, bandwidth.low),
    )
    return Estimate(ms, (ms[0] * power.low, ms[1] * power.mid, ms[2] * power.high))


def network_work(bundle: Bundle, name: str, target: Target) -> Work:
    """One run of a flight network on a tile of the bundle's own size. InputError if the bundle has no such network."""
    networks = bundle.manifest.get("networks", {})
    if name not in networks:
        raise InputError(f"bundle {bundle.name}: no network {name}; it has {', '.join(networks) or 'none'}")
    run = networks[name].get("runs", {}).get(PRECISIONS[target.build], {})
    compiled = compiled_work(bundle, name, target.name, bundle.tile_px)
    return compiled or Work(networks[name]["macs"], run.get("stages"), run.get("octets_moved", 0.0), calls=1)


def gate_work(bundle: Bundle, target: Target) -> Work:
    """What every tile costs that the cloud gate looks at; nothing where the bundle has no gate."""
    return network_work(bundle, GATE, target) if GATE in bundle.manifest.get("networks", {}) else Work()


def coding_work(bundle: Bundle, target: Target) -> Work:
    """What a tile costs beyond the gate if it is coded: the other flight networks and the context model."""
    flying = [n for n in bundle.manifest.get("networks", {}) if n.startswith("flight/")]
    others = [n for n in flying if n != GATE and not n.startswith(APPS)]
    entropy = bundle.codec.get("entropy_macs_per_px", 0.0) * bundle.tile_px**2
    return sum((network_work(bundle, name, target) for name in others), Work(entropy_macs=entropy))


def compiled_work(bundle: Bundle, name: str, target: str, tile_px: int) -> Work | None:
    """What the device's own compiler made of a network; None where it has not run on this very file."""
    made = read_compiled(bundle.directory).get(target, {}).get(name, {})
    run = made.get("runs", {}).get(str(tile_px)) if made.get("sha256") == bundle.manifest["files"].get(name) else None
    return None if run is None else Work(run["macs"], run["stages"], run["octets_moved"], calls=1)


def read_compiled(directory: Path) -> dict[str, Any]:
    """compiled.json of a bundle: target -> network -> the sha256 of its file, and what one run asks by tile size."""
    path = directory / COMPILED_FILE
    if not path.is_file():
        return {}
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path}: not readable as JSON ({error}); delete it, or compile again") from None
    return dict(table) if isinstance(table, Mapping) else {}


def keep_compiled(bundle: Bundle, target: str, made: Mapping[tuple[str, int], Work]) -> None:
    """Adds what a compiler made, by network and tile size, to the bundle's compiled.json."""
    table = read_compiled(bundle.directory)
    for (name, tile_px), work in made.items():
        digest = bundle.manifest["files"][name]
        known = table.setdefault(target, {}).get(name, {})
        former = known.get("runs", {}) if known.get("sha256") == digest else {}
        run = {"macs": work.macs, "stages": work.stages, "octets_moved": work.octets_moved}
        table[target][name] = {"sha256": digest, "runs": former | {str(tile_px): run}}
    text = json.dumps(table, indent=1, sort_keys=True) + "\n"
    (bundle.directory / COMPILED_FILE).write_text(text, encoding="utf-8")
