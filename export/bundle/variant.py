"""A bundle's variant for a device with a compiler of its own: the same bundle, with blobs beside its networks.

    <variant>/flight/clouds.blob    what the device runs; the .onnx it was made from need not go up
    manifest["variant"]             target, toolkit, and per network the blob, what the host does at its ends, the
                                    compiler's figures and its table of stages

The blobs are among the manifest's files: what signs a bundle signs them. A variant has an id of its own, since what it
sends may differ from what the bundle sends in single indices; the ground decodes either with the same tables.
"""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from export.builds import flight_networks
from export.bundle.assemble import move_into_place
from export.devices.myriad_toolkit import VERSION
from export.devices.to_myriad import MyriadReport
from export.graphs.ends import ends_of
from export.graphs.graph import load_graph
from hil.devices.latency import COMPILED_FILE, keep_compiled
from hil.devices.targets import Target
from payload.bundle import Bundle, is_ir, load_bundle
from payload.errors import InputError


def write_variant(bundle: Bundle, target: Target, reports: list[MyriadReport], blobs: Path, out: Path) -> Bundle:
    """The variant of `bundle` for `target` in `out`, unsigned. `blobs`: the folder that `reports` name their blobs in.

    InputError where a network of the flight part was not compiled for the bundle's own tile size."""
    made = {r.network: r for r in reports if r.header and r.tile_px == bundle.tile_px}
    missing = [name for name in flight_networks(bundle) if name not in made]
    if missing:
        raise InputError(
            f"{missing[0]} was not compiled for {bundle.tile_px} px tiles; give --toolkit and --tile {bundle.tile_px}"
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as scratch:
        folder = Path(scratch) / out.name
        for name in [n for n in bundle.manifest["files"] if not is_ir(n, bundle.manifest["files"])]:
            _copy(bundle.file(name), folder / name)
        for name, report in made.items():
            _copy(blobs / report.blob, folder / blob_name(name))
        text = json.dumps(_manifest(bundle, target, made, folder), indent=1, sort_keys=True)
        (folder / "manifest.json").write_text(text + "\n", encoding="utf-8")
        variant = load_bundle(folder)
        keep_compiled(variant, target.name, {(r.network, r.tile_px): r.work for r in made.values()})
        move_into_place(folder, out)
    return load_bundle(out)


def blob_name(network: str) -> str:
    return f"{network.rpartition('.')[0]}.blob"


def _manifest(bundle: Bundle, target: Target, made: Mapping[str, MyriadReport], folder: Path) -> dict[str, Any]:
    files = {n: hashlib.sha256((folder / n).read_bytes()).hexdigest() for n in _files(folder)}
    networks = {name: _network(bundle, report) for name, report in made.items()}
    variant = {
        "of": f"{bundle.bundle_id:08x}",
        "target": target.name,
        "toolkit": f"openvino {VERSION}",
        "networks": networks,
    }
    octets = {name: (folder / name).stat().st_size for name in files}
    own = {"name": f"{bundle.name}-{target.name}", "files": files, "octets": octets, "variant": variant}
    return bundle.manifest | own


def _files(folder: Path) -> list[str]:
    paths = (p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    return sorted(name for name in paths if name not in ("manifest.json", COMPILED_FILE))


def _network(bundle: Bundle, report: MyriadReport) -> dict[str, Any]:
    header = report.header
    if header is None:
        raise InputError(f"{report.network}: not compiled; give --toolkit")
    ends = ends_of(load_graph(bundle.file(report.network), free_px=bundle.tile_px)).to_table()
    figures = {"stages": header.stages, "shaves": header.shaves, "cmx_slices": header.cmx_slices}
    run = {"batch": header.batch, "working_octets": header.bss_octets, "macs": report.macs}
    table = [[s.kind, s.layer or s.name, s.shaves] for s in report.stages if s.order >= 0]
    return {"blob": blob_name(report.network), **ends, "form": report.form, **figures, **run, "stage_table": table}


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
