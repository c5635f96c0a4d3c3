"""Trained rotations -> their thresholds: what the gate may withhold, and the outline that people draw.

    python -m export.clouds.thresholds build/clouds/shipped build/clouds/alps build/clouds/plains

*The gate* (`temperature`, `sure_above`). Every rotation's are chosen on the test sites of the other rotations, each
judged by the network that left it out: no site helps to choose where it is measured, and no network is judged on what
it has learnt. A rotation given alone is judged on the sites it has learnt from, which flatters it; its test sites stay
unseen, and its table says so. Least cloud let through, among the thresholds that throw nothing usable away.

*The outline* (`cloudy_above`, `growth_m`) is a convention and not a skill: people draw the soft edge as cloud. It is
chosen once, for all rotations alike, on the two chips that people drew.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.clouds.drawn import bleach
from export.clouds.references import Bool, ReferenceTile, load_human_chips, load_reference_tiles
from export.clouds.train import NETWORK_FILE, SETTINGS_FILE, write_settings
from payload.clouds.gate import detect_clouds
from payload.clouds.mask import grown
from payload.clouds.network import CloudNet, read_settings
from payload.clouds.planes import CloudSettings, averaged, witnessed
from payload.engine import Engine, open_engine
from payload.errors import InputError
from payload.tiles import Tile

Floats = NDArray[np.float64]

#: A tile is cloudy when more than this share of it is cloud: CloudScout's and PhiSat-1's definition.
CLOUDY_TILE = 0.7
#: A tile less known than this is not asked whether it is cloudy.
LEAST_KNOWN = 0.5
#: What the gate may cost: share of the tiles that are not cloudy, of those clear by eye or made pale, of clear pixels.
FALSE_DISCARDS, CLEAR_DISCARDS, PALE_DISCARDS, USABLE_LOST = 0.0, 0.002, 0.02, 0.002
THRESHOLDS = (*(float(t) for t in np.round(np.arange(0.1, 0.991, 0.01), 2)), 0.992, 0.994, 0.996, 0.998, 0.999)
TEMPERATURES = tuple(float(t) for t in np.round(np.arange(0.5, 3.01, 0.1), 2))
#: The outline: probabilities and growths that are tried, the precision that is kept, the chips' pixel.
OUTLINES = tuple(float(t) for t in np.round(np.arange(0.1, 0.71, 0.05), 2))
GROWTHS_M, LEAST_PRECISION = (0.0, 10.0, 20.0, 30.0, 40.0), 0.93
CHIP_M, CHIP_TILE_PX = 10, 256


@dataclass(frozen=True, eq=False)
class Judged:
    """A tile with the odds of cloud by a network that has not seen its site, on the cells [n, n].

    `odds`: log of cloud's probability over the rest's, at temperature 1. `witnessed`: where the second witness finds
    cloud. `cloud`, `known`: the reference, as shares of the cell.
    """

    odds: Floats
    witnessed: Bool
    cloud: Floats
    known: Floats
    labelled: bool
    pale: bool = False

    def probability(self, temperature: float) -> Floats:
        return np.asarray(1.0 / (1.0 + np.exp(-self.odds / temperature)))


def judge(tile: ReferenceTile, net: CloudNet, pale: bool = False) -> Judged:
    cell_px, valid = net.settings.cell_px, np.ones(tile.cloud.shape, bool)
    cells = detect_clouds(Tile(0, 0, tile.dn, valid), net).cells.astype(np.float64)
    cloud = cells[1] + cells[2]
    odds = np.log(np.maximum(cloud, 1e-7)) - np.log(np.maximum(cells.sum(axis=0) - cloud, 1e-7))
    odds[cells.sum(axis=0) == 0.0] = -16.0  # a tile that is not judged
    found = witnessed(averaged(tile.dn, valid, cell_px)[0])
    known = _shares(tile.known, cell_px)
    return Judged(odds, found, _shares(tile.cloud & tile.known, cell_px), known, tile.labelled, pale)


def _shares(pixels: Bool, cell_px: int) -> Floats:
    n = pixels.shape[0] // cell_px
    return np.asarray(pixels.reshape(n, cell_px, n, cell_px).mean(axis=(1, 3)))


def judge_rotation(net: CloudNet, sites: Sequence[str], within: bool = True) -> list[Judged]:
    """The tiles of these sites, or of all others; those clear by eye once more, made pale as sand or snow."""
    rng, found = np.random.default_rng(17), []
    for tile in load_reference_tiles():
        if (tile.site in sites) is not within:
            continue
        found.append(judge(tile, net))
        if not tile.labelled:
            dn = np.round(bleach(tile.dn.astype(np.float32), rng)).astype(np.uint16)
            found.append(judge(replace(tile, dn=dn), net, pale=True))
    return found


def settle_gate(judged: Sequence[Judged]) -> tuple[float, float, dict[str, float]]:
    """Temperature (least cross-entropy), `sure_above`, and what both cost on the tiles they were chosen on."""
    real = [j for j in judged if not j.pale]
    losses = {t: _log_loss(real, t) for t in TEMPERATURES}
    temperature = min(losses, key=losses.__getitem__)
    scores = {t: gate_scores(judged, temperature, t) for t in THRESHOLDS}
    allowed = [t for t, s in scores.items() if _harmless(s)] or [THRESHOLDS[-1]]
    sure_above = min(allowed, key=lambda t: (scores[t]["let_through"], -t))
    return temperature, sure_above, {"log_loss": losses[temperature]} | scores[sure_above]


def _harmless(scores: dict[str, float]) -> bool:
    return (
        scores["false_discards"] <= FALSE_DISCARDS
        and scores["clear_discards"] <= CLEAR_DISCARDS
        and scores["pale_discards"] <= PALE_DISCARDS
        and scores["usable_lost"] <= USABLE_LOST
    )


def _log_loss(judged: Sequence[Judged], temperature: float) -> float:
    p = np.concatenate([j.probability(temperature).ravel() for j in judged]).clip(1e-4, 1.0 - 1e-4)
    cloud = np.concatenate([j.cloud.ravel() for j in judged])
    known = np.concatenate([j.known.ravel() for j in judged])
    return float(-(cloud * np.log(p) + (known - cloud) * np.log(1.0 - p)).sum() / known.sum())


def gate_scores(judged: Sequence[Judged], temperature: float, sure_above: float) -> dict[str, float]:
    """What a gate at CLOUDY_TILE does: tiles first, then cloud let through and usable ground lost, in pixels."""
    rows = []
    for j in judged:
        away = float(((j.probability(temperature) > sure_above) & j.witnessed).mean()) > CLOUDY_TILE
        sums = float(j.known.sum()), float(j.cloud.sum())
        asked = bool(j.known.mean() > LEAST_KNOWN)
        is_cloudy = asked and sums[1] > CLOUDY_TILE * sums[0]
        rows.append((j.labelled, j.pale, asked, is_cloudy, away, sums[1], sums[0] - sums[1]))
    table = np.array(rows, np.float64)
    labelled, pale, told, cloudy, gone = (table[:, i] > 0 for i in range(5))
    told, cloud, clear = labelled & told, table[:, 5], table[:, 6]
    return {
        "tiles": int(told.sum()),
        "tile_accuracy": _mean((cloudy == gone)[told]),
        "false_discards": _mean(gone[told & ~cloudy]),
        "clear_discards": _mean(gone[~labelled & ~pale]),
        "pale_discards": _mean(gone[pale]),
        "let_through": float((cloud * ~gone)[labelled].sum() / max(1.0, cloud[labelled].sum())),
        "usable_lost": float((clear * gone)[~pale].sum() / max(1.0, clear[~pale].sum())),
    }


def _mean(values: NDArray[np.bool_]) -> float:
    return float(values.mean()) if values.size else 0.0


def settle_outline(net: CloudNet) -> tuple[float, float, dict[str, float]]:
    """`cloudy_above` and `growth_m` of the best IoU with the human chips at LEAST_PRECISION, and what they give."""
    dn, drawn = load_human_chips()
    probability = np.stack([_chip_probability(chip, net) for chip in dn])
    best: tuple[float, float, dict[str, float]] = (0.5, 0.0, {"iou": -1.0})
    for above in OUTLINES:
        for growth_m in GROWTHS_M:
            scores = _overlap(_grown_tiles(probability > above, growth_m / CHIP_M), drawn)
            if scores["precision"] >= LEAST_PRECISION and scores["iou"] > best[2]["iou"]:
                best = above, growth_m, scores
    return best


def _tiles_of(size: int) -> list[tuple[slice, slice]]:
    spans = [slice(i, i + CHIP_TILE_PX) for i in range(0, size, CHIP_TILE_PX)]
    return [(rows, cols) for rows in spans for cols in spans]


def _chip_probability(dn: NDArray[np.uint16], net: CloudNet) -> NDArray[np.float32]:
    """Probability of cloud of a chip, tile by tile as in flight. [4, H, H] -> [H, H]"""
    found, valid = np.zeros(dn.shape[1:], np.float32), np.ones((CHIP_TILE_PX, CHIP_TILE_PX), bool)
    for place in _tiles_of(dn.shape[1]):
        tile = Tile(0, 0, np.ascontiguousarray(dn[(slice(None), *place)]), valid)
        found[place] = detect_clouds(tile, net).probability
    return found


def _grown_tiles(cloud: Bool, growth_px: float) -> Bool:
    found = np.zeros_like(cloud)
    for chip, out in zip(cloud, found, strict=True):
        for place in _tiles_of(chip.shape[0]):
            out[place] = grown(chip[place], growth_px)
    return found


def _overlap(found: Bool, drawn: Bool) -> dict[str, float]:
    hit = int((found & drawn).sum())
    return {
        "iou": hit / max(1, int((found | drawn).sum())),
        "precision": hit / max(1, int(found.sum())),
        "recall": hit / max(1, int(drawn.sum())),
    }


def settle(folders: Sequence[Path], engine: Engine) -> list[dict[str, Any]]:
    """Rewrites every rotation's clouds.json with its thresholds; returns the tables. The first sets the outline."""
    tables = [_read(folder) for folder in folders]
    nets = [_open(folder, table, engine) for folder, table in zip(folders, tables, strict=True)]
    alone = len(folders) == 1
    judged = [judge_rotation(net, t["split"]["test"], not alone) for net, t in zip(nets, tables, strict=True)]
    for i, (folder, table) in enumerate(zip(folders, tables, strict=True)):
        others = [j for k, part in enumerate(judged) if alone or k != i for j in part]
        temperature, sure_above, figures = settle_gate(others)
        table |= {"temperature": temperature, "sure_above": sure_above, "validation": _rounded(figures)}
        table |= {"thresholds_from": "sites it has learnt from" if alone else "sites the other rotations left out"}
        if i == 0:
            cloudy_above, growth_m, human = settle_outline(_open(folder, table, engine))
        table |= {"cloudy_above": cloudy_above, "growth_m": growth_m, "outline_on_human_chips": _rounded(human)}
        write_settings(folder, table | asdict(read_settings(table)))
    return tables


def _read(folder: Path) -> dict[str, Any]:
    path = folder / SETTINGS_FILE
    if not path.is_file():
        raise InputError(f"{path}: no such file; run `python -m export.clouds.train --out {folder}` first")
    return dict(json.loads(path.read_text(encoding="utf-8")))


def _open(folder: Path, table: dict[str, Any], engine: Engine) -> CloudNet:
    settings: CloudSettings = read_settings(table)
    return CloudNet(engine.load(folder / NETWORK_FILE, require_int8=True), settings)


def _rounded(figures: dict[str, float]) -> dict[str, float]:
    return {key: round(value, 4) for key, value in figures.items()}


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m export.clouds.thresholds", description=__doc__)
    parser.add_argument("folders", type=Path, nargs="+", help="one folder a rotation, the shipped one first")
    settle(parser.parse_args(argv).folders, open_engine("openvino", 1))


if __name__ == "__main__":
    main()
