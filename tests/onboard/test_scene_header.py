"""Scene headers: the law of the wire, octets by hand, times against another library, hostile octets."""

from binascii import crc_hqx
from dataclasses import replace
from datetime import UTC, datetime
from zlib import crc32

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from spacepackets.ccsds.time import CdsShortTimestamp

from payload.errors import InputError, StreamError
from payload.link.scene_header import FATES, SceneHeader, is_header, pack, pack_time, unpack, unpack_time
from payload.link.tile_code import Kind
from payload.scene import SceneInfo

doubles = st.floats(allow_nan=False)
times = st.datetimes(datetime(1958, 1, 1), datetime(2136, 12, 31))
infos = st.builds(
    SceneInfo,
    name=st.text(st.characters(codec="utf-8"), max_size=40),
    height_px=st.integers(1, 60_000),
    width_px=st.integers(1, 60_000),
    bands=st.lists(st.text("B0123456789", min_size=1, max_size=4), min_size=1, max_size=13).map(tuple),
    gsd_m=doubles,
    bits=st.integers(1, 16),
    sensed_at=st.none() | times.map(lambda t: unpack_time(pack_time(t.isoformat()))),
    crs_wkt=st.none() | st.text(st.characters(codec="utf-8"), max_size=200),
    transform=st.none() | st.tuples(*[doubles] * 6),
    nodata=st.none() | st.integers(0, 65535),
    gcps=st.lists(st.tuples(*[doubles] * 5), max_size=4).map(tuple),
    rpcs=st.lists(st.tuples(st.text("ABC_", min_size=1), st.text("-+.0123456789 ", min_size=1)), max_size=3).map(tuple),
)
moved = st.tuples(st.integers(-128, 127), st.integers(-128, 127))
infos = infos.flatmap(
    lambda info: st.lists(moved, min_size=len(info.bands), max_size=len(info.bands)).map(
        lambda shifts: replace(info, band_shifts=tuple(shifts))
    )
    | st.just(info)
)
headers = st.builds(
    SceneHeader, st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1), st.sampled_from([64, 256]), infos,
    st.none() | st.fixed_dictionaries({kind: st.integers(0, 2**32 - 1) for kind in FATES}),
)  # fmt: skip
PLAIN = SceneHeader(0xA1A2A3A4, 0x0A0B0C0D, 256, SceneInfo("s", 300, 700, ("B02", "B03"), 10.0))


@settings(deadline=None)
@given(headers)
def test_unpack_is_the_inverse_of_pack(header) -> None:
    found = unpack(pack(header))
    assert found == header and found.fates == header.fates
    assert is_header(pack(header))


def test_a_header_by_hand() -> None:
    last = replace(PLAIN, fates={Kind.CODED: 5, Kind.WITHHELD: 1})
    head = bytes.fromhex(
        "2f"  # version 2 (4 bits), 15: no tile code
        "01"  # final
        "a1a2a3a4 0a0b0c0d"  # scene, bundle
        "0100 0000012c 000002bc 0c"  # tiles of 256 px, 300 x 700 px, 12 bits
        "00000005 00000001 00000000 00000000 00000000 00000000"  # coded, withheld, empty, fallback, audit, omitted
        "01 0001 73"  # name: s
        "02 0007 4230322c423033"  # bands: B02,B03
        "07 0008 4024000000000000"  # GSD 10.0 m as a double
    )
    assert pack(last) == head + crc32(head).to_bytes(4, "big")
    assert last.grid == (2, 3)


def test_a_header_of_an_older_payload_stays_readable() -> None:
    """Version 1: the same fields, the CRC of packets."""
    head = b"\x1f" + pack(PLAIN)[1:-4]
    octets = head + crc_hqx(head, 0xFFFF).to_bytes(2, "big")
    assert unpack(octets) == PLAIN and is_header(octets)
    with pytest.raises(StreamError, match="cut short or its CRC"):
        unpack(octets[:-1])
    with pytest.raises(StreamError, match="version 3; this ground reads versions 1 to 2"):
        unpack(b"\x3f" + octets[1:])


@given(st.datetimes(datetime(1970, 1, 1), datetime(2136, 12, 31)))  # theirs rounds days before 1970 the other way
def test_sensing_times_are_the_day_segmented_code_of_another_library(time) -> None:
    octets = pack_time(time.isoformat())
    theirs = CdsShortTimestamp.from_datetime(time.replace(tzinfo=UTC))
    ours_ms, theirs_ms = (int.from_bytes(o[:2], "big") * 86_400_000 + int.from_bytes(o[2:6], "big")
                          for o in (octets, theirs.pack()[1:]))  # fmt: skip
    assert abs(ours_ms - theirs_ms) <= 1  # theirs has no microseconds and goes through a float


def test_fields_of_a_later_version_are_passed_over() -> None:
    octets = pack(PLAIN)[:-4] + bytes.fromhex("c8 0003 010203")
    assert unpack(octets + crc32(octets).to_bytes(4, "big")) == PLAIN


@settings(max_examples=300)
@given(st.binary(max_size=120) | st.tuples(st.integers(0, 62), st.binary(min_size=1, max_size=4)).map(
    lambda change: pack(PLAIN)[: change[0]] + change[1] + pack(PLAIN)[change[0] + len(change[1]) : -4]))  # fmt: skip
def test_hostile_octets_are_refused_or_make_sense(octets) -> None:
    for sent in (octets, octets + crc32(octets).to_bytes(4, "big")):
        try:
            found = unpack(sent)
        except StreamError:
            continue
        assert found.info.height_px * found.info.width_px <= 1 << 34


def test_no_flipped_bit_goes_unnoticed() -> None:
    octets = pack(PLAIN)
    for bit in range(8 * len(octets)):
        flipped = bytearray(octets)
        flipped[bit // 8] ^= 0x80 >> bit % 8
        with pytest.raises(StreamError):
            unpack(bytes(flipped))


def test_what_does_not_fit_is_refused_when_it_is_made() -> None:
    with pytest.raises(InputError, match="wanted ISO 8601"):
        pack_time("yesterday")
    with pytest.raises(InputError, match="shorten name or CRS"):
        pack(replace(PLAIN, info=replace(PLAIN.info, crs_wkt="x" * 16_000, name="y" * 2_000)))
    with pytest.raises(InputError, match="scene_id"):
        replace(PLAIN, scene_id=1 << 32)
