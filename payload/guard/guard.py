"""Keeps upsets out of what is sent: a tile code leaves only after all that made it was found intact behind it.

    tile -> coded -> waits -> held memory compared, networks asked -> leaves
                       ^                  | something was hit
                       +---- coded again <- mended from the copy, else the golden copy, else FALLBACK, else safe mode

Every step is counted and told (payload/guard/telemetry.py). What nothing here can see: the interpreter, the libraries'
code, and what is written anew for every tile while it is worked on; `read_back` finds most of the last.
"""

import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from payload.bundle import Bundle
from payload.codec.interface import Codec, CodedTile
from payload.codec.rotation import forget_matrices
from payload.errors import InputError, StreamError
from payload.guard.probes import Probe
from payload.guard.telemetry import Count, EventId, Mode, Telemetry
from payload.guard.twins import Hit, Mended, Scrubber
from payload.guard.vector import Vector, coded_by, known_tile, known_vectors, octets_crc, short_test, vector_of
from payload.guard.watchdog import Watchdog
from payload.memory import Holding
from payload.policy import Protection
from payload.tiles import Tile

Address = tuple[int, int]
Result = TypeVar("Result")
#: So often a tile is coded anew before what stops it is taken for the tile's own fault, or the guard gives up.
TRIES = 3
_TOLD = {
    Mended.MEMORY: (Count.MEMORY_HITS, EventId.MEMORY_HIT),
    Mended.COPY: (Count.COPY_HITS, EventId.COPY_HIT),
    Mended.NEITHER: (Count.UNMENDED_HITS, EventId.UNMENDED_HIT),
}


class Guarded(Protocol):
    """What the guard watches over: a payload."""

    codec: Codec
    clouds: Any
    apps: Any

    def reopen(self) -> None:
        """Makes codec and gate anew from the golden copy. BundleError where that is no longer what it was."""

    def fall_back(self) -> None:
        """Goes on without the bundle's networks and tables. InputError where that cannot be."""


class Draw(Protocol):
    """What is drawn while tiles are coded, and must be drawn alike when they are coded again."""

    def state(self) -> Any: ...

    def restore(self, state: Any) -> None: ...


@dataclass(frozen=True)
class Coded(Generic[Result]):
    """A tile was coded, or coded again."""

    address: Address
    result: Result


@dataclass(frozen=True)
class Good:
    """The first so many of the tiles coded will not be coded again: all that made them was found intact behind them."""

    count: int


@dataclass(frozen=True)
class Doubt:
    """Something was found changed: every tile coded since the last `Good` may be wrong. Told before anything is mended,
    so that whoever keeps tiles lets go of these first; they are coded again."""


Step = Coded[Result] | Good | Doubt


@dataclass
class _Waiting(Generic[Result]):
    """A coded tile that is not known to be good yet, and the draw as it was before it."""

    address: Address
    drawn: Any
    result: Result


class Guard:
    """Watches over one payload. Its counters and events are in `telemetry`."""

    def __init__(
        self, payload: Guarded, protection: Protection, bundle: Bundle, telemetry: Telemetry,
        known: dict[int, Vector] | None = None,
    ) -> None:  # fmt: skip
        """`known`: self-test vectors of bundles that are not listed, by their id."""
        self.telemetry, self.protection = telemetry, protection
        telemetry.guarded = True
        self.watchdog = Watchdog(protection.watchdog_s)
        self._payload, self._bundle_id = payload, bundle.bundle_id
        self._shape = len(bundle.bands), bundle.tile_px
        self._vectors = known_vectors() | (known or {})
        self._tested = False
        self._doubt = False  # about the tiles that wait: an error stopped one of them
        self._commanded_safe = False
        self._watch()

    @property
    def vector(self) -> Vector | None:
        """The known answer of this bundle; None before it was learnt."""
        return self._vectors.get(self._bundle_id)

    @property
    def held_octets(self) -> int:
        return self.scrubber.octets

    def _watch(self) -> None:
        """Takes copies of all held memory and the networks' answers."""
        everyone = self._payload.codec, self._payload.clouds, self._payload.apps
        owners = [owner for owner in everyone if isinstance(owner, Holding)]
        tile = known_tile(*self._shape)
        inside = [part for owner in owners if hasattr(owner, "runs_inside") for part in owner.runs_inside(tile)]
        self.probes = [Probe(part) for part in inside]
        self.scrubber = Scrubber(held for owner in owners for held in owner.held())
        self._short = short_test(self._payload.codec, len(tile.dn))

    def verified(
        self, tiles: Iterator[Tile], code: Callable[[Tile], Result], again: Callable[[Address], Result], draw: Draw
    ) -> Iterator[Result]:
        """What `code` makes of every tile, in order, each once it is known to be good. `again` codes one anew."""
        waiting: dict[Address, Result] = {}
        gone = 0
        for step in self.steps(tiles, code, again, draw):
            if isinstance(step, Coded):
                waiting[step.address] = step.result
            if isinstance(step, Good):
                for address in list(waiting)[: step.count - gone]:
                    yield waiting.pop(address)
                gone = step.count

    def steps(
        self, tiles: Iterator[Tile], code: Callable[[Tile], Result], again: Callable[[Address], Result], draw: Draw
    ) -> Iterator[Step[Result]]:
        """The same as it happens: every tile when it is coded and when it is recoded, and up to where all is good."""
        with self.watchdog:
            self._begin()
            waiting: list[_Waiting[Result]] = []
            memory_good = network_good = gone = round_began = 0
            for coded, tile in enumerate(tiles, 1):
                drawn = draw.state()
                waiting.append(_Waiting((tile.row, tile.col), drawn, (yield from self._coded(tile, code))))
                round_began = coded if self.scrubber.at_start else round_began
                hits, complete = self.scrubber.scrub(self.protection.scrub_octets)
                forget_matrices()
                asked = bool(self.probes) and coded % self.protection.network_tiles == 0
                if hits or self._doubt or (asked and not self._networks_pass()):
                    self._tell(hits)
                    yield Doubt()
                    yield from self._mend_and_recode(waiting, again, draw)
                    memory_good = network_good = coded
                else:
                    yield Coded(waiting[-1].address, waiting[-1].result)
                if complete:
                    self.telemetry.count(Count.SCRUB_ROUNDS)
                    memory_good = max(memory_good, round_began)
                network_good = coded if asked or not self.probes else network_good
                ready = min(memory_good, network_good)
                if ready > gone:
                    gone, waiting = ready, waiting[ready - gone :]
                    yield Good(gone)
                self.watchdog.reset()
            if not self._find("after the scene", whole=False):
                yield Doubt()
                yield from self._mend_and_recode(waiting, again, draw)
            yield Good(gone + len(waiting))

    def _begin(self) -> None:
        """Before the first scene everything is checked, before the others held memory: the last scene ended with the
        rest. Where that ended in another mode, the golden copy is tried again."""
        if self._commanded_safe:
            return
        if self.telemetry.mode is not Mode.NOMINAL:
            left, self.telemetry.mode = self.telemetry.mode, Mode.NOMINAL
            if self._reload() and self._sound():
                self.telemetry.tell(EventId.NOMINAL_AGAIN)
                return
            self.telemetry.mode = left
        if self._tested or not self.protection.self_test:
            self._scrub_all()
        else:
            self.check_all("before the first scene")

    def command(self, mode: Mode) -> None:
        """SAFE: nothing is coded until NOMINAL is commanded; then the next scene begins with the golden copy."""
        if mode is Mode.SAFE and not self._commanded_safe:
            self._enter(Mode.SAFE, Count.SAFE_MODES, EventId.SAFE_MODE)
        self._commanded_safe = mode is Mode.SAFE

    def check_all(self, when: str = "") -> bool:
        """Compares all held memory, asks the networks and, where `when` says when, does the self-test. False where
        anything was found; by then it is mended, or the payload works in another mode."""
        sound = self._find(when)
        if not sound:
            self._mend()
        return sound

    def _find(self, when: str, whole: bool = True) -> bool:
        """Whether nothing is found anywhere. Memory that was hit is mended from its copy, and no more than that."""
        hits = self._scrub_all()
        forget_matrices()
        passed = self.self_test(when, whole) if when and self.protection.self_test else self._networks_pass()
        return passed and not hits

    def _scrub_all(self) -> list[Hit]:
        hits = self.scrubber.all()
        self._tell(hits)
        self.telemetry.count(Count.SCRUB_ROUNDS)
        return hits

    def self_test(self, when: str, whole: bool = True) -> bool:
        """Whether the known tile gives its known octets and they decode to the known indices, or, where the test need
        not be `whole`, a small tile gives the octets it gave at first; and whether the networks pass, of which those
        that it took the tile through are not asked again."""
        if self.telemetry.mode is Mode.SAFE:
            return True
        self._tested = True
        self.telemetry.count(Count.SELF_TESTS)
        for probe in self.probes:
            probe.listen(True)
        known = self._known_answer(when, whole)
        for probe in self.probes:
            probe.listen(False)
        return self._networks_pass() and known

    def _known_answer(self, when: str, whole: bool) -> bool:
        if not whole and self._short is not None:
            return self._short.passes() or self._failed(when, "the short test")
        try:
            coded = coded_by(self._payload.codec, *self._shape)
            found = vector_of(self._payload.codec, coded) if whole or self.vector is None else None
        except Exception as error:  # memory that was hit may show as any error
            return self._failed(when, type(error).__name__)
        return self.telemetry.mode is Mode.FALLBACK or self._as_known(when, octets_crc(coded), found)

    def _as_known(self, when: str, octets: int, found: Vector | None) -> bool:
        """Whether it is the known answer; the first whole one of a bundle that is not listed is learnt."""
        if self.vector is None and found is not None:
            self._vectors[self._bundle_id] = found
            self.telemetry.tell(EventId.VECTOR_LEARNT, f"{found.octets:08x} {found.indices:08x}")
        wanted = self.vector
        if wanted is None or octets != wanted.octets or found not in (None, wanted):
            return self._failed(when, f"{octets:08x}" + (f" {found.indices:08x}" if found is not None else ""))
        return True

    def read_back(self, coded: CodedTile, encode: Callable[[], CodedTile]) -> CodedTile:
        """The tile, once two encodings of it agree and can be decoded. InputError where that never happens."""
        if not self.protection.read_back:
            return coded
        self.telemetry.count(Count.READ_BACK)
        for _ in range(TRIES):
            other = encode()
            if (other.side, other.layers) == (coded.side, coded.layers) and self._decodes(coded):
                return coded
            self.telemetry.count(Count.READ_BACK_FAILED)
            self.telemetry.tell(EventId.READ_BACK_FAILED)
            coded = other
        raise InputError("two encodings of a tile never agreed; the payload's memory is hit faster than it is mended")

    def _decodes(self, coded: CodedTile) -> bool:
        try:
            self._payload.codec.decode(coded.side, coded.base_layers)
        except StreamError:
            return False
        return True

    def _coded(self, tile: Tile, code: Callable[[Tile], Result]) -> Generator[Doubt, None, Result]:
        """One tile coded; where an error stops it, everything is checked and it is tried again."""
        self.telemetry.count(Count.TILES)
        self._doubt = False
        start = time.monotonic()
        for attempt in range(TRIES):
            try:
                found = code(tile)
                break
            except Exception as error:  # memory that was hit may show as any error
                self.telemetry.count(Count.ENCODER_FAULTS)
                self.telemetry.tell(EventId.ENCODER_FAULT, str(error), (tile.row, tile.col))
                sound, self._doubt = self._find("on doubt"), True
                if sound and attempt:
                    raise  # nothing was found, twice: it is the tile's own
                if not sound:
                    yield Doubt()
                    self._mend()
        else:
            raise InputError(f"tile ({tile.row}, {tile.col}) could not be coded in {TRIES} attempts, and memory is hit")
        limit_s, took_s = self.protection.tile_deadline_s, time.monotonic() - start
        if limit_s is not None and took_s > limit_s:
            self.telemetry.count(Count.LATE_TILES)
            self.telemetry.tell(EventId.LATE_TILE, f"{took_s:.3f} s", (tile.row, tile.col))
        return found

    def _mend_and_recode(
        self, waiting: list[_Waiting[Result]], again: Callable[[Address], Result], draw: Draw
    ) -> Iterator[Coded[Result]]:
        """Everything that waits is coded once more by what was mended, until nothing is found behind it."""
        for _ in range(TRIES):
            self._mend()
            if waiting:
                draw.restore(waiting[0].drawn)
            for one in waiting:
                one.drawn, before = draw.state(), one.result
                one.result = again(one.address)
                self.telemetry.count(Count.RECODED)
                if one.result != before:
                    self.telemetry.count(Count.RECODED_OTHERWISE)
                    self.telemetry.tell(EventId.RECODED, "", one.address)
                self.watchdog.reset()
            hits = self.scrubber.all()
            self._tell(hits)
            if not hits and self._networks_pass():
                yield from (Coded(one.address, one.result) for one in waiting)
                return
        raise InputError("memory is hit faster than it is mended; the scene cannot be coded")

    def _mend(self) -> None:
        """Up the ladder until the payload is sound: the copy has mended already, else the golden copy, else FALLBACK,
        else safe mode."""
        for step in (self._reload, self._fall_back):
            if self._sound():
                return
            step()
        if not self._sound():
            self._enter(Mode.SAFE, Count.SAFE_MODES, EventId.SAFE_MODE)
            self.probes, self.scrubber = [], Scrubber(())

    def _sound(self) -> bool:
        return not self.scrubber.all() and self.self_test("on doubt")

    def _reload(self) -> bool:
        self.telemetry.count(Count.RELOADS)
        try:
            self._payload.reopen()
            self.telemetry.tell(EventId.RELOADED)
        except Exception as error:  # a bundle that cannot be read may show as any error
            self.telemetry.tell(EventId.RELOADED, f"failed: {error}")
            return False
        self._watch()
        return True

    def _fall_back(self) -> None:
        try:
            self._payload.fall_back()
        except InputError as error:
            self.telemetry.tell(EventId.FALLBACK, f"failed: {error}")
            return
        self._enter(Mode.FALLBACK, Count.FALLBACKS, EventId.FALLBACK)
        self._watch()

    def _enter(self, mode: Mode, count: Count, event: EventId) -> None:
        self.telemetry.mode = mode
        self.telemetry.count(count)
        self.telemetry.tell(event)

    def _networks_pass(self) -> bool:
        failed = [probe.name for probe in self.probes if not probe.passes()]
        self.telemetry.count(Count.NETWORK_CHECKS, len(self.probes))
        for name in failed:
            self.telemetry.count(Count.NETWORK_HITS)
            self.telemetry.tell(EventId.NETWORK_HIT, name)
        return not failed

    def _tell(self, hits: list[Hit]) -> None:
        for hit in hits:
            count, event = _TOLD[hit.mended]
            self.telemetry.count(count)
            self.telemetry.tell(event, hit.name)

    def _failed(self, when: str, found: str) -> bool:
        self.telemetry.count(Count.SELF_TESTS_FAILED)
        self.telemetry.tell(EventId.SELF_TEST_FAILED, f"{when}: {found}")
        return False


def unguarded(tiles: Iterator[Tile], code: Callable[[Tile], Result]) -> Iterator[Step[Result]]:
    """As `Guard.steps`, with nobody looking: every tile is taken for good as it comes."""
    for count, tile in enumerate(tiles, 1):
        yield Coded((tile.row, tile.col), code(tile))
        yield Good(count)
