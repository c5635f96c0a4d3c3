"""Transfer frames and virtual channels: bytes by hand, one law a format, and what a lost frame costs."""

import random
from binascii import crc_hqx

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from payload.errors import InputError, StreamError
from payload.link.frames.randomiser import SEQUENCE
from payload.link.frames.transfer_frame import NO_PACKET_BEGINS, ONLY_IDLE, Frame, FrameFormat, pack, unpack
from payload.link.frames.virtual_channels import Deframer, FrameCounts, Framer, frames_of, idle_packet


def packet_of(size: int, seed: int) -> bytes:
    """A packet of so many octets in all, 7 or more."""
    body = random.Random(seed).randbytes(size - 6)
    return bytes([seed % 7, seed % 256, 0xC0, 0]) + (size - 7).to_bytes(2, "big") + body


layouts = st.builds(
    FrameFormat, st.sampled_from(["tm", "aos"]), st.integers(32, 400), st.integers(0, 255), st.booleans()
)
sent = st.lists(st.tuples(st.integers(0, 6), st.integers(7, 900)), max_size=40).map(
    lambda found: [(channel, packet_of(size, k)) for k, (channel, size) in enumerate(found)]
)


def by_channel(packets) -> dict[int, list[bytes]]:
    found: dict[int, list[bytes]] = {}
    for channel, packet in packets:
        found.setdefault(channel, []).append(packet)
    return found


def received(frames, layout) -> tuple[list[tuple[int, bytes]], FrameCounts]:
    deframer = Deframer(layout)
    packets = [packet for frame in frames for packet in deframer.push(frame)] + deframer.finish()
    return packets, deframer.counts


def test_a_tm_frame_by_hand() -> None:
    octets = pack(Frame(channel=1, count=3, pointer=0, data=bytes(8), master_count=5), FrameFormat("tm", 16, 42))
    wanted = bytes.fromhex(
        "02a2"  # 00 version, 0000101010 spacecraft 42, 001 channel, 0 no control field
        "05"  # frames of all channels
        "03"  # frames of this channel
        "1800"  # 0 no secondary header, 0 synchronous, 0 order, 11 packets, 00000000000 pointer
        "0000000000000000"
    )
    assert octets == wanted + crc_hqx(wanted, 0xFFFF).to_bytes(2, "big")


def test_an_aos_frame_by_hand() -> None:
    octets = pack(Frame(channel=1, count=3, pointer=0, data=bytes(8)), FrameFormat("aos", 18, 42))
    wanted = bytes.fromhex(
        "4a81"  # 01 version, 00101010 spacecraft 42, 000001 channel
        "000003"  # frames of this channel
        "00"  # 0 not replayed, 0 cycle not used, 00 spare, 0000 cycle
        "0000"  # 00000 spare, 00000000000 pointer
        "0000000000000000"
    )
    assert octets == wanted + crc_hqx(wanted, 0xFFFF).to_bytes(2, "big")


def test_the_randomisers_octets_are_those_of_the_standard() -> None:
    assert SEQUENCE[:10].hex() == "ff480ec09a0d70bc8e2c" and len(SEQUENCE) == 255


def test_the_shortest_idle_packet_by_hand() -> None:
    # 000 version, 0 telemetry, 0 no header, APID 2047; flags 11, count 0; length 1 - 1; the randomiser's first octet
    assert idle_packet(7).hex() == "07ffc0000000ff"
    assert [len(idle_packet(n)) for n in (7, 8, 1000)] == [7, 8, 1000]


@given(layouts, st.data())
def test_unpack_is_the_inverse_of_pack(layout, data) -> None:
    pointer = st.one_of(st.integers(0, layout.data_octets - 1), st.sampled_from([NO_PACKET_BEGINS, ONLY_IDLE]))
    frame = Frame(
        data.draw(st.integers(0, layout.channels - 1)),
        data.draw(st.integers(0, layout.counts - 1)),
        data.draw(pointer),
        data.draw(st.binary(min_size=layout.data_octets, max_size=layout.data_octets)),
        data.draw(st.integers(0, 255)) if layout.kind == "tm" else 0,
    )
    octets = pack(frame, layout)
    assert len(octets) == layout.octets and unpack(octets, layout) == frame


@given(layouts, sent, st.integers(0, 3))
def test_every_packet_comes_back_in_its_channel(layout, packets, lead_in) -> None:
    frames = list(frames_of(packets, layout, lead_in))
    assert {len(frame) for frame in frames} <= {layout.octets}
    found, counts = received(frames, layout)
    assert by_channel(found) == by_channel(packets)
    assert counts.received == len(frames) and counts.idle == lead_in
    assert (counts.refused, counts.late, counts.missing, counts.packets_cut) == (0, 0, 0, 0)


@given(sent)
def test_the_master_count_numbers_the_frames_of_all_channels_modulo_256(packets) -> None:
    layout = FrameFormat("tm", 64)
    counts = [unpack(frame, layout).master_count for frame in frames_of(packets, layout, lead_in=260)]
    assert counts == [n % 256 for n in range(len(counts))]


@settings(max_examples=200)
@given(layouts, sent, st.sets(st.integers(0, 200)))
def test_a_lost_frame_costs_the_packets_that_lie_in_it_and_no_other(layout, packets, lost) -> None:
    frames = list(frames_of(packets, layout))
    touched = {
        n for n, frame in enumerate(frames) if n in lost
    }  # of these, by channel, the octets of the packets that are gone
    found, _ = received([frame for n, frame in enumerate(frames) if n not in lost], layout)
    gone = packets_in(frames, touched, packets, layout)
    assert sorted(found) == sorted(packet for n, packet in enumerate(packets) if n not in gone)


def packets_in(frames, lost: set[int], packets, layout) -> set[int]:
    """Numbers of the packets of which an octet lies in one of these frames: counted from sizes alone."""
    channels = [unpack(frame, layout).channel for frame in frames]
    hurt = {channel: set() for channel in channels}
    for channel in hurt:
        mine = [n for n, c in enumerate(channels) if c == channel]
        hurt[channel] = {place for place, n in enumerate(mine) if n in lost}
    at: dict[int, int] = {}
    gone = set()
    for number, (channel, packet) in enumerate(packets):
        begin, at[channel] = at.get(channel, 0), at.get(channel, 0) + len(packet)
        if hurt[channel] & set(range(begin // layout.data_octets, (at[channel] - 1) // layout.data_octets + 1)):
            gone.add(number)
    return gone


@settings(max_examples=100)
@given(layouts, st.lists(st.binary(max_size=450), max_size=20), st.data())
def test_octets_of_any_kind_raise_nothing_and_are_counted(layout, pieces, data) -> None:
    frames = list(frames_of([(0, packet_of(100, 1)), (1, packet_of(300, 2))], layout))
    mixed = data.draw(st.permutations([*pieces, *frames]))
    _, counts = received(mixed, layout)
    assert counts.received == len(mixed) and counts.refused <= counts.received


def test_frames_that_overtook_others_are_put_back_and_doubled_ones_dropped() -> None:
    layout = FrameFormat("tm", 64)
    packets = [(0, packet_of(150, k)) for k in range(40)]
    frames = list(frames_of(packets, layout))
    mixed = list(frames)
    mixed.insert(18, mixed.pop(10))  # overtaken by eight others
    mixed.insert(30, mixed[29])
    found, counts = received(mixed, layout)
    assert found == packets and counts.late == 1 and counts.missing == 0


def test_the_counts_of_a_channel_wrap_and_a_restart_loses_nothing() -> None:
    layout = FrameFormat("tm", 40)
    packets = [(0, packet_of(60, k)) for k in range(300)]
    frames = list(frames_of(packets, layout))
    assert len(frames) > 512
    assert received(frames, layout)[0] == packets
    few = list(frames_of(packets[:3], layout))  # a second run, whose counts begin again after a handful of frames
    other = [(0, packet_of(60, k)) for k in range(500, 503)]
    again = list(frames_of(other, layout))
    assert received([*few, *again], layout)[0] == [*packets[:3], *other]


def test_the_pointer_finds_the_next_packet_where_the_length_field_lies() -> None:
    """256 frames of a channel lost in a row: the count does not show it, the pointer does."""
    layout = FrameFormat("tm", 40)
    packets = [(0, packet_of(90, k)) for k in range(200)]
    frames = list(frames_of(packets, layout))
    found, counts = received([*frames[:10], *frames[266:]], layout)
    assert counts.missing == 0
    assert set(found) - set(packets) == set() or len(set(found) - set(packets)) == 1
    assert found[-1] == packets[-1] and len(found) > 60


def test_a_frame_of_another_spacecraft_or_with_a_wrong_crc_is_refused() -> None:
    layout = FrameFormat("tm", 40, 7)
    (frame,) = frames_of([(0, packet_of(20, 1))], layout)
    for octets, cause in (
        (frame[:-1] + bytes([frame[-1] ^ 1]), "frame error control"),
        (frame[:-1], "39 octets"),
        (pack(Frame(0, 0, 0, bytes(32)), FrameFormat("tm", 40, 8)), "spacecraft 8"),
        (pack(Frame(0, 0, 1500, bytes(32)), layout), "pointer 1500"),
    ):
        with pytest.raises(StreamError, match=cause):
            unpack(octets, layout)


@pytest.mark.parametrize(
    ("fields", "cause"),
    [
        ({"octets": 2049}, "2049 octets, wanted 16 to 2048"),
        ({"octets": 15}, "15 octets, wanted 16 to"),
        ({"spacecraft_id": 1024}, "1024, wanted 0 to 1023 in tm"),
        ({"kind": "aos", "spacecraft_id": 256}, "256, wanted 0 to 255 in aos"),
    ],
)
def test_a_layout_that_no_header_can_tell_is_misuse(fields, cause) -> None:
    with pytest.raises(InputError, match=cause):
        FrameFormat(**fields)


def test_a_channel_that_does_not_exist_is_misuse() -> None:
    with pytest.raises(InputError, match="virtual channel 7, wanted 0 to 6"):
        Framer(FrameFormat("tm", 64)).push(7, packet_of(20, 1))


@given(sent, st.integers(0, 6), st.integers(7, 300), layouts)
def test_the_frames_foretold_are_those_that_a_packet_and_filling_up_take(before, channel, octets, layout) -> None:
    framer = Framer(layout)
    for number, packet in before:
        framer.push(number, packet)
    foretold = framer.frames_until_flushed(channel, octets)
    assert foretold == len(framer.push(channel, packet_of(octets, 1))) + len(framer.flush())
