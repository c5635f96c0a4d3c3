"""Telecommands at work: one is taken once, if a trusted key signed it and its counter is newer than every one before.

The counter is on disk before anything is done: a cut in between loses the command and lets nobody send it again.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from payload.errors import BundleError, StreamError
from payload.guard.slots import PLACES, Slots
from payload.guard.telemetry import Count, EventId, Mode
from payload.link.telecommand import Command, Opcode, unpack
from payload.pipeline import Payload
from payload.store.state import StateFile


class _RefusedError(Exception):
    """A command that is authentic and cannot be done."""


@dataclass(frozen=True, eq=False)
class Commander:
    """Takes telecommands for a payload. `keys`: Ed25519 public keys that may command; none: nobody may. `slots` None:
    there is one place for bundles."""

    payload: Payload
    state: StateFile
    keys: Sequence[bytes]
    slots: Slots | None = None

    def take(self, packet: bytes) -> bool:
        """Whether it was done. Everything that was not is counted and told with its cause."""
        telemetry = self.payload.telemetry
        try:
            command = unpack(packet, self.payload.policy.apid, self.keys)
            self._count(command)
            self._do(command)
        except (StreamError, _RefusedError, BundleError, OSError) as error:
            telemetry.count(Count.COMMANDS_REFUSED)
            telemetry.tell(EventId.COMMAND_REFUSED, str(error))
            return False
        telemetry.count(Count.COMMANDS)
        telemetry.tell(EventId.COMMAND_DONE, f"{command.counter} {Opcode(command.opcode).name.lower()}")
        return True

    def _count(self, command: Command) -> None:
        last = self.state.now.command
        if command.counter <= last:
            raise _RefusedError(f"counter {command.counter} is not newer than {last}: replayed or late")
        self.state.save(command=command.counter)

    def _do(self, command: Command) -> None:
        if command.opcode not in _WAYS:
            raise _RefusedError(f"opcode {command.opcode} is unknown")
        way, count = _WAYS[Opcode(command.opcode)]
        if len(command.arguments) != count:
            raise _RefusedError(f"{len(command.arguments)} octets of arguments, wanted {count}")
        way(self, command.arguments)

    def _set_mode(self, arguments: bytes) -> None:
        if arguments[0] not in (Mode.NOMINAL, Mode.SAFE):
            raise _RefusedError(f"mode {arguments[0]}, wanted {Mode.NOMINAL} (nominal) or {Mode.SAFE} (safe)")
        if self.payload.guard is None:
            raise _RefusedError("no guard watches over this payload")
        self.payload.guard.command(Mode(arguments[0]))

    def _self_test(self, arguments: bytes) -> None:
        self._check("on command")

    def _scrub(self, arguments: bytes) -> None:
        self._check("")

    def _check(self, when: str) -> None:
        if self.payload.guard is None:
            raise _RefusedError("no guard watches over this payload")
        self.payload.guard.check_all(when)

    def _dump_events(self, arguments: bytes) -> None:
        self.payload.telemetry.tell_again()

    def _select_slot(self, arguments: bytes) -> None:
        if self.slots is None:
            raise _RefusedError("this payload has one place for bundles")
        if arguments[0] >= len(PLACES):
            raise _RefusedError(f"slot {arguments[0]}, wanted 0 or 1")
        self.slots.select(PLACES[arguments[0]])


_WAYS: dict[Opcode, tuple[Callable[[Commander, bytes], None], int]] = {
    Opcode.SET_MODE: (Commander._set_mode, 1),
    Opcode.SELF_TEST: (Commander._self_test, 0),
    Opcode.SCRUB: (Commander._scrub, 0),
    Opcode.DUMP_EVENTS: (Commander._dump_events, 0),
    Opcode.SELECT_SLOT: (Commander._select_slot, 1),
}
