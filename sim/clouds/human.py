"""Chips whose clouds people drew -> figures of every method with intervals: the yardstick that no detector wrote.

Ours has rows for each of its answers: the mask that users read, by the ground's network and, where that is another, by
the one that flies, and the gate, which counts only what it may throw away. Where ukis-csmask is installed it stands
beside them twice: as it comes (the likeliest class), and with the outline that comes nearest to people's.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from payload.clouds.mask import SHADOW
from sim.clouds import figures
from sim.clouds.figures import Counts
from sim.clouds.judged import OURS, RULES, TILE_PX, Candidate, Picture, judge_picture
from sim.clouds.other_detectors import CS_SHADOW, csmask_is_there, csmask_outline, csmask_probabilities
from sim.clouds.samples import HumanChip

FLYING = f"{OURS}, the network that flies"
GATE, CSMASK, CSMASK_OUTLINE = f"{OURS}, gate", "ukis-csmask", "ukis-csmask, people's outline"
EVERY_CHIP = "all chips"


@dataclass(frozen=True, eq=False)
class JudgedChip:
    """A chip with what every method takes for cloud, and for shadow where it tells shadows. [H, W] each"""

    chip: HumanChip
    picture: Picture
    cloud: dict[str, NDArray[np.bool_]]
    shadow: dict[str, NDArray[np.bool_]]


def judge_chips(chips: Sequence[HumanChip], by: Candidate) -> list[JudgedChip]:
    return [_judge(chip, by) for chip in chips]


def _judge(chip: HumanChip, by: Candidate) -> JudgedChip:
    picture = judge_picture(chip.dn, by, chip.gsd_m)
    cloud, shadow = {OURS: picture.cloudy}, {OURS: picture.classes == SHADOW}
    if by.ground is not None:
        alone = judge_picture(chip.dn, replace(by, ground=None), chip.gsd_m)
        cloud[FLYING], shadow[FLYING] = alone.cloudy, alone.classes == SHADOW
    cloud |= {GATE: picture.sure} | {name: rule(chip.dn) for name, rule in RULES.items()}
    if csmask_is_there():
        told = csmask_probabilities(chip.dn, chip.level)
        cloud |= {CSMASK: told.argmax(axis=0) == 1, CSMASK_OUTLINE: csmask_outline(told, chip.gsd_m)}
        shadow[CSMASK] = told.argmax(axis=0) == CS_SHADOW
    return JudgedChip(chip, picture, cloud, shadow)


def human_rows(judged: Sequence[JudgedChip]) -> list[dict[str, Any]]:
    """A row per chip and method, and one of all chips of a source together; intervals by bootstrap over tiles."""
    rows = []
    for source in sorted({j.chip.source for j in judged}):
        here = [j for j in judged if j.chip.source == source]
        for name in here[0].cloud:
            rows.append({"source": source, "chip": EVERY_CHIP, "method": name} | _scores(here, name))
            rows += [{"source": source, "chip": j.chip.name, "method": name} | _scores([j], name) for j in here]
    return rows


def _scores(judged: Sequence[JudgedChip], method: str) -> dict[str, Any]:
    counts = [c for j in judged for c in _tile_counts(j.cloud[method], j.chip.cloud)]
    found = figures.pooled(counts).scores() | {"iou_interval": figures.interval(counts, "iou"), "tiles": len(counts)}
    drawn = [j for j in judged if j.chip.shadow is not None and method in j.shadow]
    shadows = [figures.count(j.shadow[method], _drawn(j), np.ones(j.chip.cloud.shape, bool)) for j in drawn]
    return found | {"shadow_iou": figures.pooled(shadows).scores()["iou"] if shadows else None}


def _drawn(judged: JudgedChip) -> NDArray[np.bool_]:
    shadow = judged.chip.shadow
    return np.zeros(judged.chip.cloud.shape, bool) if shadow is None else shadow


def _tile_counts(found: NDArray[np.bool_], wanted: NDArray[np.bool_]) -> list[Counts]:
    """Counts of each tile of a picture, the bootstrap's units."""
    height, width = wanted.shape
    places = [
        (slice(top, top + TILE_PX), slice(left, left + TILE_PX))
        for top in range(0, height, TILE_PX)
        for left in range(0, width, TILE_PX)
    ]
    return [figures.count(found[p], wanted[p], np.ones(wanted[p].shape, bool)) for p in places]


def gate_on_chips(judged: Sequence[JudgedChip]) -> list[dict[str, Any]]:
    """Per source: cloud in tiles that the gate sends, and usable ground it throws away, as people drew both."""
    rows = []
    for source in sorted({j.chip.source for j in judged}):
        here = [j for j in judged if j.chip.source == source]
        cloud = sum(int(j.chip.cloud.sum()) for j in here)
        clear = sum(int((~j.chip.cloud).sum()) for j in here)
        sent = sum(int((j.chip.cloud & ~j.picture.withheld).sum()) for j in here)
        lost = sum(int((~j.chip.cloud & j.picture.withheld).sum()) for j in here)
        rows.append({"source": source, "let_through": sent / max(1, cloud), "usable_lost": lost / max(1, clear)})
    return rows
