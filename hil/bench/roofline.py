"""The networks against what the device reaches at best: as a whole, and layer by layer."""

from collections.abc import Iterator
from typing import Any

from hil.bench.performance import DISAGREEMENT, METHOD
from hil.host.client import DeviceSession
from hil.line.protocol import Type
from hil.profiles.findings import LayerTime
from hil.profiles.profile_file import CODED, Performance, Roofline
from payload.bundle import Bundle
from payload.engine import NATIVE
from payload.tiles import Tile

NETWORK_STAGES = ("encode", "clouds")
LAYER_RUNS = 30
#: Networks that the compiled kernel may run (payload/native), their stages and what it multiplies. It tells of no
#: layers: a stage is timed whole.
KERNEL_STAGES = {"encoder": ("encode", "INT16"), "clouds": ("clouds", "INT8")}
CEILINGS = {"INT8": "int8_gmac_s", "FP32": "f32_gmac_s"}


def measure_roofline(
    session: DeviceSession, performance: Performance, bundle: Bundle, tile: Tile, threads: int,
    peak_gmac_s: float | None, peak_source: str,
) -> Roofline | None:  # fmt: skip
    """None where the manifest does not say how many multiply-accumulates the networks take, no tile was coded, or the
    agent's encoder has no networks."""
    networks = {
        name: cost
        for name, cost in bundle.manifest.get("networks", {}).items()
        if name.startswith("flight/") and name.endswith(".onnx")
    }
    coded = performance.kinds.get(CODED)
    network_s = sum(coded.stages_s[name].p50_s for name in NETWORK_STAGES if name in coded.stages_s) if coded else 0.0
    if not networks or not network_s or coded is None:
        return None
    told = _ask(session, tile, threads)
    if told["ceilings"] is None:
        return None
    ceilings = {p: float(told["ceilings"][key]) for p, key in CEILINGS.items() if told["ceilings"].get(key)}
    precision = "INT8" if str(bundle.manifest.get("target", "int8")).startswith("int8") else "FP32"
    peak_precision = precision if peak_gmac_s or precision in ceilings else "FP32"
    macs = float(sum(cost["macs"] for cost in networks.values()))
    layers = _layers(told["networks"])
    if session.info.engine.startswith(NATIVE):
        by_runtime = {str(network["name"]) for network in told["networks"]}
        stages_s = {name: stage.p50_s for name, stage in coded.stages_s.items()}
        layers = [*_of_kernel(networks, by_runtime, stages_s), *layers]
    return Roofline(
        basis=_basis(told["ceilings"], peak_gmac_s, peak_source, precision, peak_precision),
        gmac_per_tile=macs / 1e9,
        network_s=network_s,
        achieved_gmac_s=macs / network_s / 1e9,
        macs_per_octet=macs / sum(cost["weight_octets"] + _edge_octets(cost) for cost in networks.values()),
        peak_gmac_s=peak_gmac_s or ceilings[peak_precision],
        memory_gb_s=float(told["ceilings"]["memory_gb_s"]),
        peak_precision=peak_precision,
        network_precision=precision,
        copied_mib=float(told["ceilings"]["copied_mib"]),
        ceilings=ceilings,
        ceilings_by=str(told["ceilings"]["by"]),
        layers=tuple(layers),
        untold={str(one["name"]): str(one["why"]) for one in told["networks"] if one["why"]},
    )


def roofline_doubts(found: Roofline) -> list[str]:
    """Layers above what should be their ceiling: something else ran while one of the two was measured."""
    above = [layer.name for layer in found.layers if (found.share_of(layer) or 0.0) > 1 + DISAGREEMENT]
    if not above:
        return []
    return [
        f"{len(above)} layers are faster than their ceiling ({above[0]}, ...): the device was busy with something else "
        "while the ceiling was measured, or these layers' data lie in its caches; measure again on a quiet device"
    ]


def _ask(session: DeviceSession, tile: Tile, threads: int) -> dict[str, Any]:
    """Layers and ceilings on one tile that was coded."""
    session.hold([tile])
    return session.call(
        Type.NETWORKS, {"held": 0, "threads": threads, "batch": 1, "runs": LAYER_RUNS, "layers": True}
    )  # fmt: skip


def _layers(networks: list[dict[str, Any]]) -> list[LayerTime]:
    return [LayerTime(str(network["name"]), *layer) for network in networks for layer in network["layers"]]


def _of_kernel(
    networks: dict[str, dict[str, Any]], by_runtime: set[str], stages_s: dict[str, float]
) -> Iterator[LayerTime]:
    """The networks that no runtime told of, a stage each."""
    for name, (stage, precision) in KERNEL_STAGES.items():
        cost = networks.get(f"flight/{name}.onnx")
        if cost is not None and name not in by_runtime and stage in stages_s:
            octets, what = float(cost["weight_octets"] + _edge_octets(cost)), f"the stage `{stage}`, whole"
            yield LayerTime(name, what, "compiled kernel", precision, float(cost["macs"]), octets, stages_s[stage])


def _basis(
    ceilings: dict[str, Any], peak_gmac_s: float | None, peak_source: str, precision: str, peak_precision: str
) -> str:
    peak = f"ceilings measured by the runtime itself ({ceilings['by']})"
    if peak_gmac_s:
        peak = f"peak {peak_source or 'as given'}, taken as one for {precision}; {peak}"
    elif precision != peak_precision:
        peak += (
            f": none of {precision}, in which the networks run, so that no share of it is given "
            "(--peak-gmac-s takes a published one)"
        )
    return (
        f"network stages of coded tiles, their numpy included, measured by {METHOD.partition('by ')[2]}; {peak}; "
        f"memory measured by a copy of {ceilings['copied_mib']:.0f} MiB; MACs and octets counted from the manifest"
    )


def _edge_octets(cost: dict[str, Any]) -> int:
    """Octets in and out of a network at one octet a value."""
    total = 0
    for shape in (*cost["inputs"].values(), *cost["outputs"].values()):
        size = 1
        for length in shape:
            size *= length if isinstance(length, int) else 1
        total += size
    return total
