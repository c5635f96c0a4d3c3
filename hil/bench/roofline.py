"""The networks against what the device reaches at best."""

from typing import Any

from hil.bench.performance import METHOD
from hil.host.client import DeviceSession
from hil.line.protocol import Type
from hil.profiles.profile_file import CODED, Performance, Roofline
from payload.bundle import Bundle

NETWORK_STAGES = ("encode", "clouds")
MEASURED_PRECISION = "f32"  # numpy's matrix product: no runtime lends its INT8 product to a measurement


def measure_roofline(
    session: DeviceSession, performance: Performance, bundle: Bundle, peak_gmac_s: float | None, peak_source: str
) -> Roofline | None:
    """None where the manifest does not say how many multiply-accumulates the networks take, or no tile was coded."""
    networks = {
        name: cost
        for name, cost in bundle.manifest.get("networks", {}).items()
        if name.startswith("flight/") and name.endswith(".onnx")
    }
    coded = performance.kinds.get(CODED)
    network_s = sum(coded.stages_s[name].p50_s for name in NETWORK_STAGES if name in coded.stages_s) if coded else 0.0
    if not networks or not network_s:
        return None
    macs = float(sum(cost["macs"] for cost in networks.values()))
    octets = float(sum(cost["weight_octets"] + _edge_octets(cost) for cost in networks.values()))
    ceilings = session.call(Type.STATS, {"ceilings": True})["ceilings"]
    precision = "INT8" if str(bundle.manifest.get("target", "int8")).startswith("int8") else "f32"
    peak_precision = precision if peak_gmac_s else MEASURED_PRECISION
    return Roofline(
        basis=_basis(ceilings, peak_gmac_s, peak_source, precision),
        gmac_per_tile=macs / 1e9,
        network_s=network_s,
        achieved_gmac_s=macs / network_s / 1e9,
        macs_per_octet=macs / octets,
        peak_gmac_s=peak_gmac_s or float(ceilings["gmac_s"]),
        memory_gb_s=float(ceilings["memory_gb_s"]),
        peak_precision=peak_precision,
        network_precision=precision,
        copied_mib=float(ceilings["copied_mib"]),
    )


def _basis(ceilings: dict[str, Any], peak_gmac_s: float | None, peak_source: str, precision: str) -> str:
    if peak_gmac_s:
        peak = f"peak {peak_source or 'as given'}, taken as one for {precision}"
    elif precision == MEASURED_PRECISION:
        peak = "peak measured by numpy's f32 matrix product"
    else:
        peak = (
            f"peak measured by numpy's f32 matrix product, while the networks run in {precision}, whose own peak is "
            "higher: no share of it is given (--peak-gmac-s takes a published one)"
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
