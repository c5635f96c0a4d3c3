"""A file over passes and a link that loses: every mode, both ways, to the octet; and what is left where it is not."""

import random
from collections import Counter
from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from zlib import crc32

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from payload.errors import InputError
from payload.link.file_pdu import parse_pdu
from payload.link.fountain_packet import Generation, Symbol
from payload.link.frames.security import Security
from payload.link.frames.stack import Stack
from payload.link.scene_header import SceneHeader
from payload.link.space_packet import (
    Packet,
    SequenceCounter,
    SequenceFlag,
    is_packet,
    pack,
    read_packets,
    segment,
    unpack,
)
from payload.link.streams import apids_of
from payload.policy import Policy
from payload.scene import SceneInfo
from payload.sensor import RGBN
from sim.delivery.by_stream import ByStream
from sim.delivery.contact import Contact
from sim.delivery.fountain import packet_of, symbols_of
from sim.delivery.rounds import DeliveryReport
from sim.delivery.spec import Delivery, StreamDelivery, Uplink
from sim.ground.arrivals import Arrivals
from sim.ground.arriving_files import FOUNTAIN_APID, ArrivingFiles, packets_and_files
from sim.ground.received_file import ReceivedFile
from sim.link.chances import Burst
from sim.link.channel import Channel
from sim.link.frames.receiver import FrameReceiver, packets_off_air
from sim.link.link import Link

APID = 0x2A1
FIFTH = Burst(enter=0.05, leave=0.2)  # 20 % of packets, five in a row on average
LINK = Link(rate_bps=1e6, pass_s=400, burst=FIFTH)
PACKETS = [p for i in range(60) for p in segment(random.Random(i).randbytes(3000), SequenceCounter(APID, 3 * i), 1024)]
CONTENT = b"".join(PACKETS)


def carry(tmp_path: Path, delivery: Delivery, link: Link = LINK, seed: int = 0, content: bytes = CONTENT):
    """What the delivery of the layers' stream took, what came down of it, and what was sent for it."""
    policy, header = Policy(apid=APID), SceneHeader(1, 1, 64, SceneInfo("s", 64, 64, RGBN, 10.0))
    sorted_out = ByStream(tmp_path, link, delivery, policy, seed, Arrivals(header, APID))
    came = list(sorted_out.arriving(read_packets(content, apids_of(APID))))
    log = tmp_path / ("frames.bin" if link.stack else "downlink.bin")
    assert sorted_out.layers.octets_on_air == log.stat().st_size == sorted_out.channel.report.octets_sent
    return sorted_out.report, [packet for _, packet in came], log.read_bytes()


def layers_of(report: DeliveryReport) -> int:
    names = ("file", "again", "repair", "header", "directive", "packet")
    return sum(getattr(report, f"sent_{name}_octets") for name in names)


@pytest.mark.parametrize("seed", range(20))
def test_class_2_delivers_every_octet_through_a_fifth_lost_in_bursts_both_ways(tmp_path, seed):
    report, came, sent = carry(tmp_path, Delivery("cfdp2", uplink=Uplink(burst=FIFTH)), seed=seed)
    assert report.complete and came == PACKETS
    assert report.arrived_twice_octets == 0 and report.sent_again_octets > 0
    assert report.sent_file_octets == len(CONTENT) and layers_of(report) == len(sent)


@pytest.mark.parametrize("pass_s", [0.13, 0.4, 0.9])
def test_a_file_that_outlasts_its_pass_goes_on_in_the_next_and_nothing_is_sent_twice(tmp_path, pass_s):
    link = Link(rate_bps=1e6, pass_s=pass_s)
    report, came, sent = carry(tmp_path, Delivery("cfdp2", passes=40, gap_s=100, timer_s=0.05), link)
    assert report.complete and came == PACKETS
    assert report.passes_used >= 8 * len(sent) / (1e6 * pass_s) and report.passes_used > 1
    assert report.sent_again_octets == 0
    assert report.elapsed_s == pytest.approx(report.in_contact_s + 100 * (report.passes_used - 1))


@pytest.mark.parametrize("seed", range(4))
def test_passes_that_end_mid_file_on_a_link_that_loses_deliver_every_octet(tmp_path, seed):
    delivery = Delivery("cfdp2", passes=60, timer_s=0.1, uplink=Uplink(burst=FIFTH))
    report, came, _ = carry(tmp_path, delivery, replace(LINK, pass_s=0.7), seed)
    assert report.complete and came == PACKETS
    assert report.passes_used > 2 and report.arrived_twice_octets == 0


def test_passes_too_few_leave_a_file_with_holes_and_say_so(tmp_path):
    report, came, sent = carry(tmp_path, Delivery("cfdp2"), replace(LINK, pass_s=0.8, burst=None))
    assert not report.complete and report.held_octets == report.sent_file_octets < len(CONTENT)
    assert len(sent) <= 1e6 * 0.8 / 8 and came[:20] == PACKETS[:20]


@pytest.mark.parametrize("mode", ["cfdp1", "cfdp2", "raptorq"])
def test_a_dead_link_ends_with_its_passes(tmp_path, mode):
    dead = Link(rate_bps=1e6, pass_s=3.0, packet_loss=1.0)
    report, came, _ = carry(tmp_path, Delivery(mode, passes=2, overhead=0.1 if mode == "raptorq" else None), dead)
    assert not report.complete and report.held_octets == 0 and not came


def test_class_1_loses_the_packets_whose_pdus_are_lost_and_no_other(tmp_path):
    report, came, sent = carry(tmp_path, Delivery("cfdp1"), seed=3)
    assert not report.complete and 0 < report.held_octets < len(CONTENT) and layers_of(report) == len(sent)
    there = set()
    for packet in Channel(LINK, seed=3).send(read_packets(sent)):
        pdu = parse_pdu(unpack(packet).data)
        there |= set(range(pdu.offset, pdu.offset + len(pdu.file_data))) if hasattr(pdu, "file_data") else set()
    ends = list(accumulate(map(len, PACKETS)))
    whole = [p for p, end in zip(PACKETS, ends, strict=True) if set(range(end - len(p), end)) <= there]
    assert [packet for packet in came if packet in PACKETS] == whole


@pytest.mark.parametrize("seed", range(3))
def test_raptorq_with_overhead_enough_delivers_every_octet_one_way(tmp_path, seed):
    report, came, sent = carry(tmp_path, Delivery("raptorq", overhead=0.8), seed=seed)
    assert report.complete and came == PACKETS
    assert report.sent_again_octets == report.uplink_octets == 0 and layers_of(report) == len(sent)
    assert report.sent_repair_octets / report.sent_file_octets == pytest.approx(0.8, rel=0.02)


def test_raptorq_with_too_little_overhead_leaves_what_arrived_of_the_source(tmp_path):
    report, came, _ = carry(tmp_path, Delivery("raptorq", overhead=0.0))
    assert not report.complete and 0.6 * len(CONTENT) < report.held_octets < len(CONTENT)
    assert 0.3 * len(PACKETS) < sum(packet in PACKETS for packet in came) < len(PACKETS)


def test_raptorq_of_several_generations(tmp_path, monkeypatch):
    monkeypatch.setattr("sim.delivery.fountain.LONGEST_GENERATION_OCTETS", 50_000)
    report, came, _ = carry(tmp_path, Delivery("raptorq", overhead=1.0))
    assert report.complete and came == PACKETS


def test_a_symbol_of_other_octets_spoils_no_generation(tmp_path):
    """The decoder itself cannot see it: the CRC over the generation does."""
    (tmp_path / "f").write_bytes(CONTENT)
    symbols, counter = list(symbols_of(tmp_path / "f", 1024, 0.5)), SequenceCounter(FOUNTAIN_APID)
    arriving = ArrivingFiles()
    repair = [s for s in symbols if s.number >= s.generation.symbols]
    bad = replace(repair[0], octets=bytes(len(repair[0].octets)))
    for symbol in [bad, *symbols[: symbols[0].generation.symbols - 1], *repair[1:3]]:
        arriving.take(packet_of(symbol, counter))
    (file,) = arriving.files.values()
    assert not file.complete
    for symbol in symbols:
        arriving.take(packet_of(symbol, counter))
    assert file.complete and file.content.read(0, len(CONTENT)) == CONTENT


def test_a_stream_gives_its_own_packets_and_those_in_its_files(tmp_path):
    for delivery in (Delivery("cfdp2"), Delivery("raptorq", overhead=0.2)):
        _, _, sent = carry(tmp_path, delivery)
        lone = pack(Packet(APID, 9000, SequenceFlag.WHOLE, b"beside the file"))
        pieces = ((0, piece) for piece in read_packets(lone + sent))
        assert [packet for _, packet in packets_and_files(pieces, APID)] == [lone, *PACKETS]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([2045, FOUNTAIN_APID]), st.binary(min_size=1, max_size=60)), max_size=20))
def test_hostile_packets_of_files_are_handed_on_or_kept_and_nothing_breaks(sent):
    packets = [pack(Packet(apid, i, SequenceFlag.WHOLE, data)) for i, (apid, data) in enumerate(sent)]
    handed_on = [p for _, p in packets_and_files([(0, packet) for packet in packets], APID) if p in packets]
    assert all(unpack(p).data[0] != 1 or unpack(p).apid == 2045 or len(unpack(p).data) < 28 for p in handed_on)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2**24 - 1), st.binary(min_size=16, max_size=16)), max_size=40))
def test_symbols_of_any_contents_break_no_decoder(symbols):
    """A CRC that none of them fits: whatever the decoder makes of them is refused."""
    arriving, counter = ArrivingFiles(), SequenceCounter(FOUNTAIN_APID)
    for number, octets in [*symbols, *((n, bytes(16)) for n in range(7))]:
        arriving.take(packet_of(Symbol(Generation(0, 0, 100, 0x12345678, 16), number, octets), counter))
    (file,) = arriving.files.values()
    assert file.content.octets <= 100


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 25)), max_size=30))
def test_stretches_of_a_file_are_those_of_a_set_of_octets(writes):
    file, octets = ReceivedFile(), set()
    for offset, length in writes:
        piece = set(range(offset, offset + length))
        assert file.write(offset, CONTENT[offset : offset + length]) == len(piece & octets)
        octets |= piece
    assert {at for start, end in file.stretches for at in range(start, end)} == octets and file.octets == len(octets)
    assert {at for start, end in file.holes(70) for at in range(start, end)} == set(range(70)) - octets
    assert all(end < start for (_, end), (start, _) in zip(file.stretches, file.stretches[1:], strict=False))
    file.close()


def records(stream: int, octets: int) -> list[list[bytes]]:
    """Packets of twenty records of a stream."""
    counter = SequenceCounter(APID + stream)
    return [list(segment(random.Random(9 * n + stream).randbytes(octets), counter, 1024)) for n in range(20)]


#: Records of every stream in turn, as a payload mixes them.
IN_TURN = zip(records(0, 6000), records(1, 40), records(2, 20), records(3, 300), strict=True)
MIXED = [packet for turn in IN_TURN for packets in turn for packet in packets]


def records_of(stream: int) -> list[bytes]:
    return [packet for packet in MIXED if unpack(packet).apid == APID + stream]


OWN = Delivery(
    "raw", passes=60, timer_s=0.1, uplink=Uplink(burst=FIFTH), layers=StreamDelivery("cfdp2"),
    alerts=StreamDelivery("raptorq", 3.0), thumbnails=StreamDelivery("cfdp1"),
)  # fmt: skip


@pytest.mark.parametrize("stack", [None, Stack(), Stack("aos", convolutional=True, interleave=1)])
def test_each_stream_goes_as_the_mission_says_and_comes_back_whole(tmp_path, stack):
    clean = replace(LINK, burst=None, stack=stack)
    report, came, _ = carry(tmp_path, OWN, clean, content=b"".join(MIXED))
    assert Counter(came) == Counter(MIXED) and report.complete and report.sent_again_octets == 0
    assert {name: stream.mode for name, stream in report.streams.items()} == {
        "layers": "cfdp2", "telemetry": "raw", "alerts": "raptorq", "thumbnails": "cfdp1"
    }  # fmt: skip
    for k, name in enumerate(("layers", "telemetry", "alerts", "thumbnails")):
        own = records_of(k)
        assert [packet for packet in came if unpack(packet).apid == APID + k] == own
        assert report.streams[name].file_octets == report.streams[name].held_octets == sum(map(len, own))


@pytest.mark.parametrize("seed", [*range(3), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(3, 20))])
def test_class_2_in_frames_delivers_every_octet_through_a_fifth_lost_both_ways_and_passes_that_end(tmp_path, seed):
    """Whole frames are drowned in noise, so that the receiver loses its lock as well."""
    link = replace(LINK, pass_s=0.7, stack=Stack(), bit_error_rate=1e-4)
    report, came, _ = carry(tmp_path, OWN, link, seed, b"".join(MIXED))
    layers = report.streams["layers"]
    assert layers.complete and layers.sent_again_octets > 0 and report.passes_used > 2
    assert layers.sent_file_octets == layers.file_octets and layers.arrived_twice_octets == 0
    arrived = [packet for packet in came if is_packet(packet) and unpack(packet).apid == APID]
    assert arrived == records_of(0)


@pytest.mark.parametrize("delivery", [OWN, replace(OWN, passes=2), Delivery("cfdp2"), Delivery("raptorq", overhead=1)])
@pytest.mark.parametrize("pass_s", [0.0, 0.03, 0.3])
def test_passes_that_hold_too_little_in_frames_end_with_every_octet_accounted_for(tmp_path, delivery, pass_s):
    """`carry` itself holds the layers' sum against the file and the channel."""
    report, came, sent = carry(tmp_path, delivery, replace(LINK, pass_s=pass_s, burst=None, stack=Stack()))
    assert 8 * len(sent) <= 1e6 * pass_s * delivery.passes and set(filter(is_packet, came)) <= set(PACKETS)
    assert report.complete == (came == PACKETS)


def test_frames_of_files_are_read_alone_as_the_run_read_them(tmp_path):
    link = replace(LINK, burst=None, stack=Stack(convolutional=True))
    _, came, sent = carry(tmp_path, OWN, link, content=b"".join(MIXED))
    alone = packets_and_files(packets_off_air([sent], FrameReceiver(link.stack)), APID)
    assert Counter(packet for _, packet in alone) == Counter(came)
    streams = Counter(channel for channel, _ in packets_off_air([sent], FrameReceiver(link.stack)))
    assert set(streams) == {0, 1, 2, 3}  # each stream's packets, PDUs or symbols in its own virtual channel


def test_secured_frames_of_files_are_numbered_on_from_round_to_round(tmp_path):
    """The ground refuses a number that it has taken: what is sent again would never come."""
    (tmp_path / "key").write_text("5a" * 32)
    link = replace(LINK, stack=Stack(convolutional=True), security=Security(str(tmp_path / "key")))
    report, came, _ = carry(tmp_path, replace(OWN, passes=1), link, content=b"".join(MIXED))
    assert report.streams["layers"].complete and report.nak_rounds > 0
    assert [packet for packet in came if packet in MIXED and unpack(packet).apid == APID] == records_of(0)


def test_files_of_two_senders_on_channels_of_their_own_never_mix():
    symbols = [Generation(0, 0, 8, crc32(data), 8) for data in (b"one file", b"another!")]
    counter, arriving = SequenceCounter(FOUNTAIN_APID), ArrivingFiles()
    for channel, (generation, data) in enumerate(zip(symbols, (b"one file", b"another!"), strict=True)):
        arriving.take(packet_of(Symbol(generation, 0, data), counter), channel)
    assert [file.content.read(0, 8) for file in arriving.files.values()] == [b"one file", b"another!"]


def test_the_clock_stands_still_between_passes():
    contact = Contact(Link(rate_bps=800, pass_s=10), passes=2, gap_s=50)
    assert contact.take(900) and contact.now_s == 9
    assert contact.take(200) and contact.number == 2 and contact.now_s == 12 and contact.elapsed_s == 62
    assert contact.wait(3) and contact.now_s == 15
    assert not contact.wait(6) and not contact.take(1) and contact.now_s == 20
    assert contact.sent_octets == 1100


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"mode": "raw", "passes": 2}, "passes is 2 with raw packets"),
        ({"mode": "raptorq"}, "raptorq needs it; add it"),
        ({"mode": "cfdp2", "overhead": 0.3}, "overhead is for raptorq"),
        ({"mode": "cfdp1", "uplink": Uplink()}, "uplink is given for cfdp1"),
        ({"mode": "cfdp2", "timer_s": 0.02, "round_trip_s": 0.05}, "wanted above round_trip_s"),
        ({"mode": "cfdp2", "passes": 0}, "passes is 0, wanted 1 to 1000"),
        ({"mode": "raw", "passes": 3, "layers": StreamDelivery("raw")}, "passes is 3 with raw packets"),
        ({"mode": "raw", "uplink": Uplink(), "layers": StreamDelivery("cfdp1")}, "uplink is given for by stream"),
    ],
)
def test_a_delivery_that_makes_no_sense_is_refused_with_the_remedy(keys, told):
    with pytest.raises(InputError, match=told):
        Delivery(**keys)
