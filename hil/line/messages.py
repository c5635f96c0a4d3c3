"""Values of the payload <-> bodies of frames: tiles out, tile codes back, the policy.

Numpy and payload only: it runs on the device.
"""

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from hil.line.protocol import Octets, ProtocolError, pack_body, unpack_body
from payload.errors import InputError
from payload.policy import Gate, LonLatRegion, Policy, Region
from payload.tiles import Tile

MAX_BANDS = 32
MAX_TILE_PX = 4096


@dataclass(frozen=True)
class Coded:
    """One tile code as it came back. Times are on the device's clock, in seconds."""

    row: int
    col: int
    octets: bytes
    start_s: float
    end_s: float
    stages_s: dict[str, float] = field(default_factory=dict)

    @property
    def latency_s(self) -> float:
        return self.end_s - self.start_s


def pack_tile(tile: Tile) -> bytes:
    """Body of INFER. Samples little-endian (every device's own order), then the valid bits unless all are set."""
    fields = {
        "row": tile.row,
        "col": tile.col,
        "bands": tile.dn.shape[0],
        "px": tile.dn.shape[1],
        "all_valid": bool(tile.valid.all()),
    }
    valid = b"" if fields["all_valid"] else np.packbits(tile.valid).tobytes()
    return pack_body(fields, np.ascontiguousarray(tile.dn, "<u2").data, valid)


def unpack_tile(body: Octets) -> Tile:
    """The tile of an INFER body. ProtocolError if it is not one."""
    fields, octets = unpack_body(memoryview(body))  # a view: the samples are copied once, into the tile
    row, col = _count(fields, "row", 0, 65535), _count(fields, "col", 0, 65535)
    bands, px = _count(fields, "bands", 1, MAX_BANDS), _count(fields, "px", 1, MAX_TILE_PX)
    all_valid = fields.get("all_valid") is True
    samples = 2 * bands * px * px
    wanted = samples + (0 if all_valid else -(-px * px // 8))
    if len(octets) != wanted:
        raise ProtocolError(f"tile of {bands} bands, {px} px has {len(octets)} octets, wanted {wanted}")
    dn = np.frombuffer(octets, "<u2", bands * px * px).reshape(bands, px, px).astype(np.uint16)  # [B, T, T]
    if all_valid:
        return Tile(row, col, dn, np.ones((px, px), bool))
    bits = np.frombuffer(octets, np.uint8, offset=samples)
    return Tile(row, col, dn, np.unpackbits(bits, count=px * px).reshape(px, px).astype(bool))


def pack_coded(coded: Coded, request_crc: int) -> bytes:
    """Body of the reply to INFER. It names the CRC-32 of the request's frame: which tile was coded."""
    fields = {
        "tile": request_crc,
        "row": coded.row,
        "col": coded.col,
        "start_s": coded.start_s,
        "end_s": coded.end_s,
        "stages_s": coded.stages_s,
    }
    return pack_body(fields, coded.octets)


def unpack_coded(body: Octets, request_crc: int) -> Coded:
    """The tile code in a reply to the request of this CRC-32. ProtocolError if it answers another tile."""
    fields, octets = unpack_body(body)
    if fields.get("tile") != request_crc:
        raise ProtocolError("the reply is for another tile")
    stages = fields.get("stages_s")
    if not isinstance(stages, dict):
        raise ProtocolError("stages_s is not an object")
    return Coded(
        _count(fields, "row", 0, 65535),
        _count(fields, "col", 0, 65535),
        bytes(octets),
        _seconds(fields, "start_s"),
        _seconds(fields, "end_s"),
        {str(name): _seconds(stages, name) for name in stages},
    )


def policy_fields(policy: Policy) -> dict[str, Any]:
    """A policy as JSON values."""
    return asdict(policy)


def policy_of(fields: Any) -> Policy:
    """The policy in a LOAD body. ProtocolError if a key is unknown or a value out of range."""
    try:
        regions = tuple(_region(region) for region in fields["gate"]["regions"])
        return Policy(**{**fields, "gate": Gate(**{**fields["gate"], "regions": regions})})
    except (KeyError, TypeError, InputError) as error:
        raise ProtocolError(f"policy does not fit this agent ({error}); deploy the agent again") from None


def _region(fields: dict[str, Any]) -> Region | LonLatRegion:
    return LonLatRegion(**fields) if "west_deg" in fields else Region(**fields)


def _count(fields: dict[str, Any], name: str, least: int, most: int) -> int:
    value = fields.get(name)
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise ProtocolError(f"{name} is {value!r}, wanted {least} to {most}")
    return value


def _seconds(fields: dict[str, Any], name: str) -> float:
    value = fields.get(name)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ProtocolError(f"{name} is {value!r}, wanted seconds")
    return float(value)
