"""The builds a bundle can be made as (the manifest names one under "target"), and the networks of one that fly."""

from payload.bundle import Bundle

#: 7-bit weights, 8-bit activations, scales powers of two: bit-exact everywhere.
NORMATIVE = "int8-po2w7"
#: The same weights as floats, for a VPU that knows FP16 alone.
VPU = "fp16-vpu"
FLOAT = "fp32"
BUILDS = (NORMATIVE, VPU, FLOAT)
#: Octets of an unquantised sample in memory.
FLOAT_OCTETS = {NORMATIVE: 4, VPU: 2, FLOAT: 4}


def flight_networks(bundle: Bundle) -> list[str]:
    """Manifest names of the bundle's ONNX networks that fly."""
    return sorted(n for n in bundle.manifest["files"] if n.startswith("flight/") and n.endswith(".onnx"))
