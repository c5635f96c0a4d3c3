"""`sim features`: a source -> features.zarr, a GeoTIFF a level, embeddings.parquet and features.json, or nothing."""

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from payload.errors import InputError
from sim.features.extract import TileFeatures, extract
from sim.features.files import ParquetWriter, TiffWriter, Writer, ZarrWriter, cells_of
from sim.features.source import RECORD, Asked, Source, open_source
from sim.products.delivery import whole_or_nothing
from sim.progress import Progress

SCHEMA = "nadir-features/1"
MakeWriter = Callable[[Path, Source], Writer]
WRITERS: dict[str, MakeWriter] = {"zarr": ZarrWriter, "geotiff": TiffWriter, "parquet": ParquetWriter}


@dataclass(frozen=True)
class FeaturesRequest:
    """What the user asked for."""

    asked: Asked
    out: Path
    formats: Sequence[str] = tuple(WRITERS)
    overwrite: bool = False

    def __post_init__(self) -> None:
        unknown = [name for name in self.formats if name not in WRITERS]
        if unknown or not self.formats:
            raise InputError(f"--formats {','.join(unknown)[:60]!r}: wanted some of {', '.join(WRITERS)}")


def features(request: FeaturesRequest, progress: Progress) -> dict[str, Any]:
    """Writes the files and gives what features.json holds. InputError where nothing can be shown."""
    with open_source(request.asked) as source, whole_or_nothing(request.out, request.overwrite) as folder:
        skipped: Counter[str] = Counter()
        levels = _write(source, folder, request.formats, skipped, progress)
        if not levels:
            raise InputError(f"{request.asked.where}: no tile holds features ({_told(skipped)}); give another source")
        rows, cols = source.grid
        record = {
            "schema": SCHEMA, "source": source.kind, "scene": source.info.name, "scene_id": source.scene_id,
            "bundle": source.bundle.name, "sensed_at": source.info.sensed_at, "tiles": rows * cols,
            "tiles_with_features": levels[0]["tiles"], "skipped": dict(sorted(skipped.items())), "levels": levels,
            "files": sorted([RECORD, *(path.name for path in folder.iterdir())]),
        }  # fmt: skip
        (folder / RECORD).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return record


def _write(
    source: Source, folder: Path, formats: Sequence[str], skipped: Counter[str], progress: Progress
) -> list[dict[str, Any]]:
    """Every tile into every file; what levels there were."""
    writers, rows_cols = [WRITERS[name](folder, source) for name in formats], source.grid
    levels: dict[str, dict[str, Any]] = {}
    for tile in extract(source, skipped):
        for writer in writers:
            writer.write(tile)
        for level in _described(tile, source):
            levels.setdefault(level["name"], level)["tiles"] += 1
        progress("features", rows_cols[0] * rows_cols[1])
    for writer in writers:
        writer.close()
    return list(levels.values())


def _described(tile: TileFeatures, source: Source) -> list[dict[str, Any]]:
    return [
        {
            "name": level.name, "stride_px": level.stride_px, "channels": len(level.channels),
            "cells": list(cells_of(source.info, level.stride_px)), "unit": level.unit, "tiles": 0,
        }
        for level in tile.levels
    ]  # fmt: skip


def as_text(record: dict[str, Any], out: Path) -> str:
    """What the command prints."""
    lines = [f"{record['scene']}: features of {record['tiles_with_features']} of {record['tiles']} tiles, "
             f"bundle {record['bundle']}, from a {record['source']}"]  # fmt: skip
    lines += [
        f"  {level['name']}: {level['channels']} channels on {level['cells'][0]} x {level['cells'][1]} cells of "
        f"{level['stride_px']} px"
        for level in record["levels"]
    ]
    if record["skipped"]:
        lines.append(f"  without features: {_told(record['skipped'])}")
    return "\n".join([*lines, f"wrote {', '.join(record['files'])} into {out}"]) + "\n"


def _told(skipped: dict[str, int]) -> str:
    return ", ".join(f"{count} {what}" for what, count in sorted(skipped.items())) or "none"

