"""Tile -> the cloud network's input, u8 [P, T/c, T/c], and what the second witness sees. Integers throughout.

The planes are averages of c x c pixels (c = `cell_px`), twice: once on a fixed scale (square root of DN), so that
brightness keeps its meaning, and once stretched between the tile's own percentiles, so that the network carries to
sensors with another calibration, as OmniCloudMask does (Wright et al. 2025). With `detail` the first band follows once
more in cells of half the size, one plane for each quarter of a cell: small clouds and roofs differ in texture, and the
visible bands show the same texture. Nothing before the network can round
differently on another machine. payload/native/kernel.c holds the compiled twin for tiles whose pixels are all valid.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from payload.clouds import compiled
from payload.errors import InputError
from payload.native import library
from payload.scene import Dn, Mask

#: Places of the visible bands among those the network looks at (payload/clouds/network.py).
BLUE, GREEN, RED = range(3)
#: The tile's percentiles are read from every 2nd of the averages in every 2nd row.
SAMPLE_EVERY = 2
#: Planes of the detail: cells of half the size in one cell.
QUARTERS = 4
#: Edges of the cells a tile can be averaged over.
CELLS_PX = (2, 4)
#: The most that `growth_m` may be.
MOST_GROWTH_M = 200.0


@dataclass(frozen=True)
class CloudSettings:
    """The network's parameters, from manifest["clouds"].

    `cell_px`: pixels along one cell, of the input as of the mask. `detail`: the input has the first band's detail.
    `stride_px`: tiles are multiples of it.
    `logit_step`: value of one integer step of the logits; `temperature`: what they are divided by. `cloudy_above`:
    probability from which a pixel is cloud; `sure_above`: from which it counts when the tile may be withheld.
    `growth_m`: how far the mask that users read is grown, because people draw clouds with their soft edges.
    `low_permille`, `high_permille`: percentiles of the stretch; `least_span`: the least width of the stretch, in
    steps of the square root, so that noise of an even tile is not blown up.
    """

    cell_px: int = 2
    stride_px: int = 32
    detail: bool = False
    logit_step: float = 0.125
    temperature: float = 1.0
    cloudy_above: float = 0.5
    sure_above: float = 0.5
    growth_m: float = 0.0
    low_permille: int = 20
    high_permille: int = 980
    least_span: int = 24

    def __post_init__(self) -> None:
        if self.cell_px not in CELLS_PX or self.stride_px < 1 or self.stride_px % self.cell_px:
            found = f"cell_px is {self.cell_px}, stride_px {self.stride_px}"
            raise InputError(f"clouds.{found}; wanted 2 or 4 and a multiple of it")
        if self.detail and self.cell_px != 4:
            raise InputError(f"clouds.detail with cells of {self.cell_px} px, wanted cells of 4 px or no detail")
        for key in ("cloudy_above", "sure_above"):
            if not 0.0 < getattr(self, key) < 1.0:
                raise InputError(f"clouds.{key} is {getattr(self, key)}, wanted between 0 and 1")
        if not 0.0 <= self.growth_m <= MOST_GROWTH_M:
            raise InputError(f"clouds.growth_m is {self.growth_m}, wanted 0 to {MOST_GROWTH_M:g}")
        if not 0 <= self.low_permille < self.high_permille <= 1000:
            found = f"{self.low_permille} to {self.high_permille}"
            raise InputError(f"clouds: percentiles of {found} permille, wanted 0 <= low < high <= 1000")
        for key, low, high in (("logit_step", 1e-3, 1e3), ("temperature", 1e-3, 1e3), ("least_span", 1, 256)):
            if not low <= getattr(self, key) <= high:
                raise InputError(f"clouds.{key} is {getattr(self, key):g}, wanted {low:g} to {high:g}")


def plane_count(bands: int, settings: CloudSettings) -> int:
    """Planes of the network's input."""
    return 2 * bands + (QUARTERS if settings.detail else 0)


def input_planes(dn: Dn, valid: Mask, settings: CloudSettings) -> NDArray[np.uint8] | None:
    """The network's input, u8 [P, T/c, T/c]: averages on a square-root scale, the same stretched, the detail.

    None where every band shows one value: there is nothing to judge.
    """
    if library.available and valid.all():
        stretch = settings.low_permille, settings.high_permille, settings.least_span
        return compiled.cloud_planes(dn, settings.cell_px, settings.detail, *stretch)
    planes = planes_of(*averaged(dn, valid, settings.cell_px), settings)
    if planes is None or not settings.detail:
        return planes
    return np.concatenate([planes, detail_of(*averaged(dn[:1], valid, settings.cell_px // 2))])


def detail_of(sums: NDArray[np.uint32], seen: Mask | None) -> NDArray[np.uint8]:
    """Four times the averages of quarter cells [1, 2n, 2n] -> their roots, a plane for each quarter u8 [4, n, n]."""
    roots = np.empty(sums.shape, np.uint8)
    square_root(sums, roots)
    if seen is not None:
        roots *= seen
    n = sums.shape[1] // 2
    return np.ascontiguousarray(roots.reshape(n, 2, n, 2).transpose(1, 3, 0, 2)).reshape(QUARTERS, n, n)


def averaged(dn: Dn, valid: Mask, cell_px: int) -> tuple[NDArray[np.uint32], Mask | None]:
    """Four times the average of the valid pixels of a cell, rounded down, [B, T/c, T/c], and where there are any.

    None instead of a mask: every pixel is valid.
    """
    if valid.all():
        sums = cell_sums(dn, cell_px)
        return sums if cell_px == 2 else sums >> np.uint32(2 * cell_px.bit_length() - 4), None
    count = cell_sums(valid[None].astype(np.uint16), cell_px)[0]  # valid pixels of a cell
    sums = cell_sums(dn * valid, cell_px)
    sums[:, count > 0] = sums[:, count > 0] * 4 // count[count > 0]
    return sums, count > 0


def cell_sums(dn: Dn, cell_px: int) -> NDArray[np.uint32]:
    """Sums over cells of 2 x 2, 4 x 4 or 8 x 8 pixels. [B, T, T] -> [B, T/c, T/c]"""
    pairs = np.ascontiguousarray(dn).view(np.uint32)  # two neighbours in one word: [B, T, T/2]
    sums = (pairs & np.uint32(0xFFFF)) + (pairs >> np.uint32(16))
    sums = sums[:, 0::2] + sums[:, 1::2]
    for _ in range(cell_px.bit_length() - 2):
        sums = sums[:, 0::2] + sums[:, 1::2]
        sums = sums[:, :, 0::2] + sums[:, :, 1::2]
    return sums


def planes_of(sums: NDArray[np.uint32], seen: Mask | None, settings: CloudSettings) -> NDArray[np.uint8] | None:
    """Four times the averages [B, n, n] -> planes u8 [2B, n, n]. `seen` [n, n]: where data is; None: everywhere."""
    bands = sums.shape[0]
    planes = np.empty((2 * bands, *sums.shape[1:]), np.uint8)
    square_root(sums, planes[:bands])
    if seen is not None:
        planes[:bands] *= seen
    if _one_value(planes[:bands], seen):
        return None
    every = slice(None, None, SAMPLE_EVERY)
    sample = planes[:bands, every, every]
    sample = sample.reshape(bands, -1) if seen is None else sample[:, seen[every, every]]
    if sample.shape[1] == 0:  # a sliver of data between the samples
        sample = planes[:bands, seen]
    for band, table in enumerate(stretch_tables(sample, settings)):
        # bytes.translate is a look-up without numpy's detour over 64-bit indices.
        stretched = planes[band].tobytes().translate(table.tobytes())
        planes[bands + band] = np.frombuffer(stretched, np.uint8).reshape(planes.shape[1:])
    if seen is not None:
        planes[bands:] *= seen
    return planes


def square_root(sums: NDArray[np.uint32], out: NDArray[np.uint8]) -> None:
    """Four times an average -> u8: its integer root, 2 sqrt(DN), full scale at DN 16 256.

    Steps of 1 DN in the dark, 128 DN over bright cloud. Exact in f32 on every machine: a correctly rounded root of an
    integer below 2^18 never reaches the next integer.
    """
    root = sums.astype(np.float32)
    np.sqrt(root, out=root)
    np.minimum(root, np.float32(255.0), out=root)
    out[:] = root  # truncates


def _one_value(planes: NDArray[np.uint8], seen: Mask | None) -> bool:
    """Whether every band shows one value where there is data; also where there is none."""
    for plane in planes:
        shown = plane if seen is None else plane[seen]
        if shown.size and shown.min() < shown.max():
            return False
    return True


def stretch_tables(sample: NDArray[np.uint8], settings: CloudSettings) -> NDArray[np.uint8]:
    """Look-ups u8 -> u8 between each band's percentiles (32 and 224), integers throughout. [B, m] -> [B, 256]"""
    bands, size = sample.shape
    places = sample + 256 * np.arange(bands, dtype=np.uint16)[:, None]
    counts = np.cumsum(np.bincount(places.ravel(), minlength=256 * bands).reshape(bands, 256), axis=1) * 1000
    low = (counts <= settings.low_permille * size).sum(axis=1, keepdims=True)
    high = (counts < settings.high_permille * size).sum(axis=1, keepdims=True)
    span = np.maximum(high - low, settings.least_span)
    values = 128 + (2 * np.arange(256) - (low + high)) * 96 // span
    return np.clip(values, 0, 255).astype(np.uint8)


def witnessed(sums: NDArray[np.uint32]) -> Mask:
    """The second witness, on four times the averages [B, n, n], as integers: hazy and white, and no snow. [n, n]"""
    return hazy_and_white(sums) & ~steeper_in_blue(sums)


def hazy_and_white(sums: NDArray[np.uint32]) -> Mask:
    """Fmask's visible tests. [B, n, n] -> [n, n]

    Zhu and Woodcock 2012 (Remote Sensing of Environment 118, 83-94), equations 2 and 3, thresholds as published:
    blue - red / 2 - .08 > 0, and sum |band - mean| / mean < .7 over the visible bands. It takes snow for cloud and
    haze-free pale ground for clear: the reverse of what the network is in doubt about.
    """
    blue, green, red = sums[[BLUE, GREEN, RED]].astype(np.int32)  # 4 DN, so .08 is 3 200
    total = blue + green + red
    spread = np.abs(3 * blue - total) + np.abs(3 * green - total) + np.abs(3 * red - total)
    return (2 * blue - red > 6400) & (10 * spread < 7 * total)


def steeper_in_blue(sums: NDArray[np.uint32]) -> Mask:
    """Whether blue lies above the line through red and green by more than .16 of the mean. [B, n, n] -> [n, n]

    Cloud scatters all colours alike. Over snow under a low sun the air's own light is added, which rises steeply in the
    blue. .16 is the strictest value, in hundredths, that costs no cloudy tile of the sites that the shipped network
    learnt from (docs/clouds.md).
    """
    blue, green, red = sums[[BLUE, GREEN, RED]].astype(np.int32)
    return 75 * (blue - 2 * green + red) > 4 * (blue + green + red)


def hides_the_ground(sums: NDArray[np.uint32]) -> Mask:
    """The stricter witness, heard only where detail is given up: haze as before, and the colours of closed cloud.
    [B, n, n] -> [n, n]

    Blue at most .11 of the mean above the line through red and green, and sum |band - mean| / mean at most .30 over
    the visible bands: of cloud on the sites that the shipped network learnt from, 99 in 100 cells keep within each
    (docs/clouds.md). No snow was looked at for them. Whom it convinces, `witnessed` convinces, too.
    """
    blue, green, red = sums[[BLUE, GREEN, RED]].astype(np.int32)
    total = blue + green + red
    # The deviations from the mean add up to twice the larger one of those to either side.
    spread = 2 * np.maximum(3 * np.maximum(np.maximum(blue, green), red) - total,
                            total - 3 * np.minimum(np.minimum(blue, green), red))
    return (2 * blue - red > 6400) & (300 * (total - 3 * green) <= 11 * total) & (10 * spread <= 3 * total)
