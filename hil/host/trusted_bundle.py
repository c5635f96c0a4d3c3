"""Which bundles the bench uses: whatever is signed must be unchanged, and its signer trusted.

Trusted are the keys that were given, and those of the mission. Where neither is named, those of the shipped missions,
found through the entry point `nadir.missions`; a bundle without a signature then passes, as nobody asked for one.
"""

import tomllib
from collections.abc import Sequence
from importlib.metadata import entry_points
from pathlib import Path

from hil.profiles.demand import MISSIONS, mission_file
from payload.bundle import Bundle, load_bundle
from payload.errors import InputError, SignatureError


def trusted_bundle(where: str | Path, keys: Sequence[bytes] = (), mission: str | None = None) -> Bundle:
    """The flight part of a bundle. SignatureError says how to trust another one."""
    asked = [*keys, *(mission_keys(mission_file(mission)) if mission else ())]
    trusted = asked or shipped_keys()
    try:
        return load_bundle(where, flight_only=True, trusted_keys=trusted or None, allow_unsigned=not asked)
    except SignatureError as error:
        raise SignatureError(f"{error}; --trusted-key KEY.pub names a signer whom you trust") from None


def mission_keys(path: Path) -> list[bytes]:
    """The keys that a mission's TOML trusts."""
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8")).get("trusted_keys", [])
        return [bytes.fromhex(key) for key in found]
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"{path}: trusted_keys cannot be read ({error}); wanted texts of 64 hex digits") from None


def shipped_keys() -> list[bytes]:
    """The keys that any shipped mission trusts, each once."""
    paths = [path for point in entry_points(group=MISSIONS) for path in sorted(Path(point.load()).glob("*.toml"))]
    return list(dict.fromkeys(key for path in paths for key in mission_keys(path)))
