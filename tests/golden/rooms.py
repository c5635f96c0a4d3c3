"""The picture of the rooms in docs/architecture.md, drawn from the imports: who may know whom, from the top down.

python tests/golden/rooms.py      draws docs/images/rooms.svg anew; look at it before you keep it
"""

from html import escape
from pathlib import Path

import grimp

PACKAGES = ("payload", "sim", "hil", "export", "nadir")
PICTURE = Path(__file__).parents[2] / "docs" / "images" / "rooms.svg"
BOX_W, BOX_H, GAP, TOP = 148, 30, 10, 64
STYLE = """
text { font: 13px system-ui, sans-serif; fill: #1d2733 } .h { font-weight: 600; font-size: 15px } .q { fill: #5b6672; font-size: 12px }
rect { fill: #eef3f7; stroke: #9fb2c1 } .payload { fill: #e3efe6; stroke: #7fae8b } .panel { fill: none; stroke: #c8d2da; stroke-dasharray: 3 3 }
@media (prefers-color-scheme: dark) { text { fill: #dfe6ec } .q { fill: #9aa7b2 } rect { fill: #25323d; stroke: #5c7283 }
.payload { fill: #20382a; stroke: #4f8360 } .panel { fill: none; stroke: #45525d } }
"""  # noqa: E501


def rooms_of(graph: grimp.ImportGraph, package: str) -> dict[str, set[str]]:
    """Room -> the rooms of its own package that it imports from. A room is a module or sub-package right below."""
    rooms = {name.rpartition(".")[2]: name for name in graph.find_children(package)}
    return {
        short: {
            other
            for other, there in rooms.items()
            if other != short and graph.direct_import_exists(importer=room, imported=there, as_packages=True)
        }
        for short, room in rooms.items()
    }


def layers(knows: dict[str, set[str]]) -> list[list[str]]:
    """Rooms by height: those that know none of the others at the bottom. ValueError where rooms know each other."""
    heights: dict[str, int] = {}
    while len(heights) < len(knows):
        ready = [r for r, below in knows.items() if r not in heights and below <= heights.keys()]
        if not ready:
            raise ValueError(f"rooms in a circle: {sorted(knows.keys() - heights.keys())}")
        heights |= {room: 1 + max((heights[b] for b in knows[room]), default=-1) for room in ready}
    tallest = max(heights.values(), default=0)
    return [sorted(r for r, h in heights.items() if h == height) for height in range(tallest, -1, -1)]


def across(graph: grimp.ImportGraph) -> dict[str, list[str]]:
    """Package -> rooms of other packages that it imports from; of payload, which all may know, the name alone."""
    found: dict[str, set[str]] = {package: set() for package in PACKAGES}
    for module in graph.modules:
        package = module.partition(".")[0]
        for imported in graph.find_modules_directly_imported_by(module):
            other = ".".join(imported.split(".")[:2])
            if package in found and other.partition(".")[0] in set(PACKAGES) - {package}:
                found[package].add("payload" if other.startswith("payload") else other)
    return {package: sorted(others) for package, others in found.items()}


def draw() -> str:
    """The picture as SVG text."""
    graph = grimp.build_graph(*PACKAGES)
    others = across(graph)
    parts, x, tallest = [], GAP, 0
    for package in PACKAGES:
        rows = layers(rooms_of(graph, package))
        columns = 1 if package in ("hil", "nadir") else 2
        width = columns * (BOX_W + GAP) + GAP
        y = TOP
        for row in rows:
            for k, room in enumerate(row):
                at_x, at_y = x + GAP + (k % columns) * (BOX_W + GAP), y + (k // columns) * (BOX_H + 6)
                parts.append(
                    f'<rect class="{package}" x="{at_x}" y="{at_y}" width="{BOX_W}" height="{BOX_H}" rx="5"/>'
                    f'<text x="{at_x + BOX_W / 2}" y="{at_y + 20}" text-anchor="middle">{escape(room)}</text>'
                )
            y += -(-len(row) // columns) * (BOX_H + 6) + 12
        known = ", ".join(others[package]) or "nothing of ours"
        parts.append(f'<text class="h" x="{x + GAP}" y="24">{package}/</text>')
        parts += [
            f'<text class="q" x="{x + GAP}" y="{y + 4 + 16 * k}">{"knows " * (k == 0)}{escape(line)}</text>'
            for k, line in enumerate(known.split(", "))
        ]
        bottom = y + 16 * len(known.split(", ")) + 6
        parts.insert(0, f'<rect class="panel" x="{x}" y="36" width="{width}" height="{bottom - 36}" rx="8"/>')
        x, tallest = x + width + GAP, max(tallest, bottom)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {x} {tallest + GAP}" role="img" '
        f'aria-label="Rooms of the five packages, each importing from those below it only">'
        f"<style>{STYLE}</style>{''.join(parts)}</svg>\n"
    )


if __name__ == "__main__":
    PICTURE.write_text(draw(), encoding="utf-8")
