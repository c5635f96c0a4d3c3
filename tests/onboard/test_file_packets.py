"""What carries files in space packets: CFDP PDUs and RaptorQ symbols, by hand, as laws, and on hostile octets."""

from binascii import crc_hqx
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from payload.errors import PacketError, StreamError
from payload.link import fountain_packet
from payload.link.file_pdu import CFDP_APID, pack_down, pack_up, parse_pdu, unpack_down, unpack_up
from payload.link.fountain_packet import Generation, Symbol
from payload.link.space_packet import SequenceCounter

#: Metadata PDU of transaction 1 from entity 1 to entity 2: a file of 5 octets, "a" to "b", CRC-32, class 2.
METADATA = bytes.fromhex(
    "20 000a 01"  # version 1, directive, towards the receiver, acknowledged; 10 octets of data; ids 1, number 2 octets
    "01 0001 02"  # source, number, destination
    "07 03 00000005"  # Metadata; no closure, checksum type 3; file size
    "0161 0162"  # names, each behind its length
)


def test_a_pdu_goes_down_as_by_hand():
    packet = pack_down(METADATA, SequenceCounter(CFDP_APID))
    octets = bytes.fromhex("07fd c000 0013") + METADATA  # telemetry, APID 2045, whole, count 0; 18 + 2 - 1
    assert packet == octets + crc_hqx(octets, 0xFFFF).to_bytes(2, "big")
    assert unpack_down(packet) == METADATA


def test_a_pdu_goes_up_in_a_telecommand_packet():
    packet = pack_up(METADATA, SequenceCounter(CFDP_APID, 7))
    assert packet[:6].hex() == "17fdc0070013" and unpack_up(packet) == METADATA
    with pytest.raises(StreamError):
        unpack_down(packet)


def test_the_parser_reads_the_pdu_by_hand():
    pdu = parse_pdu(METADATA)
    assert (pdu.source_file_name, pdu.dest_file_name, pdu.file_size) == ("a", "b", 5)


@given(st.binary(min_size=1, max_size=60), st.integers(0, 16383))
def test_unpacking_is_the_inverse_of_packing_both_ways(pdu, count):
    assert unpack_down(pack_down(pdu, SequenceCounter(CFDP_APID, count))) == pdu
    assert unpack_up(pack_up(pdu, SequenceCounter(CFDP_APID, count))) == pdu


@given(st.one_of(st.binary(max_size=80), st.binary(max_size=40).map(lambda tail: METADATA[:9] + tail)))
def test_any_octets_are_a_pdu_or_refused(octets):
    try:
        parse_pdu(octets)
    except StreamError as error:
        assert str(error).startswith("no CFDP PDU")


@given(st.binary(max_size=30))
def test_any_octets_are_a_telecommand_or_refused(octets):
    with pytest.raises(StreamError):
        unpack_up(octets)


generations = st.builds(
    Generation, st.integers(0, 65535), st.integers(0, 2**40 - 1), st.integers(1, 65536), st.integers(0, 2**32 - 1),
    st.integers(2, 100).map(lambda n: 8 * n),
)  # fmt: skip


@given(generations, st.integers(0, 2**24 - 1), st.data())
def test_unpacking_a_symbol_is_the_inverse_of_packing(generation, number, data):
    symbol = Symbol(generation, number, data.draw(st.binary(min_size=8, max_size=8)) * (generation.symbol_octets // 8))
    assert fountain_packet.unpack(fountain_packet.pack(symbol)) == symbol


def test_a_symbol_by_hand():
    symbol = Symbol(Generation(0x0102, 0x0A0B0C0D0E, 0x11, 0xDEADBEEF, 8), 5, b"eight oc")
    octets = bytes.fromhex("01 0102 0a0b0c0d0e 00000011 deadbeef 00 000005") + b"eight oc"
    assert fountain_packet.pack(symbol) == octets
    for wrong in (b"\x02" + octets[1:], octets[:-1], octets[:20], octets[:16] + b"\x01" + octets[17:]):
        with pytest.raises(StreamError):
            fountain_packet.unpack(wrong)


@given(st.binary(max_size=60).map(lambda tail: b"\x01" + tail))
def test_any_octets_are_a_symbol_or_refused(octets):
    with suppress(StreamError):
        assert fountain_packet.pack(fountain_packet.unpack(octets)) == octets


def test_a_generation_is_bounded():
    for octets, symbol in ((0, 8), (2**22 + 1, 1024), (2**22, 8), (100, 7), (100, 0)):
        with pytest.raises(PacketError, match="wanted"):
            Generation(0, 0, octets, 0, symbol)
