"""What applications count: the kernel finds what numpy defines, and takes no program that leads it astray."""

from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from payload.apps import counting
from payload.apps.counting import masked_sum, meets, plain_sum, plain_window_sums, window_sums
from payload.apps.formula import HIGHEST_DN, parse
from payload.apps.index_app import BURNED, WATER
from payload.errors import InputError
from payload.native import library
from payload.native.library import BOOL, I64, U8, U16, span

pytestmark = pytest.mark.skipif(not library.available, reason="no kernel was built")
NAMES = ("blue", "green", "red", "nir")
T = 40
#: A window of the tile, and one as wide as it.
BOXES = ((0, 0, T, T), (3, 5, 7, 31), (T - 1, 0, 1, T))


def tile(seed: int = 0, high: int = 65_536) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.where(rng.random((4, T, T)) < 0.1, rng.choice([0, 1, 65_535]), rng.integers(0, high, (4, T, T))).astype(
        np.uint16
    )


def by_numpy(text: str, dn: np.ndarray, box: tuple[int, int, int, int]) -> np.ndarray:
    top, left, height, width = box
    part = dn[:, top : top + height, left : left + width].astype(np.int32)
    return parse(text).of(lambda name: part[NAMES.index(name)], HIGHEST_DN)


def by_kernel(text: str, dn: np.ndarray, box: tuple[int, int, int, int]) -> np.ndarray:
    formula = parse(text)
    found = meets(formula, dn, tuple(NAMES.index(name) for name in formula.bands), box)
    assert found is not None
    return found


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("box", BOXES)
@pytest.mark.parametrize("high", [3000, 65_536])
def test_formulas_hold_for_the_same_pixels(high, box, plain) -> None:
    texts = (WATER, BURNED, "nir / red >= blue / (nir - 900)", "not red == 0 and nir != red or 3 * -blue < 0.5 - green")
    library.plain_only(plain)
    try:
        for text in texts:
            assert np.array_equal(by_kernel(text, tile(high=high), box), by_numpy(text, tile(high=high), box)), text
    finally:
        library.plain_only(False)


numbers = st.sampled_from([*NAMES, "0", "7", "0.25", "1500", "65535", "99999"])
sums = st.recursive(numbers, lambda s: st.builds("({} {} {})".format, s, st.sampled_from("+-*/"), s), max_leaves=6)
plain = st.builds("{} {} {}".format, sums, st.sampled_from(["<", "<=", ">", ">=", "==", "!="]), sums)
tests = st.recursive(
    plain, lambda t: st.builds("({} {} {})".format, t, st.sampled_from(["and", "or", "and not"]), t), max_leaves=4
)


@settings(deadline=None, max_examples=150)
@given(tests, st.integers(0, 3))
def test_any_formula_holds_for_the_same_pixels(text, seed) -> None:
    with suppress(InputError):  # too large numbers, no band
        parse(text)
        wanted = np.broadcast_to(by_numpy(text, tile(seed), BOXES[1]), BOXES[1][2:])  # `0 < 1` is one answer for all
        assert np.array_equal(by_kernel(text, tile(seed), BOXES[1]), wanted), text


@pytest.mark.parametrize("box", BOXES)
def test_sums_are_those_of_numpy(box) -> None:
    top, left, height, width = box
    plane, part = tile()[3], tile()[3, top : top + height, left : left + width]
    mask = np.random.default_rng(2).random((height, width)) < 0.7
    assert masked_sum(plane, box, mask) == plain_sum(part, mask) == int(part[mask].sum(dtype=np.int64))
    for reach in (0, 1, 10, 31):
        assert np.array_equal(window_sums(None, box, mask, reach), plain_window_sums(mask.view(np.uint8), reach))
        assert np.array_equal(window_sums(plane, box, mask, reach), plain_window_sums(part * mask, reach))


def test_without_a_kernel_numpy_answers(monkeypatch) -> None:
    plane, mask = tile()[0], np.ones((7, 31), bool)
    known = masked_sum(plane, BOXES[1], mask), window_sums(plane, BOXES[1], mask, 4)
    monkeypatch.setattr(library, "available", False)
    assert masked_sum(plane, BOXES[1], mask) == known[0]
    assert np.array_equal(window_sums(plane, BOXES[1], mask, 4), known[1])
    assert meets(parse(WATER), tile(), (1, 3), BOXES[1]) is None


@pytest.mark.parametrize(
    "instruction",
    [
        (12, 0, 0, 0), (-1, 0, 0, 0), (counting.BAND, 0, 4, 0), (counting.BAND, 0, -1, 0), (counting.BAND, 1, 0, 0),
        (counting.CONSTANT, 0, 1 << 31, 0), (counting.ADD, 0, 2, 0), (counting.ADD, 0, 0, -1), (counting.ADD, 1, 0, 1),
        (counting.AND, 0, 0, 1), (counting.WIDEN, 0, 0, 0), (counting.ADD, 0, 0, 1),
    ],
)  # fmt: skip
def test_a_program_that_is_none_is_refused(instruction) -> None:
    """Two bands, then the instruction: the last of them is no truth, where it is sound."""
    program = np.array([(counting.BAND, 0, 0, 0), (counting.BAND, 0, 1, 0), instruction], np.int64)
    with pytest.raises(InputError, match="out of range"):
        run(program)


def test_buffers_that_are_too_small_and_windows_outside_are_refused() -> None:
    program = np.array([(counting.BAND, 0, 0, 0), (counting.LESS, 0, 0, 0)], np.int64)
    assert run(program) is None
    for more in ({"size": T + 1}, {"slots": 1}, {"found": np.empty((T, T - 1), bool)}):
        with pytest.raises(InputError, match="too small"):
            run(program, **more)
    for box in ((0, 0, T, T + 1), (1, 0, T, T), (-1, 0, T, T), (0, 0, 0, T)):
        with pytest.raises(InputError, match="out of range"):
            run(program, box=box)


def run(program, box=BOXES[0], size=T, slots=None, found=None) -> None:
    scratch = np.empty((len(program) if slots is None else slots) * counting.SLOT_OCTETS, np.uint8)
    found = np.empty((T, T), bool) if found is None else found
    library.call(
        "formula", span(program, I64), len(program), span(tile(), U16), 4, size, *box, span(scratch, U8),
        span(found, BOOL),
    )  # fmt: skip
