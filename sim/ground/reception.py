"""Packets -> what arrived, scene by scene. Damage is data, never an exception; nothing is known here but the octets.

packets of the mission's applications -> records -> scene headers and tile codes, each to the scene whose id it carries
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field

from payload.bundle import Bundle
from payload.errors import StreamError
from payload.link import app_record, housekeeping, scene_header, tile_code
from payload.link.app_record import AppRecord
from payload.link.housekeeping import Housekeeping
from payload.link.scene_header import SceneHeader
from payload.link.space_packet import Assembly, Reassembler, ReceptionCounts
from payload.link.streams import apids_of
from payload.link.tile_code import Kind, TileCode

Address = tuple[int, int]
#: Kinds of tile codes that hold a tile of the picture.
PICTURED = (Kind.CODED, Kind.FALLBACK)


@dataclass
class SceneReception:
    """What arrived of one scene. Every tile is in `codes` or `refused`, or it is missing.

    `scene_id` None: tiles that name no scene (tile codes of version 2). Without its header a scene has no place and is
    as large as the tiles that arrived say.
    """

    scene_id: int | None
    header: SceneHeader | None = None
    fates: Mapping[Kind, int] | None = None  # what was sent, counted on board; None while no final header came
    codes: dict[Address, TileCode] = field(default_factory=dict)
    audits: dict[Address, TileCode] = field(default_factory=dict)
    refused: dict[Address, str] = field(default_factory=dict)
    outside: list[Address] = field(default_factory=list)  # tiles beyond the grid that the header gives
    answers: dict[int, AppRecord] = field(default_factory=dict)  # of applications, by number; copies are one

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of tiles."""
        if self.header is not None:
            return self.header.grid
        known = [*self.codes, *self.refused]
        return max((row for row, _ in known), default=-1) + 1, max((col for _, col in known), default=-1) + 1

    @property
    def bundle_id(self) -> int | None:
        """The bundle that the scene was coded with, as far as anything says."""
        if self.header is not None:
            return self.header.bundle_id
        return next((code.bundle_id for code in self.codes.values() if code.kind is Kind.CODED), None)

    @property
    def missing(self) -> list[Address]:
        """Tiles nothing is known of: lost on the link."""
        rows, cols = self.grid
        everything = ((row, col) for row in range(rows) for col in range(cols))
        return [a for a in everything if a not in self.codes and a not in self.refused]

    def accept(self, code: TileCode) -> None:
        """Keeps a tile code, unless as much of the tile is here already: a pass may send a tile again."""
        address = (code.row, code.col)
        known = self.codes.get(address)
        if known is None or len(code.layers) > len(known.layers):
            self.codes[address] = code
            self.refused.pop(address, None)

    def refuse(self, address: Address, cause: str) -> None:
        self.codes.pop(address, None)
        self.refused[address] = cause

    def close(self) -> None:
        """Takes out what lies beyond the grid, once nothing more will come."""
        rows, cols = self.grid
        for held in (self.codes, self.audits, self.refused):
            beyond = [a for a in held if a[0] >= rows or a[1] >= cols]
            self.outside += beyond
            for address in beyond:
                del held[address]


@dataclass
class Reception:
    """What arrived in a stream: scenes by their id, and what belongs to none."""

    scenes: dict[int | None, SceneReception] = field(default_factory=dict)
    unaddressed: list[str] = field(default_factory=list)  # causes of refusals that name no tile
    housekeeping: list[Housekeeping] = field(default_factory=list)  # in the order in which it came
    counts: ReceptionCounts = field(default_factory=ReceptionCounts)

    def scene(self, scene_id: int | None) -> SceneReception:
        """The scene of that id; an empty one where nothing of it arrived yet."""
        return self.scenes.setdefault(scene_id, SceneReception(scene_id))


def receive(packets: Iterable[bytes], bundles: Mapping[int, Bundle], apid: int) -> Reception:
    """Scenes from packets as they come off the link. `bundles` by their id: those that this ground holds.

    Packets of other applications are counted. What cannot be used is listed with its cause.
    """
    return receive_channels(((0, packet) for packet in packets), bundles, apid)


def receive_channels(packets: Iterable[tuple[int, bytes]], bundles: Mapping[int, Bundle], apid: int) -> Reception:
    """As `receive`, of packets with their virtual channels: each counts its own packets, so that senders who know
    nothing of each other may share an APID on channels of their own."""
    reception, reassembly = Reception(), _Reassembly(apid)
    for assembly in reassembly.assemblies(packets):
        try:
            _take(reception, assembly, bundles)
        except StreamError as error:
            reception.unaddressed.append(str(error))
    for scene in reception.scenes.values():
        scene.close()
    reception.counts = reassembly.counts
    return reception


def by_id(bundles: Iterable[Bundle]) -> dict[int, Bundle]:
    """Bundles as `receive` wants them."""
    return {bundle.bundle_id: bundle for bundle in bundles}


class _Reassembly:
    """A reassembler for every virtual channel and stream."""

    def __init__(self, apid: int) -> None:
        self._apids = apids_of(apid)
        self._reassemblers: dict[tuple[int, int], Reassembler] = {}

    def assemblies(self, packets: Iterable[tuple[int, bytes]]) -> Iterator[Assembly]:
        for channel, packet in packets:
            yield from self._of(channel, packet).push(packet)
        for reassembler in self._reassemblers.values():
            yield from reassembler.finish()

    @property
    def counts(self) -> ReceptionCounts:
        total: Counter[str] = Counter()
        for reassembler in self._reassemblers.values():
            total.update(asdict(reassembler.counts))
        return ReceptionCounts(**total)

    def _of(self, channel: int, packet: bytes) -> Reassembler:
        """Who follows the APID that a packet seems to have; for those of others, whoever follows the first stream."""
        apid = int.from_bytes(packet[:2], "big") & 0x7FF
        key = channel, apid if apid in self._apids else self._apids[0]
        if key not in self._reassemblers:
            self._reassemblers[key] = Reassembler(key[1])
        return self._reassemblers[key]


def _take(reception: Reception, assembly: Assembly, bundles: Mapping[int, Bundle]) -> None:
    if housekeeping.is_housekeeping(assembly.data):
        reception.housekeeping.append(housekeeping.unpack(assembly.data))
        return
    if app_record.is_app_record(assembly.data):
        answer = app_record.unpack(assembly.data)
        reception.scene(answer.scene_id).answers[answer.number] = answer
        return
    if scene_header.is_header(assembly.data):
        _take_header(reception, scene_header.unpack(assembly.data))
        return
    code = tile_code.unpack(assembly.data)
    scene = reception.scene(code.scene_id)
    unusable = _unusable(code, bundles, assembly.cause)
    if unusable is not None:
        if (code.row, code.col) not in scene.codes:
            scene.refuse((code.row, code.col), unusable)
    elif code.kind is Kind.AUDIT:
        scene.audits[code.row, code.col] = code
    else:
        scene.accept(code)


def _take_header(reception: Reception, header: SceneHeader) -> None:
    """The first header of a scene stands; a later one that says something else is refused."""
    scene = reception.scene(header.scene_id)
    if scene.header not in (None, header):
        raise StreamError(f"a second header of scene {header.scene_id:08x} contradicts its first")
    scene.header, scene.fates = header, header.fates or scene.fates


def _unusable(code: TileCode, bundles: Mapping[int, Bundle], cause: str | None) -> str | None:
    """Why nothing can be made of a tile code; None where something can."""
    if code.bundle_id not in bundles and code.kind is not Kind.FALLBACK:
        held = ", ".join(f"{bundle_id:08x}" for bundle_id in bundles)
        return f"coded with bundle {code.bundle_id:08x}, this ground holds {held}"
    if code.kind in (*PICTURED, Kind.AUDIT) and not code.layers:
        return code.cause or cause or "no layer arrived whole"
    return None
