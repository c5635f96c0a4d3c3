"""Values of the payload <-> bodies of frames: tiles out, tile codes back, the policy.

Numpy and payload only: it runs on the device.
"""

import math
from dataclasses import asdict, dataclass, field, replace
from types import UnionType
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import numpy as np

from hil.line.protocol import Octets, ProtocolError, pack_body, unpack_body
from payload.errors import InputError
from payload.policy import Gate, LonLatRegion, Policy, Region
from payload.tiles import Tile

T = TypeVar("T")

MAX_BANDS = 512
MAX_TILE_PX = 4096
TILE_JSON_OCTETS = 256  # five small numbers by their names
LONGEST_KIND = 32
MOST_REGIONS = 1000


@dataclass(frozen=True)
class DeviceReply:
    """One tile code as it came back. Times are on the device's clock, in seconds."""

    row: int
    col: int
    octets: bytes
    start_s: float
    end_s: float
    kind: str  # what became of the tile: a name of payload.link.tile_code.Kind in small letters
    stages_s: dict[str, float] = field(default_factory=dict)

    @property
    def latency_s(self) -> float:
        return self.end_s - self.start_s


def tile_body_octets(bands: int, px: int) -> int:
    """The longest body of INFER for tiles of this size: its fields, samples, and the valid bits."""
    return 4 + TILE_JSON_OCTETS + 2 * bands * px * px + -(-px * px // 8)


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
    fields, octets = unpack_body(memoryview(body), TILE_JSON_OCTETS)  # a view: samples are copied once
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


def pack_coded(coded: DeviceReply, request_crc: int) -> bytes:
    """Body of the reply to INFER. It names the CRC-32 of the request's frame: which tile was coded."""
    fields = {
        "tile": request_crc,
        "row": coded.row,
        "col": coded.col,
        "start_s": coded.start_s,
        "end_s": coded.end_s,
        "kind": coded.kind,
        "stages_s": coded.stages_s,
    }
    return pack_body(fields, coded.octets)


def unpack_coded(body: Octets, request_crc: int) -> DeviceReply:
    """The tile code in a reply to the request of this CRC-32. ProtocolError if it answers another tile."""
    fields, octets = unpack_body(body)
    if fields.get("tile") != request_crc:
        raise ProtocolError("the reply is for another tile")
    stages = fields.get("stages_s")
    if not isinstance(stages, dict):
        raise ProtocolError("stages_s is not an object")
    return DeviceReply(
        _count(fields, "row", 0, 65535),
        _count(fields, "col", 0, 65535),
        bytes(octets),
        _seconds(fields, "start_s"),
        _seconds(fields, "end_s"),
        _kind(fields),
        {str(name): _seconds(stages, name) for name in stages},
    )


def policy_fields(policy: Policy) -> dict[str, Any]:
    """A policy as JSON values."""
    return asdict(policy)


def policy_of(fields: Any) -> Policy:
    """The policy in a LOAD body. ProtocolError if a key is unknown, or a value of the wrong type or out of range."""
    try:
        regions = tuple(_region(region) for region in fields["gate"]["regions"][: MOST_REGIONS + 1])
        gate = _typed(Gate, {**fields["gate"], "regions": ()})
        policy = replace(_typed(Policy, {**fields, "gate": gate}), gate=replace(gate, regions=regions))
    except (KeyError, TypeError, InputError) as error:
        raise ProtocolError(f"policy does not fit this agent ({error}); deploy the agent again") from None
    if policy.budget_octets is not None:
        raise ProtocolError("policy has budget_octets, and a device codes tile by tile; leave the budget out")
    if len(regions) > MOST_REGIONS:
        raise ProtocolError(f"policy has more than {MOST_REGIONS} regions; join some")
    return policy


def _region(fields: dict[str, Any]) -> Region | LonLatRegion:
    return _typed(LonLatRegion, fields) if "west_deg" in fields else _typed(Region, fields)


def _typed(kind: type[T], fields: dict[str, Any]) -> T:
    """A dataclass from JSON values, each of its field's own type: an int where an int is wanted, no NaN, no words."""
    hints = get_type_hints(kind)
    for name, value in fields.items():
        if name not in hints or not _fits(hints[name], value):
            raise TypeError(f"{name} is {str(value)[:60]!r}")
    return kind(**fields)


def _fits(hint: Any, value: Any) -> bool:
    options = get_args(hint)
    if get_origin(hint) is Literal:
        return isinstance(value, str) and value in options
    if get_origin(hint) is UnionType:
        return any(_fits(option, value) for option in options)
    if hint is float:
        return type(value) in (int, float) and math.isfinite(value)
    return type(value) is (get_origin(hint) or hint)


def _count(fields: dict[str, Any], name: str, least: int, most: int) -> int:
    value = fields.get(name)
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise ProtocolError(f"{name} is {value!r}, wanted {least} to {most}")
    return value


def _kind(fields: dict[str, Any]) -> str:
    value = fields.get("kind")
    if not isinstance(value, str) or len(value) > LONGEST_KIND:
        raise ProtocolError(f"kind is {str(value)[:60]!r}, wanted what became of the tile")
    return value


def _seconds(fields: dict[str, Any], name: str) -> float:
    value = fields.get(name)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ProtocolError(f"{name} is {value!r}, wanted seconds")
    return float(value)
