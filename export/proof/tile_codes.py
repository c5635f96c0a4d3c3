"""The proof behind "same octets": tile codes under every engine, thread count, instruction set and kernel.

    python -m export codes payload/bundles/edge            fingerprints, all of which must be one
    python -m export.proof.tile_codes BUNDLE POOL... ENGINE THREADS   what each of its processes runs

A setting is a process of its own: the instruction sets that a runtime may use, the number of threads of a linear
algebra library and the kernel are all chosen once, when a process starts.
"""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from export.builds import flight_networks
from export.data import data_folder, read_named
from export.graphs.to_openvino import execution
from export.proof.inputs import real_pool
from export.proof.settings import isas_here, path_name
from payload.bundle import Bundle, load_bundle
from payload.engine import OpenVinoEngine, open_engine
from payload.errors import InputError
from payload.link import tile_code
from payload.native import library
from payload.pipeline import Payload
from payload.policy import Gate, Policy
from payload.sensor import RGBN
from payload.tiles import Tile

STEPS_DN = (24.0, 160.0)
TIMEOUT_S = 3600.0
Say = Callable[[str], None]


@dataclass(frozen=True)
class Setting:
    engine: str
    threads: int
    isa: str  # limit of the CPU library's instruction sets; '' leaves it alone
    kernel: bool  # compiled, or numpy


@dataclass(frozen=True)
class Codes:
    """The fingerprint of all tile codes under one setting."""

    setting: Setting
    tiles: int
    octets: int
    sha256: str
    primitives: tuple[str, ...] = ()  # kernels of the flight networks, where the runtime tells them

    @property
    def path(self) -> str:
        """What ran: two settings of one path prove one thing."""
        kernel = "compiled kernel" if self.setting.kernel else "numpy"
        return f"{path_name(self.setting.engine, self.primitives)}, {kernel}"


def prove(bundle: Path, say: Say) -> list[Codes]:
    """A fingerprint per setting over every tile of the training pool and of the rate-distortion benchmark."""
    found = []
    for setting in settings():
        found.append(_worker(bundle, setting))
        say(as_text(found[-1]))
    return found


def settings() -> list[Setting]:
    wanted = [Setting("openvino", threads, isa, True) for isa in isas_here() for threads in (1, 2)]
    wanted += [Setting("onnxruntime", threads, "", True) for threads in (1, 2)] + [Setting("openvino", 1, "", False)]
    return [Setting("native", 1, "", True), *wanted] if library.available else [w for w in wanted if not w.kernel]


def equal(proven: Sequence[Codes]) -> bool:
    return len({codes.sha256 for codes in proven}) == 1


def headline(proven: Sequence[Codes]) -> str:
    """How many settings, and how many code paths that differ, gave one fingerprint."""
    paths = sorted({codes.path for codes in proven})
    verdict = "HELD" if equal(proven) else "NOT HELD"
    ran = f"{len(proven)} settings that ran {len(paths)} distinct code paths ({'; '.join(paths)})"
    return f"{verdict}: {ran} over {proven[0].tiles} tiles"


def as_text(codes: Codes) -> str:
    s = codes.setting
    how = f"{s.engine:12}{s.threads} thread{'s' if s.threads > 1 else ' '} {s.isa or 'default':8}"
    return f"{how}{'kernel' if s.kernel else 'numpy ':8}{codes.tiles} tiles, {codes.octets} octets, {codes.sha256[:16]}"


def fingerprint(bundle: Path, engine: str, threads: int) -> tuple[int, int, str, list[str]]:
    """Tiles, octets and sha256 of all tiles' codes at STEPS_DN, gate and thumbnails included; and kernels that ran."""
    loaded, digest, count, octets = load_bundle(bundle), hashlib.sha256(), 0, 0
    payload = Payload(loaded, Policy(gate=Gate(audit_count=0)), open_engine(engine, threads))
    for tile in _tiles(loaded.tile_px):
        count += 1
        for step in STEPS_DN:
            payload.policy = Policy(step_dn=step, gate=Gate(audit_count=0))
            code = tile_code.pack(payload.encode_tile(tile))
            digest.update(code)
            octets += len(code)
    return count, octets, digest.hexdigest(), _primitives(loaded, engine, threads)


def _primitives(bundle: Bundle, engine: str, threads: int) -> list[str]:
    """Kernels of the networks that this engine runs through OpenVINO; empty where a runtime does not tell."""
    if not isinstance(open_engine(engine, threads), OpenVinoEngine):
        return []
    ran = [execution(bundle.file(name), threads).primitives.values() for name in flight_networks(bundle)]
    return sorted({primitive for values in ran for primitive in values})


def _tiles(tile_px: int) -> list[Tile]:
    """Every tile of the pool once, as many to a mosaic as fill one; then those of the benchmark."""
    pool = real_pool()
    mosaic = max(1, tile_px // pool.dn.shape[2]) ** 2
    tiles = [pool.tile(index, tile_px) for index in range(0, len(pool.dn), mosaic)]
    x, names = read_named(data_folder() / "bench" / "rd20.npz", "x", "bands")
    bands = [str(band) for band in names]
    chosen = x[:, [bands.index(band) for band in RGBN], :tile_px, :tile_px]
    everywhere = np.ones((tile_px, tile_px), bool)
    return tiles + [Tile(1, k, np.ascontiguousarray(dn), everywhere) for k, dn in enumerate(chosen)]


def _worker(bundle: Path, setting: Setting) -> Codes:
    environment = {k: v for k, v in os.environ.items() if k not in ("ONEDNN_MAX_CPU_ISA", "NADIR_KERNEL")}
    environment |= {"OPENBLAS_NUM_THREADS": str(setting.threads), "NADIR_KERNEL": str(int(setting.kernel))}
    if setting.isa:
        environment["ONEDNN_MAX_CPU_ISA"] = setting.isa
    command = [sys.executable, "-m", "export.proof.tile_codes", str(bundle), setting.engine, str(setting.threads)]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S, check=False,
        cwd=Path(__file__).resolve().parents[2],
    )  # fmt: skip
    if done.returncode:
        cause = (done.stderr.strip().splitlines() or ["nothing"])[-1]
        raise InputError(f"{as_text(Codes(setting, 0, 0, ''))}: did not finish and said: {cause}")
    tiles, octets, sha256, primitives = json.loads(done.stdout.strip().splitlines()[-1])
    return Codes(setting, tiles, octets, sha256, tuple(primitives))


def to_json(found: Sequence[Codes]) -> str:
    return json.dumps([asdict(codes) | {"path": codes.path} for codes in found], indent=1) + "\n"


if __name__ == "__main__":
    sys.stdout.write(json.dumps(fingerprint(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))) + "\n")
