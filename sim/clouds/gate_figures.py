"""What a gate does to tiles whose clouds are known, in pixels: cloud it lets through, usable ground it loses, where.

Cloud let through lies in tiles that are sent, usable ground lost in tiles that are withheld.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

#: Shares of a tile above which it is withheld, for the table of what each costs.
THRESHOLDS = (0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)


@dataclass(frozen=True)
class GatedTile:
    """`sure`: the share of the tile that the gate counts as cloud."""

    site: str
    cloud_px: int
    ground_px: int
    sure: float


def gate_figures(tiles: Sequence[GatedTile], withheld_above: float) -> dict[str, Any]:
    """Shares of all cloud and of all ground, and of a site's ground where most is lost; None where there is none."""
    sums = {"cloud": 0, "sent": 0, "ground": 0, "lost": 0}
    by_site: dict[str, list[int]] = {}
    for tile in tiles:
        gone = bool(tile.sure > withheld_above)
        site = by_site.setdefault(tile.site, [0, 0])
        site[0], site[1] = site[0] + tile.ground_px * gone, site[1] + tile.ground_px
        sums["cloud"], sums["sent"] = sums["cloud"] + tile.cloud_px, sums["sent"] + tile.cloud_px * (not gone)
        sums["ground"], sums["lost"] = sums["ground"] + tile.ground_px, sums["lost"] + tile.ground_px * gone
    there = {site: lost / ground for site, (lost, ground) in by_site.items() if ground}
    worst = max(there, key=lambda site: there[site]) if there else None
    return {
        "let_through": sums["sent"] / sums["cloud"] if sums["cloud"] else None,
        "usable_lost": sums["lost"] / sums["ground"] if sums["ground"] else None,
        "worst_site": worst, "usable_lost_there": None if worst is None else there[worst],
    }  # fmt: skip


def by_threshold(tiles: Sequence[GatedTile]) -> list[dict[str, Any]]:
    """A row per threshold: this gate, and one that knows how much of a tile is cloud."""
    told = [replace(t, sure=t.cloud_px / max(1, t.cloud_px + t.ground_px)) for t in tiles]
    return [
        {"withheld_above": above, "ours": gate_figures(tiles, above), "knowing": gate_figures(told, above)}
        for above in THRESHOLDS
    ]
