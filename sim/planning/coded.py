"""Distinct scenes, really coded: octets of every tile and layer on the link, and the quality that each layer leaves.

Every tile goes through the gate and the bundle's codec as on board and into the payload's store; what that hands back
is what the planner counts, decoded again after each of its layers. The opponents code the same tiles: CCSDS 121 the
counts of the sensor, JPEG 2000 at the same NDVI error. Quality is measured on clear pixels alone: what the gate's
network does not take for cloud.
"""

import math
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from payload.apps.first import Applications
from payload.bundle import Bundle
from payload.clouds.gate import Action, decide, detect_clouds
from payload.clouds.network import load_cloud_net
from payload.engine import Engine
from payload.errors import InputError
from payload.link.pass_filling import cut_points, values_per_octet
from payload.link.rate_control import Candidate
from payload.link.scene_header import SceneHeader, headers_on_air
from payload.link.space_packet import octets_on_air
from payload.link.tile_code import Kind
from payload.link.valid_mask import pack_mask
from payload.pipeline import Payload
from payload.policy import Policy
from payload.scene import Dn, Mask, SceneInfo
from payload.sensor import Sensor
from payload.stopwatch import Stopwatch
from payload.store.files import FolderFiles
from payload.store.store import SceneLog, Store
from payload.tiles import Tile, split
from sim.compare.classical import LOSSLESS, Ccsds121, Codec, Jpeg2000Joint
from sim.ground.decoder import Decoder
from sim.metrics.pixels import ndvi
from sim.mission.regions import regions_in_pixels
from sim.mission.sites import plan_of
from sim.mission.spec import Mission
from sim.onboard.sending import header_of
from sim.planning.table import TileTable
from sim.progress import Progress
from sim.scenes.demo import demo_scene
from sim.scenes.open_scene import OpenScene, open_scene

#: Side of the generated scenes that are coded, and the most tiles coded of any scene: evenly chosen.
DEMO_PX, MOST_TILES = 768, 9
#: The step is looked for on so many tiles, and lowered by so much where it misses.
PROBED, LOWERED = 8, 0.95
TRIES = 4
#: Room of the store that the coded tiles lie in; what the mission's own holds is the planner's (`coded_store_mib`).
MOST_STORED_OCTETS = 1 << 33
#: Of a layer: its octets on the link, what it is worth per octet, NDVI error and squared error after it.
Row = tuple[float, float, float, float]


@dataclass(frozen=True, eq=False)
class Sample:
    """A tile of a distinct scene. `clear`: valid pixels that the network does not take for cloud."""

    scene: int
    header: SceneHeader  # of the scene
    tile: Tile
    clear: Mask
    withheld: bool
    keep: int | None  # layers at most, None for all


@dataclass(frozen=True, eq=False)
class CodedScenes:
    """What was coded: the three tables over the same tiles, the step that reaches the quality, and the scenes."""

    ours: TileTable
    lossless: TileTable
    jpeg2000: TileTable
    step_dn: float
    infos: tuple[SceneInfo, ...]
    names: tuple[str, ...]


def code_scenes(
    names: Sequence[str], bundle: Bundle, engine: Engine, mission: Mission, ndvi_mae: float, progress: Progress
) -> CodedScenes:
    """Codes up to MOST_TILES tiles of each scene with all three codecs, at an NDVI error of at most `ndvi_mae`; the
    mission's applications look at the same tiles."""
    policy = mission.policy
    _refuse_a_bound(policy)
    samples, infos, records, answers = _samples(names, bundle, engine, mission)
    asked = replace(policy, budget_octets=MOST_STORED_OCTETS)  # as for a pass: errors of layers are wanted
    payload, decoder = Payload(bundle, asked, engine), Decoder(bundle, engine)
    payload.clouds = None  # the gate has spoken already
    step_dn, table = _at_quality(samples, payload, decoder, ndvi_mae, progress)
    ours = replace(table, record_octets=records, answer_octets=answers if mission.apps else None)
    packet = policy.packet_octets
    lossless = _opponent(samples, Ccsds121(), LOSSLESS, bundle.sensor, packet)
    progress("lossless", len(samples))
    jpeg2000 = _jpeg2000(samples, _mean(ours), ours, bundle.sensor, packet)
    bare = np.zeros(len(infos))
    return CodedScenes(
        ours, replace(lossless, record_octets=bare), replace(jpeg2000, record_octets=bare), step_dn, tuple(infos),
        tuple(names),
    )  # fmt: skip


def _samples(
    names: Sequence[str], bundle: Bundle, engine: Engine, mission: Mission
) -> tuple[list[Sample], list[SceneInfo], NDArray[np.float64], NDArray[np.float64]]:
    """The tiles that are coded, the scenes' descriptions, and the octets of each scene's headers and answers."""
    policy, watch = mission.policy, Stopwatch()
    net = load_cloud_net(bundle, engine) if "clouds" in bundle.manifest else None
    samples: list[Sample] = []
    infos: list[SceneInfo] = []
    records: list[float] = []
    answers: list[float] = []
    for number, name in enumerate(names):
        with _open(name, bundle) as scene:
            gate = regions_in_pixels(policy.gate, scene.info)
            tiles = _some([tile for tile in split(scene, bundle.tile_px) if not tile.empty])
            if not tiles:
                raise InputError(f"{name}: holds no valid pixel, wanted a scene with data")
            header = header_of(scene, bundle)
            records.append(float(headers_on_air(header, 1, policy.packet_octets)))
            infos.append(scene.info)
            apps = Applications(plan_of(mission, scene.info), bundle, engine)
            apps.begin(header)
        for tile in tiles:
            mask = detect_clouds(tile, net) if net else None
            decision = decide(mask, gate, tile) if mask else None
            withheld = decision is not None and decision.action is Action.WITHHOLD
            clear = tile.valid & ~mask.cloudy if mask else tile.valid
            samples.append(Sample(number, header, tile, clear, withheld, decision.layers if decision else None))
            apps.look(watch, tile, mask, None if withheld else lambda: None)
        answers.append(float(apps.on_air(policy.packet_octets)))
    return samples, infos, np.array(records), np.array(answers)


def _open(name: str, bundle: Bundle) -> OpenScene:
    word, _, rest = name.partition(":")
    if word == "demo":
        return demo_scene(DEMO_PX, DEMO_PX, int(rest or 0))
    return open_scene(name, sensor=bundle.sensor)


def _refuse_a_bound(policy: Policy) -> None:
    if policy.max_error_dn is not None:
        raise InputError("max_error_dn is set, and a plan chooses among layers; leave it out of the mission to plan it")


def _some(tiles: list[Tile]) -> list[Tile]:
    every = max(1, math.ceil(len(tiles) / MOST_TILES))
    return tiles[::every]


def _at_quality(
    samples: list[Sample], payload: Payload, decoder: Decoder, limit: float, progress: Progress
) -> tuple[float, TileTable]:
    """The coarsest step tried whose finest layers keep the mean NDVI error at `limit`, and the table it gives."""
    probed = [s for s in samples if not s.withheld][:: max(1, len(samples) // PROBED)][:PROBED] or samples[:PROBED]
    step_dn = _first_guess(probed, payload, decoder, limit)
    for _ in range(TRIES):
        payload.policy = replace(payload.policy, step_dn=step_dn, psnr_db=None)
        table = _coded(samples, payload, decoder, progress)
        if _mean(table) <= limit:
            return step_dn, table
        step_dn *= LOWERED * min(1.0, limit / _mean(table))
    raise InputError(f"an NDVI error of {limit:g} is not reached at a step of {step_dn:.0f} DN; ask for a larger one")


def _first_guess(samples: list[Sample], payload: Payload, decoder: Decoder, limit: float) -> float:
    """The error goes by a power of the step: two steps tell which."""
    steps = (100.0, 400.0)
    errors = []
    for step in steps:
        payload.policy = replace(payload.policy, step_dn=step, psnr_db=None)
        errors.append(_mean(_coded(samples, payload, decoder, lambda *_: None, finest=True)))
    power = math.log(errors[1] / errors[0]) / math.log(steps[1] / steps[0])
    found = steps[0] * (0.985 * limit / errors[0]) ** (1 / max(power, 0.1))
    return float(np.clip(found, 4.0, 2000.0))


def _coded(
    samples: list[Sample], payload: Payload, decoder: Decoder, progress: Progress, finest: bool = False
) -> TileTable:
    """Every tile coded and stored, and what the store hands back decoded after each layer; `finest`: after the last one
    only."""
    rows, withheld = [], []
    with tempfile.TemporaryDirectory(prefix="nadir-mission-") as folder:
        logs = _stored(samples, payload, Store(FolderFiles(Path(folder), MOST_STORED_OCTETS)))
        for sample in samples:
            tile, gated = _drawn(logs[sample.scene], (sample.tile.row, sample.tile.col))
            rows.append(_measured(sample, tile, decoder, payload, finest))
            withheld.append(gated)
            progress("coded and decoded", len(samples))
    return replace(_table(samples, rows), withheld=np.array(withheld))


def _stored(samples: list[Sample], payload: Payload, store: Store) -> dict[int, SceneLog]:
    """A complete scene in the payload's store for each that was sampled. What the gate withholds lies there as on
    board, but for its thumbnail, which has all layers: missions draw the coarsest, a flight without a gate all."""
    logs: dict[int, SceneLog] = {}
    for scene, tiles in groupby(samples, key=lambda sample: sample.scene):
        first = next(tiles)
        log = store.open_scene(first.header)
        if log is None or not all(_put(log, sample, payload) for sample in (first, *tiles)) or not log.close():
            raise InputError("the coded tiles do not fit on the disk of temporary files; free some of it")
        logs[scene] = log
    return logs


def _put(log: SceneLog, sample: Sample, payload: Payload) -> bool:
    """A tile coded and on disk; False where there is no room."""
    tile = payload.weigh_tile(sample.tile)
    code = replace(tile.code, scene_id=log.scene_id, mask=pack_mask(sample.tile.valid), sent_octets=-1)
    if not sample.withheld:
        return log.add(replace(tile, code=code))
    declared = replace(code, kind=Kind.WITHHELD, side=b"", mask=b"", layers=(), declared=0, sent_octets=-1)
    return log.add_audit(replace(code, kind=Kind.AUDIT)) and log.add(replace(tile, code=declared))


def _drawn(log: SceneLog, address: tuple[int, int]) -> tuple[Candidate, bool]:
    """A tile with all its layers out of the store, and whether the gate withheld it."""
    found, thumbnail = log.tile(address), log.audit(address)
    if found is None:
        raise InputError(f"tile {address}: its record on the disk of temporary files is damaged; run this again")
    return (found, False) if thumbnail is None else (replace(found, code=replace(thumbnail, kind=Kind.CODED)), True)


def _measured(sample: Sample, tile: Candidate, decoder: Decoder, payload: Payload, finest: bool) -> list[Row]:
    """(octets of this layer on the link, what it is worth per octet, NDVI error, squared error) after each layer."""
    row: list[Row] = []
    points = cut_points(tile, payload.policy.packet_octets)
    before = 0.0  # a tile of which nothing goes is not sent, so that its head counts for its coarsest layer
    for point, value in zip(points[1:], values_per_octet(points), strict=True):
        layers = tile.code.layers[: point.layers]
        cut = replace(tile.code, layers=layers, declared=point.layers, sent_octets=-1)
        figures = (math.nan, math.nan) if finest and len(layers) < len(tile.code.layers) else _errors(
            sample, decoder.decode_tile(cut), payload.bundle.sensor
        )  # fmt: skip
        row.append((point.octets - before, value, *figures))
        before = point.octets
    return row


def _errors(sample: Sample, decoded: Dn, sensor: Sensor) -> tuple[float, float]:
    """Mean NDVI error and mean squared error in DN^2 over clear pixels; over valid ones where none is clear."""
    here = sample.clear if sample.clear.any() else sample.tile.valid
    index = np.abs(ndvi(decoded, sensor) - ndvi(sample.tile.dn, sensor))[here]
    off = (decoded.astype(np.float64) - sample.tile.dn)[:, here]
    return float(index.mean()), float((off**2).mean())


def _opponent(
    samples: list[Sample], codec: Codec, setting: float, sensor: Sensor, packet_octets: int
) -> TileTable:
    rows = []
    for sample in samples:
        counts, unit = _counts(sample.tile.dn) if setting == LOSSLESS else (sample.tile.dn, 1)
        octets = codec.encode(counts, setting)
        decoded = codec.decode(octets) * np.uint16(unit)
        rows.append([(float(octets_on_air(len(octets), packet_octets)), 0.0, *_errors(sample, decoded, sensor))])
    return _table(samples, rows)


def _counts(dn: Dn) -> tuple[Dn, int]:
    """What the sensor counted: DN that are all multiples of a number are that many times fewer counts."""
    unit = max(1, int(np.gcd.reduce(dn.ravel())))
    return np.ascontiguousarray(dn // np.uint16(unit)), unit


def _jpeg2000(
    samples: list[Sample], error: float, ours: TileTable, sensor: Sensor, packet_octets: int
) -> TileTable:
    """JPEG 2000 at the coarsest quality tried whose mean NDVI error is no larger than ours."""
    codec, rmse = Jpeg2000Joint(), math.sqrt(float(np.nanmean(ours.finest(ours.mse))))
    make: Callable[[float], TileTable] = lambda r: _opponent(samples, codec, r, sensor, packet_octets)  # noqa: E731
    table = make(rmse)
    for _ in range(TRIES):
        if 0.985 * error <= _mean(table) <= error:
            break
        rmse *= 0.995 * error / _mean(table)
        table = make(rmse)
    while _mean(table) > error:
        rmse *= LOWERED
        table = make(rmse)
    return table


def _mean(table: TileTable) -> float:
    """Mean NDVI error of the finest layers over clear pixels of tiles that are sent."""
    weights = np.where(table.withheld, 0.0, table.clear_px)
    weights = weights if weights.sum() else np.ones(len(weights))
    return float((table.finest(table.ndvi_mae) * weights).sum() / weights.sum())


def _table(samples: list[Sample], rows: Sequence[Sequence[Row]]) -> TileTable:
    most = max(map(len, rows))
    filled = np.full((4, len(rows), most), np.nan)
    filled[:2] = 0.0
    for k, row in enumerate(rows):
        filled[:, k, : len(row)] = np.array(row).T
    return TileTable(
        scene=np.array([s.scene for s in samples]),
        octets=filled[0],
        value=filled[1],
        ndvi_mae=filled[2],
        mse=filled[3],
        spread=np.array([float(s.tile.dn.astype(np.float64).var(axis=(1, 2)).mean()) for s in samples]),
        clear_px=np.array([float(s.clear.sum()) for s in samples]),
        valid_px=np.array([float(s.tile.valid.sum()) for s in samples]),
        withheld=np.array([s.withheld for s in samples]),
        keep=np.array([most if s.keep is None else s.keep for s in samples]),
        record_octets=np.zeros(1 + max(s.scene for s in samples)),
    )
