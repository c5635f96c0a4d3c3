"""The program on the device: answers HELLO, LOAD, INFER, STREAM, STATS, RESET over one channel; outlives its hosts.

Standard library, numpy, one inference runtime. Named methods only: nothing that arrives is ever run. Three threads: the
reader takes frames off the line, the main loop answers them in order, the ticker sends a BEAT every second while a
request is worked on and ends the process when one takes longer than the watchdog allows (a supervisor starts it anew).
Prints go to stderr; stdout may be the line.
"""

import contextlib
import logging
import os
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hil.agent.device import PowerSampler, SysfsPower, ceilings, describe, peak_memory_mib, temperatures_c
from hil.line import protocol
from hil.line.channels import ChannelClosedError, DeviceChannel
from hil.line.code_id import code_id
from hil.line.messages import Coded, pack_coded, policy_of, unpack_tile
from hil.line.protocol import REPLY, Frame, FrameReader, ProtocolError, Type, pack_body, unpack_body
from payload.bundle import load_bundle
from payload.errors import InputError
from payload.policy import Policy
from payload.tiles import Tile

WINDOW_TILES = 3  # requests a host may have under way
HELD_TILES = 8  # what STREAM works on: the last tiles that came in
BEAT_S = 1.0
WRITE_S = 30.0  # a host that takes nothing for so long is gone
PART_S = 0.5  # STREAM reports this often
LONGEST_STREAM_S = 600.0
WATCHDOG_EXIT = 86

log = logging.getLogger("hil.agent.agent")

#: bundle directory, policy, engine, threads -> a hil.agent.encoding.TileEncoder
MakeEncoder = Callable[[Path, Policy, str, int], Any]


class RefusedError(Exception):
    """A request this agent does not carry out. `reason`: session, busy, refused or failed."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


@dataclass(frozen=True, eq=False)
class Request:
    """A frame, and the tile in it, unpacked by the reader's thread while the main loop codes the tile before."""

    frame: Frame
    tile: Tile | ProtocolError | None = None

    @classmethod
    def of(cls, frame: Frame) -> "Request":
        if frame.kind != Type.INFER:
            return cls(replace(frame, body=bytes(frame.body)))
        try:
            return cls(replace(frame, body=b""), unpack_tile(frame.body))
        except ProtocolError as error:
            return cls(replace(frame, body=b""), error)


@dataclass(frozen=True, eq=False)
class Reply:
    """What goes back. A tile's code is packed by the writer's thread, while the main loop codes the next tile."""

    request: Frame
    kind: int
    body: bytes | Coded

    def pack(self) -> bytes:
        body = pack_coded(self.body, self.request.crc) if isinstance(self.body, Coded) else self.body
        return protocol.pack(Frame(self.kind | REPLY, self.request.session, self.request.seq, body))


class Line:
    """One connection: a channel, the requests that came in over it, and replies.

    Reading and writing have threads of their own: while one tile is coded, the next one is already unpacked and the
    code of the one before goes out.
    """

    def __init__(self, channel: DeviceChannel) -> None:
        self.lost = threading.Event()
        self.session: int | None = None
        self.reader = FrameReader()
        self.requests: queue.Queue[Request | None] = queue.Queue()
        self._channel = channel
        self._replies: queue.Queue[Reply | None] = queue.Queue(WINDOW_TILES)  # a host that does not read holds us up
        self._reader_thread = threading.Thread(target=self._read, daemon=True)
        self._writer_thread = threading.Thread(target=self._write, daemon=True)
        self._reader_thread.start()
        self._writer_thread.start()

    def reply(self, request: Frame, kind: int, body: bytes | Coded) -> None:
        self._replies.put(Reply(request, kind, body))

    def beat(self, request: Frame, busy_s: float) -> None:
        """Left out where other replies are waiting: they are a sign of life too."""
        with contextlib.suppress(queue.Full):
            self._replies.put_nowait(Reply(request, Type.BEAT, pack_body({"busy_s": busy_s})))

    def close(self) -> None:
        self.lost.set()
        self._channel.close()
        self._reader_thread.join()  # it may still refuse requests: the writer has to outlive it
        self._replies.put(None)
        self._writer_thread.join()

    def _read(self) -> None:
        try:
            while not self.lost.is_set():
                for frame in self.reader.filled(self._channel.read_into(self.reader.space(), 1.0)):
                    self._take(frame)
        except ChannelClosedError as error:
            log.info("host gone: %s", error)
        finally:
            self._lose()

    def _write(self) -> None:
        """Until close(): what is put after the host is gone is thrown away, so that nobody waits for room."""
        while (reply := self._replies.get()) is not None:
            if self.lost.is_set():
                continue
            try:
                self._channel.write(reply.pack(), WRITE_S)
            except ChannelClosedError as error:
                log.info("host gone: %s", error)
                self._lose()

    def _lose(self) -> None:
        self.lost.set()
        self.requests.put(None)

    def _take(self, frame: Frame) -> None:
        """Into the queue, or refused: memory is bounded whatever the host sends. HELLO makes what waits void."""
        if frame.kind == Type.HELLO:
            with contextlib.suppress(queue.Empty):
                while True:
                    self.requests.get_nowait()
        if self.requests.qsize() <= WINDOW_TILES + 2:
            self.requests.put(Request.of(frame))
            return
        self.reply(
            frame, Type.ERROR, error_body("busy", f"more than {WINDOW_TILES} requests under way; wait for replies")
        )


class Agent:
    """What is loaded on the device. Outlives lines: a host that comes back finds its bundle still loaded."""

    def __init__(
        self, bundle: Path, make_encoder: MakeEncoder, emulated: str | None = None, watchdog_s: float = 120.0
    ) -> None:
        self._bundle_path, self._make_encoder, self._watchdog_s = bundle, make_encoder, watchdog_s
        self._bundle = load_bundle(bundle, flight_only=True)
        self._identity = describe(emulated) | {"code_id": code_id(), "window": WINDOW_TILES}
        self._loaded: tuple[str, Any] | None = None  # what LOAD asked for, and its encoder
        self._held: list[Tile] = []
        self._tiles_done = 0
        self._busy: tuple[float, Line, Frame] | None = None
        self._methods: dict[int, Callable[[Line, Request], bytes | Coded]] = {
            Type.HELLO: self._hello,
            Type.LOAD: self._load,
            Type.INFER: self._infer,
            Type.STREAM: self._stream,
            Type.STATS: self._stats,
            Type.RESET: self._reset,
        }
        threading.Thread(target=self._tick, daemon=True).start()

    def serve(self, channel: DeviceChannel) -> None:
        """Answers one host until it is gone."""
        line = Line(channel)
        try:
            while (request := line.requests.get()) is not None and not line.lost.is_set():
                self._answer(line, request)
        finally:
            self._busy = None
            line.close()

    def _answer(self, line: Line, request: Request) -> None:
        frame = request.frame
        self._busy = (time.monotonic(), line, frame)
        try:
            method = self._methods.get(frame.kind)
            if frame.version != protocol.VERSION:
                raise RefusedError(
                    "refused",
                    f"frame of protocol {frame.version}, this agent speaks {protocol.VERSION}; deploy it again",
                )
            if method is None:
                raise RefusedError(
                    "refused",
                    f"request {frame.kind:#04x} is unknown; wanted one of HELLO, LOAD, INFER, STREAM, STATS, RESET",
                )
            if frame.kind != Type.HELLO and frame.session != line.session:
                raise RefusedError("session", f"session {frame.session} is not open; say HELLO first")
            body = method(line, request)
        except RefusedError as refusal:
            line.reply(frame, Type.ERROR, error_body(refusal.reason, str(refusal)))
        except (ProtocolError, InputError) as error:
            line.reply(frame, Type.ERROR, error_body("refused", str(error)))
        except Exception as error:  # the runtime's own failures must not end the agent; the host hears of them
            log.exception("request %#04x failed", frame.kind)
            line.reply(frame, Type.ERROR, error_body("failed", f"{type(error).__name__}: {error}"))
        else:
            line.reply(frame, frame.kind, body)
        finally:
            self._busy = None

    def _hello(self, line: Line, request: Request) -> bytes:
        line.session = request.frame.session
        return pack_body(self._identity | {"bundle": self._bundle.name, "bundle_id": self._bundle.bundle_id})

    def _load(self, line: Line, request: Request) -> bytes:
        fields, _ = unpack_body(request.frame.body)
        wanted = fields.get("bundle_id")
        if wanted != self._bundle.bundle_id:
            raise RefusedError(
                "refused",
                f"bundle {wanted} wanted, the device holds {self._bundle.bundle_id} ({self._bundle.name}); "
                "deploy it again",
            )
        policy, engine, threads = policy_of(fields.get("policy")), fields.get("engine"), fields.get("threads")
        if not isinstance(engine, str) or not isinstance(threads, int) or not 1 <= threads <= 256:
            raise ProtocolError(f"engine {engine!r}, threads {threads!r}: wanted a name and 1 to 256")
        asked, before_s = repr((policy, engine, threads)), time.monotonic()
        if self._loaded is None or self._loaded[0] != asked:
            self._loaded = None  # never two networks in memory
            self._loaded = (asked, self._make_encoder(self._bundle_path, policy, engine, threads))
        return pack_body({"engine": self._loaded[1].engine, "load_s": time.monotonic() - before_s})

    def _infer(self, line: Line, request: Request) -> Coded:
        self._encoder()  # before the tile's faults: nothing loaded is the first thing to say
        if not isinstance(request.tile, Tile):
            raise request.tile or ProtocolError("INFER without a tile")
        self._held = [*self._held, request.tile][-HELD_TILES:]
        return self._encode(request.tile)

    def _stream(self, line: Line, request: Request) -> bytes:
        """Works (or rests) for `seconds`; parts go out as they come, the last one is the reply. Any frame ends it."""
        fields, _ = unpack_body(request.frame.body)
        seconds, work, period_s, power = (fields.get(name) for name in ("seconds", "work", "period_s", "power"))
        if not isinstance(seconds, (int, float)) or not 0 < seconds <= LONGEST_STREAM_S:
            raise ProtocolError(f"seconds is {seconds!r}, wanted more than 0, at most {LONGEST_STREAM_S:g}")
        if work and not self._held:
            raise RefusedError("refused", "no tiles are held; INFER some first")
        if power is not None and not (isinstance(power, str) and Path(power).name in ("power1_input", "energy_uj")):
            raise ProtocolError(f"power is {power!r}, wanted the path of a power1_input or energy_uj")
        self._encoder()
        sampler = PowerSampler(SysfsPower(power), float(period_s or 0.02)) if isinstance(power, str) else None
        try:
            return self._work(line, request.frame, float(seconds), bool(work), sampler)
        finally:
            if sampler:
                sampler.stop()

    def _work(self, line: Line, frame: Frame, seconds: float, work: bool, sampler: PowerSampler | None) -> bytes:
        start_s = time.monotonic()
        part, done, sent_s = 0, 0, start_s
        codes: list[list[Any]] = []
        while True:
            now_s = time.monotonic()
            over = now_s - start_s >= seconds or line.lost.is_set() or not line.requests.empty()
            if over or now_s - sent_s >= PART_S or len(codes) >= 256:
                power = sampler.take() if sampler else []
                body = pack_body(
                    {"part": part, "last": over, "start_s": start_s, "end_s": now_s, "tiles": codes, "power": power}
                )
                if over:
                    return body
                line.reply(frame, Type.STREAM, body)
                part, sent_s, codes = part + 1, now_s, []
                self._busy = (now_s, line, frame)
            if work:
                coded = self._encode(self._held[done % len(self._held)])
                codes.append([coded.start_s, coded.end_s, coded.stages_s])
                done += 1
            else:
                time.sleep(min(0.05, max(0.001, start_s + seconds - now_s)))

    def _stats(self, line: Line, request: Request) -> bytes:
        fields, _ = unpack_body(request.frame.body)
        return pack_body(
            {
                "ceilings": ceilings() if fields.get("ceilings") is True else None,
                "clock_s": time.monotonic(),
                "tiles": self._tiles_done,
                "discarded_octets": line.reader.discarded_octets,
                "peak_memory_mib": peak_memory_mib(),
                "temperatures_c": temperatures_c(),
            }
        )

    def _reset(self, line: Line, request: Request) -> bytes:
        self._loaded, self._held, self._tiles_done = None, [], 0
        return pack_body({})

    def _encoder(self) -> Any:
        if self._loaded is None:
            raise RefusedError("session", "nothing is loaded; LOAD a bundle first")
        return self._loaded[1]

    def _encode(self, tile: Tile) -> Coded:
        encoder = self._encoder()
        start_s = time.monotonic()
        octets = encoder.encode(tile)
        end_s = time.monotonic()
        self._tiles_done += 1
        return Coded(tile.row, tile.col, octets, start_s, end_s, encoder.stages_s)

    def _tick(self) -> None:
        while True:
            time.sleep(BEAT_S)
            busy = self._busy
            if busy is None:
                continue
            since_s, line, frame = busy
            if time.monotonic() - since_s > self._watchdog_s:
                log.error("request %#04x has taken more than %g s: ending", frame.kind, self._watchdog_s)
                os._exit(WATCHDOG_EXIT)
            line.beat(frame, time.monotonic() - since_s)


def error_body(reason: str, text: str) -> bytes:
    """Body of an ERROR: one line."""
    return pack_body({"reason": reason, "error": " ".join(text.split())[:500]})
