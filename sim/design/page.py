"""A template and what it shows -> the text of one HTML page that needs nothing else. docs/development.md says how.

Every page of Nadir extends `frame.html`: one style sheet, one set of charts, one way to show a table. This room knows
no other of this repository, so that the ground and the bench can both use it.
"""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import FileSystemLoader, StrictUndefined
from jinja2.sandbox import SandboxedEnvironment

from sim.design import figures
from sim.design.names import bands, plain_rows, requirement

TEMPLATES = Path(__file__).parent / "templates"
FILTERS = {
    "figure": figures.figure, "percent": figures.percent, "at_most": figures.at_most, "octets": figures.octets,
    "fixed": figures.fixed, "signed": figures.signed, "requirement": requirement, "plain_rows": plain_rows,
    "band_names": bands,
}  # fmt: skip


def render(template: Path, context: Mapping[str, Any]) -> str:
    """The page's text. `template` extends "frame.html"; what it names and the context lacks is an error."""
    return _environment(template.parent).get_template(template.name).render(**context)


def compile_page(template: Path) -> None:
    """What the first page of a template would wait for: itself, its frame and its parts."""
    for name in (template.name, "frame.html", "parts.html"):
        _environment(template.parent).get_template(name)


@cache
def _environment(folder: Path) -> SandboxedEnvironment:
    """Of the templates in a folder; compiled once. Sandboxed, as a bulletin's template may be somebody else's."""
    environment = SandboxedEnvironment(
        loader=FileSystemLoader([folder, TEMPLATES]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(FILTERS)
    return environment
