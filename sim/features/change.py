"""Change between two passes over a place, from features alone: how unlike is every block, for what is usual here?

    y = A (1, x, x^2) + r     over blocks that fit best: light, season and haze change all blocks alike
    d2 = r' C^-1 r            Mahalanobis distance, C from the same blocks
    d2 / median of blocks as busy as this one: a shift of a fraction of a pixel, and the quantiser, tell there first
    p = P(d2 or more | nothing changed)      a lognormal law through the median and the upper fifth

In the manner of iteratively reweighted multivariate alteration detection (Nielsen 2007): change is what the many blocks
that did not change do not explain. Where more than a fifth of a scene changed, that is taken for what is usual.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, stats

from payload.codec.features import FeatureLevel
from payload.errors import InputError
from sim.features.extract import TileFeatures, extract
from sim.features.source import Source

BLOCK_PX = 8
#: Channels of a block that are compared: those that vary most, of those that are hardly ever 0.
CHANNELS, MOST_ZEROS = 12, 0.05
#: Rounds that find the blocks that fit, and their share.
ROUNDS, KEPT_SHARE = 6, 0.9
#: Blocks are set against others of the same activity, in so many groups; the law goes through these quantiles.
GROUPS, QUANTILES = 24, (0.5, 0.8)
#: Passes that are alike to the last number have no noise to go by: least share of a band's variance taken for noise,
#: least usual distance, and least width of the law.
NOISE_SHARE, LEAST_USUAL, LEAST_SPREAD = 1e-6, 0.05, 0.05
#: Fewer blocks than this have no usual.
LEAST_BLOCKS = 100
Floats = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class ChangeMap:
    """Of every block: the probability of a distance this large if nothing changed [h, w], NaN where one pass knows
    nothing, and the blocks that are called changed."""

    probability: NDArray[np.float64]
    changed: NDArray[np.bool_]
    false_alarm_rate: float

    @property
    def compared(self) -> int:
        return int(np.isfinite(self.probability).sum())


def compare(before: Source, after: Source, false_alarm_rate: float) -> ChangeMap:
    """Two registered sources of one bundle. InputError where they do not fit each other, or hold too few blocks."""
    if not 1e-6 <= false_alarm_rate <= 0.5:
        raise InputError(f"--false-alarms is {false_alarm_rate:g}, wanted 1e-6 to 0.5")
    _require_registered(before, after)
    channels: list[int] = []
    planes = [blocks_of(source, channels) for source in (before, after)]
    return change_map(planes[0], planes[1], false_alarm_rate)


def change_map(before: Floats, after: Floats, false_alarm_rate: float) -> ChangeMap:
    """The map of two arrays of blocks [D, h, w], NaN where nothing is known."""
    known = np.isfinite(before).all(axis=0) & np.isfinite(after).all(axis=0)
    if int(known.sum()) < LEAST_BLOCKS:
        raise InputError(f"{int(known.sum())} blocks are known in both passes, wanted {LEAST_BLOCKS}; give larger ones")
    distance = distances(before[:, known].T.astype(np.float64), after[:, known].T.astype(np.float64))
    busy = np.minimum(_activity(before)[known], _activity(after)[known])
    probability = np.full(known.shape, np.nan)
    probability[known] = _by_chance(distance / _usual(distance, busy))
    return ChangeMap(probability, np.nan_to_num(probability, nan=1.0) < false_alarm_rate, false_alarm_rate)


def distances(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Squared Mahalanobis distances [n] of what blocks x [n, D] do not explain of y [n, D]."""
    scaled = x / (x.std(axis=0) + 1e-9)
    known = np.hstack([np.ones((len(x), 1)), scaled, scaled**2])
    fits, found = np.ones(len(x), bool), np.zeros(len(x))
    for _ in range(ROUNDS):
        rest = y - known @ np.linalg.lstsq(known[fits], y[fits], rcond=None)[0]
        spread = np.atleast_2d(np.cov(rest[fits], rowvar=False)) + np.diag(NOISE_SHARE * y.var(axis=0) + 1e-12)
        found = np.einsum("ni,ij,nj->n", rest, np.linalg.inv(spread), rest)
        fits = found <= np.quantile(found, KEPT_SHARE)
    return found


def _activity(blocks: Floats) -> NDArray[np.float64]:
    """Logarithm of how much blocks differ from those around them, [h, w], each channel by its own variance."""
    filled = np.nan_to_num(blocks.astype(np.float64))
    rough = ndimage.uniform_filter((filled - ndimage.uniform_filter(filled, (0, 3, 3))) ** 2, (0, 3, 3))
    share = rough / (np.nanvar(blocks, axis=(1, 2), keepdims=True) + 1e-9)
    return np.asarray(np.log(share.sum(axis=0) + 1e-9), np.float64)


def _usual(distance: NDArray[np.float64], busy: NDArray[np.float64]) -> NDArray[np.float64]:
    """The median distance of blocks as busy as each, [n]: between groups of equal size it runs straight."""
    order = np.array_split(np.argsort(busy, kind="stable"), GROUPS)
    medians = [float(np.log(max(np.median(distance[group]), LEAST_USUAL))) for group in order]
    return np.exp(np.interp(busy, [float(np.median(busy[group])) for group in order], medians))


def _by_chance(distance: NDArray[np.float64]) -> NDArray[np.float64]:
    """How likely each distance, or a larger one, is if nothing changed, [n]."""
    middle, high = np.log(np.quantile(distance, QUANTILES) + LEAST_USUAL)
    spread = max((high - middle) / float(stats.norm.ppf(QUANTILES[1])), LEAST_SPREAD)
    return np.asarray(stats.norm.sf((np.log(distance + LEAST_USUAL) - middle) / spread), np.float64)


def blocks_of(source: Source, channels: list[int]) -> Floats:
    """The strongest channels of every block of a scene [D, h, w], NaN where nothing is known. `channels` says which; if
    it is empty, the first tile fills it. 1.9 million blocks of a scene of 10 980 px a side are 90 MB."""
    height, width = (-(-size // BLOCK_PX) for size in (source.info.height_px, source.info.width_px))
    found = np.full((len(channels) or CHANNELS, height, width), np.nan, np.float32)
    for tile in extract(source):
        blocks = _blocks(tile)
        if not channels:
            channels += _strongest(blocks)
            found = found[: len(channels)]
        side = blocks.shape[1]
        place = found[:, tile.row * side : (tile.row + 1) * side, tile.col * side : (tile.col + 1) * side]
        place[:] = blocks[channels][:, : place.shape[1], : place.shape[2]]
    return found


def _strongest(blocks: Floats) -> list[int]:
    """The channels that are compared."""
    zeros = (blocks == 0).mean(axis=(1, 2))
    order = np.argsort(-np.nanvar(blocks, axis=(1, 2)), kind="stable")
    return [int(channel) for channel in order if zeros[channel] <= MOST_ZEROS][:CHANNELS]


def _blocks(tile: TileFeatures) -> Floats:
    """Levels of 8 px and finer, folded into blocks, [C, T / 8, T / 8]."""
    return np.concatenate([_folded(level) for level in tile.levels if level.stride_px <= BLOCK_PX])


def _folded(level: FeatureLevel) -> Floats:
    times = BLOCK_PX // level.stride_px
    channels, cells, _ = level.values.shape
    parts = level.values.reshape(channels, cells // times, times, cells // times, times)
    return parts.transpose(0, 2, 4, 1, 3).reshape(-1, cells // times, cells // times)


def _require_registered(before: Source, after: Source) -> None:
    pairs = {
        "bundle": (before.bundle.name, after.bundle.name),
        "size": tuple((s.info.height_px, s.info.width_px) for s in (before, after)),
        "place": tuple((s.info.crs_wkt, s.info.transform) for s in (before, after)),
    }
    for what, (one, other) in pairs.items():
        if one != other:
            shown = "" if what == "place" else f" ({one} and {other})"
            raise InputError(f"the two passes differ in their {what}{shown}; give two registered scenes of one bundle")
