"""Other people's readers on what comes out of our frames: tshark and ccsdspy on packets, fprime-gds on TM frames."""

import io
import random
import shutil
import struct
import subprocess

import numpy as np
import pytest

from payload.link.frames.stack import Stack, packets_on_air
from payload.link.frames.virtual_channels import Deframer, frames_of
from payload.link.space_packet import Packet, SequenceFlag, pack
from sim.link.frames.receiver import FrameReceiver, packets_off_air

COUNT = 10_000
APIDS = (0x2A1, 0x2A2, 0x2A4)


@pytest.fixture(scope="module")
def sent() -> list[tuple[int, bytes]]:
    """Packets of three streams, on a virtual channel each."""
    rng, counts, packets = random.Random(1), [0, 0, 0], []
    for _ in range(COUNT):
        k = rng.randrange(3)
        packets.append((k, pack(Packet(APIDS[k], counts[k], SequenceFlag(rng.randrange(4)), rng.randbytes(40)))))
        counts[k] += 1
    return packets


@pytest.fixture(scope="module")
def arrived(sent) -> list[bytes]:
    """The same, from the frames of them as they were on the air."""
    receiver = FrameReceiver(Stack())
    return [packet for _, packet in packets_off_air(packets_on_air(sent, Stack()), receiver)]


def pcap(packets: list[bytes]) -> bytes:
    """A capture of UDP datagrams to port 9999, one a packet."""
    octets = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 101)  # 101: IP without a link layer
    for packet in packets:
        udp = struct.pack(">HHHH", 9999, 9999, 8 + len(packet), 0) + packet
        ip = struct.pack(">BBHHHBBHII", 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0, 0x7F000001, 0x7F000001)
        octets += struct.pack("<IIII", 0, 0, len(ip + udp), len(ip + udp)) + ip + udp
    return octets


def test_tshark_reads_ten_thousand_packets_out_of_our_frames_as_they_went_in(sent, arrived, tmp_path) -> None:
    program = shutil.which("tshark")
    if program is None:
        pytest.skip("no tshark here; `apt-get install tshark` brings one")
    (tmp_path / "air.pcap").write_bytes(pcap(arrived))
    names = ("ccsds.version", "ccsds.apid", "ccsds.seqflag", "ccsds.seqnum", "ccsds.length")
    wanted = [part for name in names for part in ("-e", name)]
    command = [program, "-n", "-r", str(tmp_path / "air.pcap"), "-d", "udp.port==9999,ccsds", "-T", "fields", *wanted]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    rows = sorted(tuple(int(value, 0) for value in line.split("\t")) for line in done.stdout.splitlines())
    ours = [struct.unpack(">HHH", packet[:6]) for _, packet in sent]
    assert rows == sorted((0, first & 0x7FF, flags >> 14, flags & 0x3FFF, length) for first, flags, length in ours)


def test_ccsdspy_reads_ten_thousand_packets_out_of_our_frames_as_they_went_in(sent, arrived) -> None:
    ccsdspy = pytest.importorskip("ccsdspy", reason="ccsdspy is the oracle here: pip install 'nadir-payload[test]'")
    body = ccsdspy.PacketArray(name="body", data_type="uint", bit_length=8, array_shape=42)
    by_apid = ccsdspy.utils.split_by_apid(io.BytesIO(b"".join(arrived)))
    differing = 0
    for k, apid in enumerate(APIDS):
        mine = [packet for channel, packet in sent if channel == k]
        found = ccsdspy.FixedLength([body]).load(by_apid[apid], include_primary_header=True)
        wanted = np.frombuffer(b"".join(packet[6:] for packet in mine), np.uint8).reshape(len(mine), 42)
        assert list(found["CCSDS_SEQUENCE_COUNT"]) == list(range(len(mine)))
        differing += int((found["body"] != wanted).any(axis=1).sum())
    assert differing == 0


def test_fprime_gds_reads_our_tm_frames_as_we_do(sent) -> None:
    """Its deframer follows one channel; every twentieth frame is lost on the way to both."""
    judge = pytest.importorskip(
        "fprime_gds.common.communication.ccsds.space_data_link", reason="fprime-gds is not installed (pip install it)"
    )
    mine = [(0, packet) for channel, packet in sent if channel == 0]
    layout = Stack().layout
    frames = [frame for n, frame in enumerate(frames_of(mine, layout)) if n % 20 != 7]
    theirs, deframer = b"", judge.SpaceDataLinkFramerDeframer(layout.spacecraft_id, 0, layout.octets)
    for frame in frames:
        theirs += deframer.deframe(frame)[0] or b""
    ours = Deframer(layout)
    packets = [packet for frame in frames for _, packet in ours.push(frame)] + [packet for _, packet in ours.finish()]
    assert 0.8 * len(mine) < len(packets) < len(mine) and theirs.startswith(b"".join(packets))
