"""Assembling a bundle: files, their hashes, and a manifest that says what was built from what.

`assemble` writes a bundle from parts; `derive` turns a bundle into the variant another device runs; `with_ground_file`
exchanges a network of the ground. All write next to the destination and move into place at the end, so that a failed
build leaves nothing behind.
"""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from export.builds import BUILDS, FLOAT, FLOAT_OCTETS, NORMATIVE, VPU
from export.devices.estimates import runs_of
from export.graphs.graph import load_graph, total_macs, total_parameters
from export.graphs.memory_plan import plan
from export.graphs.to_float import to_float_model
from export.graphs.to_openvino import write_ir
from payload.bundle import FORMAT_VERSION, REQUIRED_KEYS, Bundle, is_ir, load_bundle
from payload.errors import InputError
from payload.signature import FILE as SIGNATURE_FILE

#: Manifest keys that `assemble` writes itself.
OWN_KEYS = (*REQUIRED_KEYS, "octets", "target", "networks", "built")
VERSIONS = ("nadir-payload", "numpy", "torch", "brevitas", "onnx", "onnxruntime", "openvino")


@dataclass(frozen=True)
class Origin:
    """What a bundle was made from. `recipe`: the recipe's own text as a table; digests are sha256 in hex."""

    recipe: Mapping[str, Any]
    data_digest: str
    calibration: Mapping[str, Any] = field(default_factory=dict)
    checkpoint_digest: str = ""

    def __post_init__(self) -> None:
        if not self.data_digest:
            raise InputError("the digest of the training data is missing; load the data pool before building")


def assemble(
    out: Path,
    name: str,
    bands: tuple[str, ...],
    tile_px: int,
    codec: Mapping[str, Any],
    files: Mapping[str, Path | bytes],
    origin: Origin,
    target: str = NORMATIVE,
    with_ir: bool = True,
    more: Mapping[str, Any] | None = None,
) -> Bundle:
    """Writes a bundle into `out`, loads it again. `files`: manifest name ('flight/encoder.onnx') -> octets or a path.

    `more`: further keys of the manifest (what describes the cloud network goes under "clouds").
    With `with_ir` every int8 ONNX network that flies gets its OpenVINO IR beside it.
    InputError if a file is missing or lies outside flight/ and ground/, or an INT8 network would run in float.
    """
    _refuse_unknown_target(target)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as scratch:
        folder = Path(scratch) / out.name
        for file, content in sorted(files.items()):
            _place(folder, file, content)
        networks = [n for n in files if n.endswith(".onnx")]
        costs = {n: describe(folder / n, tile_px, target if n.startswith("flight/") else FLOAT) for n in networks}
        if with_ir and target == NORMATIVE:
            _write_irs(folder, [n for n in networks if n.startswith("flight/")])
        manifest = {
            **(more or {}),
            "format_version": FORMAT_VERSION,
            "name": name,
            "bands": list(bands),
            "tile_px": tile_px,
            "codec": dict(codec),
            "files": _digests(folder),
            "octets": {n: (folder / n).stat().st_size for n in _digests(folder)},
            "target": target,
            "networks": costs,
            "built": {
                "recipe": dict(origin.recipe),
                "data_sha256": origin.data_digest,
                "checkpoint_sha256": origin.checkpoint_digest,
                "calibration": dict(origin.calibration),
                "versions": installed_versions(),
            },
        }
        text = json.dumps(manifest, indent=1, sort_keys=True) + "\n"
        (folder / "manifest.json").write_text(text, encoding="utf-8")
        load_bundle(folder)
        move_into_place(folder, out)
    return load_bundle(out)


def derive(bundle: Bundle, target: str, out: Path, keep_rounding: bool = False) -> Bundle:
    """The same bundle for a device that runs floats: quantisers removed, tables and decoder unchanged.

    `fp16-vpu` lowers the opset to 13 as the VPU compiler asks; weights are dequantised (exact in FP16).
    """
    _refuse_unknown_target(target)
    if bundle.manifest.get("target", NORMATIVE) != NORMATIVE:
        raise InputError(
            f"bundle {bundle.name} is already {bundle.manifest['target']}; derive from the int8-po2w7 bundle"
        )
    if target == NORMATIVE:
        raise InputError("int8-po2w7 is the normative build; derive fp16-vpu or fp32 from it")
    files: dict[str, Path | bytes] = {}
    for name in bundle.manifest["files"]:
        if is_ir(name, bundle.manifest["files"]):
            continue  # the IR of the INT8 network
        if name.startswith("flight/") and name.endswith(".onnx"):
            graph = load_graph(bundle.file(name), free_px=bundle.tile_px)
            files[name] = to_float_model(graph, target == VPU, keep_rounding).SerializeToString(deterministic=True)
        else:
            files[name] = bundle.file(name)
    origin = _derived_origin(bundle)
    more = {key: value for key, value in bundle.manifest.items() if key not in OWN_KEYS}
    label = f"{bundle.name}-{target}"
    return assemble(out, label, bundle.bands, bundle.tile_px, bundle.codec, files, origin, target, False, more)


def extended(bundle: Bundle, name: str, added: Mapping[str, Path], more: Mapping[str, Any], out: Path) -> Bundle:
    """The bundle with further files, and `more` in its manifest, under another name. InputError for a build in which
    networks run in float."""
    if bundle.manifest.get("target", NORMATIVE) != NORMATIVE:
        raise InputError(f"bundle {bundle.name} is {bundle.manifest['target']}; add networks to {NORMATIVE}")
    held = bundle.manifest["files"]
    files: dict[str, Path | bytes] = {file: bundle.file(file) for file in held if not is_ir(file, held)}
    kept = {key: value for key, value in bundle.manifest.items() if key not in OWN_KEYS}
    return assemble(
        out, name, bundle.bands, bundle.tile_px, bundle.codec, files | dict(added), _derived_origin(bundle),
        more={**kept, **more},
    )  # fmt: skip


def with_ground_file(
    bundle: Bundle, file: str, write: Callable[[Path], None], more: Mapping[str, Any], out: Path
) -> Bundle:
    """A copy of the bundle, unsigned, with a float network of the ground that `write` writes, and `more` in its
    manifest. Every other file stays as it is, octet for octet; `out` may be the bundle's own folder."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as scratch:
        folder = Path(scratch) / out.name
        shutil.copytree(bundle.directory, folder, ignore=shutil.ignore_patterns(SIGNATURE_FILE))
        path = folder / file
        path.parent.mkdir(exist_ok=True)
        write(path)
        manifest = {**bundle.manifest, **more}
        for key, value in (
            ("files", hashlib.sha256(path.read_bytes()).hexdigest()), ("octets", path.stat().st_size),
            ("networks", describe(path, bundle.tile_px, FLOAT)),
        ):  # fmt: skip
            manifest[key] = {**manifest.get(key, {}), file: value}
        text = json.dumps(manifest, indent=1, sort_keys=True) + "\n"
        (folder / "manifest.json").write_text(text, encoding="utf-8")
        load_bundle(folder)
        move_into_place(folder, out)
    return load_bundle(out)


def _derived_origin(bundle: Bundle) -> Origin:
    built = bundle.manifest.get("built", {})
    return Origin(
        {**built.get("recipe", {}), "derived_from": f"{bundle.bundle_id:08x}"},
        built.get("data_sha256") or "unknown", built.get("calibration", {}), built.get("checkpoint_sha256", ""),
    )  # fmt: skip


def describe(path: Path, tile_px: int, target: str) -> dict[str, Any]:
    """What the manifest says about one network: cost, size, and the memory it needs."""
    graph = load_graph(path, free_px=tile_px)
    memory = plan(graph, FLOAT_OCTETS[target])
    macs = total_macs(graph)
    return {
        "octets": path.stat().st_size,
        "opset": graph.opset,
        "inputs": {n: list(graph.shapes[n]) for n in graph.inputs},
        "outputs": {n: list(graph.shapes[n]) for n in graph.outputs},
        "macs": macs,
        "macs_per_px": round(macs / tile_px**2, 3),
        "parameters": total_parameters(graph),
        "weight_octets": memory.weight_octets,
        "peak_activation_octets": memory.peak_octets,
        "peak_activation_at": memory.peak_step.name if memory.steps else "",
        "runs": runs_of(graph),
    }


def installed_versions() -> dict[str, str]:
    found = {}
    for name in VERSIONS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue  # a build without training needs no torch
    return found


def _refuse_unknown_target(target: str) -> None:
    if target not in BUILDS:
        raise InputError(f"target {target!r} is unknown; choose one of {', '.join(BUILDS)}")


def _place(folder: Path, name: str, content: Path | bytes) -> None:
    if not name.startswith(("flight/", "ground/")) or ".." in Path(name).parts:
        raise InputError(f"bundle file {name!r} must lie under flight/ or ground/")
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, bytes):
        path.write_bytes(content)
        return
    if not content.is_file():
        raise InputError(f"{content}: no such file, needed as {name}; run the training stage that writes it")
    shutil.copyfile(content, path)


def _write_irs(folder: Path, networks: list[str]) -> None:
    for name in networks:
        how = write_ir(folder / name, (folder / name).with_suffix(".xml"))
        if not how.all_int8:
            slow = [layer for layer, p in how.precisions.items() if p not in ("i8", "u8")]
            raise InputError(
                f"{name}: {len(slow)} of {len(how.precisions)} convolutions run in float ({', '.join(slow[:2])}); "
                "fold the weight Clip and give every convolution its own quantised input and weights"
            )


def _digests(folder: Path) -> dict[str, str]:
    paths = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != "manifest.json")
    return {p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in paths}


def move_into_place(folder: Path, out: Path) -> None:
    """Replaces a former bundle as late as possible."""
    if out.exists() and not (out / "manifest.json").is_file() and any(out.iterdir()):
        raise InputError(f"{out}: exists and is not a bundle; choose another folder")
    former = folder.parent / "former"
    if out.exists():
        out.rename(former)
    folder.rename(out)
