"""Downstream tasks: what heads see is what was coded, what they are judged by is right, and the same twice."""

import csv
import io
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from payload.errors import InputError
from payload.native import library
from payload.pipeline import Payload
from payload.policy import PROFILES
from payload.tiles import split
from sim.progress import silent
from sim.scenes.demo import demo_scene
from sim.spread import Spread
from sim.tasks import scores, second_look
from sim.tasks.coded import BundleCoder
from sim.tasks.data import load_task
from sim.tasks.evaluate import NAMES, QUICK, TasksRequest, evaluate
from sim.tasks.kept import Kept, key_of
from sim.tasks.learning.heads import Budget, Head, Units, labelled, of_features, of_pixels, predicted
from sim.tasks.learning.perceptron import Draw, Perceptron
from sim.tasks.page import as_csv, as_text, render_page
from sim.tasks.steps import Input, Plan, ordered
from sim.tasks.summary import summary
from sim.tasks.task import IGNORED, Task
from sim.tasks.truth import instances_of, with_objects

neural_network = pytest.importorskip("sklearn.neural_network", reason="the extra `features` is not installed")
pytestmark = pytest.mark.filterwarnings("ignore:Stochastic Optimizer")
SMALL = Budget(units=1500, rounds=5, last_rounds=1)
DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"


def pictures(count: int, side: int) -> np.ndarray:
    dn = next(split(demo_scene(256, 256), 256)).dn
    return np.stack([dn[:, 7 * k : 7 * k + side, 5 * k : 5 * k + side] for k in range(count)])


def toy_task(count: int = 6, side: int = 64) -> Task:
    """Bright where the near infrared is above its median: heads of pixels and of features can learn it."""
    dn = pictures(count, side)
    nir = ndimage.uniform_filter(dn[:, 3].astype(np.float32), (0, 3, 3))
    labels = (nir > np.median(nir)).astype(np.uint8)
    learn, judge = labels.copy(), labels.copy()
    learn[count - 2 :], judge[: count - 2] = IGNORED, IGNORED
    return Task("toy", "Toy", dn, learn, judge, ("dark", "bright"), "f1", scores.binary, "made up")


def learnt(
    units: Units, labels: np.ndarray, classes: int = 2, budget: Budget = SMALL, seed: int = 0
) -> tuple[Head, np.ndarray]:
    """A head that learnt from labels, and what it makes of every picture."""
    head = Head(classes, budget, seed).fit(units, labelled(labels, units))
    (answer,) = predicted([head], units, range(len(units.inputs)), Spread())
    return head, answer


@pytest.mark.parametrize(("count", "side"), [(5, 120), (2, 224), (3, 64)])
def test_what_is_coded_comes_back_in_its_place(count: int, side: int) -> None:
    dn = pictures(count, side)
    coded = BundleCoder("edge", decoder="fast").code(dn, 8.0)
    assert coded.pixels.shape == dn.shape
    worst = np.abs(coded.pixels.astype(float) - dn).mean(axis=(1, 2, 3)) / dn.mean()
    assert worst.max() < 0.1  # a picture in another's place differs by far more
    assert coded.features[8].shape == (count, 256, side // 8, side // 8)
    averages = dn[:, 0].reshape(count, side // 8, 8, side // 8, 8).mean(axis=(2, 4))
    assert np.corrcoef(averages.ravel(), coded.features[8][:, 0].ravel())[0, 1] > 0.9


def test_heads_of_pixels_and_of_features_learn_with_as_many_parameters_and_fewer_macs() -> None:
    task = toy_task()
    coded = BundleCoder("edge", decoder="fast").code(task.pictures, 10.0)
    found = {}
    for name, units in (("pixels", of_pixels(task.pictures)), ("features", of_features(coded.features, 4))):
        head, answer = learnt(units, task.learn)
        found[name] = head, task.score(task.judge, answer)["f1"]
    assert found["pixels"][1] > 0.9 and found["features"][1] > 0.75
    assert 0.9 < found["pixels"][0].parameters / found["features"][0].parameters < 1.1
    assert found["pixels"][0].parameters <= 50_000
    assert found["pixels"][0].macs_per_px > 10 * found["features"][0].macs_per_px


def test_a_head_of_features_learns_more_classes_than_8_bits_have_columns_for() -> None:
    strength = np.random.default_rng(0).integers(0, 6, (8, 12, 12)).astype(np.uint8)
    levels = {8: (strength[:, None] == np.arange(6)[:, None, None]).astype(np.float32)}
    labels = strength.repeat(8, axis=1).repeat(8, axis=2)  # a block is of one class: its features say which
    units = of_features(levels, 4)
    head, answer = learnt(units, labels, 6, replace(SMALL, rounds=12, rate=1e-2))
    assert (answer == labels).mean() > 0.9
    assert head.parameters <= 50_000


def test_where_a_head_cannot_tell_it_takes_the_commonest_class() -> None:
    random = np.random.default_rng(0)
    units = of_pixels(random.integers(900, 1100, (4, 4, 32, 32)).astype(np.uint16))  # they say nothing
    labels = random.choice(3, (4, 32, 32), p=(0.8, 0.1, 0.1)).astype(np.uint8)  # and are drawn evenly
    assert (learnt(units, labels, 3)[1] == 0).mean() > 0.9


def test_a_head_gives_the_same_answer_for_the_same_seed_and_another_for_another() -> None:
    task, few = toy_task(3), replace(SMALL, units=300, rounds=2)
    units = of_pixels(task.pictures)
    first, again, other = (learnt(units, task.learn, 2, few, seed)[1] for seed in (0, 0, 1))
    assert np.array_equal(first, again) and not np.array_equal(first, other)


def test_no_label_that_is_judged_is_learnt_from() -> None:
    task = toy_task()
    assert not ((task.learn != IGNORED) & (task.judge != IGNORED)).any()
    turned = replace(task, judge=(1 - task.judge).astype(np.uint8))  # other truth, same head
    units = of_pixels(task.pictures)
    answers = [learnt(units, t.learn)[1] for t in (task, turned)]
    assert np.array_equal(*answers)


@pytest.mark.parametrize(("outputs", "logistic"), [(1, True), (12, True), (12, False)])
def test_a_perceptron_learns_in_stages_and_then_takes_inputs_as_they_are(outputs: int, logistic: bool) -> None:
    random = np.random.default_rng(0)
    inputs = random.standard_normal((4, 700, 20)).astype(np.float32)
    wanted = inputs @ random.standard_normal((20, outputs)).astype(np.float32)
    targets = wanted > 0 if logistic else wanted
    kind = neural_network.MLPClassifier if logistic else neural_network.MLPRegressor
    theirs = kind(hidden_layer_sizes=(16, 12), batch_size=64, tol=0.0, random_state=3, warm_start=True, max_iter=1)
    ours = Perceptron((16, 12), 3, logistic)
    given = targets.squeeze(-1).astype(int) if logistic and outputs == 1 else targets.astype(int if logistic else float)
    for draws, rate in (([0, 1, 2], 2e-3), ([3, 0], 3e-4)):
        theirs.set_params(learning_rate_init=rate).fit(inputs[draws[0]], given[draws[0]])  # steps begin anew
        for k in draws[1:]:
            theirs.partial_fit(inputs[k], given[k])
        ours.fit(((inputs[k], targets[k]) for k in draws), 64, rate)
    one = inputs[0]
    answer = theirs.predict_proba(one)[:, -outputs:] if logistic else theirs.predict(one)
    assert np.abs(ours.predict(one) - answer).max() < 1e-4 * np.abs(answer).max()
    assert ours.parameters == sum(part.size for part in theirs.coefs_ + theirs.intercepts_)
    ours.take_in(mean := one.mean(axis=0), scale := one.std(axis=0))
    assert np.abs(ours.predict(one * scale + mean) - answer).max() < 1e-4 * np.abs(answer).max()


def test_every_round_draws_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    task, seen = toy_task(3), []
    fit = Perceptron.fit

    def watched(network: Perceptron, draws: Iterable[Draw], batch: int, rate: float) -> None:
        rounds = list(draws)
        seen.extend(rounds)
        fit(network, rounds, batch, rate)

    monkeypatch.setattr(Perceptron, "fit", watched)
    units = of_pixels(task.pictures)
    head = Head(2, replace(SMALL, units=300), 0).fit(units, labelled(task.learn, units))
    assert len(seen) == SMALL.rounds + SMALL.last_rounds and head.parameters
    assert {len(inputs) for inputs, _ in seen} == {300}
    assert len({inputs.tobytes() for inputs, _ in seen}) == len(seen)


@pytest.mark.skipif(not library.available, reason="the profile dense needs the kernel to be quick")
def test_the_profile_dense_leaves_more_at_a_ratio() -> None:
    dn, error = pictures(2, 128), []
    for profile in PROFILES:  # fast, dense
        coded = BundleCoder("edge", decoder="fast", profile=profile).code(dn, 20.0)
        assert coded.cr == pytest.approx(20.0, rel=0.1)
        error.append(((coded.pixels.astype(float) - dn) ** 2).mean() / coded.cr)
    assert error[1] < 0.95 * error[0]


def test_pictures_that_were_coded_are_not_coded_again(monkeypatch: pytest.MonkeyPatch) -> None:
    dn, coder = pictures(2, 64), BundleCoder("edge", decoder="fast")
    first = coder.code(dn, 10.0)
    monkeypatch.setattr(Payload, "encode_tile", lambda *_: pytest.fail("coded again"))
    again = coder.code(dn.copy(), 10.0)
    assert again.cr == first.cr and np.array_equal(again.pixels, first.pixels)


def test_a_share_of_labels_is_that_share_of_places() -> None:
    task = toy_task(20)
    few = task.with_share(0.1, seed=1)
    assert (few.learn != IGNORED).sum() / (task.learn != IGNORED).sum() == pytest.approx(0.1, abs=0.02)
    assert np.array_equal(few.judge, task.judge)
    assert not np.array_equal(few.learn, task.with_share(0.1, seed=2).learn)


def test_scores_by_hand() -> None:
    truth, guess = np.array([[[1, 1, 0, IGNORED]]], np.uint8), np.array([[[1, 0, 1, 1]]], np.uint8)
    assert scores.binary(truth, guess) == {"f1": 0.5, "iou": 1 / 3, "accuracy": 1 / 3}
    assert scores.classes(truth, truth)["miou"] == 1.0
    objects = np.zeros((1, 9, 9), np.uint8)
    objects[0, 1, 1:4], objects[0, 6, 6] = 1, 1
    found = np.zeros_like(objects)
    found[0, 1, 3], found[0, 4, 0], found[0, 8, 0] = 1, 1, 1  # one of two found, two of three false
    assert scores.objects(objects, found) == pytest.approx({"object_f1": 0.4, "recall": 0.5, "precision": 1 / 3})


def test_boundaries_may_lie_two_pixels_off_and_no_further() -> None:
    truth = np.zeros((1, 20, 40), np.uint8)
    truth[0, :, 20] = 1
    moved = [np.roll(truth, shift, axis=2) for shift in (0, 2, 3)]
    assert [scores.boundaries(truth, one)["boundary_f1"] for one in moved] == [1.0, 1.0, 0.0]
    assert scores.boundaries(truth, moved[0])["parcel_iou"] == 1.0
    assert scores.boundaries(truth, np.zeros_like(truth))["parcel_iou"] == pytest.approx((400 / 800 + 380 / 800) / 2)


def test_objects_lie_on_water_and_nowhere_else() -> None:
    dn, water = pictures(2, 64), np.zeros((2, 64, 64), bool)
    water[:, :, 20:] = True
    there, truth = with_objects(dn, water, seed=1)
    assert truth.sum() > 4 and not truth[~water].any()
    assert (there[:, 0][truth == 1] > dn[:, 0][truth == 1]).all()
    assert np.array_equal(there[:, :, :, :15], dn[:, :, :, :15])


def test_instances_are_told_apart_where_fields_meet() -> None:
    dn = np.full((1, 4, 48, 48), 1000, np.uint16)
    dn[:, :, :, 24:] = 2000
    found = instances_of(dn + np.random.default_rng(0).integers(0, 20, dn.shape).astype(np.uint16))
    left = [(found[:, :24] == k).sum() / (found == k).sum() for k in np.unique(found) if (found == k).sum() >= 30]
    assert len(left) >= 2 and all(share < 0.15 or share > 0.85 for share in left)


def row(kind: str, cr: float | None, f1: float, seed: int = 0) -> Mapping[str, object]:
    macs = 400.0 if kind == "features" else 25_000.0
    return {"task": "water", "input": kind, "bundle": "" if cr is None else "edge", "cr_asked": cr, "cr16": cr or 1.0,
            "learnt_from": "the same", "share": 1.0, "seed": seed, "parameters": 1, "macs_per_px": macs,
            "f1": f1}  # fmt: skip


def test_bars_compare_with_the_original_in_points() -> None:
    rows = [row("original", None, 0.80), row("original", None, 0.82, 1), row("features", 34.0, 0.80),
            row("features", 34.0, 0.80, 1), row("reconstruction", 20.0, 0.795),
            row("reconstruction", 100.0, 0.79)]  # fmt: skip
    about = {"water": {"metric": "f1", "title": "Water", "note": "", "pictures": 1, "classes": []}}
    bars = summary(rows, about)["bars"]
    assert [(bar["points_below"], bar["held"]) for bar in bars] == [(1.0, True), (1.5, False), (2.0, True)]
    assert bars[0]["times_fewer_macs"] == 62.5


def test_a_page_names_metrics_and_classes_and_goes_by_ratio() -> None:
    rows = [{**one, "miou": one["f1"], "iou_1": 0.25} for one in (
        row("original", None, 0.8), row("reconstruction", 100.0, 0.7), row("features", 34.0, 0.6),
        row("reconstruction", 20.0, 0.75))]  # fmt: skip
    about = {"metric": "miou", "title": "Cover", "note": "as `water`", "pictures": 1, "classes": ["wood", "class 7"]}
    tasks = {"water": about}
    plan, tables = {"seeds": [0]}, summary(rows, tasks)
    result = {"rows": rows, "tasks": tasks, "summary": tables, "plan": plan, "bundles": ["edge"], "profile": "fast",
              "decoder": "full"}  # fmt: skip
    page = render_page(result)
    assert "IoU of class 7 0.25" in page and "of mean IoU, spread" in page and "miou" not in page
    order = re.findall(r'<th scope="row">([^<]+)</th>', page)
    assert order == ["original pixels", "decoded pixels, edge, CR 20", "decoded pixels, edge, CR 100",
                     "features, edge, CR 34"]  # fmt: skip


def test_an_unknown_task_and_a_folder_without_data_are_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="wanted some of water"):
        TasksRequest(tmp_path, ("ships",))
    with pytest.raises(InputError, match="--data"):
        load_task("water", tmp_path)


@pytest.mark.slow
@pytest.mark.realdata
@pytest.mark.skipif(not DATA.is_dir(), reason="no data folder beside the checkout")
def test_every_task_runs_on_real_data_and_is_shown() -> None:
    plan = replace(QUICK, pixel_cr=(20.0,), budget=Budget(units=300, rounds=1, last_rounds=1), pictures=6)
    result = evaluate(TasksRequest(DATA, NAMES, ("edge",), plan), silent)
    assert set(result["summary"]["tables"]) == set(NAMES)
    page = render_page(result)
    assert all(about["title"] in page for about in result["tasks"].values())
    rows = list(csv.DictReader(io.StringIO(as_csv(result))))
    assert len(rows) == len(result["rows"]) and "Parcel boundaries" in as_text(result)


def test_a_run_that_was_cut_goes_on_and_gives_the_same_rows(tmp_path: Path) -> None:
    about = {"seed": 1}
    first = Kept(tmp_path, about)
    rows = [{**row("features", 34.0, 0.5, seed), "task": "toy"} for seed in (0, 1)]
    first.add(dict(rows[0]))
    made = first.arrays("toy", lambda: {"pixels": np.arange(4)})
    (file,) = tmp_path.glob("*/rows.jsonl")
    file.write_text(file.read_text() + '{"task": "to')  # the cut
    again = Kept(tmp_path, about)
    assert again.rows == rows[:1] and again.has(key_of(rows[0])) and not again.has(key_of(rows[1]))
    assert np.array_equal(again.arrays("toy", dict)["pixels"], made["pixels"])
    again.add(dict(rows[1]))
    assert Kept(tmp_path, about).rows == rows
    assert Kept(tmp_path, {"seed": 2}).rows == []  # another plan
    again.clear()
    assert not tmp_path.exists()


def test_what_the_bars_ask_for_comes_before_what_is_good_to_know() -> None:
    steps = list(ordered(("a", "b"), Plan(), [True, False]))
    first = [(step.task, step.seen.kind, step.seen.cr) for step in steps[:8]]
    assert first == [(task, *one) for task in "ab" for one in (
        ("original", None), ("reconstruction", 20.0), ("reconstruction", 100.0), ("features", 34.0))]  # fmt: skip
    assert len({(step.task, step.seen, step.shares) for step in steps}) == len(steps)
    assert [step.seen for step in steps if step.seen.bundle == 1 and step.task == "a"] == [
        Input("reconstruction", 1), Input("features", 1)]  # fmt: skip


def test_pixels_without_data_are_not_coded_and_come_back_as_none() -> None:
    dn, there = pictures(2, 64), np.ones((2, 64, 64), bool)
    there[:, :, 40:] = False
    dn[:, :, :, 40:] = 0
    coder = BundleCoder("edge", decoder="fast")
    coded, whole = coder.code(dn, 10.0, there), coder.code(dn, 10.0)
    assert not coded.pixels[:, :, :, 40:].any() and coded.pixels[:, :, :, :40].all()
    assert coded.cr != whole.cr  # only pixels with data are counted


def test_the_ratio_that_was_asked_for_is_that_of_all_pictures() -> None:
    dn = np.concatenate([pictures(16, 128), np.full((48, 4, 128, 128), 900, np.uint16)])
    assert BundleCoder("edge", decoder="fast").code(dn, 60.0).cr == pytest.approx(60.0, rel=0.15)


@pytest.mark.realdata
@pytest.mark.skipif(not DATA.is_dir(), reason="no data folder beside the checkout")
def test_nobody_judges_the_sundarbans_where_there_are_no_data() -> None:
    task = load_task("mangrove", DATA)
    assert task.valid is not None and not ((task.judge != IGNORED) & ~task.valid).any()
    for labels in (task.learn, task.judge):
        assert np.bincount(labels[labels != IGNORED], minlength=5).min() > 5000  # every class in both parts
    rows = [np.flatnonzero((labels != IGNORED).any(axis=(0, 2))) for labels in (task.learn, task.judge)]
    assert np.abs(rows[0][:, None] - rows[1]).min() > 16


def test_the_rule_of_a_map_is_found_again_and_a_move_changes_what_lies_at_its_borders() -> None:
    random = np.random.default_rng(3)
    kinds = np.kron(random.integers(0, 3, (8, 8)), np.ones((8, 8))).astype(np.uint8)
    bands = np.array([[0, 300, 600], [900, 100, 500]])[:, kinds] + random.normal(0, 5, (2, 64, 64))
    there = np.ones((64, 64), bool)
    there[:5] = False
    given = np.where(there, kinds, IGNORED).astype(np.uint8)
    rule = second_look.rule_of(bands, given, there)
    assert np.array_equal(rule.classes(bands), given)
    moved = rule.classes(second_look._moved(bands, 0.9, (0, 1)))
    inside = ndimage.minimum_filter(kinds, 3) == ndimage.maximum_filter(kinds, 3)
    assert (moved == given)[inside].all() and (moved != given)[~inside & there].any()
    assert second_look.noise_of(bands, there) == pytest.approx([5, 5], rel=0.25)


@pytest.mark.realdata
@pytest.mark.skipif(not DATA.is_dir(), reason="no data folder beside the checkout")
def test_a_second_look_changes_the_map_of_mangrove_by_more_than_its_bar_asks() -> None:
    """As docs/tasks.md has it."""
    found: dict[str, list[float]] = {}
    for row in second_look.second_looks(DATA):
        found.setdefault(str(row["look"]), []).append(float(row["points"]))
    means = {name: np.mean(points) for name, points in found.items()}
    assert means["as it is"] == pytest.approx(97.98, abs=0.05) and means["with noise"] == pytest.approx(97.4, abs=0.2)
    moved = [means[f"moved by {px} px"] for px in second_look.MOVED_PX]
    assert moved == pytest.approx([96.4, 93.9, 91.2, 86.1], abs=0.1)
    between = found["moved by 0.16 px, with noise"]
    assert min(between) == pytest.approx(92.8, abs=0.2) and max(between) == pytest.approx(94.8, abs=0.2)
