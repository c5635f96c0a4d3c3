"""The real agent around a fake encoder, as a program: what the tests start, kill and garble."""

import hashlib
import sys
import time
from pathlib import Path

from hil.serve import main
from payload.policy import Policy
from payload.tiles import Tile


class FakeEncoder:
    """Octets that depend on every sample of the tile and on the policy, after a pause like a real encoder's."""

    engine = "fake 1"

    def __init__(self, policy: Policy, pause_s: float) -> None:
        self.stages_s: dict[str, float] = {}
        self._policy, self._pause_s = policy, pause_s

    def encode(self, tile: Tile) -> bytes:
        time.sleep(self._pause_s)
        self.stages_s = {"encode": self._pause_s}
        return expected(tile, self._policy)


def expected(tile: Tile, policy: Policy) -> bytes:
    digest = hashlib.sha256(repr(policy).encode() + tile.dn.tobytes() + tile.valid.tobytes()).digest()
    return digest * (1 + digest[0] % 40)


if __name__ == "__main__":
    pause_s, *arguments = sys.argv[1:]
    sys.exit(
        main(
            arguments,
            lambda bundle, policy, engine, threads: FakeEncoder(policy, float(pause_s)),
            [sys.executable, str(Path(__file__)), pause_s],
        )
    )
