"""Whose bundles a mission flies: those that a key it trusts has signed, others only where that is said."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from payload.bundle import Bundle, bare_bundle, load_bundle, shipped_bundles
from payload.errors import BundleError, InputError, SignatureError
from payload.signature import key_id, load_public_key, read_signature
from sim.mission.spec import Mission

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

UNSIGNED = "unsigned, which the mission allows"


@dataclass(frozen=True)
class Trust:
    """What the command line adds to a mission's trust: files of public keys, and bundles without a signature."""

    keys: tuple[Path, ...] = ()
    allow_unsigned: bool = False

    def added_to(self, mission: Mission) -> Mission:
        """The mission with it. A key narrows trust where a mission had none: then signatures are required."""
        added = tuple(load_public_key(path).hex() for path in self.keys)
        return replace(
            mission, trusted_keys=mission.trusted_keys + added,
            allow_unsigned=mission.allow_unsigned or self.allow_unsigned,
        )  # fmt: skip


MISSIONS_OWN = Trust()


def trusted_keys(mission: Mission) -> Sequence[bytes] | None:
    """Octets of the keys; None where the mission requires no signatures."""
    return [bytes.fromhex(key) for key in mission.trusted_keys] or None


def load_trusted(where: str, mission: Mission) -> Bundle:
    """A bundle that the mission may fly. SignatureError says how to trust another one."""
    try:
        bundle = load_bundle(where, trusted_keys=trusted_keys(mission), allow_unsigned=mission.allow_unsigned)
    except SignatureError as error:
        raise SignatureError(f"{error}; to fly it: {_remedy(error)}") from None
    mission.require_bundle(bundle)
    return bundle


def load_or_stand_in(where: str, mission: Mission) -> tuple[Bundle, str | None]:
    """The bundle; or, where the mission flies on with fallback tiles, what stands for one that fails its checks, and
    why it does."""
    try:
        return load_trusted(where, mission), None
    except BundleError as error:
        if mission.policy.fallback == "never" or not (Path(where).is_dir() or where in shipped_bundles()):
            raise
        return bare_bundle(where, mission.imager.takes.names), str(error)


def signer(bundle: Bundle, mission: Mission) -> str:
    """Who answers for a bundle that was loaded, in the words of the report."""
    if not mission.trusted_keys:
        return "not asked for"
    found = read_signature(bundle.directory)
    known = {key_id(key) for key in trusted_keys(mission) or ()}
    return f"signed by key {found.key_id}" if found is not None and found.key_id in known else UNSIGNED


def load_private(path: Path) -> "Ed25519PrivateKey":
    """The key that signs telecommands: a PEM file as `python -m export sign --new-key` writes it."""
    try:
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        from cryptography.hazmat.primitives.serialization import load_pem_private_key
    except ImportError:
        raise InputError("commands are signed with the cryptography package; pip install cryptography") from None
    try:
        private = load_pem_private_key(path.read_bytes() if path.is_file() else b"", password=None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm):
        private = None
    if not isinstance(private, Ed25519PrivateKey):
        raise InputError(f"{path}: no Ed25519 key (PEM); make one: `python -m export sign --new-key {path}`")
    return private


def _remedy(error: SignatureError) -> str:
    signer = "--trust KEY.pub names its signer"
    return f"{signer}, --allow-unsigned takes it as it is" if ": unsigned" in str(error) else signer
