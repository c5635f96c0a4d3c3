"""The program on the device: answers the requests of a host over one line, and outlives its hosts.

Standard library, numpy, one inference runtime. Named methods only: nothing that arrives is ever run. Three threads: the
reader takes frames off the line, the main loop answers them in order, the ticker sends a BEAT every second while a
request is worked on and ends the process when one takes longer than the watchdog allows (a supervisor starts it anew).
Prints go to stderr; stdout may be the line.
"""

import hmac
import logging
import os
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hil.agent.admission import Admission, RefusedError
from hil.agent.connection import WINDOW_TILES, AgentRequest, Arrival, Connection
from hil.agent.device import PowerSampler, SysfsPower, describe
from hil.agent.health import health, temperatures_c
from hil.agent.kernel_files import SYS
from hil.agent.trust import Trust
from hil.line import protocol
from hil.line.channels import DeviceChannel
from hil.line.code_id import code_id
from hil.line.messages import DeviceReply, policy_of, tile_body_octets
from hil.line.protocol import Frame, FrameReader, ProtocolError, Type, pack_body, unpack_body
from payload.bundle import Bundle, load_bundle
from payload.errors import InputError
from payload.policy import Policy
from payload.stopwatch import peak_memory_mib
from payload.tiles import Tile

HELD_OCTETS = 64 * 1024 * 1024  # of tiles kept for STREAM
BEAT_S = 1.0
PART_S = 0.5  # STREAM reports this often
PART_TILES = 256
LONGEST_STREAM_S = 600.0
LEAST_PERIOD_S = 0.001
WATCHDOG_EXIT = 86
#: What NETWORKS may ask for -> the most of it.
NETWORK_BOUNDS = {"threads": 256, "batch": 16, "runs": 200}

log = logging.getLogger("hil.agent.agent")

#: bundle directory, policy, engine, threads -> a hil.agent.encoding.TileEncoder
MakeEncoder = Callable[[Path, Policy, str, int], Any]


@dataclass(frozen=True)
class AgentSettings:
    """What the person who starts an agent decides."""

    emulated: str | None = None  # the emulated processor's name
    watchdog_s: float = 120.0
    key: bytes | None = None  # a host has to show that it holds this key
    trust: Trust | None = None  # whose bundles are run
    sys_root: Path = Path(SYS)  # power meters lie below it


class Agent:
    """What is loaded on the device. Outlives lines: a host that comes back finds its bundle still loaded."""

    def __init__(self, bundle: Path, make_encoder: MakeEncoder, settings: AgentSettings = AgentSettings()) -> None:
        self._bundle_path, self._make_encoder, self._settings = bundle, make_encoder, settings
        self.admission = Admission(settings.key)
        self._bundle = self._checked_bundle()
        self._identity = describe(settings.emulated) | {"code_id": code_id(), "window": WINDOW_TILES}
        self._loaded: tuple[str, Any] | None = None  # what LOAD asked for, and its encoder
        self._held: list[Tile] = []
        self._tiles_done = 0
        self._busy: tuple[float, Connection, Frame] | None = None
        self._line: Connection | None = None
        self._token = ""
        self._methods: dict[int, Callable[[Connection, AgentRequest], bytes | DeviceReply]] = {
            Type.HELLO: self._hello,
            Type.LOAD: self._load,
            Type.HOLD: self._hold,
            Type.INFER: self._infer,
            Type.STREAM: self._stream,
            Type.STATS: self._stats,
            Type.NETWORKS: self._networks,
            Type.MASK: self._mask,
            Type.RESET: self._reset,
        }
        threading.Thread(target=self._tick, daemon=True).start()

    @property
    def longest_bodies(self) -> Mapping[int, int]:
        """Octets of body per kind of frame: a tile is as long as the bundle's tiles are."""
        if isinstance(self._bundle, InputError):
            return protocol.LONGEST_REQUEST
        tile = tile_body_octets(len(self._bundle.bands), self._bundle.tile_px)
        return {**protocol.LONGEST_REQUEST, Type.INFER: tile, Type.HOLD: tile}

    def serve(self, channel: DeviceChannel) -> None:
        """Answers one host until it is gone."""
        self.serve_arrival(Arrival(channel, FrameReader(self.longest_bodies)))

    def serve_arrival(self, arrival: Arrival) -> None:
        """Answers a host, whose HELLO may have been heard already, until it is gone."""
        self._line = line = Connection(arrival)
        try:
            while (request := line.requests.get()) is not None and not line.lost.is_set():
                self._answer(line, request)
        finally:
            self._busy = None
            line.close()

    def is_session(self, token: object) -> bool:
        """Whether `token` is the one that the last HELLO was given: its host comes back over another line."""
        known = isinstance(token, str) and bool(self._token)
        return known and hmac.compare_digest(str(token).encode(errors="replace"), self._token.encode())

    def silent_s(self) -> float:
        """For how long the host with the session has said nothing; 0 while it waits for an answer."""
        line = self._line
        if line is None or self._busy is not None:
            return 0.0
        return float("inf") if line.lost.is_set() else time.monotonic() - line.heard_s

    def end_session(self) -> None:
        """Ends the line that is served, if there is one: its host is gone, or has another line."""
        line = self._line
        if line is not None:
            line.end()

    def check_version(self, frame: Frame) -> None:
        """RefusedError where a frame is of another protocol."""
        if frame.version != protocol.VERSION:
            raise RefusedError(
                "refused", f"frame of protocol {frame.version}, this agent speaks {protocol.VERSION}; deploy it again"
            )

    def _answer(self, line: Connection, request: AgentRequest) -> None:
        frame = request.frame
        self._busy = (time.monotonic(), line, frame)
        try:
            self.check_version(frame)
            method = self._methods.get(frame.kind)
            if method is None:
                known = ", ".join(Type(kind).name for kind in self._methods)
                raise RefusedError("refused", f"request {frame.kind:#04x} is unknown; wanted one of {known}")
            if frame.kind != Type.HELLO and frame.session != line.session:
                raise RefusedError("session", f"session {frame.session} is not open; say HELLO first")
            body = method(line, request)
        except RefusedError as refusal:
            line.refuse(frame, refusal.reason, str(refusal))
        except (ProtocolError, InputError) as error:
            line.refuse(frame, "refused", str(error))
        except Exception as error:  # the runtime's own failures must not end the agent; the host hears of them
            log.exception("request %#04x failed", frame.kind)
            line.refuse(frame, "failed", f"{type(error).__name__}: {error}")
        else:
            line.reply(frame, frame.kind, body)
        finally:
            self._busy = None

    def _hello(self, line: Connection, request: AgentRequest) -> bytes:
        told = request.welcome
        if told is None:
            fields, _ = unpack_body(request.frame.body)
            admitted, told = self.admission.hello(line.caller, fields)
            if not admitted:
                line.session = None  # whoever asks on this line now has to show the key
                return pack_body(told)
        if isinstance(self._bundle, InputError):
            raise self._bundle
        line.session, self._token = request.frame.session, secrets.token_hex(16)
        bundle = {"bundle": self._bundle.name, "bundle_id": self._bundle.bundle_id}
        return pack_body(self._identity | bundle | told | {"token": self._token})

    def _checked_bundle(self) -> Bundle | InputError:
        """The bundle, or why it is not run: hosts are told at HELLO."""
        try:
            return self._load_bundle()
        except InputError as error:
            log.error("%s", error)
            return error

    def _load_bundle(self) -> Bundle:
        trust = self._settings.trust
        return trust.load(self._bundle_path) if trust else load_bundle(self._bundle_path, flight_only=True)

    def _load(self, line: Connection, request: AgentRequest) -> bytes:
        fields, _ = unpack_body(request.frame.body)
        bundle = self._load_bundle()  # again: its files may have changed since the start
        wanted = fields.get("bundle_id")
        if wanted != bundle.bundle_id:
            raise RefusedError(
                "refused",
                f"bundle {wanted} wanted, the device holds {bundle.bundle_id} ({bundle.name}); deploy it again",
            )
        policy, engine, threads = policy_of(fields.get("policy")), fields.get("engine"), fields.get("threads")
        if not isinstance(engine, str) or type(threads) is not int or not 1 <= threads <= 256:
            raise ProtocolError(f"engine {engine!r}, threads {threads!r}: wanted a name and 1 to 256")
        asked, before_s = repr((policy, engine, threads)), time.monotonic()
        if self._loaded is None or self._loaded[0] != asked:
            self._loaded = None  # never two networks in memory
            self._loaded = (asked, self._make_encoder(self._bundle_path, policy, engine, threads))
        if self._settings.trust:
            self._settings.trust.remember(bundle)
        encoder = self._loaded[1]
        return pack_body({"engine": encoder.engine, "ran": encoder.ran, "load_s": time.monotonic() - before_s})

    def _hold(self, line: Connection, request: AgentRequest) -> bytes:
        """Keeps a tile for STREAM; refused as busy where no more fit."""
        tile = self._tile(request)
        if sum(held.dn.nbytes for held in self._held) + tile.dn.nbytes > HELD_OCTETS:
            raise RefusedError("full", f"{len(self._held)} tiles are held, {HELD_OCTETS} octets at most; send fewer")
        self._held.append(tile)
        return pack_body({"held": len(self._held)})

    def _infer(self, line: Connection, request: AgentRequest) -> DeviceReply:
        return self._encode(self._tile(request))

    def _tile(self, request: AgentRequest) -> Tile:
        self._encoder()  # before the tile's faults: nothing loaded is the first thing to say
        if not isinstance(request.tile, Tile):
            raise request.tile or ProtocolError("a tile is missing")
        return request.tile

    def _stream(self, line: Connection, request: AgentRequest) -> bytes:
        """Works (or rests) for `seconds`; parts go out as they come, the last one is the reply. Any frame ends it.

        Work goes on until every held tile was coded equally often: a window then stands for all of them.
        """
        fields, _ = unpack_body(request.frame.body)
        seconds, work, period_s, power = (fields.get(name) for name in ("seconds", "work", "period_s", "power"))
        watched = fields.get("health") is True
        if not isinstance(seconds, (int, float)) or not 0 < seconds <= LONGEST_STREAM_S:
            raise ProtocolError(f"seconds is {seconds!r}, wanted more than 0, at most {LONGEST_STREAM_S:g}")
        if not isinstance(period_s, (int, float)) or not LEAST_PERIOD_S <= period_s <= LONGEST_STREAM_S:
            raise ProtocolError(f"period_s is {period_s!r}, wanted {LEAST_PERIOD_S:g} to {LONGEST_STREAM_S:g}")
        if work and not self._held:
            raise RefusedError("refused", "no tiles are held; HOLD some first")
        if power is not None and not isinstance(power, str):
            raise ProtocolError(f"power is {power!r}, wanted the path of a power1_input or energy_uj")
        if work:
            self._encoder()
        meter = SysfsPower(power, self._settings.sys_root) if power is not None else None
        sampler = PowerSampler(meter, float(period_s)) if meter else None
        try:
            return self._work(line, request.frame, float(seconds), bool(work), sampler, watched)
        finally:
            if sampler:
                sampler.stop()

    def _work(
        self, line: Connection, frame: Frame, seconds: float, work: bool, sampler: PowerSampler | None, watched: bool
    ) -> bytes:
        start_s = time.monotonic()
        part, done, sent_s = 0, 0, start_s
        codes: list[list[Any]] = []
        while True:
            now_s = time.monotonic()
            whole = not work or done % len(self._held) == 0
            late = now_s - start_s >= (seconds if whole else LONGEST_STREAM_S)
            over = late or line.lost.is_set() or not line.requests.empty()
            if over or now_s - sent_s >= PART_S or len(codes) >= PART_TILES:
                power = sampler.take() if sampler else []
                looks = [health(str(self._settings.sys_root))] if watched else []
                body = pack_body(
                    {"part": part, "last": over, "start_s": start_s, "end_s": now_s, "tiles": codes, "power": power,
                     "health": looks}
                )  # fmt: skip
                if over:
                    return body
                line.reply(frame, Type.STREAM, body)
                part, sent_s, codes = part + 1, now_s, []
                self._busy = (now_s, line, frame)
            if work:
                coded = self._encode(self._held[done % len(self._held)])
                codes.append([coded.start_s, coded.end_s, coded.stages_s, coded.kind])
                done += 1
            else:
                time.sleep(min(0.05, max(0.001, start_s + seconds - now_s)))

    def _stats(self, line: Connection, request: AgentRequest) -> bytes:
        return pack_body(
            {
                "clock_s": time.monotonic(),
                "tiles": self._tiles_done,
                "discarded_octets": line.reader.discarded_octets,
                "peak_memory_mib": peak_memory_mib(),
                "temperatures_c": temperatures_c(),
            }
        )

    def _networks(self, line: Connection, request: AgentRequest) -> bytes:
        """Times of the networks alone, on a held tile, and what the runtime reaches at best."""
        fields, _ = unpack_body(request.frame.body)
        threads, batch, runs = (_count(fields, name, most) for name, most in NETWORK_BOUNDS.items())
        inside = getattr(self._encoder(), "networks", None)
        if inside is None:
            return pack_body(
                {"networks": [], "ceilings": None, "why": "this agent's encoder has no networks to look at"}
            )
        return pack_body(inside(self._held_tile(fields), threads, batch, runs, fields.get("layers") is True))

    def _mask(self, line: Connection, request: AgentRequest) -> bytes:
        """What the cloud network takes for cloud in a held tile: a bit a pixel, rows first."""
        fields, _ = unpack_body(request.frame.body)
        mask = getattr(self._encoder(), "mask", None)
        found = mask(self._held_tile(fields)) if mask else None
        return pack_body({"mask": found is not None}, found or b"")

    def _held_tile(self, fields: dict[str, Any]) -> Tile:
        number = fields.get("held")
        if type(number) is not int or not 0 <= number < len(self._held):
            raise ProtocolError(f"held is {number!r}, wanted one of the {len(self._held)} held tiles; HOLD some first")
        return self._held[number]

    def _reset(self, line: Connection, request: AgentRequest) -> bytes:
        """Forgets what is loaded and held; with `held_only` the held tiles alone."""
        fields, _ = unpack_body(request.frame.body)
        self._held = []
        if fields.get("held_only") is not True:
            self._loaded, self._tiles_done = None, 0
        return pack_body({})

    def _encoder(self) -> Any:
        if self._loaded is None:
            raise RefusedError("session", "nothing is loaded; LOAD a bundle first")
        return self._loaded[1]

    def _encode(self, tile: Tile) -> DeviceReply:
        encoder = self._encoder()
        start_s = time.monotonic()
        octets = encoder.encode(tile)
        end_s = time.monotonic()
        self._tiles_done += 1
        return DeviceReply(tile.row, tile.col, octets, start_s, end_s, encoder.kind, encoder.stages_s)

    def _tick(self) -> None:
        while True:
            time.sleep(BEAT_S)
            busy = self._busy
            if busy is None:
                continue
            since_s, line, frame = busy
            if time.monotonic() - since_s > self._settings.watchdog_s:
                log.error("request %#04x has taken more than %g s: ending", frame.kind, self._settings.watchdog_s)
                os._exit(WATCHDOG_EXIT)
            line.beat(frame, time.monotonic() - since_s)


def _count(fields: dict[str, Any], name: str, most: int) -> int:
    value = fields.get(name)
    if type(value) is not int or not 1 <= value <= most:
        raise ProtocolError(f"{name} is {value!r}, wanted 1 to {most}")
    return value
