"""A sensor: its bands, what they are for, and what its numbers mean. No other file lists bands.

A bundle's manifest has its sensor under `sensor`, as a plain table; sim/sensors/*.toml hold the same tables
(docs/sensors.md). What needs a band asks for its role, so that any sensor works that has the role.

Everywhere behind the reader a sample is a DN, uint16: DN = count for unsigned counts, count + 2^(bits - 1) for signed
ones. In the sensor's unit it is scale x count + offset.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from payload.errors import InputError

KINDS = ("optical", "panchromatic", "radar", "hyperspectral")
MOST_BANDS, MOST_GROUPS, LONGEST_WORD, LONGEST_TEXT = 512, 512, 64, 200


@dataclass(frozen=True)
class Band:
    """One band. `role` is a common name of STAC's eo extension (red, nir, swir16), vv or vh, pan, or "" for none."""

    name: str
    gsd_m: float  # native
    role: str = ""
    centre_nm: float | None = None
    width_nm: float | None = None  # full width at half maximum


@dataclass(frozen=True)
class Group:
    """Bands that are coded together."""

    name: str
    bands: tuple[str, ...]


@dataclass(frozen=True)
class Sensor:
    """`saturation` is the count of a saturated sample, the largest there is; `nodata` that of no data. `groups` share
    out the bands, each in one of them; by default the bands of one GSD are a group."""

    name: str
    kind: str
    bands: tuple[Band, ...]
    bits: int  # what the imager digitises
    signed: bool = False
    unit: str = "reflectance"
    scale: float = 1e-4
    offset: float = 0.0
    nodata: int | None = None
    saturation: int | None = None  # None: the largest number of `bits`
    groups: tuple[Group, ...] = ()
    dataset: str = ""  # of an HDF5 or netCDF file, by its path in it
    title: str = field(default="", compare=False)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(band.name for band in self.bands)

    @property
    def lowest(self) -> int:
        """The count that is DN 0."""
        return -(1 << (self.bits - 1)) if self.signed else 0

    @property
    def highest_dn(self) -> int:
        usual = self.lowest + (1 << self.bits) - 1
        return (usual if self.saturation is None else self.saturation) - self.lowest

    @property
    def nodata_dn(self) -> int | None:
        return None if self.nodata is None else self.nodata - self.lowest

    @property
    def grouped(self) -> tuple[Group, ...]:
        """The groups, or the bands of each GSD where none are named: 10m, 20m, ..."""
        found: dict[float, list[str]] = {}
        for band in self.bands:
            found.setdefault(band.gsd_m, []).append(band.name)
        return self.groups or tuple(Group(f"{gsd_m:g}m", tuple(names)) for gsd_m, names in sorted(found.items()))

    def only(self, places: Sequence[int]) -> "Sensor":
        """The sensor with some of its bands, in no groups."""
        return replace(self, bands=tuple(self.bands[place] for place in places), groups=())

    def place(self, word: str) -> int | None:
        """Which band has this role or, else, this name; None where none has."""
        for words in ([band.role for band in self.bands], self.names):
            if word in words:
                return words.index(word)
        return None

    def place_of(self, role: str) -> int:
        """As `place`. InputError where no band has the role."""
        place = self.place(role)
        if place is None:
            known = ", ".join(band.name + (f" ({band.role})" if band.role else "") for band in self.bands[:16])
            raise InputError(f"bands are {known}: none is the {role} one, which is needed; take a sensor that has it")
        return place

    def places(self, *roles: str) -> tuple[int, ...] | None:
        """The bands of these roles; None where one is missing."""
        found = [self.place(role) for role in roles]
        return None if None in found else tuple(place for place in found if place is not None)


#: Sentinel-2's, published: ESA, Sentinel-2 MSI, spectral bands of Sentinel-2A.
SENTINEL2 = {
    name: Band(name, gsd_m, role, centre_nm, width_nm)
    for name, gsd_m, role, centre_nm, width_nm in (
        ("B01", 60.0, "coastal", 442.7, 20.0),
        ("B02", 10.0, "blue", 492.7, 65.0),
        ("B03", 10.0, "green", 559.8, 35.0),
        ("B04", 10.0, "red", 664.6, 30.0),
        ("B05", 20.0, "rededge071", 704.1, 14.0),
        ("B06", 20.0, "rededge075", 740.5, 14.0),
        ("B07", 20.0, "rededge078", 782.8, 19.0),
        ("B08", 10.0, "nir", 832.8, 105.0),
        ("B8A", 20.0, "nir08", 864.7, 21.0),
        ("B09", 60.0, "nir09", 945.1, 19.0),
        ("B10", 60.0, "cirrus", 1373.5, 29.0),
        ("B11", 20.0, "swir16", 1613.7, 90.0),
        ("B12", 20.0, "swir22", 2202.4, 174.0),
    )
}
RGBN = ("B02", "B03", "B04", "B08")


def sensor_of(names: Sequence[str]) -> Sensor:
    """What is taken to have bands of these names where nobody says: Sentinel-2, in DN = reflectance x 10 000."""
    bands = tuple(SENTINEL2.get(name) or Band(name, 10.0) for name in names)
    name = "sentinel2-rgbn" if tuple(names) == RGBN else "bands " + ",".join(names)[:50]
    return Sensor(name, "optical", bands, bits=12, nodata=0, saturation=65_535)


#: The sensor of a bundle or a mission that names none.
SENTINEL2_RGBN = sensor_of(RGBN)


def sensor_from(table: Any, where: str) -> Sensor:
    """A sensor from the plain table of a TOML file or a manifest. InputError names `where`, the key, what was found and
    what was wanted."""
    read = _Table(table, where, "")
    bits = read.whole("bits", 1, 16)
    signed = read.take("signed", bool, "true or false", False)
    least = -(1 << (bits - 1)) if signed else 0
    sensor = Sensor(
        read.text("name"), read.one_of("kind", KINDS), _bands(read), bits, signed, read.text("unit", "reflectance"),
        read.number("scale", 1e-12, 1e12, 1e-4), read.number("offset", -1e12, 1e12, 0.0),
        read.whole("nodata", least, least + 65_535, None), read.whole("saturation", least + 1, least + 65_535, None),
        _groups(read), read.text("dataset", ""), read.text("title", ""),
    )  # fmt: skip
    read.nothing_left()
    _check_names(sensor, where)
    return sensor


def as_table(sensor: Sensor) -> dict[str, Any]:
    """The plain table of a sensor: `sensor_from` reads it back. Defaults are left out, a spectrum is written out."""
    bands = [_said(vars(band)) for band in sensor.bands]
    whole = _said({key: value for key, value in vars(sensor).items() if key not in ("bands", "groups")})
    groups = {group.name: list(group.bands) for group in sensor.groups}
    return whole | {"bands": bands} | ({"groups": groups} if groups else {})


def _said(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None and value is not False and value != ""}


def _bands(read: "_Table") -> tuple[Band, ...]:
    """From [[bands]], or evenly over a [spectrum]."""
    spectrum = read.take("spectrum", dict, "a table [spectrum]", None)
    if spectrum is not None:
        if "bands" in read.left:
            raise read.misfit("spectrum", "given beside bands", "one of the two")
        return _of_spectrum(_Table(spectrum, read.where, "spectrum."))
    listed = read.take("bands", list, "a list [[bands]]")
    if not 1 <= len(listed) <= MOST_BANDS:
        raise read.misfit("bands", f"{len(listed)} bands", f"1 to {MOST_BANDS}")
    return tuple(_band(_Table(one, read.where, f"bands[{i}].")) for i, one in enumerate(listed))


def _band(read: "_Table") -> Band:
    band = Band(
        read.text("name"), read.number("gsd_m", 1e-4, 1e6), read.text("role", ""),
        read.number("centre_nm", 1, 1e9, None), read.number("width_nm", 1e-3, 1e9, None),
    )  # fmt: skip
    read.nothing_left()
    return band


def _of_spectrum(read: "_Table") -> tuple[Band, ...]:
    count = read.whole("count", 2, MOST_BANDS)
    first, last = read.number("first_nm", 1, 1e9), read.number("last_nm", 1, 1e9)
    width, gsd_m = read.number("width_nm", 1e-3, 1e9), read.number("gsd_m", 1e-4, 1e6)
    read.nothing_left()
    step = (last - first) / (count - 1)
    return tuple(Band(f"C{i + 1:03d}", gsd_m, "", round(first + i * step, 3), width) for i in range(count))


def _groups(read: "_Table") -> tuple[Group, ...]:
    named = read.take("groups", dict, "a table [groups] of lists of bands", {})
    if len(named) > MOST_GROUPS or not all(
        _is_word(name) and isinstance(bands, list) and all(map(_is_word, bands)) for name, bands in named.items()
    ):
        raise read.misfit("groups", str(named)[:60], f"at most {MOST_GROUPS} names, each with a list of bands")
    return tuple(Group(name, tuple(bands)) for name, bands in named.items())


def _check_names(sensor: Sensor, where: str) -> None:
    """Names and roles are told apart, groups share out all the bands."""
    roles = [band.role for band in sensor.bands if band.role]
    for key, words in (("names", sensor.names), ("roles", roles)):
        twice = sorted({word for word in words if words.count(word) > 1})
        if twice:
            raise InputError(f"{where}: bands share the {key} {', '.join(twice[:8])}, wanted each once; rename them")
    grouped = [name for group in sensor.groups for name in group.bands]
    if sensor.groups and sorted(grouped) != sorted(sensor.names):
        odd = sorted(set(grouped) ^ set(sensor.names)) or sorted({n for n in grouped if grouped.count(n) > 1})
        raise InputError(f"{where}: groups do not hold every band once ({', '.join(odd[:8])}); name each in one group")


def _is_word(value: Any) -> bool:
    return isinstance(value, str) and value.isprintable() and "," not in value and 0 < len(value) <= LONGEST_WORD


_REQUIRED = object()


class _Table:
    """A table whose keys are taken one by one; what is left over is unknown."""

    def __init__(self, table: Any, where: str, prefix: str) -> None:
        self.where, self._prefix, self._known = where, prefix, list[str]()
        if not isinstance(table, Mapping):
            raise InputError(f"{where}: {prefix.rstrip('.') or 'the sensor'} is {str(table)[:60]!r}, wanted a table")
        self.left = dict(table)

    def take(self, key: str, kind: Any, wanted: str, default: Any = _REQUIRED) -> Any:
        self._known.append(key)
        if key not in self.left:
            if default is _REQUIRED:
                raise InputError(f"{self.where}: '{self._prefix}{key}' is missing; add it ({wanted})")
            return default
        value = self.left.pop(key)
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise self.misfit(key, repr(str(value)[:60]), wanted)
        return value

    def text(self, key: str, default: Any = _REQUIRED) -> str:
        longest = LONGEST_TEXT if key in ("title", "dataset") else LONGEST_WORD
        found: str = self.take(key, str, f"a printable text of 1 to {longest} characters", default)
        if found is not default and not (found.isprintable() and 0 < len(found) <= longest):
            raise self.misfit(key, repr(found[:60]), f"a printable text of 1 to {longest} characters")
        if key == "name" and "," in found:
            raise self.misfit(key, repr(found), "a name without a comma")
        return found

    def one_of(self, key: str, words: Sequence[str]) -> str:
        found = self.text(key)
        if found not in words:
            raise self.misfit(key, repr(found), f"one of {', '.join(words)}")
        return found

    def number(self, key: str, low: float, high: float, default: Any = _REQUIRED) -> Any:
        return self._within(key, (int, float), "number", low, high, default)

    def whole(self, key: str, low: int, high: int, default: Any = _REQUIRED) -> Any:
        return self._within(key, int, "whole number", low, high, default)

    def _within(self, key: str, kind: Any, kind_name: str, low: float, high: float, default: Any) -> Any:
        wanted = f"a {kind_name} from {low:g} to {high:g}"
        found = self.take(key, kind, wanted, default)
        if found is not None and not low <= found <= high:
            raise self.misfit(key, str(found)[:30], wanted)
        return float(found) if kind is not int and found is not None else found

    def misfit(self, key: str, found: str, wanted: str) -> InputError:
        return InputError(f"{self.where}: {self._prefix}{key} is {found}, wanted {wanted}; mend it there")

    def nothing_left(self) -> None:
        for key in self.left:
            known = ", ".join(self._known)
            raise InputError(f"{self.where}: unknown key '{self._prefix}{str(key)[:60]}'; valid here: {known}")
