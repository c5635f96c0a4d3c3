"""Packets -> reception -> picture: what the ground makes of what arrived. Damage is data, never an exception.

packets -> tile codes -> indices -> levels -> decoder network -> rotated bands -> DN, tile edges evened out
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from payload.bundle import Bundle
from payload.codec.interface import Codec
from payload.codec.registry import open_codec, open_fallback
from payload.engine import Engine, Network
from payload.errors import StreamError
from payload.link import tile_code
from payload.link.space_packet import Reassembler, ReceptionCounts
from payload.link.tile_code import Kind, TileCode
from payload.scene import Dn, Mask
from sim.ground.mosaic import even_out

Address = tuple[int, int]
#: Kinds of tile codes that hold a tile of the picture.
PICTURED = (Kind.CODED, Kind.FALLBACK)


@dataclass
class Reception:
    """What arrived of a scene of rows x cols tiles. Every tile is in `codes` or `refused`, or it is missing."""

    rows: int
    cols: int
    codes: dict[Address, TileCode] = field(default_factory=dict)
    audits: dict[Address, TileCode] = field(default_factory=dict)
    refused: dict[Address, str] = field(default_factory=dict)
    unaddressed: list[str] = field(default_factory=list)  # causes of refusals that name no tile
    counts: ReceptionCounts = field(default_factory=ReceptionCounts)

    @property
    def missing(self) -> list[Address]:
        """Tiles nothing is known of: lost on the link."""
        everything = ((row, col) for row in range(self.rows) for col in range(self.cols))
        return [a for a in everything if a not in self.codes and a not in self.refused]

    def accept(self, address: Address, code: TileCode) -> None:
        """Keeps a tile code, unless as much of the tile is here already: a pass may send a tile again."""
        known = self.codes.get(address)
        if known is None or len(code.layers) > len(known.layers):
            self.codes[address] = code
            self.refused.pop(address, None)

    def refuse(self, address: Address, cause: str) -> None:
        self.codes.pop(address, None)
        self.refused[address] = cause


def receive(packets: Iterable[bytes], bundle: Bundle, rows: int, cols: int) -> Reception:
    """Tile codes from packets as they come off the link. What cannot be used is listed with its cause."""
    reception = Reception(rows, cols)
    reassembler = Reassembler()
    for packet in packets:
        for assembly in reassembler.push(packet):
            _take(reception, assembly.data, assembly.cause, bundle)
    for assembly in reassembler.finish():
        _take(reception, assembly.data, assembly.cause, bundle)
    reception.counts = reassembler.counts
    return reception


def _take(reception: Reception, data: bytes, cause: str | None, bundle: Bundle) -> None:
    try:
        code = tile_code.unpack(data)
    except StreamError as error:
        reception.unaddressed.append(str(error))
        return
    address = (code.row, code.col)
    if code.row >= reception.rows or code.col >= reception.cols:
        reception.unaddressed.append(f"tile {address} lies outside {reception.rows} x {reception.cols} tiles")
        return
    unusable = _unusable(code, bundle, cause)
    if unusable is None:
        reception.accept(address, code)
    elif code.kind is Kind.AUDIT and code.bundle_id == bundle.bundle_id:
        reception.audits[address] = code
    elif address not in reception.codes:
        reception.refuse(address, unusable)


def _unusable(code: TileCode, bundle: Bundle, cause: str | None) -> str | None:
    """Why a tile code gives no tile of the picture; None where it does."""
    if code.bundle_id != bundle.bundle_id and code.kind is not Kind.FALLBACK:
        return f"coded with bundle {code.bundle_id:08x}, this ground holds {bundle.bundle_id:08x}"
    if code.kind is Kind.AUDIT:
        return f"a tile of kind {code.kind.name} is no part of the picture"
    if code.kind in PICTURED and not code.layers:
        return code.cause or cause or "no layer arrived whole"
    return None


class Decoder:
    """Tile codes -> tiles, with the ground part of a bundle. Fallback tiles need no bundle."""

    def __init__(self, bundle: Bundle, engine: Engine) -> None:
        self._bundle, self._codec = bundle, open_codec(bundle)
        file = self._codec.ground_network
        self._network = None if file is None else engine.load(bundle.file(file))

    def decode_tile(self, code: TileCode) -> Dn:
        """DN uint16 [B, T, T]. StreamError if the octets make no sense: nothing is invented."""
        codec, network = self._for(code)
        return codec.reconstruct(codec.decode(code.side, code.layers), network)

    def step_of(self, code: TileCode) -> float:
        """Quantiser step of a tile as decoded, in DN: how far its pixels may be off."""
        codec, _ = self._for(code)
        return codec.step_of(code.side, len(code.layers))

    @cached_property
    def _fallback(self) -> Codec:
        return open_fallback(self._bundle)

    def _for(self, code: TileCode) -> tuple[Codec, Network | None]:
        if code.kind is Kind.FALLBACK:
            return self._fallback, None
        if self._codec.code_kind is Kind.FALLBACK:
            raise StreamError("coded with a bundle that this ground does not hold")
        return self._codec, self._network


@dataclass(frozen=True, eq=False)
class Strip:
    """One row of tiles as the ground sees it: dn uint16 [B, T, cols T], known bool [T, cols T]."""

    row: int
    dn: Dn
    known: Mask


def reconstruct(reception: Reception, decoder: Decoder, bundle: Bundle, blend: bool = True) -> Iterator[Strip]:
    """Strips of tiles from north to south. Unknown pixels are 0; what does not decode is refused with its cause."""
    before: tuple[Strip, list[float]] | None = None
    for row in range(reception.rows):
        here = _decode_row(reception, decoder, bundle, row)
        if blend:
            even_out(here[0].dn, here[1], before[0].dn if before else None, before[1] if before else None)
        if before:
            yield before[0]
        before = here
    if before:
        yield before[0]


def _decode_row(reception: Reception, decoder: Decoder, bundle: Bundle, row: int) -> tuple[Strip, list[float]]:
    side = bundle.tile_px
    dn = np.zeros((len(bundle.bands), side, reception.cols * side), np.uint16)
    known = np.zeros(dn.shape[1:], bool)
    steps = [0.0] * reception.cols
    for col in range(reception.cols):
        code = reception.codes.get((row, col))
        if code is None or code.kind not in PICTURED or not code.layers:
            continue
        try:
            tile, steps[col] = decoder.decode_tile(code), decoder.step_of(code)
        except StreamError as error:
            reception.refuse((row, col), str(error))
            continue
        dn[:, :, col * side : (col + 1) * side] = tile
        known[:, col * side : (col + 1) * side] = True
    return Strip(row, dn, known), steps
