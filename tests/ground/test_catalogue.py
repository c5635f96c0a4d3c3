"""One list of metrics: what is computed, what a mission may require and what pages show are the entries of it."""

from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

from payload.sensor import SENTINEL2_RGBN
from sim.compare.summary import METRICS
from sim.design import names
from sim.metrics import catalogue
from sim.metrics.catalogue import BY_KEY, DISTORTION, EVERY, RATE, REPORTED, REQUIREMENTS
from sim.metrics.distortion import SceneQuality, per_tile_summary, rate_figures, tile_figures
from sim.mission.spec import Requirements, load_mission
from sim.mission.verification import verify

ROOT = Path(__file__).parents[2]


def pictures() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    dn = random.integers(500, 4000, (4, 176, 176)).astype(np.uint16)
    return dn, (dn + random.integers(0, 9, dn.shape)).astype(np.uint16), np.ones(dn.shape[1:], bool)


def test_every_figure_that_is_computed_is_in_the_catalogue_and_the_other_way_round() -> None:
    dn, seen, valid = pictures()
    scene = SceneQuality(SENTINEL2_RGBN)
    scene.add(dn, seen, valid)
    computed = {**tile_figures(dn, seen, valid, SENTINEL2_RGBN), **scene.figures(), **per_tile_summary([1.0], [1])}
    assert computed.keys() == {m.key for m in DISTORTION} - {"lpips"} | {"sam_p95_deg"}
    assert rate_figures(1000, 4096, 4, 12).keys() == {m.key for m in RATE}
    assert scene.figures().keys() >= {m.key for m in REPORTED} - {"lpips"}
    assert tile_figures(dn, seen, valid, SENTINEL2_RGBN).keys() >= set(METRICS)


def test_a_mission_may_require_what_the_catalogue_allows_and_nothing_else() -> None:
    assert {field.name for field in fields(Requirements)} == set(REQUIREMENTS)
    assert len(BY_KEY) == len(EVERY)


@pytest.mark.parametrize("name", sorted(REQUIREMENTS))
def test_each_requirement_judges_its_own_figure(name) -> None:
    """The better value is held, the worse is not, in the metric's unit; a figure that is missing is not held."""
    metric, mission = REQUIREMENTS[name], load_mission("phisat2")
    mission = replace(mission, requirements=Requirements(**{name: metric.most / 2}))
    better, worse = (metric.most / 4, metric.most) if metric.limit == "max" else (metric.most, metric.most / 4)
    for value, held in ((better, True), (worse, False), (None, False)):
        (check,) = verify({metric.key: value}, mission)
        assert (check.requirement, check.held, check.unit) == (name, held, metric.unit)
    assert metric.more_is_better == (metric.limit == "min")


def test_pages_call_rates_and_requirements_by_the_catalogues_names() -> None:
    """The design of pages knows no other room, so that the bench can use it; that its words are these is held here."""
    assert {m.key: names.label(m.key)[0] for m in RATE} == {m.key: m.name for m in RATE}
    assert {key: names.requirement(key) for key in REQUIREMENTS} == {key: m.name for key, m in REQUIREMENTS.items()}


def test_no_other_file_names_a_metric_for_people_or_states_its_convention() -> None:
    """A name stands once; keys may stand where a figure is computed or chosen."""
    words = [m.name for m in DISTORTION if len(m.name) > 12] + ["gaussian window of 11 px", "k-means++, 10 clusters"]
    for path in (ROOT / "sim").rglob("*.py"):
        if path.name not in ("catalogue.py", "thematic.py", "names.py"):
            text = path.read_text(encoding="utf-8")
            assert [w for w in words if f'"{w}' in text] == [], path


def test_conventions_name_every_figure_of_a_comparison() -> None:
    assert catalogue.conventions().keys() >= {*METRICS, "cr16", "bpp", "lpips"}
