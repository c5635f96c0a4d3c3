"""`--cloud-mask`: cloud.tif drawn by a large network on the ground, which need not fit on board."""

from typing import Any

import numpy as np
import pytest
import rasterio

from payload.bundle import load_bundle
from payload.errors import InputError
from sim.clouds import ground_mask, other_detectors
from sim.clouds.ground_mask import NO_SOURCE, SOURCE, GroundMask, open_ground_mask
from sim.clouds.samples import data_folder, load_human_chips
from sim.downlink import Request, downlink
from sim.progress import silent


class BlueIsCloud:
    """In the network's place: bright blue is cloud, dark near infrared shadow, the rest clear."""

    def run(self, _: Any, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        x = inputs["input"]
        cloud, shadow = x[:, 0] > 0.5, x[:, 3] < 0.01
        return [10.0 * np.stack([~cloud & ~shadow, cloud, ~cloud & shadow], axis=1).astype(np.float32)]


@pytest.fixture
def levels(monkeypatch) -> list[str]:
    """The levels whose networks were asked for; ukis-csmask seems to be installed."""
    asked: list[str] = []

    def session(level: str) -> tuple[BlueIsCloud, np.ndarray, np.ndarray]:
        asked.append(level)
        return BlueIsCloud(), np.zeros((4, 1, 1), np.float32), np.ones((4, 1, 1), np.float32)

    monkeypatch.setattr(other_detectors, "_session", session)
    monkeypatch.setattr(ground_mask, "csmask_is_there", lambda: True)
    return asked


def test_cloud_is_grown_by_30_m_and_shadow_is_told_and_no_data_stays_so(levels: list[str]) -> None:
    dn = np.full((4, 64, 64), 1000, np.uint16)
    dn[0, 20, 20] = 9000
    dn[3, 50:, 50:] = 0
    valid = np.ones((64, 64), bool)
    valid[:, :3] = False
    mask = GroundMask(None, 64, "L1C")
    found = mask.judge(dn, valid, 10.0)
    assert levels == ["l1c"] and (found[:, :3] == 255).all() and (found[50:, 50:] == 3).all()
    y, x = np.mgrid[:64, :64]
    near = (y - 20) ** 2 + (x - 20) ** 2 <= 9
    assert np.array_equal(found == 1, near) and set(np.unique(found)) == {0, 1, 3, 255}
    assert (mask.judge(dn, valid, 0.0) == 1).sum() == 1  # unknown pixels in metres: nothing is grown


def test_a_large_network_draws_cloud_tif_and_changes_nothing_on_the_link(
    levels: list[str], write_scene, write_mission, ground_of, toy_bundle_with_gate, toy_engine, monkeypatch, tmp_path
) -> None:
    monkeypatch.setattr("sim.onboard.engine_choice.open_engine", lambda name: toy_engine)
    scene, mission = write_scene(tmp_path / "a.tif", ground_of(2, 2)), write_mission(tmp_path / "m.toml")
    runs = {}
    for name in ("bundle", "ukis-csmask"):
        request = Request(str(scene), tmp_path / name, str(mission), str(toy_bundle_with_gate), cloud_mask=name)
        runs[name] = downlink(request, silent)["clouds"]
    assert runs["bundle"]["mask_source"] == SOURCE and "ukis-csmask (L2A)" in runs["ukis-csmask"]["mask_source"]
    assert runs["ukis-csmask"]["onboard_agrees_percent"] is not None and set(levels) == {"l2a"}
    packets = [(tmp_path / name / "packets.bin").read_bytes() for name in runs]
    assert packets[0] == packets[1]
    with rasterio.open(tmp_path / "ukis-csmask" / "cloud.tif") as file:
        drawn = file.read(1)
    with rasterio.open(tmp_path / "ukis-csmask" / "reconstruction.tif") as file:
        blue, infrared = (file.read(band) / 10_000 for band in (1, 4))
    assert np.array_equal(drawn == 3, (infrared < 0.01) & (blue <= 0.5))


def test_what_cannot_draw_is_refused_in_one_line(
    levels: list[str], toy_bundle_with_gate, toy_engine, monkeypatch
) -> None:
    bundle = load_bundle(toy_bundle_with_gate)
    with pytest.raises(InputError, match="no such network; wanted one of bundle, ukis-csmask, ukis-csmask-l1c"):
        open_ground_mask(bundle, toy_engine, "large")
    monkeypatch.setattr(type(bundle), "bands", property(lambda _: ("PAN",)))
    with pytest.raises(InputError, match="has PAN; leave the option out"):
        open_ground_mask(bundle, toy_engine, "ukis-csmask")
    monkeypatch.setattr(ground_mask, "csmask_is_there", lambda: False)
    with pytest.raises(InputError, match="not installed; pip install ukis-csmask"):
        open_ground_mask(bundle, toy_engine, "ukis-csmask")


def test_without_any_network_the_source_is_none() -> None:
    assert GroundMask(None, 64).source == NO_SOURCE


@pytest.mark.slow
def test_the_large_network_draws_people_s_chips_within_the_bars() -> None:
    """IoU >= .82, recall >= .87 at precision >= .93, tile by tile as on the ground; the two chips set its outline."""
    pytest.importorskip("ukis_csmask", reason="the extra `clouds` is not installed")
    try:
        chips = [chip for chip in load_human_chips(data_folder()) if chip.source == "human_cloud_512"]
    except InputError as missing:
        pytest.skip(str(missing))
    mask, hit, found, drawn = GroundMask(None, 256, "L2A"), 0, 0, 0
    for chip in chips:
        for top in range(0, 512, 256):
            for left in range(0, 512, 256):
                place = np.s_[top : top + 256, left : left + 256]
                cloud = mask.judge(chip.dn[(slice(None), *place)], np.ones((256, 256), bool), chip.gsd_m) == 1
                hit += int((cloud & chip.cloud[place]).sum())
                found, drawn = found + int(cloud.sum()), drawn + int(chip.cloud[place].sum())
    assert hit / (found + drawn - hit) >= 0.82 and hit / found >= 0.93 and hit / drawn >= 0.87
