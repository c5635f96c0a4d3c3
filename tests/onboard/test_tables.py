"""Tables that lie: every array of flight/tables.npz, and every number of the codec, is refused by name."""

import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest

from payload.bundle import load_bundle
from payload.clouds.network import load_cloud_net
from payload.codec.lapped.context_model import feature_count
from payload.codec.lapped.range_coder import ONE
from payload.codec.lapped.tables import load_kernels, load_tables
from payload.codec.lapped.transform import LATENT_BITS
from payload.codec.registry import open_codec
from payload.codec.rotation import PLANE_LIMIT
from payload.errors import BundleError, InputError

BANDS, LAYERS = 2, 3
CHANNELS = 64 * BANDS


@pytest.fixture
def arrays(make_tables, tmp_path) -> dict[str, np.ndarray]:
    return dict(np.load(make_tables(tmp_path / "good.npz", BANDS, LAYERS)))


def written(folder: Path, arrays: dict[str, np.ndarray | None]) -> Path:
    np.savez(folder / "t.npz", **{n: a for n, a in arrays.items() if a is not None})  # type: ignore[arg-type]
    return folder / "t.npz"


def with_value(array: np.ndarray, value: float) -> np.ndarray:
    found = array.astype(type(value))
    found.reshape(-1)[-1] = value
    return found


def refused(path: Path, words: str, bands: int | None = None) -> None:
    with pytest.raises(BundleError, match=words) as caught:
        load_tables(path, bands)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["order", "starts", "layers", "worth0", "position1", "size0", "runs2", "refinement1"])
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda a: None, "missing"),
        (lambda a: a.astype(np.float64), "wanted whole numbers"),
        (lambda a: a.astype(bool), "not readable as an .npz of numbers"),
        (lambda a: a[None], "wanted whole numbers"),
        (lambda a: np.zeros((0, *a.shape), np.int16), "wanted whole numbers"),
        (lambda a: with_value(a, -(2**40)), "from -1099511627776 to|1.09951e"),
        (lambda a: with_value(a, 2**40), "from .* to 1099511627776|1.09951e"),
    ],
    ids=["missing", "floats", "flags", "an axis more", "nothing", "far below", "far above"],
)
def test_every_array_is_refused_by_name(arrays, tmp_path, name, change, words) -> None:
    said = words if "npz" in words else f"{name} is.*({words})"
    refused(written(tmp_path, arrays | {name: change(arrays[name])}), said)


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("starts", lambda a: np.array([0, -4, 20, 60]), "starts is from -4 to 60"),
        ("starts", lambda a: np.array([2, 4, 20, 60]), "ranks that rise from 0"),
        ("starts", lambda a: np.array([0, 20, 20, 60]), "ranks that rise from 0"),
        ("starts", lambda a: np.array([0, CHANNELS]), f"starts is from 0 to {CHANNELS}"),
        ("order", lambda a: np.zeros_like(a), "every channel of 1 to 16 bands of 64 once"),
        ("order", lambda a: a[:100], "every channel of 1 to 16 bands of 64 once"),
        ("mix0", lambda a: a[:-1], rf"mix0 is int64 \[{feature_count(BANDS) - 1}\]"),
        ("mix1", lambda a: a + 100, "mix1 is from"),  # the kernel multiplies in 8 bits
        ("weight2", lambda a: a * 40, "weight2 is from"),
        ("gain0", lambda a: a * 40, "gain0 is from"),
        ("floor0", lambda a: a * 0, "floor0 is from 0 to 0"),
        ("position0", lambda a: a[:1], r"position0 is int64 \[1, 8, 8\]"),
        ("size0", lambda a: a[:, :2], r"size0 is int64 \[8, 2\]"),  # was a division by zero
        ("size0", lambda a: np.full_like(a, ONE), f"rows of counts that sum to {ONE}"),
        ("refinement0", lambda a: np.array([[ONE, 0]] * 3), "refinement0 is from 0"),
        ("runs0", lambda a: np.tile([ONE // 2, 0, ONE // 2], (32, 1)), "zeros behind them"),
        ("runs0", lambda a: np.tile([ONE // 4] * 4, (32, 1)), "1, 2, 4, ... 64 symbols"),  # runs of 3: no power of two
        ("runs0", lambda a: np.tile([ONE], (32, 1)), "1, 2, 4, ... 64 symbols"),
        ("runs1", lambda a: np.full((32, 128), ONE // 128), "1, 2, 4, ... 64 symbols"),
        ("runs1", lambda a: a[:31], r"runs1 is int64 \[31"),
        ("worth2", lambda a: a[:31], r"worth2 is int64 \[31\]"),
        ("layers", lambda a: np.array(0), "layers is from 0 to 0"),
        ("layers", lambda a: np.array(17), "layers is from 17 to 17"),
        ("layers", lambda a: np.array(LAYERS + 1), f"weight{LAYERS} is missing"),
    ],
)
def test_what_would_lead_the_kernel_astray_is_refused(arrays, tmp_path, name, change, words) -> None:
    refused(written(tmp_path, arrays | {name: change(arrays[name])}), words)


def test_tables_for_other_bands_are_refused(arrays, tmp_path) -> None:
    refused(written(tmp_path, arrays), r"order is int16 \[128\], wanted whole numbers \[256\]", bands=4)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"exponents": np.full(64, 20)}, "exponents is from 20 to 20"),
        ({"exponents": np.full(64, -3)}, "exponents is from -3"),
        ({"exponents": np.zeros(64, int)}, "sums that fit 32 bits"),
        ({"exponents": None}, "exponents is missing"),
        ({"kernels": np.ones((64, 16, 8), np.int8)}, r"kernels is int8 \[64, 16, 8\]"),
        ({"kernels": np.full((64, 16, 16), np.nan)}, "kernels is float64"),
        ({"kernels": np.arange(64 * 256).reshape(64, 16, 16) % 7}, "even or odd"),
    ],
)
def test_kernels_that_cannot_be_folded_are_refused(toy_kernels, tmp_path, change, words) -> None:
    good = {"kernels": toy_kernels, "exponents": np.full(64, 8)}
    assert load_kernels(written(tmp_path, good)) is not None
    with pytest.raises(BundleError, match=words):
        load_kernels(written(tmp_path, good | change))


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity", "1e308", "0.0", "-1", '"0.8"', "null", "[0.8]"])
@pytest.mark.parametrize("key", ["compand", "coarsest_step_dn", "layers"])
def test_numbers_of_the_codec_are_refused(toy_bundle, tmp_path, key, text) -> None:
    path = Path(shutil.copytree(toy_bundle, tmp_path / "bundle")) / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["codec"][key] = "HERE"
    path.write_text(json.dumps(manifest).replace('"HERE"', text))
    with pytest.raises(BundleError) as caught:
        open_codec(load_bundle(path.parent))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ['"4"', "null", "true", "[2]", "{}", "1e308", "-1", "0.5", "0", "1" * 400, "1e-300"])
@pytest.mark.parametrize("key", ["cell_px", "stride_px", "logit_step", "temperature", "least_span", "low_permille"])
def test_numbers_of_the_cloud_gate_are_refused_or_of_use(toy_bundle_with_gate, toy_engine, tmp_path, key, text) -> None:
    path = Path(shutil.copytree(toy_bundle_with_gate, tmp_path / "bundle")) / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["clouds"][key] = "HERE"
    path.write_text(json.dumps(manifest).replace('"HERE"', text))
    try:
        net = load_cloud_net(load_bundle(path.parent), toy_engine)
    except InputError as error:
        assert "\n" not in str(error) and len(str(error)) < 400
        return
    assert np.isfinite(net.exponentials).all() and net.exponentials[0] > 0


def test_an_archive_that_unpacks_to_more_than_a_bound_is_refused(tmp_path) -> None:
    with zipfile.ZipFile(tmp_path / "t.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("order.npy", bytes(1 << 27))
    refused(tmp_path / "t.npz", "octets unpacked")


def test_an_array_that_says_it_is_longer_than_its_octets_is_refused(tmp_path) -> None:
    np.save(tmp_path / "order.npy", np.zeros(64, np.int16))
    octets = (tmp_path / "order.npy").read_bytes().replace(b"(64,)", b"(64, 1000000000000)")
    with zipfile.ZipFile(tmp_path / "t.npz", "w") as archive:
        archive.writestr("order.npy", octets)
    refused(tmp_path / "t.npz", "not readable as an .npz of numbers")


def test_sums_of_a_function_may_reach_32_bits_and_no_further(toy_kernels, tmp_path) -> None:
    """Sum of the magnitudes, times the largest value of a plane, at the function's exponent; the mean's stays small."""
    most = int(np.abs(toy_kernels[1:].astype(int)).sum(axis=(1, 2)).max())
    told = {}
    for exponent in range(LATENT_BITS + 1):
        exponents = np.full(64, exponent)
        exponents[0] = LATENT_BITS
        path = written(tmp_path, {"kernels": toy_kernels, "exponents": exponents})
        try:
            told[exponent] = load_kernels(path) is not None
        except BundleError as error:
            assert "sums that fit 32 bits" in str(error)
            told[exponent] = False
    fits = {e: most * (PLANE_LIMIT + 1) * 2 ** (LATENT_BITS - e) < 2**31 for e in told}
    assert told == fits and set(fits.values()) == {True, False}
