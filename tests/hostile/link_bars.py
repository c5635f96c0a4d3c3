"""The link's bars, measured: python tests/hostile/link_bars.py [--trials N]    (make bench-link)

Speed of the frames' layers on one core beside libfec in the same run, by processor time, best of rounds; and random
words far beyond what Reed-Solomon corrects, of which none may be taken for a codeword but for the share that theory
allows.
"""

import argparse
import ctypes
import ctypes.util
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT)]

import numpy as np  # noqa: E402

from payload.link.frames.reed_solomon import ReedSolomon  # noqa: E402
from payload.link.frames.stack import Stack, packets_on_air  # noqa: E402
from payload.link.space_packet import Packet, SequenceFlag, pack  # noqa: E402
from sim.link.frames.receiver import FrameReceiver, packets_off_air  # noqa: E402

PACKETS, ROUNDS, ENCODE_MBPS, DECODE_MBPS = 2000, 5, 100.0, 80.0
#: 1 at each place in the frames where a bit error falls: about four wrong symbols in a codeword of (255,223).
BIT_ERROR_RATE = 2e-3


def best_mbps(octets: int, work: Callable[[], object]) -> float:
    """Megabits of packets a second of processor time, in the best of some rounds."""
    took = []
    for _ in range(ROUNDS):
        start = time.process_time()
        work()
        took.append(time.process_time() - start)
    return 8 * octets / min(took) / 1e6


def speeds() -> dict[str, float]:
    rng = np.random.default_rng(1)
    sent = [(0, pack(Packet(1, n % 16384, SequenceFlag.WHOLE, rng.bytes(1016)))) for n in range(PACKETS)]
    octets, stack = sum(len(packet) for _, packet in sent), Stack()
    air = np.frombuffer(b"".join(packets_on_air(sent, stack)), np.uint8)
    places = np.flatnonzero(rng.random(8 * len(air)) < BIT_ERROR_RATE)
    wrong = air.copy()
    np.bitwise_xor.at(wrong, places >> 3, (0x80 >> (places & 7)).astype(np.uint8))
    stream = wrong.tobytes()
    found = list(packets_off_air([stream], FrameReceiver(stack)))
    if found != sent:
        raise SystemExit("what was decoded is not what was sent")
    told = {
        "framing, Reed-Solomon, randomiser, marker": best_mbps(octets, lambda: list(packets_on_air(sent, stack))),
        "back, with 2 bits of 1000 wrong": best_mbps(
            octets, lambda: list(packets_off_air([stream], FrameReceiver(stack)))
        ),
    }
    return told | libfec_speeds(octets)


def libfec_speeds(octets: int) -> dict[str, float]:
    """libfec on as many codewords, with four wrong symbols each on the way back. Nothing where it is not installed."""
    name = ctypes.util.find_library("fec")
    if name is None:
        return {}
    fec, rng = ctypes.CDLL(name), np.random.default_rng(2)
    words = ReedSolomon(32, 1).encode(rng.integers(0, 256, (octets // 223, 223), dtype=np.uint8))
    bad = words.copy()
    for word in bad:
        word[rng.choice(255, 4, replace=False)] ^= 1
    at = [ctypes.c_void_p(word.ctypes.data) for word in words]

    def decode() -> None:
        copy = bad.copy()
        for word in range(len(copy)):
            fec.decode_rs_ccsds(ctypes.c_void_p(copy.ctypes.data + 255 * word), None, 0, 0)

    def encode() -> None:
        for word in at:
            fec.encode_rs_ccsds(word, ctypes.c_void_p(word.value + 223), 0)  # type: ignore[operator]

    return {"libfec, Reed-Solomon alone": best_mbps(octets, encode), "libfec, four wrong": best_mbps(octets, decode)}


def share_within_reach(parity: int) -> float:
    """Of all words, those within parity / 2 symbols of a codeword: sum C(255, i) 255^i / 256^parity."""
    return math.fsum(math.comb(255, i) * 255**i / 256**parity for i in range(parity // 2 + 1))


def taken(parity: int, trials: int) -> int:
    """Random words that the decoder takes for codewords."""
    code, rng, found = ReedSolomon(parity, 1, True, 255 - parity), np.random.default_rng(parity), 0
    for begin in range(0, trials, 20_000):
        words = rng.integers(0, 256, (min(20_000, trials - begin), 255), dtype=np.uint8)
        found += int((code.decode(words)[1] >= 0).sum())
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=1_000_000)
    trials, held = parser.parse_args().trials, True
    told = speeds()
    for name, mbps in told.items():
        print(f"{name:<45} {mbps:8.0f} Mb/s", flush=True)
    encode, decode = list(told.values())[:2]
    held = encode >= ENCODE_MBPS and decode >= DECODE_MBPS
    for parity in (32, 16):
        found, expected = taken(parity, trials), trials * share_within_reach(parity)
        most = expected + 6 * math.sqrt(expected) + (expected > 1e-3)
        print(f"(255,{255 - parity}): {found} of {trials} random words taken, theory {expected:.3g}", flush=True)
        held = held and found <= most
    print("held" if held else "NOT held")
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
