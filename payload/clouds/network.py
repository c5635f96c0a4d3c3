"""The cloud network: loaded from a bundle, its logits turned into probabilities by a table of exponentials."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from payload.bundle import Bundle
from payload.clouds.layered import LayeredNetwork
from payload.clouds.layers import OtherLayersError, layers_of
from payload.clouds.mask import CLASSES, CLEAR, SHADOW, THICK, THIN, Parts
from payload.clouds.planes import CloudSettings, input_planes, plane_count
from payload.engine import NATIVE, Engine, Network, operators_of
from payload.errors import BundleError
from payload.memory import Held, RunsInside
from payload.native import library
from payload.scene import Dn
from payload.tiles import Tile

log = logging.getLogger(__name__)

NETWORK_FILE = "flight/clouds.onnx"
#: What the network and the second witness look at, by role, in this order.
ROLES = ("blue", "green", "red", "nir")
#: No setting is larger; what is cannot even be printed in a line.
MOST = 1e6


@dataclass(frozen=True, eq=False)
class CloudNet:
    """The loaded network with its settings. `places`: of a tile's bands those of ROLES; none: the bands as they are."""

    network: Network
    settings: CloudSettings = field(default_factory=CloudSettings)
    places: tuple[int, ...] = ()

    @cached_property
    def exponentials(self) -> NDArray[np.float32]:
        """exp(-d logit_step / temperature) for d = 0..255 steps below the largest logit, as integers of 2^-20."""
        steps = -np.arange(256) * (self.settings.logit_step / self.settings.temperature)
        return np.round(np.exp(steps) * 2.0**20).astype(np.float32)

    def looked_at(self, dn: Dn) -> Dn:
        """The bands [4, T, T] that the network and the second witness see, of a tile's [B, T, T]."""
        return looked_at(dn, self.places)

    def held(self) -> Iterator[Held]:
        """The table of exponentials, and the network where it does not lie inside a runtime."""
        yield Held("clouds.exponentials", "scales", self.exponentials)
        if isinstance(self.network, LayeredNetwork):
            yield from self.network.held()

    def runs_inside(self, tile: Tile) -> Iterator[RunsInside]:
        """The network where a runtime has it, with `tile` as it goes into it."""
        if isinstance(self.network, LayeredNetwork):
            return
        planes = input_planes(self.looked_at(tile.dn), tile.valid, self.settings)
        if planes is not None:
            yield RunsInside("clouds", self.network, (planes[None],))


def load_cloud_net(bundle: Bundle, engine: Engine) -> CloudNet:
    """The bundle's cloud network for tiles of its size, refused unless every convolution runs in INT8. BundleError if
    the bundle holds none."""
    settings = bundle.manifest.get("clouds")
    if not isinstance(settings, dict):
        raise BundleError(f"bundle {bundle.name}: no cloud network in its manifest; rebuild it or use another bundle")
    read, places = read_settings(settings), places_in(bundle)
    side = bundle.tile_px // read.cell_px
    shape = (1, plane_count(len(places) or len(bundle.bands), read), side, side)
    path = bundle.file(NETWORK_FILE)
    network = layered(path, shape) if engine.name == NATIVE and library.available else None
    return CloudNet(network or engine.load(path, require_int8=True, shape=shape), read, places)


def looked_at(dn: Dn, places: tuple[int, ...]) -> Dn:
    """The bands [4, T, T] at these places of a tile's [B, T, T]; all bands where there are none."""
    return np.ascontiguousarray(dn[list(places)]) if places else dn


def places_in(bundle: Bundle) -> tuple[int, ...]:
    """Where a bundle's bands of ROLES stand; none where it has these alone, in this order, or four without roles."""
    found = bundle.sensor.places(*ROLES)
    if found is None and len(bundle.bands) != len(ROLES):
        bands = ", ".join(bundle.bands)[:80]
        raise BundleError(
            f"bundle {bundle.name}: its cloud network looks at {', '.join(ROLES)}, and not all of {bands} have these "
            "roles; give the sensor's bands their roles, or rebuild the bundle without the network"
        )
    return () if found is None or bundle.sensor.only(found).names == bundle.bands else found


def layered(path: Path, shape: tuple[int, ...]) -> LayeredNetwork | None:
    """The network as the kernel runs it, the same logits; None where it has layers that the kernel does not know."""
    try:
        return LayeredNetwork(layers_of(operators_of(path)), shape)
    except (OtherLayersError, ArithmeticError, LookupError, TypeError, ValueError) as error:
        log.info("%s: left to the runtime, because the kernel has no layer for %s", path.name, error)
        return None


def read_settings(table: dict[str, Any]) -> CloudSettings:
    """manifest["clouds"] -> settings; keys that describe the network's origin are left alone."""
    return CloudSettings(**{key: _typed(key, table[key]) for key in CloudSettings.__dataclass_fields__ if key in table})


def _typed(key: str, value: Any) -> Any:
    """A setting of its default's type, no monster; a whole number does for a float."""
    wanted = type(getattr(CloudSettings, key))
    known = isinstance(value, (bool, int, float)) and (type(value) is wanted or (wanted, type(value)) == (float, int))
    if known and -MOST < value < MOST:
        return value
    raise BundleError(f"manifest key clouds.{key} is {str(value)[:60]!r}, wanted {wanted.__name__}; rebuild the bundle")


def probabilities(logits: NDArray[np.int8], net: CloudNet, size: int) -> Parts:
    """Softmax over classes by table. Logits [4 s s, h, w], class-major -> [4, s, s, h, w]; sums are exact."""
    shape = parts_shape(logits, net, size)
    steps = logits.reshape(len(CLASSES), -1)
    below = steps.max(axis=0).view(np.uint8) - steps.view(np.uint8)  # 0..255: the wrap-around undoes itself
    weight = np.take(net.exponentials, below)  # [4, s s h w]
    weight /= weight[CLEAR] + weight[THICK] + weight[THIN] + weight[SHADOW]
    return weight.reshape(shape)


def parts_shape(logits: NDArray[np.int8], net: CloudNet, size: int) -> tuple[int, ...]:
    """[4, s, s, h, w] of the logits [4 s s, h, w] of a tile of size x size pixels; BundleError if they are no such."""
    if logits.ndim != 3 or logits.size == 0:
        raise BundleError(f"the cloud network gives {list(logits.shape)}, wanted 3 axes; rebuild the bundle")
    classes, (h, w) = len(CLASSES), logits.shape[1:]
    s = size // net.settings.cell_px // h
    if logits.shape[0] != classes * s * s or logits.dtype != np.int8:
        found = f"{logits.dtype} {logits.shape}"
        raise BundleError(f"the cloud network gives {found}, wanted int8 [{classes * s * s}, h, w]; rebuild the bundle")
    return classes, s, s, h, w
