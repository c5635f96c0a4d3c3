"""What waits in the store, drawn layer by layer: the rules, and that all of it outlives any cut."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from payload.errors import InputError
from payload.guard.telemetry import EventId
from payload.link.rate_control import Candidate
from payload.link.scene_header import SceneHeader
from payload.link.tile_code import Kind, TileCode
from payload.scene import SceneInfo
from payload.sensor import RGBN
from payload.store.files import Files, FolderFiles
from payload.store.ledger import Ledger
from payload.store.stock import Stock, Unit, units_of
from payload.store.store import THUMBNAIL, SceneLog, Store
from sim.faults.volatile import PowerCutError, VolatileFiles

HEADER = SceneHeader(0, 7, 64, SceneInfo("made up", 640, 64, RGBN, 10.0))


def put(store: Store, tiles: list[tuple[int, ...]], thumbnails: tuple[int, ...] = ()) -> SceneLog:
    """A complete scene: a tile for each tuple, with layers of so many octets, and a withheld one for each thumbnail."""
    log = store.open_scene(HEADER)
    assert log is not None
    for row, octets in enumerate(tiles):
        layers = tuple(bytes([row + 1]) * count for count in octets)
        code = TileCode(Kind.CODED, row, 0, 7, side=b"side", layers=layers, scene_id=log.scene_id)
        assert log.add(Candidate(code, tuple(float(n) for n in range(len(layers) + 1))))
    for row, count in enumerate(thumbnails, len(tiles)):
        assert log.add_audit(TileCode(Kind.AUDIT, row, 0, 7, layers=(b"t" * count,), scene_id=log.scene_id))
        assert log.add(Candidate(TileCode(Kind.WITHHELD, row, 0, 7, scene_id=log.scene_id), ()))
    assert log.close()
    return log


def coarse_first(store: Store) -> list[Unit]:
    return sorted(units_of(store), key=lambda unit: (unit.layer != THUMBNAIL, unit.layer, unit))


units = st.lists(st.tuples(st.integers(1, 9), st.integers(0, 4)), min_size=1, max_size=12)


def ledger_of(rows: list[tuple[int, int]]) -> Ledger:
    octets, copies = np.array(rows).T
    ledger = Ledger(octets.astype(float), copies)
    ledger.enter(np.ones(len(rows), bool))
    return ledger


@given(units, st.integers(0, 99))
def test_a_pass_takes_what_comes_first_until_the_next_copy_does_not_fit(rows: list[tuple[int, int]], room: int) -> None:
    queue, copies = ledger_of(rows).draw(room)
    one_by_one = [n for n, (_, count) in enumerate(rows) for _ in range(count)]
    taken = np.repeat(queue, copies).tolist()
    assert taken == one_by_one[: len(taken)]
    octets = [rows[n][0] for n in one_by_one]
    assert sum(octets[: len(taken)]) <= room
    assert len(taken) == len(octets) or sum(octets[: len(taken) + 1]) > room


@given(units, st.integers(0, 99))
def test_no_more_is_let_go_of_than_the_room_asks_and_what_is_worth_least_goes(
    rows: list[tuple[int, int]], room: int
) -> None:
    ledger = ledger_of(rows)
    gone = ledger.make_room(room)
    left = [n for n, count in enumerate(ledger.waiting.tolist()) for _ in range(count)]
    one_by_one = [n for n, (_, count) in enumerate(rows) for _ in range(count)]
    octets = [rows[n][0] for n in one_by_one]
    assert left == one_by_one[: len(left)] and gone.sum() == len(octets) - len(left)
    assert ledger.held_octets == sum(octets[: len(left)]) <= room
    assert len(left) == len(octets) or sum(octets[: len(left) + 1]) > room


def test_what_is_acknowledged_is_drawn_no_more_also_by_the_next_start(tmp_path: Path) -> None:
    put(Store(FolderFiles(tmp_path, 1 << 20)), [(30, 50), (20, 60)], (10,))
    for drawn in ([(2, THUMBNAIL), (0, 0), (1, 0)], [(0, 1)], [(1, 1)]):
        store = Store(FolderFiles(tmp_path, 1 << 20))
        stock = Stock(store, coarse_first(store))
        taken = stock.draw(65)
        assert [(unit.row, unit.layer) for unit in taken] == drawn
        stock.acknowledge(taken)
    assert not Store(FolderFiles(tmp_path, 1 << 20)).scenes and [p.name for p in tmp_path.iterdir()] == ["state"]


def test_a_tile_whose_fine_layers_are_let_go_of_is_a_whole_tile_code_of_fewer_layers(tmp_path: Path) -> None:
    files = FolderFiles(tmp_path, 1 << 20)
    store = Store(files)
    log = put(store, [(30, 50, 70), (20, 60)])
    before, took = log.tile((0, 0)), store.octets
    gone = Stock(store, coarse_first(store)).make_room(60)
    assert [(unit.row, unit.layer) for unit in gone] == [(0, 1), (1, 1), (0, 2)]
    (log,) = Store(FolderFiles(tmp_path, 1 << 20)).scenes.values()
    after = log.tile((0, 0))
    assert before is not None and after is not None
    assert (after.code.layers, after.code.declared, after.code.incomplete) == (before.code.layers[:1], 1, False)
    assert after.errors == (0.0, 1.0) and after.code.side == b"side"
    assert store.octets < took - 150 and files._used == sum(p.stat().st_size for p in tmp_path.iterdir())
    assert EventId.LET_GO in [event.event for event in store.telemetry.take()]


def test_a_tile_of_which_nothing_is_left_is_declared_omitted() -> None:
    store = Store(VolatileFiles())
    log = put(store, [(30, 50)])
    Stock(store, coarse_first(store)).make_room(0)
    found = log.tile((0, 0))
    assert found is not None and found.code.kind is Kind.OMITTED and found.code.layers == ()


def test_a_disk_without_room_for_writing_anew_keeps_all_and_says_so() -> None:
    files = VolatileFiles()
    store = Store(files)
    put(store, [(30, 50)])
    files.full_at = files.appends + 3
    stock = Stock(store, coarse_first(store))
    assert stock.make_room(40) == [] and stock.ledger.held_octets == 80
    assert sum(units_of(store).values()) == 80 and not [name for name in files.names() if name.endswith(".new")]
    assert EventId.STORE_FULL in [event.event for event in store.telemetry.take()]


def test_a_full_store_takes_the_next_scene_once_fine_layers_are_let_go_of(tmp_path: Path) -> None:
    """As large as what is acknowledged and let go of leaves, though the old file lies beside the new one for a moment.
    """
    store = Store(FolderFiles(tmp_path, 4000))
    put(store, [(200, 1000)] * 2)
    log = store.open_scene(HEADER)
    assert log is not None
    code = TileCode(Kind.CODED, 0, 0, 7, layers=(b"n" * 1000,), scene_id=log.scene_id)
    assert not log.add(Candidate(code, ()))
    Stock(store, coarse_first(store)).make_room(400)
    assert log.add(Candidate(code, ())) and log.close()
    assert sorted(units_of(Store(FolderFiles(tmp_path, 4000))).values()) == [200, 200, 1000]


def test_an_order_that_sends_a_fine_layer_before_a_coarser_one_is_refused() -> None:
    store = Store(VolatileFiles())
    put(store, [(30, 50)])
    with pytest.raises(InputError, match="layer 0 comes behind a finer one"):
        Stock(store, sorted(units_of(store), reverse=True))


def test_a_scene_that_a_pass_sends_as_a_whole_is_left_to_it() -> None:
    store = Store(VolatileFiles())
    log = put(store, [(30, 50)])
    store.state.save(sending=log.scene_id, sent=1)
    assert units_of(store) == {}


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.integers(0, 2**32))
def test_a_cut_at_any_moment_leaves_what_was_before_or_after_and_every_tile_whole(stop: int, seed: int) -> None:
    """Acknowledging and letting go of, with the power cut at every operation on the disk."""
    files, random = VolatileFiles(), np.random.default_rng(seed)
    store = Store(files)
    put(store, [(30, 50, 70), (20, 60)], (10,))
    whole = units_of(store)
    files.operations = files.done + stop
    states = [set(whole)]
    try:
        for room in (40, 60):
            stock = Stock(store, coarse_first(store))
            taken = stock.draw(room)
            states.append(states[-1] - set(taken))
            stock.acknowledge(taken)
            stock = Stock(store, coarse_first(store))
            states.append(states[-1] - {unit for unit in stock.units if unit.layer == 2})
            stock.make_room(sum(whole[unit] for unit in states[-1]))
    except PowerCutError:
        pass
    found = _reopened(files, random)
    assert set(found) in states
    assert all(whole[unit] == octets for unit, octets in found.items())


def _reopened(files: VolatileFiles, random: np.random.Generator) -> dict[Unit, int]:
    cut = files.operations is not None and files.done >= files.operations
    files.operations = None
    again: Files = files.after_cut(random) if cut else files
    store = Store(again)
    assert not [name for name in again.names() if name.endswith(".scene.new")]
    return units_of(store)
