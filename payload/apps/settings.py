"""What the mission tells the payload about its applications. Values only; sim reads the mission file."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from payload.errors import InputError
from payload.policy import LonLatRegion, Region

#: Records of one scene that a budget may allow, all copies apart: their count has 16 bits.
MOST_RECORDS = 4096


@dataclass(frozen=True)
class Site:
    """A place that applications answer for: a box on the ground or in the scene. `ndvi`: what its vegetation index is
    when all is well, for the application that looks for a drop of it."""

    name: str
    area: Region | LonLatRegion
    ndvi: float | None = None

    def __post_init__(self) -> None:
        if not self.name or not self.name.isprintable() or len(self.name) > 200:
            raise InputError(f"site name {self.name[:60]!r}, wanted 1 to 200 printable characters")
        if self.ndvi is not None and not -1.0 <= self.ndvi <= 1.0:
            raise InputError(f"ndvi of site {self.name} is {self.ndvi}, wanted -1 to 1")


@dataclass(frozen=True)
class AppSettings:
    """One application of a mission.

    `app`: what it is registered as, where that is not the name of its table. `threshold`: of its indicator, the
    application's own where it is left out. `sites`: names of those it answers for; none: all of the mission, and where
    that has none every tile by itself. `withheld`: it looks at tiles, too, that the cloud gate withholds. `formula`:
    for the application `index`. `least_seen_percent`: of a place that must be seen for an answer. The rest is its
    budget: operations a pixel, memory, records a scene, and time a tile (None: nothing depends on a clock).
    """

    app: str | None = None
    threshold: float | None = None
    sites: tuple[str, ...] = ()
    withheld: bool = False
    formula: str | None = None
    least_seen_percent: int = 25
    macs_per_px: float = 1000.0
    memory_mib: float = 32.0
    records: int = 64
    tile_deadline_s: float | None = None

    def __post_init__(self) -> None:
        for name, value, least, most in (
            ("threshold", self.threshold, -1e5, 1e5), ("least_seen_percent", self.least_seen_percent, 0, 100),
            ("macs_per_px", self.macs_per_px, 0, 1e9), ("memory_mib", self.memory_mib, 0, 1e6),
            ("records", self.records, 1, MOST_RECORDS), ("tile_deadline_s", self.tile_deadline_s, 1e-4, 3600),
        ):  # fmt: skip
            if value is not None and not least <= value <= most:
                raise InputError(f"{name} is {value}, wanted {least} to {most}")


@dataclass(frozen=True)
class Alerts:
    """How records go down: all of them first, and again, `copies` times in all. A copy comes `spacing_octets` of other
    records after the one before, or earlier in a scene that has too few for it, so that no single fade takes two."""

    copies: int = 6
    spacing_octets: int = 32768

    def __post_init__(self) -> None:
        if not 1 <= self.copies <= 64:
            raise InputError(f"copies is {self.copies}, wanted 1 to 64")
        if not 0 <= self.spacing_octets <= 1 << 30:
            raise InputError(f"spacing_octets is {self.spacing_octets}, wanted 0 to {1 << 30}")


@dataclass(frozen=True)
class PlacedSite:
    """A site in pixels of one scene. `number`: its place in the mission's list."""

    number: int
    name: str
    box: Region
    ndvi: float | None = None


#: Longitude and latitude of the scene's corners in parts of a degree (payload.link.app_record): top left, top right,
#: bottom left, bottom right.
Corners = tuple[tuple[int, int], tuple[int, int], tuple[int, int], tuple[int, int]]


@dataclass(frozen=True)
class AppPlan:
    """What goes up for a scene: applications by name, the sites that it shows, its corners, how records go down."""

    apps: Mapping[str, AppSettings]
    sites: tuple[PlacedSite, ...] = ()
    corners: Corners | None = None
    alerts: Alerts = field(default_factory=Alerts)
    mission_has_sites: bool = False  # whether or not this scene shows any

    def sites_of(self, settings: AppSettings) -> tuple[PlacedSite, ...]:
        """The sites of this scene that an application answers for."""
        return tuple(site for site in self.sites if not settings.sites or site.name in settings.sites)
