"""A made-up downlink for the tests of the report: plausible figures, every kind of tile, nothing measured."""

import gc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest_plugins = ("toys", "chromium")

TILE_PX = 256
HEIGHT_PX, WIDTH_PX = 1500, 1284
ROWS, COLS = 6, 6
KINDS = ("coded", "withheld", "omitted", "empty", "fallback", "lost", "refused")


@pytest.fixture
def example_report() -> dict[str, Any]:
    tiles = _tiles()
    octets = sum(tile["octets_sent"] for tile in tiles)
    counts = {k: sum(t["kind"] == k for t in tiles) for k in KINDS}
    return {
        "inputs": {
            "scene": {
                "name": "made-up <scene>.tif",
                "height_px": HEIGHT_PX,
                "width_px": WIDTH_PX,
                "gsd_m": 10.0,
                "bits": 12,
                "bands": ["B02", "B03", "B04", "B08"],
                "sensed_at": "2019-05-22T18:49:31Z",
                "crs": "EPSG:32612",
            },
            "bundle": {"name": "edge", "id": "0x1f3a90c2", "quantiser": "fsq", "encoder_parameters": 56_832},
            "mission": {"name": "phisat2", "altitude_km": 510.0, "contact_s": 440.0},
            "seed": 7,
            "engine": {"name": "openvino", "version": "2026.4.1"},
        },
        "tiles": {
            "basis": "measured",
            **counts,
            "incomplete": 0,
            "total": len(tiles),
            "tile_px": TILE_PX,
            "rows": ROWS,
            "cols": COLS,
            "list": tiles,
        },
        "link": {
            "basis": "measured",
            "packets_sent": 812,
            "packets_lost": 9,
            "packets_damaged": 2,
            "octets_sent": octets,
            "rate_bps": 10_000_000,
            "contact_s": 440.0,
            "loss_profile": [0.0] * 40 + [0.4, 1.0, 0.1] + [0.0] * 20 + [0.05] + [0.0] * 36,
        },
        "rate": {
            "basis": "measured",
            "octets": octets,
            "cr16": 21.4371,
            "cr_sensor": 16.0778,
            "bpp": 2.98549,
            "bpppb": 0.746372,
        },
        "quality": {
            "basis": "measured",
            "metrics": [
                {
                    "name": "PSNR",
                    "value": 44.6123,
                    "unit": "dB",
                    "convention": "peak 10 000, pooled MSE of 4 bands, clear pixels",
                },
                {"name": "SSIM", "value": 0.98412, "unit": "", "convention": "gaussian window, per band, range 10 000"},
                {"name": "RMSE", "value": 0.00588, "unit": "reflectance", "convention": "pooled over bands"},
                {"name": "NDVI MAE", "value": 0.0141, "unit": "", "convention": "where NIR + red > 0"},
                {
                    "name": "LPIPS",
                    "value": None,
                    "unit": "",
                    "convention": "needs backbone weights that cannot be shipped",
                },
            ],
            "error_scale": "largest absolute error of the bands, 0 to 500 DN",
            "mask_legend": "white: cloud, grey: withheld, black: not received",
        },
        "clouds": {"basis": "measured", "cloud_percent": 23.4, "withhold_above_percent": 70.0},
        "budgets": [
            {
                "name": "downlinked volume",
                "used": octets * 8,
                "limit": 4_400_000_000,
                "unit": "bit",
                "basis": "measured",
            },
            {
                "name": "energy on board",
                "used": 41.5,
                "limit": 120.0,
                "unit": "J",
                "basis": "modelled",
                "source": "myriad2",
            },
            {"name": "peak memory", "used": 381.2, "limit": 512.0, "unit": "MiB", "basis": "measured on host"},
        ],
        "checks": [
            {
                "requirement": "PSNR of coded tiles",
                "measured": 44.6123,
                "limit": 41.0,
                "relation": ">=",
                "unit": "dB",
                "held": True,
                "basis": "measured",
            },
            {
                "requirement": "compression ratio, 16 bit",
                "measured": 21.4371,
                "limit": 20.0,
                "relation": ">=",
                "unit": "",
                "held": True,
                "basis": "measured",
            },
            {
                "requirement": "real-time factor",
                "measured": 1.31,
                "limit": 1.0,
                "relation": ">=",
                "unit": "",
                "held": True,
                "basis": "measured on host",
            },
            {
                "requirement": "energy on board",
                "measured": 41.5,
                "limit": 120.0,
                "relation": "<=",
                "unit": "J",
                "held": True,
                "basis": "modelled",
                "source": "device myriad2: 15 GMAC/s effective (assumed), 1.8 W (published)",
            },
        ],
        "conventions": [
            "Bits are every octet that is downlinked: headers, CRC, addresses.",
            "PSNR has peak 10 000 first.",
        ],
        "attribution": ["Contains modified Copernicus Sentinel data."],
        "measured_on_host": {
            "basis": "measured",
            "host": "2 cores, Python 3.11",
            "wall_s": 11.23456,
            "throughput_mpx_s": 4.71,
            "stages": [
                {"name": "read", "seconds": 0.31},
                {"name": "cloud gate", "seconds": 0.42, "median_ms": 11.2, "p95_ms": 14.9},
                {"name": "encoder", "seconds": 1.21, "median_ms": 33.0, "p95_ms": 36.1},
                {"name": "entropy coder", "seconds": 0.66, "median_ms": 18.4, "p95_ms": 29.9},
            ],
        },
    }


@pytest.fixture
def example_pictures(tmp_path: Path) -> dict[str, Path]:
    """Four quicklooks at half size: a textured picture, a smoothed copy, their difference, a mask."""
    from PIL import Image  # not at the top: tests/onboard runs where only the payload's dependencies are

    noise = np.random.default_rng(3).normal(0, 18, (HEIGHT_PX // 2, WIDTH_PX // 2, 3))
    y, x = np.mgrid[: HEIGHT_PX // 2, : WIDTH_PX // 2]
    waves = 110 + 50 * np.sin(x / 60) * np.cos(y / 90) + 25 * np.sin((x + y) / 23)
    smooth = np.stack([waves * 0.7, waves, waves * 0.8], axis=2)
    original = np.clip(smooth + noise, 0, 255).astype(np.uint8)
    reconstruction = np.clip(smooth, 0, 255).astype(np.uint8)
    error = np.abs(original.astype(int) - reconstruction).max(axis=2).astype(np.uint8) * 3
    mask = np.where(waves > 165, 255, 0).astype(np.uint8)
    pictures = {"original": original, "reconstruction": reconstruction, "error": error, "mask": mask}
    for name, picture in pictures.items():
        Image.fromarray(picture).save(tmp_path / f"{name}.png")
    return {name: tmp_path / f"{name}.png" for name in pictures}


def _tiles() -> list[dict[str, Any]]:
    random = np.random.default_rng(11)
    special = {
        (0, 3): "empty",
        (1, 1): "withheld",
        (1, 2): "withheld",
        (3, 4): "lost",
        (4, 2): "refused",
        (5, 5): "fallback",
    }
    tiles = []
    for row in range(ROWS):
        for col in range(COLS):
            kind = special.get((row, col), "coded")
            pictured = kind in ("coded", "fallback")
            octets = int(random.integers(9_000, 34_000)) if pictured else 14 if kind in ("withheld", "empty") else 0
            tiles.append(
                {
                    "row": row,
                    "col": col,
                    "kind": kind,
                    "octets_sent": octets,
                    "octets_received": octets,
                    "incomplete": False,
                    "cloud_percent": None
                    if kind in ("empty", "lost", "refused")
                    else round(float(random.uniform(0, 60)), 1),
                    "psnr_db": round(float(46 - octets / 9_000 + random.normal(0, 0.8)), 3) if pictured else None,
                    **({"cause": "layer 1 ends early"} if kind == "refused" else {}),
                }
            )
    return tiles


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish() -> None:
    """Event loops of the bench's tests are closed before the summary is written: their ends may be noisy."""
    gc.collect()
