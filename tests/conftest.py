"""What tests of several folders share: a made-up downlink for the report, and a whole codec that needs no training.

The downlink has plausible figures and every kind of tile; nothing in it was measured.
"""

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest

TILE_PX = 256
HEIGHT_PX, WIDTH_PX = 1500, 1284
ROWS, COLS = 6, 6


@pytest.fixture
def example_report() -> dict[str, Any]:
    tiles = _tiles()
    octets = sum(tile["octets"] for tile in tiles)
    counts = {
        k: sum(t["kind"] == k for t in tiles) for k in ("coded", "withheld", "empty", "fallback", "lost", "refused")
    }
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
        "tiles": {**counts, "total": len(tiles), "tile_px": TILE_PX, "rows": ROWS, "cols": COLS, "list": tiles},
        "link": {
            "packets_sent": 812,
            "packets_lost": 9,
            "packets_damaged": 2,
            "octets_sent": octets,
            "rate_bps": 10_000_000,
            "contact_s": 440.0,
            "loss_profile": [0.0] * 40 + [0.4, 1.0, 0.1] + [0.0] * 20 + [0.05] + [0.0] * 36,
        },
        "rate": {
            "octets": octets,
            "cr16": 21.4371,
            "cr_sensor": 16.0778,
            "bpp": 2.98549,
            "bpppb": 0.746372,
            "parts": [
                {"name": "latents, coarse", "octets": 301_224},
                {"name": "latents, residual", "octets": 240_130},
                {"name": "side information", "octets": 6_300},
                {"name": "packet headers, CRC", "octets": 9_120},
            ],
        },
        "quality": {
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
        "clouds": {"cloud_percent": 23.4, "withhold_above_percent": 70.0},
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
                    "octets": octets,
                    "cloud_percent": None
                    if kind in ("empty", "lost", "refused")
                    else round(float(random.uniform(0, 60)), 1),
                    "psnr_db": round(float(46 - octets / 9_000 + random.normal(0, 0.8)), 3) if pictured else None,
                    **({"cause": "layer 1 ends early"} if kind == "refused" else {}),
                }
            )
    return tiles


# A whole codec without training: a block DCT in the place of the learned transform, random integers as its context
# model. Every stage before and after the networks is the real one; numpy runs the networks.

TOY_TILE_PX = 64
TOY_LAYERS = 3


def random_counts(rng: np.random.Generator, symbols: int) -> np.ndarray:
    """Counts that sum to 2^24, none below 1."""
    counts = np.maximum(1, np.floor(rng.dirichlet(np.full(symbols, 0.7)) * (2**24 - symbols))).astype(np.int64)
    counts[counts.argmax()] += 2**24 - counts.sum()
    return counts


def random_tables(path: Path, bands: int = 4, layers: int = TOY_LAYERS, seed: int = 0) -> Path:
    """Entropy tables of small random integers, in the form that the workshop writes."""
    rng = np.random.default_rng(seed)
    channels, hidden = 64 * bands, 3
    order = np.argsort(np.tile(np.add.outer(np.arange(8), np.arange(8)).ravel(), bands), kind="stable")
    arrays: dict[str, np.ndarray] = {
        "order": order.astype(np.int16),
        "starts": np.array([0, bands, 10 * bands, 30 * bands], np.int16),
        "layers": np.array(layers, np.int8),
    }
    for k in range(layers):
        shapes = {
            "coarser": (hidden, channels if k else 0), "current": (hidden, channels), "hidden_bias": (4, hidden),
            "out": (channels, hidden), "own": (3, channels if k else 0), "base": (channels, 8, 8),
            "activity": (channels,), "hidden_activity": (hidden, bands),
        }  # fmt: skip
        arrays |= {f"{name}{k}": rng.integers(-9, 10, shape) for name, shape in shapes.items()}
        arrays[f"shifts{k}"] = np.array([4, 6], np.int16)
        for name, tables, symbols in (("significance", 32, 2), ("refinement", 3, 2), ("size", 8, 16)):
            arrays[f"{name}{k}"] = np.stack([random_counts(rng, symbols) for _ in range(tables)])
    np.savez_compressed(path, **arrays)  # type: ignore[arg-type]
    return path


def dct_basis() -> np.ndarray:
    """8 x 8 DCT-II, row k the k-th function. [64, 8, 8]"""
    k, m = np.arange(8)[:, None], np.arange(8)[None]
    line = np.cos(np.pi * (2 * m + 1) * k / 16) * np.where(k, 0.5, np.sqrt(1 / 8))
    return np.einsum("ar,bc->abrc", line, line).reshape(64, 8, 8)


class ToyTransform:
    """In the encoder's place: the DCT in the middle of each 16 x 16 window, integers in units of 2^-8."""

    def __init__(self) -> None:
        kernels = np.zeros((64, 16, 16))
        kernels[:, 4:12, 4:12] = np.rint(256 * dct_basis())
        self.kernels = kernels

    def run(self, *inputs: np.ndarray) -> list[np.ndarray]:
        planes = inputs[0].astype(np.float64)  # [2B, 64, n + 1, n + 1]
        n = planes.shape[2] - 1
        found = 0.0
        for i in range(2):
            for j in range(2):
                tap = self.kernels[:, 8 * i : 8 * i + 8, 8 * j : 8 * j + 8].reshape(64, 64)
                found = found + np.einsum("kc,bcyx->bkyx", tap, planes[:, :, i : i + n, j : j + n])
        return [(found / 256).astype(np.float32)]


class ToySynthesis:
    """In the decoder's place: the inverse DCT. Levels [1, 64 B, n, n] -> [1, B, 8 n, 8 n]."""

    def run(self, *inputs: np.ndarray) -> list[np.ndarray]:
        levels = inputs[0][0]
        bands, n = len(levels) // 64, levels.shape[1]
        blocks = np.einsum("krc,bkyx->byrxc", dct_basis(), levels.reshape(bands, 64, n, n))
        return [blocks.reshape(1, bands, 8 * n, 8 * n).astype(np.float32)]


class ToyClouds:
    """In the cloud network's place: a tile bright on the whole is thick cloud all over, another one is clear."""

    def run(self, *inputs: np.ndarray) -> list[np.ndarray]:
        planes = inputs[0][0]  # [2B, T, T]
        side = planes.shape[1] // 4
        logits = np.full((1, 16, side, side), -100, np.int8)
        winner = 4 if planes[: len(planes) // 2].mean() > 160 else 0  # four sub-cells a class; clear, thick, ...
        logits[:, winner : winner + 4] = 100
        return [logits]


class ToyEngine:
    name, version = "toy", "0"

    def load(self, path: Path, require_int8: bool = False) -> Any:
        return {"encoder": ToyTransform, "decoder": ToySynthesis, "clouds": ToyClouds}[path.stem]()


def write_bundle(directory: Path, files: dict[str, bytes], **changes: Any) -> Path:
    """A bundle of any files with a right manifest; `changes` go into the manifest."""
    for name, octets in files.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(octets)
    manifest = {
        "format_version": 1, "name": "toy", "bands": ["B02", "B03", "B04", "B08"], "tile_px": TOY_TILE_PX,
        "codec": {"kind": "fsq", "layers": TOY_LAYERS},
        "files": {name: sha256(octets).hexdigest() for name, octets in files.items()},
    }  # fmt: skip
    (directory / "manifest.json").write_text(json.dumps(manifest | changes))
    return directory


@pytest.fixture(scope="session")
def toy_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle without a cloud gate."""
    directory = tmp_path_factory.mktemp("toy")
    tables = random_tables(directory / "tables.npz").read_bytes()
    networks = {"flight/encoder.onnx": b"toy", "ground/decoder.onnx": b"toy"}
    return write_bundle(directory / "bundle", {"flight/tables.npz": tables, **networks})


@pytest.fixture(scope="session")
def toy_bundle_with_gate(toy_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with the toy cloud network."""
    names = ("flight/tables.npz", "flight/encoder.onnx", "ground/decoder.onnx")
    files = {name: (toy_bundle / name).read_bytes() for name in names} | {"flight/clouds.onnx": b"toy"}
    return write_bundle(tmp_path_factory.mktemp("gated") / "bundle", files, clouds={})


@pytest.fixture(scope="session")
def toy_engine() -> ToyEngine:
    return ToyEngine()


@pytest.fixture
def make_bundle() -> Any:
    return write_bundle


@pytest.fixture(scope="session")
def make_tables() -> Any:
    return random_tables


@pytest.fixture
def make_counts() -> Any:
    return random_counts
