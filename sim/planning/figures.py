"""Rows of mission.json as people read them."""

from collections.abc import Mapping, Sequence
from typing import Any

from sim.design.figures import figure, fixed, octets, percent

Row = tuple[str, ...]


def key_figures(report: Mapping[str, Any]) -> list[tuple[str, str, str, str, str]]:
    ours, base = report["strategies"][0], report["times_lossless"]["nadir"]
    imaged, binding = report["imaged"], report["binding"]
    bound = binding["constraint"] or "nothing"
    note = f"a tenth more of it gains {percent(binding['share_gained'])}" if binding["constraint"] else "all came down"
    return [
        ("Clear area down", figure(float(round(ours["clear_km2"]))), "km²",
         f"of {figure(float(round(imaged['clear_km2'])))} imaged, NDVI error {report['ndvi_mae']:g}", ""),
        ("Against lossless", f"{base:.3g}" if base else "–", "times", "clear area, CCSDS 121 store-and-forward", ""),
        ("First picture", hours(ours["first_picture_s"][0]), "h", _late(ours["first_picture_s"]), ""),
        ("Whole quality", hours(ours["whole_quality_s"][0]), "h", _late(ours["whole_quality_s"]), ""),
        ("What binds", bound, "", note, "warn" if binding["constraint"] else ""),
    ]  # fmt: skip


def strategy_rows(report: Mapping[str, Any]) -> list[dict[str, str]]:
    return [
        {
            "name": row["name"],
            "how": row["how"],
            "ours": "ours" if row["key"] == "nadir" else "",
            "km2": figure(float(round(row["clear_km2"]))),
            "times": _times(report["times_lossless"][row["key"]]),
            "each": figure(float(round(row["clear_km2_each_tile_at_quality"]))),
            "any": figure(float(round(row["clear_km2_any_quality"]))),
            "ndvi": fixed(row["ndvi_mae_of_all_down"], 4),
            "psnr": fixed(row["psnr_10k_db_of_all_imaged"], 1),
            "per_pass": figure(float(f"{row['clear_km2_per_pass']:.4g}")),
            "per_j": figure(None if row["clear_km2_per_j"] is None else float(f"{row['clear_km2_per_j']:.3g}"), "–"),
            "per_mb": figure(float(f"{row['clear_km2_per_uplinked_mb']:.4g}")),
            "first": f"{hours(row['first_picture_s'][0])} / {hours(row['first_picture_s'][1])}",
            "sent": octets(round(row["sent_octets"])),
            "offered": octets(round(row["offered_octets"])),
        }
        for row in report["strategies"]
    ]


def lever_rows(report: Mapping[str, Any]) -> list[Row]:
    """(lever, km2 that a tenth more gains, share)"""
    base = report["strategies"][0]["clear_km2"]
    ordered = sorted(report["a_tenth_more_km2"].items(), key=lambda row: -row[1])
    return [(name, figure(float(round(km2))), _share(km2, base)) for name, km2 in ordered]


def fate_rows(report: Mapping[str, Any]) -> list[Row]:
    whole = report["imaged"]["clear_km2"]

    def area(row: Mapping[str, Any], key: str) -> str:
        return figure(float(round(row[key])))

    rows = report["fate"]
    return [(r["cause"], area(r, "km2"), area(r, "clear_km2"), _share(r["clear_km2"], whole)) for r in rows]


def _share(part: float, whole: float) -> str:
    """A dash where there is nothing of which it could be one."""
    return percent(part / whole if whole else None, "–")


def hours(seconds: float | None) -> str:
    return "–" if seconds is None else f"{seconds / 3600:.2g}" if seconds < 36000 else f"{seconds / 3600:.0f}"


def _late(seconds: Sequence[float | None]) -> str:
    return f"median; 95 %: {hours(seconds[1])} h"


def _times(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"
