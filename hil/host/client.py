"""The host's side of the protocol: tiles out, tile codes back in order, whatever happens to the line in between.

One remedy for every trouble (a cable pulled, garbage, a dead agent, silence): open the channel afresh, HELLO, LOAD, and
send again what has not been answered. Encoding a tile twice gives the same octets, and each reply names the CRC of the
tile it codes, so neither order nor repetition can put a wrong code in a tile's place.
"""

import random
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from hil.host.emulation import engine_of
from hil.host.greeting import answer_challenge, check_identity, check_proof, choose_engine, device_info, with_remedy
from hil.host.session_values import (
    EMULATION,
    PATIENCE,
    ClockOffset,
    DeviceError,
    DeviceFullError,
    DeviceInfo,
    DeviceLostError,
    Incidents,
    Patience,
    SilenceError,
)
from hil.host.transports import Connect, connector, shared_key
from hil.line import protocol
from hil.line.channels import ByteChannel, ChannelClosedError, seconds_left
from hil.line.messages import DeviceReply, pack_tile, policy_fields, unpack_coded
from hil.line.protocol import REPLY, Frame, FrameReader, ProtocolError, Type, crc_of, pack_body, unpack_body
from payload.bundle import Bundle
from payload.policy import Policy
from payload.tiles import Tile


@dataclass
class _Asked:
    """A tile under way: its INFER body, the CRC of the frame that carried it last, its code once it is back."""

    body: bytes
    crc: int = 0
    coded: DeviceReply | None = None


class DeviceSession:
    """A device that is ready to encode. Use as a context manager."""

    def __init__(
        self, connect: Connect, name: str, bundle: Bundle, policy: Policy, engine: str = "auto", threads: int = 1,
        patience: Patience = PATIENCE, seed: int | None = None, key: bytes | None = None,
    ) -> None:  # fmt: skip
        self.name, self.incidents = name, Incidents()
        self._connect, self._bundle, self._policy = connect, bundle, policy
        self._engine, self._threads, self._patience = engine, threads, patience
        self._random = random.Random(seed)
        self._key, self._token = key, ""
        self._channel: ByteChannel | None = None
        self._reader = FrameReader()
        self._frames: list[Frame] = []
        self._session = self._seq = 0
        try:
            self.info = self._with_patience(self._greet)
        except BaseException:
            self.close()  # a device that refuses us must not take us for its host any longer
            raise

    def __enter__(self) -> "DeviceSession":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if self._channel is not None:
            self._channel.close()
            self._channel = None

    def encode_tile(self, tile: Tile) -> DeviceReply:
        """One tile, one code."""
        return next(self.encode_tiles([tile]))

    def encode_tiles(self, tiles: Iterable[Tile], window: int | None = None) -> Iterator[DeviceReply]:
        """Codes in the order of `tiles`, at most `window` of them under way. DeviceError when the device is lost."""
        allowed = min(window or self.info.window, self.info.window)
        source, waiting = iter(tiles), OrderedDict[int, _Asked]()
        exhausted, failures = False, 0
        while True:
            try:
                while not exhausted and len(waiting) < allowed:
                    tile = next(source, None)
                    if tile is None:
                        exhausted = True
                    else:
                        self._ask_tile(waiting, pack_tile(tile))
                if not waiting:
                    return
                self._receive_tile(waiting)
                while waiting and (done := next(iter(waiting.values())).coded) is not None:
                    waiting.popitem(last=False)
                    failures = 0
                    yield done
            except ChannelClosedError as error:
                failures += 1
                self._mend(str(error), failures)
                self._ask_again(waiting)

    def call(self, kind: Type, fields: dict[str, Any]) -> dict[str, Any]:
        """One request that is not a tile, with its reply's fields; sent again on a fresh line if the old one fails."""
        return self._with_patience(lambda: self._call_once(kind, fields))

    def stream(self, fields: dict[str, Any]) -> list[dict[str, Any]]:
        """STREAM: every part of the reply in order. Never mended midway: ChannelClosedError, and the caller repeats."""
        seq = self._send(Type.STREAM, pack_body(fields))
        parts: list[dict[str, Any]] = []
        while True:
            reply = self._reply_to(seq)
            part, _ = unpack_body(reply.body)
            if part.get("part") != len(parts):
                raise ChannelClosedError(f"part {len(parts)} of the stream's report is missing")
            parts.append(part)
            if part.get("last") is True:
                return parts

    def clock(self, rounds: int = 16) -> ClockOffset:
        """Offset of the device's clock, from the fastest of some round trips."""
        best = ClockOffset(0.0, float("inf"))
        for _ in range(rounds):
            before_s = time.monotonic()
            clock_s = float(self.call(Type.STATS, {})["clock_s"])
            after_s = time.monotonic()
            if (after_s - before_s) / 2 < best.uncertainty_s:
                best = ClockOffset(clock_s - (before_s + after_s) / 2, (after_s - before_s) / 2)
        return best

    def peak_memory_mib(self) -> float:
        """Most memory the agent's process has held."""
        return float(self.call(Type.STATS, {})["peak_memory_mib"])

    def hold(self, tiles: Iterable[Tile]) -> int:
        """Tiles for STREAM to work on, in place of those held before; how many of them the device has room for."""
        self.call(Type.RESET, {"held_only": True})
        sent = 0
        for tile in tiles:
            try:
                told = self._with_patience(partial(self._call_with_body, Type.HOLD, pack_tile(tile)))
            except DeviceFullError:
                return sent
            sent += 1
            if told["held"] != sent:
                raise DeviceError(f"device {self.name}: the line failed while it took tiles; run again on a better one")
        return sent

    def mask(self, held: int) -> bytes | None:
        """Bits of the cloud mask of a held tile; None where the device's bundle has no cloud network."""
        fields, octets = self._with_patience(lambda: self._exchange(Type.MASK, pack_body({"held": held})))
        return octets if fields.get("mask") is True else None

    def reload(self) -> float:
        """LOAD again, after a RESET; gives the seconds it took on the device."""
        return float(self._with_patience(self._load)["load_s"])

    def mend(self, cause: str) -> None:
        """A fresh line after a stream broke. DeviceError when patience is at its end."""
        self._mend(cause, 1)

    def _ask_tile(self, waiting: OrderedDict[int, _Asked], body: bytes) -> None:
        self._seq = seq = (self._seq + 1) % 2**32
        waiting[seq] = _Asked(body)  # before it is sent: a line that fails here must not lose the tile
        self._send_tile(seq, waiting[seq])

    def _send_tile(self, seq: int, asked: _Asked) -> None:
        octets = protocol.pack(Frame(Type.INFER, self._session, seq, asked.body))
        asked.crc = crc_of(octets)
        self._write(octets)

    def _receive_tile(self, waiting: OrderedDict[int, _Asked]) -> None:
        """Takes one frame; notes the code it carries; asks again for tiles that were passed over."""
        frame = self._next_frame(self._patience.silence_s)
        asked = waiting.get(frame.seq)
        if asked is None or asked.coded is not None:
            return  # an answer twice, after a repeat
        kind = frame.kind & ~REPLY
        if kind == Type.BEAT:
            return
        if kind == Type.ERROR:
            self._raise_refusal(frame)
        if kind != Type.INFER:
            raise ChannelClosedError(f"the device answers a tile with {frame.kind:#04x}")
        asked.coded = _device_reply(frame, asked.crc)
        for seq, earlier in waiting.items():
            if seq == frame.seq:
                break
            if earlier.coded is None:  # the agent answers in order, so request or reply was lost
                self.incidents.tiles_sent_again += 1
                self._send_tile(seq, earlier)

    def _ask_again(self, waiting: OrderedDict[int, _Asked]) -> None:
        for seq, asked in waiting.items():
            if asked.coded is None:
                self.incidents.tiles_sent_again += 1
                try:
                    self._send_tile(seq, asked)
                except ChannelClosedError:
                    return  # noticed again, and mended, at the next read

    def _with_patience(self, action: Callable[[], Any]) -> Any:
        failures = 0
        while True:
            try:
                return action()
            except ChannelClosedError as error:
                failures += 1
                self._mend(str(error), failures, greet=action != self._greet)

    def _mend(self, cause: str, failures: int, greet: bool = True) -> None:
        """A fresh line with the bundle loaded. DeviceError when patience is at its end."""
        while True:
            self.close()
            self.incidents.causes.append(cause)
            if failures >= self._patience.attempts:
                raise DeviceLostError(
                    f"device {self.name}: lost after {failures} attempts ({cause}); "
                    "check the line and the agent, then run again"
                )
            time.sleep(self._patience.pause_s * 2 ** (failures - 1))
            self.incidents.reconnects += 1
            if not greet:
                return
            try:
                self.info = self._greet()
                return
            except ChannelClosedError as error:
                cause, failures = str(error), failures + 1

    def _greet(self) -> DeviceInfo:
        """Opens the line, checks who is there, loads the bundle."""
        self.close()
        self._channel, self._reader, self._frames = self._connect(), FrameReader(), []
        self._session = self._random.getrandbits(32)
        hello = self._hello()
        check_identity(self.name, hello, self._bundle)
        self._token = str(hello.get("token", ""))
        self._engine = choose_engine(self.name, self._engine, hello)
        return device_info(self.name, hello, self._load())

    def _load(self) -> dict[str, Any]:
        policy = policy_fields(self._policy)
        return self._call_once(
            Type.LOAD,
            {"bundle_id": self._bundle.bundle_id, "policy": policy, "engine": self._engine, "threads": self._threads},
        )

    def _hello(self) -> dict[str, Any]:
        """HELLO, said again until somebody answers: a device may be starting. Shows the key where it is wanted."""
        deadline_s = time.monotonic() + max(self._patience.hello_s, 6 * self._patience.silence_s)
        token = {"token": self._token} if self._token else {}
        while True:
            try:
                told = self._call_once(Type.HELLO, token, self._patience.hello_s)
                proof, wanted = answer_challenge(self.name, self._key, told)
                if proof:
                    told = self._call_once(Type.HELLO, token | proof, self._patience.hello_s)
                    check_proof(self.name, told, wanted)
                return told
            except SilenceError:
                if time.monotonic() > deadline_s:
                    raise ChannelClosedError("nobody answers HELLO") from None

    def _call_once(self, kind: Type, fields: dict[str, Any], silence_s: float | None = None) -> dict[str, Any]:
        return self._call_with_body(kind, pack_body(fields), silence_s)

    def _call_with_body(self, kind: Type, body: bytes, silence_s: float | None = None) -> dict[str, Any]:
        return self._exchange(kind, body, silence_s)[0]

    def _exchange(self, kind: Type, body: bytes, silence_s: float | None = None) -> tuple[dict[str, Any], bytes]:
        """A request and its reply: its fields, and the octets behind them."""
        reply = self._reply_to(self._send(kind, body), silence_s)
        if reply.kind != kind | REPLY:
            raise ChannelClosedError(f"the device answers {kind.name} with {reply.kind:#04x}")
        return _body(reply)

    def _send(self, kind: Type, body: bytes) -> int:
        self._seq = (self._seq + 1) % 2**32
        self._write(protocol.pack(Frame(kind, self._session, self._seq, body)))
        return self._seq

    def _reply_to(self, seq: int, silence_s: float | None = None) -> Frame:
        """The reply to `seq`; beats and answers to earlier requests pass by."""
        while True:
            frame = self._next_frame(silence_s or self._patience.silence_s)
            if frame.seq != seq or frame.kind == Type.BEAT | REPLY:
                continue
            if frame.kind == Type.ERROR | REPLY:
                self._raise_refusal(frame)
            return frame

    def _raise_refusal(self, frame: Frame) -> None:
        fields = _fields(frame)
        if fields.get("reason") in ("session", "busy"):  # a new agent, or too much at once: greet, and go on
            raise ChannelClosedError(str(fields.get("error")))
        kind = DeviceFullError if fields.get("reason") == "full" else DeviceError
        raise kind(f"device {self.name}: {fields.get('error')}")

    def _write(self, octets: bytes) -> None:
        if self._channel is None:
            raise ChannelClosedError("the line is closed")
        self._channel.write(octets, self._patience.silence_s)

    def _next_frame(self, silence_s: float) -> Frame:
        """The next frame of this session."""
        deadline_s = time.monotonic() + silence_s
        while not self._frames:
            if self._channel is None:
                raise ChannelClosedError("the line is closed")
            if time.monotonic() > deadline_s:
                raise SilenceError(f"the device said nothing for {silence_s:g} s")
            discarded = self._reader.discarded_octets
            self._frames = [f for f in self._reader.feed(self._channel.read(seconds_left(deadline_s))) if self._ours(f)]
            self.incidents.octets_discarded += self._reader.discarded_octets - discarded
        return self._frames.pop(0)

    def _ours(self, frame: Frame) -> bool:
        if frame.version != protocol.VERSION:
            raise DeviceError(
                f"device {self.name}: speaks protocol {frame.version}, this host {protocol.VERSION}; "
                "deploy the agent again"
            )
        if frame.too_long:
            raise ChannelClosedError(f"the device announces a body of {frame.too_long} octets")
        return frame.session == self._session and bool(frame.kind & REPLY)


def open_device(
    url: str, bundle: Bundle, policy: Policy, engine: str = "auto", threads: int = 1, patience: Patience | None = None
) -> DeviceSession:
    """A session with the device at `url`, its code and bundle checked. InputError says what to mend."""
    if url.startswith("emulated:"):
        patience = patience or EMULATION
        engine = engine_of(url.partition(":")[2]) if engine == "auto" else engine
    connect, key = connector(url, Path(bundle.directory)), shared_key(url)
    try:
        return DeviceSession(connect, url, bundle, policy, engine, threads, patience or PATIENCE, key=key)
    except DeviceError as error:
        raise type(error)(with_remedy(url, engine, str(error))) from None


def _device_reply(frame: Frame, request_crc: int) -> DeviceReply:
    try:
        return unpack_coded(frame.body, request_crc)
    except ProtocolError as error:
        raise ChannelClosedError(f"the device's reply makes no sense: {error}") from None


def _fields(frame: Frame) -> dict[str, Any]:
    return _body(frame)[0]


def _body(frame: Frame) -> tuple[dict[str, Any], bytes]:
    try:
        fields, octets = unpack_body(frame.body)
        return fields, bytes(octets)
    except ProtocolError as error:
        raise ChannelClosedError(f"the device's reply makes no sense: {error}") from None
