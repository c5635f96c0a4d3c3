"""Sites and their groups, read from GeoJSON (RFC 7946): polygons in degrees, each with a name of its own."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from payload.errors import InputError
from sim.geoservice.service import check_text
from sim.toml_tables import read_json

WANTED = "a GeoJSON FeatureCollection of Polygons and MultiPolygons with a name each"
EARTH_KM = 6371.0
MOST_SITES, MOST_CORNERS, MOST_OCTETS = 500, 200_000, 2**25

Ring = tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Site:
    """`polygons`: of each the outer ring and its holes, (longitude, latitude) in degrees, closed."""

    name: str
    groups: tuple[str, ...]
    polygons: tuple[tuple[Ring, ...], ...]

    @property
    def geometry(self) -> dict[str, Any]:
        return {"type": "MultiPolygon", "coordinates": [[list(ring) for ring in one] for one in self.polygons]}

    @property
    def corners(self) -> Iterator[tuple[float, float]]:
        yield from (corner for polygon in self.polygons for corner in polygon[0])

    @property
    def middle(self) -> tuple[float, float]:
        """Of the box around it."""
        longitudes, latitudes = zip(*self.corners, strict=True)
        return (min(longitudes) + max(longitudes)) / 2, (min(latitudes) + max(latitudes)) / 2

    def holds(self, place: tuple[float, float]) -> bool:
        """Whether a place lies in it: an odd number of edges, of rings and holes alike, are west of the place."""
        x, y = place
        crossed = 0
        for ring in (ring for polygon in self.polygons for ring in polygon):
            for (x1, y1), (x2, y2) in pairwise(ring):
                crossed += (y1 > y) != (y2 > y) and x > x1 + (y - y1) / (y2 - y1) * (x2 - x1)
        return crossed % 2 == 1

    def distance_km(self, place: tuple[float, float]) -> float:
        """From the nearest corner, on a sphere."""
        return min(_great_circle_km(corner, place) for corner in self.corners)


def _great_circle_km(a: tuple[float, float], b: tuple[float, float]) -> float:
    (x1, y1), (x2, y2) = ((math.radians(v) for v in place) for place in (a, b))
    half = math.sin((y2 - y1) / 2) ** 2 + math.cos(y1) * math.cos(y2) * math.sin((x2 - x1) / 2) ** 2
    return 2 * EARTH_KM * math.asin(min(1.0, math.sqrt(half)))


def read_sites(path: Path) -> tuple[Site, ...]:
    """The sites in a file. InputError names the feature at fault."""
    collection = read_json(path, WANTED, MOST_OCTETS)
    features = collection.get("features") if isinstance(collection, dict) else None
    if not isinstance(features, list) or not 1 <= len(features) <= MOST_SITES:
        raise InputError(f"{path}: holds no list of 1 to {MOST_SITES} features, wanted {WANTED}")
    found: dict[str, Site] = {}
    for number, feature in enumerate(features):
        try:
            site = _site(feature)
        except InputError as error:
            raise InputError(f"{path}: feature {number}: {error}") from None
        if site.name in found:
            raise InputError(f"{path}: feature {number}: another site is called {site.name!r}; give it another name")
        found[site.name] = site
    if sum(len(ring) for site in found.values() for one in site.polygons for ring in one) > MOST_CORNERS:
        raise InputError(f"{path}: more than {MOST_CORNERS} corners; simplify the polygons")
    return tuple(found.values())


def _site(feature: Any) -> Site:
    if not isinstance(feature, dict):
        raise InputError("is no object; wanted a Feature")
    properties, geometry = feature.get("properties"), feature.get("geometry")
    if not isinstance(properties, Mapping) or not isinstance(properties.get("name"), str):
        raise InputError("has no properties.name; add the site's name as text")
    check_text("name", properties["name"], 80)
    return Site(properties["name"], _groups(properties), _polygons(geometry))


def _groups(properties: Mapping[str, Any]) -> tuple[str, ...]:
    """`group`, a text, or `groups`, a list of texts; none is right, too."""
    groups = properties.get("groups", properties.get("group", []))
    listed = [groups] if isinstance(groups, str) else groups
    if not isinstance(listed, list) or not all(isinstance(group, str) for group in listed):
        raise InputError(f"group is {str(groups)[:60]!r}, wanted a text, or groups, a list of texts")
    for group in listed:
        check_text("group", group, 80)
    return tuple(dict.fromkeys(listed))


def _polygons(geometry: Any) -> tuple[tuple[Ring, ...], ...]:
    kind = geometry.get("type") if isinstance(geometry, Mapping) else None
    if kind not in ("Polygon", "MultiPolygon"):
        raise InputError(f"geometry is {str(kind)[:40]}, wanted a Polygon or a MultiPolygon: a site is an area")
    coordinates = geometry.get("coordinates")
    listed = [coordinates] if kind == "Polygon" else coordinates
    if not isinstance(listed, list) or not listed or not all(isinstance(one, list) and one for one in listed):
        raise InputError("geometry has no rings; give at least one of four corners")
    return tuple(tuple(_ring(ring) for ring in polygon) for polygon in listed)


def _ring(ring: Any) -> Ring:
    if not isinstance(ring, list) or len(ring) < 4:
        raise InputError("a ring has fewer than four corners; give them, the first again at the end")
    corners = tuple(_corner(corner) for corner in ring)
    if corners[0] != corners[-1]:
        raise InputError("a ring is open; its last corner is to be its first one")
    longitudes = [longitude for longitude, _ in corners]
    if max(longitudes) - min(longitudes) > 180:
        raise InputError("a ring is wider than 180 degrees; cut it at the antimeridian, as RFC 7946 wants it")
    return corners


def _corner(corner: Any) -> tuple[float, float]:
    right = isinstance(corner, list) and len(corner) in (2, 3)
    numbers = corner[:2] if right else []
    if not right or not all(isinstance(n, int | float) and not isinstance(n, bool) for n in numbers):
        raise InputError(f"a corner is {str(corner)[:60]}, wanted [longitude, latitude] in degrees")
    longitude, latitude = numbers
    if not (math.isfinite(longitude) and -180 <= longitude <= 180 and -90 <= latitude <= 90):
        raise InputError(f"a corner is {str(corner)[:60]}, wanted longitude -180 to 180 and latitude -90 to 90")
    return float(longitude), float(latitude)
