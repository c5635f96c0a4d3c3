"""A whole codec that needs no training, for tests of every folder; fixtures only.

A block DCT in the place of the learned transform, random integers as its context model, numpy as its runtime. Every
stage before and after the networks is the real one, so a scene of small tiles goes through the whole line in a second.
"""

import json
import re
from dataclasses import dataclass, fields
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from payload.bundle import FORMAT_VERSION
from payload.codec.lapped.context_model import feature_count
from payload.scene import Dn, Mask, SceneInfo

TOY_TILE_PX = 64
TOY_LAYERS = 3


@dataclass(frozen=True, eq=False)
class ArrayScene:
    """A scene that is already in memory."""

    info: SceneInfo
    dn: Dn  # [B, H, W]
    valid: Mask  # [H, W]

    def read(self, row_px: int, col_px: int, height_px: int, width_px: int) -> tuple[Dn, Mask]:
        rows, cols = slice(row_px, row_px + height_px), slice(col_px, col_px + width_px)
        return self.dn[:, rows, cols], self.valid[rows, cols]


def random_counts(rng: np.random.Generator, symbols: int) -> np.ndarray:
    """Counts that sum to 2^24, none below 1."""
    counts = np.maximum(1, np.floor(rng.dirichlet(np.full(symbols, 0.7)) * (2**24 - symbols))).astype(np.int64)
    counts[counts.argmax()] += 2**24 - counts.sum()
    return counts


def random_tables(path: Path, bands: int = 4, layers: int = TOY_LAYERS, seed: int = 0) -> Path:
    """Entropy tables of small random integers, in the form that the workshop writes."""
    rng = np.random.default_rng(seed)
    channels, features = 64 * bands, feature_count(bands)
    order = np.argsort(np.tile(np.add.outer(np.arange(8), np.arange(8)).ravel(), bands), kind="stable")
    arrays: dict[str, np.ndarray] = {
        "order": order.astype(np.int16),
        "starts": np.array([0, bands, 10 * bands, 30 * bands], np.int16),
        "layers": np.array(layers, np.int8),
    }
    for k in range(layers):
        weights = {
            "weight": rng.integers(-9, 19, (channels, features)), "gain": rng.integers(-9, 19, (channels, 4)),
            "mix": rng.integers(0, 64, features), "floor": rng.integers(1, 60, 4),
            "base": rng.integers(-4000, 0, channels), "position": rng.integers(-900, 900, (bands, 8, 8)),
            "activity": rng.integers(-20, 60, channels), "worth": rng.integers(100, 140, 32),
        }  # fmt: skip
        weights["weight"][:, rng.random(features) < 0.3] = 0  # as trained models leave some out
        weights["gain"][:, rng.random(4) < 0.3] = 0
        arrays |= {f"{name}{k}": array for name, array in weights.items()}
        runs = [random_counts(rng, 1 + int(longest)) for longest in rng.choice([1, 2, 4, 8, 16, 32, 64], 32)]
        arrays[f"runs{k}"] = np.stack([np.pad(counts, (0, 65 - len(counts))) for counts in runs])
        for name, tables, symbols in (("refinement", 3, 2), ("size", 8, 16)):
            arrays[f"{name}{k}"] = np.stack([random_counts(rng, symbols) for _ in range(tables)])
    np.savez_compressed(path, **arrays)  # type: ignore[arg-type]
    return path


def dct_basis() -> np.ndarray:
    """8 x 8 DCT-II, row k the k-th function. [64, 8, 8]"""
    k, m = np.arange(8)[:, None], np.arange(8)[None]
    line = np.cos(np.pi * (2 * m + 1) * k / 16) * np.where(k, 0.5, np.sqrt(1 / 8))
    return np.einsum("ar,bc->abrc", line, line).reshape(64, 8, 8)


def dct_kernels() -> np.ndarray:
    """The DCT in the middle of each 16 x 16 window, integers in units of 2^-8. [64, 16, 16]"""
    kernels = np.zeros((64, 16, 16))
    kernels[:, 4:12, 4:12] = np.rint(256 * dct_basis())
    return kernels


class ToyTransform:
    """In the encoder's place."""

    def __init__(self) -> None:
        self.kernels = dct_kernels()

    def run(self, *inputs: np.ndarray) -> list[np.ndarray]:
        planes = inputs[0].astype(np.float64)  # [2B, 64, n + 1, n + 1]
        n = planes.shape[2] - 1
        found = 0.0
        for i in range(2):
            for j in range(2):
                tap = self.kernels[:, 8 * i : 8 * i + 8, 8 * j : 8 * j + 8].reshape(64, 64)
                found = found + np.einsum("kc,bcyx->bkyx", tap, planes[:, :, i : i + n, j : j + n])
        return [(found / 256).astype(np.float32)]


class ToySynthesis:
    """In the decoder's place: the inverse DCT. Levels [1, 64 B, n, n] -> [1, B, 8 n, 8 n]. A picture may come before
    levels and depth; it is not looked at."""

    def run(self, *inputs: np.ndarray) -> list[np.ndarray]:
        levels = inputs[-2][0]
        bands, n = len(levels) // 64, levels.shape[1]
        blocks = np.einsum("krc,bkyx->byrxc", dct_basis(), levels.reshape(bands, 64, n, n))
        return [blocks.reshape(1, bands, 8 * n, 8 * n).astype(np.float32)]


class ToyClouds:
    """In the cloud network's place: a tile bright on the whole is thick cloud all over, another one is clear."""

    def run(self, *inputs: np.ndarray) -> list[np.ndarray]:
        planes = inputs[0][0]  # [2B, T/2, T/2]
        side = planes.shape[1] // 4
        logits = np.full((1, 64, side, side), -100, np.int8)
        winner = 16 if planes[: len(planes) // 2].mean() > 160 else 0  # 16 sub-cells a class; clear, thick, ...
        logits[:, winner : winner + 16] = 100
        return [logits]


class ToyEngine:
    name, version = "toy", "0"

    def load(self, path: Path, require_int8: bool = False, shape: tuple[int, ...] | None = None) -> Any:
        return {"encoder": ToyTransform, "decoder": ToySynthesis, "clouds": ToyClouds}[path.stem]()


def write_bundle(directory: Path, files: dict[str, bytes], **changes: Any) -> Path:
    """A bundle of any files with a right manifest; `changes` go into the manifest."""
    for name, octets in files.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(octets)
    manifest = {
        "format_version": FORMAT_VERSION, "name": "toy", "bands": ["B02", "B03", "B04", "B08"], "tile_px": TOY_TILE_PX,
        "codec": {"kind": "fsq", "layers": TOY_LAYERS},
        "files": {name: sha256(octets).hexdigest() for name, octets in files.items()},
    }  # fmt: skip
    (directory / "manifest.json").write_text(json.dumps(manifest | changes))
    return directory


@pytest.fixture(scope="session")
def toy_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle without a cloud gate."""
    directory = tmp_path_factory.mktemp("toy")
    tables = random_tables(directory / "tables.npz").read_bytes()
    networks = {"flight/encoder.onnx": b"toy", "ground/decoder.onnx": b"toy"}
    return write_bundle(directory / "bundle", {"flight/tables.npz": tables, **networks})


@pytest.fixture(scope="session")
def toy_bundle_with_gate(toy_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with the toy cloud network."""
    names = ("flight/tables.npz", "flight/encoder.onnx", "ground/decoder.onnx")
    files = {name: (toy_bundle / name).read_bytes() for name in names} | {"flight/clouds.onnx": b"toy"}
    return write_bundle(tmp_path_factory.mktemp("gated") / "bundle", files, clouds={})


@pytest.fixture(scope="session")
def toy_engine() -> ToyEngine:
    return ToyEngine()


@pytest.fixture
def make_bundle() -> Any:
    return write_bundle


@pytest.fixture(scope="session")
def make_tables() -> Any:
    return random_tables


@pytest.fixture
def toy_kernels() -> np.ndarray:
    return dct_kernels().astype(np.int8)


@pytest.fixture
def make_counts() -> Any:
    return random_counts


@pytest.fixture
def write_scene() -> Any:
    """Writes pixels [4, H, W] as a georeferenced GeoTIFF."""

    def write(path: Path, dn: np.ndarray, nodata: int | None = 0) -> Path:
        import rasterio

        profile = {"driver": "GTiff", "count": len(dn), "height": dn.shape[1], "width": dn.shape[2], "dtype": dn.dtype}
        place = {"crs": "EPSG:32631", "transform": rasterio.Affine(10, 0, 500_000, 0, -10, 4_600_000)}
        with rasterio.open(path, "w", **profile, **place, nodata=nodata) as file:
            file.write(dn)
            file.descriptions = ("B02", "B03", "B04", "B08")[: len(dn)]
        return path

    return write


@pytest.fixture
def write_mission() -> Any:
    """Writes the reference mission over a link without losses, of packets alone or with its frames; `changes` replace
    values or add to the policy."""

    def write(path: Path, frames: bool = False, **changes: float | int | str) -> Path:
        from sim.link.link import Link

        text = (Path(__file__).parents[1] / "sim" / "missions" / "phisat2.toml").read_text()
        text = re.sub(r"(?m)^trusted_keys = .*\n", "", text)  # toys are signed by nobody
        text = re.sub(r"^\[link\.burst\].*?(?=^\[)", "", text, flags=re.DOTALL | re.MULTILINE)
        if not frames:
            text = re.sub(r"^\[link\.stack\].*?(?=^\[)", "", text, flags=re.DOTALL | re.MULTILINE)
        link_keys = {field.name for field in fields(Link)}
        for key, value in ({"packet_loss": 0.0, "frame_loss": 0.0, "bit_error_rate": 0.0} | changes).items():
            text, found = re.subn(rf"^{key} = [^ #\n]*", f"{key} = {value}", text, flags=re.MULTILINE)
            if not found:
                table = "link" if key in link_keys else "policy"
                text = text.replace(f"\n[{table}]\n", f"\n[{table}]\n{key} = {value}\n")
        path.write_text(text)
        return path

    return write


@pytest.fixture
def toy_line(toy_bundle_with_gate: Path, toy_engine: ToyEngine, write_scene: Any, write_mission: Any,
             monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:  # fmt: skip
    """Scene to ground with the toy codec: pixels and changes of the mission -> report, and the folder it is in."""
    from sim import downlink

    monkeypatch.setattr("sim.onboard.engine_choice.open_engine", lambda name: toy_engine)

    def run(
        dn: np.ndarray, name: str = "run", seed: int = 0, out: str | None = None, **changes: Any
    ) -> tuple[dict[str, Any], Path]:
        scene = write_scene(tmp_path / f"{name}.tif", dn)
        mission = write_mission(tmp_path / f"{name}.toml", **changes)
        folder = tmp_path / (out or name)
        request = downlink.Request(str(scene), folder, str(mission), str(toy_bundle_with_gate), seed=seed)
        report = downlink.downlink(request, lambda label, total: None)
        return report, folder

    return run


@pytest.fixture
def ground_of() -> Any:
    """Rolling ground [4, rows T, cols T] with a little noise, DN 300 to 4000, tiles in `bright` as bright as cloud."""

    def build(rows: int, cols: int, bright: tuple[tuple[int, int], ...] = (), seed: int = 0) -> np.ndarray:
        y, x = np.mgrid[: rows * TOY_TILE_PX, : cols * TOY_TILE_PX]
        relief = 1500 + 500 * np.sin(x / 17) * np.cos(y / 23) + 200 * np.sin((x + 2 * y) / 5)
        noise = np.random.default_rng(seed).normal(0, 15, (4, *y.shape))
        dn = relief * np.array([0.5, 0.7, 0.8, 1.9])[:, None, None] + noise
        for row, col in bright:
            dn[:, row * TOY_TILE_PX : (row + 1) * TOY_TILE_PX, col * TOY_TILE_PX : (col + 1) * TOY_TILE_PX] += 12_000
        return dn.astype(np.uint16)

    return build


class BrightIsCloud:
    """In the place of the cloud network's teacher: bright is cloud, and there is no shadow."""

    def __call__(self, dn: np.ndarray, level: str) -> np.ndarray:
        cloud = (dn[0] > 3000.0).astype(np.float32)
        return np.stack([1.0 - cloud, cloud, 0.0 * cloud])
