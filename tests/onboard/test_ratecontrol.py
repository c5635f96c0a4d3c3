"""Layers under a byte budget: never above it, better with more of it, and as good as constant slope can be."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from payload.link.rate_control import Candidate, choose_layers
from payload.link.space_packet import SequenceCounter, octets_on_air, segment
from payload.link.tile_code import Kind, TileCode, pack
from payload.policy import Policy

PACKET_OCTETS = 100


def candidate(col: int, sizes: list[int], gains: list[float]) -> Candidate:
    """A tile with layers of these octets that take away these errors."""
    errors = np.concatenate([[0.0], np.cumsum(gains[::-1])])[::-1] + 5.0
    code = TileCode(Kind.CODED, 0, col, 7, 10, bytes(19), tuple(bytes(size) for size in sizes))
    return Candidate(code, tuple(float(e) for e in errors))


layer = st.tuples(st.integers(3, 400), st.floats(0, 1e6))
scenes = st.lists(st.lists(layer, max_size=3), min_size=1, max_size=4).map(
    lambda tiles: [candidate(k, [s for s, _ in t], [g for _, g in t]) for k, t in enumerate(tiles)]
)


def on_air(codes) -> int:
    counter = SequenceCounter(1)
    return sum(len(packet) for code in codes for packet in segment(pack(code), counter, PACKET_OCTETS))


def whole(layers: tuple[bytes, ...], octets: int) -> tuple[bytes, ...]:
    """A codec whose layers cannot be cut."""
    return layers


def cuttable(layers: tuple[bytes, ...], octets: int) -> tuple[bytes, ...]:
    """One whose last layer can be cut anywhere, down to one octet."""
    spare = max(0, sum(map(len, layers)) - octets)
    return (*layers[:-1], layers[-1][: max(1, len(layers[-1]) - spare)])


def policy(budget: int) -> Policy:
    return Policy(budget_octets=budget, packet_octets=PACKET_OCTETS)


def left(scene, codes) -> float:
    return sum(c.errors[len(code.layers)] for c, code in zip(scene, codes, strict=True))


def headers(scene) -> int:
    return len(scene) * octets_on_air(16, PACKET_OCTETS)


@settings(max_examples=100, deadline=None)
@given(scenes, st.integers(1, 6000))
def test_never_above_the_budget_and_no_tile_without_its_header(scene, budget) -> None:
    codes = list(choose_layers(scene, policy(budget), whole))
    assert [(c.row, c.col, c.cloud_percent) for c in codes] == [(0, k, 10) for k in range(len(scene))]
    assert on_air(codes) <= max(budget, headers(scene))
    for code, offered in zip(codes, scene, strict=True):
        assert code.layers == offered.code.layers[: len(code.layers)] and code.declared == len(code.layers)
        if code.layers:
            assert code.kind is Kind.CODED and code.side == offered.code.side
        elif offered.code.layers:  # nothing of it fits: declared as omitted, 16 octets
            assert code.kind is Kind.OMITTED and len(pack(code)) == 16


@settings(max_examples=60, deadline=None)
@given(scenes, st.integers(1, 6000), st.integers(0, 2000))
def test_more_budget_never_leaves_more_error_by_as_much_as_a_step(scene, budget, more) -> None:
    """Exchanges may happen to suit the smaller budget better, but both are within a step of the optimum."""
    less_left, more_left = (left(scene, choose_layers(scene, policy(b), whole)) for b in (budget + more, budget))
    assert less_left <= more_left + largest_step(scene) * (1 + 1e-9)


def largest_step(scene) -> float:
    return max((c.errors[0] - c.errors[-1] for c in scene), default=0.0)


@settings(max_examples=60, deadline=None)
@given(scenes, st.integers(50, 3000))
def test_no_other_choice_is_better_by_more_than_one_step(scene, budget) -> None:
    """Brute force over all truncations: constant slope over the hull is optimal up to the step that did not fit."""
    chosen = list(choose_layers(scene, policy(budget), whole))
    best = min(
        (
            sum(c.errors[n] for c, n in zip(scene, counts, strict=True))
            for counts in product(*(range(len(c.code.layers) + 1) for c in scene))
            if on_air(cut(c, n) for c, n in zip(scene, counts, strict=True)) <= budget
        ),
        default=left(scene, chosen),
    )
    assert left(scene, chosen) <= best + largest_step(scene) * (1 + 1e-9)


def cut(offered: Candidate, layers: int) -> TileCode:
    code = offered.code
    if not layers:
        return TileCode(Kind.OMITTED, code.row, code.col, code.bundle_id, code.cloud_percent)
    return TileCode(code.kind, code.row, code.col, code.bundle_id, code.cloud_percent, code.side, code.layers[:layers])


def test_octets_go_where_they_take_away_most() -> None:
    """Two tiles of three layers, each one packet of 100 octets more: 24 on air for no layer, 124, 224, 324."""
    scene = [candidate(0, [66, 85, 85], [9000, 5000, 1000]), candidate(1, [66, 85, 85], [8000, 6000, 500])]
    kept = {}
    for budget in range(48, 900, 4):
        counts = tuple(len(code.layers) for code in choose_layers(scene, policy(budget), whole))
        kept.setdefault(counts, budget)
    assert kept == {(0, 0): 48, (1, 0): 148, (1, 1): 248, (1, 2): 348, (2, 2): 448, (3, 2): 548, (3, 3): 648}


def test_a_step_that_is_steep_only_together_with_the_next_is_taken_as_one() -> None:
    """Layer 0 alone takes away nothing; with layer 1 it is the best buy of the scene."""
    scene = [candidate(0, [50, 50], [0, 10_000]), candidate(1, [50, 50], [500, 100])]
    enough_for_one_tile = on_air([cut(scene[0], 2), cut(scene[1], 0)])
    codes = list(choose_layers(scene, policy(enough_for_one_tile), whole))
    assert [len(code.layers) for code in codes] == [2, 0]


def test_where_a_long_step_does_not_fit_a_shorter_one_of_the_same_tile_may() -> None:
    scene = [candidate(0, [50, 5000], [10, 1_000_000])]
    codes = list(choose_layers(scene, policy(300), whole))
    assert [len(code.layers) for code in codes] == [1]


def test_what_is_reserved_for_the_audit_counts() -> None:
    scene = [candidate(0, [80, 80], [9, 5])]
    thumbnail = TileCode(Kind.AUDIT, 3, 3, 7, 90, bytes(19), (bytes(10),))
    everything = on_air([scene[0].code])
    assert [len(c.layers) for c in choose_layers(scene, policy(everything), whole)] == [2]
    assert [len(c.layers) for c in choose_layers(scene, policy(everything), whole, [thumbnail])] == [1]
    assert [
        len(c.layers) for c in choose_layers(scene, policy(everything + on_air([thumbnail])), whole, [thumbnail])
    ] == [2]


def test_tiles_without_layers_stay_what_they_are() -> None:
    codes = [TileCode(Kind.EMPTY, 0, 0, 7), TileCode(Kind.WITHHELD, 0, 1, 7, 90)]
    assert list(choose_layers([Candidate(code, ()) for code in codes], policy(10), whole)) == codes


def test_a_codec_without_an_error_estimate_sends_cheap_layers_first() -> None:
    codes = [TileCode(Kind.CODED, 0, k, 7, 0, b"", (bytes(size),)) for k, size in enumerate((400, 40))]
    chosen = list(choose_layers([Candidate(code, ()) for code in codes], policy(120), whole))
    assert [len(code.layers) for code in chosen] == [0, 1]


@pytest.mark.parametrize("seed", range(3))
def test_a_scene_of_many_tiles_meets_its_budget_within_two_per_cent(seed) -> None:
    """Layers that double in size, as the codec's do; from what half the layers need to nearly all of them."""
    rng = np.random.default_rng(seed)
    scene = []
    for col in range(40):
        scale = rng.lognormal(0, 0.7)
        sizes = [max(4, int(scale * 600 * 2**k * rng.uniform(0.7, 1.3))) for k in range(4)]
        scene.append(candidate(col, sizes, [scale * 4.0 ** (3 - k) * rng.uniform(0.7, 1.3) for k in range(4)]))
    everything, before = on_air(c.code for c in scene), np.inf
    for share in np.linspace(0.1, 0.95, 12):
        budget = int(share * everything)
        codes = list(choose_layers(scene, policy(budget), whole))
        assert 0.98 * budget <= on_air(codes) <= budget
        assert left(scene, codes) < before  # and every bit of it does some good
        before = left(scene, codes)


def test_tiles_exchange_layers_where_that_fills_the_budget_better() -> None:
    """Steepest first gives tile 0 its layer, 1000 for 76 octets; then tile 1's, 2700 for 256, does not fit any more."""
    scene = [candidate(0, [50], [1000]), candidate(1, [214], [2700])]
    assert [on_air([cut(c, 1)]) - on_air([cut(c, 0)]) for c in scene] == [76, 256]
    assert [len(code.layers) for code in choose_layers(scene, policy(48 + 256), whole)] == [0, 1]
    assert [len(code.layers) for code in choose_layers(scene, policy(48 + 255), whole)] == [1, 0]
    assert [len(code.layers) for code in choose_layers(scene, policy(48 + 256 + 76), whole)] == [1, 1]


@settings(max_examples=60, deadline=None)
@given(scenes, st.integers(50, 3000))
def test_no_layer_is_left_that_would_fit_and_gain(scene, budget) -> None:
    chosen = [len(code.layers) for code in choose_layers(scene, policy(budget), whole)]
    used = on_air(cut(c, n) for c, n in zip(scene, chosen, strict=True))
    if used > budget:
        return
    for at, c in enumerate(scene):
        for n in range(chosen[at] + 1, len(c.code.layers) + 1):
            more = on_air([cut(c, n)]) - on_air([cut(c, chosen[at])])
            assert used + more > budget or c.errors[n] >= c.errors[chosen[at]]


@pytest.mark.parametrize("tiles", [1, 2, 5])
def test_where_layers_can_be_cut_a_few_tiles_meet_the_budget_too(tiles) -> None:
    scene = [candidate(col, [300, 700, 1500, 3000], [900, 500, 200, 80]) for col in range(tiles)]
    everything = on_air(c.code for c in scene)
    for share in np.linspace(0.1, 0.99, 23):
        budget = int(share * everything)
        codes = list(choose_layers(scene, policy(budget), cuttable))
        assert 0.98 * budget <= on_air(codes) <= budget
        for code, offered in zip(codes, scene, strict=True):
            assert code.layers[:-1] == offered.code.layers[: max(0, len(code.layers) - 1)]
            assert not code.layers or offered.code.layers[len(code.layers) - 1].startswith(code.layers[-1])


@settings(max_examples=100, deadline=None)
@given(scenes, st.integers(1, 6000))
def test_cut_layers_never_pass_the_budget(scene, budget) -> None:
    codes = list(choose_layers(scene, policy(budget), cuttable))
    assert on_air(codes) <= max(budget, headers(scene))
