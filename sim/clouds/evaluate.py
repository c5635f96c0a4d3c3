"""`sim evaluate-clouds`: the gate's network beside detectors of others, against Sen2Cor and against people.

Takes bundles or folders of `export.clouds` (clouds.onnx + clouds.json), each judged on the sites its own training left
out; gives one nested result. The shipped network and the two rotations beside it leave out every site once between
them, so that figures are pooled over all of them. Nothing is tuned here: thresholds come with the network. Where the
references disagree, all of them are shown.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from payload.clouds.gate import detect_clouds
from payload.clouds.mask import SHADOW, THICK, THIN
from payload.engine import Engine, open_engine
from payload.errors import InputError
from payload.sensor import RGBN
from payload.tiles import split
from sim.clouds import figures
from sim.clouds.cost import bundle_at, gate_costs, ground_cost, savings, speed
from sim.clouds.figures import Counts, GatedTile, Reliability, by_threshold
from sim.clouds.human import JudgedChip, gate_on_chips, human_rows, judge_chips
from sim.clouds.judged import (
    BCY,
    HOT,
    OURS,
    RULES,
    Candidate,
    Judged,
    detect_padded,
    gated_tile,
    judge,
    open_candidate,
)
from sim.clouds.other_detectors import (
    CS_CLOUD,
    CS_SHADOW,
    S2CLOUDLESS_THRESHOLD,
    csmask_classes,
    csmask_is_there,
    s2cloudless_probability,
)
from sim.clouds.other_light import light_rows
from sim.clouds.outline import is_cloud
from sim.clouds.requirements import checks
from sim.clouds.samples import (
    FIRM,
    READINGS,
    SCENE,
    SCENE_REFERENCE,
    SCL_CLASSES,
    ThirteenBands,
    load_human_chips,
    load_samples,
    load_thirteen_bands,
    read_named,
)
from sim.metrics.intervals import clopper_pearson
from sim.progress import Progress, silent
from sim.scenes.open_scene import open_scene

S2CLOUDLESS, SEN2COR, CSMASK = "s2cloudless", "sen2cor-scl", "ukis-csmask"
METHODS = {
    OURS: "this project's, 4 bands: pixels by the ground's network, tiles by the INT8 network that flies",
    BCY: "Braaten, Cohen and Yang 2015, thresholds on green and red",
    HOT: "Fmask's visible tests (Zhu and Woodcock 2012): haze-optimised and white",
    CSMASK: "ukis-csmask 1.0.0 (Wieland and others 2022), 4 bands, 40 MB: the teacher of ours",
    S2CLOUDLESS: "s2cloudless (Sentinel Hub), 10 of 13 bands at the top of the atmosphere, where those exist",
    SEN2COR: "Sen2Cor's scene classification, the reference (12 bands); itself a detector",
}
#: Tiles less known than this are not asked whether they are cloudy.
LEAST_KNOWN = 0.5
SLICES = ("clear", "snow", "sand", "water", "urban")
#: Ground sampling distance of the payload: figures of the tiles that have it stand beside those of all.
FINE_M = 10
SCENE_TILE_PX = 256
FLATTENING_STEPS_DN = (120.0, 60.0)


@dataclass(frozen=True, eq=False)
class Material:
    """What the page shows pictures of."""

    judged: list[Judged]
    chips: list[JudgedChip]


def evaluate_clouds(
    data: Path, networks: Sequence[str | Path], engine_name: str = "openvino", advance: Progress = silent
) -> tuple[dict[str, Any], Material]:
    """Everything measured, and the judged tiles for the page. Networks' test sites must not overlap."""
    engine = open_engine(engine_name, 1)
    candidates = [open_candidate(where, engine) for where in networks]
    sites = [site for c in candidates for site in c.test_sites]
    if len(sites) != len(set(sites)):
        raise InputError("two of the networks left out the same site; give networks of different rotations")
    teacher = csmask_classes if csmask_is_there() else None
    judged, steps = [], len(candidates) + 2
    for c in candidates:
        judged += judge(load_samples(data, set(c.test_sites)), c, teacher)
        advance(f"tiles of {c.name}", steps)
    if not any(j.sample.scl is not None for j in judged):
        raise InputError(f"{data}: no labelled tile of the left-out sites {', '.join(sites)}; give the whole folder")
    chips = judge_chips(load_human_chips(data), candidates[0])
    advance("chips labelled by people", steps)
    result = _measured(data, networks, candidates, judged, chips, engine)
    advance("scores", steps)
    result["checks"] = checks(result)
    return figures.rounded(result), Material(judged, chips)


def _measured(
    data: Path, networks: Sequence[str | Path], candidates: list[Candidate], judged: list[Judged],
    chips: list[JudgedChip], engine: Engine,
) -> dict[str, Any]:  # fmt: skip
    first = candidates[0]
    methods, gated = _methods(judged), _gated(judged)
    return {
        "engine": f"{engine.name} {engine.version}",
        "methods": METHODS,
        "networks": [{"name": c.name, "test_sites": c.test_sites, "settings": c.origin} for c in candidates],
        "human": human_rows(chips),
        "human_gate": gate_on_chips(chips),
        "pixels": {r: {m: _pixel_scores(judged, m, r) for m in methods} for r in READINGS},
        "classes": _class_scores(judged),
        "teacher": _teacher_scores(judged),
        "tiles": {r: {m: _tile_scores(judged, m, r) for m in methods} for r in READINGS},
        "gate": figures.at_threshold(gated, figures.WITHHELD_ABOVE),
        "gate_by_threshold": by_threshold(gated),
        "gate_by_threshold_teacher": by_threshold(_gated(judged, CSMASK)) if CSMASK in methods else [],
        "sites": _per_site(judged),
        "tile_map": [[t.wanted, t.sure] for t in _tiles(judged, FIRM)],
        "slices": {m: _slice_scores(judged, m) for m in (OURS, *RULES)},
        "reliability": _reliability(judged),
        "light": _light(judged, chips, candidates),
        "thirteen_bands": _thirteen_bands(load_thirteen_bands(data), candidates),
        "scene": _scene(data, first),
        "flattening": _flattening(data, networks[0], engine),
        "measured_on_host": {
            "megapixels_per_s": speed(first.net),
            "ground_s_per_megapixel": ground_cost(first),
            "gate": gate_costs(data, networks[0], engine),
        },
    }


def _methods(judged: list[Judged]) -> list[str]:
    return [OURS, *RULES, *([CSMASK] if any(j.teacher is not None for j in judged) else [])]


def _cloud_by(judged: Judged, method: str) -> NDArray[np.bool_]:
    if method == CSMASK and judged.teacher is not None:
        return np.asarray(judged.teacher == CS_CLOUD)
    return judged.found[method]


def _labelled(judged: list[Judged]) -> list[Judged]:
    return [j for j in judged if j.sample.scl is not None]


def _pixel_scores(judged: list[Judged], method: str, reading: str) -> dict[str, Any]:
    counts = [figures.count(_cloud_by(j, method), *j.sample.reference(reading)) for j in _labelled(judged)]
    total = figures.pooled(counts)
    return {"pixels": total.total, "iou_interval": figures.interval(counts, "iou")} | total.scores()


def _class_scores(judged: list[Judged]) -> dict[str, dict[str, Any]]:
    """The classes a user reads, every class of the reference at its word."""
    totals = [Counts()] * 4
    table = np.full(256, 255, np.uint8)
    table[list(SCL_CLASSES)] = list(SCL_CLASSES.values())
    for j in _labelled(judged):
        wanted = table[j.sample.scl]
        found = j.classes
        known = wanted != 255
        totals = [t + figures.count(found == k, wanted == k, known) for k, t in enumerate(totals)]
    return {name: t.scores() for name, t in zip(("clear", "thick", "thin", "shadow"), totals, strict=True)}


def _teacher_scores(judged: list[Judged]) -> dict[str, dict[str, Any]] | None:
    """Ours against ukis-csmask on the labelled tiles: cloud, shadow, and of its cloud what we call thin.

    What users read is outlined as people draw it, which the teacher's classes are not; `likeliest class` is the
    network's own word beside the teacher's.
    """
    told = [j for j in judged if j.teacher is not None]
    if not told:
        return None
    fine = [j for j in told if j.sample.gsd_m == FINE_M]
    rows: dict[str, dict[str, Any]] = {}
    for name, wanted_class, kinds in (("cloud", CS_CLOUD, (THICK, THIN)), ("shadow", CS_SHADOW, (SHADOW,))):
        for row, here in ((name, told), (f"{name}, tiles of {FINE_M} m", fine)):
            rows[row] = _against_teacher(here, [j.classes for j in here], wanted_class, kinds)
        likeliest = [j.likeliest for j in told if j.likeliest is not None]
        rows[f"{name}, likeliest class"] = _against_teacher(told, likeliest, wanted_class, kinds)
    cloud = sum(int(_cloud_by(j, CSMASK).sum()) for j in told)
    thin = sum(int((_cloud_by(j, CSMASK) & (j.classes == THIN)).sum()) for j in told)
    rows["cloud"]["called_thin"] = thin / cloud if cloud else None
    return rows


def _against_teacher(
    judged: list[Judged], classes: list[NDArray[np.uint8]], wanted_class: int, kinds: tuple[int, ...]
) -> dict[str, Any]:
    counts = [
        figures.count(np.isin(found, kinds), np.asarray(j.teacher == wanted_class), np.ones(found.shape, bool))
        for j, found in zip(judged, classes, strict=True)
    ]
    return figures.pooled(counts).scores() | {"iou_interval": figures.interval(counts, "iou")}


def _gated(judged: list[Judged], method: str = FIRM) -> list[GatedTile]:
    """The tiles in pixels of the firm reading, or by CSMASK those that it was asked about, in its own."""
    found = []
    for j in judged:
        if method == CSMASK and j.teacher is None:
            continue
        cloud, known = j.sample.reference()
        if method == CSMASK:
            cloud, known = _cloud_by(j, CSMASK), np.ones(cloud.shape, bool)
        found.append(gated_tile(j.sample.site, cloud, known, j.mask))
    return found


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
    share = judged.mask.sure_fraction if method == OURS else _cloud_by(judged, method).mean()
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


def _light(judged: list[Judged], chips: list[JudgedChip], candidates: list[Candidate]) -> list[dict[str, Any]]:
    by = {site: c for c in candidates for site in c.test_sites}
    samples = [(j.sample, by[j.sample.site]) for j in _labelled(judged)]
    return light_rows([j.chip for j in chips], samples, candidates[0])


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


def _scene(data: Path, by: Candidate) -> dict[str, Any] | None:
    """The end-to-end scene, tile by tile as in flight, against both of its references; None where it is not there."""
    if not ((data / SCENE).is_file() and (data / SCENE_REFERENCE).is_file()):
        return None
    likelihood, scl, likely = read_named(data / SCENE_REFERENCE, "s2cloudless", "scl", "sen2cor")
    theirs = likelihood > S2CLOUDLESS_THRESHOLD * 255.0
    sen2cor = np.isin(scl, (8, 9, 10))
    masks = scene_masks(data, by) | {SEN2COR: sen2cor}
    return {
        "cloud": {n: float(m.mean()) for n, m in (masks | {S2CLOUDLESS: theirs}).items()},
        "iou_with_s2cloudless": {n: figures.iou(m, theirs) for n, m in masks.items()}
        | {"sen2cor-probability>20": figures.iou(likely > 20, theirs)},
        "iou_with_sen2cor": {n: figures.iou(m, sen2cor) for n, m in masks.items() if n != SEN2COR},
    }


def scene_masks(data: Path, by: Candidate) -> dict[str, NDArray[np.bool_]]:
    """Masks of the whole scene by ours and the rules, [H, W] each; scene pixels without data are never cloud."""
    with open_scene(str(data / SCENE), RGBN) as scene:
        height, width = scene.info.height_px, scene.info.width_px
        masks = {name: np.zeros((height, width), bool) for name in (OURS, *RULES)}
        for tile in split(scene, SCENE_TILE_PX):
            top, left = tile.row * SCENE_TILE_PX, tile.col * SCENE_TILE_PX
            place = slice(top, min(top + SCENE_TILE_PX, height)), slice(left, min(left + SCENE_TILE_PX, width))
            inside = slice(0, place[0].stop - top), slice(0, place[1].stop - left)
            drawn = by.classes(tile.dn[:, *inside], detect_clouds(tile, by.net), scene.info.gsd_m)
            masks[OURS][place] = is_cloud(drawn) & tile.valid[inside]
            for name, rule in RULES.items():
                masks[name][place] = (rule(tile.dn) & tile.valid)[inside]
    return masks


def _flattening(data: Path, where: str | Path, engine: Engine) -> list[dict[str, Any]]:
    """What coding closed cloud coarser saves on the scene, at two quantiser steps; nothing without bundle or scene."""
    bundle = bundle_at(where)
    if bundle is None or not (data / SCENE).is_file():
        return []
    return [savings(data / SCENE, bundle, engine, step_dn) for step_dn in FLATTENING_STEPS_DN]
