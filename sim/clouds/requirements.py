"""The bars that the cloud gate is held against, and the result as text."""

from typing import Any

from sim.clouds.cost import GATE_RATIO
from sim.clouds.figures import CLOUDY_TILE
from sim.clouds.human import EVERY_CHIP
from sim.clouds.judged import OURS
from sim.clouds.samples import FIRM

SEN2COR = "sen2cor-scl"
Row = tuple[str, float | None, str, float]  # requirement, measured, relation, limit
#: Of the first generation, 494 of 528 tiles: no worse than that.
FIRST_ACCURACY = 494 / 528
#: Of all cloud, what the first gate (at 70 %) let through: half of that may go down with its detail.
FIRST_LET_THROUGH = 0.44
#: The sources of human chips that have bars of their own.
HUMAN_CHIPS, LANDSAT_CHIP = "human_cloud_512", "landsat8_human_384"


def checks(result: dict[str, Any]) -> list[dict[str, Any]]:
    """The bars, each with what was measured; a figure that could not be measured is not held."""
    rows = [*_by_people(result), *_by_classification(result), *_by_teacher(result), *_on_host(result)]
    return [
        dict(zip(("requirement", "measured", "relation", "limit"), row, strict=True)) | {"held": _held(*row[1:])}
        for row in rows
    ]


def _by_people(result: dict[str, Any]) -> list[Row]:
    chips, landsat = _human(result, HUMAN_CHIPS), _human(result, LANDSAT_CHIP)
    return [
        ("people's chips: IoU of cloud", chips.get("iou"), ">=", 0.82),
        ("people's chips: precision of cloud", chips.get("precision"), ">=", 0.93),
        ("people's chips: recall of cloud", chips.get("recall"), ">=", 0.87),
        ("people's Landsat chip: IoU of cloud", landsat.get("iou"), ">=", 0.85),
    ]


def _human(result: dict[str, Any], source: str) -> dict[str, Any]:
    wanted = {"source": source, "chip": EVERY_CHIP, "method": OURS}
    return next((row for row in result["human"] if wanted.items() <= row.items()), {})


def _by_classification(result: dict[str, Any]) -> list[Row]:
    tiles, slices, gate = result["tiles"][FIRM][OURS], result["slices"][OURS], result["gate"]
    rows = [
        ("tile accuracy on left-out sites", tiles["accuracy"], ">=", FIRST_ACCURACY),
        ("false discards, tiles of left-out sites", tiles["false_discards"], "<=", 0.0),
        ("pixel IoU of cloud on left-out sites", result["pixels"][FIRM][OURS]["iou"], ">=", 0.81),
        ("false discards on clear snow", slices.get("snow", {}).get("false_discards"), "<=", 0.02),
        ("false discards on clear sand", slices.get("sand", {}).get("false_discards"), "<=", 0.02),
        ("usable ground withheld or flattened, worst left-out site", gate["lost_either_way_there"], "<=", 0.005),
        ("cloud sent with its detail on left-out sites", gate["cloud_with_detail"], "<=", FIRST_LET_THROUGH / 2),
    ]
    scene = result["scene"]
    if scene is not None:
        agreement = scene["iou_with_s2cloudless"]
        bar = agreement[SEN2COR] - 0.03 if agreement[SEN2COR] is not None else 1.0
        rows.append(("scene: IoU with s2cloudless, against Sen2Cor's less .03", agreement[OURS], ">=", bar))
    return rows


def _by_teacher(result: dict[str, Any]) -> list[Row]:
    teacher = result["teacher"] or {}
    return [
        ("IoU of cloud with ukis-csmask on left-out sites", teacher.get("cloud", {}).get("iou"), ">=", 0.85),
        ("IoU of shadow with ukis-csmask on left-out sites", teacher.get("shadow", {}).get("iou"), ">=", 0.55),
    ]


def _on_host(result: dict[str, Any]) -> list[Row]:
    host = result["measured_on_host"]
    gate = min(host["gate"], key=lambda cost: abs(cost["ratio"] - GATE_RATIO), default={"added": None})
    return [
        ("megapixels a second on one core", host["megapixels_per_s"], ">=", 30.0),
        ("time the gate adds to the onboard line, at a ratio of about 20", gate["added"], "<=", 0.20),
    ]


def _held(value: float | None, relation: str, limit: float) -> bool:
    return value is not None and (value >= limit if relation == ">=" else value <= limit)


def as_text(result: dict[str, Any]) -> str:
    """The checks, the tile-level contenders and the sites, for the terminal."""
    rows = []
    for check in result["checks"]:
        value = "not measured" if check["measured"] is None else f"{check['measured']:.4g}"
        word = "held    " if check["held"] else "NOT HELD"
        rows.append(f"{word}  {check['requirement']}: {value} ({check['relation']} {check['limit']:.4g})")
    for cost in result["measured_on_host"]["gate"]:
        step, ratio, added, gate_ms = (cost[key] for key in ("step_dn", "ratio", "added", "gate_ms"))
        rows.append(f"gate at step {step:g} DN, ratio {ratio:.1f}: adds {100 * added:.1f} %, {gate_ms:.2f} ms a tile")
    gate = result["gate"]
    if gate["let_through"] is not None:
        kinds = (("withheld", "cloud_withheld"), ("flattened", "cloud_flattened"), ("with detail", "cloud_with_detail"))
        shares = ", ".join(f"{100 * gate[key]:.1f} % {name}" for name, key in kinds)
        rows.append(f"cloud at a gate of {100 * gate['withheld_above']:.0f} %, closed cloud flattened: {shares}")
        rows.append(f"the rows below call a tile cloudy above {100 * CLOUDY_TILE:.0f} %")
    rows.append(f"the ground's mask: {result['measured_on_host']['ground_s_per_megapixel']:.3f} s a megapixel")
    rows += [_human_text(row) for row in result["human"] if row["chip"] == EVERY_CHIP]
    for reading, methods in result["tiles"].items():
        for name, s in methods.items():
            known = ", ".join(f"{key} {s[key]:.3f}" for key in ("accuracy", "false_discards") if s[key] is not None)
            iou = result["pixels"][reading][name]["iou"]
            rows.append(
                f"{reading}, {name}: {s['tiles']} tiles, {known}" + ("" if iou is None else f", pixel IoU {iou:.3f}")
            )
    for row in result["sites"]:
        shown = {key: value for key, value in row.items() if key not in ("site", "gsd_m")}
        rows.append(f"{row['site']}: " + ", ".join(f"{key} {value}" for key, value in shown.items()))
    return "\n".join(rows)


def _human_text(row: dict[str, Any]) -> str:
    keys = ("iou", "precision", "recall", "balanced_accuracy", "shadow_iou")
    shown = [f"{key} {row[key]:.3f}" for key in keys if row[key] is not None]
    return f"{row['source']}, {row['method']}: " + ", ".join(shown)
