"""What the guard against upsets costs: the same scene coded with and without it, tile by tile in turn, in one run.

A host that others share changes its speed within a second. So the two payloads take turns at every tile, the first one
now the one and now the other, and what is compared is the processor's time of both over the whole scene.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from numpy.typing import NDArray

from payload.bundle import Bundle
from payload.clouds.audit import AuditDraw
from payload.codec.rotation import forget_matrices
from payload.engine import Engine
from payload.guard.guard import Coded
from payload.pipeline import Payload
from payload.policy import Policy, Protection
from payload.scene import Dn, Mask, Scene, SceneInfo
from sim.scenes.demo import demo_scene

#: Tiles a side, and how often: 25 (as `--scene demo`), 64 and 289 tiles.
SCENES = ((5, 11), (8, 7), (17, 3))
MOST_PERCENT = 3.0


@dataclass(frozen=True)
class ProtectionCost:
    """More processor time than without the guard for a scene, in per cent: the median of the rounds, least and most.
    `start_ms`: what starting it takes once, with the whole self-test."""

    engine: str
    tiles: int
    rounds: int
    percent: float
    least_percent: float
    most_percent: float
    start_ms: float

    def line(self) -> str:
        verdict = "held" if self.percent <= MOST_PERCENT else "FAILED"
        return (
            f"protection, {self.engine}, {self.tiles} tiles: {self.percent:+.1f} % processor time "
            f"({self.least_percent:+.1f} to {self.most_percent:+.1f} in {self.rounds} rounds, limit {MOST_PERCENT:g}: "
            f"{verdict}); once at the start {self.start_ms:.0f} ms"
        )


@dataclass(frozen=True, eq=False)
class _InMemory:
    """A scene that takes no time to draw."""

    info: SceneInfo
    dn: Dn
    valid: Mask

    def read(self, row_px: int, col_px: int, height_px: int, width_px: int) -> tuple[NDArray[Any], NDArray[Any]]:
        rows, cols = slice(row_px, row_px + height_px), slice(col_px, col_px + width_px)
        return self.dn[:, rows, cols], self.valid[rows, cols]


def protection_costs(
    bundle: Bundle, policy: Policy, engine: Engine, scenes: Sequence[tuple[int, int]] = SCENES
) -> list[ProtectionCost]:
    """The cost for generated scenes of several sizes: tiles a side, and rounds."""
    Payload(bundle, policy, engine)  # once, so that nothing is done for the first time
    start_s = time.process_time()
    bare = Payload(bundle, policy, engine)
    opened_s = time.process_time()
    guarded = Payload(bundle, policy, engine, Protection())
    if guarded.guard is not None:
        guarded.guard.check_all("before the first scene")
    start_ms = 1e3 * max(0.0, (time.process_time() - opened_s) - (opened_s - start_s))
    return [_cost(engine.name, bare, guarded, side, rounds, start_ms) for side, rounds in scenes]


def _cost(
    engine: str, bare: Payload, guarded: Payload, side: int, rounds: int, start_ms: float
) -> ProtectionCost:
    drawn = demo_scene(side * bare.bundle.tile_px, side * bare.bundle.tile_px, 0)
    scene = _InMemory(drawn.info, *drawn.read(0, 0, drawn.info.height_px, drawn.info.width_px))
    _in_turn((bare, guarded), scene)  # once, so that nothing is done for the first time
    pairs = [_in_turn((bare, guarded), scene) for _ in range(rounds)]
    more = [100 * (with_s / without_s - 1) for without_s, with_s in pairs]
    return ProtectionCost(engine, side * side, rounds, median(more), min(more), max(more), start_ms)


def _in_turn(payloads: tuple[Payload, Payload], scene: Scene) -> tuple[float, float]:
    """Seconds of the processor that each payload takes for a scene."""
    ways, taken_s = [_tiles(payload, scene) for payload in payloads], [0.0, 0.0]
    ended, turn = 0, 0
    while not ended:
        for which in (turn % 2, 1 - turn % 2):
            forget_matrices()  # neither finds a rotation that the other fitted
            begin_s = time.process_time()
            ended += next(ways[which], None) is None
            taken_s[which] += time.process_time() - begin_s
        turn += 1
    return taken_s[0], taken_s[1]


def _tiles(payload: Payload, scene: Scene) -> Iterator[Coded[Any]]:
    header = payload.header_of(scene)
    steps = payload.steps(scene, header, AuditDraw(payload.policy, header.scene_id))
    return (step for step in steps if isinstance(step, Coded))
