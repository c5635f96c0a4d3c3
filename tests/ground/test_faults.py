"""The fault campaign and the soak: a small share of each; `sim faults --trials` runs the rest."""

import contextlib
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from payload.guard.telemetry import EventId
from payload.guard.twins import octets_of
from payload.native import library
from payload.policy import Protection
from payload.store.recorder import record_scene, stored
from payload.store.store import Store
from sim.faults import campaign
from sim.faults.campaign import Question, run
from sim.faults.outcomes import Outcome, row_of
from sim.faults.page import as_text, render_page
from sim.faults.rates import environment
from sim.faults.rows import ROWS, chosen
from sim.faults.soak import Week, _resident_mib, soak
from sim.faults.soak import as_text as soak_text
from sim.faults.volatile import PowerCutError, VolatileFiles
from sim.faults.world import world
from sim.mission import SHIPPED
from sim.progress import silent

needs_kernel = pytest.mark.skipif(not library.available, reason="the compiled kernel is not built")


def test_outcomes_add_up_and_a_silent_one_fails_a_strict_row() -> None:
    outcomes = [
        Outcome(True, True), Outcome(True, False), Outcome(False, True, hole=True), Outcome(False, True),
        Outcome(False, False), Outcome(False, True, crashed=True),
    ]  # fmt: skip
    row = row_of("r", outcomes, True, 2.0, None)
    assert row.trials == row.recovered + row.holes + row.unharmed + row.told + row.silent + row.crashed == 6
    assert not row.held
    assert row_of("r", outcomes[:3], True, None, None).held
    assert row_of("r", outcomes[4:5], False, None, None).held


def test_what_is_not_synced_may_be_lost_and_what_is_may_not() -> None:
    lost = 0
    for seed in range(40):
        files = VolatileFiles(operations=5)
        files.append("a", b"kept")
        files.sync("a")
        files.sync_names()
        with pytest.raises(PowerCutError):
            for _ in range(9):
                files.append("a", b"x" * 700)
        left = files.after_cut(np.random.default_rng(seed)).read("a").read()
        assert left.startswith(b"kept")
        lost += len(left) < 4 + 1400
    assert lost > 20


def test_rates_have_sources_and_the_anomaly_has_its_share() -> None:
    where = environment()
    assert where.source.startswith("published") and where.saa_source.startswith("assumed")
    mean = where.saa_factor * where.saa_share_of_time + where.quiet_factor * (1 - where.saa_share_of_time)
    assert mean == pytest.approx(1.0)  # inside and outside together are the mean rate


def test_the_user_page_names_every_key_of_protection() -> None:
    page = (SHIPPED.parents[1] / "docs" / "mission.md").read_text(encoding="utf-8")
    assert [field.name for field in fields(Protection) if f"`{field.name}`" not in page] == []


def test_rows_are_named_by_group_by_name_and_by_pattern() -> None:
    assert {row.name.split("/")[0] for row in chosen(["memory", "model"])} == {"memory", "model"}
    assert [row.name for row in chosen(["memory/all/*/on"])] == ["memory/all/before/on", "memory/all/during/on"]


@needs_kernel
@pytest.mark.slow
def test_a_small_campaign_holds_and_shows_itself() -> None:
    rows = ("memory/all/during", "channel/slip", "channel/ber-1e-4", "process", "model/rollback")
    result = run(Question(rows, trials=8), silent)
    assert result["failed"] == []
    page = render_page(result)
    assert "South Atlantic Anomaly" in page and "memory" in as_text(result)


@needs_kernel
@pytest.mark.slow
def test_a_trial_that_ends_its_process_is_counted_and_the_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the guard, and with a row that ends in a signal."""
    result = run(Question(("process/hung-runtime",), trials=40), silent)
    (row,) = result["rows"]
    assert (row["recovered"], row["crashed"]) == (row["trials"], 0)


@needs_kernel
@pytest.mark.slow
def test_half_a_simulated_day_under_all_faults_loses_nothing_silently() -> None:
    week = soak(0.5, 2000.0, 3, silent)
    assert (week.wrong, week.acknowledged_lost) == (0, 0)
    assert week.flips > 0 and week.counters["memory_hits"] + week.counters["copy_hits"] > 0


@needs_kernel
def test_whoever_was_told_of_a_tile_hears_when_it_is_taken_back_wherever_the_store_was_full_or_cut() -> None:
    """On the tree before, a store that was full let go of tiles in silence, and a cut just behind the letting go kept
    the news from whoever had been promised the tile."""
    here = world("edge", 3, forked=True)
    payload = here.fresh(Protection(scrub_octets=1024, self_test=False))  # found at the end of the scene
    assert payload.guard is not None
    weights = next(twin for twin in payload.guard.scrubber.twins if twin.held.name == "transform.weights")
    told: set[tuple[int, int]] = set()
    withdrawn: list[tuple[int, int]] = []

    def flip() -> None:
        octets_of(weights.held)[::2] ^= 1

    def forget(address: tuple[int, int]) -> None:
        told.discard(address)
        withdrawn.append(address)

    def record(files: VolatileFiles) -> None:
        told.clear()
        here.scene.before = {1: flip}
        with contextlib.suppress(PowerCutError):
            record_scene(payload, Store(files, payload.telemetry), here.scene, told.add, forget)
        here.scene.before = {}
        weights.mend()

    for full_at in range(4, 12):
        files = VolatileFiles()
        files.full_at = full_at
        record(files)
        store = Store(files.after_cut(np.random.default_rng(0)), payload.telemetry)
        assert told <= {address for log in store.scenes.values() for address in log.tiles}
    assert withdrawn
    whole = VolatileFiles()
    record(whole)
    for operation in range(4, whole.done + 1):
        files = VolatileFiles(operations=operation)
        record(files)
        store = Store(files.after_cut(np.random.default_rng(1)), payload.telemetry)
        assert told <= {address for log in store.scenes.values() for address in log.tiles}


class GonePipe:
    """A process that ended: nothing comes any more."""

    def recv(self) -> Outcome:
        raise EOFError


@pytest.mark.parametrize("hung", [True, False])
def test_a_trial_whose_process_hangs_or_ends_is_a_crash_and_the_rest_of_its_task_is_left(hung: bool) -> None:
    process = SimpleNamespace(join=lambda: None, exitcode=-11)
    worker = campaign._Worker(process, GonePipe(), campaign.Task("process/x", 10, 5, 0), done=1)
    outcome = campaign._received(worker, hung)
    assert (outcome.right, outcome.detected, outcome.crashed) == (False, True, True)
    assert outcome.note == ("hangs" if hung else "exit code -11")
    assert campaign._rest(worker) == [campaign.Task("process/x", 12, 3, 0)]


def test_memory_of_the_soak_is_in_mib(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process with numpy in it takes tens to some thousands of them, now and at its peak."""
    now = _resident_mib()
    monkeypatch.setattr("sim.faults.soak.Path", lambda _: Path("/nowhere/there"))
    assert 20 < now <= 1.1 * _resident_mib() < 20_000


def test_the_soaks_words_are_its_figures() -> None:
    week = Week(7.0, 100.0, scenes=3, memory_mib=[101.25, 150.0, 102.5], files=[7, 9, 8], counters={"held": 2, "x": 0})
    told = soak_text(week)
    assert "memory 101.2 to 102.5 MiB" in told and "open files 7 to 8" in told
    assert "counters: held 2\n" in told


def test_every_row_has_a_trial() -> None:
    assert len(ROWS) > 40 and all(callable(row.trial) for row in ROWS.values())


@needs_kernel
@pytest.mark.parametrize("hit_row", [1, 2])
def test_an_upset_and_a_cut_at_any_step_leave_no_wrong_tile(hit_row: int) -> None:
    """On the tree before, tiles that were stored when memory was hit were kept where the power was cut before the
    recoded ones were on disk."""
    here = world("edge", 3, forked=True)
    payload = here.fresh(Protection(scrub_octets=1024, self_test=False))  # found at the end of the scene
    assert payload.guard is not None
    weights = next(twin for twin in payload.guard.scrubber.twins if twin.held.name == "transform.weights")

    def flip() -> None:
        octets_of(weights.held)[::2] ^= 1

    def record(files: VolatileFiles) -> None:
        here.scene.before = {hit_row: flip}
        with contextlib.suppress(PowerCutError):
            record_scene(payload, Store(files, payload.telemetry), here.scene)
        here.scene.before = {}
        if not weights.alike:
            weights.mend()  # as the next start does

    whole, sound, taken_back = VolatileFiles(), here.fresh(Protection(self_test=False)), 0
    record(whole)
    for operation in range(4, whole.done + 1):
        files = VolatileFiles(operations=operation)
        record(files)
        for seed in range(3):
            store = Store(files.after_cut(np.random.default_rng(seed)), sound.telemetry)
            if not list(store.waiting()):
                record_scene(sound, store, here.scene)
            (log,) = store.waiting()
            codes = [candidate.code for candidate in stored(log)]
            assert [(code.side, code.layers) for code in codes] == [(code.side, code.layers) for code in here.clean]
        taken_back += EventId.TAKEN_BACK in [event.event for event in sound.telemetry.take()]
    assert taken_back >= 2  # where the power was cut before anybody had found the hit
