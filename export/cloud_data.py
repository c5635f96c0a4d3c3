"""Samples for the cloud network: labelled tiles, clouds drawn over clear tiles, clear tiles as they are.

Labels come from Sen2Cor's scene classification (SCL), which is a reference and not the truth: medium-confidence cloud
next to clear ground, cells whose pixels disagree and "snow" are ignored (away from mountains it is mostly cloud), and
classes that RGB and near infrared cannot tell (unclassified, thin cirrus seen at 1.38 um only) weigh little. Drawn
clouds have exact labels: a cumulus or cirrus field of fractal noise, or the texture of a real overcast tile, over a
clear tile of any biome, its shadow cast along one sun direction by one cloud height.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.data import data_folder
from payload.clouds import CloudSettings, input_planes

F32 = NDArray[np.float32]

#: SCL class -> (clear, thick, thin, shadow) and how much it counts. Classes 0, 1 and 255 count nothing.
SCL_TARGETS: dict[int, tuple[tuple[float, float, float, float], float]] = {
    2: ((1.0, 0.0, 0.0, 0.0), 0.4),  # dark: often terrain shadow
    3: ((0.0, 0.0, 0.0, 1.0), 1.0),
    4: ((1.0, 0.0, 0.0, 0.0), 1.0),
    5: ((1.0, 0.0, 0.0, 0.0), 1.0),
    6: ((1.0, 0.0, 0.0, 0.0), 1.0),
    7: ((0.7, 0.1, 0.2, 0.0), 0.2),
    8: ((0.1, 0.6, 0.3, 0.0), 0.6),
    9: ((0.0, 1.0, 0.0, 0.0), 1.0),
    10: ((0.2, 0.0, 0.8, 0.0), 0.15),
}
CLOUD_MEDIUM, CLEAR_CLASSES, CLOUD_CLASSES = 8, (4, 5, 6), (8, 9, 10)
#: Overcast without a classification: real cloud texture. Its other uses are left out.
OVERCAST_SITE = "cloudmask_chip_100909"
#: Cloud over sea without a classification, and a day of thin cloud over snow: looked at, never trained on as clear.
UNLABELLED = ("cloudmask_chip_102871", "montcalm_2016-01-12", OVERCAST_SITE)


@dataclass(frozen=True, eq=False)
class Labelled:
    """One tile with its classification."""

    dn: NDArray[np.uint16]  # [4, T, T]
    scl: NDArray[np.uint8]  # [T, T]
    site: str
    gsd_m: int


@dataclass(frozen=True, eq=False)
class CloudPool:
    """Everything the cloud network may see: labelled tiles, clear tiles and overcast texture."""

    labelled: list[Labelled]
    clear: list[Labelled]  # scl 0 throughout
    overcast: list[NDArray[np.uint16]]  # [4, 128, 128] each

    def without(self, sites: set[str]) -> "CloudPool":
        """The pool less some sites; overcast texture from labelled tiles goes with its site."""
        labelled = [t for t in self.labelled if t.site not in sites]
        texture = [t.dn for t in labelled if t.gsd_m == 10 and t.scl.shape[0] == 128 and _overcast(t.scl)]
        return CloudPool(labelled, [t for t in self.clear if t.site not in sites], self.overcast + texture)

    def only(self, sites: set[str]) -> "CloudPool":
        return CloudPool(
            [t for t in self.labelled if t.site in sites], [t for t in self.clear if t.site in sites], self.overcast
        )


def _overcast(scl: NDArray[np.uint8]) -> bool:
    return bool(np.isin(scl, (8, 9)).mean() > 0.99)


def load_cloud_pool() -> CloudPool:
    """The labelled tiles of both archives, the clear tiles, and the overcast chip."""
    labelled, clear, overcast = [], [], []
    with np.load(data_folder() / "train" / "tiles128.npz") as data:
        rows = zip(data["x"], data["scl"], data["site"], data["src"], data["res_m"], strict=True)
        for dn, scl, site, src, gsd_m in rows:
            if (scl != 255).any():
                labelled.append(Labelled(dn, np.where(scl == 255, 0, scl).astype(np.uint8), str(site), int(gsd_m)))
            elif site == OVERCAST_SITE:
                overcast.append(dn)
            elif site not in UNLABELLED and src not in UNLABELLED:
                clear.append(Labelled(dn, np.zeros_like(scl), str(site), int(gsd_m)))
    with np.load(data_folder() / "cloud" / "worldcereal64.npz") as data:
        for dn, scl, site in zip(data["x"], data["scl"], data["site"], strict=True):
            labelled.append(Labelled(dn, scl, str(site), 10))
    return CloudPool(labelled, clear, overcast)


def scl_targets(scl: NDArray[np.uint8], cell_px: int = 2) -> tuple[F32, F32]:
    """SCL [T, T] -> targets [4, T/c, T/c] and weights [T/c, T/c]; mixed cells and doubtful borders weigh 0."""
    table = np.zeros((256, 4), np.float32)
    weigh = np.zeros(256, np.float32)
    for label, (target, weight) in SCL_TARGETS.items():
        table[label], weigh[label] = target, weight
    n = scl.shape[0] // cell_px
    blocks = scl.reshape(n, cell_px, n, cell_px).transpose(0, 2, 1, 3).reshape(n, n, -1)
    kinds = table.argmax(axis=1)[blocks]
    agreed = (kinds == kinds[:, :, :1]).all(axis=2) & (weigh[blocks] > 0).all(axis=2)
    near_clear = _beside(np.asarray(np.isin(blocks, CLEAR_CLASSES).any(axis=2)))
    doubtful = (blocks == CLOUD_MEDIUM).any(axis=2) & near_clear
    weights = weigh[blocks].mean(axis=2) * agreed * ~doubtful
    return np.asarray(table[blocks].mean(axis=2).transpose(2, 0, 1)), np.asarray(weights)


def _beside(cells: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Cells that are set or touch a set one. [n, n]"""
    wide = np.pad(cells, 1)
    rows = wide[:-2] | wide[1:-1] | wide[2:]
    return np.asarray(rows[:, :-2] | rows[:, 1:-1] | rows[:, 2:])


def fractal(size_px: int, rng: np.random.Generator, slope: float, stretch: float = 1.0, angle: float = 0.0) -> F32:
    """Noise with a power-law spectrum, mean 0, deviation 1, `stretch` times longer along `angle`. [size, size]"""
    v, u = np.meshgrid(np.fft.fftfreq(size_px), np.fft.rfftfreq(size_px), indexing="ij")
    along, across = u * np.cos(angle) + v * np.sin(angle), v * np.cos(angle) - u * np.sin(angle)
    radius = np.sqrt((along * stretch) ** 2 + across**2 + (0.4 / size_px) ** 2)
    phases = rng.normal(size=radius.shape) + 1j * rng.normal(size=radius.shape)
    field = np.fft.irfft2(phases * radius**-slope, s=(size_px, size_px))
    return ((field - field.mean()) / field.std()).astype(np.float32)


def draw_opacity(size_px: int, rng: np.random.Generator) -> F32:
    """Opacity 0..1 of a cloud field on a canvas of size_px. [size, size]"""
    cover = rng.uniform(0.05, 0.95)
    kind = rng.choice(3, p=(0.5, 0.2, 0.3))
    if kind == 0:  # cumulus: sharp edges, thick middles
        field = fractal(size_px, rng, rng.uniform(1.3, 2.1))
        edge = rng.uniform(0.1, 0.5)
        top = 1.0
    elif kind == 1:  # stratus: wide soft edges
        field, edge, top = fractal(size_px, rng, rng.uniform(1.9, 2.6)), rng.uniform(0.5, 1.5), 1.0
    else:  # cirrus: long threads that never close
        field = fractal(size_px, rng, rng.uniform(1.4, 2.2), rng.uniform(2.0, 7.0), rng.uniform(0.0, np.pi))
        edge, top = rng.uniform(0.8, 2.5), rng.uniform(0.2, 0.7)
    return np.clip((field - np.quantile(field, 1.0 - cover)) / edge, 0.0, 1.0).astype(np.float32) * np.float32(top)


def composite(
    ground: NDArray[np.uint16], pool: CloudPool, rng: np.random.Generator, cell_px: int = 2
) -> tuple[F32, F32, F32]:
    """A cloud field with its shadow over a clear tile: dn [4, T, T] f32, targets [4, T/c, T/c], weights [T/c, T/c]."""
    size = ground.shape[1]
    height_px = rng.uniform(3.0, 0.3 * size)
    azimuth = rng.uniform(0.0, 2.0 * np.pi)
    shift = np.round(height_px * np.array((np.sin(azimuth), np.cos(azimuth)))).astype(int)
    margin = size // 3
    canvas = draw_opacity(size + 2 * margin, rng)
    opacity = canvas[margin : margin + size, margin : margin + size]
    cast = canvas[margin + shift[0] :, margin + shift[1] :][:size, :size]
    direct = rng.uniform(0.45, 0.85) * np.array((0.75, 0.9, 1.0, 1.05))  # blue skylight fills shadows
    lit = ground * (1.0 - np.minimum(direct, 0.9)[:, None, None] * cast)
    dn = lit * (1.0 - opacity) + _cloud_dn(size, pool, rng) * opacity
    return dn.astype(np.float32), *_composite_targets(opacity, cast, cell_px)


def _cloud_dn(size_px: int, pool: CloudPool, rng: np.random.Generator) -> F32:
    """What a closed cloud looks like: a real overcast tile at another brightness, or drawn. [4, T, T]"""
    if pool.overcast and rng.random() < 0.5:
        texture = pool.overcast[rng.integers(len(pool.overcast))][:, :size_px, :size_px].astype(np.float32)
        return _turned(texture, int(rng.integers(4)), False) * np.float32(rng.uniform(0.6, 1.3))
    tint = 1.0 + rng.normal(0.0, 0.03, 4) + rng.normal(0.0, 0.06) * np.linspace(1.0, -1.0, 4)
    relief = 1.0 + rng.uniform(0.02, 0.2) * fractal(size_px, rng, rng.uniform(1.2, 2.2))
    return (rng.uniform(2800.0, 9500.0) * tint[:, None, None] * np.maximum(relief, 0.3)).astype(np.float32)


def _composite_targets(opacity: F32, cast: F32, cell_px: int) -> tuple[F32, F32]:
    n = opacity.shape[0] // cell_px

    def cells(plane: F32) -> F32:
        return np.asarray(plane.reshape(n, cell_px, n, cell_px).mean(axis=(1, 3)))

    cloud, shadow = cells(opacity), cells(cast)
    thick, thin = cloud > 0.6, (cloud > 0.2) & (cloud <= 0.6)
    dark = (cloud < 0.05) & (shadow > 0.45)
    clear = (cloud < 0.05) & (shadow < 0.1)
    targets = np.stack([clear, thick, thin, dark]).astype(np.float32)
    return targets, np.asarray(targets.sum(axis=0))


def bleach(ground: NDArray[np.uint16], rng: np.random.Generator) -> NDArray[np.uint16]:
    """Pale ground: dry sand, salt, roofs, snow, glint. Cloud's brightness and colour, but the texture of the ground.

    Tiles without texture are left as they are: bleached, they could be stratus.
    """
    dn = ground.astype(np.float32)
    grey = dn.mean(axis=0)
    level = float(np.median(grey))
    if grey.std() < 0.08 * level or level < 50.0:
        return ground
    wanted = rng.uniform(1800.0, 8500.0)
    paleness = rng.uniform(0.3, 1.0)
    tint = 1.0 + rng.uniform(-0.15, 0.25) * np.linspace(-1.0, 1.0, 4)  # sand reddens, snow darkens to the near infrared
    pale = paleness * grey + (1.0 - paleness) * dn
    return np.clip(pale * tint[:, None, None] * (wanted / level), 0.0, 16_000.0).astype(np.uint16)


def degrade(dn: F32, rng: np.random.Generator) -> NDArray[np.uint16]:
    """Another sensor, another sky: gains, path radiance, noise, clipping; rotations stay with the caller."""
    gain = np.exp(rng.normal(0.0, 0.10) + rng.normal(0.0, 0.04, 4))
    dn = dn * gain[:, None, None].astype(np.float32)
    if rng.random() < 0.3:  # top of the atmosphere instead of the ground
        air = rng.uniform(0.2, 1.0) * np.array((700.0, 350.0, 180.0, 60.0))
        dn = dn + air[:, None, None].astype(np.float32)
    if rng.random() < 0.3:
        dn = dn + rng.normal(0.0, rng.uniform(5.0, 40.0), dn.shape).astype(np.float32)
    ceiling = 10000.0 if rng.random() < 0.3 else 65535.0
    return np.clip(dn, 0.0, ceiling).astype(np.uint16)


class Sampler:
    """Draws training batches; everything random comes from the generator given to `batch`."""

    def __init__(self, pool: CloudPool, recipe: dict[str, Any], settings: CloudSettings) -> None:
        self.pool, self.settings = pool, settings
        self.size, self.mix = int(recipe["crop_px"]), recipe["mix"]
        self.weights = np.array([_interest(t) for t in pool.labelled])
        self.weights /= self.weights.sum()
        sites, counts = np.unique([t.site for t in pool.clear], return_counts=True)
        share = dict(zip(sites, 1.0 / np.sqrt(counts), strict=True))
        self.clear_weights = np.array([share[t.site] for t in pool.clear])
        self.clear_weights /= self.clear_weights.sum()

    def batch(self, size: int, rng: np.random.Generator) -> tuple[NDArray[np.uint8], F32, F32]:
        """planes u8 [N, 8, T, T], targets [N, 4, t, t], weights [N, t, t]."""
        samples = [self._sample(rng) for _ in range(size)]
        planes, targets, weights = (np.stack(part) for part in zip(*samples, strict=True))
        return planes, targets, weights

    def _sample(self, rng: np.random.Generator) -> tuple[NDArray[np.uint8], F32, F32]:
        draw = rng.random()
        if draw < self.mix["labelled"]:
            dn, targets, weights = self._labelled(rng)
        else:
            ground = self.pool.clear[rng.choice(len(self.pool.clear), p=self.clear_weights)].dn
            if rng.random() < self.mix["bleached"]:
                ground = bleach(ground, rng)
            if draw < self.mix["labelled"] + self.mix["composited"]:
                dn, targets, weights = composite(ground, self.pool, rng, self.settings.cell_px)
            else:
                dn, targets, weights = ground.astype(np.float32), *self._all_clear()
        turn, flip = int(rng.integers(4)), bool(rng.integers(2))
        dn, targets, weights = (_turned(a, turn, flip) for a in (dn, targets, weights))
        return self._planes(degrade(dn, rng), weights, rng), targets, weights

    def _planes(self, dn: NDArray[np.uint16], weights: F32, rng: np.random.Generator) -> NDArray[np.uint8]:
        valid = np.ones(dn.shape[1:], bool)
        if rng.random() < 0.06:  # the swath ends inside the tile
            edge = int(rng.integers(self.size // 8, self.size))
            valid[:, edge:] = False
            weights[:, edge // self.settings.cell_px :] = 0.0
        planes = input_planes(dn, valid, self.settings)
        return np.zeros((8, *valid.shape), np.uint8) if planes is None else planes

    def _all_clear(self) -> tuple[F32, F32]:
        n = self.size // self.settings.cell_px
        targets = np.zeros((4, n, n), np.float32)
        targets[0] = 1.0
        return targets, np.ones((n, n), np.float32)

    def _labelled(self, rng: np.random.Generator) -> tuple[F32, F32, F32]:
        tile = self.pool.labelled[rng.choice(len(self.weights), p=self.weights)]
        scale = 0.4 if tile.gsd_m > 20 else 1.0
        if tile.dn.shape[1] == self.size:
            targets, weights = scl_targets(tile.scl, self.settings.cell_px)
            return tile.dn.astype(np.float32), targets, weights * scale
        small = [t for t in self.pool.labelled if t.dn.shape[1] * 2 == self.size]
        four = [small[i] for i in rng.integers(len(small), size=4)]
        dn = _quilt([t.dn.astype(np.float32) for t in four])
        parts = [scl_targets(t.scl, self.settings.cell_px) for t in four]
        return dn, _quilt([t for t, _ in parts]), _quilt([_without_margin(w) for _, w in parts])


def _interest(tile: Labelled) -> float:
    """How often a labelled tile is drawn: partly cloudy ones more, coarse ones and quilt pieces (64 px) less."""
    cloud = np.isin(tile.scl, CLOUD_CLASSES).mean()
    partly = 1.5 if 0.03 < cloud < 0.97 else 1.0
    return partly * (0.5 if tile.gsd_m > 20 else 1.0) * (0.5 if tile.dn.shape[1] < 128 else 1.0)


def _without_margin(weights: F32, cells: int = 3) -> F32:
    """Nothing is learnt along a quilt's seams."""
    inner = np.zeros_like(weights)
    inner[cells:-cells, cells:-cells] = weights[cells:-cells, cells:-cells]
    return inner


def _quilt(parts: list[F32]) -> F32:
    top, bottom = np.concatenate(parts[:2], axis=-1), np.concatenate(parts[2:], axis=-1)
    return np.concatenate([top, bottom], axis=-2)


def _turned(array: F32, turn: int, flip: bool) -> F32:
    turned = np.rot90(array, turn, (-2, -1))
    return np.ascontiguousarray(turned[..., ::-1] if flip else turned)
