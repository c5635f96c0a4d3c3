"""The shipped bundle's tile codes for one tile made of integers alone, so that no library can draw it differently.

python tests/golden/tile_codes.py      writes tile_codes.json anew: only with a new bundle or a new format, and say so
"""

import hashlib
import json
from itertools import product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from payload.bundle import load_bundle
from payload.engine import open_engine
from payload.link.tile_code import pack
from payload.pipeline import Payload
from payload.policy import Policy, Profile
from payload.tiles import Tile

GOLDEN = Path(__file__).with_suffix(".json")
STEPS_DN = (40.0, 160.0, 640.0)
PROFILES: tuple[Profile, ...] = ("fast", "dense")


def tile_of_integers(side: int = 256) -> Tile:
    """Four bands, alike and correlated as ground is, rough on every scale; a bright corner."""
    rng = np.random.default_rng(20261125)

    def walk() -> NDArray[np.int64]:
        return rng.integers(-40, 41, (side, side)).cumsum(axis=0).cumsum(axis=1) >> 4

    ground = walk()
    bands = [
        1200 + 200 * b + ((b + 2) * ground + 2 * walk() >> 2) + rng.integers(-150, 151, ground.shape) for b in range(4)
    ]
    dn = np.clip(bands, 1, 9000)
    dn[:, :40, :40] += 8000
    return Tile(0, 0, dn.astype(np.uint16), np.ones((side, side), bool))


def tile_codes(engine: str) -> dict[str, str]:
    """Octets and SHA-256 of the tile code at every step and in either profile."""
    payload = Payload(load_bundle("edge"), Policy(), open_engine(engine, threads=1))
    found = {}
    for step_dn, profile in product(STEPS_DN, PROFILES):
        payload.policy = Policy(step_dn=step_dn, profile=profile)
        octets = pack(payload.encode_tile(tile_of_integers()))
        name = f"{step_dn:g} DN" + (", dense" if profile == "dense" else "")
        found[name] = f"{len(octets)} octets, sha256 {hashlib.sha256(octets).hexdigest()}"
    return found


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps(tile_codes("openvino"), indent=1) + "\n", encoding="utf-8")
