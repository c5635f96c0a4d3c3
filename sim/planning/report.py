"""A mission plan -> mission.json: every figure of the page, for machines. docs/planning.md says what each is."""

import math
from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np

from sim.link.orbit import period_s
from sim.link.rate_steps import NOT_CODED
from sim.mission.passes import iso
from sim.planning.catalogue import SCHEMA as CATALOGUE_SCHEMA
from sim.planning.catalogue import as_json as catalogue_json
from sim.planning.delivered import delivered, latency_s, pooled_psnr_db
from sim.planning.mission_plan import MissionPlan, Run
from sim.planning.units import ALERT, ANSWER, CLASSES, FINE, RECORD, THUMBNAIL

SCHEMA = "nadir-mission/1"
#: A lever binds where a tenth more of it gains at least this share of the area.
BINDS = 0.005
#: Uplink: octets of a pass's schedule and acknowledgement, and of each unit that is asked for again.
ACKNOWLEDGEMENT_OCTETS, REQUEST_OCTETS = 64, 8


def compose(plan: MissionPlan) -> dict[str, Any]:
    """The whole report. Areas in km2, times in s, energies in J."""
    flight, request = plan.flight, plan.flight.request
    ours = plan.run("nadir")
    return {
        "schema": SCHEMA,
        "not_coded": NOT_CODED,
        "mission": request.mission.name,
        "start": iso(flight.start),
        "days": request.days,
        "stations": sorted({w.contact.station for w in flight.windows}),
        "rate_ceiling_bps": request.mission.link.rate_bps,
        "link_budget": request.mission.radio is not None,
        "ndvi_mae": request.ndvi_mae,
        "pass_order": request.mission.pass_order,
        "seed": request.seed,
        "notes": [*flight.notes, *_notes(plan)],
        "imaged": _imaged(plan),
        "coded": _coded(plan),
        "strategies": [strategy_figures(plan, run) for run in plan.runs],
        "times_lossless": _times_lossless(plan),
        "binding": binding(plan),
        "a_tenth_more_km2": {lever: round(km2, 1) for lever, km2 in plan.gains.items()},
        "fate": fate(plan, ours),
        "passes": pass_rows(plan, ours),
        "catalogue": catalogue_json(flight.takes) | {"schema": CATALOGUE_SCHEMA},
        "measured_on_host": {"scheduled_s": round(ours.scheduled_s, 3)},
    }


def strategy_figures(plan: MissionPlan, run: Run) -> dict[str, Any]:
    """What one strategy brings down, and what it costs."""
    request, table = plan.flight.request, run.strategy.table
    area, sent = run.down.at_quality(request.ndvi_mae), [row for row in run.outcome.passes if row.sent_octets]
    first = run.offered.layer == 0
    shown = (run.offered.kind != THUMBNAIL) & (run.offered.tile != RECORD)
    whole = (run.offered.kind == FINE) | (table.layers == 1)
    sensed = plan.flight.sensed_s
    joules = sum(v for name, v in run.onboard.joules.items() if name.startswith("payload") or name == "transmitter")
    uplinked = uplink_octets(plan, run)
    return {
        "key": run.strategy.key,
        "name": run.strategy.name,
        "how": run.strategy.how,
        "clear_km2": area,
        "clear_km2_each_tile_at_quality": run.down.each_at_quality(request.ndvi_mae),
        "clear_km2_any_quality": run.down.total_km2,
        "ndvi_mae_of_all_down": _known([run.down.mean_ndvi_mae])[0],
        "psnr_10k_db_of_all_imaged": _known([_pooled_db(run)])[0],
        "clear_km2_per_pass": area / max(1, len(sent)),
        "clear_km2_per_j": area / joules if joules else None,
        "clear_km2_per_uplinked_mb": area / (uplinked / 1e6),
        "energy_j": joules,
        "uplinked_octets": uplinked,
        "sent_octets": sum(row.sent_octets for row in sent),
        "lost_octets": sum(row.lost_octets for row in sent),
        "offered_octets": run.offered.total_octets,
        "first_picture_s": _known(latency_s(run.offered, run.outcome, sensed, table, first & shown)),
        "whole_quality_s": _known(latency_s(run.offered, run.outcome, sensed, table, whole & shown)),
        "alerts_s": _known(_record_latency(plan, run, ALERT)),
    } | ({"app_records_s": _known(_record_latency(plan, run, ANSWER))} if (run.offered.kind == ANSWER).any() else {})


def _pooled_db(run: Run) -> float:
    return pooled_psnr_db(run.offered, run.outcome, run.strategy.table, run.contents, run.strategy.gated)


def uplink_octets(plan: MissionPlan, run: Run) -> float:
    """What goes up: a schedule and an acknowledgement a pass, requests for what was lost, and the bundle once."""
    folder = plan.bundle.directory / "flight"
    bundle = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
    acknowledged = ACKNOWLEDGEMENT_OCTETS * len(run.outcome.passes) + REQUEST_OCTETS * run.outcome.lost_units
    return float(acknowledged + (bundle if run.strategy.uplinks_bundle else 0))


def binding(plan: MissionPlan) -> dict[str, Any]:
    """What binds: the lever whose tenth more gains the most clear area, if any gains a noticeable share."""
    base = plan.run("nadir").down.at_quality(plan.flight.request.ndvi_mae)
    lever = max(plan.gains, key=lambda name: plan.gains[name])
    share = plan.gains[lever] / base if base else 0.0
    return {"constraint": lever if share >= BINDS else None, "share_gained": share, "gained_km2": plan.gains[lever]}


def fate(plan: MissionPlan, run: Run) -> list[dict[str, Any]]:
    """Where all that was imaged went, in km2 of ground and of clear ground: the rows sum to what was imaged."""
    table, px_km2 = run.strategy.table, plan.px_km2
    rows: dict[str, list[float]] = {}

    def add(cause: str, km2: float, clear: float) -> None:
        row = rows.setdefault(cause, [0.0, 0.0])
        row[0] += km2
        row[1] += clear

    counted = _copies_with(run, run.outcome.arrived)
    for n, content in enumerate(run.contents):
        lost = run.onboard.lost.get(n) or (None if np.isfinite(run.onboard.coded_s[n]) else "not coded by the end")
        withheld = table.withheld[content.tiles] & run.strategy.gated
        valid, clear = (a[content.tiles] * px_km2 for a in (table.valid_px, table.clear_px))
        if lost:
            add(lost, float((content.copies * valid).sum()), float((content.copies * clear).sum()))
            continue
        add("withheld by the cloud gate", *(float((content.copies * a)[withheld].sum()) for a in (valid, clear)))
        whole, part = counted[0][n, content.tiles], counted[1][n, content.tiles]
        gone = np.minimum(counted[2][n, content.tiles], content.copies - whole - part)
        left = content.copies - whole - part - gone
        parts = ((DOWN, whole), (PARTLY, part), ("the coded store was full", gone), (WAITING, left))
        for cause, copies in parts:
            add(cause, *(float((copies * a)[~withheld].sum()) for a in (valid, clear)))
    return [{"cause": k, "km2": v[0], "clear_km2": v[1]} for k, v in rows.items() if v[0] > 0]


DOWN, PARTLY, WAITING = "down with all layers", "down, coarse layers only", "still on board at the end"


def _copies_with(run: Run, arrived: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of every take and tile: copies with all their layers down, with some, and with their first layer dropped."""
    offered, table = run.offered, run.strategy.table
    picture = (offered.tile != RECORD) & (offered.kind != THUMBNAIL)
    shape = (len(run.contents), len(table.scene), table.layers)
    down, most, dropped = np.zeros(shape, np.int64), np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    at = (offered.take[picture], offered.tile[picture], offered.layer[picture])
    down[at], most[at], dropped[at] = arrived[picture], offered.copies[picture], run.outcome.dropped[picture]
    got = np.where(most > 0, down, np.iinfo(np.int64).max)
    least = np.where(most.any(axis=2), got.min(axis=2), 0)
    return least, down[:, :, 0] - least, dropped[:, :, 0]


def pass_rows(plan: MissionPlan, run: Run) -> list[dict[str, Any]]:
    """One row for every window, with the clear area that is down after it."""
    rows, before = [], 0.0
    for row, window in zip(run.outcome.passes, plan.flight.windows, strict=True):
        down = delivered(run.offered, run.outcome, run.strategy.table, plan.px_km2, row.end_s)
        area = down.at_quality(plan.flight.request.ndvi_mae)
        rows.append(
            {
                "station": row.station,
                "begin_at": iso(plan.flight.start + timedelta(seconds=row.begin_s)),
                "usable_s": round(row.end_s - row.begin_s, 1),
                "max_elevation_deg": round(window.contact.max_elevation_deg, 1),
                "capacity_octets": round(row.capacity_octets),
                "sent_octets": round(row.sent_octets),
                "lost_octets": round(row.lost_octets),
                "waiting_octets": round(row.waiting_octets),
                "clear_km2": area - before,
            }
        )
        before = area
    return rows


def queue_classes(run: Run) -> dict[str, float]:
    """Octets of each class, as offered."""
    return {
        CLASSES[k]: float((run.offered.octets * run.offered.copies)[run.offered.kind == k].sum())
        for k in range(len(CLASSES)) if (run.offered.kind == k).any()
    }  # fmt: skip


def _record_latency(plan: MissionPlan, run: Run, kind: int) -> tuple[float, float]:
    """Of records of a class: median and 95th percentile of the time from sensing to the ground."""
    got = (run.offered.kind == kind) & (run.outcome.arrived > 0)
    if not got.any():
        return float("nan"), float("nan")
    waited = run.outcome.arrived_s[got] - plan.flight.sensed_s[run.offered.take[got]]
    return float(np.median(waited)), float(np.percentile(waited, 95))


def _known(values: Iterable[float]) -> list[float | None]:
    """JSON knows no NaN: what is not known is null."""
    return [value if math.isfinite(value) else None for value in values]


def _times_lossless(plan: MissionPlan) -> dict[str, float | None]:
    limit = plan.flight.request.ndvi_mae
    base = plan.run("lossless").down.at_quality(limit)
    return {run.strategy.key: run.down.at_quality(limit) / base if base else None for run in plan.runs}


def _imaged(plan: MissionPlan) -> dict[str, Any]:
    flight, table = plan.flight, plan.coded.ours
    orbits = flight.request.days * 86400 / period_s(flight.request.mission.orbit)
    clear = sum(float((c.copies * table.clear_px[c.tiles]).sum()) for c in plan.run("nadir").contents) * plan.px_km2
    return {
        "takes": len(flight.takes),
        "tiles": sum(plan.tiles_of),
        "km2": sum(plan.tiles_of) * plan.tile_km2,
        "clear_km2": clear,
        "imaging_s_per_orbit": float(flight.imaging_s.sum()) / orbits,
        "planned_imaging_s_per_orbit": flight.request.mission.budgets.imaging_s_per_orbit,
    }


def _coded(plan: MissionPlan) -> dict[str, Any]:
    """What was really coded, and what stands for how much."""
    coded, table = plan.coded, plan.coded.ours
    sent = ~table.withheld
    return {
        "basis": "measured",
        "scenes": list(coded.names),
        "tiles": len(table.scene),
        "stands_for_tiles": sum(plan.tiles_of),
        "bundle": plan.bundle.name,
        "step_dn": coded.step_dn,
        "octets_per_tile": float(table.octets[sent].sum(axis=1).mean()) if sent.any() else 0.0,
        "octets_per_tile_lossless": float(coded.lossless.octets.sum(axis=1).mean()),
        "octets_per_tile_jpeg2000": float(coded.jpeg2000.octets[sent].sum(axis=1).mean()) if sent.any() else 0.0,
        "withheld_share": float(table.withheld.mean()),
        "clear_share": float(table.clear_px.sum() / table.valid_px.sum()),
    }


def _notes(plan: MissionPlan) -> list[str]:
    imaged = _imaged(plan)
    planned = imaged["planned_imaging_s_per_orbit"]
    if planned is None or imaged["imaging_s_per_orbit"] <= planned * 1.05:
        return []
    takes = f"the catalogue images {imaged['imaging_s_per_orbit']:.0f} s an orbit"
    return [f"{takes}, the mission's budgets count on {planned:g} s"]


