"""The folder of a mission plan: mission.json, mission.html, map.svg, timeline.svg; all of them or none."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sim.planning.mission_plan import MissionPlan
from sim.planning.page import drawings, render_page
from sim.products.delivery import whole_or_nothing


def write(plan: MissionPlan, report: Mapping[str, Any], out: Path, overwrite: bool) -> None:
    """Writes the folder. InputError where something else is in the way."""
    with whole_or_nothing(out, overwrite) as folder:
        (folder / "mission.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        (folder / "mission.html").write_text(render_page(plan, report), encoding="utf-8")
        for name, text in drawings(plan).items():
            (folder / name).write_text(text, encoding="utf-8")
