"""Samples for the cloud network: labelled tiles, clouds drawn over clear tiles, clear tiles as they are.

Labels come from Sen2Cor's scene classification (SCL), which is a reference and not the truth, and one reading of it is
used to learn, to choose thresholds and to measure (`firm`; sim.clouds.samples says why). Drawn clouds have exact
labels: cumulus, stratus, cirrus, closed cloud or a veil, of fractal noise or the texture of a real overcast tile, over
a clear tile of any biome, the shadow cast along one sun direction by one cloud height.

Everything is drawn on the grid the network sees, averages of 2 x 2 pixels: a quarter of the work, the same result.
"""

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.data import data_folder
from payload.clouds.gate import BIN_PX, CLEAR, SHADOW, THICK, THIN, CloudSettings, bin_sums, planes_of

F32 = NDArray[np.float32]
Bool = NDArray[np.bool_]

#: SCL class -> (clear, thick, thin, shadow) and how much it counts. Classes 0, 1, 7, 10, 11 and 255 count nothing.
SCL_TARGETS: dict[int, tuple[tuple[float, float, float, float], float]] = {
    2: ((1.0, 0.0, 0.0, 0.0), 0.4),  # dark: often terrain shadow
    3: ((0.0, 0.0, 0.0, 1.0), 0.6),  # dark fields among them
    4: ((1.0, 0.0, 0.0, 0.0), 1.0),
    5: ((1.0, 0.0, 0.0, 0.0), 1.0),
    6: ((1.0, 0.0, 0.0, 0.0), 1.0),
    8: ((0.1, 0.6, 0.3, 0.0), 0.7),
    9: ((0.0, 1.0, 0.0, 0.0), 1.0),
}
CLOUD_MEDIUM, CLEAR_CLASSES, CLOUD_CLASSES = 8, (2, 3, 4, 5, 6), (8, 9)
#: Medium-confidence cloud this near to clear ground is no reference.
BORDER_PX = 2
#: Share of the pieces that are seen from twice as far where the size allows it; below MIXED of one kind, a cell then
#: teaches nothing.
ZOOMED_OUT, MIXED = 0.4, 0.55
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
    overcast: list[NDArray[np.uint16]]  # [4, T, T] each

    def without(self, sites: set[str]) -> "CloudPool":
        """The pool less some sites; overcast texture from labelled tiles goes with its site."""
        labelled = [t for t in self.labelled if t.site not in sites]
        texture = [t.dn for t in labelled if t.gsd_m == 10 and _overcast(t.scl)]
        return CloudPool(labelled, [t for t in self.clear if t.site not in sites], self.overcast + texture)

    def only(self, sites: set[str]) -> "CloudPool":
        return CloudPool(
            [t for t in self.labelled if t.site in sites], [t for t in self.clear if t.site in sites], self.overcast
        )


def _overcast(scl: NDArray[np.uint8]) -> bool:
    return bool(np.isin(scl, CLOUD_CLASSES).mean() > 0.99)


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


def firm(scl: NDArray[np.uint8]) -> tuple[Bool, Bool]:
    """The reading of a classification [T, T]: which pixels are cloud, and of which that is known."""
    cloud, clear = np.isin(scl, CLOUD_CLASSES), np.isin(scl, CLEAR_CLASSES)
    border = (scl == CLOUD_MEDIUM) & _near(clear, BORDER_PX)
    return cloud, (cloud | clear) & ~border


def _near(pixels: Bool, by_px: int) -> Bool:
    """Pixels that are set or at most `by_px` rows and columns away from a set one."""
    wide = np.pad(pixels, by_px)
    height, width = pixels.shape
    rows = np.logical_or.reduce([wide[i : i + height] for i in range(2 * by_px + 1)])
    return np.asarray(np.logical_or.reduce([rows[:, i : i + width] for i in range(2 * by_px + 1)]))


def scl_targets(scl: NDArray[np.uint8], cell_px: int = BIN_PX) -> tuple[F32, F32]:
    """SCL [T, T] -> targets [4, T/c, T/c] and weights [T/c, T/c]; mixed cells and doubtful borders weigh 0."""
    table = np.zeros((256, 4), np.float32)
    weigh = np.zeros(256, np.float32)
    for label, (target, weight) in SCL_TARGETS.items():
        table[label], weigh[label] = target, weight
    n = scl.shape[0] // cell_px

    def blocks(pixels: NDArray[Any]) -> NDArray[Any]:
        return pixels.reshape(n, cell_px, n, cell_px).transpose(0, 2, 1, 3).reshape(n, n, -1)

    labels = blocks(scl)
    kinds = table.argmax(axis=1)[labels]
    agreed = (kinds == kinds[:, :, :1]).all(axis=2) & blocks(firm(scl)[1]).all(axis=2)
    targets = table[labels].mean(axis=2).transpose(2, 0, 1)
    return np.ascontiguousarray(targets), np.asarray(weigh[labels].mean(axis=2) * agreed)


@cache
def _frequencies(size_px: int) -> tuple[F32, F32]:
    v, u = np.meshgrid(np.fft.fftfreq(size_px), np.fft.rfftfreq(size_px), indexing="ij")
    return v.astype(np.float32), u.astype(np.float32)


def fractal(
    size_px: int, rng: np.random.Generator, slope: float, stretch: float = 1.0, angle: float = 0.0, waves: float = 0.4
) -> F32:
    """Noise with a power-law spectrum, mean 0, deviation 1. [size, size]

    `stretch` times longer along `angle`; the spectrum is flat below `waves` periods across the canvas.
    """
    v, u = _frequencies(size_px)
    along, across = u * np.cos(angle) + v * np.sin(angle), v * np.cos(angle) - u * np.sin(angle)
    squared = (along * stretch) ** 2 + across**2 + (waves / size_px) ** 2
    parts = rng.standard_normal((2, *squared.shape), np.float32)
    field = np.fft.irfft2((parts[0] + 1j * parts[1]) * squared ** (-slope / 2.0), s=(size_px, size_px))
    return ((field - field.mean()) / field.std()).astype(np.float32)


#: How often a kind of cloud is drawn.
KINDS = {"cumulus": 0.35, "stratus": 0.15, "cirrus": 0.2, "veil": 0.3}


def draw_opacity(size_px: int, rng: np.random.Generator) -> F32:
    """Opacity 0..1 of a cloud field on a canvas of size_px. [size, size]"""
    kind = rng.choice(list(KINDS), p=list(KINDS.values()))
    if kind == "veil":  # from haze to closed cloud, all over the tile: what only brightness and flatness give away
        relief = rng.uniform(0.0, 0.15) * fractal(size_px, rng, rng.uniform(1.6, 2.6))
        return np.clip(rng.choice((rng.uniform(0.1, 0.6), rng.uniform(0.6, 1.1))) + relief, 0.0, 1.0)
    cover = rng.uniform(0.05, 0.95)
    if kind == "cumulus":  # sharp edges, thick middles, from one bank to a sky full of small ones
        field = fractal(size_px, rng, rng.uniform(1.3, 2.3), waves=rng.choice((0.4, 3.0, 8.0)))
        edge, top = rng.uniform(0.1, 0.5), 1.0
    elif kind == "stratus":  # wide soft edges
        field, edge, top = fractal(size_px, rng, rng.uniform(1.9, 2.6)), rng.uniform(0.5, 1.5), 1.0
    else:  # cirrus: long threads that never close
        field = fractal(size_px, rng, rng.uniform(1.4, 2.2), rng.uniform(2.0, 7.0), rng.uniform(0.0, np.pi))
        edge, top = rng.uniform(0.8, 2.5), rng.uniform(0.2, 0.7)
    return np.clip((field - np.quantile(field, 1.0 - cover)) / edge, 0.0, 1.0).astype(np.float32) * np.float32(top)


def composite(ground: F32, textures: list[F32], rng: np.random.Generator) -> tuple[F32, F32, F32]:
    """A cloud field with its shadow over clear ground [4, n, n]: dn [4, n, n], targets [4, n, n], weights [n, n]."""
    size = ground.shape[1]
    height = rng.uniform(1.5, 0.3 * size)
    azimuth = rng.uniform(0.0, 2.0 * np.pi)
    shift = np.round(height * np.array((np.sin(azimuth), np.cos(azimuth)))).astype(int)
    margin = size // 3
    canvas = draw_opacity(size + 2 * margin, rng)
    opacity = canvas[margin : margin + size, margin : margin + size]
    cast = canvas[margin + shift[0] :, margin + shift[1] :][:size, :size]
    direct = rng.uniform(0.45, 0.85) * np.array((0.75, 0.9, 1.0, 1.05))  # blue skylight fills shadows
    lit = ground * (1.0 - np.minimum(direct, 0.9)[:, None, None] * cast)
    dn = lit * (1.0 - opacity) + _cloud_dn(size, textures, rng) * opacity
    return dn.astype(np.float32), *_composite_targets(opacity, cast)


def _cloud_dn(size: int, textures: list[F32], rng: np.random.Generator) -> F32:
    """What a closed cloud looks like: a real overcast tile at another brightness, or drawn. [4, n, n]"""
    if textures and rng.random() < 0.4:
        texture = textures[rng.integers(len(textures))]
        if texture.shape[1] >= size:
            top, left = rng.integers(texture.shape[1] - size + 1, size=2)
            texture = texture[:, top : top + size, left : left + size]
            return _turned(texture, int(rng.integers(4)), False) * np.float32(rng.uniform(0.6, 1.3))
    tint = 1.0 + rng.normal(0.0, 0.03, 4) + rng.normal(0.02, 0.05) * np.linspace(1.0, -1.0, 4)
    relief = 1.0 + rng.choice((0.01, 0.05, 0.2)) * rng.random() * fractal(size, rng, rng.uniform(1.2, 2.2))
    bright = np.exp(rng.uniform(np.log(2200.0), np.log(12_000.0)))
    return (bright * tint[:, None, None] * np.maximum(relief, 0.3)).astype(np.float32)


def _composite_targets(opacity: F32, cast: F32) -> tuple[F32, F32]:
    """Between the kinds nothing is learnt: faint cloud, half a shadow."""
    targets = np.zeros((4, *opacity.shape), np.float32)
    targets[THICK], targets[THIN] = opacity > 0.6, (opacity > 0.2) & (opacity <= 0.6)
    targets[SHADOW] = (opacity < 0.05) & (cast > 0.45)
    targets[CLEAR] = (opacity < 0.05) & (cast < 0.1)
    return targets, np.asarray(targets.sum(axis=0))


#: Colour of pale ground, blue to near infrared over red: snow, old snow, sand, red sand, salt and concrete.
PALE = (
    (1.02, 1.0, 1.0, 0.88),
    (1.08, 1.03, 1.0, 0.75),
    (0.55, 0.78, 1.0, 1.2),
    (0.4, 0.6, 1.0, 1.15),
    (0.9, 0.96, 1.0, 1.05),
)


def bleach(ground: F32, rng: np.random.Generator) -> F32:
    """Pale ground: snow, sand, salt, concrete. Cloud's brightness, but the texture of the ground [4, n, n].

    Tiles without texture are left as they are: bleached, they could be stratus.
    """
    dn = ground.astype(np.float32)
    grey = dn.mean(axis=0)
    level = float(np.median(grey))
    if grey.std() < 0.12 * level or level < 50.0:
        return dn
    wanted = rng.uniform(1800.0, 8500.0)
    paleness = rng.uniform(0.5, 1.0)
    tint = np.array(PALE[rng.integers(len(PALE))]) * (1.0 + rng.normal(0.0, 0.03, 4))
    pale = paleness * grey + (1.0 - paleness) * dn
    return np.asarray(np.clip(pale * tint[:, None, None] * (wanted / level), 0.0, 16_000.0), np.float32)


def roofs(ground: F32, rng: np.random.Generator) -> F32:
    """Bright roofs, greenhouses, glint: small white squares with sharp edges on clear ground [4, n, n]."""
    dn = ground.astype(np.float32)
    for _ in range(int(rng.integers(3, 40))):
        height, width = rng.integers(1, 5, size=2)
        row, col = rng.integers(0, dn.shape[1], size=2)
        colour = rng.uniform(2500.0, 9000.0) * (1.0 + rng.normal(0.0, 0.06, 4))
        dn[:, row : row + height, col : col + width] = colour[:, None, None]
    return dn


def degrade(dn: F32, rng: np.random.Generator) -> F32:
    """Another sensor, another sky: gains, path radiance, noise, clipping; rotations stay with the caller."""
    gain = np.exp(rng.normal(0.0, 0.10) + rng.normal(0.0, 0.04, 4))
    dn = dn * gain[:, None, None].astype(np.float32)
    if rng.random() < 0.3:  # top of the atmosphere instead of the ground
        air = rng.uniform(0.2, 1.0) * np.array((700.0, 350.0, 180.0, 60.0))
        dn = dn + air[:, None, None].astype(np.float32)
    if rng.random() < 0.3:
        dn = dn + rng.normal(0.0, rng.uniform(5.0, 40.0), dn.shape).astype(np.float32)
    ceiling = 10000.0 if rng.random() < 0.3 else 65535.0
    return np.asarray(np.clip(dn, 0.0, ceiling), np.float32)


@dataclass(frozen=True, eq=False)
class Piece:
    """A tile on the network's grid, with what is learnt from it."""

    dn: F32  # [4, n, n], averages of 2 x 2 px
    targets: F32  # [4, n, n]
    weights: F32  # [n, n]
    often: float  # how often it is drawn, against others of its kind


class Shelf:
    """Pieces to draw from, each as often as it says, of those that are large enough; else a quilt of smaller ones."""

    def __init__(self, pieces: list[Piece]) -> None:
        self.pieces = pieces
        self._sizes = np.array([p.dn.shape[1] for p in pieces])
        self._often = np.array([p.often for p in pieces])
        self._sums: dict[int, NDArray[np.float64]] = {}

    def draw(self, n: int, rng: np.random.Generator) -> Piece:
        if n not in self._sums:
            self._sums[n] = np.cumsum(np.where(self._sizes >= n, self._often, 0.0))
        sums = self._sums[n]
        if sums[-1] == 0.0:
            return _quilt([self.draw(n // 2, rng) for _ in range(4)])
        return self.pieces[int(np.searchsorted(sums, rng.random() * sums[-1], side="right"))]


class Sampler:
    """Draws training batches; everything random comes from the generator given to `batch`.

    Batches come in two sizes, because tiles do: whole tiles of `crop_px`, or twice as many of half the size, where
    the smaller labelled tiles take part.
    """

    def __init__(self, pool: CloudPool, recipe: dict[str, Any], settings: CloudSettings) -> None:
        self.settings, self.mix = settings, recipe["mix"]
        self.size, self.small_share = int(recipe["crop_px"]) // BIN_PX, float(recipe["small_share"])
        labelled = [_piece(t, _interest(t)) for t in pool.labelled]
        sites, counts = np.unique([t.site for t in pool.clear], return_counts=True)
        share = dict(zip(sites, 1.0 / np.sqrt(counts), strict=True))
        clear = [_clear_piece(t.dn, share[t.site]) for t in pool.clear]
        known = [p for p in labelled if p.weights.mean() > 0.7 and p.targets[CLEAR][p.weights > 0].min() == 1.0]
        often = 0.5 * sum(p.often for p in clear) / max(1, len(known))  # a third of the clear ground
        clear += [Piece(p.dn, _all_clear(p.dn), np.ones_like(p.weights), often) for p in known]
        self.labelled, self.clear = Shelf(labelled), Shelf(clear)
        self.textures = [averages(dn) for dn in pool.overcast]

    def batch(self, size: int, rng: np.random.Generator) -> tuple[NDArray[np.uint8], F32, F32]:
        """planes u8 [N, 8, n, n], targets [N, 4, n, n], weights [N, n, n]."""
        small = rng.random() < self.small_share
        n, count = (self.size // 2, 2 * size) if small else (self.size, size)
        samples = [self._sample(n, rng) for _ in range(count)]
        planes, targets, weights = (np.stack(part) for part in zip(*samples, strict=True))
        return planes, targets, weights

    def _sample(self, n: int, rng: np.random.Generator) -> tuple[NDArray[np.uint8], F32, F32]:
        draw = rng.random()
        if draw < self.mix["labelled"]:
            dn, targets, weights = _cropped(self.labelled.draw(n, rng), n, rng)
        else:
            dn, targets, weights = _cropped(self.clear.draw(n, rng), n, rng)
            other = rng.random()
            if other < self.mix["bleached"]:
                dn = bleach(dn, rng)
            elif other < self.mix["bleached"] + self.mix["roofs"]:
                dn = roofs(dn, rng)
            if draw < self.mix["labelled"] + self.mix["composited"]:
                dn, targets, weights = composite(dn, self.textures, rng)
        turn, flip = int(rng.integers(4)), bool(rng.integers(2))
        dn, targets, weights = (_turned(a, turn, flip) for a in (dn, targets, weights))
        return self._planes(degrade(dn, rng), weights, rng), targets, weights

    def _planes(self, dn: F32, weights: F32, rng: np.random.Generator) -> NDArray[np.uint8]:
        """Planes of a piece [8, n, n]; where nothing is to be seen, nothing is learnt (`weights` is changed)."""
        seen, n = None, dn.shape[1]
        if rng.random() < 0.06:  # the swath ends inside the tile
            seen = np.ones((n, n), bool)
            seen[:, int(rng.integers(n // 8, n)) :] = False
            weights *= seen
        planes = planes_of(np.round(dn * np.float32(BIN_PX**2)).astype(np.uint32), seen, self.settings)
        if planes is None:
            weights[:] = 0.0
            return np.zeros((2 * len(dn), n, n), np.uint8)
        return planes


def averages(dn: NDArray[np.uint16]) -> F32:
    """Means of 2 x 2 pixels, [B, T/2, T/2]."""
    return bin_sums(dn).astype(np.float32) / np.float32(BIN_PX**2)


def _piece(tile: Labelled, often: float) -> Piece:
    targets, weights = scl_targets(tile.scl)
    return Piece(averages(tile.dn), targets, weights * np.float32(0.4 if tile.gsd_m > 20 else 1.0), often)


def _clear_piece(dn: NDArray[np.uint16], often: float) -> Piece:
    seen = averages(dn)
    return Piece(seen, _all_clear(seen), np.ones(seen.shape[1:], np.float32), often)


def _all_clear(dn: F32) -> F32:
    targets = np.zeros((4, *dn.shape[1:]), np.float32)
    targets[CLEAR] = 1.0
    return targets


def _quilt(pieces: list[Piece]) -> Piece:
    """Four pieces of one size as one."""

    def sewn(parts: list[F32]) -> F32:
        rows = [np.concatenate(parts[:2], axis=-1), np.concatenate(parts[2:], axis=-1)]
        return np.concatenate(rows, axis=-2)

    dn, targets, weights = [p.dn for p in pieces], [p.targets for p in pieces], [p.weights for p in pieces]
    return Piece(sewn(dn), sewn(targets), sewn(weights), often=0.0)


def _cropped(piece: Piece, n: int, rng: np.random.Generator) -> tuple[F32, F32, F32]:
    """n x n of a piece, or all of one twice as large seen from twice as far: another ground sampling distance."""
    if piece.dn.shape[1] == 2 * n and rng.random() < ZOOMED_OUT:
        dn, targets, alike = _halved(piece.dn), _halved(piece.targets), _halved(piece.weights[None])[0]
        return dn, targets, alike * (targets.max(axis=0) > MIXED)
    top, left = rng.integers(piece.dn.shape[1] - n + 1, size=2)
    place = (..., slice(top, top + n), slice(left, left + n))
    return piece.dn[place], piece.targets[place], piece.weights[place].copy()


def _halved(planes: F32) -> F32:
    rows = planes[:, 0::2] + planes[:, 1::2]
    return np.asarray((rows[:, :, 0::2] + rows[:, :, 1::2]) / np.float32(4))


def _interest(tile: Labelled) -> float:
    """How often a labelled tile is drawn: partly cloudy ones more, coarse ones and small ones less."""
    cloud = np.isin(tile.scl, CLOUD_CLASSES).mean()
    partly = 1.5 if 0.03 < cloud < 0.97 else 1.0
    return partly * (0.5 if tile.gsd_m > 20 else 1.0)


def _turned(array: F32, turn: int, flip: bool) -> F32:
    turned = np.rot90(array, turn, (-2, -1))
    return np.ascontiguousarray(turned[..., ::-1] if flip else turned)
