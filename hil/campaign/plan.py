"""What a campaign asks: devices, work, rounds. A TOML file -> a plan that is checked before anything is measured.

name = "a day on the flatsat"
rounds = 8                 # every device does all work in each
every = "1h"               # from the start of a round to the start of the next
tries = 3                  # a device that is away is asked so often in a round
pause = "1m"               # before it is asked again

[[devices]]
name = "pi"                # how the page names it
url = "ssh://pi@flatsat/home/pi/agents/agent-1234.pyz"
engine = "auto"            # these are optional
threads = 1
power = "scpi:TCPIP::192.168.1.5::5025::SOCKET"

[[work]]
name = "demo"
scene = "demo"             # or tiles = "tiles.npz"
bundle = "edge"            # these are optional
limit = 25
measure = "profile"        # or "run": every octet compared with this host's, tile by tile
repeats = 3
soak = "10m"
"""

import re
import tomllib
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

from hil.bench.profiling import Plan
from hil.bench.soak import duration_s
from hil.host.transports import connector
from payload.bundle import DEFAULT
from payload.errors import InputError

MEASURES = ("profile", "run")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,39}")
MOST_ROUNDS, MOST_TRIES = 10_000, 100
T = TypeVar("T")


@dataclass(frozen=True)
class CampaignDevice:
    """One device, and how it is used."""

    name: str
    url: str
    engine: str = "auto"
    threads: int = 1
    power: str | None = None


@dataclass(frozen=True)
class Work:
    """What every device does in every round."""

    name: str
    scene: str | None = None
    tiles: str | None = None
    bundle: str = DEFAULT
    limit: int = 25
    measure: str = "profile"
    repeats: int = 3
    window: str = "12s"  # of energy mode
    soak: str | None = None


@dataclass(frozen=True)
class CampaignPlan:
    """All of it. Times in seconds."""

    name: str
    devices: tuple[CampaignDevice, ...]
    work: tuple[Work, ...]
    rounds: int = 1
    every_s: float = 0.0
    tries: int = 3
    pause_s: float = 30.0
    folder: Path = field(default_factory=Path)  # where the file lies: paths of tiles are seen from there


def read_plan(path: Path) -> CampaignPlan:
    """The plan of a TOML file. InputError names the file, what is wrong in it and what was wanted."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        cause = getattr(error, "strerror", None) or error
        raise InputError(f"{path}: not readable as a plan ({cause}); docs/hil.md shows one") from None
    known = {"name", "rounds", "every", "tries", "pause", "devices", "work"}
    _refuse_unknown(path, "", table, known)
    plan = CampaignPlan(
        name=_typed(path, "", table, "name", str, path.stem),
        devices=tuple(_parts(path, table, "devices", CampaignDevice)),
        work=tuple(_parts(path, table, "work", Work)),
        rounds=_count(path, table, "rounds", 1, MOST_ROUNDS),
        every_s=duration_s(_typed(path, "", table, "every", str, "0s")),
        tries=_count(path, table, "tries", 3, MOST_TRIES),
        pause_s=duration_s(_typed(path, "", table, "pause", str, "30s")),
        folder=path.resolve().parent,
    )
    _check(path, plan)
    return plan


def _parts(path: Path, table: dict[str, Any], key: str, kind: type[T]) -> list[T]:
    rows = table.get(key)
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise InputError(f"{path}: no [[{key}]]; wanted one at least (docs/hil.md shows a plan)")
    return [_part(path, f"{key}[{n}].", row, kind) for n, row in enumerate(rows)]


def _part(path: Path, where: str, row: dict[str, Any], kind: type[T]) -> T:
    hints = {one.name: one for one in fields(kind)}  # type: ignore[arg-type]
    _refuse_unknown(path, where, row, set(hints))
    for name, value in row.items():
        wanted = int if hints[name].type in (int, "int") else str
        _typed(path, where, row, name, wanted, value)
    try:
        return kind(**row)
    except TypeError as error:
        missing = str(error).rpartition(": ")[2]
        raise InputError(f"{path}: {where}{missing} is missing; add it") from None


def _check(path: Path, plan: CampaignPlan) -> None:
    for key, names in (("devices", [d.name for d in plan.devices]), ("work", [w.name for w in plan.work])):
        for name in names:
            if not NAME.fullmatch(name) or names.count(name) > 1:
                raise InputError(
                    f"{path}: {key} name {name!r}: wanted letters, digits, . _ + - (40 at most), each name once"
                )
    for device in plan.devices:
        connector(device.url, Path())
        if not 1 <= device.threads <= 256:
            raise InputError(f"{path}: device {device.name}: threads is {device.threads}, wanted 1 to 256")
    for work in plan.work:
        _check_work(path, work)


def _check_work(path: Path, work: Work) -> None:
    if (work.scene is None) == (work.tiles is None):
        raise InputError(f"{path}: work {work.name}: wanted one of scene and tiles")
    if work.measure not in MEASURES:
        raise InputError(f"{path}: work {work.name}: measure is {work.measure!r}, wanted {' or '.join(MEASURES)}")
    if work.limit < 1 or work.repeats < 1:
        raise InputError(f"{path}: work {work.name}: limit and repeats are 1 at least")
    profile_plan(work, threads=1)


def profile_plan(work: Work, threads: int) -> Plan:
    """What `hil profile` would be asked. InputError where that cannot be measured."""
    soak_s = duration_s(work.soak) if work.soak is not None else None
    return Plan(work.repeats, duration_s(work.window), threads=threads, scene=work.scene, soak_s=soak_s)


def _count(path: Path, table: dict[str, Any], key: str, default: int, most: int) -> int:
    value = _typed(path, "", table, key, int, default)
    if not 1 <= value <= most:
        raise InputError(f"{path}: {key} is {value}, wanted 1 to {most}")
    return value


def _typed(path: Path, where: str, table: dict[str, Any], key: str, kind: type[T], default: Any) -> T:
    value = table.get(key, default)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise InputError(f"{path}: {where}{key} is {value!r}, wanted a {'number' if kind is int else 'text'}")
    return value


def _refuse_unknown(path: Path, where: str, table: dict[str, Any], known: set[str]) -> None:
    unknown = sorted(set(table) - known)
    if unknown:
        raise InputError(f"{path}: {where}{unknown[0]} is unknown; known are {', '.join(sorted(known))}")
