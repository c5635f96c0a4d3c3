"""One connection as the agent sees it: the requests that come in over it, and the replies that go out.

Reading and writing have threads of their own: while one tile is coded, the next one is already unpacked and the code of
the one before goes out. What a host can make the agent hold is bounded: a few requests, each by the length of its kind.
"""

import contextlib
import logging
import queue
import threading
import time
from dataclasses import dataclass, field, replace
from typing import Any

from hil.agent.admission import Caller, error_body
from hil.line import protocol
from hil.line.channels import ChannelClosedError, DeviceChannel
from hil.line.messages import DeviceReply, pack_coded, unpack_tile
from hil.line.protocol import REPLY, Frame, FrameReader, ProtocolError, Type, pack_body
from payload.tiles import Tile

WINDOW_TILES = 3  # requests a host may have under way
WRITE_S = 30.0  # a host that takes nothing for so long is gone
WITH_TILES = (Type.INFER, Type.HOLD)

log = logging.getLogger("hil.agent.connection")


@dataclass(frozen=True, eq=False)
class AgentRequest:
    """A frame, and the tile in it, unpacked by the reader's thread while the main loop codes the tile before.

    `welcome`: what the reply to a HELLO says over and above, where the caller was admitted before he got this line.
    """

    frame: Frame
    tile: Tile | ProtocolError | None = None
    welcome: dict[str, Any] | None = None

    @classmethod
    def of(cls, frame: Frame) -> "AgentRequest":
        if frame.kind not in WITH_TILES:
            return cls(replace(frame, body=bytes(frame.body)))
        try:
            return cls(replace(frame, body=b""), unpack_tile(frame.body))
        except ProtocolError as error:
            return cls(replace(frame, body=b""), error)


@dataclass(frozen=True, eq=False)
class AgentReply:
    """What goes back. A tile's code is packed by the writer's thread, while the main loop codes the next tile."""

    request: Frame
    kind: int
    body: bytes | DeviceReply

    def pack(self) -> bytes:
        body = pack_coded(self.body, self.request.crc) if isinstance(self.body, DeviceReply) else self.body
        return protocol.pack(Frame(self.kind | REPLY, self.request.session, self.request.seq, body))


@dataclass(eq=False)
class Arrival:
    """A channel, what has been read from it so far, and the HELLO that was admitted over it before it got the agent."""

    channel: DeviceChannel
    reader: FrameReader
    hello: AgentRequest | None = None
    peer: str = ""


@dataclass(eq=False)
class Connection:
    """A channel with its two threads, from the start until `close`."""

    arrival: Arrival
    session: int | None = None
    caller: Caller = field(default_factory=Caller)
    heard_s: float = field(default_factory=time.monotonic)  # when octets last came in

    def __post_init__(self) -> None:
        self.lost = threading.Event()
        self.reader = self.arrival.reader
        self.requests: queue.Queue[AgentRequest | None] = queue.Queue()
        self._channel = self.arrival.channel
        # A host that does not read its replies holds its own connection up, and nobody else's.
        self._replies: queue.Queue[AgentReply | None] = queue.Queue(WINDOW_TILES)
        if self.arrival.hello is not None:
            self.requests.put(self.arrival.hello)
        self._reader_thread = threading.Thread(target=self._read, daemon=True)
        self._writer_thread = threading.Thread(target=self._write, daemon=True)
        self._reader_thread.start()
        self._writer_thread.start()

    def reply(self, request: Frame, kind: int, body: bytes | DeviceReply) -> None:
        self._replies.put(AgentReply(request, kind, body))

    def refuse(self, request: Frame, reason: str, text: str) -> None:
        self.reply(request, Type.ERROR, error_body(reason, text))

    def beat(self, request: Frame, busy_s: float) -> None:
        """Left out where other replies are waiting: they are a sign of life too."""
        with contextlib.suppress(queue.Full):
            self._replies.put_nowait(AgentReply(request, Type.BEAT, pack_body({"busy_s": busy_s})))

    def close(self) -> None:
        self.lost.set()
        self._channel.close()
        self._reader_thread.join()  # it may still refuse requests: the writer has to outlive it
        self._replies.put(None)
        self._writer_thread.join()

    def end(self) -> None:
        """From another thread: everybody who waits for this line goes on, and `close` follows."""
        self._channel.close()
        self._lose()

    def _read(self) -> None:
        try:
            for frame in self.reader.filled(0):  # what came together with the HELLO
                self._take(frame)
            while not self.lost.is_set():
                octets = self._channel.read_into(self.reader.space(), 1.0)
                self.heard_s = time.monotonic() if octets else self.heard_s
                for frame in self.reader.filled(octets):
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
        if frame.too_long:
            most = self.reader.longest.get(frame.kind, protocol.SMALL_OCTETS)
            found = f"{_kind_name(frame)} with a body of {frame.too_long} octets"
            text = f"{found}, this agent and its bundle take at most {most}"
            self.refuse(frame, "refused", text)
            return
        if frame.kind == Type.HELLO:
            with contextlib.suppress(queue.Empty):
                while True:
                    self.requests.get_nowait()
        if self.requests.qsize() <= WINDOW_TILES + 2:
            self.requests.put(AgentRequest.of(frame))
            return
        self.refuse(frame, "busy", f"more than {WINDOW_TILES} requests under way; wait for replies")


def _kind_name(frame: Frame) -> str:
    return Type(frame.kind).name if frame.kind in list(Type) else f"request {frame.kind:#04x}"
