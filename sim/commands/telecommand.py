"""`sim command`: a telecommand, signed, as `sim downlink --commands` takes it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from payload.errors import InputError
from payload.link.telecommand import Command, Opcode, pack

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

#: What may be said, and what it is in octets.
WORDS = {
    "nominal": (Opcode.SET_MODE, b"\x00"), "safe": (Opcode.SET_MODE, b"\x02"), "self-test": (Opcode.SELF_TEST, b""),
    "scrub": (Opcode.SCRUB, b""), "dump-events": (Opcode.DUMP_EVENTS, b""),
    "slot-a": (Opcode.SELECT_SLOT, b"\x00"), "slot-b": (Opcode.SELECT_SLOT, b"\x01"),
}  # fmt: skip


def command(
    what: Annotated[str, typer.Argument(help=f"One of {', '.join(WORDS)}.")],
    key: Annotated[Path, typer.Option(help="Private key (PEM) whose public half the mission trusts.")],
    counter: Annotated[int, typer.Option(min=1, help="Higher than that of every command before.")],
    out: Annotated[Path, typer.Option(help="File of commands; this one goes to its end.")] = Path("commands.bin"),
    mission: Annotated[str, typer.Option(help="Shipped mission or a TOML file: whose payload it is.")] = "phisat2",
) -> None:
    """Write one signed telecommand to the end of a file, for sim downlink --commands."""
    from sim.mission.spec import load_mission

    if what not in WORDS:
        raise InputError(f"{what!r} is no command; wanted one of {', '.join(WORDS)}")
    opcode, arguments = WORDS[what]
    packet = pack(Command(opcode, counter, arguments), load_mission(mission).policy.apid, _private(key).sign)
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.open("ab") as stream:
        stream.write(packet)
    print(f"{out}: {what}, counter {counter}, {len(packet)} octets")


def _private(path: Path) -> "Ed25519PrivateKey":
    try:
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        from cryptography.hazmat.primitives.serialization import load_pem_private_key
    except ImportError:
        raise InputError("commands are signed with the cryptography package; pip install cryptography") from None
    try:
        private = load_pem_private_key(path.read_bytes() if path.is_file() else b"", password=None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm):
        private = None
    if not isinstance(private, Ed25519PrivateKey):
        raise InputError(f"{path}: no Ed25519 key (PEM); make one: `python -m export sign --new-key {path}`")
    return private
