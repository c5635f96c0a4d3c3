"""How often the shipped applications are wrong: figures that `sim evaluate-apps` measured, for reports to show beside
every rate of alerts. sim/apps/data/quality.toml holds them with what they were measured on."""

import tomllib
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path

KEPT = Path(__file__).parent / "data" / "quality.toml"


@dataclass(frozen=True)
class Quality:
    """One application at one threshold. Shares in per cent; `upper`: of the exact 95 % interval. `of`: what they are
    shares of, on which data, in one sentence."""

    threshold: float
    false_alarm_percent: float
    false_alarm_upper_percent: float
    found_percent: float
    of: str


@cache
def qualities() -> dict[str, Quality]:
    """By the name that an application is registered as."""
    tables = tomllib.loads(KEPT.read_text(encoding="utf-8"))
    names = {field.name for field in fields(Quality)}
    return {name: Quality(**{k: v for k, v in table.items() if k in names}) for name, table in tables.items()}
