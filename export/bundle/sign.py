"""Signing a bundle with Ed25519: `python -m export sign BUNDLE --key KEY`. Verification is the payload's own.

The private key is a PEM file (PKCS 8), made by `--new-key` or by any other tool; the public key beside it is 64 hex
digits in `<key>.pub`, which is what a mission trusts.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from payload.bundle import load_bundle
from payload.errors import InputError
from payload.signature import FILE, Signature, key_id, require_signature, signed_octets

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey


def new_key(path: Path) -> bytes:
    """Writes a fresh private key (readable by its owner only) and `<path>.pub`; gives the public key's octets."""
    _need_cryptography()
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    if path.exists():
        raise InputError(f"{path}: exists; a key is never overwritten, choose another name")
    private = Ed25519PrivateKey.generate()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600)
    path.write_bytes(
        private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    public = private.public_key().public_bytes_raw()
    public_path(path).write_text(public.hex() + "\n", encoding="ascii")
    return public


def sign_bundle(directory: Path, key_path: Path, serial: int | None = None) -> Signature:
    """Checks every file of the bundle against its manifest, signs the manifest, writes signature.json, verifies it.

    `serial` goes into the manifest first: devices with a counter refuse a bundle of a lower one than they have run.
    """
    bundle = load_bundle(directory)
    private = _load_private(key_path)
    if serial is not None:
        manifest = json.dumps(bundle.manifest | {"serial": serial}, indent=1, sort_keys=True)
        (directory / "manifest.json").write_text(manifest + "\n", encoding="utf-8")
    public = private.public_key().public_bytes_raw()
    signature = Signature(key_id(public), private.sign(signed_octets(directory)))
    (directory / FILE).write_text(signature.to_json(), encoding="utf-8")
    require_signature(directory, [public])
    return signature


def public_path(key_path: Path) -> Path:
    return key_path.with_name(key_path.name + ".pub")


def _load_private(path: Path) -> "Ed25519PrivateKey":
    _need_cryptography()
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    if not path.is_file():
        raise InputError(f"{path}: no such key; make one with `python -m export sign --new-key {path}`")
    try:
        private = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise InputError(f"{path}: not an unencrypted PEM private key; give an Ed25519 key") from None
    if not isinstance(private, Ed25519PrivateKey):
        raise InputError(f"{path}: holds a {type(private).__name__}, wanted an Ed25519 private key")
    return private


def _need_cryptography() -> None:
    try:
        import cryptography  # noqa: F401
    except ImportError:
        raise InputError("signing needs the cryptography package; pip install cryptography") from None
