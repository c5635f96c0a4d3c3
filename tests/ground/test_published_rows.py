"""What others measured, as this repository quotes it, and what it makes of their detectors' words."""

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest

from payload.clouds.mask import NO_CLASS
from payload.errors import InputError
from sim.clouds import other_detectors
from sim.clouds.ground_mask import WITHHELD, GroundMask
from sim.compare import corsa
from sim.compare.classical import KltJpeg2000
from sim.link.orbit import Orbit, Station
from sim.link.propagation import elements_epoch
from sim.metrics import similarity
from sim.mission.passes import orbit_notes
from sim.spread import Spread


def test_published_figures_of_corsa_are_those_of_its_authors() -> None:
    """VITO's table: codebook, compression ratio of the indices, PSNR and SSIM; JPEG 2000 at 20:1 beside them."""
    by_hand = {
        "CORSA VQVAE-FPN-3, K = 256": (24.4, 13.7, 0.956),
        "CORSA VQVAE-FPN-3, K = 512": (21.7, 13.9, 0.958),
        "CORSA VQVAE-FPN-3, K = 1024": (19.5, 14.5, 0.962),
        "JPEG 2000 at CR 20": (20.0, 16.0, 0.956),
    }
    found = {r.system: (r.cr_indices, r.psnr_standardised_db, r.ssim_standardised) for r in corsa.PUBLISHED}
    assert found == by_hand and {row.source for row in corsa.PUBLISHED} == {"published"}


def test_a_row_of_the_table_has_its_figures_to_two_and_three_places() -> None:
    row = corsa.Row("ours", "measured, 2 tiles", 21.347, 20.126, 13.456, 0.9567, 40.126, 0.9654)
    text = corsa.as_text([row, corsa.PUBLISHED[0]]).splitlines()
    assert text[1].split() == ["ours", "measured,", "2", "tiles", "21.35", "20.13", "13.46", "0.957", "40.13", "0.965"]
    assert text[2].split()[-6:] == ["24.40", "-", "13.70", "0.956", "-", "-"]


@pytest.mark.parametrize(("height", "width"), [(256, 256), (300, 256), (700, 130)])
def test_a_picture_is_judged_in_windows_of_256_px_at_half_overlap(monkeypatch, height: int, width: int) -> None:
    """The made-up network answers by its pixels alone, so that means over windows are its answer to each pixel."""
    shapes, levels = [], []

    class Network:
        def run(self, _: Any, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
            values = inputs["input"]
            shapes.append(values.shape)
            bright = values[:, 0] * 2.0
            return [np.stack([-bright, bright, np.zeros_like(bright)], axis=1)]

    mean, deviation = np.full((4, 1, 1), 0.1, np.float32), np.full((4, 1, 1), 0.2, np.float32)

    def session(level: str) -> tuple[Network, np.ndarray, np.ndarray]:
        levels.append(level)
        return Network(), mean, deviation

    monkeypatch.setattr(other_detectors, "_session", session)
    dn = np.random.default_rng(1).integers(0, 6000, (4, height, width)).astype(np.uint16)
    found = other_detectors.csmask_probabilities(dn, "L2A")
    bright = 2.0 * (dn[0] / 10_000 - 0.1) / 0.2
    weights = np.exp(np.stack([-bright, bright, 0 * bright]))
    assert found.shape == (3, height, width) and np.allclose(found, weights / weights.sum(axis=0), atol=1e-5)
    assert set(shapes) == {(1, 4, 256, 256)} and levels == ["l2a"]
    down, right = (max(1, -(-side // 128) - 1) for side in (height, width))
    assert len(shapes) == down * right


def test_an_outline_begins_at_30_percent_and_grows_by_30_m() -> None:
    probabilities = np.zeros((3, 31, 31), np.float32)
    probabilities[1, 15, 15], probabilities[1, 2, 2] = 0.31, 0.29
    found = other_detectors.csmask_outline(probabilities, 10.0)
    assert found[15].nonzero()[0].tolist() == list(range(12, 19)) and not found[2, 2]
    assert found[:, 15].sum() == 7


def test_an_opponents_note_says_what_it_is() -> None:
    notes = {coder.name: coder.note for coder in (KltJpeg2000(), KltJpeg2000(True), KltJpeg2000(True, True))}
    assert list(notes) == ["klt-jpeg2000", "klt-jpeg2000-joint", "klt-diff-jpeg2000-joint"]
    assert [("differences over 2 and 8 px" in note) for note in notes.values()] == [False, False, True]
    assert [("one codestream" in note) for note in notes.values()] == [False, True, True]


ISS = Orbit(
    altitude_km=420.0,
    epoch=datetime(2019, 12, 9, tzinfo=UTC),
    tle_1="1 25544U 98067A   19343.69339541  .00001764  00000-0  38792-4 0  9991",
    tle_2="2 25544  51.6439 211.2001 0007417  17.6667  85.6398 15.50103472202482",
)


@pytest.mark.parametrize(("days", "noted"), [(-7.6, "8 days before"), (-6.9, ""), (6.9, ""), (7.4, "7 days after")])
def test_elements_of_more_than_a_week_are_noted_in_a_plan(days: float, noted: str) -> None:
    epoch = elements_epoch(ISS)
    assert epoch is not None
    notes = orbit_notes(ISS, epoch + timedelta(days=days), 1.0)
    assert len(notes) == bool(noted) and all(noted in note for note in notes)


@pytest.mark.parametrize("latitude", [-90.01, 90.01])
def test_a_station_beyond_the_poles_is_none(latitude: float) -> None:
    assert Station("pole", -90.0, 0.0).latitude_deg == -Station("pole", 90.0, 0.0).latitude_deg
    with pytest.raises(InputError, match="mask_deg"):
        Station("behind the mask", 0.0, 0.0, mask_deg=89.5)
    with pytest.raises(InputError, match="latitude_deg"):
        Station("beyond", latitude, 0.0)


def test_tiles_that_were_withheld_are_no_judged_ones() -> None:
    mask = GroundMask(None, 4)
    known = np.ones((4, 12), bool)
    known[:, 8:] = False
    found = mask.classes(np.zeros((4, 4, 12), np.uint16), known, [True, False, False], 10.0, Spread())()
    assert (found[:, :4] == WITHHELD).all() and (found[:, 4:] == NO_CLASS).all()


def test_a_picture_lower_than_the_window_of_ssim_has_no_window() -> None:
    assert similarity._whole_windows(np.ones((7, 30), bool)).shape == (0, 20)
    assert similarity._whole_windows(np.ones((30, 10), bool)).shape == (20, 0)
    assert similarity._whole_windows(np.ones((11, 11), bool)).shape == (1, 1)
