"""Networks and tiles -> what every method says of every tile: what `sim evaluate-clouds` counts afterwards."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from payload.bundle import GROUND_CLOUDS_FILE, SHIPPED
from payload.clouds.gate import detect_clouds, flattened_pixels
from payload.clouds.mask import CLEAR, NO_CLASS, SHADOW, THICK, THIN, CloudMask
from payload.clouds.network import NETWORK_FILE, CloudNet, read_settings
from payload.engine import Engine
from payload.errors import InputError
from payload.tiles import Tile
from sim.clouds.figures import WITHHELD_ABOVE, GatedTile
from sim.clouds.other_detectors import braaten_cohen_yang, hot_whiteness
from sim.clouds.outline import classes_as_drawn, ground_classes, is_cloud
from sim.clouds.samples import CloudSample
from sim.ground.cloud_net import GroundNet

OURS, BCY, HOT = "nadir", "braaten-cohen-yang", "hot-whiteness"
RULES: dict[str, Callable[[NDArray[np.uint16]], NDArray[np.bool_]]] = {BCY: braaten_cohen_yang, HOT: hot_whiteness}
#: The other rotations' networks: with the shipped one they leave out every site once.
ROTATIONS = Path(__file__).resolve().parents[2] / "export" / "checkpoints" / "clouds"
#: The ground's network of each rotation; the shipped one's lies in the bundle.
GROUND_ROTATIONS = ROTATIONS.with_name("ground_clouds")
BUNDLE = "edge"
TILE_PX = 256
#: dn [4, H, W] and its level -> clear 0, cloud 1, shadow 2 [H, W].
TeacherFunction = Callable[[NDArray[np.uint16], str], NDArray[np.uint8]]


@dataclass(frozen=True, eq=False)
class Candidate:
    """The network that flies, and the ground's where there is one, with the sites left out of the training of both."""

    name: str
    net: CloudNet
    test_sites: tuple[str, ...]
    origin: dict[str, Any]
    ground: GroundNet | None = None

    def likeliest(self, dn: NDArray[np.uint16], mask: CloudMask, gsd_m: float) -> NDArray[np.uint8]:
        """The network's likeliest class of every pixel, as it is, no cloud outlined: thick or thin is THICK. [h, w]"""
        height, width = dn.shape[1:]
        if self.ground is None:
            told = mask.cells.repeat(mask.cell_px, axis=1).repeat(mask.cell_px, axis=2)[:, :height, :width]
        else:
            told = self.ground.probabilities(dn, np.ones((height, width), bool), gsd_m)
        kinds = np.array((CLEAR, THICK, SHADOW), np.uint8)
        return kinds[np.stack([told[CLEAR], told[THICK] + told[THIN], told[SHADOW]]).argmax(axis=0)]

    def classes(self, dn: NDArray[np.uint16], mask: CloudMask, gsd_m: float) -> NDArray[np.uint8]:
        """What a user reads of a picture dn [4, h, w], `mask` being what the flying network says of it. [h, w]"""
        height, width = dn.shape[1:]
        if self.ground is None:
            return classes_as_drawn(mask, gsd_m, self.net.settings.growth_m)[:height, :width]
        valid = np.ones((height, width), bool)
        return ground_classes(self.ground.probabilities(dn, valid, gsd_m), dn, valid, gsd_m)


@dataclass(frozen=True, eq=False)
class Judged:
    """One sample with what every method says of it: which pixels are cloud. `classes` [H, W]: what a user reads.
    `teacher` [H, W]: clear 0, cloud 1, shadow 2 by ukis-csmask, None where that is not installed or was not asked;
    `likeliest` [H, W]: our network's own word beside it."""

    sample: CloudSample
    mask: CloudMask
    classes: NDArray[np.uint8]
    found: dict[str, NDArray[np.bool_]] = field(default_factory=dict)
    teacher: NDArray[np.uint8] | None = None
    likeliest: NDArray[np.uint8] | None = None


def default_networks() -> list[str]:
    """The shipped bundle, and the rotations that are kept beside the recipe where this is a checkout."""
    folders = sorted(p.parent for p in ROTATIONS.glob("*/clouds.onnx")) if ROTATIONS.is_dir() else []
    return [BUNDLE, *(str(f) for f in folders if _origin(f)["rotation"] != "shipped")]


def open_candidate(where: str | Path, engine: Engine) -> Candidate:
    """A shipped bundle by name, a bundle's directory, or a folder written by `python -m export.clouds.train`; with the
    ground's network of the same rotation, the bundle's or the one kept in GROUND_ROTATIONS."""
    for folder in (Path(where), SHIPPED / str(where)):
        for network in (folder / NETWORK_FILE, folder / "clouds.onnx"):
            if network.is_file():
                origin = _origin(folder)
                net = CloudNet(engine.load(network, require_int8=True), read_settings(origin))
                ground = _ground_of(folder, origin, engine)
                return Candidate(Path(where).name, net, tuple(origin["split"]["test"]), origin, ground)
    raise InputError(f"{where}: no cloud network there; give a bundle or a folder of `python -m export.clouds.train`")


def _ground_of(folder: Path, origin: dict[str, Any], engine: Engine) -> GroundNet | None:
    """The ground's network that left out the same sites; InputError where the one there left out others."""
    held, kept = folder / GROUND_CLOUDS_FILE, GROUND_ROTATIONS / str(origin.get("rotation"))
    if held.is_file():
        path, told = held, json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["ground_clouds"]
    elif not (folder / "manifest.json").is_file() and (kept / "clouds.onnx").is_file():
        path, told = kept / "clouds.onnx", _origin(kept)
    else:
        return None
    if set(told["split"]["test"]) != set(origin["split"]["test"]):
        raise InputError(f"{path}: left out other sites than the network that flies; give networks of one rotation")
    return GroundNet(path, engine)


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


def detect_padded(dn: NDArray[np.uint16], net: CloudNet, least_px: int = 0) -> CloudMask:
    """One mask of an image of any size: padded below and to the right with no data to a square the network takes."""
    height, width = dn.shape[1:]
    side = -(-max(height, width, least_px) // net.settings.stride_px) * net.settings.stride_px
    square = np.pad(dn, ((0, 0), (0, side - height), (0, side - width)), mode="edge")
    valid = np.zeros((side, side), bool)
    valid[:height, :width] = True
    return detect_clouds(Tile(0, 0, square, valid), net)


def judge(samples: Iterator[CloudSample], by: Candidate, teacher: TeacherFunction | None = None) -> list[Judged]:
    """Every sample judged by a candidate and the rules, the labelled ones by `teacher`, too."""
    judged = []
    for sample in samples:
        mask = detect_clouds(tile_of(sample.dn), by.net)
        rules = {name: rule(sample.dn) for name, rule in RULES.items()}
        told = teacher(sample.dn, sample.level) if teacher is not None and sample.scl is not None else None
        drawn = by.classes(sample.dn, mask, sample.gsd_m)
        likeliest = by.likeliest(sample.dn, mask, sample.gsd_m) if told is not None else None
        judged.append(Judged(sample, mask, drawn, {OURS: is_cloud(drawn)} | rules, told, likeliest))
    return judged


def gated_tile(site: str, cloud: NDArray[np.bool_], known: NDArray[np.bool_], mask: CloudMask) -> GatedTile:
    """What the gate counts of a tile, in pixels of a reference: which are cloud, where that is known. [H, W] each"""
    height, width = cloud.shape
    flat, ground = flattened_pixels(mask)[:height, :width], known & ~cloud
    pixels = int((cloud & known).sum()), int(ground.sum())
    lost = int((cloud & known & flat).sum()), int((ground & flat).sum())
    return GatedTile(site, *pixels, mask.sure_fraction, *lost)


@dataclass(frozen=True, eq=False)
class Picture:
    """The answers over a picture of any size, tile by tile as in flight. [H, W] each"""

    classes: NDArray[np.uint8]  # payload.clouds.mask.CLASSES as people draw them, NO_CLASS without data
    sure: NDArray[np.bool_]  # what the gate counts
    probability: NDArray[np.float32]
    withheld: NDArray[np.bool_]  # pixels of tiles that the gate throws away

    @property
    def cloudy(self) -> NDArray[np.bool_]:
        return is_cloud(self.classes)


def judge_picture(
    dn: NDArray[np.uint16], by: Candidate, gsd_m: float, withhold_above: float = WITHHELD_ABOVE
) -> Picture:
    """A candidate over a picture [4, H, W]; what is missing of the last tiles has no data."""
    height, width = dn.shape[1:]
    found = Picture(
        np.full((height, width), NO_CLASS, np.uint8), np.zeros((height, width), bool),
        np.zeros((height, width), np.float32), np.zeros((height, width), bool),
    )  # fmt: skip
    for top in range(0, height, TILE_PX):
        for left in range(0, width, TILE_PX):
            rows, cols = slice(top, min(top + TILE_PX, height)), slice(left, min(left + TILE_PX, width))
            mask = detect_padded(dn[:, rows, cols], by.net, TILE_PX)
            inside = slice(0, rows.stop - top), slice(0, cols.stop - left)
            found.classes[rows, cols] = by.classes(dn[:, rows, cols], mask, gsd_m)
            found.sure[rows, cols], found.probability[rows, cols] = mask.sure[inside], mask.probability[inside]
            found.withheld[rows, cols] = mask.sure_fraction > withhold_above
    return found
