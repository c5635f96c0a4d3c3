"""The generated land: relief, sea, river, fields, woods, towns and roads -> surface reflectance before light and air.

Drawn window by window (see `sim.scenes.demo_noise`). Reflectances in blue, green, red and near infrared are assumed:
plausible values, not measured. Axes: x east, y south, metres from the scene's north-west corner.
"""

import math
import random
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sim.scenes.demo_brushes import blend, parcels
from sim.scenes.demo_noise import F32, U32, Jittered, Octaves, Span, field, hash_lattice, smoothstep, unit

#: Way inland, from the sea in the south-west to the mountains in the north-east (unit vector, x east and y south).
INLAND = (0.8, -0.6)

#: Blue, green, red, near infrared.
CROPS = np.array(
    [
        (0.026, 0.058, 0.030, 0.420),  # winter wheat
        (0.030, 0.066, 0.036, 0.360),  # barley
        (0.024, 0.052, 0.028, 0.470),  # beet
        (0.034, 0.074, 0.046, 0.320),  # pasture
        (0.042, 0.104, 0.090, 0.410),  # rape in flower
        (0.064, 0.092, 0.118, 0.190),  # bare, dry
        (0.046, 0.064, 0.080, 0.125),  # ploughed, moist
        (0.090, 0.128, 0.172, 0.270),  # stubble
        (0.044, 0.076, 0.070, 0.250),  # maize coming up
        (0.058, 0.090, 0.094, 0.230),  # fallow
    ],
    np.float32,
)
#: Where a hash of 0..15 finds its crop: wheat and pasture are common, rape is not.
ROTATION = np.array([0, 0, 0, 1, 1, 2, 3, 3, 3, 4, 5, 6, 7, 8, 9, 8])
ROOFS = np.array(
    [
        (0.085, 0.092, 0.140, 0.190),  # clay tiles
        (0.070, 0.078, 0.118, 0.170),  # old clay tiles
        (0.105, 0.108, 0.112, 0.125),  # slate
        (0.140, 0.145, 0.152, 0.170),  # flat roof
        (0.215, 0.220, 0.228, 0.240),  # metal
        (0.040, 0.066, 0.050, 0.260),  # garden
        (0.036, 0.060, 0.044, 0.290),  # garden
        (0.088, 0.096, 0.104, 0.150),  # yard
    ],
    np.float32,
)
BROADLEAF = (0.018, 0.040, 0.022, 0.340)
CONIFER = (0.017, 0.031, 0.020, 0.225)
ALPINE = (0.040, 0.066, 0.060, 0.240)
ROCK = (0.088, 0.104, 0.120, 0.175)
SAND = (0.125, 0.160, 0.195, 0.265)
SUBURB = (0.075, 0.088, 0.098, 0.205)
ASPHALT = (0.082, 0.090, 0.098, 0.125)
TRACK = (0.095, 0.120, 0.145, 0.210)
DEEP_WATER = (0.030, 0.024, 0.010, 0.006)
SHALLOW_WATER = (0.062, 0.072, 0.034, 0.010)
RIVER_WATER = (0.034, 0.044, 0.028, 0.014)

PARISH_M = 1900.0
STREET_M = (116.0, 84.0)
HOUSE_M = (29.0, 21.0)


class Town(NamedTuple):
    x_m: float
    y_m: float
    radius_m: float
    cos: float  # of the direction of its streets
    sin: float


class Road(NamedTuple):
    x0_m: float
    y0_m: float
    x1_m: float
    y1_m: float
    width_m: float


class Ground(NamedTuple):
    """What a window of land looks like."""

    reflectance: F32  # [4, h, w]
    height_m: F32  # [h, w]
    water: NDArray[np.bool_]  # [h, w]


@dataclass(frozen=True)
class Fields:
    """The noise fields of one landscape, one salt each."""

    coast: Octaves
    ridge: Octaves
    range: Octaves
    meander_p: Octaves
    meander_q: Octaves
    bend_x: Octaves
    bend_y: Octaves
    woods: Octaves
    grain: Octaves
    moisture: Octaves


class Landscape:
    """A landscape of `extent_m` metres (the shorter side of the scene) drawn at `gsd_m` metres per pixel."""

    def __init__(self, seed: int, height_m: float, width_m: float, gsd_m: float) -> None:
        self.gsd_m = gsd_m
        self.extent_m = min(height_m, width_m)
        self.salt = (seed + 1) * 1009 + 17
        #: Coast and mountains keep their share of the scene whatever its size.
        self._coast_m = -0.6 * height_m + 0.33 * self.extent_m
        self._river_gap_m = 1.4 * self.extent_m / max(1, round(1.4 * self.extent_m / 17_000))
        self.fields = self._make_fields()
        self.towns, self.roads = self._settle(random.Random(self.salt), height_m, width_m)
        ends = np.array([road[:4] for road in self.roads]).reshape(-1, 2, 2)  # [roads, ends, x and y]
        self._towns_at = np.array(self.towns).T  # [fields of a town, towns]
        self._road_boxes = *ends.min(axis=1).T, *ends.max(axis=1).T

    def _make_fields(self) -> Fields:
        def octaves(number: int, longest_m: float, shortest_m: float, gain: float = 0.5) -> Octaves:
            return Octaves.between(self.salt + number, self.gsd_m, longest_m, shortest_m, gain)

        return Fields(
            coast=octaves(1, self.extent_m / 3, 20, 0.55),
            ridge=octaves(2, 3600, 20, 0.48),
            range=octaves(3, self.extent_m / 2.5, 300),
            meander_p=octaves(4, 2600, 300, 0.42),
            meander_q=octaves(5, 2600, 300, 0.42),
            bend_x=octaves(6, 1800, 200, 0.4),
            bend_y=octaves(7, 1800, 200, 0.4),
            woods=octaves(8, 1500, 20, 0.58),
            grain=octaves(9, 30, 10, 0.8),
            moisture=octaves(10, 700, 40, 0.6),
        )

    def _settle(
        self, dice: random.Random, height_m: float, width_m: float
    ) -> tuple[tuple[Town, ...], tuple[Road, ...]]:
        """The town where the river nears the sea, villages all over, roads from each to its nearest elders."""
        towns: list[Town] = []
        extent = self.extent_m
        main = self.place(0.24 * extent + self._coast_m, self._river_gap_m * 0.5 - 0.045 * extent)
        spots = [(*main, min(1900.0, 0.12 * extent))]
        for _ in range(int(height_m * width_m / 14e6) + 2):
            spots.append((dice.random() * width_m, dice.random() * height_m, 260 + 420 * dice.random() ** 2))
        for x, y, radius in spots:
            along = (x * INLAND[0] + y * INLAND[1] - self._coast_m) / extent
            apart = all(abs(x - town.x_m) + abs(y - town.y_m) > 2000 + town.radius_m for town in towns)
            if not towns or (0.06 < along < 0.58 and apart):
                turn = dice.random() * 1.5
                towns.append(Town(x, y, radius, round(math.cos(turn), 6), round(math.sin(turn), 6)))
        roads = []
        for number, town in enumerate(towns[1:], 1):
            elder = min(towns[:number], key=lambda other: abs(other.x_m - town.x_m) + abs(other.y_m - town.y_m))
            roads.append(Road(town.x_m, town.y_m, elder.x_m, elder.y_m, 13.0))
        x, y = main
        roads.append(Road(x, y, x + extent, y - 0.28 * extent, 24.0))
        roads.append(Road(x, y, x - 0.35 * extent, y - extent, 24.0))
        return tuple(towns), tuple(roads)

    def place(self, along_m: float, across_m: float) -> tuple[float, float]:
        """x, y of a point given along the way inland and across it."""
        return INLAND[0] * along_m - INLAND[1] * across_m, INLAND[1] * along_m + INLAND[0] * across_m

    def draw(self, span: Span) -> Ground:
        """The land in a window: reflectance float32 [4, h, w], height in metres, water."""
        x, y = self._middles(span.col_px, span.width_px)[None, :], self._middles(span.row_px, span.height_px)[:, None]
        along = x * np.float32(INLAND[0]) + y * np.float32(INLAND[1])
        across = y * np.float32(INLAND[0]) - x * np.float32(INLAND[1])
        grain = field(self.fields.grain, span)
        inland = along - np.float32(self._coast_m) + np.float32(0.035 * self.extent_m) * field(self.fields.coast, span)
        if inland.max() < -3000:  # open sea: nothing else to draw
            paint = self._sea(inland, grain)
            return Ground(paint, np.zeros_like(inland), np.ones(inland.shape, bool))
        river = self._river_distance(along, across, span)
        ridge = field(self.fields.ridge, span)
        mountains = self._mountains(along, span)
        height = self._height(ridge, mountains, inland, river)
        woods = field(self.fields.woods, span)
        bend_x, bend_y = (np.float32(80) * field(bend, span) for bend in (self.fields.bend_x, self.fields.bend_y))
        paint = self._farmland(x + bend_x, y + bend_y, span)
        self._cover_with_woods(paint, woods, mountains, height, river, grain)
        self._build(paint, woods, x, y, x + np.float32(1.5) * bend_x, y + np.float32(1.5) * bend_y, span)
        water = self._flood(paint, inland, river, woods, grain)
        return Ground(paint, height, water)

    def _middles(self, first_px: int, count: int) -> F32:
        """Metres of the middles of so many pixels."""
        return (np.arange(count, dtype=np.float32) + np.float32(first_px + 0.5)) * np.float32(self.gsd_m)

    def _mountains(self, along: F32, span: Span) -> F32:
        """0 in the plain, 1 in the mountains."""
        share = (along - np.float32(self._coast_m)) * np.float32(1 / self.extent_m)
        return smoothstep(share + np.float32(0.075) * field(self.fields.range, span), 0.58, 0.92)

    def _height(self, ridge: F32, mountains: F32, inland: F32, river: F32) -> F32:
        """Metres above the sea: ridges where the noise crosses zero, a swell in the plain, valleys along rivers."""
        crest = np.float32(1) - np.minimum(np.abs(ridge), np.float32(1.6)) * np.float32(0.625)
        valley = smoothstep(river, 40.0, 1500.0)
        shore = smoothstep(inland, 0.0, 900.0)
        return (np.float32(950) * mountains * crest * crest + np.float32(34) * (ridge + np.float32(2))) * valley * shore

    def _river_distance(self, along: F32, across: F32, span: Span) -> F32:
        """Metres to the middle of the nearest river. Rivers swing because position is displaced by noise."""
        across = across + np.float32(680) * field(self.fields.meander_q, span)
        along = along + np.float32(680) * field(self.fields.meander_p, span)
        sway = across + np.float32(0.12) * (np.abs(np.float32(2400) - _wrap(along, 4800.0)) - np.float32(1200))
        gap = np.float32(self._river_gap_m)
        offset = _wrap(sway, self._river_gap_m) - gap * np.float32(0.5)
        down, right = np.gradient(offset, np.float32(self.gsd_m))
        steepness = np.sqrt(down * down + right * right)
        return np.abs(offset) / np.maximum(steepness, np.float32(0.35))

    def _sea(self, inland: F32, grain: F32) -> F32:
        """Reflectance of the sea: brighter and greener towards the shore."""
        depth = smoothstep(inland, -0.16 * self.extent_m, 0.0)
        depth *= depth
        paint = np.empty((4, *inland.shape), np.float32)
        for band in range(4):
            paint[band] = DEEP_WATER[band] + np.float32(SHALLOW_WATER[band] - DEEP_WATER[band]) * depth
        paint *= np.float32(1) + np.float32(0.02) * grain
        return paint

    def _farmland(self, x: F32, y: F32, span: Span) -> F32:
        """Fields: parishes of one direction each, cut into rows, the rows into parcels. x, y bent, metres."""
        parish = self._parish(x, y)
        parcel, edge = parcels(x, y, parish, self.salt)
        paint = _look_up(CROPS, ROTATION[(parcel >> np.uint32(9)) & np.uint32(15)])  # [4, h, w]
        vigour = unit(parcel, 0) - np.float32(0.5) + np.float32(0.16) * field(self.fields.moisture, span)
        for band, swing in enumerate((-0.22, -0.12, -0.25, 0.26)):  # lush fields: darker red, brighter infrared
            paint[band] *= np.float32(1) + np.float32(swing) * vigour
        tracked = (parish & np.uint32(3)) != 0
        blend(paint, TRACK, np.where(tracked, 0.75, 0.2).astype(np.float32) * self._coverage(edge, 2.2))
        hedged = (parcel & np.uint32(7)) == 0
        blend(paint, BROADLEAF, hedged * np.float32(0.85) * self._coverage(edge - np.float32(7), 5.0))
        return paint

    def _parish(self, x: F32, y: F32) -> U32:
        """Hash of the nearest parish church: jittered grid, of which the four nearest cells suffice."""
        rows, cols = (np.arange(_cell(at.min()), _cell(at.max()) + 2, dtype=np.int32) for at in (y, x))
        hashed = hash_lattice(self.salt + 30, rows[:, None], cols[None, :])  # of the few cells in the window
        east = cols.astype(np.float32) + np.float32(0.25) + np.float32(0.5) * unit(hashed, 0)
        south = rows.astype(np.float32)[:, None] + np.float32(0.25) + np.float32(0.5) * unit(hashed, 2)
        churches = Jittered(east, south, (rows[0], cols[0]), 1 / PARISH_M)
        return np.take(hashed, churches.nearest(x, y))

    def _cover_with_woods(self, paint: F32, woods: F32, mountains: F32, height: F32, river: F32, grain: F32) -> None:
        """Woods in the plain, forest on the slopes, meadow and rock above."""
        canopy = np.float32(1) + np.float32(0.13) * grain
        lowland = smoothstep(woods, 1.05, 1.1) * (mountains < np.float32(0.4))
        bank = smoothstep(-river, -95.0, -60.0) * smoothstep(woods, -0.3, 0.4)
        blend(paint, BROADLEAF, np.maximum(lowland, np.float32(0.8) * bank), canopy)
        slope_forest = smoothstep(mountains + np.float32(0.06) * woods, 0.10, 0.16)
        blend(paint, CONIFER, slope_forest, canopy)
        mixed = slope_forest * smoothstep(woods, -0.4, 0.5) * smoothstep(-height, -460.0, -120.0)
        blend(paint, BROADLEAF, mixed * np.float32(0.8), canopy)
        rough = height + np.float32(55) * woods
        blend(paint, ALPINE, smoothstep(rough, 400.0, 560.0), canopy)
        blend(paint, ROCK, smoothstep(rough + np.float32(30) * grain, 560.0, 800.0), canopy)

    def _build(self, paint: F32, woods: F32, x: F32, y: F32, bent_x: F32, bent_y: F32, span: Span) -> None:
        """Roads, then towns over them; only those that reach into the window are drawn."""
        centre_x, centre_y = (float(axis[[0, -1]].mean()) for axis in (x[0], y[:, 0]))
        reach = 0.75 * self.gsd_m * max(span.height_px, span.width_px) + 700
        for road in self._roads_about(centre_x, centre_y, reach):
            if _distance_to_segment(centre_x, centre_y, road) < reach:
                share = self._coverage(self._road_distance(bent_x, bent_y, road), road.width_m / 2)
                blend(paint, ASPHALT, np.float32(0.9) * share)
        town_x, town_y, radius, *_ = self._towns_at
        away = np.maximum(np.abs(town_x - centre_x), np.abs(town_y - centre_y))
        for at in np.flatnonzero(away < reach + 1.6 * radius):
            self._build_town(paint, woods, x, y, bent_x, bent_y, self.towns[at])

    def _roads_about(self, x_m: float, y_m: float, reach_m: float) -> list[Road]:
        """Roads whose boxes come so near to a point: most of many hundreds are told from far by these."""
        left, top, right, bottom = self._road_boxes
        away_x = np.maximum(np.maximum(left - x_m, x_m - right), 0)
        away_y = np.maximum(np.maximum(top - y_m, y_m - bottom), 0)
        return [self.roads[at] for at in np.flatnonzero(np.maximum(away_x, away_y) <= reach_m)]

    def _road_distance(self, x: F32, y: F32, road: Road) -> F32:
        dx, dy = road.x1_m - road.x0_m, road.y1_m - road.y0_m
        length = math.sqrt(dx * dx + dy * dy)
        east, south = np.float32(dx / length), np.float32(dy / length)
        rx, ry = x - np.float32(road.x0_m), y - np.float32(road.y0_m)
        ahead = rx * east + ry * south
        beyond = np.maximum(np.maximum(-ahead, ahead - np.float32(length)), np.float32(0))
        return np.abs(ry * east - rx * south) + beyond

    def _build_town(self, paint: F32, woods: F32, x: F32, y: F32, bent_x: F32, bent_y: F32, town: Town) -> None:
        rx, ry = bent_x - np.float32(town.x_m), bent_y - np.float32(town.y_m)
        density = np.float32(1) - np.sqrt(rx * rx + ry * ry) * np.float32(
            1 / town.radius_m
        )  # 1 in the middle, 0 at the edge
        density += np.float32(0.22) * np.clip(woods, np.float32(-1.5), np.float32(1.5))
        if density.max() < -0.3:
            return
        u = (x - np.float32(town.x_m)) * np.float32(town.cos) + (y - np.float32(town.y_m)) * np.float32(town.sin)
        v = (y - np.float32(town.y_m)) * np.float32(town.cos) - (x - np.float32(town.x_m)) * np.float32(town.sin)
        block_u, block_v = np.floor(u / np.float32(STREET_M[0])), np.floor(v / np.float32(STREET_M[1]))
        block = hash_lattice(self.salt + 40, block_u.astype(np.int32), block_v.astype(np.int32))
        built = density + np.float32(0.5) * (unit(block, 0) - np.float32(0.5)) > np.float32(0.06)
        factory = (unit(block, 1) < np.float32(0.07)) & (density < np.float32(0.45))
        house_u = np.floor(u / np.where(factory, np.float32(58), np.float32(HOUSE_M[0])))
        house_v = np.floor(v / np.where(factory, np.float32(84), np.float32(HOUSE_M[1])))
        house = hash_lattice(self.salt + 41, house_u.astype(np.int32), house_v.astype(np.int32))
        greenery = unit(house, 0) < np.clip(
            np.float32(0.62) - np.float32(0.6) * density, np.float32(0.12), np.float32(0.7)
        )
        kind = np.where(greenery, 5 + (house & np.uint32(1)), (house >> np.uint32(20)) % np.uint32(4))
        kind = np.where(factory, np.where(unit(house, 1) < np.float32(0.45), 4, 3), kind)
        kind = np.where(unit(block, 2) < np.float32(0.05), 6, kind)  # parks
        paint_town = _look_up(ROOFS, kind) * (np.float32(0.82) + np.float32(0.36) * unit(house, 2))
        blend(paint_town, SUBURB, np.full_like(u, 0.35))  # eaves, yards and trees that no pixel resolves
        wide = np.where(_wrap(block_u, 5.0) == 0, np.float32(15), np.float32(5.5))
        broad = np.where(_wrap(block_v, 6.0) == 0, np.float32(15), np.float32(6))
        street_u = np.abs(u - np.float32(STREET_M[0]) * block_u)
        street_v = np.abs(v - np.float32(STREET_M[1]) * block_v)
        street = np.maximum(self._coverage(street_u - wide, 0.0), self._coverage(street_v - broad, 0.0))
        blend(paint_town, ASPHALT, np.float32(0.85) * street)
        paint[:, built] = paint_town[:, built]

    def _flood(self, paint: F32, inland: F32, river: F32, woods: F32, grain: F32) -> NDArray[np.bool_]:
        """Beach, river and sea over the land. Gives where water is."""
        sandy = smoothstep(woods, -1.2, 0.2)
        blend(
            paint,
            SAND,
            self._coverage(np.abs(inland - np.float32(12)), 30.0) * (np.float32(0.25) + np.float32(0.75) * sandy),
        )
        half_width = np.float32(34) + np.float32(46) * smoothstep(-inland, -0.6 * self.extent_m, 0.0)
        stream = river - half_width
        bar = self._coverage(np.abs(stream + np.float32(4)), 13.0) * smoothstep(woods, 0.2, 0.9)
        blend(paint, SAND, bar * np.float32(0.8), np.float32(0.8) + np.float32(0.06) * grain)
        in_river = self._coverage(stream, 0.0) * (inland > np.float32(-1500))
        blend(paint, RIVER_WATER, in_river)
        in_sea = self._coverage(inland, 0.0)
        if in_sea.any():
            plume = np.float32(0.85) * smoothstep(-river, -900.0, 0.0) * smoothstep(inland, -1600.0, 0.0)
            sea = self._sea(inland, grain)
            blend(sea, RIVER_WATER, plume)
            paint += in_sea * (sea - paint)
        return (in_river > np.float32(0.5)) | (in_sea > np.float32(0.5))

    def _coverage(self, distance: F32, half_width_m: float) -> F32:
        """Share of a pixel covered by a band of that half width, from the distance of its middle to the axis."""
        share = (np.float32(half_width_m) - distance) * np.float32(1 / self.gsd_m) + np.float32(0.5)
        return np.clip(share, np.float32(0), np.float32(1))


def _look_up(table: F32, kind: NDArray[np.integer]) -> F32:
    """Colours [4, h, w] of kinds [h, w] from a table [n, 4]."""
    found = np.empty((table.shape[1], *kind.shape), np.float32)
    for column, plane in zip(np.ascontiguousarray(table.T), found, strict=True):
        np.take(column, kind, out=plane, mode="clip")  # "raise" would fill a copy first
    return found


def _wrap(value: F32, period: float) -> F32:
    """value modulo period, in [0, period)."""
    return value - np.float32(period) * np.floor(value * np.float32(1 / period))


def _cell(metres: np.float32) -> int:
    """The first of the two cells around a place whose churches may be nearest."""
    return int(np.floor(metres * np.float32(1 / PARISH_M) - np.float32(0.5)))


def _distance_to_segment(x: float, y: float, road: Road) -> float:
    dx, dy = road.x1_m - road.x0_m, road.y1_m - road.y0_m
    along = max(0.0, min(1.0, ((x - road.x0_m) * dx + (y - road.y0_m) * dy) / (dx * dx + dy * dy)))
    return math.hypot(x - road.x0_m - along * dx, y - road.y0_m - along * dy)
