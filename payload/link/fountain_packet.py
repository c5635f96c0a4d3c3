"""One RaptorQ symbol (RFC 6330) <-> the data of the space packet that carries it. docs/format.md, "Fountain".

Every packet says all that is needed to decode with it, so that no packet is worth more than another.

    octet 0     1, 2       3 .. 7     8 .. 11    12 .. 15   16 .. 19     20 ..
    +---------+----------+----------+----------+----------+------------+--------------+
    | version | transfer |  offset  |  octets  |  CRC-32  | payload id | symbol, 8 n  |
    +---------+----------+----------+----------+----------+------------+--------------+
"""

from dataclasses import dataclass

from payload.errors import PacketError, StreamError

VERSION = 1
FOUNTAIN_OCTETS = 20
#: A file is coded in generations of so many octets at most: it bounds the memory of both sides.
LONGEST_GENERATION_OCTETS = 4 * 1024 * 1024
#: RFC 6330: symbols are multiples of so many octets here, and a source block has at most so many symbols.
ALIGNMENT_OCTETS, MOST_SYMBOLS = 8, 8192


@dataclass(frozen=True)
class Generation:
    """A stretch of a file that is coded on its own."""

    transfer: int  # tells files apart, 0 to 65535
    offset: int  # in the file
    octets: int
    crc: int  # CRC-32 over its octets
    symbol_octets: int

    def __post_init__(self) -> None:
        if not (0 <= self.transfer < 1 << 16 and 0 <= self.offset < 1 << 40 and 0 <= self.crc < 1 << 32):
            raise PacketError(f"transfer {self.transfer}, offset {self.offset}: wanted 16 and 40 bits")
        if not 1 <= self.octets <= LONGEST_GENERATION_OCTETS:
            raise PacketError(f"a generation of {self.octets} octets, wanted 1 to {LONGEST_GENERATION_OCTETS}")
        if self.symbol_octets < ALIGNMENT_OCTETS or self.symbol_octets % ALIGNMENT_OCTETS:
            raise PacketError(f"symbols of {self.symbol_octets} octets, wanted a multiple of {ALIGNMENT_OCTETS}")
        if self.symbols > MOST_SYMBOLS:
            raise PacketError(f"{self.symbols} symbols in a generation, wanted at most {MOST_SYMBOLS}")

    @property
    def symbols(self) -> int:
        """Source symbols that it is made of."""
        return -(-self.octets // self.symbol_octets)


@dataclass(frozen=True)
class Symbol:
    """One encoding symbol: `number` below the generation's symbols is the source itself, the others are repair."""

    generation: Generation
    number: int  # encoding symbol id, 0 to 2^24 - 1
    octets: bytes


def pack(symbol: Symbol) -> bytes:
    """The octets of one symbol with its header."""
    g = symbol.generation
    head = bytes([VERSION]) + g.transfer.to_bytes(2, "big") + g.offset.to_bytes(5, "big") + g.octets.to_bytes(4, "big")
    return head + g.crc.to_bytes(4, "big") + symbol.number.to_bytes(4, "big") + symbol.octets


def unpack(data: bytes) -> Symbol:
    """The symbol in received octets; StreamError if there is none."""
    if len(data) <= FOUNTAIN_OCTETS or data[0] != VERSION:
        raise StreamError(f"no symbol of version {VERSION}")
    transfer, offset, octets, crc, block_and_number = (
        int.from_bytes(data[a:b], "big") for a, b in ((1, 3), (3, 8), (8, 12), (12, 16), (16, 20))
    )
    if block_and_number >> 24:
        raise StreamError(f"source block {block_and_number >> 24}, wanted 0: a generation is one block")
    try:
        generation = Generation(transfer, offset, octets, crc, len(data) - FOUNTAIN_OCTETS)
    except PacketError as error:
        raise StreamError(str(error)) from None
    return Symbol(generation, block_and_number, bytes(data[FOUNTAIN_OCTETS:]))
