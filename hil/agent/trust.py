"""Which bundles an agent runs: those signed by a key it trusts, and none older than the newest that it has run.

    DIR/*.pub    public keys, 64 hex digits each; put there by whoever owns the device
    DIR/serial   the highest serial number of a bundle that was loaded; written by the agent

The serial number stands in the manifest, under the signature (`python -m export sign --serial N`); a bundle without one
counts as 0. Without DIR an agent runs what it is given.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from payload.bundle import Bundle, load_bundle
from payload.errors import BundleError, InputError
from payload.signature import load_public_key

SERIAL_FILE = "serial"
HIGHEST_SERIAL = 2**63 - 1


@dataclass(frozen=True)
class Trust:
    """The keys and the counter in a folder. InputError where it holds no key."""

    folder: Path

    def __post_init__(self) -> None:
        if not self.keys():
            raise InputError(f"{self.folder}: no *.pub there; put the public keys that this device trusts into it")

    def keys(self) -> list[bytes]:
        return [load_public_key(path) for path in sorted(self.folder.glob("*.pub"))]

    def load(self, directory: Path) -> Bundle:
        """The bundle's flight part, signature and serial number checked. BundleError where one does not hold."""
        bundle = load_bundle(directory, flight_only=True, trusted_keys=self.keys())
        serial, newest = serial_of(bundle), self.newest()
        if serial < newest:
            raise BundleError(
                f"bundle {bundle.name}: serial number {serial}, this device has run {newest}; deploy a newer one"
            )
        return bundle

    def newest(self) -> int:
        """Serial number of the newest bundle that was loaded here; 0 at first. InputError if the file was damaged."""
        path = self.folder / SERIAL_FILE
        if not path.exists():
            return 0
        text = path.read_text(errors="replace").strip()
        if not text.isascii() or not text.isdigit():
            raise InputError(f"{path}: {text[:40]!r} is no serial number; write the last one known there")
        return int(text)

    def remember(self, bundle: Bundle) -> None:
        """Counts up to this bundle's serial number; on the disk before anything is coded with it."""
        serial = serial_of(bundle)
        if serial <= self.newest():
            return
        fresh = self.folder / f"{SERIAL_FILE}.part"
        with fresh.open("w") as file:
            file.write(f"{serial}\n")
            file.flush()
            os.fsync(file.fileno())
        fresh.rename(self.folder / SERIAL_FILE)


def serial_of(bundle: Bundle) -> int:
    """The serial number in the manifest. BundleError if it is none."""
    serial = bundle.manifest.get("serial", 0)
    if isinstance(serial, bool) or not isinstance(serial, int) or not 0 <= serial <= HIGHEST_SERIAL:
        raise BundleError(f"bundle {bundle.name}: serial is {str(serial)[:40]!r}, wanted 0 or more; sign it again")
    return serial
