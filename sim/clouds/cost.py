"""What it saves to flatten closed cloud in tiles that are sent: octets at equal clear-pixel PSNR, tile by tile.

Every partly cloudy tile of a scene is coded twice at the same quantiser step, as it is and flattened; both are decoded
by the ground's own decoder, and the error is taken over the pixels that are not cloud.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from payload.bundle import Bundle
from payload.clouds.gate import detect_clouds, flatten_clouds
from payload.clouds.network import load_cloud_net
from payload.engine import Engine
from payload.link.tile_code import TileCode, pack
from payload.pipeline import Payload
from payload.policy import Gate, Policy
from payload.tiles import Tile, split
from sim.ground.decoder import Decoder
from sim.metrics.distortion import psnr_db
from sim.scenes.open_scene import open_scene

#: Tiles between these cloud fractions are measured: below there is nothing to save, above the gate withholds.
PARTLY = (0.05, 0.70)


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
    everything = Gate(withhold_above_percent=100.0, audit_count=0)
    payload = Payload(bundle, Policy(step_dn=step_dn, gate=everything), engine)
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
