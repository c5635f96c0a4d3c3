"""Memory that must not change while the payload runs, as codecs and the cloud gate name it for the guard.

What is written anew for every tile is not held: it is covered by the checks of what comes out.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

from numpy.typing import NDArray

from payload.engine import Network

#: weights of networks and of the context model; scales that multiply a whole tile; tables that are looked up;
#: vectors of a codebook; pointers, lengths and counts that C follows.
Role = Literal["weights", "scales", "tables", "codebook", "pointers"]


@dataclass(frozen=True, eq=False)
class Held:
    """`memory`: a contiguous array, or a ctypes structure, that stays where it is for as long as its owner lives."""

    name: str
    role: Role
    memory: Any

    @property
    def octets(self) -> int:
        return int(memoryview(self.memory).nbytes)


@dataclass(frozen=True, eq=False)
class RunsInside:
    """A network whose weights lie in a runtime's own memory, where nobody else can look; and inputs to try it with."""

    name: str
    network: Network
    inputs: tuple[NDArray[Any], ...]


@runtime_checkable
class Holding(Protocol):
    """A codec or gate that says what memory of its own must not change. One that does not is not scrubbed."""

    def held(self) -> Iterator[Held]:
        """Every array and structure that is read for more than one tile."""


def forget(owner: object) -> None:
    """Has a codec let go of tables that outlive it, where it keeps any: what opens after this makes them anew."""
    drop = getattr(owner, "forget", None)
    if drop is not None:
        drop()
