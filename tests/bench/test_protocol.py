"""Frames and bodies: one law over random values, octets derived by hand, and hostile input."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hil.host.client import DeviceSession
from hil.line.messages import DeviceReply, pack_coded, pack_tile, policy_fields, policy_of, unpack_coded, unpack_tile
from hil.line.protocol import Frame, FrameReader, ProtocolError, Type, pack, pack_body, unpack_body
from payload.policy import Gate, Policy, Region
from payload.tiles import Tile

u8, u32 = st.integers(0, 255), st.integers(0, 2**32 - 1)
frames = st.builds(Frame, kind=u8, session=u32, seq=u32, body=st.binary(max_size=300), version=u8)


@given(st.lists(frames, max_size=5), st.lists(st.integers(1, 60), min_size=1))
def test_reading_is_the_inverse_of_packing_whatever_the_pieces(sent, cuts):
    octets, reader, got, at = b"".join(map(pack, sent)), FrameReader(), [], 0
    while at < len(octets):
        step = cuts[len(got) % len(cuts)]
        got += reader.feed(octets[at : at + step])
        at += step
    assert got == sent
    assert reader.discarded_octets == 0


def crc_by_bits(octets, bits, polynomial, start, reflected):
    """A CRC by long division, one bit at a time: nothing shared with zlib or binascii."""
    register, top = start, 1 << bits - 1
    for octet in octets:
        for k in range(8):
            bit = octet >> (k if reflected else 7 - k) & 1
            out = register >> bits - 1 & 1
            register = (register << 1) & (2 * top - 1)
            if bit ^ out:
                register ^= polynomial
    return int(f"{register:0{bits}b}"[::-1], 2) if reflected else register


def test_octets_of_a_hello_by_hand():
    start = bytes.fromhex("4e48 02 01 00000007 00000002 00000006")
    #                      'NH'  |  |  session  seq      length of the body
    #                     version 2, type HELLO
    body = bytes.fromhex("00000002") + b"{}"  # two octets of JSON, nothing after it
    check = crc_by_bits(start, 16, 0x1021, 0xFFFF, reflected=False)
    covered = start + check.to_bytes(2, "big") + body
    crc = crc_by_bits(covered, 32, 0x04C11DB7, 0xFFFFFFFF, reflected=True) ^ 0xFFFFFFFF
    by_hand = covered + crc.to_bytes(4, "big")
    assert by_hand.hex() == "4e4802010000000700000002000000061c1f000000027b7d3b794f68"
    assert pack(Frame(Type.HELLO, 7, 2, pack_body({}))) == by_hand


@given(st.lists(frames, min_size=1, max_size=4), st.lists(st.binary(max_size=40), min_size=5, max_size=5))
def test_garbage_between_frames_costs_no_frame(sent, garbage):
    reader, got = FrameReader(), []
    harmless = [noise.replace(b"N", b"M") for noise in garbage]  # no octet of it starts a frame
    for noise, frame in zip(harmless, sent, strict=False):
        got += reader.feed(noise + pack(frame))
    assert got == sent
    assert reader.discarded_octets == sum(map(len, harmless[: len(sent)]))


@given(frames, frames, st.data())
def test_a_damaged_frame_is_never_handed_on_and_the_next_one_is(first, second, data):
    octets = bytearray(pack(first))
    at = data.draw(st.integers(0, len(octets) - 1))
    octets[at] ^= data.draw(st.integers(1, 255))
    got = list(FrameReader().feed(bytes(octets) + pack(second)))
    assert first not in got or first == second
    assert second in got


@given(st.binary(max_size=2000))
@settings(max_examples=300)
def test_random_octets_never_make_a_frame_and_never_pile_up(noise):
    reader = FrameReader()
    assert list(reader.feed(noise)) == []
    frame = Frame(Type.STATS, 1, 2)
    assert list(reader.feed(pack(frame))) == [frame]  # whatever came before


def test_a_length_that_was_damaged_does_not_make_the_reader_wait():
    octets = bytearray(pack(Frame(Type.INFER, 1, 1, b"x" * 10)))
    octets[12] = 3  # length field: 50 million octets that will never come
    frame = Frame(Type.STATS, 1, 2)
    assert list(FrameReader().feed(bytes(octets) + pack(frame))) == [frame]


@pytest.mark.parametrize(("field", "value"), [("kind", 256), ("session", -1), ("seq", 2**32), ("version", 300)])
def test_values_that_do_not_fit_are_refused(field, value):
    with pytest.raises(ProtocolError, match="does not fit"):
        Frame(**{"kind": 1, "session": 1, "seq": 1, field: value})


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner, max_size=3)
)


@given(st.dictionaries(st.text(), json_values, max_size=4), st.binary(max_size=100))
def test_a_body_round_trips(fields, octets):
    assert unpack_body(pack_body(fields, octets)) == (fields, octets)


@given(st.binary(max_size=200))
def test_any_octets_as_a_body_parse_or_are_refused(octets):
    for read in (unpack_body, unpack_tile, lambda body: unpack_coded(body, 0)):
        try:
            read(octets)
        except ProtocolError:
            continue


def tile_of(row, col, bands, px, seed, share):
    random = np.random.default_rng(seed)
    return Tile(row, col, random.integers(0, 65536, (bands, px, px)).astype(np.uint16), random.random((px, px)) < share)


tiles = st.builds(
    tile_of,
    st.integers(0, 65535),
    st.integers(0, 65535),
    st.integers(1, 5),
    st.integers(1, 19),
    u32,
    st.sampled_from([0, 0.5, 1]),
)


@given(tiles)
def test_a_tile_round_trips(tile):
    back = unpack_tile(pack_tile(tile))
    assert (back.row, back.col) == (tile.row, tile.col)
    assert back.dn.dtype == np.uint16 and np.array_equal(back.dn, tile.dn)
    assert np.array_equal(back.valid, tile.valid)


def test_octets_of_a_tile_by_hand():
    dn = np.array([[[1, 2], [3, 0x0405]]], np.uint16)  # one band, 2 x 2
    valid = np.array([[True, False], [True, True]])
    text = b'{"row":9,"col":8,"bands":1,"px":2,"all_valid":false}'
    samples = bytes.fromhex("0100 0200 0300 0504".replace(" ", ""))  # little-endian
    bits = bytes([0b10110000])  # row by row, most significant bit first
    assert pack_tile(Tile(9, 8, dn, valid)) == len(text).to_bytes(4, "big") + text + samples + bits


def test_a_code_for_another_tile_is_refused():
    body = pack_coded(DeviceReply(1, 2, b"octets", 0.0, 1.0, "coded", {"encode": 0.5}), 7)
    assert unpack_coded(body, 7) == DeviceReply(1, 2, b"octets", 0.0, 1.0, "coded", {"encode": 0.5})
    with pytest.raises(ProtocolError, match="another tile"):
        unpack_coded(body, 8)


def test_a_policy_round_trips_and_a_strange_one_is_refused():
    policy = Policy(step_dn=33.0, gate=Gate(withhold_above_percent=12.0, regions=(Region(1, 2, 3, 4),)))
    assert policy_of(unpack_body(pack_body(policy_fields(policy)))[0]) == policy
    for strange in (
        None,
        {},
        {"gate": {}},
        policy_fields(policy) | {"step_dn": -1.0},
        policy_fields(policy) | {"new": 1},
    ):
        with pytest.raises(ProtocolError, match="deploy"):
            policy_of(strange)


def test_the_clocks_offset_is_that_of_the_fastest_round_trip(monkeypatch):
    """Of 4, 1 and 6 s the second: its middle is 10.5 s here and 110.75 s there."""
    here, there = iter([0.0, 4.0, 10.0, 11.0, 20.0, 26.0]), iter([102.0, 110.75, 123.0])
    monkeypatch.setattr("hil.host.client.time.monotonic", lambda: next(here))
    session = SimpleNamespace(call=lambda *_: {"clock_s": next(there)})
    found = DeviceSession.clock(session, rounds=3)
    assert (found.offset_s, found.uncertainty_s) == (100.25, 0.5)


@pytest.mark.parametrize("bands", (1, 200, 512))
def test_a_tile_of_as_many_bands_as_a_sensor_may_have_goes_over_the_line(bands: int) -> None:
    sent = tile_of(1, 2, bands, 8, 3, 0.5)
    found = unpack_tile(pack_tile(sent))
    assert np.array_equal(found.dn, sent.dn) and np.array_equal(found.valid, sent.valid)
