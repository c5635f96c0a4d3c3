"""`hil profile`: performance mode and energy mode, apart from each other as MLPerf Tiny does it, and the roofline."""

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass

from hil.bench.energy_mode import Meter, measure_energy
from hil.bench.performance import Tell, measure_performance, performance_doubts
from hil.bench.roofline import measure_roofline
from hil.host.client import DeviceSession
from hil.line.code_id import code_id
from hil.profiles.profile_file import FORMAT, BenchProfile, ProfiledDevice
from payload.bundle import Bundle
from payload.errors import InputError
from payload.tiles import Tile
from payload.version import described


@dataclass(frozen=True)
class Plan:
    """How much to measure."""

    repeats: int = 3
    window_s: float = 12.0
    sample_s: float = 0.02  # between two readings of the power meter
    threads: int = 1
    peak_gmac_s: float | None = None  # the device's published peak, if the roofline is to have one
    peak_source: str = ""


def profile(
    session: DeviceSession, tiles: Sequence[Tile], bundle: Bundle, meter: Meter | None, plan: Plan,
    tell: Tell = lambda what, done, total: None,
) -> BenchProfile:  # fmt: skip
    """The profile of a device on these tiles. An emulated device is refused: its times mean nothing."""
    if session.info.emulated is not None:
        raise InputError(
            f"device {session.name} is emulated ({session.info.emulated}): its times and power mean nothing; "
            "use `hil run --reference` to show that its octets are right"
        )
    if not tiles:
        raise InputError("there are no tiles to measure with; give a scene or --tiles with at least one")
    performance, alone = measure_performance(session, tiles, plan.repeats, tell)
    doubts, energy = performance_doubts(performance), None
    if meter:
        energy, more = measure_energy(session, tiles, alone, meter, plan.repeats, plan.window_s, plan.sample_s, tell)
        doubts += more
    if session.incidents.reconnects:
        doubts.append(
            f"the line was lost {session.incidents.reconnects} times while measuring; measure again on a quiet line"
        )
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
        roofline=measure_roofline(session, performance, bundle, plan.peak_gmac_s, plan.peak_source),
        complaints=tuple(doubts),
        software=described(),
    )


def _device(session: DeviceSession, threads: int) -> ProfiledDevice:
    info = session.info
    return ProfiledDevice(
        session.name, info.machine, info.cpu, info.cores, info.memory_mib, info.system, info.python, info.engine,
        threads, ran=info.ran,
    )  # fmt: skip
