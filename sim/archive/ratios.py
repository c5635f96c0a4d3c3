"""`sim archive measure`: what a ratio costs. One scene archived at each, read back, and held against itself.

scene -> a .nadir file for each ratio -> read by each decoder -> every figure of the catalogue
"""

import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from payload.bundle import DEFAULT, Bundle, load_bundle
from payload.engine import open_engine
from payload.errors import InputError
from payload.scene import Dn, Mask, Scene
from payload.tiles import Tile, split
from sim.archive.coding import Quality
from sim.archive.reader import SceneFile
from sim.archive.writing import Order, write_file
from sim.clouds.ground_mask import GroundMask, open_ground_mask
from sim.design import page
from sim.ground.decoder import FAST, FULL, Decoder
from sim.metrics.catalogue import BY_KEY
from sim.metrics.distortion import SceneQuality, rate_figures
from sim.metrics.radiometry import ClassTally
from sim.onboard.sending import header_of
from sim.progress import Progress, in_parts
from sim.report.tables import attribution_of
from sim.scenes.open_scene import open_reading
from sim.scenes.radiometry import AS_STORED, Reading

SCHEMA = "nadir-archive-ratios/1"
RATIOS = (20.0, 50.0, 100.0, 150.0, 250.0)
CLOUDY = (1, 2)  # of the ground's classes: thick and thin cloud
#: Keys of a row besides those of the catalogue, and what they say.
CLOUD_FIGURES = {
    "cloud_iou": "overlap (IoU) of the bundle's cloud mask on what was read back with that on the original",
    "cloud_oa": "share of pixels that both masks call the same",
}
#: What a terminal and a page have room for, in this order.
SHOWN = (
    "cr16", "psnr_10k_db", "psnr_10k_worst_db", "psnr_65k_db", "rmse_reflectance", "ssim_10k", "ssim_own",
    "kmeans_oa", "kmeans_kappa", "kmeans_fixed_oa", "sam_deg", "ndvi_mae", "ndwi_mae", "cover_oa", "cover_kappa",
    "mtf_ratio_half_nyquist", "mtf_ratio_nyquist", "largest_bias_reflectance", "cloud_iou",
)  # fmt: skip


@dataclass(frozen=True)
class Trial:
    """What is asked: a scene, the ratios it is archived at, and the decoders that read it back."""

    scene: str
    ratios: tuple[float, ...] = RATIOS
    decoders: tuple[str, ...] = (FAST, FULL)
    bundle: str = DEFAULT
    engine: str = "openvino"
    reading: Reading = AS_STORED
    seed: int = 0


def numbers(text: str) -> tuple[float, ...]:
    """Ratios as a command line has them, with commas between."""
    try:
        return tuple(float(word) for word in text.split(","))
    except ValueError:
        raise InputError(f"--cr is {text[:80]!r}, wanted ratios with commas between, as in 20,50,100") from None


def measure(trial: Trial, progress: Progress) -> dict[str, Any]:
    """A row for each ratio and decoder: `asked`, `decoder`, `octets`, and figures by their key; None: not defined."""
    bundle = load_bundle(trial.bundle)
    mask = open_ground_mask(bundle, open_engine(trial.engine))
    for decoder in trial.decoders:
        Decoder(bundle, open_engine(trial.engine), decoder)  # one that the bundle lacks is refused now
    with open_reading(trial.reading, trial.scene, bundle.sensor, trial.seed) as scene:
        rows = list(_rows(scene, trial, bundle, mask, progress))
        info = scene.info
    return {
        "schema": SCHEMA, "scene": info.name, "height_px": info.height_px, "width_px": info.width_px,
        "bands": list(info.bands), "bundle": f"{bundle.bundle_id:08x}", "attribution": attribution_of(info),
        "conventions": {key: _convention(key) for key in SHOWN}, "rows": rows,
    }  # fmt: skip


def _rows(scene: Scene, trial: Trial, bundle: Bundle, mask: GroundMask, progress: Progress) -> Iterator[dict[str, Any]]:
    header, progress = header_of(scene, bundle), in_parts(progress, len(trial.ratios))
    for ratio in trial.ratios:
        with tempfile.TemporaryDirectory(prefix="nadir-archive-") as folder:
            path = Path(folder) / "scene.nadir"
            order = Order(Quality(ratio), trial.bundle, trial.engine, trial.decoders[0], seed=trial.seed)
            write_file(path, scene, header, bundle, order, progress)
            for decoder in trial.decoders:
                with SceneFile(str(path), trial.bundle, decoder, engine=trial.engine) as archived:
                    figures, octets = _figures(scene, archived, mask), path.stat().st_size
                    rate = _rate(scene, octets, archived.samples_per_px)
                yield {"asked": ratio, "decoder": decoder, "octets": octets, **_known(figures | rate)}


def _rate(scene: Scene, octets: int, samples_per_px: float) -> dict[str, float]:
    info = scene.info
    return rate_figures(octets, info.height_px * info.width_px, samples_per_px, info.bits)


def _figures(scene: Scene, archived: SceneFile, mask: GroundMask) -> dict[str, float]:
    """Over the pixels that both hold, tile by tile."""
    quality, clouds = SceneQuality(scene.info.sensor), ClassTally(("clear", "cloud"))
    judged = mask.net is not None
    for tile in split(scene, archived.tile_px):
        dn, valid = _read(archived, tile)
        quality.add(tile.dn, dn, valid & tile.valid)
        if judged and (valid & tile.valid).any():
            before, after = (_cloudy(mask, picture, valid & tile.valid, scene) for picture in (tile.dn, dn))
            clouds.add(before, after, np.zeros(len(before)), 1)
    found = quality.figures()
    iou, agreed = clouds.iou()["cloud"], clouds.agreement()
    return found | ({"cloud_iou": float("nan") if iou is None else iou, "cloud_oa": agreed["oa"]} if judged else {})


def _read(archived: SceneFile, tile: Tile) -> tuple[Dn, Mask]:
    """The archive's pixels of a tile [B, T, T] and which are known [T, T]; unknown beyond the scene's edge."""
    side, (_, height, width) = archived.tile_px, archived.shape
    top, left = tile.row * side, tile.col * side
    inside = min(side, height - top), min(side, width - left)
    dn, valid = archived.read(top, left, *inside)
    margins = (0, side - inside[0]), (0, side - inside[1])
    return np.pad(dn, ((0, 0), *margins)), np.pad(valid, margins)


def _cloudy(mask: GroundMask, dn: Dn, valid: Mask, scene: Scene) -> NDArray[np.intp]:
    return np.isin(mask.judge(dn, valid, scene.info.gsd_m), CLOUDY)[valid].astype(np.intp)


def _known(figures: dict[str, float]) -> dict[str, float | None]:
    return {key: float(value) if np.isfinite(value) else None for key, value in figures.items()}


def _convention(key: str) -> str:
    return CLOUD_FIGURES.get(key) or f"{BY_KEY[key].name}: {BY_KEY[key].convention}"


def write(result: dict[str, Any], out: Path) -> tuple[Path, Path]:
    """ratios.json, with all figures, and ratios.html."""
    out.mkdir(parents=True, exist_ok=True)
    data, shown = out / "ratios.json", out / "ratios.html"
    data.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    keys = ["asked", "decoder", *SHOWN]
    context = {"result": result, "keys": keys, "names": [_name(key) for key in keys],
               "rows": [[_told(row.get(key), key) for key in keys] for row in result["rows"]]}  # fmt: skip
    shown.write_text(page.render(page.TEMPLATES / "ratios.html", context), encoding="utf-8")
    return data, shown


def _name(key: str) -> str:
    return {"asked": "CR asked", "decoder": "decoder", "cloud_iou": "cloud mask IoU"}.get(key) or BY_KEY[key].name


def _told(value: Any, key: str) -> str:
    if value is None or isinstance(value, str):
        return value or "-"
    return f"{value:g}" if key == "asked" else f"{value:.{BY_KEY[key].decimals if key in BY_KEY else 3}f}"


def as_text(result: dict[str, Any]) -> str:
    """A line a figure, a column a row: more figures than a terminal is wide."""
    rows: Sequence[dict[str, Any]] = result["rows"]
    keys = ("asked", "decoder", *SHOWN)
    lines = [f"{_name(key):38}" + "".join(f"{_told(row.get(key), key):>10}" for row in rows) for key in keys]
    return "\n".join(lines) + "\n"
