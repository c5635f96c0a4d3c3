"""The figures of one downlink -> the report's tables (docs/report.md). Gathers and names; computes nothing new."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from math import nan
from typing import Any, Literal

import numpy as np

from hil.devices.latency import Work
from payload.bundle import Bundle
from payload.clouds.network import ROLES, looked_at
from payload.engine import Engine
from payload.errors import StreamError
from payload.link.frames.stack import LayerOctets
from payload.link.tile_code import UNKNOWN_CLOUD, Kind
from payload.scene import SceneInfo
from payload.sensor import Sensor
from payload.tiles import grid
from payload.version import software
from sim.clouds import audit
from sim.delivery.rounds import DeliveryReport
from sim.ground.decoder import FULL, Decoder
from sim.ground.decoder_size import decoder_size
from sim.ground.reception import Address, Reception, SceneReception
from sim.link.channel import LinkReport
from sim.link.frames.channel import FrameLinkReport
from sim.link.frames.receiver import FrameReception
from sim.link.rate_steps import NOT_CODED
from sim.metrics import distortion
from sim.metrics.catalogue import BY_KIND, REPORTED
from sim.mission import budgets
from sim.mission.devices import scene_work
from sim.mission.spec import Mission
from sim.mission.trust import signer
from sim.mission.verification import verify
from sim.onboard.device import DeviceRun
from sim.onboard.sending import Onboard
from sim.products.origin import attribution
from sim.report import bound, housekeeping
from sim.report.apps import apps_section
from sim.report.comparison import Comparison
from sim.report.link import frames_read, layer_octets
from sim.report.measured import Ground, on_device, on_host

NAMES = {Kind.CODED: "coded", Kind.WITHHELD: "withheld", Kind.EMPTY: "empty", Kind.FALLBACK: "fallback",
         Kind.OMITTED: "omitted"}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Run:
    """What went into one downlink and what came off the link."""

    seed: int
    info: SceneInfo
    bundle: Bundle
    mission: Mission
    engine: Engine
    link: LinkReport | FrameLinkReport
    reception: Reception  # all that arrived
    received: SceneReception  # of it, this scene
    delivery: DeliveryReport = field(default_factory=lambda: DeliveryReport("raw"))
    broken: str | None = None  # why the bundle failed its checks, where the mission flew on without it
    layers: LayerOctets | None = None  # what each layer of the link added
    frames: FrameReception | None = None  # as the ground decoded them, where frames were sent
    decoder: str = FULL
    answers_s: Mapping[int, float] = field(default_factory=dict)  # when each answer was here, s after the pass began
    samples_per_px: float | None = None  # measured ones, where bands have several resolutions; None: one a band

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of tiles that were sent."""
        return grid(self.info, self.bundle.tile_px)


def kinds(received: SceneReception, rows_cols: tuple[int, int]) -> list[list[str]]:
    """What became of every tile, by row and column."""
    rows, cols = rows_cols
    return [[_kind(received, (row, col)) for col in range(cols)] for row in range(rows)]


def _kind(received: SceneReception, address: Address) -> str:
    if address in received.refused:
        return "refused"
    return NAMES[received.codes[address].kind] if address in received.codes else "lost"


def compose(
    run: Run, onboard: Onboard, ground: Ground, comparison: Comparison, audits: dict[str, Any]
) -> dict[str, Any]:
    """The report as `sim.report.files.write_report` wants it."""
    tiles = _tiles(run, comparison)
    # All tiles withheld or lost is a result, not a mistake: then there are no figures of quality.
    figures: dict[str, float | None] = {**comparison.figures()}
    figures |= _rate(run, comparison.compared_px)
    figures |= _fractions(tiles)
    figures["false_discard_fraction"] = _false_discards(tiles, audits)
    cost = _cost(run, onboard)
    bounded = run.mission.policy.max_error_dn, run.received, figures
    rows = budgets.assess(cost, run.mission)
    checks = verify(figures, run.mission, rows)
    scene_px = run.info.height_px * run.info.width_px
    return {
        "inputs": _inputs(run) | _device_inputs(onboard.device),
        "tiles": {"basis": "measured"} | tiles,
        "link": _link(run),
        "housekeeping": housekeeping.told(run.reception.housekeeping, onboard.memory),
        "delivery": {"basis": DELIVERY_BASIS} | asdict(run.delivery),
        "rate": {"basis": "measured"}
        | _rate(run, comparison.compared_px)
        | {"octets": _octets(run), "bpp_of_the_whole_scene": 8 * _octets(run) / scene_px},
        "quality": _quality(figures, comparison),
        "clouds": _clouds(run, tiles) | _flattened(comparison) | comparison.cloud_mask | {"audit": audits},
        "notes": notes(run),
        "budgets": [_budget_row(row) for row in rows],
        "checks": [*map(asdict, checks), *bound.checks(*bounded), *_octets_compared(onboard.device)],
        "modelled": _modelled(cost, run.mission),
        "decoder": decoder_size(run.bundle, run.decoder),
        "conventions": [_what_dn_is(run.bundle.sensor), *CONVENTIONS],
        "attribution": attribution_of(run.info),
        "measured_on_host": on_host(onboard, ground, cost, run.bundle.tile_px),
    } | bound.section(*bounded) | _apps(run, onboard, tiles) | on_device(
        onboard.device, cost, run.bundle.tile_px
    )  # fmt: skip


def _what_dn_is(sensor: Sensor) -> str:
    if sensor.unit == "reflectance" and sensor.scale == 1e-4:
        return "DN = reflectance x 10 000, processing offset removed."
    offset = sensor.offset + sensor.scale * sensor.lowest
    return f"{sensor.unit} = {sensor.scale:g} x DN + {offset:g} (sensor {sensor.name})."


CONVENTIONS = [
    "Octets: every octet on the air: tile codes, headers, CRCs, audit thumbnails, housekeeping and, where the mission "
    "sends frames, their headers, idle data, parity and markers.",
    "Compression ratios and bits per pixel are over the pixels the ground holds: withheld tiles do not flatter them.",
    "Figures of quality compare only valid pixels of tiles that the ground decoded; edges evened out as delivered.",
    "The packets are the same on every host. Instruction sets may differ by 1 DN in some decoded samples, engines by "
    "some 2 DN (root mean square): inputs name the engine, measured_on_host the host's instruction set.",
    "Modelled figures come from the device profile named beside them; emulated time is never shown as latency.",
]


def _inputs(run: Run) -> dict[str, Any]:
    info = run.info
    scene = {k: getattr(info, k) for k in ("name", "height_px", "width_px", "gsd_m", "bits", "sensed_at", "nodata")}
    return {
        "scene": scene | {"bands": list(info.bands), "crs": _crs_name(info.crs_wkt), "notes": list(info.notes)},
        "software": software(),
        "bundle": {"name": run.bundle.name, "id": f"{run.bundle.bundle_id:08x}", "codec": run.bundle.codec["kind"]}
        | ({"failed_its_checks": run.broken} if run.broken else {"signature": signer(run.bundle, run.mission)}),
        "mission": {"name": run.mission.name, "title": run.mission.title, "device": run.mission.device},
        "seed": run.seed,
        "engine": {"name": run.engine.name, "version": run.engine.version},
        "decoder": run.decoder,
    }


def _device_inputs(device: DeviceRun | None) -> dict[str, Any]:
    """The device under test as it named itself; nothing of it is a time."""
    if device is None:
        return {}
    names = ("machine", "cpu", "cores", "memory_mib", "system", "python", "emulated", "engine")
    return {"device_under_test": {"url": device.name} | {name: getattr(device.info, name) for name in names}}


def _crs_name(wkt: str | None) -> str | None:
    return wkt.split('"')[1] if wkt and '"' in wkt else None


DELIVERY_BASIS = "measured: octets and PDUs; modelled: times, by rates and round trip"
LINK_BASIS = "measured: counts of packets and octets; modelled: losses, a seeded draw beside what is to be expected"


def _link(run: Run) -> dict[str, Any]:
    """What the channel did to the packets, and what the ground saw of it."""
    others = [key for key in run.reception.scenes if key != run.received.scene_id]
    return (
        {"basis": LINK_BASIS, "not_coded": NOT_CODED}
        | asdict(run.link)
        | ({} if run.layers is None else layer_octets(run.layers))
        | ({} if run.frames is None else frames_read(run.frames))
        | {f"ground_{name}": value for name, value in asdict(run.reception.counts).items()}
        | {
            "scene_header_arrived": run.received.header is not None,
            "end_of_scene_arrived": run.received.fates is not None,
            "other_scenes": len(others),
        }
    )


def _tiles(run: Run, comparison: Comparison) -> dict[str, Any]:
    rows = [
        tile_row(run.received, (row, col), kind, comparison.tile_psnr_db.get((row, col)))
        for row, names in enumerate(kinds(run.received, run.grid))
        for col, kind in enumerate(names)
    ]
    counts = Counter(tile["kind"] for tile in rows)
    wanted = ("coded", "withheld", "omitted", "empty", "fallback", "lost", "refused")
    return {kind: counts[kind] for kind in wanted} | {
        "incomplete": sum(tile["incomplete"] for tile in rows),
        "total": len(rows), "rows": run.grid[0], "cols": run.grid[1], "tile_px": run.bundle.tile_px,
        "refused_without_address": len(run.reception.unaddressed), "outside_the_grid": len(run.received.outside),
        "list": rows,
    }  # fmt: skip


def tile_row(received: SceneReception, address: Address, kind: str, psnr_db: float | None) -> dict[str, Any]:
    """One row of the tile list. `octets_sent` is what its header says was sent, None where no header arrived."""
    row, col = address
    place = {"row": row, "col": col, "kind": kind, "psnr_db": psnr_db}
    code = received.codes.get(address)
    if code is None:
        cause = received.refused.get(address, "nothing of it arrived")
        nothing = {"octets_sent": None, "octets_received": 0, "layers": 0, "layers_sent": None, "incomplete": False}
        return place | nothing | {"cloud_percent": None, "cause": cause}
    return place | {
        "octets_sent": code.sent_octets, "octets_received": code.usable_octets,
        "layers": len(code.layers), "layers_sent": code.declared, "incomplete": code.incomplete,
        "cloud_percent": None if code.cloud_percent == UNKNOWN_CLOUD else code.cloud_percent,
        "cause": received.refused.get(address) or code.cause,
    }  # fmt: skip


def _rate(run: Run, coded_px: int) -> dict[str, float]:
    if not coded_px:
        return dict.fromkeys(("cr16", "cr_sensor", "bpp", "bpppb"), nan)
    samples = run.samples_per_px or len(run.info.bands)
    return distortion.rate_figures(_octets(run), coded_px, samples, run.info.bits)


def _octets(run: Run) -> int:
    """Every octet the payload produced for the link, whether the pass was long enough for it or not."""
    return run.link.octets_sent + run.link.octets_beyond_pass


def _fractions(tiles: dict[str, Any]) -> dict[str, float | None]:
    full = tiles["total"] - tiles["empty"]
    sent = full - tiles["withheld"] - tiles["omitted"]
    gone = tiles["lost"] + tiles["refused"]
    return {
        "lost_fraction": gone / sent if sent else 0.0,
        "incomplete_fraction": None if sent and gone == sent else tiles["incomplete"] / sent if sent else 0.0,
        "withheld_fraction": tiles["withheld"] / full if full else 0.0,
    }


def _false_discards(tiles: Mapping[str, Any], audits: Mapping[str, Any]) -> float | None:
    """Of the audited tiles, the share that was not found cloudy. None where withheld tiles were not audited."""
    if tiles["withheld"]:
        return audits.get("rate")
    return 0.0 if tiles["lost"] + tiles["refused"] < tiles["total"] else None


def notes(run: Run) -> list[str]:
    """What was assumed about the scene, and where it is not what the mission's imager takes."""
    info, imager, told = run.info, run.mission.imager, []
    of = f"the imager of mission {run.mission.name}"
    if abs(info.gsd_m - imager.gsd_m) > 0.05 * imager.gsd_m:
        told.append(
            f"the scene has {info.gsd_m:g} m a pixel and {of} {imager.gsd_m:g} m: "
            "budgets of an orbit count the imager's pixels"
        )
    if len(info.bands) != imager.bands:
        told.append(f"the scene has {len(info.bands)} bands and {of} {imager.bands}")
    if info.bits != imager.bits:
        told.append(f"the scene has {info.bits} bit a sample and {of} {imager.bits}: cr_sensor counts the scene's")
    return [*info.notes, *told]


def _apps(run: Run, onboard: Onboard, tiles: dict[str, Any]) -> dict[str, Any]:
    """Answers of applications beside the pictures; nothing where none flew."""
    if onboard.apps is None:
        return {}
    return {"apps": apps_section(run.mission, onboard.apps, run.received, run.answers_s, tiles, _octets(run))}


def _cost(run: Run, onboard: Onboard) -> budgets.SceneRun:
    looked_at, coded = onboard.work.get("judged", 0), onboard.work.get("coded", 0)
    work = scene_work(run.bundle, run.mission.device, looked_at, coded)
    work += Work(macs=sum(app.macs for app in onboard.apps.apps) if onboard.apps else 0.0)
    pixels = onboard.work.get("valid_px") or run.info.height_px * run.info.width_px
    if onboard.device is None:
        return budgets.SceneRun(pixels, _octets(run), work, sum(onboard.seconds.values()), onboard.peak_mib)
    device = onboard.device
    timed_on: Literal["device", "emulated"] = "device" if device.timed else "emulated"
    return budgets.SceneRun(pixels, _octets(run), work, sum(device.tile_s), device.peak_memory_mib, timed_on)


def _quality(figures: Mapping[str, float | None], comparison: Comparison) -> dict[str, Any]:
    return {
        "basis": "measured",
        "metrics": [
            {"name": m.name, "value": figures.get(m.key), "unit": m.unit, "convention": m.convention, "key": m.key}
            for m in (*REPORTED, *(m for m in BY_KIND if m.key in figures))
        ],
        "error_scale": comparison.pictures.error_scale,
        "mask_legend": comparison.pictures.mask_legend,
    }


def _clouds(run: Run, tiles: dict[str, Any]) -> dict[str, Any]:
    known = [t["cloud_percent"] for t in tiles["list"] if t["cloud_percent"] is not None]
    gate = run.mission.policy.gate
    return {
        "basis": "measured: by the payload's gate; assumed: the thresholds",
        "cloud_percent": float(np.mean(known)) if known else None,
        "withhold_above_percent": gate.withhold_above_percent,
        "reduce_above_percent": gate.reduce_above_percent,
        "tiles_judged": len(known),
        "withheld_tiles": tiles["withheld"],
        "audited_tiles": len(run.received.audits),
    }


def _flattened(comparison: Comparison) -> dict[str, Any]:
    compared = comparison.compared_px
    return {"flattened_percent": 100.0 * comparison.flattened_px / compared if compared else None}


def audit_section(received: SceneReception, decoder: Decoder) -> dict[str, Any]:
    """Verdicts on the thumbnails that arrived, and what they say about the gate."""
    verdicts = []
    for (row, col), code in sorted(received.audits.items()):
        try:
            dn = decoder.decode_tile(code)
            seen = looked_at(dn, decoder.sensor.places(*ROLES) or ())
            verdict = audit.judge_thumbnail(seen, np.ones(dn.shape[1:], bool))
        except StreamError:
            verdict = "unknown"
        verdicts.append(audit.Audit("", row, col, code.cloud_percent, verdict))
    withheld = sum(code.kind is Kind.WITHHELD for code in received.codes.values())
    rows, cols = received.grid
    return audit.section(verdicts, withheld, rows * cols)


def _budget_row(row: budgets.Budget) -> dict[str, Any]:
    used = {"name": row.name, "used": row.used, "limit": row.available, "unit": row.unit}
    return used | {"basis": row.basis, "source": row.how, "held": row.held, "not_judged": row.not_judged}


def _modelled(cost: budgets.SceneRun, mission: Mission) -> dict[str, Any]:
    rates, spent, sent = budgets.throughput(cost, mission), budgets.energy(cost, mission), budgets.volume(cost, mission)
    speed = "payload_mpx_s" if spent.whole_payload else "device_mpx_s"
    return {
        "basis": "modelled", "device": spent.device, "source": spent.source,
        speed: rates.device_mpx_s, "device_realtime_factor": rates.device_realtime_factor,
        "imager_mpx_s": rates.imager_mpx_s, "scene_s": spent.scene_s, "scene_s_range": list(spent.scene_s_range),
        "scene_j": spent.scene_j, "scene_j_range": list(spent.scene_j_range), "orbit_j": spent.orbit_j,
        "orbit_assumption": spent.orbit_assumption,
        "pass_mpx": sent.pass_px / 1e6, "macs": cost.work.macs, "entropy_macs": cost.work.entropy_macs,
    }  # fmt: skip


def attribution_of(info: SceneInfo) -> list[str]:
    """What must be said of whose pixels these are."""
    if info.name.startswith("demo"):
        return [f"{attribution(info)}. It is easier to code: at CR 50 about 4 dB above real tiles."]
    return [f"{attribution(info)}."]


def _octets_compared(device: DeviceRun | None) -> list[dict[str, Any]]:
    """The check that the device computes what this host does, where that was asked."""
    if device is None or device.compared is None:
        return []
    equal = device.compared - len(device.different)
    cause = "; ".join(f"row {row}, column {col} differs" for row, col in device.different[:3]) or None
    return [{
        "requirement": "tiles with this host's octets", "measured": equal, "limit": device.compared, "unit": "tiles",
        "relation": ">=", "held": not device.different, "basis": "measured", "cause": cause,
    }]  # fmt: skip
