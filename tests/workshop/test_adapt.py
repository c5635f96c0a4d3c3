"""A bundle of one's own: pools as they lie on disk, the universal start, and a small adaptation from end to end."""

from pathlib import Path

import numpy as np
import pytest
import torch

from export.commands.adapt import read_sensor
from export.lapped.adapt import law_of, steps_of
from export.lapped.context_model import ContextModel, features, places_of, turns_of
from export.lapped.context_tables import integer_arrays
from export.lapped.universal import universal_context
from export.pools import read_pool, to_dn
from export.sensor_pools import as_counts, as_phisat2
from payload.bundle import load_bundle
from payload.codec.interface import Quality
from payload.codec.lapped.codec import FsqCodec
from payload.codec.lapped.context_model import Contexts, feature_count
from payload.codec.lapped.tables import load_tables
from payload.engine import open_engine
from payload.errors import InputError
from payload.sensor import Band, Sensor
from payload.stopwatch import Stopwatch
from payload.tiles import Tile

PAN = Sensor("pan", "panchromatic", (Band("PAN", 1.0),), bits=8, scale=1.0)


def pictures(count: int, bands: int = 1, side: int = 64, most: int = 255, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side]
    waves = [np.sin(x / rng.uniform(4, 30) + k) * np.cos(y / rng.uniform(4, 30)) for k in range(count * bands)]
    found = 0.5 + 0.3 * np.array(waves).reshape(count, bands, side, side)
    return (np.clip(found + rng.normal(0, 0.02, found.shape), 0, 1) * most).astype(np.uint16)


def write_npz(path: Path, x: np.ndarray, site: list[str]) -> Path:
    np.savez(path, x=x, site=np.array(site))
    return path


def test_a_pool_is_cut_into_squares_and_split_by_site(tmp_path: Path) -> None:
    path = write_npz(tmp_path / "p.npz", pictures(4, side=100), ["a", "a", "b", "c"])
    pool = read_pool(path, PAN, ["b"])
    assert pool.dn.shape == (16, 1, 64, 64) and pool.held_out_sites == ("b",)
    assert set(pool.site[pool.held_out]) == {"b"} and set(pool.site[pool.training]) == {"a", "c"}
    x = np.load(path)["x"]
    assert np.array_equal(pool.dn[3], x[0, :, 36:, 36:])  # the last square ends with the picture


def test_nothing_is_held_out_where_that_is_said(tmp_path: Path) -> None:
    pool = read_pool(write_npz(tmp_path / "p.npz", pictures(2), ["a", "a"]), PAN, ["-"])
    assert pool.held_out_sites == () and len(pool.training) == 2 and not len(pool.held_out)


def test_zarr_and_geotiffs_are_pools_as_well(tmp_path: Path, write_scene) -> None:
    import zarr

    x = pictures(2)
    group = zarr.open_group(str(tmp_path / "p.zarr"), mode="w")
    group.create_array("x", data=x)
    group.create_array("site", data=np.array(["a", "b"]))
    folder = tmp_path / "tiffs"
    folder.mkdir()
    for name, picture in zip("ab", x, strict=True):
        write_scene(folder / f"{name}.tif", picture)
    (folder / "splits.toml").write_text('held_out = ["b"]\n[sites]\na = ["a.tif"]\nb = ["b.tif"]\n')
    pools = [read_pool(path, PAN) for path in (tmp_path / "p.zarr", folder)]
    assert all(np.array_equal(pool.dn, x) and pool.held_out_sites == ("b",) for pool in pools)


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"x": pictures(2)}, "holds x .*wanted x"),
        ({"x": pictures(2), "site": np.array(["a", "a"])}, "all held out"),
        ({"x": pictures(2)[..., :40, :40], "site": np.array(["a", "b"])}, "40 px, wanted 64"),
        ({"x": pictures(2).astype(float), "site": np.array(["a", "b"])}, "float64 .*whole numbers"),
        ({"x": pictures(2, 3), "site": np.array(["a", "b"])}, "wanted 1 bands"),
        ({"x": pictures(2).astype(np.int16) - 200, "site": np.array(["a", "b"])}, "set `signed`"),
    ],
)  # fmt: skip
def test_a_pool_that_cannot_be_used_says_what_is_wanted(tmp_path: Path, arrays, words) -> None:
    np.savez(tmp_path / "p.npz", **arrays)
    with pytest.raises(InputError, match=words):
        read_pool(tmp_path / "p.npz", PAN)


def test_a_folder_without_splits_and_a_file_that_is_not_there_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="without splits"):
        read_pool(tmp_path, PAN)
    with pytest.raises(InputError, match="no such file"):
        read_pool(tmp_path / "none.npz", PAN)
    with pytest.raises(InputError, match="no site z"):
        read_pool(write_npz(tmp_path / "p.npz", pictures(2), ["a", "b"]), PAN, ["z"])


def test_signed_counts_are_moved_up_by_half_their_range() -> None:
    signed = Sensor("s", "hyperspectral", (Band("A", 1.0),), bits=16, signed=True)
    counts = np.array([[[-32768, -50, 0, 14060]]], np.int16)
    assert to_dn(counts, signed, Path("x")).tolist() == [[[0, 32718, 32768, 46828]]]


def test_few_bits_have_finer_steps_than_a_count_and_reflectance_has_its_power_law() -> None:
    assert law_of(PAN) == {"compand": 1.0, "gain": 16, "averages_tell": True}
    assert law_of(read_sensor("sentinel2-l2a-12")) == {"compand": 0.8, "gain": 1}
    assert law_of(read_sensor("sentinel1-grd")) == {"compand": 1.0, "gain": 1}
    with pytest.raises(InputError, match=r"no such file; give a TOML file or one of .*pan"):
        read_sensor("nowhere")


def test_noise_behind_the_leading_bands_moves_no_steps() -> None:
    """The steps of a cube are those of what its rates send; its other bands hold noise, however many there are."""
    leading = 100 * torch.randn(2, 16 * 64, 8, 8, generator=torch.Generator().manual_seed(1))
    noise = torch.randn(2, 160 * 64, 8, 8, generator=torch.Generator().manual_seed(2))
    assert steps_of(torch.cat([leading, noise], 1)) == steps_of(leading)


def test_the_counts_of_radar_are_hundredths_of_a_decibel() -> None:
    assert as_counts(np.array([-70.0, -59.994, -25.0, 45.0, np.nan])).tolist() == [1, 1, 3500, 10_000, 1]


def test_phisat2s_panchromatic_band_is_a_mean_by_shared_width() -> None:
    bands = ("B02", "B03", "B04", "B05", "B06", "B07", "B08")
    picture = np.arange(7, dtype=np.uint16)[:, None, None] * 118
    made = as_phisat2(picture, bands)
    assert made[:, 0, 0].tolist() == [35 + 2 * 30 + 3 * 14 + 4 * 14, *(118 * np.arange(7)).tolist()]


@pytest.mark.parametrize("bands", [1, 2, 4, 8, 12])
def test_the_context_of_a_band_does_not_grow_with_the_bands(bands: int) -> None:
    assert len(turns_of(bands)) == min(bands - 1, 3)
    assert len(places_of(bands)) == feature_count(1 + len(turns_of(bands)))
    assert places_of(bands).max() == feature_count(bands) - 1


@pytest.mark.parametrize("bands", [1, 2, 6])
def test_the_features_that_are_trained_are_those_that_fly(bands: int, tmp_path: Path) -> None:
    """The same known magnitudes: what torch sees is what the payload's model sees at those places."""
    channels = 64 * bands
    previous = np.random.default_rng(bands).poisson(0.3, (channels, 8, 8)).astype(np.uint16)
    model = universal_context(np.arange(channels), [0, bands])
    arrays = integer_arrays(model)
    np.savez(tmp_path / "t.npz", **arrays)
    weights = load_tables(tmp_path / "t.npz", bands).layers[1].weights
    flying = Contexts(weights, previous.shape, previous, bytes([16] * bands))
    members = np.arange(5, channels, 7)
    there = flying.features(members)
    known = torch.from_numpy(np.minimum(2 * np.minimum(previous, 8), 15).astype(np.float32))[None]
    here = features(known, torch.from_numpy(members))[0].permute(3, 0, 1, 2).numpy()
    assert np.array_equal(here, there[places_of(bands)])


def test_four_bands_start_from_the_shipped_model_itself() -> None:
    from safetensors.torch import load_file

    from export.lapped.universal import START

    state = load_file(START / "context.safetensors")
    shipped = ContextModel(4, 256, np.arange(256), [0])
    shipped.load_state_dict({k: v for k, v in state.items() if k != "step_no"} | {"order": shipped.order})
    made = universal_context(np.arange(256), [0])
    for new, old in zip(made.layers, shipped.layers, strict=True):
        near = [row for row in range(256) if row // 64 < 3]  # the last band's next one is the first: not looked at
        assert torch.allclose(new.gains(), old.gains()) and torch.allclose(new.mixes(), old.mixes())
        assert torch.allclose(new.weights()[near][:, :8], old.weights()[near][:, :8])


def test_the_tables_of_many_bands_serve_another_number_of_bands(tmp_path: Path, capsys) -> None:
    from export.__main__ import main

    text = (
        'name = "other"\nkind = "hyperspectral"\nbits = 16\nunit = "counts"\nscale = 1.0\n'
        "[spectrum]\ncount = {count}\nfirst_nm = 400.0\nlast_nm = 900.0\nwidth_nm = 9.0\ngsd_m = 3.0\n"
    )
    (tmp_path / "s.toml").write_text(text.format(count=40))
    command = ["adapt", "--sensor", str(tmp_path / "s.toml"), "--tables-of", "edge-hyper", "--out"]
    assert main([*command, str(tmp_path / "out")]) == 0
    bundle, source = load_bundle(tmp_path / "out" / "bundle"), load_bundle("edge-hyper")
    assert len(bundle.bands) == 40 and bundle.sensor.name == "other" and bundle.tile_px == 64
    for name in ("flight/tables.npz", "flight/tables-rest.npz"):
        assert bundle.file(name).read_bytes() == source.file(name).read_bytes()
    recipe = bundle.manifest["built"]["recipe"]
    assert recipe["tables_of"]["bundle"].startswith("edge-hyper ") and recipe["fitted_on"] == {"abu": 4, "jasper": 4}
    dn, codec = pictures(1, 40, most=9000)[0], FsqCodec(bundle, open_engine("onnxruntime", 1))
    coded = codec.encode(Tile(0, 0, dn, np.ones((64, 64), bool)), Quality(2.0), Stopwatch())
    back = codec.reconstruct(codec.decode(coded.side, coded.layers), None)
    assert np.sqrt(((back.astype(float) - dn) ** 2).mean()) < 2
    (tmp_path / "s.toml").write_text(text.format(count=12))
    assert main([*command, str(tmp_path / "few")]) == 2
    assert "has tables for 200 bands, sensor other has 12" in capsys.readouterr().err


@pytest.mark.slow
def test_a_recipe_that_names_a_sensor_is_trained_from_nothing(tmp_path: Path, capsys) -> None:
    from export.__main__ import main

    (tmp_path / "s.toml").write_text(
        'name = "mine"\nkind = "radar"\nbits = 12\nunit = "counts"\nscale = 1.0\n'
        '[[bands]]\nname = "A"\ngsd_m = 1.0\n[[bands]]\nname = "B"\ngsd_m = 1.0\n'
    )
    (tmp_path / "r.toml").write_text('name = "full"\nkind = "fsq"\nsensor = "s.toml"\n[context]\nsteps = 3\n')
    path = write_npz(tmp_path / "p.npz", pictures(6, 2, most=4000), list("aabbcc"))
    command = ["train", "--recipe", str(tmp_path / "r.toml"), "--out", str(tmp_path / "out"), "--threads", "1"]
    assert main(command) == 2 and "give its pool with --pool" in capsys.readouterr().err
    assert main([*command, "--pool", str(path), "--hold-out", "b", "--no-page"]) == 0
    bundle = load_bundle(tmp_path / "out" / "bundle")
    recipe = bundle.manifest["built"]["recipe"]
    assert recipe["held_out_sites"] == ["b"] and recipe["adapted"]["from_nothing"] and recipe["adapted"]["steps"] == 3
    shipped, own = (np.load(b.file("flight/tables.npz"))["kernels"] for b in (load_bundle("edge"), bundle))
    assert not np.array_equal(shipped, own)  # designed on these pictures
    codec, dn = FsqCodec(bundle, open_engine("onnxruntime", 1)), pictures(1, 2, 256, 4000, seed=9)[0]
    coded = codec.encode(Tile(0, 0, dn, np.ones((256, 256), bool)), Quality(2.0), Stopwatch())
    back = codec.reconstruct(codec.decode(coded.side, coded.layers), None)
    assert np.sqrt(((back.astype(float) - dn) ** 2).mean()) < 2


def test_recipes_are_found_by_path_and_what_is_none_is_told(tmp_path: Path) -> None:
    from export.recipe import load_recipe

    for text, words in (("name = 3", "no name"), ("x = [", "not readable as TOML")):
        (tmp_path / "r.toml").write_text(text)
        with pytest.raises(InputError, match=words):
            load_recipe(str(tmp_path / "r.toml"))
    (tmp_path / "r.toml").write_text('name = "a"\nkind = "fsq"\nsensor = "pan"\n')
    assert load_recipe(str(tmp_path / "r.toml"))["sensor"] == "pan"  # one that ships


@pytest.mark.slow
def test_an_adaptation_makes_a_bundle_that_flies_and_goes_on_where_it_stopped(tmp_path: Path, capsys) -> None:
    from export.__main__ import main

    sensor = tmp_path / "s.toml"
    sensor.write_text(
        'name = "mine"\nkind = "panchromatic"\nbits = 8\nunit = "counts"\nscale = 1.0\n'
        '[[bands]]\nname = "P"\ngsd_m = 1.0\n'
    )
    path = write_npz(tmp_path / "p.npz", pictures(6), list("aabbcc"))
    command = ["adapt", "--sensor", str(sensor), "--tiles", str(path), "--out", str(tmp_path / "out"),
               "--steps", "4", "--threads", "1", "--no-page"]  # fmt: skip
    assert main(command) == 0
    made = {name: (tmp_path / "out" / name).read_bytes() for name in ("tables.npz", "bundle/manifest.json")}
    assert "4 squares of 64 px to fit on, 2 of c held out" in capsys.readouterr().out
    (tmp_path / "out" / "tables.npz").unlink()
    assert main(command) == 0  # the context model is trained; its tables are counted again
    assert {name: (tmp_path / "out" / name).read_bytes() for name in made} == made
    bundle = load_bundle(tmp_path / "out" / "measured")
    assert bundle.sensor.name == "mine" and bundle.codec["gain"] == 16 and bundle.tile_px == 64
    codec = FsqCodec(bundle, open_engine("onnxruntime", 1))
    dn = pictures(1, seed=9)[0]
    coded = codec.encode(Tile(0, 0, dn, np.ones((64, 64), bool)), Quality(0.5), Stopwatch())
    back = codec.reconstruct(codec.decode(coded.side, coded.layers), None)
    assert np.abs(back.astype(int) - dn).max() <= 2
