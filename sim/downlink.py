"""Scene to ground: the whole system in one function.

scene -> payload -> packets.bin -> channel -> reception -> picture -> figures -> checks -> report
"""

import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hil.host.client import open_device
from payload.bundle import DEFAULT, Bundle, bare_bundle, load_bundle, shipped_bundles
from payload.clouds.gate import detect_clouds
from payload.clouds.mask import CloudMask
from payload.clouds.network import load_cloud_net
from payload.engine import Engine, open_engine
from payload.errors import BundleError
from payload.link.space_packet import SequenceCounter, read_packets, segment
from payload.pipeline import Payload
from payload.policy import Policy
from payload.scene import Mask, Scene, SceneInfo
from payload.stopwatch import Stopwatch
from payload.tiles import Tile, grid, split
from sim.ground.decoder import Decoder, Reception, receive, reconstruct
from sim.link.channel import Channel
from sim.metrics.distortion import SceneQuality, psnr_db
from sim.mission.regions import regions_in_pixels
from sim.mission.spec import DEFAULT as DEFAULT_MISSION
from sim.mission.spec import Mission, load_mission
from sim.onboard.device import DeviceRun, codes_of, refuse_scene_policy
from sim.products.delivery import whole_or_nothing
from sim.products.quicklooks import Pictures, Quicklooks
from sim.products.rasters import CLOUD_NODATA, CloudWriter, PictureWriter
from sim.report import tables
from sim.report.files import write_report
from sim.scenes.rasters import open_scene
from sim.scenes.sentinel2 import BANDS_10M

PACKETS_FILE = "packets.bin"


@dataclass(frozen=True)
class Device:
    """A device under test. `compare`: every octet of it with this host's own."""

    url: str
    compare: bool = False


@dataclass(frozen=True)
class Request:
    """What the user asked for."""

    scene: str
    out: Path
    mission: str = DEFAULT_MISSION
    bundle: str = DEFAULT
    engine: str = "openvino"
    seed: int = 0
    bands: tuple[str, ...] | None = None
    overwrite: bool = False
    device: Device | None = None  # a device under test that codes the tiles instead of this host
    psnr_db: float | None = None  # constant quality instead of what the mission says


#: Told what was just finished, and how many such steps there are in all: one row of tiles, on board or on the ground.
Progress = Callable[[str, int], None]


@dataclass
class Onboard:
    """What the payload did, as measured on this host, and on the device where one coded the tiles."""

    seconds: dict[str, float]  # per stage, of the processor
    wall_s: float
    peak_mib: float
    tile_s: dict[str, list[float]] = field(default_factory=dict)  # per stage, of each tile that went through it
    device: DeviceRun | None = None


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


@dataclass
class Picture:
    """What the ground made of the scene: figures, and PSNR per tile."""

    quality: SceneQuality
    pictures: Pictures
    tile_psnr_db: dict[tuple[int, int], float]
    coded_px: int
    seconds: dict[str, float] = field(default_factory=dict)


def downlink(request: Request, progress: Progress) -> dict[str, Any]:
    """One scene through payload, link and ground; everything it writes appears in `request.out` at the end, or nothing.

    Returns the report (docs/report.md). InputError where an input cannot be used.
    """
    mission = load_mission(request.mission)
    if request.psnr_db is not None:
        mission = replace(mission, policy=replace(mission.policy, psnr_db=request.psnr_db))
    bundle, broken = load_or_stand_in(request.bundle, mission)
    engine, channel = open_engine(request.engine), Channel(mission.link, request.seed)
    with (
        open_scene(request.scene, request.bands, bundle.bands, request.seed) as scene,
        whole_or_nothing(request.out, request.overwrite) as folder,
    ):
        policy = replace(mission.policy, gate=regions_in_pixels(mission.policy.gate, scene.info))
        if request.device is None:
            onboard = send(scene, bundle, policy, engine, folder, progress)
        else:
            refuse_scene_policy(policy, mission.name)
            onboard = send_by_device(request.device, scene, bundle, policy, engine, folder, progress)
        arrived = channel.send(read_packets_of(folder / PACKETS_FILE))
        reception = receive(arrived, bundle, *grid(scene.info, bundle.tile_px))
        decoder = Decoder(bundle, engine)
        picture = rebuild(scene, reception, decoder, bundle, folder, progress)
        run = tables.Run(request.seed, scene.info, bundle, mission, engine, channel.report, reception, broken)
        report = tables.compose(run, onboard, picture, tables.audit_section(reception, decoder))
        write_report(report, picture.pictures.paths, folder)
    return report


def load_or_stand_in(where: str, mission: Mission) -> tuple[Bundle, str | None]:
    """The bundle; or, where the mission flies on with fallback tiles, what stands for one that fails its checks, and
    why it does."""
    keys = [bytes.fromhex(k) for k in mission.trusted_keys] or None
    try:
        return load_bundle(where, trusted_keys=keys), None
    except BundleError as error:
        if mission.policy.fallback == "never" or not (Path(where).is_dir() or where in shipped_bundles()):
            raise
        return bare_bundle(where, BANDS_10M), str(error)


def send(scene: Scene, bundle: Bundle, policy: Policy, engine: Engine, folder: Path, progress: Progress) -> Onboard:
    """The payload at work: packets.bin and cloud.tif in `folder`."""
    payload = Payload(bundle, policy, engine)
    payload.watch = watch = TileStopwatch(clock=time.process_time)  # what a busy host does beside it does not count
    start = time.perf_counter()
    with (folder / PACKETS_FILE).open("wb") as stream, CloudWriter(folder / "cloud.tif", scene.info) as writer:
        clouds = _CloudStrips(writer, scene.info, bundle.tile_px, progress)
        for packet in payload.transmit(scene, clouds.observe):
            stream.write(packet)
        clouds.finish()
    return Onboard(watch.seconds, time.perf_counter() - start, peak_rss_mib(), watch.tile_s)


def send_by_device(
    device: Device, scene: Scene, bundle: Bundle, policy: Policy, engine: Engine, folder: Path, progress: Progress
) -> Onboard:
    """As `send`, the tiles coded by a device under test. The masks of cloud.tif, for the pictures, are this host's."""
    start = time.perf_counter()
    host = Payload(bundle, policy, engine) if device.compare else None
    net = load_cloud_net(bundle, engine) if "clouds" in bundle.manifest else None
    counter = SequenceCounter(policy.apid)
    with (
        open_device(device.url, bundle, policy) as session,
        (folder / PACKETS_FILE).open("wb") as stream,
        CloudWriter(folder / "cloud.tif", scene.info) as writer,
    ):
        clouds = _CloudStrips(writer, scene.info, bundle.tile_px, progress)
        run = DeviceRun(device.url, session.info)
        for tile, octets in codes_of(split(scene, bundle.tile_px), session, host, run):
            if net is not None and not tile.empty:
                clouds.observe(tile, detect_clouds(tile, net))
            stream.writelines(segment(octets, counter, policy.packet_octets))
        clouds.finish()
    return Onboard({}, time.perf_counter() - start, peak_rss_mib(), device=run)


def read_packets_of(path: Path) -> Iterator[bytes]:
    """The packets of a file, one at a time."""
    with path.open("rb") as stream:
        yield from read_packets(stream)


def rebuild(
    scene: Scene, reception: Reception, decoder: Decoder, bundle: Bundle, folder: Path, progress: Progress
) -> Picture:
    """reconstruction.tif and the quicklooks, compared with the original strip by strip."""
    info, side = scene.info, bundle.tile_px
    quality, looks = SceneQuality(bundle.bands), Quicklooks(info)
    clouds = _CloudReader(folder / "cloud.tif")
    tile_psnr: dict[tuple[int, int], float] = {}
    coded_px, start = 0, time.process_time()
    with PictureWriter(folder / "reconstruction.tif", info) as writer:
        for strip in reconstruct(reception, decoder, bundle):
            top = strip.row * side
            height = min(side, info.height_px - top)
            original, valid = scene.read(top, 0, height, info.width_px)
            dn = np.ascontiguousarray(strip.dn[:, :height, : info.width_px])
            known = strip.known[:height, : info.width_px] & valid
            writer.write_strip(top, dn, known)
            looks.add(top, original, valid, dn, known, clouds.read(top, height))
            coded_px += int(known.sum())
            for col in range(reception.cols):
                span = slice(col * side, (col + 1) * side)
                quality.add(original[:, :, span], dn[:, :, span], known[:, span])
                if known[:, span].any():
                    tile_psnr[(strip.row, col)] = _tile_psnr_db(original[:, :, span], dn[:, :, span], known[:, span])
            progress("ground", 2 * reception.rows)
    pictures = looks.write(folder, tables.kinds(reception), side)
    clouds.close()
    return Picture(quality, pictures, tile_psnr, coded_px, {"ground": time.process_time() - start})


def _tile_psnr_db(original: NDArray[np.uint16], dn: NDArray[np.uint16], known: Mask) -> float:
    difference = original.astype(np.float32) - dn
    return psnr_db(float((difference**2).mean(axis=0, dtype=np.float64)[known].mean()))


def peak_rss_mib() -> float:
    """Peak resident memory of this process up to now."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


class _CloudStrips:
    """Cloud masks tile by tile -> strips of cloud.tif."""

    def __init__(self, writer: CloudWriter, info: SceneInfo, tile_px: int, progress: Progress) -> None:
        self._writer, self._info, self._side, self._progress = writer, info, tile_px, progress
        self._rows, self._cols = grid(info, tile_px)
        self._row = 0
        self._strip = self._blank()

    def observe(self, tile: Tile, mask: CloudMask) -> None:
        while self._row < tile.row:
            self._flush()
        percent = np.rint(100.0 * mask.probability).astype(np.uint8)
        self._strip[:, tile.col * self._side :][:, : self._side] = np.where(tile.valid, percent, CLOUD_NODATA)

    def finish(self) -> None:
        while self._row < self._rows:
            self._flush()

    def _blank(self) -> NDArray[np.uint8]:
        return np.full((self._side, self._cols * self._side), CLOUD_NODATA, np.uint8)

    def _flush(self) -> None:
        top = self._row * self._side
        height = min(self._side, self._info.height_px - top)
        self._writer.write_strip(top, self._strip[:height, : self._info.width_px])
        self._row += 1
        self._strip = self._blank()
        self._progress("on board", 2 * self._rows)


class _CloudReader:
    """Strips of cloud.tif, read back for the pictures."""

    def __init__(self, path: Path) -> None:
        import rasterio

        self._file = rasterio.open(path)

    def read(self, row_px: int, height_px: int) -> NDArray[np.uint8]:
        percent: NDArray[np.uint8] = self._file.read(1, window=((row_px, row_px + height_px), (0, self._file.width)))
        return percent

    def close(self) -> None:
        self._file.close()
