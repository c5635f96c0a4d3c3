"""One tile of a web map (Google's scheme, 256 px) of one layer of a scene, as PNG; made by rio-tiler."""

import io
from collections.abc import Callable, Mapping

import numpy as np
from matplotlib import colormaps
from numpy.typing import NDArray
from PIL import Image
from rio_tiler.errors import TileOutsideBounds
from rio_tiler.io import Reader

from payload.errors import InputError
from sim.products.provenance import STATES, VALUE
from sim.viewer.shelf import ShownScene

SIDE_PX = 256
Rgba = NDArray[np.uint8]  # [4, h, w]
#: Pictures by name -> roles of what is shown red, green and blue.
COMBINATIONS = {"true": ("red", "green", "blue"), "false": ("nir", "red", "green")}
#: Indices by name -> (a - b) / (a + b), by role.
INDICES = {"ndvi": ("nir", "red"), "ndwi": ("green", "nir")}
#: Styles of each layer.
STYLES = {
    "received": (*COMBINATIONS, *INDICES), "original": (*COMBINATIONS, *INDICES),
    "provenance": ("state", "holes", "layers"), "cloud": ("classes",),
}  # fmt: skip
CLOUD_COLOURS = {1: (70, 200, 230), 2: (150, 220, 240), 3: (40, 40, 90), 4: (238, 240, 244)}
HOLES = tuple(VALUE[name] for name in ("withheld", "omitted", "lost", "refused"))


def empty() -> bytes:
    return _png(np.zeros((4, SIDE_PX, SIDE_PX), np.uint8))


def tile(scene: ShownScene, layer: str, style: str, z: int, x: int, y: int) -> bytes:
    """PNG octets, transparent where nothing is known. InputError for a layer or style that is none."""
    if layer not in scene.layers or style not in STYLES[layer]:
        raise InputError(f"{layer}/{style}: none of {', '.join(scene.layers)} with its styles")
    resampling = "nearest" if layer in ("provenance", "cloud") else "bilinear"
    try:
        with Reader(str(scene.layers[layer])) as file:
            image = file.tile(x, y, z, tilesize=SIDE_PX, resampling_method=resampling)
    except TileOutsideBounds:
        return empty()
    known = image.mask > 0
    return _png(_painter(scene, layer, style)(np.asarray(image.array.data), known))


def _painter(scene: ShownScene, layer: str, style: str) -> Callable[[NDArray[np.generic], NDArray[np.bool_]], Rgba]:
    if layer == "provenance":
        return _layers if style == "layers" else lambda values, known: _state(values, known, style == "holes")
    if layer == "cloud":
        return lambda values, known: _classes(values[0], CLOUD_COLOURS, known)
    if style in INDICES:
        return lambda values, known: _index(scene, values, known, style)
    return lambda values, known: _combination(scene, values, known, style)


def _combination(scene: ShownScene, values: NDArray[np.generic], known: NDArray[np.bool_], style: str) -> Rgba:
    """The first band in grey where one of the style's is not there."""
    planes = []
    for place in scene.places(COMBINATIONS[style]) or (0, 0, 0):
        low, high = scene.ranges[scene.bands[place]]
        planes.append(np.rint(255 * np.clip((values[place].astype(np.float32) - low) / (high - low), 0, 1)))
    return np.stack([*planes, 255.0 * known]).astype(np.uint8)


def _index(scene: ShownScene, values: NDArray[np.generic], known: NDArray[np.bool_], style: str) -> Rgba:
    """-1 to 1 from brown to green, or to blue; nothing where a band is not there."""
    places = scene.places(INDICES[style])
    if places is None:
        return np.zeros((4, *known.shape), np.uint8)
    a, b = (values[place].astype(np.float32) for place in places)
    ratio = np.divide(a - b, a + b, out=np.zeros_like(a), where=(a + b) > 0)
    table = colormaps["BrBG" if style == "ndvi" else "RdBu"](np.arange(256), bytes=True)[:, :3]
    shades = table[np.rint(127.5 * (ratio + 1)).astype(np.uint8)].transpose(2, 0, 1)
    return np.concatenate([shades, np.where(known, 255, 0)[None]]).astype(np.uint8)


def _state(values: NDArray[np.generic], known: NDArray[np.bool_], holes: bool) -> Rgba:
    colours = {s.value: tuple(bytes.fromhex(s.colour)) for s in STATES if not holes or s.value in HOLES}
    return _classes(values[0], colours, known)


def _classes(classes: NDArray[np.generic], colours: Mapping[int, tuple[int, ...]], known: NDArray[np.bool_]) -> Rgba:
    table = np.zeros((256, 4), np.uint8)
    for value, colour in colours.items():
        table[value] = (*colour, 220)
    return np.where(known, table[classes.astype(np.uint8)].transpose(2, 0, 1), 0).astype(np.uint8)


def _layers(values: NDArray[np.generic], known: NDArray[np.bool_]) -> Rgba:
    """Layers received, 0 dark to 8 and more bright."""
    table = colormaps["viridis"](np.arange(9) / 8, bytes=True)
    return np.where(known, table[np.minimum(values[1].astype(np.int64), 8)].transpose(2, 0, 1), 0).astype(np.uint8)


def _png(rgba: Rgba) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(rgba.transpose(1, 2, 0), "RGBA").save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
