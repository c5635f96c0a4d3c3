"""What is imaged: a list of takes, from a JSON catalogue, a folder of scenes, or generated scenes (`demo:N`).

    {"schema": "nadir-catalogue/1", "takes": [
        {"scene": "field.tif", "sensed_at": "2026-06-21T10:30:00Z", "take_s": 20, "footprint": [11.5, 48.1],
         "priority": 1, "alert": false}]}

docs/planning.md says what each key means and what may be left out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from payload.errors import InputError
from sim.link.orbit import ground_speed_m_s, period_s
from sim.link.propagation import Vectors, points_below, satellite_of
from sim.link.sunlight import sun_elevation_deg
from sim.mission.spec import Mission
from sim.toml_tables import from_table, read_json

SCHEMA = "nadir-catalogue/1"
DEMO = "demo"
SCENE_SUFFIXES = (".tif", ".tiff", ".zip", ".safe")
#: How long a generated scene is taken for, in s, at most and at least: strips of 140 and of 7 km at 510 km.
TAKE_S, SHORTEST_TAKE_S = 20.0, 1.0
#: The lowest sun over a place that is imaged.
SUN_DEG = 10.0
MOST_TAKES = 20_000


@dataclass(frozen=True)
class Take:
    """One take. `take_s` None: the scene's own size. `priority` above 0: region of interest; `alert`: first of all."""

    scene: str
    sensed_at: datetime
    take_s: float | None = None
    footprint: tuple[float, float] | None = None  # longitude, latitude in degrees
    priority: int = 0
    alert: bool = False

    def __post_init__(self) -> None:
        if self.take_s is not None and not 0.01 <= self.take_s <= 3600:
            raise InputError(f"take_s is {self.take_s:g}, wanted 0.01 to 3600")
        if self.footprint and not (-180 <= self.footprint[0] <= 360 and -90 <= self.footprint[1] <= 90):
            raise InputError(f"footprint is {list(self.footprint)}, wanted longitude and latitude in degrees")


def read_takes(
    where: str, mission: Mission, start: datetime, days: float, take_s: float | None, seed: int, distinct: int
) -> list[Take]:
    """The takes within `days` days from `start`, in order of time. `distinct`: how many generated scenes there are.
    InputError where there are none, or where they do not fit into the daylight."""
    if where.partition(":")[0] == DEMO:
        count = _demo_count(where)
        scenes = [f"{DEMO}:{n % distinct}" for n in range(count)]
        found = _spread(scenes, mission, start, days, take_s or demo_take_s(mission, days, count), seed)
    elif Path(where).is_dir():
        found = _spread(_files(Path(where)), mission, start, days, take_s, seed)
    else:
        found = _placed(_catalogue(Path(where)), mission)
    end = start + timedelta(days=days)
    inside = sorted((take for take in found if start <= take.sensed_at < end), key=lambda take: take.sensed_at)
    if not inside:
        raise InputError(f"{where}: no take between {start:%Y-%m-%d %H:%M} and {end:%Y-%m-%d %H:%M}; set --start")
    return inside


def demo_take_s(mission: Mission, days: float, count: int) -> float:
    """How long each of so many generated takes is: together no more than the mission images in the days, if each is
    longer than SHORTEST_TAKE_S."""
    planned_s = mission.budgets.imaging_s_per_orbit
    orbits = days * 86400 / period_s(mission.orbit)
    return TAKE_S if planned_s is None else min(TAKE_S, max(SHORTEST_TAKE_S, planned_s * orbits / count))


def as_json(takes: Sequence[Take]) -> dict[str, Any]:
    """A catalogue that says the same."""
    rows = [
        {
            "scene": take.scene, "sensed_at": take.sensed_at.isoformat().replace("+00:00", "Z"), "take_s": take.take_s,
            "footprint": list(take.footprint) if take.footprint else None, "priority": take.priority,
            "alert": take.alert,
        }
        for take in takes
    ]  # fmt: skip
    return {"schema": SCHEMA, "takes": [{key: v for key, v in row.items() if v is not None} for row in rows]}


def _demo_count(where: str) -> int:
    text = where.removeprefix(f"{DEMO}:") if ":" in where else "1"
    if not text.isascii() or not text.isdigit() or len(text) > 6 or not 1 <= int(text) <= MOST_TAKES:
        raise InputError(f"{where[:80]}: wanted demo:N with N of 1 to {MOST_TAKES} takes, as in demo:1000")
    return int(text)


def _files(folder: Path) -> list[str]:
    found = sorted(str(path) for path in folder.iterdir() if path.suffix.lower() in SCENE_SUFFIXES)
    if not found:
        raise InputError(f"{folder}: holds no scene, wanted GeoTIFFs, .SAFE folders or their .zip")
    return found


def _catalogue(path: Path) -> list[Take]:
    table = read_json(path, f"a catalogue of takes ({SCHEMA}), a folder of scenes, or demo:N")
    if not isinstance(table, Mapping) or table.get("schema") != SCHEMA or not isinstance(table.get("takes"), list):
        raise InputError(f'{path}: is no catalogue, wanted {{"schema": "{SCHEMA}", "takes": [...]}}')
    if not 1 <= len(table["takes"]) <= MOST_TAKES:
        raise InputError(f"{path}: holds {len(table['takes'])} takes, wanted 1 to {MOST_TAKES}")
    return [_take(row, path, n) for n, row in enumerate(table["takes"])]


def _take(row: Any, path: Path, number: int) -> Take:
    where = f"takes[{number}]"
    if not isinstance(row, Mapping):
        raise InputError(f"{path}: {where} is {str(row)[:40]!r}, wanted a table with scene and sensed_at")
    table = dict(row)
    try:
        when = datetime.fromisoformat(str(table.get("sensed_at")))
    except ValueError:
        raise InputError(f"{path}: {where}.sensed_at is no time, wanted one like 2026-06-21T10:30:00Z") from None
    table["sensed_at"] = (when if when.tzinfo else when.replace(tzinfo=UTC)).astimezone(UTC)
    take = from_table(Take, table, str(path), where)
    beside = path.parent / take.scene
    generated = take.scene.partition(":")[0] == DEMO
    return take if generated or not beside.exists() else _moved(take, str(beside))


def _moved(take: Take, scene: str) -> Take:
    return Take(scene, take.sensed_at, take.take_s, take.footprint, take.priority, take.alert)


def _spread(
    scenes: Sequence[str], mission: Mission, start: datetime, days: float, take_s: float | None, seed: int
) -> list[Take]:
    """Takes at seeded times of daylight below the satellite, spread over the days."""
    seconds = np.arange(0.0, days * 86400, 10.0)
    satellite = satellite_of(mission.orbit)
    latitude, longitude = points_below(satellite, start, seconds)
    light = seconds[sun_elevation_deg(start, seconds, latitude, longitude) > SUN_DEG]
    gap_s = 10.0 * len(light) / len(scenes)
    length_s = take_s or TAKE_S
    if gap_s < length_s:
        raise InputError(
            f"{len(scenes)} takes of {length_s:g} s do not fit into {10 * len(light) / 3600:.1f} h of daylight below "
            "the satellite; ask for fewer, a shorter --take-s, or more --days"
        )
    late = np.random.default_rng(seed).random(len(scenes)) * (gap_s - length_s)
    lit_s = np.arange(len(scenes)) * gap_s + late  # counted in daylight alone
    at_s = light[np.minimum((lit_s / 10).astype(int), len(light) - 1)] + lit_s % 10
    where = _below(mission, start, at_s)
    return [
        Take(scene, start + timedelta(seconds=float(s)), take_s, place)
        for scene, s, place in zip(scenes, at_s, where, strict=True)
    ]


def _placed(takes: Sequence[Take], mission: Mission) -> list[Take]:
    """Takes without a footprint lie below the satellite."""
    found = []
    for take in takes:
        place = take.footprint or _below(mission, take.sensed_at, np.zeros(1))[0]
        found.append(Take(take.scene, take.sensed_at, take.take_s, place, take.priority, take.alert))
    return found


def _below(mission: Mission, start: datetime, seconds: Vectors) -> list[tuple[float, float]]:
    latitude, longitude = points_below(satellite_of(mission.orbit), start, seconds)
    return list(zip(longitude.tolist(), latitude.tolist(), strict=True))


def length_s(take: Take, mission: Mission, height_px: int, gsd_m: float) -> float:
    """How long the imager works for a take, in s."""
    return take.take_s if take.take_s is not None else height_px * gsd_m / ground_speed_m_s(mission.orbit)
