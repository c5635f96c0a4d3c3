"""The archive-aided product, beside the plain one: `aided.tif`, and `overruled.tif`, the map of where what was sent
overruled the archive; both name the dates they were made by."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from payload.scene import SceneInfo
from sim.aided.archive import Overlay
from sim.aided.decoder import AidedDecoder, Overruled
from sim.clouds.ground_mask import GroundMask
from sim.ground.decoder import Decoder
from sim.ground.mosaic import reconstruct
from sim.ground.reception import PICTURED, SceneReception
from sim.products.native import GridFile
from sim.products.origin import Origin
from sim.products.rasters import OVERRULED_NODATA, OverruledWriter, PictureWriter
from sim.progress import Progress, silent
from sim.spread import Spread

AIDED_FILE, OVERRULED_FILE = "aided.tif", "overruled.tif"
Overrulings = Mapping[tuple[int, int], Overruled]


@dataclass(frozen=True, eq=False)
class Aided:
    """The product on disk. `tiles`: those that a date refined, with what became of the dates there."""

    picture: GridFile
    change_map: Path
    overlay: Overlay
    tiles: tuple[dict[str, Any], ...]

    def section(self) -> dict[str, Any]:
        """Of a report."""
        used = sorted({date for tile in self.tiles for date in tile["dates"]})
        return {
            "basis": "measured", "product": self.picture.path.name, "change_map": self.change_map.name, "dates": used,
            "dates_over_the_scene": len(self.overlay.scenes), "tiles_refined": len(self.tiles),
            "overruled_percent": _mean(self.tiles, "overruled_percent"),
            "followed_percent": _mean(self.tiles, "followed_percent"),
            "notes": list(self.overlay.notes), "list": list(self.tiles),
        }  # fmt: skip


def aid(
    scene: SceneReception, decoder: Decoder, mask: GroundMask, overlay: Overlay | None, origin: Origin, folder: Path,
    progress: Progress = silent, spread: Spread | None = None,
) -> Aided | None:  # fmt: skip
    """The aided product in a scene's folder; None where there is no archive, or no tile to aid."""
    if overlay is None or not any(code.kind in PICTURED for code in scene.codes.values()):
        return None
    files = folder / AIDED_FILE, folder / OVERRULED_FILE
    return deliver_aided(scene, decoder, mask, overlay, origin, files, progress, spread)


def deliver_aided(
    scene: SceneReception, decoder: Decoder, mask: GroundMask, overlay: Overlay, origin: Origin,
    files: tuple[Path, Path], progress: Progress = silent, spread: Spread | None = None, blend: bool = True,
) -> Aided:  # fmt: skip
    """The scene decoded with older dates at hand, into the two files. The plain product is there already, and is not
    touched. `blend`: tile edges are evened out, as in the plain one."""
    aided, info = AidedDecoder(decoder, overlay, mask), overlay.info
    labelled = replace(origin, aided_by=overlay.names)
    tiles: list[dict[str, Any]] = []
    with (
        PictureWriter(files[0], info, labelled) as picture,
        OverruledWriter(files[1], info, labelled) as change_map,
    ):
        for strip in reconstruct(scene, aided, blend, spread):
            top, side = strip.row * aided.tile_px, aided.tile_px
            height = min(side, info.height_px - top)
            picture.write_strip(top, strip.dn[:, :height, : info.width_px], strip.known[:height, : info.width_px])
            here = {at: aided.overruled.pop(at) for at in sorted(aided.overruled) if at[0] == strip.row}
            change_map.write_strip(top, _strip(here, side, scene.grid[1])[:, :height, : info.width_px])
            tiles += [_row(at, found, info, side) for at, found in here.items()]
            progress("aided", scene.grid[0])
    return Aided(GridFile(files[0], tuple(range(decoder.bands)), 1), files[1], overlay, tuple(tiles))


def _strip(here: Overrulings, side: int, cols: int) -> NDArray[np.uint16]:
    found = np.full((2, side, cols * side), OVERRULED_NODATA, np.uint16)
    for (_, col), tile in here.items():
        found[:, :, col * side : (col + 1) * side] = tile.dn, tile.trust
    return found


def _row(at: tuple[int, int], found: Overruled, info: SceneInfo, side: int) -> dict[str, Any]:
    rows, cols = (min(side, size - side * n) for n, size in zip(at, (info.height_px, info.width_px), strict=True))
    inside = np.s_[:rows, :cols]
    rms = float(np.sqrt((found.dn[inside].astype(np.float64) ** 2).mean()))
    return {
        "row": at[0], "col": at[1], "dates": list(found.dates), "overruled_percent": 100 * found.share,
        "overruled_dn": rms, "followed_percent": float(found.trust[inside].mean()),
    }  # fmt: skip


def _mean(tiles: tuple[dict[str, Any], ...], key: str) -> float | None:
    return float(np.mean([tile[key] for tile in tiles])) if tiles else None
