"""Tile -> rotated bands: a spectral Karhunen-Loeve transform fitted on each tile, exact on every machine.

What classical coders have over a static network is adaptation to the tile; this step gives it to the network too.
The covariance comes from exact integer sums, the eigenvectors from Jacobi rotations in plain IEEE doubles (+ - * / and
sqrt only), and are sent as B (B - 1) / 2 Givens angles of 12 bits. Both sides rebuild the same integer matrix from the
angles, so the bits never depend on the eigen-solver.

Of more than FEW_BANDS bands only the leading components are sent (payload/codec/leading.py): the angles of the first
`rank` rows. The other rows complete the rotation; they hold what each band has left.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from payload.codec.band_statistics import DIFFERENCE_LINES, Statistics, difference_products, statistics
from payload.codec.leading import leading
from payload.memory import Held
from payload.scene import Dn, Mask

ANGLE_BITS = 12
ANGLES = 1 << ANGLE_BITS
MATRIX_BITS = 14
JACOBI_SWEEPS = 12
#: What turns a symmetric matrix diagonal, and the rows of another with it, in place.
Diagonalise = Callable[[NDArray[np.float64], NDArray[np.float64]], None]
#: A covariance [B, B] of few bands, and how far each reaches from its mean -> angles, and a bound on rotated values.
Turn = Callable[[NDArray[np.float64], list[int]], tuple[tuple[int, ...], int]]
#: Largest magnitude of a rotated value that the two int8 planes of the encoder can hold: 127 x 256 + 127.
PLANE_LIMIT = 127 * 256 + 127
#: Up to so many bands all components are sent; of more, as many leading ones at most.
FEW_BANDS = 16
#: Bands there may be.
MOST_BANDS = 512
#: Side information of many bands: at most so many octets of means and angles for a sample of a tile of MANY_PX a side,
#: 1 % at CR 50. Smaller tiles may have as many, if they are worth it: their cubes are no larger.
SIDE_PER_SAMPLE, MANY_PX = 0.01 * 2 / 50, 256
#: A leading component is worth its angles where, by its variance and the error allowed, it saves so many bits a pixel.
#: Of .06, .3 and 1, .06 leads too few by far; between the others octets at equal PSNR hardly differ.
BITS_PER_OCTAVE = 0.3
#: Largest shift there is: sixteen bands rotate into one of at most 4 x 65535, which four halvings bring to the limit;
#: 512 bands into one of 23 x 65535.
SHIFT_LIMIT, MANY_BANDS_SHIFT_LIMIT = 4, 6
#: Pixels of many bands that are rotated at a time, in doubles.
CHUNK_PX = 4096


@dataclass(frozen=True)
class Rotation:
    """Side information of one tile: what the ground needs to undo the rotation."""

    means: tuple[int, ...]  # DN, one per band
    angles: tuple[int, ...]  # Givens angles in units of 2 pi / 4096, pairs (0,1) (0,2) ... of the first rows
    shift: int  # rotated values are halved `shift` times so that they fit the encoder's planes

    @property
    def matrix(self) -> NDArray[np.int64]:
        """[B, B] int64, unit 2^-14; row k gives rotated band k."""
        return _matrix(self.angles, len(self.means))


def fit(
    dn: Dn,
    valid: Mask,
    known: Statistics | None = None,
    solve: Diagonalise | None = None,
    turn: Turn | None = None,
    error_dn2: float = 400.0,
    bounded: bool = True,
    distance_px: int = 0,
) -> Rotation:
    """The rotation of a tile dn [B, T, T] from its valid pixels, of which the statistics may be known already.

    `solve` and `turn` are twins of `diagonalise` and `turned`. `distance_px`: it decorrelates differences between
    pixels so far apart, 0: values. `error_dn2`: the squared error that may stay in a sample; of many bands, it decides
    how many components lead, up to what side information may cost if that is `bounded`."""
    if len(dn) > FEW_BANDS:
        most = _most_leading(len(dn), dn[0].size) if bounded else FEW_BANDS
        return _fit_many(dn, valid, solve or diagonalise, (error_dn2, most), distance_px)
    found = known or statistics(dn, valid, distance_px)
    means = tuple((2 * s + found.count) // (2 * found.count) for s in found.sums)
    far = [max(b - mean, mean - a) for a, b, mean in zip(found.least, found.most, means, strict=True)]
    angles, bound = (turn or turned)(found.covariance(), far)
    shift = 0 if bound < PLANE_LIMIT else _shift(dn, valid, Rotation(means, angles, 0))
    return Rotation(means, angles, shift)


def _fit_many(dn: Dn, valid: Mask, solve: Diagonalise, wanted: tuple[float, int], distance_px: int) -> Rotation:
    """From every second pixel of every second line: what 200 bands have in common shows in a quarter of the pixels."""
    sums = dn[:, valid].sum(axis=1, dtype=np.int64)
    count = int(valid.sum())
    means = tuple(int(mean) for mean in (2 * sums + count) // (2 * count))
    covariance = _covariance_of_many(dn, valid, means, distance_px)
    error_dn2, most = wanted
    vectors, _ = leading(covariance, most, solve)
    values = _covariance_of_many(dn, valid, means, 0) if distance_px else covariance
    variances = _variances_along(vectors, values)
    rank = max(1, sum(_worth_leading(v, p, len(dn), count, error_dn2) for p, v in enumerate(variances)))
    vectors = np.where(vectors.sum(axis=1, keepdims=True) < 0, -vectors, vectors)[:rank]
    angles = _many_angles(vectors)
    rows = Rotation(means, angles, 0).matrix[:rank]  # the others hold what single bands have left
    peak = max(int(np.abs(part).max()) for _, part in _rotated_chunks(dn[:, valid], rows, means))
    return Rotation(means, angles, (peak // PLANE_LIMIT).bit_length())


def _covariance_of_many(dn: Dn, valid: Mask, means: tuple[int, ...], distance_px: int) -> NDArray[np.float64]:
    differences = difference_products(dn, valid, distance_px) if distance_px else None
    if differences is not None:
        pairs = 2 * valid.sum() / DIFFERENCE_LINES  # about: some lie beyond an edge
        return differences / (2.0 * pairs)  # a difference has the variance of two pixels
    thinned = np.zeros_like(valid)
    thinned[::2, ::2] = valid[::2, ::2]
    chosen = thinned if thinned.any() else valid
    centred = dn[:, chosen].astype(np.float64) - np.array(means, np.float64)[:, None]
    covariance: NDArray[np.float64] = (centred @ centred.T) / centred.shape[1]  # exact before the division
    return covariance


def _variances_along(vectors: NDArray[np.float64], covariance: NDArray[np.float64]) -> list[float]:
    """Of values along each vector [R, B]. A component that differs little between neighbours may still hold most of
    what a tile holds. Sums are rounded once, so that no machine finds another rank."""
    return [math.fsum((np.outer(row, row) * covariance).ravel().tolist()) for row in vectors]


def _most_leading(bands: int, pixels: int) -> int:
    """Leading components whose side information is bounded."""
    octets = SIDE_PER_SAMPLE * bands * max(pixels, MANY_PX**2)
    return next((rank for rank in range(FEW_BANDS, 1, -1) if rotation_octets(bands, rank) <= octets), 1)


def _worth_leading(variance: float, place: int, bands: int, pixels: int, error_dn2: float) -> bool:
    saved = BITS_PER_OCTAVE * pixels * math.log2(1 + max(variance, 0.0) / error_dn2)
    return saved > ANGLE_BITS * (bands - 1 - place)


def turned(covariance: NDArray[np.float64], far: list[int]) -> tuple[tuple[int, ...], int]:
    """Angles of the rotation that makes a covariance diagonal, and a bound on the magnitude of rotated values before
    they are halved, of bands that reach so `far` from their means."""
    angles = _angles(_eigenvectors(covariance))
    return angles, int((np.abs(_matrix(angles, len(far))) @ np.array(far)).max()) >> MATRIX_BITS


def _shift(dn: Dn, valid: Mask, rotation: Rotation) -> int:
    """How often the rotated values must be halved to fit."""
    peak = int(np.abs(_rotate(dn, rotation)[:, valid]).max())
    return (peak // PLANE_LIMIT).bit_length()


def rotate(dn: Dn, valid: Mask, rotation: Rotation) -> NDArray[np.int32]:
    """Rotated bands [B, T, T] int32 in DN / 2^shift; pixels that are not valid become 0 (the tile's mean)."""
    if len(dn) > FEW_BANDS:
        return _rotate_many(dn, valid, rotation)
    rotated = _rotate(dn, rotation)
    if rotation.shift:
        rotated = (rotated + (1 << (rotation.shift - 1))) >> rotation.shift
    if not valid.all():
        rotated[:, ~valid] = 0
    return np.clip(rotated, -PLANE_LIMIT, PLANE_LIMIT, out=rotated)


def _rotate_many(dn: Dn, valid: Mask, rotation: Rotation) -> NDArray[np.int32]:
    rotated = np.empty((len(dn), dn[0].size), np.int32)
    half = 1 << rotation.shift >> 1
    for span, part in _rotated_chunks(dn.reshape(len(dn), -1), rotation.matrix, rotation.means):
        np.clip((part + half) >> rotation.shift, -PLANE_LIMIT, PLANE_LIMIT, out=rotated[:, span])
    rotated[:, ~valid.ravel()] = 0
    return rotated.reshape(dn.shape)


def _rotated_chunks(
    pixels: Dn, rows: NDArray[np.int64], means: tuple[int, ...]
) -> Iterator[tuple[slice, NDArray[np.int32]]]:
    """Rotated values [R, n] of pixels [B, n] by rows [R, B] of a matrix, some pixels at a time."""
    matrix, mean = rows.astype(np.float64), np.array(means, np.float64)[:, None]
    for begin in range(0, pixels.shape[1], CHUNK_PX):
        span = slice(begin, begin + CHUNK_PX)
        yield span, _rounded(matrix @ (pixels[:, span].astype(np.float64) - mean))


def unrotate(rotated: NDArray[np.floating], rotation: Rotation) -> NDArray[np.float32]:
    """Inverse of `rotate`, in floats: this runs on the ground, behind the decoder. DN f32 [B, T, T], not clipped."""
    inverse, means = inverse_of(rotation)
    flat = inverse @ rotated.reshape(len(rotated), -1).astype(np.float32)
    flat += means[:, None]
    return flat.reshape(rotated.shape)


def inverse_of(rotation: Rotation) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """What undoes a rotation: a matrix [B, B] and the means [B] that are added to its product."""
    inverse = np.linalg.inv(rotation.matrix / 2.0**MATRIX_BITS) * 2.0**rotation.shift
    return inverse.astype(np.float32), np.array(rotation.means, np.float32)


def _rotate(dn: Dn, rotation: Rotation) -> NDArray[np.int32]:
    bands = dn.shape[0]
    centred = dn.reshape(bands, -1).astype(np.float64)
    centred -= np.array(rotation.means, np.float64)[:, None]
    return _rounded(rotation.matrix.astype(np.float64) @ centred).reshape(dn.shape)


def _rounded(exact: NDArray[np.float64]) -> NDArray[np.int32]:
    """Sums of products, in place: integers below 2^53, exact in any order of summation, of unit 2^-14."""
    exact += float(1 << (MATRIX_BITS - 1))
    exact *= 2.0**-MATRIX_BITS
    return np.floor(exact, out=exact).astype(np.int32)


def _eigenvectors(covariance: NDArray[np.float64]) -> list[list[float]]:
    """Rows are eigenvectors, strongest first, each with a positive sum."""
    a, v = covariance.copy(), np.eye(len(covariance))
    diagonalise(a, v)
    values, vectors = a.diagonal().tolist(), v.tolist()
    order = sorted(range(len(values)), key=lambda k: (-values[k], k))
    return [vectors[k] if _sum(vectors[k]) >= 0 else [-x for x in vectors[k]] for k in order]


def _sum(values: list[float]) -> float:
    """One after the other, as C adds them up; the builtin sum of later Pythons rounds otherwise."""
    total = 0.0
    for value in values:
        total += value
    return total


def diagonalise(a: NDArray[np.float64], v: NDArray[np.float64]) -> None:
    """Turns `a` [n, n] diagonal and the rows of `v` with it, both in place. Cyclic Jacobi (Golub & Van Loan, 8.5)."""
    rows, vectors = a.tolist(), v.tolist()
    for _ in range(JACOBI_SWEEPS):
        for p in range(len(rows) - 1):
            for q in range(p + 1, len(rows)):
                if abs(rows[p][q]) > 1e-14 * (abs(rows[p][p]) + abs(rows[q][q])):
                    _jacobi_step(rows, vectors, p, q)
    a[:], v[:] = rows, vectors


def _jacobi_step(a: list[list[float]], v: list[list[float]], p: int, q: int) -> None:
    theta = (a[q][q] - a[p][p]) / (2.0 * a[p][q])
    root = math.sqrt(theta * theta + 1.0) if abs(theta) < 1e150 else abs(theta)
    t = (1.0 if theta >= 0 else -1.0) / (abs(theta) + root)
    c = 1.0 / math.sqrt(t * t + 1.0)
    s = t * c
    for k in range(len(a)):
        a[k][p], a[k][q] = c * a[k][p] - s * a[k][q], s * a[k][p] + c * a[k][q]
    for k in range(len(a)):
        a[p][k], a[q][k] = c * a[p][k] - s * a[q][k], s * a[p][k] + c * a[q][k]
        v[p][k], v[q][k] = c * v[p][k] - s * v[q][k], s * v[p][k] + c * v[q][k]


@lru_cache(maxsize=1)
def circle() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """cos and sin of the 4096 angles, integers times 2^-30, exact in doubles."""
    angle = np.arange(ANGLES) * (2 * np.pi / ANGLES)
    cos, sin = (np.round(f(angle) * 2.0**30) * 2.0**-30 for f in (np.cos, np.sin))
    return cos, sin


def held_circle() -> Iterator[Held]:
    """What every rotation is made of."""
    for name, values in zip(("cosines", "sines"), circle(), strict=True):
        yield Held(f"rotation.{name}", "scales", values)


def forget_matrices() -> None:
    """Lets go of the matrices of earlier tiles: one that was hit would spoil every tile of the same angles."""
    _matrix.cache_clear()


def _turn(matrix: list[list[float]], p: int, q: int, cos: float, sin: float) -> None:
    """Columns p and q of a matrix become cos p + sin q and cos q - sin p."""
    for row in matrix:
        row[p], row[q] = cos * row[p] + sin * row[q], cos * row[q] - sin * row[p]


def _angles(vectors: list[list[float]]) -> tuple[int, ...]:
    """Givens angles whose product is the nearest rotation to `vectors` (last row's sign follows from the others)."""
    n = len(vectors)
    rest = [list(vector) for vector in vectors]
    cosines, sines = (table.item for table in circle())
    angles = []
    for p in range(n - 1):
        for q in range(p + 1, n):
            best = _angle(rest[p][p], rest[p][q])
            angles.append(best)
            _turn(rest, p, q, cosines(best), sines(best))
    return tuple(angles)


def _angle(c: float, s: float) -> int:
    """The angle that turns (c, s) onto the first axis best."""
    cosines, sines = (table.item for table in circle())
    near = round(math.atan2(s, c) * (ANGLES / (2 * math.pi))) % ANGLES
    best, reached = near, -math.inf
    for angle in ((near - 1) % ANGLES, near, (near + 1) % ANGLES):
        along = c * cosines(angle) + s * sines(angle)
        if along > reached:  # of two alike the first
            best, reached = angle, along
    return best


def _many_angles(vectors: NDArray[np.float64]) -> tuple[int, ...]:
    """As `_angles`, of the first rows [R, B] of a rotation."""
    rest, angles = vectors.T.copy(), []  # [B, R]
    cosines, sines = (table.item for table in circle())
    for p in range(rest.shape[1]):
        for q in range(p + 1, len(rest)):
            best = _angle(rest[p, p], rest[q, p])
            angles.append(best)
            _turn_rows(rest, p, q, cosines(best), sines(best))
    return tuple(angles)


def _turn_rows(matrix: NDArray[np.float64], p: int, q: int, cos: float, sin: float) -> None:
    """As `_turn`, on the rows of an array."""
    turned = cos * matrix[p] + sin * matrix[q]
    matrix[q] = cos * matrix[q] - sin * matrix[p]
    matrix[p] = turned


@lru_cache(maxsize=64)
def _matrix(angles: tuple[int, ...], bands: int) -> NDArray[np.int64]:
    if bands > FEW_BANDS:
        return _many_matrix(angles, bands)
    matrix = [[float(i == j) for j in range(bands)] for i in range(bands)]
    cosines, sines = (table.item for table in circle())
    pairs = [(p, q) for p in range(bands - 1) for q in range(p + 1, bands)]
    for (p, q), angle in zip(reversed(pairs), reversed(angles), strict=True):
        _turn(matrix, p, q, cosines(angle), -sines(angle))
    return np.round(np.array(matrix) * 2.0**MATRIX_BITS).astype(np.int64)


def _many_matrix(angles: tuple[int, ...], bands: int) -> NDArray[np.int64]:
    transposed = np.eye(bands)
    cosines, sines = (table.item for table in circle())
    pairs = [(p, q) for p in range(bands - 1) for q in range(p + 1, bands)][: len(angles)]
    for (p, q), angle in zip(reversed(pairs), reversed(angles), strict=True):
        _turn_rows(transposed, p, q, cosines(angle), -sines(angle))
    return np.round(transposed.T * 2.0**MATRIX_BITS).astype(np.int64)


def pack_rotation(rotation: Rotation) -> bytes:
    """Means and angles; of many bands, how many components lead stands before them."""
    angles = int("".join(f"{angle:0{ANGLE_BITS}b}" for angle in rotation.angles) or "0", 2)
    head = b"" if len(rotation.means) <= FEW_BANDS else bytes([rank_of(len(rotation.angles), len(rotation.means))])
    bits = ANGLE_BITS * len(rotation.angles)
    octets = b"".join(mean.to_bytes(2, "big") for mean in rotation.means)
    return head + octets + (angles << -bits % 8).to_bytes(-(-bits // 8), "big")


def turns_of(bands: int, rank: int | None = None) -> int:
    """Angles of the first `rank` rows, None: of all."""
    rows = bands - 1 if rank is None else min(rank, bands - 1)
    return rows * (bands - 1) - rows * (rows - 1) // 2


def rank_of(turns: int, bands: int) -> int:
    """How many components so many angles lead."""
    return next(rank for rank in range(bands) if turns_of(bands, rank) >= turns)


def rotation_octets(bands: int, rank: int | None = None) -> int:
    """Of a packed rotation. `rank`: leading components, of more than FEW_BANDS bands."""
    return (bands > FEW_BANDS) + 2 * bands - (-ANGLE_BITS * turns_of(bands, rank) // 8)


def unpack_rotation(octets: bytes, bands: int, shift: int) -> Rotation:
    """The rotation that `octets` are, exactly rotation_octets(bands, rank) long."""
    rank = None
    if bands > FEW_BANDS:
        rank, octets = octets[0], octets[1:]
    turns = turns_of(bands, rank)
    means = tuple(int.from_bytes(octets[2 * b : 2 * b + 2], "big") for b in range(bands))
    packed = int.from_bytes(octets[2 * bands :], "big") >> -ANGLE_BITS * turns % 8
    digits = f"{packed:0{ANGLE_BITS * turns}b}" if turns else ""
    angles = tuple(int(digits[ANGLE_BITS * k : ANGLE_BITS * (k + 1)], 2) for k in range(turns))
    return Rotation(means, angles, shift)
