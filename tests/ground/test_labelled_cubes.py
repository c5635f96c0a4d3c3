"""Labelled cubes through codecs: what is read, what is refused, and figures that say what was lost."""

from pathlib import Path

import numpy as np
import pytest

from payload.errors import InputError
from payload.sensor import Band, Sensor
from sim.compare.kinds.cubes import Cube, _at_ratio, as_text, figures, read_cube

SIGNED = Sensor("three", "hyperspectral", tuple(Band(f"C{k}", 1.0) for k in range(3)), bits=16, signed=True)


class Halved:
    """In a codec's place: octets fall with the setting, and the picture with them."""

    name = "halved"

    def encode(self, dn, setting):
        return bytes(int(2 * dn.size / setting))


def cube_of(label) -> Cube:
    rng = np.random.default_rng(1)
    dn = rng.integers(30_000, 33_000, (3, 20, 20)).astype(np.uint16)
    dn[:, 4, 5] = 40_000, 20_000, 40_000
    return Cube("made-up", dn, label)


def test_counts_below_zero_become_dn_and_labels_come_along(tmp_path: Path) -> None:
    x = np.arange(-6, 6).reshape(3, 2, 2).astype(np.int16)
    np.savez(tmp_path / "c.npz", x=x, label=np.eye(2, dtype=np.uint8))
    cube = read_cube(tmp_path / "c.npz", SIGNED)
    assert np.array_equal(cube.dn, x.astype(int) + 32768) and cube.label is not None and cube.label.sum() == 2


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"y": np.zeros(3, np.int16)}, "holds y"), ({"x": np.zeros((3, 2, 2))}, "whole numbers"),
        ({"x": np.zeros((4, 2, 2), np.int16)}, "4 bands, sensor three has 3"),
        ({"x": np.full((3, 2, 2), 40_000, np.int32)}, "from 40000 to 40000"),
        ({"x": np.zeros((3, 2, 2), np.int16), "label": np.zeros((3, 3))}, "wanted x"),
    ],
)  # fmt: skip
def test_what_is_no_cube_of_the_sensor_is_refused_in_a_line(tmp_path: Path, arrays, words) -> None:
    np.savez(tmp_path / "c.npz", **arrays)
    with pytest.raises(InputError, match=words):
        read_cube(tmp_path / "c.npz", SIGNED)


def test_a_ratio_is_reached_by_the_finest_setting_that_does() -> None:
    dn = np.zeros((3, 64, 64), np.uint16)
    octets = _at_ratio(dn, Halved(), 50)
    assert octets is not None and 50 <= 2 * dn.size / len(octets) < 50.5
    assert _at_ratio(dn, Halved(), 10_000) is None


def test_an_anomaly_that_is_smoothed_away_is_not_found_behind_the_codec() -> None:
    label = np.zeros((20, 20), np.uint8)
    label[4, 5] = 1
    cube, gone = cube_of(label), cube_of(label).dn.copy()
    gone[:, 4, 5] = gone.mean(axis=(1, 2))
    found = figures(cube, gone)
    assert found["rx_auc_before"] == 1.0 and found["rx_auc_after"] < 0.3
    assert figures(cube, cube.dn)["rx_auc_after"] == 1.0 and figures(cube, cube.dn)["sam_deg"] == 0


def test_abundances_are_compared_with_what_was_labelled() -> None:
    shares = np.random.default_rng(3).dirichlet(np.ones(2), (10, 10)).transpose(2, 0, 1)
    spectra = np.array([[3000.0, 9000], [8000, 2000], [100, 7000]])
    dn = np.rint(np.einsum("bk,kyx->byx", spectra, shares)).astype(np.uint16)
    found = figures(Cube("mixed", dn, shares), dn[:, ::-1])
    assert found["abundance_rmse_before"] < 1e-3 and found["abundance_rmse_after"] > 0.05
    assert found["abundance_rmse_between"] == pytest.approx(found["abundance_rmse_after"], rel=0.05)


def test_a_ratio_out_of_reach_is_said() -> None:
    assert as_text([{"cube": "a", "codec": "b", "asked": 50.0, "cr16": None}]) == "a  b  CR 50: out of reach\n"
