"""New bundles on board: badly signed, another one than was announced, half an upload, one that does not work."""

import json
import shutil
import tempfile
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np

from payload.bundle import SHIPPED, load_bundle
from payload.errors import BundleError
from payload.guard.slots import Slots
from payload.guard.telemetry import Count, Telemetry
from payload.signature import FILE, Signature, key_id, signed_octets
from sim.faults.outcomes import Outcome

Random = np.random.Generator
Prepare = Callable[[Path, Random], None]


@lru_cache(maxsize=1)
def _key() -> tuple[object, bytes]:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
    return key, key.public_key().public_bytes_raw()


def _signed(folder: Path) -> None:
    key, public = _key()
    signature = key.sign(signed_octets(folder))  # type: ignore[attr-defined]
    (folder / FILE).write_text(Signature(key_id(public), signature).to_json())


def _upload(root: Path) -> Path:
    """Another bundle than the one that flies, signed: the same files under another name and with other parameters."""
    folder = root / "upload"
    shutil.copytree(SHIPPED / "edge", folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["codec"]["coarsest_step_dn"] = 199.0
    (folder / "manifest.json").write_text(json.dumps(manifest))
    _signed(folder)
    return folder


def refused(prepare: Prepare) -> Callable[[Random], Outcome]:
    """An upload that must be refused, with the old bundle flying on."""

    def trial(random: Random) -> Outcome:
        with tempfile.TemporaryDirectory(prefix="nadir-faults-") as root:
            slots, upload = _slots(Path(root)), _upload(Path(root))
            announced = load_bundle(upload).bundle_id
            prepare(upload, random)
            try:
                slots.install(upload, announced)
                told = False
            except BundleError:
                told = True
            flies = slots.choose().bundle_id
            return Outcome(told and flies == load_bundle("edge").bundle_id, told)

    return trial


def _slots(root: Path) -> Slots:
    first = root / "first"
    shutil.copytree(SHIPPED / "edge", first)
    _signed(first)
    slots = Slots(root / "slots", [_key()[1]])
    slots.install(first, load_bundle(first).bundle_id)
    slots.choose()
    slots.confirm()
    return slots


def bad_signature(upload: Path, random: Random) -> None:
    table = json.loads((upload / FILE).read_text())
    octets = bytearray.fromhex(table["signature"])
    octets[int(random.integers(64))] ^= 1 << int(random.integers(8))
    (upload / FILE).write_text(json.dumps(table | {"signature": octets.hex()}))


def wrong_id(upload: Path, random: Random) -> None:
    """Signed, and not the one that was announced."""
    manifest = json.loads((upload / "manifest.json").read_text())
    manifest["codec"]["coarsest_step_dn"] = 100.0 + float(random.integers(90))
    (upload / "manifest.json").write_text(json.dumps(manifest))
    _signed(upload)


def half_an_upload(upload: Path, random: Random) -> None:
    """The files up to a random octet of all of them."""
    files = sorted(path for path in upload.rglob("*") if path.is_file())
    keep = int(random.integers(sum(path.stat().st_size for path in files)))
    for path in files:
        size = path.stat().st_size
        if keep <= 0:
            path.unlink()
        elif size > keep:
            path.write_bytes(path.read_bytes()[:keep])
        keep -= size


def rolled_back(random: Random) -> Outcome:
    """A bundle that passes every check and does not work: it is never confirmed, and the next start takes the old one;
    or its files rot behind the upload."""
    with tempfile.TemporaryDirectory(prefix="nadir-faults-") as root:
        slots, upload = _slots(Path(root)), _upload(Path(root))
        new = load_bundle(upload).bundle_id
        slots.install(upload, new)
        old = load_bundle("edge").bundle_id
        telemetry = Telemetry()
        if random.random() < 0.5:
            tried = slots.choose().bundle_id == new
            return _back(tried and slots.choose(telemetry).bundle_id == old, telemetry)
        files = sorted(path for path in slots.trial_folder.rglob("*") if path.parent.name == "flight")
        path = files[int(random.integers(len(files)))]
        octets = bytearray(path.read_bytes())
        octets[int(random.integers(len(octets)))] ^= 16
        path.write_bytes(bytes(octets))
        return _back(slots.choose(telemetry).bundle_id == old, telemetry)


def _back(old_flies: bool, telemetry: Telemetry) -> Outcome:
    """Right only where the old bundle flies and the ground was told."""
    told = telemetry.counts[Count.ROLLBACKS] == 1
    return Outcome(old_flies and told, told)
