"""What of a scene was on the ground when: the record of a pass, written as it happens and replayed by `sim view`."""

import json
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from payload.bundle import Bundle
from payload.engine import Engine
from payload.errors import StreamError
from payload.link import app_record, scene_header, tile_code
from payload.link.scene_header import SceneHeader
from payload.link.space_packet import HEADER_OCTETS, Reassembler, read_packets, unpack
from payload.link.streams import Stream
from payload.link.tile_code import TileCode
from sim.ground.received_file import ReceivedFile

ARRIVALS_FILE, SCHEMA = "arrivals.json", "nadir-arrivals/1"
#: A sample of the counters every so many packets or frames, where some have arrived.
SAMPLE_EVERY = 16
#: An open record is looked at again when it has grown by this factor: work stays in proportion to its length.
LOOK_AGAIN = 1.1
Pace = Callable[[float], None]


class Arrivals:
    """Layers of tiles in the order in which they came, by the clock of the pass, and counters beside them.

    events: [s, row, col, kind, layers, layers sent, octets received]. samples: [s, `unit` sent, `unit` arrived,
    octets sent]. answers: when each record of an application was first here. `pace` is told the clock before anything
    is taken: whoever watches live makes it wait.
    """

    def __init__(self, header: SceneHeader, apid: int, pace: Pace = lambda now_s: None) -> None:
        self.header, self._pace = header, pace
        self.unit = "packets"  # what is counted
        self.events: list[list[Any]] = []
        self.samples: list[list[Any]] = []
        self.codes: dict[tuple[int, int], TileCode] = {}
        self.answers_s: dict[int, float] = {}  # by number
        self.now_s, self.over = 0.0, False
        self._sent = self._arrived = self._octets = 0
        self._looked_at = 0  # octets of the open record when it was last looked at
        self._apid, self._reassembler, self._front = apid, Reassembler(apid, reorder_packets=0), 0

    def sent(self, now_s: float, octets: int) -> None:
        """A packet, or a frame, goes up into the air."""
        self._sent, self._octets = self._sent + 1, self._octets + octets

    def arrived(self, now_s: float, packet: bytes, frames: int | None = None) -> None:
        """A packet of the payload came down. `frames`: how many have by now, where packets come in those."""
        self._pace(now_s)
        self._arrived = self._arrived + 1 if frames is None else frames
        self._take(now_s, packet)
        self._sample_now_and_then()

    def file_grew(self, now_s: float, content: ReceivedFile, frames: int | None = None) -> None:
        """A packet with a part of the file came down: the payload's packets in what is new of it, over holes. What
        fills a hole later is seen when the file is over. `frames` as in `arrived`."""
        self._pace(now_s)
        self._arrived, self.now_s = self._arrived + 1 if frames is None else frames, now_s
        self._sample_now_and_then()
        start, end = content.last_stretch
        if start > self._front:
            self._front = start + _first_packet(content.read(start, end - start), self._apid)
        while start <= self._front and end - self._front > HEADER_OCTETS:
            length = HEADER_OCTETS + 1 + int.from_bytes(content.read(self._front + 4, 2), "big")
            if end - self._front < length:
                return
            self._take(now_s, content.read(self._front, length))
            self._front += length

    def finish(self, codes: Iterable[TileCode], folder: Path) -> None:
        """Nothing more will come: what the ground made of all of it stands in `codes`, and the record is written.

        On the way packets are taken in the order in which they come. One that was overtaken, or that came in the place
        of a hole, shows here.
        """
        for code in codes:
            self._take_code(code)
        self._sample()
        self.over = True
        record = {"schema": SCHEMA, "scene": self.scene(), "events": self.events, "samples": self.samples}
        if self.answers_s:
            record["answers"] = sorted([round(at_s, 6), number] for number, at_s in self.answers_s.items())
        text = json.dumps(record, sort_keys=True, separators=(",", ":"), allow_nan=False)
        (folder / ARRIVALS_FILE).write_text(text + "\n", encoding="utf-8", newline="\n")

    def scene(self) -> dict[str, Any]:
        """What a page must know of the scene."""
        info, (rows, cols) = self.header.info, self.header.grid
        return {
            "id": f"{self.header.scene_id:08x}", "bundle": f"{self.header.bundle_id:08x}", "name": info.name,
            "height_px": info.height_px, "width_px": info.width_px, "tile_px": self.header.tile_px,
            "rows": rows, "cols": cols, "unit": self.unit,
        }  # fmt: skip

    def _take(self, now_s: float, packet: bytes) -> None:
        self.now_s = max(self.now_s, now_s)
        if int.from_bytes(packet[:2], "big") & 0x7FF == self._apid + Stream.ALERTS:
            self._note_answer(packet)
        for assembly in self._reassembler.push(packet):
            self._note(assembly.data)
            self._looked_at = 0
        if self._reassembler.open_octets > LOOK_AGAIN * self._looked_at:
            self._looked_at = self._reassembler.open_octets
            self._note(self._reassembler.open_record)

    def _note_answer(self, packet: bytes) -> None:
        with suppress(StreamError):
            answer = app_record.unpack(unpack(packet).data)
            if answer.scene_id == self.header.scene_id:
                self.answers_s.setdefault(answer.number, self.now_s)

    def _note(self, record: bytes) -> None:
        """A record, whole or its beginning: an event where it brings layers that were not here."""
        if scene_header.is_header(record):
            return
        try:
            code = tile_code.unpack(record)
        except StreamError:
            return
        if code.kind is not tile_code.Kind.AUDIT and code.scene_id == self.header.scene_id:
            self._take_code(code)

    def _take_code(self, code: TileCode) -> None:
        known = self.codes.get((code.row, code.col))
        if known is None or len(code.layers) > len(known.layers):
            self.codes[code.row, code.col] = code
            row = [code.row, code.col, code.kind.name.lower(), len(code.layers), code.declared, code.usable_octets]
            self.events.append([round(self.now_s, 6), *row])

    def _sample_now_and_then(self) -> None:
        if self._sent - (self.samples[-1][1] if self.samples else 0) >= SAMPLE_EVERY:
            self._sample()

    def _sample(self) -> None:
        self.samples.append([round(self.now_s, 6), self._sent, self._arrived, self._octets])


def _first_packet(octets: bytes, apid: int) -> int:
    """Where the first packet of a stretch begins; before its beginning where none is whole yet."""
    at = 0
    for piece in read_packets(octets, (apid,)):
        with suppress(StreamError):
            unpack(piece)
            return at
        at += len(piece)
    return -1


#: Makes the record of a run: header, APID, bundle and engine of the ground.
Watch = Callable[[SceneHeader, int, Bundle, Engine], Arrivals]


def unwatched(header: SceneHeader, apid: int, bundle: Bundle, engine: Engine) -> Arrivals:
    """The record of a run that nobody watches."""
    return Arrivals(header, apid)
