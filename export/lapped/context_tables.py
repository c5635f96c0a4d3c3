"""Context model in float -> the integer tables that fly.

Weights become 8-bit integers, biases 16 bits; then the symbol tables are counted by running the payload's own encoder
over training tiles with a coder that counts instead of coding: once for how often each class is significant, which sets
how long its runs may be, and once more for the runs.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from export.lapped.context_model import ContextModel, LayerContext
from payload.codec.lapped import layers
from payload.codec.lapped.context_model import CLASSES, LOGIT_BITS, feature_count
from payload.codec.lapped.quantiser import REBUILD, Indices
from payload.codec.lapped.range_coder import ONE, Table
from payload.codec.lapped.tables import ESCAPE, LONGEST_RUN, REFINEMENTS, SIZE_CLASSES, load_tables

#: Width of a class in nats.
CLASS_WIDTH = 0.375
#: An inner sum's largest weight; the sums stay below 2^15.
MIX_LIMIT = 63
#: Tokens' worth of a geometric distribution that every table of runs is counted on top of.
PRIOR_TOKENS = 30.0
#: Squared steps of error that a bit is worth: the slope of the codec's own curve is 0.138 at steps of 160 and 320 DN,
#: and the most was gained a little above it.
LAMBDA = 0.16
Arrays = dict[str, NDArray[Any]]


class CountingCoder:
    """Takes the place of the range coder: counts symbols by table."""

    def __init__(self, counts: dict[int, NDArray[np.float64]]) -> None:
        self._counts = counts

    def put(self, symbols: NDArray[np.integer[Any]], table: Table) -> None:
        if len(symbols):
            self._counts[id(table)] += np.bincount(symbols, minlength=len(table.counts))

    def octets(self) -> bytes:
        return b""


def integer_arrays(model: ContextModel) -> Arrays:
    """Arrays of the .npz with flat symbol tables, every run one long."""
    arrays: Arrays = {
        "order": model.order.numpy().astype(np.int16),
        "starts": np.array(model.starts, np.int16),
        "layers": np.array(len(model.layers), np.int8),
    }
    for k, layer in enumerate(model.layers):
        assert isinstance(layer, LayerContext)
        arrays |= {f"{name}{k}": a for name, a in _layer_arrays(layer).items()}
    return arrays


def _layer_arrays(layer: LayerContext) -> Arrays:
    unit = CLASS_WIDTH / 2**LOGIT_BITS  # nats
    with torch.no_grad():
        mix, floor = layer.mixes().numpy(), torch.exp(layer.floor).numpy()
        weights, gains = layer.weights().numpy(), layer.gains().numpy().copy()  # nats an octave
        base = (layer.base + layer.shared_base).numpy().copy()
        slope = (layer.activity + layer.shared_activity).numpy()
        position = layer.position.numpy()
    whole_mix, whole_floor = np.zeros(len(mix), np.int64), np.zeros(len(floor), np.int64)
    for e, (begin, end) in enumerate(layer.parts):
        if begin == end:  # one band has no others: the sum is its floor
            base += gains[:, e] * np.log2(floor[e])
            gains[:, e] = 0
        if not gains[:, e].any():  # an inner sum that nobody looks at
            whole_floor[e] = 1
            continue
        scale = MIX_LIMIT / mix[begin:end].max()
        whole_mix[begin:end] = np.rint(mix[begin:end] * scale)
        whole_floor[e] = max(1, round(float(floor[e] * scale)))
        base -= gains[:, e] * np.log2(scale)  # a sum in other units is an offset of its logarithm

    def integers(x: NDArray[Any], scale: float, limit: int) -> NDArray[np.int64]:
        return np.clip(np.rint(x * scale), -limit, limit).astype(np.int64)

    features = feature_count(len(position))
    weight, mixes = np.zeros((len(base), features), np.int8), np.zeros(features, np.uint8)
    weight[:, layer.places], mixes[layer.places] = integers(weights, 1 / (8 * unit), 127), whole_mix
    return {
        "weight": weight,
        "gain": integers(gains, 1 / (8 * unit), 127).astype(np.int8),
        "mix": mixes,
        "floor": whole_floor.astype(np.int16),
        "base": integers(base, 1 / unit, 32767).astype(np.int16),
        "position": integers(position, 1 / unit, 32767).astype(np.int16),
        "activity": integers(slope, 1 / unit, 32767).astype(np.int16),
        "runs": np.full((CLASSES, 2), ONE // 2, np.int32),
        "refinement": np.full((REFINEMENTS, 2), ONE // 2, np.int32),
        "size": np.full((SIZE_CLASSES, ESCAPE), ONE // ESCAPE, np.int32),
        "worth": np.zeros(CLASSES, np.uint8),
    }


def count_tables(arrays: Arrays, tiles: Sequence[Indices], path: Path) -> None:
    """Fills the symbol tables of `arrays` from training tiles and writes the .npz to `path`."""
    layers, partial = int(arrays["layers"]), path.with_name("partial.npz")
    first = _counted(arrays, tiles, partial)
    for k in range(layers):
        arrays[f"runs{k}"] = _padded([_to_counts(_geometric(*seen)) for seen in first[k]["runs"]])
    second = _counted(arrays, tiles, partial)
    partial.unlink()
    for k in range(layers):
        runs = [seen + _geometric(*flags) for seen, flags in zip(second[k]["runs"], first[k]["runs"], strict=True)]
        arrays[f"runs{k}"] = _padded([_to_counts(seen) for seen in runs])
        for name in ("refinement", "size"):
            arrays[f"{name}{k}"] = np.stack([_to_counts(seen + 0.5) for seen in second[k][name]])
        arrays[f"worth{k}"] = np.array([_worth128(*flags) for flags in first[k]["runs"]], np.uint8)
    np.savez_compressed(path, **arrays)  # type: ignore[arg-type]


def _counted(arrays: Arrays, tiles: Sequence[Indices], path: Path) -> list[dict[str, list[NDArray[np.float64]]]]:
    """Counts of every symbol of every table, per layer."""
    padded = {f"runs{k}": _padded(arrays[f"runs{k}"]) for k in range(int(arrays["layers"]))}
    np.savez(path, **(arrays | padded))  # type: ignore[arg-type]
    tables = load_tables(path)
    counts = {
        id(table): np.zeros(len(table.counts))
        for layer in tables.layers
        for table in (*layer.runs, *layer.refinement, *layer.size)
    }
    for indices in tiles:
        layers.encode_layers(indices, tables, lambda: CountingCoder(counts))
    return [
        {name: [counts[id(t)] for t in getattr(layer, name)] for name in ("runs", "refinement", "size")}
        for layer in tables.layers
    ]


def _geometric(significant: float, zeros: float) -> NDArray[np.float64]:
    """PRIOR_TOKENS shared out over run lengths 0..M-1 and M zeros, for a chance p; M is the power of two nearest to
    where half of the runs end."""
    p = (significant + 0.5) / (significant + zeros + 1.0)
    longest = int(np.clip(2.0 ** np.rint(np.log2(0.7 / p)), 1, LONGEST_RUN))
    length = np.arange(longest)
    return PRIOR_TOKENS * np.append(p * (1 - p) ** length, (1 - p) ** longest)


def _worth128(significant: float, zeros: float) -> int:
    """128ths of a step from which on a magnitude of one, rebuilt at 1 + r steps, removes at least LAMBDA squared steps
    of error per bit that it costs more than a zero, its sign included."""
    p = min(0.5, (significant + 0.5) / (significant + zeros + 1.0))
    bits = np.log2((1 - p) / p) + 1
    rebuilt = 1 + REBUILD[0]
    return int(np.clip(np.rint(128 * (rebuilt**2 + LAMBDA * bits) / (2 * rebuilt)), 0, 255))


def _padded(tables: Sequence[NDArray[np.int32]] | NDArray[np.int32]) -> NDArray[np.int32]:
    """Tables of different lengths in one array, zeros behind the shorter ones."""
    width = max(len(t) for t in tables)
    return np.stack([np.pad(t, (0, width - len(t))) for t in tables]).astype(np.int32)


def _to_counts(seen: NDArray[np.float64]) -> NDArray[np.int32]:
    """Counts that sum to 2^24, none below 1."""
    share = seen / seen.sum()
    counts = np.maximum(1, np.floor(share * (ONE - len(seen))).astype(np.int64))
    counts[np.argmax(counts)] += ONE - counts.sum()
    return counts.astype(np.int32)


def macs_per_px(path: Path) -> float:
    """Multiply-accumulates of the context model per pixel, if all channels are active in all layers."""
    tables = load_tables(path)
    channels = len(tables.order)
    bands = channels // layers.COEFFICIENTS
    a_coefficient = 2 * feature_count(bands) + tables.layers[0].weights.gain.shape[1]
    return float(a_coefficient * channels * len(tables.layers) / layers.COEFFICIENTS)
