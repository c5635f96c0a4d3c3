"""A run and a site -> what each indicator says there: the clear pixels of the site on the picture that came down, the
answers of applications on board, or the takes of a plan.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import rasterio
from rasterio._err import CPLE_BaseError  # PROJ's own errors, which rasterio lets through
from rasterio.errors import RasterioError

from payload.errors import InputError
from sim.geoservice.pixels import Sums, sums_of
from sim.geoservice.runs import CLOUD, PICTURE, Run
from sim.geoservice.service import Indicator, Service
from sim.geoservice.sites import Site
from sim.progress import Progress


@dataclass(frozen=True)
class Reading:
    """One indicator of one site in one run. `value` None: not seen, `cause` says why. `seen_percent`: clear, of the
    site's area."""

    site: str
    indicator: str
    run: int
    at: datetime
    value: float | None
    seen_percent: float | None
    cause: str = ""


def read_all(service: Service, sites: Sequence[Site], runs: Sequence[Run], progress: Progress) -> list[Reading]:
    """Readings of every run over every site that it covers, in the order of the runs."""
    found: list[Reading] = []
    for run in runs:
        found += _of_plan(service, sites, run) if run.kind == "mission" else _of_scene(service, sites, run)
        progress("runs", len(runs))
    return found


def _of_plan(service: Service, sites: Sequence[Site], run: Run) -> Iterator[Reading]:
    """A plan holds places and times of takes, and no pixel."""
    names = [name for name, indicator in service.indicators.items() if indicator.measure == "takes"]
    for take in run.takes if names else ():
        for site in sites:
            if site.holds(take.middle) or site.distance_km(take.middle) <= service.reach_km:
                yield from (Reading(site.name, name, run.number, take.at, 1.0, None) for name in names)


def _of_scene(service: Service, sites: Sequence[Site], run: Run) -> Iterator[Reading]:
    try:
        with rasterio.open(run.folder / PICTURE) as picture, rasterio.open(run.folder / CLOUD) as cloud:
            for site in sites:
                sums = sums_of(service.indicators, site, picture, cloud)
                if sums is not None and run.at is not None:
                    yield from _readings(service.indicators, site, run, run.at, sums)
    except (RasterioError, CPLE_BaseError) as error:
        told = " ".join(str(error).split())[:120]
        raise InputError(f"run {run.name}: its rasters cannot be read ({told}); make it again") from None
    except InputError as error:
        raise InputError(f"run {run.name}: {error}") from None


def _readings(indicators: Mapping[str, Indicator], site: Site, run: Run, at: datetime, sums: Sums) -> Iterator[Reading]:
    share = min(1.0, sums.clear / sums.area_px)
    for name, indicator in indicators.items():
        value, cause = _value(name, indicator, site, run, sums, share)
        yield Reading(site.name, name, run.number, at, value, 100 * share, cause)


def _value(name: str, indicator: Indicator, site: Site, run: Run, sums: Sums, share: float) -> tuple[float | None, str]:
    """The value, or None and why."""
    enough = 100 * share >= indicator.least_seen_percent and sums.clear > 0
    clouded = f"{100 * share:.0f} % of the site clear"
    if indicator.answer is not None:
        return _answered(indicator, site, run, enough, clouded)
    if indicator.measure == "takes":
        return 1.0, ""
    if indicator.measure == "clear":
        return share, ""
    total, over = sums.found.get(name, (0.0, 0))
    if not enough or not over:
        return None, clouded
    return total / over, ""


def _answered(indicator: Indicator, site: Site, run: Run, enough: bool, clouded: str) -> tuple[float | None, str]:
    """What applications said of a site. That nothing is there is taken from a clear view alone, with every answer."""
    said = [answer["properties"] for answer in run.answers or () if _about(answer, indicator, site)]
    rows = [answer["properties"] for answer in run.answers or ()]
    cut_off = next((r["cut_off"] for r in rows if r.get("name") == indicator.answer and r.get("cut_off")), None)
    values = [row["value"] for row in said if row.get("value") is not None]
    alerts = sum(bool(row.get("alert")) for row in said)
    if indicator.take == "value":
        return (max(values), "") if values else (None, "no answer of the application")
    if alerts:
        return float(alerts), ""
    if cut_off is not None:
        return None, f"the application was cut off: {cut_off}"
    if indicator.answer not in run.apps and not said:
        return None, "the application did not fly"
    if run.answers_missing:
        return None, f"{run.answers_missing} answers were lost on the link"
    return (0.0, "") if enough or values else (None, clouded)


def _about(answer: Mapping[str, Any], indicator: Indicator, site: Site) -> bool:
    """Whether an answer is of the indicator, and of the site: by name, or else by the middle of its place."""
    row = answer["properties"]
    if row.get("name") != indicator.answer:
        return False
    if row.get("site_name") is not None:
        return bool(row["site_name"] == site.name)
    middle = _middle(answer.get("geometry"))
    return middle is not None and site.holds(middle)


def _middle(geometry: Any) -> tuple[float, float] | None:
    """Of a point or of a polygon's outer ring."""
    if not isinstance(geometry, dict):
        return None
    try:
        corners = [geometry["coordinates"]] if geometry.get("type") == "Point" else geometry["coordinates"][0][:-1]
        x, y = (sum(corner[k] for corner in corners) / len(corners) for k in (0, 1))
    except (KeyError, IndexError, TypeError, ZeroDivisionError):
        raise InputError("an answer's place is neither a point nor a polygon; run sim receive again") from None
    return x, y
