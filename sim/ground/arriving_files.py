"""Files that come down in a stream of packets: CFDP PDUs and RaptorQ symbols to their places, whatever is missing.

CFDP file data is put where its offset says, so that a stream recorded off the link can be read long after its
transaction: without its Metadata, with repetitions, with holes.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any
from zlib import crc32

from payload.errors import InputError, StreamError
from payload.link import fountain_packet
from payload.link.file_pdu import CFDP_APID, parse_pdu
from payload.link.fountain_packet import Generation, Symbol
from payload.link.space_packet import Packet, unpack
from payload.link.streams import apids_of
from sim.ground.received_file import ReceivedFile

#: The highest APID that CCSDS does not reserve: RaptorQ symbols.
FOUNTAIN_APID = 2039
FILE_APIDS = (CFDP_APID, FOUNTAIN_APID)
#: Files, and generations not decoded yet, that a stream may keep open.
MOST_FILES, MOST_GENERATIONS = 256, 16
#: Protocol, virtual channel, source, number of the file.
Key = tuple[str, int, int, int]


@dataclass
class ArrivingFile:
    """One file, as far as it is here. `octets` and `checksum` as the sender's EOF or the generations say."""

    content: ReceivedFile = field(default_factory=ReceivedFile)
    octets: int | None = None
    checksum: int | None = None
    arrived_octets: int = 0  # of file data or symbols, repetitions included

    @property
    def complete(self) -> bool:
        """Whether all of it is here and the checksum, where one came, is right."""
        if self.octets is None or self.content.holes(self.octets):
            return False
        return self.checksum is None or self.content.crc32(self.octets) == self.checksum


class ArrivingFiles:
    """Takes packets and keeps the files that are in them, those of each virtual channel apart."""

    def __init__(self) -> None:
        self.files: dict[Key, ArrivingFile] = {}
        self._decoders: dict[tuple[int, Generation], Any] = {}  # by channel; oldest first
        self._decoded: set[tuple[int, Generation]] = set()

    def take(self, packet: bytes, channel: int = 0) -> ArrivingFile | None:
        """The file that a packet belongs to; None if it carries no part of one, or is damaged."""
        if int.from_bytes(packet[:2], "big") not in FILE_APIDS:
            return None
        try:
            parsed = unpack(packet)
            return (self._take_pdu if parsed.apid == CFDP_APID else self._take_symbol)(parsed, channel)
        except StreamError:
            return None

    def _file(self, key: Key) -> ArrivingFile:
        if key not in self.files and len(self.files) >= MOST_FILES:
            raise StreamError(f"more than {MOST_FILES} files in a stream")
        return self.files.setdefault(key, ArrivingFile())

    def _take_pdu(self, packet: Packet, channel: int) -> ArrivingFile:
        pdu: Any = parse_pdu(packet.data)
        file = self._file(("cfdp", channel, pdu.source_entity_id.value, pdu.transaction_seq_num.value))
        if hasattr(pdu, "file_data"):
            file.content.write(pdu.offset, bytes(pdu.file_data))
            file.arrived_octets += len(pdu.file_data)
        elif hasattr(pdu, "file_checksum"):
            file.octets, file.checksum = pdu.file_size, int.from_bytes(pdu.file_checksum, "big")
        return file

    def _take_symbol(self, packet: Packet, channel: int) -> ArrivingFile:
        symbol = fountain_packet.unpack(packet.data)
        generation = symbol.generation
        file = self._file(("raptorq", channel, 0, generation.transfer))
        file.octets = max(file.octets or 0, generation.offset + generation.octets)
        file.arrived_octets += len(symbol.octets)
        if (channel, generation) not in self._decoded:
            self._place(symbol, channel, file.content)
        return file

    def _place(self, symbol: Symbol, channel: int, content: ReceivedFile) -> None:
        """A source symbol is the file itself; any symbol helps the decoder, until the generation is whole."""
        generation = symbol.generation
        if symbol.number < generation.symbols:
            start = symbol.number * generation.symbol_octets
            content.write(generation.offset + start, symbol.octets[: generation.octets - start])
        whole = self._decoder(channel, generation).decode(symbol.number.to_bytes(4, "big") + symbol.octets)
        if whole is not None:
            del self._decoders[channel, generation]
            if crc32(whole) == generation.crc:  # a damaged symbol that no CRC caught would spoil all of it
                content.write(generation.offset, whole)
                self._decoded.add((channel, generation))

    def _decoder(self, channel: int, generation: Generation) -> Any:
        key = channel, generation
        if key not in self._decoders:
            while len(self._decoders) >= MOST_GENERATIONS:
                del self._decoders[next(iter(self._decoders))]
            self._decoders[key] = _raptorq().Decoder.with_defaults(generation.octets, generation.symbol_octets)
        return self._decoders[key]


def packets_and_files(pieces: Iterable[tuple[int, bytes]], apid: int) -> Iterator[tuple[int, bytes]]:
    """The payload's packets in a stream, with their virtual channels: those that lie in it, then those in the files
    that come in it."""
    arriving = ArrivingFiles()
    for channel, piece in pieces:
        if arriving.take(piece, channel) is None:
            yield channel, piece
    for (_, channel, _, _), file in arriving.files.items():
        yield from ((channel, packet) for packet in file.content.packets(apids_of(apid)))
        file.content.close()


def _raptorq() -> Any:
    try:
        import raptorq
    except ModuleNotFoundError:
        raise InputError("raptorq is not installed, which decodes this; pip install 'nadir-payload[ground]'") from None
    return raptorq
