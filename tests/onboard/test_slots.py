"""Two places for bundles: a trial flies once, is confirmed or given up, and giving up is told."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from payload.bundle import load_bundle
from payload.errors import BundleError
from payload.guard.slots import Slots
from payload.guard.telemetry import Count, EventId, Telemetry


@pytest.fixture
def places(tmp_path: Path, toy_bundle: Path, make_bundle: Callable[..., Path]) -> tuple[Slots, int, int, Path]:
    """Slots in which the toy bundle is confirmed and another is on trial; the ids of both."""
    names = ("flight/tables.npz", "flight/encoder.onnx", "ground/decoder.onnx")
    files = {name: (toy_bundle / name).read_bytes() for name in names}
    other = make_bundle(tmp_path / "other", files | {"flight/encoder.onnx": b"another toy"})
    slots, old, new = Slots(tmp_path / "slots"), load_bundle(toy_bundle).bundle_id, load_bundle(other).bundle_id
    assert old != new
    slots.install(toy_bundle, old)
    slots.choose()
    slots.confirm()
    slots.install(other, new)
    return slots, old, new, other


def told(telemetry: Telemetry) -> list[Any]:
    return [event.event for event in telemetry.take()]


def test_a_trial_flies_once_and_is_given_up_unless_it_is_confirmed(places: tuple[Slots, int, int, Path]) -> None:
    slots, old, new, _ = places
    telemetry = Telemetry()
    assert slots.choose(telemetry).bundle_id == new and told(telemetry) == []
    assert slots.choose(telemetry).bundle_id == old and told(telemetry) == [EventId.ROLLED_BACK]
    assert slots.choose(telemetry).bundle_id == old and told(telemetry) == []
    assert telemetry.counts[Count.ROLLBACKS] == 1


def test_a_confirmed_trial_flies_on(places: tuple[Slots, int, int, Path]) -> None:
    slots, _, new, _ = places
    slots.choose()
    slots.confirm()
    assert [slots.choose().bundle_id for _ in range(3)] == [new] * 3 and not slots.rolled_back


def test_a_trial_whose_files_rot_does_not_fly(places: tuple[Slots, int, int, Path]) -> None:
    slots, old, _, _ = places
    (slots.trial_folder / "manifest.json").write_bytes(b"{}")
    telemetry = Telemetry()
    assert slots.choose(telemetry).bundle_id == old and told(telemetry) == [EventId.ROLLED_BACK]


def test_an_upload_that_is_not_the_one_announced_changes_nothing(places: tuple[Slots, int, int, Path]) -> None:
    slots, _, new, other = places
    slots.choose()
    slots.confirm()
    with pytest.raises(BundleError, match="announced was 00000001"):
        slots.install(other, 1)
    assert slots.choose().bundle_id == new


def test_where_neither_is_whole_it_says_so(places: tuple[Slots, int, int, Path], tmp_path: Path) -> None:
    for place in ("a", "b"):
        shutil.rmtree(tmp_path / "slots" / place)
    with pytest.raises(BundleError, match="no bundle is whole"):
        places[0].choose()
