"""The rows of the campaign: a name, the trial behind it, and what it demands."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from fnmatch import fnmatch

import numpy as np

from payload.errors import InputError
from sim.faults import channel, memory, models, process
from sim.faults.outcomes import Outcome
from sim.faults.world import POLICY

Trial = Callable[[np.random.Generator], Outcome]
ROLES = ("weights", "scales", "tables", "pointers", "all")
#: Ways of coding besides the usual one: bundle and policy.
WAYS = {
    "dense": ("edge", replace(POLICY, profile="dense")),
    "bound": ("edge", replace(POLICY, max_error_dn=10)),
    "grids": ("edge-s2-native", POLICY),
}  # fmt: skip


@dataclass(frozen=True)
class RowKind:
    """`strict`: nothing wrong may leave. `share`: of the trials asked for, where one takes long. `held`: bundle and
    role of the memory that is hit, for the upsets a day."""

    name: str
    trial: Trial
    strict: bool
    share: float = 1.0
    held: tuple[str, str] | None = None


def _memory() -> list[RowKind]:
    rows = []
    for role in (*ROLES, "codebook"):
        bundle, share = ("corsa-fpn3-256", 0.1) if role == "codebook" else ("edge", 1.0)
        for during in (False, True):
            for protected in (True, False):
                name = f"memory/{role}/{'during' if during else 'before'}/{'on' if protected else 'off'}"
                trial = memory.in_held(role, during, protected, bundle)
                rows.append(RowKind(name, trial, protected, share, (bundle, role)))
    for way, (bundle, policy) in WAYS.items():
        for protected in (True, False):
            name = f"memory/{way}/during/{'on' if protected else 'off'}"
            trial = memory.in_held("all", True, protected, bundle, policy)
            rows.append(RowKind(name, trial, protected, 0.1, (bundle, "all")))
    for protected in (True, False):
        word = "on" if protected else "off"
        rows.append(RowKind(f"memory/network/during/{word}", memory.in_network(protected), protected, 0.05))
        rows.append(RowKind(f"memory/indices/during/{word}", memory.in_indices(protected), protected))
    rows.append(RowKind("memory/input/before/on", memory.in_input(True), False))
    rows.append(RowKind("memory/stream/stored/on", memory.in_stream, True))
    return rows


def _channel() -> list[RowKind]:
    damages = {f"ber-1e{power}": channel.bit_errors(10.0**power) for power in range(-7, -2)}
    damages |= {
        "burst": channel.burst, "loss-5%": channel.loss(0.05), "loss-20%": channel.loss(0.2),
        "reorder": channel.reorder, "duplicate": channel.duplicate, "truncate": channel.truncate, "slip": channel.slip,
    }  # fmt: skip
    return [RowKind(f"channel/{name}", channel.trial_of(damage), True) for name, damage in damages.items()]


def _process() -> list[RowKind]:
    return [
        RowKind("process/kill", process.by_kill, True), RowKind("process/power-cut", process.by_power_cut, True),
        RowKind("process/store-full", process.by_full_store, True), RowKind("process/clock", process.by_clock, True),
        RowKind("process/hung-runtime", process.by_hang, True, 0.1),
    ]  # fmt: skip


def _models() -> list[RowKind]:
    return [
        RowKind("model/bad-signature", models.refused(models.bad_signature), True, 0.2),
        RowKind("model/wrong-id", models.refused(models.wrong_id), True, 0.2),
        RowKind("model/half-upload", models.refused(models.half_an_upload), True, 0.2),
        RowKind("model/rollback", models.rolled_back, True, 0.2),
    ]


ROWS = {row.name: row for row in (*_memory(), *_channel(), *_process(), *_models())}


def chosen(patterns: list[str]) -> list[RowKind]:
    """Rows by name, by the beginning of a name, or by a pattern with *. InputError where one names none."""
    found: dict[str, RowKind] = {}
    for pattern in patterns:
        hits = {n: r for n, r in ROWS.items() if fnmatch(n, pattern) or n.startswith(pattern.rstrip("/") + "/")}
        if not hits:
            groups = ", ".join(sorted({name.split("/")[0] for name in ROWS}))
            raise InputError(f"--rows {pattern!r} names no row; wanted one of {groups}, or a row as {next(iter(ROWS))}")
        found |= hits
    return [row for name, row in ROWS.items() if name in found]
