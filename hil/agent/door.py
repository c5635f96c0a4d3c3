"""The TCP door of an agent: many may knock, one has the device, and he keeps it.

A connection without a session costs little: no thread, a small buffer, a few frames, ten seconds. The first HELLO that
is admitted gets the agent. Later ones are refused as busy until that line ends, unless they carry the token of the very
session (its host comes back over a fresh line), or the host with the session has said nothing for a minute.
"""

import contextlib
import logging
import selectors
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from hil.agent.admission import Caller, RefusedError, error_body
from hil.agent.agent import Agent
from hil.agent.connection import AgentRequest, Arrival
from hil.line import protocol
from hil.line.channels import SocketChannel
from hil.line.protocol import REPLY, Frame, FrameReader, ProtocolError, Type, pack_body, unpack_body

MOST_WAITING = 32  # the oldest has to go when one more comes
KNOCK_S = 10.0  # from the connection to an admitted HELLO
MOST_FRAMES = 256  # before that
MOST_NOISE_OCTETS = 64 * 1024
SILENT_S = 60.0  # after which a host that has a session is taken for dead, if another one knocks
GRACE_S = 0.5  # a host that has just gone may not have been missed yet
LOOK_S = 0.05

log = logging.getLogger("hil.agent.door")


@dataclass(eq=False)
class _Knock:
    """A connection that has no session yet."""

    socket: socket.socket
    peer: str
    reader: FrameReader
    since_s: float = field(default_factory=time.monotonic)
    caller: Caller = field(default_factory=Caller)
    frames: int = 0
    hello: AgentRequest | None = None  # admitted, but another host has the agent
    token: object = None
    asked_s: float = 0.0


class Door:
    """Takes connections in a thread of its own; `arrivals` gives those that may have the agent, one after the other."""

    def __init__(self, server: socket.socket, agent: Agent, silent_s: float = SILENT_S) -> None:
        self._server, self._agent, self._silent_s = server, agent, silent_s
        self._waiting: dict[int, _Knock] = {}
        self._selector = selectors.DefaultSelector()
        server.setblocking(False)
        self._selector.register(server, selectors.EVENT_READ)
        self._next: Arrival | None = None
        self._handed_over = threading.Condition()
        threading.Thread(target=self._watch, daemon=True).start()

    def arrivals(self) -> Iterator[Arrival]:
        while True:
            with self._handed_over:
                self._handed_over.wait_for(lambda: self._next is not None)
                arrival = self._next
            if arrival is not None:
                yield arrival  # the agent is taken for as long as it is served
            with self._handed_over:
                if self._next is arrival:
                    self._next = None

    def _watch(self) -> None:
        while True:
            for key, _ in self._selector.select(LOOK_S):
                if key.fileobj is self._server:
                    self._accept()
                elif key.fd in self._waiting:
                    self._hear(self._waiting[key.fd])
            now_s = time.monotonic()
            for knock in list(self._waiting.values()):
                if knock.hello is not None:
                    self._settle(knock, now_s)
                elif now_s - knock.since_s > KNOCK_S:
                    self._drop(knock)

    def _accept(self) -> None:
        try:
            connection, peer = self._server.accept()
        except OSError:  # it went away before we looked, or no descriptors are left: others must go first
            connection, peer = None, None
        if connection is None or len(self._waiting) >= MOST_WAITING:
            for oldest in list(self._waiting.values())[:1]:
                self._drop(oldest)
        if connection is None:
            return
        connection.setblocking(False)
        knock = _Knock(connection, f"{peer[0]}:{peer[1]}", FrameReader({}))
        self._waiting[connection.fileno()] = knock
        self._selector.register(connection, selectors.EVENT_READ)

    def _hear(self, knock: _Knock) -> None:
        try:
            octets = knock.socket.recv_into(knock.reader.space()[: protocol.PIECE_OCTETS])
        except BlockingIOError:
            return
        except OSError:
            octets = 0
        if not octets:
            return self._drop(knock)
        for frame in knock.reader.filled(octets):
            knock.frames += 1
            self._answer(knock, frame)
            if knock.hello is not None:
                return self._settle(knock, time.monotonic())
        if knock.frames > MOST_FRAMES or knock.reader.discarded_octets > MOST_NOISE_OCTETS:
            self._drop(knock)
        return None

    def _answer(self, knock: _Knock, frame: Frame) -> None:
        """Lets the caller in, challenges him, or says why not."""
        try:
            self._agent.check_version(frame)
            if frame.kind != Type.HELLO:
                raise RefusedError("session", f"session {frame.session} is not open; say HELLO first")
            fields, _ = unpack_body(frame.body)
            admitted, told = self._agent.admission.hello(knock.caller, fields)
        except RefusedError as refusal:
            self._send(knock, frame, Type.ERROR, error_body(refusal.reason, str(refusal)))
        except ProtocolError as error:
            self._send(knock, frame, Type.ERROR, error_body("refused", str(error)))
        else:
            if not admitted:
                return self._send(knock, frame, frame.kind, pack_body(told))
            knock.hello, knock.token = (
                AgentRequest(replace(frame, body=bytes(frame.body)), None, told),
                fields.get("token"),
            )
            knock.asked_s = time.monotonic()

    def _settle(self, knock: _Knock, now_s: float) -> None:
        """An admitted caller gets the agent, waits a moment for it, or is told who has it."""
        with self._handed_over:
            holder = self._next
        if holder is None or self._agent.is_session(knock.token) or self._agent.silent_s() > self._silent_s:
            return self._hand_over(knock)
        if now_s - knock.asked_s > GRACE_S and knock.hello is not None:
            text = f"the host at {holder.peer} has a session with this device; wait until it ends"
            self._send(knock, knock.hello.frame, Type.ERROR, error_body("busy", text))
            knock.hello, knock.since_s = None, now_s

    def _hand_over(self, knock: _Knock) -> None:
        log.info("host %s", knock.peer)
        self._forget(knock)
        knock.reader.longest = self._agent.longest_bodies
        arrival = Arrival(SocketChannel(knock.socket), knock.reader, knock.hello, knock.peer)
        with self._handed_over:
            self._next = arrival
            self._agent.end_session()
            self._handed_over.notify()

    def _send(self, knock: _Knock, request: Frame, kind: int, body: bytes) -> None:
        with contextlib.suppress(OSError):  # gone, or not reading: dropped when its time is over
            knock.socket.send(protocol.pack(Frame(kind | REPLY, request.session, request.seq, body)))

    def _drop(self, knock: _Knock) -> None:
        self._forget(knock)
        knock.socket.close()

    def _forget(self, knock: _Knock) -> None:
        self._selector.unregister(knock.socket)
        del self._waiting[knock.socket.fileno()]
