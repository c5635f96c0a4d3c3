"""From end to end within a bound: the line, the archive and the bench, each held against the pixels that went in."""

import json

import numpy as np
import pytest
import rasterio
from typer.testing import CliRunner

import nadir
from payload.errors import InputError
from sim.archive.coding import Quality
from sim.commands.root import app
from sim.compare.classical import Jpeg2000Lossless, JpegLs
from sim.downlink import Request, downlink, mission_of
from sim.mission.change import Change
from sim.mission.trust import Trust
from sim.progress import silent

run = CliRunner()


@pytest.fixture
def scene(tmp_path, write_scene):
    """Four bands of ground with a bright edge and a corner of no data, a tile and a part of the next."""
    rng = np.random.default_rng(5)
    rows, cols = np.mgrid[:256, :300]
    ground = 900 + 300 * np.sin(rows / 19) + 200 * np.cos(cols / 7) + 4000 * (rows + cols > 480)
    dn = np.clip(ground + rng.normal(0, 25, (4, 256, 300)) * [[[1]], [[1]], [[2]], [[4]]], 1, 65535).astype(np.uint16)
    dn[:, :40, :60] = 0
    return dn, write_scene(tmp_path / "scene.tif", dn)


def test_what_is_sent_without_loss_comes_down_equal_on_every_sample(scene, tmp_path, write_mission) -> None:
    dn, path = scene
    mission = write_mission(tmp_path / "mission.toml")
    request = Request(
        str(path), tmp_path / "out", str(mission), trust=Trust(allow_unsigned=True), change=Change(max_error_dn=0)
    )
    report = downlink(request, silent)
    with rasterio.open(tmp_path / "out" / "reconstruction.tif") as file:
        found, known = file.read(), file.dataset_mask() > 0
    np.testing.assert_array_equal(known, dn.any(axis=0))
    np.testing.assert_array_equal(found[:, known], dn[:, known])
    assert (report["bound"]["asked_dn"], report["bound"]["largest_error_dn"]) == (0, 0)
    assert report["bound"]["tiles_within"] == 2 and report["bound"]["bits_per_sample"] < 9
    (check,) = [check for check in report["checks"] if check["requirement"] == "error of any sample at most"]
    assert check["held"] and (check["measured"], check["limit"]) == (0, 0)


def test_tiles_cut_short_on_the_link_break_the_bound_and_the_report_says_so(scene, tmp_path, write_mission) -> None:
    _, path = scene
    mission = write_mission(tmp_path / "mission.toml", max_error_dn=3, packet_loss=0.01)
    report = downlink(Request(str(path), tmp_path / "out", str(mission), trust=Trust(allow_unsigned=True)), silent)
    (check,) = [check for check in report["checks"] if check["requirement"] == "error of any sample at most"]
    assert report["bound"]["tiles_without"] > 0 and not check["held"] and check["measured"] > 3
    assert "without the layer that keeps the bound" in check["cause"]


def test_a_bound_takes_the_place_of_a_budget_and_a_psnr(tmp_path, write_mission) -> None:
    mission = write_mission(tmp_path / "mission.toml", budget_octets=90_000, psnr_db=41.0)
    request = Request("demo", tmp_path, str(mission), change=Change(max_error_dn=7))
    policy = mission_of(request).policy
    assert (policy.max_error_dn, policy.budget_octets, policy.psnr_db) == (7, None, None)
    with pytest.raises(InputError, match="--max-error and --psnr both say"):
        mission_of(Request("demo", tmp_path, str(mission), psnr_db=40.0, change=Change(max_error_dn=7)))


@pytest.mark.parametrize("bound_dn", [0, 9])
def test_an_archived_scene_comes_back_within_its_bound(scene, tmp_path, bound_dn) -> None:
    dn, path = scene
    asked = ["--store", str(tmp_path), "--max-error", str(bound_dn), "--json"]
    found = run.invoke(app, ["archive", "put", str(path), *asked])
    assert found.exit_code == 0, found.output
    (entry,) = json.loads(found.stdout)
    assert entry["asked"] == {"max_error_dn": bound_dn} and entry["missing"] == []
    with nadir.open(tmp_path / f"{entry['name']}.nadir") as back:
        again, valid = back.read(0, 0, *dn.shape[1:])
        coarse = nadir.open(tmp_path / f"{entry['name']}.nadir", layers=2)[...]
    error = np.abs(again.astype(int) - dn)[:, valid]
    np.testing.assert_array_equal(valid, dn.any(axis=0))
    assert error.max() == bound_dn and np.abs(coarse.astype(int) - dn)[:, valid].max() > 20


def test_an_archive_is_asked_for_one_thing() -> None:
    with pytest.raises(InputError, match="one of --cr, --psnr and --max-error"):
        Quality(cr=20, max_error_dn=0)


def test_the_bench_puts_a_bound_beside_what_keeps_one_too(tmp_path) -> None:
    dn = np.random.default_rng(1).integers(900, 990, (1, 4, 256, 256)).astype(np.uint16)
    np.savez(tmp_path / "tiles.npz", x=dn, bands=["B02", "B03", "B04", "B08"])
    found = run.invoke(app, ["evaluate", "--tiles", str(tmp_path / "tiles.npz"), "--max-error", "0,4", "--json"])
    assert found.exit_code == 0, found.output
    rows = {(row["codec"], row["bound_dn"]): row for row in json.loads(found.stdout)["rows"]}
    assert {name for name, bound in rows if bound == 0} == {
        "nadir-edge", "ccsds121", "jpegls", "jpegxl-e7", "jpeg2000-lossless"
    }  # fmt: skip
    assert all(row["largest_error_dn"] <= bound for (_, bound), row in rows.items())
    assert rows["nadir-edge", 4]["bits_per_sample"] < rows["nadir-edge", 0]["bits_per_sample"] < 7.0
    wrong = run.invoke(app, ["evaluate", "--tiles", str(tmp_path / "tiles.npz"), "--max-error", "0.5"])
    assert wrong.exit_code != 0


@pytest.mark.parametrize("codec", [JpegLs(), Jpeg2000Lossless()])
def test_the_opponents_are_lossless_where_they_say_so_and_near_it_where_they_are_asked(codec) -> None:
    dn = np.random.default_rng(2).integers(0, 65536, (3, 40, 48)).astype(np.uint16)
    for setting in codec.settings:
        back = codec.decode(codec.encode(dn, setting))
        assert np.abs(back.astype(int) - dn).max() <= setting
