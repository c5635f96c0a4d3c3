"""Which code runs at both ends: the sources of the agent, and one identity over them."""

import hashlib
from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable

from hil.line.protocol import VERSION
from payload.version import described

#: Rooms that run on the device. With all of payload they make the agent's code.
AGENT_ROOMS = ("hil/agent", "hil/line", "payload")
#: C sources travel too: a device builds them or does without. Host and device agree on them by their octets.
SOURCES = (".py", ".c", ".h")


def version() -> str:
    """What `hil --version` says: release and commit, protocol, code of the agent."""
    return f"hil {described()}, protocol {VERSION}, agent code {code_id()}"


@cache  # what this process has loaded does not change when files do
def code_id() -> str:
    """Sixteen hex digits of the sha256 over every source file the agent runs: host and device must agree on it."""
    digest = hashlib.sha256()
    for name, source in sorted(agent_sources().items()):
        digest.update(f"{name} {len(source)}\n".encode() + source)
    return digest.hexdigest()[:16]


def agent_sources() -> dict[str, bytes]:
    """Name in the archive -> octets, of the agent's rooms, sub-packages included; from a checkout or a zipapp."""
    found = {"hil/__init__.py": files("hil").joinpath("__init__.py").read_bytes()}
    for room in AGENT_ROOMS:
        found.update(_sources(files(room.replace("/", ".")), room))
    return found


def _sources(folder: Traversable, name: str) -> Iterator[tuple[str, bytes]]:
    for entry in folder.iterdir():
        below = f"{name}/{entry.name}"
        if entry.is_dir():
            yield from _sources(entry, below)
        elif entry.name.endswith(SOURCES):
            yield below, entry.read_bytes()
