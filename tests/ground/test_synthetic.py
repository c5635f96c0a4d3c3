"""The generated scene: the same for every reader and machine, and with the statistics of a real one."""

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from payload.errors import InputError
from payload.native import library
from payload.sensor import RGBN
from sim.scenes.demo import BLOCK_PX, KEPT_BLOCKS, SyntheticScene, demo_scene
from sim.scenes.demo_brushes import blend, parcels, sense
from sim.scenes.demo_noise import Jittered, Octaves, Span, field, gaussian_like, hash_lattice, smoothstep

SIZE = 1280
#: sha256 of the DN, little endian, of demo_scene(512, 512, seed=3).
GOLDEN_512_SEED_3 = "30f012f501c9f306c7f43feeb13e65124072f43786686665bd598eb0a7115abb"


@pytest.fixture(scope="module")
def demo() -> SyntheticScene:
    return demo_scene(SIZE, SIZE)


@pytest.fixture(scope="module")
def whole(demo: SyntheticScene) -> np.ndarray:
    return demo.read(0, 0, SIZE, SIZE)[0]


@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_any_window_equals_that_part_of_the_whole(whole: np.ndarray, data: st.DataObject) -> None:
    row, col = data.draw(st.integers(0, SIZE - 1)), data.draw(st.integers(0, SIZE - 1))
    height, width = data.draw(st.integers(1, min(300, SIZE - row))), data.draw(st.integers(1, min(300, SIZE - col)))
    dn, valid = demo_scene(SIZE, SIZE).read(row, col, height, width)  # a fresh one: nothing kept from the whole
    assert (dn == whole[:, row : row + height, col : col + width]).all() and valid.all()


@settings(max_examples=40, deadline=None)
@given(
    row=st.integers(-3000, 3000), col=st.integers(-3000, 3000), height=st.integers(1, 70), width=st.integers(1, 70),
    amplitudes=st.lists(st.floats(0, 2), min_size=1, max_size=8),
)  # fmt: skip
def test_noise_does_not_depend_on_the_window(
    row: int, col: int, height: int, width: int, amplitudes: list[float]
) -> None:
    octaves = Octaves(7, tuple(amplitudes))
    grown = field(octaves, Span(row, col, height, width).grown(37))
    assert (field(octaves, Span(row, col, height, width)) == grown[37 : 37 + height, 37 : 37 + width]).all()


@pytest.mark.skipif(not library.available, reason="the kernel was not built: no C compiler at install")
@settings(max_examples=30, deadline=None)
@given(data=st.data(), amplitudes=st.lists(st.sampled_from([0.0, 0.3, 1.7]), min_size=1, max_size=9))
def test_the_kernel_draws_the_very_floats_of_numpy(data: st.DataObject, amplitudes: list[float]) -> None:
    place, side = st.integers(-5000, 5000), st.integers(1, 50)
    span, octaves = Span(*(data.draw(s) for s in (place, place, side, side))), Octaves(11, tuple(amplitudes))
    grid = Jittered(*np.random.default_rng(0).random((2, 9, 9), np.float32), (0, 0), 1 / 700)
    grid.east[:] += np.arange(9)
    grid.south[:] += np.arange(9)[:, None]

    def drawn() -> list[np.ndarray]:
        noise = field(octaves, span)
        x, y = (1000 + 4000 * smoothstep(part, -2.0, 2.0) for part in (noise, noise[::-1]))
        return [noise, x, grid.nearest(x, y)]

    fast = drawn()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(library, "available", False)
        plain = drawn()
    assert all(np.array_equal(a, b) for a, b in zip(fast, plain, strict=True))


@pytest.mark.skipif(not library.available, reason="the kernel was not built: no C compiler at install")
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), side=st.integers(1, 40), shaded=st.booleans())
def test_the_kernel_paints_the_very_floats_of_numpy(seed: int, side: int, shaded: bool) -> None:
    random = np.random.default_rng(seed)
    x, y = random.normal(0, 9e4, (2, side, side)).astype(np.float32)
    weight, shade = random.normal(0, 1, (2, side, side)).astype(np.float32)
    parish = random.integers(0, 2**32, (side, side), np.uint32)
    paint = random.random((4, side, 2 * side), np.float32)

    def painted() -> list[np.ndarray]:
        canvas = paint[:, :, :side].copy()
        blend(canvas, (0.1, 0.2, 0.3, 0.4), weight, shade if shaded else None)
        return [canvas, *parcels(x, y, parish, 5), sense(paint, 3, 1, 2), sense(paint * np.float32(0), 3, 1, 2)]

    fast = painted()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(library, "available", False)
        plain = painted()
    assert all(np.array_equal(a, b) for a, b in zip(fast, plain, strict=True))


def test_noise_has_the_deviation_it_promises() -> None:
    values = field(Octaves(3, (0, 0, 0, 0.7)), Span(0, 0, 1600, 1600))
    assert values.std() == pytest.approx(0.7, rel=0.04) and abs(values.mean()) < 0.02
    sums = gaussian_like(np.random.PCG64(1).random_raw(200_000))
    assert len(sums) == 400_000 and sums.std() == pytest.approx(1, abs=0.01) and abs(sums.mean()) < 0.01
    assert np.corrcoef(sums[:-1], sums[1:])[0, 1] == pytest.approx(0, abs=0.01)


def test_hash_spreads_every_bit() -> None:
    hashed = hash_lattice(5, np.arange(-150, 150)[:, None], np.arange(-150, 150)[None, :])
    assert len(np.unique(hashed)) > 0.9999 * hashed.size
    ones = [((hashed >> np.uint32(bit)) & np.uint32(1)).mean() for bit in range(32)]
    assert min(ones) > 0.49 and max(ones) < 0.51


def test_it_says_of_itself_that_real_scenes_are_harder(demo: SyntheticScene) -> None:
    assert demo.info.notes == ("generated scene, easier to code than real ones: some 4 dB more at CR 50",)


def test_seeds_and_sizes_give_other_scenes(whole: np.ndarray) -> None:
    again = demo_scene(SIZE, SIZE, seed=0).read(256, 512, 256, 256)[0]
    other = demo_scene(SIZE, SIZE, seed=1).read(256, 512, 256, 256)[0]
    assert (again == whole[:, 256:512, 512:768]).all() and (again != other).mean() > 0.9


def test_same_octets_on_every_machine() -> None:
    """Only correctly rounded arithmetic is used. A change of the scene on purpose changes this digest on purpose."""
    dn, _ = demo_scene(512, 512, seed=3).read(0, 0, 512, 512)
    digest = hashlib.sha256(dn.astype("<u2").tobytes()).hexdigest()
    assert digest == GOLDEN_512_SEED_3


def test_info_places_the_scene(demo: SyntheticScene) -> None:
    info = demo.info
    assert (info.bands, info.bits, info.nodata, info.gsd_m) == (RGBN, 12, 0, 10.0)
    assert info.crs_wkt is not None and "UTM zone 31N" in info.crs_wkt
    assert info.transform is not None and info.transform[0] == -info.transform[4] == 10.0


def test_twelve_bits(whole: np.ndarray) -> None:
    assert whole.dtype == np.uint16 and not (whole % 4).any()
    assert whole.min() >= 4 and whole.max() <= 4 * 4095


def test_some_tiles_are_overcast_and_most_are_clear(demo: SyntheticScene) -> None:
    for scene in (demo, demo_scene(1024, 1024, seed=1)):
        tiles = scene.info.height_px // 256
        cloud = scene.truth(0, 0, 256 * tiles, 256 * tiles).cloud.reshape(tiles, 256, tiles, 256).mean(axis=(1, 3))
        assert 1 <= (cloud > 0.7).sum() <= 0.3 * tiles * tiles
        assert np.median(cloud) < 0.2


def test_reflectances_are_those_of_land_water_and_cloud(demo: SyntheticScene, whole: np.ndarray) -> None:
    truth = demo.truth(0, 0, SIZE, SIZE)
    blue, green, red, nir = whole.astype(float)
    land = ~truth.cloud & ~truth.shadow & ~truth.water
    ndvi = (nir - red) / (nir + red)
    assert 0.35 < ndvi[land].mean() < 0.8 and (ndvi[land] > 0.5).mean() > 0.4
    assert ndvi[truth.water & ~truth.cloud].mean() < 0
    assert nir[truth.water & ~truth.cloud].mean() < 300
    assert blue[truth.cloud].mean() > 5000 and abs(ndvi[truth.cloud]).mean() < 0.06
    assert np.corrcoef(blue[land], green[land])[0, 1] > 0.8 and np.corrcoef(green[land], red[land])[0, 1] > 0.8
    assert 0.05 < truth.water.mean() < 0.3


def test_shadows_lie_where_sun_and_height_put_them(demo: SyntheticScene) -> None:
    """Sun in the south-south-east: the shadow lies to the north-north-west, height / tan(elevation) away."""
    rows, cols = demo.sky.shadow_shift_px(10.0)
    assert (rows**2 + cols**2) ** 0.5 * 10 == pytest.approx(1050 / np.tan(np.radians(41)), abs=15)
    assert rows > 0 > -cols  # the cloud lies south-east of its shadow
    truth = demo.truth(0, 0, SIZE, SIZE)
    moved = truth.cloud[rows:, cols:]
    clear = ~truth.cloud[:-rows, :-cols]
    assert (truth.shadow[:-rows, :-cols] == (moved & clear)).all() and truth.shadow.mean() > 0.01
    assert not (truth.shadow & truth.cloud).any()


def test_shadow_darkens_the_same_ground(demo: SyntheticScene, whole: np.ndarray) -> None:
    truth = demo.truth(0, 0, SIZE, SIZE)
    bare = demo_scene(SIZE, SIZE, clouds=False)
    ground = bare.read(0, 0, SIZE, SIZE)[0].astype(float)
    dark = truth.shadow & ~truth.water
    ratio = np.median(whole[:, dark] / ground[:, dark], axis=1)  # the median: thin cloud over a shadow brightens some
    assert (ratio[:3] < 0.85).all() and ratio[3] < 0.4 and ratio[0] > ratio[3]
    assert not bare.truth(0, 0, SIZE, SIZE).cloud.any() and not bare.truth(0, 0, SIZE, SIZE).shadow.any()


def test_noise_grows_with_the_signal() -> None:
    """On open sea (smooth) the noise is near the read noise: some 4 to 7 DN in infrared, more in blue."""
    scene = demo_scene(3000, 3000, clouds=False)
    dn = scene.read(2800, 0, 200, 200)[0].astype(float)
    deviation = (dn[:, :, 1:] - dn[:, :, :-1]).std(axis=(1, 2)) / 2**0.5
    assert 3 < deviation[3] < 8 and deviation[0] > 1.2 * deviation[3]


def test_fine_pixels_are_fine() -> None:
    scene = demo_scene(300, 300, gsd_m=4.75)
    assert scene.info.gsd_m == 4.75 and scene.read(0, 0, 300, 300)[0].std() > 100


def test_memory_is_bounded() -> None:
    scene = demo_scene(20_000, 20_000, clouds=False)
    scene.read(19_000, 0, 1000, BLOCK_PX * (KEPT_BLOCKS // 4))
    assert len(scene._drawn._kept) == KEPT_BLOCKS


def test_windows_out_of_the_scene_are_a_mistake(demo: SyntheticScene) -> None:
    for window in ((0, 0, SIZE + 1, 5), (-1, 0, 5, 5), (0, SIZE - 4, 5, 5)):
        with pytest.raises(ValueError, match="reaches out"):
            demo.read(*window)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ({"height_px": 10}, "10 x"),
        ({"width_px": 30_000}, "30000"),
        ({"gsd_m": 0.1}, "0.1 m"),
        ({"seed": -1}, "seed -1"),
    ],
)
def test_arguments_out_of_range(arguments: dict[str, float], word: str) -> None:
    with pytest.raises(InputError, match=word):
        demo_scene(**arguments)  # type: ignore[arg-type]
