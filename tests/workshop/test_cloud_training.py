"""The cloud network's samples and training: labels by hand, sites kept out, a run from data to ONNX in seconds."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from export import cloud_data, clouds
from export.cloud_data import CloudPool, Labelled, Sampler
from export.cloud_network import CloudUnet, as_cells, macs_per_pixel
from export.data import data_folder
from export.qat_layers import INPUT_SCALE
from export.train import load_recipe
from payload import clouds as flight
from payload.clouds import CloudNet, CloudSettings
from payload.engine import open_engine
from payload.errors import InputError
from payload.tiles import Tile

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
        "widths": [8, 8, 8], "batch": 2, "crop_px": SIZE, "float_steps": 3, "quantised_steps": 2,
        "rotations": {"drawn": {"validation": ["labelled 2", "clear 1"], "test": ["labelled 3", "clear 2"]}},
    }  # fmt: skip


def test_scl_becomes_targets_by_hand() -> None:
    scl = np.full((12, 12), 4, np.uint8)
    scl[:, 6:] = 9  # cells 3.. are cloud
    scl[0, 0] = 5  # vegetation beside bare soil: both clear, so the cell counts
    scl[2, 3] = 9  # cell (1, 1) is half and half: it does not
    scl[10:, 4:6] = 8  # medium confidence next to clear ground: ignored
    scl[10:, 10:] = 8  # medium confidence within cloud: counts for .6
    scl[4, 0] = 0  # no data
    targets, weights = cloud_data.scl_targets(scl)
    assert targets.shape == (4, 6, 6)
    found = weights[0, 0], weights[1, 1], weights[5, 2], weights[5, 5], weights[2, 0]
    assert found == pytest.approx((1, 0, 0, 0.6, 0))
    assert targets[:, 3, 4].tolist() == [0.0, 1.0, 0.0, 0.0]
    np.testing.assert_allclose(targets[:, 5, 5], (0.1, 0.6, 0.3, 0.0), rtol=1e-6)


@settings(deadline=None)  # a shared machine may stall any example
@given(st.integers(0, 200))
def test_a_drawn_cloud_has_exact_labels(seed: int) -> None:
    rng = np.random.default_rng(seed)
    clear = ground(1, "s").dn
    dn, targets, weights = cloud_data.composite(clear, drawn_pool(), rng)
    assert dn.shape == clear.shape
    assert ((targets.sum(axis=0) == 1.0) | (weights == 0.0)).all()
    change = (dn / clear).reshape(4, SIZE // 2, 2, SIZE // 2, 2).mean(axis=(2, 4))  # per cell
    faintest = 1.0 - 0.1 * 0.9 - 0.05  # a tenth of shadow at its deepest, a twentieth of cloud; brightening is free
    assert (change[:, targets[0] == 1.0] > faintest).all()
    shadow = change[3, targets[3] == 1.0]
    assert shadow.size == 0 or np.median(shadow) < 0.9  # at least .45 x 1.05 x .45 darker where no wisp lies on it


@settings(deadline=None)  # a shared machine may stall any example
@given(st.integers(0, 200))
def test_pale_ground_keeps_its_texture(seed: int) -> None:
    clear = ground(2, "s").dn
    pale = cloud_data.bleach(clear, np.random.default_rng(seed)).astype(float)
    assert np.median(pale) > 1200
    variation = pale.mean(axis=0).std() / pale.mean()
    assert variation == pytest.approx(clear.mean(axis=0).std() / clear.mean(), rel=0.5)


def test_even_ground_is_not_bleached_into_stratus() -> None:
    even = np.full((4, SIZE, SIZE), 800, np.uint16)
    np.testing.assert_array_equal(cloud_data.bleach(even, np.random.default_rng(0)), even)


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
    assert (planes.shape, planes.dtype) == ((6, 8, SIZE, SIZE), np.uint8)
    assert targets.shape == (6, 4, SIZE // 2, SIZE // 2)
    assert weights.shape == (6, SIZE // 2, SIZE // 2)


def test_cells_come_out_in_the_payloads_order() -> None:
    logits = np.random.default_rng(0).integers(-100, 100, (1, 16, 5, 5)).astype(np.int8)
    net = CloudNet(None, CloudSettings(logit_step=0.125))  # type: ignore[arg-type]
    wanted = torch.softmax(as_cells(torch.tensor(logits, dtype=torch.float64)) * 0.125, 1)[0].numpy()
    np.testing.assert_allclose(flight.probabilities(logits[0], net, 20), wanted, atol=4 * 2.0**-20)


def test_the_recipe_keeps_within_its_size() -> None:
    network = clouds.build(load_recipe("clouds"), quantised=False)
    assert sum(p.numel() for p in network.parameters()) <= 100_000
    assert macs_per_pixel(network) <= 3000


def test_macs_by_hand() -> None:
    network = CloudUnet((8, 8, 8), quantised=False)
    # per pixel: stem 8*16*8/16 = 64; near 8*9/16 + 8*8/16 = 8.5; down8 8*9*8/64 = 9; middle 2 * (72 + 64) / 64 = 4.25
    # down16 (72 + 64) / 256 = .53125; far 3 * (200 + 64) / 256 = 3.09375; up8 64/256 + (64 + 72 + 64)/64 = 3.375
    # up4 64/64 + (64 + 72 + 64) / 16 = 13.5; head 8*16/16 = 8
    assert macs_per_pixel(network) == pytest.approx(64 + 8.5 + 9 + 4.25 + 0.53125 + 3.09375 + 3.375 + 13.5 + 8)


def test_from_drawn_tiles_to_a_network_that_flies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clouds, "load_cloud_pool", drawn_pool)
    recipe = small_recipe()
    table = clouds.run(recipe, "drawn", tmp_path)
    assert json.loads((tmp_path / "clouds.json").read_text(encoding="utf-8"))["split"] == recipe["rotations"]["drawn"]
    assert table["validation"]["tiles"] == 2
    assert 0.0 <= table["validation"]["false_discards_with_pale"] <= 1.0
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
    network = clouds.build(recipe, quantised=False)
    checkpoint = tmp_path / "float.safetensors"
    clouds.train(network, sampler, recipe, 3, 1e-3, checkpoint)
    assert int(load_file(checkpoint)["step"]) == 3
    again = clouds.build(recipe, quantised=False)
    clouds.train(again, sampler, recipe, 3, 1e-3, checkpoint)  # nothing left to do: the average comes back
    x = torch.rand(1, 8, SIZE, SIZE) * 255 * INPUT_SCALE
    with torch.no_grad():
        torch.testing.assert_close(network.eval()(x), again.eval()(x))


def test_an_unknown_rotation_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="choose one of"):
        clouds.run(small_recipe(), "nowhere", tmp_path)


@pytest.mark.realdata
def test_every_site_is_tested_once_and_never_where_it_is_trained_or_validated() -> None:
    try:
        data_folder()
    except InputError:
        pytest.skip("no data folder next to the checkout")
    rotations = load_recipe("clouds")["rotations"]
    pool = cloud_data.load_cloud_pool()
    everywhere = sorted({t.site for t in pool.labelled + pool.clear})
    assert sorted(site for split in rotations.values() for site in split["test"]) == everywhere
    for split in rotations.values():
        assert not set(split["test"]) & set(split["validation"])
        out = set(split["test"]) | set(split["validation"])
        left = pool.without(out)
        assert {t.site for t in left.labelled + left.clear} == set(everywhere) - out
