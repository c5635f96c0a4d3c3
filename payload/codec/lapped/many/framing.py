"""Parts of one layer behind each other, each with its length in front: 24 bits, 0 where a part has nothing there."""

from collections.abc import Iterable

from payload.errors import StreamError

LENGTH_OCTETS = 3


def frame(parts: Iterable[bytes]) -> bytes:
    return b"".join(len(part).to_bytes(LENGTH_OCTETS, "big") + part for part in parts)


def unframe(octets: bytes, most: int, where: str) -> list[bytes]:
    """Inverse of `frame`: one to `most` parts. StreamError names `where` the octets make no sense."""
    found: list[bytes] = []
    at = 0
    while at < len(octets):
        end = at + LENGTH_OCTETS + int.from_bytes(octets[at : at + LENGTH_OCTETS], "big")
        if end > len(octets) or len(found) == most:
            raise StreamError(f"{where}: part {len(found)} of {most} ends at octet {end} of {len(octets)}")
        found.append(octets[at + LENGTH_OCTETS : end])
        at = end
    if not found:
        raise StreamError(f"{where}: no octets, wanted 1 to {most} parts")
    return found
