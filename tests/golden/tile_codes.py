"""The shipped bundle's tile codes for one tile made of integers alone, so that no library can draw it differently.

python tests/golden/tile_codes.py      writes tile_codes.json anew: only with a new bundle or a new format, and say so
"""

import hashlib
import json
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from payload.bundle import load_bundle
from payload.codec.lapped.compiled_layers import EntropyKernel
from payload.codec.lapped.dense.mixing import FIRST, SECOND
from payload.codec.lapped.tables import load_tables
from payload.codec.registry import open_codec
from payload.engine import open_engine
from payload.link.tile_code import pack
from payload.pipeline import Payload
from payload.policy import SENDS_EVERYTHING, Policy, Profile
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
    payload = Payload(load_bundle("edge"), Policy(gate=SENDS_EVERYTHING), open_engine(engine, threads=1))
    found = {}
    for step_dn, profile in product(STEPS_DN, PROFILES):
        payload.policy = Policy(step_dn=step_dn, profile=profile, gate=SENDS_EVERYTHING)
        octets = pack(payload.encode_tile(tile_of_integers()))
        name = f"{step_dn:g} DN" + (", dense" if profile == "dense" else "")
        found[name] = told(octets)
    return found


def older_layers() -> dict[str, str]:
    """The layers of the tile's indices at every step in the generations of `dense` that payloads wrote once."""
    bundle = load_bundle("edge")
    payload = Payload(bundle, Policy(gate=SENDS_EVERYTHING), open_engine("openvino", threads=1))
    tables, found = load_tables(bundle.file("flight/tables.npz")), {}
    for step_dn in STEPS_DN:
        payload.policy = Policy(step_dn=step_dn, gate=SENDS_EVERYTHING)
        code = payload.encode_tile(tile_of_integers())
        _, indices = open_codec(bundle).decode(code.side, code.layers)
        sent = replace(indices, magnitude=(indices.magnitude << indices.missing).astype(np.uint16))
        keep = len(tables.layers) - indices.missing
        for generation, name in ((FIRST, "first"), (SECOND, "second")):
            layers = EntropyKernel(tables, 32, 32).encode_layers(sent, keep, None, "dense", generation)
            found[f"{step_dn:g} DN, dense, {name} generation"] = told(b"".join(layers))
    return found


def told(octets: bytes) -> str:
    return f"{len(octets)} octets, sha256 {hashlib.sha256(octets).hexdigest()}"


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps(tile_codes("openvino") | older_layers(), indent=1) + "\n", encoding="utf-8")
