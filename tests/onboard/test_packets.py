"""Space packets: bytes by hand, one law per direction, an independent parser, damage, hostile octets."""

import io
import random
from binascii import crc_hqx

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from payload.errors import PacketError, StreamError
from payload.link.space_packet import (
    COUNTS,
    IDLE_APID,
    LONGEST_PACKET_OCTETS,
    OVERHEAD_OCTETS,
    REORDER_PACKETS,
    Assembly,
    Packet,
    Reassembler,
    SequenceCounter,
    SequenceFlag,
    octets_on_air,
    pack,
    packets_needed,
    read_packets,
    segment,
    unpack,
)

APID = 0x2A1

packets = st.builds(
    Packet,
    apid=st.integers(0, IDLE_APID),
    count=st.integers(0, COUNTS - 1),
    flag=st.sampled_from(SequenceFlag),
    data=st.binary(min_size=1, max_size=300),
)


def tiles_to_packets(tiles, packet_octets=40, start=0):
    counter = SequenceCounter(APID, start)
    return [list(segment(tile, counter, packet_octets)) for tile in tiles]


def receive(packets, **kwargs):
    reassembler = Reassembler(APID, **kwargs)
    assemblies = [assembly for packet in packets for assembly in reassembler.push(packet)]
    return [*assemblies, *reassembler.finish()], reassembler.counts


def tile(number, octets=100):
    return random.Random(number).randbytes(octets)


# --- octets -----------------------------------------------------------------------------------------------------


def crc_bit_by_bit(octets):
    """CRC-16/CCITT-FALSE from its definition: polynomial x^16 + x^12 + x^5 + 1, start 0xFFFF, nothing reflected."""
    register = 0xFFFF
    for octet in octets:
        for bit in range(7, -1, -1):
            feedback = (register >> 15) ^ (octet >> bit & 1)
            register = (register << 1 & 0xFFFF) ^ (0x1021 if feedback else 0)
    return register


def test_crc_has_the_published_check_value():
    assert crc_bit_by_bit(b"123456789") == crc_hqx(b"123456789", 0xFFFF) == 0x29B1


def test_a_packet_octet_by_octet():
    octets = pack(Packet(apid=0x2A1, count=0x1234, flag=SequenceFlag.FIRST, data=b"\xca\xfe\x00"))
    body = bytes(
        [
            0b000_0_0_010,  # version 000 | type 0 telemetry | no secondary header | APID bits 10..8 of 010 1010 0001
            0b1010_0001,  # APID bits 7..0
            0b01_010010,  # flags 01 first segment | count bits 13..8 of 01 0010 0011 0100
            0b0011_0100,  # count bits 7..0
            0x00,  # data field: 3 octets of segment + 2 of CRC = 5, minus 1
            0x04,
            *(0xCA, 0xFE, 0x00),  # the segment
        ]
    )
    assert octets == body + crc_bit_by_bit(body).to_bytes(2, "big")


def test_the_shortest_packet_is_nine_octets():
    # APID 0, whole (11), count 0, data field 3 octets - 1 = 2, one octet 'A', CRC
    assert pack(Packet(0, 0, SequenceFlag.WHOLE, b"A")) == bytes.fromhex("0000 c000 0002 41 fcf1")
    assert crc_bit_by_bit(bytes.fromhex("0000 c000 0002 41")) == 0xFCF1


@given(packets)
def test_unpack_is_the_inverse_of_pack(packet):
    assert unpack(pack(packet)) == packet


@given(packets, st.data())
def test_any_burst_of_up_to_16_bits_is_refused(packet, data):
    octets = bytearray(pack(packet))
    bits = 8 * len(octets)
    length = data.draw(st.integers(1, 16))
    start = data.draw(st.integers(0, bits - length))
    pattern = data.draw(st.integers(0, 2**length - 1)) | 1 | 1 << (length - 1)  # a burst begins and ends in error
    value = int.from_bytes(octets, "big") ^ pattern << (bits - start - length)
    with pytest.raises(StreamError):
        unpack(value.to_bytes(len(octets), "big"))


def test_the_longest_packet_fits_its_length_field():
    longest = Packet(APID, 0, SequenceFlag.WHOLE, bytes(65534))
    octets = pack(longest)
    assert len(octets) == LONGEST_PACKET_OCTETS == 65542
    assert octets[4:6] == b"\xff\xff"
    assert unpack(octets) == longest


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"apid": 2048}, "apid 2048 does not fit in 11 bits"),
        ({"apid": -1}, "apid -1 does not fit"),
        ({"count": 16384}, "count 16384 does not fit in 14 bits"),
        ({"data": b""}, "0 octets do not fit"),
        ({"data": bytes(65535)}, "65535 octets do not fit"),
    ],
)
def test_a_value_that_does_not_fit_is_misuse(fields, message):
    with pytest.raises(PacketError, match=message):
        Packet(**{"apid": 1, "count": 0, "flag": SequenceFlag.WHOLE, "data": b"A"} | fields)


@pytest.mark.parametrize("first_octet", [0b001_0_0_010, 0b000_1_0_010, 0b000_0_1_010])
def test_other_versions_types_and_secondary_headers_are_refused(first_octet):
    body = bytes([first_octet]) + pack(Packet(APID, 0, SequenceFlag.WHOLE, b"A"))[1:-2]
    with pytest.raises(StreamError, match="not a telemetry packet"):
        unpack(body + crc_hqx(body, 0xFFFF).to_bytes(2, "big"))


def test_a_wrong_length_field_under_a_right_crc_is_refused():
    body = bytearray(pack(Packet(APID, 0, SequenceFlag.WHOLE, b"ABC"))[:-2])
    body[5] += 1
    with pytest.raises(StreamError, match="length field says 12 octets, 11 came"):
        unpack(bytes(body) + crc_hqx(body, 0xFFFF).to_bytes(2, "big"))


def test_an_independent_parser_reads_the_same_fields():
    ccsdspy = pytest.importorskip("ccsdspy", reason="ccsdspy is the oracle here: pip install 'nadir-payload[test]'")
    data = tile(5, 1000)
    stream = b"".join(p for part in tiles_to_packets([data, tile(6, 3)], 100, start=16380) for p in part)
    body = ccsdspy.PacketArray(name="body", data_type="uint", bit_length=8, array_shape="expand")
    crc = ccsdspy.PacketField(name="crc", data_type="uint", bit_length=16)
    fields = ccsdspy.VariableLength([body, crc]).load(io.BytesIO(stream), include_primary_header=True)
    assert (
        set(fields["CCSDS_VERSION_NUMBER"])
        == set(fields["CCSDS_PACKET_TYPE"])
        == set(fields["CCSDS_SECONDARY_FLAG"])
        == {0}
    )
    assert set(fields["CCSDS_APID"]) == {APID}
    assert list(fields["CCSDS_SEQUENCE_FLAG"]) == [1, *[0] * 9, 2, 3]
    assert list(fields["CCSDS_SEQUENCE_COUNT"]) == [16380, 16381, 16382, 16383, 0, 1, 2, 3, 4, 5, 6, 7]
    assert list(fields["CCSDS_PACKET_LENGTH"]) == [93] * 10 + [81, 4]
    assert b"".join(bytes(octets) for octets in fields["body"][:11]) == data


# --- sending ----------------------------------------------------------------------------------------------------


@given(st.binary(min_size=1, max_size=2000), st.integers(9, 200), st.integers(0, COUNTS - 1))
def test_segments_join_to_the_data(data, packet_octets, start):
    sent = list(segment(data, SequenceCounter(APID, start), packet_octets))
    parts = [unpack(packet) for packet in sent]
    assert b"".join(part.data for part in parts) == data
    assert max(map(len, sent)) <= packet_octets
    assert len(sent) == packets_needed(len(data), packet_octets)
    assert sum(map(len, sent)) == octets_on_air(len(data), packet_octets)
    assert [part.count for part in parts] == [(start + i) % COUNTS for i in range(len(sent))]
    middle = [SequenceFlag.FIRST, *[SequenceFlag.CONTINUATION] * (len(sent) - 2), SequenceFlag.LAST]
    assert [part.flag for part in parts] == ([SequenceFlag.WHOLE] if len(sent) == 1 else middle)


def test_the_counter_wraps_after_14_bits():
    counter = SequenceCounter(APID, 16382)
    assert [counter.take() for _ in range(3)] == [16382, 16383, 0]


@pytest.mark.parametrize("packet_octets", [OVERHEAD_OCTETS, LONGEST_PACKET_OCTETS + 1])
def test_packet_sizes_that_cannot_be_are_refused_before_the_first_packet(packet_octets):
    with pytest.raises(PacketError, match="packet_octets is"):
        segment(b"A", SequenceCounter(APID), packet_octets)


def test_nothing_to_send_and_the_idle_apid_are_misuse():
    with pytest.raises(PacketError, match="0 octets"):
        segment(b"", SequenceCounter(APID), 100)
    with pytest.raises(PacketError, match="idle"):
        SequenceCounter(IDLE_APID)


# --- receiving --------------------------------------------------------------------------------------------------


@given(st.lists(st.binary(min_size=1, max_size=300), max_size=8), st.integers(9, 64), st.integers(0, COUNTS - 1))
def test_what_was_sent_is_what_is_received(tiles, packet_octets, start):
    sent = [p for part in tiles_to_packets(tiles, packet_octets, start) for p in part]
    assemblies, counts = receive(sent)
    assert assemblies == [Assembly(data, complete=True) for data in tiles]
    assert counts.received == len(sent)
    assert (counts.refused, counts.foreign, counts.late, counts.missing, counts.orphaned) == (0, 0, 0, 0, 0)


def test_the_count_wraps_in_the_middle_of_a_tile_and_over_many_wraps():
    tiles = [tile(i, 50) for i in range(3 * COUNTS // 50)]
    sent = [p for part in tiles_to_packets(tiles, OVERHEAD_OCTETS + 1, 16370) for p in part]
    assert len(sent) > 2.9 * COUNTS
    assemblies, counts = receive(sent)
    assert [a.data for a in assemblies] == tiles
    assert counts.missing == counts.late == 0


def test_a_lost_middle_segment_leaves_the_beginning():
    first, second = tiles_to_packets([tile(1), tile(2)])  # 4 packets of 32, 32, 32, 4 octets each
    assemblies, counts = receive([*first[:2], first[3], *second])
    assert assemblies == [
        Assembly(tile(1)[:64], complete=False, cause="1 packet lost after 64 octets"),
        Assembly(tile(2), complete=True),
    ]
    assert (counts.missing, counts.orphaned) == (1, 1)


def test_a_lost_first_segment_orphans_the_rest_of_its_tile_only():
    one, two, three = tiles_to_packets([tile(1), tile(2), tile(3)])
    assemblies, counts = receive([*one, *two[1:], *three])
    assert [a.data for a in assemblies] == [tile(1), tile(3)]
    assert (counts.missing, counts.orphaned) == (1, 3)


def test_the_end_of_one_and_the_beginning_of_the_next_lost_never_mix():
    one, two, three = tiles_to_packets([tile(1), tile(2), tile(3)])
    assemblies, counts = receive([*one[:3], *two[1:], *three])
    assert assemblies == [
        Assembly(tile(1)[:96], complete=False, cause="2 packets lost after 96 octets"),
        Assembly(tile(3), complete=True),
    ]
    assert (counts.missing, counts.orphaned) == (2, 3)


def test_a_stream_that_stops_gives_the_beginning_of_its_last_tile():
    (sent,) = tiles_to_packets([tile(1)])
    assemblies, _ = receive(sent[:2])
    assert assemblies == [Assembly(tile(1)[:64], complete=False, cause="the stream ended before its last segment")]


def test_duplicates_and_foreign_packets_are_counted_and_ignored():
    (sent,) = tiles_to_packets([tile(1)])
    foreign = [pack(Packet(apid, 0, SequenceFlag.WHOLE, b"x")) for apid in (APID + 1, IDLE_APID)]
    assemblies, counts = receive([*sent[:3], *sent[:3], *foreign, *sent[3:], *sent])
    assert assemblies == [Assembly(tile(1), complete=True)]
    assert (counts.received, counts.late, counts.foreign) == (13, 7, 2)


def test_a_stream_sent_twice_over_is_no_restart():
    tiles = [tile(i) for i in range(50)]
    assemblies, counts = receive([p for part in tiles_to_packets(tiles) for p in part for _ in range(2)])
    assert [a.data for a in assemblies] == tiles
    assert (counts.late, counts.restarts) == (200, 0)


def test_a_packet_of_another_application_first_costs_nothing():
    reassembler = Reassembler(7)
    for apid in (IDLE_APID, 8):
        assert reassembler.push(pack(Packet(apid, 0, SequenceFlag.WHOLE, b"theirs"))) == []
    reassembler.push(pack(Packet(7, 0, SequenceFlag.WHOLE, b"ours")))
    assert [a.data for a in reassembler.finish()] == [b"ours"]
    assert reassembler.counts.foreign == 2


def test_a_second_run_behind_the_first_loses_nothing():
    """Both start at count 0: other octets under a count that was delivered show that the count started again."""
    runs = [[tile(100 * run + i) for i in range(60)] for run in range(3)]
    sent = [p for run in runs for part in tiles_to_packets(run) for p in part]
    assemblies, counts = receive(sent)
    assert [a.data for a in assemblies] == [t for run in runs for t in run]
    assert (counts.restarts, counts.late) == (2, 0)


@settings(max_examples=50)
@given(st.randoms(use_true_random=False))
def test_packets_overtaken_by_up_to_the_window_come_back_in_order(rng):
    tiles = [tile(i, rng.randrange(1, 200)) for i in range(30)]
    sent = [p for part in tiles_to_packets(tiles, start=16300) for p in part]
    # a packet put back by d places is overtaken by at most d + d others when each is put back by 0..d
    places = sorted(range(len(sent)), key=lambda i: (i + rng.uniform(0, REORDER_PACKETS / 2), i))
    assemblies, counts = receive([sent[i] for i in places])
    assert [a.data for a in assemblies] == tiles
    assert counts.late == counts.missing == 0


def test_a_packet_overtaken_by_one_more_than_the_window_is_lost():
    sent = [p for part in tiles_to_packets([bytes([i]) for i in range(100)]) for p in part]
    for overtaken_by, lost in ((REORDER_PACKETS, 0), (REORDER_PACKETS + 1, 1)):
        order = [*sent[:10], *sent[11 : 11 + overtaken_by], sent[10], *sent[11 + overtaken_by :]]
        assemblies, counts = receive(order)
        assert len(assemblies) == 100 - lost
        assert (counts.missing, counts.late) == (lost, lost)


def test_a_long_outage_is_one_gap():
    tiles = [bytes([i % 256]) for i in range(13000)]
    sent = [p for part in tiles_to_packets(tiles) for p in part]
    assemblies, counts = receive([*sent[:100], *sent[12100:]])
    assert [a.data for a in assemblies] == [*tiles[:100], *tiles[12100:]]
    assert counts.missing == 12000


def test_a_restarted_counter_costs_nothing_and_never_mixes_tiles():
    before = [p for part in tiles_to_packets([tile(i) for i in range(50)]) for p in part]
    after = [p for part in tiles_to_packets([tile(100 + i) for i in range(50)]) for p in part]
    assemblies, counts = receive([*before[:-1], *after])
    whole = [a.data for a in assemblies if a.complete]
    assert counts.restarts == 1
    assert whole[:49] == [tile(i) for i in range(49)]
    assert whole[49:] == [tile(100 + i) for i in range(50)]


@settings(max_examples=60)
@given(st.data())
def test_under_any_damage_every_assembly_is_a_beginning_of_what_was_sent(data):
    rng = random.Random(data.draw(st.integers(0, 2**32)))
    tiles = [tile(i, rng.randrange(1, 300)) for i in range(20)]
    sent = [p for part in tiles_to_packets(tiles, start=rng.randrange(COUNTS)) for p in part]
    through = []
    for packet in sent:
        fate = rng.random()
        if fate < 0.1:
            continue
        if fate < 0.2:
            damaged = bytearray(packet)
            damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)  # one bit: the CRC always sees it
            through.append(bytes(damaged))
            continue
        through.extend([packet] * (2 if fate < 0.3 else 1))
    assemblies, counts = receive(through)
    assert counts.received == len(through)
    remaining = iter(tiles)
    for assembly in assemblies:  # in sending order, each one the beginning of a tile
        sender = next(
            t for t in remaining if t.startswith(assembly.data) and (len(t) == len(assembly.data)) == assembly.complete
        )
        assert assembly.complete == (assembly.cause is None)
        assert sender.startswith(assembly.data)


@settings(max_examples=200)
@given(st.lists(st.one_of(st.binary(max_size=40), packets.map(pack)), max_size=60))
def test_hostile_octets_never_raise(pieces):
    reassembler = Reassembler(APID, longest_data_octets=500)
    for piece in pieces:
        for assembly in reassembler.push(piece):
            assert len(assembly.data) <= 500 + 300
        assert len(reassembler._held) <= REORDER_PACKETS
    reassembler.finish()
    assert reassembler.counts.received == len(pieces)


def test_a_tile_without_end_is_cut_off():
    endless = [pack(Packet(APID, 0, SequenceFlag.FIRST, bytes(50)))]
    endless += [pack(Packet(APID, i, SequenceFlag.CONTINUATION, bytes(50))) for i in range(1, 30)]
    assemblies, counts = receive(endless, longest_data_octets=1000)
    assert [(len(a.data), a.complete, a.cause) for a in assemblies] == [(1050, False, "longer than 1000 octets")]
    assert counts.orphaned == 9


# --- the stream in a file ---------------------------------------------------------------------------------------


class Dribble(io.RawIOBase):
    """A file that gives a few octets at a time."""

    def __init__(self, octets, step):
        self._octets, self._step = octets, step

    def read(self, size=-1):
        piece, self._octets = self._octets[: self._step], self._octets[self._step :]
        return piece


@given(st.lists(packets, max_size=20))
def test_reading_an_undamaged_stream_gives_its_packets(sent):
    stream = b"".join(map(pack, sent))
    assert [unpack(piece) for piece in read_packets(stream)] == sent
    assert list(read_packets(io.BytesIO(stream))) == list(read_packets(stream))


@settings(max_examples=200)
@given(
    st.lists(st.one_of(st.binary(max_size=60), packets.map(pack), packets.map(lambda p: pack(p)[3:])), max_size=15),
    st.sampled_from([(), (APID,), range(APID, APID + 4)]),
    st.sampled_from([9, 20, 400, LONGEST_PACKET_OCTETS]),
    st.integers(1, 50),
)
def test_the_pieces_of_any_stream_join_to_the_stream(pieces, apids, longest, step):
    stream = b"".join(pieces)
    found = list(read_packets(stream, apids, longest))
    assert b"".join(found) == stream
    assert all(0 < len(piece) <= longest for piece in found)
    assert list(read_packets(Dribble(stream, step), apids, longest)) == found


@pytest.mark.parametrize("apids", [(), (APID,)])
def test_after_damage_reading_begins_again_at_the_next_packet(apids):
    sent = [p for part in tiles_to_packets([tile(i) for i in range(10)]) for p in part]
    for hit in range(len(sent[5])):  # any octet of one packet destroyed, its length field included
        damaged = bytearray(sent[5])
        damaged[hit] ^= 0xFF
        stream = b"".join([*sent[:5], damaged, *sent[6:]])
        found = list(read_packets(stream, apids))
        assert [p for p in found if p in sent] == [*sent[:5], *sent[6:]]
        assert b"".join(p for p in found if p not in sent) == damaged


@pytest.mark.parametrize("apids", [(), (APID,)])
def test_octets_cut_out_of_the_stream_cost_the_packets_they_were_in(apids):
    sent = [p for part in tiles_to_packets([tile(i) for i in range(10)]) for p in part]
    stream = b"".join(sent)
    at = sum(map(len, sent[:9])) + 11
    for cut in (1, 5, 60):  # 60 octets: the rest of packet 9, and some of packet 10
        found = list(read_packets(stream[:at] + stream[at + cut :], apids))
        assert [p for p in found if p in sent] == [*sent[:9], *sent[10 if cut < 29 else 11 :]]


def test_a_damaged_stretch_longer_than_the_window_is_passed_over():
    (sent,) = tiles_to_packets([tile(1)])
    noise = random.Random(3).randbytes(3_000_000)
    found = list(read_packets(b"".join([sent[0], noise, *sent[1:]]), (APID,), 1024))
    assert [p for p in found if p in sent] == sent
    assert max(map(len, found)) <= 1024


def test_packets_are_found_at_every_offset_of_a_damaged_stretch():
    packet = pack(Packet(APID, 3, SequenceFlag.WHOLE, b"here"))
    for before in range(1, 130):  # the piece limit of 60 octets falls on every place of the packet's header
        found = list(read_packets(b"\xff" * before + packet, (APID,), 60))
        assert found[-1] == packet
