"""What the mission tells the payload: quality, budget, cloud gate, packets. Values only; sim reads the mission file."""

from dataclasses import dataclass, replace
from typing import Literal, get_args

from payload.errors import InputError

#: How the flight codec codes its decisions: by the bundle's tables alone, or by tables that learn along each tile.
Profile = Literal["fast", "dense"]
PROFILES: tuple[Profile, ...] = get_args(Profile)
#: Largest bound there is on the error of a sample, in DN.
MOST_BOUND_DN = 4095


@dataclass(frozen=True)
class Region:
    """A box of the scene that is always kept: rows and columns in pixels of the full scene, ends excluded."""

    top_px: int
    left_px: int
    bottom_px: int
    right_px: int

    def __post_init__(self) -> None:
        if not (0 <= self.top_px < self.bottom_px and 0 <= self.left_px < self.right_px):
            raise InputError(f"{self} is empty; wanted top < bottom and left < right, from 0 on")


@dataclass(frozen=True)
class LonLatRegion:
    """A box on the ground that is always kept, in degrees (WGS 84); turned into pixels once the scene is known.

    Longitudes are -180 to 180 or 0 to 360; west > east is a box across the antimeridian.
    """

    west_deg: float
    south_deg: float
    east_deg: float
    north_deg: float

    def __post_init__(self) -> None:
        edges = -180.0 <= self.west_deg <= 360.0 and -180.0 <= self.east_deg <= 360.0
        across = self.west_deg > self.east_deg and self.east_deg - self.west_deg + 360.0 <= 180.0
        wide = 0.0 < self.east_deg - self.west_deg <= 360.0
        if not (edges and (wide or across) and -90.0 <= self.south_deg < self.north_deg <= 90.0):
            raise InputError(
                f"{self} is no box; wanted west < east in -180 to 360 (or west > east for up to 180 "
                "degrees across the antimeridian) and south < north in +-90"
            )


@dataclass(frozen=True)
class Gate:
    """What happens to cloudy tiles. Percentages are of the tile's valid pixels.

    A tile's cloud percentage is thick cloud plus `thin_counts` times thin cloud. Up to `reduce_above_percent` a tile
    is sent whole, then up to `withhold_above_percent` with at most `reduced_layers` layers, above that withheld.
    None: nothing is sent reduced. `flatten_clouds` takes the detail out of closed cloud in tiles that are sent, to
    save octets for the ground that shows; out of thin cloud only where `thin_counts` is 1. Tiles that touch one of
    `regions` are always sent whole, with every detail. `audit_count` withheld tiles a pass, drawn with `audit_seed`,
    are sent as thumbnails all the same, so that the ground can measure what the gate destroys. The defaults are those
    that keep every left-out site within .5 % of ground lost (docs/clouds.md).
    """

    withhold_above_percent: float = 88.0
    reduce_above_percent: float | None = None
    reduced_layers: int = 2
    thin_counts: float = 1.0
    flatten_clouds: bool = True
    regions: tuple[Region | LonLatRegion, ...] = ()
    audit_count: int = 3
    audit_seed: int = 1

    def __post_init__(self) -> None:
        if not 0.0 <= self.withhold_above_percent <= 100.0:
            raise InputError(f"gate.withhold_above_percent is {self.withhold_above_percent}, wanted 0 to 100")
        reduce = self.reduce_above_percent
        if reduce is not None and not 0.0 <= reduce <= self.withhold_above_percent:
            highest = self.withhold_above_percent
            raise InputError(f"gate.reduce_above_percent is {reduce}, wanted 0 to {highest} (withhold_above_percent)")
        if not 0.0 <= self.thin_counts <= 1.0:
            raise InputError(f"gate.thin_counts is {self.thin_counts}, wanted 0 (thin cloud is ignored) to 1")
        if self.reduced_layers < 1:
            raise InputError(f"gate.reduced_layers is {self.reduced_layers}, wanted at least 1")
        if not 0 <= self.audit_count <= 65535:
            raise InputError(f"gate.audit_count is {self.audit_count}, wanted 0 to 65535")


#: Every tile is sent with every detail.
SENDS_EVERYTHING = Gate(withhold_above_percent=100.0, flatten_clouds=False, audit_count=0)


@dataclass(frozen=True)
class Policy:
    """How tiles are coded and sent.

    `step_dn`: finest quantiser step in DN (constant quality); `psnr_db` instead: every tile at the coarsest step that
    the payload expects to reach that PSNR (peak 10 000). `budget_octets`: for the whole scene, packet headers included;
    None sends every layer. `max_error_dn` instead of all three: no valid sample of a tile that is sent is off by more
    (0: lossless); the gate then withholds, but neither flattens nor reduces. `packet_octets`: longest space packet,
    header and CRC included. `fallback`: rotation and JPEG 2000 instead of the bundle's networks `never`, for scenes
    whose bundle is `broken`, or then and for each tile that they `compare` better on. `register_bands`: bands that
    lie up to 8 px from each other are registered first. `profile` of the entropy
    coder: `dense` takes fewer octets and more time than `fast`.
    """

    step_dn: float = 200.0
    psnr_db: float | None = None
    budget_octets: int | None = None
    packet_octets: int = 1024
    apid: int = 0x2A1
    fallback: Literal["never", "broken", "compare"] = "never"
    gate: Gate = Gate()
    register_bands: bool = False
    max_error_dn: int | None = None
    profile: Profile = "fast"

    def __post_init__(self) -> None:
        if self.max_error_dn is not None:
            self._refuse_with_a_bound(self.max_error_dn)
        if self.profile not in PROFILES:
            raise InputError(f"profile is {str(self.profile)[:40]!r}, wanted fast or dense")
        if self.psnr_db is not None and not 10.0 <= self.psnr_db <= 80.0:
            raise InputError(f"psnr_db is {self.psnr_db}, wanted 10 to 80")
        if not 1.0 <= self.step_dn <= 8192.0:
            raise InputError(f"step_dn is {self.step_dn}, wanted 1 to 8192")
        if self.budget_octets is not None and self.budget_octets < 1:
            raise InputError(f"budget_octets is {self.budget_octets}, wanted 1 or more, or none at all")
        if not 64 <= self.packet_octets <= 65542:
            raise InputError(f"packet_octets is {self.packet_octets}, wanted 64 to 65542")
        if not 0 <= self.apid <= 2043:
            raise InputError(
                f"apid is {self.apid}, wanted 0 to 2043: the streams have it and the three after it, 2047 is idle"
            )

    def _refuse_with_a_bound(self, bound_dn: int) -> None:
        if not 0 <= bound_dn <= MOST_BOUND_DN:
            raise InputError(f"max_error_dn is {bound_dn}, wanted 0 to {MOST_BOUND_DN}")
        for name in ("budget_octets", "psnr_db"):
            if getattr(self, name) is not None:
                raise InputError(f"max_error_dn and {name} are both set; a bound needs every layer: leave one out")

    @property
    def compares(self) -> bool:
        """Whether each tile is coded without the bundle as well; within a bound only the bundle's codec keeps it."""
        return self.fallback == "compare" and self.max_error_dn is None

    @property
    def gate_in_use(self) -> Gate:
        """The gate, which within a bound sends a tile as it is or not at all."""
        if self.max_error_dn is None:
            return self.gate
        return replace(self.gate, flatten_clouds=False, reduce_above_percent=None)


@dataclass(frozen=True)
class Protection:
    """How the payload guards itself against upsets (payload/guard).

    `scrub_octets` of held memory are compared with their copy after every tile. `network_tiles`: after so many tiles
    every network in a runtime has to give a known answer. `self_test`: the known tile at the start and after every
    scene, besides on doubt. `read_back`: every tile is coded twice and decoded. `tile_deadline_s`: a tile that takes
    longer is told; `watchdog_s`: after so long without a tile the process is ended, to be started again. `apid` and
    `housekeeping_tiles`: housekeeping and events go in packets of that APID, after so many tiles.
    """

    scrub_octets: int = 1 << 16
    network_tiles: int = 128
    self_test: bool = True
    read_back: bool = False
    tile_deadline_s: float | None = None
    watchdog_s: float | None = None
    apid: int = 0x2B0
    housekeeping_tiles: int = 256

    def __post_init__(self) -> None:
        for name, value, least, most in (
            ("scrub_octets", self.scrub_octets, 1024, 1 << 30), ("network_tiles", self.network_tiles, 1, 65536),
            ("housekeeping_tiles", self.housekeeping_tiles, 1, 1 << 20), ("apid", self.apid, 0, 2046),
            ("tile_deadline_s", self.tile_deadline_s, 1e-3, 3600), ("watchdog_s", self.watchdog_s, 1e-2, 3600),
        ):  # fmt: skip
            if value is not None and not least <= value <= most:
                raise InputError(f"{name} is {value}, wanted {least} to {most}")
