"""The original beside what was delivered: the only place on the ground side that opens the original.

strips of both -> figures of quality, PSNR by tile, and four pictures to lay over each other
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
import rasterio
from numpy.typing import NDArray

from payload.scene import Dn, Mask, Scene
from payload.tiles import grid
from sim.clouds.ground_mask import GroundMask, MaskTally
from sim.heap import give_back_free_pages
from sim.metrics.distortion import SceneQuality, psnr_db
from sim.onboard.cloud_strips import ONBOARD_CLOUD_FILE, CloudReader, FlattenedPixels
from sim.products.native import GridFile
from sim.products.quicklooks import Pictures, Quicklooks
from sim.progress import Progress
from sim.spread import Spread


@dataclass
class Comparison:
    """What the ground has of a scene, held against the original. `compared_px` are valid in both; figures of quality
    are of those whose detail was sent, `flattened_px` fewer."""

    figures: Callable[[], dict[str, float]]  # of quality, waits for them; of one pixel at least
    pictures: Pictures
    tile_psnr_db: dict[tuple[int, int], float]
    compared_px: int
    flattened_px: int = 0
    cloud_mask: dict[str, Any] = field(default_factory=dict)  # the ground's mask beside the payload's
    seconds: dict[str, float] = field(default_factory=dict)  # of the ground, by stage


class PictureReader:
    """Strips of a delivered picture on the original's grid, pixels of coarser files repeated. What the files do not
    cover, or where there is none, is unknown. Used as a context; never closed while another thread reads."""

    def __init__(self, files: Sequence[GridFile], bands: int, width_px: int) -> None:
        self._files = [(file, rasterio.open(file.path)) for file in files]
        self._shape, self._lock = (bands, width_px), threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *details: object) -> None:
        with self._lock:
            for _, raster in self._files:
                raster.close()

    def read(self, row_px: int, height_px: int) -> tuple[Dn, Mask]:
        """dn uint16 [B, h, W] and known bool [h, W]: that of the finest file."""
        bands, width_px = self._shape
        dn, known = np.zeros((bands, height_px, width_px), np.uint16), np.zeros((height_px, width_px), bool)
        for number, (file, raster) in enumerate(self._files):
            with self._lock:
                own = _window(raster, (row_px, height_px, width_px), file.times)
            if own is not None:
                picture, seen = own
                _, height, width = picture.shape
                dn[list(file.places), :height, :width] = picture
                if number == 0:
                    known[:height, :width] = seen
        return dn, known


def _window(raster: Any, place: tuple[int, int, int], times: int) -> tuple[Dn, Mask] | None:
    """Rows of a file, each of its pixels repeated `times`. place: first row, rows and columns of the finest grid. None
    where the file has ended."""
    row_px, height_px, width_px = place
    first, rows = row_px // times, -(-height_px // times)
    if first >= raster.height:
        return None
    window = (first, min(first + rows, raster.height)), (0, min(-(-width_px // times), raster.width))
    picture, known = raster.read(window=window), raster.dataset_mask(window=window) > 0
    if times > 1:
        picture, known = (x.repeat(times, axis=-2).repeat(times, axis=-1) for x in (picture, known))
    return picture[:, :height_px, :width_px], known[:height_px, :width_px]


def compare_with_original(
    scene: Scene, pictures: Sequence[GridFile], cloud: Path | None, mask: GroundMask, folder: Path,
    kinds: Sequence[Sequence[str]], progress: Progress, spread: Spread | None = None,
    flattened: FlattenedPixels | None = None,
) -> Comparison:  # fmt: skip
    """Strip by strip, its tiles spread over threads; the pictures are written to `folder`, where the mask that the
    payload judged by lies as well.

    `cloud`: the ground's own mask, compared with that one; None where nothing was delivered. `flattened`: cloud whose
    detail the gate gave up, which is in no figure of quality, as what it withheld is in none.
    """
    tile_px, tally, spread = mask.tile_px, MaskTally(mask), spread or Spread()
    info = scene.info
    quality, looks = SceneQuality(info.sensor), Quicklooks(info)
    tile_psnr: dict[tuple[int, int], float] = {}
    compared_px, flattened_px, (rows, cols) = 0, 0, grid(info, tile_px)
    give_back_free_pages()  # what decoding and packing left
    with (
        PictureReader(pictures, len(info.bands), info.width_px) as received,
        CloudReader(folder / ONBOARD_CLOUD_FILE, info.width_px) as clouds,
        CloudReader(cloud or folder / ONBOARD_CLOUD_FILE, info.width_px) as ground,
    ):
        for row, (original, valid, dn, known) in enumerate(_strips(scene, received, tile_px, spread)):
            top, height = row * tile_px, len(valid)
            onboard = clouds.read(top, height)
            spans = [slice(col * tile_px, (col + 1) * tile_px) for col in range(cols)]
            counted = known if flattened is None else known & ~flattened.strip(row, *known.shape)
            pieces = [(original[:, :, span], dn[:, :, span], counted[:, span]) for span in spans]
            seen = spread.few(lambda piece: (quality.look(*piece), _tile_psnr_db(*piece)), pieces)
            looks.add(top, original, valid, dn, known, onboard)
            if cloud is not None:
                tally.compare(ground.read(top, height), onboard, info.gsd_m)
            compared_px += int(known.sum())
            flattened_px += int(known.sum()) - int(counted.sum())
            for col, span in enumerate(spans):
                if kinds[row][col] == "withheld":
                    tally.withheld(original[:, :, span], valid[:, span], info.gsd_m)
            for col, (look, psnr) in enumerate(seen):
                quality.take(look)
                if psnr is not None:
                    tile_psnr[row, col] = psnr
            give_back_free_pages()
            progress("verification", rows)
    figures = spread.aside(quality.figures) if compared_px > flattened_px else dict
    shown = looks.write(folder, kinds, tile_px, spread)
    return Comparison(figures, shown, tile_psnr, compared_px, flattened_px, tally.summary())


def judge_picture(
    scene: Scene, picture: GridFile, tile_px: int, spread: Spread | None = None,
    flattened: FlattenedPixels | None = None,
) -> tuple[SceneQuality, dict[tuple[int, int], float]]:  # fmt: skip
    """The figures of another picture of the scene, and PSNR by tile, as `compare_with_original` counts them."""
    quality, spread = SceneQuality(scene.info.sensor), spread or Spread()
    tile_psnr: dict[tuple[int, int], float] = {}
    cols = grid(scene.info, tile_px)[1]
    with PictureReader([picture], len(scene.info.bands), scene.info.width_px) as received:
        for row, (original, _, dn, known) in enumerate(_strips(scene, received, tile_px, spread)):
            if flattened is not None:
                known &= ~flattened.strip(row, *known.shape)
            for col in range(cols):
                span = slice(col * tile_px, (col + 1) * tile_px)
                piece = original[:, :, span], dn[:, :, span], known[:, span]
                quality.add(*piece)
                psnr = _tile_psnr_db(*piece)
                if psnr is not None:
                    tile_psnr[row, col] = psnr
    return quality, tile_psnr


def _strips(
    scene: Scene, received: PictureReader, tile_px: int, spread: Spread
) -> Iterator[tuple[Dn, Mask, Dn, Mask]]:
    """The original and where it is valid, what was received and where both are known. Another thread reads what was
    received of the next strip meanwhile."""
    info = scene.info
    places = [(top, min(tile_px, info.height_px - top)) for top in range(0, info.height_px, tile_px)]
    following = spread.aside(partial(received.read, *places[0]))
    for place, behind in zip(places, [*places[1:], None], strict=True):
        dn, known = following()
        if behind is not None:
            following = spread.aside(partial(received.read, *behind))
        original, valid = scene.read(place[0], 0, place[1], info.width_px)
        yield original, valid, dn, known & valid


def _tile_psnr_db(original: Dn, dn: Dn, known: NDArray[np.bool_]) -> float | None:
    """None where nothing is known."""
    if not known.any():
        return None
    difference = original.astype(np.float32) - dn
    return psnr_db(float((difference**2).mean(axis=0, dtype=np.float64)[known].mean()))
