"""Windows -> windows with soft labels: what a large public network says of every cell, kept in files.

    python -m export.clouds.teacher --out build/clouds/pool

The teacher is `ukis-csmask` 1.0.0 (Wieland, Fichtner, Martinis 2022; Apache-2.0): U-Nets of 40 MB for four bands, one
for the top of the atmosphere (L1C) and one for the ground (L2A), classes clear, cloud and shadow. Its word is kept in
cells of 2 x 2 px. The files are written in parts; a run goes on with the part that is missing. The parts called
`decoded` hold the real windows a second time as the ground sees them, coded and decoded, with what the teacher says of
the original; those called `coarse` hold windows with larger pixels.
"""

import argparse
import importlib.util
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.clouds.decoded import Decoded
from export.clouds.drawn import F32
from export.clouds.windows import NO_SCL, WINDOW_PX, Coarse, Painter, Window, real_windows
from export.data import read_all
from payload.errors import InputError

#: Pixels along one cell of what is kept.
KEPT_PX = 2
PART = 250
DRAWN_PARTS, COARSE_PARTS = 12, 1
#: Drawn windows that coarse ones are made of, and the coarsest pixels that they are made of.
DRAWN_FOR_COARSE, COARSE_FROM_M = 250, 20
SEED = 77


def teacher_file(level: str) -> Path:
    """The teacher's ONNX file for a level, L1C or L2A. InputError if it is not installed."""
    found = importlib.util.find_spec("ukis_csmask")
    if found is None or not found.submodule_search_locations:
        raise InputError("ukis-csmask is not installed, and it is the teacher; pip install ukis-csmask==1.0.0")
    return Path(found.submodule_search_locations[0]) / f"model_4b_{level.lower()}.onnx"


class Teacher:
    """Probabilities of clear, cloud and shadow by the two networks of ukis-csmask. InputError if it is not there."""

    def __init__(self, threads: int = 1) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = threads
        self._networks = {}
        for level in ("L1C", "L2A"):
            path = teacher_file(level)
            session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
            statistics = json.loads(path.with_suffix(".json").read_text())["data"]["dataset_statistics"]["img"]
            mean, deviation = (np.array(s, np.float32)[:, None, None] for s in statistics)
            self._networks[level] = session, mean, deviation

    def __call__(self, dn: F32, level: str) -> F32:
        """dn [4, 256, 256] -> [3, 256, 256]; a level that is not known counts as L2A."""
        session, mean, deviation = self._networks["L1C" if level == "L1C" else "L2A"]
        logits = session.run(None, {"input": ((dn / 10_000.0 - mean) / deviation)[None].astype(np.float32)})[0][0]
        weights = np.exp(logits - logits.max(axis=0))
        return np.asarray(weights / weights.sum(axis=0), np.float32)


def label(window: Window, teacher: Teacher, seen: F32 | None = None) -> dict[str, Any]:
    """What is kept of a window, in cells of 2 x 2 px; `scl` where a cell has one class, NO_SCL elsewhere. `seen`: the
    pixels that are kept in place of those that the teacher judges."""
    classes = _blocks(window.scl)
    alike = (classes == classes[..., :1]).all(axis=-1)
    return {
        "dn": np.round(_means(window.dn if seen is None else seen)).clip(0, 65_535).astype(np.uint16),  # [4, n, n]
        "teacher": _octets(_means(teacher(window.dn, window.level))),  # [3, n, n]
        "scl": np.where(alike, classes[..., 0], NO_SCL).astype(np.uint8),
        "opacity": _octets(_means(window.opacity)),
        "cast": _octets(_means(window.cast)),
        "site": window.site, "gsd_m": window.gsd_m, "kind": window.kind,
    }  # fmt: skip


def _blocks(pixels: NDArray[Any]) -> NDArray[Any]:
    """[..., T, T] -> [..., T/2, T/2, 4]"""
    n = WINDOW_PX // KEPT_PX
    cells = pixels.reshape(*pixels.shape[:-2], n, KEPT_PX, n, KEPT_PX)
    return np.moveaxis(cells, -3, -2).reshape(*pixels.shape[:-2], n, n, KEPT_PX**2)


def _means(pixels: F32) -> F32:
    return np.asarray(_blocks(pixels).mean(axis=-1), np.float32)


def _octets(shares: F32) -> NDArray[np.uint8]:
    return np.round(shares * 255.0).astype(np.uint8)


def write_part(path: Path, windows: Sequence[Window], teacher: Teacher, seen_by: Decoded | None = None) -> None:
    """`seen_by`: what codes and decodes the pixels that are kept."""
    rows = [label(window, teacher, None if seen_by is None else seen_by(window.dn)) for window in windows]
    partial = path.with_suffix(".partial")
    with partial.open("wb") as stream:
        columns: dict[str, Any] = {key: np.array([row[key] for row in rows]) for key in rows[0]}
        np.savez(stream, **columns)
    partial.replace(path)


def load_labelled(folder: Path, without: Sequence[str] = ()) -> dict[str, NDArray[Any]]:
    """Every part as one, less the sites of `without`. InputError if there is none."""
    parts = sorted(folder.glob("*.npz"))
    if not parts:
        raise InputError(f"{folder}: no labelled windows; run `python -m export.clouds.teacher --out {folder}` first")
    loaded = [read_all(part) for part in parts]
    every = {key: np.concatenate([part[key] for part in loaded]) for key in loaded[0]}
    kept = ~np.isin(every["site"], list(without))
    return {key: values[kept] for key, values in every.items()}


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m export.clouds.teacher", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("build") / "clouds" / "pool")
    parser.add_argument("--drawn-parts", type=int, default=DRAWN_PARTS)
    parser.add_argument("--coarse-parts", type=int, default=COARSE_PARTS)
    arguments = parser.parse_args(argv)
    arguments.out.mkdir(parents=True, exist_ok=True)
    teacher, windows = Teacher(), real_windows()
    painter = Painter(windows)
    for i in range(0, len(windows), PART):
        path = arguments.out / f"real{i // PART:03d}.npz"
        if not path.exists():
            write_part(path, windows[i : i + PART], teacher)
        path = arguments.out / f"decoded{i // PART:03d}.npz"
        if not path.exists():
            write_part(path, windows[i : i + PART], teacher, Decoded(np.random.default_rng([SEED, PART, i])))
    for i in range(arguments.drawn_parts):
        path = arguments.out / f"drawn{i:03d}.npz"
        if not path.exists():
            rng = np.random.default_rng([SEED, i])
            write_part(path, [painter.draw(rng) for _ in range(PART)], teacher)
    for i in range(arguments.coarse_parts):
        path = arguments.out / f"coarse{i:03d}.npz"
        if not path.exists():
            write_part(path, coarse_windows(windows, painter, np.random.default_rng([SEED, i, 2])), teacher)


def coarse_windows(windows: list[Window], painter: Painter, rng: np.random.Generator) -> list[Window]:
    """A part of windows with pixels of up to 160 m, real and drawn."""
    fine = [window for window in windows if window.gsd_m <= COARSE_FROM_M]
    coarse = Coarse([*fine, *(painter.draw(rng) for _ in range(DRAWN_FOR_COARSE))])
    return [coarse.draw(rng) for _ in range(PART)]


if __name__ == "__main__":
    main()
