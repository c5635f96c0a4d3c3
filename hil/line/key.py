"""The key that host and agent share: whoever shows that he holds it may open a session.

    HELLO {}                                  -> {"challenge": A}            A, B: 16 random octets in hex
    HELLO {"nonce": B, "proof": P("host")}    -> identity, {"proof": P("agent")}
    P(who) = HMAC-SHA256(key, "nadir-agent-2" | who | A | B), parts joined by a zero octet

The key opens the door and does no more: what follows is neither encrypted nor signed frame by frame. Over a line that
others can read or alter, use ssh. Standard library only: it runs on the device.
"""

import hashlib
import hmac
import secrets
from pathlib import Path

from payload.errors import InputError
from payload.signature import read_key_file

KEY_OCTETS = 32
DOMAIN = "nadir-agent-2"


def read_key(path: Path) -> bytes:
    """The 32 octets of a key file: 64 hex digits, nothing else. InputError if it holds something else."""
    wanted = f"not a key file; wanted {2 * KEY_OCTETS} hex digits, `hil key {path.name}` makes one"
    return read_key_file(path, KEY_OCTETS, wanted)


def write_key(path: Path) -> None:
    """A fresh key, readable by its owner only. InputError where a file is there already."""
    try:
        path.touch(mode=0o600, exist_ok=False)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; a key is never overwritten, choose another name") from None
    path.write_text(f"{secrets.token_hex(KEY_OCTETS)}\n", encoding="ascii")


def fresh_nonce() -> str:
    return secrets.token_hex(16)


def prove(key: bytes, who: str, challenge: str, nonce: str) -> str:
    """What only a holder of the key can compute, in hex."""
    return hmac.new(key, "\0".join((DOMAIN, who, challenge, nonce)).encode(), hashlib.sha256).hexdigest()


def proves(key: bytes, who: str, challenge: str, nonce: str, proof: object) -> bool:
    """Whether `proof` is the one wanted, in a time that does not depend on where it differs."""
    return isinstance(proof, str) and hmac.compare_digest(
        prove(key, who, challenge, nonce).encode(), proof.encode(errors="replace")
    )
