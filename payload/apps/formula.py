"""Band arithmetic: a test such as `(green - nir) / (green + nir) > 0.1`, parsed by its own grammar, in whole numbers.

    test    = both { "or" both }            both = plain { "and" plain }      plain = "not" plain | sum [ compare sum ]
    sum     = product { ("+" | "-") product }     product = unary { ("*" | "/") unary }
    unary   = "-" unary | number | band | "(" test ")"              compare = "<" | "<=" | ">" | ">=" | "==" | "!="

Every value is a fraction of two whole numbers, so nothing is rounded and every machine finds the same pixels. A pixel
whose fraction has a zero below meets no comparison. How large the numbers can get is known before the first pixel;
where no pixel at hand is above `NARROW_DN`, more of them fit 32 bits.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property, lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from payload.errors import InputError

LONGEST_FORMULA, DEEPEST_FORMULA = 1000, 40
#: Digital numbers have 16 bits; where none passes 15, two of their squares fit 32 bits.
HIGHEST_DN, NARROW_DN = 65535, 32767
_TOKEN = re.compile(r"\s*(?:(\d+(?:\.\d*)?|\.\d+)|([A-Za-z][A-Za-z0-9]*)|(<=|>=|==|!=|[-+*/()<>]))")
_COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    "<": np.less, "<=": np.less_equal, ">": np.greater, ">=": np.greater_equal, "==": np.equal, "!=": np.not_equal,
}  # fmt: skip
#: What a comparison becomes where both sides are multiplied by something negative.
_TURNED = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "==": "==", "!=": "!="}

_COMBINE: dict[str, Callable[..., Any]] = {"+": np.add, "-": np.subtract, "*": np.multiply}

Bands = Callable[[str], NDArray[np.int32]]
Bounds = tuple[int, int]
#: Values of this strip of pixels by the `id` of what has them: what a formula names twice is calculated once.
Known = dict[int, Any]


@dataclass(frozen=True)
class Whole:
    """A whole number a pixel: a band, a constant, or two of them added, subtracted or multiplied."""

    op: Literal["band", "constant", "+", "-", "*"]
    bounds: Bounds
    band: str = ""
    constant: int = 0
    left: "Whole | None" = None
    right: "Whole | None" = None

    def __hash__(self) -> int:  # what is below is found by its bounds: no walk down a long formula
        return hash((self.op, self.bounds, self.band, self.constant))

    def of(self, bands: Bands, known: Known) -> Any:
        """Its values, int32 or int64 [h, w], or a number."""
        if self.left is None or self.right is None:
            return bands(self.band) if self.op == "band" else self.constant
        if id(self) not in known:
            wide = np.int64 if self.passes_32_bits else np.int32
            left, right = self.left.of(bands, known), self.right.of(bands, known)
            known[id(self)] = _COMBINE[self.op](left, right, dtype=wide)
        return known[id(self)]

    @property
    def passes_32_bits(self) -> bool:
        return max(map(abs, self.bounds)) >= 1 << 31

    @property
    def is_wide(self) -> bool:
        """Whether it, or a number that it is made of, passes 32 bits."""
        return self.passes_32_bits or any(part is not None and part.is_wide for part in (self.left, self.right))

    @property
    def operations(self) -> int:
        """Operations a pixel."""
        return 0 if self.left is None or self.right is None else 1 + self.left.operations + self.right.operations


@dataclass(frozen=True)
class Ratio:
    """One whole number over another."""

    above: Whole
    below: Whole


@dataclass(frozen=True)
class Test:
    """True or false a pixel."""

    op: str  # a comparison, "and", "or", "not"
    parts: tuple[Any, ...]  # Tests; of a comparison: both sides multiplied out, and what has the sign of what by

    def of(self, bands: Bands, known: Known) -> NDArray[np.bool_]:
        """bool [h, w]"""
        if self.op in _COMPARE:
            return self._compared(bands, known)
        cheap, *others = sorted(self.parts, key=lambda part: part.operations)
        found: NDArray[np.bool_] = cheap.of(bands, known)
        if self.op == "not":
            return np.logical_not(found)
        if self.op == "and":
            return found & others[0].of(bands, known) if found.any() else found
        return found if found.all() else found | others[0].of(bands, known)

    def _compared(self, bands: Bands, known: Known) -> NDArray[np.bool_]:
        left, right, below = self.parts
        low, _ = below.bounds
        a, b = left.of(bands, known), right.of(bands, known)
        straight = np.asarray(_COMPARE[self.op](a, b))
        if low > 0:
            return straight
        scale = np.asarray(below.of(bands, known))
        if low == 0:
            return straight & (scale > 0)
        turned = np.asarray(_COMPARE[_TURNED[self.op]](a, b))
        return (straight & (scale > 0)) | (turned & (scale < 0))

    @property
    def operations(self) -> int:
        return 1 + sum(part.operations for part in self.parts)

    @property
    def is_wide(self) -> bool:
        """Whether a number in it passes 32 bits."""
        return any(part.is_wide for part in self.parts)


@dataclass(frozen=True)
class Formula:
    """A parsed test. `text` is in one spelling: what differs only by blanks is the same formula. `narrow`: the same for
    digital numbers of `NARROW_DN` at most."""

    text: str
    bands: tuple[str, ...]
    test: Test
    narrow: Test

    def of(self, bands: Bands, highest_dn: int = HIGHEST_DN) -> NDArray[np.bool_]:
        """Where it holds. `bands` gives each of them as int32 [h, w], no number above `highest_dn`."""
        return (self.narrow if highest_dn <= NARROW_DN else self.test).of(bands, {})

    @cached_property
    def is_wide(self) -> bool:
        """Whether it is worth knowing that the pixels at hand are dark."""
        return self.test.is_wide and not self.narrow.is_wide

    @property
    def operations(self) -> int:
        """Operations a pixel."""
        return self.test.operations


@dataclass(frozen=True)
class Quotient:
    """A parsed number: one whole number over another, a pixel."""

    text: str
    bands: tuple[str, ...]
    ratio: Ratio

    def of(self, bands: Bands) -> tuple[Any, Any]:
        """What is above and what is below, int32 or int64 [h, w], or numbers. `bands` as for a Formula."""
        known: Known = {}
        return self.ratio.above.of(bands, known), self.ratio.below.of(bands, known)


def parse(text: str) -> Formula:
    """The formula in `text`. InputError says what was found where, and what was wanted."""
    found = parse_any(text)
    if isinstance(found, Quotient):
        raise InputError(f"formula {text!r} is a number, wanted a comparison, as in `{text} > 0`")
    return found


def parse_any(text: str) -> Formula | Quotient:
    """The comparison or the number in `text`. The ground takes both; an application takes comparisons."""
    if len(text) > LONGEST_FORMULA:
        raise InputError(f"formula of {len(text)} characters, wanted at most {LONGEST_FORMULA}")
    parser = _Parser(text, HIGHEST_DN)
    found = parser.whole()
    words, bands = " ".join(parser.tokens), tuple(sorted(parser.bands))
    if not bands:
        raise InputError(f"formula {text!r} names no band, wanted one such as nir, red, green, blue or B08")
    if isinstance(found, Ratio):
        return Quotient(words, bands, found)
    narrow = _Parser(text, NARROW_DN).whole()
    return Formula(words, bands, found, narrow if isinstance(narrow, Test) else found)


class _Parser:
    """Recursive descent over the tokens of one formula."""

    def __init__(self, text: str, highest_dn: int) -> None:
        self.text, self.at, self._highest_dn = text, 0, highest_dn
        self.tokens: list[str] = []
        self.bands: set[str] = set()
        place = 0
        while text[place:].strip():
            token = _TOKEN.match(text, place)
            if token is None:
                found = text[place:].strip()[:10]
                raise InputError(f"formula {text!r}: {found!r} is no number, band or operator")
            self.tokens.append(token.group().strip())
            place = token.end()

    def error(self, wanted: str) -> InputError:
        found = f"{self.tokens[self.at]!r} as word {self.at + 1}" if self.at < len(self.tokens) else "its end"
        return InputError(f"formula {self.text!r}: found {found}, wanted {wanted}")

    def take(self, *words: str) -> str | None:
        """The next token, where it is one of `words`."""
        if self.at < len(self.tokens) and self.tokens[self.at] in words:
            self.at += 1
            return self.tokens[self.at - 1]
        return None

    def whole(self) -> Ratio | Test:
        """All of the text."""
        found = self.test(0)
        if self.at < len(self.tokens):
            raise self.error("the end, or an operator before it")
        return found

    def test(self, depth: int) -> Ratio | Test:
        found = self._both(depth)
        while self.take("or"):
            found = Test("or", (self._truth(found), self._truth(self._both(depth))))
        return found

    def _both(self, depth: int) -> Ratio | Test:
        found = self._plain(depth)
        while self.take("and"):
            found = Test("and", (self._truth(found), self._truth(self._plain(depth))))
        return found

    def _plain(self, depth: int) -> Ratio | Test:
        if self.take("not"):
            return Test("not", (self._truth(self._plain(self._deeper(depth))),))
        left = self._sum(depth)
        op = self.take(*_COMPARE)
        if op is None:
            return left
        return _compare(op, self._number(left), self._number(self._sum(depth)))

    def _sum(self, depth: int) -> Ratio | Test:
        found = self._product(depth)
        while op := self.take("+", "-"):
            found = _added(op, self._number(found), self._number(self._product(depth)))
        return found

    def _product(self, depth: int) -> Ratio | Test:
        found = self._unary(depth)
        while op := self.take("*", "/"):
            left, right = self._number(found), self._number(self._unary(depth))
            right = Ratio(right.below, right.above) if op == "/" else right
            found = Ratio(_whole("*", left.above, right.above), _whole("*", left.below, right.below))
        return found

    def _unary(self, depth: int) -> Ratio | Test:
        if self.take("-"):
            inner = self._number(self._unary(self._deeper(depth)))
            return Ratio(_whole("-", _constant(0), inner.above), inner.below)
        if self.take("("):
            inside = self.test(self._deeper(depth))
            if not self.take(")"):
                raise self.error("')'")
            return inside
        return self._word()

    def _word(self) -> Ratio:
        word = self.tokens[self.at] if self.at < len(self.tokens) else ""
        if word[:1].isdigit() or word[:1] == ".":
            number = Fraction(word)
            self.at += 1
            return Ratio(_constant(number.numerator), _constant(number.denominator))
        if not word[:1].isalpha() or word in ("and", "or", "not"):
            raise self.error("a number, a band or '('")
        self.at += 1
        self.bands.add(word)
        return Ratio(Whole("band", (0, self._highest_dn), band=word), ONE)

    def _deeper(self, depth: int) -> int:
        if depth >= DEEPEST_FORMULA:
            raise InputError(f"formula is nested more than {DEEPEST_FORMULA} deep; write it simpler")
        return depth + 1

    def _truth(self, found: Ratio | Test) -> Test:
        if not isinstance(found, Test):
            raise self.error("a comparison on both sides of and, or, not")
        return found

    def _number(self, found: Ratio | Test) -> Ratio:
        if isinstance(found, Test):
            raise self.error("a number: a comparison cannot be calculated with")
        return found


def _added(op: str, left: Ratio, right: Ratio) -> Ratio:
    if left.below == right.below:
        return Ratio(_whole(op, left.above, right.above), left.below)
    above = _whole(op, _whole("*", left.above, right.below), _whole("*", right.above, left.below))
    return Ratio(above, _whole("*", left.below, right.below))


def _compare(op: str, left: Ratio, right: Ratio) -> Test:
    """Both sides times what is below either; of that only the sign matters from here on."""
    sign = left.below if _is_positive(right.below) else right.below
    if not _is_positive(left.below) and not _is_positive(right.below):
        sign = _whole("*", left.below, right.below)
    return Test(op, (_whole("*", left.above, right.below), _whole("*", right.above, left.below), sign))


def _is_positive(whole: Whole) -> bool:
    return whole.bounds[0] > 0


def _constant(number: int) -> Whole:
    return Whole("constant", (number, number), constant=number)


@lru_cache(maxsize=4096)
def _whole(op: Any, left: Whole, right: Whole) -> Whole:
    """Two whole numbers combined, constants at once; one object for what is equal. InputError above 62 bits."""
    if op == "*" and ONE in (left, right):
        return left if right == ONE else right
    ends = [_combined(op, a, b) for a in left.bounds for b in right.bounds]
    bounds = min(ends), max(ends)
    if max(map(abs, bounds)) >= 1 << 62:
        raise InputError("formula: its numbers can pass 62 bits; divide less, or take shorter decimals")
    if left.op == right.op == "constant":
        return _constant(bounds[0])
    return Whole(op, bounds, left=left, right=right)


#: What most values are over.
ONE = _constant(1)


def _combined(op: str, a: int, b: int) -> int:
    return a + b if op == "+" else a - b if op == "-" else a * b
