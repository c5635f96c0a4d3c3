"""Other people's readers on the link's octets: every referee, and F Prime's on a stream of frames with losses."""

import numpy as np
import pytest
from hostile.referees import REFEREES, AbsentError, fprime_deframers, packets

from payload.link.frames.stack import Stack
from payload.link.frames.virtual_channels import Deframer, frames_of


@pytest.mark.slow
@pytest.mark.parametrize("referee", REFEREES)
def test_a_referee_finds_no_difference_in_ten_thousand_units(referee) -> None:
    """`make bench-link` gives ten thousand to the one that is too slow for that here."""
    try:
        assert referee(REFEREES[referee]) == 0
    except AbsentError as absent:
        pytest.skip(str(absent))


@pytest.mark.parametrize("name", ["tshark", "ccsdspy", "fprime_gds", "librecube", "libfec", "reed_solomon_ccsds"])
def test_a_referee_tells_units_that_differ(name, monkeypatch) -> None:
    """Each with one octet of ours turned where it looks."""
    (referee,) = (each for each in REFEREES if each.__name__ == name)
    with_a_fault(name, monkeypatch)
    try:
        assert referee(20) > 0
    except AbsentError as absent:
        pytest.skip(str(absent))


def with_a_fault(name, monkeypatch) -> None:
    from hostile import referees

    from payload.link.frames.reed_solomon import ReedSolomon

    def turned(octets: bytes, at: int) -> bytes:
        return octets[:at] + bytes([octets[at] ^ 1]) + octets[at + 1 :]

    real_frames, real_encode, real_next = referees.frames_of, ReedSolomon.encode, referees.Sender.next_pdu
    real_through = referees.through_frames
    if name in ("tshark", "ccsdspy"):
        at = 3 if name == "tshark" else 10
        monkeypatch.setattr(referees, "through_frames", lambda sent: [turned(p, at) for p in real_through(sent)])
    elif name == "fprime_gds":
        monkeypatch.setattr(referees, "frames_of", lambda *all_: [turned(f, 50) for f in real_frames(*all_)])
    elif name == "librecube":
        monkeypatch.setattr(referees.Sender, "next_pdu", lambda self: (p := real_next(self)) and turned(p, len(p) - 1))
    else:
        monkeypatch.setattr(ReedSolomon, "encode", lambda self, data: real_encode(self, data) ^ (np.arange(255) == 254))


def test_fprime_gds_reads_our_tm_frames_as_we_do() -> None:
    """Its deframer follows one channel; every twentieth frame is lost on the way to both."""
    try:
        judge = fprime_deframers()
    except AbsentError as absent:
        pytest.skip(str(absent))
    mine = [(0, packet) for channel, packet in packets(10_000) if channel == 0]
    layout = Stack().layout
    frames = [frame for n, frame in enumerate(frames_of(mine, layout)) if n % 20 != 7]
    theirs, deframer = b"", judge.SpaceDataLinkFramerDeframer(layout.spacecraft_id, 0, layout.octets)
    for frame in frames:
        theirs += deframer.deframe(frame)[0] or b""
    ours = Deframer(layout)
    found = [packet for frame in frames for _, packet in ours.push(frame)] + [packet for _, packet in ours.finish()]
    assert 0.8 * len(mine) < len(found) < len(mine) and theirs.startswith(b"".join(found))
