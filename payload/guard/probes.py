"""Networks whose weights lie inside a runtime: they are asked for a known answer, since nobody can look at them.

The self-test may ask the encoder the same question on its way; then its answer is heard there and the network need not
run a second time.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from payload.engine import Engine, Network
from payload.guard.checksum import same
from payload.memory import RunsInside

Arrays = tuple[NDArray[Any], ...]


class HeardNetwork:
    """A network as it is; while somebody listens, what it was asked last and its answer are kept."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self._listens = False
        self._last: tuple[Arrays, list[NDArray[Any]]] | None = None

    def run(self, *inputs: NDArray[Any]) -> list[NDArray[Any]]:
        answer = self.network.run(*inputs)
        if self._listens:
            self._last = inputs, answer
        return answer

    def listen(self, on: bool) -> None:
        self._listens = on

    def heard(self, inputs: Arrays) -> list[NDArray[Any]] | None:
        """The last answer that was listened to, once; None where that was another question, or none."""
        last, self._last = self._last, None
        return last[1] if last is not None and alike(last[0], inputs) else None


class HeardEngine:
    """An engine whose networks can be listened to."""

    def __init__(self, engine: Engine) -> None:
        self.name, self.version = engine.name, engine.version
        self.reshapes = getattr(engine, "reshapes", False)
        self._engine = engine

    def load(self, path: Path, require_int8: bool = False, shape: tuple[int, ...] | None = None) -> HeardNetwork:
        return HeardNetwork(self._engine.load(path, require_int8, shape))


class Probe:
    """One network with inputs, and what it answered when it was loaded. A question that was hit is answered otherwise,
    and so is found too."""

    def __init__(self, inside: RunsInside) -> None:
        self.name = inside.name
        self._inside = inside
        self._answer = inside.network.run(*inside.inputs)

    def listen(self, on: bool) -> None:
        """From now on the network's last answer is kept, or no more, where it is one that can be heard."""
        if isinstance(self._inside.network, HeardNetwork):
            self._inside.network.listen(on)

    def passes(self) -> bool:
        """Whether the network answers as it did: in what was listened to, else when it is asked now."""
        network, question = self._inside.network, self._inside.inputs
        heard = network.heard(question) if isinstance(network, HeardNetwork) else None
        try:
            answer = network.run(*question) if heard is None else heard
        except Exception:  # a runtime that was hit may raise anything of its own
            return False
        return alike(answer, self._answer)


def alike(some: Sequence[NDArray[Any]], others: Sequence[NDArray[Any]]) -> bool:
    """Whether they are the same arrays, octet by octet."""
    return len(some) == len(others) and all(map(same, some, others))
