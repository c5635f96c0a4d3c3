"""Times and memory of one downlink -> their section of the report: of this host, and of a device under test."""

import platform
from collections.abc import Sequence
from dataclasses import dataclass
from math import nan
from typing import Any

import numpy as np

from payload.stopwatch import peak_memory_mib
from sim.mission import budgets
from sim.onboard import ran
from sim.onboard.device import DeviceRun
from sim.onboard.sending import Onboard


@dataclass(frozen=True)
class Ground:
    """What decoding cost on this host: seconds of the processor, and the process's peak memory afterwards."""

    seconds: float
    peak_mib: float
    decoder_mpx_s: float | None = None  # tile code to DN

    @classmethod
    def now(cls, seconds: float, decoder_mpx_s: float | None) -> "Ground":
        """With the peak memory of this process up to now."""
        return cls(seconds, peak_memory_mib(), decoder_mpx_s)


def on_host(onboard: Onboard, ground: Ground, cost: budgets.SceneRun, tile_px: int) -> dict[str, Any]:
    stages = [_stage(name, seconds, onboard.tile_s.get(name)) for name, seconds in onboard.seconds.items()]
    stages.append(_stage("ground", ground.seconds))
    known = {
        "basis": "measured on host",
        "stages": stages,
        "host": f"{platform.machine()}, {platform.python_implementation()} {platform.python_version()}, one thread",
        "stages_count": "processor time, so that a busy host does not slow them",
        "kernel": ran.kernel(), "instruction_set": ran.instruction_set(),
        "peak_rss_mib": onboard.peak_mib, "peak_rss_before_payload_mib": onboard.before_mib,
        "peak_rss_added_by_payload_mib": onboard.peak_mib - onboard.before_mib,
        "peak_rss_with_ground_mib": ground.peak_mib,
    }  # fmt: skip
    if ground.decoder_mpx_s is not None:
        known["decoder_mpx_s"] = ground.decoder_mpx_s
    if onboard.device is None:
        onboard_s = cost.onboard_s or nan
        known |= {"throughput_mpx_s": cost.scene_px / onboard_s / 1e6, "onboard_wall_s": onboard.wall_s}
        known |= apart(onboard, tile_px)
    return known


def apart(onboard: Onboard, tile_px: int) -> dict[str, float]:
    """Coded and withheld tiles apart, and the gate's share of all time. A withheld tile costs the gate alone; what its
    thumbnail costs is counted with the coded ones."""
    total_s, gate_s = sum(onboard.seconds.values()), onboard.seconds.get("clouds", 0.0)
    judged, withheld, work = onboard.work.get("judged", 0), onboard.work.get("withheld", 0), onboard.work
    told = {"gate_share_percent": 100 * gate_s / total_s} if total_s and judged else {}
    withheld_s = gate_s * withheld / judged if judged else 0.0
    coded_px = (judged - withheld if judged else work.get("coded", 0)) * tile_px**2
    if coded_px and total_s > withheld_s:
        told["coded_tiles_mpx_s"] = coded_px / (total_s - withheld_s) / 1e6
    if withheld_s:
        told["withheld_tiles_mpx_s"] = withheld * tile_px**2 / withheld_s / 1e6
    return told


def _stage(name: str, seconds: float, tile_s: Sequence[float] | None = None) -> dict[str, Any]:
    """A stage's sum, with the median and 95th percentile over tiles where they are known."""
    return {"name": name, "seconds": seconds} | (_spread_ms("", tile_s) if tile_s else {})


def _spread_ms(prefix: str, tile_s: Sequence[float]) -> dict[str, float]:
    median, p95 = 1e3 * np.percentile(tile_s, [50, 95])
    return {f"{prefix}median_ms": float(median), f"{prefix}p95_ms": float(p95)}


def on_device(device: DeviceRun | None, cost: budgets.SceneRun, tile_px: int) -> dict[str, Any]:
    """What the device under test says of its own times. An emulated one says nothing that could be taken for one."""
    if device is None:
        return {}
    found: dict[str, Any] = {
        "basis": "measured on device",
        "device": device.name,
        "engine": device.info.engine,
        "reconnects": device.reconnects,
    }
    if not device.timed:
        found["emulated"] = f"{device.info.emulated}: times mean nothing, none is shown"
        return {"measured_on_device": found}
    stages = [_stage(name, sum(tile_s), tile_s) for name, tile_s in device.stages_s.items()]
    speed = {"throughput_mpx_s": cost.scene_px / sum(device.tile_s) / 1e6}
    if device.coded_s:
        speed["coded_tiles_mpx_s"] = len(device.coded_s) * tile_px**2 / sum(device.coded_s) / 1e6
    found |= _spread_ms("tile_", device.tile_s) | speed | {"peak_memory_mib": device.peak_memory_mib}
    return {"measured_on_device": found | {"stages": stages}}
