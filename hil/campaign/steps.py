"""The steps of a campaign, one after the other: each result is kept with its digest, so that a stop costs one step.

A device that is away is asked again after the others of its round, a few times, and then told of as away; the campaign
goes on. A campaign that is started again with `--resume` does what is not done yet, and nothing twice.
"""

import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from hil.bench.meters import open_meter
from hil.bench.profiling import profile
from hil.bench.run import RunFolder, RunReport, run, run_identity
from hil.campaign.plan import CampaignDevice, CampaignPlan, Work, profile_plan
from hil.host.client import open_device
from hil.host.session_values import DeviceLostError, Patience
from hil.host.tiles_in import npz_tiles, scene_tiles
from hil.host.trusted_bundle import trusted_bundle
from hil.profiles.campaign_file import (
    AWAY,
    DONE,
    FAILED,
    StepRecord,
    append_record,
    file_sha256,
    is_done,
    read_journal,
)
from hil.profiles.comparison import FIGURES
from hil.profiles.profile_file import BenchProfile, save_profile
from payload.bundle import Bundle
from payload.engine import open_engine
from payload.errors import InputError
from payload.policy import Policy
from payload.tiles import Tile

PLAN_FILE = "campaign.json"
#: A device is asked for so long at once; what is away for longer is asked again later.
PATIENCE = Patience(hello_s=5.0, attempts=3, pause_s=0.3)


@dataclass(frozen=True)
class Step:
    """One device does one work in one round."""

    round: int
    device: CampaignDevice
    work: Work

    @property
    def key(self) -> tuple[int, str, str]:
        return self.round, self.device.name, self.work.name

    @property
    def folder(self) -> str:
        return f"steps/r{self.round:03d}-{self.device.name}-{self.work.name}"


@dataclass(frozen=True)
class Clock:
    """What time it is, and how one waits: another one in tests."""

    now_s: Callable[[], float] = time.time
    sleep: Callable[[float], None] = time.sleep


def run_campaign(
    plan: CampaignPlan, out: Path, resume: bool, say: Callable[[str], None], clock: Clock = Clock(),
    measure: Callable[[Step, CampaignPlan, Path], StepRecord] | None = None,
) -> list[StepRecord]:  # fmt: skip
    """The last record of every step of the plan, in the plan's order."""
    with _folder(out, plan, resume):
        known = read_journal(out)
        start_s = min((record.at_s - record.seconds for record in known.values()), default=clock.now_s())
        for number in range(1, plan.rounds + 1):
            steps = [Step(number, device, work) for device in plan.devices for work in plan.work]
            open_steps = [step for step in steps if not is_done(out, known.get(step.key))]
            if open_steps:
                _wait(start_s + (number - 1) * plan.every_s, clock, say)
                _one_round(open_steps, plan, out, say, clock, measure or measure_step)
        known = read_journal(out)
    every = (Step(n, d, w).key for n in range(1, plan.rounds + 1) for d in plan.devices for w in plan.work)
    return [known[key] for key in every if key in known]


def _one_round(
    steps: list[Step], plan: CampaignPlan, out: Path, say: Callable[[str], None], clock: Clock,
    measure: Callable[[Step, CampaignPlan, Path], StepRecord],
) -> None:  # fmt: skip
    """Every step; those whose device is away again, after the others."""
    for attempt in range(1, plan.tries + 1):
        away = []
        for step in steps:
            record = _tried(step, plan, out, clock, measure, attempt)
            append_record(out, record)
            say(f"round {step.round} of {plan.rounds}, {step.device.name}, {step.work.name}: {_words(record)}")
            away += [step] if record.state == AWAY else []
        if not away or attempt == plan.tries:
            return
        steps = away
        _wait(clock.now_s() + plan.pause_s, clock, say)


def _tried(
    step: Step, plan: CampaignPlan, out: Path, clock: Clock, measure: Callable[[Step, CampaignPlan, Path], StepRecord],
    attempt: int,
) -> StepRecord:  # fmt: skip
    """A step's record, whatever became of it."""
    before_s = clock.now_s()
    try:
        record = measure(step, plan, out)
    except DeviceLostError as error:
        record = StepRecord(*step.key, AWAY, 0.0, why=_one_line(error))
    except Exception as error:  # one step must not end a day: what went wrong is told, and the next one is done
        record = StepRecord(*step.key, FAILED, 0.0, why=_one_line(error))
    now_s = clock.now_s()
    return replace(record, at_s=now_s, seconds=now_s - before_s, tries=attempt)


def measure_step(step: Step, plan: CampaignPlan, out: Path) -> StepRecord:
    """The step done, its result in the campaign's folder."""
    bundle = trusted_bundle(step.work.bundle)
    tiles = _tiles(step.work, plan, bundle)
    (out / step.folder).mkdir(parents=True, exist_ok=True)
    if step.work.measure == "run":
        return _run(step, tiles, bundle, out)
    return _profile(step, tiles, bundle, out)


def _tiles(work: Work, plan: CampaignPlan, bundle: Bundle) -> list[Tile]:
    if work.tiles is not None:
        return list(npz_tiles(plan.folder / work.tiles, bundle.tile_px, bundle.bands).first(work.limit).tiles)
    return list(scene_tiles(work.scene or "", bundle.tile_px, bundle.sensor).first(work.limit).tiles)


def _profile(step: Step, tiles: list[Tile], bundle: Bundle, out: Path) -> StepRecord:
    work, device = step.work, step.device
    meter = open_meter(device.power) if device.power else None
    with open_device(device.url, bundle, Policy(), device.engine, device.threads, PATIENCE) as session:
        found = profile(session, tiles, bundle, meter, profile_plan(work, device.threads))
    name = f"{step.folder}/profile.json"
    save_profile(found, out / name)
    return StepRecord(
        *step.key, DONE, 0.0, file=name, sha256=file_sha256(out / name), codes_sha256=found.sha256,
        codes_of=_same_codes(bundle, len(tiles)), cpu=found.device.cpu, figures=_figures(found),
    )  # fmt: skip


def _run(step: Step, tiles: list[Tile], bundle: Bundle, out: Path) -> StepRecord:
    """Tile by tile: a run that broke off goes on at the tile where it stopped."""
    folder = RunFolder(out / step.folder, run_identity(repr(step.work), bundle, Policy()), True, True)
    with open_device(step.device.url, bundle, Policy(), step.device.engine, step.device.threads, PATIENCE) as session:
        report = run(session, tiles, bundle, Policy(), folder, open_engine("openvino", 1))
    name = f"{step.folder}/report.json"
    return StepRecord(
        *step.key, DONE, 0.0, file=name, sha256=file_sha256(out / name), codes_sha256=report.sha256,
        codes_of=_same_codes(bundle, len(tiles)), held=report.held, cpu=str(report.device["cpu"]),
        figures=_run_figures(report),
    )  # fmt: skip


def _same_codes(bundle: Bundle, tiles: int) -> str:
    return f"bundle {bundle.name} {bundle.bundle_id:08x}, {tiles} tiles"


def _figures(found: BenchProfile) -> dict[str, float]:
    """Figures of `hil compare` by their names there, and the hottest part."""
    known = {name: read(found) for name, (_, read) in FIGURES.items()}
    speed = found.performance
    known["hottest_c"] = max(speed.temperatures_c.values(), default=None) if speed else None
    known["soak_slowdown"] = found.soak.slowdown if found.soak else None
    return {name: float(value) for name, value in known.items() if value is not None}


def _run_figures(report: RunReport) -> dict[str, float]:
    return {"mean": 1e3 * report.mean_s["coded"]} if "coded" in report.mean_s else {}


@contextmanager
def _folder(out: Path, plan: CampaignPlan, resume: bool) -> Iterator[None]:
    """The campaign's folder, for this process alone; a plan that asks something else is refused."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        lock = os.open(out, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise InputError(f"{out}: cannot be written ({error.strerror}); choose another --out") from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _check_plan(out, plan, resume)
        yield
    except BlockingIOError:
        raise InputError(f"{out}: another campaign writes there; wait for it, or choose another --out") from None
    finally:
        os.close(lock)


def _check_plan(out: Path, plan: CampaignPlan, resume: bool) -> None:
    asked = {"devices": [asdict(d) for d in plan.devices], "work": [asdict(w) for w in plan.work]}
    path = out / PLAN_FILE
    if path.exists() and not resume:
        raise InputError(f"{out}: holds a campaign; use --resume to go on with it, or another --out")
    if path.exists() and _asked(path) != asked:
        raise InputError(f"{out}: holds a campaign of other devices or work; resume that one, or choose another --out")
    path.write_text(json.dumps({"name": plan.name, "rounds": plan.rounds, "asked": asked}, indent=1), encoding="utf-8")


def _asked(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))["asked"]
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(f"{path}: not readable; choose another --out") from None


def _wait(until_s: float, clock: Clock, say: Callable[[str], None]) -> None:
    left_s = until_s - clock.now_s()
    if left_s > 0:
        say(f"waiting for {left_s:.0f} s")
        clock.sleep(left_s)


def _words(record: StepRecord) -> str:
    return f"{record.state} in {record.seconds:.1f} s" if record.state == DONE else f"{record.state} ({record.why})"


def _one_line(error: Exception) -> str:
    """What a user can read; the kind of an error that was not foreseen stands before it."""
    kind = "" if isinstance(error, InputError) else f"{type(error).__name__}: "
    return kind + " ".join(str(error).split())[:300]
