"""Builds copex.json: what the public COPEX library says of the pair of pictures below.

Run it where its wheel lies unpacked (it pins old versions of all it uses, so it is not installed):
    pip download --no-deps COPEX-high-rate-compression-quality-metrics==0.5.5 && unzip *.whl -d copex
    python tests/golden/copex.py copex
lpips and torch, which only its LPIPS needs, are put aside. Only tests/ground/test_verify_rasters.py reads the result.
"""

import json
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from types import ModuleType

import numpy as np

GOLDEN = Path(__file__).with_suffix(".json")
BLOCK_PX = 2500
ASIDE = ("lpips", "lpips.pretrained_networks", "torch", "torch._VF")
SHAPE = (4, 70, 2620)  # wider than a block


def pictures() -> tuple[np.ndarray, np.ndarray]:
    """Original and received, uint16 [4, h, w]: rolling ground, a lake, and an error that grows from band to band."""
    random = np.random.default_rng(15)
    y, x = np.mgrid[: SHAPE[1], : SHAPE[2]]
    relief = 1500 + 600 * np.sin(x / 37) * np.cos(y / 11) + 250 * np.sin((x + 2 * y) / 9)
    lake = (x > 900) & (x < 1300) & (y > 20)
    levels = np.array([0.5, 0.7, 0.8, 1.9])[:, None, None]
    original = np.where(lake, np.array([600, 500, 300, 120])[:, None, None], relief * levels)
    original = original + random.normal(0, 15, SHAPE)
    error = random.normal(0, 1, SHAPE) * np.array([10, 20, 30, 60])[:, None, None]
    return original.clip(0, 65535).astype(np.uint16), (original + error).clip(0, 65535).astype(np.uint16)


def set_aside(name: str) -> ModuleType:
    """A module that holds the names that the library imports and never calls here."""
    module = ModuleType(name)
    for held in ("LPIPS", "Tensor", "resnet", "saddmm"):
        setattr(module, held, type(held, (), {}))
    return module


def main(folder: str) -> None:
    sys.path.insert(0, folder)
    sys.modules.update({name: set_aside(name) for name in ASIDE})
    from COPEX_high_rate_compression_quality_metrics import metrics, thematic

    original, received = pictures()
    pairs = list(zip(original, received, strict=True))
    golden = {
        "made_with": {name: version(name) for name in ("scikit-image", "scikit-learn", "numpy")},
        "rmse": [float(metrics.calculate_rmse(a, b)) for a, b in pairs],
        "psnr_db": [float(metrics.calculate_psnr(a, b)) for a, b in pairs],
        "ssim": [float(metrics.calculate_ssim_multiband_with_blocks_of_even_size(a, b, BLOCK_PX)) for a, b in pairs],
    }
    with tempfile.TemporaryDirectory() as scratch:
        labels = [
            thematic.compute_kmeans_multiband(
                np.moveaxis(picture, 0, -1), "none", Path(scratch) / f"{number}.png", Path(scratch) / "centroid.csv"
            ).ravel()
            for number, picture in enumerate((original, received))
        ]
    golden["overall_accuracy"] = float(thematic.accuracy_score(*labels))
    golden["kappa_coefficient"] = float(thematic.cohen_kappa_score(*labels))
    GOLDEN.write_text(json.dumps(golden, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
