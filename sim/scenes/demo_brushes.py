"""What takes longest of drawing the generated scene: by the kernel where it was built, and here in numpy.

Both take the same operations in the same order, so that a scene has the same octets either way.
"""

import math
from collections.abc import Sequence
from ctypes import c_float

import numpy as np

from payload.native import library
from payload.native.library import NONE, call, span
from payload.scene import Dn
from sim.scenes.demo_noise import F32, U32, gaussian_like, hash_lattice, mixed_salt, unit

#: 4096 levels over reflectance 0 to 1.6384.
COUNT_DN = 4
#: Variance of the noise in DN^2 = read + shot x DN: a signal-to-noise ratio of 154 at DN 1300, as Sentinel-2's B02.
READ_VARIANCE, SHOT_VARIANCE = 12.0, 0.0456
#: Directions of the parishes' fields: cosines and sines of 16 angles over half a turn, rounded so that all libms agree.
TURNS = np.array(
    [[round(part(number * math.pi / 16), 6) for number in range(16)] for part in (math.cos, math.sin)], np.float32
)


def blend(paint: F32, colour: Sequence[float], weight: F32, shade: F32 | np.float32 | None = None) -> None:
    """paint [4, h, w] moves towards a colour by weight [h, w], the colour first multiplied by shade."""
    if not weight.any():
        return
    if library.available and not isinstance(shade, np.float32):
        _blend_by_kernel(paint, colour, weight, shade)
        return
    for band, reflectance in enumerate(colour):
        target = np.float32(reflectance) if shade is None else np.float32(reflectance) * shade
        paint[band] += weight * (target - paint[band])


def _blend_by_kernel(paint: F32, colour: Sequence[float], weight: F32, shade: F32 | None) -> None:
    shaded = NONE if shade is None else span(np.ascontiguousarray(shade), library.F32)
    colours = span(np.array(colour, np.float32), library.F32)
    given = span(np.ascontiguousarray(weight), library.F32), shaded, colours
    call("blend", *given, len(paint), weight.size, span(paint, library.F32))


def parcels(x: F32, y: F32, parish: U32, salt: int) -> tuple[U32, F32]:
    """Hash of the parcel of every place, uint32 [h, w], and the metres to its edge. x, y in metres."""
    if library.available:
        return _parcels_by_kernel(x, y, parish, salt)
    cos, sin = TURNS[:, (parish >> np.uint32(4)) & np.uint32(15)]
    u, v = x * cos + y * sin, y * cos - x * sin
    depth = np.float32(150) + np.float32(210) * unit(parish, 0)
    row = np.floor(u / depth)
    row_hash = hash_lattice(salt + 31, row.astype(np.int32), parish)
    width = np.float32(80) + np.float32(260) * unit(row_hash, 1)
    v = v + np.float32(300) * unit(row_hash, 0)
    col = np.floor(v / width)
    parcel = hash_lattice(salt + 32, col.astype(np.int32), row_hash)
    du, dv = (u / depth - row) * depth, (v / width - col) * width
    edge = np.minimum(np.minimum(du, depth - du), np.minimum(dv, width - dv) + np.float32(2))
    return parcel, edge


def _parcels_by_kernel(x: F32, y: F32, parish: U32, salt: int) -> tuple[U32, F32]:
    parcel, edge = np.empty(parish.shape, np.uint32), np.empty(parish.shape, np.float32)
    places = [span(np.ascontiguousarray(part), library.F32) for part in (x, y)]
    salts = span(np.array([mixed_salt(salt + 31), mixed_salt(salt + 32)], np.uint32), library.U32)
    given = *places, span(parish, library.U32), span(TURNS, library.F32), salts
    call("parcels", *given, parish.size, span(parcel, library.U32), span(edge, library.F32))
    return parcel, edge


def sense(radiance: F32, seed: int, row: int, col: int) -> Dn:
    """Shot and read noise, then 12 bit counts. radiance float32 [4, h, w] -> DN uint16, multiples of 4, never 0."""
    words = np.random.PCG64(np.random.SeedSequence((seed, row, col))).random_raw(radiance.size // 2)
    if library.available:
        return _sense_by_kernel(radiance, words)
    dn = radiance * np.float32(10_000)
    noise = gaussian_like(words).reshape(dn.shape)
    dn += noise * np.sqrt(np.float32(READ_VARIANCE) + np.float32(SHOT_VARIANCE) * dn)
    counts = np.clip(np.rint(dn * np.float32(1 / COUNT_DN)), np.float32(1), np.float32(4095))
    return counts.astype(np.uint16) * np.uint16(COUNT_DN)


def _sense_by_kernel(radiance: F32, words: np.ndarray) -> Dn:
    dn = np.empty(radiance.shape, np.uint16)
    given = span(np.ascontiguousarray(radiance), library.F32), span(words, library.U64)
    variances = c_float(READ_VARIANCE), c_float(SHOT_VARIANCE)
    call("sense", *given, *variances, radiance.size, span(dn, library.U16))
    return dn
