"""The self-test's answers for the shipped bundles: CRCs of the known tile's octets and of the indices they decode to.

python tests/golden/self_tests.py      writes payload/guard/self_tests.json anew: only with a new bundle, and say so
"""

import json

from payload.bundle import Bundle, load_bundle, shipped_bundles
from payload.codec.registry import open_codec
from payload.engine import open_engine
from payload.guard.vector import KNOWN, Vector, coded_by, vector_of


def vectors(engine: str) -> dict[int, Vector]:
    """By bundle id."""
    return {b.bundle_id: vector(b, engine) for b in map(load_bundle, shipped_bundles())}


def vector(bundle: Bundle, engine: str) -> Vector:
    codec = open_codec(bundle, open_engine(engine))
    return vector_of(codec, coded_by(codec, len(bundle.bands), bundle.tile_px))


if __name__ == "__main__":
    table = {
        f"{bundle_id:08x}": {"octets": f"{v.octets:08x}", "indices": f"{v.indices:08x}"}
        for bundle_id, v in sorted(vectors("onnxruntime").items())
    }
    KNOWN.write_text(json.dumps(table, indent=1) + "\n", encoding="ascii")
