"""What flight/tables.npz of the flight codec holds: the entropy model and the transform's kernels, all of it checked.

A bundle can be made by anybody, and hashes that fit say nothing of what was hashed. The kernel computes in 8, 16 and 32
bits, and its loops believe lengths, so every shape, range, sum and order is made sure of here, once, before numpy or C
look at an array. docs/format.md lists the arrays.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from payload.bundle import ArrayFile, Bundle
from payload.codec import rotation
from payload.codec.lapped.context_model import CLASSES, LOGIT_LIMIT, SUM_LIMIT, SUMS, LayerWeights, feature_count
from payload.codec.lapped.many.sets import sets_in
from payload.codec.lapped.quantiser import worth_in_last
from payload.codec.lapped.range_coder import ONE, Table
from payload.codec.lapped.transform import BLOCK, COEFFICIENTS, DCT_BITS, LATENT_BITS, dct
from payload.codec.rotation import PLANE_LIMIT
from payload.errors import BundleError
from payload.memory import Held

LONGEST_RUN = 64
#: Layer 0 codes magnitudes 1..15 by table; 16 says that 16 raw bits follow.
ESCAPE = 16
SIZE_CLASSES = 8
REFINEMENTS = 3
#: A magnitude has 16 bits, and a layer takes one of them.
MOST_LAYERS = 16
MOST_BANDS = 16
#: What a tile's arrays may hold: numbers of samples fit 31 bits in the kernel.
MOST_SAMPLES = 1 << 30
#: Arrays of the context model that are weights; the rest are tables.
WEIGHTS = tuple(field.name for field in fields(LayerWeights))
INT8, INT16 = (-(1 << 7), (1 << 7) - 1), (-(1 << 15), (1 << 15) - 1)


@dataclass(frozen=True, eq=False)
class LayerTables:
    """One layer of the entropy model: the context model's weights and the tables of symbols."""

    weights: LayerWeights
    runs: tuple[Table, ...]  # by class: 0..M-1 zeros and then a significant coefficient, or M zeros
    refinement: tuple[Table, ...]  # by min(magnitude of the coarser layer, 3)
    size: tuple[Table, ...]  # layer 0 only, by class // 4: magnitude 1..15, escape
    worth: NDArray[np.uint8]  # by class: 128ths of a step from which on a magnitude of one is worth its octets


@dataclass(frozen=True, eq=False)
class ContextTables:
    """The entropy model of a bundle. `order` lists channels by rank; groups are rank intervals."""

    order: NDArray[np.int64]
    groups: tuple[tuple[int, int], ...]
    layers: tuple[LayerTables, ...]

    def groups_of(self, active: int) -> Iterator[NDArray[np.int64]]:
        """Channels of every group, those of the ranks below `active`."""
        for begin, end in self.groups:
            if begin < active:
                yield self.order[begin : min(end, active)]

    def held(self) -> Iterator[Held]:
        """Its arrays."""
        yield Held("tables.order", "tables", self.order)
        for k, layer in enumerate(self.layers):
            yield Held(f"tables.worth{k}", "tables", layer.worth)
            for name in WEIGHTS:
                yield Held(f"tables.{name}{k}", "weights", getattr(layer.weights, name))


@dataclass(frozen=True, eq=False)
class Kernels:
    """The encoder's network as integers: values [64, 16, 16] int8 in units of 2^-exponent, exponents [64] int8."""

    values: NDArray[np.int8]
    exponents: NDArray[np.int8]

    @property
    def gain_of_first(self) -> float:
        """What the first function makes of a constant 1; the others are blind to it."""
        return float(self.values[0].sum(dtype=np.int64)) * 2.0 ** -int(self.exponents[0])


def load_tables(path: Path, bands: int | None = None) -> ContextTables:
    """The entropy model for so many bands (None: as many as it holds). BundleError says what does not hold."""
    arrays = ArrayFile(path)
    order = _order(arrays, bands)
    starts = arrays.take("starts", (None,), 0, len(order) - 1).tolist()
    arrays.require("starts", starts[0] == 0 and sorted(set(starts)) == starts, "ranks that rise from 0")
    layers = int(arrays.take("layers", (), 1, MOST_LAYERS))
    groups = tuple(zip(starts, [*starts[1:], len(order)], strict=True))
    return ContextTables(order, groups, tuple(_layer(arrays, k, layers, len(order)) for k in range(layers)))


def load_kernels(path: Path) -> Kernels | None:
    """The transform's kernels, which engine `native` needs; None where there are none. BundleError where they could
    pass 32 bits, or are not even or odd along both axes as the kernel's folding relies on."""
    arrays = ArrayFile(path)
    if "kernels" not in arrays:
        return None
    values = arrays.take("kernels", (COEFFICIENTS, 2 * BLOCK, 2 * BLOCK), *INT8).astype(np.int64)
    exponents = arrays.take("exponents", (COEFFICIENTS,), 0, LATENT_BITS).astype(np.int64)
    u, v = (np.where(place % 2, -1, 1)[:, None, None] for place in np.divmod(np.arange(COEFFICIENTS), BLOCK))
    folds = np.array_equal(values[:, ::-1], u * values) and np.array_equal(values[:, :, ::-1], v * values)
    arrays.require("kernels", folds, "functions even or odd along rows and columns, by their place among 8 x 8")
    largest = (np.abs(values).sum(axis=(1, 2)) * (PLANE_LIMIT + 1)) << (LATENT_BITS - exponents)
    largest[0] = int(largest[0] * (np.abs(dct()).sum(axis=1).max() / (1 << DCT_BITS)) ** 2) + 1
    arrays.require("kernels", bool(largest.max() < 1 << 31), "sums that fit 32 bits at their exponents")
    return Kernels(values.astype(np.int8), exponents.astype(np.int8))


def _order(arrays: ArrayFile, bands: int | None) -> NDArray[np.int64]:
    most = MOST_BANDS * COEFFICIENTS
    order = arrays.take("order", (None if bands is None else bands * COEFFICIENTS,), 0, most - 1).astype(np.int64)
    channels = len(order)
    whole = channels <= most and channels % COEFFICIENTS == 0 and np.array_equal(np.sort(order), np.arange(channels))
    arrays.require("order", whole, f"every channel of 1 to {MOST_BANDS} bands of {COEFFICIENTS} once")
    return order


def _layer(arrays: ArrayFile, k: int, layers: int, channels: int) -> LayerTables:
    weights = _weights(arrays, k, channels)
    runs = arrays.take(f"runs{k}", (CLASSES, None), 0, ONE)
    refinement = arrays.take(f"refinement{k}", (REFINEMENTS, 2), 1, ONE)
    size = arrays.take(f"size{k}", (SIZE_CLASSES, ESCAPE), 1, ONE)
    worth = worth_in_last(arrays.take(f"worth{k}", (CLASSES,), 0, 255), layers - 1 - k)
    for name, counts in (("runs", runs), ("refinement", refinement), ("size", size)):
        sums = counts.astype(np.int64).sum(axis=1)
        arrays.require(f"{name}{k}", bool((sums == ONE).all()), f"rows of counts that sum to {ONE}")
    used = (runs > 0).sum(axis=1)
    in_front = all((row[:n] > 0).all() for row, n in zip(runs, used, strict=True))
    longest = {1 << bits for bits in range(LONGEST_RUN.bit_length())}
    arrays.require(
        f"runs{k}", in_front and {int(n) - 1 for n in used} <= longest,
        f"counts of 1 + 1, 2, 4, ... {LONGEST_RUN} symbols, zeros behind them",
    )  # fmt: skip
    return LayerTables(
        weights, tuple(Table(row[:n]) for row, n in zip(runs, used, strict=True)), _tables(refinement), _tables(size),
        worth,
    )  # fmt: skip


def _tables(counts: NDArray[Any]) -> tuple[Table, ...]:
    return tuple(Table(row) for row in counts)


def _weights(arrays: ArrayFile, k: int, channels: int) -> LayerWeights:
    """Of one layer; sums and logits fit 16 bits whatever the tile, since the kernel computes in no more."""
    bands, features = channels // COEFFICIENTS, feature_count(channels // COEFFICIENTS)
    wanted: Sequence[tuple[str, tuple[int, ...], tuple[int, int]]] = (
        ("weight", (channels, features), INT8), ("gain", (channels, SUMS), INT8), ("mix", (features,), (0, INT8[1])),
        ("floor", (SUMS,), (1, SUM_LIMIT)), ("base", (channels,), INT16), ("position", (bands, BLOCK, BLOCK), INT16),
        ("activity", (channels,), INT16),
    )  # fmt: skip
    weights = LayerWeights(*(arrays.take(f"{n}{k}", shape, *edges).astype(np.int32) for n, shape, edges in wanted))
    inner, logit = weights.largest(bands)
    arrays.require(f"floor{k}", inner <= SUM_LIMIT, f"inner sums up to {SUM_LIMIT}, not {inner}")
    arrays.require(f"base{k}", logit <= LOGIT_LIMIT, f"logits up to {LOGIT_LIMIT}, not {logit}")
    return weights


def of_bundle(bundle: Bundle, file: str) -> tuple[ContextTables, Kernels | None]:
    """The bundle's entropy model and kernels; BundleError where they do not fit its manifest."""
    path, bands = bundle.file(file), len(bundle.bands)
    if bands > rotation.MOST_BANDS or bands * bundle.tile_px**2 > MOST_SAMPLES:
        raise BundleError(
            f"bundle {bundle.name}: tiles of {bundle.tile_px} px and {bands} bands, wanted at most "
            f"{rotation.MOST_BANDS} bands and {MOST_SAMPLES} samples; rebuild it with smaller tiles"
        )
    model = load_tables(path, sets_in(bundle)[1])
    declared = bundle.codec.get("layers", len(model.layers))
    if declared != len(model.layers):
        raise BundleError(
            f"bundle {bundle.name}: codec.layers is {str(declared)[:60]!r}, {path} holds {len(model.layers)}; "
            "restore the bundle or rebuild it"
        )
    return model, load_kernels(path)
