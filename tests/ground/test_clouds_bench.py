"""`sim evaluate-clouds`: figures by hand, rules by hand, and a whole run on drawn tiles."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from payload.bundle import SHIPPED
from payload.clouds.planes import hazy_and_white
from payload.errors import InputError
from sim.clouds import evaluate, figures, judged, page, requirements, samples
from sim.clouds.figures import Counts, Reliability
from sim.clouds.other_detectors import braaten_cohen_yang, hot_whiteness

EDGE = SHIPPED / "edge"
T = 64


def dn_of(*reflectance: float) -> np.ndarray:
    """One pixel, blue, green, red, near infrared."""
    return (np.array(reflectance).reshape(4, 1, 1) * 10_000).astype(np.uint16)


def test_scores_by_hand() -> None:
    scores = Counts(true_positive=6, false_positive=2, false_negative=4, true_negative=8).scores()
    assert scores == pytest.approx(
        {
            "accuracy": 14 / 20,
            "balanced_accuracy": (0.6 + 0.8) / 2,
            "precision": 6 / 8,
            "recall": 6 / 10,
            "f1": 12 / 18,
            "iou": 6 / 12,
            "false_alarms": 2 / 10,
        }
    )


def test_a_class_that_does_not_occur_says_nothing() -> None:
    scores = Counts(true_negative=5).scores()
    assert (scores["recall"], scores["precision"], scores["iou"], scores["balanced_accuracy"]) == (None,) * 4
    assert scores["accuracy"] == 1.0


@settings(deadline=None)  # a shared machine may stall any example
@given(hnp.arrays(bool, (3, 6, 6)), hnp.arrays(bool, (2, 6, 6)))
def test_pooling_tiles_is_counting_all_their_pixels_at_once(one: np.ndarray, other: np.ndarray) -> None:
    found = np.stack([one[0], other[0]])
    wanted, known = np.stack([one[1], other[1]]), np.stack([one[2], one[2]])
    parts = [figures.count(f, w, k) for f, w, k in zip(found, wanted, known, strict=True)]
    assert figures.pooled(parts) == figures.count(found, wanted, known)
    assert figures.pooled(parts).total == known.sum()


def test_reliability_by_hand() -> None:
    p = np.array([[0.05, 0.05, 0.95, 1.0]], np.float32)
    cloud = np.array([[False, True, True, True]])
    found = figures.reliability(p, cloud, np.ones((1, 4), bool))
    assert [(r["cells"], r["seen"]) for r in found.rows()] == [(2, 0.5), (2, 1.0)]
    # gaps of sums: |.1 - 1| + |1.95 - 2| over 4 cells
    assert found.expected_error == pytest.approx((0.9 + 0.05) / 4, abs=1e-6)
    assert isinstance(found + found, Reliability)
    assert (found + found).expected_error == pytest.approx(found.expected_error)


@settings(deadline=None)  # a shared machine may stall any example
@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=30))
def test_false_discards_are_of_the_clear_tiles(pairs: list[tuple[bool, bool]]) -> None:
    found, wanted = zip(*pairs, strict=True)
    clear = [f for f, w in pairs if not w]
    rate = figures.tile_counts(found, wanted).scores()["false_alarms"]
    assert rate == (pytest.approx(sum(clear) / len(clear)) if clear else None)


@pytest.mark.parametrize(
    ("pixel", "cloud"),
    [
        ((0.5, 0.45, 0.5, 0.6), True),  # green above .39
        ((0.3, 0.30, 0.28, 0.4), True),  # green within .175 .. .39 and above red
        ((0.3, 0.30, 0.31, 0.4), False),  # sand: green below red
        ((0.1, 0.17, 0.08, 0.5), False),  # dark
    ],
)
def test_braaten_cohen_yang_by_hand(pixel: tuple[float, ...], cloud: bool) -> None:
    assert braaten_cohen_yang(dn_of(*pixel)).item() is cloud


@pytest.mark.parametrize(
    ("pixel", "cloud"),
    [
        ((0.40, 0.38, 0.37, 0.4), True),
        ((0.12, 0.12, 0.12, 0.4), False),  # .12 - .06 - .08 < 0: not hazy
        ((0.60, 0.10, 0.10, 0.1), False),  # not white: deviations (.333 + .167 + .167) / .267 = 2.5
    ],
)
def test_hot_whiteness_by_hand(pixel: tuple[float, ...], cloud: bool) -> None:
    assert hot_whiteness(dn_of(*pixel)).item() is cloud


def test_the_payloads_second_witness_is_the_published_rule() -> None:
    """Two implementations, integers on board and floats here; they may differ where a pixel lies on a threshold."""
    dn = np.random.default_rng(8).integers(0, 9000, (4, 200, 200)).astype(np.uint16)
    blue, green, red = (dn[band].astype(np.float64) for band in range(3))
    mean = np.maximum((blue + green + red) / 3, 1.0)
    spread = (abs(blue - mean) + abs(green - mean) + abs(red - mean)) / mean
    certain = (abs(blue - red / 2 - 800) > 1.0) & (abs(spread - 0.7) > 1e-3)
    assert certain.mean() > 0.98
    np.testing.assert_array_equal(hazy_and_white(4 * dn.astype(np.uint32))[certain], hot_whiteness(dn)[certain])


def test_the_readings_of_a_classification() -> None:
    scl = np.array([[0, 3, 4, 7], [8, 9, 10, 11]], np.uint8)
    sample = samples.CloudSample("n", "s", np.zeros((4, 2, 4), np.uint16), scl, 10)
    cloud, known = sample.reference("all")
    assert cloud.tolist() == [[False] * 4, [True, True, True, False]]
    assert known.tolist() == [[False, True, True, False], [True] * 4]
    cloud, known = sample.reference("visible")
    assert cloud.tolist() == [[False] * 4, [True, True, False, False]]
    assert known.tolist() == [[False, True, True, False], [True, True, False, False]]
    cloud, known = sample.reference()  # firm: the 8 lies beside ground, so it is no reference
    assert cloud.tolist() == [[False] * 4, [True, True, False, False]]
    assert known.tolist() == [[False, True, True, False], [False, True, False, False]]
    cloud, known = sample.reference("sure")
    assert cloud.sum() == 1
    assert known.tolist() == [[False, True, True, False], [False, True, False, False]]


def test_a_border_is_two_pixels_wide() -> None:
    scl = np.full((1, 8), 8, np.uint8)
    scl[0, 0], scl[0, 6] = 4, 9
    sample = samples.CloudSample("n", "s", np.zeros((4, 1, 8), np.uint16), scl, 10)
    assert sample.reference()[1].tolist() == [[True, False, False, True, True, True, True, True]]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data folder of drawn tiles: a labelled farm half under cloud, clear town and clear snow, on sites left out."""
    if not (EDGE / "flight" / "clouds.onnx").is_file():
        pytest.skip("no cloud network in the shipped bundle")
    rng = np.random.default_rng(3)
    fields = np.array((500.0, 800.0, 700.0, 3000.0))[:, None, None] * rng.normal(1.0, 0.2, (3, 4, 128, 128))
    scl = np.full((3, 128, 128), 255, np.uint8)
    sites = np.array(["amsterdam", "terramind_609U_541L", "montcalm"])
    folder = tmp_path / "data"
    (folder / "train").mkdir(parents=True)
    (folder / "cloud").mkdir()
    np.savez(
        folder / samples.TILES, x=fields.astype(np.uint16), scl=scl, water=scl, site=sites,
        src=np.array(["a", "b", "c"]), res_m=np.full(3, 10), level=np.full(3, "L2A"),
    )  # fmt: skip
    farm = fields[:2, :, :T, :T].copy()
    labels = np.full((2, T, T), 4, np.uint8)
    farm[:, :, : T // 2] = 6000 * rng.normal(1.0, 0.02, (2, 4, T // 2, T))
    labels[:, : T // 2] = 9
    site = np.array(["0000280849BAC91C"] * 2)
    np.savez(folder / samples.FARMS, x=farm.astype(np.uint16), scl=labels, site=site, timestamp=np.zeros(2))
    return folder


def test_a_whole_run_on_drawn_tiles(data: Path, tmp_path: Path) -> None:
    result, material = evaluate.evaluate_clouds(data, ["edge"], "openvino")
    sites = {j.sample.site for j in material.judged}  # never montcalm
    assert sites == {"amsterdam", "terramind_609U_541L", "0000280849BAC91C"}
    assert result["tiles"]["all"]["nadir"]["tiles"] == 2
    assert result["pixels"]["all"]["braaten-cohen-yang"]["iou"] > 0.99
    assert result["slices"]["nadir"].keys() == {"clear", "snow", "urban"}
    assert result["scene"] is None
    assert (result["flattening"], result["measured_on_host"]["gate"]) == ([], [])
    farm = next(s for s in result["sites"] if s["site"] == "0000280849BAC91C")
    assert (farm["clear_tiles"], farm["discarded_falsely"]) == (2, 0)
    sand = next(c for c in result["checks"] if "sand" in c["requirement"])
    assert (sand["measured"], sand["held"]) == (None, False)  # not measured is not held
    numbers, written = page.write_page(result, material, tmp_path / "out")
    assert json.loads(numbers.read_text(encoding="utf-8")) == json.loads(json.dumps(result))
    html = written.read_text(encoding="utf-8")
    assert html.count("<img ") == len(material.judged) == 4
    assert "None" not in html
    assert html.count("<svg ") == 2
    assert "<circle" in html
    assert "NOT HELD" in requirements.as_text(result)


def test_the_same_site_twice_is_refused(data: Path) -> None:
    with pytest.raises(InputError, match="left out the same site"):
        evaluate.evaluate_clouds(data, ["edge", str(EDGE)])


def test_the_rotations_kept_beside_the_recipe_are_judged_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for rotation in ("shipped", "alps"):
        folder = tmp_path / rotation
        folder.mkdir()
        (folder / "clouds.onnx").touch()
        table = {"rotation": rotation, "split": {"test": []}}
        (folder / "clouds.json").write_text(json.dumps(table), encoding="utf-8")
    monkeypatch.setattr(judged, "ROTATIONS", tmp_path)
    assert judged.default_networks() == ["edge", str(tmp_path / "alps")]  # the shipped one is in the bundle
    monkeypatch.setattr(judged, "ROTATIONS", tmp_path / "nowhere")
    assert judged.default_networks() == ["edge"]


def test_wrong_tiles_are_crosses_on_the_map() -> None:
    # sent rightly, withheld rightly, sent though cloudy, withheld though not
    drawn = str(page.tiles([(0.1, 0.0), (0.9, 0.95), (0.8, 0.5), (0.6, 0.8)]))
    assert (drawn.count("<circle"), drawn.count('class="cross s5"'), drawn.count('class="cross s0"')) == (2, 1, 1)


def test_a_folder_without_a_network_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no cloud network there"):
        evaluate.evaluate_clouds(tmp_path, [str(tmp_path)])


def test_a_folder_without_data_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--data"):
        samples.data_folder(tmp_path)


@pytest.mark.realdata
def test_every_test_site_of_the_shipped_network_is_in_the_data_and_none_was_trained_on() -> None:
    try:
        folder = samples.data_folder()
    except InputError:
        pytest.skip("no data folder next to the checkout")
    split = json.loads((EDGE / "manifest.json").read_text(encoding="utf-8"))["clouds"]["split"]
    found = {sample.site for sample in samples.load_samples(folder, set(split["test"]))}
    assert found == set(split["test"])


@pytest.mark.parametrize("octets", [b"", b"PK\x03\x04 not a zip", None])
def test_a_data_file_that_is_broken_is_one_line(tmp_path: Path, octets: bytes | None) -> None:
    """On the tree before, numpy's own error came through."""
    path = tmp_path / "cloud" / "my_human_chips.npz"
    path.parent.mkdir()
    if octets is None:
        np.savez(path, x=np.array([{}], object), cloud=np.zeros(1))
    else:
        path.write_bytes(octets)
    with pytest.raises(InputError, match=r"my_human_chips\.npz: not a usable \.npz .*; fetch it again"):
        samples.load_human_chips(tmp_path)


def test_a_source_of_one_chip_stands_once_on_the_page_and_all_of_one_before_its_chips() -> None:
    chips = [("b", "b 1"), ("b", "b 0"), ("b", "all chips"), ("a", "a 0"), ("a", "all chips")]
    rows = [{"source": source, "chip": chip, "method": name} for name in ("x", "y") for source, chip in chips]
    found = page._by_picture(rows)
    assert list(found) == ["a, all chips", "b, all chips", "b 0", "b 1"]
    assert all([row["method"] for row in shown] == ["x", "y"] for shown in found.values())
