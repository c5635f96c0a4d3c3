"""What a campaign goes through: a file that lists scenes, a folder of them, or generated ones."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from payload.errors import InputError

SUFFIXES = (".tif", ".tiff", ".zip", ".SAFE")
MOST = 1_000_000
WANTED = "a JSON list of scenes, a STAC item collection, a folder of rasters and products, or demo:N"


@dataclass(frozen=True)
class Item:
    """One scene. `received`: what `verify` holds against it. `seed`: of the channel, and of a generated scene."""

    scene: str
    seed: int = 0
    received: str | None = None


def read_catalogue(where: str, demo_px: int = 512) -> list[Item]:
    """Items in a fixed order. InputError where there is nothing to go through."""
    found = list(_demo(where, demo_px) if where.partition(":")[0] == "demo" else _of_path(Path(where)))
    if not found:
        raise InputError(f"{where}: no scene in it, wanted {WANTED}")
    return found


def _demo(where: str, side_px: int) -> Iterator[Item]:
    count = where.partition(":")[2] or "1"
    if not count.isascii() or not count.isdigit() or not 1 <= len(count) <= 7 or not 1 <= int(count) <= MOST:
        raise InputError(f"{where[:80]}: wanted demo:N with N of 1 to {MOST}, as in demo:40")
    yield from (Item(f"demo:{side_px}", seed) for seed in range(int(count)))


def _of_path(path: Path) -> Iterator[Item]:
    if path.is_dir():
        yield from (Item(str(entry)) for entry in sorted(path.iterdir()) if entry.suffix in SUFFIXES)
        return
    try:
        listed = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{str(path)[:200]}: not found, wanted {WANTED}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{str(path)[:200]}: cannot be read ({str(error)[:100]}), wanted {WANTED}") from None
    entries = listed.get("features") if isinstance(listed, dict) else listed
    if not isinstance(entries, list):
        raise InputError(f"{path}: holds no list of scenes, wanted {WANTED}")
    for number, entry in enumerate(entries):
        yield _item(path, number, entry)


def _item(path: Path, number: int, entry: Any) -> Item:
    if isinstance(entry, str):
        return Item(_beside(path, entry))
    if isinstance(entry, dict) and "assets" in entry:
        return Item(_beside(path, _asset(path, number, entry["assets"])))
    if not isinstance(entry, dict) or not isinstance(entry.get("scene"), str):
        raise InputError(f"{path}: entry {number} names no scene, wanted a path or a table with scene, seed, received")
    seed, received = entry.get("seed", 0), entry.get("received")
    if not isinstance(seed, int) or not isinstance(received, str | None):
        raise InputError(f"{path}: entry {number}: seed is a whole number, received a path")
    return Item(_beside(path, entry["scene"]), seed, received and _beside(path, received))


def _asset(path: Path, number: int, assets: Any) -> str:
    """The raster of a STAC item: the first GeoTIFF with role data, or the first GeoTIFF."""
    rasters = [a for a in assets.values() if isinstance(a, dict) and "tiff" in str(a.get("type"))]
    chosen = [a for a in rasters if "data" in a.get("roles", ())] or rasters
    if not chosen or not isinstance(chosen[0].get("href"), str):
        raise InputError(f"{path}: item {number} has no asset of type image/tiff, wanted one with role data")
    return str(chosen[0]["href"])


def _beside(path: Path, where: str) -> str:
    """Relative paths count from the list; generated scenes and absolute paths stand."""
    return where if where.partition(":")[0] == "demo" or Path(where).is_absolute() else str(path.parent / where)
