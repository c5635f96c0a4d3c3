"""What the applications did on board in one scene: found by whom, at what cost, and who was cut off."""

from dataclasses import dataclass

from payload.apps.first import Applications
from payload.apps.interface import Indicator


@dataclass(frozen=True)
class AppRun:
    """One application. `macs`: operations it was charged; `looked_px`: of the areas it was shown; `cut_off`: why, None
    where it worked to the end; `threshold` in 1 / 10 000 of the indicator's unit."""

    name: str
    kind: str  # what it is registered as
    digest: int
    indicator: Indicator
    threshold: int
    macs: int
    looked_px: int
    cut_off: str | None


@dataclass(frozen=True)
class AppsRun:
    """All of them. `answers`: records that were made, copies apart."""

    apps: tuple[AppRun, ...]
    answers: int
    copies: int


def apps_run(onboard: Applications) -> AppsRun | None:
    """What is known on board once a scene is through; None where no application flies."""
    apps, found, plan = onboard.apps, onboard.found, onboard.plan
    if apps is None or found is None or plan is None:
        return None
    answers = len(onboard.answers())
    rows = []
    for flown in apps.flown:
        cut = found.cut_off.get(flown.name)
        told = None if cut is None else f"{cut.cause.name.lower()} at tile {cut.tile}: {cut.words}"
        spent = found.macs[flown.name], found.looked_px[flown.name], told
        kind = flown.settings.app or flown.name
        rows.append(AppRun(flown.name, kind, flown.digest, flown.app.indicator, flown.threshold, *spent))
    return AppsRun(tuple(rows), answers, plan.alerts.copies)
