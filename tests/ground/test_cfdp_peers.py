"""Other people's CFDP: LibreCube's entities over a UDP that loses, and tshark on the packets that carry PDUs."""

import contextlib
import random
import shutil
import socket
import struct
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from spacepackets.cfdp import ChecksumType

from payload.link.file_pdu import CFDP_APID, pack_down
from payload.link.space_packet import SequenceCounter
from sim.delivery.cfdp import Protocol, Receiver, Sender
from sim.ground.received_file import ReceivedFile

cfdp = pytest.importorskip("cfdp", reason="LibreCube's cfdp is not installed; pip install cfdp")
udp = pytest.importorskip("cfdp.transport.udp")
filestore = pytest.importorskip("cfdp.filestore")

#: LibreCube knows the modular checksum alone.
TALK = Protocol(pdu_octets=500, ack_timer_s=0.1, nak_timer_s=0.1, checksum=ChecksumType.MODULAR)
CONTENT = random.Random(3).randbytes(60_001)
SECONDS = 30


class Lossy:
    """A UDP socket on the loopback that loses a fifth of what goes out and of what comes in, in bursts of four."""

    def __init__(self, seed: int) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._socket.setblocking(False)
        self._chance, self._bad = random.Random(seed), False
        self.port, self.peer, self.lost = self._socket.getsockname()[1], 0, 0

    def _loses(self) -> bool:
        self._bad = self._chance.random() > 0.25 if self._bad else self._chance.random() < 0.0625
        self.lost += self._bad
        return self._bad

    def send(self, pdu: bytes) -> None:
        if not self._loses():
            self._socket.sendto(pdu, ("127.0.0.1", self.peer))

    def receive(self) -> Iterator[bytes]:
        with contextlib.suppress(BlockingIOError):
            while True:
                pdu = self._socket.recv(65536)
                if not self._loses():
                    yield pdu

    def close(self) -> None:
        self._socket.close()


@contextlib.contextmanager
def librecube(entity: int, folder: Path, line: Lossy):
    """An entity of LibreCube's whose files are in `folder`, at the other end of a line."""
    transport = udp.UdpTransport({"*": [("127.0.0.1", line.port)]})
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        line.peer = probe.getsockname()[1]
    transport.bind("127.0.0.1", line.peer)
    there = cfdp.CfdpEntity(
        entity, filestore.NativeFileStore(str(folder)), transport, positive_ack_timer_interval=0.3,
        positive_ack_timer_expiration_limit=50, nak_timer_interval=0.3, nak_timer_expiration_limit=50,
    )  # fmt: skip
    try:
        yield there
    finally:
        there.shutdown()
        transport.unbind()
        line.close()


@pytest.mark.parametrize("seed", range(2))
def test_class_2_to_librecube_over_a_udp_that_loses_a_fifth(tmp_path, seed):
    (tmp_path / "picture.bin").write_bytes(CONTENT)
    (tmp_path / "there").mkdir()
    line = Lossy(seed)
    with librecube(2, tmp_path / "there", line):
        sender, end = Sender(tmp_path / "picture.bin", TALK, time.monotonic), time.monotonic() + SECONDS
        while not sender.finished and time.monotonic() < end:
            pdu = sender.next_pdu()
            if pdu is None:
                time.sleep(0.002)
            else:
                line.send(pdu)
                time.sleep(0.0002)  # its buffer is a socket's
            for reply in line.receive():
                sender.push(reply)
        assert sender.finished and sender.listener.complete
    assert (tmp_path / "there" / "picture.bin").read_bytes() == CONTENT and line.lost > 10


@pytest.mark.parametrize("seed", range(2))
def test_class_2_from_librecube_over_a_udp_that_loses_a_fifth(tmp_path, seed, monkeypatch):
    """LibreCube's sender answers a NAK with one PDU for each gap, so that segments are short here: a gap of 64 KiB
    stops it. And it sends as fast as it can: what it sends at once has to fit the socket's buffer."""
    monkeypatch.setattr(cfdp.Transaction.__init__, "__defaults__", _with_segments_of(500))
    (tmp_path / "picture.bin").write_bytes(CONTENT)
    line, file = Lossy(seed), ReceivedFile()
    with librecube(1, tmp_path, line) as there:
        receiver, end = Receiver(file, TALK, time.monotonic), time.monotonic() + SECONDS
        there.put(2, "picture.bin", "picture.bin", transmission_mode=cfdp.TransmissionMode.ACKNOWLEDGED)
        while not receiver.complete and time.monotonic() < end:
            replies = [reply for pdu in line.receive() for reply in receiver.push(pdu)]
            for reply in replies + receiver.tick():
                line.send(reply)
            time.sleep(0.001)
    assert receiver.complete and file.read(0, len(CONTENT)) == CONTENT and line.lost > 5


def _with_segments_of(octets: int) -> tuple[object, ...]:
    """Defaults of LibreCube's transactions, with shorter segments: no other way leads there."""
    return tuple(octets if value == 4096 else value for value in cfdp.Transaction.__init__.__defaults__)


def pcap(packets: list[bytes]) -> bytes:
    """Each packet in a UDP datagram to port 9999, as a capture file."""
    octets = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 101)
    for packet in packets:
        datagram = struct.pack(">HHHH", 9999, 9999, 8 + len(packet), 0) + packet
        home = bytes([127, 0, 0, 1])
        ip = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 20 + len(datagram), 0, 0, 64, 17, 0, home, home) + datagram
        octets += struct.pack("<IIII", 0, 0, len(ip), len(ip)) + ip
    return octets


def test_tshark_finds_the_pdus_in_the_packets_of_apid_2045(tmp_path):
    program = shutil.which("tshark")
    if program is None:
        pytest.skip("no tshark here; `apt-get install tshark` brings one")
    (tmp_path / "f").write_bytes(CONTENT)
    sender, counter, pdus = Sender(tmp_path / "f", TALK, lambda: 0.0), SequenceCounter(CFDP_APID), []
    while (pdu := sender.next_pdu()) is not None:
        pdus.append(pdu)
    (tmp_path / "down.pcap").write_bytes(pcap([pack_down(pdu, counter) for pdu in pdus]))
    fields = ("ccsds.apid", "ccsds.seqnum", "cfdp.pdu_type", "cfdp.offset")
    wanted = [part for field in fields for part in ("-e", field)]
    done = subprocess.run(
        [program, "-r", str(tmp_path / "down.pcap"), "-d", "udp.port==9999,ccsds", "-T", "fields", *wanted],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    data = [row for row in rows if row[3]]
    assert len(rows) == len(pdus) and {row[0] for row in rows} == {"2045"}
    assert [int(row[1]) for row in rows] == list(range(len(pdus)))
    step = 500 - 12
    assert [int(row[3]) for row in data] == list(range(0, len(CONTENT), step)) and len(data) == len(pdus) - 2
