"""The applications there are, by the names that missions use: entry points of group `nadir.apps`, and networks that
the bundle itself holds. Where no package is installed (a zip file on a board) the shipped ones are found all the same.
"""

from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points

from payload.apps.interface import App
from payload.apps.network_app import open_network_app
from payload.apps.settings import AppSettings
from payload.bundle import Bundle
from payload.engine import Engine
from payload.errors import InputError

GROUP = "nadir.apps"
#: As registered in pyproject.toml (a test holds the two together).
SHIPPED = {
    "water": "payload.apps.index_app:water",
    "burned": "payload.apps.index_app:burned",
    "index": "payload.apps.index_app:index",
    "vegetation": "payload.apps.vegetation:VegetationDrop",
    "vessels": "payload.apps.vessels:VesselCandidates",
}
MakeApp = Callable[[AppSettings, Bundle, Engine | None], App]


def open_app(name: str, settings: AppSettings, bundle: Bundle, engine: Engine | None) -> App:
    """The application registered as `name`, or the bundle's network of that name. InputError where there is none."""
    if name in bundle.manifest.get("apps", {}):
        return open_network_app(settings, name, bundle, engine)
    return _maker(name, bundle)(settings, bundle, engine)


def _maker(name: str, bundle: Bundle) -> MakeApp:
    registered = entry_points(group=GROUP)
    found = {point.value: point for point in registered if point.name == name}
    if not found and name in SHIPPED:
        found = {SHIPPED[name]: EntryPoint(name, SHIPPED[name], GROUP)}
    if not found:
        known = sorted({*SHIPPED, *(point.name for point in registered), *bundle.manifest.get("apps", {})})
        raise InputError(
            f"app {name[:60]!r} is unknown, wanted one of {', '.join(known)}; install the package that registers it, "
            "or build a bundle that holds it"
        )
    if len(found) > 1:
        raise InputError(f"app {name!r} is registered {len(found)} times ({' and '.join(sorted(found))}); keep one")
    (point,) = found.values()
    try:
        maker: MakeApp = point.load()
    except (ImportError, AttributeError) as error:
        found_as = f"app {name!r} is registered as {point.value}"
        raise InputError(f"{found_as}, which does not load ({error}); install its package again") from None
    return maker
