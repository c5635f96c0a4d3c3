"""Which layer of a file holds which band: by the names the file gives, or by those the user gives.

A layer's number is no band name. "Band 4" is the fourth layer of something, and where every layer is called after its
own number ("B1", "B2", ...), as in PlanetScope's files, the names say nothing about wavelengths either.
"""

import re
from collections.abc import Sequence

from payload.errors import InputError
from payload.sensor import SENTINEL2, SENTINEL2_RGBN, Sensor

#: Names in use -> Sentinel-2 names.
ALIASES = {
    "COASTAL": "B01", "BLUE": "B02", "GREEN": "B03", "RED": "B04", "NIR": "B08", "NIR1": "B08", "NEAR INFRARED": "B08",
    "NIR08": "B8A", "SWIR16": "B11", "SWIR22": "B12",
}  # fmt: skip
BAND_NAMES = tuple(SENTINEL2)
#: Bands that a message lists before it breaks off.
MOST_LISTED = 16
#: Stacks of Sentinel-2 as they are usually made: without the 60 m bands, all of level 2A, all of level 1C.
USUAL_SETS = {
    10: ("B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12"),
    12: tuple(name for name in BAND_NAMES if name != "B10"),
    13: BAND_NAMES,
}

#: What is said of a spectrometer whose bands are others than the bundle's.
OWN_BUNDLE = (
    "give a sensor file and a bundle of this instrument; of more than 16 bands it takes seconds: "
    "python -m export adapt --sensor MINE.toml --tables-of edge-hyper"
)


def choose_bands(
    where: str, described: Sequence[str | None], bands: tuple[str, ...] | None, sensor: Sensor
) -> tuple[tuple[int, ...], list[str]]:
    """Indexes (from 1) of the sensor's bands among layers with these descriptions, and what is to be said about it.

    `bands` are the user's names, one a layer, "-" for a layer that is not used. Layers without any name are taken in
    their order where the sensor is no camera of colours and has as many. InputError where a band is not found or is
    found twice.
    """
    wanted = sensor.names
    own = _names_of_layers(described, sensor)
    if bands is None and sensor.kind != "optical" and not any(own) and len(own) == len(wanted):
        return tuple(range(1, len(own) + 1)), _in_order(sensor) if len(own) > 1 else []
    names = own if bands is None else _user_names(where, len(described), bands, sensor)
    for band in wanted:
        if names.count(band) > 1:
            raise InputError(
                f"{where}: {names.count(band)} bands are called {band}, wanted one; name them with --bands"
            )
    missing = [band for band in wanted if band not in names]
    if missing:
        raise InputError(_missing_bands(where, described, names, missing, sensor))
    indexes = tuple(names.index(band) + 1 for band in wanted)
    return indexes, _notes(described, own, indexes, wanted, bands is not None)


def _in_order(sensor: Sensor) -> list[str]:
    return [f"layers without names: taken in the order of sensor {sensor.name}, {_listed(sensor.names)}"]


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:MOST_LISTED]) + (f" and {len(names) - MOST_LISTED} more" if names[MOST_LISTED:] else "")


def _canonical(where: str, name: str, sensor: Sensor) -> str:
    """The sensor's or Sentinel-2's name of a band; InputError for a name that is neither."""
    known = _name_in(name, sensor)
    if known is None:
        names = dict.fromkeys((*sensor.names, *BAND_NAMES) if sensor.kind == "optical" else sensor.names)
        raise InputError(
            f"{where}: unknown band {name.strip()!r}, wanted of {_listed(list(names))} or "
            f"{_listed([band.role for band in sensor.bands if band.role]) or 'the like'}"
        )
    return known


def _name_in(text: str, sensor: Sensor) -> str | None:
    """The sensor's band that a description means, by name or by role; else what it means to Sentinel-2."""
    head = re.split(r"[,;(]", text)[0].strip().casefold()
    for band in sensor.bands:
        if head and band.name not in BAND_NAMES and head in (band.name.casefold(), band.role):
            return band.name
    return known_name(text)


def known_name(text: str) -> str | None:
    """Sentinel-2 name of a band description (B2, b02, "B2, central wavelength 490 nm", blue); None if it has none."""
    head = re.split(r"[,;(]", text)[0].strip().upper().replace("_", " ").replace("-", " ")
    number = re.fullmatch(r"B0*(\d{1,2}A?)", head)
    name = f"B{number[1].zfill(2)}" if number else ALIASES.get(head)
    return name if name in BAND_NAMES else None


def _names_of_layers(described: Sequence[str | None], sensor: Sensor) -> list[str | None]:
    """Band names of the layers; a bare number is none where all that have one are called by their own ("B1", "B2").

    B8A among them says that they are Sentinel-2's.
    """
    names = [_name_in(text or "", sensor) for text in described]
    bare = [re.fullmatch(r"\s*B0*\d+\s*", text or "", re.IGNORECASE) is not None for text in described]
    numbers = [(layer, name) for layer, (name, number) in enumerate(zip(names, bare, strict=True), 1) if number]
    own = "B8A" not in names and all(name == f"B{layer:02d}" for layer, name in numbers)
    return [None if number and own else name for name, number in zip(names, bare, strict=True)]


def _user_names(where: str, count: int, bands: tuple[str, ...], sensor: Sensor) -> list[str | None]:
    if len(bands) != count:
        raise InputError(
            f"{where}: --bands names {len(bands)} of {count} bands; name all in the file's order, - to skip one"
        )
    return [None if name.strip() == "-" else _canonical(where, name, sensor) for name in bands]


def _missing_bands(
    where: str, described: Sequence[str | None], names: list[str | None], missing: list[str], sensor: Sensor
) -> str:
    short = [f"{band} (near infrared)" if band == "B08" else band for band in missing]
    found = _listed([name for name in names if name]) or _unnamed(described)
    if sensor.kind == "hyperspectral" and len(names) != len(sensor.bands):
        counts = f"has {len(names)} bands, sensor {sensor.name} {len(sensor.bands)}"
        return f"{where}: {counts}, and the file does not say their wavelengths; {OWN_BUNDLE}"
    if len(names) < len(sensor.bands):
        return f"{where}: has {len(names)} band(s) ({found}), wanted {_listed(sensor.names)}; {_other_scene(sensor)}"
    return (
        f"{where}: no {_listed(short)} among its {len(names)} bands ({found}); "
        f"name every layer in the file's order, {_example(len(names), sensor.names)}"
    )


def _other_scene(sensor: Sensor) -> str:
    if sensor == SENTINEL2_RGBN:
        return "stack them in one file"
    return f"give a scene of sensor {sensor.name}, or a bundle (--bundle) whose bands the file has"


def _example(count: int, wanted: tuple[str, ...]) -> str:
    """How --bands is written for so many layers: usual sets of Sentinel-2 in full, no guess at any other."""
    usual = {**USUAL_SETS, len(wanted): wanted}.get(count)
    if usual and set(wanted) <= set(usual):
        return f"as in --bands {','.join(usual)}"
    return f"--bands with {count} of {_listed(wanted)} and - for a layer that is not used"


def _unnamed(described: Sequence[str | None]) -> str:
    said = [text for text in described if text]
    return f"{said[0]!r} to {said[-1]!r} name no bands" if said else "none with a known name"


def _notes(
    described: Sequence[str | None],
    own: list[str | None],
    indexes: tuple[int, ...],
    wanted: tuple[str, ...],
    told: bool,
) -> list[str]:
    notes = []
    if len(described) > len(indexes) or indexes != tuple(range(1, len(indexes) + 1)):
        taken = ", ".join(
            f"{band} = layer {i} ({described[i - 1] or 'no name'})" for band, i in zip(wanted, indexes, strict=True)
        )
        notes.append(f"of {len(described)} layers these were taken: {taken}")
    pairs = zip(wanted, indexes, strict=True)
    other = [f"{own[i - 1]} is read as {band}" for band, i in pairs if own[i - 1] not in (None, band)]
    if told and other:
        notes.append(f"--bands goes against the names in the file: {', '.join(other)}")
    return notes
