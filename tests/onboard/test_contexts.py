"""The context model's features and logits against slow loops written out here, and its bounds."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from payload.codec.lapped.context_model import (
    Contexts,
    LayerWeights,
    activity_of,
    feature_count,
    log2_eighths,
    zones,
)
from payload.codec.lapped.tables import load_tables

BANDS, H, W = 3, 8, 16
CHANNELS = 64 * BANDS


def what_is_known(previous: np.ndarray | None, told: dict[int, np.ndarray]) -> np.ndarray:
    known = np.zeros((CHANNELS, H, W), int) if previous is None else np.minimum(15, 2 * previous.astype(int))
    for channel, magnitude in told.items():
        known[channel] = np.minimum(15, magnitude)
    return known


def features_of(known: np.ndarray, channel: int, row: int, col: int) -> list[int]:
    """docs/format.md, line by line."""

    def at(c: int, i: int, j: int) -> int:
        return int(known[c, i, j]) if 0 <= i < H and 0 <= j < W else 0

    def around(c: int, offsets: list[tuple[int, int]]) -> int:
        return sum(at(c, row + i, col + j) for i, j in offsets)

    sides = [(-1, 0), (1, 0), (0, -1), (0, 1)]
    corners = [(-1, -1), (-1, 1), (1, -1), (1, 1)]
    band, rest = divmod(channel, 64)
    u, v = divmod(rest, 8)

    def function(du: int, dv: int) -> int:
        a, b = u + du, v + dv
        return at(64 * band + 8 * a + b, row, col) if 0 <= a < 8 and 0 <= b < 8 and a + b else 0

    found = [around(channel, sides), around(channel, corners), around(channel, [(2 * i, 2 * j) for i, j in sides])]
    found += [function(-1, 0), function(0, -1), function(1, 0) + function(0, 1)]
    found += [sum(function(*d) for d in corners), sum(function(2 * i, 2 * j) for i, j in sides)]
    for turn in range(1, BANDS):
        other = (channel + 64 * turn) % CHANNELS
        found += [at(other, row, col), around(other, sides)]

    def block(bands: list[int], zone: int | None, i: int, j: int) -> int:
        inside = [64 * b + f for b in bands for f in range(1, 64) if zone is None or zones()[f] == zone]
        return min(15, sum(at(c, i, j) for c in inside))

    others = [b for b in range(BANDS) if b != band]
    for bands, zone in [([band], z) for z in range(4)] + [(others, None)]:
        found += [block(bands, zone, row, col)]
        found += [sum(block(bands, zone, row + i, col + j) for i, j in sides + corners)]
    return [min(15, x) for x in found]


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 2**32), st.booleans(), st.data())
def test_classes_are_those_of_the_interface_control_document(make_tables, tmp_path_factory, seed, first, data) -> None:
    tables = load_tables(make_tables(tmp_path_factory.mktemp("t") / "t.npz", BANDS, 2, seed % 50))
    rng = np.random.default_rng(seed)
    t = tables.layers[0 if first else 1].weights
    previous = None if first else rng.poisson(0.3, (CHANNELS, H, W)).astype(np.uint16)
    activity = bytes(rng.integers(0, 40, BANDS).tolist())
    contexts, told = Contexts(t, (CHANNELS, H, W), previous, activity), {}
    for channel in rng.choice(CHANNELS, 40, replace=False).tolist():
        told[channel] = rng.poisson(0.8, (H, W)).astype(np.uint16)
        contexts.tell(np.array([channel]), told[channel][None])
    known = what_is_known(previous, told)
    members = np.array(data.draw(st.lists(st.integers(0, CHANNELS - 1), min_size=1, max_size=4, unique=True)))
    found = contexts.classes(members)
    for place, channel in enumerate(members.tolist()):
        for row, col in ((0, 0), (H - 1, W - 1), (3, 5), (7, 9)):
            x = features_of(known, channel, row, col)
            logit = int(t.base[channel] + t.activity[channel] * (activity[channel // 64] - 16))
            if channel % 64 == 0:
                logit += int(t.position[channel // 64, row % 8, col % 8])
            logit += sum(int(w) * log8(1 + v) for w, v in zip(t.weight[channel], x, strict=True))
            ends = [3, 8, 8 + 2 * (BANDS - 1), 18 + 2 * (BANDS - 1)]
            for e, (a, b) in enumerate(zip([0, *ends], ends, strict=False)):
                inner = int(t.floor[e]) + sum(int(m) * v for m, v in zip(t.mix[a:b], x[a:b], strict=True))
                logit += int(t.gain[channel, e]) * log8(inner)
            assert found[place, row, col] == min(31, max(0, (logit >> 8) + 23)), (channel, row, col)


def log8(n: int) -> int:
    """Eight times the exponent, and the top three bits of the mantissa."""
    exponent = n.bit_length() - 1
    return 8 * exponent + (((n << 3) >> exponent) & 7)


def test_logarithms_by_hand() -> None:
    assert log2_eighths(np.array([1, 2, 3, 4, 5, 15, 16, 1000])).tolist() == [0, 8, 12, 16, 18, 31, 32, 79]
    every = np.arange(1, 1 << 15)
    assert log2_eighths(every).tolist() == [log8(int(n)) for n in every]


@pytest.mark.parametrize("seed", range(4))
def test_no_logit_passes_its_bound(make_tables, tmp_path, seed) -> None:
    """The bound that lets kernels compute in 16 bits, against features driven to their limits."""
    t = load_tables(make_tables(tmp_path / "t.npz", BANDS, 1, seed)).layers[0].weights
    inner, logit = t.largest(BANDS)
    rng = np.random.default_rng(seed)
    ends = [0, 3, 8, 8 + 2 * (BANDS - 1), 18 + 2 * (BANDS - 1)]
    for _ in range(300):
        x = rng.choice([0, 15], len(t.mix))
        channel, busy = int(rng.integers(CHANNELS)), int(rng.choice([-16, 32]))
        sums = [int(t.floor[e] + (t.mix[a:b] * x[a:b]).sum()) for e, (a, b) in enumerate(itertools.pairwise(ends))]
        found = int(t.base[channel] + t.activity[channel] * busy + (t.weight[channel] * log2_eighths(1 + x)).sum())
        found += sum(int(g) * log8(s) for g, s in zip(t.gain[channel], sums, strict=True))
        assert max(sums) <= inner and abs(found) <= logit


def test_activity_by_hand() -> None:
    hits = np.zeros(128, int)
    hits[[0, 64]] = 999  # block averages do not count
    hits[[1, 2, 70]] = [3, 1, 1]
    # 4 of 64 blocks: 2 log2(1 + 1024 x 4 / 64) = 12.04; 1 of 64: 8.17
    assert list(activity_of(hits, 64)) == [12, 8]


def test_the_example_in_the_module_is_what_the_module_computes() -> None:
    """One band, function (0, 1), the block in the middle of 8 x 8; every weight that the example leaves out is 0."""
    channel, shape = 1, (64, 8, 8)
    weight, gain = np.zeros((64, feature_count(1)), np.int32), np.zeros((64, 4), np.int32)
    weight[channel, 0], gain[channel, 0] = 100, 50
    mix, floor = np.zeros(feature_count(1), np.int32), np.array([3, 1, 1, 1], np.int32)
    mix[0] = 2
    base, activity = np.full(64, -4000, np.int32), np.full(64, 10, np.int32)
    layer = LayerWeights(weight, gain, mix, floor, base, np.zeros((1, 8, 8), np.int32), activity)
    coarser = np.zeros(shape, np.uint16)
    coarser[channel, 3, 4] = coarser[channel, 4, 3] = 1  # above and left of block (4, 4)
    contexts = Contexts(layer, shape, coarser, bytes([20]))
    assert contexts.classes(np.array([channel]))[0, 4, 4] == 19
