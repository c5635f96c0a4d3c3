"""Band arithmetic: exact against fractions, pixel by pixel, and refused in one line where it is none."""

from contextlib import suppress
from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from payload.apps import formula as formula_room
from payload.apps.formula import NARROW_DN, Formula, Quotient, parse, parse_any
from payload.errors import InputError

BANDS = {"red": 0, "nir": 1, "B03": 2}
#: Corners and a few anywhere: every formula meets them all.
EDGES = (0, 1, 2, 600, 1500, 65535)
ROWS = [*product(EDGES, repeat=3), *np.random.default_rng(1).integers(0, 65536, (60, 3)).tolist()]


def held(text: str, rows: list[tuple[int, int, int]], highest_dn: int = 65535) -> list[bool]:
    array = np.array(rows, np.int32)
    return parse(text).of(lambda name: array[:, BANDS[name]], highest_dn).tolist()


def by_fractions(text: str, row: tuple[int, int, int]) -> bool:
    """Python's own arithmetic on exact fractions; a division by zero meets no comparison."""
    names = {name: Fraction(row[at]) for name, at in BANDS.items()}
    try:
        return bool(eval(text, {"__builtins__": {}}, names | {"F": Fraction}))
    except ZeroDivisionError:
        return False


@pytest.mark.parametrize(
    ("ours", "python"),
    [
        ("(nir - red) / (nir + red) > 0.25", "(nir - red) / (nir + red) > F(1, 4)"),
        ("(nir - red) / (B03 - 2 * red) <= -0.5", "(nir - red) / (B03 - 2 * red) <= F(-1, 2)"),
        ("nir / red >= B03 / nir", "nir / red >= B03 / nir"),
        ("1 - nir / red < .5 * B03", "1 - nir / red < F(1, 2) * B03"),
        ("(1000 - red) * (1000 - red) + (600 - nir) * (600 - nir) < 400000",
         "(1000 - red) * (1000 - red) + (600 - nir) * (600 - nir) < 400000"),
        ("-red == -nir", "-red == -nir"),
    ],
)  # fmt: skip
def test_comparisons_are_those_of_exact_fractions(ours, python) -> None:
    assert held(ours, ROWS) == [by_fractions(python, row) for row in ROWS]
    dark = [tuple(min(dn, NARROW_DN) for dn in row) for row in ROWS]
    assert held(ours, dark, NARROW_DN) == [by_fractions(python, row) for row in dark]


def test_dark_pixels_need_32_bits_and_what_stands_twice_is_calculated_once(monkeypatch) -> None:
    made, add = [], formula_room._COMBINE["+"]
    monkeypatch.setitem(formula_room._COMBINE, "+", lambda *a, dtype: made.append(dtype) or add(*a, dtype=dtype))
    formula = parse("(red + nir) * (red + nir) > 9 and (red + nir) * (red + nir) + B03 < 4294836225")
    array = np.array([[NARROW_DN, 0, 0], [0, 0, 3]], np.int32)
    assert formula.of(lambda name: array[:, BANDS[name]]).tolist() == [True, False]
    assert made == [np.int32, np.int64]
    made.clear()
    narrow = parse("(red - 9) * (red - 9) + nir * nir > 9")
    assert narrow.of(lambda name: array[:, BANDS[name]], NARROW_DN).tolist() == [True, True]
    assert made == [np.int32]


def test_and_binds_tighter_than_or_and_not_tighter_than_and() -> None:
    found = held("red > 9 or not nir > 9 and B03 > 9", ROWS)
    assert found == [r > 9 or (not n > 9 and b > 9) for r, n, b in ROWS]


def test_what_one_side_decides_is_not_calculated_on_the_other() -> None:
    bright = {"red": np.full((2, 2), 9, np.int32)}  # no nir: it would be a KeyError
    for text, wanted in (("red - nir > 3 and red < 9", False), ("red > 8 or red - nir > 3", True)):
        assert (parse(text).of(bright.__getitem__) == wanted).all()


def test_what_differs_by_blanks_is_one_formula_and_its_cost_is_counted() -> None:
    formula = parse("(nir-red)/(nir+red)>0.25")
    assert formula.text == parse("( nir - red ) / ( nir + red ) > 0.25").text
    assert formula.operations == 5  # two sums, one of them once more for its sign, a product, a comparison
    assert formula.bands == ("nir", "red")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "found its end, wanted a number, a band or '\\('"),
        ("nir", "is a number, wanted a comparison"),
        ("nir >", "found its end"),
        ("nir > 1 2", "found '2' as word 4, wanted the end"),
        ("(nir > 1", "wanted '\\)'"),
        ("nir ** 2 > 1", "found '\\*' as word 3"),
        ("__import__('os') > 1", "is no number, band or operator"),
        ("nir.real > 1", "is no number, band or operator"),
        ("(nir > 1) + 2 > 3", "a comparison cannot be calculated with"),
        ("nir and red", "a comparison on both sides"),
        ("1 < 2", "names no band"),
        ("nir * red * nir * red > 1", "can pass 62 bits"),
        ("(" * 50 + "nir" + ")" * 50 + " > 1", "nested more than 40 deep"),
        ("nir > " + "1" * 2000, "wanted at most 1000"),
        ("not " * 60 + "nir > 1", "nested more than 40 deep"),
    ],
)
def test_what_is_no_formula_is_refused_in_one_line(text, said) -> None:
    with pytest.raises(InputError, match=said) as error:
        parse(text)
    assert "\n" not in str(error.value)


@settings(deadline=None)
@given(st.text(alphabet="nir red0123456789.+-*/()<>=! andorot", max_size=60))
def test_any_text_is_a_formula_or_an_input_error(text) -> None:
    with suppress(InputError):
        assert parse(text).operations >= 1


def test_the_ground_takes_numbers_and_comparisons_alike() -> None:
    number, comparison = parse_any("(nir-red) / B03"), parse_any("nir > red")
    assert isinstance(number, Quotient) and isinstance(comparison, Formula)
    assert (number.text, number.bands) == ("( nir - red ) / B03", ("B03", "nir", "red"))
    bands = {"nir": np.array([7, 1], np.int32), "red": np.array([4, 3], np.int32), "B03": np.array([2, 0], np.int32)}
    above, below = number.of(bands.__getitem__)
    assert above.tolist() == [3, -2] and below.tolist() == [2, 0]
