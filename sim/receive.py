"""The ground on its own: octets off the link become scenes on disk. No original and no payload is at hand.

frames -> packets -> scenes -> tiles -> rasters, report.json and what a GIS or an archive wants, a folder a scene where
there are several
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from payload.bundle import DEFAULT, Bundle, bare_bundle
from payload.engine import Engine, open_engine
from payload.errors import InputError
from payload.link.space_packet import is_packet, read_packets
from payload.link.streams import apids_of
from payload.link.tile_code import Kind
from payload.scene import SceneInfo
from sim.aided.archive import Archive, laid_over
from sim.aided.product import Aided, aid
from sim.apps.products import write_answers
from sim.clouds.ground_mask import BUNDLES_OWN, GroundMask, open_ground_mask
from sim.ground.arriving_files import FILE_APIDS, packets_and_files
from sim.ground.decoder import AUTO, Decoder, decoder_for
from sim.ground.mosaic import reconstruct
from sim.ground.place import scene_info
from sim.ground.reception import Reception, SceneReception, by_id, receive_channels
from sim.heap import give_back_free_pages
from sim.link.frames.receiver import GATHERED_OCTETS, FrameReceiver, FrameReception, packets_off_air
from sim.link.link import Link
from sim.mission.spec import DEFAULT as DEFAULT_MISSION
from sim.mission.spec import Mission, load_mission
from sim.mission.trust import MISSIONS_OWN, Trust, load_trusted
from sim.products.delivery import whole_or_nothing
from sim.products.footprint import Placed
from sim.products.native import GridFile, PictureFiles, files_of, info_on
from sim.products.origin import Origin, designator_of
from sim.products.provenance import provenance
from sim.products.publish import cloud_cover, publish, write_collection, write_item
from sim.products.rasters import AtOnce, CloudClassWriter, ProvenanceWriter
from sim.progress import Progress
from sim.report.received import write_received_report
from sim.spread import OneLate, Spread

#: Octets of a stream that are looked at to tell frames from packets.
PROBED_OCTETS = 1 << 18
CLOUD_FILE, PROVENANCE_FILE = "cloud.tif", "provenance.tif"


@dataclass(frozen=True)
class ReceiveRequest:
    """What the user asked for."""

    stream: Path
    out: Path
    mission: str = DEFAULT_MISSION
    bundles: tuple[str, ...] = (DEFAULT,)
    engine: str = "openvino"
    overwrite: bool = False
    trust: Trust = MISSIONS_OWN
    decoder: str = AUTO
    jobs: int = 1  # threads that decode
    cloud_mask: str = BUNDLES_OWN  # whose network draws cloud.tif
    one_grid: bool = False  # all bands in one file, whatever their resolutions
    archive: Archive | None = None  # older dates: a second product, refined by them


@dataclass(frozen=True)
class Delivered:
    """One scene on disk. `info` is of the first of its pictures. `seconds` of the processor."""

    scene: SceneReception
    info: SceneInfo
    pictures: tuple[GridFile, ...]
    known_px: int
    seconds: float
    origin: Origin
    placed: Callable[[], Placed | None]  # waits until what a GIS wants is in its place
    cloud_percent: Callable[[], float | None]  # waits for it; None where nothing is known
    decoder: str
    notes: tuple[str, ...] = ()
    aided: Aided | None = None

    @property
    def files(self) -> tuple[Path, ...]:
        """Where the pictures lie, that of the finest grid first."""
        return tuple(picture.path for picture in self.pictures)


def receive(request: ReceiveRequest, progress: Progress) -> dict[str, Any]:
    """Every scene of a stream, as products with a report. InputError where nothing can be made of the stream."""
    if request.stream.exists() and not request.stream.is_file():
        raise InputError(f"{request.stream}: is no regular file, wanted a file of packets or frames")
    mission = request.trust.added_to(load_mission(request.mission))
    bundles = by_id(load_trusted(where, mission) for where in request.bundles)
    engine, apid = open_engine(request.engine), mission.policy.apid
    with whole_or_nothing(request.out, request.overwrite) as folder, Spread(request.jobs) as spread:
        receiver = receiver_for(request.stream, mission.link, apid)
        reception = receive_channels(read_stream(request.stream, apid, receiver), bundles, apid)
        frames = receiver.reception if receiver is not None else None
        delivered = list(
            deliver_all(
                reception, bundles, engine, mission, folder, progress, request.decoder, spread, request.cloud_mask,
                request.one_grid, request.archive,
            )
        )  # fmt: skip
        answered = write_answers(list(reception.scenes.values()), mission, folder)
        if not delivered and not answered:
            raise InputError(nothing_there(request.stream, reception, apid, frames))
        report = write_received_report(request.stream, mission.name, reception, frames, delivered, folder)
        write_catalogue(delivered, folder)
        return report


def deliver_all(
    reception: Reception, bundles: Mapping[int, Bundle], engine: Engine, mission: Mission, folder: Path,
    progress: Progress, asked: str = AUTO, spread: Spread | None = None, drawn_by: str = BUNDLES_OWN,
    one_grid: bool = False, archive: Archive | None = None,
) -> Iterator[Delivered]:  # fmt: skip
    """Each scene of which anything can be shown, in a folder of its own where there are several. InputError where an
    archive is of no use to one of them."""
    shown = [(scene, bundle) for scene in reception.scenes.values() if (bundle := bundle_of(scene, bundles))]
    for scene, bundle in shown:
        place = folder if len(shown) == 1 else folder / _folder_name(scene)
        place.mkdir(exist_ok=True)
        info, mask = scene_info(scene, bundle), open_ground_mask(bundle, engine, drawn_by)
        kind, said = decoder_for(asked, info.height_px * info.width_px, bundle)
        decoder = Decoder(bundle, engine, kind)
        with laid_over(info, archive, bundle) as overlay:
            done = deliver(scene, bundle, decoder, mask, mission, place, progress, spread, one_grid)
            aided = aid(scene, decoder, mask, overlay, done.origin, place, progress, spread)
        yield replace(done, notes=said, aided=aided)


def deliver(
    scene: SceneReception, bundle: Bundle, decoder: Decoder, mask: GroundMask, mission: Mission, folder: Path,
    progress: Progress, spread: Spread | None = None, one_grid: bool = False,
) -> Delivered:  # fmt: skip
    """The pictures of one scene, one for each of its grids; cloud.tif: the ground's own mask of it; provenance.tif:
    what became of every pixel; and what a GIS wants beside them."""
    origin, spread = origin_of(scene, mission), spread or Spread()
    info, start, known_px = scene_info(scene, bundle), time.process_time(), 0
    files = files_of(folder, decoder.grids, decoder.bands, one_grid)
    withheld = {address for address, code in scene.codes.items() if code.kind is Kind.WITHHELD}
    writer = PictureFiles(files, info, origin, spread.jobs)
    cloud_writer = CloudClassWriter(folder / CLOUD_FILE, info, origin)
    provenance_writer = ProvenanceWriter(folder / PROVENANCE_FILE, info, origin)
    with AtOnce((writer, cloud_writer, provenance_writer), spread), OneLate() as late:
        for strip in reconstruct(scene, decoder, spread=spread):
            top = strip.row * decoder.tile_px
            height = min(decoder.tile_px, info.height_px - top)
            known = strip.known[:height, : info.width_px]
            gone = [(strip.row, col) in withheld for col in range(scene.grid[1])]
            classes = mask.classes(strip.dn, strip.known, gone, info.gsd_m, spread)
            late.then(partial(_write_classes, cloud_writer, top, known.shape, classes))
            writer.write_strip(top, strip.dn[:, :height, : info.width_px], known)
            provenance_writer.write_strip(top, provenance(scene, strip.row, known, decoder.tile_px))
            known_px += int(known.sum())
            give_back_free_pages()
            progress("ground", scene.grid[0])
    seconds = time.process_time() - start
    shown = info_on(info, files[0])
    placed = spread.aside(lambda: publish(scene, shown, origin, folder, decoder.tile_px))
    cloudy = spread.aside(lambda: cloud_cover(folder / CLOUD_FILE))
    return Delivered(scene, shown, files, known_px, seconds, origin, placed, cloudy, decoder.kind)


def _write_classes(
    writer: CloudClassWriter, top: int, shape: tuple[int, ...], classes: Callable[[], NDArray[np.uint8]]
) -> None:
    """A strip of whole tiles, of which `shape` rows and columns count."""
    height, width = shape
    writer.write_strip(top, classes()[:height, :width])


def origin_of(scene: SceneReception, mission: Mission) -> Origin:
    """What every file of a scene says of where it comes from."""
    bundle = "unknown" if scene.bundle_id is None else f"{scene.bundle_id:08x}"
    return Origin(mission.name, mission.title, bundle, scene.scene_id, designator_of(mission.orbit.tle_1))


def write_catalogue(delivered: Sequence[Delivered], folder: Path) -> None:
    """A STAC item beside each scene, and the mission's collection in `folder`. Written last: items sum up files."""
    items = {}
    for product in delivered:
        place = product.files[0].parent
        up = "./collection.json" if place == folder else "../collection.json"
        cloudy = product.cloud_percent()
        entry = write_item(product.info, product.origin, product.placed(), place, product.known_px, cloudy, up)
        if entry is not None:
            items[f"./{(place / 'item.json').relative_to(folder)}"] = entry
    if delivered:
        write_collection(delivered[0].origin, items, folder)


def bundle_of(scene: SceneReception, bundles: Mapping[int, Bundle]) -> Bundle | None:
    """The bundle that decodes a scene; where this ground does not hold it, what stands for it: fallback tiles need no
    networks. None where not even the size of its tiles is known."""
    if scene.bundle_id is not None and scene.bundle_id in bundles:
        return bundles[scene.bundle_id]
    if scene.header is not None:
        return bare_bundle(f"{scene.header.bundle_id:08x}", scene.header.info.bands, scene.header.tile_px)
    return next(iter(bundles.values())) if scene.codes else None


def read_stream(path: Path, apid: int, receiver: FrameReceiver | None) -> Iterator[tuple[int, bytes]]:
    """The packets of a stream in a file with their virtual channels, one at a time: of frames where there is a
    receiver for them. InputError where the file cannot be read."""
    try:
        with path.open("rb") as stream:
            pieces: Iterator[tuple[int, bytes]]
            if receiver is None:
                pieces = ((0, piece) for piece in read_packets(stream, (*apids_of(apid), *FILE_APIDS)))
            else:
                pieces = packets_off_air(iter(lambda: stream.read(GATHERED_OCTETS), b""), receiver)
            yield from packets_and_files(pieces, apid)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}), wanted a file of packets or frames") from None


def receiver_for(path: Path, link: Link, apid: int) -> FrameReceiver | None:
    """Who reads the frames of a file; None where packets lie in it on their own. Its beginning tells: frames that pass
    their checks, or else packets that do; a mission with frames has frames where there are neither."""
    if link.stack is None:
        return None
    try:
        with path.open("rb") as stream:
            beginning = stream.read(PROBED_OCTETS)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}), wanted a file of packets or frames") from None
    probe = FrameReceiver(link.stack)
    frames = [*probe.push(beginning), *probe.finish()]
    packets = any(is_packet(piece) for piece in read_packets(beginning, (*apids_of(apid), *FILE_APIDS)))
    return FrameReceiver(link.stack) if frames or probe.reception.frames.idle or not packets else None


def nothing_there(path: Path, reception: Reception, apid: int, frames: FrameReception | None) -> str:
    """Why no scene came of a stream, in one line."""
    counts = reception.counts
    if frames is not None and frames.frames.packets == 0:
        return (
            f"{path}: no packet in {frames.sync.frames} frames, {frames.frames.refused} of them refused; give the "
            "mission whose [link.stack] they were sent with, or the right file"
        )
    if counts.foreign:
        return (
            f"{path}: {counts.foreign} packets of other applications and none of APID {apid} gave a scene; "
            "give the mission whose policy.apid they carry"
        )
    causes = f"; first: {reception.unaddressed[0]}" if reception.unaddressed else ""
    return f"{path}: no scene in {counts.received} pieces, wanted space packets of a payload{causes}"


def _folder_name(scene: SceneReception) -> str:
    return "no-id" if scene.scene_id is None else f"{scene.scene_id:08x}"
