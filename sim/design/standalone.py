"""An inline drawing -> an SVG file of its own: with the style sheet's colours inside, for light and dark."""

import re

from sim.design.charts import Svg
from sim.design.page import TEMPLATES

#: The parts of the style sheet that colour drawings; the rest is of pages.
RULES = re.compile(r"^(?:\.chart|\.world|\.s\d|\.q\d|\.kind-).*$", re.MULTILINE)


def standalone(drawing: Svg) -> str:
    """The text of an SVG file that looks as the drawing does on a page, and needs nothing else."""
    sheet = (TEMPLATES / "style.css").read_text(encoding="utf-8")
    colours = sheet[: sheet.index("* { box-sizing")]
    font = "svg { background: var(--paper); font-family: system-ui, sans-serif; }"
    style = f"<style>{colours}{font}\n{chr(10).join(RULES.findall(sheet))}</style>"
    head = drawing.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)
    return head.replace(">", f">{style}", 1) + "\n"
