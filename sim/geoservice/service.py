"""What a geoservice is: a TOML file with its sites, indicators, period, recipients and bulletin. docs/geoservice.md."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from payload.apps.formula import Formula, Quotient, parse_any
from payload.apps.index_app import BURNED, WATER
from payload.errors import InputError
from sim.toml_tables import check_range, from_table, read_toml

Period = Literal["pass", "month", "quarter", "year"]
Measure = Literal["water", "burned", "ndvi", "clear", "takes"]
Combine = Literal["mean", "max", "min", "sum", "last"]
SHARE = "share of the clear pixels"
#: The formulas of the measures that ship; those of water and burned ground are the applications' own.
FORMULAS = {"water": WATER, "burned": BURNED, "ndvi": "(nir - red) / (nir + red)"}
TITLES = {
    "water": "Water", "burned": "Burned ground", "ndvi": "Vegetation index", "clear": "Cloud-free share",
    "takes": "Takes",
}  # fmt: skip
UNITS = {"water": SHARE, "burned": SHARE, "ndvi": "mean NDVI", "clear": "share of the site", "takes": "number"}
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,39}")
EMAIL = re.compile(r"[A-Za-z0-9_%+-]+(\.[A-Za-z0-9_%+-]+)*@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*")
LONGEST_EMAIL = 254
MOST_INDICATORS, MOST_RECIPIENTS, MOST_CHARACTERS = 16, 1000, 2000


@dataclass(frozen=True)
class Indicator:
    """One figure of a site: a shipped `measure`, a `formula` of bands, or the `answer` of an application on board.

    A state turns to alert at `alert`, and back at `clear`: hysteresis, `when` says on which side of them alert is.
    """

    measure: Measure | None = None
    formula: str | None = None
    answer: str | None = None
    take: Literal["count", "value"] = "count"  # of answers: how many alerts, or the greatest value
    title: str | None = None
    unit: str | None = None
    when: Literal["above", "below"] = "above"
    alert: float | None = None
    clear: float | None = None
    combine: Combine | None = None
    least_seen_percent: float = 25.0

    def __post_init__(self) -> None:
        if sum(one is not None for one in (self.measure, self.formula, self.answer)) != 1:
            raise InputError("wanted one of measure, formula, answer, and not two of them")
        if self.clear is not None and self.alert is None:
            raise InputError("clear is given and alert is not; add alert, the threshold")
        if self.alert is not None and self.clear is not None:
            self._check_hysteresis(self.alert, self.clear)
        check_range("least_seen_percent", self.least_seen_percent, 0, 100)
        for name in ("title", "unit"):
            check_text(name, getattr(self, name), 80)
        self.pixels()  # a formula that is none is refused here

    def _check_hysteresis(self, alert: float, clear: float) -> None:
        if (clear > alert) if self.when == "above" else (clear < alert):
            side = "at most" if self.when == "above" else "at least"
            raise InputError(f'clear is {clear:g}, wanted {side} alert ({alert:g}) with when = "{self.when}"')

    def pixels(self) -> Formula | Quotient | None:
        """What is calculated a pixel; None where nothing is."""
        text = self.formula if self.formula is not None else FORMULAS.get(self.measure or "")
        return parse_any(text) if text is not None else None

    @property
    def counts(self) -> bool:
        """Whether its figures are numbers of things, which a period adds up."""
        return self.measure == "takes" or (self.answer is not None and self.take == "count")

    @property
    def is_share(self) -> bool:
        """Whether its figures lie between 0 and 1."""
        return self.measure == "clear" or isinstance(self.pixels(), Formula)

    @property
    def over_passes(self) -> Combine:
        return self.combine or ("sum" if self.counts else "mean")

    def named(self, name: str) -> str:
        return self.title or TITLES.get(self.measure or "") or name

    @property
    def shown_unit(self) -> str:
        if self.unit is not None:
            return self.unit
        if self.measure is not None:
            return UNITS[self.measure]
        if self.answer is not None:
            return "alerts" if self.take == "count" else ""
        return SHARE if isinstance(self.pixels(), Formula) else ""

    @property
    def rule(self) -> str:
        """How it is found, in a line."""
        if self.answer is not None:
            return f'{self.take} of the answers "{self.answer}" of the application on board'
        text = self.formula if self.formula is not None else FORMULAS.get(self.measure or "")
        if text is not None:
            return f"{text}, over the clear pixels of the site"
        return {"clear": "clear pixels over all of the site", "takes": "takes over the site"}[self.measure or ""]


@dataclass(frozen=True)
class Recipient:
    """Somebody on the distribution list. `groups`: whose alerts; none for all."""

    name: str
    email: str
    receives: tuple[Literal["bulletin", "alerts"], ...] = ("bulletin", "alerts")
    groups: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_text("name", self.name, 80)
        check_email("email", self.email)


@dataclass(frozen=True)
class BulletinSettings:
    """`visa`: whose signature stands under it. `template`: a page of one's own, counted from the service's file."""

    title: str | None = None
    introduction: str = ""
    visa: str = "Responsible officer"
    template: str | None = None

    def __post_init__(self) -> None:
        check_text("title", self.title, 120)
        check_text("visa", self.visa, 120)
        check_text("introduction", self.introduction, MOST_CHARACTERS, lines=True)


@dataclass(frozen=True)
class Service:
    """A geoservice. `reach_km`: how far from a site the middle of a planned take may lie to count as over it."""

    title: str
    sites: str
    indicators: Mapping[str, Indicator]
    period: Period = "month"
    moderated: bool = True
    sender: str = "nadir@localhost"
    reach_km: float = 0.0
    recipients: tuple[Recipient, ...] = ()
    bulletin: BulletinSettings = field(default_factory=BulletinSettings)

    def __post_init__(self) -> None:
        check_text("title", self.title, 120)
        check_range("reach_km", self.reach_km, 0, 1000)
        check_range("number of [indicators.NAME]", len(self.indicators), 1, MOST_INDICATORS)
        check_range("number of [[recipients]]", len(self.recipients), 0, MOST_RECIPIENTS)
        check_email("sender", self.sender)
        for name in self.indicators:
            if not NAME.fullmatch(name):
                raise InputError(f"indicator {name[:60]!r}: wanted letters, digits, - and _, 40 at most")


def check_text(name: str, value: str | None, most: int, lines: bool = False) -> None:
    """InputError unless a text can be shown: something in it, not too long, nothing that is no character."""
    if value is None or (lines and not value):
        return
    shown = value.replace("\n", "") if lines else value
    if not shown.strip() or len(value) > most or not shown.isprintable():
        raise InputError(f"{name} is {value[:60]!r}, wanted 1 to {most} characters that can be printed, on one line")


def check_email(name: str, value: str) -> None:
    """InputError unless it is an address that a mail's header takes."""
    if len(value) > LONGEST_EMAIL or not EMAIL.fullmatch(value):
        raise InputError(f"{name} is {value[:80]!r}, wanted an address like water.board@example.org")


def load_service(path: Path) -> Service:
    """A service from its file. InputError names the mistake."""
    return from_table(Service, read_toml(path), str(path))
