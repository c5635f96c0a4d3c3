"""Clouds that are drawn: fractal fields of opacity over real clear ground, with the shadow that each cloud casts.

Their truth is known, which no classification's is. Everything works on planes of DN [4, n, n] at the tile's pixels.
"""

from functools import cache

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]

#: How often a kind of cloud is drawn; "real" is the outline of a real cloud field over sea.
KINDS = {"cumulus": 0.45, "real": 0.12, "stratus": 0.12, "cirrus": 0.16, "veil": 0.15}
#: Colour of pale ground, blue to near infrared over red: snow, old snow, sand, red sand, salt and concrete.
PALE = (
    (1.02, 1.0, 1.0, 0.88),
    (1.08, 1.03, 1.0, 0.75),
    (0.55, 0.78, 1.0, 1.2),
    (0.4, 0.6, 1.0, 1.15),
    (0.9, 0.96, 1.0, 1.05),
)


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


def draw_opacity(size_px: int, real: F32, rng: np.random.Generator) -> F32:
    """Opacity 0..1 of a cloud field. [size, size]; `real` [m, m]: the opacity of a real one."""
    kind = rng.choice(list(KINDS), p=list(KINDS.values()))
    if kind == "veil":  # from haze to closed cloud, all over the tile: what only brightness and flatness give away
        level = rng.choice((rng.uniform(0.08, 0.5), rng.uniform(0.5, 1.1)))
        relief = rng.uniform(0.0, 0.15) * fractal(size_px, rng, rng.uniform(1.6, 2.6))
        return np.asarray(np.clip(level + relief, 0.0, 1.0), np.float32)
    if kind == "real":
        field = turned(real, int(rng.integers(4)), bool(rng.integers(2)))
        margin = max(0, size_px - field.shape[0])
        return np.pad(field, ((0, margin), (0, margin)), mode="symmetric")[:size_px, :size_px]
    return _closing(kind, size_px, rng)


def _closing(kind: str, size_px: int, rng: np.random.Generator) -> F32:
    """A field whose cover is drawn first, whose edges are as sharp as its kind's."""
    cover, top = rng.uniform(0.04, 0.8), 1.0
    if kind == "cumulus":  # sharp edges, from one bank to a sky full of small ones
        field = fractal(size_px, rng, rng.uniform(1.4, 2.3), waves=rng.choice((0.4, 3.0, 8.0, 16.0, 25.0)))
        edge, top = rng.uniform(0.08, 0.6), rng.uniform(0.7, 1.0)
    elif kind == "stratus":  # wide soft edges
        field, edge = fractal(size_px, rng, rng.uniform(1.9, 2.6)), rng.uniform(0.5, 1.5)
    else:  # cirrus: long threads that never close
        field = fractal(size_px, rng, rng.uniform(1.4, 2.2), rng.uniform(2.0, 7.0), rng.uniform(0.0, np.pi))
        edge, top = rng.uniform(0.8, 2.5), rng.uniform(0.2, 0.7)
    floor = np.quantile(field[::4, ::4], 1.0 - cover)
    return np.clip((field - floor) / edge, 0.0, 1.0).astype(np.float32) * np.float32(top)


def compose(ground: F32, textures: list[F32], real: F32, rng: np.random.Generator) -> tuple[F32, F32, F32]:
    """A cloud field with its shadow over clear ground [4, n, n]: dn [4, n, n], opacity [n, n], cast shadow [n, n]."""
    size = ground.shape[1]
    margin = size // 3
    furthest = margin / 85.0  # of a tile of 256 px: most clouds cast their shadow up to 70 px away
    height = furthest * (rng.uniform(3.0, 70.0) if rng.random() < 0.8 else rng.uniform(60.0, 85.0))
    azimuth = rng.uniform(0.0, 2.0 * np.pi)
    shift = np.round(height * np.array((np.sin(azimuth), np.cos(azimuth)))).astype(int)
    canvas = draw_opacity(size + 2 * margin, real, rng)
    opacity = canvas[margin : margin + size, margin : margin + size]
    cast = canvas[margin + shift[0] :, margin + shift[1] :][:size, :size]
    direct = rng.uniform(0.45, 0.85) * np.array((0.75, 0.9, 1.0, 1.05))  # blue skylight fills shadows
    lit = ground * (1.0 - np.minimum(direct, 0.9)[:, None, None] * cast)
    cloud = cloud_dn(size, textures, rng)
    if rng.random() < 0.5:  # what is thicker is brighter, too
        cloud = cloud * (0.55 + 0.45 * opacity)
    return np.asarray(lit * (1.0 - opacity) + cloud * opacity, np.float32), opacity, cast


def cloud_dn(size: int, textures: list[F32], rng: np.random.Generator) -> F32:
    """What a closed cloud looks like: a real overcast tile at another brightness, or drawn. [4, n, n]"""
    if textures and rng.random() < 0.4:
        texture = textures[rng.integers(len(textures))]
        if texture.shape[1] >= size:
            top, left = rng.integers(texture.shape[1] - size + 1, size=2)
            texture = texture[:, top : top + size, left : left + size]
            return turned(texture, int(rng.integers(4)), False) * np.float32(rng.uniform(0.6, 1.3))
    tint = 1.0 + rng.normal(0.0, 0.03, 4) + rng.normal(0.02, 0.05) * np.linspace(1.0, -1.0, 4)
    relief = 1.0 + rng.choice((0.01, 0.05, 0.2)) * rng.random() * fractal(size, rng, rng.uniform(1.2, 2.2))
    bright = np.exp(rng.uniform(np.log(2200.0), np.log(12_000.0)))
    return (bright * tint[:, None, None] * np.maximum(relief, 0.3)).astype(np.float32)


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


def turned(array: F32, turn: int, flip: bool) -> F32:
    """The last two axes turned by quarters, and mirrored."""
    found = np.rot90(array, turn, (-2, -1))
    return np.ascontiguousarray(found[..., ::-1] if flip else found)
