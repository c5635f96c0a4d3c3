"""Calibrated Myriad models: constants found again, the bar over published latencies, data and files in step."""

import numpy as np
import pytest

from export.devices.calibrate import FIGURES, as_text, calibrate, reference_work, solve
from export.devices.reference_networks import REFERENCES
from export.graphs.graph import load_graph, total_macs, total_parameters
from hil.devices.latency import Work
from hil.devices.targets import load_target
from payload.errors import InputError

MYRIADS = ("myriad2", "myriadx")


def test_constants_that_made_the_latencies_are_found_again():
    rows = np.random.default_rng(1).uniform(0.1, 3, (9, 4))
    true = np.array([0.5, 2.0, 0.25, 1.0])
    np.testing.assert_allclose(solve(rows, rows @ true), true, rtol=1e-8)


def test_no_unknown_is_negative():
    rows = np.array([[1.0, 1.0], [1.0, 2.0], [1.0, 3.0]])
    found = solve(rows, np.array([1.0, 0.9, 0.8]))  # falling: a negative slope would fit best
    assert (found >= 0).all() and found[1] == 0


@pytest.mark.parametrize(
    ("name", "mmacs", "parameters_m"),
    [("googlenet", 1583, 7.0), ("mobilenet_v1", 569, 4.2), ("mobilenet_v2", 301, 3.5), ("resnet18", 1814, 11.7),
     ("squeezenet_1_1", 388, 1.24), ("mobileone_s0", 275, 2.1), ("cnv_64", 59.5, 1.54), ("mlp_2048", 10.0, 10.0)],
)  # fmt: skip
def test_reference_networks_cost_what_their_papers_say(name, mmacs, parameters_m):
    graph = load_graph(REFERENCES[name]())
    assert total_macs(graph) / 1e6 == pytest.approx(mmacs, rel=0.01)
    assert total_parameters(graph) / 1e6 == pytest.approx(parameters_m, rel=0.02)


@pytest.mark.parametrize("name", MYRIADS)
def test_the_model_is_within_a_quarter_of_five_published_latencies(name):
    target = load_target(name)
    found = calibrate(target, reference_work(target))
    assert found.within(0.25) >= 5 and found.within(0.25) == len(found.points)


@pytest.mark.parametrize("name", MYRIADS)
def test_the_devices_file_holds_what_calibration_finds(name):
    """Change a latency or a reference network, and `python -m export calibrate --write` is to be run again."""
    target = load_target(name)
    found = calibrate(target, reference_work(target))
    for key in FIGURES:
        figure = target.figure(key)
        assert figure.status == "calibrated"
        assert (figure.low, figure.mid, figure.high) == pytest.approx(found.figures[key], rel=2e-3)


@pytest.mark.parametrize("name", MYRIADS)
def test_the_interval_covers_what_the_others_predict_of_each(name):
    """Low and high are the middle times the worst ratio, either way, of published to predicted from the others."""
    target = load_target(name)
    found = calibrate(target, reference_work(target))
    low, mid, high = found.figures["rate_gmac_per_s"]
    for point in found.points:
        ratio = point.published.latency_ms / point.from_others_ms
        assert mid / high - 1e-9 <= ratio <= mid / low + 1e-9
    assert "from the others" in as_text(found)


def test_too_few_latencies_are_not_calibrated_on():
    with pytest.raises(InputError, match="npu: 0 published latencies of reference networks, wanted 3 or more"):
        calibrate(load_target("npu"), {"resnet18": Work()})
