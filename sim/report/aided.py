"""Table `aided` of the report: an archive-aided product beside the plain one, and where the archive was overruled."""

from collections.abc import Mapping
from typing import Any

from payload.scene import Scene
from sim.aided.product import Aided
from sim.onboard.cloud_strips import FlattenedPixels
from sim.report.comparison import judge_picture
from sim.spread import Spread


def aided_section(
    aided: Aided | None, scene: Scene, report: Mapping[str, Any], tile_px: int, spread: Spread | None = None,
    flattened: FlattenedPixels | None = None,
) -> dict[str, Any]:
    """Every figure of quality of both products, of all pixels and PSNR by tile; nothing where no archive was named."""
    if aided is None:
        return {}
    quality, tile_psnr = judge_picture(scene, aided.picture, tile_px, spread, flattened)
    figures: Mapping[str, float] = quality.figures() if tile_psnr else {}
    plain = {(tile["row"], tile["col"]): tile["psnr_db"] for tile in report["tiles"]["list"]}
    rows = [
        {key: row[key] for key in ("key", "name", "unit")} | {"plain": row["value"], "aided": figures.get(row["key"])}
        for row in report["quality"]["metrics"]
    ]
    tiles = [
        tile | {"plain_psnr_db": plain.get(at), "aided_psnr_db": tile_psnr.get(at)}
        for tile in aided.tiles for at in [(tile["row"], tile["col"])]
    ]  # fmt: skip
    return {"aided": aided.section() | {"metrics": rows, "list": tiles}}
