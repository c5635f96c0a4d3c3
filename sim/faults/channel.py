"""The link: packets of a scene with bit errors, bursts, losses, other orders, duplicates, cuts and slips."""

from collections.abc import Callable
from functools import lru_cache

import numpy as np

from payload.link.space_packet import read_packets
from payload.link.tile_code import TileCode
from sim.faults.outcomes import Outcome
from sim.faults.world import World, world
from sim.ground.reception import by_id, receive

Random = np.random.Generator
Damage = Callable[[list[bytes], Random], bytes]
TILES = 4
LONGEST_BURST_OCTETS = 3000


@lru_cache(maxsize=1)
def sent() -> tuple[World, list[bytes], dict[tuple[int, int], TileCode]]:
    """The scene, its packets, and its tile codes by place."""
    here = world("edge", TILES)
    packets = list(here.payload.transmit(here.scene))
    return here, packets, {(code.row, code.col): code for code in here.clean}


def trial_of(damage: Damage) -> Callable[[Random], Outcome]:
    """Packets damaged, received, and every tile compared with what was sent."""

    def trial(random: Random) -> Outcome:
        here, packets, wanted = sent()
        octets = damage(packets, random)
        apid = here.payload.policy.apid
        reception = receive(read_packets(octets, [apid]), by_id([here.bundle]), apid)
        codes = {place: code for scene in reception.scenes.values() for place, code in scene.codes.items()}
        wrong = [place for place, code in codes.items() if place not in wanted or not _begins(code, wanted[place])]
        whole = [place for place, code in codes.items() if place in wanted and code.layers == wanted[place].layers]
        counts = reception.counts
        told = bool(
            counts.refused or counts.missing or counts.late or counts.orphaned or counts.restarts or counts.foreign
            or reception.unaddressed or any(s.missing or s.refused or s.outside for s in reception.scenes.values())
            or any(code.incomplete for code in codes.values()) or len(codes) < len(wanted)
        )  # fmt: skip
        return Outcome(not wrong and len(whole) == len(wanted), told, hole=not wrong and len(whole) < len(wanted))

    return trial


def _begins(code: TileCode, wanted: TileCode) -> bool:
    """Whether what arrived is a beginning of what was sent."""
    return code.side == wanted.side and code.layers == wanted.layers[: len(code.layers)]


def bit_errors(rate: float) -> Damage:
    def damage(packets: list[bytes], random: Random) -> bytes:
        octets = np.frombuffer(b"".join(packets), np.uint8).copy()
        places = random.integers(0, 8 * octets.size, random.binomial(8 * octets.size, rate))
        np.bitwise_xor.at(octets, places >> 3, (0x80 >> (places & 7)).astype(np.uint8))
        return octets.tobytes()

    return damage


def burst(packets: list[bytes], random: Random) -> bytes:
    octets = bytearray(b"".join(packets))
    begin, length = int(random.integers(len(octets))), int(random.integers(1, LONGEST_BURST_OCTETS))
    octets[begin : begin + length] = random.bytes(len(octets[begin : begin + length]))
    return bytes(octets)


def loss(share: float) -> Damage:
    return lambda packets, random: b"".join(p for p in packets if random.random() >= share)


def reorder(packets: list[bytes], random: Random) -> bytes:
    keys = np.arange(len(packets)) + random.uniform(0, float(random.integers(2, 60)), len(packets))
    return b"".join(packets[k] for k in np.argsort(keys, kind="stable"))


def duplicate(packets: list[bytes], random: Random) -> bytes:
    return b"".join(p * (1 + int(random.random() < 0.2)) for p in packets)


def truncate(packets: list[bytes], random: Random) -> bytes:
    octets = b"".join(packets)
    return octets[: int(random.integers(len(octets)))]


def slip(packets: list[bytes], random: Random) -> bytes:
    """Octets come in or go missing in the middle."""
    octets = b"".join(packets)
    at, count = int(random.integers(len(octets))), int(random.integers(1, 40))
    return octets[:at] + (random.bytes(count) + octets[at:] if random.random() < 0.5 else octets[at + count :])
