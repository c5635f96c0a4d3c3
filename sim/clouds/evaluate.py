"""`sim evaluate-clouds`: the gate's network beside s2cloudless and two published rules, against Sen2Cor.

Takes bundles or folders of `export.clouds.train` (clouds.onnx + clouds.json), each judged on the sites its own training
left out; gives one nested result. The shipped network and the two rotations beside it leave out every site once between
them, so that figures are pooled over all of them. Nothing is tuned here: thresholds come with the network.
"""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from payload.bundle import SHIPPED, Bundle, load_bundle
from payload.clouds.gate import (
    CLEAR,
    NETWORK_FILE,
    SHADOW,
    THICK,
    THIN,
    CloudMask,
    CloudNet,
    detect_clouds,
    read_settings,
)
from payload.engine import NATIVE, Engine, open_engine
from payload.errors import InputError
from payload.link.tile_code import pack
from payload.native import library
from payload.pipeline import Payload
from payload.policy import Gate, Policy
from payload.scene import RGBN
from payload.tiles import Tile, split
from sim.clouds import figures as figures
from sim.clouds.audit import clopper_pearson
from sim.clouds.cost import savings
from sim.clouds.figures import Counts, Reliability
from sim.clouds.rules import braaten_cohen_yang, hot_whiteness
from sim.clouds.samples import (
    FIRM,
    READINGS,
    SCENE,
    SCENE_REFERENCE,
    SCL_CLASSES,
    CloudSample,
    ThirteenBands,
    load_samples,
    load_thirteen_bands,
)
from sim.scenes.open_scene import open_scene

OURS, BCY, HOT = "nadir", "braaten-cohen-yang", "hot-whiteness"
S2CLOUDLESS, SEN2COR = "s2cloudless", "sen2cor-scl"
RULES: dict[str, Callable[[NDArray[np.uint16]], NDArray[np.bool_]]] = {BCY: braaten_cohen_yang, HOT: hot_whiteness}
METHODS = {
    OURS: "this project's INT8 network, 4 bands",
    BCY: "Braaten, Cohen and Yang 2015, thresholds on green and red",
    HOT: "Fmask's visible tests (Zhu and Woodcock 2012): haze-optimised and white",
    S2CLOUDLESS: "s2cloudless (Sentinel Hub), 10 of 13 bands at the top of the atmosphere, where those exist",
    SEN2COR: "Sen2Cor's scene classification, the reference (12 bands); itself a detector",
}
#: Tiles less known than this are not asked whether they are cloudy.
LEAST_KNOWN = 0.5
SLICES = ("clear", "snow", "sand", "water", "urban")
#: s2cloudless' own defaults: threshold .4; window and dilation scaled from 60 m as its makers advise for 10 m.
S2CLOUDLESS_THRESHOLD, S2CLOUDLESS_AVERAGE_PX, S2CLOUDLESS_DILATION_PX = 0.4, 22, 11
SCENE_TILE_PX = 256
#: The other rotations' networks: with the shipped one they leave out every site once.
ROTATIONS = Path(__file__).resolve().parents[2] / "export" / "checkpoints" / "clouds"
BUNDLE = "edge"
#: Tiles and rounds of the gate's cost, at steps from fine to coarse; the requirement is held against the one whose
#: compression ratio lies near 20, where `sim bench` compares speeds, too.
GATE_TILES, GATE_ROUNDS, GATE_STEPS_DN, GATE_RATIO = 12, 20, (60.0, 120.0, 200.0), 20.0
FLATTENING_STEPS_DN = (120.0, 60.0)


@dataclass(frozen=True, eq=False)
class Candidate:
    """A network with the sites left out of its training."""

    name: str
    net: CloudNet
    test_sites: tuple[str, ...]
    origin: dict[str, Any]


@dataclass(frozen=True, eq=False)
class Judged:
    """One sample with what every method says of it."""

    sample: CloudSample
    mask: CloudMask
    found: dict[str, NDArray[np.bool_]] = field(default_factory=dict)


def default_networks() -> list[str]:
    """The shipped bundle, and the rotations that are kept beside the recipe where this is a checkout."""
    folders = sorted(p.parent for p in ROTATIONS.glob("*/clouds.onnx")) if ROTATIONS.is_dir() else []
    return [BUNDLE, *(str(f) for f in folders if _origin(f)["rotation"] != "shipped")]


def open_candidate(where: str | Path, engine: Engine) -> Candidate:
    """A shipped bundle by name, a bundle's directory, or a folder written by `python -m export.clouds.train`."""
    for folder in (Path(where), SHIPPED / str(where)):
        for network in (folder / NETWORK_FILE, folder / "clouds.onnx"):
            if network.is_file():
                origin = _origin(folder)
                net = CloudNet(engine.load(network, require_int8=True), read_settings(origin))
                return Candidate(Path(where).name, net, tuple(origin["split"]["test"]), origin)
    raise InputError(f"{where}: no cloud network there; give a bundle or a folder of `python -m export.clouds.train`")


def _origin(folder: Path) -> dict[str, Any]:
    """clouds.json, or where that is not there the same table in the bundle's manifest."""
    table = folder / "clouds.json"
    try:
        if table.is_file():
            origin = json.loads(table.read_text(encoding="utf-8"))
        else:
            origin = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["clouds"]
        tuple(origin["split"]["test"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{folder}: its cloud network does not say what it left out ({error}); rebuild it") from None
    return dict(origin)


def tile_of(dn: NDArray[np.uint16]) -> Tile:
    return Tile(0, 0, np.ascontiguousarray(dn), np.ones(dn.shape[1:], bool))


def judge(samples: Iterator[CloudSample], net: CloudNet) -> list[Judged]:
    judged = []
    for sample in samples:
        mask = detect_clouds(tile_of(sample.dn), net)
        rules = {name: rule(sample.dn) for name, rule in RULES.items()}
        judged.append(Judged(sample, mask, {OURS: mask.cloudy} | rules))
    return judged


def evaluate_clouds(
    data: Path, networks: Sequence[str | Path], engine_name: str = "openvino"
) -> tuple[dict[str, Any], list[Judged]]:
    """Everything measured, and the judged tiles for the page. Networks' test sites must not overlap."""
    engine = open_engine(engine_name, 1)
    candidates = [open_candidate(where, engine) for where in networks]
    sites = [site for c in candidates for site in c.test_sites]
    if len(sites) != len(set(sites)):
        raise InputError("two of the networks left out the same site; give networks of different rotations")
    judged = [j for c in candidates for j in judge(load_samples(data, set(c.test_sites)), c.net)]
    if not any(j.sample.scl is not None for j in judged):
        raise InputError(f"{data}: no labelled tile of the left-out sites {', '.join(sites)}; give the whole folder")
    first = candidates[0]
    result = {
        "engine": f"{engine.name} {engine.version}",
        "methods": METHODS,
        "networks": [{"name": c.name, "test_sites": c.test_sites, "settings": c.origin} for c in candidates],
        "pixels": {r: {m: _pixel_scores(judged, m, r) for m in (OURS, *RULES)} for r in READINGS},
        "classes": _class_scores(judged),
        "tiles": {r: {m: _tile_scores(judged, m, r) for m in (OURS, *RULES)} for r in READINGS},
        "sites": _per_site(judged),
        "tile_map": [[t.wanted, t.sure] for t in _tiles(judged, FIRM)],
        "slices": {m: _slice_scores(judged, m) for m in (OURS, *RULES)},
        "reliability": _reliability(judged),
        "sensors": _gain_test(judged, candidates),
        "thirteen_bands": _thirteen_bands(load_thirteen_bands(data), candidates),
        "scene": _scene(data, first.net),
        "flattening": _flattening(data, networks[0], engine),
        "measured_on_host": {"megapixels_per_s": speed(first.net), "gate": gate_costs(data, networks[0], engine)},
    }
    result["checks"] = checks(result)
    return figures.rounded(result), judged


def _labelled(judged: list[Judged]) -> list[Judged]:
    return [j for j in judged if j.sample.scl is not None]


def _pixel_scores(judged: list[Judged], method: str, reading: str) -> dict[str, Any]:
    counts = [figures.count(j.found[method], *j.sample.reference(reading)) for j in _labelled(judged)]
    total = figures.pooled(counts)
    return {"pixels": total.total} | total.scores()


def _class_scores(judged: list[Judged]) -> dict[str, dict[str, Any]]:
    """Ours per class, every class of the reference at its word.

    Cloud where cloud is likelier than the threshold, then the likelier of the two kinds.
    """
    totals = [Counts()] * 4
    table = np.full(256, 255, np.uint8)
    table[list(SCL_CLASSES)] = list(SCL_CLASSES.values())
    for j in _labelled(judged):
        wanted = table[j.sample.scl]
        found = _classes(j.mask)
        known = wanted != 255
        totals = [t + figures.count(found == k, wanted == k, known) for k, t in enumerate(totals)]
    return {name: t.scores() for name, t in zip(("clear", "thick", "thin", "shadow"), totals, strict=True)}


def _classes(mask: CloudMask) -> NDArray[np.int64]:
    cells = mask.cells
    cloud = np.where(cells[THIN] > cells[THICK], THIN, THICK)
    ground = np.where(cells[SHADOW] > cells[CLEAR], SHADOW, CLEAR)
    kinds = np.where(cells[THICK] + cells[THIN] > mask.cloudy_above, cloud, ground)
    return np.asarray(kinds.repeat(mask.cell_px, axis=0).repeat(mask.cell_px, axis=1))


@dataclass(frozen=True)
class TileVerdict:
    """One labelled tile: cloud fraction by the reference, of what is known; fraction the gate is sure of; site."""

    site: str
    wanted: float
    sure: float


def _tiles(judged: list[Judged], reading: str) -> list[TileVerdict]:
    """Tiles classified for more than half."""
    found = []
    for j in _labelled(judged):
        cloud, known = j.sample.reference(reading)
        if known.mean() > LEAST_KNOWN:
            found.append(TileVerdict(j.sample.site, float(cloud[known].mean()), j.mask.sure_fraction))
    return found


def _tile_scores(judged: list[Judged], method: str, reading: str = FIRM) -> dict[str, Any]:
    """Tiles classified for more than half; a tile is cloudy above CLOUDY_TILE of its known pixels.

    `interval`: Clopper and Pearson's for the false discards, at 95 %.
    """
    found, wanted = [], []
    for j in _labelled(judged):
        cloud, known = j.sample.reference(reading)
        if known.mean() > LEAST_KNOWN:
            wanted.append(figures.cloudy_tile(cloud, known))
            found.append(_withheld(j, method))
    total = figures.tile_counts(found, wanted)
    lost, clear = total.false_positive, total.false_positive + total.true_negative
    interval = clopper_pearson(lost, clear) if clear else None
    return {
        "tiles": total.total, "clear_tiles": clear, "discarded_falsely": lost, "interval": interval,
        "false_discards": total.scores()["false_alarms"],
    } | total.scores()  # fmt: skip


def _withheld(judged: Judged, method: str) -> bool:
    """Whether a gate at CLOUDY_TILE throws the tile away: ours by what it is sure of, a rule by its mask."""
    share = judged.mask.sure_fraction if method == OURS else judged.found[method].mean()
    return bool(share > figures.CLOUDY_TILE)


def _per_site(judged: list[Judged]) -> list[dict[str, Any]]:
    rows = []
    for site in sorted({j.sample.site for j in judged}):
        here = [j for j in judged if j.sample.site == site]
        row: dict[str, Any] = {"site": site, "tiles": len(here), "gsd_m": here[0].sample.gsd_m}
        if here[0].sample.scl is not None:
            scores = _tile_scores(here, OURS)
            row |= {"pixel_iou": _pixel_scores(here, OURS, FIRM)["iou"], "tile_accuracy": scores["accuracy"]}
            row |= {key: scores[key] for key in ("false_discards", "discarded_falsely", "clear_tiles")}
        else:
            withheld = sum(_withheld(j, OURS) for j in here)
            row |= {"cloud_called": float(np.mean([j.mask.cloud_fraction for j in here])), "withheld": withheld}
        rows.append(row)
    return rows


def _slice_scores(judged: list[Judged], method: str) -> dict[str, dict[str, Any]]:
    """Clear ground by kind: tiles that would be withheld, pixels called cloud."""
    rows = {}
    for kind in SLICES:
        here = [j for j in judged if kind in j.sample.slices]
        if here:
            masks = [j.found[method] for j in here]
            rows[kind] = {
                "tiles": len(here),
                "sites": len({j.sample.site for j in here}),
                "false_discards": float(np.mean([_withheld(j, method) for j in here])),
                "pixels_called_cloud": float(sum(mask.sum() for mask in masks) / sum(mask.size for mask in masks)),
            }
    return rows


def _reliability(judged: list[Judged]) -> dict[str, Any]:
    total: Reliability | None = None
    for j in _labelled(judged):
        one = figures.reliability(j.mask.probability, *j.sample.reference())
        total = one if total is None else total + one
    if total is None:
        return {"bins": [], "expected_error": None}
    return {"bins": total.rows(), "expected_error": total.expected_error}


def _gain_test(judged: list[Judged], candidates: list[Candidate]) -> dict[str, float | None]:
    """Pixel IoU with the bands' gain changed: a sensor with another calibration."""
    found = {}
    nets = {site: c.net for c in candidates for site in c.test_sites}
    chosen = _labelled(judged)[::4]
    for gain in (0.7, 0.85, 1.0, 1.15, 1.4):
        counts = []
        for j in chosen:
            dn = np.minimum(j.sample.dn * gain, 65535.0).astype(np.uint16)
            mask = detect_clouds(tile_of(dn), nets[j.sample.site])
            counts.append(figures.count(mask.cloudy, *j.sample.reference()))
        found[f"gain {gain:g}"] = figures.pooled(counts).scores()["iou"]
    return found


def s2cloudless_probability(x: NDArray[np.uint16]) -> NDArray[np.float32] | None:
    """Cloud probability by s2cloudless of a 13-band top-of-atmosphere image [13, H, W]; None if not installed."""
    try:
        from s2cloudless import S2PixelCloudDetector
    except ImportError:
        return None
    detector = S2PixelCloudDetector(
        threshold=S2CLOUDLESS_THRESHOLD, average_over=S2CLOUDLESS_AVERAGE_PX,
        dilation_size=S2CLOUDLESS_DILATION_PX, all_bands=True,
    )  # fmt: skip
    reflectance = x.transpose(1, 2, 0)[None].astype(np.float32) / 10_000.0
    return np.asarray(detector.get_cloud_probability_maps(reflectance)[0], np.float32)


def _thirteen_bands(samples: list[ThirteenBands], candidates: list[Candidate]) -> list[dict[str, Any]]:
    """Share of cloud each method sees and its agreement with s2cloudless; ours where a network left the site out."""
    rows = []
    for sample in samples:
        probability = s2cloudless_probability(sample.x)
        net = next((c.net for c in candidates if sample.site in c.test_sites), None)
        theirs = None if probability is None else probability > S2CLOUDLESS_THRESHOLD
        masks = {name: rule(sample.x[[1, 2, 3, 7]]) for name, rule in RULES.items()}
        if net is not None:
            height, width = sample.x.shape[1:]
            masks[OURS] = detect_padded(sample.x[[1, 2, 3, 7]], net).cloudy[:height, :width]
        row: dict[str, Any] = {"name": sample.name, "cloud": {n: float(m.mean()) for n, m in masks.items()}}
        if theirs is not None:
            row["cloud"][S2CLOUDLESS] = float(theirs.mean())
            row["agreement"] = {n: float((m == theirs).mean()) for n, m in masks.items()}
        rows.append(row)
    return rows


def detect_padded(dn: NDArray[np.uint16], net: CloudNet) -> CloudMask:
    """One mask of an image of any size: padded below and to the right with no data to a square the network takes."""
    height, width = dn.shape[1:]
    side = -(-max(height, width) // net.settings.stride_px) * net.settings.stride_px
    square = np.pad(dn, ((0, 0), (0, side - height), (0, side - width)), mode="edge")
    valid = np.zeros((side, side), bool)
    valid[:height, :width] = True
    return detect_clouds(Tile(0, 0, square, valid), net)


def _scene(data: Path, net: CloudNet) -> dict[str, Any] | None:
    """The end-to-end scene, tile by tile as in flight, against both of its references; None where it is not there."""
    if not ((data / SCENE).is_file() and (data / SCENE_REFERENCE).is_file()):
        return None
    with np.load(data / SCENE_REFERENCE) as reference:
        theirs = reference["s2cloudless"] > S2CLOUDLESS_THRESHOLD * 255.0
        scl = reference["scl"]
        likely = reference["sen2cor"]
    sen2cor = np.isin(scl, (8, 9, 10))
    masks = scene_masks(data, net) | {SEN2COR: sen2cor}
    return {
        "cloud": {n: float(m.mean()) for n, m in (masks | {S2CLOUDLESS: theirs}).items()},
        "iou_with_s2cloudless": {n: figures.iou(m, theirs) for n, m in masks.items()}
        | {"sen2cor-probability>20": figures.iou(likely > 20, theirs)},
        "iou_with_sen2cor": {n: figures.iou(m, sen2cor) for n, m in masks.items() if n != SEN2COR},
    }


def scene_masks(data: Path, net: CloudNet) -> dict[str, NDArray[np.bool_]]:
    """Masks of the whole scene by ours and the rules, [H, W] each; scene pixels without data are never cloud."""
    with open_scene(str(data / SCENE), RGBN) as scene:
        height, width = scene.info.height_px, scene.info.width_px
        masks = {name: np.zeros((height, width), bool) for name in (OURS, *RULES)}
        for tile in split(scene, SCENE_TILE_PX):
            top, left = tile.row * SCENE_TILE_PX, tile.col * SCENE_TILE_PX
            place = slice(top, min(top + SCENE_TILE_PX, height)), slice(left, min(left + SCENE_TILE_PX, width))
            inside = slice(0, place[0].stop - top), slice(0, place[1].stop - left)
            masks[OURS][place] = detect_clouds(tile, net).cloudy[inside]
            for name, rule in RULES.items():
                masks[name][place] = (rule(tile.dn) & tile.valid)[inside]
    return masks


def speed(net: CloudNet, size_px: int = 256, repeats: int = 200) -> float:
    """Megapixels a second on one core, DN to mask: best of `repeats` tiles, as other programs may share the core."""
    rng = np.random.default_rng(0)
    ramp = np.linspace(300, 6000, size_px)[None, None, :] + rng.normal(0, 200, (4, size_px, size_px))
    tile = tile_of(np.maximum(ramp, 0).astype(np.uint16))
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        _ = detect_clouds(tile, net).cloud_fraction
        times.append(time.perf_counter() - start)
    return size_px**2 / min(times) / 1e6


def _bundle_at(where: str | Path) -> Bundle | None:
    folder = next((f for f in (Path(where), SHIPPED / str(where)) if (f / "manifest.json").is_file()), None)
    return None if folder is None else load_bundle(folder)


def _flattening(data: Path, where: str | Path, engine: Engine) -> list[dict[str, Any]]:
    """What coding closed cloud coarser saves on the scene, at two quantiser steps; nothing without bundle or scene."""
    bundle = _bundle_at(where)
    if bundle is None or not (data / SCENE).is_file():
        return []
    return [savings(data / SCENE, bundle, engine, step_dn) for step_dn in FLATTENING_STEPS_DN]


def gate_costs(data: Path, where: str | Path, engine: Engine) -> list[dict[str, float]]:
    """Processor time that the gate adds to the onboard line, on tiles of the scene that are all coded, per step.

    `added`: time with the gate over time without it, less 1, best of some rounds per tile, with and without by turns.
    The codec runs on the compiled kernel where that was built: the fastest it can, so the gate weighs the most. Nothing
    for a network outside a bundle, or without the scene.
    """
    bundle = _bundle_at(where)
    if bundle is None or not (data / SCENE).is_file():
        return []
    engine = open_engine(NATIVE, 1) if library.available else engine
    with open_scene(str(data / SCENE), bundle.bands) as scene:
        tiles = [tile for tile in split(scene, bundle.tile_px) if tile.valid.all()][:GATE_TILES]
    return [_gate_cost(tiles, bundle, engine, step_dn) for step_dn in GATE_STEPS_DN] if tiles else []


def _gate_cost(tiles: list[Tile], bundle: Bundle, engine: Engine, step_dn: float) -> dict[str, float]:
    everything = Gate(withhold_above_percent=100.0, audit_count=0)
    payload = Payload(bundle, Policy(step_dn=step_dn, gate=everything), engine)
    gate, seconds = payload.clouds, np.full((2, len(tiles)), np.inf)
    for _ in range(GATE_ROUNDS):
        for gated in (0, 1):
            payload.clouds = gate if gated else None
            for i, tile in enumerate(tiles):
                start = time.process_time()
                payload.encode_tile(tile)
                seconds[gated, i] = min(seconds[gated, i], time.process_time() - start)
    without_s, with_s = (float(s) for s in seconds.sum(axis=1))
    octets = sum(len(pack(payload.encode_tile(tile))) for tile in tiles)
    ratio = sum(2 * tile.dn.size for tile in tiles) / octets
    per_tile_ms = 1000.0 * (with_s - without_s) / len(tiles)
    return {"step_dn": step_dn, "ratio": ratio, "gate_ms": per_tile_ms, "added": with_s / without_s - 1.0}


def checks(result: dict[str, Any]) -> list[dict[str, Any]]:
    """The bars, each with what was measured; a figure that could not be measured is not held."""
    tiles, scene, slices = result["tiles"][FIRM][OURS], result["scene"], result["slices"][OURS]
    host = result["measured_on_host"]
    gate = min(host["gate"], key=lambda cost: abs(cost["ratio"] - GATE_RATIO), default={"added": None})
    rows = [
        ("tile accuracy on left-out sites", tiles["accuracy"], ">=", 0.92),
        ("false discards, tiles of left-out sites", tiles["false_discards"], "<=", 0.01),
        ("pixel IoU of cloud on left-out sites", result["pixels"][FIRM][OURS]["iou"], ">=", 0.75),
        ("false discards on clear snow", slices.get("snow", {}).get("false_discards"), "<=", 0.02),
        ("false discards on clear sand", slices.get("sand", {}).get("false_discards"), "<=", 0.02),
        ("megapixels a second on one core", host["megapixels_per_s"], ">=", 30.0),
        ("time the gate adds to the onboard line, at a ratio of about 20", gate["added"], "<=", 0.25),
    ]
    if scene is not None:
        agreement = scene["iou_with_s2cloudless"]
        bar = agreement[SEN2COR] - 0.03 if agreement[SEN2COR] is not None else 1.0
        rows.append(("scene: IoU with s2cloudless, against Sen2Cor's less .03", agreement[OURS], ">=", bar))
    return [
        dict(zip(("requirement", "measured", "relation", "limit"), row, strict=True)) | {"held": _held(*row[1:])}
        for row in rows
    ]


def _held(value: float | None, relation: str, limit: float) -> bool:
    return value is not None and (value >= limit if relation == ">=" else value <= limit)


def as_text(result: dict[str, Any]) -> str:
    """The checks, the tile-level contenders and the sites, for the terminal."""
    rows = []
    for check in result["checks"]:
        value = "not measured" if check["measured"] is None else f"{check['measured']:.4g}"
        word = "held    " if check["held"] else "NOT HELD"
        rows.append(f"{word}  {check['requirement']}: {value} ({check['relation']} {check['limit']:.4g})")
    for cost in result["measured_on_host"]["gate"]:
        step, ratio, added, gate_ms = (cost[key] for key in ("step_dn", "ratio", "added", "gate_ms"))
        rows.append(f"gate at step {step:g} DN, ratio {ratio:.1f}: adds {100 * added:.1f} %, {gate_ms:.2f} ms a tile")
    for reading, methods in result["tiles"].items():
        for name, s in methods.items():
            known = ", ".join(f"{key} {s[key]:.3f}" for key in ("accuracy", "false_discards") if s[key] is not None)
            iou = result["pixels"][reading][name]["iou"]
            rows.append(
                f"{reading}, {name}: {s['tiles']} tiles, {known}" + ("" if iou is None else f", pixel IoU {iou:.3f}")
            )
    for row in result["sites"]:
        shown = {key: value for key, value in row.items() if key not in ("site", "gsd_m")}
        rows.append(f"{row['site']}: " + ", ".join(f"{key} {value}" for key, value in shown.items()))
    return "\n".join(rows)
