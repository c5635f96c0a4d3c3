"""The sensor's bands: what each is for, and their order everywhere behind the reader. No other file lists them.

Bands go by Sentinel-2's names, the field's common ones; a reader maps its product's names to these. What needs a band
asks for its role, so that a bundle of other bands works where it has the roles.
"""

from collections.abc import Sequence

from payload.errors import InputError

#: Role -> band, in order.
ROLES = {"blue": "B02", "green": "B03", "red": "B04", "nir": "B08"}
RGBN = tuple(ROLES.values())


def place_of(role: str, bands: Sequence[str]) -> int:
    """Which of `bands` has a role. InputError where none has."""
    if ROLES[role] not in bands:
        raise InputError(f"bands are {', '.join(bands)}: no {ROLES[role]}, the {role} one, which is needed; add it")
    return list(bands).index(ROLES[role])
