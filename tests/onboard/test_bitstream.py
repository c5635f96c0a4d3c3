"""Tile codes: the law of the wire, every truncation, every flipped bit, octets by hand, hostile octets."""

from binascii import crc_hqx
from dataclasses import replace
from zlib import crc32

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from payload.errors import InputError, StreamError
from payload.link.tile_code import Bound, Kind, TileCode, header_octets, pack, unpack

lone = (
    st.sampled_from(Kind),
    st.integers(0, 65535),
    st.integers(0, 65535),
    st.integers(0, 2**32 - 1),
    st.integers(0, 100) | st.just(255),
    st.binary(max_size=30),
    st.lists(st.binary(max_size=20), max_size=5).map(tuple),
)
of_a_scene = {"scene_id": st.integers(0, 2**32 - 1), "mask": st.binary(max_size=30)}
codes = st.builds(TileCode, *lone) | st.builds(TileCode, *lone, **of_a_scene)


def head_of(code) -> int:
    return header_octets(len(code.side), len(code.layers), None if code.scene_id is None else len(code.mask))


@given(codes)
def test_unpack_is_the_inverse_of_pack(code) -> None:
    assert unpack(pack(code)) == code
    assert len(pack(code)) == head_of(code) + sum(map(len, code.layers)) == unpack(pack(code)).sent_octets


@settings(max_examples=25, deadline=None)
@given(codes)
def test_every_beginning_gives_the_layers_it_holds_whole(code) -> None:
    octets = pack(code)
    ends = [head_of(code)]
    for layer in code.layers:
        ends.append(ends[-1] + len(layer))
    for length in range(len(octets) + 1):
        if length < ends[0]:
            with pytest.raises(StreamError, match=r"too few|cut short"):
                unpack(octets[:length])
            continue
        found = unpack(octets[:length])
        whole = sum(end <= length for end in ends[1:])
        assert found.layers == code.layers[:whole] and found.declared == len(code.layers)
        assert (found.row, found.col, found.bundle_id, found.kind) == (code.row, code.col, code.bundle_id, code.kind)
        assert (found.cause is None) == (whole == len(code.layers))


@given(codes, st.binary(min_size=1, max_size=8))
def test_octets_that_follow_change_nothing(code, garbage) -> None:
    assert unpack(pack(code) + garbage) == code


@settings(max_examples=25, deadline=None)
@given(codes)
def test_no_flipped_bit_goes_unnoticed(code) -> None:
    """In the header the code is refused; in a layer, that layer and the finer ones are left out."""
    octets = pack(code)
    start = head_of(code)
    for bit in range(8 * len(octets)):
        damaged = bytearray(octets)
        damaged[bit // 8] ^= 0x80 >> bit % 8
        if bit < 8 * start:
            with pytest.raises(StreamError):
                unpack(bytes(damaged))
            continue
        found = unpack(bytes(damaged))
        end, hit = start, 0
        while end + len(code.layers[hit]) <= bit // 8:
            end, hit = end + len(code.layers[hit]), hit + 1
        assert found.layers == code.layers[:hit]
        assert found.cause == f"layer {hit} of {len(code.layers)} is damaged"


def crc_bit_by_bit(octets: bytes) -> bytes:
    """CRC-16/CCITT-FALSE as its definition reads: x^16 + x^12 + x^5 + 1, from ffff."""
    register = 0xFFFF
    for octet in octets:
        for k in range(7, -1, -1):
            top = register >> 15 ^ octet >> k & 1
            register = register << 1 & 0xFFFF ^ (0x1021 if top else 0)
    return register.to_bytes(2, "big")


def crc32_bit_by_bit(octets: bytes) -> bytes:
    """CRC-32 of ISO 3309 as its definition reads, from the lowest bit: reflected 04c11db7, from ffffffff, inverted."""
    register = 0xFFFFFFFF
    for octet in octets:
        for k in range(8):
            low = register & 1 ^ octet >> k & 1
            register = register >> 1 ^ (0xEDB88320 if low else 0)
    return (register ^ 0xFFFFFFFF).to_bytes(4, "big")


def test_a_withheld_tile_by_hand() -> None:
    head = bytes.fromhex(
        "41"  # version 4 (4 bits), kind 1 WITHHELD (4 bits)
        "0a0b0c0d"  # bundle
        "0001 0002"  # row, col
        "55"  # 85 % cloud
        "00 00"  # no side information, no layer
    )
    code = TileCode(Kind.WITHHELD, 1, 2, 0x0A0B0C0D, 85)
    assert pack(code) == head + crc32_bit_by_bit(head)
    assert len(pack(code)) == 16


def test_a_coded_tile_by_hand() -> None:
    head = bytes.fromhex(
        "40"  # version 4, kind 0 CODED
        "ffffffff"  # bundle
        "0100 ffff"  # row 256, col 65535
        "ff"  # cloud unknown
        "03 02"  # three octets of side information, two layers
        "a1b2c3"  # side information
    )
    first, second = b"\x01\x02\x03\x04", b""
    table = b"\x00\x00\x04" + crc32_bit_by_bit(first) + b"\x00\x00\x00" + bytes(4)  # the CRC-32 of nothing is 0
    code = TileCode(Kind.CODED, 256, 65535, 0xFFFFFFFF, 255, b"\xa1\xb2\xc3", (first, second))
    assert pack(code) == head + table + crc32_bit_by_bit(head + table) + first + second


def test_a_tile_of_a_scene_by_hand() -> None:
    head = bytes.fromhex(
        "50"  # version 5, kind 0 CODED
        "0a0b0c0d"  # bundle
        "a1a2a3a4"  # scene
        "0001 0002"  # row, col
        "55"  # 85 % cloud
        "01 01"  # one octet of side information, one layer
        "000002"  # a mask of two octets
        "a5 00ff"  # side information, mask
    )
    layer = b"\x07"
    table = b"\x00\x00\x01" + crc32_bit_by_bit(layer)
    code = TileCode(Kind.CODED, 1, 2, 0x0A0B0C0D, 85, b"\xa5", (layer,), scene_id=0xA1A2A3A4, mask=b"\x00\xff")
    assert pack(code) == head + table + crc32_bit_by_bit(head + table) + layer


def test_a_tile_with_long_side_information_by_hand() -> None:
    """Of many bands: its length takes two octets, and the version says so."""
    side = bytes(range(256)) + b"\xa5"
    lone = bytes.fromhex("60 0a0b0c0d 0001 0002 55") + b"\x01\x01" + b"\x01" + side
    scene = bytes.fromhex("70 0a0b0c0d a1a2a3a4 0001 0002 55") + b"\x01\x01" + b"\x01" + b"\0\0\0" + side
    table = b"\x00\x00\x01" + crc32_bit_by_bit(b"\x07")
    for head, named in ((lone, None), (scene, 0xA1A2A3A4)):
        code = TileCode(Kind.CODED, 1, 2, 0x0A0B0C0D, 85, side, (b"\x07",), scene_id=named)
        assert pack(code) == head + table + crc32_bit_by_bit(head + table) + b"\x07"
        assert unpack(pack(code)) == code and len(pack(code)) == code.sent_octets
    assert pack(replace(code, side=side[:255]))[0] >> 4 == 5


@pytest.mark.parametrize(
    ("head", "named"),
    [
        ("80 0a0b0c0d 0001 0002 55 0001 02 000a deadbeef a5", {}),
        ("90 0a0b0c0d a1a2a3a4 0001 0002 55 0001 02 000001 000a deadbeef a5 ff",
         {"scene_id": 0xA1A2A3A4, "mask": b"\xff"}),
    ],
)  # fmt: skip
def test_a_tile_within_a_bound_by_hand(head, named) -> None:
    """Versions 8 and 9: a bound of 10 DN and a checksum of the samples before the side information."""
    head = bytes.fromhex(head)
    first, second = b"\x07", b"\x08\x09"
    table = b"\x00\x00\x01" + crc32_bit_by_bit(first) + b"\x00\x00\x02" + crc32_bit_by_bit(second)
    octets = head + table + crc32_bit_by_bit(head + table) + first + second
    bound = Bound(10, 0xDEADBEEF)
    code = TileCode(Kind.CODED, 1, 2, 0x0A0B0C0D, 85, b"\xa5", (first, second), bound=bound, **named)
    assert pack(code) == octets and unpack(octets) == code and code.sent_octets == len(octets)
    assert code.bounded and code.base_layers == (first,)
    short = unpack(octets[:-1])
    assert not short.bounded and short.base_layers == short.layers == (first,) and short.bound == bound


@pytest.mark.parametrize("version", range(16))
def test_a_tile_code_is_read_as_the_version_it_was_written_in_or_not_at_all(version) -> None:
    layers = (bytes(range(40)), bytes(range(9)))
    for bound in (None, Bound(0, 1)):
        for scene_id in (None, 5):
            code = TileCode(Kind.CODED, 1, 2, 3, 4, bytes(19), layers, scene_id=scene_id, bound=bound)
            octets = pack(code)
            other = bytes([version << 4 | octets[0] & 15]) + octets[1:]
            if other != octets:
                with pytest.raises(StreamError):
                    unpack(other)


@pytest.mark.parametrize(
    ("head", "named"),
    [
        ("20 0a0b0c0d 0001 0002 55 01 02 a5", {}),
        ("30 0a0b0c0d a1a2a3a4 0001 0002 55 01 02 000001 a5 ff", {"scene_id": 0xA1A2A3A4, "mask": b"\xff"}),
    ],
)
def test_tile_codes_of_older_payloads_stay_readable(head, named) -> None:
    """Versions 2 and 3, by hand: the same fields, CRCs of 16 bits."""
    head = bytes.fromhex(head)
    first, second = b"\x07", b"\x08\x09"
    table = b"\x00\x00\x01" + crc_bit_by_bit(first) + b"\x00\x00\x02" + crc_bit_by_bit(second)
    octets = head + table + crc_bit_by_bit(head + table) + first + second
    code = TileCode(Kind.CODED, 1, 2, 0x0A0B0C0D, 85, b"\xa5", (first, second), **named)
    assert unpack(octets) == code and unpack(octets).sent_octets == len(octets)
    assert unpack(octets[:-1]).layers == (first,)
    for at in range(len(octets)):
        with_damage = bytearray(octets)
        with_damage[at] ^= 0x10
        try:
            assert len(unpack(bytes(with_damage)).layers) < 2
        except StreamError:
            continue


@given(st.integers(0, 32), st.integers(1, 50), st.integers(0, 400))
def test_damage_to_a_layer_that_the_packets_crc_misses_is_seen(shift, length, at) -> None:
    """What the packets' CRC cannot see is its generator, shifted. The tree before had the same CRC for layers."""
    layer = bytes(60) + bytes([length]) * length
    octets = bytearray(pack(TileCode(Kind.CODED, 1, 2, 3, 4, b"s", (layer,), scene_id=5)))
    start, end = len(octets) - len(layer), len(octets) - 8
    for k, value in enumerate((0x11021 << shift).to_bytes(7, "big")):
        octets[min(start + at % len(layer), end) + k] ^= value
    damaged = bytes(octets[start:])
    assert crc_hqx(damaged, 0xFFFF) == crc_hqx(layer, 0xFFFF) and damaged != layer
    assert unpack(bytes(octets)).cause == "layer 0 of 1 is damaged"


def test_a_code_cut_short_still_knows_how_long_it_was() -> None:
    code = TileCode(Kind.CODED, 1, 2, 3, 4, b"s", (bytes(10), bytes(20)), scene_id=5)
    found = unpack(pack(code)[:-1])
    assert (found.incomplete, found.sent_octets, len(found.layers)) == (True, len(pack(code)), 1)


def with_crc(head: str) -> bytes:
    octets = bytes.fromhex(head)
    return octets + crc32(octets).to_bytes(4, "big")


@pytest.mark.parametrize(
    ("octets", "words"),
    [
        (with_crc("11 0a0b0c0d 0001 0002 55 00 00"), "version 1, kind 1"),
        (with_crc("46 0a0b0c0d 0001 0002 55 00 00"), "kind 6; this ground reads versions 2 to 9, kinds 0 to 5"),
        (with_crc("41 0a0b0c0d 0001 0002 65 00 00"), "cloud percentage 101"),
        (with_crc("41 0a0b0c0d 0001 0002 55 00 01")[:-2], "cut short"),
        (b"", "0 octets are too few"),
    ],
)
def test_what_this_version_does_not_know_is_refused_with_its_cause(octets, words) -> None:
    with pytest.raises(StreamError, match=words):
        unpack(octets)


@settings(max_examples=200)
@given(st.binary(max_size=64) | st.binary(min_size=10, max_size=40).map(lambda b: with_crc(b.hex())))
def test_hostile_octets_raise_stream_error_or_make_sense(octets) -> None:
    try:
        code = unpack(octets)
    except StreamError:
        return
    assert pack(TileCode(code.kind, code.row, code.col, code.bundle_id, code.cloud_percent, code.side)) is not None


@given(st.binary(max_size=60), st.integers(0, 4), st.integers(0, 100))
def test_a_right_header_in_front_of_hostile_layers_never_raises(tail, layers, cloud) -> None:
    head = f"40 00000000 0000 0000 {cloud:02x} 00 {layers:02x}" + (tail + bytes(28))[: 7 * layers].hex()
    found = unpack(with_crc(head) + tail)
    assert len(found.layers) <= layers == found.declared


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"row": 65536}, "row 65536 does not fit in 16 bits"),
        ({"col": -1}, "col -1 does not fit in 16 bits"),
        ({"bundle_id": 2**32}, "does not fit in 32 bits"),
        ({"cloud_percent": 101}, "cloud_percent is 101"),
        ({"side": bytes(65_536)}, "side information over 65 535"),
        ({"scene_id": 2**32}, "scene_id 4294967296 does not fit"),
        ({"mask": b"m"}, "a scene that it belongs to"),
        ({"layers": (b"",) * 256}, "over 255 layers"),
    ],
)
def test_values_that_do_not_fit_their_field_are_refused_when_a_code_is_made(change, words) -> None:
    values = {"kind": Kind.CODED, "row": 0, "col": 0, "bundle_id": 0} | change
    with pytest.raises(InputError, match=words):
        TileCode(**values)
