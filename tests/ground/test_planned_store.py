"""The planner's store is the payload's: the same takes and passes through the model and through a store on disk."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up_scenes import table
from toys import TOY_TILE_PX, ArrayScene, ToyEngine

from payload.bundle import load_bundle
from payload.link.rate_control import Candidate
from payload.link.scene_header import SceneHeader
from payload.link.tile_code import Kind, TileCode
from payload.pipeline import Payload
from payload.policy import Policy
from payload.scene import SceneInfo
from payload.sensor import RGBN
from payload.store.stock import Stock, Unit, units_of
from payload.store.store import THUMBNAIL, Store
from payload.tiles import split
from sim.faults.volatile import VolatileFiles
from sim.ground.decoder import Decoder
from sim.planning import coded, schedule, units

FRAME_OCTETS = 50
HEADER = SceneHeader(0, 7, 64, SceneInfo("made up", 640, 64, RGBN, 10.0))


class OnDisk:
    """The same takes as the planner's units, as a payload would store them."""

    def __init__(self, offered: units.Units, octets: np.ndarray, withheld: np.ndarray, scene: np.ndarray) -> None:
        self.files, self.octets, self.withheld, self.scene = VolatileFiles(), octets, withheld, scene
        self.scene_ids: dict[int, int] = {}
        self.offered = list(zip(offered.take, offered.tile, offered.layer, offered.kind, strict=True))

    def open(self) -> Store:
        """Every time from the disk."""
        return Store(self.files)

    def code(self, take: int) -> None:
        """A take into the store; the guard doubts its first tiles, takes them back and has them coded again."""
        log = self.open().open_scene(HEADER)
        self.scene_ids[take] = log.scene_id
        for again in (False, True):
            for tile in np.flatnonzero(self.scene == take):
                layers = tuple(bytes(int(n)) for n in self.octets[tile])
                code = TileCode(Kind.CODED, int(tile), 0, 7, layers=layers, scene_id=log.scene_id)
                if self.withheld[tile]:
                    log.add_audit(TileCode(Kind.AUDIT, int(tile), 0, 7, layers=layers[:1], scene_id=log.scene_id))
                    code = TileCode(Kind.WITHHELD, int(tile), 0, 7, scene_id=log.scene_id)
                log.add(Candidate(code, ()))
            if not again:
                log.take_back()
        log.close()

    def unit(self, n: int) -> Unit | None:
        take, tile, layer, kind = self.offered[n]
        if take not in self.scene_ids:
            return None
        return Unit(self.scene_ids[take], int(tile), 0, THUMBNAIL if kind == units.THUMBNAIL else int(layer))

    def stock(self) -> Stock:
        return Stock(self.open(), [unit for n in range(len(self.offered)) if (unit := self.unit(n)) is not None])

    @property
    def waiting_octets(self) -> int:
        return sum(units_of(self.open()).values())


def windows(rooms: list[int], lost: float) -> list[SimpleNamespace]:
    one = {"usable_s": 60.0, "profile": SimpleNamespace(lost_share=lost), "share": SimpleNamespace(begin_s=0.0),
           "contact": SimpleNamespace(station="A"), "sent_s": lambda octets: 0.0 * octets}  # fmt: skip
    return [SimpleNamespace(capacity_octets=room, **one) for room in rooms]


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.lists(st.tuples(*[st.integers(1, 60)] * 3), min_size=1, max_size=3), min_size=1, max_size=3),
    st.lists(st.integers(0, 400), min_size=1, max_size=5), st.integers(0, 500), st.sampled_from([0.0, 0.2]),
    st.sampled_from(["coarse-first", "whole-tiles", "least-error", "fifo", "random"]), st.integers(0, 2**32),
)  # fmt: skip
def test_the_modelled_store_and_the_one_on_disk_hold_send_and_let_go_of_the_same(
    takes: list, rooms: list[int], capacity: int, lost: float, order: units.Order, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    tiles = [tile for take in takes for tile in take]
    scene = np.repeat(np.arange(len(takes)), [len(take) for take in takes])
    withheld = np.flatnonzero(rng.random(len(tiles)) < 0.2)
    of = table(tiles, withheld, rng.integers(1, 9, len(tiles)) * 1e4, (0.05, 0.03, 0.01), scene=scene)
    sorts = [SimpleNamespace(priority=int(p), alert=bool(a)) for p, a in rng.integers(0, 2, (len(takes), 2))]
    numbers = list(range(len(takes)))
    contents = units.contents(sorts, numbers, [len(take) for take in takes], of)
    offered = units.build(sorts, contents, numbers, of, True, order, audit_count=9)
    coded_s = rng.integers(0, 1000 * len(rooms), len(takes)).astype(float)
    begins = [1000.0 * n for n in range(1, len(rooms) + 1)]
    model = schedule.run(offered, coded_s, windows(rooms, lost), begins, capacity, FRAME_OCTETS, seed)

    disk, random, arrived = OnDisk(offered, of.octets, of.withheld, scene), np.random.default_rng(seed), set()
    frames = {n: np.ceil(octets / FRAME_OCTETS) + 1 for n, octets in enumerate(offered.octets)}
    for row, begin in zip(model.passes, begins, strict=True):
        for take in np.flatnonzero((coded_s <= begin) & (coded_s > begin - 1000.0) | (coded_s == 0) & (begin == 1000)):
            disk.code(int(take))
        disk.stock().make_room(capacity)
        assert disk.waiting_octets == row.stored_octets
        number = {disk.unit(n): n for n in range(len(frames))}
        stock = disk.stock()
        taken = stock.draw(row.capacity_octets)
        gone = 1 - (1 - lost) ** np.array([frames[number[unit]] for unit in taken])
        down = random.binomial(np.ones(len(taken), np.int64), gone) == 0 if taken else np.zeros(0, bool)
        stock.acknowledge([unit for unit, right in zip(taken, down, strict=True) if right])
        arrived |= {number[unit] for unit, right in zip(taken, down, strict=True) if right}
        assert disk.waiting_octets == row.waiting_octets
    assert arrived == set(np.flatnonzero(model.arrived).tolist())
    waiting = {number for number in range(len(frames)) if disk.unit(number) in units_of(disk.open())}
    assert waiting == set(np.flatnonzero(model.waiting * (coded_s[offered.take] <= begins[-1])).tolist())


def test_what_is_planned_with_comes_out_of_the_payloads_store(toy_bundle, ground_of, monkeypatch) -> None:
    """Two scenes of the same name and size, one tile withheld: octets, layers and what was withheld are the store's."""
    bundle, engine = load_bundle(toy_bundle), ToyEngine()
    payload, decoder = Payload(bundle, Policy(step_dn=400.0), engine), Decoder(bundle, engine)
    samples = []
    for number in range(2):
        dn = ground_of(1, 2, seed=number)
        scene = ArrayScene(SceneInfo("one name", *dn.shape[1:], RGBN, 10.0), dn, np.ones(dn.shape[1:], bool))
        for tile in split(scene, TOY_TILE_PX):
            held = (number, tile.col) == (1, 1)
            samples.append(coded.Sample(number, payload.header_of(scene), tile, tile.valid, held, None))
    stores, opened = [], coded.Store
    monkeypatch.setattr(coded, "Store", lambda files: stores.append(opened(files)) or stores[-1])
    found = coded._coded(samples, payload, decoder, lambda *_: None)
    (store,) = stores
    assert [len(log.tiles) for log in store.waiting()] == [2, 2] and found.withheld.tolist() == [False] * 3 + [True]
    codes = [payload.encode_tile(sample.tile) for sample in samples]
    assert [len(code.layers) for code in codes] == (found.octets > 0).sum(axis=1).tolist()
    assert (found.octets.sum(axis=1) > [sum(map(len, code.layers)) for code in codes]).all()
    monkeypatch.setattr(coded, "MOST_STORED_OCTETS", 1500)
    with pytest.raises(coded.InputError, match="do not fit on the disk of temporary files"):
        coded._coded(samples, payload, decoder, lambda *_: None)
