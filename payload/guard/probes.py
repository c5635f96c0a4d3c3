"""Networks whose weights lie inside a runtime: they are asked for a known answer, since nobody can look at them."""

from payload.guard.checksum import crc_of_all
from payload.memory import RunsInside


class Probe:
    """One network with inputs, and the CRC-32 of what it answered when it was loaded."""

    def __init__(self, inside: RunsInside) -> None:
        self.name = inside.name
        self._inside = inside
        self._inputs = self._crc_of_inputs()
        self._answer = self._ask()

    def passes(self) -> bool:
        """Whether the network answers as it did. False, too, where the question itself was hit."""
        try:
            return self._crc_of_inputs() == self._inputs and self._ask() == self._answer
        except Exception:  # a runtime that was hit may raise anything of its own
            return False

    def _crc_of_inputs(self) -> int:
        return crc_of_all(self._inside.inputs)

    def _ask(self) -> int:
        return crc_of_all(self._inside.network.run(*self._inside.inputs))
