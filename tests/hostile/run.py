"""Hostile cases against a kernel, by the thousand: python tests/hostile/run.py [--library FILE] --decode N ...

`--library` is a kernel built elsewhere, e.g. under sanitizers (tests/hostile/sanitized.py), taken in the place of the
installed one. The first fault ends the run with its seed.
"""

import argparse
import importlib.util
import sys
import tempfile
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
KINDS = ("decode", "encode", "entry", "frames", "bundle")
#: One case in so many is compared with numpy, which takes a hundred times as long.
COMPARED = 100
TOLD_EVERY = 1000


def use_library(path: Path) -> None:
    import payload.native

    name = "payload.native._kernel"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    payload.native._kernel = module  # type: ignore[attr-defined]


def run(kind: str, seeds: range) -> Counter[str]:
    """What came of the cases of these seeds. A case that fails raises, its seed in a note."""
    import numpy as np
    from hostile import bundles, frames, kernel

    found: Counter[str] = Counter()
    for seed in seeds:
        try:
            if kind == "bundle":
                with tempfile.TemporaryDirectory() as folder:
                    found[bundles.case(seed, Path(folder))] += 1
            elif kind == "frames":
                found[frames.case(np.random.default_rng(seed), seed % COMPARED == 0)] += 1
            else:
                found[kernel.CASES[kind](np.random.default_rng(seed), seed % COMPARED == 0)] += 1
        except BaseException as error:
            error.add_note(f"{kind} case of seed {seed}")
            raise
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--library", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    for kind in KINDS:
        parser.add_argument(f"--{kind}", type=int, default=0)
    options = parser.parse_args()
    if options.library is not None:
        use_library(options.library)
    from payload.native import library

    print(f"kernel: {library.loaded()._name}", flush=True)
    for kind in KINDS:
        last = options.seed + getattr(options, kind)
        found: Counter[str] = Counter()
        for first in range(options.seed, last, TOLD_EVERY):
            found += run(kind, range(first, min(first + TOLD_EVERY, last)))
            print(f"{kind}: {found.total()} cases: {dict(found)}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
