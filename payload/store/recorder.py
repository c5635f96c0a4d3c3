"""A scene into the store, tile by tile, so that whatever ends the payload costs no tile that was acknowledged.

    scene -> candidates of the pipeline -> records in the store -> (a pass) -> packets as `transmit` sends them
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from payload.clouds.audit import AuditDraw
from payload.errors import InputError
from payload.guard.guard import Address, Coded
from payload.link import scene_header
from payload.link.rate_control import Candidate
from payload.link.space_packet import SequenceCounter, segment
from payload.link.streams import Stream, stream_of
from payload.link.tile_code import Kind, TileCode
from payload.pipeline import Payload
from payload.scene import Scene
from payload.store.store import SceneLog, Store


@dataclass(frozen=True)
class Recorded:
    """What became of one call. `complete` False: there was no room, and the rest of the scene is pending."""

    scene_id: int | None  # None: not even begun
    stored: int  # tiles, of all calls
    coded: int  # in this call, recoded ones included
    complete: bool


def record_scene(
    payload: Payload, store: Store, scene: Scene, acknowledged: Callable[[Address], None] = lambda address: None
) -> Recorded:
    """Codes what is not stored of a scene yet, and stores it: a scene that a cut left open goes on behind its last
    tile. `acknowledged` is told of every tile that is on disk."""
    if payload.apps.plan is not None:
        raise InputError("the store keeps no records of applications; fly them without it, or it without them")
    log = store.open_scene(payload.header_of(scene))
    if log is None:
        return Recorded(None, 0, 0, False)
    draw = replay(payload, log)
    coded: list[Address] = []
    for step in payload.steps(scene, log.header, draw, skip=log.tiles.keys()):
        if not isinstance(step, Coded):
            log.mark_good(step.count)
            continue
        coded.append(step.address)
        fresh = [t for t in draw.thumbnails if (t.row, t.col) == step.address or (t.row, t.col) not in log.audits]
        if not all(map(log.add_audit, fresh)) or not log.add(step.result):
            return Recorded(log.scene_id, len(log.tiles), len(coded), False)
        acknowledged(step.address)
    return Recorded(log.scene_id, len(log.tiles), len(coded), log.close())


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
        candidate = log.tile((row, col))
        lost = TileCode(Kind.OMITTED, row, col, log.header.bundle_id, scene_id=log.scene_id)
        yield candidate if candidate is not None else Candidate(lost, ())


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
