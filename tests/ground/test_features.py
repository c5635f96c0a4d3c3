"""Features without decoding: they hold what the decoder knows, where it lies, and no more than arrived."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from typer.testing import CliRunner

from payload.bundle import load_bundle
from payload.codec.features import FeatureLevel
from payload.codec.interface import Quality
from payload.codec.lapped import synthesis, tables
from payload.codec.lapped.power_law import expand
from payload.codec.registry import open_codec
from payload.engine import open_engine
from payload.errors import InputError
from payload.stopwatch import Stopwatch
from payload.tiles import split
from sim.commands.root import app
from sim.downlink import Request, downlink
from sim.features.extract import extract
from sim.features.service import FeaturesRequest, features
from sim.features.source import Asked, open_source
from sim.progress import silent
from sim.scenes.demo import demo_scene

zarr = pytest.importorskip("zarr", reason="the extra `features` is not installed")
xarray = pytest.importorskip("xarray")
parquet = pytest.importorskip("pyarrow.parquet")
shapely = pytest.importorskip("shapely")
SIDE = 320  # two by two tiles, three of them mostly beyond the edge
run = CliRunner()


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("features") / "out"
    features(FeaturesRequest(Asked(f"demo:{SIDE}"), out), silent)
    return out


def levels_of(bundle: str, step_dn: float = 60.0) -> tuple[dict[str, FeatureLevel], np.ndarray, object]:
    held = load_bundle(bundle)
    codec = open_codec(held, open_engine("openvino"))
    coded = codec.encode(next(split(demo_scene(256, 256), 256)), Quality(step_dn), Stopwatch())
    indices = codec.decode(coded.side, coded.layers)
    pixels = codec.reconstruct(indices, None) if codec.decodes_alone else np.empty(0)
    return {level.name: level for level in codec.features(indices)}, pixels, indices  # type: ignore[attr-defined]


def test_the_coefficients_hold_all_that_the_fast_decoder_knows() -> None:
    found, pixels, _ = levels_of("edge")
    bundle = load_bundle("edge")
    kernels = tables.load_kernels(bundle.file("flight/tables.npz"))
    assert kernels is not None
    wide = synthesis.dual_functions(kernels, synthesis.WIDE)
    levels = found["coefficients"].values.copy()
    levels[::64] *= kernels.gain_of_first
    bands = synthesis.synthesise(levels, wide, wide, np.ones(64, bool))
    again = np.rint(expand(bands, 0.8))
    assert np.abs(again - pixels).mean() < 1.0  # one DN: the fast decoder takes some functions narrow


def test_a_codebook_level_is_the_vector_of_every_index() -> None:
    found, _, indices = levels_of("corsa-fpn3-256")
    book = np.load(load_bundle("corsa-fpn3-256").file("flight/tables.npz"))["book0"]
    assert np.array_equal(found["codebook_8px"].values[:, 3, 5], book[indices[0][3, 5]])  # type: ignore[index]
    assert [level.stride_px for level in found.values()] == [8, 4, 2]


def test_xarray_and_rasterio_read_the_same_numbers_at_the_same_place(written: Path) -> None:
    level = xarray.open_zarr(written / "features.zarr", group="coefficients", consolidated=False)
    with rasterio.open(written / "coefficients.tif") as file:
        assert np.array_equal(file.read(), level.features.values, equal_nan=True)
        assert file.crs.to_wkt() == rasterio.crs.CRS.from_wkt(level.spatial_ref.attrs["crs_wkt"]).to_wkt()
        x, y = file.xy(7, 3)
        assert (float(level.x[3]), float(level.y[7])) == pytest.approx((x, y))
        scene = demo_scene(SIDE, SIDE).info
        assert scene.transform is not None
        assert file.transform.a == 8 * scene.transform[0] and file.shape == (SIDE // 8, SIDE // 8)
    assert list(level.channel.attrs["names"])[:2] == ["B02_00", "B02_01"]


def test_every_tile_has_an_embedding_and_an_outline_inside_its_scene(written: Path) -> None:
    table = parquet.read_table(written / "embeddings.parquet")
    geo = json.loads(table.schema.metadata[b"geo"])
    assert geo["columns"][geo["primary_column"]]["encoding"] == "WKB"
    rows = table.to_pylist()
    assert [(row["row"], row["col"]) for row in rows] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert all(len(row["embedding"]) == 40 and np.isfinite(row["embedding"]).all() for row in rows)
    outlines = [shapely.from_wkb(row["geometry"]) for row in rows]
    assert shapely.union_all(outlines).area == pytest.approx(sum(o.area for o in outlines), rel=1e-6)
    assert rows[0]["valid_share"] == 1.0 and rows[3]["valid_share"] == pytest.approx((64 / 256) ** 2)


def test_a_run_shows_what_arrived_and_its_stream_what_was_sent(tmp_path: Path, write_mission: Any) -> None:
    """Nothing flattened: a scene is coded without a gate."""
    mission = str(write_mission(tmp_path / "mission.toml", packet_loss=0.2, flatten_clouds="false"))
    downlink(Request(f"demo:{SIDE}", tmp_path / "run", mission, seed=3), silent)
    found = []
    for where in (str(tmp_path / "run"), str(tmp_path / "run" / "packets.bin"), f"demo:{SIDE}"):
        with open_source(Asked(where, mission=mission, seed=3)) as source:
            found.append({(tile.row, tile.col): tile.levels[0].values for tile in extract(source)})
    arrived, sent, scene = found
    events = json.loads((tmp_path / "run" / "arrivals.json").read_text())["events"]
    assert arrived.keys() == {(e[1], e[2]) for e in events if e[3] == "coded" and e[4]}
    assert sent and all(np.array_equal(sent[at], scene[at], equal_nan=True) for at in sent)
    assert len(arrived) < len(sent) or any(not np.array_equal(arrived[at], sent[at], equal_nan=True) for at in arrived)


def test_an_archived_scene_has_features(tmp_path: Path) -> None:
    assert run.invoke(app, ["archive", "put", "demo:256", "--store", str(tmp_path), "--cr", "20"]).exit_code == 0
    (path,) = tmp_path.glob("*.nadir")
    done = run.invoke(app, ["features", str(path), "--out", str(tmp_path / "out"), "--formats", "parquet", "--json"])
    assert json.loads(done.stdout)["tiles_with_features"] == 1


def test_bad_input_is_told_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="wanted some of zarr"):
        FeaturesRequest(Asked("demo"), tmp_path / "out", ("netcdf",))
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "report.json").write_text("{}")
    with pytest.raises(InputError, match="give the stream"):
        features(FeaturesRequest(Asked(str(tmp_path / "old")), tmp_path / "out"), silent)
    (tmp_path / "x.bin").write_bytes(bytes(100))
    with pytest.raises(InputError, match=r"no packet|no scene"):
        features(FeaturesRequest(Asked(str(tmp_path / "x.bin")), tmp_path / "out"), silent)
    assert not (tmp_path / "out").exists()


def test_a_search_finds_the_same_ground_in_another_run_and_not_the_tile_itself(written: Path, tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    other = tmp_path / "other"
    features(FeaturesRequest(Asked(f"demo:{SIDE}", step_dn=300.0), other), silent)  # the same scene, coarser
    words = ["search", str(written), str(other), "--like", f"{written}@0,1"]
    done = run.invoke(app, [*words, "--json", "--out", str(tmp_path / "search.html")])
    hits = json.loads(done.stdout)["hits"]
    assert (hits[0]["folder"], hits[0]["row"], hits[0]["col"]) == (str(other), 0, 1)
    assert len(hits) == 7 and [h["distance"] for h in hits] == sorted(h["distance"] for h in hits)
    assert (tmp_path / "search.html").read_text().count("data:image/png") == 1 + 7  # the tile itself, and hits


def test_a_search_that_cannot_be_is_told(written: Path, tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    for like, folder, wanted in ((f"{written}@7,7", written, "no such tile"), (f"{written}@x", written, "FOLDER@ROW"),
                                 (f"{written}@0,0", tmp_path, "run `sim features` first")):  # fmt: skip
        found = run.invoke(app, ["search", str(folder), "--like", like])
        assert wanted in str(found.exception)


def test_a_folder_of_features_is_told_from_what_it_was_made_of(written: Path, tmp_path: Path) -> None:
    for words in (["features", str(written)], ["search", str(written), "--like", str(written)]):
        told = run.invoke(app, [*words, "--out", str(tmp_path / "out")])
        assert "features already" in str(told.exception) and "@ROW,COL" in str(told.exception)
    assert not (tmp_path / "out").exists()


def test_a_second_run_replaces_the_first_where_it_may(written: Path) -> None:
    request = FeaturesRequest(Asked("demo:256"), written, ("zarr",))
    with pytest.raises(InputError, match="--overwrite"):
        features(request, silent)
    features(replace(request, overwrite=True), silent)
    assert not (written / "embeddings.parquet").exists() and (written / "features.zarr").is_dir()
