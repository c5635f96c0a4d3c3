"""`sim verify`: what a received raster is still good for, beside its original; COPEX's figures and ours in one JSON."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray

from payload.errors import InputError
from payload.sensor import RGBN, sensor_of
from sim.clouds.ground_mask import GroundMask
from sim.metrics.catalogue import BY_KEY
from sim.metrics.distortion import spectral_angle_deg
from sim.metrics.radiometry import BandSums, ClassTally, Roles, Sharpness, indices, land_cover
from sim.progress import Progress
from sim.verify import copex
from sim.verify.models import Classifier, Lpips
from sim.verify.pair import Block, Pair

SCHEMA = "nadir-verify/1"
BINS_PER_UNIT = 10_000
CLOUD_CLASSES = (1, 2)  # of the ground's mask: thick and thin cloud
SHARPNESS = "mtf_ratio_half_nyquist", "mtf_ratio_nyquist"


@dataclass(frozen=True)
class VerifyRequest:
    """What the user asked for. `scale`: reflectance of one stored unit, where the file's own tag does not say it."""

    original: Path
    received: Path
    mask: Path | None = None
    model: Path | None = None
    lpips: Path | None = None
    maps: Path | None = None  # a folder for the error maps of NDVI and NDWI
    scale: float | None = None


class IndexErrors:
    """|error| of one index: sum and histogram; its 95th percentile is exact to 1e-4."""

    def __init__(self) -> None:
        self._sum, self._bins = 0.0, np.zeros(2 * BINS_PER_UNIT + 1, np.int64)

    def add(self, errors: NDArray[np.float64]) -> None:
        self._sum += float(errors.sum())
        self._bins += np.bincount(np.rint(errors * BINS_PER_UNIT).astype(np.int64), minlength=len(self._bins))

    def figures(self) -> dict[str, float]:
        n = int(self._bins.sum())
        if not n:
            return {"mae": math.nan, "p95": math.nan}
        return {"mae": self._sum / n, "p95": float(np.searchsorted(np.cumsum(self._bins), 0.95 * n)) / BINS_PER_UNIT}


def verify(request: VerifyRequest, ground: GroundMask | None, progress: Progress) -> dict[str, Any]:
    """COPEX's document with a section `nadir`. `ground`: the cloud mask to run over both; None for none."""
    with Pair(request.original, request.received, request.mask) as pair:
        found, lpips = copex.figures(pair), _lpips(pair, request.lpips)
        progress("COPEX", 2)
        ours = _ours(pair, request, ground)
        progress("figures", 2)
        document = copex.document(found, pair.bands, _sizes(request), lpips)
    return document | {"nadir": ours}


def _sizes(request: VerifyRequest) -> dict[str, Any]:
    a, b = request.original.stat().st_size, request.received.stat().st_size
    return {"original_size": a, "compressed_size": b, "compression_factor": a / b if b else None}


def _lpips(pair: Pair, weights: Path | None) -> list[float] | None:
    """Per band, mean over blocks of COPEX's size."""
    if weights is None:
        return None
    network = Lpips(weights)
    each: list[list[float]] = [[] for _ in pair.bands]
    for block in pair.blocks(copex.BLOCK_PX):
        for left in range(0, block.valid.shape[1], copex.BLOCK_PX):
            span = slice(left, left + copex.BLOCK_PX)
            for found, a, b in zip(each, block.original[:, :, span], block.received[:, :, span], strict=True):
                found.append(network.distance(a, b))
    return [float(np.mean(found)) for found in each]


def _ours(pair: Pair, request: VerifyRequest, ground: GroundMask | None) -> dict[str, Any]:
    """Over the pixels that count: those that both rasters hold and the mask lets through."""
    scale, roles = request.scale or pair.original.scales[0], Roles.of(sensor_of(pair.bands))
    if scale == 1.0 and np.dtype(pair.original.dtypes[0]).kind != "f":
        scale = 1e-4  # DN of reflectance, as everywhere here
    bands, sharpness, cover = BandSums(len(pair.bands)), Sharpness(len(pair.bands)), ClassTally()
    model = Classifier(request.model, len(pair.bands)) if request.model else None
    judged = ClassTally([str(k) for k in range(model.classes)]) if model else None
    errors, angle = {"ndvi": IndexErrors(), "ndwi": IndexErrors()}, 0.0
    clouds = ClassTally(("clear", "cloud")) if ground and set(RGBN) <= set(pair.bands) else None
    with _Maps(request.maps, pair) as maps:
        for block in pair.blocks(_rows(model, ground if clouds else None)):
            bands.add(block.original, block.received, block.valid)
            sharpness.add(block.original, block.received, block.valid, 2)
            angle += float(spectral_angle_deg(block.original, block.received)[block.valid].sum())
            if roles is not None:
                _themes(block, scale, roles, cover, errors, maps)
            if model is not None and judged is not None:
                _model(block, scale, model, judged)
            if ground is not None and clouds is not None:
                _clouds(block, scale, pair, ground, clouds)
    if not bands.pixels:
        raise InputError(f"{request.original} and {request.received}: no pixel counts in both; mend the mask")
    peak = 1.0 / scale if scale else 1.0
    figures: dict[str, Any] = {
        "schema": SCHEMA, "compared_px": bands.pixels, "reflectance_per_unit": scale,
        "bands": dict(zip(pair.bands, bands.figures(peak), strict=True)),
        "sam_deg": angle / bands.pixels, **sharpness.figures(),
    }  # fmt: skip
    if roles is not None:
        figures |= {f"{name}_error": found.figures() for name, found in errors.items()}
        figures["land_cover"] = _tally(cover, peak)
    if judged is not None:
        figures["model"] = {"file": request.model.name if request.model else "", **_tally(judged, peak)}
    if clouds is not None:
        figures["cloud_mask"] = {"iou": clouds.iou()["cloud"], **clouds.agreement()}
    return figures


def _tally(tally: ClassTally, peak: float) -> dict[str, Any]:
    """PSNR by class of the original, against reflectance 1."""
    return {**tally.agreement(), "iou": tally.iou(), "psnr_db": tally.psnr_db(peak), "pixels": tally.table.tolist()}


def _rows(model: Classifier | None, ground: GroundMask | None) -> int:
    """Rows of a block: a whole number of the squares that networks take."""
    sides = [s for s in (model.side_px if model else 0, ground.tile_px if ground else 0, 64) if s]
    return math.lcm(*sides)


def _themes(
    block: Block, scale: float, roles: Roles, cover: ClassTally, errors: dict[str, IndexErrors], maps: "_Maps"
) -> None:
    x, y = (scale * picture[:, block.valid].astype(np.float64) for picture in (block.original, block.received))
    squared = (((y - x) / scale) ** 2).sum(axis=0)
    cover.add(land_cover(x, roles), land_cover(y, roles), squared, len(x))
    for name, before, after in zip(("ndvi", "ndwi"), indices(x, roles), indices(y, roles), strict=True):
        errors[name].add(np.abs(after - before))
        maps.write(name, block, after - before)


def _squares(block: Block, side: int) -> Any:
    """(original, received, valid) of squares [B, T, T], filled with zeros where the raster ends."""
    height, width = block.valid.shape
    for top in range(0, height, side):
        for left in range(0, width, side):
            at = slice(top, top + side), slice(left, left + side)
            valid = block.valid[at[0], at[1]]
            margins = ((0, side - valid.shape[0]), (0, side - valid.shape[1]))
            pictures = (np.pad(p[:, at[0], at[1]], ((0, 0), *margins)) for p in (block.original, block.received))
            yield *pictures, np.pad(valid, margins)


def _model(block: Block, scale: float, model: Classifier, tally: ClassTally) -> None:
    for original, received, valid in _squares(block, model.side_px):
        if valid.any():
            before, after = (model.classify((scale * p).astype(np.float32))[valid] for p in (original, received))
            squared = ((received[:, valid].astype(np.float64) - original[:, valid]) ** 2).sum(axis=0)
            tally.add(before, after, squared, len(original))


def _clouds(block: Block, scale: float, pair: Pair, ground: GroundMask, tally: ClassTally) -> None:
    order = [pair.bands.index(band) for band in RGBN]
    for original, received, valid in _squares(block, ground.tile_px):
        if valid.any():
            dn = [np.clip(np.rint(1e4 * scale * p[order]), 0, 65_535).astype(np.uint16) for p in (original, received)]
            before, after = (np.isin(ground.judge(picture, valid, 0.0), CLOUD_CLASSES)[valid] for picture in dn)
            tally.add(before.astype(np.intp), after.astype(np.intp), np.zeros(len(before)), 1)


class _Maps:
    """ndvi_error.tif and ndwi_error.tif: received - original, float32, NaN where nothing is compared."""

    def __init__(self, folder: Path | None, pair: Pair) -> None:
        self._folder, self._pair = folder, pair
        self._files: dict[str, Any] = {}

    def write(self, name: str, block: Block, errors: NDArray[np.float64]) -> None:
        if self._folder is None:
            return
        plane = np.full(block.valid.shape, np.nan, np.float32)
        plane[block.valid] = errors
        height, width = block.valid.shape
        self._file(name).write(plane, 1, window=((block.row_px, block.row_px + height), (0, width)))

    def _file(self, name: str) -> Any:
        if name not in self._files:
            a = self._pair.original
            folder = Path(str(self._folder))
            folder.mkdir(parents=True, exist_ok=True)
            self._files[name] = rasterio.open(
                folder / f"{name}_error.tif", "w", driver="GTiff", height=a.height, width=a.width,
                count=1, dtype="float32", crs=a.crs, transform=a.transform, nodata=math.nan, compress="deflate",
                predictor=3, tiled=True,
            )  # fmt: skip
        return self._files[name]

    def __enter__(self) -> "_Maps":
        return self

    def __exit__(self, *details: object) -> None:
        for file in self._files.values():
            file.close()


def as_json(document: dict[str, Any]) -> str:
    """One line a value; what is not a number or infinite is null."""
    return json.dumps(_plain(document), indent=1) + "\n"


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def as_text(document: dict[str, Any]) -> str:
    """A table of bands, then what users of the picture would notice."""
    ours, metrics = document["nadir"], document["metrics"]
    lines = ["band        RMSE     PSNR, dB   SSIM      bias      gain   (COPEX conventions; bias in stored units)"]
    for band, own in ours["bands"].items():
        each = [metrics[name]["results"][band] for name in ("RMSE", "PSNR", "SSIM")]
        rmse, psnr, ssim = (float(value) for value in each)
        lines.append(f"{band:<8} {rmse:>9.3f} {psnr:>9.2f} {ssim:>9.5f} {own['bias']:>9.3f} {own['gain']:>8.4f}")
    themes = document["thematics"][copex.THEMATIC]["metrics"]
    shares = [themes[name]["results"]["all"] for name in ("overall_accuracy", "kappa_coefficient")]
    lines.append(f"{copex.THEMATIC}: overall accuracy {shares[0]:.4f}, kappa {shares[1]:.4f}")
    sharp = ", ".join(f"{BY_KEY[key].name} {_sharpness(ours[key])}" for key in SHARPNESS)
    lines.append(f"{BY_KEY['sam_deg'].name} {ours['sam_deg']:.3f} deg, {sharp}")
    for name in ("ndvi", "ndwi"):
        if f"{name}_error" in ours:
            error = ours[f"{name}_error"]
            lines.append(f"{name.upper()} error: mean {error['mae']:.4f}, 95th percentile {error['p95']:.4f}")
    for name, told in (("land_cover", "land cover (rule)"), ("model", "your classifier"), ("cloud_mask", "cloud mask")):
        if name in ours:
            lines.append(f"{told}: agreement {ours[name]['oa']:.4f}, kappa {ours[name]['kappa']:.4f}")
    return "\n".join(lines) + "\n"


def _sharpness(ratio: float) -> str:
    return f"{ratio:.3f}" if math.isfinite(ratio) else "not known (no whole window with detail)"
