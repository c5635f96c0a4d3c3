"""What the applications of a payload found in one scene so far; from it, records once the scene is through.

Kept by tile, so that a tile that the guard has coded again takes the place of what it was before.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from payload.apps.interface import Finding
from payload.apps.settings import Corners
from payload.link.app_record import Cause
from payload.link.scene_header import SceneHeader
from payload.policy import Region

Address = tuple[int, int]


@dataclass(frozen=True)
class Placed:
    """A finding in the scene. `place`: number of the place among those of its application; None: a target, or the tile.
    `box`: top, left, height, width in pixels of the scene."""

    place: int | None
    finding: Finding
    box: tuple[int, int, int, int]


@dataclass(frozen=True)
class CutOff:
    """Why and at which tile an application was stopped."""

    cause: Cause
    tile: Address
    words: str


@dataclass(eq=False)
class Collected:
    """Of the scene of `header`. `findings`: by application and tile."""

    header: SceneHeader
    corners: Corners | None = None
    findings: dict[str, dict[Address, Sequence[Placed]]] = field(default_factory=dict)
    cut_off: dict[str, CutOff] = field(default_factory=dict)
    withheld: set[Address] = field(default_factory=set)
    macs: Counter[str] = field(default_factory=Counter)  # spent, by application
    looked_px: Counter[str] = field(default_factory=Counter)

    def of(self, name: str) -> Iterator[Placed]:
        """Everything that an application found, tile by tile in row order."""
        found = self.findings.get(name, {})
        return (placed for address in sorted(found) for placed in found[address])

    def hides(self, box: tuple[int, int, int, int]) -> bool:
        """Whether a tile that the box touches is withheld."""
        return any(overlap(region_of(address, self.header.tile_px), box) for address in self.withheld)

    def place_of(self, box: tuple[int, int, int, int]) -> tuple[int, int] | None:
        """Longitude and latitude of a box's centre, between the scene's corners linear, in whole numbers."""
        if self.corners is None:
            return None
        info = self.header.info
        down, right = 2 * box[0] + box[2], 2 * box[1] + box[3]
        height, width = 2 * info.height_px, 2 * info.width_px
        top_left, top_right, bottom_left, bottom_right = self.corners
        longitude, latitude = (
            ((a * (width - right) + b * right) * (height - down) + (c * (width - right) + d * right) * down)
            // (height * width)
            for a, b, c, d in zip(top_left, top_right, bottom_left, bottom_right, strict=True)
        )
        return longitude, latitude


def region_of(tile: Address, size: int) -> Region:
    """The pixels of a tile."""
    row, col = tile
    return Region(row * size, col * size, (row + 1) * size, (col + 1) * size)


def overlap(region: Region, box: tuple[int, int, int, int]) -> tuple[int, int, int, int] | None:
    """The part of a box (top, left, height, width) that lies in a region; None where they do not meet."""
    top, left = max(region.top_px, box[0]), max(region.left_px, box[1])
    bottom, right = min(region.bottom_px, box[0] + box[2]), min(region.right_px, box[1] + box[3])
    return (top, left, bottom - top, right - left) if top < bottom and left < right else None
