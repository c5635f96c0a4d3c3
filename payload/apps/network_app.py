"""An application that is a network of the bundle: INT8, scales powers of two, the same answer on every runtime.

It takes planes as the cloud network does (payload/clouds/planes.py) and gives logits int8 [1, K, h, w]; the class of a
cell is that of its largest logit, of equals the first. The value is the share of a place's clear pixels that are of the
class `counts`.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from payload.apps.interface import FIRST_OWN_INDICATOR, Finding, Indicator, Need, View
from payload.apps.settings import AppSettings
from payload.bundle import Bundle
from payload.clouds.planes import CloudSettings, input_planes, plane_count
from payload.engine import Engine
from payload.errors import BundleError, InputError
from payload.link.app_record import PARTS
from payload.memory import RunsInside
from payload.tiles import Tile


def network_file(name: str) -> str:
    """Where the network of application `name` lies in a bundle."""
    return f"flight/apps/{name}.onnx"


class NetworkApp:
    """The application `name` of a bundle's manifest: {"apps": {name: {"counts": 1, "cell_px": 2, ...}}}."""

    needs: frozenset[Need] = frozenset({"mask"})

    def __init__(self, name: str, bundle: Bundle, engine: Engine) -> None:
        table, file = _table(name, bundle), network_file(name)
        cell_px = _whole(table, name, "cell_px", 2, 2, 4)
        self.name, self.counts = name, _whole(table, name, "counts", 1, 0, 255)
        self._planes = CloudSettings(cell_px=cell_px, stride_px=cell_px)
        self._side = bundle.tile_px // cell_px
        shape = (1, plane_count(len(bundle.bands), self._planes), self._side, self._side)
        self._network = engine.load(bundle.file(file), require_int8=True, shape=shape)
        cost = bundle.manifest.get("networks", {}).get(file, {})
        self.macs_per_px = float(cost.get("macs_per_px", 0.0))
        self.memory_octets = int(cost.get("peak_activation_octets", 0)) + int(cost.get("weight_octets", 0))
        number = _whole(table, name, "indicator", FIRST_OWN_INDICATOR, FIRST_OWN_INDICATOR, 255)
        self.indicator = Indicator(number, str(table.get("title", name))[:100], "share of the clear pixels")
        self.default_threshold = 0.5
        self.identity = f"{bundle.manifest['files'][file]} {self.counts} {cell_px}"

    def look(self, view: View) -> Sequence[Finding]:
        found, clear = self._of_tile(view)[view.window], view.clear
        return [Finding((int(np.count_nonzero(found & clear)),), int(np.count_nonzero(clear)))]

    def value(self, counts: tuple[int, ...], seen: int, ndvi: float | None) -> int:
        return PARTS * counts[0] // seen

    def runs_inside(self, tile: Tile) -> Iterator[RunsInside]:
        """The network, with `tile` as it goes into it: for the guard."""
        planes = input_planes(tile.dn, tile.valid, self._planes)
        if planes is not None:
            yield RunsInside(f"apps.{self.name}", self._network, (planes[None],))

    def _of_tile(self, view: View) -> NDArray[np.bool_]:
        """Pixels of the class, of the whole tile: the network runs once, however many places lie in it. [T, T]"""
        key = "network", self.name
        if key not in view.whole.kept:
            tile = view.whole.tile
            view.meter.charge(self.macs_per_px * tile.valid.size, self.memory_octets)
            planes = input_planes(tile.dn, tile.valid, self._planes)
            view.whole.kept[key] = self._classes(planes, tile.valid.shape) == self.counts
        found: NDArray[np.bool_] = view.whole.kept[key]
        return found

    def _classes(self, planes: NDArray[np.uint8] | None, shape: tuple[int, ...]) -> NDArray[Any]:
        """The class of every pixel; of a tile that shows one single value, none."""
        if planes is None:
            return np.full(shape, -1)
        (logits,) = self._network.run(planes[None])
        if logits.dtype != np.int8 or logits.ndim != 4 or logits.shape[2] != logits.shape[3]:
            raise BundleError(f"app {self.name}: its network gives {logits.dtype} {list(logits.shape)}, wanted int8 "
                              "[1, classes, h, h]; build the bundle again with a network that does")  # fmt: skip
        cell = shape[0] // logits.shape[2]
        return logits[0].argmax(axis=0).repeat(cell, axis=0).repeat(cell, axis=1)


def _table(name: str, bundle: Bundle) -> dict[str, Any]:
    table = bundle.manifest.get("apps", {}).get(name)
    if not isinstance(table, dict):
        raise BundleError(f"bundle {bundle.name}: no app {name} in its manifest; rebuild it with --app")
    return table


def _whole(table: dict[str, Any], name: str, key: str, default: int, low: int, high: int) -> int:
    found = table.get(key, default)
    if isinstance(found, bool) or not isinstance(found, int) or not low <= found <= high:
        raise BundleError(f"manifest key apps.{name}.{key} is {str(found)[:60]!r}, wanted {low} to {high}; rebuild it")
    return found


def open_network_app(settings: AppSettings, name: str, bundle: Bundle, engine: Engine | None) -> NetworkApp:
    """The application of a network that the bundle holds."""
    if settings.formula is not None:
        raise InputError(f'app {name} is a network of the bundle; take formula out, or app = "index"')
    if engine is None:
        raise InputError(f"app {name} is a network, and there is no engine to run it")
    return NetworkApp(name, bundle, engine)
