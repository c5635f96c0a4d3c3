"""The cloud network's samples and training: labels by hand, sites kept out, a run from data to ONNX in seconds."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors.torch import load_file

from export.clouds import data, train
from export.clouds.data import CloudPool, Labelled, Sampler
from export.clouds.network import CloudUnet, as_cells, macs_per_pixel
from export.data import data_folder
from export.graphs.graph import load_graph
from export.graphs.qat_layers import INPUT_SCALE
from export.recipe import load_recipe
from payload.clouds import gate as flight
from payload.clouds.gate import CloudNet, CloudSettings
from payload.engine import open_engine
from payload.errors import InputError
from payload.tiles import Tile
from sim.clouds.samples import CloudSample

SIZE = 64


def ground(seed: int, site: str) -> Labelled:
    rng = np.random.default_rng(seed)
    base = np.array((500.0, 800.0, 750.0, 2800.0))[:, None, None]
    fields = rng.normal(1.0, 0.25, (4, 8, 8)).repeat(SIZE // 8, 1).repeat(SIZE // 8, 2)
    return Labelled((base * fields).clip(50, None).astype(np.uint16), np.zeros((SIZE, SIZE), np.uint8), site, 10)


def half_cloudy(seed: int, site: str) -> Labelled:
    tile = ground(seed, site)
    dn, scl = tile.dn.copy(), np.full((SIZE, SIZE), 4, np.uint8)
    dn[:, : SIZE // 2] = np.random.default_rng(seed).normal(6000, 150, (4, SIZE // 2, SIZE))
    scl[: SIZE // 2] = 9
    return Labelled(dn, scl, site, 10)


def drawn_pool() -> CloudPool:
    labelled = [half_cloudy(i, f"labelled {i}") for i in range(4)]
    return CloudPool(labelled, [ground(9 + i, f"clear {i}") for i in range(4)], [half_cloudy(3, "x").dn])


def small_recipe() -> dict[str, Any]:
    recipe = load_recipe("clouds")
    return recipe | {
        "widths": [8, 8], "batch": 2, "crop_px": SIZE, "float_steps": 3, "quantised_steps": 2,
        "rotations": {"drawn": {"test": ["labelled 3", "clear 2"], "folds": [["labelled 2", "clear 1"], ["clear 0"]]}},
    }  # fmt: skip


def test_scl_becomes_targets_by_hand() -> None:
    scl = np.full((12, 12), 4, np.uint8)
    scl[:, 6:] = 9  # cells 3.. are cloud
    scl[0, 0] = 5  # vegetation beside bare soil: both clear, so the cell counts
    scl[2, 3] = 9  # cell (1, 1) is half and half: it does not
    scl[10:, 6:8] = 8  # medium confidence next to clear ground: ignored
    scl[10:, 10:] = 8  # medium confidence within cloud: counts for .7
    scl[4, 0] = 0  # no data
    scl[6:8, 0:2] = 10  # thin cirrus: no statement
    targets, weights = data.scl_targets(scl)
    assert targets.shape == (4, 6, 6)
    found = weights[0, 0], weights[1, 1], weights[5, 3], weights[5, 5], weights[2, 0], weights[3, 0]
    assert found == pytest.approx((1, 0, 0, 0.7, 0, 0))
    assert targets[:, 3, 4].tolist() == [0.0, 1.0, 0.0, 0.0]
    np.testing.assert_allclose(targets[:, 5, 5], (0.1, 0.6, 0.3, 0.0), rtol=1e-6)


@settings(deadline=None)  # a shared machine may stall any example
@given(hnp.arrays(np.uint8, (9, 12), elements=st.integers(0, 11)))
def test_what_is_learnt_from_is_what_is_measured_against(scl: np.ndarray) -> None:
    sample = CloudSample("n", "s", np.zeros((4, 9, 12), np.uint16), scl, 10)
    for learnt, measured in zip(data.firm(scl), sample.reference("firm"), strict=True):
        np.testing.assert_array_equal(learnt, measured)


@settings(deadline=None)  # a shared machine may stall any example
@given(st.integers(0, 200))
def test_a_drawn_cloud_has_exact_labels(seed: int) -> None:
    rng = np.random.default_rng(seed)
    clear = data.averages(ground(1, "s").dn)
    dn, targets, weights = data.composite(clear, [], rng)
    assert dn.shape == clear.shape
    assert ((targets.sum(axis=0) == 1.0) | (weights == 0.0)).all()
    change = dn / clear
    faintest = 1.0 - 0.1 * 0.9 - 0.05  # a tenth of shadow at its deepest, a twentieth of cloud; brightening is free
    assert (change[:, targets[0] == 1.0] > faintest).all()
    shadow = change[3, targets[3] == 1.0]
    assert shadow.size == 0 or np.median(shadow) < 0.95  # at least .45 x 1.05 x .45 darker where no wisp lies on it


@settings(deadline=None)  # a shared machine may stall any example
@given(st.integers(0, 200))
def test_pale_ground_keeps_its_texture(seed: int) -> None:
    clear = data.averages(ground(2, "s").dn)
    pale = data.bleach(clear, np.random.default_rng(seed))
    assert np.median(pale) > 1000
    variation = pale.mean(axis=0).std() / pale.mean()
    assert variation == pytest.approx(clear.mean(axis=0).std() / clear.mean(), rel=0.5)


def test_even_ground_is_not_bleached_into_stratus() -> None:
    even = np.full((4, SIZE, SIZE), 800, np.float32)
    np.testing.assert_array_equal(data.bleach(even, np.random.default_rng(0)), even)


def test_roofs_are_small_and_bright() -> None:
    even = np.full((4, SIZE, SIZE), 800, np.float32)
    built = data.roofs(even, np.random.default_rng(1))
    changed = (built != even).any(axis=0)
    assert 0 < changed.mean() < 0.2
    assert built[:, changed].min() > 1500


def test_left_out_sites_give_no_sample_and_no_texture() -> None:
    overcast = Labelled(np.full((4, 128, 128), 5000, np.uint16), np.full((128, 128), 9, np.uint8), "labelled 3", 10)
    pool = drawn_pool()
    pool = CloudPool([*pool.labelled, overcast], pool.clear, pool.overcast)
    assert len(pool.without(set()).overcast) == len(pool.overcast) + 1
    kept = pool.without({"labelled 3", "clear 2"})
    assert {t.site for t in kept.labelled + kept.clear}.isdisjoint({"labelled 3", "clear 2"})
    assert len(kept.overcast) == len(pool.overcast)


def test_batches_are_the_same_for_the_same_seed() -> None:
    sampler = Sampler(drawn_pool(), small_recipe(), CloudSettings())
    one, other = (sampler.batch(6, np.random.default_rng(5)) for _ in range(2))
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a, b)
    planes, targets, weights = one
    count, n = (12, SIZE // 4) if planes.shape[0] == 12 else (6, SIZE // 2)  # one size or the other
    assert (planes.shape, planes.dtype) == ((count, 8, n, n), np.uint8)
    assert targets.shape == (count, 4, n, n)
    assert weights.shape == (count, n, n)


def test_small_tiles_are_sewn_where_there_is_none_large_enough() -> None:
    recipe = small_recipe() | {"crop_px": 2 * SIZE, "small_share": 0.0}
    pool = drawn_pool()
    large = [Labelled(t.dn.repeat(2, 1).repeat(2, 2), t.scl.repeat(2, 0).repeat(2, 1), t.site, 10) for t in pool.clear]
    sampler = Sampler(CloudPool(pool.labelled, large, []), recipe, CloudSettings())
    planes, targets, _ = sampler.batch(4, np.random.default_rng(0))
    assert planes.shape == (4, 8, SIZE, SIZE)
    seams = [np.unique(np.flatnonzero(np.diff(t[1].mean(axis=1)))) for t in targets]  # where cloud begins and ends
    assert any(len(s) >= 2 for s in seams)


def test_cells_come_out_in_the_payloads_order() -> None:
    logits = np.random.default_rng(0).integers(-100, 100, (1, 64, 5, 5)).astype(np.int8)
    net = CloudNet(None, CloudSettings(logit_step=0.125))  # type: ignore[arg-type]
    wanted = torch.softmax(as_cells(torch.tensor(logits, dtype=torch.float64)) * 0.125, 1)[0].numpy()
    mask = flight.CloudMask(flight.probabilities(logits[0], net, 40), np.ones((40, 40), bool))
    np.testing.assert_allclose(mask.cells, wanted, atol=4 * 2.0**-20)


def test_the_recipe_keeps_within_its_size() -> None:
    network = train.build(load_recipe("clouds"), quantised=False)
    assert sum(p.numel() for p in network.parameters()) <= 100_000
    assert macs_per_pixel(network) <= 3000


def test_macs_by_hand() -> None:
    network = CloudUnet((8, 8), quantised=False)
    # per pixel: stem 8*16*8/64 = 16; near (72 + 64)/64 = 2.125; down16 (72 + 64)/256 = .53125
    # middle 2 * (200 + 64)/256 = 2.0625; down32 72/1024 = .0703125; far 264/1024 = .2578125
    # up16 64/1024 + 64/256 = .3125; up8 64/256 + 64/64 = 1.25; refine 2.125; head 8*64/64 = 8
    assert macs_per_pixel(network) == pytest.approx(
        16 + 2.125 + 0.53125 + 2.0625 + 0.0703125 + 0.2578125 + 0.3125 + 1.25 + 2.125 + 8
    )


def seen(p: float, cloudy: bool, pale: bool = False, witnessed: bool = True) -> train.Seen:
    """A tile of one probability of cloud throughout."""
    logits = np.zeros((4, 4, 4))
    logits[1:] = -30.0
    logits[1] = np.log(p / (1.0 - p))
    return train.Seen(
        logits, np.full((4, 4), cloudy), np.ones((4, 4), bool), np.full((4, 4), witnessed), not pale, pale
    )


def calibrated(p: float, temperature: float) -> float:
    return float(1.0 / (1.0 + (1.0 / p - 1.0) ** (1.0 / temperature)))


def test_thresholds_keep_good_tiles_before_they_find_cloud() -> None:
    plain = [*[seen(0.8, True)] * 10, *[seen(0.1, False)] * 10]
    found, figures = train.settle(plain, CloudSettings())
    cloud = calibrated(0.8, found.temperature)
    assert cloud - 0.011 < found.sure_above < cloud  # the most careful one that still finds the cloud
    assert (figures["tile_accuracy"], figures["tiles"]) == (1.0, 20)

    found, figures = train.settle([*plain, seen(0.9, False)], CloudSettings())
    assert found.sure_above >= calibrated(0.9, found.temperature) - 1e-9  # never at the price of a good tile
    assert figures["false_discards"] == 0.0

    found, figures = train.settle([*plain, seen(0.9, False, witnessed=False)], CloudSettings())
    assert found.sure_above < calibrated(0.8, found.temperature)  # the second witness has acquitted it
    assert figures["false_discards"] == 0.0


def test_a_tile_that_is_not_judged_is_never_cloud() -> None:
    blank = train.Seen(None, *(np.ones((2, 2), bool) for _ in range(3)))
    assert not blank.probability(1.0).any()


def test_from_drawn_tiles_to_a_network_that_flies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, "load_cloud_pool", drawn_pool)
    recipe = small_recipe()
    table = train.run(recipe, "drawn", tmp_path)
    assert json.loads((tmp_path / "clouds.json").read_text(encoding="utf-8"))["split"] == recipe["rotations"]["drawn"]
    assert table["validation"]["tiles"] == 1
    assert 0.0 <= table["validation"]["pale_discards"] <= 1.0
    assert load_graph(tmp_path / "clouds.onnx", free_px=256).shapes["tile"] == (1, 8, 128, 128)
    settings = flight.read_settings(json.loads((tmp_path / "clouds.json").read_text(encoding="utf-8")))
    tile = Tile(0, 0, half_cloudy(5, "s").dn, np.ones((SIZE, SIZE), bool))
    masks = [
        flight.detect_clouds(tile, CloudNet(open_engine(e, 1).load(tmp_path / "clouds.onnx", True), settings))
        for e in ("openvino", "onnxruntime")
    ]
    np.testing.assert_array_equal(masks[0].cells, masks[1].cells)
    assert masks[0].cells.std() > 0


def test_a_stopped_run_goes_on_where_it_stopped(tmp_path: Path) -> None:
    recipe, sampler = small_recipe(), Sampler(drawn_pool(), small_recipe(), CloudSettings())
    network = train.build(recipe, quantised=False)
    checkpoint = tmp_path / "float.safetensors"
    train.train(network, sampler, recipe, 3, 1e-3, checkpoint)
    assert int(load_file(checkpoint)["step_no"]) == 3
    again = train.build(recipe, quantised=False)
    train.train(again, sampler, recipe, 3, 1e-3, checkpoint)  # nothing left to do: the average comes back
    x = torch.rand(1, 8, SIZE, SIZE) * 255 * INPUT_SCALE
    with torch.no_grad():
        torch.testing.assert_close(network.eval()(x), again.eval()(x))


def test_an_unknown_rotation_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="choose one of"):
        train.run(small_recipe(), "nowhere", tmp_path)


@pytest.mark.realdata
def test_every_site_is_tested_once_and_never_where_it_is_trained_or_validated() -> None:
    try:
        data_folder()
    except InputError:
        pytest.skip("no data folder next to the checkout")
    rotations = load_recipe("clouds")["rotations"]
    pool = data.load_cloud_pool()
    everywhere = sorted({t.site for t in pool.labelled + pool.clear})
    assert sorted(site for split in rotations.values() for site in split["test"]) == everywhere
    for split in rotations.values():
        folds = [site for fold in split["folds"] for site in fold]
        assert sorted(folds + split["test"]) == everywhere  # every other site helps to choose, once
        left = pool.without(set(split["test"]) | set(split["folds"][0]))
        assert {t.site for t in left.labelled + left.clear} == set(folds) - set(split["folds"][0])
        for group in (split["test"], *split["folds"]):  # the same ground on the same days
            assert ("mscomposer_T32TMT" in group) == ("mscomposer_T32TNT" in group)
