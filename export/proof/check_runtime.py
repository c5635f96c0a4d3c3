"""One runtime against the reference, in a process of its own: the ISA limit of the CPU library is read once, at start.

    python -m export.proof.check_runtime NETWORK FOLDER RUNTIME THREADS

FOLDER holds input0.npy, input1.npy, ... and reference0.npy, ... [tiles, ...]; one JSON object goes to standard output.
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.graphs.to_openvino import execution_of
from payload.engine import OpenVinoNetwork, open_engine
from payload.errors import InputError


def compare(run: Callable[..., list[NDArray[Any]]], folder: Path) -> dict[str, Any]:
    """Runs every stored tile through `run` and compares each output element with the reference's."""
    inputs = [np.load(p, mmap_mode="r") for p in _numbered(folder, "input")]
    references = [np.load(p, mmap_mode="r") for p in _numbered(folder, "reference")]
    mismatches, largest, elements, seconds = 0, 0.0, 0, 0.0
    for tile in range(len(inputs[0])):
        arrays = [np.array(i[tile]) for i in inputs]
        start = time.perf_counter()
        outputs = run(*arrays)
        seconds += time.perf_counter() - start
        for output, reference in zip(outputs, references, strict=True):
            difference = np.abs(output.astype(np.float64) - reference[tile])
            mismatches += int(np.count_nonzero(difference))
            largest = max(largest, float(difference.max(initial=0.0)))
            elements += output.size
    return {"elements": elements, "mismatches": mismatches, "largest_difference": largest, "seconds": seconds}


def run_runtime(network: Path, folder: Path, runtime: str, threads: int) -> dict[str, Any]:
    """`compare` for a runtime of the payload, and how OpenVINO executed the convolutions."""
    loaded = open_engine(runtime, threads).load(network)
    result = compare(loaded.run, folder)
    if isinstance(loaded, OpenVinoNetwork):
        how = execution_of(loaded.compiled)
        result |= {"precisions": how.precisions, "primitives": sorted(set(how.primitives.values()))}
    return result


def _numbered(folder: Path, kind: str) -> list[Path]:
    return sorted(folder.glob(f"{kind}*.npy"), key=lambda p: int(p.stem.removeprefix(kind)))


def main(arguments: list[str]) -> int:
    network, folder, runtime, threads = arguments
    try:
        result = run_runtime(Path(network), Path(folder), runtime, int(threads))
    except InputError as error:
        result = {"error": str(error)}
    sys.stdout.write(json.dumps(result) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
