"""What came down of how the payload did: the last housekeeping record, by names."""

from collections.abc import Mapping, Sequence
from typing import Any

from payload.guard.telemetry import Mode, named
from payload.link.housekeeping import Housekeeping
from payload.link.streams import Stream
from payload.link.tile_code import Kind


def told(records: Sequence[Housekeeping], memory: Mapping[str, object] | None = None) -> dict[str, Any]:
    """The newest of the records that arrived; `memory`: what the payload keeps beyond the run, where it does."""
    found: dict[str, Any] = {"basis": "measured", "records": len(records)}
    if memory is not None:
        found["memory"] = dict(memory)
    if not records:
        return found
    last = records[-1]
    return found | {
        "mode": mode_of(last), "time": last.time, "scenes": last.scenes,
        "tile_codes_sent": {kind.name.lower(): count for kind, count in zip(Kind, last.tiles, strict=True)},
        "packets_sent": {stream.name.lower(): count for stream, count in zip(Stream, last.packets, strict=True)},
        "guard": named(last.status.counts),
    }  # fmt: skip


def mode_of(record: Housekeeping) -> str:
    known = record.status.mode in list(Mode)
    return Mode(record.status.mode).name.lower() if known else f"mode {record.status.mode}"


def in_a_line(section: Mapping[str, Any]) -> str | None:
    """Mode and the counters that are not 0; None where no guard told any."""
    counted = [f"{name.replace('_', ' ')} {count}" for name, count in section.get("guard", {}).items() if count]
    return f"{section['mode']}: {', '.join(counted)}" if counted else None
