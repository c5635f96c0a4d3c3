"""A pass over several scenes: what is planned is what is sent, octet for octet, and no even cut does better."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from payload.bundle import load_bundle
from payload.codec.interface import Quality
from payload.codec.registry import open_codec
from payload.engine import open_engine
from payload.link.pass_filling import CutPoint, Waiting, clear_px, cut_points, fill_pass, values_per_octet
from payload.link.rate_control import Candidate
from payload.link.scene_header import SceneHeader, headers_on_air, records
from payload.link.space_packet import SequenceCounter, segment
from payload.link.streams import Sender
from payload.link.tile_code import UNKNOWN_CLOUD, Kind, TileCode, pack
from payload.link.valid_mask import pack_mask
from payload.policy import Policy
from payload.scene import SceneInfo
from payload.stopwatch import Stopwatch
from payload.store.stock import Stock, units_of
from payload.store.store import Store
from payload.store.valued import by_value, waiting_scenes
from payload.tiles import Tile, split
from sim.faults.volatile import VolatileFiles
from sim.scenes.demo import demo_scene

POLICY = Policy(packet_octets=100)
INFO = SceneInfo("a scene", 256, 1024, ("B02", "B03", "B04", "B08"), 10.0)


def candidate(scene: int, col: int, sizes: list[int], gains: list[float]) -> Candidate:
    """A tile with layers of these octets that take away these errors."""
    errors = [5.0 + sum(gains[n:]) for n in range(len(gains) + 1)]
    layers = tuple(bytes(size) for size in sizes)
    return Candidate(TileCode(Kind.CODED, 0, col, 7, 10, bytes(19), layers, scene_id=scene), tuple(errors))


layer = st.tuples(st.integers(3, 400), st.floats(0, 1e6))
tiles = st.lists(st.lists(layer, min_size=1, max_size=3), min_size=1, max_size=4)
places = st.lists(st.tuples(tiles, st.floats(0.1, 10)), min_size=1, max_size=3).map(
    lambda scenes: [
        Waiting(
            SceneHeader(k, 7, 256, INFO),
            [candidate(k, col, [s for s, _ in t], [g for _, g in t]) for col, t in enumerate(of)], worth,
        )
        for k, (of, worth) in enumerate(scenes)
    ]
)  # fmt: skip


def cuttable(layers: tuple[bytes, ...], octets: int) -> tuple[bytes, ...]:
    """A codec whose last layer can be cut anywhere, down to one octet."""
    spare = max(0, sum(map(len, layers)) - octets)
    return (*layers[:-1], layers[-1][: max(1, len(layers[-1]) - spare)])


def whole(layers: tuple[bytes, ...], octets: int) -> tuple[bytes, ...]:
    return layers


def sent_octets(filled, policy: Policy) -> int:
    """Of the packets that a payload's own sender makes of it."""
    sender = Sender(policy)
    return sum(
        len(packet)
        for header, codes in filled.scenes for record in records(header, codes) for packet in sender.packets(record)
    )  # fmt: skip


@settings(max_examples=80, deadline=None)
@given(places, st.integers(1, 9000), st.sampled_from([whole, cuttable]))
def test_the_octets_planned_are_the_octets_sent_and_fit_the_pass(waiting, capacity, shorten):
    filled = fill_pass(waiting, capacity, POLICY, shorten)
    assert filled.octets == sent_octets(filled, POLICY) <= capacity
    assert all(code.layers and code.kind is Kind.CODED for _, codes in filled.scenes for code in codes)


@given(st.lists(layer, max_size=3))
def test_cut_points_are_the_octets_of_the_tile_code_cut_there(layers):
    tile = candidate(3, 0, [s for s, _ in layers], [g for _, g in layers])
    nothing, *some = cut_points(tile, 100)
    omitted = replace(tile.code, kind=Kind.OMITTED, side=b"", layers=(), declared=0, sent_octets=-1)
    assert nothing.octets == sum(map(len, segment(pack(omitted), SequenceCounter(1), 100)))
    for point in some:
        cut = replace(tile.code, layers=tile.code.layers[: point.layers], declared=point.layers, sent_octets=-1)
        assert point.octets == sum(map(len, segment(pack(cut), SequenceCounter(1), 100)))
        assert point.error == tile.errors[point.layers]


@given(st.lists(st.tuples(st.integers(1, 400), st.floats(0, 1e6)), max_size=5))
def test_values_never_rise_along_a_tile_and_add_up_to_the_error_removed(steps):
    points, error = [CutPoint(0, 30, sum(gain for _, gain in steps))], sum(gain for _, gain in steps)
    for octets, gain in steps:
        error -= gain
        points.append(CutPoint(points[-1].layers + 1, points[-1].octets + octets, error))
    values = values_per_octet(points)
    assert list(values) == sorted(values, reverse=True)
    gained = sum(value * octets for value, (octets, _) in zip(values, steps, strict=True))
    assert gained == pytest.approx(points[0].error - points[-1].error, abs=1e-3)


def test_values_of_a_tile_by_hand():
    """The second layer is worth more than the first: both count 60 / 30. The third 5 / 10."""
    points = [CutPoint(0, 10, 100.0), CutPoint(1, 20, 90.0), CutPoint(2, 40, 40.0), CutPoint(3, 50, 35.0)]
    assert values_per_octet(points) == (2.0, 2.0, 0.5)


def test_a_scene_that_is_worth_more_goes_first():
    scenes = [
        Waiting(SceneHeader(k, 7, 256, INFO), [candidate(k, 0, [300], [1000.0])], worth)
        for k, worth in enumerate((1.0, 3.0))
    ]
    (taken,) = fill_pass(scenes, 900, POLICY, whole).scenes
    assert taken[0].scene_id == 1


def test_a_pass_too_short_for_any_layer_takes_nothing():
    scene = Waiting(SceneHeader(0, 7, 256, INFO), [candidate(0, 0, [4000], [1.0])])
    assert fill_pass([scene], 500, POLICY, whole).scenes == ()
    assert fill_pass([], 500, POLICY, whole).octets == 0


@pytest.fixture(scope="module")
def real():
    """Two scenes of nine tiles, coded by the bundle that flies: the generated land, and the same under haze."""
    bundle = load_bundle()
    codec, scenes = open_codec(bundle, open_engine("native")), []
    for number, haze in enumerate((1.0, 0.35)):
        with demo_scene(768, 768, number) as scene:
            header = SceneHeader(number, bundle.bundle_id, 256, scene.info)
            found = [coded(codec, number, tile, haze) for tile in split(scene, 256)]
        scenes.append(Waiting(header, found))
    return codec, scenes


def coded(codec, scene: int, tile: Tile, haze: float) -> Candidate:
    dull = Tile(tile.row, tile.col, (2000 + haze * (tile.dn - 2000.0)).astype("uint16"), tile.valid)
    found = codec.encode(dull, Quality(100.0, with_errors=True), Stopwatch())
    code = TileCode(Kind.CODED, tile.row, tile.col, 7, 0, found.side, found.layers, scene_id=scene)
    return Candidate(code, found.errors)


@pytest.mark.parametrize("share", [0.1, 0.3, 0.6])
def test_a_pass_of_real_tiles_is_spent_and_leaves_less_error_than_any_even_cut(real, share):
    """Against all tiles cut after the same layer, of as many tiles as that has room for."""
    codec, scenes = real
    policy = Policy(packet_octets=1024)
    points = [cut_points(tile, 1024) for scene in scenes for tile in scene.tiles]
    capacity = int(share * sum(p[-1].octets for p in points))
    filled = fill_pass(scenes, capacity, policy, codec.shorten)
    assert filled.octets == sent_octets(filled, policy)
    assert 0.98 * capacity <= filled.octets <= capacity
    went = {(h.scene_id, c.row, c.col): len(c.layers) for h, codes in filled.scenes for c in codes}
    tiles = [tile for scene in scenes for tile in scene.tiles]
    keys = [(scene.header.scene_id, t.code.row, t.code.col) for scene in scenes for t in scene.tiles]
    # A layer that was begun is counted as if nothing of it had come.
    left = sum(
        t.errors[n if (n := went.get(key, 0)) == 0 or whole_layer(filled, key, t, n) else n - 1]
        for key, t in zip(keys, tiles, strict=True)
    )
    for layers in range(1, 5):
        room, even = capacity - headers(filled), 0.0
        for point in points:
            fits = point[min(layers, len(point) - 1)].octets <= room
            room -= point[min(layers, len(point) - 1)].octets if fits else 0
            even += point[min(layers, len(point) - 1)].error if fits else point[0].error
        assert left <= even


def headers(filled) -> int:
    codes = [code for _, found in filled.scenes for code in found]
    return filled.octets - sum(cut_points(Candidate(code, ()), 1024)[-1].octets for code in codes)


def whole_layer(filled, key, tile: Candidate, layers: int) -> bool:
    sent = next(c for h, codes in filled.scenes for c in codes if (h.scene_id, c.row, c.col) == key)
    return len(sent.layers[-1]) == len(tile.code.layers[layers - 1])


def stored() -> Store:
    """Two scenes of a tile each, alike but for what their layers remove."""
    store = Store(VolatileFiles())
    for gains in ([900.0, 30.0], [400.0, 200.0]):
        log = store.open_scene(SceneHeader(0, 7, 256, INFO))
        assert log is not None
        assert log.add(candidate(log.scene_id, 0, [100, 100], gains))
        assert log.close()
    return store


def test_layers_of_a_store_go_by_value_over_all_its_scenes():
    store = stored()
    first, second = (log.scene_id for log in store.waiting())
    order = [(unit.scene_id, unit.layer) for unit in by_value(store, 1024)]
    assert order == [(first, 0), (second, 0), (second, 1), (first, 1)]
    assert [u.scene_id for u in by_value(store, 1024, {second: 9.0})] == [second, second, first, first]
    drawn = Stock(store, by_value(store, 1024)).draw(sum(units_of(store).values()) - 1)
    assert [(unit.scene_id, unit.layer) for unit in drawn] == order[:3]


def test_whole_tiles_of_a_store_go_by_clear_pixels_per_octet():
    store = Store(VolatileFiles())
    log = store.open_scene(SceneHeader(0, 7, 256, INFO))
    for col, (cloud_percent, sizes) in enumerate(((50, [100, 100]), (0, [150, 150]), (UNKNOWN_CLOUD, [50, 500]))):
        tile = candidate(log.scene_id, col, sizes, [900.0, 1.0])
        assert log.add(replace(tile, code=replace(tile.code, cloud_percent=cloud_percent)))
    assert log.close()
    order = [(unit.col, unit.layer) for unit in by_value(store, 1024, whole_tiles=True)]
    assert order == [(1, 0), (1, 1), (0, 0), (0, 1), (2, 0), (2, 1)]
    assert [unit.col for unit in by_value(store, 1024)][:3] == [2, 0, 1]  # by error its coarsest layer is the cheapest
    (scene,) = waiting_scenes(store, whole_tiles=True)
    assert [tile.errors for tile in scene.tiles] == [(n, n, 0.0) for n in (32768.0, 65536.0, 65536.0)]
    room = 150 + cut_points(scene.tiles[1], 100)[-1].octets + headers_on_air(scene.header, 1, 100)
    (taken,) = fill_pass([scene], room, POLICY, whole).scenes
    went = {code.col: len(code.layers) for code in taken[1]}
    assert went[1] == 2 and set(went) <= {1, 2} and went.get(2, 1) == 1  # what is left over goes on a coarse layer


def test_clear_pixels_are_valid_ones_without_the_gates_share_of_cloud():
    mask = np.ones((256, 256), bool)
    mask[:64] = False
    code = replace(candidate(0, 0, [9], [1.0]).code, cloud_percent=25, mask=pack_mask(mask))
    assert clear_px(code, 256) == 0.75 * 192 * 256


def test_a_pass_over_a_store_takes_what_a_pass_over_its_tiles_takes():
    store = stored()
    filled = fill_pass(waiting_scenes(store), 1100, POLICY, whole)
    assert filled.scenes
    assert filled.octets == sent_octets(filled, POLICY) <= 1100
    assert {header.scene_id for header, _ in filled.scenes} <= {log.scene_id for log in store.waiting()}
