"""The mission as data: imager, orbit, stations, link, device, budgets, requirements, and the policy for the payload.

A mission is a TOML file, one of `sim/missions/` by name or any file by path. Every key is a field of a dataclass here
or next to the code that uses it; `sim/toml_tables.py` names every mistake.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any

from hil.devices.states import States
from payload.apps.settings import Alerts, AppSettings, Site
from payload.bundle import Bundle
from payload.errors import InputError
from payload.link.pass_filling import PassOrder
from payload.link.streams import apids_of
from payload.policy import Policy, Protection
from payload.sensor import SENTINEL2_RGBN, Sensor
from sim.delivery.spec import Delivery
from sim.ground.arriving_files import FILE_APIDS
from sim.link.link import Link
from sim.link.link_budget import Radio
from sim.link.orbit import Orbit, Station, ground_speed_m_s
from sim.metrics.catalogue import REQUIREMENTS
from sim.mission import SHIPPED
from sim.mission.devices import is_profile_file, load_device
from sim.mission.power import Power
from sim.scenes.imager.band_shift import MOST_PX
from sim.scenes.imager.sensor_files import load_sensor
from sim.toml_tables import check_range, from_table, nearest, read_toml

DEFAULT = "phisat2"
MOST_APPS, MOST_SITES = 16, 10_000


@dataclass(frozen=True)
class Imager:
    """A push-broom imager: one line of `swath_px` pixels per ground sample distance flown.

    `sensor` (docs/sensors.md) is a shipped one or a file. Where it is named, a bundle of another one is refused, and
    `bands` and `bits` are the sensor's.
    """

    swath_px: int
    gsd_m: float
    bands: int = len(SENTINEL2_RGBN.bands)  # those the payload uses
    bits: int = SENTINEL2_RGBN.bits
    sensor: str | None = None
    band_shift_px: int = 0  # how far its bands lie from each other

    def __post_init__(self) -> None:
        check_range("swath_px", self.swath_px, 1, 1_000_000)
        check_range("gsd_m", self.gsd_m, 0.1, 10_000)
        check_range("bands", self.bands, 1, 1000)
        check_range("bits", self.bits, 1, 16)
        check_range("band_shift_px", self.band_shift_px, 0, MOST_PX)
        if self.sensor is not None:
            self._take_from(self.takes)

    @cached_property
    def takes(self) -> Sensor:
        """The sensor it is; the four bands of Sentinel-2 where it names none."""
        return SENTINEL2_RGBN if self.sensor is None else load_sensor(self.sensor)

    def _take_from(self, sensor: Sensor) -> None:
        """`bands` and `bits` of the sensor. InputError where the mission states others."""
        usual = {field.name: field.default for field in fields(self)}
        for name, own in (("bands", len(sensor.bands)), ("bits", sensor.bits)):
            if getattr(self, name) not in (own, usual[name]):
                raise InputError(
                    f"{name} is {getattr(self, name)}, sensor {sensor.name} has {own}; leave {name} out, or name the "
                    "sensor that has as many"
                )
            object.__setattr__(self, name, own)

    def line_rate_hz(self, orbit: Orbit) -> float:
        return ground_speed_m_s(orbit) / self.gsd_m

    def rate_px_s(self, orbit: Orbit) -> float:
        """Pixels (of all bands) that the imager delivers in a second while it images."""
        return self.swath_px * self.line_rate_hz(orbit)


@dataclass(frozen=True)
class Budgets:
    """What the satellite gives the payload. A budget that is left out is not judged.

    `imaging_s_per_orbit` and `passes_per_orbit` (a long-run mean) scale a scene to an orbit. `raw_store_mib` is what
    holds the lines that the imager has taken and the payload has not coded yet; it is apart from `memory_mib`, the
    payload's own. `coded_store_mib`: what holds tile codes until they are acknowledged; the planner alone asks for it.
    `realtime_factor`: the least share of the imager's rate at which the payload code must run on the machine that
    simulates it.
    """

    memory_mib: float | None = None
    raw_store_mib: float | None = None
    coded_store_mib: float | None = None
    power_w: float | None = None
    energy_per_orbit_j: float | None = None
    imaging_s_per_orbit: float | None = None
    passes_per_orbit: float | None = None
    realtime_factor: float | None = None

    def __post_init__(self) -> None:
        check_range("memory_mib", self.memory_mib, 1, 1e7)
        check_range("raw_store_mib", self.raw_store_mib, 0, 1e9)
        check_range("coded_store_mib", self.coded_store_mib, 0, 1e9)
        if self.raw_store_mib is not None and self.imaging_s_per_orbit is None:
            raise InputError("raw_store_mib is set without imaging_s_per_orbit; add how long the imager works an orbit")
        check_range("power_w", self.power_w, 1e-3, 1e5)
        check_range("energy_per_orbit_j", self.energy_per_orbit_j, 1e-3, 1e9)
        check_range("imaging_s_per_orbit", self.imaging_s_per_orbit, 0, 86400)
        check_range("passes_per_orbit", self.passes_per_orbit, 0, 100)
        check_range("realtime_factor", self.realtime_factor, 1e-6, 1e6)


@dataclass(frozen=True)
class Requirements:
    """Limits on figures of a run, by the names in sim/metrics/catalogue.py. One left out is not judged.

    PSNR has peak 10 000 (or 65 535); `cr16` counts 16 bit a sample against every octet downlinked; `lost_fraction` is
    tiles lost or refused over tiles sent, `incomplete_fraction` those of them that were cut short on the link;
    `psnr_10k_worst_db` is the worst tile's. `false_discard_fraction`: of the withheld tiles that were audited, those
    that were not found cloudy; 0 where nothing was withheld, not judged where nothing withheld was audited.
    """

    min_psnr_10k_db: float | None = None
    min_psnr_65k_db: float | None = None
    min_psnr_10k_worst_db: float | None = None
    min_ssim_10k: float | None = None
    min_ssim_own: float | None = None
    max_rmse_reflectance: float | None = None
    max_error_reflectance: float | None = None
    max_ndvi_mae: float | None = None
    max_sam_deg: float | None = None
    max_sam_p95_deg: float | None = None
    max_vv_vh_mae_db: float | None = None
    min_cr16: float | None = None
    min_cr_sensor: float | None = None
    max_bpp: float | None = None
    max_lost_fraction: float | None = None
    max_incomplete_fraction: float | None = None
    max_withheld_fraction: float | None = None
    max_false_discard_fraction: float | None = None

    def __post_init__(self) -> None:
        for name, metric in REQUIREMENTS.items():
            check_range(name, getattr(self, name), 0, metric.most)


@dataclass(frozen=True)
class Mission:
    """Everything about a mission that a run needs."""

    name: str
    title: str
    imager: Imager
    orbit: Orbit
    link: Link
    device: str  # a profile of sim/mission/devices.py, or the path of a profile.json of the bench
    radio: Radio | None = None  # with it, the rate follows the link along each pass
    states: States | None = None  # of the payload, when it does not work
    power: Power | None = None  # with it, energy constrains the planner
    stations: tuple[Station, ...] = ()
    budgets: Budgets = Budgets()
    requirements: Requirements = Requirements()
    policy: Policy = field(default_factory=Policy)
    pass_order: PassOrder = "coarse-first"  # in which layers fill a pass
    protection: Protection | None = None  # against upsets; None: no guard
    delivery: Delivery = field(default_factory=Delivery)
    apps: Mapping[str, AppSettings] = field(default_factory=dict, hash=False)  # on board, by the mission's names
    sites: tuple[Site, ...] = ()  # places that they answer for
    alerts: Alerts = field(default_factory=Alerts)  # how their answers go down
    trusted_keys: tuple[str, ...] = ()  # Ed25519 public keys in hex; if any, the bundle must be signed by one
    allow_unsigned: bool = False  # a bundle without a signature is taken all the same, and reported as such

    def __post_init__(self) -> None:
        for key in self.trusted_keys:
            if len(key) != 64 or not set(key.lower()) <= set("0123456789abcdef"):
                raise InputError(f"trusted_keys: {key!r} is no Ed25519 public key, wanted 64 hex digits")
        if self.policy.apid in FILE_APIDS:
            raise InputError(f"policy.apid is {self.policy.apid}, which is of files; take one under {min(FILE_APIDS)}")
        if self.link.pass_s * self.delivery.passes > 86400:
            raise InputError(
                f"delivery.passes is {self.delivery.passes} of link.pass_s {self.link.pass_s:g}: more than 86400 s of "
                "contact; take fewer passes"
            )
        load_device(self.device)  # unknown, or a profile that cannot be read: said now
        if self.protection is not None and self.protection.apid in apids_of(self.policy.apid):
            raise InputError(f"protection.apid is {self.protection.apid}, which is of the streams; give it one apart")
        for kind, named in (("stations", self.stations), ("sites", self.sites)):
            names = [one.name for one in named]
            if len(set(names)) < len(names):
                raise InputError(f"{kind} share a name ({', '.join(names)[:200]}); give each its own")
        self._check_apps()

    def _check_apps(self) -> None:
        """Sites that applications answer for exist, and there are no more of either than records can number."""
        for limit, what, count in ((MOST_APPS, "apps", len(self.apps)), (MOST_SITES, "sites", len(self.sites))):
            if count > limit:
                raise InputError(f"{count} {what}, wanted at most {limit}; fly fewer")
        known = [site.name for site in self.sites]
        for name, settings in self.apps.items():
            for site in settings.sites:
                if site not in known:
                    raise InputError(f"app {name}: site '{site}' is unknown; {nearest(site, known)}")

    def require_bundle(self, bundle: Bundle) -> None:
        """InputError where the imager names a sensor that is not the bundle's."""
        if self.imager.sensor is None or self.imager.takes == bundle.sensor:
            return
        takes = self.imager.takes
        raise InputError(
            f"mission {self.name} images with sensor {takes.name} ({len(takes.bands)} bands), bundle {bundle.name} is "
            f"of {bundle.sensor.name} ({len(bundle.bands)} bands); fly a bundle of {takes.name}, or a mission whose "
            f"imager names {bundle.sensor.name}"
        )

    def station(self, name: str) -> Station:
        for station in self.stations:
            if station.name.casefold() == name.casefold():
                return station
        known = [station.name for station in self.stations]
        raise InputError(f"mission {self.name}: station '{name}' is unknown; {nearest(name, known)}")


def load_mission(where: str | Path = DEFAULT) -> Mission:
    """A mission by shipped name or by path. InputError names the file, the key, what was found and what was wanted."""
    path = mission_file(where)
    table = read_toml(path)
    if isinstance(table.get("device"), str) and is_profile_file(table["device"]):
        table["device"] = str(path.parent / table["device"])  # beside the mission, wherever it is used from
    security = table["link"].get("security") if isinstance(table.get("link"), dict) else None
    if isinstance(security, dict) and isinstance(security.get("key_file"), str):
        security["key_file"] = str(path.parent / security["key_file"])
    imager = table.get("imager")
    if isinstance(imager, dict) and str(imager.get("sensor", "")).endswith(".toml"):
        imager["sensor"] = str(path.parent / imager["sensor"])
    return mission_from_table(table, str(path))


def mission_from_table(table: Mapping[str, Any], source: str = "mission") -> Mission:
    """A mission from the tables of its file; `source` is the file's name for messages."""
    return from_table(Mission, table, source)


def shipped_missions() -> list[str]:
    return sorted(path.stem for path in SHIPPED.glob("*.toml"))


def mission_file(where: str | Path) -> Path:
    """The file of a mission, by path or by shipped name. InputError if there is none."""
    for candidate in (Path(where), SHIPPED / f"{where}.toml"):
        if candidate.is_file():
            return candidate
    raise InputError(
        f"mission '{where}': no such file, and no mission of that name; {nearest(str(where), shipped_missions())}"
    )
