"""Context model in float -> the integer tables that fly.

Weights of matrix products become 8-bit integers, the rest 16 to 24 bits; then the symbol tables are counted by running
the payload's own encoder over training tiles with a coder that counts instead of coding.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from export.context import ContextModel, LayerContext, activity, feature, sides_and_corners
from payload import entropy
from payload.quantiser import Indices
from payload.rangecoder import ONE, Table

#: Width of a class in logits.
CLASS_WIDTH = 0.375
Arrays = dict[str, NDArray[Any]]


class CountingCoder:
    """Takes the place of the range coder: counts symbols by table."""

    def __init__(self, counts: dict[int, NDArray[np.float64]]) -> None:
        self._counts = counts

    def put(self, symbols: NDArray[np.int32], table: Table) -> None:
        if len(symbols):
            self._counts[id(table)] += np.bincount(symbols, minlength=len(table.counts))

    def octets(self) -> bytes:
        return b""


def integer_arrays(model: ContextModel, sample: torch.Tensor) -> Arrays:
    """Arrays of the .npz with flat symbol tables. sample: magnitudes [N, C, h, w] that set the hidden units' range."""
    order = model.order.numpy()  # type: ignore[operator]
    arrays: Arrays = {
        "order": order.astype(np.int16),
        "starts": np.array(model.starts, np.int16),
        "layers": np.array(len(model.layers), np.int8),
    }
    for k, layer in enumerate(model.layers):
        assert isinstance(layer, LayerContext)
        missing = len(model.layers) - 1 - k
        arrays |= {f"{name}{k}": a for name, a in _layer_arrays(layer, order, torch.floor(sample / 2**missing)).items()}
    return arrays


def _layer_arrays(layer: LayerContext, order: NDArray[np.int64], here: torch.Tensor) -> Arrays:
    with torch.no_grad():
        widest = torch.cat([layer.current, layer.coarser], 1).abs().max()
        a = int(torch.floor(torch.log2(126.5 / widest)))
        hidden_shift = max(0, a - _hidden_exponent(layer, here))
        out = layer.out / CLASS_WIDTH
        b = int(torch.floor(torch.log2(126.5 / out.abs().max())))
        unit = 2.0 ** (a - hidden_shift + b)
        base = (layer.bias / CLASS_WIDTH)[:, None, None].repeat(1, 8, 8)
        base[:: entropy.COEFFICIENTS] += layer.position / CLASS_WIDTH
        busy = layer.activity / CLASS_WIDTH

    def integers(x: torch.Tensor, scale: float, dtype: type = np.int32) -> NDArray[Any]:
        return np.rint(x.detach().numpy() * scale).astype(dtype)

    return {
        "current": integers(layer.current, 2.0**a, np.int8)[:, order],
        "coarser": integers(layer.coarser, 2.0**a, np.int8)[:, order]
        if not layer.first
        else np.zeros((len(layer.current), 0), np.int8),
        "hidden_bias": integers(layer.hidden_bias, 2.0**a),
        "out": integers(out, 2.0**b, np.int8)[order],
        "own": integers(layer.own / CLASS_WIDTH, unit)[:, order] if not layer.first else np.zeros((3, 0), np.int32),
        "base": integers(base, unit)[order],
        "activity": integers(busy, unit)[order],
        "hidden_activity": integers(layer.hidden_activity, 2.0**a),
        "shifts": np.array([hidden_shift, a - hidden_shift + b], np.int16),
        "significance": np.full((entropy.CLASSES, 2), ONE // 2),
        "refinement": np.full((entropy.REFINEMENTS, 2), ONE // 2),
        "size": np.full((entropy.SIZE_CLASSES, entropy.ESCAPE), ONE // entropy.ESCAPE),
    }


def _hidden_exponent(layer: LayerContext, here: torch.Tensor) -> int:
    """Largest e such that hidden x 2^e stays within 255 for 99.9 % of the sample."""
    seen = LayerContext._seen(feature(here), *sides_and_corners(feature(here))).flatten(2)
    state = layer.current @ seen
    if not layer.first:
        f = feature(torch.floor(here / 2))
        state = state + layer.coarser @ LayerContext._seen(f, *sides_and_corners(f)).flatten(2)
    state = state + (activity(here) @ layer.hidden_activity.T)[:, :, None]
    hidden = torch.relu(state + layer.hidden_bias[-1][None, :, None])
    peak = float(torch.quantile(hidden.flatten()[:: max(1, hidden.numel() // 1_000_000)], 0.999))
    return int(np.floor(np.log2(entropy.HIDDEN_LIMIT / max(peak, 1e-6))))


def count_tables(arrays: Arrays, tiles: Iterable[Indices], path: Path) -> None:
    """Fills the symbol tables of `arrays` from training tiles and writes the .npz to `path`."""
    np.savez_compressed(path, **arrays)  # type: ignore[arg-type]
    tables = entropy.load_tables(path)
    counts = {
        id(table): np.zeros(len(table.counts))
        for layer in tables.layers
        for table in (*layer.significance, *layer.refinement, *layer.size)
    }
    for indices in tiles:
        entropy.encode_layers(indices, tables, lambda: CountingCoder(counts))
    for k, layer in enumerate(tables.layers):
        for name, group in (
            ("significance", layer.significance),
            ("refinement", layer.refinement),
            ("size", layer.size),
        ):
            arrays[f"{name}{k}"] = np.stack([_to_counts(counts[id(table)]) for table in group]).astype(np.int32)
    np.savez_compressed(path, **arrays)  # type: ignore[arg-type]


def _to_counts(seen: NDArray[np.float64]) -> NDArray[np.int64]:
    """Counts that sum to 2^24, none below 1, with a prior of half a symbol each (Krichevsky-Trofimov)."""
    share = (seen + 0.5) / (seen + 0.5).sum()
    counts = np.maximum(1, np.floor(share * (ONE - len(seen))).astype(np.int64))
    counts[np.argmax(counts)] += ONE - counts.sum()
    return counts


def macs_per_px(path: Path) -> float:
    """Multiply-accumulates of the context model's matrix products per pixel, if all channels are active."""
    tables = entropy.load_tables(path)
    weights = sum(t.current.size + t.coarser.size + t.out.size for t in tables.layers)
    return float(weights / entropy.COEFFICIENTS)
