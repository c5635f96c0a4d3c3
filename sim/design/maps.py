"""The tiles of a scene -> small maps: one square a tile, coloured by kind or by value."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from sim.design.charts import Svg, finite

LEVELS = 7  # classes q0..q6 of the style sheet, weakest first
KINDS = ("coded", "incomplete", "fallback", "withheld", "omitted", "empty", "lost", "refused")
GAP = 0.08  # share of a tile's side left free between tiles


@dataclass(frozen=True)
class Legend:
    """One key of a map's legend: the class that colours it and what it means."""

    css: str
    text: str


@dataclass(frozen=True)
class TileMap:
    title: str
    unit: str
    svg: Svg
    legend: tuple[Legend, ...]


def kind_map(tiles: Sequence[Mapping[str, Any]], rows: int, cols: int) -> TileMap:
    """What became of each tile: colour, and a mark for what did not arrive whole, so that it reads without colour."""
    cells = defaultdict(list)
    for tile in tiles:
        cells[f"kind-{shown_kind(tile)}"].append((tile["col"], tile["row"]))
    drawn = [_squares(css, places) for css, places in cells.items()]
    drawn += [_crosses(cells["kind-lost"]), _strokes(cells["kind-refused"]), _notches(cells["kind-incomplete"])]
    legend = tuple(Legend(f"kind-{k}", f"{k} {len(cells[f'kind-{k}'])}") for k in KINDS if cells[f"kind-{k}"])
    return TileMap("What became of it", "", _map(drawn, rows, cols, "Map of the tiles by what became of them"), legend)


def shown_kind(tile: Mapping[str, Any]) -> str:
    """A tile's kind; a picture that was cut short on the link is `incomplete`."""
    return "incomplete" if tile.get("incomplete") else str(tile["kind"])


def value_map(tiles: Sequence[Mapping[str, Any]], rows: int, cols: int, key: str, title: str, unit: str) -> TileMap:
    """tiles[key] in LEVELS equal steps between its extremes; tiles without a value are outlined."""
    known = [(t["col"], t["row"], float(t[key])) for t in tiles if finite(t.get(key))]
    blank = [(t["col"], t["row"]) for t in tiles if not finite(t.get(key))]
    low, high = (min(v for *_, v in known), max(v for *_, v in known)) if known else (0.0, 0.0)
    cells = defaultdict(list)
    for col, row, value in known:
        level = min(LEVELS - 1, int((value - low) / (high - low) * LEVELS)) if high > low else 0
        cells[f"q{level}"].append((col, row))
    drawn = [_squares(css, places) for css, places in sorted(cells.items())] + [_squares("kind-empty", blank)]
    svg = _map(drawn, rows, cols, f"Map of the tiles by {title.lower()}")
    return TileMap(title, unit, svg, _scale(low, high) if known else (Legend("kind-empty", "no figures"),))


def _map(parts: Iterable[str], rows: int, cols: int, caption: str) -> Svg:
    return Svg(
        f'<svg viewBox="0 0 {cols} {rows}" role="img" aria-label="{escape(caption)}">{"".join(parts)}'
        f'<rect class="cursor" x="0" y="0" width="1" height="1" visibility="hidden"/></svg>'
    )


def _squares(css: str, places: Sequence[tuple[int, int]]) -> str:
    side = 1 - GAP
    path = "".join(f"M{col + GAP / 2:g} {row + GAP / 2:g}h{side:g}v{side:g}h-{side:g}z" for col, row in places)
    return f'<path class="{css}" d="{path}"/>' if places else ""


def _crosses(places: Sequence[tuple[int, int]]) -> str:
    path = "".join(f"M{c + 0.25:g} {r + 0.25:g}l.5 .5M{c + 0.75:g} {r + 0.25:g}l-.5 .5" for c, r in places)
    return f'<path class="mark" d="{path}"/>' if places else ""


def _strokes(places: Sequence[tuple[int, int]]) -> str:
    path = "".join(f"M{c + 0.75:g} {r + 0.25:g}l-.5 .5" for c, r in places)
    return f'<path class="mark" d="{path}"/>' if places else ""


def _notches(places: Sequence[tuple[int, int]]) -> str:
    path = "".join(f"M{c + 0.25:g} {r + 0.72:g}h.5" for c, r in places)
    return f'<path class="mark" d="{path}"/>' if places else ""


def _scale(low: float, high: float) -> tuple[Legend, ...]:
    """A ramp whose ends alone are told: the steps between are equal."""
    if high <= low:
        return (Legend("q0", _short(low)),)
    ends = {0: _short(low), LEVELS - 1: _short(high)}
    return tuple(Legend(f"q{level}", ends.get(level, "")) for level in range(LEVELS))


def _short(value: float) -> str:
    return f"{value / 1000:.1f} k" if abs(value) >= 10_000 else f"{value:.4g}"
