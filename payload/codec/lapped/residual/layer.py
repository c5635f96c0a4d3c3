"""What the base layers leave of a tile, with a bounded error: residuals of every sample, in bins of 2 d + 1.

    DN = clip(prediction + bin (2 d + 1)),  prediction = base picture + what its neighbours' residuals say

Every sample comes out within d of what went in; d = 0 is lossless. Bands follow each other, and in a band four grids of
every second row and column, so that later ones see neighbours on all sides and no pixel waits for the one beside it.
A grid's weights are fitted to the tile and sent; so is the spread of each class of samples. docs/format.md has the
octets. All in integers; doubles hold them where a matrix product is taken, below 2^53 and so exact in any order.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from payload.codec.lapped.range_coder import Decoder, Encoder
from payload.codec.lapped.residual import spreads
from payload.codec.lapped.residual.raw_bits import BitReader, Bits, packed
from payload.errors import StreamError
from payload.scene import Dn, Mask

#: Where a grid begins, and which neighbours of its pixels the grids before have told: beside, and across the corners.
BESIDE = ((0, -1), (0, 1), (-1, 0), (1, 0))
ACROSS = ((-1, -1), (-1, 1), (1, -1), (1, 1))
GRIDS = ((0, 0, ()), (1, 1, ACROSS), (0, 1, BESIDE), (1, 0, BESIDE + ACROSS))
#: A pixel sees itself and what is beside it in so many bands before its own.
BANDS_BEFORE = 3
CROSS = ((0, 0), *BESIDE)
#: Weights are octets, in 64ths; sizes of residuals are counted in sixteenths of a bin.
WEIGHT_BITS, SIZE_UNIT = 6, 16
#: What a grid's bias is a share of, in DN; the same for sizes, in sixteenths of a bin of 1 DN.
BIAS_DN, BIAS_SIZE = 16, 512
SIZE_LIMIT = 4095
LENGTH_OCTETS = 3
TOP_DN = 65535

Integers = NDArray[np.int64]
Terms = NDArray[np.float64]


@dataclass(eq=False)
class _Tile:
    """What is known of a tile: residuals and sizes (bins without sign) with a border of zeros, [B, T + 2, T + 2]."""

    base: Integers
    valid: Mask
    bin_dn: int
    residual: Integers = field(init=False)
    size: Integers = field(init=False)
    slope: Integers = field(init=False)  # of the base picture, [B, T, T]

    def __post_init__(self) -> None:
        bands, side, _ = self.base.shape
        self.residual, self.size = np.zeros((2, bands, side + 2, side + 2), np.int64)
        padded = np.pad(self.base, ((0, 0), (1, 1), (1, 1)), mode="edge")
        self.slope = np.abs(padded[:, 1:-1, 2:] - padded[:, 1:-1, :-2])
        self.slope += np.abs(padded[:, 2:, 1:-1] - padded[:, :-2, 1:-1])


@dataclass(frozen=True, eq=False)
class _Grid:
    """Every second row and column of one band, and the pixels of it that are valid."""

    tile: _Tile
    band: int
    top: int
    left: int
    known: Sequence[tuple[int, int]]

    @property
    def here(self) -> Mask:
        return self.tile.valid[self.top :: 2, self.left :: 2]

    def of(self, plane: NDArray[Any]) -> NDArray[Any]:
        """Its pixels of a plane [T, T], by row and column."""
        found: NDArray[Any] = plane[self.top :: 2, self.left :: 2][self.here]
        return found

    def beside(self, bordered: Integers, dy: int, dx: int) -> Integers:
        """Of each of its pixels the one so many rows down and columns right, in a plane [T + 2, T + 2]."""
        height, width = self.here.shape
        rows, cols = slice(1 + self.top + dy, None, 2), slice(1 + self.left + dx, None, 2)
        return bordered[rows, cols][:height, :width][self.here]

    @property
    def before(self) -> range:
        return range(max(0, self.band - BANDS_BEFORE), self.band)

    def predictors(self) -> Terms:
        """Residuals that a residual is predicted from, and the bias, [n, pixels]."""
        told = self.tile.residual
        own = [self.beside(told[self.band], *at) for at in self.known]
        others = [self.beside(told[b], *at) for b in self.before for at in CROSS]
        return np.array([*own, *others, np.full(np.count_nonzero(self.here), BIAS_DN)], np.float64)

    def signs_of_size(self) -> Terms:
        """What tells how large a bin may be, in sixteenths of a bin, [n, pixels]: sizes beside and in the bands before,
        slopes and the level of the base picture, and the bias."""
        told, bin_dn, slope = self.tile.size, self.tile.bin_dn, self.tile.slope
        own = [SIZE_UNIT * sum(self.beside(told[self.band], *at) for at in self.known) // max(1, len(self.known))]
        others = []
        for b in self.before:
            cross = [self.beside(told[b], *at) for at in CROSS]
            others += [SIZE_UNIT * cross[0], SIZE_UNIT * sum(cross) // len(cross)]
        base = [
            self.of(slope[self.band]) * SIZE_UNIT // (8 * bin_dn),
            self.of(slope.sum(axis=0)) * SIZE_UNIT // (8 * len(slope) * bin_dn),
            self.of(self.tile.base[self.band]) * SIZE_UNIT // (256 * bin_dn),
        ]
        count = np.count_nonzero(self.here)
        bias = np.full(count, -(-BIAS_SIZE // bin_dn))
        return np.array([*(own if self.known else ()), *others, *base, bias], np.float64)

    def predicted(self, weights: NDArray[np.int8]) -> Integers:
        """DN of its pixels before their own bins are known."""
        return np.clip(self.of(self.tile.base[self.band]) + _weighted(weights, self.predictors()), 0, TOP_DN)

    def tell(self, predicted: Integers, bins: Integers) -> Integers:
        """DN of its pixels by their bins, which the grids after it see."""
        dn = np.clip(predicted + bins * self.tile.bin_dn, 0, TOP_DN)
        place = self.band, slice(1 + self.top, -1, 2), slice(1 + self.left, -1, 2)
        self.tile.residual[place][self.here] = dn - self.of(self.tile.base[self.band])
        self.tile.size[place][self.here] = np.minimum(np.abs(bins), SIZE_LIMIT)
        return dn


def _grids(tile: _Tile, band: int) -> Iterator[_Grid]:
    return (_Grid(tile, band, *grid) for grid in GRIDS)


def _weighted(weights: NDArray[np.int8], terms: Terms) -> Integers:
    sums: Terms = weights.astype(np.float64) @ terms
    return sums.astype(np.int64) + (1 << WEIGHT_BITS - 1) >> WEIGHT_BITS


def fitted(terms: Terms, wanted: Integers, importance: Integers | None = None) -> NDArray[np.int8]:
    """Weights [n] of terms [n, pixels] by least squares. Sums are exact and the elimination is plain IEEE arithmetic:
    every machine finds the same."""
    heavy = terms if importance is None else terms * importance
    system = np.column_stack([heavy @ terms.T, heavy @ wanted.astype(np.float64)])
    count = len(system)
    system[np.arange(count), np.arange(count)] += 1.0 + terms.shape[1] / 16
    for k in range(count):
        system[k] /= system[k, k]
        for other in range(count):
            if other != k:
                system[other] -= system[other, k] * system[k]
    return np.clip(np.rint(system[:, -1] * (1 << WEIGHT_BITS)), -128, 127).astype(np.int8)


def _importance(terms: Terms) -> Integers:
    """Large residuals are rare and their sizes vary most: they count for less."""
    return (1 << 12) // (8 + terms[:-1].sum(axis=0).astype(np.int64) // 4)


@dataclass(frozen=True, eq=False)
class _CodedGrid:
    weights: NDArray[np.int8]
    size_weights: NDArray[np.int8]
    classes: Integers
    bins: Integers


def encode(dn: Dn, base: Dn, valid: Mask, bound_dn: int) -> tuple[bytes, Dn]:
    """A residual layer, and the tile as it will be decoded [B, T, T]: invalid pixels as in the base picture."""
    tile = _Tile(base.astype(np.int64), valid, 2 * bound_dn + 1)
    head, coder, found = bytearray(), Encoder(), base.copy()
    raw: list[Bits] = []
    for band in range(len(dn)):
        coded = [_code(grid, dn[band], bound_dn, found[band]) for grid in _grids(tile, band)]
        first, chosen = spreads.choose([c.bins for c in coded], [c.classes for c in coded])
        for c in coded:
            head += c.weights.tobytes() + c.size_weights.tobytes()
            raw += spreads.put(coder, c.bins, c.classes - first, chosen)
        head += bytes([first, len(chosen), *chosen])
    words = coder.octets()
    return len(words).to_bytes(LENGTH_OCTETS, "big") + bytes(head) + words + packed(raw), found


def _code(grid: _Grid, dn: NDArray[np.uint16], bound_dn: int, found: NDArray[np.uint16]) -> _CodedGrid:
    here = grid.of(dn).astype(np.int64)
    weights = fitted(grid.predictors(), here - grid.of(grid.tile.base[grid.band]))
    predicted = grid.predicted(weights)
    error = here - predicted
    bins = np.sign(error) * ((np.abs(error) + bound_dn) // grid.tile.bin_dn)
    terms = grid.signs_of_size()
    size_weights = fitted(terms, SIZE_UNIT * np.minimum(np.abs(bins), SIZE_LIMIT), _importance(terms))
    classes = spreads.classes_of(_weighted(size_weights, terms))
    found[grid.top :: 2, grid.left :: 2][grid.here] = grid.tell(predicted, bins)
    return _CodedGrid(weights, size_weights, classes, bins)


def decode(octets: bytes, base: Dn, valid: Mask, bound_dn: int) -> Dn:
    """The tile [B, T, T] of a residual layer, its base picture and its mask. StreamError where that cannot be."""
    tile, found = _Tile(base.astype(np.int64), valid, 2 * bound_dn + 1), base.copy()
    head = _Head(octets[LENGTH_OCTETS:])
    bands = [_band_head(head, tile, band) for band in range(len(base))]
    words = int.from_bytes(octets[:LENGTH_OCTETS], "big")
    coder, raw = Decoder(head.take(words)), BitReader(head.rest)
    for band, (weights, first, chosen) in enumerate(bands):
        for grid, (of_values, of_sizes) in zip(_grids(tile, band), weights, strict=True):
            predicted = grid.predicted(of_values)
            classes = spreads.classes_of(_weighted(of_sizes, grid.signs_of_size())) - first
            dn = grid.tell(predicted, spreads.take(coder, raw, classes, chosen))
            found[band, grid.top :: 2, grid.left :: 2][grid.here] = dn
    raw.close()
    return found


class _Head:
    """Octets taken from the front."""

    def __init__(self, octets: bytes) -> None:
        self.rest = octets

    def take(self, count: int) -> bytes:
        if len(self.rest) < count:
            raise StreamError(f"residual layer: {len(self.rest)} octets left, wanted {count}")
        taken, self.rest = self.rest[:count], self.rest[count:]
        return taken


_Weights = list[tuple[NDArray[np.int8], NDArray[np.int8]]]


def _band_head(head: _Head, tile: _Tile, band: int) -> tuple[_Weights, int, bytes]:
    """Weights of every grid, the first class, and the spread of each class from there on."""
    weights = []
    for grid in _grids(tile, band):
        counts = len(grid.known) + len(grid.before) * len(CROSS) + 1, bool(grid.known) + 2 * len(grid.before) + 4
        weights.append(tuple(np.frombuffer(head.take(count), np.int8) for count in counts))
    first, count = head.take(2)
    chosen = head.take(count)
    if max(chosen, default=0) >= spreads.SPREADS:
        raise StreamError(f"residual layer: spread {max(chosen)} of {spreads.SPREADS}")
    return weights, first, chosen  # type: ignore[return-value]
