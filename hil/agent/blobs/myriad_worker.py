"""Runs one blob with the old toolkit, in the old Python that it needs (3.6 to 3.9): nothing newer is used here.

    PYTHON - BLOB < this file's own text, then runs

Standard output: a line of JSON that says what goes in and what comes out, or what went wrong; then, for every run whose
inputs have been read, its outputs. Arrays are FP16, octets in the order of memory that the blob asks for.
"""

import json
import sys
from typing import Any


def main(blob: str, source: Any, sink: Any) -> None:
    try:
        network = load(blob)
    except Exception as error:  # whatever the toolkit raises is told to the engine, which knows what to say
        sink.write(json.dumps({"error": str(error)[:300] or type(error).__name__}).encode() + b"\n")
        sink.flush()
        return
    ends = {"inputs": network.inputs, "outputs": network.outputs}
    sink.write(json.dumps(ends).encode() + b"\n")
    sink.flush()
    while True:
        given = {}
        for end in network.inputs:
            octets = source.read(octets_of(end))
            if len(octets) < octets_of(end):
                return
            given[end["name"]] = octets
        found = network.run(given)
        for end in network.outputs:
            sink.write(found[end["name"]])
        sink.flush()


def octets_of(end: Any) -> int:
    count = 2
    for size in end["shape"]:
        count *= int(size)
    return count


def load(blob: str) -> "Network":
    from openvino.inference_engine import IECore

    return Network(IECore().import_network(blob, "MYRIAD"))


class Network:
    """A blob on the device. The toolkit gives shapes in the order N, C, H, W whatever lies in memory."""

    def __init__(self, network: Any) -> None:
        self._network = network
        self.inputs = [described(name, info.input_data) for name, info in network.input_info.items()]
        self.outputs = [described(name, data) for name, data in network.outputs.items()]

    def run(self, given: Any) -> Any:
        import numpy

        arrays = {
            end["name"]: numpy.frombuffer(given[end["name"]], numpy.float16).reshape(end["shape"])
            for end in self.inputs
        }
        found = self._network.infer(arrays)
        return {name: numpy.ascontiguousarray(array, numpy.float16).tobytes() for name, array in found.items()}


def described(name: str, data: Any) -> Any:
    if data.precision != "FP16":
        raise ValueError(f"{name} of the blob is {data.precision}, wanted FP16; compile it again")
    return {"name": name, "shape": list(data.shape), "layout": data.layout}


if __name__ == "__main__":
    main(sys.argv[1], sys.stdin.buffer, sys.stdout.buffer)
