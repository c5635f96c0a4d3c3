"""What the gate costs and what it saves: processor time beside the coding, and octets of flattened cloud.

Every partly cloudy tile of a scene is coded twice at the same quantiser step, as it is and flattened; both are decoded
by the ground's own decoder, and the error is taken over the pixels that are not cloud.
"""

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from payload.bundle import SHIPPED, Bundle, load_bundle
from payload.clouds.gate import detect_clouds, flatten_clouds
from payload.clouds.network import CloudNet, load_cloud_net
from payload.engine import NATIVE, Engine, open_engine
from payload.link.tile_code import TileCode, pack
from payload.native import library
from payload.pipeline import Payload
from payload.policy import SENDS_EVERYTHING, Policy
from payload.tiles import Tile, split
from sim.clouds.figures import WITHHELD_ABOVE
from sim.clouds.judged import Candidate, tile_of
from sim.clouds.samples import SCENE
from sim.ground.decoder import Decoder
from sim.metrics.distortion import psnr_db
from sim.scenes.open_scene import open_scene

#: Tiles and rounds of the gate's cost, at steps from fine to coarse; the requirement is held against the one whose
#: compression ratio lies near 20, where `sim bench` compares speeds, too.
GATE_TILES, GATE_ROUNDS, GATE_STEPS_DN, GATE_RATIO = 12, 20, (60.0, 120.0, 200.0), 20.0


def _ramp(size_px: int) -> Tile:
    """Dark to bright, with noise."""
    rng = np.random.default_rng(0)
    ramp = np.linspace(300, 6000, size_px)[None, None, :] + rng.normal(0, 200, (4, size_px, size_px))
    return tile_of(np.maximum(ramp, 0).astype(np.uint16))


def ground_cost(by: Candidate, size_px: int = 256, repeats: int = 50) -> float:
    """Seconds of the processor a megapixel for what a user reads, DN to classes: best of `repeats` tiles."""
    tile, times = _ramp(size_px), []
    for _ in range(repeats):
        start = time.process_time()
        by.classes(tile.dn, detect_clouds(tile, by.net), 10.0)
        times.append(time.process_time() - start)
    return min(times) / size_px**2 * 1e6


def speed(net: CloudNet, size_px: int = 256, repeats: int = 200) -> float:
    """Megapixels a second on one core, DN to mask: best of `repeats` tiles, as other programs may share the core."""
    tile, times = _ramp(size_px), []
    for _ in range(repeats):
        start = time.perf_counter()
        _ = detect_clouds(tile, net).cloud_fraction
        times.append(time.perf_counter() - start)
    return size_px**2 / min(times) / 1e6


def bundle_at(where: str | Path) -> Bundle | None:
    """The bundle there or shipped by that name; None where only a network is."""
    folder = next((f for f in (Path(where), SHIPPED / str(where)) if (f / "manifest.json").is_file()), None)
    return None if folder is None else load_bundle(folder)


def gate_costs(data: Path, where: str | Path, engine: Engine) -> list[dict[str, float]]:
    """Processor time that the gate adds to the onboard line, on tiles of the scene that are all coded, per step.

    `added`: time with the gate over time without it, less 1, best of some rounds per tile, with and without by turns.
    The codec runs on the compiled kernel where that was built: the fastest it can, so the gate weighs the most. Nothing
    for a network outside a bundle, or without the scene.
    """
    bundle = bundle_at(where)
    if bundle is None or not (data / SCENE).is_file():
        return []
    engine = open_engine(NATIVE, 1) if library.available else engine
    with open_scene(str(data / SCENE), bundle.bands) as scene:
        tiles = [tile for tile in split(scene, bundle.tile_px) if tile.valid.all()][:GATE_TILES]
    return [_gate_cost(tiles, bundle, engine, step_dn) for step_dn in GATE_STEPS_DN] if tiles else []


def _gate_cost(tiles: list[Tile], bundle: Bundle, engine: Engine, step_dn: float) -> dict[str, float]:
    everything = replace(SENDS_EVERYTHING, flatten_clouds=True)  # as much as a gate can have to do
    payload = Payload(bundle, Policy(step_dn=step_dn, gate=everything), engine)
    gate, seconds = payload.clouds, np.full((2, len(tiles)), np.inf)
    for _ in range(GATE_ROUNDS):
        for gated in (0, 1):
            payload.clouds = gate if gated else None
            for i, tile in enumerate(tiles):
                start = time.process_time()
                payload.encode_tile(tile)
                seconds[gated, i] = min(seconds[gated, i], time.process_time() - start)
    without_s, with_s = (float(s) for s in seconds.sum(axis=1))
    octets = sum(len(pack(payload.encode_tile(tile))) for tile in tiles)
    ratio = sum(2 * tile.dn.size for tile in tiles) / octets
    per_tile_ms = 1000.0 * (with_s - without_s) / len(tiles)
    return {"step_dn": step_dn, "ratio": ratio, "gate_ms": per_tile_ms, "added": with_s / without_s - 1.0}


#: Tiles between these cloud fractions are measured: below there is nothing to save, above the gate withholds.
PARTLY = (0.05, WITHHELD_ABOVE)


@dataclass
class Tally:
    """Sums over tiles: octets, squared error and samples of clear pixels."""

    octets: int = 0
    squared_error: float = 0.0
    samples: int = 0
    tiles: int = 0

    def add(self, code: TileCode, decoded: NDArray[np.uint16], tile: Tile, clear: NDArray[np.bool_]) -> None:
        gap = decoded[:, clear].astype(np.float64) - tile.dn[:, clear]
        self.octets += len(pack(code))
        self.squared_error += float((gap**2).sum())
        self.samples += gap.size
        self.tiles += 1

    @property
    def clear_psnr_db(self) -> float | None:
        return psnr_db(self.squared_error / self.samples) if self.samples else None


def savings(scene_path: Path, bundle: Bundle, engine: Engine, step_dn: float = 120.0) -> dict[str, Any]:
    """Octets and clear-pixel PSNR of partly cloudy tiles, whole and flattened, and the share saved."""
    payload = Payload(bundle, Policy(step_dn=step_dn, gate=SENDS_EVERYTHING), engine)
    decoder, net = Decoder(bundle, engine), load_cloud_net(bundle, engine)
    tallies = {"whole": Tally(), "flattened": Tally()}
    with open_scene(str(scene_path), bundle.bands) as scene:
        for tile in split(scene, bundle.tile_px):
            mask = detect_clouds(tile, net)
            if tile.empty or not PARTLY[0] <= mask.cloud_fraction <= PARTLY[1]:
                continue
            clear = tile.valid & ~mask.cloudy
            for name, sent in (("whole", tile), ("flattened", flatten_clouds(tile, mask))):
                code = payload.encode_tile(sent)
                tallies[name].add(code, decoder.decode_tile(code), tile, clear)
    whole, flat = tallies["whole"], tallies["flattened"]
    return {
        "tiles": whole.tiles,
        "step_dn": step_dn,
        "octets": {name: t.octets for name, t in tallies.items()},
        "clear_psnr_db": {name: t.clear_psnr_db for name, t in tallies.items()},
        "saved": 1.0 - flat.octets / whole.octets if whole.octets else None,
    }
