"""A map of the world as inline SVG: land, ground tracks, stations with what they see, and places by value.

Plate carree: a degree is a unit both ways, north is up. Coastlines are Natural Earth's (sim/design/data/land.txt).
"""

import math
from collections.abc import Iterable, Sequence
from functools import cache
from html import escape
from pathlib import Path

from sim.design.charts import Svg

LAND = Path(__file__).parent / "data" / "land.txt"
EARTH_KM = 6371.0
#: A line that jumps further than this between two points has crossed the edge of the map.
JUMP_DEG = 180.0

Place = tuple[float, float]  # longitude, latitude in degrees


class World:
    """A map to draw on; y of the drawing runs down, places are (longitude, latitude)."""

    def __init__(self) -> None:
        lines = "".join(f"M{x} 0V180" for x in range(30, 360, 30)) + "".join(f"M0 {y}H360" for y in range(30, 180, 30))
        self.parts = [f'<path class="sea" d="M0 0H360V180H0z"/><path class="land" d="{land_path()}"/>'
                      f'<path class="grid" d="{lines}"/>']  # fmt: skip

    def track(self, places: Sequence[Place], css: str) -> None:
        """A line through places, broken where it leaves the map on one side."""
        pieces = _unbroken(places)
        path = "".join("M" + "L".join(f"{_x(lon):.1f} {_y(lat):.1f}" for lon, lat in piece) for piece in pieces)
        self.parts.append(f'<path class="track {css}" d="{path}"/>')

    def station(self, place: Place, name: str, reach_deg: float) -> None:
        """A station, its name, and the circle of points below a satellite that it sees."""
        self.track(circle(place, reach_deg), "reach")
        x, y = _x(place[0]), _y(place[1])
        side, anchor = (-3, "end") if x > 300 else (3, "start")
        self.parts.append(f'<circle class="station" cx="{x:.1f}" cy="{y:.1f}" r="1.6"/>')
        self.parts.append(f'<text x="{x + side:.1f}" y="{y - 2:.1f}" text-anchor="{anchor}">{escape(name)}</text>')

    def dots(self, places: Iterable[Place], css: str, radius: float = 1.1) -> None:
        """Many places of one kind in one path: circles of a radius in degrees."""
        r = radius
        round_it = f"a{r} {r} 0 1 0 {2 * r} 0a{r} {r} 0 1 0 {-2 * r} 0"
        path = "".join(f"M{_x(longitude) - r:.1f} {_y(latitude):.1f}{round_it}" for longitude, latitude in places)
        if path:
            self.parts.append(f'<path class="{css}" d="{path}"/>')

    def svg(self, caption: str) -> Svg:
        view = f'viewBox="0 0 360 180" role="img" aria-label="{escape(caption)}"'
        return Svg(f'<svg class="world" {view}>{"".join(self.parts)}</svg>')


def circle(centre: Place, radius_deg: float, count: int = 73) -> list[Place]:
    """Places at an angle from another one on the sphere, all round."""
    longitude, latitude = (math.radians(v) for v in centre)
    angle = math.radians(radius_deg)
    found = []
    for n in range(count):
        azimuth = 2 * math.pi * n / (count - 1)
        sine = math.sin(latitude) * math.cos(angle) + math.cos(latitude) * math.sin(angle) * math.cos(azimuth)
        east = math.sin(azimuth) * math.sin(angle) * math.cos(latitude)
        there = longitude + math.atan2(east, math.cos(angle) - math.sin(latitude) * sine)
        found.append(((math.degrees(there) + 180) % 360 - 180, math.degrees(math.asin(max(-1.0, min(1.0, sine))))))
    return found


def reach_deg(altitude_km: float, mask_deg: float) -> float:
    """How far from a station, in degrees of the Earth, the point under a satellite is that rises over its mask."""
    mask = math.radians(mask_deg)
    return math.degrees(math.acos(EARTH_KM * math.cos(mask) / (EARTH_KM + altitude_km)) - mask)


@cache
def land_path() -> str:
    """The coastlines as path data."""
    rings = [line.split() for line in LAND.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    return "".join("M" + "L".join(_corners(ring)) + "z" for ring in rings)


def _corners(ring: Sequence[str]) -> list[str]:
    return [f"{_x(int(a) / 2):g} {_y(int(b) / 2):g}" for a, b in zip(ring[::2], ring[1::2], strict=True)]


def _x(longitude: float) -> float:
    return longitude + 180.0


def _y(latitude: float) -> float:
    return 90.0 - latitude


def _unbroken(places: Sequence[Place]) -> list[list[Place]]:
    pieces: list[list[Place]] = [[]]
    for place in places:
        if pieces[-1] and abs(place[0] - pieces[-1][-1][0]) > JUMP_DEG:
            pieces.append([])
        pieces[-1].append(place)
    return [piece for piece in pieces if len(piece) > 1]
