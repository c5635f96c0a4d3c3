"""What trials work on: a payload, a small scene, and what comes of it when nothing is hit."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from payload.bundle import Bundle, load_bundle
from payload.engine import NATIVE, open_engine
from payload.errors import BundleError
from payload.guard.telemetry import Count, pack_event
from payload.guard.vector import ground_like
from payload.link.tile_code import Kind, TileCode
from payload.native import library
from payload.pipeline import Payload
from payload.policy import Gate, Policy, Protection
from payload.scene import SceneInfo
from sim.faults.outcomes import Outcome

#: Every tile is sent, so that a wrong gate shows as a tile that is missing.
POLICY = Policy(gate=Gate(audit_count=0))
PEAK_DN = 10_000.0


@dataclass(eq=False)
class SmallScene:
    """Tiles under each other. `before`: what happens before a row of tiles is handed over."""

    info: SceneInfo
    dn: NDArray[np.uint16]
    tile_px: int
    before: dict[int, Callable[[], None]] = field(default_factory=dict)

    def read(self, row_px: int, col_px: int, height_px: int, width_px: int) -> tuple[NDArray[Any], NDArray[Any]]:
        self.before.pop(row_px // self.tile_px, lambda: None)()
        dn = self.dn[:, row_px : row_px + height_px, col_px : col_px + width_px]
        return dn, np.ones(dn.shape[1:], bool)


class KernelAlone:
    """An engine without a runtime: the kernel has the encoder, and no network is ever run. It may be forked."""

    name, version = NATIVE, "none"

    def load(self, path: Path, require_int8: bool = False, shape: tuple[int, ...] | None = None) -> "KernelAlone":
        return self

    def run(self, *inputs: NDArray[Any]) -> list[NDArray[Any]]:
        raise BundleError("this engine runs no network")


@dataclass(eq=False)
class World:
    """A payload that is hit, and the tile codes that it should give."""

    bundle: Bundle
    policy: Policy
    payload: Payload
    scene: SmallScene
    clean: list[TileCode]
    clean_s: float

    def fresh(self, protection: Protection | None) -> Payload:
        """Another payload of the same kind, with its own memory."""
        return Payload(self.bundle, self.policy, open_engine(engine_name()), protection)


def engine_name() -> str:
    return NATIVE if library.available else "onnxruntime"


def small_scene(bundle: Bundle, tiles: int) -> SmallScene:
    """Ground-like tiles, one below the other, each a little brighter."""
    tile = ground_like(len(bundle.bands), bundle.tile_px)
    dn = np.concatenate([np.roll(tile, 37 * k, axis=2) + 90 * k for k in range(tiles)], axis=1).astype(np.uint16)
    return SmallScene(SceneInfo("trial", dn.shape[1], dn.shape[2], bundle.bands, 10.0), dn, bundle.tile_px)


@lru_cache(maxsize=4)
def world(bundle_name: str = "edge", tiles: int = 2, forked: bool = False, policy: Policy = POLICY) -> World:
    """`forked`: no runtime is loaded, so that the process may be forked; the bundle's gate is left out."""
    bundle = load_bundle(bundle_name)
    if forked:
        manifest = {key: value for key, value in bundle.manifest.items() if key != "clouds"}
        bundle = replace(bundle, manifest=manifest)
    engine = KernelAlone() if forked and library.available else open_engine(engine_name())
    payload = Payload(bundle, policy, engine)
    scene = small_scene(bundle, tiles)
    list(payload.tile_codes(scene))
    start = time.perf_counter()
    clean = list(payload.tile_codes(scene))
    return World(bundle, policy, payload, scene, clean, time.perf_counter() - start)


def judged(here: World, payload: Payload, codes: list[TileCode], seconds: float, detected: bool) -> Outcome:
    """The outcome of codes beside the clean ones."""
    right = codes == here.clean
    missing = (Kind.OMITTED, Kind.EMPTY)
    pairs = list(zip(codes, here.clean, strict=False))
    wrong = [(code, wanted) for code, wanted in pairs if code != wanted and code.kind not in missing]
    wrong = [(code, wanted) for code, wanted in wrong if code.kind is not Kind.FALLBACK]
    return Outcome(
        right, detected, hole=not right and not wrong and len(codes) == len(here.clean),
        window_wrong=payload.telemetry.counts[Count.RECODED_OTHERWISE],
        quality_db=min((quality_db(here, *pair) for pair in wrong), default=None),
        octets=telemetry_octets(payload) if detected else 0, seconds=max(0.0, seconds - here.clean_s),
    )  # fmt: skip


def telemetry_octets(payload: Payload) -> int:
    """Octets of the events that wait, and of one housekeeping record."""
    events = sum(len(pack_event(event)) for event in payload.telemetry.waiting)
    return events + len(payload.sender.record())


def quality_db(here: World, code: TileCode, wanted: TileCode) -> float:
    """PSNR of a tile beside the one that it should be, both without a ground network; 0 where it cannot be decoded."""
    codec = here.payload.codec
    if not code.layers or codec.ground_network is None or here.bundle.codec["kind"] != "fsq":
        return 0.0
    try:
        decoded = (codec.reconstruct(codec.decode(c.side, c.base_layers), None) for c in (code, wanted))
        pictures = [dn.astype(np.float64) for dn in decoded]
    except Exception:  # octets of a payload that was hit may be anything
        return 0.0
    mse = float(((pictures[0] - pictures[1]) ** 2).mean())
    return float(10 * np.log10(PEAK_DN**2 / max(mse, 1e-3)))
