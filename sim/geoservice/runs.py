"""What lies below --runs: received scenes, campaigns of them by their Parquet, mission plans. Each with its digest.

A run's digest is over the files that its figures are read from, so that whoever holds them can say so.
"""

import hashlib
import importlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import rasterio
from rasterio.errors import RasterioError

from payload.errors import InputError
from sim.apps.products import ANSWERS_FILE
from sim.toml_tables import read_json

PICTURE, CLOUD, REPORT, MISSION, RESULTS = (
    "reconstruction.tif", "cloud.tif", "report.json", "mission.json", "results.parquet",
)  # fmt: skip
SCENES = "scenes"
MISSION_SCHEMA = "nadir-mission/1"
TIME_TAG, SCENE_TAG = "ACQUISITIONDATETIME", "NADIR_SCENE"
CHUNK_OCTETS, MOST_RUNS = 1 << 20, 20_000
WANTED = "what sim downlink, sim receive, sim campaign or sim mission wrote"


@dataclass(frozen=True)
class PlannedTake:
    """A take of a mission plan: when, and longitude and latitude of its middle."""

    at: datetime
    middle: tuple[float, float]


@dataclass(frozen=True)
class Run:
    """`files`: SHA-256 of every file that figures are read from. `at`: when its scene was taken; a plan has `takes`."""

    number: int
    kind: Literal["scene", "campaign", "mission"]
    folder: Path
    name: str
    files: Mapping[str, str]
    scene: str
    at: datetime | None = None
    takes: tuple[PlannedTake, ...] = ()
    answers: tuple[Mapping[str, Any], ...] | None = None
    apps: frozenset[str] = frozenset()
    answers_missing: int = 0

    @property
    def digest(self) -> str:
        text = "\n".join(f"{digest}  {name}" for name, digest in sorted(self.files.items()))
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def page(self) -> str:
        """What to look at: the run's report where it has one."""
        pages = ("mission.html",) if self.kind == "mission" else ("report.html", "quicklook.png")
        return next((page for page in pages if (self.folder / page).is_file()), "")


def find_runs(root: Path, notes: list[str]) -> list[Run]:
    """Runs below a folder in a fixed order; what is left out is noted. InputError where there is none."""
    if not root.is_dir():
        raise InputError(f"{root}: is no folder; give --runs a folder with {WANTED}")
    found: list[Run] = []
    seen: dict[str, int] = {}
    for kind, folder in _places(root, notes):
        name = folder.relative_to(root).as_posix() if folder != root else root.name
        run = _read(len(found) + 1, kind, folder, name, notes)
        if run is None:
            continue
        if run.digest in seen:
            notes.append(f"{name}: the same files as run {seen[run.digest]}, left out")
            continue
        seen[run.digest] = run.number
        found.append(run)
        if len(found) > MOST_RUNS:
            raise InputError(f"{root}: more than {MOST_RUNS} runs; give a folder of fewer")
    if not found:
        told = f" ({'; '.join(notes[:2])})" if notes else ""
        raise InputError(f"{root}: holds no run that can be used{told}; give --runs a folder with {WANTED}")
    return found


def _places(root: Path, notes: list[str]) -> Iterator[tuple[Any, Path]]:
    """Folders of runs: those that a campaign's Parquet names, all others with a picture, and mission plans."""
    campaigns = sorted(path.parent for path in _visible(root, RESULTS))
    for campaign in campaigns:
        for folder in _of_campaign(campaign, campaign.relative_to(root).as_posix(), notes):
            yield "campaign", folder
    for path in sorted(_visible(root, PICTURE)):
        if not any(campaign / SCENES in path.parents for campaign in campaigns):
            yield "scene", path.parent
    for path in sorted(_visible(root, MISSION)):
        yield "mission", path.parent


def _visible(root: Path, name: str) -> Iterator[Path]:
    """Files of a name; hidden folders are of runs that are not done."""
    for path in root.rglob(name):
        if not any(part.startswith(".") for part in path.relative_to(root).parts) and path.is_file():
            yield path


def _of_campaign(campaign: Path, name: str, notes: list[str]) -> Iterator[Path]:
    """Folders of the scenes that the Parquet lists as done."""
    try:
        parquet = importlib.import_module("pyarrow.parquet")
    except ModuleNotFoundError:
        raise InputError("pyarrow is not installed; pip install 'nadir-payload[campaign]'") from None
    try:
        rows = parquet.read_table(campaign / RESULTS, columns=["folder", "state"]).to_pylist()
        listed = {str(row["folder"]) for row in rows if row["folder"] and row["state"] == "done"}
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{campaign / RESULTS}: cannot be read ({str(error)[:100]}), wanted sim campaign's") from None
    without = len(rows) - len(listed)
    if without:
        notes.append(f"campaign {name}: {without} of {len(rows)} rows have no picture, left out")
    on_disk = {path.name for path in (campaign / SCENES).glob("*") if path.is_dir()}
    for folder in sorted(listed & on_disk):
        yield campaign / SCENES / folder
    for what, count in (("products are gone", len(listed - on_disk)), ("no row yet", len(on_disk - listed))):
        if count:
            notes.append(f"campaign {name}: {count} scenes left out: {what}")


def _read(number: int, kind: Any, folder: Path, name: str, notes: list[str]) -> Run | None:
    return _mission(number, folder, name, notes) if kind == "mission" else _scene(number, kind, folder, name, notes)


def _mission(number: int, folder: Path, name: str, notes: list[str]) -> Run | None:
    plan = read_json(folder / MISSION, "a plan of sim mission")
    catalogue = plan.get("catalogue") if isinstance(plan, dict) and plan.get("schema") == MISSION_SCHEMA else None
    takes = catalogue.get("takes") if isinstance(catalogue, dict) else None
    if not isinstance(takes, list):
        notes.append(f"{name}: its {MISSION} is no plan of schema {MISSION_SCHEMA}, left out")
        return None
    placed = [take for take in takes if isinstance(take, dict) and isinstance(take.get("footprint"), list)]
    if len(placed) < len(takes):
        notes.append(f"{name}: {len(takes) - len(placed)} of {len(takes)} takes have no place, left out")
    try:
        planned = tuple(PlannedTake(_time(take["sensed_at"]), _place(take["footprint"])) for take in placed)
    except (KeyError, TypeError, ValueError):
        raise InputError(f"{folder / MISSION}: a take has no time or place that can be read; plan it again") from None
    digests = {MISSION: _sha256(folder / MISSION)}
    return Run(number, "mission", folder, name, digests, str(plan.get("mission")), takes=planned)


def _place(footprint: list[Any]) -> tuple[float, float]:
    longitude, latitude = footprint
    return (float(longitude) + 180) % 360 - 180, float(latitude)


def _scene(number: int, kind: Any, folder: Path, name: str, notes: list[str]) -> Run | None:
    cause, scene, at = _unusable(folder)
    if cause:
        notes.append(f"{name}: {cause}, left out")
        return None
    answers = _answers(folder / ANSWERS_FILE) if (folder / ANSWERS_FILE).is_file() else None
    flown = _section(folder / REPORT) if (folder / REPORT).is_file() else {}
    names = [PICTURE, CLOUD, *([ANSWERS_FILE] if answers is not None else [])]
    files = {file: _sha256(folder / file) for file in names}
    if flown:  # of the report this section alone: the rest holds times of the host
        files[f"{REPORT}, apps"] = hashlib.sha256(json.dumps(flown, sort_keys=True).encode()).hexdigest()
    return Run(number, kind, folder, name, files, scene, at, (), answers, *_flown(flown, folder))


def _flown(section: Mapping[str, Any], folder: Path) -> tuple[frozenset[str], int]:
    """What the applications of a run look for, and how many of their answers were lost."""
    listed, missing = section.get("list", []), section.get("answers_missing", 0)
    if not isinstance(listed, list) or not all(isinstance(app, dict) for app in listed) or not isinstance(missing, int):
        raise InputError(f"{folder / REPORT}: its section apps cannot be read; run sim downlink again")
    return frozenset(str(app.get("indicator")) for app in listed), missing


def _unusable(folder: Path) -> tuple[str, str, datetime | None]:
    """Why a folder's rasters cannot be used, if so; the scene's id; when it was taken."""
    if not (folder / CLOUD).is_file():
        return f"no {CLOUD} beside its picture", "", None
    try:
        with rasterio.open(folder / PICTURE) as picture, rasterio.open(folder / CLOUD) as cloud:
            tags, at_one = picture.tags(), cloud.shape == picture.shape
            placed = picture.crs is not None and (picture.crs.is_projected or picture.crs.is_geographic)
    except RasterioError as error:
        return f"cannot be read ({' '.join(str(error).split())[:100]})", "", None
    if not at_one or not placed:
        return ("picture and cloud mask differ in size" if placed else "no place on the Earth"), "", None
    try:
        return "", tags.get(SCENE_TAG, ""), _time(tags[TIME_TAG])
    except (KeyError, ValueError):
        return f"no time (tag {TIME_TAG})", "", None


def _answers(path: Path) -> tuple[Mapping[str, Any], ...]:
    features = read_json(path, "answers of sim downlink")
    listed = features.get("features") if isinstance(features, dict) else None
    properties = [one.get("properties") if isinstance(one, dict) else None for one in listed or ()]
    if not isinstance(listed, list) or not all(isinstance(one, dict) for one in properties):
        raise InputError(f"{path}: holds no features with properties; run sim downlink or sim receive again")
    if not all(isinstance(one.get("value"), int | float | None) for one in properties if one):
        raise InputError(f"{path}: a value is no number; run sim downlink or sim receive again")
    return tuple(listed)


def _section(path: Path) -> Mapping[str, Any]:
    """What the report says of applications; nothing where none flew."""
    report = read_json(path, "a report of sim downlink")
    section = report.get("apps") if isinstance(report, dict) else None
    return section if isinstance(section, dict) else {}


def _time(text: str) -> datetime:
    at = datetime.fromisoformat(text)
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).astimezone(UTC)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
