"""The ground's own cloud network: what it is shown, who draws `cloud.tif`, and what the classes become."""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from payload.bundle import GROUND_CLOUDS_FILE, SHIPPED, load_bundle
from payload.clouds.mask import CLEAR, NO_CLASS, SHADOW, THICK, THIN
from payload.engine import open_engine
from payload.errors import BundleError, InputError
from sim.clouds.ground_mask import GROUND_SOURCE, GroundMask, MaskTally
from sim.clouds.human import FLYING, human_rows, judge_chips
from sim.clouds.judged import OURS, open_candidate
from sim.clouds.outline import GROUND, ground_classes
from sim.clouds.samples import data_folder, load_human_chips
from sim.ground.cloud_net import COARSE_FROM_M, LEAST_PX, GroundNet, Opened, open_ground_net

EDGE = SHIPPED / "edge"


class Asked:
    """In the place of engine and network: bright blue is thick cloud, and what it was asked is kept."""

    def __init__(self, classes: int = 4) -> None:
        self.classes, self.pictures, self.loads = classes, [], []

    def load(self, path: Path, require_int8: bool = False, shape: Any = None) -> "Asked":
        self.loads.append(0)
        return self

    def run(self, *inputs: np.ndarray) -> list[np.ndarray]:
        self.pictures.append(inputs[0])
        told = np.zeros((1, self.classes, *inputs[0].shape[2:]), np.float32)
        told[0, THICK] = inputs[0][0, 0] > 5000
        told[0, CLEAR] = 1.0 - told[0, THICK]
        return [told]


def net_of(asked: Asked, places: tuple[int, ...] = ()) -> GroundNet:
    return GroundNet(Path("clouds.onnx"), asked, places)  # type: ignore[arg-type]


def test_a_picture_is_mirrored_where_it_ends_and_no_data_is_dark() -> None:
    asked = Asked()
    dn = np.random.default_rng(0).integers(1, 9000, (4, 40, 60)).astype(np.uint16)
    valid = np.ones((40, 60), bool)
    valid[:, :5] = False
    told = net_of(asked).probabilities(dn, valid, 10.0)
    (shown,) = asked.pictures
    assert told.shape == (4, 40, 60) and shown.shape == (1, 4, LEAST_PX, LEAST_PX) and shown.dtype == np.float32
    np.testing.assert_array_equal(shown[0, :, :40, 5:60], dn[:, :, 5:])
    np.testing.assert_array_equal(shown[0, :, 40:80, 5:60], dn[:, ::-1, 5:])
    assert not shown[0, :, :40, :5].any()


@pytest.mark.parametrize("gsd_m", [COARSE_FROM_M, 120.0])
def test_coarse_pixels_are_shown_four_times_each_so_that_none_are_averaged(gsd_m: float) -> None:
    asked = Asked()
    dn = np.random.default_rng(1).integers(1, 9000, (4, 150, 140)).astype(np.uint16)
    told = net_of(asked).probabilities(dn, np.ones((150, 140), bool), gsd_m)
    (shown,) = asked.pictures
    assert shown.shape == (1, 4, 320, 288)
    averaged = shown[0, :, :300, :280].reshape(4, 150, 2, 140, 2).mean(axis=(2, 4))
    np.testing.assert_array_equal(averaged, dn)
    np.testing.assert_array_equal(told[THICK], dn[0] > 5000)


@pytest.mark.parametrize(("px", "side"), [(256, 256), (257, 288), (384, 384), (20, 256)])
def test_sides_are_such_as_the_network_halves(px: int, side: int) -> None:
    asked = Asked()
    net_of(asked).probabilities(np.ones((4, px, px), np.uint16), np.ones((px, px), bool), 0.0)
    assert asked.pictures[0].shape[2:] == (side, side)


def test_bands_are_found_by_role() -> None:
    asked = Asked()
    dn = np.arange(6, dtype=np.uint16)[:, None, None] * np.ones((1, 8, 8), np.uint16)
    net_of(asked, (5, 3, 1, 0)).probabilities(dn, np.ones((8, 8), bool), 10.0)
    assert [picture[0, :, 0, 0].tolist() for picture in asked.pictures] == [[5, 3, 1, 0]]


def test_threads_share_few_opened_networks_and_none_is_asked_by_two_at_once() -> None:
    class Alone(Asked):
        busy = 0

        def load(self, path: Path, require_int8: bool = False, shape: Any = None) -> "Asked":
            self.loads.append(0)
            opened = Alone()
            opened.pictures = self.pictures
            return opened

        def run(self, *inputs: np.ndarray) -> list[np.ndarray]:
            self.busy += 1
            assert self.busy == 1
            time.sleep(0.005)
            self.busy -= 1
            return super().run(*inputs)

    asked = Alone()
    net = GroundNet(Path("clouds.onnx"), asked, opened=(Opened(), Opened()))  # type: ignore[arg-type]
    dn, whole = np.ones((4, 8, 8), np.uint16), np.ones((8, 8), bool)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: net.probabilities(dn, whole, 10.0), range(12)))
    assert len(asked.loads) == 2 and len(asked.pictures) == 12


def test_a_network_that_cannot_be_opened_fails_for_every_thread() -> None:
    class Broken(Asked):
        def load(self, path: Path, require_int8: bool = False, shape: Any = None) -> "Asked":
            raise BundleError("cannot load this network")

    net = net_of(Broken())
    with ThreadPoolExecutor(3) as pool:
        given = np.ones((4, 8, 8), np.uint16), np.ones((8, 8), bool), 10.0
        asked = [pool.submit(net.probabilities, *given) for _ in range(3)]
    assert all(isinstance(one.exception(timeout=10.0), BundleError) for one in asked)


def test_another_network_is_refused() -> None:
    with pytest.raises(BundleError, match=r"gives .*, wanted 4 classes of every pixel"):
        net_of(Asked(classes=3)).probabilities(np.ones((4, 8, 8), np.uint16), np.ones((8, 8), bool), 10.0)


def test_it_draws_in_place_of_the_network_that_flies() -> None:
    dn = np.full((4, 64, 64), 1000, np.uint16)
    dn[0, 20, 20] = 9000
    valid = np.ones((64, 64), bool)
    valid[:, :3] = False
    mask = GroundMask(None, 64, own=net_of(Asked()))
    found = mask.judge(dn, valid, 0.0)  # of unknown pixels nothing grows
    assert mask.source == GROUND_SOURCE and (found[:, :3] == NO_CLASS).all()
    assert np.argwhere(found == THICK).tolist() == [[20, 20]] and (found == CLEAR).sum() == 64 * 61 - 1
    assert MaskTally(mask).summary()["mask_source"] == GROUND_SOURCE


def drawn(haze: tuple[int, int], thick: tuple[int, int, float], shadow: tuple[int, int, float]) -> list[int]:
    """Classes along a row of even ground of 10 m pixels: columns under haze, of a probability of cloud, of shadow."""
    dn = np.full((4, 128, 128), 700, np.uint16)
    dn[:, :, slice(*haze)] += 1000
    told = np.zeros((4, 128, 128), np.float32)
    told[THICK][:, thick[0] : thick[1]] = thick[2]
    told[SHADOW][:, shadow[0] : shadow[1]] = shadow[2]
    told[CLEAR] = 1.0 - told.sum(axis=0)
    valid = np.ones((128, 128), bool)
    valid[:, 120:] = False
    return [int(value) for value in ground_classes(told, dn, valid, 10.0)[64]]


def test_the_ground_s_word_is_outlined_by_haze_and_grown_by_40_m() -> None:
    found = drawn((0, 30), (0, 10, 0.7), (0, 0, 0.0))
    assert [value in (THICK, THIN) for value in found[:120]] == [True] * 34 + [False] * 86
    assert found[120:] == [NO_CLASS] * 8


def test_cloud_grows_over_what_is_surely_shadow_only_by_the_rim() -> None:
    rim = round(GROUND.rim_m / 10.0)  # type: ignore[operator]
    found = drawn((0, 20), (0, 20, 0.95), (20, 40, 0.6))
    assert not {CLEAR, SHADOW} & set(found[20 : 20 + rim]) and found[20 + rim : 40] == [SHADOW] * (20 - rim)
    unsure = drawn((0, 20), (0, 20, 0.95), (20, 40, 0.4))
    assert not {CLEAR, SHADOW} & set(unsure[20:24]) and unsure[24:40] == [SHADOW] * 16


def test_the_ground_s_shadow_is_likelier_than_clear_and_near_cloud() -> None:
    above = GROUND.shadow_above
    assert drawn((0, 20), (0, 20, 0.9), (40, 60, above + 0.01))[40:60] == [SHADOW] * 20
    assert drawn((0, 20), (0, 20, 0.9), (40, 60, above - 0.01))[40:60] == [CLEAR] * 20
    assert drawn((0, 0), (0, 0, 0.0), (40, 60, above + 0.01))[40:60] == [CLEAR] * 20  # of no cloud


def test_the_bundle_s_ground_network_is_the_one_that_left_out_the_same_sites_as_the_one_that_flies(
    tmp_path: Path,
) -> None:
    engine = open_engine("onnxruntime")
    manifest = json.loads((EDGE / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["ground_clouds"]["split"]["test"] == manifest["clouds"]["split"]["test"]
    assert (EDGE / GROUND_CLOUDS_FILE).stat().st_size <= 2_600_000
    assert open_candidate("edge", engine).ground is not None
    for name in ("flight/clouds.onnx", GROUND_CLOUDS_FILE):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes((EDGE / name).read_bytes())
    manifest["ground_clouds"]["split"]["test"] = ["amsterdam"]
    (tmp_path / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    with pytest.raises(InputError, match="left out other sites"):
        open_candidate(tmp_path, engine)


def test_every_shipped_bundle_with_a_gate_has_it_and_both_runtimes_tell_the_same() -> None:
    dn = np.random.default_rng(1).integers(200, 3000, (12, 256, 256)).astype(np.uint16)
    dn[:, 40:120, 30:200] += 5000
    for name in sorted(folder.name for folder in SHIPPED.iterdir() if (folder / "manifest.json").is_file()):
        bundle = load_bundle(name)
        if "clouds" not in bundle.manifest:
            assert open_ground_net(bundle, open_engine("openvino")) is None
            continue
        told = []
        for engine in ("openvino", "onnxruntime"):
            net = open_ground_net(bundle, open_engine(engine))
            assert net is not None, name
            told.append(net.probabilities(dn[: len(bundle.bands)], np.ones((256, 256), bool), 10.0))
        np.testing.assert_allclose(told[0], told[1], atol=1e-3)
        np.testing.assert_allclose(told[0].sum(axis=0), 1.0, atol=1e-4)


@pytest.mark.realdata
def test_people_s_chips_are_drawn_within_the_bars() -> None:
    """IoU >= .82, recall >= .87 at precision >= .93; the Landsat chip >= .85. The two chips set the outline."""
    try:
        chips = load_human_chips(data_folder())
    except InputError as missing:
        pytest.skip(str(missing))
    judged = judge_chips(chips, open_candidate("edge", open_engine("openvino")))
    rows = {(row["source"], row["method"]): row for row in human_rows(judged) if row["chip"] == "all chips"}
    ours, flying = rows["human_cloud_512", OURS], rows["human_cloud_512", FLYING]
    assert ours["iou"] >= 0.82 and ours["precision"] >= 0.93 and ours["recall"] >= 0.87
    assert ours["iou"] > flying["iou"]
    assert rows["landsat8_human_384", OURS]["iou"] >= 0.85
