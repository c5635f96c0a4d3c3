"""A place on disk -> a scene that is read in windows: GeoTIFF/COG, Sentinel-2 product, or the generated `demo`.

What was applied or assumed on the way stands in `SceneInfo.notes` and is logged (docs/scenes.md).
"""

import logging
from pathlib import Path
from typing import Protocol, Self

from payload.errors import InputError
from payload.scene import Scene
from payload.sensor import RGBN, SENTINEL2_RGBN, Sensor
from sim.scenes.demo import demo_scene
from sim.scenes.radiometry import AS_STORED, Reading
from sim.scenes.rasters import open_raster
from sim.scenes.safe.open import looks_like_safe, open_safe

DEMO = "demo"
log = logging.getLogger(__name__)


class OpenScene(Scene, Protocol):
    """A scene that holds files open until it is closed."""

    def close(self) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(self, *failure: object) -> None: ...


def open_scene(
    where: str,
    bands: tuple[str, ...] | None = None,
    sensor: Sensor = SENTINEL2_RGBN,
    seed: int = 0,
    scale: float | None = None,
    offset: float | None = None,
    max_pixels: int = AS_STORED.max_pixels,
) -> OpenScene:
    """Opens `demo` (`demo:SIZE` for SIZE x SIZE px), a GeoTIFF/COG, or a Sentinel-2 product (.SAFE directory or .zip).

    `bands` names the bands of a GeoTIFF whose descriptions do not; "-" skips one. The scene will have the bands of
    `sensor` in that order, in its DN. `seed` is the generated scene's. `scale` and `offset` say what the numbers of a
    GeoTIFF mean (reflectance, or the sensor's unit, = stored x scale + offset), before the file's own tags. Raises
    InputError for all that cannot be used; reading does so for damage met later.
    """
    if where.split(":")[0] == DEMO:
        return _open_demo(where, sensor, seed, _given(bands, scale, offset))
    scene = _open_file(where, _existing(where), sensor, Reading(bands, scale, offset, max_pixels))
    for note in scene.info.notes:
        log.warning("%s: %s", scene.info.name, note)
    return scene


def open_reading(
    reading: Reading, where: str, sensor: Sensor = SENTINEL2_RGBN, seed: int = 0
) -> OpenScene:
    """As `open_scene`, with what the user says of rasters in one."""
    return open_scene(where, reading.bands, sensor, seed, reading.scale, reading.offset, reading.max_pixels)


def _open_file(where: str, path: Path, sensor: Sensor, reading: Reading) -> OpenScene:
    if not looks_like_safe(path):
        return open_raster(path, reading.bands, sensor, reading.scale, reading.offset, reading.max_pixels)
    if given := _given(reading.bands, reading.scale, reading.offset):
        raise InputError(f"{where}: a product names its own bands and values, so {given} has no use here; leave it out")
    return open_safe(path, sensor, reading.max_pixels)


def _existing(where: str) -> Path:
    path = Path(where)
    try:
        there = path.exists()
    except (OSError, ValueError) as error:  # a name too long for the file system, or with a NUL in it
        raise InputError(f"{where[:80]}: is no path ({getattr(error, 'strerror', error)}); give one") from None
    if not there:
        raise InputError(
            f"{where[:200]}: not found, wanted a GeoTIFF, a cube, a .SAFE or .zip of Sentinel-1 or 2, or `demo`"
        )
    return path


def _given(bands: tuple[str, ...] | None, scale: float | None, offset: float | None) -> str:
    """The options that only a GeoTIFF has a use for."""
    options = {"--bands": bands, "--scale": scale, "--offset": offset}
    return ", ".join(name for name, value in options.items() if value is not None)


def _open_demo(where: str, sensor: Sensor, seed: int, given: str) -> OpenScene:
    if given:
        raise InputError(f"{where}: a generated scene names its own bands, so {given} has no use here; leave it out")
    if sensor.names != RGBN:
        raise InputError(
            f"{where}: has the bands {', '.join(RGBN)}, wanted those of sensor {sensor.name}, "
            f"{', '.join(sensor.names)[:100]}; give a scene of it, or fly a bundle of four bands (--bundle edge)"
        )
    if Path(where).exists():
        log.warning("%s: the generated scene is taken; ./%s is the file or folder of that name", where, where)
    if where == DEMO:
        return demo_scene(seed=seed)
    size = where.removeprefix(f"{DEMO}:")
    if not size.isascii() or not size.isdigit() or len(size) > 5 or not 64 <= int(size) <= 20_000:
        raise InputError(
            f"{where[:80]}: wanted `demo` or `demo:SIZE` with SIZE of 64 to 20000 px, as in demo:10980; "
            f"a file of that name is ./{where[:80]}"
        )
    return demo_scene(int(size), int(size), seed)
