"""Which layer of a file holds which band: by the names the file gives, or by those the user gives.

A layer's number is no band name. "Band 4" is the fourth layer of something, and where every layer is called after its
own number ("B1", "B2", ...), as in PlanetScope's files, the names say nothing about wavelengths either.
"""

import re
from collections.abc import Sequence

from payload.errors import InputError

#: Names in use -> Sentinel-2 names.
ALIASES = {
    "COASTAL": "B01", "BLUE": "B02", "GREEN": "B03", "RED": "B04", "NIR": "B08", "NIR1": "B08", "NEAR INFRARED": "B08",
    "NIR08": "B8A", "SWIR16": "B11", "SWIR22": "B12",
}  # fmt: skip
BAND_NAMES = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B10", "B11", "B12")
#: Stacks of Sentinel-2 as they are usually made: without the 60 m bands, all of level 2A, all of level 1C.
USUAL_SETS = {
    10: ("B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12"),
    12: tuple(name for name in BAND_NAMES if name != "B10"),
    13: BAND_NAMES,
}


def choose_bands(
    where: str, described: Sequence[str | None], bands: tuple[str, ...] | None, wanted: tuple[str, ...]
) -> tuple[tuple[int, ...], list[str]]:
    """Indexes (from 1) of the wanted bands among layers with these descriptions, and what is to be said about it.

    `bands` are the user's names, one a layer, "-" for a layer that is not used. InputError where a band is not found or
    is found twice.
    """
    own = _names_of_layers(described)
    names = own if bands is None else _user_names(where, len(described), bands)
    for band in wanted:
        if names.count(band) > 1:
            raise InputError(
                f"{where}: {names.count(band)} bands are called {band}, wanted one; name them with --bands"
            )
    missing = [band for band in wanted if band not in names]
    if missing:
        raise InputError(_missing_bands(where, described, names, missing, wanted))
    indexes = tuple(names.index(band) + 1 for band in wanted)
    return indexes, _notes(described, own, indexes, wanted, bands is not None)


def canonical(where: str, name: str) -> str:
    """The Sentinel-2 name of a band; InputError for a name that is not known."""
    known = known_name(name)
    if known is None:
        raise InputError(
            f"{where}: unknown band {name.strip()!r}, wanted of {', '.join(BAND_NAMES)} or blue, green, red, nir"
        )
    return known


def known_name(text: str) -> str | None:
    """Sentinel-2 name of a band description (B2, b02, "B2, central wavelength 490 nm", blue); None if it has none."""
    head = re.split(r"[,;(]", text)[0].strip().upper().replace("_", " ").replace("-", " ")
    number = re.fullmatch(r"B0*(\d{1,2}A?)", head)
    name = f"B{number[1].zfill(2)}" if number else ALIASES.get(head)
    return name if name in BAND_NAMES else None


def _names_of_layers(described: Sequence[str | None]) -> list[str | None]:
    """Band names of the layers; a bare number is none where all that have one are called by their own ("B1", "B2").

    B8A among them says that they are Sentinel-2's.
    """
    names = [known_name(text or "") for text in described]
    bare = [re.fullmatch(r"\s*B0*\d+\s*", text or "", re.IGNORECASE) is not None for text in described]
    numbers = [(layer, name) for layer, (name, number) in enumerate(zip(names, bare, strict=True), 1) if number]
    own = "B8A" not in names and all(name == f"B{layer:02d}" for layer, name in numbers)
    return [None if number and own else name for name, number in zip(names, bare, strict=True)]


def _user_names(where: str, count: int, bands: tuple[str, ...]) -> list[str | None]:
    if len(bands) != count:
        raise InputError(
            f"{where}: --bands names {len(bands)} of {count} bands; name all in the file's order, - to skip one"
        )
    return [None if name.strip() == "-" else canonical(where, name) for name in bands]


def _missing_bands(
    where: str, described: Sequence[str | None], names: list[str | None], missing: list[str], wanted: tuple[str, ...]
) -> str:
    short = [f"{band} (near infrared)" if band == "B08" else band for band in missing]
    found = ", ".join(name for name in names if name) or _unnamed(described)
    if len(names) < len(wanted):
        return f"{where}: has {len(names)} band(s) ({found}), wanted {', '.join(wanted)}; stack them in one file"
    return (
        f"{where}: no {', '.join(short)} among its {len(names)} bands ({found}); "
        f"name every layer in the file's order, {_example(len(names), wanted)}"
    )


def _example(count: int, wanted: tuple[str, ...]) -> str:
    """How --bands is written for so many layers: usual sets of Sentinel-2 in full, no guess at any other."""
    usual = {len(wanted): wanted, **USUAL_SETS}.get(count)
    if usual and set(wanted) <= set(usual):
        return f"as in --bands {','.join(usual)}"
    return f"--bands with {count} of {', '.join(wanted)} and - for a layer that is not used"


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
