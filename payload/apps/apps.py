"""The applications of a mission at work: each is shown every tile, is cut off where it fails, and answers at the end.

    tile -> (place, area of the tile) -> App.look -> findings, by tile -> sums of a place -> App.value -> records

An application never stops a tile: whatever it does, the tile flies. What was cut off is told in a record of its own.
"""

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from payload.apps.collected import Collected, CutOff, Placed, overlap, region_of
from payload.apps.interface import App, Finding, Meter, OverBudgetError, TileView, View
from payload.apps.registry import open_app
from payload.apps.settings import AppPlan, AppSettings, PlacedSite
from payload.bundle import Bundle
from payload.clouds.mask import CloudMask
from payload.engine import Engine
from payload.errors import InputError
from payload.link.app_record import PARTS, AppRecord, Cause, Flag, pack
from payload.memory import RunsInside
from payload.scene import SceneInfo
from payload.tiles import Tile

MIB = 1 << 20
MOST_VALUE = (1 << 31) - 1
#: Number of a place, None where the tile is one, and a part of it: top, left, height, width in pixels of the scene.
Area = tuple[int | None, tuple[int, int, int, int]]


@dataclass(frozen=True, eq=False)
class Flown:
    """One application with what the mission asks of it. `threshold` in 1 / PARTS of the indicator's unit."""

    name: str
    app: App
    settings: AppSettings
    sites: tuple[PlacedSite, ...]
    tile_is_the_place: bool  # the mission has no sites

    @property
    def threshold(self) -> int:
        wanted = self.settings.threshold
        return round(PARTS * (self.app.default_threshold if wanted is None else wanted))

    @property
    def digest(self) -> int:
        """What records name it by: everything that decides its answers."""
        words = (self.settings.app or self.name, str(self.app.indicator.number), self.app.identity, str(self.threshold))
        return int.from_bytes(hashlib.sha256("\n".join(words).encode()).digest()[:4], "big")

    def areas(self, view: TileView, info: SceneInfo) -> tuple[Area, ...]:
        """What of its places lies in a tile: for applications with the same places found once."""
        key = "areas", self.sites
        if key not in view.kept:
            view.kept[key] = tuple(self._areas(view.tile, info))
        found: tuple[Area, ...] = view.kept[key]
        return found

    def _areas(self, tile: Tile, info: SceneInfo) -> Iterator[Area]:
        region = region_of((tile.row, tile.col), tile.valid.shape[0])
        inside = overlap(region, (0, 0, info.height_px, info.width_px))
        if self.tile_is_the_place and inside is not None:
            yield None, inside
        for number, site in enumerate(self.sites):
            part = overlap(region, box_of(site))
            if part is not None:
                yield number, part


class Apps:
    """All of them, opened for one bundle. `clock`: seconds of the processor, for deadlines alone."""

    def __init__(
        self, plan: AppPlan, bundle: Bundle, engine: Engine | None, clock: Callable[[], float] = time.process_time
    ) -> None:
        self.plan, self._bundle, self._clock = plan, bundle, clock
        self.flown = [_opened(name, settings, plan, bundle, engine) for name, settings in plan.apps.items()]

    def look(self, found: Collected, tile: Tile, mask: CloudMask | None, features_of: Callable[[], Any] | None) -> None:
        """Shows a tile to every application that is still at work. Without `features_of` it is withheld."""
        address, withheld = (tile.row, tile.col), features_of is None
        if withheld:
            found.withheld.add(address)
        view = TileView(tile, self._bundle.sensor, mask, features_of)
        for flown in self.flown:
            if flown.name not in found.cut_off and (flown.settings.withheld or not withheld):
                self._look(found, flown, view, address)

    def _look(self, found: Collected, flown: Flown, view: TileView, address: tuple[int, int]) -> None:
        """One application at one tile. Errors are its own, whatever they are."""
        start, limit_s, words = self._clock(), flown.settings.tile_deadline_s, ""
        cause: Cause | None = None
        try:
            placed = self._found(found, flown, view)
            took_s = self._clock() - start
            if limit_s is not None and took_s > limit_s:
                cause, words = Cause.LATE, f"{took_s:.3f} s"
        except OverBudgetError as error:
            cause, words = Cause.COST, str(error)
        except Exception as error:  # an application is other people's code: nothing of it may cost the tile
            cause, words = Cause.FAILED, f"{type(error).__name__}: {error}"
        if cause is None:
            found.findings.setdefault(flown.name, {})[address] = placed
        else:
            found.cut_off[flown.name] = CutOff(cause, address, f"{flown.name}: {words}")

    def _found(self, found: Collected, flown: Flown, whole: TileView) -> list[Placed]:
        tile, settings = whole.tile, flown.settings
        size, placed = tile.valid.shape[0], []
        meter = Meter(settings.macs_per_px * size**2, settings.memory_mib * MIB)
        if flown.app.macs_per_px > settings.macs_per_px:
            raise OverBudgetError(f"{flown.app.macs_per_px:g} operations a pixel, budget {settings.macs_per_px:g}")
        for number, (top, left, height, width) in flown.areas(whole, found.header.info):
            down, right = top - tile.row * size, left - tile.col * size
            ndvi = None if number is None else flown.sites[number].ndvi
            view = View(whole, (slice(down, down + height), slice(right, right + width)), meter, ndvi)
            for one in flown.app.look(view):
                at = one.box or (0, 0, height, width)
                placed.append(Placed(number, one, (top + at[0], left + at[1], at[2], at[3])))
            found.looked_px[flown.name] += height * width
        found.macs[flown.name] += round(meter.spent_macs)
        return placed

    def stop(self, found: Collected, why: str) -> None:
        """Cuts all of them off for the rest of a scene."""
        for flown in self.flown:
            found.cut_off.setdefault(flown.name, CutOff(Cause.FAILED, (0, 0), f"{flown.name}: {why}"))

    def records(self, found: Collected) -> list[bytes]:
        """The records of a scene, alerts first."""
        made = [record for flown in self.flown for record in _records(flown, found)]
        made.sort(key=lambda record: not record.alert)
        return [pack(replace(record, number=n, total=len(made))) for n, record in enumerate(made)]

    def runs_inside(self, tile: Tile) -> Iterator[RunsInside]:
        """The networks among them, for the guard."""
        for flown in self.flown:
            if hasattr(flown.app, "runs_inside"):
                yield from flown.app.runs_inside(tile)


def _opened(name: str, settings: AppSettings, plan: AppPlan, bundle: Bundle, engine: Engine | None) -> Flown:
    app = open_app(settings.app or name, settings, bundle, engine)
    if not 0 < app.indicator.number < 256:
        raise InputError(f"app {name}: its indicator has number {app.indicator.number}, wanted 1 to 255")
    if "features" in app.needs and settings.withheld:
        raise InputError(f"app {name} needs features, which withheld tiles do not have; take withheld out")
    if "sites" in app.needs and not plan.mission_has_sites:
        raise InputError(f"app {name} answers for sites, and the mission has none; add [[sites]]")
    for site in plan.sites_of(settings) if "ndvi" in app.needs else ():
        if site.ndvi is None:
            raise InputError(f"app {name}: site {site.name} has no ndvi; add it, or name the sites that have one")
    return Flown(name, app, settings, plan.sites_of(settings), not plan.mission_has_sites)


def box_of(site: PlacedSite) -> tuple[int, int, int, int]:
    """Top, left, height, width."""
    box = site.box
    return box.top_px, box.left_px, box.bottom_px - box.top_px, box.right_px - box.left_px


def _records(flown: Flown, found: Collected) -> list[AppRecord]:
    """What one application answers, numbers left open; the strongest where its budget has no room for all."""
    stopped = found.cut_off.get(flown.name)
    if stopped is not None:
        return [_cut_off(flown, found, stopped)]
    made = list((_targets if flown.app.indicator.of == "target" else _places)(flown, found))
    if len(made) <= flown.settings.records:
        return made
    over = CutOff(Cause.RECORDS, (0, 0), f"{flown.name}: {len(made)} records")
    found.cut_off[flown.name] = over
    made.sort(key=lambda record: (not record.alert, -record.value))
    return [*made[: flown.settings.records - 1], _cut_off(flown, found, over)]


def _targets(flown: Flown, found: Collected) -> Iterator[AppRecord]:
    for one in found.of(flown.name):
        finding = one.finding
        yield _record(flown, found, one.place, one.box, finding.counts, finding.seen, finding.confidence)


def _places(flown: Flown, found: Collected) -> Iterator[AppRecord]:
    """An answer for every site; of tiles that are places of their own, where it is an alert."""
    everything = list(found.of(flown.name))
    for one in everything if flown.tile_is_the_place else ():
        record = _summed(flown, found, None, one.box, [one.finding])
        if record.alert:
            yield record
    for number, site in enumerate(flown.sites):
        mine = [one.finding for one in everything if one.place == number]
        yield _summed(flown, found, number, box_of(site), mine)


def _summed(
    flown: Flown, found: Collected, place: int | None, box: tuple[int, int, int, int], findings: Sequence[Finding]
) -> AppRecord:
    """The answer for a place of everything that was counted in it."""
    counts = tuple(map(sum, zip(*(finding.counts for finding in findings), strict=True)))
    seen = sum(finding.seen for finding in findings)
    return _record(flown, found, place, box, counts, seen, 100 * seen // (box[2] * box[3]))


def _record(
    flown: Flown, found: Collected, place: int | None, box: tuple[int, int, int, int], counts: tuple[int, ...],
    seen: int, confidence: int | None,
) -> AppRecord:  # fmt: skip
    header, site = found.header, None if place is None else flown.sites[place]
    flags = Flag.WITHHELD if found.hides(box) else Flag(0)
    value = 0
    if seen == 0 or (confidence or 0) < flown.settings.least_seen_percent:
        flags |= Flag.UNSEEN
    else:
        value = flown.app.value(counts, seen, site.ndvi if site else None)
        flags |= Flag.ALERT if value >= flown.threshold else Flag(0)
    value = min(max(value, -MOST_VALUE), MOST_VALUE)
    return AppRecord(
        header.scene_id, 0, 1, flown.digest, flown.app.indicator.number, value, flown.threshold, box, flags,
        site.number if site else None, header.info.sensed_at, confidence, found.place_of(box),
    )  # fmt: skip


def _cut_off(flown: Flown, found: Collected, stopped: CutOff) -> AppRecord:
    size, (row, col) = found.header.tile_px, stopped.tile
    return AppRecord(
        found.header.scene_id, 0, 1, flown.digest, flown.app.indicator.number, stopped.cause, flown.threshold,
        (row * size, col * size, size, size), Flag.CUT_OFF, None, found.header.info.sensed_at,
    )  # fmt: skip
