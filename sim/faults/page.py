"""faults.json -> faults.html: the campaign's table, group by group, in the house's one design."""

from collections.abc import Mapping, Sequence
from typing import Any

from sim.design.page import TEMPLATES, render

TITLES = {
    "memory": "Memory", "channel": "Channel", "process": "Process", "model": "Model management",
}  # fmt: skip
EXPLAINED = {
    "memory": "One bit is flipped: before a scene of two tiles, or behind the scrub that follows the first of them. "
    "“on”: with the guard of [protection]; “off”: without it. Held memory is what lies there for more than one tile; "
    "“network” are the gate's weights inside the runtime, “indices” a tile's magnitudes while it is coded (guarded by "
    "read_back), “input” a pixel before it reaches the payload, “stream” a tile that is stored.",
    "channel": "The packets of a scene of four tiles, damaged and received. Wrong would be a tile that is no beginning "
    "of the one that was sent. A tile that arrives in part or not at all is a hole.",
    "process": "A scene of three tiles goes into the onboard store. Right: every tile afterwards is whole or pending, "
    "none that was acknowledged is lost, and at most one is coded twice.",
    "model": "A new bundle arrives. Right: what must be refused is, and the old bundle flies on.",
}


def render_page(result: Mapping[str, Any]) -> str:
    """The text of faults.html. `result` is what faults.json holds."""
    groups = [
        (TITLES[key], EXPLAINED[key], rows)
        for key in TITLES
        if (rows := [row for row in result["rows"] if row["name"].startswith(key + "/")])
    ]
    return render(
        TEMPLATES / "faults.html",
        {"result": result, "groups": groups, "key_figures": _key_figures(result), "failed": result["failed"]},
    )


def as_text(result: Mapping[str, Any]) -> str:
    """The table for a terminal."""
    heads = ("trials", "detected", "recovered", "holes", "unharmed", "told", "silent", "crashed", "window")
    lines = [f"{'':34}" + "".join(f"{head:>10}" for head in heads)]
    for row in result["rows"]:
        mark = " " if row["held"] else "✕"
        lines.append(f"{mark} {row['name']:32}" + "".join(f"{row[head]:>10}" for head in heads))
    window = result["window"]
    lines += ["", f"guarded flips that had spoilt a tile before the next scrub, held back: "
              f"{window['spoilt_and_held_back']} of {window['flips']}"]  # fmt: skip
    verdict = "all rows held" if not result["failed"] else "failed: " + ", ".join(result["failed"])
    return "\n".join([*lines, verdict])


def _key_figures(result: Mapping[str, Any]) -> list[tuple[str, str, str, str, str]]:
    rows, window = result["rows"], result["window"]
    strict = [row for row in rows if row["requires_none_silent"]]
    silent, crashed = sum(r["silent"] for r in strict), sum(r["crashed"] for r in rows)
    loose = [row for row in rows if row["name"].startswith("memory/") and row["name"].endswith("/off")]
    off = sum(r["silent"] for r in loose)
    figures = [
        ("trials", _trials(rows), "", "", ""),
        ("silently wrong, protected", str(silent), "", f"of {_trials(strict)}", "bad" if silent else ""),
        ("crashes", str(crashed), "", "segmentation faults and hangs", "bad" if crashed else ""),
    ]
    if loose:
        figures.append(("silently wrong, unprotected", str(off), "", f"of {_trials(loose)}", ""))
    if window["flips"]:
        held = f"of {window['flips']:,} flips: tiles spoilt before the next scrub"
        figures.append(("held back", str(window["spoilt_and_held_back"]), "", held, ""))
    return figures


def _trials(rows: Sequence[Mapping[str, Any]]) -> str:
    return f"{sum(row['trials'] for row in rows):,}"
