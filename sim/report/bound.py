"""The bound on the error of every sample, where a mission asks for one: what was asked, and what the ground found."""

from collections.abc import Mapping
from typing import Any

from sim.ground.reception import PICTURED, SceneReception
from sim.metrics.distortion import REFLECTANCE_PER_DN

REQUIREMENT = "error of any sample at most"


def section(asked_dn: int | None, received: SceneReception, figures: Mapping[str, float | None]) -> dict[str, Any]:
    """Table `bound` of the report; nothing where none was asked for."""
    if asked_dn is None:
        return {}
    return {"bound": {
        "basis": "measured", "asked_dn": asked_dn, "largest_error_dn": largest_error_dn(figures),
        "bits_per_sample": figures.get("bpppb"), "tiles_within": _tiles(received, True),
        "tiles_without": _tiles(received, False),
    }}  # fmt: skip


def checks(asked_dn: int | None, received: SceneReception, figures: Mapping[str, float | None]) -> list[dict[str, Any]]:
    """The check of it, over every valid sample that was delivered: those of tiles that came short count as well."""
    if asked_dn is None:
        return []
    found, short = largest_error_dn(figures), _tiles(received, False)
    causes = ["nothing was delivered"] * (found is None)
    causes += [f"{short} tiles came without the layer that keeps the bound"] * bool(short)
    return [{
        "requirement": REQUIREMENT, "measured": found, "limit": asked_dn, "unit": "DN", "relation": "<=",
        "held": found is not None and found <= asked_dn, "basis": "measured", "cause": "; ".join(causes) or None,
        "judged": found is not None,
    }]  # fmt: skip


def largest_error_dn(figures: Mapping[str, float | None]) -> int | None:
    value = figures.get("max_error_reflectance")
    return None if value is None else round(value / REFLECTANCE_PER_DN)


def _tiles(received: SceneReception, within: bool) -> int:
    codes = [code for code in received.codes.values() if code.kind in PICTURED]
    return sum(code.bounded == within for code in codes)
