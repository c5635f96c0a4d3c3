"""Tables of coded tiles as a codec might make them, so that the planner can be tried without one."""

from collections.abc import Sequence

import numpy as np

from payload.scene import SceneInfo
from sim.planning.coded import CodedScenes
from sim.planning.table import TileTable


def table(
    rows: Sequence[Sequence[float]], withheld: Sequence[int] = (), clear_px: Sequence[float] | None = None,
    errors: Sequence[float] = (0.05, 0.01), records: float = 0.0, scene: np.ndarray | None = None,
) -> TileTable:  # fmt: skip
    """Tiles with the octets of their layers; the same errors after each layer."""
    octets = np.array(rows, float)
    count, layers = octets.shape
    ndvi = np.tile(np.array(errors[:layers]), (count, 1))
    clear = np.full(count, 60_000.0) if clear_px is None else np.array(clear_px, float)
    of = np.zeros(count, np.int64) if scene is None else np.array(scene)
    left = np.concatenate([np.full((count, 1), 1e5), 1e6 * ndvi**2], axis=1)
    value = np.minimum.accumulate(-np.diff(left, axis=1) * 65_536.0 / octets, axis=1)
    return TileTable(
        of, octets, value, ndvi, 1e6 * ndvi**2, np.full(count, 1e5), clear, np.full(count, 65_536.0),
        np.isin(np.arange(count), withheld), np.full(count, layers), np.full(1 + of.max(), records),
    )  # fmt: skip


def made_up_scenes(names: Sequence[str], *_: object) -> CodedScenes:
    """Scenes of three tiles, one of them withheld; lossless takes thirty times as much."""
    count = 3 * len(names)
    scene = np.repeat(np.arange(len(names)), 3)
    ours = table([[800, 2400, 4800]] * count, [2], errors=(0.05, 0.03, 0.019), records=300.0, scene=scene)
    lossless = table([[200_000]] * count, [2], errors=(0.0,), scene=scene)
    jpeg = table([[20_000]] * count, [2], errors=(0.019,), scene=scene)
    infos = tuple(SceneInfo(name, 768, 768, ("B02", "B03", "B04", "B08"), 10.0) for name in names)
    return CodedScenes(ours, lossless, jpeg, 300.0, infos, tuple(names))
