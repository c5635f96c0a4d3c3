"""The payload at work on this host, or a device under test: a scene becomes packets.bin and the mask it judged by."""

import hashlib
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import rasterio

from hil.host.client import open_device
from payload.apps.settings import AppPlan
from payload.bundle import Bundle
from payload.clouds.gate import detect_clouds
from payload.clouds.network import load_cloud_net
from payload.engine import Engine
from payload.guard.beacon import Beacon
from payload.link.frames.stack import LayerOctets, Stack, octets_by_layer, packets_on_air
from payload.link.scene_header import SceneHeader, pack, records
from payload.link.space_packet import SequenceCounter, read_packets
from payload.link.streams import Sender, apids_of, with_channels
from payload.link.tile_code import TileCode
from payload.pipeline import Payload
from payload.policy import Policy, Protection
from payload.scene import Scene
from payload.stopwatch import Stopwatch, peak_memory_mib
from payload.tiles import split
from sim.link.frames.channel import FRAMES_FILE
from sim.onboard import ran
from sim.onboard.aboard import Aboard
from sim.onboard.apps_run import AppsRun, apps_run
from sim.onboard.cloud_strips import ONBOARD_CLOUD_FILE, CloudStrips, FlattenedPixels
from sim.onboard.device import DeviceRun, codes_of, of_scene
from sim.progress import Progress

log = logging.getLogger(__name__)

PACKETS_FILE = "packets.bin"
#: Housekeeping and events of the guard, in packets of their own APID.
TELEMETRY_FILE = "telemetry.bin"
#: Of a scene that is placed by control points, so many go down at most, evenly chosen.
MOST_CONTROL_POINTS = 256


@dataclass(frozen=True)
class Device:
    """A device under test. `compare`: every octet of it with this host's own."""

    url: str
    compare: bool = False


@dataclass
class Onboard:
    """What the payload did, as measured on this host, and on the device where one coded the tiles.

    `work` counts on board: tiles judged by the gate, withheld, and coded (thumbnails that were replaced included), and
    pixels that hold data.
    Memory is the process's peak before the payload started and when it had sent its last packet.
    """

    seconds: dict[str, float]  # per stage, of the processor
    wall_s: float
    peak_mib: float
    before_mib: float = 0.0
    work: dict[str, int] = field(default_factory=dict)
    tile_s: dict[str, list[float]] = field(default_factory=dict)  # per stage, of each tile that went through it
    memory: dict[str, object] | None = None  # what outlives the run: slots and counters; None: nothing does
    apps: AppsRun | None = None  # what applications did; None: there were none
    device: DeviceRun | None = None
    flattened: FlattenedPixels | None = None  # whose detail the gate gave up; None: of no pixel


@dataclass(eq=False)
class TileStopwatch(Stopwatch):
    """Remembers what each tile took, besides the sum."""

    tile_s: dict[str, list[float]] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        before_s = self.seconds.get(name, 0.0)
        with super().stage(name):
            yield
        self.tile_s.setdefault(name, []).append(self.seconds[name] - before_s)


def header_of(scene: Scene, bundle: Bundle) -> SceneHeader:
    """What goes down of a scene besides its tiles. The CRS goes as a code where it has one: a tenth of its WKT.

    The scene id is a digest of the header and of the scene's first strip of tiles: other pixels, another scene. A
    satellite would count scenes instead; here two runs share no counter.
    """
    every = -(-len(scene.info.gcps) // MOST_CONTROL_POINTS) or 1
    info = replace(scene.info, crs_wkt=_short_crs(scene.info.crs_wkt), gcps=scene.info.gcps[::every], notes=())
    header = SceneHeader(0, bundle.bundle_id, bundle.tile_px, info)
    dn, valid = scene.read(0, 0, min(bundle.tile_px, info.height_px), info.width_px)
    digest = hashlib.sha256(pack(header) + dn.tobytes() + valid.tobytes()).digest()
    return replace(header, scene_id=int.from_bytes(digest[:4], "big"))


def send(
    scene: Scene, header: SceneHeader, bundle: Bundle, policy: Policy, engine: Engine, folder: Path, progress: Progress,
    protection: Protection | None = None, plan: AppPlan | None = None, memory: Aboard | None = None,
) -> Onboard:  # fmt: skip
    """The payload at work: packets.bin in `folder`, beside it the cloud mask that it judged by and, where the mission
    protects it, its telemetry. There is no watchdog: nobody would start the payload again."""
    ran.warn_of_numpy()
    payload = Payload(bundle, policy, engine, protection and replace(protection, watchdog_s=None), plan)
    payload.watch = watch = TileStopwatch(clock=time.thread_time)  # what other threads do beside it does not count
    start, before_mib = time.perf_counter(), peak_memory_mib()
    with (
        (folder / PACKETS_FILE).open("wb") as stream,
        _telemetry(payload, protection, folder) as tell,
        CloudStrips(folder / ONBOARD_CLOUD_FILE, scene.info, bundle.tile_px, policy.gate_in_use, progress) as clouds,
    ):
        if memory is not None:
            memory.begin(payload)
        for packet in payload.transmit(scene, header, clouds.observe):
            stream.write(packet)
            tell()
        if memory is not None:
            memory.end(payload)
    took_s = time.perf_counter() - start
    told = memory.told() if memory is not None else None
    done = dict(payload.work), watch.tile_s, told, apps_run(payload.apps)
    return Onboard(watch.seconds, took_s, peak_memory_mib(), before_mib, *done, flattened=clouds.flattened)


@contextmanager
def _telemetry(payload: Payload, protection: Protection | None, folder: Path) -> Iterator[Callable[[], None]]:
    """Writes what the guard has to tell whenever it is called, and the rest at the end; nothing without a guard."""
    if protection is None:
        yield lambda: None
        return
    counter = SequenceCounter(protection.apid)
    every = protection.housekeeping_tiles
    beacon = Beacon(payload.telemetry, lambda: payload.sender.record(), counter, payload.policy.packet_octets, every)
    with (folder / TELEMETRY_FILE).open("wb") as stream:
        yield lambda: stream.writelines(beacon.due())
        stream.writelines(beacon.now())


def send_by_device(
    device: Device, scene: Scene, header: SceneHeader, bundle: Bundle, policy: Policy, engine: Engine, folder: Path,
    progress: Progress,
) -> Onboard:  # fmt: skip
    """As `send`, the tiles coded by a device under test. The cloud mask, for the pictures, is this host's."""
    start, before_mib = time.perf_counter(), peak_memory_mib()
    host = Payload(bundle, policy, engine) if device.compare else None
    net = load_cloud_net(bundle, engine) if "clouds" in bundle.manifest else None
    sender = Sender(policy, scene.info.sensed_at)
    with (
        open_device(device.url, bundle, policy) as session,
        (folder / PACKETS_FILE).open("wb") as stream,
        CloudStrips(folder / ONBOARD_CLOUD_FILE, scene.info, bundle.tile_px, policy.gate_in_use, progress) as clouds,
    ):
        run = DeviceRun(device.url, session.info)

        def codes() -> Iterator[TileCode]:
            for tile, code in codes_of(split(scene, bundle.tile_px), session, host, run):
                if net is not None and not tile.empty:
                    clouds.observe(tile, detect_clouds(tile, net))
                yield of_scene(tile, code, header)

        stream.writelines(sender.begin_scene())
        for record in records(header, codes()):
            stream.writelines(sender.packets(record))
        stream.writelines(sender.housekeeping())
    took_s = time.perf_counter() - start
    return Onboard({}, took_s, peak_memory_mib(), before_mib, dict(run.work), device=run, flattened=clouds.flattened)


def put_on_air(folder: Path, stack: Stack | None, policy: Policy, onboard: Onboard) -> LayerOctets:
    """frames.bin of packets.bin, both in `folder`, where there is a stack: the packets in frames, coded, as they go on
    the air. Gives what each layer added."""
    start_s, sizes = time.process_time(), []

    def counted() -> Iterator[bytes]:
        for packet in packets_in(folder / PACKETS_FILE, policy.apid):
            sizes.append(len(packet))
            yield packet

    if stack is None:
        return octets_by_layer(sum(1 for _ in counted()), sum(sizes), None)
    with (folder / FRAMES_FILE).open("wb") as stream:
        stream.writelines(packets_on_air(with_channels(counted(), policy.apid), stack))
    onboard.seconds["frames"] = time.process_time() - start_s
    frames = (folder / FRAMES_FILE).stat().st_size // stack.unit_octets
    return octets_by_layer(len(sizes), sum(sizes), stack, frames)


def packets_in(path: Path, apid: int) -> Iterator[bytes]:
    """The packets of a file, one at a time."""
    with path.open("rb") as stream:
        yield from read_packets(stream, apids_of(apid))


def _short_crs(wkt: str | None) -> str | None:
    """ "EPSG:n" where that names the same CRS; the WKT itself elsewhere."""
    if wkt is None:
        return None
    crs = rasterio.crs.CRS.from_user_input(wkt)
    code = crs.to_epsg()
    return f"EPSG:{code}" if code is not None and rasterio.crs.CRS.from_epsg(code) == crs else wkt
