"""`sim change`: change.tif, change.json and change.html of two passes, or nothing."""

import base64
import io
import json
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from PIL import Image

from sim.design.page import TEMPLATES, render
from sim.features.change import BLOCK_PX, ChangeMap, compare
from sim.features.files import transform_of
from sim.features.source import Asked, Source, open_source
from sim.products.delivery import whole_or_nothing

RASTER, RECORD, PAGE = "change.tif", "change.json", "change.html"
#: Colours on the page: no change to certain, changed blocks, unknown ones.
PALE, STRONG, UNKNOWN, MOST_LOG = (238, 243, 247), (178, 34, 52), (120, 120, 120), 8.0
LONGEST_SHOWN_PX = 900


@dataclass(frozen=True)
class ChangeRequest:
    """What the user asked for."""

    before: Asked
    after: Asked
    out: Path
    false_alarm_rate: float = 0.01
    overwrite: bool = False


def change(request: ChangeRequest) -> dict[str, Any]:
    """Writes the files and gives what change.json holds."""
    with ExitStack() as stack:
        before, after = (stack.enter_context(open_source(asked)) for asked in (request.before, request.after))
        folder = stack.enter_context(whole_or_nothing(request.out, request.overwrite))
        found = compare(before, after, request.false_alarm_rate)
        _write_raster(folder / RASTER, found, before)
        record = _record(found, before, after)
        (folder / RECORD).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        page = render(TEMPLATES / "change.html", {"record": record, "picture": _picture(found)})
        (folder / PAGE).write_text(page, encoding="utf-8")
    return record


def _record(found: ChangeMap, before: Source, after: Source) -> dict[str, Any]:
    changed = int(found.changed.sum())
    passes = [
        {"scene": s.info.name, "scene_id": s.scene_id, "sensed_at": s.info.sensed_at} for s in (before, after)
    ]
    return {
        "schema": "nadir-change/1", "bundle": before.bundle.name,
        "passes": passes,
        "block_px": BLOCK_PX, "blocks_compared": found.compared, "blocks_unknown": found.changed.size - found.compared,
        "blocks_changed": changed, "changed_share": round(changed / found.compared, 5),
        "false_alarm_rate": found.false_alarm_rate,
        "false_alarms_expected": round(found.false_alarm_rate * found.compared, 1),
    }  # fmt: skip


def _write_raster(path: Path, found: ChangeMap, source: Source) -> None:
    """Two bands on the blocks' grid: -log10 of the probability, and 1 where a block is called changed."""
    height, width = found.changed.shape
    with rasterio.open(
        path, "w", driver="GTiff", height=height, width=width, count=2, dtype="float32", nodata=np.nan,
        crs=source.info.crs_wkt, transform=transform_of(source.info, BLOCK_PX), compress="deflate", predictor=3,
    ) as file:  # fmt: skip
        unknown = np.isnan(found.probability)
        file.write(_certainty(found).astype(np.float32), 1)
        file.write(np.where(unknown, np.nan, found.changed).astype(np.float32), 2)
        file.descriptions = ("-log10 p if nothing changed", f"changed, false-alarm rate {found.false_alarm_rate:g}")


def _certainty(found: ChangeMap) -> Any:
    return -np.log10(np.maximum(found.probability, 1e-300))


def _picture(found: ChangeMap) -> str:
    """The map as a data URI: the stronger, the less likely by chance; below the rate it is pale."""
    strength = np.clip(np.nan_to_num(_certainty(found)) / MOST_LOG, 0, 1)[..., None] * found.changed[..., None]
    shade = np.array(PALE) * (1 - strength) + np.array(STRONG) * strength
    shade[np.isnan(found.probability)] = UNKNOWN
    picture = Image.fromarray(np.rint(shade).astype(np.uint8))
    times = max(1, LONGEST_SHOWN_PX // max(found.changed.shape))
    file = io.BytesIO()
    picture.resize((picture.width * times, picture.height * times), Image.Resampling.NEAREST).save(file, format="PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def as_text(record: dict[str, Any], out: Path) -> str:
    """What the command prints."""
    return (
        f"{record['blocks_changed']} of {record['blocks_compared']} blocks of {record['block_px']} px changed "
        f"({100 * record['changed_share']:.2f} %), {record['false_alarms_expected']:g} expected by chance at a "
        f"false-alarm rate of {record['false_alarm_rate']:g}\nwrote {RASTER}, {RECORD} and {PAGE} into {out}\n"
    )
