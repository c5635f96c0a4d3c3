"""`sim sweep`: one scene through the whole system at every combination of step, budget and loss; one table of it."""

import csv
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from payload.errors import InputError
from sim.downlink import Request, downlink
from sim.mission.change import Change
from sim.progress import Progress
from sim.report.files import arrange

COLUMNS = (
    "step_dn", "budget_octets", "packet_loss", "octets", "cr16", "bpp", "psnr_10k_db", "ssim_10k", "ndvi_mae",
    "kmeans_oa", "cover_oa", "lost", "incomplete", "energy_orbit_j", "held", "folder",
)  # fmt: skip


def numbers(text: str | None, name: str) -> list[float | None]:
    """Values of one option, comma-separated; [None], the mission's own, where it is left out."""
    if text is None:
        return [None]
    try:
        return [float(word) for word in text.split(",")]
    except ValueError:
        raise InputError(f"{name} is {text[:80]!r}, wanted numbers with commas between, as in 100,200") from None


def budgets(text: str | None) -> list[float | None]:
    """Values of --rate, octets of a scene, as `numbers`."""
    found = numbers(text, "--rate")
    if any(octets is not None and not octets >= 1 for octets in found):
        raise InputError(f"--rate is {text!r}, wanted octets of a scene, 1 or more, as in 100000,200000")
    return found


def sweep(
    request: Request, steps: Sequence[float | None], budgets: Sequence[float | None], losses: Sequence[float | None],
    progress: Progress,
) -> list[dict[str, Any]]:  # fmt: skip
    """A row for each combination; each run lies in a folder of its own below `request.out`."""
    combinations = list(itertools.product(steps, budgets, losses))
    rows = []
    for number, (step, budget, loss) in enumerate(combinations):
        change = Change(step, None if budget is None else round(budget), loss)
        folder = request.out / f"run{number:03d}"
        run = Request(
            request.scene, folder, request.mission, request.bundle, request.engine, request.seed, request.reading,
            overwrite=True, change=change,
        )  # fmt: skip
        rows.append(_row(arrange(downlink(run, lambda label, total: None)), change, folder))
        progress("runs", len(combinations))
    return rows


def _row(report: dict[str, Any], change: Change, folder: Path) -> dict[str, Any]:
    metrics = {row["key"]: row["value"] for row in report["quality"]["metrics"]}
    known = {
        "step_dn": change.step_dn, "budget_octets": change.budget_octets, "packet_loss": change.packet_loss,
        **{key: report["rate"][key] for key in ("octets", "cr16", "bpp")}, **metrics,
        "lost": report["tiles"]["lost"] + report["tiles"]["refused"], "incomplete": report["tiles"]["incomplete"],
        "energy_orbit_j": report.get("modelled", {}).get("orbit_j"), "held": report["held"], "folder": folder.name,
    }  # fmt: skip
    return {name: known.get(name) for name in COLUMNS}


def write_csv(rows: Sequence[dict[str, Any]], path: Path) -> None:
    with path.open("w", encoding="utf-8", newline="") as stream:
        table = csv.DictWriter(stream, COLUMNS)
        table.writeheader()
        table.writerows(rows)


def as_text(rows: Sequence[dict[str, Any]]) -> str:
    shown = COLUMNS[:-1]
    lines = ["".join(f"{name:>15}" for name in shown)]
    lines += ["".join(f"{_told(row[name]):>15}" for name in shown) for row in rows]
    return "\n".join(lines) + "\n"


def _told(value: Any) -> str:
    return "-" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
