"""The compiled twins of rotation, transform and quantiser: the same integers as their files in numpy define."""

import ctypes
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from payload.codec.band_statistics import DIFFERENCE_LIMIT, DIFFERENCE_LINES, Statistics
from payload.codec.lapped.quantiser import Indices, inside_cells, rebuild_units, step_units
from payload.codec.lapped.synthesis import MARGIN, Functions
from payload.codec.lapped.tables import Kernels
from payload.codec.lapped.transform import BLOCK, COEFFICIENTS, DCT_BITS, LATENT_BITS, Latents, dct
from payload.codec.rotation import JACOBI_SWEEPS, PLANE_LIMIT, Rotation, circle
from payload.errors import BundleError, InputError
from payload.memory import Held
from payload.native import library
from payload.native.library import BOOL, F32, F64, I16, I32, I64, NONE, U8, U16, U64, Span, call, span
from payload.scene import Dn

#: The matrix [B, B] that leads back from rotated steps, and the means [B] that are added.
Turn = tuple[NDArray[np.float32], NDArray[np.float32]]


class Buffers:
    """Arrays of one tile that are written anew for every tile: fresh memory would cost more than what fills it."""

    def __init__(self, bands: int, side: int, sets: tuple[int, int] | None = None) -> None:
        """`sets`: how many of rotated bands, and the bands of each; None: one of all."""
        blocks, (count, of_set) = side // BLOCK, sets or (1, bands)
        few = bands if count == 1 else 0  # many bands are rotated elsewhere
        self.values = np.empty((few, side, side), np.uint16)
        self.rotated = np.empty((few, side, side), np.int16)
        self.sums = np.empty((of_set, COEFFICIENTS, blocks, blocks), np.int32)
        self.magnitude = np.empty((count * of_set * COEFFICIENTS, blocks, blocks), np.uint16)
        self.negative = np.empty(self.magnitude.shape, bool)
        self.size128 = np.empty(self.magnitude.shape, np.uint8)
        self.lines = np.empty(2 * BLOCK * (side + BLOCK), np.int16)


def statistics(dn: Dn, table: NDArray[np.uint16], values: Dn, distance_px: int = 0) -> Statistics:
    """Companded `values` [B, T, T] of a tile, and their statistics, all pixels valid."""
    bands, n = len(dn), dn[0].size
    sums, edges = np.empty(bands, np.uint64), np.empty((2, bands), np.uint16)
    call(
        "compand", span(np.ascontiguousarray(dn), U16), span(table, U16), bands, n, span(values, U16),
        span(sums, U64), span(edges[0], U16), span(edges[1], U16),
    )  # fmt: skip
    least, most = (tuple(edge.tolist()) for edge in edges)
    differences = _difference_products(values, distance_px) if distance_px else None
    products = None if differences is not None else _products(values, sums, edges)
    return Statistics(n, tuple(sums.tolist()), products, least, most, differences)


def _products(values: Dn, sums: NDArray[np.uint64], edges: NDArray[np.uint16]) -> NDArray[np.int64]:
    bands, n = len(values), values[0].size
    products = np.zeros((bands, bands), np.uint64)
    call(
        "products", span(values, U16), bands, n, span(sums, U64), span(edges[0], U16), span(edges[1], U16),
        span(products, U64),
    )  # fmt: skip
    return products.astype(np.int64)


def _difference_products(values: Dn, distance_px: int) -> NDArray[np.int64] | None:
    bands, side, _ = values.shape
    products = np.zeros((bands, bands), np.int64)
    call(
        "difference_products", span(values, U16), bands, side, distance_px, DIFFERENCE_LINES, DIFFERENCE_LIMIT,
        span(products, I64),
    )  # fmt: skip
    return products if products.any() else None


def diagonalise(a: NDArray[np.float64], v: NDArray[np.float64]) -> None:
    """As payload.codec.rotation.diagonalise."""
    call("jacobi", span(a, F64), span(v, F64), len(a), JACOBI_SWEEPS)


def turned(covariance: NDArray[np.float64], far: list[int]) -> tuple[tuple[int, ...], int]:
    """As payload.codec.rotation.turned."""
    bands = len(far)
    angles, bound = np.empty(bands * (bands - 1) // 2, np.int32), np.empty(1, np.int64)
    cosines, sines = circle()
    call(
        "fit", span(covariance, F64), bands, JACOBI_SWEEPS, span(cosines, F64), span(sines, F64),
        span(np.array(far, np.int32), I32), span(angles, I32), span(bound, I64),
    )  # fmt: skip
    return tuple(angles.tolist()), int(bound[0])


def rotate(values: Dn, rotation: Rotation, rotated: NDArray[np.int16]) -> None:
    """`rotated` bands [B, T, T] of a tile whose pixels are all valid."""
    angles, means = np.array(rotation.angles, np.int32), np.array(rotation.means, np.int32)
    cosines, sines = circle()
    call(
        "rotate", span(values, U16), span(angles, I32), span(cosines, F64), span(sines, F64), span(means, I32),
        len(values), values[0].size, rotation.shift, PLANE_LIMIT, span(rotated, I16),
    )  # fmt: skip


class Transform:
    """The encoder's network as the kernel runs it."""

    def __init__(self, kernels: Kernels) -> None:
        u, v = np.divmod(np.arange(COEFFICIENTS), BLOCK)
        parity = 2 * (u % 2) + v % 2
        functions = [np.flatnonzero(parity == p) for p in range(4)]
        self._functions = np.concatenate(functions).astype(np.int32)
        self._weights = kernels.values[self._functions, :BLOCK, :BLOCK].astype(np.int16).copy()
        self._shift = (LATENT_BITS - kernels.exponents.astype(np.int32)).copy()

    def held(self) -> Iterator[Held]:
        """What the kernel reads for every tile."""
        yield Held("transform.functions", "tables", self._functions)
        yield Held("transform.weights", "weights", self._weights)
        yield Held("transform.shift", "scales", self._shift)

    def run(self, rotated: NDArray[np.int16], buffers: Buffers) -> NDArray[np.int32]:
        """Sums [B, 64, T/8, T/8] in 2^-8 of rotated bands [B, T, T]."""
        bands, side, _ = rotated.shape
        call(
            "transform", span(rotated, I16), span(self._weights, I16), span(self._functions, I32),
            span(self._shift, I32), bands, side, span(buffers.lines, I16), span(buffers.sums, I32),
        )  # fmt: skip
        return buffers.sums


def transform_of(kernels: Kernels | None, needed: bool, bundle: str) -> Transform | None:
    """The encoder of a bundle as the kernel runs it; None where that cannot be and is not `needed`."""
    if library.available and kernels is not None:
        return Transform(kernels)
    if not needed:
        return None
    if library.available:
        raise BundleError(f"bundle {bundle}: no kernels among its tables for engine 'native'; rebuild it")
    raise InputError(
        "engine 'native' needs the compiled kernel, which was not built; install again where there is a C compiler"
    )


def with_second_level(sums: NDArray[np.int32]) -> Latents:
    """As payload.codec.lapped.transform.with_second_level. sums [B, 64, h, w], in place."""
    bands, _, h, w = sums.shape
    call("second_level", span(sums, I32), span(dct().astype(np.int64), I64), bands, h, w, DCT_BITS)
    return Latents(sums)


def quantise(latents: Latents, index: int, buffers: Buffers, unsent: int = 0) -> Indices:
    """As payload.codec.lapped.quantiser.quantise, into the buffers."""
    values = np.ascontiguousarray(latents.values)
    call(
        "quantise", span(values, I32), values.size, ctypes.c_uint32(step_units(index)), unsent,
        span(buffers.magnitude, U16), span(buffers.negative, BOOL), span(buffers.size128, U8),
    )  # fmt: skip
    return Indices(buffers.magnitude, buffers.negative, size128=buffers.size128)


def errors(latents: Latents, index: int, layers: int) -> tuple[int, ...]:
    """As payload.codec.lapped.quantiser.errors."""
    values = np.ascontiguousarray(latents.values)
    inside = np.array([rebuild_units(layers - 1 - k) for k in range(layers)], np.int32)
    left = np.zeros(layers + 1, np.uint64)
    step = ctypes.c_uint32(step_units(index))
    call("errors", span(values, I32), values.size, step, layers, span(inside, I32), span(left, U64))
    return tuple(left.tolist())


class Synthesis:
    """Indices -> DN as payload.codec.lapped.synthesis and the power law have it, for tiles of `side` px."""

    def __init__(
        self, narrow: Functions, wide: Functions, expanded: NDArray[np.float32], bands: int, side: int
    ) -> None:
        self._narrow, self._wide, self._expanded = narrow, wide, expanded
        self._plane = np.empty((side + 2 * MARGIN) ** 2, np.float32)
        self._rotated = np.empty((bands, side, side), np.float32)

    def rotated(
        self, indices: Indices, averages: NDArray[np.float32], is_wide: NDArray[np.bool_]
    ) -> NDArray[np.float32]:
        """Rotated bands [B, T, T] in steps; written over by the next call."""
        self._synthesise(_given(indices, averages), is_wide)
        return self._rotated

    def of_levels(self, levels: NDArray[np.float32], is_wide: NDArray[np.bool_]) -> NDArray[np.float32]:
        """As `rotated`, of levels [B * 64, h, h]."""
        self._synthesise((span(np.ascontiguousarray(levels), F32), NONE, NONE, NONE, NONE), is_wide)
        return self._rotated

    def turned_back(self, rotated: NDArray[np.float32], turn: Turn) -> Dn:
        """DN [B, T, T] of rotated bands in steps; `turn`: the matrix [B, B] back from them, and the means."""
        bands, side, _ = rotated.shape
        matrix, means = turn
        dn = np.empty(rotated.shape, np.uint16)
        call(
            "unrotate", span(np.ascontiguousarray(rotated), F32), span(matrix, F32), span(means, F32),
            span(self._expanded, F32), bands, side * side, span(dn, U16),
        )  # fmt: skip
        return dn

    def _synthesise(self, given: tuple[Span, ...], is_wide: NDArray[np.bool_]) -> None:
        bands, side, _ = self._rotated.shape
        call(
            "synthesis", *given, span(self._narrow, F32), span(self._wide, F32), span(is_wide, BOOL), bands,
            side // BLOCK, span(self._plane, F32), span(self._rotated, F32),
        )  # fmt: skip


def _given(indices: Indices, averages: NDArray[np.float32]) -> tuple[Span, ...]:
    magnitude, negative = np.ascontiguousarray(indices.magnitude), np.ascontiguousarray(indices.negative)
    return NONE, span(magnitude, U16), span(negative, BOOL), span(inside_cells(indices), F32), span(averages, F32)
