"""The proof of a bundle: every runtime, thread count and instruction set gives the integer reference's elements.

Takes a bundle and a feeder per network, gives a `Proof`; `python -m export check` writes it to check.json and prints
it. What must hold: weights of at most 7 bits (8-bit weights saturate in the int16 pair sums of CPUs without VNNI), no
node between integer weights and their DequantizeLinear (a Clip there silently makes OpenVINO run in float), every
convolution in INT8 in the runtime model, and no differing element anywhere.
"""

import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.builds import NORMATIVE
from export.graphs.graph import Graph, input_names, load_graph, total_macs
from export.graphs.to_openvino import INT8
from export.proof.check_runtime import compare
from export.proof.inputs import Arrays, Feeder
from export.proof.integer_reference import IntegerNetwork, unfolded_weights, weight_bits
from export.proof.settings import THREADS, host_flags, isas_here, path_name, refuse_absent
from export.workshops import TorchModel
from payload.bundle import Bundle
from payload.errors import InputError

MAX_WEIGHT_BITS = 7
WORKER_TIMEOUT_S = 3600.0
#: Tiles whose inputs and outputs lie in the temporary folder at a time.
CHUNK_TILES = 250
Say = Callable[[str], None]


@dataclass(frozen=True)
class Setting:
    """One runtime, set up in one way, for one network file."""

    network: str
    path: Path
    runtime: str
    threads: int
    isa: str


@dataclass(frozen=True)
class Row:
    """One runtime in one setting against the integer reference."""

    network: str
    runtime: str
    threads: int
    isa: str
    tiles: int
    elements: int
    mismatches: int
    largest_difference: float
    convolutions: int | None = None  # None where the runtime does not say
    in_int8: int | None = None
    primitives: tuple[str, ...] = ()
    ms_per_tile: float = 0.0

    @property
    def held(self) -> bool:
        return self.mismatches == 0 and (self.convolutions is None or self.in_int8 == self.convolutions)

    @property
    def path(self) -> str:
        return path_name(self.runtime, self.primitives)

    @property
    def setting(self) -> str:
        """Of a row that stands with others of its path."""
        return f"{self.isa or 'default'}/{self.threads}"


@dataclass(frozen=True)
class Proof:
    """Everything check.json holds."""

    bundle: str
    bundle_id: str
    host: dict[str, str]
    versions: dict[str, str]
    sources: dict[str, str]  # by network: what it was fed
    real: bool
    rows: tuple[Row, ...]
    faults: tuple[str, ...]  # found by reading the graphs, before anything runs
    peak_accumulators: dict[str, dict[str, int]]
    macs: dict[str, int]

    @property
    def held(self) -> bool:
        return not self.faults and all(row.held for row in self.rows)

    @property
    def paths(self) -> dict[tuple[str, str], list[Row]]:
        """Rows by network and by the code path that really ran."""
        groups: dict[tuple[str, str], list[Row]] = {}
        for row in self.rows:
            groups.setdefault((row.network, row.path), []).append(row)
        return groups

    @property
    def distinct_paths(self) -> int:
        """Code paths that differ and that every network of the bundle ran: the smallest count over its networks."""
        of_network: dict[str, set[str]] = {}
        for row in self.rows:
            of_network.setdefault(Path(row.network).stem, set()).add(row.path)
        return min(map(len, of_network.values()), default=0)

    @property
    def headline(self) -> str:
        """How much was compared, and over how many code paths that differ."""
        compared, differ = sum(r.elements for r in self.rows), sum(r.mismatches for r in self.rows)
        paths = "; ".join(sorted({row.path for row in self.rows}))
        return (
            f"{'HELD' if self.held else 'NOT HELD'}: {compared} elements compared, {differ} differ from the integer "
            f"reference; {len(self.rows)} settings ran {self.distinct_paths} distinct code paths a network ({paths})"
        )

    def to_json(self) -> str:
        paths = [
            {"network": network, "path": path, "settings": [r.setting for r in rows],
             "elements": sum(r.elements for r in rows), "mismatches": sum(r.mismatches for r in rows)}
            for (network, path), rows in self.paths.items()
        ]  # fmt: skip
        told = {"held": self.held, "headline": self.headline, "distinct_paths": self.distinct_paths}
        return json.dumps(told | {"paths": paths} | asdict(self), indent=1) + "\n"


def check_bundle(
    bundle: Bundle,
    feeders: Mapping[str, Feeder],
    tiles: int = 1000,
    isas: tuple[str, ...] | None = None,
    threads: tuple[int, ...] = THREADS,
    torch_models: Mapping[str, TorchModel] | None = None,
    say: Say = lambda line: None,
) -> Proof:
    """Checks every network named in `feeders` (manifest names, e.g. 'flight/encoder.onnx'), each with its feeder.

    `isas`: limits of the CPU library, those of this host if None. InputError for one that this host lacks."""
    target = bundle.manifest.get("target", NORMATIVE)
    if target != NORMATIVE:
        raise InputError(f"bundle {bundle.name} is {target}, which promises no equality; check the int8-po2w7 bundle")
    isas = isas_here() if isas is None else isas
    refuse_absent(isas)
    rows: list[Row] = []
    faults: list[str] = []
    peaks, macs = {}, {}
    for name, feeder in feeders.items():
        path = bundle.file(name)
        graph = load_graph(path, _input_shapes(path, feeder.arrays(0)))
        faults += static_faults(graph, name)
        oracle = IntegerNetwork(graph)
        settings = _settings({name: path, **_twins(bundle, name)}, isas, threads)
        rows += _rows(oracle, feeder, settings, tiles, (torch_models or {}).get(name), say)
        peaks[name], macs[name] = oracle.peak_accumulator, total_macs(graph)
    sources = {name: feeder.source for name, feeder in feeders.items()}
    real = all(feeder.real for feeder in feeders.values())
    bundle_id = f"{bundle.bundle_id:08x}"
    return Proof(bundle.name, bundle_id, _host(), _versions(), sources, real, tuple(rows), tuple(faults), peaks, macs)


def static_faults(graph: Graph, name: str) -> list[str]:
    """What can be seen without running: weights too wide, not integer, or not folded."""
    faults = [
        f"{name}: {layer} has {f'{bits}-bit' if bits else 'float'} weights, at most {MAX_WEIGHT_BITS} bits are "
        "portable; train with 7-bit weights"
        for layer, bits in weight_bits(graph).items()
        if bits == 0 or bits > MAX_WEIGHT_BITS
    ]
    faults += [
        f"{name}: a node stands between the integer weights of {layer} and their DequantizeLinear, so it runs in "
        "float; fold the Clip into the weights"
        for layer in unfolded_weights(graph)
    ]
    return faults


def store_reference(oracle: IntegerNetwork, feeder: Feeder, chunk: range, folder: Path) -> None:
    """Feeds the oracle; writes input*.npy and reference*.npy, [tiles, ...], what the runtimes are held against."""
    files: list[NDArray[Any]] = []
    for position, tile in enumerate(chunk):
        arrays = feeder.arrays(tile)
        outputs = oracle.run(*arrays)
        named = [(f"input{i}", a) for i, a in enumerate(arrays)] + [(f"reference{i}", o) for i, o in enumerate(outputs)]
        if not files:
            files = [_new_array(folder / f"{n}.npy", (len(chunk), *a.shape), a.dtype) for n, a in named]
        for file, (_, array) in zip(files, named, strict=True):
            if file.shape[1:] != array.shape:
                found = f"tile {tile} gives shape {array.shape}, the first gave {file.shape[1:]}"
                raise InputError(f"{oracle.graph.name}: {found}; feed tiles of one size")
            file[position] = array


def table(proof: Proof) -> str:
    """The proof as text: one block a code path, one line a setting that ran it."""
    lines = []
    for (network, path), rows in proof.paths.items():
        lines.append(f"{network}  {path}")
        for r in rows:
            convs = "" if r.convolutions is None else f"{r.in_int8}/{r.convolutions} convolutions in INT8, "
            lines.append(
                f"    {r.isa or 'default':12} {r.threads} thr {r.tiles:>6} tiles {r.elements:>13} elements "
                f"{r.mismatches:>8} differ, {convs}{r.ms_per_tile:.2f} ms/tile  {'held' if r.held else 'NOT HELD'}"
            )
    lines += [f"FAULT  {fault}" for fault in proof.faults]
    lines += [f"fed: {name}: {source}" for name, source in proof.sources.items()]
    return "\n".join([*lines, proof.headline])


def _settings(files: Mapping[str, Path], isas: tuple[str, ...], threads: tuple[int, ...]) -> list[Setting]:
    found = []
    for name, path in files.items():
        if path.suffix == ".onnx":
            found += [Setting(name, path, "onnxruntime", count, "") for count in threads]
        found += [Setting(name, path, "openvino", count, isa) for isa in isas for count in threads]
    return found


def _rows(
    oracle: IntegerNetwork, feeder: Feeder, settings: list[Setting], tiles: int, model: TorchModel | None, say: Say
) -> list[Row]:
    """One row per setting; the tiles go through in chunks so that the disk holds CHUNK_TILES of them at a time."""
    if model is not None:
        settings = [Setting(settings[0].network, settings[0].path, "brevitas", 0, ""), *settings]
    rows: dict[Setting, Row] = {}
    for start in range(0, tiles, CHUNK_TILES):
        chunk = range(start, min(start + CHUNK_TILES, tiles))
        with tempfile.TemporaryDirectory(prefix="nadir-check-") as folder:
            store_reference(oracle, feeder, chunk, Path(folder))
            for setting in settings:
                say(f"{setting.network}: tiles from {chunk.start}, {setting.runtime}, {setting.isa or 'default'}")
                in_torch = model is not None and setting.runtime == "brevitas"
                found = compare(model, Path(folder)) if in_torch and model else _worker(setting, Path(folder))
                row = _row(setting, found, len(chunk))
                rows[setting] = row if setting not in rows else _sum(rows[setting], row)
    return list(rows.values())


def _row(setting: Setting, found: dict[str, Any], tiles: int) -> Row:
    precisions = found.get("precisions")
    convolutions = None if precisions is None else len(precisions)
    in_int8 = None if precisions is None else sum(p in INT8 for p in precisions.values())
    return Row(
        setting.network, setting.runtime, setting.threads, setting.isa, tiles, found["elements"], found["mismatches"],
        found["largest_difference"], convolutions, in_int8, tuple(found.get("primitives", ())),
        1000 * found["seconds"] / tiles,
    )  # fmt: skip


def _sum(a: Row, b: Row) -> Row:
    ms = (a.ms_per_tile * a.tiles + b.ms_per_tile * b.tiles) / (a.tiles + b.tiles)
    return replace(
        a, tiles=a.tiles + b.tiles, elements=a.elements + b.elements, mismatches=a.mismatches + b.mismatches,
        largest_difference=max(a.largest_difference, b.largest_difference), ms_per_tile=ms,
    )  # fmt: skip


def _worker(setting: Setting, folder: Path) -> dict[str, Any]:
    path, runtime, threads, isa = setting.path, setting.runtime, setting.threads, setting.isa
    environment = {k: v for k, v in os.environ.items() if k != "ONEDNN_MAX_CPU_ISA"}
    if isa:
        environment["ONEDNN_MAX_CPU_ISA"] = isa
    ours = str(Path(__file__).resolve().parents[2])
    environment["PYTHONPATH"] = os.pathsep.join([ours, environment.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "export.proof.check_runtime", str(path), str(folder), runtime, str(threads)]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=WORKER_TIMEOUT_S, check=False
    )
    if done.returncode != 0 or not done.stdout.strip():
        cause = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise InputError(f"{path}: {runtime} ({isa or 'default ISA'}) did not finish: {cause}")
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    if "error" in found:
        raise InputError(found["error"])
    return found


def _twins(bundle: Bundle, name: str) -> dict[str, Path]:
    """The IR of the same network, where the bundle holds one."""
    twin = name.removesuffix(".onnx") + ".xml"
    return {twin: bundle.file(twin)} if twin in bundle.manifest["files"] else {}


def _input_shapes(path: Path, arrays: Arrays) -> dict[str, tuple[int, ...]]:
    names = input_names(path)
    if len(names) != len(arrays):
        raise InputError(f"{path}: {len(names)} inputs, the feeder gives {len(arrays)} arrays")
    return {n: a.shape for n, a in zip(names, arrays, strict=True)}


def _new_array(path: Path, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    return np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)


def _host() -> dict[str, str]:
    flags = sorted(f for f in host_flags() if f.startswith(("sse4_", "avx", "amx_int8")))
    return {"machine": platform.machine(), "system": platform.system(), "isa": " ".join(flags)}


def _versions() -> dict[str, str]:
    return {name: version(name) for name in ("numpy", "onnx", "onnxruntime", "openvino")}
