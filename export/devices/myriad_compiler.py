"""Drives the old toolkit's graph compiler from a modern Python, in a process of its own. No device is needed.

    python -m export.devices.myriad_compiler LIBS LIBUSB PLATFORM NETWORK.onnx OUT.blob DUMP.dot ENDS

ENDS: `plain` leaves the network's ends as they are, f32 in the order of its axes; `NCHW` and `NHWC` make them FP16 in
that order, so that the host hands over what the device works on and no stage is spent on converting it.

The toolkit's wheel (openvino 2021.4.2) has Python bindings for Python 3.6 to 3.9 only; its C++ libraries load anywhere.
This calls a few of their methods through their mangled names. The libraries were built with the old libstdc++ string
(one pointer behind a {length, capacity, references} record), which is written by hand below; its maps (red-black trees)
are read by hand. Nothing is changed unless the name that is found at its place is the right one. A C++ exception ends
this process: the parent reads its text from standard error. A platform set in plugins.xml lets the compiler work
without a device; only running needs one.
"""

import ctypes
import os
import sys
from pathlib import Path

#: In the order their symbols need one another.
LIBRARIES = (
    "libtbb.so.2",
    "libtbbmalloc.so.2",
    "libngraph.so",
    "libinference_engine_transformations.so",
    "libinference_engine.so",
)
NEW_CORE = "_ZN15InferenceEngine4CoreC1ERKSs"
READ_NETWORK = "_ZNK15InferenceEngine4Core11ReadNetworkERKSsS2_"
LOAD_NETWORK = (
    "_ZN15InferenceEngine4Core11LoadNetworkERKNS_10CNNNetworkERKSsRKSt3mapISsSsSt4lessISsESaISt4pairIS4_SsEEE"
)
EXPORT = "_ZN15InferenceEngine17ExecutableNetwork6ExportERKSs"
INPUTS = "_ZNK15InferenceEngine10CNNNetwork13getInputsInfoEv"
OUTPUTS = "_ZNK15InferenceEngine10CNNNetwork14getOutputsInfoEv"
NAME = "_ZNK15InferenceEngine4Data7getNameEv"
SET_PRECISION = "_ZN15InferenceEngine4Data12setPrecisionERKNS_9PrecisionE"
SET_LAYOUT = "_ZN15InferenceEngine4Data9setLayoutENS_6LayoutE"
#: InferenceEngine::Layout
LAYOUTS = {"NCHW": 1, "NHWC": 2}
#: Where an InputInfo keeps the pointer to its Data: behind its settings for preprocessing.
DATA_IN_INPUT = 40
#: Room for the C++ objects that the methods return in place; the real ones are smaller.
OBJECT_OCTETS = 256


class OldString:
    """A std::string of the old ABI: a pointer to text that follows its length, capacity and reference count."""

    def __init__(self, text: str) -> None:
        octets = text.encode()
        length = len(octets).to_bytes(8, sys.byteorder)
        self._record = ctypes.create_string_buffer(length + length + (1).to_bytes(8, sys.byteorder) + octets + b"\0")
        self.pointer = ctypes.c_void_p(ctypes.addressof(self._record) + 24)

    @property
    def reference(self) -> object:
        return ctypes.byref(self.pointer)


def empty_map() -> ctypes.Array[ctypes.c_char]:
    """An empty std::map: a red-black tree whose header's left and right point to itself."""
    tree = ctypes.create_string_buffer(48)
    header = ctypes.addressof(tree) + 8
    ctypes.c_uint64.from_address(header + 16).value = header
    ctypes.c_uint64.from_address(header + 24).value = header
    return tree


class Precision(ctypes.Structure):
    """InferenceEngine::Precision, as it lies in memory."""

    _fields_ = (
        ("bits", ctypes.c_size_t),
        ("name", ctypes.c_char_p),
        ("is_float", ctypes.c_bool),
        ("value", ctypes.c_uint8),
    )


FP16 = Precision(16, b"FP16", True, 11)


def _at(address: int) -> int:
    return ctypes.c_uint64.from_address(address).value


def map_entries(tree: ctypes.Array[ctypes.c_char]) -> list[tuple[bytes, int]]:
    """(key, pointer) of a std::map<std::string, std::shared_ptr<T>>, in order."""

    def walk(node: int) -> list[tuple[bytes, int]]:
        if not node:
            return []
        here = (ctypes.string_at(_at(node + 32)), _at(node + 40))
        return [*walk(_at(node + 16)), here, *walk(_at(node + 24))]

    return walk(_at(ctypes.addressof(tree) + 16))


def in_half_precision(engine: ctypes.CDLL, network: object, layout: str) -> None:
    """Makes both ends of a network that was read FP16, in the order of `layout`."""
    name_of = getattr(engine, NAME)
    name_of.restype = ctypes.c_void_p
    for method, offset in ((INPUTS, DATA_IN_INPUT), (OUTPUTS, None)):
        found = ctypes.create_string_buffer(48)
        getattr(engine, method)(found, network)
        for name, pointer in map_entries(found):
            data = ctypes.c_void_p(pointer if offset is None else _at(pointer + offset))
            if ctypes.string_at(_at(name_of(data))) != name:
                raise SystemExit(f"what(): {name.decode()} does not lie where this toolkit should keep it")
            getattr(engine, SET_PRECISION)(data, ctypes.byref(FP16))
            getattr(engine, SET_LAYOUT)(data, ctypes.c_uint8(LAYOUTS[layout]))


def plugins_xml(libs: Path, platform: str, dump: Path) -> str:
    return (
        f'<ie><plugins><plugin name="MYRIAD" location="{libs / "libmyriadPlugin.so"}"><properties>'
        f'<property key="VPU_MYRIAD_PLATFORM" value="{platform}"/>'
        f'<property key="MYRIAD_DUMP_INTERNAL_GRAPH_FILE_NAME" value="{dump}"/>'
        "</properties></plugin></plugins></ie>"
    )


def compile_network(libs: Path, libusb: Path, platform: str, network: Path, blob: Path, dump: Path, ends: str) -> None:
    """Writes `blob`, and the graph dump into `dump` (and one file per compiler pass beside it)."""
    ctypes.CDLL(str(libusb), mode=ctypes.RTLD_GLOBAL)
    for name in LIBRARIES:
        engine = ctypes.CDLL(str(libs / name), mode=ctypes.RTLD_GLOBAL)
    plugins = dump.with_name("plugins.xml")
    plugins.write_text(plugins_xml(libs, platform, dump), encoding="utf-8")
    core, read, loaded = (ctypes.create_string_buffer(OBJECT_OCTETS) for _ in range(3))
    texts = [OldString(t) for t in (str(plugins), str(network), "", "MYRIAD", str(blob))]
    configuration, weights, device, target = texts[0], texts[2], texts[3], texts[4]
    options = empty_map()
    getattr(engine, NEW_CORE)(core, configuration.reference)
    getattr(engine, READ_NETWORK)(read, core, texts[1].reference, weights.reference)
    if ends in LAYOUTS:
        in_half_precision(engine, read, ends)
    getattr(engine, LOAD_NETWORK)(loaded, core, read, device.reference, options)
    getattr(engine, EXPORT)(loaded, target.reference)


def main(arguments: list[str]) -> None:
    libs, libusb, platform, network, blob, dump, ends = arguments
    compile_network(Path(libs), Path(libusb), platform, Path(network), Path(blob), Path(dump), ends)
    sys.stdout.flush()
    os._exit(0)  # the C++ objects have no destructor here; unloading them in order is not worth a crash


if __name__ == "__main__":
    main(sys.argv[1:])
