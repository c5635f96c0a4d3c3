"""Frames in a stream that begins anywhere, slips, is turned round, has holes and wrong bits."""

import random
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from payload.link.frames.stack import SYNC_MARKER, Stack, packets_on_air
from sim.link.frames.receiver import FrameReceiver, packets_off_air
from sim.link.frames.synchroniser import FLYWHEEL_FRAMES, Synchroniser

OCTETS = 200
FRAMES = [random.Random(k).randbytes(OCTETS) for k in range(40)]
STREAM = b"".join(SYNC_MARKER + frame for frame in FRAMES)
PERIOD = OCTETS + 4


def found_in(octets: bytes, piece: int = 1000) -> tuple[list[bytes], Synchroniser]:
    sync = Synchroniser(SYNC_MARKER, OCTETS)
    blocks = [block for at in range(0, len(octets), piece) for block in sync.push(octets[at : at + piece])]
    return [line.tobytes() for block in [*blocks, *sync.finish()] for line in block], sync


def moved(octets: bytes, bits: int) -> bytes:
    """The stream behind so many bits of nothing."""
    stream = np.concatenate([np.zeros(bits, np.uint8), np.unpackbits(np.frombuffer(octets, np.uint8))])
    return np.packbits(stream).tobytes()


def turned(octets: bytes) -> bytes:
    return bytes(octet ^ 0xFF for octet in octets)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 3 * PERIOD), st.integers(0, 7), st.booleans(), st.sampled_from([1, 7, 300, 5000]))
def test_frames_are_found_from_any_octet_and_any_bit_whichever_way_round(cut, bits, inverted, piece) -> None:
    octets = moved(STREAM[cut:], bits)
    found, sync = found_in(turned(octets) if inverted else octets, piece)
    whole = FRAMES[-(-cut // PERIOD) :]
    assert found == whole
    assert sync.counts.locks == 1 and sync.counts.inverted == len(whole) * inverted


def test_one_frame_on_its_own_is_a_stream() -> None:
    assert found_in(b"noise" + SYNC_MARKER + FRAMES[0])[0] == [FRAMES[0]]


def test_nothing_and_noise_give_no_frame() -> None:
    assert found_in(b"")[0] == []
    found, sync = found_in(random.Random(1).randbytes(100_000))
    assert found == [] and sync.counts.skipped_octets == 100_000


@pytest.mark.parametrize("bits", [1, 3, 8, 500])
@pytest.mark.parametrize("lost", [True, False])
def test_a_slip_costs_the_frame_it_falls_in(bits, lost) -> None:
    """Bits dropped or doubled in the middle of frame 20."""
    stream = np.unpackbits(np.frombuffer(STREAM, np.uint8))
    at = 8 * (20 * PERIOD + 100)
    slipped = np.concatenate([stream[:at], stream[at + bits :] if lost else stream[at - bits :]])
    found, sync = found_in(np.packbits(slipped).tobytes())
    assert set(FRAMES) - set(found) == {FRAMES[20]} and sync.counts.slips == 1


def test_damaged_markers_cost_nothing_up_to_the_flywheels_length() -> None:
    octets = bytearray(STREAM)
    for n in range(10, 10 + FLYWHEEL_FRAMES):
        octets[n * PERIOD : n * PERIOD + 4] = bytes(4)
    found, sync = found_in(bytes(octets))
    assert found == FRAMES and sync.counts.flywheel == FLYWHEEL_FRAMES and sync.counts.locks == 1


def test_a_long_hole_is_passed_over_and_the_lock_found_again() -> None:
    noise = random.Random(2).randbytes(20 * PERIOD + 333)
    found, _ = found_in(STREAM[: 10 * PERIOD] + noise + STREAM[10 * PERIOD :])
    assert [frame for frame in found if frame in FRAMES] == FRAMES


def test_bits_turned_round_in_the_middle_are_told_by_the_next_marker() -> None:
    at = 20 * PERIOD
    found, sync = found_in(STREAM[:at] + turned(STREAM[at:]))
    assert found == FRAMES and sync.counts.inverted == 20


@pytest.mark.parametrize("seed", range(20))
def test_at_a_thousandth_of_bits_wrong_the_lock_is_found_within_two_frames(seed) -> None:
    """From a random bit on: the first or second whole frame is delivered."""
    rng = np.random.default_rng(seed)
    bits = np.unpackbits(np.frombuffer(STREAM, np.uint8))
    bits ^= rng.random(len(bits)) < 1e-3
    start = int(rng.integers(0, 8 * PERIOD))
    found, _ = found_in(np.packbits(bits[start:]).tobytes())
    first = -(-start // (8 * PERIOD))
    assert len(found) >= len(FRAMES) - first - 2 + 1
    sent = FRAMES[len(FRAMES) - len(found)]
    assert (int.from_bytes(found[0], "big") ^ int.from_bytes(sent, "big")).bit_count() < 0.01 * 8 * OCTETS


def packets(count: int) -> list[tuple[int, bytes]]:
    made = []
    for k in range(count):
        body = random.Random(k).randbytes(60 + 31 * k % 900)
        made.append((k % 4, bytes([0, k % 256, 0xC0, 0]) + (len(body) - 1).to_bytes(2, "big") + body))
    return made


STACKS = [
    Stack(), Stack("aos"), Stack(reed_solomon="255,239", interleave=1), Stack(dual_basis=False, interleave=8),
    Stack(frame_octets=500), Stack(reed_solomon="none"), Stack(reed_solomon="none", randomiser=False, fecf=False),
    Stack(reed_solomon="none", sync_marker=False), Stack(convolutional=True), Stack(fecf=False, lead_in_frames=0),
    Stack("aos", reed_solomon="none", frame_octets=300, convolutional=True),
]  # fmt: skip


@pytest.mark.parametrize("stack", STACKS, ids=str)
def test_with_any_layers_on_the_packets_come_back(stack) -> None:
    sent = packets(60)
    units = list(packets_on_air(sent, stack))
    assert {len(unit) for unit in units} == {stack.unit_octets}
    receiver = FrameReceiver(stack)
    found = list(packets_off_air(units, receiver))
    assert Counter(found) == Counter(sent) and receiver.reception.frames.refused == 0
    assert receiver.reception.frames.idle == stack.lead_in_frames


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(STACKS), st.binary(max_size=4000), st.integers(1, 3000))
def test_octets_of_any_kind_raise_nothing(stack, octets, piece) -> None:
    receiver = FrameReceiver(stack)
    for at in range(0, len(octets), piece):
        receiver.push(octets[at : at + piece])
    receiver.finish()


def test_octets_one_by_one_say_the_same_as_all_at_once() -> None:
    """A slip that is decided before more is known would be taken for a damaged marker."""
    marker, rng = SYNC_MARKER, random.Random(3)
    frames = [marker + rng.randbytes(60) for _ in range(12)]
    air = b"".join(frames[:5]) + b"\x55" + b"".join(frames[5:])
    found = []
    for pieces in ([air], [air[at : at + 1] for at in range(len(air))]):
        line = Synchroniser(marker, 60)
        got = [frame.tobytes() for piece in pieces for some in line.push(piece) for frame in some]
        got += [frame.tobytes() for some in line.finish() for frame in some]
        found.append((got, line.counts))
    assert found[0] == found[1] and found[0][1].slips == 1 and found[0][1].flywheel == 0
