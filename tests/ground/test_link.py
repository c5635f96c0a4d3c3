"""The channel: exact bounds on every kind of damage, the same fate for the same seed, time on air."""

import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, chisquare

from payload.errors import InputError
from payload.link.space_packet import Reassembler, SequenceCounter, segment
from sim.link import chances as link_module
from sim.link.chances import Burst
from sim.link.channel import Channel, LinkReport
from sim.link.link import Link

OPEN = Link(rate_bps=1e9, pass_s=10_000)
ALL = Link(rate_bps=1e9, pass_s=10_000, packet_loss=0.03, bit_error_rate=1e-4, burst=Burst(0.01, 0.2, 0.8))
#: A correct channel leaves these bounds once in a billion tests.
SURE = 1 - 1e-9


def delivered(report: LinkReport) -> int:
    lost = report.packets_lost + report.packets_lost_in_bursts + report.packets_lost_with_frames
    return report.packets_sent - lost


def numbered(count, octets=16):
    return [i.to_bytes(4, "big") + bytes(octets - 4) for i in range(count)]


def number(packet):
    return int.from_bytes(packet[:4], "big")


def link(**fields):
    return Link(**{"rate_bps": 1e9, "pass_s": 10_000} | fields)


def within(count, trials, chance):
    low, high = binom.interval(SURE, trials, chance)
    return low <= count <= high


def test_a_clear_channel_changes_nothing():
    packets = numbered(1000)
    channel = Channel(OPEN, seed=0)
    assert list(channel.send(packets)) == packets
    assert delivered(channel.report) == channel.report.packets_sent == channel.report.packets_offered == 1000


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("chance", [0.001, 0.05, 0.5])
def test_uniform_loss_is_binomial(seed, chance):
    channel = Channel(link(packet_loss=chance), seed)
    arrived = [number(p) for p in channel.send(numbered(20_000))]
    assert within(20_000 - len(arrived), 20_000, chance)
    assert channel.report.packets_lost == 20_000 - len(arrived)
    lost = np.setdiff1d(np.arange(20_000), arrived)
    pairs = np.sum(np.diff(lost) == 1)  # two in a row: uniform loss has no memory
    assert within(pairs, len(lost) - 1, chance)


def test_certain_loss_and_none():
    assert list(Channel(link(packet_loss=1.0), 0).send(numbered(100))) == []
    assert len(list(Channel(link(packet_loss=0.0), 0).send(numbered(100)))) == 100


@pytest.mark.parametrize("seed", range(5))
def test_bursts_enter_and_leave_at_their_rates(seed):
    burst = Burst(enter=0.02, leave=0.25)  # loss 1: the states show
    channel = Channel(link(burst=burst), seed)
    bad = np.ones(60_000, bool)
    bad[[number(p) for p in channel.send(numbered(60_000))]] = False
    entered = bad[1:][~bad[:-1]][:40_000]  # what followed each of the first good packets
    left = ~bad[1:][bad[:-1]][:2_000]
    assert len(entered) == 40_000
    assert len(left) == 2_000
    assert within(entered.sum(), 40_000, burst.enter)
    assert within(left.sum(), 2_000, burst.leave)
    assert channel.report.packets_lost_in_bursts == bad.sum()


def test_the_chain_starts_in_its_long_run_mixture():
    burst = Burst(enter=0.3, leave=0.7)
    first_lost = sum(not list(Channel(link(burst=burst), seed).send(numbered(1))) for seed in range(2000))
    assert within(first_lost, 2000, burst.loss_fraction)
    assert burst.loss_fraction == pytest.approx(0.3)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("rate", [1e-5, 1e-3, 0.2])
def test_bit_errors_are_binomial_and_anywhere(seed, rate):
    packet = bytes(250)  # 2000 bits
    channel = Channel(link(bit_error_rate=rate), seed)
    arrived = list(channel.send([packet] * 2000))
    bits = np.unpackbits(np.frombuffer(b"".join(arrived), np.uint8)).reshape(2000, 2000)  # [packet, bit]
    assert within(bits.sum(), bits.size, rate)
    assert channel.report.bits_flipped == bits.sum()
    assert channel.report.packets_corrupted == np.count_nonzero(bits.any(axis=1))
    assert within(channel.report.packets_corrupted, 2000, 1 - (1 - rate) ** 2000)
    if bits.sum() > 500:
        places = bits.reshape(2000, 50, 40).sum(axis=(0, 2))  # by place in the packet
        assert chisquare(places).pvalue > 1e-9


def test_bit_errors_belong_to_the_air_not_to_the_packet():
    flips = {}
    for octets in (7, 50, 1000):
        arrived = b"".join(Channel(link(bit_error_rate=1e-3), 5).send([bytes(octets)] * (7000 // octets)))
        flips[octets] = arrived
    assert flips[7] == flips[50] == flips[1000]
    assert any(flips[7])


def test_the_flipped_bits_are_the_ones_the_definition_picks():
    """Distances k between errors with chance (1 - p)^(k - 1) p, from the channel's third random stream."""
    rate, octets = 0.01, 5000
    generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence(11).spawn(3)[2]))
    gaps = [1 + math.floor(math.log(1 - u) / math.log(1 - rate)) for u in generator.random(1000).tolist()]
    flipped = np.cumsum(gaps) - 1  # the first error may be in the very first bit
    bits = np.zeros(8 * octets, np.uint8)
    bits[flipped[flipped < len(bits)]] = 1
    arrived = b"".join(Channel(link(bit_error_rate=rate), 11).send([bytes(10)] * (octets // 10)))
    assert arrived == np.packbits(bits).tobytes()  # most significant bit first on air


@pytest.mark.parametrize("loss", [0.0, 0.5, 1.0])
def test_in_the_bad_state_packets_are_lost_at_its_rate(loss):
    always_bad = Burst(enter=1.0, leave=1e-6, loss=loss)
    channel = Channel(link(burst=always_bad), 0)
    arrived = len(list(channel.send(numbered(10_000))))
    assert within(10_000 - arrived, 10_000, always_bad.loss_fraction)


def test_the_rarest_bit_error_rate_does_not_overflow():
    assert list(Channel(link(bit_error_rate=1e-15), 0).send(numbered(1000))) == numbered(1000)


def test_air_time_cuts_off_at_the_end_of_the_pass():
    channel = Channel(Link(rate_bps=8000, pass_s=1.0), seed=0)  # 1000 octets
    sizes = [300, 300, 399, 2, 1]  # 999 fit; 2 more do not; the pass is over then, for the last octet too
    assert [len(p) for p in channel.send(map(bytes, sizes))] == [300, 300, 399]
    report = channel.report
    assert (report.packets_sent, report.octets_sent) == (3, 999)
    assert (report.packets_beyond_pass, report.octets_beyond_pass) == (2, 3)
    assert report.air_time_s == pytest.approx(0.999)
    assert report.utilisation == pytest.approx(0.999)


def test_a_pass_exactly_filled_loses_nothing():
    channel = Channel(Link(rate_bps=8000, pass_s=1.0), seed=0)
    assert len(list(channel.send([bytes(100)] * 10))) == 10
    assert channel.report.utilisation == 1.0
    assert channel.report.packets_beyond_pass == 0


def test_a_lost_packet_costs_air_time_all_the_same():
    channel = Channel(Link(rate_bps=8000, pass_s=1.0, packet_loss=1.0), seed=0)
    assert list(channel.send([bytes(100)] * 20)) == []
    assert (channel.report.packets_lost, channel.report.packets_beyond_pass) == (10, 10)


def test_no_pass_sends_nothing():
    channel = Channel(Link(rate_bps=1e6, pass_s=0.0), seed=0)
    assert list(channel.send(numbered(5))) == []
    assert channel.report.packets_beyond_pass == 5
    assert channel.report.utilisation == 0.0


@settings(max_examples=30)
@given(st.integers(0, 2**63), st.lists(st.integers(1, 400), max_size=200), st.integers(1, 50))
def test_the_same_seed_is_the_same_fate_however_the_packets_come(seed, sizes, cut):
    packets = [random.Random(i).randbytes(size) for i, size in enumerate(sizes)]
    whole = Channel(ALL, seed)
    arrived = list(whole.send(packets))
    parts = Channel(ALL, seed)
    again = [p for start in range(0, len(packets), cut) for p in parts.send(iter(packets[start : start + cut]))]
    assert again == arrived
    assert parts.report == whole.report


def test_the_fate_does_not_depend_on_how_many_numbers_are_drawn_at_once(monkeypatch):
    packets = numbered(3000, octets=100)
    usual = list(Channel(ALL, 7).send(packets))
    monkeypatch.setattr(link_module, "_DRAWS", 5)
    assert list(Channel(ALL, 7).send(packets)) == usual
    assert list(Channel(ALL, 8).send(packets)) != usual


def test_one_kind_of_damage_leaves_the_draws_of_the_others_alone():
    packets = numbered(5000)
    lost = {number(p) for p in packets} - {number(p) for p in Channel(link(packet_loss=0.1), 3).send(packets)}
    bursts = link(packet_loss=0.1, burst=Burst(0.01, 0.2))
    lost_with_bursts = {number(p) for p in packets} - {number(p) for p in Channel(bursts, 3).send(packets)}
    assert lost < lost_with_bursts


@settings(max_examples=30)
@given(st.integers(0, 1000), st.integers(0, 400), st.floats(0, 0.01))
def test_every_packet_is_accounted_for(seed, count, pass_s):
    channel = Channel(Link(1e6, pass_s, 0.1, 1e-3, Burst(0.05, 0.3)), seed)
    arrived = list(channel.send(numbered(count, 40)))
    report = channel.report
    assert report.packets_offered == report.packets_sent + report.packets_beyond_pass == count
    assert report.packets_sent == report.packets_lost + report.packets_lost_in_bursts + len(arrived)
    assert delivered(report) == len(arrived)
    assert report.packets_corrupted <= len(arrived)


def test_a_packet_goes_with_any_frame_that_holds_part_of_it():
    """Frames of 100 octets, packets of 60 back to back: 0-60, 60-120, ... every second one or so lies in two."""
    channel = Channel(link(frame_loss=0.2, frame_octets=100), seed=3)
    packets = numbered(500, 60)
    arrived = {number(packet) for packet in channel.send(packets)}
    report = channel.report
    assert report.frames_sent == 300
    assert report.frames_per_packet == pytest.approx(1.4)  # of five packets in 300 octets two lie across a border
    lost = {number(packet) for packet in packets} - arrived
    assert len(lost) == report.packets_lost_with_frames
    lies_in = [set(range(60 * i // 100, (60 * i + 59) // 100 + 1)) for i in range(500)]
    gone = [frames for i, frames in enumerate(lies_in) if i in lost]
    kept = set().union(*(frames for i, frames in enumerate(lies_in) if i not in lost))
    assert all(frames - kept for frames in gone)  # each lost packet has a frame of its own to blame
    assert 0 < len(lost) < 500


def test_what_is_to_be_expected_stands_beside_the_draw():
    """Mean loss over seeds and the share of seeds without loss, against 400 seeds."""
    line = link(packet_loss=0.002, frame_loss=0.003, frame_octets=100, burst=Burst(0.001, 0.3, 0.9))
    packets, reports = numbered(100, 60), []
    for seed in range(400):
        channel = Channel(line, seed)
        list(channel.send(packets))
        reports.append(channel.report)
    lost = [100 - delivered(report) for report in reports]
    assert {report.expected_packets_lost for report in reports} == {reports[0].expected_packets_lost}
    assert np.mean(lost) == pytest.approx(reports[0].expected_packets_lost, abs=0.2)
    assert np.mean([n == 0 for n in lost]) == pytest.approx(reports[0].chance_of_no_loss, abs=0.06)
    by_hand = 1 - (1 - 0.002) * (1 - 0.9 * 0.001 / 0.301) * 0.997 ** np.array([1, 2])
    assert 100 * by_hand[0] < reports[0].expected_packets_lost < 100 * by_hand[1]


def test_a_link_without_loss_expects_none():
    channel = Channel(link(), 0)
    list(channel.send(numbered(10)))
    assert (channel.report.expected_packets_lost, channel.report.chance_of_no_loss) == (0.0, 1.0)


def test_packets_stream_one_at_a_time():
    taken = []

    def packets():
        for packet in numbered(10):
            taken.append(number(packet))
            yield packet

    arriving = Channel(OPEN, 0).send(packets())
    assert taken == []
    next(arriving)
    next(arriving)
    assert taken == [0, 1]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"packet_loss": 1.5}, "packet_loss is 1.5, wanted 0 to 1"),
        ({"rate_bps": 0}, "rate_bps is 0"),
        ({"pass_s": -1}, "pass_s is -1"),
        ({"bit_error_rate": 0.6}, "bit_error_rate is 0.6, wanted 0 to 0.5"),
        ({"bit_error_rate": 1e-16}, "wanted 0 or 1e-15 to 0.5"),
        ({"packet_loss": float("nan")}, "packet_loss is nan"),
    ],
)
def test_a_link_that_cannot_be_is_refused(fields, message):
    with pytest.raises(InputError, match=message):
        link(**fields)


def test_bursts_that_never_end_and_negative_seeds_are_refused():
    with pytest.raises(InputError, match="leave is 0"):
        Burst(0.1, 0.0)
    with pytest.raises(InputError, match="seed is -1"):
        Channel(OPEN, -1)


def test_tile_codes_over_a_bad_channel_arrive_whole_or_as_beginnings():
    tiles = [random.Random(i).randbytes(300 + 7 * i) for i in range(400)]
    counter = SequenceCounter(0x2A1, 16000)  # the count wraps on the way
    by_tile = [list(segment(tile, counter, 128)) for tile in tiles]
    sent = [packet for packets in by_tile for packet in packets]
    channel = Channel(Link(1e6, 1e3, 0.01, 1e-5, Burst(0.002, 0.3)), seed=1)
    reassembler = Reassembler(0x2A1)
    arrived = list(channel.send(sent))
    assemblies = [a for packet in arrived for a in reassembler.push(packet)] + reassembler.finish()
    report, counts = channel.report, reassembler.counts
    assert counts.received == delivered(report)
    assert counts.refused == report.packets_corrupted > 10  # the CRC sees every damaged packet
    gone = report.packets_lost + report.packets_lost_in_bursts + report.packets_corrupted
    assert counts.missing <= gone <= counts.missing + 10  # those before the first and after the last show no gap
    assert counts.orphaned > 0
    remaining = iter(tiles)
    for assembly in assemblies:
        tile = next(t for t in remaining if t.startswith(assembly.data))
        assert (tile == assembly.data) == assembly.complete
    whole = sum(set(packets) <= set(arrived) for packets in by_tile)
    assert 200 < sum(a.complete for a in assemblies) == whole < 400


def test_the_loss_profile_says_where_packets_never_arrived():
    """200 packets of which the pass carries 150, nothing lost before that: two a part, the last quarter gone."""
    channel = Channel(link(rate_bps=8.0, pass_s=150 * 16), seed=0)
    assert len(list(channel.send(numbered(200)))) == 150
    assert channel.report.loss_profile == (0.0,) * 75 + (1.0,) * 25


@pytest.mark.parametrize("count", [0, 1, 7, 99, 1234])
def test_the_loss_profile_adds_up_to_what_was_lost(count):
    channel = Channel(link(packet_loss=0.3, burst=Burst(0.01, 0.2)), seed=3)
    arrived = len(list(channel.send(numbered(count))))
    profile = channel.report.loss_profile
    assert len(profile) == min(100, count)
    sizes = [len(part) for part in np.array_split(np.arange(count), len(profile) or 1)]
    assert sum(share * size for share, size in zip(profile, sizes, strict=False)) == pytest.approx(count - arrived)
