"""Streams and housekeeping: which APID and channel a record goes down in, and what the ground is told of it."""

from datetime import UTC, datetime, timedelta
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from payload.errors import InputError, StreamError
from payload.link import tile_code
from payload.link.housekeeping import Housekeeping, Status, octets_with, pack, unpack
from payload.link.space_packet import unpack as unpack_packet
from payload.link.streams import Sender, Stream, apids_of, stream_of, with_channels
from payload.link.tile_code import Kind, TileCode
from payload.policy import Policy

counts = st.integers(0, 2**32 - 1)
times = st.one_of(
    st.none(),
    st.integers(0, 86_400 * 10**6 * 60_000).map(
        lambda us: (datetime(1958, 1, 1, tzinfo=UTC) + timedelta(microseconds=us)).isoformat().replace("+00:00", "Z")
    ),
)
statuses = st.builds(Status, st.integers(0, 255), counts, st.lists(counts, max_size=40).map(tuple))
records = st.builds(Housekeeping, times, counts, st.tuples(*[counts] * 6), st.tuples(*[counts] * 4), statuses)


def test_housekeeping_by_hand() -> None:
    status = Status(1, 0xA1A2A3A4, (7, 8))
    octets = pack(Housekeeping("1958-01-02T00:00:01.002Z", 1, (2, 0, 0, 0, 3, 0), (4, 5, 0, 6), status))
    sent = (
        "0001" "000003ea" "0000"  # day 1, 1002 ms, 0 us
        "00000001"  # one scene
        "00000002" "00000000" "00000000" "00000000" "00000003" "00000000"  # tile codes by kind
        "00000004" "00000005" "00000000" "00000006"  # packets by stream
    )  # fmt: skip
    wanted = bytes.fromhex("2e" + sent + "01" "a1a2a3a4" "02" "00000007" "00000008")  # mode, scene, two counters
    assert octets == wanted + crc32(wanted).to_bytes(4, "big") and len(octets) == octets_with(2)
    older = bytes.fromhex("1e" + sent)  # version 1 ends behind the packets
    record = unpack(older + crc32(older).to_bytes(4, "big"))
    assert (record.tiles, record.status) == ((2, 0, 0, 0, 3, 0), Status())


def test_a_clock_that_was_never_set_is_all_ones() -> None:
    assert pack(Housekeeping(None, 0))[1:9] == b"\xff" * 8


@given(records)
def test_unpack_is_the_inverse_of_pack(record) -> None:
    octets = pack(record)
    found = unpack(octets)
    assert pack(found) == octets and (found.scenes, found.tiles, found.packets, found.status) == (
        record.scenes, record.tiles, record.packets, record.status,
    )  # fmt: skip
    assert (found.time is None) == (record.time is None)


@given(records, st.integers(0, 8 * octets_with(40) - 1))
def test_a_flipped_bit_is_refused(record, bit) -> None:
    octets = bytearray(pack(record))
    bit %= 8 * len(octets)
    octets[bit // 8] ^= 0x80 >> bit % 8
    with pytest.raises(StreamError):
        unpack(bytes(octets))


@given(st.binary(max_size=100))
def test_octets_of_any_kind_are_refused_and_raise_nothing_else(octets) -> None:
    with pytest.raises(StreamError):
        unpack(octets)


def test_every_stream_has_its_apid_its_channel_and_its_counter() -> None:
    sender = Sender(Policy(apid=100))
    codes = [TileCode(kind, 0, 0, 1, scene_id=1) for kind in (Kind.WITHHELD, Kind.AUDIT, Kind.EMPTY, Kind.AUDIT)]
    packets = sender.begin_scene()
    for code in codes:
        packets += sender.packets(tile_code.pack(code))
    packets += sender.housekeeping()
    found = [(unpack_packet(packet).apid, unpack_packet(packet).count) for packet in packets]
    assert found == [(101, 0), (100, 0), (103, 0), (100, 1), (103, 1), (101, 1)]
    assert [channel for channel, _ in with_channels(packets, 100)] == [1, 0, 3, 0, 3, 1]
    assert list(apids_of(100)) == [100, 101, 102, 103]


def test_housekeeping_counts_what_went_before_it() -> None:
    sender = Sender(Policy(packet_octets=64), "2026-06-21T00:00:00Z")
    assert len(sender.begin_scene()) == 2  # 63 octets of a record do not fit 56 of a packet
    sender.packets(tile_code.pack(TileCode(Kind.AUDIT, 0, 0, 1, scene_id=1, side=bytes(100), layers=(bytes(10),))))
    one, two = sender.housekeeping()
    record = unpack(unpack_packet(one).data + unpack_packet(two).data)
    assert record == Housekeeping("2026-06-21T00:00:00Z", 1, (0, 0, 0, 0, 1, 0), (0, 2, 0, 3))


def test_marks_tell_records_apart() -> None:
    assert stream_of(pack(Housekeeping(None, 0))) is Stream.TELEMETRY
    assert stream_of(tile_code.pack(TileCode(Kind.AUDIT, 0, 0, 1))) is Stream.THUMBNAILS
    assert stream_of(tile_code.pack(TileCode(Kind.EMPTY, 0, 0, 1))) is Stream.LAYERS


def test_too_few_counters_are_misuse() -> None:
    with pytest.raises(InputError, match="5 kinds, 4 streams and 0 counters, wanted 6, 4"):
        Housekeeping(None, 0, (0,) * 5)
