"""The onboard store: coded tiles on disk, a file a scene, until they are sent. Whatever ends the payload, what was
acknowledged is there afterwards and the rest is pending.

    00000007.part     an open scene: records appended and synced one by one
    00000007.scene    a complete one: renamed when its last record was synced; written anew beside itself, as
                      00000007.scene.new, where layers are let go of
    state             counters in two slots

A cut in the middle of a write leaves a torn record at the end; opening cuts it off. A full disk refuses the record and
leaves the file as it was.
"""

import struct
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace

from payload.errors import StreamError
from payload.guard.telemetry import Count, EventId, Telemetry
from payload.link import scene_header, tile_code
from payload.link.rate_control import Candidate
from payload.link.scene_header import SceneHeader
from payload.link.tile_code import Kind as TileKind
from payload.link.tile_code import TileCode
from payload.store import record
from payload.store.files import NEW, Files
from payload.store.record import Kind, Record
from payload.store.state import StateFile

OPEN, COMPLETE = ".part", ".scene"


#: Where the octets of a record lie in its file: the first, and how many.
Place = tuple[int, int]
#: Row, column and number of a layer; THUMBNAIL in its place: the thumbnail of a withheld tile.
Layer = tuple[int, int, int]
THUMBNAIL = 0xFFFF
_LAYER = struct.Struct(">HHH")


@dataclass(eq=False)
class SceneLog:
    """The records of one scene on disk: what is there of it, and where the next record goes."""

    files: Files
    telemetry: Telemetry
    name: str
    header: SceneHeader
    tiles: dict[tuple[int, int], Place] = field(default_factory=dict)  # by row and column
    audits: dict[tuple[int, int], Place] = field(default_factory=dict)  # by row and column
    down: set[Layer] = field(default_factory=set)  # on the ground
    good: int = 0  # tiles of the last call that were found good
    length: int = 0  # octets of the file that hold whole records
    begun: int = 0  # tiles that were there when its coding began or went on
    torn: bool = False  # behind them lies what could not be taken back

    @property
    def scene_id(self) -> int:
        return self.header.scene_id

    @property
    def complete(self) -> bool:
        return self.name.endswith(COMPLETE)

    def add(self, candidate: Candidate) -> bool:
        """A tile, acknowledged: whether it is on disk. False where there is no room; the file is as it was."""
        return self._put(candidate, sync=True)

    def _put(self, candidate: Candidate, sync: bool) -> bool:
        code = candidate.code
        place = self.append(Kind.TILE, len(self.tiles), pack_tile(candidate), sync)
        if place is not None:
            self.tiles[code.row, code.col] = place
        return place is not None

    def add_audit(self, code: TileCode) -> bool:
        """A thumbnail."""
        place = self.append(Kind.AUDIT, 0, tile_code.pack(code), sync=False)
        if place is not None:
            self.audits[code.row, code.col] = place
        return place is not None

    def mark_good(self, count: int) -> None:
        """The first `count` tiles that were added since the scene was opened are good, and all before. Not synced: the
        next tile takes it along."""
        good = self.begun + count
        if good > self.good:
            self.good = good
            self.append(Kind.GOOD, good, b"", sync=False)

    def doubted(self) -> list[tuple[int, int]]:
        """The tiles that were added since the scene was opened and are not known to be good."""
        return list(self.tiles)[max(self.good, self.begun) :]

    def take_back(self) -> None:
        """Lets go of the tiles that are `doubted`: the file is cut off in front of them and synced, which takes no
        room. They are pending again."""
        keep, doubted = max(self.good, self.begun), self.doubted()
        if not doubted:
            return
        self.length, self.torn = self.tiles[doubted[0]][0], True  # where this fails, the next append cuts it off
        self.tiles = {address: self.tiles[address] for address in list(self.tiles)[:keep]}
        self.audits = {address: place for address, place in self.audits.items() if place[0] < self.length}
        self.telemetry.tell(EventId.TAKEN_BACK, f"{len(doubted)} tiles", doubted[0])
        try:
            self.files.truncate(self.name, self.length)
            self.files.sync(self.name)
            self.torn = False
        except OSError:
            self.telemetry.count(Count.STORE_DAMAGED)
            return
        self.append(Kind.GOOD, keep, b"", sync=False)

    def close(self) -> bool:
        """The scene is complete: the file gets its last record and its last name. False where there is no room."""
        if self.complete:
            return True
        if self.append(Kind.CLOSED, len(self.tiles), b"") is None:
            return False
        new = self.name.removesuffix(OPEN) + COMPLETE
        try:
            self.files.rename(self.name, new)
            self.files.sync_names()
        except OSError:
            self._full()
            return False
        self.name = new
        return True

    def acknowledge(self, layers: Collection[Layer]) -> bool:
        """Notes layers that are on the ground. Where there is no room for that they are so until the next start."""
        self.down.update(layers)
        octets = b"".join(_LAYER.pack(*layer) for layer in sorted(layers))
        return not octets or self.append(Kind.DOWN, len(layers), octets) is not None

    def let_go(self, layers: Collection[Layer]) -> bool:
        """A complete scene without these layers of its tiles and all behind them, written anew beside itself. False
        where that finds no room: nothing is let go of then."""
        new = SceneLog(self.files, self.telemetry, self.name + NEW, self.header)
        if not (self._write_less(new, layers) and self._give_place(new)):
            with suppress(OSError):  # opening the store again removes it
                self.files.remove(new.name)
            return False
        if layers:
            self.telemetry.tell(EventId.LET_GO, f"{len(layers)} layers of scene {self.scene_id:08x}", min(layers)[:2])
        return True

    def _write_less(self, new: "SceneLog", layers: Collection[Layer]) -> bool:
        """Whether all that is left without `layers` is in `new`, synced. Tiles of which all is down are left out."""
        first: dict[tuple[int, int], int] = {}
        for row, col, layer in layers:
            first[row, col] = min(layer, first.get((row, col), layer))
        gone = self.down.union(layers)
        thumbnails = (self.audit(address) for address in self.audits if (*address, THUMBNAIL) not in gone)
        tiles = (shortened(self.tile(a) or lost(self, a), first.get(a)) for a in self.tiles)
        whole = new.append(Kind.SCENE, 0, scene_header.pack(self.header), sync=False) is not None
        whole = whole and all(new.add_audit(code) for code in thumbnails if code is not None)
        whole = whole and all(new._put(tile, sync=False) for tile in tiles if not self.finished(tile))
        kept = {one for one in self.down if one[:2] in new.tiles and one[2] < first.get(one[:2], THUMBNAIL)}
        return whole and new.acknowledge(kept) and new.append(Kind.CLOSED, len(new.tiles), b"") is not None

    def _give_place(self, new: "SceneLog") -> bool:
        try:
            self.files.rename(new.name, self.name)
        except OSError:
            return False
        self.tiles, self.audits, self.down, self.length = new.tiles, new.audits, new.down, new.length
        with suppress(OSError):  # a cut before this is durable finds the older file, which holds more
            self.files.sync_names()
        return True

    def finished(self, tile: Candidate) -> bool:
        """Whether all layers that there are of a tile are on the ground."""
        count, code = len(tile.code.layers), tile.code
        return count > 0 and all((code.row, code.col, layer) in self.down for layer in range(count))

    def tile(self, address: tuple[int, int]) -> Candidate | None:
        """A stored tile; None where the store lost it since, which is told."""
        found = self._read(self.tiles[address])
        return read_tile(found.octets) if found is not None else None

    def audit(self, address: tuple[int, int]) -> TileCode | None:
        """A stored thumbnail; None where there is none."""
        found = self._read(self.audits[address]) if address in self.audits else None
        return tile_code.unpack(found.octets) if found is not None else None

    def _read(self, place: Place) -> Record | None:
        begin, octets = place
        with self.files.read(self.name) as stream:
            stream.seek(begin)
            try:
                return record.unpack(stream.read(octets))
            except StreamError:
                self.telemetry.count(Count.STORE_DAMAGED)
                self.telemetry.tell(EventId.STORE_DAMAGED, f"{self.name}: {octets} octets at {begin}")
                return None

    def append(self, kind: Kind, number: int, octets: bytes, sync: bool = True) -> Place | None:
        """A record at the end of the file: where it lies. None where there is no room."""
        packed = record.pack(Record(kind, self.scene_id, number, octets))
        try:
            if self.torn:
                self.files.truncate(self.name, self.length)
                self.torn = False
            self.files.append(self.name, packed)
            if sync:
                self.files.sync(self.name)
        except OSError:
            self._full()
            return None
        self.length += len(packed)
        return self.length - len(packed), len(packed)

    def _full(self) -> None:
        """Takes back what a write that failed left behind."""
        self.telemetry.count(Count.STORE_FULL)
        self.telemetry.tell(EventId.STORE_FULL, f"scene {self.scene_id:08x}: {len(self.tiles)} tiles are stored")
        try:
            self.files.truncate(self.name, self.length)
        except OSError:  # nor can that be done: opening the store again cuts it off
            self.torn = True


class Store:
    """All scenes of a folder. Opening it mends what a cut left: torn records are cut off, nothing else is touched."""

    def __init__(self, files: Files, telemetry: Telemetry | None = None, by_watchdog: bool = False) -> None:
        """`by_watchdog`: whoever starts the payload says that the watchdog ended it."""
        self._files, self.telemetry = files, telemetry or Telemetry()
        self.telemetry.count(Count.WATCHDOGS, int(by_watchdog))
        for name in [name for name in files.names() if name.endswith(COMPLETE + NEW)]:
            files.remove(name)  # a cut came before it took the other's place
        self.state = StateFile(files)
        self.scenes = {log.scene_id: log for name in files.names() if (log := self._read(name)) is not None}
        if self.state.damaged:
            self._tell_damage("the state is lost; it is made anew from the scenes")
        self._start()

    def _start(self) -> None:
        now, telemetry = self.state.now, self.telemetry
        self._unclean = self.state.was_there and not now.clean
        unclean = int(self._unclean)
        highest = max(self.scenes, default=0) + 1
        self.state.save(
            clean=False, starts=now.starts + 1, unclean_starts=now.unclean_starts + unclean,
            next_scene_id=max(now.next_scene_id, highest),
        )  # fmt: skip
        telemetry.counts[Count.STARTS] = self.state.now.starts
        telemetry.counts[Count.UNCLEAN_STARTS] = self.state.now.unclean_starts
        telemetry.tell(EventId.UNCLEAN_START if unclean else EventId.STARTED)

    def stops_at(self, log: SceneLog) -> int:
        """At how many unclean starts in a row a scene was found open behind just so many tiles as now, this start
        included: what is under way there may be what ends the payload. 0 where the start was a clean one."""
        if not self._unclean:
            return 0
        self._unclean, now = False, self.state.now
        again = (now.stopped, now.stopped_at) == (log.scene_id, len(log.tiles))
        self.state.save(stopped=log.scene_id, stopped_at=len(log.tiles), tries=now.tries + 1 if again else 1)
        return self.state.now.tries

    def leave(self) -> None:
        """The payload is ended in order."""
        self.state.save(clean=True)

    def open_scene(self, header: SceneHeader) -> SceneLog | None:
        """The log of a scene: a new one under the next id, or the open one that a cut left of the same scene. None
        where there is no room."""
        for log in self.scenes.values():
            if not log.complete and log.header == replace(header, scene_id=log.scene_id):
                if log.tiles:
                    there = len(log.tiles)
                    told = f"{there} tiles are stored, {there - log.good} of them were not checked behind"
                    self.telemetry.tell(EventId.RESUMED, told)
                return log
        scene_id = self.state.now.next_scene_id
        return self._new(replace(header, scene_id=scene_id))

    def _new(self, header: SceneHeader) -> SceneLog | None:
        scene_id = header.scene_id
        log = SceneLog(self._files, self.telemetry, f"{scene_id:08x}{OPEN}", header)
        try:
            self.state.save(next_scene_id=scene_id + 1)  # first: an id is never given twice
        except OSError:
            return None
        if log.append(Kind.SCENE, 0, scene_header.pack(header)) is None:
            self._drop(log)
            return None
        try:
            self._files.sync_names()
        except OSError:
            self._drop(log)
            return None
        self.scenes[scene_id] = log
        return log

    def _drop(self, log: SceneLog) -> None:
        if log.name in self._files.names():
            self._files.remove(log.name)

    def waiting(self) -> Iterator[SceneLog]:
        """Complete scenes, the oldest first: what a pass draws from."""
        yield from (log for _, log in sorted(self.scenes.items()) if log.complete)

    def remove(self, log: SceneLog) -> None:
        """A scene that was sent, or given up."""
        self._files.remove(log.name)
        self._files.sync_names()
        del self.scenes[log.scene_id]

    @property
    def octets(self) -> int:
        """What all scenes take."""
        return sum(self._files.size(log.name) for log in self.scenes.values())

    def _read(self, name: str) -> SceneLog | None:
        """A scene's file; damaged records are passed over and told, a torn end is cut off."""
        if not name.endswith((OPEN, COMPLETE)):
            return None
        log: SceneLog | None = None
        at = 0
        with self._files.read(name) as stream:
            for found in record.scan(stream):
                if found.begin != at:
                    self._tell_damage(f"{name}: {found.begin - at} octets at {at}")
                at = found.end
                log = self._take(log, name, found)
        size = self._files.size(name)
        if log is None:
            if size:
                self._tell_damage(f"{name}: holds no scene")
            self._files.remove(name)
            return None
        log.length = at
        if at < size:
            self._files.truncate(name, at)
        return log

    def _take(self, log: SceneLog | None, name: str, found: record.Found) -> SceneLog | None:
        held, place = found.record, (found.begin, found.end - found.begin)
        try:
            if log is None:
                header = scene_header.unpack(held.octets) if held.kind is Kind.SCENE else None
                return SceneLog(self._files, self.telemetry, name, header) if header is not None else None
            if held.kind is Kind.TILE:
                code = read_tile(held.octets).code
                log.tiles[code.row, code.col] = place
            elif held.kind is Kind.AUDIT:
                code = tile_code.unpack(held.octets)
                log.audits[code.row, code.col] = place
            elif held.kind is Kind.GOOD:
                log.good = max(log.good, held.number)
            elif held.kind is Kind.DOWN:
                log.down.update(_LAYER.iter_unpack(held.octets))
        except (StreamError, struct.error, IndexError) as error:
            self._tell_damage(f"{name}: {error}")
        return log

    def _tell_damage(self, what: str) -> None:
        self.telemetry.count(Count.STORE_DAMAGED)
        self.telemetry.tell(EventId.STORE_DAMAGED, what)


def shortened(candidate: Candidate, layers: int | None) -> Candidate:
    """A tile cut to so many layers; of which none is left is declared omitted. None: as it is."""
    code = candidate.code
    if layers is None or not code.layers[layers:]:
        return candidate
    kept = code.layers[:layers]
    kind, side, mask = (code.kind, code.side, code.mask) if kept else (TileKind.OMITTED, b"", b"")
    less = replace(code, kind=kind, side=side, mask=mask, layers=kept, declared=len(kept), sent_octets=-1, bound=None)
    return Candidate(less, candidate.errors[: layers + 1])


def lost(log: SceneLog, address: tuple[int, int]) -> Candidate:
    """What stands for a tile that nothing is stored of."""
    return Candidate(TileCode(TileKind.OMITTED, *address, log.header.bundle_id, scene_id=log.scene_id), ())


def pack_tile(candidate: Candidate) -> bytes:
    """Inverse of `read_tile`."""
    errors = candidate.errors
    return bytes([len(errors)]) + struct.pack(f">{len(errors)}d", *errors) + tile_code.pack(candidate.code)


def read_tile(octets: bytes) -> Candidate:
    """A tile record's octets -> the tile code with all its layers, and the errors that they leave."""
    errors = struct.unpack_from(f">{octets[0]}d", octets, 1)
    code = tile_code.unpack(octets[1 + 8 * octets[0] :])
    if code.incomplete:
        raise StreamError(f"tile ({code.row}, {code.col}): {code.cause}")
    return Candidate(code, errors)
