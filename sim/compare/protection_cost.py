"""What the guard against upsets costs: the same scene coded with and without it, in pairs, in one run."""

import time
from dataclasses import dataclass
from statistics import median

import numpy as np

from payload.bundle import Bundle
from payload.codec.rotation import forget_matrices
from payload.engine import Engine
from payload.pipeline import Payload
from payload.policy import Policy, Protection
from payload.scene import Scene
from sim.scenes.demo import demo_scene

SCENE_PX = 2048
PAIRS = 5


@dataclass(frozen=True)
class ProtectionCost:
    """More processor time than without the guard, in per cent: the median of the pairs, the least and the most."""

    tiles: int
    pairs: int
    percent: float
    least_percent: float
    most_percent: float

    def line(self) -> str:
        return (
            f"protection: {self.percent:+.1f} % processor time ({self.least_percent:+.1f} to {self.most_percent:+.1f} "
            f"in {self.pairs} pairs of a scene of {self.tiles} tiles, its self-tests included)"
        )


def protection_cost(bundle: Bundle, policy: Policy, engine: Engine, pairs: int = PAIRS) -> ProtectionCost:
    """Codes a generated scene `pairs` times with the guard and without it, one behind the other, and once before."""
    scene = demo_scene(SCENE_PX, SCENE_PX, 0)
    bare, guarded = Payload(bundle, policy, engine), Payload(bundle, policy, engine, Protection())
    tiles = _coded(bare, scene)[1]
    _coded(guarded, scene)
    more = [100 * (_coded(guarded, scene)[0] / _coded(bare, scene)[0] - 1) for _ in range(pairs)]
    return ProtectionCost(tiles, pairs, median(more), float(np.min(more)), float(np.max(more)))


def _coded(payload: Payload, scene: Scene) -> tuple[float, int]:
    """Seconds of the processor for a scene, and its tiles. Each tile finds no rotation kept from an earlier round."""
    forget_matrices()
    start_s = time.process_time()
    count = sum(1 for _ in payload.tile_codes(scene))
    return time.process_time() - start_s, count
