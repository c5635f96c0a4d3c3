"""Rows of `sim evaluate-tasks` -> the tables as the field prints them, and what the bars come to."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

#: (bar, task, kind, ratio asked for, most points below the original)
BARS = (
    ("water head on features at CR >= 32, within 1 point", "water", "features", 34.0, 1.0),
    *(
        (f"{task} on reconstructions at CR {cr}, within {points} points", task, "reconstruction", float(cr), points)
        for task in ("water", "land-cover", "mangrove", "cloud")
        for cr, points in ((20, 1.0), (100, 3.0))
    ),
)
LEAST_MAC_RATIO = 10.0
#: What makes a line of a table.
GROUP = ("input", "bundle", "cr_asked", "learnt_from", "share")
Row = Mapping[str, Any]
#: What a head of decoded pixels learnt from: the same, or the originals, as one that was there before.
SAME, ORIGINALS = "the same", "originals"


def summary(rows: Sequence[Row], tasks: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """By task: the original, and every other input with its difference in points; by share of labels; the bars."""
    return {
        "tables": {name: _table([r for r in rows if r["task"] == name], about) for name, about in tasks.items()},
        "bars": [found for bar in BARS if (found := _bar(rows, tasks, *bar)) is not None],
    }


def _table(rows: Sequence[Row], about: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A line for each input and share of labels: mean and spread (standard deviation) over seeds, in points."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row[name] for name in GROUP), []).append(row)
    lines = [_line(key, found, str(about["metric"])) for key, found in groups.items()]
    original = {line["share"]: line["mean"] for line in lines if line["input"] == "original"}
    lines.sort(key=_order)
    for line in lines:
        line["difference"] = round(line["mean"] - original[line["share"]], 2) if line["share"] in original else None
    return lines


def _order(line: Mapping[str, Any]) -> tuple[Any, ...]:
    """Originals, decoded pixels, features; each by bundle and ratio."""
    kind = ("original", "reconstruction", "features").index(line["input"])
    return kind, line["cr_asked"] is None, line["bundle"], line["cr16"], line["learnt_from"] != SAME, -line["share"]


def _line(key: tuple[Any, ...], rows: Sequence[Row], metric: str) -> dict[str, Any]:
    values = 100 * np.array([row[metric] for row in rows])
    others = {name: round(float(np.mean([row[name] for row in rows])), 4) for name in _figures(rows[0], metric)}
    spread = round(float(values.std(ddof=1)), 2) if len(rows) > 1 else None
    return {**dict(zip(GROUP, key, strict=True)), "cr16": rows[0]["cr16"],
            "mean": round(float(values.mean()), 2), "spread": spread, "seeds": len(rows),
            "parameters": rows[0]["parameters"], "macs_per_px": rows[0]["macs_per_px"], "others": others}  # fmt: skip


def _figures(row: Row, metric: str) -> list[str]:
    known = {"task", *GROUP, "cr16", "seed", "parameters", "macs_per_px", metric}
    return [name for name in row if name not in known]


def _bar(
    rows: Sequence[Row], tasks: Mapping[str, Mapping[str, Any]], name: str, task: str, kind: str, cr: float,
    points: float,
) -> dict[str, Any] | None:  # fmt: skip
    """Whether a bar holds; None where it was not run."""
    if task not in tasks:
        return None
    lines = [line for line in _table([r for r in rows if r["task"] == task], tasks[task]) if line["share"] == 1.0]
    found = [ln for ln in lines if (ln["input"], ln["cr_asked"], ln["learnt_from"]) == (kind, cr, SAME)]
    whole = [line for line in lines if line["input"] == "original"]
    if not found or not whole:
        return None
    missed = round(whole[0]["mean"] - found[0]["mean"], 2)
    bar = {"bar": name, "task": task, "original": whole[0]["mean"], "found": found[0]["mean"], "points_below": missed,
           "spread": found[0]["spread"], "cr16": found[0]["cr16"], "held": missed <= points}  # fmt: skip
    if kind == "features":
        ratio = round(whole[0]["macs_per_px"] / found[0]["macs_per_px"], 1)
        bar |= {"times_fewer_macs": ratio, "held": bar["held"] and ratio >= LEAST_MAC_RATIO}
    return bar
