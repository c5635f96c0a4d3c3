"""What the guard against upsets costs: the same scene coded with and without it, tile by tile in turn, in one run.

A host that others share changes its speed within a second. So every tile is coded with and without, now the one first
and now the other, and what counts is the median over the rounds of how much longer each tile took with the guard. What
comes once a scene, before its first tile and behind its last, is counted like a tile.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from payload.bundle import Bundle
from payload.clouds.audit import AuditDraw
from payload.codec.rotation import forget_matrices
from payload.engine import Engine
from payload.guard.guard import Coded, Guard
from payload.pipeline import Payload
from payload.policy import Policy, Protection
from payload.scene import Dn, Mask, Scene, SceneInfo
from sim.scenes.demo import demo_scene

#: Tiles a side, and how often: 25 (as `--scene demo`), 64 and 289 tiles.
SCENES = ((5, 21), (8, 11), (17, 5))
MOST_PERCENT = 3.0
#: Rounds are drawn anew so many times for the interval.
DRAWS = 400


@dataclass(frozen=True)
class ProtectionCost:
    """More processor time than without the guard for a scene, in per cent, and its interval of 90 % (bootstrap over the
    rounds). `start_ms`: what starting it takes once, with the whole self-test."""

    engine: str
    tiles: int
    rounds: int
    percent: float
    low_percent: float
    high_percent: float
    start_ms: float

    def line(self) -> str:
        verdict = "held" if self.percent <= MOST_PERCENT else "FAILED"
        return (
            f"protection, {self.engine}, {self.tiles} tiles: {self.percent:+.1f} % processor time "
            f"({self.low_percent:+.1f} to {self.high_percent:+.1f} in {self.rounds} rounds, limit {MOST_PERCENT:g}: "
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
    Payload(bundle, policy, engine)
    opened_s = time.process_time()
    payload = Payload(bundle, policy, engine, Protection())
    if payload.guard is not None:
        payload.guard.check_all("before the first scene")
    start_ms = 1e3 * max(0.0, (time.process_time() - opened_s) - (opened_s - start_s))
    return [_cost(engine.name, payload, side, rounds, start_ms) for side, rounds in scenes]


def _cost(engine: str, payload: Payload, side: int, rounds: int, start_ms: float) -> ProtectionCost:
    drawn = demo_scene(side * payload.bundle.tile_px, side * payload.bundle.tile_px, 0)
    scene = _InMemory(drawn.info, *drawn.read(0, 0, drawn.info.height_px, drawn.info.width_px))
    _in_turn(payload, scene)  # once, so that nothing is done for the first time
    low, percent, high = percent_more(np.array([_in_turn(payload, scene) for _ in range(rounds)]))
    return ProtectionCost(engine, side * side, rounds, percent, low, high, start_ms)


def percent_more(taken_s: NDArray[np.float64]) -> tuple[float, float, float]:
    """Of seconds [rounds, tiles, (bare, guarded)] what the guard costs in per cent: the median round of each tile, all
    tiles together. Between the ends of its interval of 90 %."""

    def percent(of: NDArray[np.float64]) -> float:
        bare_s, more_s = np.median(of[:, :, 0], axis=0), np.median(of[:, :, 1] - of[:, :, 0], axis=0)
        return float(100 * more_s.sum() / bare_s.sum())

    rounds, random = len(taken_s), np.random.default_rng(0)
    drawn = [percent(taken_s[random.integers(rounds, size=rounds)]) for _ in range(DRAWS)]
    low, high = np.percentile(drawn, (5, 95)).tolist()
    return low, percent(taken_s), high


def _in_turn(payload: Payload, scene: Scene) -> list[tuple[float, float]]:
    """Seconds of the processor that every tile of a scene takes without the guard and with it, and its end. It is one
    payload both times: another one lies elsewhere in memory, and that alone makes it some per cent faster or slower."""
    guards, ended = (None, payload.guard), False
    ways = [_tiles(payload, guard, scene) for guard in guards]
    taken_s: list[tuple[float, float]] = []
    while not ended:
        turn, spent_s = len(taken_s), [0.0, 0.0]
        for which in (turn % 2, 1 - turn % 2):
            forget_matrices()  # neither finds a rotation that the other fitted
            payload.guard = guards[which]
            begin_s = time.process_time()
            ended = next(ways[which], None) is None
            spent_s[which] = time.process_time() - begin_s
        taken_s.append((spent_s[0], spent_s[1]))
    payload.guard = guards[1]
    return taken_s


def _tiles(payload: Payload, guard: Guard | None, scene: Scene) -> Iterator[Coded[Any]]:
    header = payload.header_of(scene)
    payload.guard = guard
    steps = payload.steps(scene, header, AuditDraw(payload.policy, header.scene_id))
    return (step for step in steps if isinstance(step, Coded))
