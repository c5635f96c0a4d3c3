"""`hil profile`: performance, energy and accuracy of the same tiles in one submission, each by a mode of its own.

As MLPerf Tiny has it: performance mode times, energy mode draws power, and neither disturbs the other.
"""

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hil.bench.accuracy import CloudTruth, find_truth, measure_accuracy
from hil.bench.energy_mode import Meter, measure_energy
from hil.bench.performance import Tell, measure_performance, performance_doubts
from hil.bench.roofline import measure_roofline, roofline_doubts
from hil.bench.soak import measure_soak, require_length
from hil.host.client import DeviceSession
from hil.line.code_id import code_id
from hil.line.messages import DeviceReply
from hil.profiles.findings import Accuracy
from hil.profiles.profile_file import CODED, FORMAT, BenchProfile, Energy, Performance, ProfiledDevice, Roofline
from payload.bundle import Bundle
from payload.errors import InputError
from payload.tiles import Tile
from payload.version import described

LONGEST_WINDOW_S = 600.0


@dataclass(frozen=True)
class Plan:
    """How much to measure."""

    repeats: int = 3
    window_s: float = 12.0
    sample_s: float = 0.02  # between two readings of the power meter
    threads: int = 1
    peak_gmac_s: float | None = None  # the device's published peak, if the roofline is to have one
    peak_source: str = ""
    calibration: str = ""  # of the power meter, as its owner states it
    soak_s: float | None = None  # length of the sustained run
    accuracy: bool = True
    scene: str | None = None  # where the tiles are from: whoever knows its clouds may say so
    cloud_reference: Path | None = None

    def __post_init__(self) -> None:
        if not 0 < self.window_s <= LONGEST_WINDOW_S:
            raise InputError(f"--window-s {self.window_s:g}: wanted more than 0, at most {LONGEST_WINDOW_S:g}")
        if self.soak_s is not None:
            require_length(self.soak_s)


def profile(
    session: DeviceSession, tiles: Sequence[Tile], bundle: Bundle, meter: Meter | None, plan: Plan,
    tell: Tell = lambda what, done, total: None,
) -> BenchProfile:  # fmt: skip
    """The profile of a device on these tiles. An emulated device is refused: its times mean nothing."""
    _require_device(session, tiles)
    truth = find_truth(bundle, plan.scene, plan.cloud_reference) if plan.accuracy else None  # refused now, or never
    performance, alone = measure_performance(session, tiles, plan.repeats, tell)
    energy, of_energy = _energy(session, tiles, alone, meter, plan, tell)
    roofline, of_roofline = _roofline(session, tiles, alone[0], performance, bundle, plan)
    accuracy, of_accuracy = _accuracy(session, tiles, alone[0], bundle, truth, tell)
    soak, of_soak = measure_soak(session, tiles, plan.soak_s, tell) if plan.soak_s is not None else (None, [])
    doubts = [*performance_doubts(performance), *of_energy, *of_roofline, *of_accuracy, *of_soak]
    return BenchProfile(
        format=FORMAT,
        made_at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        code_id=code_id(),
        bundle=bundle.name,
        bundle_id=bundle.bundle_id,
        tile_px=bundle.tile_px,
        device=_device(session, plan.threads),
        tiles=len(tiles),
        sha256=hashlib.sha256(b"".join(reply.octets for reply in alone[0])).hexdigest(),
        performance=performance,
        energy=energy,
        roofline=roofline,
        complaints=(*doubts, *_line_doubts(session)),
        software=described(),
        accuracy=accuracy,
        soak=soak,
    )


def _require_device(session: DeviceSession, tiles: Sequence[Tile]) -> None:
    if session.info.emulated is not None:
        raise InputError(
            f"device {session.name} is emulated ({session.info.emulated}): its times and power mean nothing; "
            "use `hil run --reference` to show that its octets are right"
        )
    if not tiles:
        raise InputError("there are no tiles to measure with; give a scene or --tiles with at least one")


def _energy(
    session: DeviceSession, tiles: Sequence[Tile], alone: Sequence[Sequence[DeviceReply]], meter: Meter | None,
    plan: Plan, tell: Tell,
) -> tuple[Energy | None, list[str]]:  # fmt: skip
    if meter is None:
        return None, []
    return measure_energy(
        session, tiles, alone, meter, plan.repeats, plan.window_s, plan.sample_s, tell, plan.calibration
    )  # fmt: skip


def _roofline(
    session: DeviceSession, tiles: Sequence[Tile], replies: Sequence[DeviceReply], performance: Performance,
    bundle: Bundle, plan: Plan,
) -> tuple[Roofline | None, list[str]]:  # fmt: skip
    sample = next((tile for tile, reply in zip(tiles, replies, strict=True) if reply.kind == CODED), tiles[0])
    found = measure_roofline(session, performance, bundle, sample, plan.threads, plan.peak_gmac_s, plan.peak_source)
    return found, roofline_doubts(found) if found else []


def _accuracy(
    session: DeviceSession, tiles: Sequence[Tile], replies: Sequence[DeviceReply], bundle: Bundle,
    truth: CloudTruth | None, tell: Tell,
) -> tuple[Accuracy | None, list[str]]:  # fmt: skip
    return (None, []) if truth is None else measure_accuracy(session, tiles, replies, bundle, truth, tell)


def _line_doubts(session: DeviceSession) -> list[str]:
    lost = session.incidents.reconnects
    return [f"the line was lost {lost} times while measuring; measure again on a quiet line"] if lost else []


def _device(session: DeviceSession, threads: int) -> ProfiledDevice:
    info = session.info
    return ProfiledDevice(
        session.name, info.machine, info.cpu, info.cores, info.memory_mib, info.system, info.python, info.engine,
        threads, ran=info.ran,
    )  # fmt: skip
