"""Cloud mask, decision and their edge cases. The shipped network runs where the bundle holds one."""

import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from payload.bundle import SHIPPED as shipped_folder  # noqa: N811
from payload.clouds import compiled, gate
from payload.clouds import mask as masks
from payload.clouds import network as networks
from payload.clouds import planes as inputs
from payload.clouds.gate import Action
from payload.clouds.mask import CLASSES, CLEAR, SHADOW, THICK, THIN, CloudCounts, CloudMask
from payload.clouds.network import CloudNet
from payload.clouds.planes import CloudSettings
from payload.engine import open_engine
from payload.errors import BundleError, InputError
from payload.native import library
from payload.policy import Gate, LonLatRegion, Region
from payload.tiles import Tile

SHIPPED = shipped_folder / "edge"
TILE_PX = 64


class FixedNetwork:
    """Gives the same logits for every tile and counts how often it is asked."""

    def __init__(self, logits: np.ndarray) -> None:
        self.logits, self.asked = logits, 0

    def run(self, *inputs: np.ndarray) -> list[np.ndarray]:
        self.asked += 1
        return [self.logits]


def fixed_net(winner: int) -> CloudNet:
    logits = np.full((1, 64, TILE_PX // 8, TILE_PX // 8), -100, np.int8)
    logits[:, winner * 16 : winner * 16 + 16] = 100
    return CloudNet(FixedNetwork(logits))


def tile_of(dn: np.ndarray, valid: np.ndarray | None = None, row: int = 0, col: int = 0) -> Tile:
    return Tile(row, col, dn.astype(np.uint16), np.ones(dn.shape[1:], bool) if valid is None else valid)


def textured(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(200, 4000, (4, TILE_PX, TILE_PX))


def mask_from(cells: np.ndarray, valid: np.ndarray, sure_above: float = 0.5) -> CloudMask:
    """A mask of cells given as a picture: one sub-cell a position."""
    return CloudMask(cells[:, None, None], valid, sure_above=sure_above)


def mask_of(thick: int, thin: int, shadow: int = 0) -> CloudMask:
    """A mask of 100 cells a row, whole rows of one class: percentages by hand."""
    cells = np.zeros((4, 100, 100), np.float32)
    cells[CLEAR] = 1.0
    rows_of = {THICK: slice(0, thick), THIN: slice(thick, thick + thin), SHADOW: slice(100 - shadow, 100)}
    for kind, rows in rows_of.items():
        cells[:, rows], cells[kind, rows] = 0.0, 1.0
    return mask_from(cells, np.ones((200, 200), bool))


def test_fractions_of_a_mask_counted_by_hand() -> None:
    mask = mask_of(thick=30, thin=20, shadow=10)
    assert (mask.cloud_fraction, mask.thin_fraction) == pytest.approx((0.5, 0.2))
    assert mask.probability.shape == mask.cloudy.shape == (200, 200)
    assert mask.probability.dtype == np.float32
    assert mask.cloudy.sum() == 100 * 200


def test_fractions_are_of_the_valid_pixels_only() -> None:
    cells = mask_of(thick=50, thin=0).cells
    valid = np.zeros((200, 200), bool)
    valid[:120] = True  # 100 rows of cloud, 20 of clear ground
    mask = mask_from(cells, valid)
    assert mask.cloud_fraction == pytest.approx(100 / 120)
    assert mask.cloudy.sum() == 100 * 200
    assert not mask.probability[120:].any()


@pytest.mark.parametrize("level", [0, 1, 4095, 10000, 65535])
def test_constant_and_saturated_tiles_are_not_judged_and_are_sent(level: int) -> None:
    net = fixed_net(THICK)
    mask = gate.detect_clouds(tile_of(np.full((4, TILE_PX, TILE_PX), level)), net)
    assert net.network.asked == 0  # type: ignore[attr-defined]
    assert not mask.cells.any()
    assert gate.decide(mask, Gate(withhold_above_percent=0.0)).action is Action.SEND


def test_a_tile_saturated_but_for_a_few_pixels_is_judged() -> None:
    dn = np.full((4, TILE_PX, TILE_PX), 65535)
    dn[2, 5, 7] = 400  # the average of it and three saturated pixels is still off the scale
    assert gate.detect_clouds(tile_of(dn), fixed_net(THICK)).cloud_fraction == 0.0
    dn[2, 4:6, 6:8] = 400
    assert gate.detect_clouds(tile_of(dn), fixed_net(THICK)).cloud_fraction == 1.0


def test_a_tile_without_data_is_not_judged() -> None:
    net = fixed_net(THICK)
    mask = gate.detect_clouds(tile_of(textured(), np.zeros((TILE_PX, TILE_PX), bool)), net)
    assert net.network.asked == 0  # type: ignore[attr-defined]
    assert (mask.cloud_fraction, mask.thin_fraction) == (0.0, 0.0)
    assert gate.decide(mask, Gate(withhold_above_percent=0.0)).action is Action.SEND


def test_what_lies_under_no_data_changes_nothing() -> None:
    valid = np.ones((TILE_PX, TILE_PX), bool)
    valid[:, 40:] = False
    one, other = textured(1), textured(1)
    other[:, :, 40:] = 60000
    planes = [inputs.input_planes(dn.astype(np.uint16), valid, CloudSettings()) for dn in (one, other)]
    np.testing.assert_array_equal(*planes)


def test_a_sliver_of_data_between_the_samples_is_judged() -> None:
    valid = np.zeros((TILE_PX, TILE_PX), bool)
    valid[:, 3:5] = True  # averages 1 and 2 of a row, half of each; every second average is sampled: only the latter
    valid[::4] = False
    assert gate.detect_clouds(tile_of(textured(), valid), fixed_net(THICK)).cloud_fraction == 1.0
    valid[:] = False
    valid[:, 2:4] = True  # average 1 alone: none is sampled
    assert gate.detect_clouds(tile_of(textured(), valid), fixed_net(THICK)).cloud_fraction == 1.0
    constant = np.where(valid, 700, textured())
    assert gate.detect_clouds(tile_of(constant, valid), fixed_net(THICK)).cloud_fraction == 0.0


@settings(deadline=None)  # a shared machine may stall any example
@given(hnp.arrays(np.uint16, (3, 8, 12)), st.sampled_from([2, 4]))
def test_sums_over_cells(dn: np.ndarray, cell_px: int) -> None:
    wanted = dn.astype(np.int64).reshape(3, 8 // cell_px, cell_px, 12 // cell_px, cell_px).sum(axis=(2, 4))
    np.testing.assert_array_equal(inputs.cell_sums(dn, cell_px), wanted)


def test_an_average_is_of_the_valid_pixels() -> None:
    dn = np.zeros((1, 4, 4), np.uint16)
    dn[0, :2, :2] = [[100, 200], [60_000, 60_000]]
    dn[0, 2:, 2:] = 2500
    valid = np.ones((4, 4), bool)
    valid[1, :2] = False  # leaves 100 and 200: as if the sum of four were 600, and 24 x 24 is 576
    planes = inputs.input_planes(dn, valid, CloudSettings())
    assert planes is not None
    assert planes[0].tolist() == [[24, 0], [0, 100]]


def test_companding_by_hand() -> None:
    # root of the sum of four: 2 sqrt(DN) where all four are alike; 2 sqrt(2500) = 100; 2 sqrt(16256.25) = 255
    found = np.empty(9, np.uint8)
    sums = np.array([0, 3, 4, 399, 400, 9_999, 10_000, 65_025, 4 * 65_535], np.uint32)
    inputs.square_root(sums, found)
    assert found.tolist() == [0, 1, 2, 19, 20, 99, 100, 255, 255]


def test_companding_is_the_integer_root_for_every_sum() -> None:
    found = np.empty(4 * 65_535 + 1, np.uint8)
    inputs.square_root(np.arange(4 * 65_535 + 1, dtype=np.uint32), found)
    assert found.tolist() == [min(255, math.isqrt(total)) for total in range(4 * 65_535 + 1)]


@settings(deadline=None)  # a shared machine may stall any example
@given(hnp.arrays(np.uint8, st.integers(1, 400)), st.integers(1, 64))
def test_the_stretch_never_falls_and_keeps_the_middle(sample: np.ndarray, least_span: int) -> None:
    table = inputs.stretch_tables(sample[None], CloudSettings(least_span=least_span))[0].astype(int)
    assert (np.diff(table) >= 0).all()
    assert table[int(sample.min())] <= 128 <= table[int(sample.max())] + 96 // least_span + 1


def test_the_stretch_by_hand() -> None:
    # percentiles 2 % and 98 % of 0..99 are 2 and 97: middle 49.5, span 95; 2 -> 128 - 95 * 96 / 95 = 32, 97 -> 224
    sample = np.stack([np.arange(100), np.full(100, 7)]).astype(np.uint8)
    table, even = inputs.stretch_tables(sample, CloudSettings())
    assert (table[2], table[97], table[49], table[50]) == (32, 224, 126, 129)
    assert (table[0], table[255]) == (27, 255)
    assert (even[6], even[7], even[8]) == (120, 128, 136)  # one value: the least span, 24 steps, is 192 wide


@settings(deadline=None)  # a shared machine may stall any example
@given(hnp.arrays(np.int8, (64, 3, 3)))
def test_probabilities_are_the_softmax_of_the_logits(logits: np.ndarray) -> None:
    net = CloudNet(FixedNetwork(logits), CloudSettings(logit_step=0.0625, temperature=1.5))
    parts = networks.probabilities(logits, net, 24)  # 3 x 3 positions of 4 x 4 sub-cells
    steps = logits.reshape(4, 4, 4, 3, 3).astype(float) * 0.0625 / 1.5
    wanted = np.exp(steps) / np.exp(steps).sum(axis=0)
    table_step = 2.0**-20
    np.testing.assert_allclose(parts, wanted, atol=4 * table_step)


@settings(deadline=None)  # a shared machine may stall any example
@given(hnp.arrays(np.int8, (64, 2, 2)), hnp.arrays(bool, (16, 16)))
def test_counting_in_the_networks_order_is_counting_the_picture(logits: np.ndarray, valid: np.ndarray) -> None:
    parts = networks.probabilities(logits, CloudNet(FixedNetwork(logits)), 16)
    mask, picture = CloudMask(parts, valid), mask_from(CloudMask(parts, valid).cells, valid)
    assert mask.cell_px == picture.cell_px == 2
    for name in ("cloud_fraction", "thin_fraction", "sure_fraction", "sure_thin_fraction"):
        assert getattr(mask, name) == pytest.approx(getattr(picture, name))
    assert mask.cloud_fraction == pytest.approx(mask.cloudy.sum() / max(1, valid.sum()))


def test_only_sure_cloud_costs_the_tile() -> None:
    cells = np.zeros((4, 10, 10), np.float32)
    cells[CLEAR], cells[THICK] = 0.3, 0.7  # cloud, but not beyond doubt
    cells[:, :2] = np.array((0.0, 0.0, 0.95, 0.05), np.float32)[:, None, None]  # a fifth of sure, thin cloud
    mask = mask_from(cells, np.ones((20, 20), bool), sure_above=0.9)
    assert (mask.cloud_fraction, mask.thin_fraction) == pytest.approx((1.0, 0.2))
    assert (mask.sure_fraction, mask.sure_thin_fraction) == pytest.approx((0.2, 0.2))
    assert gate.decide(mask, Gate(withhold_above_percent=19.0)).action is Action.WITHHOLD
    kept = gate.decide(mask, Gate(withhold_above_percent=21.0))
    assert (kept.action, kept.cloud_percent) == (Action.SEND, pytest.approx(100.0))
    assert gate.decide(mask, Gate(withhold_above_percent=19.0, thin_counts=0.5)).action is Action.SEND


@pytest.mark.parametrize(
    ("visible", "cloud"),
    [
        ((4000, 3800, 3700), True),  # blue - red / 2 = 2150 > 800; spread .08
        ((1200, 1200, 1200), False),  # 1200 - 600 = 600: no haze
        ((6000, 1000, 1000), False),  # mean 2667: spread (3333 + 1667 + 1667) / 2667 = 2.5
        ((2000, 2900, 4000), False),  # sand: 2000 - 2000 = 0
        ((65535, 65535, 65535), True),
        ((0, 0, 0), False),
    ],
)
def test_the_second_witness_by_hand(visible: tuple[int, ...], cloud: bool) -> None:
    sums = 4 * np.array([*visible, 3000], np.uint32).reshape(4, 1, 1)
    assert inputs.hazy_and_white(sums).item() is cloud


@pytest.mark.parametrize(("blue", "is_snow"), [(8300, False), (8301, True)])
def test_blue_steeper_than_the_other_colours_is_no_cloud(blue: int, is_snow: bool) -> None:
    """Blue 8300, green and red 7100: 1200 above their line, .16 of the mean of 7500."""
    sums = 4 * np.array([blue, 7100, 7100, 7000], np.uint32).reshape(4, 1, 1)
    assert inputs.hazy_and_white(sums).item()
    assert inputs.steeper_in_blue(sums).item() is is_snow
    assert inputs.witnessed(sums).item() is not is_snow


@settings(deadline=None)  # a shared machine may stall any example
@given(hnp.arrays(np.uint8, (64, 2, 2), elements=st.integers(0, 127)), st.integers(0, 2**16))
def test_the_second_witness_can_only_acquit(raw: np.ndarray, seed: int) -> None:
    logits = raw.astype(np.int8)
    parts = networks.probabilities(logits, CloudNet(FixedNetwork(logits)), 16)
    dn = np.random.default_rng(seed).integers(0, 10_000, (4, 8, 8)).astype(np.uint16).repeat(2, 1).repeat(2, 2)
    valid = np.ones((16, 16), bool)
    mask, alone = CloudMask(parts, valid, dn=dn), CloudMask(parts, valid)
    assert alone.sure_fraction == alone.accused_fraction == mask.accused_fraction >= mask.sure_fraction
    cloud = mask.cells[THICK] + mask.cells[THIN] > 0.5
    assert mask.sure_fraction == pytest.approx((cloud & inputs.witnessed(inputs.cell_sums(dn, 2))).mean())


def test_a_tile_the_network_accuses_is_sent_where_the_rule_finds_no_cloud() -> None:
    sand = np.array((2000, 2900, 4000, 4500))[:, None, None] * np.linspace(0.9, 1.1, TILE_PX)
    white = np.array((5000, 4900, 4800, 5000))[:, None, None] * np.linspace(0.9, 1.1, TILE_PX)
    snow = np.array((5046, 4240, 4156, 4804))[:, None, None] * np.linspace(0.9, 1.1, TILE_PX)
    for ground, action in ((sand, Action.SEND), (white, Action.WITHHOLD), (snow, Action.SEND)):
        dn = np.broadcast_to(ground[:, None, 0], (4, TILE_PX, TILE_PX))
        mask = gate.detect_clouds(tile_of(dn), fixed_net(THICK))
        assert mask.cloud_fraction == 1.0
        assert gate.decide(mask, Gate()).action is action


needs_kernel = pytest.mark.skipif(not library.available, reason="the kernel was not built: no C compiler at install")
both_loops = pytest.mark.parametrize("plain", [False, True])


@pytest.fixture
def loops(plain: bool) -> Iterator[None]:
    """The kernel's vector loops, or the plain ones beside them."""
    library.plain_only(plain)
    yield
    library.plain_only(False)


def drawn_dn(seed: int, bands: int, size: int, limit: int) -> np.ndarray:
    """Noise up to a limit, some bands of one value, some pixels at the ends of the scale."""
    rng = np.random.default_rng(seed)
    dn = rng.integers(0, limit, (bands, size, size), np.uint16, endpoint=True)
    dn[rng.random(bands) < 0.3] = limit
    if seed % 2:
        dn.ravel()[rng.integers(dn.size, size=5)] = rng.choice([0, 65535], 5)
    return dn


@needs_kernel
@both_loops
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.integers(0, 2**32), st.integers(1, 5), st.sampled_from([4, 12, 64, 96, 160]),
    st.sampled_from([(2, False), (4, False), (4, True)]),
    st.sampled_from([0, 3, 900, 9000, 65535]), st.sampled_from([(20, 980, 24), (0, 1000, 1), (300, 301, 7)]),
)  # fmt: skip
def test_the_kernels_planes_are_those_of_the_definition(
    loops: None, seed: int, bands: int, size: int, cells: tuple[int, bool], limit: int, stretch: tuple[int, int, int]
) -> None:
    dn = drawn_dn(seed, bands, size, limit)
    chosen = CloudSettings(cells[0], 32, cells[1], 0.1, 1.0, 0.5, 0.5, 0.0, *stretch)
    found = compiled.cloud_planes(dn, *cells, *stretch)
    with pytest.MonkeyPatch.context() as without:
        without.setattr(library, "available", False)
        wanted = inputs.input_planes(dn, np.ones(dn.shape[1:], bool), chosen)
    assert (found is None) == (wanted is None)
    if wanted is not None:
        np.testing.assert_array_equal(found, wanted)


@needs_kernel
@both_loops
def test_the_kernels_integer_root_is_that_of_every_sum(loops: None) -> None:
    sums = np.arange(2**18).clip(max=4 * 65_535).reshape(512, 512)
    quarters = np.stack([(sums + i) // 4 for i in range(4)])  # four pixels that add up to each
    dn = quarters.reshape(2, 2, 512, 512).transpose(2, 0, 3, 1).reshape(1, 1024, 1024).astype(np.uint16)
    planes = compiled.cloud_planes(dn, 2, False, 20, 980, 24)
    assert planes is not None
    np.testing.assert_array_equal(planes[0], [[min(255, math.isqrt(total)) for total in row] for row in sums.tolist()])


@needs_kernel
@settings(max_examples=60, deadline=None)
@given(
    hnp.arrays(np.int8, st.tuples(st.just(64), st.integers(1, 6), st.just(1))),
    st.floats(0.01, 0.99), st.floats(0.01, 0.99),
)  # fmt: skip
def test_the_kernels_counts_are_those_of_the_definition(
    logits: np.ndarray, cloudy_above: float, sure_above: float
) -> None:
    net = CloudNet(FixedNetwork(logits))
    parts = networks.probabilities(logits, net, 8 * logits.shape[1])
    valid = np.ones((8 * logits.shape[1], 8), bool)
    above = cloudy_above, sure_above
    told = logits.reshape(parts.shape), net.exponentials
    counts = CloudCounts(*compiled.cloud_counts(*told, *above), *told)
    by_numpy, by_kernel = (CloudMask(parts, valid, *above, counts=c) for c in (None, counts))
    for name in ("cloud_fraction", "thin_fraction", "accused_fraction"):
        assert getattr(by_numpy, name) == getattr(by_kernel, name)
    assert np.array_equal(by_numpy.cloudy, by_kernel.cloudy)


@needs_kernel
@pytest.mark.parametrize("seed", range(4))
def test_tiles_are_judged_alike_with_and_without_the_kernel(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    logits = np.random.default_rng(seed).integers(-60, 60, (1, 64, 8, 8)).astype(np.int8)
    valid = np.ones((TILE_PX, TILE_PX), bool)
    valid[:, : 9 * (seed % 2)] = False
    tile, net = tile_of(textured(seed), valid), CloudNet(FixedNetwork(logits))
    found = []
    for built in (True, False):
        monkeypatch.setattr(library, "available", built)
        mask = gate.detect_clouds(tile, net)
        decisions = [gate.decide(mask, Gate(withhold_above_percent=p)) for p in (0.0, 20.0, 70.0)]
        found.append((mask.cells.tobytes(), decisions))
    assert found[0] == found[1]


def test_the_gate_sends_reduces_and_withholds() -> None:
    rules = Gate(withhold_above_percent=70.0, reduce_above_percent=30.0, reduced_layers=2)
    found = [gate.decide(mask_of(thick=n, thin=0), rules) for n in (30, 31, 70, 71)]
    assert [d.action for d in found] == [Action.SEND, Action.REDUCE, Action.REDUCE, Action.WITHHOLD]
    assert [d.layers for d in found] == [None, 2, 2, None]
    assert found[3].cloud_percent == pytest.approx(71.0)


def test_thin_cloud_is_counted_apart() -> None:
    mask = mask_of(thick=20, thin=60)
    rules = [Gate(withhold_above_percent=70.0, thin_counts=c) for c in (1.0, 0.8, 0.5, 0.0)]
    actions = [gate.decide(mask, rule).action for rule in rules]
    assert actions == [Action.WITHHOLD, Action.SEND, Action.SEND, Action.SEND]  # 80, 68, 50, 20 % against 70 %
    decision = gate.decide(mask, Gate())
    assert (decision.cloud_percent, decision.thin_percent) == pytest.approx((80.0, 60.0))


def disc_by_hand(pixels: np.ndarray, radius_px: float) -> np.ndarray:
    rows, cols = np.indices(pixels.shape)
    found = np.zeros_like(pixels)
    for row, col in np.argwhere(pixels):
        found |= (rows - row) ** 2 + (cols - col) ** 2 <= radius_px**2
    return found


@settings(deadline=None, max_examples=40)  # a shared machine may stall any example
@given(hnp.arrays(bool, (12, 12), elements=st.sampled_from([False] * 9 + [True])), st.floats(0.0, 5.0))
def test_growing_adds_what_lies_within_the_radius(pixels: np.ndarray, radius_px: float) -> None:
    np.testing.assert_array_equal(masks.grown(pixels, radius_px), disc_by_hand(pixels, radius_px))


def test_probabilities_between_cells_are_linear() -> None:
    cells = np.array([[0.0, 1.0], [0.0, 1.0]], np.float32)  # centres at pixels 1.5 and 5.5 of 8
    wanted = [0.0, 0.0, 0.125, 0.375, 0.625, 0.875, 1.0, 1.0]
    np.testing.assert_array_equal(masks.interpolated(cells, 4), [wanted] * 8)


def closed_cells(pattern: np.ndarray) -> CloudMask:
    """A mask of cells of 2 px that are thick cloud beyond doubt where the pattern says so, and clear elsewhere."""
    cells = np.zeros((4, *pattern.shape), np.float32)
    cells[THICK], cells[CLEAR] = pattern, ~pattern
    return mask_from(cells, np.ones((2 * len(pattern), 2 * len(pattern)), bool))


def cells_of(pixels: np.ndarray) -> np.ndarray:
    """Whole cells of 2 px: a pixel of each, having seen that its others say the same."""
    cells = pixels[::2, ::2]
    np.testing.assert_array_equal(pixels, cells.repeat(2, axis=0).repeat(2, axis=1))
    return cells


@pytest.mark.parametrize(("closed", "is_flattened"), [(25, True), (19, True), (18, False)])
def test_a_cell_is_flattened_where_19_of_the_25_about_it_are_closed(closed: int, is_flattened: bool) -> None:
    pattern = np.zeros((32, 32), bool)
    around = np.zeros(25, bool)
    around[np.argsort(np.hypot(*np.mgrid[-2:3, -2:3]).ravel(), kind="stable")[:closed]] = True  # the nearest ones
    pattern[10:15, 10:15] = around.reshape(5, 5)
    found = cells_of(gate.flattened_pixels(closed_cells(pattern)))
    assert found[12, 12] == is_flattened and not (found & ~pattern).any()
    if closed == 19:  # a cell beside the middle has fewer
        assert found.sum() == 1


def test_an_open_cell_amid_closed_ones_keeps_its_detail() -> None:
    pattern = np.ones((32, 32), bool)
    pattern[16, 16] = False
    found = cells_of(gate.flattened_pixels(closed_cells(pattern)))
    np.testing.assert_array_equal(found, pattern)


def test_past_the_edge_of_the_tile_its_outermost_cells_go_on() -> None:
    pattern = np.zeros((32, 32), bool)
    pattern[:4, :] = True  # 4 rows of cloud: seen as 6 from the first row, with two beyond it
    found = cells_of(gate.flattened_pixels(closed_cells(pattern)))
    assert found[:3].all()  # rows -2 to 2, -1 to 3, 0 to 4: 25, 25 and 20 of 25
    assert not found[3:].any()  # rows 1 to 5: 15


@settings(deadline=None, max_examples=40)  # a shared machine may stall any example
@given(st.integers(0, 2**32), st.floats(0.5, 1.0))
def test_closed_cells_are_counted_as_one_by_one(seed: int, share: float) -> None:
    pattern = np.random.default_rng(seed).random((16, 16)) < share
    near = np.clip(np.add.outer(np.arange(16), np.arange(-2, 3)), 0, 15)  # [16, 5]
    wanted = np.array([[pattern[np.ix_(rows, cols)].sum() >= 19 for cols in near] for rows in near]) & pattern
    np.testing.assert_array_equal(cells_of(gate.flattened_pixels(closed_cells(pattern))), wanted)


@pytest.mark.parametrize(
    ("visible", "closed"),
    [
        ((5000, 5000, 5000), True),
        ((5570, 5000, 5000), True),  # 570 above the line: .1098 of the mean
        ((5571, 5000, 5000), False),
        ((5750, 5000, 4250), True),  # on the line; 1500 of spread: .30 of the mean
        ((5751, 5000, 4249), False),
        ((5046, 4240, 4156), False),  # snow under a low sun: .162 above the line, .23 of spread
        ((65535, 65535, 65535), True),
        ((65535, 0, 65535), False),
    ],
)
def test_the_stricter_witness_by_hand(visible: tuple[int, ...], closed: bool) -> None:
    sums = 4 * np.array([*visible, 3000], np.uint32).reshape(4, 1, 1)
    assert inputs.hides_the_ground(sums).item() is closed


def test_what_has_the_colours_of_snow_is_not_flattened_though_network_and_witness_find_cloud() -> None:
    """Blue .124 of the mean above the line: too little for the first witness to acquit, too much for the stricter."""
    cells = closed_cells(np.ones((32, 32), bool)).cells
    for blue, flattened in ((4650, False), (4300, True)):
        dn = np.broadcast_to(np.array((blue, 4150, 4150, 4400), np.uint16)[:, None, None], (4, TILE_PX, TILE_PX))
        mask = CloudMask(cells[:, None, None], np.ones((TILE_PX, TILE_PX), bool), dn=np.ascontiguousarray(dn))
        assert mask.sure_fraction == 1.0
        assert gate.flattened_pixels(mask).all() == gate.flattened_pixels(mask).any() == flattened


def smoothed_by_hand(dn: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Every pixel on its own: averages of the chosen pixels of the four blocks about it, by how near and how full."""
    wanted, n = dn.astype(float), dn.shape[1] // 8
    blocks = {}
    for i, j in np.ndindex(n, n):
        here = np.s_[8 * i : 8 * i + 8, 8 * j : 8 * j + 8]
        blocks[i, j] = dn[:, *here][:, chosen[here]].astype(float).sum(axis=1), chosen[here].sum()
    for y, x in np.argwhere(chosen):
        total, count = np.zeros(len(dn)), 0.0
        for i, j in np.ndindex(n, n):
            weights = [
                max(0.0, 1.0 - abs(np.clip((p + 0.5) / 8 - 0.5, 0, n - 1) - k)) for p, k in ((y, i), (x, j))
            ]  # fmt: skip
            total += weights[0] * weights[1] * blocks[i, j][0]
            count += weights[0] * weights[1] * blocks[i, j][1]
        wanted[:, y, x] = total / count
    return wanted


@settings(deadline=None, max_examples=15)  # a shared machine may stall any example
@given(st.integers(0, 2**32), st.sampled_from([0.02, 0.4, 0.9]))
def test_what_is_flattened_is_averages_of_flattened_pixels_and_all_else_stays(seed: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    dn, chosen = rng.integers(0, 65536, (3, 32, 32)).astype(np.uint16), rng.random((32, 32)) < share
    dn[:, rng.random((32, 32)) < 0.3] = 65535
    chosen[: seed % 20], chosen[:, 31 - seed % 9 :] = False, False  # not in every block
    chosen[20, 20] = True
    found = gate._smoothed(dn, chosen)
    np.testing.assert_array_equal(found[:, ~chosen], dn[:, ~chosen])
    half_a_dn_and_rounding = 0.51
    assert np.abs(found - smoothed_by_hand(dn, chosen)).max() < half_a_dn_and_rounding
    other = np.where(chosen, dn, 65535 - dn)  # what was not chosen has no part in it
    np.testing.assert_array_equal(gate._smoothed(other, chosen)[:, chosen], found[:, chosen])


def test_flattened_cloud_loses_its_detail_and_keeps_its_brightness() -> None:
    dn = np.random.default_rng(2).integers(4000, 8000, (4, 200, 200))
    mask = mask_of(thick=60, thin=0)  # pixel rows 0..119, 60 rows of cells
    flat = gate.flatten_clouds(tile_of(dn), mask).dn
    # the last row but one of cells has 20 of 25, the last 15
    assert np.flatnonzero((flat != dn).any(axis=(0, 2))).max() == 117
    assert flat[:, :112].std() < 0.25 * dn[:, :112].std()
    assert flat[:, :112].mean() == pytest.approx(dn[:, :112].mean(), rel=0.01)


def test_flattening_leaves_a_clear_tile_alone() -> None:
    tile = tile_of(np.random.default_rng(0).integers(0, 9000, (4, 200, 200)))
    assert gate.flatten_clouds(tile, mask_of(0, 0)) is tile


def test_pixels_without_data_are_neither_flattened_nor_averaged() -> None:
    dn = np.random.default_rng(3).integers(4000, 8000, (4, TILE_PX, TILE_PX)).astype(np.uint16)
    valid = np.ones((TILE_PX, TILE_PX), bool)
    valid[:, 41:] = False  # half of a cell is seen
    cells = closed_cells(np.ones((32, 32), bool)).cells
    found = [gate.flatten_clouds(tile_of(d, valid), mask_from(cells, valid)).dn for d in (dn, np.where(valid, dn, 9))]
    np.testing.assert_array_equal(found[0][:, ~valid], dn[:, ~valid])
    np.testing.assert_array_equal(found[0][:, valid], found[1][:, valid])
    assert (found[0] != dn).any(axis=0)[valid].mean() > 0.95


def test_less_sure_cloud_than_one_block_is_not_looked_for() -> None:
    """8 x 8 pixels in cells of 2 are 16; the counts say so before any probability is worked out."""
    tile, asked = tile_of(textured()), []

    def probabilities() -> np.ndarray:
        asked.append(True)
        return np.zeros((4, 1, 1, TILE_PX // 2, TILE_PX // 2), np.float32)

    for sure in (15, 16):
        told = np.zeros((4, 1, 1, TILE_PX // 2, TILE_PX // 2), np.int8), np.zeros(256, np.float32)
        counts = CloudCounts((TILE_PX // 2) ** 2, sure, 0, sure, told[0][0] > 0, *told)
        assert gate.flatten_clouds(tile, CloudMask(probabilities, tile.valid, counts=counts)) is tile
        assert asked == [True] * (sure == 16)


@needs_kernel
@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**32 - 1), st.sampled_from(((2, 1), (2, 2), (2, 4), (4, 1), (4, 2))), st.integers(1, 6),
    st.integers(1, 5), st.booleans(), st.floats(0.05, 0.95),
)  # fmt: skip
def test_the_kernel_flattens_as_numpy_does(
    seed: int, kind: tuple[int, int], h: int, bands: int, thin_too: bool, sure_above: float
) -> None:
    """Clouds of any colour in clumps, any number of bands in the tile; the witness looks at four of its own."""
    (cell_px, s), rng = kind, np.random.default_rng(seed)
    n, size = s * 4 * h, s * 4 * h * cell_px
    clumps = rng.integers(-40, 40, (4, -(-n // 8), -(-n // 8))).repeat(8, 1).repeat(8, 2)[:, :n, :n]
    picture = (clumps + rng.integers(-15, 15, clumps.shape)).astype(np.int8)
    logits = np.ascontiguousarray(picture.reshape(4, 4 * h, s, 4 * h, s).transpose(0, 2, 4, 1, 3))
    haze = rng.integers(1000, 9000, (1, size // 8, size // 8)).repeat(8, 1).repeat(8, 2)
    seen = (haze + rng.integers(-300, 300, (4, size, size))).astype(np.uint16)
    dn = rng.integers(0, 65536, (bands, size, size)).astype(np.uint16)
    net = CloudNet(FixedNetwork(logits))
    parts = networks.probabilities(logits.reshape(-1, 4 * h, 4 * h), replaced(net, cell_px), size)
    valid = np.ones((size, size), bool)
    told = logits, net.exponentials
    counts = CloudCounts(*compiled.cloud_counts(*told, 0.5, sure_above), *told)
    tile = Tile(0, 0, dn, valid)
    flat, wanted = (
        gate.flatten_clouds(tile, CloudMask(parts, valid, 0.5, sure_above, seen, c), thin_too) for c in (counts, None)
    )
    np.testing.assert_array_equal(flat.dn, wanted.dn)
    assert np.array_equal(tile.dn, dn)


def replaced(net: CloudNet, cell_px: int) -> CloudNet:
    return replace(net, settings=replace(net.settings, cell_px=cell_px))


class CloudAbove(FixedNetwork):
    """Thick or thin cloud in the tile's upper half, clear ground below."""

    def __init__(self, kind: int) -> None:
        logits = np.full((1, 64, TILE_PX // 8, TILE_PX // 8), -100, np.int8)
        for winner, rows in ((kind, slice(0, TILE_PX // 16)), (CLEAR, slice(TILE_PX // 16, None))):
            logits[:, winner * 16 : winner * 16 + 16, rows] = 100
        super().__init__(logits)


@pytest.mark.parametrize(
    ("rules", "kind", "flattened"),
    [
        (Gate(), THICK, True),
        (Gate(), THIN, True),
        (Gate(thin_counts=0.9), THICK, True),
        (Gate(thin_counts=0.9), THIN, False),
        (Gate(flatten_clouds=False), THICK, False),
        (Gate(withhold_above_percent=40.0), THICK, False),  # withheld: the audit sees it as it is
        (Gate(reduce_above_percent=40.0), THICK, True),
        (Gate(regions=(Region(0, 0, 1, 1),)), THICK, False),
        (Gate(regions=(Region(0, TILE_PX, 1, TILE_PX + 1),)), THICK, True),  # beside the tile
        (Gate(withhold_above_percent=40.0, regions=(Region(0, 0, 1, 1),)), THICK, False),
    ],
)
def test_which_tiles_are_flattened(rules: Gate, kind: int, flattened: bool) -> None:
    white = np.random.default_rng(1).integers(4800, 5000, (4, TILE_PX, TILE_PX))
    tile = tile_of(white)
    decision, mask, coded = gate.judge(tile, CloudNet(CloudAbove(kind)), rules)
    assert mask.sure_fraction == 0.5
    assert (coded is not tile) == flattened
    assert not flattened or not (coded.dn != tile.dn)[:, TILE_PX // 2 :].any()
    assert decision.protected == (rules.withhold_above_percent == 40.0 and bool(rules.regions))


def test_the_gates_defaults_are_those_that_were_measured() -> None:
    """docs/clouds.md: .48 % of the worst left-out site, 21 % of the cloud with its detail."""
    assert (Gate().withhold_above_percent, Gate().flatten_clouds, Gate().thin_counts) == (88.0, True, 1.0)
    assert (gate.AROUND, gate.LEAST_CLOSED) == (5, 19)


@pytest.mark.parametrize(
    ("region", "kept"),
    [
        (Region(0, 0, 200, 200), False),  # ends where the tile begins
        (Region(0, 0, 201, 401), True),  # one pixel of the tile
        (Region(399, 599, 400, 600), True),  # its last pixel
        (Region(400, 400, 500, 500), False),  # begins below it
        (Region(200, 600, 300, 700), False),  # begins right of it
    ],
)
def test_a_region_of_interest_is_kept_whatever_the_cloud(region: Region, kept: bool) -> None:
    tile = Tile(1, 2, np.zeros((4, 200, 200), np.uint16), np.ones((200, 200), bool))  # rows 200..399, columns 400..599
    decision = gate.decide(mask_of(100, 0), Gate(regions=(region,)), tile)
    assert decision.action is (Action.SEND if kept else Action.WITHHOLD)
    assert decision.protected is kept


def test_regions_need_the_tile_and_pixels() -> None:
    with pytest.raises(InputError, match="needs the tile"):
        gate.decide(mask_of(100, 0), Gate(regions=(Region(0, 0, 1, 1),)))
    lonlat = Gate(regions=(LonLatRegion(7.0, 45.0, 8.0, 46.0),))
    tile = tile_of(textured())
    with pytest.raises(InputError, match="still in degrees"):
        gate.decide(mask_of(100, 0), lonlat, tile)


@pytest.mark.parametrize(
    "wrong",
    [
        {"withhold_above_percent": 101.0},
        {"reduce_above_percent": 89.0},
        {"thin_counts": 1.5},
        {"reduced_layers": 0},
        {"audit_count": -1},
    ],
)
def test_a_gate_out_of_range_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(InputError, match=f"gate.{next(iter(wrong))}"):
        Gate(**wrong)  # type: ignore[arg-type]


def test_a_tile_of_the_wrong_size_is_refused() -> None:
    with pytest.raises(InputError, match="multiple of 32"):
        gate.detect_clouds(tile_of(np.zeros((4, 40, 40))), fixed_net(CLEAR))


@pytest.fixture(scope="module")
def nets() -> dict[str, CloudNet]:
    """The shipped network on every engine installed."""
    if not (SHIPPED / networks.NETWORK_FILE).is_file():
        pytest.skip("no cloud network in the shipped bundle")
    table = json.loads((SHIPPED / "manifest.json").read_text(encoding="utf-8"))["clouds"]
    found = {}
    for name in ("openvino", "onnxruntime"):
        try:
            engine = open_engine(name, 1)
        except InputError:
            continue
        network = engine.load(SHIPPED / networks.NETWORK_FILE, require_int8=True)
        found[name] = CloudNet(network, networks.read_settings(table))
    return found


def cloudy_scene(seed: int, size: int = 128) -> tuple[np.ndarray, np.ndarray]:
    """Fields under a round cloud bank: dn [4, size, size] and where the bank is closed. Drawn, no real pixel in it."""
    rng = np.random.default_rng(seed)
    fields = rng.normal(1.0, 0.25, (4, size // 16, size // 16)).repeat(16, 1).repeat(16, 2)
    ground = np.array((600.0, 850.0, 800.0, 2900.0))[:, None, None] * fields * rng.normal(1.0, 0.04, (4, size, size))
    y, x = np.mgrid[:size, :size] / size - 0.5
    distance = np.hypot(x, y) + 0.02 * np.sin(9 * x) + 0.02 * np.cos(7 * y)
    opacity = np.clip((0.33 - distance) * 12, 0.0, 1.0)
    waves = 1.0 + 0.12 * np.sin(20 * x + 5 * y) * np.cos(13 * y)
    cloud = np.array((5600.0, 5400.0, 5300.0, 5800.0))[:, None, None] * waves
    return ground * (1 - opacity) + cloud * opacity, opacity > 0.95


def test_the_shipped_network_sees_a_drawn_cloud_and_leaves_the_fields_alone(nets: dict[str, CloudNet]) -> None:
    dn, closed = cloudy_scene(4)
    mask = gate.detect_clouds(tile_of(dn), nets["openvino"])
    assert mask.cloudy[closed].mean() > 0.9
    assert mask.cloudy[np.hypot(*(np.mgrid[:128, :128] - 63.5)) > 60].mean() < 0.1
    assert mask.cells.shape == (len(CLASSES), 64, 64)


def test_every_runtime_gives_the_same_mask_bit_for_bit(nets: dict[str, CloudNet]) -> None:
    if len(nets) < 2:
        pytest.skip("only one runtime installed")
    for seed in range(4):
        dn, _ = cloudy_scene(seed, 256)
        masks = [gate.detect_clouds(tile_of(dn), net) for net in nets.values()]
        np.testing.assert_array_equal(masks[0].cells, masks[1].cells)


def test_a_network_loaded_for_one_size_gives_the_same_mask_and_refuses_another(nets: dict[str, CloudNet]) -> None:
    engine = open_engine("openvino", 1)
    network = engine.load(SHIPPED / networks.NETWORK_FILE, require_int8=True, shape=(1, 8, 64, 64))
    fixed, tile = CloudNet(network, nets["openvino"].settings), tile_of(cloudy_scene(7)[0])
    found, wanted = gate.detect_clouds(tile, fixed), gate.detect_clouds(tile, nets["openvino"])
    np.testing.assert_array_equal(found.cells, wanted.cells)
    with pytest.raises(BundleError, match="does not take uint8 \\[1, 8, 128, 128\\]"):
        gate.detect_clouds(tile_of(cloudy_scene(7, 256)[0]), fixed)


FINGERPRINT = """
import hashlib, json, sys
from pathlib import Path
import numpy as np
from payload.clouds import gate, network
from payload.engine import open_engine
from payload.tiles import Tile
folder = Path(sys.argv[1])
settings = network.read_settings(json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["clouds"])
net = network.CloudNet(open_engine("openvino", 1).load(folder / network.NETWORK_FILE), settings)
dn = np.random.default_rng(6).integers(100, 7000, (4, 16, 16)).repeat(8, 1).repeat(8, 2).astype(np.uint16)
mask = gate.detect_clouds(Tile(0, 0, dn, np.ones(dn.shape[1:], bool)), net)
sys.stdout.write(hashlib.sha256(mask.cells.tobytes()).hexdigest())
"""


def test_a_processor_without_vnni_gives_the_same_mask(nets: dict[str, CloudNet]) -> None:
    """oneDNN restricted to AVX2 behaves like an older machine: there 8-bit weights would overflow."""
    found = set()
    for isa in ("DEFAULT", "AVX2"):
        environment = os.environ | {"ONEDNN_MAX_CPU_ISA": isa, "PYTHONPATH": str(SHIPPED.parents[2])}
        run = [sys.executable, "-c", FINGERPRINT, str(SHIPPED)]
        found.add(subprocess.run(run, env=environment, capture_output=True, text=True, check=True).stdout)
    assert len(found) == 1
    assert len(found.pop()) == 64


def test_the_shipped_network_is_small(nets: dict[str, CloudNet]) -> None:
    table = json.loads((SHIPPED / "manifest.json").read_text(encoding="utf-8"))["clouds"]
    assert table["parameters"] <= 100_000
    assert table["macs_per_pixel"] <= 3000
    assert (SHIPPED / networks.NETWORK_FILE).stat().st_size < 250_000
