"""The real agent around a fake encoder, as a program: what the tests start, kill and garble."""

import hashlib
import sys
import time
from pathlib import Path
from typing import ClassVar

import numpy as np

from hil.agent.serve import main
from payload.policy import Policy
from payload.tiles import Tile


class FakeEncoder:
    """Octets that depend on every sample of the tile and on the policy, after a pause like a real encoder's.

    `0.004` rests for so long, `busy:0.004` keeps a core busy for so long, in many short calls of numpy.
    """

    engine = "fake 1"
    ran: ClassVar = {"codec": "fake"}
    kind = "coded"

    def __init__(self, policy: Policy, pause: str) -> None:
        self.stages_s: dict[str, float] = {}
        kind, _, seconds = pause.rpartition(":")
        self._policy, self._busy, self._pause_s = policy, kind == "busy", float(seconds)
        self._values = np.ones(65536, np.float32)

    def encode(self, tile: Tile) -> bytes:
        self._work() if self._busy else time.sleep(self._pause_s)
        self.stages_s = {"encode": self._pause_s}
        return expected(tile, self._policy)

    def _work(self) -> None:
        end_s = time.thread_time() + self._pause_s  # of this thread alone: what else runs here does not count
        while time.thread_time() < end_s:
            np.multiply(self._values, self._values, out=self._values)


def expected(tile: Tile, policy: Policy) -> bytes:
    digest = hashlib.sha256(repr(policy).encode() + tile.dn.tobytes() + tile.valid.tobytes()).digest()
    return digest * (1 + digest[0] % 40)


if __name__ == "__main__":
    pause, *arguments = sys.argv[1:]
    sys.exit(
        main(
            arguments,
            lambda bundle, policy, engine, threads: FakeEncoder(policy, pause),
            [sys.executable, str(Path(__file__)), pause],
        )
    )
