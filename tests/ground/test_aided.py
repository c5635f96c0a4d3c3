"""Archive-aided decoding: what was sent stands, older dates help where they foretell it, and no change is hidden."""

from functools import cache, partial
from pathlib import Path

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.transform import Affine
from scipy.ndimage import gaussian_filter
from scipy.stats import truncnorm

from payload.bundle import load_bundle
from payload.codec.interface import Quality
from payload.codec.lapped.quantiser import Indices, quantise, step_units
from payload.codec.lapped.refined.cells import analysed, cells
from payload.codec.lapped.transform import Latents
from payload.codec.registry import open_codec
from payload.engine import open_engine
from payload.errors import InputError
from payload.stopwatch import Stopwatch
from payload.tiles import Tile
from sim.aided.archive import Archive, Seen
from sim.aided.decoder import Overruled, aided_tile
from sim.aided.refine import Sent, in_cells, refine
from sim.clouds.ground_mask import GroundMask, open_ground_mask
from sim.compare.kinds.dates import ALL, ONE, as_text, evaluate_aided
from sim.compare.tiles import read_tiles
from sim.ground.residual_network import open_network
from sim.metrics.distortion import psnr_db
from sim.metrics.pixels import ndvi
from sim.products.rasters import write_scene
from sim.progress import silent
from sim.scenes.demo import demo_scene

BUNDLE = load_bundle()
ENGINE = open_engine("openvino")
CODEC = open_codec(BUNDLE, ENGINE)
NETWORK = open_network(BUNDLE.file("ground/decoder.onnx"), ENGINE)
SENSOR, SIDE = BUNDLE.sensor, 256
EVERYWHERE = np.ones((SIDE, SIDE), bool)
SLOW = partial(pytest.param, marks=pytest.mark.slow)
FIELDS = Path("../shared/data/downstream/fields_two_dates_379x578.npz")


@cache
def demo(seed: int = 0) -> np.ndarray:
    return demo_scene(SIDE, SIDE, seed).read(0, 0, SIDE, SIDE)[0]


def another_season(dn: np.ndarray, seed: int = 1) -> np.ndarray:
    """The place at another date: every band brighter or darker, fields by up to a fifth, and the sensor's noise."""
    random = np.random.default_rng(seed)
    fields = gaussian_filter(random.normal(size=dn.shape), (0, 20, 20))
    gain = random.uniform(0.8, 1.25, (len(dn), 1, 1)) * (1 + 0.2 * fields / np.abs(fields).max())
    return np.clip(dn * gain + random.normal(scale=15, size=dn.shape), 0, 65535).astype(np.uint16)


def decoded(dn: np.ndarray, step_dn: float, keep: int | None = None):
    """What the ground makes of a tile plainly, and what it needs to aid it."""
    coded = CODEC.encode(Tile(0, 0, dn, EVERYWHERE), Quality(step_dn), Stopwatch())
    return CODEC.decode(coded.side, coded.layers[:keep])


def aided(dn: np.ndarray, dates: list[np.ndarray], step_dn: float = 500.0, clear: np.ndarray = EVERYWHERE):
    """(plain, aided, what was overruled) of a tile that older dates aid."""
    indices = decoded(dn, step_dn)
    plain = CODEC.reconstruct(indices, NETWORK)
    seen = [Seen(str(k), date, clear) for k, date in enumerate(dates)]
    return plain, *aided_tile(CODEC.refining(NETWORK), indices, plain, EVERYWHERE, seen)


def gain_db(dn: np.ndarray, dates: list[np.ndarray], **more) -> float:
    plain, better, _ = aided(dn, dates, **more)
    errors = [float(((dn.astype(float) - picture) ** 2).mean()) for picture in (plain, better)]
    return psnr_db(errors[1]) - psnr_db(errors[0])


# --- cells ------------------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 127), st.integers(0, 3), st.booleans(), st.integers(0, 2**32 - 1))
def test_whatever_lies_in_the_cells_has_the_indices_that_were_sent(index, missing, cut, seed):
    """Both ends of the cells, and something between, quantised again as the sender does."""
    random = np.random.default_rng(seed)
    spread = 2.0 ** random.uniform(0, 6) * step_units(index)
    values = np.clip(random.laplace(scale=spread, size=(1, 64, 8, 8)), -(2**30), 2**30).astype(np.int32)
    sent = quantise(Latents(values), index)
    behind = random.random(64) < 0.3 if cut else None
    shift = missing + (np.zeros(64, int) if behind is None else behind)[:, None, None]
    known = (sent.magnitude >> shift) << (shift - missing)
    low, high = cells(Indices(known, sent.negative, missing, behind))
    for share in (0.0, random.random(), 1.0):
        inside = np.rint((low + share * (high - low)).astype(np.float64) * (step_units(index) << missing))
        again = quantise(Latents(inside.astype(np.int64)), index)
        assert np.array_equal(again.magnitude >> shift, sent.magnitude >> shift)
        coded = (sent.magnitude >> shift) > 0
        assert np.array_equal(again.negative[coded], sent.negative[coded])


def test_every_aided_coefficient_lies_in_its_cell():
    indices = decoded(demo(), 200.0, keep=2)
    coefficients = CODEC.refining(NETWORK)
    low, high = coefficients.cells(indices)
    older = coefficients.of_picture(another_season(demo(1)), EVERYWHERE, indices)
    sent = Sent(low, high, coefficients.plain(indices))
    found = refine(sent, [older], np.ones(low.shape[2:], bool)).coefficients(sent, np.ones(low.shape[1:], np.float32))
    assert ((found >= low) & (found <= high)).all()
    (_, index), known = indices
    again = quantise(Latents(np.rint(found * float(step_units(index) << known.missing)).astype(np.int64)), index)
    assert np.array_equal(again.magnitude >> known.missing, known.magnitude)


def test_the_transform_in_floats_is_the_one_that_flies():
    """The encoder's own integers, of the same rotated bands, to a unit of its sums."""
    rotated = np.random.default_rng(0).integers(-3000, 3000, (4, SIDE, SIDE)).astype(np.int16)
    flown = CODEC._latents(rotated).values / 256.0
    assert np.abs(analysed(rotated.astype(np.float32), CODEC.refining(None).kernels) - flown).max() < 0.1


def test_the_picture_of_the_plain_coefficients_is_the_decoders_own():
    indices = decoded(demo(), 300.0)
    coefficients = CODEC.refining(NETWORK)
    picture = coefficients.picture(coefficients.plain(indices), indices).astype(int)
    off = np.abs(picture - CODEC.reconstruct(indices, NETWORK))
    assert off.max() <= 3 and off.mean() < 0.2  # what the network adds goes through a transform of 7 bits
    plainly = CODEC.refining(None)
    picture = plainly.picture(plainly.plain(indices), indices).astype(int)
    assert np.abs(picture - CODEC.reconstruct(indices, None)).max() <= 1


def test_a_network_in_its_runtime_gives_the_same_coefficients():
    indices, runtimes = decoded(demo(), 300.0), ENGINE.load(BUNDLE.file("ground/decoder.onnx"))
    found = [CODEC.refining(network).plain(indices) for network in (NETWORK, runtimes)]
    assert np.abs(found[0] - found[1]).max() < 0.02


@settings(max_examples=50, deadline=None)
@given(st.floats(-30, 30), st.floats(0.1, 10), st.floats(-30, 30), st.floats(0.2, 3))
def test_means_in_cells_are_those_of_the_truncated_normal(mean, spread, low, wide):
    expected, variance, likely = in_cells(np.array([mean]), spread, np.array([low]), np.array([low + wide]))
    assert low <= expected[0] <= low + wide
    begin, end = (low - mean) / spread, (low + wide - mean) / spread
    if min(abs(begin), abs(end)) < 4:
        known = truncnorm(begin, end, loc=mean, scale=spread)
        assert expected[0] == pytest.approx(known.mean(), abs=1e-4 * spread)
        assert variance[0] == pytest.approx(known.var(), abs=1e-4 * spread**2)
    assert likely[0] <= 1e-9


# --- what it is worth, and what a wrong archive costs -----------------------------------------------------------------


def test_another_date_of_the_place_makes_a_tile_better():
    assert gain_db(demo(), [another_season(demo())]) > 0.2


@pytest.mark.slow
def test_two_dates_are_better_than_one():
    """Each with haze-like noise of its own, which the weights of both average."""
    noise = np.random.default_rng(0).normal(scale=200, size=(2, *demo().shape))
    dates = [np.clip(another_season(demo()) + n, 0, 65535).astype(np.uint16) for n in noise]
    assert gain_db(demo(), dates) > gain_db(demo(), dates[:1]) + 0.2


def test_an_archive_of_another_place_costs_next_to_nothing():
    assert gain_db(demo(0), [demo(3)]) > -0.02


@pytest.mark.slow
def test_an_even_grey_costs_next_to_nothing():
    assert gain_db(demo(), [np.full_like(demo(), 1200)]) > -0.02


def test_a_date_under_clouds_that_no_mask_found_costs_next_to_nothing():
    cloud = gaussian_filter(np.random.default_rng(0).normal(size=(SIDE, SIDE)), 12)
    opacity = np.clip(cloud / cloud.std(), 0, 1)
    cloudy = (another_season(demo()) * (1 - opacity) + 7000 * opacity).astype(np.uint16)
    assert gain_db(demo(), [cloudy]) > -0.02


def test_pixels_that_a_date_does_not_show_are_left_to_the_decoder():
    older, seen = another_season(demo()), np.zeros_like(EVERYWHERE)
    seen[:, :128] = True
    older[:, ~seen] = 0
    plain, better, _ = aided(demo(), [older], clear=seen)
    errors = [((demo().astype(float) - p) ** 2).mean(axis=(0, 1)) for p in (plain, better)]
    assert errors[1][:120].mean() < 0.98 * errors[0][:120].mean()
    assert errors[1][136:] == pytest.approx(errors[0][136:], rel=5e-3)  # a DN here and there


def test_a_thick_cloud_that_the_ground_sees_is_not_shown(tmp_path):
    """Billows: a plane of one brightness is no cloud to the ground's network, nor to the one that it was made from."""
    noise = np.random.default_rng(0).normal(size=(SIDE, SIDE))
    billows = sum(gaussian_filter(noise, scale) * scale for scale in (2, 4, 8, 16))
    cloud = 8000 * (1 + 0.25 * billows / billows.std()).clip(0.2, 2.0)
    older = another_season(demo())
    older[:, :, 128:] = (cloud + older // 8)[:, :, 128:]
    as_raster(tmp_path / "older.tif", older)
    with Archive(tmp_path).over(INFO, BUNDLE) as overlay:
        (seen,) = overlay.tile(0, 0, SIDE, open_ground_mask(BUNDLE, ENGINE))
    assert seen.clear[:, :100].mean() > 0.9
    assert seen.clear[:, 150:].mean() < 0.1


# --- changes ----------------------------------------------------------------------------------------------------------


def changed(dn: np.ndarray, kind: str, size: int) -> tuple[np.ndarray, np.ndarray]:
    """A picture with a burned or flooded square, and where it is. Spectra after Sentinel-2 scenes of such ground."""
    where = np.zeros(dn.shape[1:], bool)
    where[96 : 96 + size, 80 : 80 + size] = True
    spectrum = np.array({"burned": [600, 700, 900, 1100], "flooded": [700, 800, 600, 300]}[kind])[:, None, None]
    texture = 1 + 0.25 * (dn / dn.mean(axis=(1, 2), keepdims=True) - 1)
    return np.where(where, spectrum * texture, dn).astype(np.uint16), where


@pytest.mark.parametrize("kind", ["burned", "flooded"])
@pytest.mark.parametrize(("size", "step_dn"), [(6, 200.0), SLOW(12, 500.0), SLOW(48, 1500.0)])
def test_a_change_that_was_coded_is_not_hidden(kind, size, step_dn):
    """The fall of NDVI is as right as the plain product has it, on average over the place and pixel by pixel; and the
    map of changes shows the place."""
    before = another_season(demo())
    now, where = changed(demo(), kind, size)
    plain, better, overruled = aided(now, [before], step_dn)
    truth, seen, shown = (ndvi(picture, SENSOR)[where] for picture in (now, plain, better))
    fall = ndvi(before, SENSOR)[where].mean() - truth.mean()
    assert abs(shown.mean() - truth.mean()) <= abs(seen.mean() - truth.mean()) + 0.002 * abs(fall)
    assert np.abs(shown - truth).mean() <= 1.01 * np.abs(seen - truth).mean()
    assert overruled.dn[where].mean() > 5 * overruled.dn[~where].mean()
    assert overruled.trust[where].mean() < 5 < 50 < overruled.trust[~where].mean()


@pytest.mark.slow
@pytest.mark.parametrize("step_dn", [250.0, 1500.0])
def test_harvested_fields_of_the_danube_are_not_hidden(step_dn):
    """Real dates of one place: where NDVI rose or fell by more than 0.3, the aided product is as right as the plain."""
    if not FIELDS.exists():
        pytest.skip("the shared data folder is not here")
    with np.load(FIELDS) as file:
        before, now = file["x"][:, [2, 1, 0, 3], :SIDE, :SIDE]
    plain, better, overruled = aided(now, [before], step_dn)
    moved = np.abs(ndvi(now, SENSOR) - ndvi(before, SENSOR)) > 0.3
    errors = [np.abs(ndvi(p, SENSOR) - ndvi(now, SENSOR)) for p in (plain, better)]
    assert moved.mean() > 0.05
    assert errors[1][moved].mean() <= 1.02 * errors[0][moved].mean()
    assert errors[1].mean() < errors[0].mean()
    assert overruled.dn[moved].mean() > overruled.dn[~moved].mean()


# --- archives ---------------------------------------------------------------------------------------------------------


def as_raster(path: Path, dn: np.ndarray, crs: str = "EPSG:32631", transform: Affine | None = None, **tags) -> Path:
    profile = {"driver": "GTiff", "count": len(dn), "height": dn.shape[1], "width": dn.shape[2], "dtype": "uint16"}
    place = {"crs": crs, "transform": transform or Affine(10, 0, 412_000, 0, -10, 5_012_000)}
    with rasterio.open(path, "w", **profile, **place) as file:
        file.write(dn)
        file.descriptions = ("B02", "B03", "B04", "B08")[: len(dn)]
        file.update_tags(**tags)
    return path


INFO = demo_scene(SIDE, SIDE, 0).info
NO_MASK = GroundMask(None, SIDE)


def shown(folder: Path) -> list[Seen]:
    with Archive(folder).over(INFO, BUNDLE) as overlay:
        return list(overlay.tile(0, 0, SIDE, NO_MASK))


def test_a_date_on_the_same_grid_is_read_as_it_is(tmp_path):
    older = another_season(demo())
    as_raster(tmp_path / "older.tif", older, ACQUISITIONDATETIME="2025-04-01T10:00:00Z")
    (seen,) = shown(tmp_path)
    assert np.array_equal(seen.dn, older)
    assert seen.name == "older (2025-04-01T10:00:00Z)"


def test_a_date_of_another_projection_and_grid_lies_where_it_belongs(tmp_path):
    """Degrees, finer pixels, a larger part of the ground: a smooth picture comes back to a few DN."""
    x, y = np.meshgrid(np.arange(SIDE) + 0.5, np.arange(SIDE) + 0.5)
    east, north = 412_000 + 10 * x, 5_012_000 - 10 * y

    def picture(east, north):
        wave = 2000 + 800 * np.sin((east - 412_000) / 300) * np.cos((north - 5_010_000) / 400)
        return np.stack([wave + 100 * band for band in range(4)])

    west, top, step = 1.86, 45.27, 8e-5
    lon, lat = np.meshgrid(west + step * (np.arange(1000) + 0.5), top - step * (np.arange(700) + 0.5))
    there = rasterio.warp.transform("EPSG:4326", "EPSG:32631", lon.ravel(), lat.ravel())
    degrees = picture(*(np.array(v).reshape(lon.shape) for v in there))
    as_raster(tmp_path / "d.tif", degrees.round().astype(np.uint16), "EPSG:4326", Affine(step, 0, west, 0, -step, top))
    (seen,) = shown(tmp_path)
    here = seen.clear
    assert here.mean() > 0.9
    assert np.abs(seen.dn.astype(float) - picture(east, north))[:, here].max() < 12


def test_no_data_of_a_date_is_not_shown(tmp_path):
    older = another_season(demo())
    older[:, 100:] = 0
    as_raster(tmp_path / "older.tif", older)
    (seen,) = shown(tmp_path)
    assert seen.clear[:96].all()
    assert not seen.clear[100:].any()


def test_a_file_that_cannot_be_used_is_named_and_left_out(tmp_path):
    as_raster(tmp_path / "a.tif", another_season(demo()))
    as_raster(tmp_path / "b.tif", demo()[:2])
    (tmp_path / "c.nadir.txt").write_text("no raster")
    with Archive(tmp_path).over(INFO, BUNDLE) as overlay:
        assert overlay.names == ("a",)
        (note,) = overlay.notes
    assert note.startswith("b.tif of the archive is left out:")


def nowhere(folder: Path) -> str:
    as_raster(folder / "far.tif", demo(), transform=Affine(10, 0, 600_000, 0, -10, 5_012_000))
    return "none of 1 scenes overlaps demo-256x256"


def other_bands(folder: Path) -> str:
    as_raster(folder / "two.tif", demo()[:2])
    return "no usable raster .* two.tif of the archive is left out"


def itself(folder: Path) -> str:
    write_scene(folder / "now.tif", demo_scene(SIDE, SIDE, 0))
    return "but the scene itself"


def nothing(folder: Path) -> str:
    return "no usable raster"


@pytest.mark.parametrize("made", [nowhere, other_bands, itself, nothing])
def test_an_archive_that_is_of_no_use_is_refused(tmp_path, made):
    message = made(tmp_path)
    with pytest.raises(InputError, match=message), Archive(tmp_path).over(INFO, BUNDLE):
        pass


def test_a_folder_that_is_not_there_and_a_bundle_without_coefficients_are_refused(tmp_path):
    with pytest.raises(InputError, match="is no folder"), Archive(tmp_path / "none").over(INFO, BUNDLE):
        pass
    corsa = load_bundle("corsa-fpn3-256")
    with pytest.raises(InputError, match="no coefficients"), Archive(tmp_path).over(INFO, corsa):
        pass


@pytest.mark.slow
def test_what_was_overruled_is_of_the_tile_and_names_its_dates():
    _, _, overruled = aided(demo(), [another_season(demo(), k) for k in range(5)])
    assert isinstance(overruled, Overruled)
    assert len(overruled.dates) == len(set(overruled.dates)) == 4  # those most like it
    assert overruled.dn.shape == overruled.trust.shape == (SIDE, SIDE)
    assert overruled.trust.max() <= 100


@pytest.mark.slow
def test_tiles_of_several_dates_are_told_by_their_names_and_aid_each_other(tmp_path):
    dates = [demo(), another_season(demo())]
    np.savez(tmp_path / "t.npz", x=np.stack(dates), bands=np.array(SENSOR.names), names=np.array(["a_b_1", "a_b_2"]))
    tiles = read_tiles([tmp_path / "t.npz"])
    rows = evaluate_aided(tiles, [60.0], BUNDLE, ENGINE, "fast", silent)
    assert [(row["tile"], row["archive"]) for row in rows] == [(t, w) for t in ("a_b_1", "a_b_2") for w in (ALL, ONE)]
    for row in rows:
        assert row["cr16"] == pytest.approx(60.0, rel=0.1)
        assert row["cr16"] >= 60
        assert row["aided"]["psnr_db"] > row["plain"]["psnr_db"] + 0.5
    assert len(as_text(rows).splitlines()) == 3
    with pytest.raises(InputError, match="no place has two dates"):
        evaluate_aided(tiles[:1], [60.0], BUNDLE, ENGINE, "fast", silent)
