"""What came down -> `cloud.tif`, the mask that a user gets: made by the ground, of the decoded picture.

The mask made on board is never sent, so it cannot be the user's. The ground runs a network over what it decoded: the
bundle's own for the ground, where it has none the one that flies, or a large public one (`DRAWN_BY`); a withheld tile
has no pixels, only the word that it was cloud, and gets a class of its own. In a simulation the mask made on board lies
beside it as `cloud-onboard.tif`, and the report compares the two. It also says how much of what was withheld the ground
would have called clear, had it seen the original: only a simulation can know.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from payload.bundle import Bundle
from payload.clouds.gate import detect_clouds
from payload.clouds.mask import CLEAR, NO_CLASS, SHADOW, THICK, grown
from payload.clouds.network import ROLES, CloudNet, load_cloud_net, looked_at
from payload.engine import Engine
from payload.errors import InputError
from payload.scene import Dn, Mask
from payload.tiles import Tile
from sim.clouds.other_detectors import CS_CLEAR, CS_SHADOW, csmask_is_there, csmask_outline, csmask_probabilities
from sim.clouds.outline import classes_as_drawn, ground_classes, is_cloud
from sim.ground.cloud_net import GroundNet, open_ground_net
from sim.spread import OneAtATime, Spread

#: In `cloud.tif`, after payload.clouds.mask.CLASSES: a tile that was declared cloud and not sent.
WITHHELD = 4
SOURCE = "the bundle's network on the decoded picture"
GROUND_SOURCE = "the bundle's ground network on the decoded picture"
NO_SOURCE = "none: the bundle has no cloud network"
#: Whose network draws the mask, and the level of the picture that it was made for; the bundle's asks for none.
BUNDLES_OWN = "bundle"
DRAWN_BY = {BUNDLES_OWN: None, "ukis-csmask": "L2A", "ukis-csmask-l1c": "L1C"}


@dataclass(frozen=True, eq=False)
class GroundMask:
    """The ground's classes. `net`: the bundle's that flies, None where it has none. `own`: the bundle's for the ground,
    which draws in its place. `level` not None: the network of ukis-csmask for pictures of that level draws in place of
    both. Where none is there, every pixel that came down is NO_CLASS."""

    net: CloudNet | None
    tile_px: int
    level: str | None = None
    places: tuple[int, ...] = ()  # of the bands that ukis-csmask looks at; none: the bands as they are
    own: GroundNet | None = None

    @property
    def source(self) -> str:
        if self.level is not None:
            return f"ukis-csmask ({self.level}) on the decoded picture"
        if self.own is not None:
            return GROUND_SOURCE
        return SOURCE if self.net is not None else NO_SOURCE

    def classes(
        self, dn: Dn, known: Mask, withheld: Sequence[bool], gsd_m: float, spread: Spread
    ) -> Callable[[], NDArray[np.uint8]]:
        """Begins with the classes of a strip of whole tiles dn [B, T, cols T], some of them withheld; gsd_m 0: unknown.
        What is given back waits for them."""
        spans = [slice(col * self.tile_px, (col + 1) * self.tile_px) for col in range(len(withheld))]
        tiles = [(dn[:, :, span], known[:, span], gone, gsd_m) for span, gone in zip(spans, withheld, strict=True)]
        found = spread.map(lambda tile: self._of_tile(*tile), tiles)
        return lambda: np.concatenate(list(found), axis=1)

    def _of_tile(self, dn: Dn, known: Mask, gone: bool, gsd_m: float) -> NDArray[np.uint8]:
        if gone or not known.any():
            return np.full(known.shape, WITHHELD if gone else NO_CLASS, np.uint8)
        return self.judge(dn, known, gsd_m)

    def judge(self, dn: Dn, valid: Mask, gsd_m: float) -> NDArray[np.uint8]:
        """Classes of one tile, or of what there is of one at the scene's edge [h, w]."""
        if self.level is not None:
            seen = looked_at(dn, self.places)
            return np.where(valid, _by_csmask(seen, self.level, gsd_m), np.uint8(NO_CLASS))
        if self.own is not None:
            told = self.own.probabilities(dn, valid, gsd_m)
            return ground_classes(told, looked_at(dn, self.own.places), valid, gsd_m)
        if self.net is None:
            return np.full(valid.shape, NO_CLASS, np.uint8)
        height, width = valid.shape
        margins = ((0, self.tile_px - height), (0, self.tile_px - width))
        tile = Tile(0, 0, np.pad(dn, ((0, 0), *margins)), np.pad(valid, margins))
        mask = detect_clouds(tile, self.net)
        return classes_as_drawn(mask, gsd_m, self.net.settings.growth_m)[:height, :width]


def _by_csmask(dn: Dn, level: str, gsd_m: float) -> NDArray[np.uint8]:
    """Classes by ukis-csmask with people's outline; it tells no thin cloud. [4, h, w] -> [h, w]"""
    told = csmask_probabilities(dn, level)
    ground = np.where(told[CS_SHADOW] > told[CS_CLEAR], np.uint8(SHADOW), np.uint8(CLEAR))
    return np.where(csmask_outline(told, gsd_m), np.uint8(THICK), ground)


def _pixels(metres: float, gsd_m: float) -> float:
    return metres / gsd_m if gsd_m > 0.0 else 0.0


def open_ground_mask(bundle: Bundle, engine: Engine, drawn_by: str = BUNDLES_OWN) -> GroundMask:
    """The mask by a network of DRAWN_BY. InputError where that is not known, not installed, or takes other bands."""
    if drawn_by not in DRAWN_BY:
        raise InputError(f"--cloud-mask {drawn_by}: no such network; wanted one of {', '.join(DRAWN_BY)}")
    level = DRAWN_BY[drawn_by]
    if level is not None and not csmask_is_there():
        raise InputError(f"--cloud-mask {drawn_by}: not installed; pip install ukis-csmask==1.0.0")
    places = bundle.sensor.places(*ROLES)
    if level is not None and places is None:
        found = f"it takes {', '.join(ROLES)}, and the bundle {bundle.name} has {', '.join(bundle.bands)[:200]}"
        raise InputError(f"--cloud-mask {drawn_by}: {found}; leave the option out")
    net = load_cloud_net(bundle, engine) if "clouds" in bundle.manifest else None
    net = net and replace(net, network=OneAtATime(net.network))
    return GroundMask(net, bundle.tile_px, level, places or (), open_ground_net(bundle, engine))


@dataclass(eq=False)
class MaskTally:
    """The ground's mask beside the payload's, in pixels."""

    mask: GroundMask
    cloud_px: int = 0
    seen_px: int = 0
    agreed_px: int = 0
    withheld_px: int = 0
    withheld_clear_px: int = 0

    def compare(self, classes: NDArray[np.uint8], onboard_percent: NDArray[np.uint8], gsd_m: float) -> None:
        """Counts a strip's pixels that were decoded: cloud here, and alike on board. [h, W] each"""
        if self.mask.net is None:
            return
        settings = self.mask.net.settings
        seen, cloud = classes < WITHHELD, is_cloud(classes)
        said = (onboard_percent > 100.0 * settings.cloudy_above) & (onboard_percent <= 100)
        onboard = grown(said, _pixels(settings.growth_m, gsd_m))
        self.seen_px += int(seen.sum())
        self.cloud_px += int(cloud.sum())
        self.agreed_px += int(((cloud == onboard) & seen).sum())

    def withheld(self, original: Dn, valid: Mask, gsd_m: float) -> None:
        """Counts what the ground would have said of a withheld tile, had it seen the original [B, h, w]."""
        if self.mask.net is None:
            return
        classes = self.mask.judge(original, valid, gsd_m)
        self.withheld_px += int(valid.sum())
        self.withheld_clear_px += int((~is_cloud(classes) & valid).sum())

    def summary(self) -> dict[str, Any]:
        """Plain values for the report; percentages None where nothing was there to count."""
        return {
            "mask_source": self.mask.source,
            "ground_cloud_percent": _percent(self.cloud_px, self.seen_px),
            "onboard_agrees_percent": _percent(self.agreed_px, self.seen_px),
            "withheld_clear_to_ground_percent": _percent(self.withheld_clear_px, self.withheld_px),
        }


def _percent(part: int, whole: int) -> float | None:
    return round(100.0 * part / whole, 2) if whole else None
