"""`sim verify`: equal to the public COPEX library, and to closed forms where it has no figure."""

import json
import math
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import rasterio
from golden.copex import GOLDEN, pictures
from onnx import TensorProto, helper
from scipy import ndimage
from sklearn.metrics import cohen_kappa_score

from payload.errors import InputError
from payload.sensor import RGBN
from sim.metrics.radiometry import BandSums, ClassTally, Roles, Sharpness, kappa, land_cover
from sim.progress import silent
from sim.verify import copex
from sim.verify.pair import Pair
from sim.verify.verify import VerifyRequest, _rows, as_json, as_text, verify


def write(path: Path, picture: np.ndarray, names=RGBN, **more) -> Path:
    count, height, width = picture.shape
    place = {"crs": "EPSG:32631", "transform": rasterio.Affine(10, 0, 4e5, 0, -10, 5e6)} | more
    with rasterio.open(
        path, "w", driver="GTiff", count=count, height=height, width=width, dtype=picture.dtype, **place
    ) as file:
        file.write(picture)
        file.descriptions = names
    return path


@pytest.fixture
def pair(tmp_path) -> tuple[Path, Path]:
    original, received = pictures()
    return write(tmp_path / "a.tif", original), write(tmp_path / "b.tif", received)


def test_every_figure_is_the_copex_librarys_own_to_a_millionth(pair) -> None:
    golden = json.loads(GOLDEN.read_text())
    with Pair(*pair) as opened:
        found = copex.figures(opened)
    for name in ("rmse", "psnr_db", "ssim", "overall_accuracy", "kappa_coefficient"):
        assert found[name] == pytest.approx(golden[name], abs=1e-6, rel=0), name


def test_the_json_has_copexs_sections_and_ours(pair) -> None:
    document = json.loads(as_json(verify(VerifyRequest(*pair), None, silent)))
    assert {"original_size", "compressed_size", "compression_factor", "metrics", "thematics", "nadir"} == set(document)
    assert set(document["metrics"]) == {"RMSE", "PSNR", "SSIM"}
    psnr = document["metrics"]["PSNR"]
    assert list(psnr["results"]) == list(RGBN) and psnr["data range mode"] == "data_type"
    assert psnr["average"] == round(np.mean(list(psnr["results"].values())), 3)
    scores = document["thematics"]["kmeans++-10-10-42"]["metrics"]
    assert set(scores) == {"overall_accuracy", "kappa_coefficient"}
    ours = document["nadir"]
    assert ours["land_cover"]["iou"]["water"] > 0.99 and ours["land_cover"]["psnr_db"]["bright"] is None
    document = verify(VerifyRequest(*pair), None, silent)
    assert "kappa" in as_text(document)
    document["nadir"] |= {"mtf_ratio_half_nyquist": 0.5, "mtf_ratio_nyquist": math.nan}  # as of a mask full of holes
    assert "half Nyquist 0.500" in as_text(document) and "near Nyquist not known" in as_text(document)


def test_two_equal_rasters_agree_in_everything(pair) -> None:
    document = verify(VerifyRequest(pair[0], pair[0]), None, silent)
    assert document["metrics"]["PSNR"]["results"]["B02"] == "inf" and document["metrics"]["PSNR"]["average"] == "None"
    ours = document["nadir"]
    assert ours["sam_deg"] == pytest.approx(0, abs=1e-5) and ours["mtf_ratio_nyquist"] == pytest.approx(1)
    assert ours["bands"]["B08"] == pytest.approx(
        {"rmse": 0, "psnr_db": np.inf, "bias": 0, "gain": 1, "offset": 0}, abs=1e-6
    )


def test_bias_and_gain_are_those_that_were_put_in() -> None:
    x = np.random.default_rng(1).integers(0, 4000, (2, 50, 60)).astype(np.float64)
    sums = BandSums(2)
    for half in (slice(0, 20), slice(20, 50)):
        sums.add(x[:, half], np.stack([0.9 * x[0] + 37, x[1]])[:, half], np.ones((50, 60), bool)[half])
    first, second = sums.figures(1e4)
    assert (first["gain"], first["offset"]) == pytest.approx((0.9, 37))
    assert first["bias"] == pytest.approx((37 - 0.1 * x[0]).mean()) and second["psnr_db"] == np.inf


def test_the_mtf_ratio_of_a_blur_is_the_blurs_own_transfer() -> None:
    """The transfer of the sampled kernel is its impulse's transform; noise that is added does not change the ratio."""
    x = np.random.default_rng(2).normal(1000, 100, (1, 640, 640))
    sigma = 0.8
    blurred = ndimage.gaussian_filter(x, (0, sigma, sigma), truncate=8)
    noisy = blurred + np.random.default_rng(3).normal(0, 20, x.shape)
    impulse = np.zeros((64, 64))
    impulse[0, 0] = 1
    transfer = np.abs(np.fft.fft2(ndimage.gaussian_filter(impulse, sigma, truncate=8, mode="wrap")))
    frequency = np.hypot(*np.meshgrid(*[np.fft.fftfreq(64)] * 2))
    for received in (blurred, noisy):
        sharpness = Sharpness(1)
        sharpness.add(x, received, np.ones((640, 640), bool))
        for name, (low, high) in (("half_nyquist", (0.2, 0.3)), ("nyquist", (0.4, 0.5))):
            expected = transfer[(frequency >= low) & (frequency < high)].mean()
            assert sharpness.figures()[f"mtf_ratio_{name}"] == pytest.approx(expected, abs=0.01)


def test_kappa_is_scikit_learns() -> None:
    random = np.random.default_rng(4)
    a = random.integers(0, 5, 1000)
    b = np.where(random.random(1000) < 0.7, a, random.integers(0, 5, 1000))
    table = np.bincount(a * 5 + b, minlength=25).reshape(5, 5)
    assert kappa(table) == pytest.approx(cohen_kappa_score(a, b), abs=1e-12)
    assert np.isnan(kappa(np.zeros((5, 5), np.int64)))


def test_the_frozen_rule_names_water_plants_and_cloud_by_hand() -> None:
    spectra = np.array(
        [[0.05, 0.06, 0.04, 0.02], [0.03, 0.05, 0.04, 0.4], [0.5, 0.5, 0.5, 0.5], [0.1, 0.12, 0.15, 0.2]]
    )
    assert land_cover(spectra.T, Roles(1, 2, 3)).tolist() == [0, 1, 2, 3]


def test_psnr_by_class_and_overlap_are_those_of_its_pixels() -> None:
    tally = ClassTally(("a", "b", "c"))
    tally.add(np.array([0, 0, 1, 1]), np.array([0, 1, 1, 1]), np.array([4.0, 4.0, 100.0, 300.0]), 2)
    assert tally.psnr_db(100.0) == {
        "a": pytest.approx(10 * np.log10(1e4 / 2)), "b": pytest.approx(10 * np.log10(1e4 / 100)), "c": None
    }  # fmt: skip
    assert tally.iou() == {"a": 0.5, "b": pytest.approx(2 / 3), "c": None} and tally.agreement()["oa"] == 0.75


@pytest.mark.parametrize(("dtype", "peak"), [("float32", 1.0), ("uint8", 255.0), ("int16", 65_535.0)])
def test_the_peak_is_the_range_of_the_type_and_1_for_floating_point(tmp_path, dtype, peak) -> None:
    path = write(tmp_path / "a.tif", np.ones((4, 16, 16), dtype), photometric="MINISBLACK")
    with Pair(path, path) as opened:
        assert opened.peak == peak


@pytest.mark.parametrize(("model", "ground", "rows"), [(None, None, 64), (None, 256, 256), (48, 128, 384)])
def test_a_block_has_whole_squares_of_every_network_and_no_more(model, ground, rows) -> None:
    side, tile = model and SimpleNamespace(side_px=model), ground and SimpleNamespace(tile_px=ground)
    assert _rows(side, tile) == rows


def test_a_mask_decides_what_counts(pair, tmp_path) -> None:
    mask = np.zeros((1, *pictures()[0].shape[1:]), np.uint8)
    mask[0, :30, :100] = 1
    write(tmp_path / "m.tif", mask, ("mask",))
    ours = verify(VerifyRequest(*pair, mask=tmp_path / "m.tif"), None, silent)["nadir"]
    a, b = (picture[:, :30, :100].astype(float) for picture in pictures())
    assert ours["compared_px"] == 3000
    assert ours["bands"]["B03"]["bias"] == pytest.approx((b - a)[1].mean())


def test_error_maps_hold_the_difference_of_the_indices(pair, tmp_path) -> None:
    verify(VerifyRequest(*pair, maps=tmp_path / "maps"), None, silent)
    a, b = (picture.astype(float) for picture in pictures())
    expected = (b[3] - b[2]) / (b[3] + b[2]) - (a[3] - a[2]) / (a[3] + a[2])
    with rasterio.open(tmp_path / "maps" / "ndvi_error.tif") as file:
        assert np.allclose(file.read(1), expected, atol=1e-6) and file.crs.to_epsg() == 32631
    assert (tmp_path / "maps" / "ndwi_error.tif").is_file()


def threshold_model(path: Path) -> Path:
    """Two scores a pixel: 0, and NIR reflectance - 0.2."""
    pick = helper.make_tensor("pick", TensorProto.FLOAT, (2, 4, 1, 1), [0, 0, 0, 0, 0, 0, 0, 1])
    bias = helper.make_tensor("bias", TensorProto.FLOAT, (2,), [0, -0.2])
    node = helper.make_node("Conv", ["x", "pick", "bias"], ["y"])
    shape = [1, 4, "h", "w"]
    graph = helper.make_graph(
        [node], "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 2, "h", "w"])], [pick, bias],
    )  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return path


def test_a_classifier_of_ones_own_judges_both(pair, tmp_path) -> None:
    ours = verify(VerifyRequest(*pair, model=threshold_model(tmp_path / "m.onnx")), None, silent)["nadir"]
    a, b = (picture[3].astype(np.float32) * 1e-4 > 0.2 for picture in pictures())
    assert ours["model"]["oa"] == pytest.approx((a == b).mean(), abs=1e-6)
    assert ours["model"]["kappa"] == pytest.approx(cohen_kappa_score(a.ravel(), b.ravel()), abs=1e-6)


def distance_model(path: Path) -> Path:
    """Mean of |a - b|: stands for LPIPS, whose weights cannot be here."""
    shape = [1, 3, "h", "w"]
    nodes = [
        helper.make_node("Sub", ["a", "b"], ["d"]), helper.make_node("Abs", ["d"], ["e"]),
        helper.make_node("ReduceMean", ["e"], ["y"], keepdims=0),
    ]  # fmt: skip
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in "ab"]
    graph = helper.make_graph(nodes, "g", inputs, [helper.make_tensor_value_info("y", TensorProto.FLOAT, [])])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return path


def test_lpips_weights_see_both_pictures_stretched_as_copex_stretches_them(pair, tmp_path) -> None:
    document = verify(VerifyRequest(*pair, lpips=distance_model(tmp_path / "l.onnx")), None, silent)
    parts = [slice(0, 2500), slice(2500, None)]

    def stretched(v):
        return 2 * (v - v.min()) / (v.max() - v.min()) - 1

    a, b = (picture[1].astype(float) for picture in pictures())
    expected = np.mean([np.abs(stretched(a[:, p]) - stretched(b[:, p])).mean() for p in parts])
    assert document["metrics"]["LPIPS"]["results"]["B03"] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    ("other", "told"),
    [
        (lambda p: write(p, np.zeros((4, 10, 10), np.uint16)), "wanted one grid"),
        (lambda p: write(p, pictures()[1], transform=rasterio.Affine(10, 0, 0, 0, -10, 5e6)), "different places"),
        (lambda p: p.write_bytes(b"no raster") and p, "is none that can be read"),
        (lambda p: p, "not found"),
    ],
)
def test_rasters_that_cannot_be_compared_are_refused_in_a_line(pair, tmp_path, other, told) -> None:
    with pytest.raises(InputError, match=told):
        verify(VerifyRequest(pair[0], other(tmp_path / "c.tif")), None, silent)


def test_a_model_for_other_bands_is_refused(pair, tmp_path) -> None:
    five = np.zeros((5, 20, 20), np.uint16)
    where = write(tmp_path / "five.tif", five, ("a", "b", "c", "d", "e"))
    with pytest.raises(InputError, match="rasters of 5 bands"):
        verify(VerifyRequest(where, where, model=threshold_model(tmp_path / "m.onnx")), None, silent)


@pytest.mark.slow
def test_the_command_judges_clouds_in_both_and_writes_its_files(tmp_path) -> None:
    original, received = (picture[:, :, :300] for picture in pictures())
    a, b = write(tmp_path / "a.tif", original), write(tmp_path / "b.tif", received)
    command = [sys.executable, "-m", "sim.cli", "verify", "--original", str(a), "--received", str(b)]
    done = subprocess.run([*command, "--out", str(tmp_path / "out"), "--json"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert "iou" in document["nadir"]["cloud_mask"] and document == json.loads(
        (tmp_path / "out/verify.json").read_text()
    )
