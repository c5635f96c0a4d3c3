"""What must outlive a power cut besides the tiles: counters. Two slots in a file, written in turn, the newer one valid.

    octet 0, 1   2     3      4..11    12..15   16..19   20..23    24, 25   26, 27   28..31   32..35
    +---------+---+-------+--------+---------+--------+---------+---------+--------+--------+--------+
    |  "NS"   | v | clean | serial | next id | starts | unclean | layers  | thumbs | scene  | record |
    +---------+---+-------+--------+---------+--------+---------+---------+--------+--------+--------+
     36..39    40..43    44..47    48..51     4
    +---------+---------+---------+-------+--------+
    | command | stopped | at tile | tries | CRC-32 |
    +---------+---------+---------+-------+--------+

A slot lies at 0, the other at 512. The file is made once, at its full size: writing it never needs room, so that a full
store can still be emptied.
"""

import struct
from dataclasses import dataclass, replace
from typing import Any
from zlib import crc32

from payload.store.files import Files

NAME = "state"
SLOT_OCTETS = 512
MAGIC, VERSION = b"NS", 2
_FIELDS = struct.Struct(">2sBBQIIIHHIIIIII")
_FIELDS_1 = struct.Struct(">2sBBQIIIHHII")


@dataclass(frozen=True)
class State:
    """`next_scene_id`: of the next new scene. `packets`, `thumbnails`: the next packet's count of either stream.

    `sending`, `sent`: the scene that goes down, and how many of its records went. `clean`: it was left in order.
    `command`: counter of the last telecommand. `stopped`, `stopped_at`, `tries`: the scene that went on behind so many
    tiles at an unclean start, and at how many unclean starts in a row just there.
    """

    serial: int = 0
    clean: bool = True
    next_scene_id: int = 1
    starts: int = 0
    unclean_starts: int = 0
    packets: int = 0
    thumbnails: int = 0
    sending: int = 0
    sent: int = 0
    command: int = 0
    stopped: int = 0
    stopped_at: int = 0
    tries: int = 0


def pack(state: State) -> bytes:
    """One slot."""
    octets = _FIELDS.pack(
        MAGIC, VERSION, state.clean, state.serial, state.next_scene_id, state.starts, state.unclean_starts,
        state.packets, state.thumbnails, state.sending, state.sent, state.command, state.stopped, state.stopped_at,
        state.tries,
    )  # fmt: skip
    octets += crc32(octets).to_bytes(4, "big")
    return octets.ljust(SLOT_OCTETS, b"\0")


def unpack(slot: bytes) -> State | None:
    """The state in a slot, of version 1, too; None where it holds none that is whole."""
    for version, layout in ((VERSION, _FIELDS), (1, _FIELDS_1)):
        octets = slot[: layout.size + 4]
        if len(octets) < layout.size + 4 or crc32(octets[:-4]).to_bytes(4, "big") != octets[-4:]:
            continue
        magic, found, clean, *fields = layout.unpack_from(octets)
        if (magic, found) == (MAGIC, version):
            return State(fields[0], bool(clean), *fields[1:])
    return None


class StateFile:
    """The newest state, and where the next one goes."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self.was_there = NAME in files.names() and files.size(NAME) >= 2 * SLOT_OCTETS
        if not self.was_there:
            self._make()
        with files.read(NAME) as stream:
            slots = [unpack(stream.read(SLOT_OCTETS)) for _ in range(2)]
        known = [state for state in slots if state is not None]
        self.damaged = self.was_there and not known
        self.now = max(known, key=lambda state: state.serial, default=State())

    def save(self, **changes: Any) -> None:
        """The state with these changes, durable when this returns. OSError where it could not be written."""
        state = replace(self.now, serial=self.now.serial + 1, **changes)
        self._files.write(NAME, SLOT_OCTETS * (state.serial % 2), pack(state))
        self.now = state

    def _make(self) -> None:
        """At its full size under another name, so that a cut leaves all of it or nothing."""
        for name in {NAME + ".new", NAME} & set(self._files.names()):
            self._files.remove(name)
        self._files.append(NAME + ".new", pack(State()) + b"\0" * SLOT_OCTETS)
        self._files.sync(NAME + ".new")
        self._files.rename(NAME + ".new", NAME)
        self._files.sync_names()
