"""Would flags pay that say, before a layer, which zones of which blocks get anything new in it?

Today every coefficient that is not significant yet is a decision in every layer, zeros told by runs. With a flag for
each band, zone and block (docs/format.md has the zones) coefficients of zones without anything new need none. Counted
here on tiles as they are sent: decisions, bits of significance (static code lengths, counted on training sites, in both
ways), and how much of the kernel's work would fall away, which looks at a row of 32 blocks of a channel at a time.

A flag's context: its chance by the context model before the layer (half bits of log odds), the flags to the left,
above, of the zone of lower frequencies, and of the band before. A coefficient's, where its flag is set: its class, its
zone and how likely the flag was.
"""

from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass, field

import numpy as np
from numpy.typing import NDArray

from payload.codec.lapped.context_model import CLASSES, ZONES, Contexts, activity_of, zones
from payload.codec.lapped.quantiser import Indices
from payload.codec.lapped.tables import ContextTables
from payload.codec.lapped.transform import COEFFICIENTS

Flags = NDArray[np.bool_]
Places = tuple[NDArray[np.integer], ...]
CHANCES, CHANCE_STEPS, CHANCE_UNIT = 24, 12, 2.0
#: So many chances of a flag, put together, make one surprise of a coefficient's context.
CHANCES_OF_SURPRISE = 4
SURPRISES = CHANCES // CHANCES_OF_SURPRISE
#: Contexts of a flag: chance x flags left and above x zone before x band before.
FLAG_CONTEXTS = CHANCES * 3 * 2 * 2


@dataclass(frozen=True, eq=False)
class LayerDecisions:
    """One layer of a tile: what is open, its class, what becomes significant, all [C, h, w]; classes by what was known
    before the layer."""

    open_: Flags
    classes: NDArray[np.uint8]
    fresh: Flags
    before: NDArray[np.uint8]


@dataclass(eq=False)
class Counts:
    """Of one layer: yes and no, [..., 2], of significance by class, in flagged zones by zone and surprise, too, and of
    flags."""

    plain: NDArray[np.float64] = field(default_factory=lambda: np.full((CLASSES, 2), 0.5))
    flagged: NDArray[np.float64] = field(default_factory=lambda: np.full((ZONES + 1, SURPRISES, CLASSES, 2), 0.5))
    flags: NDArray[np.float64] = field(default_factory=lambda: np.full((FLAG_CONTEXTS, 2), 0.5))


@dataclass(frozen=True)
class Figures:
    """Of one layer: decisions and bits both ways, and the share of rows of blocks that nothing flagged touches."""

    decisions: int
    decisions_flagged: int
    flags: int
    bits: float
    bits_flagged: float
    bits_of_flags: float
    rows: int
    rows_idle: int


def walk(sent: Indices, tables: ContextTables) -> Iterator[LayerDecisions]:
    """The layers of a tile as decoded: its magnitudes are those of the last layer that was sent."""
    count = len(tables.layers) - sent.missing
    for k in range(count):
        here = (sent.magnitude >> (count - 1 - k)).astype(np.uint16)
        coarser = (here >> 1).astype(np.uint16) if k else np.zeros_like(here)
        activity = activity_of(np.count_nonzero(here, axis=(1, 2)), here[0].size).tobytes()
        known = Contexts(tables.layers[k].weights, here.shape, coarser if k else None, activity)
        holding = np.flatnonzero(np.count_nonzero(here, axis=(1, 2))[tables.order])
        active = int(holding[-1]) + 1 if len(holding) else 0
        before, classes = np.zeros(here.shape, np.uint8), np.zeros(here.shape, np.uint8)
        open_ = np.zeros(here.shape, bool)
        for members in tables.groups_of(active):
            before[members] = known.classes(members)
        for members in tables.groups_of(active):
            classes[members] = known.classes(members)
            open_[members] = coarser[members] == 0
            known.tell(members, here[members])
        yield LayerDecisions(open_, classes, open_ & (here > 0), before)


def by_zone(values: NDArray[np.float64] | Flags) -> NDArray[np.float64]:
    """Sums over the zones of every band and block: [C, h, w] -> [B, 4, h, w]."""
    bands = values.reshape(-1, COEFFICIENTS, *values.shape[1:])
    return np.stack([bands[:, zones() == z].sum(1, dtype=np.float64) for z in range(ZONES)], 1)


def contexts_of(flags: Flags, chance: NDArray[np.float64]) -> NDArray[np.int64]:
    """Of every flag [B, 4, h, w], from its chance and flags before it."""
    odds = np.log2(np.maximum(chance, 1e-9) / np.maximum(1 - chance, 1e-9))
    place = np.clip(np.rint(CHANCE_UNIT * odds) + CHANCE_STEPS, 0, CHANCES - 1).astype(np.int64)
    near = np.zeros(flags.shape, np.int64)
    near[..., 1:] += flags[..., :-1]
    near[..., 1:, :] += flags[..., :-1, :]
    lower, band = np.zeros_like(near), np.zeros_like(near)
    lower[:, 1:], band[1:] = flags[:, :-1], flags[:-1]
    return ((place * 3 + near) * 2 + lower) * 2 + band


def _parts(layer: LayerDecisions, plain: NDArray[np.float64]) -> tuple[Flags, Flags, NDArray[np.int64], Flags, Places]:
    """Flags [B, 4, h, w], whether each is told, its context; whether coefficients [C, h, w] are of flagged zones or
    averages, and their places in `Counts.flagged`. `plain`: chances by class."""
    flags = by_zone(layer.fresh) > 0
    nothing = by_zone(np.where(layer.open_, np.log(1 - plain[layer.before]), 0.0))
    told = by_zone(layer.open_) > 0
    context = contexts_of(flags, 1 - np.exp(nothing))
    surprise = context // (FLAG_CONTEXTS // CHANCES) // CHANCES_OF_SURPRISE
    inside, zone = np.ones((2, flags.shape[0], COEFFICIENTS, *flags.shape[2:]), np.int64) * [[[[[1]]]], [[[[ZONES]]]]]
    surprises = np.zeros_like(zone)
    for z in range(ZONES):
        inside[:, zones() == z], zone[:, zones() == z] = flags[:, z : z + 1], z
        surprises[:, zones() == z] = surprise[:, z : z + 1]
    found = inside.reshape(layer.open_.shape).astype(bool) & layer.open_
    zone, surprises = (a.reshape(layer.open_.shape)[found] for a in (zone, surprises))
    return flags, told, context, found, (zone, surprises, layer.classes[found])


def count_plain(layer: LayerDecisions, counts: Counts) -> None:
    """The first pass over training tiles: chances by class, which flags' contexts need."""
    for yes in (0, 1):
        chosen = layer.open_ & (layer.fresh == bool(yes))
        counts.plain[:, yes] += np.bincount(layer.classes[chosen], minlength=CLASSES)


def count_flags(layer: LayerDecisions, counts: Counts) -> None:
    """The second pass."""
    flags, told, context, inside, places = _parts(layer, _chance(counts.plain))
    for yes in (0, 1):
        counts.flags[:, yes] += np.bincount(context[told & (flags == bool(yes))], minlength=FLAG_CONTEXTS)
    np.add.at(counts.flagged, (*places, layer.fresh[inside].astype(int)), 1)


def figures(layer: LayerDecisions, counts: Counts) -> Figures:
    """Of a held-out tile's layer."""
    flags, told, context, inside, places = _parts(layer, _chance(counts.plain))
    open_ = layer.open_
    bits = _bits(counts.plain)[layer.classes[open_], layer.fresh[open_].astype(int)].sum()
    flagged = _bits(counts.flagged)[(*places, layer.fresh[inside].astype(int))].sum()
    of_flags = _bits(counts.flags)[context[told], flags[told].astype(int)].sum()
    active = open_.any(axis=(1, 2))
    idle = ~inside[active].any(axis=2)
    return Figures(
        int(open_.sum()), int(inside.sum()), int(told.sum()), float(bits), float(flagged), float(of_flags), idle.size,
        int(idle.sum()),
    )  # fmt: skip


def summed(found: Sequence[Figures]) -> Figures:
    """Of many layers together."""
    return Figures(*(sum(column) for column in zip(*map(astuple, found), strict=True)))


def _chance(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(counts[..., 1] / counts.sum(-1))


def _bits(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(-np.log2(counts / counts.sum(-1, keepdims=True)))
