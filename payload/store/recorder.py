"""A scene into the store, tile by tile, so that whatever ends the payload costs no tile that was acknowledged.

    scene -> candidates of the pipeline -> records in the store -> (a pass) -> packets as `transmit` sends them
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from payload.clouds.audit import AuditDraw
from payload.errors import InputError
from payload.guard.guard import Address, Doubt, Good
from payload.guard.telemetry import Count, EventId, Mode
from payload.link import scene_header
from payload.link.rate_control import Candidate
from payload.link.space_packet import SequenceCounter, segment
from payload.link.streams import Stream, stream_of
from payload.link.tile_code import Kind
from payload.pipeline import Payload
from payload.scene import Scene
from payload.store.store import SceneLog, Store, lost
from payload.tiles import cut, grid

Told = Callable[[Address], None]
#: A tile that was under way at so many unclean ends in a row is given up: it, or its pixels, may be what ends it.
MOST_STOPS = 3


@dataclass(frozen=True)
class Recorded:
    """What became of one call. `complete` False: there was no room, and the rest of the scene is pending."""

    scene_id: int | None  # None: not even begun
    stored: int  # tiles, of all calls
    coded: int  # in this call, recoded ones included
    complete: bool


def record_scene(
    payload: Payload, store: Store, scene: Scene, acknowledged: Told = lambda address: None,
    withdrawn: Told = lambda address: None,
) -> Recorded:  # fmt: skip
    """Codes what is not stored of a scene yet, and stores it: a scene that a cut left open goes on behind its last
    tile, once that is found right. `acknowledged` is told of every tile that is on disk, `withdrawn` of one that is no
    more, since what made it was found hit: it is pending again."""
    if payload.apps.plan is not None:
        raise InputError("the store keeps no records of applications; fly them without it, or it without them")
    log = store.open_scene(payload.header_of(scene))
    if log is None:
        return Recorded(None, 0, 0, False)
    if store.stops_at(log) >= MOST_STOPS:
        give_up_next(log, scene)
    if log.good < len(log.tiles) and not newest_is_right(payload, log, scene):
        _take_back(log, withdrawn)
    log.begun, there = len(log.tiles), set(log.tiles)
    draw = replay(payload, log)
    coded: list[Address] = []
    for step in payload.steps(scene, log.header, draw, skip=there):
        if isinstance(step, Good):
            log.mark_good(step.count)
            continue
        if isinstance(step, Doubt):
            _take_back(log, withdrawn)
            continue
        coded.append(step.address)
        fresh = [t for t in draw.thumbnails if (t.row, t.col) == step.address or (t.row, t.col) not in log.audits]
        if not all(map(log.add_audit, fresh)) or not log.add(step.result):
            _settle(payload, log, withdrawn)
            return Recorded(log.scene_id, len(log.tiles), len(coded), False)
        acknowledged(step.address)
    return Recorded(log.scene_id, len(log.tiles), len(coded), log.close())


def newest_is_right(payload: Payload, log: SceneLog, scene: Scene) -> bool:
    """Whether the newest stored tile comes out again as it lies there. If not, memory was hit before a cut and nobody
    had found it: all tiles that were not known to be good may be wrong."""
    newest = log.tile(list(log.tiles)[-1])
    if payload.guard is None or newest is None or newest.code.kind is Kind.OMITTED:
        return True
    payload.guard.check_all("before a scene goes on")
    if payload.telemetry.mode is not Mode.NOMINAL:
        return True
    again = payload.encode_tile(cut(scene, newest.code.row, newest.code.col, log.header.tile_px))
    return (again.kind, again.side, again.layers) == (newest.code.kind, newest.code.side, newest.code.layers)


def _take_back(log: SceneLog, withdrawn: Told) -> None:
    """Whoever was told of these tiles hears it first: a cut in between leaves more on disk than was promised, not less.
    """
    for address in log.doubted():
        withdrawn(address)
    log.take_back()


def _settle(payload: Payload, log: SceneLog, withdrawn: Told) -> None:
    """The scene is left in the middle: tiles that wait to be found good are so now, or are let go of."""
    if payload.guard is None or payload.guard.check_all():
        log.mark_good(len(log.tiles) - log.begun)
    else:
        _take_back(log, withdrawn)


def give_up_next(log: SceneLog, scene: Scene) -> None:
    """Declares the first pending tile omitted: it was under way whenever the payload was ended."""
    rows, cols = grid(scene.info, log.header.tile_px)
    pending = ((row, col) for row in range(rows) for col in range(cols) if (row, col) not in log.tiles)
    address = next(pending, None)
    if address is not None and log.add(lost(log, address)):
        log.telemetry.count(Count.TILES_GIVEN_UP)
        log.telemetry.tell(EventId.TILE_GIVEN_UP, f"under way at {MOST_STOPS} unclean ends", address)


def replay(payload: Payload, log: SceneLog) -> AuditDraw:
    """The audit's draw as it was behind the tiles that are stored."""
    draw = AuditDraw(payload.policy, log.scene_id)
    for candidate in stored(log):
        if candidate.code.kind is Kind.WITHHELD:
            place = draw.draw()
            thumbnail = log.audit((candidate.code.row, candidate.code.col))
            if place is not None and thumbnail is not None:
                draw.put(place, thumbnail)
    return draw


def stored(log: SceneLog) -> Iterator[Candidate]:
    """The tiles of a scene in row order. One that the store lost since is declared omitted: a hole, never wrong."""
    for row, col in sorted(log.tiles):
        yield log.tile((row, col)) or lost(log, (row, col))


def send_scene(payload: Payload, store: Store, log: SceneLog, octets: int | None = None) -> Iterator[bytes]:
    """Packets of a complete scene from where the last pass ended; about `octets` of them at most.

    The counters are on disk before the next record begins. So a cut sends a record again under the same counts, which
    the ground takes for the duplicates that they are. Behind its last record the scene is removed.
    """
    state, left = store.state.now, octets
    begun = state.sent if state.sending == log.scene_id else 0
    apid, counts = payload.policy.apid, {Stream.LAYERS: state.packets, Stream.THUMBNAILS: state.thumbnails}
    counters = {stream: SequenceCounter(apid + stream, count) for stream, count in counts.items()}
    codes = payload.chosen(stored(log), log.header, replay(payload, log))
    for number, record in enumerate(scene_header.records(log.header, codes)):
        if number < begun:
            continue
        if left is not None and left <= 0:
            return
        packets = list(segment(record, counters[stream_of(record)], payload.policy.packet_octets))
        left = None if left is None else left - sum(map(len, packets))
        yield from packets
        layers, thumbnails = (counter.next for counter in counters.values())
        store.state.save(sending=log.scene_id, sent=number + 1, packets=layers, thumbnails=thumbnails)
    store.remove(log)
