"""`hil sweep`: the same device over threads, batch and tile size; what is soonest done, and what gets most through.

The payload codes tile by tile, so the batch is one of the networks alone, as the runtime runs them. Another tile size
is another bundle: for a device that is started here, the bundle's files under another manifest. Whether its networks
take that size is theirs to say; the compiled kernel (engine `native`) takes every multiple of 64.
"""

import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median

from hil.bench.performance import Tell
from hil.host.client import DeviceSession, open_device
from hil.line.messages import DeviceReply
from hil.line.protocol import Type
from hil.profiles.profile_file import CODED
from hil.profiles.sweep_file import NETWORKS, PAYLOAD, Sweep, SweepPoint, with_front
from payload.bundle import Bundle, load_bundle
from payload.errors import InputError
from payload.policy import Policy
from payload.tiles import Tile
from payload.version import described

MANIFEST = "manifest.json"
NETWORK_RUNS = 20
#: The bundle in use -> its tiles.
TilesOf = Callable[[Bundle], Sequence[Tile]]


class EmulatedError(InputError):
    """A device whose times mean nothing."""


@dataclass(frozen=True)
class SweepPlan:
    """Every combination of these is measured."""

    threads: tuple[int, ...] = (1,)
    batches: tuple[int, ...] = (1,)
    tile_px: tuple[int, ...] = ()  # none: the bundle's own
    engine: str = "auto"
    repeats: int = 2

    def __post_init__(self) -> None:
        for name, values, most in (("threads", self.threads, 256), ("batch", self.batches, 16)):
            if not values or not all(1 <= value <= most for value in values):
                raise InputError(f"--{name} {','.join(map(str, values))}: wanted numbers of 1 to {most}")
        if not all(64 <= px <= 4096 and px % 64 == 0 for px in self.tile_px):
            raise InputError(f"--tile-px {','.join(map(str, self.tile_px))}: wanted multiples of 64 up to 4096")


def sweep(url: str, bundle: Bundle, policy: Policy, tiles_of: TilesOf, plan: SweepPlan, tell: Tell) -> Sweep:
    """All points. A setting that the device cannot run is a point that says why."""
    sizes = plan.tile_px or (bundle.tile_px,)
    if url != "host:" and set(sizes) != {bundle.tile_px}:
        raise InputError(
            f"device {url}: holds its own bundle, of {bundle.tile_px} px tiles; sweep one tile size at a time, "
            "each with a bundle built for it (--bundle, `hil deploy`), or sweep host:"
        )
    points: list[SweepPoint] = []
    cpu = ""
    for n, px in enumerate(sizes):
        with tile_size(bundle, px) as sized:
            for m, threads in enumerate(plan.threads):
                tell("settings", n * len(plan.threads) + m, len(sizes) * len(plan.threads))
                made, found = _one_setting(url, sized, policy, tiles_of, plan, threads)
                points, cpu = points + made, found or cpu
    if not any(point.call_s for point in points):
        raise InputError(f"device {url}: no setting could be run ({points[0].why})")
    made_at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return Sweep(made_at, url, cpu, bundle.name, bundle.bundle_id, described(), with_front(points))


@contextmanager
def tile_size(bundle: Bundle, px: int) -> Iterator[Bundle]:
    """The bundle, or its flight files under a manifest that says another tile size; unsigned, and gone afterwards."""
    if px == bundle.tile_px:
        yield bundle
        return
    with tempfile.TemporaryDirectory(prefix=f"nadir-{px}px-") as folder:
        for name in bundle.manifest["files"]:
            if (Path(bundle.directory) / name).is_file():
                (Path(folder) / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(Path(bundle.directory) / name, Path(folder) / name)
        fields = json.loads((Path(bundle.directory) / MANIFEST).read_text(encoding="utf-8")) | {"tile_px": px}
        (Path(folder) / MANIFEST).write_text(json.dumps(fields), encoding="utf-8")
        yield load_bundle(folder, flight_only=True)


def _one_setting(
    url: str, bundle: Bundle, policy: Policy, tiles_of: TilesOf, plan: SweepPlan, threads: int
) -> tuple[list[SweepPoint], str]:
    """The payload and, for every batch, the networks alone; and the device's processor."""
    tiles = tiles_of(bundle)
    if not tiles:
        raise InputError("there are no tiles to measure with; give a scene or --tiles with at least one")
    try:
        with open_device(url, bundle, policy, plan.engine, threads) as session:
            if session.info.emulated is not None:
                raise EmulatedError(f"device {url} is emulated ({session.info.emulated}): its times mean nothing")
            points = [_payload(session, tiles, bundle, plan.repeats, threads)]
            session.hold(tiles[:1])
            points += [_networks(session, bundle, threads, batch) for batch in plan.batches]
            return points, session.info.cpu
    except EmulatedError:
        raise
    except InputError as error:
        return [SweepPoint(PAYLOAD, plan.engine, threads, 1, bundle.tile_px, why=str(error)[-300:])], ""


def _payload(session: DeviceSession, tiles: Sequence[Tile], bundle: Bundle, repeats: int, threads: int) -> SweepPoint:
    """Coded tiles one at a time; all tiles where none was coded."""
    list(session.encode_tiles(tiles[:1]))  # the first tile after LOAD takes longer
    replies = [reply for _ in range(repeats) for reply in session.encode_tiles(tiles, window=1)]
    seconds = [reply.latency_s for reply in _coded(replies)]
    mpx_s = bundle.tile_px**2 / 1e6 / mean(seconds)
    return SweepPoint(
        PAYLOAD, session.info.engine, threads, 1, bundle.tile_px, median(seconds), mpx_s, len(seconds)
    )  # fmt: skip


def _coded(replies: Sequence[DeviceReply]) -> Sequence[DeviceReply]:
    return [reply for reply in replies if reply.kind == CODED] or replies


def _networks(session: DeviceSession, bundle: Bundle, threads: int, batch: int) -> SweepPoint:
    asked = {"held": 0, "threads": threads, "batch": batch, "runs": NETWORK_RUNS, "layers": False}
    told = session.call(Type.NETWORKS, asked)
    setting = (NETWORKS, session.info.engine, threads, batch, bundle.tile_px)
    why = str(told["why"]) or "; ".join(f"{one['name']}: {one['why']}" for one in told["networks"] if one["why"])
    if why or not told["networks"]:
        return SweepPoint(*setting, why=why or "no runtime runs a network of this bundle")
    call_s = sum(median(one["run_s"]) for one in told["networks"])
    return SweepPoint(*setting, call_s, batch * bundle.tile_px**2 / 1e6 / call_s, NETWORK_RUNS)
