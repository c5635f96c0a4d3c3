"""Other people's software on the link's octets: python tests/hostile/referees.py [--units N]    (make bench-link)

Each referee reads, or reproduces, so many units of ours and counts those that differ. The tests run the same functions,
the slow one of them with fewer units.
"""

import argparse
import ctypes
import ctypes.util
import importlib
import io
import random
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT)]

import numpy as np  # noqa: E402
from numpy.typing import NDArray  # noqa: E402

from payload.link.frames.reed_solomon import UNCORRECTABLE, ReedSolomon  # noqa: E402
from payload.link.frames.stack import Stack, packets_on_air  # noqa: E402
from payload.link.frames.virtual_channels import frames_of  # noqa: E402
from payload.link.space_packet import Packet, SequenceFlag, pack  # noqa: E402
from sim.delivery.cfdp import Protocol, Sender  # noqa: E402
from sim.link.frames.receiver import FrameReceiver, packets_off_air  # noqa: E402

Blocks = NDArray[np.uint8]
APIDS = (0x2A1, 0x2A2, 0x2A4)
BODY_OCTETS = 40


class AbsentError(Exception):
    """A referee that is not here; says how to get it."""


def packets(count: int) -> list[tuple[int, bytes]]:
    """Packets of three streams with a virtual channel each; their counts run on."""
    rng, counts, made = random.Random(1), [0, 0, 0], []
    for _ in range(count):
        k = rng.randrange(3)
        flag, data = SequenceFlag(rng.randrange(4)), rng.randbytes(BODY_OCTETS)
        made.append((k, pack(Packet(APIDS[k], counts[k] % 16384, flag, data))))
        counts[k] += 1
    return made


def through_frames(sent: list[tuple[int, bytes]]) -> list[bytes]:
    """The same, out of the frames of them as they were on the air."""
    return [packet for _, packet in packets_off_air(packets_on_air(sent, Stack()), FrameReceiver(Stack()))]


def pcap(datagrams: list[bytes]) -> bytes:
    """A capture of UDP datagrams to port 9999."""
    octets = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 101)  # 101: IP without a link layer
    for datagram in datagrams:
        udp = struct.pack(">HHHH", 9999, 9999, 8 + len(datagram), 0) + datagram
        ip = struct.pack(">BBHHHBBHII", 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0, 0x7F000001, 0x7F000001)
        octets += struct.pack("<IIII", 0, 0, len(ip + udp), len(ip + udp)) + ip + udp
    return octets


def tshark(count: int) -> int:
    """Its CCSDS dissector on packets out of frames: every field of every header."""
    program = shutil.which("tshark")
    if program is None:
        raise AbsentError("no tshark here; `apt-get install tshark` brings one")
    sent = packets(count)
    names = ("ccsds.version", "ccsds.apid", "ccsds.seqflag", "ccsds.seqnum", "ccsds.length")
    wanted = [part for name in names for part in ("-e", name)]
    with tempfile.TemporaryDirectory() as folder:
        capture = Path(folder) / "air.pcap"
        capture.write_bytes(pcap(through_frames(sent)))
        command = [program, "-n", "-r", str(capture), "-d", "udp.port==9999,ccsds", "-T", "fields", *wanted]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    rows = sorted(tuple(int(value, 0) for value in line.split("\t")) for line in done.stdout.splitlines())
    heads = (struct.unpack(">HHH", packet[:6]) for _, packet in sent)
    ours = sorted((0, first & 0x7FF, flags >> 14, flags & 0x3FFF, length) for first, flags, length in heads)
    return _differing(rows, ours)


def ccsdspy(count: int) -> int:
    """ccsdspy on packets out of frames: counts and contents."""
    judge = _imported("ccsdspy", "pip install 'nadir-payload[test]'")
    sent = packets(count)
    body = judge.PacketArray(name="body", data_type="uint", bit_length=8, array_shape=BODY_OCTETS + 2)
    by_apid, differing = judge.utils.split_by_apid(io.BytesIO(b"".join(through_frames(sent)))), 0
    for k, apid in enumerate(APIDS):
        mine = [packet for channel, packet in sent if channel == k]
        found = judge.FixedLength([body]).load(by_apid[apid], include_primary_header=True)
        counts = [int.from_bytes(packet[2:4], "big") % 16384 for packet in mine]
        bodies = [row.tobytes() for row in found["body"].astype(np.uint8)]
        rows = list(zip(found["CCSDS_SEQUENCE_COUNT"].tolist(), bodies, strict=True))
        differing += _differing(rows, [(n, packet[6:]) for n, packet in zip(counts, mine, strict=True)])
    return differing


def fprime_gds(count: int) -> int:
    """The TM deframer of F Prime's ground system on so many frames of one channel: the packets, to the octet."""
    judge = fprime_deframers()
    rng, layout, sent = random.Random(2), Stack().layout, []
    while len(sent) * 1016 < count * layout.data_octets:
        sent.append(pack(Packet(APIDS[0], len(sent) % 16384, SequenceFlag.WHOLE, rng.randbytes(1008))))
    frames = list(frames_of(((0, packet) for packet in sent), layout))[:count]
    deframer = judge.SpaceDataLinkFramerDeframer(layout.spacecraft_id, 0, layout.octets)
    theirs = b"".join(deframer.deframe(frame)[0] or b"" for frame in frames)
    whole = count * layout.data_octets // 1016  # packets; the last frame may hold the beginning of one more
    return _differing([theirs[at : at + 1016] for at in range(0, len(theirs), 1016)], sent[:whole])


def fprime_deframers() -> Any:
    """The module of F Prime's deframers, which has a folder of its own."""
    folder = str(ROOT / "build" / "referees")
    sys.path.append(folder)
    try:
        return _imported("fprime_gds.common.communication.ccsds.space_data_link", "`make test` installs it")
    finally:
        sys.path.remove(folder)


def librecube(count: int) -> int:
    """LibreCube's parser on so many of our file data PDUs, and its own octets for what it parsed."""
    judge = _imported("cfdp.pdu", "pip install 'nadir-payload[test]'")
    talk, octets, differing, parsed = Protocol(pdu_octets=500, acknowledged=False), random.Random(3).randbytes, 0, b""
    content = octets(488 * count)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "f").write_bytes(content)
        sender = Sender(Path(folder) / "f", talk, lambda: 0.0, number=300)
        data = [pdu for pdu in iter(sender.next_pdu, None) if pdu[0] & 0x10]
    for n, pdu in enumerate(data):
        found = judge.FiledataPdu.decode(pdu)
        wanted = (488 * n, 1, 2, 300, content[488 * n : 488 * (n + 1)])
        head = found.pdu_header
        told = (head.source_entity_id, head.destination_entity_id, head.transaction_seq_number, found.file_data)
        differing += (found.segment_offset, *told) != wanted or found.encode() != pdu
        parsed += found.file_data
    return differing + abs(len(data) - count) + (parsed != content)


def libfec(count: int) -> int:
    """libfec's parity of (255,223) in the dual basis, and its verdict on words of 0 to 18 wrong symbols."""
    name = ctypes.util.find_library("fec")
    if name is None:
        raise AbsentError("libfec is not installed (Debian: libfec0)")
    fec, (data, blocks, bad) = ctypes.CDLL(name), _words(count, 18)
    theirs = np.zeros((count, 32), np.uint8)
    for n in range(count):
        fec.encode_rs_ccsds(_at(data[n]), _at(theirs[n]), 0)
    ours, corrected = ReedSolomon(32, 1).decode(bad)
    counts = np.array([fec.decode_rs_ccsds(_at(word), None, 0, 0) for word in bad])  # in place
    same = (np.maximum(counts, UNCORRECTABLE) == corrected[:, 0]) & (blocks[:, 223:] == theirs).all(axis=1)
    same &= (corrected[:, 0] < 0) | (bad[:, :223] == ours).all(axis=1)
    return int(np.count_nonzero(~same))


def reed_solomon_ccsds(count: int) -> int:
    """The package of that name on as many codewords, 0 to 16 symbols of each wrong."""
    judge = _imported("reed_solomon_ccsds", "pip install 'nadir-payload[test]'")
    data, blocks, bad = _words(count, 16)
    _, corrected = ReedSolomon(32, 1).decode(bad)
    differing = 0
    for n in range(count):
        theirs = judge.encode(data[n].tobytes(), dual_basis=True, interleaving=1)
        try:
            told = judge.decode(bad[n].tobytes(), dual_basis=True, interleaving=1)
        except judge.UncorrectableError:
            told = ([UNCORRECTABLE], b"")
        differing += theirs != blocks[n].tobytes() or told != ([int(corrected[n, 0])], data[n].tobytes())
    return differing


def _words(count: int, most_wrong: int) -> tuple[Blocks, Blocks, Blocks]:
    """Data, codewords of (255,223), and the same with 0 to so many symbols wrong."""
    rng = np.random.default_rng(4)
    data = rng.integers(0, 256, (count, 223), dtype=np.uint8)
    blocks = ReedSolomon(32, 1).encode(data)
    bad = blocks.copy()
    for word in bad:
        places = rng.choice(255, rng.integers(0, most_wrong + 1), replace=False)
        word[places] ^= rng.integers(1, 256, len(places), dtype=np.uint8)
    return data, blocks, bad


def _at(word: Blocks) -> ctypes.c_char_p:
    return word.ctypes.data_as(ctypes.c_char_p)


def _imported(name: str, remedy: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise AbsentError(f"{error.name} is not installed; {remedy}") from None


def _differing(found: Sequence[object], wanted: Sequence[object]) -> int:
    """Units that differ, missing and surplus ones among them."""
    return sum(a != b for a, b in zip(found, wanted, strict=False)) + abs(len(found) - len(wanted))


#: Each with the units that the tests give it: all of them but where pure Python takes 35 ms a codeword.
REFEREES: dict[Callable[[int], int], int] = {
    tshark: 10_000, ccsdspy: 10_000, fprime_gds: 10_000, librecube: 10_000, libfec: 10_000, reed_solomon_ccsds: 100,
}  # fmt: skip


def verdicts(units: int) -> Iterator[tuple[str, bool]]:
    """What each referee says of so many units, and whether it found no difference."""
    for referee in REFEREES:
        start_s = time.process_time()
        try:
            differing = referee(units)
        except AbsentError as absent:
            yield f"{referee.__name__:<20} ABSENT: {absent}", False
            continue
        took_s = time.process_time() - start_s
        yield f"{referee.__name__:<20} {units:>6} units, {differing} differ ({took_s:.1f} s)", differing == 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--units", type=int, default=10_000)
    all_held = True
    for told, held in verdicts(parser.parse_args().units):
        print(told, flush=True)
        all_held = all_held and held
    print("held" if all_held else "NOT held")
    return 0 if all_held else 1


if __name__ == "__main__":
    sys.exit(main())
