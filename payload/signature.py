"""Who built this bundle: an Ed25519 signature over its manifest, checked when the bundle is loaded.

The manifest holds the sha256 of every file, so a signature over its octets covers the whole bundle. It lies beside it:

    <bundle>/signature.json   {"algorithm": "Ed25519", "key_id": 16 hex digits, "signature": 128 hex digits}

What is signed is b"nadir-bundle-v1\\0" followed by manifest.json exactly as it lies on disk; the prefix keeps a
signature made for anything else from being taken for one of these. The mission decides whether signatures are
required, and whose. The `cryptography` package is needed only then.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from payload.errors import InputError, SignatureError

FILE = "signature.json"
ALGORITHM = "Ed25519"
DOMAIN = b"nadir-bundle-v1\0"
PUBLIC_KEY_OCTETS = 32
SIGNATURE_OCTETS = 64


@dataclass(frozen=True)
class Signature:
    """What signature.json holds."""

    key_id: str
    signature: bytes

    def to_json(self) -> str:
        table = {"algorithm": ALGORITHM, "key_id": self.key_id, "signature": self.signature.hex()}
        return json.dumps(table, indent=1, sort_keys=True) + "\n"


def key_id(public_key: bytes) -> str:
    """Short name of a key: the first eight octets of its sha256."""
    return hashlib.sha256(public_key).hexdigest()[:16]


def signed_octets(directory: Path) -> bytes:
    """What a bundle's signature covers."""
    try:
        return DOMAIN + (directory / "manifest.json").read_bytes()
    except OSError as error:
        raise SignatureError(f"{directory}: no manifest.json to read ({error.strerror}); restore the bundle") from None


def read_signature(directory: Path) -> Signature | None:
    """The bundle's signature, None if it has none. SignatureError if the file makes no sense."""
    path = directory / FILE
    if not path.is_file():
        return None
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
        signature = Signature(str(table["key_id"]), bytes.fromhex(table["signature"]))
        known = table["algorithm"] == ALGORITHM and len(signature.signature) == SIGNATURE_OCTETS
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SignatureError(f"{path}: not a signature ({error}); sign the bundle again") from None
    if not known:
        raise SignatureError(f"{path}: wanted {ALGORITHM} with {SIGNATURE_OCTETS} octets; sign the bundle again")
    return signature


def require_signature(directory: Path, trusted_keys: Sequence[bytes]) -> str:
    """Id of the trusted key (32 octets each) that signed the bundle in `directory`.

    SignatureError if it is unsigned, signed by a key that is not trusted, or changed after it was signed.
    """
    if not trusted_keys:
        raise InputError("signatures are required but no key is trusted; name at least one public key in the mission")
    found = read_signature(directory)
    if found is None:
        raise SignatureError(f"{directory}: unsigned, wanted a signature; `python -m export sign` it by a trusted key")
    for public_key in trusted_keys:
        if key_id(public_key) == found.key_id:
            _verify(directory, public_key, found)
            return found.key_id
    known = ", ".join(key_id(k) for k in trusted_keys)
    raise SignatureError(f"{directory}: signed by key {found.key_id}, which is not trusted; trusted are {known}")


def read_key_file(path: Path, octets: int, wanted: str) -> bytes:
    """The `octets` octets of a key file: their hex digits, nothing else. InputError that says `wanted` where it holds
    something else."""
    try:
        key = bytes.fromhex(path.read_text(encoding="ascii").strip()) if path.is_file() else b""
    except (OSError, ValueError):
        key = b""
    if len(key) != octets:
        raise InputError(f"{path}: {wanted}")
    return key


def load_public_key(path: Path) -> bytes:
    """The 32 octets of a public key file: 64 hex digits, nothing else."""
    wanted = f"not a public key; wanted a file of {2 * PUBLIC_KEY_OCTETS} hex digits"
    return read_key_file(path, PUBLIC_KEY_OCTETS, wanted)


def verifies(public_key: bytes, signature: bytes, octets: bytes) -> bool:
    """Whether an Ed25519 signature is this key's over these octets."""
    try:
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    except ImportError:
        raise InputError("signatures are required here; pip install cryptography to verify them") from None
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, octets)
    except InvalidSignature:
        return False
    return True


def _verify(directory: Path, public_key: bytes, found: Signature) -> None:
    if not verifies(public_key, found.signature, signed_octets(directory)):
        raise SignatureError(
            f"{directory}: the signature of key {found.key_id} does not match the manifest; "
            "the bundle was changed after it was signed: restore it or sign it again"
        )
