"""The cloud network's windows, samples and training: labels by hand, sites kept out, a run from windows to ONNX."""

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
from toys import BrightIsCloud

from export.clouds import drawn, references, sampler, teacher, thresholds, train, windows
from export.clouds.network import CloudUnet, as_cells, macs_per_pixel
from export.clouds.sampler import T_CLEAR, T_CLOUD, Sampler, targets_of
from export.clouds.thresholds import Judged
from export.clouds.windows import CLASSIFIED, CLEAR, DRAWN, NO_SCL, UNKNOWN, WINDOW_PX, Window
from export.data import data_folder
from export.graphs.graph import load_graph
from export.graphs.qat_layers import INPUT_SCALE
from export.recipe import load_recipe
from payload.clouds import gate as flight
from payload.clouds.mask import CloudMask
from payload.clouds.network import CloudNet, probabilities, read_settings
from payload.clouds.planes import CloudSettings, input_planes
from payload.engine import open_engine
from payload.errors import InputError
from payload.tiles import Tile
from sim.clouds.samples import CloudSample

SIZE = 64


def ground(seed: int, size: int = SIZE) -> np.ndarray:
    rng = np.random.default_rng(seed)
    base = np.array((500.0, 800.0, 750.0, 2800.0), np.float32)[:, None, None]
    fields = rng.normal(1.0, 0.25, (4, 8, 8)).repeat(size // 8, 1).repeat(size // 8, 2)
    return (base * fields).clip(50, None).astype(np.float32)


def window(kind: int, site: str, seed: int = 0) -> Window:
    """Half of it bright; classified as cloud there, or drawn as cloud, by its kind."""
    dn, half = ground(seed, WINDOW_PX), np.s_[..., : WINDOW_PX // 2, :]
    opacity, scl = np.zeros((WINDOW_PX, WINDOW_PX), np.float32), np.full((WINDOW_PX, WINDOW_PX), NO_SCL, np.uint8)
    if kind == CLASSIFIED:
        scl[:], scl[half] = 4, 9
    if kind == DRAWN:
        opacity[half] = 1.0
    if kind != CLEAR:
        dn[half] = 6000.0
    return Window(dn, scl, opacity, np.zeros_like(opacity), site, 10, "L2A", kind)


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pool")
    kinds = [CLASSIFIED, CLEAR, DRAWN, UNKNOWN] * 2
    drawn_windows = [window(kind, f"site {i}", i) for i, kind in enumerate(kinds)]
    teacher.write_part(folder / "real000.npz", drawn_windows, BrightIsCloud())  # type: ignore[arg-type]
    return folder


def small_recipe() -> dict[str, Any]:
    return load_recipe("clouds") | {
        "widths": [8, 8], "batch": 2, "float_steps": 3, "quantised_steps": 2,
        "rotations": {"drawn": {"test": ["site 3", "site 5"]}},
    }  # fmt: skip


def test_what_is_kept_of_a_window(pool: Path) -> None:
    kept = teacher.load_labelled(pool)
    n = WINDOW_PX // 2
    assert (kept["dn"].shape, kept["teacher"].shape, kept["scl"].shape) == ((8, 4, n, n), (8, 3, n, n), (8, n, n))
    assert kept["teacher"][0, T_CLOUD, : n // 2].min() == 255 == kept["teacher"][0, T_CLEAR, n // 2 :].min()
    assert kept["scl"][0, 0, 0] == 9
    assert (kept["scl"][1] == NO_SCL).all()
    assert kept["opacity"][2, 0, 0] == 255
    mixed = window(CLASSIFIED, "s")
    mixed.scl[0, 0] = 4
    assert teacher.label(mixed, BrightIsCloud())["scl"][0, 0] == NO_SCL  # type: ignore[arg-type]


def test_left_out_sites_give_no_sample(pool: Path, tmp_path: Path) -> None:
    left = teacher.load_labelled(pool, ["site 3", "site 5"])
    assert set(left["site"]) == {f"site {i}" for i in (0, 1, 2, 4, 6, 7)}
    with pytest.raises(InputError, match="no labelled windows"):
        teacher.load_labelled(tmp_path)


def told(kind: int, cloud: float, scl: int = NO_SCL, opacity: float = 0.0, cast: float = 0.0) -> sampler.Targets:
    """The targets of one cell of which the teacher says `cloud`."""
    shares = np.round(np.array((1.0 - cloud, cloud, 0.0)) * 255).astype(np.uint8).reshape(3, 1, 1)
    one = (np.full((1, 1), round(255 * value), np.uint8) for value in (opacity, cast))
    return targets_of(shares, np.full((1, 1), scl, np.uint8), *one, kind)


def test_targets_by_hand() -> None:
    def cell(found: sampler.Targets) -> list[float]:
        return [round(float(v), 2) for v in (*found.classes[:, 0, 0], found.weights[0, 0])]

    assert cell(told(CLASSIFIED, 0.8, scl=9)) == [0.17, 0.83, 0.0, 1.3]  # both say cloud: the teacher counts most
    assert cell(told(CLASSIFIED, 0.8, scl=4)) == [0.32, 0.68, 0.0, 0.6]  # they differ: counts less
    assert cell(told(CLASSIFIED, 0.8, scl=7)) == [0.2, 0.8, 0.0, 0.7]  # unclassified: the teacher alone
    assert cell(told(CLEAR, 1.0)) == [0.8, 0.2, 0.0, 1.0]  # an eye has seen that there is no cloud
    assert cell(told(DRAWN, 1.0, opacity=0.5)) == [0.0, 1.0, 0.0, 1.3]
    assert cell(told(DRAWN, 1.0, cast=0.6)) == [0.0, 0.4, 0.6, 0.6]
    assert cell(told(DRAWN, 0.6, opacity=0.1)) == [0.4, 0.6, 0.0, 0.5]  # faint: the teacher alone
    assert cell(told(UNKNOWN, 0.6)) == [0.4, 0.6, 0.0, 1.0]
    assert told(DRAWN, 1.0, opacity=0.4).thin.item() == 1.0 > told(DRAWN, 1.0, opacity=0.9).thin.item()


def test_the_loss_of_a_right_answer_is_least() -> None:
    def error(logits: tuple[float, ...], classes: tuple[float, ...], thin: float) -> float:
        cells = [torch.tensor(v, dtype=torch.float32).reshape(1, -1, 1, 1) for v in (logits, classes)]
        one = torch.ones(1, 1, 1)
        return float(sampler.loss(cells[0], (cells[1], one, thin * one, one)))

    assert error((0.0, 20.0, 0.0, 0.0), (0.0, 1.0, 0.0), 0.0) == pytest.approx(0.0, abs=1e-5)
    assert error((0.0, 0.0, 20.0, 0.0), (0.0, 1.0, 0.0), 1.0) == pytest.approx(0.0, abs=1e-5)
    assert error((0.0, 20.0, 0.0, 0.0), (0.0, 1.0, 0.0), 1.0) == pytest.approx(0.4 * 20.0, rel=1e-3)
    assert error((0.0, 0.0, 0.0, 20.0), (0.0, 0.0, 1.0), 0.0) == pytest.approx(0.0, abs=1e-5)
    assert error((20.0, 0.0, 0.0, 0.0), (0.0, 1.0, 0.0), 0.5) > 15.0


def test_batches_are_the_same_for_the_same_seed_and_planes_are_the_payloads(pool: Path) -> None:
    source = Sampler(teacher.load_labelled(pool), train.SETTINGS)
    one, other = (source.batch(np.random.default_rng(5), 2) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    planes, classes, weights, thin, thin_weights = one
    count, channels, n, _ = planes.shape
    assert channels == 12
    assert classes.shape == (count, 3, n, n)
    assert weights.shape == thin.shape == thin_weights.shape == (count, n, n)
    dn = ground(3, 128).round()
    cells = dn.reshape(4, 64, 2, 64, 2).mean(axis=(2, 4))
    wanted = input_planes(dn.astype(np.uint16), np.ones((128, 128), bool), train.SETTINGS)
    np.testing.assert_array_equal(source._planes(cells, None), wanted)


@settings(deadline=None, max_examples=30)  # a shared machine may stall any example
@given(st.integers(0, 200))
def test_a_drawn_cloud_changes_the_ground_only_where_it_is_or_casts_its_shadow(seed: int) -> None:
    clear = ground(1)
    dn, opacity, cast = drawn.compose(clear, [], np.ones((8, 8), np.float32), np.random.default_rng(seed))
    assert dn.shape == clear.shape
    assert opacity.shape == cast.shape == clear.shape[1:]
    assert 0.0 <= opacity.min() <= opacity.max() <= 1.0
    untouched = (opacity == 0.0) & (cast == 0.0)
    np.testing.assert_allclose(dn[:, untouched], clear[:, untouched])
    shaded = (opacity == 0.0) & (cast > 0.3)
    assert (dn[:, shaded] < clear[:, shaded]).all()


@settings(deadline=None)  # a shared machine may stall any example
@given(st.integers(0, 200))
def test_pale_ground_keeps_its_texture(seed: int) -> None:
    clear = ground(2)
    pale = drawn.bleach(clear, np.random.default_rng(seed))
    assert np.median(pale) > 1000
    variation = pale.mean(axis=0).std() / pale.mean()
    assert variation == pytest.approx(clear.mean(axis=0).std() / clear.mean(), rel=0.5)


def test_even_ground_is_not_bleached_into_stratus() -> None:
    even = np.full((4, SIZE, SIZE), 800, np.float32)
    np.testing.assert_array_equal(drawn.bleach(even, np.random.default_rng(0)), even)


def test_roofs_are_small_and_bright() -> None:
    even = np.full((4, SIZE, SIZE), 800, np.float32)
    built = drawn.roofs(even, np.random.default_rng(1))
    changed = (built != even).any(axis=0)
    assert 0 < changed.mean() < 0.2
    assert built[:, changed].min() > 1500


def test_tiles_of_one_picture_are_put_together_again() -> None:
    picture = np.arange(4 * 256 * 384).reshape(4, 256, 384)
    tiles = np.stack([picture[:, r : r + 128, c : c + 128] for r in (0, 128) for c in (0, 128, 256)])
    np.testing.assert_array_equal(windows.mosaic(tiles, 3), picture)
    alone = windows.mirrored(tiles[0])
    assert alone.shape == (4, WINDOW_PX, WINDOW_PX)
    np.testing.assert_array_equal(alone[:, :, 128:], alone[:, :, 127::-1])


@settings(deadline=None)  # a shared machine may stall any example
@given(hnp.arrays(np.uint8, (9, 12), elements=st.integers(0, 11)))
def test_what_thresholds_are_chosen_by_is_what_is_measured_against(scl: np.ndarray) -> None:
    sample = CloudSample("n", "s", np.zeros((4, 9, 12), np.uint16), scl, 10)
    for chosen, measured in zip(references.firm(scl), sample.reference("firm"), strict=True):
        np.testing.assert_array_equal(chosen, measured)


def test_cells_come_out_in_the_payloads_order() -> None:
    logits = np.random.default_rng(0).integers(-100, 100, (1, 16, 5, 5)).astype(np.int8)
    net = CloudNet(None, CloudSettings(cell_px=4, logit_step=0.125))  # type: ignore[arg-type]
    wanted = torch.softmax(as_cells(torch.tensor(logits, dtype=torch.float64)) * 0.125, 1)[0].numpy()
    mask = CloudMask(probabilities(logits[0], net, 40), np.ones((40, 40), bool))
    np.testing.assert_allclose(mask.cells, wanted, atol=4 * 2.0**-20)


def test_the_recipe_keeps_within_its_size() -> None:
    network = train.build(load_recipe("clouds"), quantised=False)
    assert sum(p.numel() for p in network.parameters()) <= 100_000
    assert macs_per_pixel(network) <= 1500


def test_macs_by_hand() -> None:
    network = CloudUnet((8, 8), quantised=False)
    # per pixel: stem 12*4*8/64 = 6; near (72 + 64)/64 = 2.125; down16 (72 + 64)/256 = .53125
    # middle 2 * (200 + 64)/256 = 2.0625; down32 72/1024 = .0703125; far 264/1024 = .2578125
    # up16 64/1024 + 64/256 = .3125; up8 64/256 + 64/64 = 1.25; refine 2.125; head 8*16/64 = 2
    assert macs_per_pixel(network) == pytest.approx(
        6 + 2.125 + 0.53125 + 2.0625 + 0.0703125 + 0.2578125 + 0.3125 + 1.25 + 2.125 + 2
    )


def judged(p: float, cloudy: bool, pale: bool = False, witnessed: bool = True) -> Judged:
    """A tile of one probability of cloud throughout."""
    return Judged(
        np.full((4, 4), np.log(p / (1.0 - p))), np.full((4, 4), witnessed), np.full((4, 4), float(cloudy)),
        np.ones((4, 4)), not pale, pale,
    )  # fmt: skip


def calibrated(p: float, temperature: float) -> float:
    return float(1.0 / (1.0 + (1.0 / p - 1.0) ** (1.0 / temperature)))


def test_the_gate_keeps_good_tiles_before_it_finds_cloud() -> None:
    plain = [*[judged(0.8, True)] * 10, *[judged(0.1, False)] * 10]
    temperature, sure_above, figures = thresholds.settle_gate(plain)
    assert sure_above < calibrated(0.8, temperature)
    assert (figures["tile_accuracy"], figures["tiles"], figures["let_through"]) == (1.0, 20, 0.0)

    temperature, sure_above, figures = thresholds.settle_gate([*plain, judged(0.9, False)])
    assert sure_above >= calibrated(0.9, temperature) - 0.011  # never at the price of a good tile
    assert (figures["false_discards"], figures["usable_lost"]) == (0.0, 0.0)
    assert figures["let_through"] == 1.0

    temperature, sure_above, figures = thresholds.settle_gate([*plain, judged(0.9, False, witnessed=False)])
    assert sure_above < calibrated(0.8, temperature)  # the second witness has acquitted it
    assert (figures["false_discards"], figures["let_through"]) == (0.0, 0.0)


def test_from_labelled_windows_to_a_network_that_flies(pool: Path, tmp_path: Path) -> None:
    recipe = small_recipe()
    table = train.run(recipe, "drawn", pool, tmp_path)
    assert json.loads((tmp_path / "clouds.json").read_text(encoding="utf-8"))["split"] == recipe["rotations"]["drawn"]
    assert table["detail"] and table["cell_px"] == 4
    assert load_graph(tmp_path / "clouds.onnx", free_px=256).shapes["tile"] == (1, 12, 64, 64)
    chosen = read_settings(json.loads((tmp_path / "clouds.json").read_text(encoding="utf-8")))
    tile = Tile(0, 0, window(UNKNOWN, "s").dn.astype(np.uint16), np.ones((WINDOW_PX, WINDOW_PX), bool))
    masks = [
        flight.detect_clouds(tile, CloudNet(open_engine(e, 1).load(tmp_path / "clouds.onnx", True), chosen))
        for e in ("openvino", "onnxruntime")
    ]
    np.testing.assert_array_equal(masks[0].cells, masks[1].cells)
    assert masks[0].cells.std() > 0


def test_a_stopped_run_goes_on_where_it_stopped(pool: Path, tmp_path: Path) -> None:
    recipe, source = small_recipe(), Sampler(teacher.load_labelled(pool), train.SETTINGS)
    stage = train.Stage(3, 1e-3, tmp_path / "float.safetensors")
    network, again = train.build(recipe, quantised=False), train.build(recipe, quantised=False)
    train.train(network, source, recipe, stage)
    assert int(load_file(stage.checkpoint)["step_no"]) == 3
    train.train(again, source, recipe, stage)  # nothing left to do: the average comes back
    x = torch.rand(1, 12, SIZE, SIZE) * 255 * INPUT_SCALE
    with torch.no_grad():
        torch.testing.assert_close(network.eval()(x), again.eval()(x))


def test_an_unknown_rotation_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="choose one of"):
        train.run(small_recipe(), "nowhere", tmp_path, tmp_path)


@pytest.mark.realdata
def test_every_site_is_tested_once() -> None:
    try:
        data_folder()
    except InputError:
        pytest.skip("no data folder next to the checkout")
    rotations = load_recipe("clouds")["rotations"]
    everywhere = sorted({tile.site for tile in references.load_reference_tiles()})
    assert sorted(site for split in rotations.values() for site in split["test"]) == everywhere
    for split in rotations.values():  # the same ground on the same days
        assert ("mscomposer_T32TMT" in split["test"]) == ("mscomposer_T32TNT" in split["test"])
