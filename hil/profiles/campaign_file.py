"""What became of every step of a campaign: the journal, and what it says of devices, codes and the day.

`journal.jsonl` has a line for every time that a step was tried; the last one about a step counts. A step that is done
names the file that holds its result and that file's sha256: a result that was changed since is no result.
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from payload.errors import InputError

JOURNAL = "journal.jsonl"
DONE, AWAY, FAILED = "done", "away", "failed"


@dataclass(frozen=True)
class StepRecord:
    """One step as it ended. `figures`: numbers by name, those that are known."""

    round: int
    device: str
    work: str
    state: str  # done, away (the device did not answer) or failed (it, or its work, was refused)
    at_s: float  # seconds since the epoch, when the step ended
    seconds: float = 0.0
    tries: int = 1
    why: str = ""
    file: str = ""  # of the result, seen from the campaign's folder
    sha256: str = ""  # of that file
    codes_sha256: str = ""  # over the tile codes
    codes_of: str = ""  # bundle and tiles: only of the same can codes be equal
    held: bool = True  # whether a run's own comparison held
    cpu: str = ""
    figures: dict[str, float] = field(default_factory=dict)

    @property
    def key(self) -> tuple[int, str, str]:
        return self.round, self.device, self.work


@dataclass(frozen=True)
class CodesOfWork:
    """The fingerprints of one work, and who has which."""

    work: str
    by_sha256: dict[str, tuple[str, ...]]  # sha256 -> devices

    @property
    def equal(self) -> bool:
        return len(self.by_sha256) <= 1


def read_journal(folder: Path) -> dict[tuple[int, str, str], StepRecord]:
    """The last record of every step. A line that was being written when the power went is passed over."""
    found: dict[tuple[int, str, str], StepRecord] = {}
    path = folder / JOURNAL
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else ():
        try:
            record = StepRecord(**json.loads(line))
            found[record.key] = record
        except (ValueError, TypeError):
            continue
    return found


def append_record(folder: Path, record: StepRecord) -> None:
    """One line, on the disk before anything else is done."""
    try:
        with (folder / JOURNAL).open("a", encoding="utf-8") as journal:
            journal.write(json.dumps(asdict(record)) + "\n")
            journal.flush()
    except OSError as error:
        raise InputError(f"{folder / JOURNAL}: cannot be written ({error.strerror}); make room, --resume") from None


def is_done(folder: Path, record: StepRecord | None) -> bool:
    """Whether a step is done and its result is still what it was."""
    if record is None or record.state != DONE:
        return False
    path = folder / record.file
    return path.is_file() and file_sha256(path) == record.sha256


def file_sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def codes_of_work(records: Sequence[StepRecord]) -> list[CodesOfWork]:
    """For every work that was done, which devices came to which tile codes; another bundle is another work."""
    found: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for record in records:
        if record.state == DONE and record.codes_sha256:
            devices = found[f"{record.work} ({record.codes_of})"][record.codes_sha256]
            if record.device not in devices:
                devices.append(record.device)
    return [CodesOfWork(work, {sha: tuple(names) for sha, names in by.items()}) for work, by in found.items()]


@dataclass(frozen=True)
class Check:
    """One thing that a campaign is held to: a count, and what it should be."""

    asked: str
    measured: int
    wanted: int
    found: str  # in words

    @property
    def held(self) -> bool:
        return self.measured == self.wanted


def checks(records: Sequence[StepRecord], planned: int) -> Iterator[Check]:
    """Every step done, one sha256 of the tile codes for each work, and no run unlike this host's."""
    done = sum(record.state == DONE for record in records)
    yield Check("steps done", done, planned, f"{done} of {planned}")
    for codes in codes_of_work(records):
        names = "; ".join(f"{sha[:16]}: {', '.join(devices)}" for sha, devices in codes.by_sha256.items())
        yield Check(f"different tile codes of {codes.work}", len(codes.by_sha256), 1, names)
    broken = [f"round {r.round}, {r.device}, {r.work}" for r in records if not r.held]
    if broken:
        yield Check("runs whose octets are not this host's", len(broken), 0, "; ".join(broken))
