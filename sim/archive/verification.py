"""A scene file looked at octet by octet: what is damaged, and whether its tiles still decode."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from payload.engine import open_engine
from payload.errors import InputError, StreamError
from payload.link import tile_code
from sim.archive.layout import Head
from sim.archive.octets import Octets
from sim.archive.reader import PICTURED, held_bundle, read_head
from sim.ground.decoder import Decoder

#: Tile codes are read in pieces of about so many octets.
PIECE_OCTETS = 4 << 20


@dataclass(frozen=True)
class Verdict:
    """What was found of one file: its octets, and every damage in a sentence."""

    name: str
    octets: int
    damages: tuple[str, ...]

    @property
    def sound(self) -> bool:
        return not self.damages


def verify(octets: Octets, name: str, decoder: Decoder | None = None) -> Verdict:
    """Every octet of a file against its checksums; with a decoder, also that every tile decodes.

    InputError where the file cannot be read at all."""
    size = octets.size()
    try:
        head = read_head(octets)
    except InputError as error:
        return Verdict(name, size, (str(error).removeprefix(f"{octets.where}: "),))
    damages = tuple(_damages(octets, head, size, decoder))
    return Verdict(name, size, damages)


def decoder_for(octets: Octets, bundle: str | None, engine_name: str, kind: str) -> Decoder:
    """The decoder of a file's bundle."""
    return Decoder(held_bundle(read_head(octets), bundle), open_engine(engine_name), kind)


def _damages(octets: Octets, head: Head, size: int, decoder: Decoder | None) -> Iterator[str]:
    begin = head.octets
    if size != begin + head.body_octets:
        yield f"{size} octets, wanted {begin + head.body_octets}: it was cut short, or something was added"
    if size < begin + head.body_octets:
        return
    digest, found = hashlib.sha256(), 0
    for first, codes in _pieces(octets, head, begin):
        for tile, code in enumerate(codes, first):
            digest.update(code)
            cause = _damage_of(code, head, tile, decoder)
            if cause:
                found += 1
                yield f"tile {divmod(tile, head.header.grid[1])}: {cause}"
    if digest.digest() != head.body_sha256 and not found:
        yield "the checksum over all tile codes does not match, though each of theirs does"


def _pieces(octets: Octets, head: Head, begin: int) -> Iterator[tuple[int, list[bytes]]]:
    """The first tile of each piece of the body, and the tile codes in it."""
    starts = np.append(head.index.offset, head.body_octets).astype(np.int64)
    first, tiles = 0, len(starts) - 1
    while first < tiles:
        end = max(first + 1, int(np.searchsorted(starts, starts[first] + PIECE_OCTETS, side="right")) - 1)
        piece = octets.read([(begin + int(starts[first]), begin + int(starts[end]))])[0]
        edges = (starts[first : end + 1] - starts[first]).tolist()
        yield first, [piece[a:b] for a, b in pairwise(edges)]
        first = end


def _damage_of(octets: bytes, head: Head, tile: int, decoder: Decoder | None) -> str | None:
    index = head.index
    try:
        code = tile_code.unpack(octets)
        if code.cause is not None:
            return code.cause
        same = (code.row, code.col) == divmod(tile, head.header.grid[1]) and int(code.kind) == index.kind[tile]
        if not same or code.scene_id != head.header.scene_id or code.bundle_id != head.header.bundle_id:
            return "it is another tile's, or of another scene or bundle"
        if tile_code.pack(code) != octets:
            return "octets that belong to nothing"
        if decoder is not None and index.kind[tile] in PICTURED:
            decoder.decode_tile(code)
    except StreamError as error:
        return str(error)
    return None
