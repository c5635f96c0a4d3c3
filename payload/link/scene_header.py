"""Scene header <-> octets: what the ground must know of a scene besides its tiles. Sent first, repeated, and last.

    octet 0   1      2 .. 5     6 .. 9      10, 11   12 .. 15  16 .. 19  20     21 .. 44         45 ...         4
    +---+---+-------+----------+-----------+--------+---------+---------+------+----------------+--------------+-----+
    |v 4|15 | flags | scene id | bundle id | tile px| height  | width   | bits | fates (6 x 32) | fields       | crc |
    +---+---+-------+----------+-----------+--------+---------+---------+------+----------------+--------------+-----+

A field is a tag (8 bits), a length (16 bits) and its octets; a reader passes over tags that it does not know. The low
half of octet 0 tells a header from a tile code. Losing every header costs the place of a scene, not its pixels.

Version 2. Version 1, which older payloads send, has a CRC of 16 bits, that of packets; 2 has zlib's CRC-32.
"""

import struct
from binascii import crc_hqx
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from enum import IntEnum
from zlib import crc32

from payload.errors import InputError, StreamError
from payload.link import tile_code
from payload.link.space_packet import octets_on_air
from payload.link.tile_code import Kind, TileCode
from payload.scene import SceneInfo

VERSION, FIRST_VERSION = 2, 1
#: In the place where a tile code has its kind.
MARK = 15
#: After so many tile codes the header is sent again.
REPEAT_TILES = 64
#: So many times the header comes last.
FINAL_HEADERS = 2
FINAL = 1  # flag: the fates are counted, nothing more of this scene follows
#: Kinds whose tiles the fates count, in their order on the link.
FATES = (Kind.CODED, Kind.WITHHELD, Kind.EMPTY, Kind.FALLBACK, Kind.AUDIT, Kind.OMITTED)
#: A header is no longer than this, whatever text a scene brings.
LONGEST_OCTETS = 16384
#: A ground makes room for a picture of this size at most.
MOST_PIXELS = 1 << 34
#: CCSDS 301.0-B-4, 3.3: the day segmented code counts days from here.
EPOCH = datetime(1958, 1, 1, tzinfo=UTC)

_FIXED = struct.Struct(">BBIIHIIB6I")
_CRC_OCTETS = {1: 2, 2: 4}


class Tag(IntEnum):
    """What a field holds."""

    NAME = 1  # UTF-8
    BANDS = 2  # UTF-8, names with commas between
    SENSED_AT = 3  # days (16), milliseconds of the day (32), microseconds (16): CCSDS day segmented code
    CRS = 4  # UTF-8: authority and code, or WKT
    TRANSFORM = 5  # six doubles a b c d e f: x = a col + b row + c, y = d col + e row + f
    NO_DATA = 6  # DN (16)
    GSD_M = 7  # a double
    CONTROL_POINTS = 8  # five doubles each: row, column, x, y, z
    RPCS = 9  # UTF-8: rational polynomial coefficients, a line NAME=value each
    BAND_SHIFTS = 10  # two signed octets for each band: rows, columns from which it was read


@dataclass(frozen=True)
class SceneHeader:
    """`info` is what the imager and the navigation know of the scene; its `crs_wkt` may be "EPSG:n" for short.

    `fates` counts the tile codes that were sent, by kind; None until the last tile is sent.
    """

    scene_id: int
    bundle_id: int
    tile_px: int
    info: SceneInfo
    fates: Mapping[Kind, int] | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        info = self.info
        for name, value, most in (
            ("scene_id", self.scene_id, (1 << 32) - 1), ("bundle_id", self.bundle_id, (1 << 32) - 1),
            ("tile_px", self.tile_px, 4096), ("height_px", info.height_px, (1 << 31) - 1),
            ("width_px", info.width_px, (1 << 31) - 1), ("bits", info.bits, 16),
        ):  # fmt: skip
            if not 0 <= value <= most:
                raise InputError(f"{name} {value} does not fit a scene header, wanted 0 to {most}")

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of tiles."""
        return -(-self.info.height_px // self.tile_px), -(-self.info.width_px // self.tile_px)


def pack(header: SceneHeader) -> bytes:
    """The octets of a header. InputError where names or CRS are too long for one."""
    info, fates = header.info, header.fates
    fixed = _FIXED.pack(
        VERSION << 4 | MARK, 0 if fates is None else FINAL, header.scene_id, header.bundle_id, header.tile_px,
        info.height_px, info.width_px, info.bits, *((fates or {}).get(kind, 0) for kind in FATES),
    )  # fmt: skip
    octets = fixed + b"".join(_field(tag, value) for tag, value in _fields(info))
    if len(octets) + _CRC_OCTETS[VERSION] > LONGEST_OCTETS:
        raise InputError(f"scene header of {len(octets)} octets, wanted at most {LONGEST_OCTETS}; shorten name or CRS")
    return octets + _check(octets, VERSION)


def _check(octets: bytes, version: int) -> bytes:
    found = crc_hqx(octets, 0xFFFF) if version == FIRST_VERSION else crc32(octets)
    return found.to_bytes(_CRC_OCTETS[version], "big")


def records(header: SceneHeader, codes: Iterable[TileCode]) -> Iterator[bytes]:
    """What goes down of a scene, in order: the header and the tile codes, the header repeated among them; at the end
    the header with what became of the tiles, twice, so that one lost packet does not hide the end."""
    fates: Counter[Kind] = Counter()
    for number, code in enumerate(codes):
        if number % REPEAT_TILES == 0:
            yield pack(header)
        fates[code.kind] += 1
        yield tile_code.pack(code)
    yield from [pack(replace(header, fates=fates))] * FINAL_HEADERS


def headers_on_air(header: SceneHeader, tile_codes: int, packet_octets: int) -> int:
    """Octets of packets that the headers of a scene of so many tile codes take."""
    return (-(-tile_codes // REPEAT_TILES) + FINAL_HEADERS) * octets_on_air(len(pack(header)), packet_octets)


def is_header(octets: bytes) -> bool:
    """Whether what was received is a scene header, and not a tile code."""
    return bool(octets) and octets[0] & 15 == MARK


def unpack(octets: bytes) -> SceneHeader:
    """Inverse of `pack`. StreamError where the octets are no whole header of this version, or contradict themselves."""
    version = octets[0] >> 4 if is_header(octets) else VERSION
    if version not in _CRC_OCTETS:
        raise StreamError(f"scene header of version {version}; this ground reads versions {FIRST_VERSION} to {VERSION}")
    body, check = octets[: -_CRC_OCTETS[version]], octets[-_CRC_OCTETS[version] :]
    if not _FIXED.size <= len(body) < len(octets) <= LONGEST_OCTETS or _check(body, version) != check:
        raise StreamError("scene header is cut short or its CRC does not match")
    _, flags, scene_id, bundle_id, tile_px, height, width, bits, *counts = _FIXED.unpack_from(body)
    if not (8 <= tile_px <= 4096 and tile_px % 8 == 0 and 0 < height < 1 << 31 and 0 < width < 1 << 31):
        raise StreamError(f"scene header: {height} x {width} px in tiles of {tile_px} px")
    if height * width > MOST_PIXELS or max(height, width) > tile_px << 16:
        raise StreamError(f"scene header: {height} x {width} px are more than this ground makes room for")
    try:
        info = _info(dict(_split(body[_FIXED.size :])), height, width, bits)
        fates = dict(zip(FATES, counts, strict=True)) if flags & FINAL else None
        return SceneHeader(scene_id, bundle_id, tile_px, info, fates)
    except (UnicodeDecodeError, struct.error, OverflowError, InputError) as error:
        raise StreamError(f"scene header: {error}") from None


def _fields(info: SceneInfo) -> Iterator[tuple[Tag, bytes]]:
    yield Tag.NAME, info.name.encode()
    yield Tag.BANDS, ",".join(info.bands).encode()
    yield Tag.GSD_M, struct.pack(">d", info.gsd_m)
    if info.sensed_at is not None:
        yield Tag.SENSED_AT, pack_time(info.sensed_at)
    if info.crs_wkt is not None:
        yield Tag.CRS, info.crs_wkt.encode()
    if info.transform is not None:
        yield Tag.TRANSFORM, struct.pack(">6d", *info.transform)
    if info.nodata is not None:
        yield Tag.NO_DATA, info.nodata.to_bytes(2, "big")
    if info.gcps:
        yield Tag.CONTROL_POINTS, b"".join(struct.pack(">5d", *point) for point in info.gcps)
    if info.band_shifts:
        yield Tag.BAND_SHIFTS, b"".join(struct.pack(">bb", *shift) for shift in info.band_shifts)
    if info.rpcs:
        yield Tag.RPCS, "\n".join(f"{name}={value}" for name, value in info.rpcs).encode()


def _info(fields: Mapping[int, bytes], height: int, width: int, bits: int) -> SceneInfo:
    def text(tag: Tag) -> str | None:
        return fields[tag].decode() if tag in fields else None

    def doubles(tag: Tag, count: int) -> tuple[float, ...] | None:
        return struct.unpack(f">{count}d", fields[tag]) if tag in fields else None

    bands = tuple((text(Tag.BANDS) or "").split(","))
    shifts = tuple(struct.iter_unpack(">bb", fields.get(Tag.BAND_SHIFTS, b"")))
    if shifts and len(shifts) != len(bands):
        raise InputError(f"{len(shifts)} shifts of {len(bands)} bands")
    return SceneInfo(
        name=text(Tag.NAME) or "", height_px=height, width_px=width, bands=bands,
        gsd_m=(doubles(Tag.GSD_M, 1) or (0.0,))[0], bits=bits,
        sensed_at=unpack_time(fields[Tag.SENSED_AT]) if Tag.SENSED_AT in fields else None,
        crs_wkt=text(Tag.CRS), transform=doubles(Tag.TRANSFORM, 6),  # type: ignore[arg-type]
        nodata=int.from_bytes(fields[Tag.NO_DATA], "big") if Tag.NO_DATA in fields else None,
        gcps=tuple(struct.iter_unpack(">5d", fields.get(Tag.CONTROL_POINTS, b""))),
        band_shifts=shifts,
        rpcs=tuple(_named(line) for line in (text(Tag.RPCS) or "").splitlines()),
    )  # fmt: skip


def _named(line: str) -> tuple[str, str]:
    name, _, value = line.partition("=")
    return name, value


def _field(tag: Tag, value: bytes) -> bytes:
    if len(value) > LONGEST_OCTETS:
        raise InputError(f"scene header: {tag.name} of {len(value)} octets, wanted at most {LONGEST_OCTETS}")
    return bytes([tag]) + len(value).to_bytes(2, "big") + value


def _split(octets: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at < len(octets):
        length = int.from_bytes(octets[at + 1 : at + 3], "big")
        value = octets[at + 3 : at + 3 + length]
        if at + 3 + length > len(octets):
            raise StreamError(f"scene header: field {octets[at]} runs past its end")
        yield octets[at], value
        at += 3 + length


def pack_time(iso: str) -> bytes:
    """A time (ISO 8601; UTC where it names no zone) as CCSDS day segmented code: 16 + 32 + 16 bits, to microseconds."""
    try:
        time = datetime.fromisoformat(iso)
    except ValueError:
        raise InputError(f"sensing time {iso!r}, wanted ISO 8601 as in 2026-11-26T10:30:00Z") from None
    since = time.replace(tzinfo=time.tzinfo or UTC) - EPOCH
    if not 0 <= since.days < 1 << 16:
        raise InputError(f"sensing time {iso!r}, wanted a day of 1958 to 2137")
    return struct.pack(">HIH", since.days, since.seconds * 1000 + since.microseconds // 1000, since.microseconds % 1000)


def unpack_time(octets: bytes) -> str:
    """Inverse of `pack_time`: ISO 8601 in UTC, with as many decimals as it needs."""
    days, milliseconds, microseconds = struct.unpack(">HIH", octets)
    time = EPOCH + timedelta(days=days, milliseconds=milliseconds, microseconds=microseconds)
    decimals = "auto" if not time.microsecond else "milliseconds" if time.microsecond % 1000 == 0 else "microseconds"
    return time.isoformat(timespec=decimals).replace("+00:00", "Z")
