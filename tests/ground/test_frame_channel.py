"""The channel of frames: exact bounds on every kind of damage, the same fate for the same seed, time on air."""

import numpy as np
import pytest
from scipy.stats import binom

from payload.errors import InputError
from payload.link.frames.stack import Stack
from sim.link.chances import BitBurst, Burst
from sim.link.channel import Channel
from sim.link.frames.channel import FrameChannel
from sim.link.link import Link, Mishaps

UNITS = [k.to_bytes(4, "big") + bytes(96) for k in range(4000)]
#: A correct channel leaves these bounds once in a billion tests.
SURE = 1 - 1e-9


def link(mishaps: Mishaps = Mishaps(), **fields) -> Link:  # noqa: B008
    return Link(**{"rate_bps": 1e9, "pass_s": 1e4, "stack": Stack(), "mishaps": mishaps} | fields)


def sent(seed: int = 0, **fields) -> tuple[bytes, FrameChannel]:
    channel = FrameChannel(link(**fields), seed)
    return b"".join(channel.send(UNITS)), channel


def within(count: float, trials: int, chance: float) -> bool:
    low, high = binom.interval(SURE, trials, chance)
    return bool(low <= count <= high)


def flipped(octets: bytes) -> np.ndarray:
    return np.unpackbits(np.frombuffer(octets, np.uint8) ^ np.frombuffer(b"".join(UNITS), np.uint8))


def test_a_clear_channel_changes_nothing() -> None:
    octets, channel = sent()
    assert octets == b"".join(UNITS)
    report = channel.report
    assert report.frames_sent == report.frames_offered == 4000 and report.octets_sent == 400_000
    assert report.chance_of_no_loss == 1.0 and report.expected_frames_lost == 0.0


def test_lost_frames_are_missing_and_frames_in_bursts_are_noise() -> None:
    octets, channel = sent(frame_loss=0.1)
    lost = channel.report.frames_lost
    assert within(lost, 4000, 0.1) and len(octets) == 100 * (4000 - lost)
    octets, channel = sent(burst=Burst(0.05, 0.2))
    assert len(octets) == 400_000 and 400 < channel.report.frames_lost_in_bursts < 1300
    hurt = sum(octets[100 * k : 100 * k + 100] != unit for k, unit in enumerate(UNITS))
    assert hurt == channel.report.frames_lost_in_bursts


def test_bit_errors_are_binomial_and_counted() -> None:
    octets, channel = sent(bit_error_rate=1e-3)
    wrong = flipped(octets)
    assert within(wrong.sum(), wrong.size, 1e-3) and channel.report.bits_flipped == wrong.sum()
    assert channel.report.frames_corrupted == np.count_nonzero(wrong.reshape(4000, 800).any(axis=1))


def test_a_frame_that_never_arrived_has_no_bit_errors_to_count() -> None:
    report = sent(frame_loss=1.0, bit_error_rate=1e-2)[1].report
    assert (report.frames_lost, report.frames_corrupted, report.bits_flipped) == (4000, 0, 0)
    half = sent(frame_loss=0.5, bit_error_rate=1e-2)[1].report  # hardly a frame of 800 bits stays whole
    assert half.frames_corrupted <= 4000 - half.frames_lost


def test_bursts_of_bit_errors_have_their_rates() -> None:
    burst = BitBurst(enter=1e-4, leave=1e-2, error_rate=0.5)  # bad runs of 100 bits, one in 10 000
    octets, _ = sent(bit_burst=burst)
    wrong = flipped(octets)
    expected = wrong.size * burst.enter / (burst.enter + burst.leave) * 0.5
    assert 0.6 * expected < wrong.sum() < 1.5 * expected
    pairs = np.mean(wrong[1:][wrong[:-1] == 1])  # an error follows an error by half: the burst goes on
    assert 0.4 < pairs < 0.6


def test_the_same_seed_gives_the_same_fate_however_the_burst_of_bits_is_cut() -> None:
    burst = BitBurst(1e-3, 1e-2)
    streams = []
    for size in (1, 4):
        channel = FrameChannel(link(bit_burst=burst, bit_error_rate=1e-4), 3)
        pieces = [b"".join(UNITS[k : k + size]) for k in range(0, 4000, size)]
        streams.append(b"".join(channel.send(pieces)))
    assert streams[0] == streams[1] == sent(3, bit_burst=burst, bit_error_rate=1e-4)[0]
    assert streams[0] != sent(4, bit_burst=burst, bit_error_rate=1e-4)[0]


@pytest.mark.parametrize("kind", [FrameChannel, Channel])
def test_duplicates_overtaking_and_cut_ends_on_frames_and_on_packets(kind) -> None:
    stack = Stack() if kind is FrameChannel else None
    for name, count in (("duplication", "doubled"), ("reordering", "reordered"), ("truncation", "truncated")):
        channel = kind(link(mishaps=Mishaps(**{name: 0.1}), stack=stack), 1)
        arrived = list(channel.send(UNITS))
        unit = "frames" if kind is FrameChannel else "packets"
        happened = getattr(channel.report, f"{unit}_{count}")
        assert within(happened, 4000, 0.1)
        if name == "duplication":
            assert len(arrived) == 4000 + happened and sorted(set(arrived)) == UNITS
        elif name == "reordering":
            places = [int.from_bytes(a[:4], "big") for a in arrived]
            assert sorted(arrived) == UNITS and places != sorted(places)
            assert max(k - place for k, place in enumerate(places)) <= 16
        else:
            short = sum(len(a) < 100 for a in arrived)
            assert happened * 0.95 < short + (4000 - len(arrived)) <= happened


def test_slips_drop_or_double_single_bits() -> None:
    octets, channel = sent(mishaps=Mishaps(bit_slip_rate=1e-4))
    slips = channel.report.bits_slipped
    assert within(slips, 3_200_000, 1e-4)
    assert abs(len(octets) - 400_000) < slips and octets != b"".join(UNITS)


def test_a_frame_turned_round_turns_all_that_follow() -> None:
    octets, channel = sent(seed=2, mishaps=Mishaps(inversion=0.0005))
    wrong = flipped(octets).reshape(4000, 800)
    assert channel.report.inversions > 0 and set(wrong.mean(axis=1)) == {0.0, 1.0}
    turns = np.count_nonzero(np.diff(wrong[:, 0].astype(int)))
    assert turns in (channel.report.inversions, channel.report.inversions - 1)


def test_air_time_cuts_off_at_the_end_of_the_pass() -> None:
    channel = FrameChannel(link(rate_bps=8000.0, pass_s=1.0), 0)  # 1000 octets
    assert len(b"".join(channel.send(UNITS[:12]))) == 1000
    report = channel.report
    assert (report.frames_sent, report.frames_beyond_pass, report.octets_beyond_pass) == (10, 2, 200)
    assert report.utilisation == pytest.approx(1.0)


def test_what_any_seed_may_expect_is_the_mean_over_many() -> None:
    line = link(frame_loss=0.002, burst=Burst(0.001, 0.3, 0.9))
    lost, none = [], 0
    for seed in range(400):
        channel = FrameChannel(line, seed)
        list(channel.send(UNITS[:200]))
        found = channel.report.frames_lost + channel.report.frames_lost_in_bursts
        lost.append(found)
        none += found == 0
    assert np.mean(lost) == pytest.approx(channel.report.expected_frames_lost, abs=0.25)
    assert within(none, 400, channel.report.chance_of_no_loss)


@pytest.mark.parametrize(
    ("fields", "cause"),
    [
        ({"packet_loss": 0.1}, r"packet_loss is 0.1 beside \[link.stack\]"),
        ({"stack": None, "mishaps": Mishaps(bit_slip_rate=1e-3)}, r"are of frames; add \[link.stack\]"),
    ],
)
def test_chances_that_belong_to_the_other_kind_of_link_are_refused(fields, cause) -> None:
    with pytest.raises(InputError, match=cause):
        link(**fields)


def test_a_negative_seed_is_misuse() -> None:
    with pytest.raises(InputError, match="seed is -1"):
        FrameChannel(link(), -1)
