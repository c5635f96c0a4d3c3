"""Telecommands: octets by hand, one law, and what is refused: unsigned, replayed, older, unknown, another's."""

from binascii import crc_hqx
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("cryptography", reason="commands are signed")
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from payload.errors import InputError, StreamError
from payload.guard.telemetry import Count, EventId, Mode, Telemetry
from payload.link.telecommand import DOMAIN, Command, Opcode, pack, split, unpack
from payload.policy import Policy
from payload.store.commanding import Commander
from payload.store.files import FolderFiles
from payload.store.state import StateFile

KEY, STRANGER = (Ed25519PrivateKey.from_private_bytes(bytes([n]) * 32) for n in (1, 2))
PUBLIC = KEY.public_key().public_bytes_raw()
APID = Policy().apid
commands = st.builds(Command, st.integers(0, 255), st.integers(1, 2**32 - 1), st.binary(max_size=255))


def test_octets_by_hand() -> None:
    clear = bytes.fromhex(
        "1c"  # 0001 version, 1100 mark
        "01"  # opcode: set mode
        "00004001"  # counter 16 385
        "01" "02"  # one octet: safe
    )  # fmt: skip
    signature = KEY.sign(b"nadir-command-v1\0" + bytes.fromhex("02a1") + clear)
    head = bytes.fromhex(
        "12a1"  # 000 version, 1 telecommand, 0 no secondary header, APID 2A1
        "c001"  # 11 whole, count 1 = 16 385 mod 16 384
        "0049"  # 8 + 64 + 2 - 1
    )  # fmt: skip
    octets = head + clear + signature
    octets += crc_hqx(octets, 0xFFFF).to_bytes(2, "big")
    assert pack(Command(Opcode.SET_MODE, 16_385, b"\x02"), 0x2A1, KEY.sign) == octets
    assert DOMAIN.endswith(b"\0")


@given(commands, st.integers(0, 2047))
def test_unpack_is_the_inverse_of_pack(command: Command, apid: int) -> None:
    assert unpack(pack(command, apid, KEY.sign), apid, [STRANGER.public_key().public_bytes_raw(), PUBLIC]) == command


@given(commands, st.data())
def test_no_changed_octet_of_the_record_is_taken(command: Command, data: Any) -> None:
    """Whoever changes a command can make the packet's CRC right again, and not the signature."""
    octets = bytearray(pack(command, APID, KEY.sign)[:-2])
    octets[data.draw(st.integers(6, len(octets) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(StreamError):
        unpack(bytes(octets) + crc_hqx(bytes(octets), 0xFFFF).to_bytes(2, "big"), APID, [PUBLIC])


@given(st.binary(max_size=120))
def test_octets_of_any_kind_are_refused_and_raise_nothing_else(octets: bytes) -> None:
    for piece in split(octets):
        with pytest.raises(StreamError):
            unpack(piece, APID, [PUBLIC])
    assert b"".join(split(octets)) == octets


def test_numbers_that_do_not_fit_are_misuse() -> None:
    for wrong in ((256, 1, b""), (1, 0, b""), (1, 1 << 32, b""), (1, 1, bytes(256))):
        with pytest.raises(InputError, match="wanted 0 to 255"):
            Command(*wrong)


@dataclass
class Watched:
    """What the commander does to a guard."""

    done: list[Any] = field(default_factory=list)

    def command(self, mode: Mode) -> None:
        self.done.append(mode)

    def check_all(self, when: str) -> None:
        self.done.append(when)


@dataclass
class ToyPayload:
    policy: Policy = field(default_factory=Policy)
    telemetry: Telemetry = field(default_factory=Telemetry)
    guard: Watched | None = field(default_factory=Watched)


@pytest.fixture
def at(tmp_path: Any) -> Any:
    """A commander as it is after every start: the same folder, another process."""

    def start(payload: ToyPayload | None = None) -> tuple[Commander, ToyPayload]:
        payload = payload or ToyPayload()
        return Commander(payload, StateFile(FolderFiles(tmp_path, 1 << 16)), [PUBLIC]), payload  # type: ignore[arg-type]

    return start


def signed(counter: int, opcode: int = Opcode.SCRUB, arguments: bytes = b"", key: Any = KEY, apid: int = APID) -> bytes:
    return pack(Command(opcode, counter, arguments), apid, key.sign)


def test_commands_are_done_once_and_in_order(at: Any) -> None:
    commander, payload = at()
    for packet in (
        signed(1, Opcode.SET_MODE, b"\x02"), signed(2, Opcode.SELF_TEST), signed(5), signed(6, Opcode.SET_MODE, b"\0"),
    ):  # fmt: skip
        assert commander.take(packet)
    assert payload.guard.done == [Mode.SAFE, "on command", "", Mode.NOMINAL]
    assert payload.telemetry.counts[Count.COMMANDS] == 4


@pytest.mark.parametrize(
    ("packet", "cause"),
    [
        (signed(9, key=STRANGER), "not trusted"),
        (signed(9)[:-66] + bytes(64) + b"\0\0", "no undamaged packet"),
        (signed(7), "counter 7 is not newer than 7"),
        (signed(3), "counter 3 is not newer than 7"),
        (signed(9, 99), "opcode 99 is unknown"),
        (signed(9, Opcode.SCRUB, b"x"), "1 octets of arguments, wanted 0"),
        (signed(9, Opcode.SET_MODE, b"\x01"), "mode 1, wanted 0"),
        (signed(9, Opcode.SELECT_SLOT, b"\0"), "one place for bundles"),
        (signed(9, apid=APID + 1), "no whole telecommand packet of APID"),
        (b"", "no undamaged packet"),
    ],
)
def test_what_must_not_be_done_is_refused_counted_and_told(at: Any, packet: bytes, cause: str) -> None:
    assert at()[0].take(signed(7))
    commander, payload = at()  # started anew: the counter is on disk
    assert not commander.take(packet) and payload.guard.done == []
    assert payload.telemetry.counts[Count.COMMANDS_REFUSED] == 1
    (event,) = payload.telemetry.take()
    assert event.event is EventId.COMMAND_REFUSED and cause in event.detail


def test_without_a_guard_nothing_can_be_checked(at: Any) -> None:
    commander, payload = at(ToyPayload(guard=None))
    assert not commander.take(signed(1)) and commander.take(signed(2, Opcode.DUMP_EVENTS))
    assert len(payload.telemetry.take()) == 2


def test_a_key_that_is_not_there_commands_nothing(at: Any) -> None:
    commander, _ = at()
    assert not Commander(commander.payload, commander.state, []).take(signed(1))
