"""What the archive says on a terminal."""

from collections.abc import Sequence

from sim.archive.service import Entry
from sim.archive.verification import Verdict

COLUMNS = ("name", "octets", "CR", "worst tile", "all tiles", "size", "sensed", "bundle")


def table(entries: Sequence[Entry]) -> str:
    """A row a scene."""
    rows = [COLUMNS, *map(_row, entries)]
    widths = [max(len(row[k]) for row in rows) for k in range(len(COLUMNS))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join(lines) + "\n"


def proven(entries: Sequence[Entry]) -> str:
    """The table, and of each scene whether its original may go."""
    return table(entries) + "".join(f"{entry.name}: {_verdict(entry)}\n" for entry in entries)


def verdicts(found: Sequence[Verdict]) -> str:
    lines = []
    for verdict in found:
        state = "sound" if verdict.sound else f"{len(verdict.damages)} damages"
        lines += [f"{verdict.name}: {verdict.octets} octets, {state}", *(f"  {d}" for d in verdict.damages)]
    damaged = sum(not verdict.sound for verdict in found)
    return "\n".join([*lines, f"{len(found)} files, {damaged} damaged"]) + "\n"


def _verdict(entry: Entry) -> str:
    if entry.missing:
        return "keep the original: " + "; ".join(entry.missing)
    return f"proved by decoder {entry.proved_by}; the original may go, the bundle {entry.bundle} must stay"


def _row(entry: Entry) -> tuple[str, ...]:
    return (
        entry.name, f"{entry.octets}", f"{entry.cr16:.1f}", _db(entry.worst_psnr_db), _db(entry.mean_psnr_db),
        f"{entry.height_px} x {entry.width_px} x {len(entry.bands)}", entry.sensed_at or "-", entry.bundle,
    )  # fmt: skip


def _db(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f} dB"
