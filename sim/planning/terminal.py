"""mission.json on a terminal."""

from collections.abc import Mapping
from typing import Any

from sim.planning.figures import fate_rows, hours, lever_rows, strategy_rows


def as_text(report: Mapping[str, Any]) -> str:
    """A few tables of words and figures."""
    imaged, coded, binding = report["imaged"], report["coded"], report["binding"]
    tiles = f"{coded['tiles']} tiles of {', '.join(coded['scenes'])}, standing for {coded['stands_for_tiles']} tiles"
    sizes = [coded[f"octets_per_tile{key}"] for key in ("", "_jpeg2000", "_lossless")]
    lines = [
        f"{report['mission']}: {imaged['takes']} takes in {report['days']:g} days, {', '.join(report['stations'])}; "
        f"{imaged['clear_km2']:.0f} km2 are clear",
        f"coded: {tiles}; {sizes[0]:.0f} octets a tile, JPEG 2000 {sizes[1]:.0f}, lossless {sizes[2]:.0f}",
        "",
        f"{'way to fly':<15} {'clear km2':>11} {'x lossless':>10} {'first picture h':>16}  how",
    ]
    for row in strategy_rows(report):
        figures = f"{row['km2']:>11} {row['times']:>10} {row['first']:>16}"
        lines.append(f"{row['name']:<15} {figures}  {row['how']}")
    lines += ["", *(f"{cause}: {clear} km2 clear ({share})" for cause, _, clear, share in fate_rows(report)), ""]
    lines += [f"a tenth more {name}: {km2} km2 more ({share})" for name, km2, share in lever_rows(report)]
    alerts = report["strategies"][0]["alerts_s"]
    lines.append(f"scene headers and alerts: {hours(alerts[0])} h median, {hours(alerts[1])} h at 95 %")
    if "app_records_s" in report["strategies"][0]:
        answers = report["strategies"][0]["app_records_s"]
        told = f"{hours(answers[0])} h median, {hours(answers[1])} h at 95 %"
        lines.append(f"records of applications, from sensing to the ground: {told}")
    lines.append(f"binding: {binding['constraint'] or 'nothing; what was imaged and clear came down'}")
    return "\n".join([*lines, *(f"note: {note}" for note in report["notes"])])
