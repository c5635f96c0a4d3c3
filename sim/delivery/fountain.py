"""A file -> RaptorQ symbols in packets, one way: any symbols a little more than the source make the file again."""

from collections.abc import Iterator
from math import ceil
from pathlib import Path
from zlib import crc32

from payload.errors import InputError
from payload.link.fountain_packet import (
    ALIGNMENT_OCTETS,
    FOUNTAIN_OCTETS,
    LONGEST_GENERATION_OCTETS,
    MOST_SYMBOLS,
    Generation,
    Symbol,
    pack,
)
from payload.link.space_packet import OVERHEAD_OCTETS, Packet, SequenceCounter, SequenceFlag
from payload.link.space_packet import pack as pack_packet


def symbol_octets(packet_octets: int) -> int:
    """Octets of a symbol that fills a packet. InputError where a packet is too short for any."""
    octets = (packet_octets - OVERHEAD_OCTETS - FOUNTAIN_OCTETS) // ALIGNMENT_OCTETS * ALIGNMENT_OCTETS
    if octets < ALIGNMENT_OCTETS:
        least = OVERHEAD_OCTETS + FOUNTAIN_OCTETS + ALIGNMENT_OCTETS
        raise InputError(f"packets of {packet_octets} octets hold no RaptorQ symbol; wanted {least} or more")
    return octets


def symbols_of(path: Path, packet_octets: int, overhead: float, transfer: int = 0) -> Iterator[Symbol]:
    """The symbols of a file, generation by generation: the source, then ceil(`overhead` x source) repair symbols.
    `transfer` tells files apart."""
    from raptorq import Encoder

    size = symbol_octets(packet_octets)
    longest = min(LONGEST_GENERATION_OCTETS, MOST_SYMBOLS * size)
    with path.open("rb") as file:
        offset = 0
        while data := file.read(longest):
            generation = Generation(transfer, offset, len(data), crc32(data), size)
            repair = ceil(overhead * generation.symbols)
            for encoded in Encoder.with_defaults(data, size).get_encoded_packets(repair):
                yield Symbol(generation, int.from_bytes(encoded[1:4], "big"), encoded[4:])
            offset += len(data)


def packet_of(symbol: Symbol, counter: SequenceCounter) -> bytes:
    """The space packet around a symbol."""
    return pack_packet(Packet(counter.apid, counter.take(), SequenceFlag.WHOLE, pack(symbol)))
