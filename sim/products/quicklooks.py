"""Original, reconstruction, error and mask -> four PNGs of one size to lay over each other. Strips in, bounded memory.

Large scenes are reduced by whole steps, each picture element the mean of the known pixels under it.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from payload.scene import Dn, Mask, SceneInfo
from sim.products.band_facts import picture_bands
from sim.spread import Spread

F32 = NDArray[np.float32]
Rgb = NDArray[np.uint8]  # [h, w, 3]

MAX_PX = 1800
#: Share of the picture below and above the stretch.
STRETCH_PERCENT = (2.0, 98.0)
#: Cloud probability from which a pixel counts as cloud in the mask picture.
CLOUDY_PERCENT = 50
#: Tile kinds as the report names them; a coded tile stays untinted.
KIND_COLOURS: Mapping[str, tuple[int, int, int]] = {
    "withheld": (238, 240, 244),
    "omitted": (176, 148, 222),
    "lost": (224, 48, 40),
    "refused": (240, 144, 40),
    "empty": (24, 24, 28),
    "fallback": (42, 180, 150),
}
CLOUD_COLOUR = (70, 200, 230)
HOLE_COLOURS = ((38, 38, 44), (58, 58, 66))  # hatched


@dataclass(frozen=True, eq=False)
class Stretch:
    """DN shown as black and as white, one each for red, green, blue."""

    low: F32  # [3]
    high: F32  # [3]


@dataclass(frozen=True)
class Pictures:
    """The PNGs and the sentences to go with two of them. Pixels of the scene per picture element: `reduced_by`."""

    paths: dict[str, Path]
    reduced_by: int
    error_limit_dn: float

    @property
    def error_scale(self) -> str:
        reduced = f", averaged over {self.reduced_by} x {self.reduced_by} px" if self.reduced_by > 1 else ""
        return (
            f"Mean over the bands of |reconstruction - original|{reduced}: black 0, "
            f"brightest {self.error_limit_dn:.0f} DN (99th percentile) and above; hatched: not compared."
        )

    @property
    def mask_legend(self) -> str:
        return (
            f"Cyan: cloud probability of {CLOUDY_PERCENT} % or more. Tiles tinted white: withheld, violet: omitted, "
            "red: lost, orange: refused, green: fallback, dark: empty; without tint: coded."
        )


class Reducer:
    """Mean of known pixels over squares of `step` x `step`; strips of any height, in any order."""

    def __init__(self, channels: int, height_px: int, width_px: int, step: int) -> None:
        self._step = step
        shape = -(-height_px // step), -(-width_px // step)
        self._sum = np.zeros((channels, *shape), np.float32)
        self._count = np.zeros(shape, np.float32)

    def add(self, row_px: int, values: NDArray[Any], known: Mask) -> None:
        """values [C, h, W] and known bool [h, W] of rows row_px .. row_px + h - 1."""
        first, cuts = row_px // self._step, self._row_cuts(row_px, known.shape[0])
        rows = slice(first, first + len(cuts))
        self._count[rows] += self._squares(known.astype(np.float32), cuts)
        for total, plane in zip(self._sum, values, strict=True):
            total[rows] += self._squares(np.where(known, plane, 0).astype(np.float32), cuts)

    def mean(self) -> tuple[F32, Mask]:
        """Means float32 [C, h, w], 0 where nothing is known; known bool [h, w]. The last that is asked of it: the sums
        become the means in their place, as those of a large scene are 160 MiB."""
        self._sum /= np.maximum(self._count, 1)
        return self._sum, self._count > 0

    def _row_cuts(self, row_px: int, height: int) -> NDArray[np.intp]:
        to_next = self._step - row_px % self._step
        return np.concatenate([[0], np.arange(to_next, height, self._step)]).astype(np.intp)

    def _squares(self, plane: F32, cuts: NDArray[np.intp]) -> F32:
        if self._step == 1:
            return plane
        ends = [*cuts[1:], plane.shape[0]]
        lines = np.stack([plane[first:end].sum(axis=0) for first, end in zip(cuts, ends, strict=True)])
        sums = lines[:, :: self._step].copy()
        for offset in range(1, self._step):  # several times the speed of `reduceat` along a line
            part = lines[:, offset :: self._step]
            sums[:, : part.shape[1]] += part
        return sums


class Quicklooks:
    """Gathers the four pictures of one downlink while its strips pass by."""

    def __init__(self, info: SceneInfo, max_px: int = MAX_PX) -> None:
        self.step = max(1, math.ceil(max(info.height_px, info.width_px) / max_px))
        self._rgb = list(picture_bands(info.sensor))
        size = (info.height_px, info.width_px, self.step)
        self._original, self._reconstruction = Reducer(3, *size), Reducer(3, *size)
        self._error, self._cloud = Reducer(1, *size), Reducer(1, *size)

    def add(
        self,
        row_px: int,
        original: Dn,
        valid: Mask,
        reconstruction: Dn,
        known: Mask,
        cloud_percent: NDArray[np.uint8] | None = None,
    ) -> None:
        """A strip: dn uint16 [B, h, W], masks bool [h, W], cloud_percent uint8 [h, W] with 255 for none."""
        self._original.add(row_px, original[self._rgb], valid)
        self._reconstruction.add(row_px, reconstruction[self._rgb], known)
        error = np.zeros(valid.shape, np.float32)
        for band, other in zip(original, reconstruction, strict=True):
            error += np.maximum(band, other) - np.minimum(band, other)
        self._error.add(row_px, error[None] / len(original), valid & known)
        if cloud_percent is not None:
            self._cloud.add(row_px, cloud_percent[None], cloud_percent <= 100)

    def write(
        self, folder: Path, kinds: Sequence[Sequence[str]], tile_px: int, spread: Spread | None = None
    ) -> Pictures:
        """original.png, reconstruction.png, error.png, mask.png. `kinds` are the tiles' kinds by row and column."""
        original, valid = self._original.mean()
        reconstruction, known = self._reconstruction.mean()
        error, compared = self._error.mean()
        cloud, judged = self._cloud.mean()
        cloudy = judged & (cloud[0] >= CLOUDY_PERCENT)
        stretch = find_stretch(original, valid, cloudy)
        limit = float(np.percentile(error[0][compared], 99)) if compared.any() else 0.0
        first = true_colour(original, valid, stretch)
        pictures = {
            "original": first,
            "reconstruction": true_colour(reconstruction, known, stretch),
            "error": error_picture(error[0], compared, limit),
            "mask": mask_picture(first, cloudy, kinds, tile_px / self.step),
        }
        paths = (spread or Spread()).map(lambda name: write_png(folder / f"{name}.png", pictures[name]), pictures)
        return Pictures(dict(zip(pictures, paths, strict=True)), self.step, limit)


def find_stretch(mean: F32, valid: Mask, cloudy: Mask) -> Stretch:
    """2 to 98 per cent of the clear pixels (of all valid ones if a tenth or less is clear). mean float32 [3, h, w]."""
    clear = valid & ~cloudy
    chosen = clear if 10 * int(clear.sum()) > int(valid.sum()) else valid
    if not chosen.any():
        return Stretch(np.zeros(3, np.float32), np.ones(3, np.float32))
    low, high = np.percentile(mean[:, chosen], STRETCH_PERCENT, axis=1).astype(np.float32)
    return Stretch(low, np.maximum(high, low + 1))


def true_colour(mean: F32, known: Mask, stretch: Stretch) -> Rgb:
    """Stretched red, green, blue; holes hatched."""
    scaled = (mean - stretch.low[:, None, None]) / (stretch.high - stretch.low)[:, None, None]
    rgb = np.rint(255 * np.clip(scaled, 0, 1)).astype(np.uint8).transpose(1, 2, 0)
    return _hatch(np.ascontiguousarray(rgb), ~known)


def error_picture(error_dn: F32, compared: Mask, limit_dn: float) -> Rgb:
    """|error| in DN as shades of `inferno` (perceptually even), bright at `limit_dn` and above; holes hatched."""
    shade = np.clip(error_dn * np.float32(255 / max(limit_dn, 1e-6)), 0, 255).astype(np.uint8)
    return _hatch(_inferno()[shade], ~compared)


@cache
def _inferno() -> Rgb:
    """Its 256 colours [256, 3], from a file beside this one: matplotlib takes longer to import than a small picture to
    draw. It is matplotlib's own, to the public domain (CC0)."""
    with Image.open(Path(__file__).with_name("inferno.png")) as strip:
        return np.asarray(strip)[0]


def mask_picture(backdrop: Rgb, cloudy: Mask, kinds: Sequence[Sequence[str]], tile_px: float) -> Rgb:
    """The scene in grey, clouds tinted, tiles tinted by what became of them, borders drawn. tile_px: in the picture."""
    grey = backdrop.mean(axis=2, keepdims=True, dtype=np.float32) * np.float32(0.75) + np.float32(25)
    picture = np.repeat(grey, 3, axis=2)
    _tint(picture, cloudy, CLOUD_COLOUR, 0.45)
    rows = (np.arange(picture.shape[0]) / tile_px).astype(int)
    cols = (np.arange(picture.shape[1]) / tile_px).astype(int)
    tiles = np.ix_(np.minimum(rows, len(kinds) - 1), np.minimum(cols, len(kinds[0]) - 1))
    for kind, colour in KIND_COLOURS.items():
        _tint(picture, (np.array(kinds) == kind)[tiles], colour, 0.5)
    if tile_px >= 8:
        border = np.zeros(cloudy.shape, bool)
        border[np.flatnonzero(np.diff(rows)) + 1] = True
        border[:, np.flatnonzero(np.diff(cols)) + 1] = True
        _tint(picture, border, (255, 255, 255), 0.25)
    return np.rint(picture).astype(np.uint8)


def write_png(path: Path, rgb: Rgb) -> Path:
    """Whole or not at all."""
    half = path.with_name(f".{path.name}.part")
    try:
        Image.fromarray(rgb).save(half, format="PNG", optimize=False, compress_level=3)
        half.replace(path)
    finally:
        half.unlink(missing_ok=True)
    return path


def _tint(picture: F32, where: Mask, colour: tuple[int, int, int], strength: float) -> None:
    picture[where] += strength * (np.array(colour, np.float32) - picture[where])


def _hatch(rgb: Rgb, holes: Mask) -> Rgb:
    rows, cols = np.nonzero(holes)
    rgb[rows, cols] = np.array(HOLE_COLOURS, np.uint8)[((rows + cols) // 4) % 2]
    return rgb
