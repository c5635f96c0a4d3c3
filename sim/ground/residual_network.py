"""The flight codec's decoder network by hand: the runtime's weights and results in a third of its products.

    picture [1, B, T, T] in steps, its levels [1, B * 64, T / 8, T / 8] -> cells of 4 x 4 pixels -> residual bricks
    -> a better picture

Nine tenths of its work are convolutions of 3 x 3, which a runtime multiplies out. Winograd's F(4 x 4, 3 x 3) needs a
quarter of the products (payload/native/winograd.c). They are products of integers of 13 to 16 bits, which AVX2
multiplies twice as fast as floats (payload/native/products.c); each row has a scale of its own.

Weights are those of the bundle's ONNX file. Where it holds another network, or no kernel was built, a runtime runs it.
"""

import re
from collections.abc import Mapping
from ctypes import c_float
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from payload.engine import NATIVE, Engine, Network, OpenVinoEngine, constants_of
from payload.native import library
from payload.native.library import F32, I16, NONE, call, span

F = NDArray[np.float32]
#: F(4 x 4, 3 x 3): what the kernels are turned by (Lavin & Gray 2016), [6, 3].
KERNEL_TURN = np.array([[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]]) / 24
POINTS, SQUARE, LANES, COLUMNS, MOST_WIDTH = 36, 4, 32, 16, 512
#: The largest of a product's rounded weights. Sums of products fit 32 bits: what is left is for the other factor.
WEIGHT_LIMIT, VALUE_LIMIT, SUM_LIMIT = 8191, 32767, 2**31 - 1
WHAT = ("weight", "bias")
#: As the network was trained: pixels a side of a cell, cells a side of a block, what detail stays below, and the levels
#: that it is told of, in steps.
CELL, CELLS_OF_BLOCK, SOFT, NEAR = 4, 2, 8.0, 2.0
#: Engines whose other networks OpenVINO runs.
OPENVINO = (OpenVinoEngine.name, NATIVE)
#: Names in the ONNX file, behind what its exporter put in front; weights in half precision end in `_half`.
NAME = re.compile(r"(?:.*\.)?decoder\.(picture|near|depth|out|trunk\.\d+\.(?:spread|mix))\.(weight|bias)(?:_half)?")


@dataclass(frozen=True, eq=False)
class Product:
    """Matrices [n, in, out] f32 as the kernel multiplies by them: `weights` i16 in its order, `units` [n] f32 that turn
    them back, `limits` [n] f32: the most that an integer which meets them may be."""

    weights: NDArray[np.int16]
    units: F
    limits: F

    @classmethod
    def of(cls, matrices: F) -> "Product":
        n, rows, columns = matrices.shape
        units = np.maximum(np.abs(matrices).max(axis=(1, 2)), np.float32(1e-30)) / np.float32(WEIGHT_LIMIT)
        whole = np.rint(matrices / units[:, None, None]).astype(np.int16)
        sums = np.abs(whole.astype(np.int64)).sum(axis=1).max(axis=1)
        limits = np.minimum(SUM_LIMIT // np.maximum(sums, 1), VALUE_LIMIT).astype(np.float32)
        paired = whole.reshape(n, rows // 2, 2, columns // COLUMNS, COLUMNS).transpose(0, 3, 1, 4, 2)
        return cls(np.ascontiguousarray(paired), units, limits)


@dataclass(frozen=True, eq=False)
class Brick:
    """x + mix(relu(spread(relu(x)))) and the biases: spread of 36 matrices [C, C], turned for Winograd, mix of one."""

    spread: Product
    spread_bias: F
    mix: Product
    mix_bias: F


@dataclass(frozen=True, eq=False)
class Weights:
    """What the network multiplies by; rows are inputs. `picture` [B * 16, W] takes cells, `near` [B * 64, 4 W] levels,
    for the cells of a block one after the other, `depth` [W] how many layers there were."""

    picture: F
    near: F
    depth: F
    bias: F
    bricks: tuple[Brick, ...]
    out: F
    out_bias: F


def open_network(path: Path, engine: Engine) -> Network:
    """The network of a file: by hand where it is the one that is known here, else by the engine."""
    if library.available and engine.name in OPENVINO:  # ONNX Runtime stays what it is: another opinion
        weights = _weights_in(path)
        if weights is not None:
            return ResidualNetwork(weights)
    return engine.load(path)


@lru_cache(maxsize=2)
def _weights_in(path: Path) -> Weights | None:
    """Those of a file, which threads share: a bundle's files do not change."""
    return weights_of(*constants_of(path))


def weights_of(constants: Mapping[str, NDArray[Any]], operators: Mapping[str, int]) -> Weights | None:
    """The weights among a file's constants; None where it holds another network."""
    named = {m[1] + "." + m[2]: np.asarray(a, np.float32) for n, a in constants.items() if (m := NAME.fullmatch(n))}
    count = sum(name.endswith("spread.weight") for name in named)
    wanted = {f"{part}.{what}" for part in ("picture", "depth", "out") for what in WHAT} | {"near.weight"}
    wanted |= {f"trunk.{k}.{part}.{what}" for k in range(count) for part in ("spread", "mix") for what in WHAT}
    if set(named) != wanted or not count or not _shapes_fit(named, count):
        return None
    # Two projections, bricks of two, the way back; a rectifier before each of a brick's, and the last.
    known = {"Convolution": 3 + 2 * count, "Relu": 2 * count + 1, "Abs": 1, "AvgPool": 1}
    if any(operators.get(name, 0) != number for name, number in known.items()):
        return None
    return _arranged(named, count)


def _shapes_fit(named: Mapping[str, F], count: int) -> bool:
    width, pixels = named["picture.weight"].shape[:2]
    wanted = {
        "picture.weight": (width, pixels, 1, 1), "picture.bias": (width,), "depth.weight": (width, 1),
        "near.weight": (width * CELLS_OF_BLOCK**2, pixels * CELLS_OF_BLOCK**2, 1, 1), "depth.bias": (width,),
        "out.weight": (pixels, width, 1, 1), "out.bias": (pixels,),
    }  # fmt: skip
    for k in range(count):
        wanted |= {f"trunk.{k}.spread.weight": (width, width, 3, 3), f"trunk.{k}.mix.weight": (width, width, 1, 1)}
        wanted |= {f"trunk.{k}.{part}.bias": (width,) for part in ("spread", "mix")}
    fits = width % LANES == 0 and width <= MOST_WIDTH and pixels % CELL**2 == 0
    return fits and all(named[name].shape == shape for name, shape in wanted.items())


def _arranged(named: Mapping[str, F], count: int) -> Weights:
    def flat(name: str) -> F:
        return np.ascontiguousarray(named[f"{name}.weight"][:, :, 0, 0].T)

    bricks = tuple(
        Brick(
            Product.of(turned(named[f"trunk.{k}.spread.weight"])), named[f"trunk.{k}.spread.bias"],
            Product.of(flat(f"trunk.{k}.mix")[None]), named[f"trunk.{k}.mix.bias"],
        )
        for k in range(count)
    )  # fmt: skip
    near = flat("near")  # a feature's four cells lie side by side there
    near = near.reshape(len(near), -1, CELLS_OF_BLOCK**2).swapaxes(1, 2).reshape(near.shape)
    return Weights(
        flat("picture"), np.ascontiguousarray(near), named["depth.weight"][:, 0].copy(),
        named["picture.bias"] + named["depth.bias"], bricks, flat("out"), named["out.bias"],
    )  # fmt: skip


def turned(kernels: F) -> F:
    """Kernels [out, in, 3, 3] as Winograd multiplies by them, [36, in, out] f32."""
    double = kernels.astype(np.float64)
    found = np.einsum("pa,oiab,qb->pqio", KERNEL_TURN, double, KERNEL_TURN)
    return np.ascontiguousarray(found.reshape(POINTS, *found.shape[2:]), np.float32)


class Room:
    """Memory that is kept from tile to tile."""

    def __init__(self, cells: int, width: int) -> None:
        squares, self.cells = (cells // SQUARE) ** 2, cells
        self.spread = np.empty((POINTS, squares, width), np.int16)
        self.spread_scales = np.empty((POINTS, squares), np.float32)
        self.products = np.empty(self.spread.shape, np.float32)
        self.hidden = np.empty((1, cells * cells, width), np.int16)
        self.hidden_scales = np.empty((1, cells * cells), np.float32)


class ResidualNetwork:
    """Runs the network on tiles of one size at a time. Its memory is kept from tile to tile: one thread, one object."""

    def __init__(self, weights: Weights) -> None:
        self._weights = weights
        self._memory: Room | None = None

    def run(self, *inputs: NDArray[Any]) -> list[NDArray[Any]]:
        """A picture [1, B, T, T] f32 in steps, its levels [1, B * 64, T / 8, T / 8], depth [1, 1, 1, 1] -> a better
        picture, in a list."""
        plain, levels, depth = inputs
        w, side = self._weights, plain.shape[-1] // CELL
        x = _bounded_detail(plain[0]) @ w.picture
        x += w.bias + np.float32(depth.reshape(-1)[0]) * w.depth
        self._add_near(x.reshape(side, side, -1), levels[0])
        room = self._room(side)
        for brick in w.bricks:
            add_brick(x, brick, side, room)
        correction = np.maximum(x, 0, out=x) @ w.out
        correction += w.out_bias
        cells = correction.reshape(side, side, -1, CELL, CELL).transpose(2, 0, 3, 1, 4)
        return [plain + cells.reshape(plain.shape)]

    def _add_near(self, x: F, levels: F) -> None:
        """What blocks are told to have nothing, or little, is added to their cells. x [T / 4, T / 4, W]."""
        flat = levels.reshape(len(levels), -1)
        there = np.flatnonzero(flat.any(axis=1))  # channels that hold nothing give nothing
        near = np.clip(flat[there].T, -NEAR, NEAR) @ self._weights.near[there]
        blocks, cells = levels.shape[-1], CELLS_OF_BLOCK
        x.reshape(blocks, cells, blocks, cells, -1)[:] += near.reshape(
            blocks, blocks, cells, cells, x.shape[2]
        ).swapaxes(1, 2)

    def _room(self, cells: int) -> Room:
        if self._memory is None or self._memory.cells != cells:
            self._memory = Room(cells, len(self._weights.bias))
        return self._memory


def add_brick(x: F, brick: Brick, cells: int, room: Room) -> None:
    """x [h h, W] += mix(relu(spread(relu(x)))), in place."""
    width = x.shape[1]
    spread, mix = brick.spread, brick.mix
    call(
        "winograd_in", span(x, F32), cells, width, span(spread.limits, F32), span(spread.units, F32),
        span(room.spread, I16), span(room.spread_scales, F32),
    )  # fmt: skip
    multiply(room.spread, room.spread_scales, spread, None, room.products)
    call(
        "winograd_out", span(room.products, F32), span(brick.spread_bias, F32), cells, width, c_float(mix.limits[0]),
        c_float(mix.units[0]), span(room.hidden, I16), span(room.hidden_scales, F32),
    )  # fmt: skip
    multiply(room.hidden, room.hidden_scales, mix, brick.mix_bias, x[None], add=True)


def multiply(rows: NDArray[np.int16], scales: F, by: Product, bias: F | None, to: F, add: bool = False) -> None:
    """to [n, rows, out] = (add: to) + bias + scales x (rows [n, rows, in] by the product's weights)."""
    added = NONE if bias is None else span(bias, F32)
    call(
        "multiply", span(rows, I16), span(scales, F32), span(by.weights, I16), added, int(add), *rows.shape,
        to.shape[2], span(to, F32),
    )  # fmt: skip


def _bounded_detail(plain: F) -> F:
    """Cells [(T / 4)^2, B * 16] of a picture [B, T, T]: how far pixels are off the mean around, bent to stay below
    SOFT."""
    bands, side = len(plain), plain.shape[1] // CELL
    cells = plain.reshape(bands, side, CELL, side, CELL).transpose(1, 3, 0, 2, 4).reshape(side, side, bands, CELL**2)
    detail = cells - _smoothed(cells.mean(axis=3))[..., None]
    bent = np.abs(detail)
    bent *= np.float32(1 / SOFT)
    bent += 1
    detail /= bent
    return detail.reshape(side * side, -1)


def _smoothed(averages: F) -> F:
    """Mean of 3 x 3 of [h, h, B], edges repeated."""
    cells = len(averages)
    wide = np.pad(averages, ((1, 1), (1, 1), (0, 0)), mode="edge")
    rows = wide[:-2] + wide[1:-1] + wide[2:]
    return np.asarray((rows[:, :cells] + rows[:, 1:-1] + rows[:, 2:]) / 9, np.float32)
