"""What a payload keeps from run to run: two slots for bundles, and its counters. Between runs it lies in a folder."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from payload.bundle import SHIPPED, Bundle, load_bundle, shipped_bundles
from payload.errors import InputError
from payload.guard.slots import Slots
from payload.guard.telemetry import EventId, Mode, Telemetry
from payload.link.telecommand import split
from payload.pipeline import Payload
from payload.store.commanding import Commander
from payload.store.files import FolderFiles
from payload.store.state import StateFile
from sim.mission.spec import Mission
from sim.mission.trust import load_or_stand_in, trusted_keys

#: What the counters take: two slots of a file.
STATE_OCTETS = 1 << 16
#: A file of commands is no longer: thousands of them.
MOST_OCTETS = 1 << 20
LOCK = "in-use"


@dataclass(frozen=True)
class Uplink:
    """What goes up before a scene. `upload`: a second bundle, on trial from now on; `commands`: a file of telecommands;
    `memory`: the folder of what outlives the run, None: nothing does."""

    upload: str | None = None
    commands: Path | None = None
    memory: Path | None = None

    @property
    def wanted(self) -> bool:
        return self.upload is not None or self.commands is not None or self.memory is not None


NOTHING = Uplink()


@dataclass(eq=False)
class Aboard:
    """One start of the payload: the bundle that its slots choose, and what it is commanded to do."""

    mission: Mission
    state: StateFile
    slots: Slots
    packets: tuple[bytes, ...]
    telemetry: Telemetry = field(default_factory=Telemetry)
    flown: Path | None = None  # where the bundle lies that flies in this run
    on_trial: bool = False

    def choose(self, bundle: str, upload: str | None) -> str:
        """The folder of the bundle that flies: `bundle` at the first start, `upload` on trial where there is one, else
        what the slots say."""
        if self.slots.active is None:
            self._install(bundle)
            self.slots.choose()
            self.slots.confirm()
        if upload is not None:
            self._install(upload)
        chosen = self.slots.choose(self.telemetry)
        self.flown, self.on_trial = chosen.directory, self.slots.on_trial == chosen.directory.name
        return str(chosen.directory)

    def _install(self, where: str) -> Bundle:
        folder = SHIPPED / where if where in shipped_bundles() else Path(where)
        return self.slots.install(folder, load_bundle(folder, flight_only=True).bundle_id)

    def begin(self, payload: Payload) -> None:
        """What the slots told, then every packet of the file in order; what is refused is counted and told."""
        payload.telemetry.adopt(self.telemetry)
        commander = Commander(payload, self.state, trusted_keys(self.mission) or (), self.slots)
        for packet in self.packets:
            commander.take(packet)

    def end(self, payload: Payload) -> None:
        """Behind the scene: a bundle on trial that worked, its self-tests passed, is the active one from now on."""
        if self.on_trial and payload.guard is not None and payload.telemetry.mode is Mode.NOMINAL:
            self.slots.confirm()
            payload.telemetry.tell(EventId.CONFIRMED, f"bundle {payload.bundle.bundle_id:08x}")

    def told(self) -> dict[str, object]:
        """For the report: the slot that flew, whether it was on trial, what flies from now on."""
        return {
            "flown_slot": self.flown.name if self.flown else None, "on_trial": self.on_trial,
            "active_slot": self.slots.active, "rolled_back": self.slots.rolled_back,
            "last_command": self.state.now.command,
        }  # fmt: skip


class Flight(NamedTuple):
    """What flies: the bundle, or what stands for one that is broken and why; and what the payload remembers, None where
    nothing goes up and nothing is to be remembered."""

    bundle: Bundle
    broken: str | None
    memory: Aboard | None


@contextmanager
def flying(bundle: str, uplink: Uplink, mission: Mission) -> Iterator[Flight]:
    """One start of the payload with `bundle`, or with what its slots choose."""
    if not uplink.wanted:
        yield Flight(*load_or_stand_in(bundle, mission), None)
        return
    if mission.protection is None:
        raise InputError(f"mission {mission.name} has no [protection]: nothing would prove a bundle or do a command")
    with TemporaryDirectory(prefix="nadir-aboard-") as passing:
        commands = tuple(split(_octets(uplink.commands)))
        with _locked(uplink.memory or Path(passing)) as folder:
            state = StateFile(FolderFiles(folder / "store", STATE_OCTETS))
            slots = Slots(folder / "slots", None if mission.allow_unsigned else trusted_keys(mission))
            memory = Aboard(mission, state, slots, commands)
            yield Flight(*load_or_stand_in(memory.choose(bundle, uplink.upload), mission), memory)


@contextmanager
def _locked(folder: Path) -> Iterator[Path]:
    """The payload's folder, made where it is missing, for one run at a time."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / LOCK).open("w", encoding="ascii")
    except OSError as error:
        raise InputError(f"{folder}: cannot be written ({error.strerror}), wanted a folder of the payload's") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise InputError(f"{folder}: another run is at work with it; wait for its end or use another") from None
        yield folder


def _octets(path: Path | None) -> bytes:
    if path is None:
        return b""
    try:
        if path.is_file() and path.stat().st_size <= MOST_OCTETS:
            return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}), wanted a file that `sim command` made") from None
    raise InputError(f"{path}: is no file of at most {MOST_OCTETS} octets, wanted one that `sim command` made")
