"""Scene to ground: the whole system in one function.

scene -> payload -> packets.bin -> frames.bin -> channel -> frames -> packets -> reception -> picture
      -> comparison with the original -> checks -> report
"""

from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from payload.bundle import DEFAULT, Bundle
from payload.engine import Engine
from payload.errors import InputError
from payload.tiles import grid
from sim.aided.archive import Archive, laid_over
from sim.aided.product import aid
from sim.apps.products import write_answers
from sim.clouds.ground_mask import BUNDLES_OWN, open_ground_mask
from sim.delivery.carry import carry
from sim.ground.arrivals import Watch, unwatched
from sim.ground.decoder import AUTO, Decoder, decoder_for
from sim.ground.reception import by_id, receive_channels
from sim.mission.change import UNCHANGED, Change
from sim.mission.regions import regions_in_pixels, regions_outside
from sim.mission.sites import plan_of
from sim.mission.spec import DEFAULT as DEFAULT_MISSION
from sim.mission.spec import Mission, load_mission
from sim.mission.trust import MISSIONS_OWN, Trust
from sim.onboard.aboard import NOTHING, Uplink, flying
from sim.onboard.device import refuse_scene_policy
from sim.onboard.engine_choice import ANY_ENGINE, engine_for
from sim.onboard.sending import PACKETS_FILE, Device, header_of, packets_in, put_on_air, send, send_by_device
from sim.products.delivery import whole_or_nothing
from sim.products.rasters import ORIGINAL_FILE, write_scene
from sim.progress import Progress, in_parts
from sim.receive import CLOUD_FILE, deliver, origin_of, write_catalogue
from sim.report import tables
from sim.report.aided import aided_section
from sim.report.comparison import compare_with_original
from sim.report.files import write_report
from sim.scenes.imager.band_shift import as_imaged
from sim.scenes.open_scene import AS_STORED, OpenScene, Reading, open_reading
from sim.spread import Spread


@dataclass(frozen=True)
class Request:
    """What the user asked for."""

    scene: str
    out: Path
    mission: str = DEFAULT_MISSION
    bundle: str = DEFAULT
    engine: str | Engine = ANY_ENGINE  # `openvino`, and `native` for a large scene
    seed: int = 0
    reading: Reading = AS_STORED  # what the user says of the file: bands, scale, offset
    overwrite: bool = False
    device: Device | None = None  # a device under test that codes the tiles instead of this host
    psnr_db: float | None = None  # constant quality instead of what the mission says
    trust: Trust = MISSIONS_OWN  # whose bundles fly besides those that the mission trusts
    decoder: str = AUTO  # `full`, and `fast` for a large scene
    cloud_mask: str = BUNDLES_OWN  # whose network draws cloud.tif
    jobs: int = 1  # threads; neither octets nor figures depend on them
    keep_original: bool = False  # as original.tif beside what was received, for `sim serve`
    change: Change = UNCHANGED
    uplink: Uplink = NOTHING  # a second bundle and telecommands, before the scene
    watch: Watch = unwatched  # makes the record of what arrives when; the live page has its own
    band_shift: int | None = None  # px between the bands, in place of the imager's
    one_grid: bool = False  # all bands in one file, whatever their resolutions
    archive: Archive | None = None  # older dates: a second product, refined by them


def downlink(request: Request, progress: Progress) -> dict[str, Any]:
    """One scene through payload, link and ground; everything it writes appears in `request.out` at the end, or nothing.

    Returns the report (docs/report.md). InputError where an input cannot be used.
    """
    mission = mission_of(request)
    progress = in_parts(progress, 4 if request.archive else 3)  # on board, on the ground (twice), verification
    with (
        flying(request.bundle, request.uplink, mission) as (bundle, broken, memory),
        _imaged(request, mission, bundle) as original,
        whole_or_nothing(request.out, request.overwrite) as folder,
        Spread(request.jobs) as spread,
        spread.ahead(original) as scene,
        laid_over(scene.info, request.archive, bundle) as overlay,
    ):
        engine, coded = engine_for(request.engine, scene.info, bundle)
        mask = open_ground_mask(bundle, engine, request.cloud_mask)  # first, as it may refuse
        policy = replace(mission.policy, gate=regions_in_pixels(mission.policy.gate, scene.info))
        kind, said = decoder_for(request.decoder, scene.info.height_px * scene.info.width_px, bundle)
        outside = regions_outside(mission.policy.gate, scene.info)
        info = replace(scene.info, notes=scene.info.notes + outside + coded + said)
        header = header_of(scene, bundle)
        if request.device is None:
            flown = mission.protection, plan_of(mission, info), memory
            onboard = send(scene, header, bundle, policy, engine, folder, progress, *flown)
        else:
            refuse_scene_policy(policy, mission.name, bool(mission.apps))
            onboard = send_by_device(request.device, scene, header, bundle, policy, engine, folder, progress)
        layers = put_on_air(folder, mission.link.stack, policy, onboard) if mission.delivery.in_frames else None

        # The ground, from here on, has the octets that arrived and the bundle.
        read = partial(packets_in, apid=policy.apid)
        arrivals = request.watch(header, policy.apid, bundle, engine)
        carried = carry(read, folder / PACKETS_FILE, mission.link, mission.delivery, policy, request.seed, arrivals)
        reception = receive_channels(carried.packets, by_id([bundle]), policy.apid)
        received, decoder = reception.scene(header.scene_id), Decoder(bundle, engine, kind)
        arrivals.finish(received.codes.values(), folder)
        write_answers([received], mission, folder)
        give = partial(deliver, received, bundle, decoder, mask, mission, folder, progress, spread, request.one_grid)
        delivered = give() if any(received.grid) else None
        aided = aid(received, decoder, mask, overlay, origin_of(received, mission), folder, progress, spread)

        # Verification alone opens the original again.
        kinds, layers = tables.kinds(received, grid(scene.info, bundle.tile_px)), layers or carried.layers
        pictures, cloud = (delivered.pictures, folder / CLOUD_FILE) if delivered else ((), None)
        if request.keep_original:
            write_scene(folder / ORIGINAL_FILE, scene)
        beside = compare_with_original(scene, pictures, cloud, mask, folder, kinds, progress, spread, onboard.flattened)
        ground = tables.Ground.now(delivered.seconds if delivered else 0.0, decoder.speed_mpx_s)
        run = tables.Run(
            request.seed, info, bundle, mission, engine, carried.link, reception, received, carried.report, broken,
            layers, carried.frames, kind, arrivals.answers_s, decoder.samples_per_px,
        )  # fmt: skip
        report = tables.compose(run, onboard, ground, beside, tables.audit_section(received, decoder))
        report |= aided_section(aided, scene, report, bundle.tile_px, spread, onboard.flattened)
        write_report(report, beside.pictures.paths, folder, spread)
        write_catalogue([delivered] if delivered else [], folder)
    return report


def _imaged(request: Request, mission: Mission, bundle: Bundle) -> OpenScene:
    """The scene as the imager hands it over, its bands registered where the mission says so."""
    scene = open_reading(request.reading, request.scene, bundle.sensor, request.seed)
    shift_px = mission.imager.band_shift_px if request.band_shift is None else request.band_shift
    return as_imaged(scene, shift_px, mission.policy.register_bands)


def mission_of(request: Request) -> Mission:
    """The mission, with what the command line adds to its trust and puts in the place of its policy."""
    mission = request.trust.added_to(load_mission(request.mission))
    given = {n: v for n, v in {"psnr_db": request.psnr_db, **asdict(request.change)}.items() if v is not None}
    if request.change.max_error_dn is not None:
        if request.psnr_db is not None:
            raise InputError("--max-error and --psnr both say how good every tile shall be; give one")
        given |= {"budget_octets": None, "psnr_db": None}
    loss = {name: given.pop(name) for name in ("packet_loss",) if name in given}
    return replace(mission, policy=replace(mission.policy, **given), link=replace(mission.link, **loss))
