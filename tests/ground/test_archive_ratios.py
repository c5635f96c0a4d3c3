"""`sim archive measure`: every figure of the catalogue, by ratio and decoder, and that they are the right ones."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_up_safe import all_bands
from typer.testing import CliRunner

import nadir
from payload.errors import InputError
from sim.archive import ratios, service
from sim.archive.coding import Quality
from sim.archive.store import Store
from sim.archive.writing import Order
from sim.commands.root import app
from sim.metrics.catalogue import REPORTED
from sim.progress import silent
from sim.scenes.demo import demo_scene

SIDE, CR = 300, 40.0
#: Of a scene of three resolutions.
SIDE_M = 1200


@pytest.fixture(scope="module")
def result() -> dict[str, Any]:
    return ratios.measure(ratios.Trial(f"demo:{SIDE}", (CR, 120.0), ("fast", "full")), silent)


def test_a_row_for_each_ratio_and_decoder_has_the_whole_catalogue(result: dict[str, Any]) -> None:
    rows = result["rows"]
    assert [(r["asked"], r["decoder"]) for r in rows] == [(CR, "fast"), (CR, "full"), (120.0, "fast"), (120.0, "full")]
    wanted = {metric.key for metric in REPORTED} - {"lpips"} | {"cloud_iou", "cloud_oa", "kmeans_fixed_oa"}
    assert all(wanted <= set(row) for row in rows)
    assert all(row["cr16"] >= row["asked"] for row in rows)
    assert set(ratios.SHOWN) <= set(rows[0]) and set(ratios.SHOWN) == set(result["conventions"])


def test_the_figures_are_those_of_the_file_that_is_kept(result: dict[str, Any], tmp_path: Path) -> None:
    entry = service.put(f"demo:{SIDE}", Store(str(tmp_path)), Order(Quality(CR)), silent)
    found = nadir.open(tmp_path / f"{entry.name}.nadir")[...].astype(np.int64)
    original, _ = demo_scene(SIDE, SIDE, 0).read(0, 0, SIDE, SIDE)
    rmse = np.sqrt(np.mean((found - original) ** 2)) / 1e4
    (row,) = [r for r in result["rows"] if (r["asked"], r["decoder"]) == (CR, "fast")]
    assert row["octets"] == entry.octets
    assert row["rmse_reflectance"] == pytest.approx(rmse, rel=1e-12)


def test_measure_prints_a_table_and_writes_all_figures_and_a_page(tmp_path: Path) -> None:
    arguments = ["archive", "measure", f"demo:{SIDE}", "--cr", "60", "--decoders", "fast", "--out", str(tmp_path)]
    said = CliRunner().invoke(app, arguments)
    assert said.exit_code == 0 and "k-means agreement, Cohen's kappa" in said.stdout
    (row,) = json.loads((tmp_path / "ratios.json").read_text())["rows"]
    assert f"{row['psnr_10k_db']:.2f}" in said.stdout and f"{row['psnr_10k_db']:.2f}" in (
        (tmp_path / "ratios.html").read_text()
    )


def test_bands_of_coarser_pixels_count_by_the_samples_that_were_measured(tmp_path: Path) -> None:
    """Pixels of 20 and 60 m stand repeated in memory; repeats are no data, and would double the ratio."""
    product, _ = all_bands(tmp_path, "L2A", side_m=SIDE_M, smooth=True)
    trial = ratios.Trial(str(product), (CR,), ("fast",), "edge-s2-native", "native")
    (row,) = ratios.measure(trial, silent)["rows"]
    measured = 2 * (4 + 6 / 2**2 + 2 / 6**2) * (SIDE_M // 10) ** 2
    assert row["cr16"] == pytest.approx(measured / row["octets"]) and row["cr16"] < 2 * CR
    entry = service.put(str(product), Store(str(tmp_path)), Order(Quality(CR), "edge-s2-native", "native"), silent)
    assert (entry.octets, entry.cr16) == (row["octets"], row["cr16"])


@pytest.mark.parametrize(("cr", "decoders"), [("20,x", "fast"), ("20", "quick"), ("0.5", "fast")])
def test_what_cannot_be_measured_is_refused(cr: str, decoders: str) -> None:
    with pytest.raises(InputError):
        ratios.measure(ratios.Trial("demo:128", ratios.numbers(cr), (decoders,)), silent)
