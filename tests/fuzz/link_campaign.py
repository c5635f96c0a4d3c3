"""Damaged units of the link by the million: tile codes, packets, streams, coded frames, Reed-Solomon words and CFDP
PDUs, of one scene and of several mixed, in every way of coding (sent_scenes.py).

Each trial damages some units of a stream, lets the ground receive it, and holds every tile that the ground accepted
against what was sent: the same scene and place, the same octets up to where it was cut off, now and then the same
pixels. Anything else is a silently wrong tile. A record makes a run resumable: trials that it holds are not run again.
"""

import json
import logging
import signal
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
from fuzz import link_layers
from fuzz.damage import Rng, damaged
from fuzz.sent_scenes import POLICY, WAYS, Address, Sent, Way, bundles_in, few_bands, send
from toys import ToyEngine

from payload.errors import StreamError
from payload.link import scene_header, space_packet, tile_code
from payload.link.space_packet import SequenceFlag, read_packets
from payload.link.tile_code import Kind, TileCode
from payload.scene import Dn
from sim.ground.decoder import Decoder
from sim.ground.reception import by_id, receive_channels

log = logging.getLogger(__name__)

#: One trial in so many decodes what was accepted to pixels.
DECODED = 50
TRIALS_PER_LINE = 500
#: A trial takes milliseconds; one that takes so much of the processor hangs (a host may stand still for longer).
HANGS_S = 60.0


class Line:
    """Scenes of toy bundles, sent once; what the ground makes of damaged copies of them."""

    def __init__(self, ways: Mapping[int, Way] = WAYS) -> None:
        self._folder = tempfile.TemporaryDirectory()
        made, engine = bundles_in(Path(self._folder.name), ways.values()), ToyEngine()
        self.bundles = by_id(made.values())
        self.sent = {number: send(number, made[way.make], engine) for number, way in ways.items()}
        self.bundle, self.decoders = made[few_bands], {number: Decoder(b, engine) for number, b in self.bundles.items()}
        self._pixels: dict[tuple[int, Kind, Address, int], Dn] = {}

    def decode(self, code: TileCode) -> Dn:
        """To pixels, by the bundle that it names."""
        return self.decoders[code.bundle_id].decode_tile(code)

    def pixels(self, code: TileCode) -> Dn:
        """What a tile shows with so many of its layers, as it was sent."""
        key = (code.scene_id or 0, code.kind, (code.row, code.col), len(code.layers))
        if key not in self._pixels:
            sent = self.sent[key[0]].code(*key[1:3])
            assert sent is not None
            self._pixels[key] = self.decode(replace(sent, layers=sent.layers[: key[3]]))
        return self._pixels[key]

    def is_right(self, code: TileCode) -> bool:
        """Whether it is what was sent under its scene and address, as far as its layers go."""
        scene = self.sent.get(code.scene_id or 0)
        wanted = scene.code(code.kind, (code.row, code.col)) if scene else None
        if wanted is None:
            return False
        prefix = replace(wanted, layers=wanted.layers[: len(code.layers)], declared=wanted.declared, cause=code.cause)
        return replace(code, sent_octets=-1) == replace(prefix, sent_octets=-1)

    def verdict(self, code: TileCode, to_pixels: bool) -> str:
        """What an accepted tile code is: right, cut, refused by the decoder, or WRONG."""
        if not self.is_right(code):
            return "WRONG" if self._decodes(code) else "refused by the decoder"
        if to_pixels and code.layers and not np.array_equal(self.decode(code), self.pixels(code)):
            return "WRONG"
        return "cut" if code.incomplete else "right"

    def _decodes(self, code: TileCode) -> bool:
        try:
            return not code.layers or self.decode(code) is not None
        except StreamError:
            return False


@cache
def whole_line() -> Line:
    """Every way of coding, sent once a process."""
    return Line()


def packets_damaged(rng: Rng, line: Line) -> tuple[list[bytes], int]:
    """Packets of a scene, or of two mixed, some damaged, lost, doubled, moved, spliced in or replayed."""
    scenes = list(line.sent.values())
    ours, other = (scenes[k] for k in rng.permutation(len(scenes))[:2])
    stream = list(ours.packets) + (list(other.packets) if rng.random() < 0.3 else [])
    count = int(rng.integers(1, 1 + len(stream) // 3))
    for at in rng.integers(len(stream), size=count):
        at = min(int(at), len(stream) - 1)
        stream[at : at + 1] = HAPPENINGS[int(rng.integers(len(HAPPENINGS)))](rng, stream, at, other)
    return stream, count


Happening = Callable[[Rng, list[bytes], int, Sent], list[bytes]]
HAPPENINGS: tuple[Happening, ...] = (
    *[lambda rng, stream, at, other: [damaged(rng, stream[at])]] * 5,
    lambda rng, stream, at, other: [],
    lambda rng, stream, at, other: [stream[at]] * 2,
    lambda rng, stream, at, other: [stream[at], stream[int(rng.integers(len(stream)))]],  # replayed
    lambda rng, stream, at, other: [other.packets[at % len(other.packets)]],  # spliced: the same count
    lambda rng, stream, at, other: [stream[at], other.packets[int(rng.integers(len(other.packets)))]],
    lambda rng, stream, at, other: [as_numbered(rng, stream[at], other.packets[int(rng.integers(len(other.packets)))])],
    lambda rng, stream, at, other: [renumbered(rng, stream[at])],
    lambda rng, stream, at, other: [rng.bytes(int(rng.integers(1, 300)))],
)


def as_numbered(rng: Rng, packet: bytes, other: bytes) -> bytes:
    """The segment of another scene under this packet's count and flag, its CRC right."""
    try:
        ours, theirs = space_packet.unpack(packet), space_packet.unpack(other)
    except StreamError:
        return damaged(rng, packet)
    return space_packet.pack(replace(ours, data=theirs.data))


def renumbered(rng: Rng, packet: bytes) -> bytes:
    """A packet whose header says something else, its CRC right."""
    try:
        ours = space_packet.unpack(packet)
    except StreamError:
        return damaged(rng, packet)
    count, flag = int(rng.integers(1 << 14)), SequenceFlag(int(rng.integers(4)))
    changes: list[dict[str, Any]] = [{"count": count}, {"flag": flag}, {"apid": int(rng.integers(2048))}]
    return space_packet.pack(replace(ours, **changes[int(rng.integers(3))]))


def through_packets(rng: Rng, line: Line, to_pixels: bool) -> Counter[str]:
    stream, count = packets_damaged(rng, line)
    return Counter({"packets": count}) + received(line, ((0, packet) for packet in stream), to_pixels)


def through_a_stream(rng: Rng, line: Line, to_pixels: bool) -> Counter[str]:
    """The octets of a file of packets, damaged in some places."""
    stream, count = packets_damaged(rng, line)
    octets = b"".join(stream)
    for _ in range(int(rng.integers(1, 6))):
        octets, count = damaged_somewhere(rng, octets), count + 1
    pieces = ((0, piece) for piece in read_packets(octets, (POLICY.apid,)))
    return Counter({"packets": count}) + received(line, pieces, to_pixels)


def through_frames(rng: Rng, line: Line, to_pixels: bool) -> Counter[str]:
    pieces, count = link_layers.frames(rng, *two_scenes(rng, line), POLICY.apid)
    return Counter({"frames": count}) + received(line, pieces, to_pixels)


def through_a_file(rng: Rng, line: Line, to_pixels: bool) -> Counter[str]:
    pieces, count = link_layers.pdus(rng, *two_scenes(rng, line), POLICY.apid)
    return Counter({"CFDP PDUs": count}) + received(line, pieces, to_pixels)


def two_scenes(rng: Rng, line: Line) -> tuple[tuple[bytes, ...], tuple[bytes, ...]]:
    """Packets of one scene, and of another."""
    scenes = list(line.sent.values())
    ours, other = (scenes[k].packets for k in rng.permutation(len(scenes))[:2])
    return ours, other


def through_words(rng: Rng, line: Line, to_pixels: bool) -> Counter[str]:
    found = Counter(link_layers.words(rng))
    return Counter({"Reed-Solomon words": found.total()}) + found


def damaged_somewhere(rng: Rng, octets: bytes) -> bytes:
    at = int(rng.integers(len(octets)))
    return octets[:at] + damaged(rng, octets[at : at + 300]) + octets[at + 300 :]


def received(line: Line, pieces: Iterator[tuple[int, bytes]], to_pixels: bool) -> Counter[str]:
    found: Counter[str] = Counter()
    reception = receive_channels(pieces, line.bundles, POLICY.apid)
    for scene_id, scene in reception.scenes.items():
        sent = line.sent.get(scene_id or 0)
        if scene.header is not None and (sent is None or scene.header != sent.header):
            found["WRONG header"] += 1
        codes = *scene.codes.values(), *scene.audits.values()
        found.update(f"tile {line.verdict(code, to_pixels)}" for code in codes)
        found["tile refused"] += len(scene.refused)
        found["tile missing"] += len(scene.missing)
    return found


def through_tile_codes(rng: Rng, line: Line, to_pixels: bool) -> Counter[str]:
    """Tile codes on their own, damaged, or put together of two."""
    sent = [code for scene in line.sent.values() for code in (*scene.codes.values(), *scene.audits.values())]
    codes = [tile_code.pack(code) for code in sent]
    found: Counter[str] = Counter({"tile codes": 20})
    for _ in range(20):
        octets, other = (codes[int(rng.integers(len(codes)))] for _ in range(2))
        cut = int(rng.integers(1, min(len(octets), len(other)) + 1))
        hostile = octets[:cut] + other[cut:] if rng.random() < 0.2 else damaged(rng, octets)
        found[f"tile {outcome_of_tile_code(line, hostile, to_pixels)}"] += 1
    return found


def outcome_of_tile_code(line: Line, octets: bytes, to_pixels: bool) -> str:
    try:
        code = tile_code.unpack(octets)
    except StreamError:
        return "refused"
    if code.bundle_id not in line.bundles:
        return "refused"
    return line.verdict(code, to_pixels)


def through_headers(rng: Rng, line: Line, to_pixels: bool) -> Counter[str]:
    """Scene headers, damaged."""
    headers = [scene.header for scene in line.sent.values()]
    found: Counter[str] = Counter({"scene headers": 10})
    for _ in range(10):
        octets = damaged(rng, scene_header.pack(headers[int(rng.integers(len(headers)))]))
        try:
            found["header right" if scene_header.unpack(octets) in headers else "WRONG header"] += 1
        except StreamError:
            found["header refused"] += 1
    return found


LAYERS = (
    through_packets, through_packets, through_a_stream, through_tile_codes, through_headers, through_frames,
    through_frames, through_frames, through_a_file, through_words,
)  # fmt: skip
UNITS = ("packets", "tile codes", "scene headers", "frames", "CFDP PDUs", "Reed-Solomon words")


def trial(line: Line, seed: int) -> Counter[str]:
    """One trial; anything that it raises is a crash."""
    rng = np.random.default_rng(seed)
    return LAYERS[int(rng.integers(len(LAYERS)))](rng, line, seed % DECODED == 0)


class HangError(Exception):
    """A trial took too long."""


def ring(number: int, frame: FrameType | None) -> None:
    raise HangError(f"over {HANGS_S} s")


def watched(line: Line, seed: int) -> Counter[str]:
    """A trial, its crash or hang counted with its seed instead of raised."""
    signal.setitimer(signal.ITIMER_PROF, HANGS_S)
    try:
        return trial(line, seed)
    except Exception as error:
        log.error("trial %d:\n%s", seed, traceback.format_exc())
        return Counter({"HANG" if isinstance(error, HangError) else "CRASH": 1})
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def units_in(found: Counter[str]) -> int:
    return sum(found[unit] for unit in UNITS)


def bad_in(found: Counter[str]) -> int:
    return sum(n for name, n in found.items() if "WRONG" in name or name in ("CRASH", "HANG"))


def read_record(record: Path | None) -> tuple[Counter[str], int]:
    """What a record of trials holds, and the first seed that it does not."""
    found, seed = Counter[str](), 0
    for line in record.read_text().splitlines() if record is not None and record.exists() else []:
        entry = json.loads(line)
        found, seed = found + Counter(entry["found"]), entry["next_seed"]
    return found, seed


def run(units: int, record: Path | None = None) -> Counter[str]:
    """Trials until so many units were damaged, those on record included."""
    signal.signal(signal.SIGPROF, ring)
    (found, seed), line, start = read_record(record), whole_line(), time.monotonic()
    while units_in(found) < units:
        part: Counter[str] = Counter()
        for number in range(seed, seed + TRIALS_PER_LINE):
            part += watched(line, number)
            if units_in(found + part) >= units:
                break
        found, seed = found + part, number + 1
        if record is not None:
            with record.open("a") as file:
                file.write(json.dumps({"next_seed": seed, "found": part}, sort_keys=True) + "\n")
        log.info("%d units, %d bad, %.0f s", units_in(found), bad_in(found), time.monotonic() - start)
    return found
