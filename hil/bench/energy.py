"""A power trace -> joules: trapezoid rule, idle subtracted, and what is wrong with the trace said aloud."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

#: Below these a window says little (MLPerf Tiny's energy runs last at least 10 s and 10 inferences).
SHORTEST_WINDOW_S = 10.0
FEWEST_TILES = 10
FEWEST_SAMPLES = 50
#: A gap between samples longer than so many times the usual one is a jump of the clock or a stalled meter.
JUMP = 10.0
#: Idle windows, and repeats, that differ by more than this are not the same state of the device.
SPREAD = 0.05


@dataclass(frozen=True, eq=False)
class PowerTrace:
    """Power over time. `t_s` need not be even; the device's clock, after correction."""

    t_s: Floats  # [N]
    power_w: Floats  # [N]

    @classmethod
    def of(cls, samples: list[tuple[float, float]], offset_s: float = 0.0) -> "PowerTrace":
        """From (time, power) pairs; `offset_s` is added to the times."""
        pairs = np.array(samples, np.float64).reshape(-1, 2)
        return cls(pairs[:, 0] + offset_s, pairs[:, 1])

    def between(self, start_s: float, end_s: float) -> "PowerTrace":
        """The part from start to end, its ends interpolated."""
        inside = (self.t_s > start_s) & (self.t_s < end_s)
        edges = np.interp([start_s, end_s], self.t_s, self.power_w)
        t_s = np.concatenate([[start_s], self.t_s[inside], [end_s]])
        return PowerTrace(t_s, np.concatenate([edges[:1], self.power_w[inside], edges[1:]]))

    def joules(self, start_s: float, end_s: float) -> float:
        """Energy between two times by the trapezoid rule."""
        part = self.between(start_s, end_s)
        return float(np.trapezoid(part.power_w, part.t_s))

    def mean_w(self, start_s: float, end_s: float) -> float:
        return self.joules(start_s, end_s) / (end_s - start_s)


@dataclass(frozen=True)
class Window:
    """A stretch of time on the device's clock, and the tiles done in it."""

    start_s: float
    end_s: float
    tiles: int = 0

    @property
    def seconds(self) -> float:
        return self.end_s - self.start_s


def complaints(trace: PowerTrace, window: Window, name: str) -> list[str]:
    """What makes figures from this window doubtful, each as a sentence. Empty when nothing does."""
    t_s = trace.t_s
    inside = t_s[(t_s >= window.start_s) & (t_s <= window.end_s)]
    if len(inside) < 2:
        return [f"{name}: {len(inside)} power samples in {window.seconds:.1f} s; nothing can be integrated"]
    found = []
    if window.seconds < SHORTEST_WINDOW_S * 0.98:
        found.append(f"{name}: the window is {window.seconds:.1f} s, too short; use at least {SHORTEST_WINDOW_S:g} s")
    if len(inside) < FEWEST_SAMPLES:
        found.append(
            f"{name}: only {len(inside)} power samples, wanted {FEWEST_SAMPLES}; use a longer window or a faster meter"
        )
    steps = np.diff(t_s)
    if (steps <= 0).any():
        found.append(
            f"{name}: timestamps go backwards {int((steps <= 0).sum())} times; the meter's clock was set meanwhile"
        )
    usual = float(np.median(np.diff(inside)))
    edges = np.concatenate([[window.start_s], inside, [window.end_s]])
    longest = float(np.diff(edges).max())
    if longest > JUMP * max(usual, 1e-4) and longest > 0.1:
        found.append(
            f"{name}: a gap of {longest:.2f} s between samples that usually come every {usual:.3f} s; timestamps jumped"
        )
    return found


def too_few_tiles(window: Window) -> list[str]:
    if window.tiles >= FEWEST_TILES:
        return []
    return [f"busy: {window.tiles} tiles in {window.seconds:.1f} s, wanted {FEWEST_TILES}; use a longer window"]


def spread_complaint(name: str, values: list[float]) -> list[str]:
    """Whether repeats of one figure differ by more than SPREAD of their median."""
    middle = float(np.median(values))
    spread = (max(values) - min(values)) / abs(middle) if middle else 0.0
    return (
        [f"{name}: repeats differ by {100 * spread:.0f} %; let the device settle, or look for what else runs"]
        if spread > SPREAD
        else []
    )
