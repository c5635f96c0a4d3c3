"""An application's network, or the cloud network of another bundle, into a copy of a bundle.

What is new is checked for what every runtime computes alike, and described."""

from pathlib import Path
from typing import Any

import onnx

from export.bundle.assemble import extended
from export.graphs.to_onnx import check_po2w7
from payload.apps.network_app import network_file
from payload.bundle import DEFAULT, GROUND_CLOUDS_FILE, Bundle
from payload.clouds.network import NETWORK_FILE, places_in
from payload.errors import InputError


def add_app(bundle: Bundle, name: str, network: Path, out: Path, counts: int = 1, cell_px: int = 2) -> Bundle:
    """The bundle with the application `name`. `counts`: the class whose pixels are counted, of cells of `cell_px`
    pixels. InputError where the network would run in float, differently elsewhere, or takes or gives something else."""
    if not name.isidentifier() or not name.islower():
        raise InputError(f"app {name[:60]!r}, wanted a name of small letters, digits and _")
    side = bundle.tile_px // cell_px
    _check(network, (1, 2 * len(bundle.bands), side, side), counts)
    apps = {**bundle.manifest.get("apps", {}), name: {"counts": counts, "cell_px": cell_px}}
    return extended(bundle, f"{bundle.name}-{name}", {network_file(name): network}, {"apps": apps}, out)


def add_gate(bundle: Bundle, source: Bundle, out: Path) -> Bundle:
    """The bundle, under its own name, with the cloud networks of another, which find their bands by role. InputError
    where the other has no network; BundleError where the bundle has no such bands."""
    if "clouds" not in source.manifest:
        raise InputError(f"bundle {source.name} has no cloud network to take; name one that has, such as {DEFAULT}")
    places_in(bundle)
    clouds = {"clouds": source.manifest["clouds"] | {"taken_from": f"{source.bundle_id:08x}"}}
    added = {name: source.file(name) for name in (NETWORK_FILE, GROUND_CLOUDS_FILE) if name in source.manifest["files"]}
    clouds |= {key: source.manifest[key] for key in ("ground_clouds",) if key in source.manifest}
    return extended(bundle, bundle.name, added, clouds, out)


def _check(network: Path, wanted: tuple[int, ...], counts: int) -> None:
    try:
        model = onnx.load(str(network))
        onnx.checker.check_model(model)
    except (OSError, ValueError, onnx.checker.ValidationError, _decode_error()) as error:
        words = " ".join(str(error).split())[:120]
        raise InputError(f"{network}: is no ONNX network ({words}); give a file that onnx.save wrote") from None
    check_po2w7(model)
    found, given = (_shapes(values) for values in (model.graph.input, model.graph.output))
    if found != [(onnx.TensorProto.UINT8, wanted)]:
        raise InputError(f"{network}: takes {_told(found)}, wanted one input uint8 {list(wanted)}")
    kinds = [(kind, len(shape)) for kind, shape in given]
    if kinds != [(onnx.TensorProto.INT8, 4)] or not counts < given[0][1][1]:
        raise InputError(f"{network}: gives {_told(given)}, wanted one output int8 [1, more than {counts}, h, h]")


def _decode_error() -> type[Exception]:
    """What protobuf raises of octets that are none of its own."""
    from google.protobuf.message import DecodeError

    return DecodeError


def _shapes(values: Any) -> list[tuple[int, tuple[int, ...]]]:
    """(element type, shape) of each; a free axis counts 0."""
    kinds = [value.type.tensor_type for value in values]
    return [(kind.elem_type, tuple(axis.dim_value for axis in kind.shape.dim)) for kind in kinds]


def _told(shapes: list[tuple[int, tuple[int, ...]]]) -> str:
    names = (f"{onnx.TensorProto.DataType.Name(kind).lower()} {list(shape)}" for kind, shape in shapes)
    return ", ".join(names) or "nothing"
