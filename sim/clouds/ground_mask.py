"""What came down -> `cloud.tif`, the mask that a user gets: made by the ground, of the decoded picture.

The mask made on board is never sent, so it cannot be the user's. The ground runs the bundle's own network over what it
decoded; a withheld tile has no pixels, only the word that it was cloud, and gets a class of its own. In a simulation
the mask made on board lies beside it as `cloud-onboard.tif`, and the report compares the two. It also says how much of
what was withheld the ground would have called clear, had it seen the original: only a simulation can know.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from payload.bundle import Bundle
from payload.clouds.gate import detect_clouds
from payload.clouds.mask import NO_CLASS, THICK, THIN, grown
from payload.clouds.network import CloudNet, load_cloud_net
from payload.engine import Engine
from payload.scene import Dn, Mask
from payload.tiles import Tile

#: In `cloud.tif`, after payload.clouds.mask.CLASSES: a tile that was declared cloud and not sent.
WITHHELD = 4
SOURCE = "the bundle's network on the decoded picture"


@dataclass(eq=False)
class GroundMask:
    """The ground's classes strip by strip, and how they compare. `net` None: the bundle has no cloud network."""

    net: CloudNet | None
    growth_px: float
    tile_px: int
    cloud_px: int = 0
    seen_px: int = 0
    agreed_px: int = 0
    withheld_px: int = 0
    withheld_clear_px: int = 0

    def classes(self, dn: Dn, known: Mask, kinds: list[str]) -> NDArray[np.uint8]:
        """Classes of a strip of whole tiles dn [B, T, cols T] of these kinds; NO_CLASS where nothing came down."""
        side = dn.shape[1]
        found = np.full(known.shape, NO_CLASS, np.uint8)
        for col, kind in enumerate(kinds):
            span = slice(col * side, (col + 1) * side)
            if kind == "withheld":
                found[:, span] = WITHHELD
            elif self.net is not None and known[:, span].any():
                found[:, span] = self._judge(dn[:, :, span], known[:, span])
        return found

    def compare(self, classes: NDArray[np.uint8], onboard_percent: NDArray[np.uint8]) -> None:
        """Counts a strip's pixels that were decoded: cloud here, and alike on board. [h, W] each"""
        seen = classes < WITHHELD
        above = 0.5 if self.net is None else self.net.settings.cloudy_above
        onboard_cloud = grown((onboard_percent > 100.0 * above) & (onboard_percent <= 100), self.growth_px)
        cloud = (classes == THICK) | (classes == THIN)
        self.seen_px += int(seen.sum())
        self.cloud_px += int(cloud.sum())
        self.agreed_px += int(((cloud == onboard_cloud) & seen).sum())

    def withheld(self, original: Dn, valid: Mask) -> None:
        """Counts what the ground would have said of a withheld tile, had it seen the original [B, h, w]."""
        if self.net is None:
            return
        height, width = valid.shape
        margins = ((0, self.tile_px - height), (0, self.tile_px - width))
        whole = np.pad(valid, margins)
        cloud = self._judge(np.pad(original, ((0, 0), *margins)), whole)[:height, :width]
        self.withheld_px += int(valid.sum())
        self.withheld_clear_px += int(((cloud != THICK) & (cloud != THIN) & valid).sum())

    def _judge(self, dn: Dn, valid: Mask) -> NDArray[np.uint8]:
        if self.net is None:
            return np.full(valid.shape, NO_CLASS, np.uint8)
        return detect_clouds(Tile(0, 0, np.ascontiguousarray(dn), valid), self.net).classes(self.growth_px)

    def summary(self) -> dict[str, Any]:
        """Plain values for the report; percentages None where nothing was there to count."""
        return {
            "mask_source": SOURCE if self.net is not None else "none: the bundle has no cloud network",
            "ground_cloud_percent": _percent(self.cloud_px, self.seen_px),
            "onboard_agrees_percent": _percent(self.agreed_px, self.seen_px),
            "withheld_clear_to_ground_percent": _percent(self.withheld_clear_px, self.withheld_px),
        }


def open_ground_mask(bundle: Bundle, engine: Engine, gsd_m: float) -> GroundMask:
    if "clouds" not in bundle.manifest:
        return GroundMask(None, 0.0, bundle.tile_px)
    net = load_cloud_net(bundle, engine)
    return GroundMask(net, net.settings.growth_m / gsd_m, bundle.tile_px)


def _percent(part: int, whole: int) -> float | None:
    return round(100.0 * part / whole, 2) if whole else None
