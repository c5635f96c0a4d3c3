"""The rows of a campaign -> results.parquet and a page: distributions, failures, worst scenes with their pictures."""

import base64
import importlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from payload.errors import InputError
from sim.campaign.jobs import ROWS, SCENES
from sim.design import charts, page
from sim.metrics.catalogue import BY_KEY

BATCH = 1000
#: Columns of the table: name -> type of Arrow. What a job does not know is null.
TEXTS = ("digest", "scene", "folder", "name", "state", "reason")
WHOLES = ("seed", "octets", "tiles_total", "tiles_coded", "tiles_withheld", "tiles_lost", "tiles_refused", "worker")
NUMBERS = (
    "cr16", "psnr_10k_db", "ssim_10k", "ndvi_mae", "sam_deg", "kmeans_oa", "cover_oa", "cloud_percent", "seconds",
    "worker_peak_mib", "worker_mib",
)  # fmt: skip
SHOWN = ("psnr_10k_db", "cr16", "sam_deg", "kmeans_oa", "cover_oa")
WORST = 6
PAGE = page.TEMPLATES / "campaign.html"


def rows(out: Path) -> Iterator[dict[str, Any]]:
    """Rows of every scene that is done, in the order of their digests."""
    for path in sorted((out / ROWS).glob("*.json")):
        yield json.loads(path.read_text(encoding="utf-8"))


def prepare() -> None:
    """What a table and a page need, so that they are not waited for in the end. InputError as `arrow`."""
    arrow()
    page.compile_page(PAGE)


def arrow() -> tuple[Any, Any]:
    """pyarrow and its parquet. InputError, with the extra's name, where it is not installed."""
    try:
        return importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
    except ModuleNotFoundError:
        raise InputError("pyarrow is not installed; pip install 'nadir-payload[campaign]'") from None


def write(out: Path, title: str, failed: list[dict[str, Any]]) -> tuple[Path, Path]:
    """Both files."""
    return write_parquet(out), write_page(out, title, failed)


def write_parquet(out: Path) -> Path:
    """results.parquet, a batch of rows at a time."""
    pyarrow, parquet = arrow()
    fields = [(name, pyarrow.string()) for name in TEXTS] + [("held", pyarrow.bool_())]
    fields += [(name, pyarrow.int64()) for name in WHOLES] + [(name, pyarrow.float64()) for name in NUMBERS]
    schema, path = pyarrow.schema(fields), out / "results.parquet"
    half = path.with_name(f".{path.name}")
    with parquet.ParquetWriter(half, schema) as writer:
        batch: list[dict[str, Any]] = []
        for row in rows(out):
            batch.append({name: row.get(name) for name in schema.names})
            if len(batch) == BATCH:
                writer.write_table(pyarrow.Table.from_pylist(batch, schema))
                batch = []
        writer.write_table(pyarrow.Table.from_pylist(batch, schema))
    half.replace(path)
    return path


def write_page(out: Path, title: str, failed: list[dict[str, Any]]) -> Path:
    """summary.html: one file, opens offline."""
    values: dict[str, list[float]] = {key: [] for key in SHOWN}
    worst: list[tuple[float, dict[str, Any]]] = []
    count = held = 0
    for row in rows(out):
        count, held = count + 1, held + bool(row.get("held"))
        for key in SHOWN:
            if row.get(key) is not None:
                values[key].append(row[key])
        if row.get("psnr_10k_db") is not None:
            worst = sorted([*worst, (row["psnr_10k_db"], row)], key=lambda pair: pair[0])[:WORST]
    context = {
        "title": title, "count": count, "held": held, "failed": failed,
        "spreads": [(BY_KEY[key].name, charts.histogram(found, _axis(key), f"Scenes by {BY_KEY[key].name}"))
                    for key, found in values.items() if found],
        "worst": [{"psnr_db": psnr, "picture": _picture(out, row), **row} for psnr, row in worst],
    }  # fmt: skip
    path = out / "summary.html"
    path.write_text(page.render(PAGE, context), encoding="utf-8")
    return path


def _axis(key: str) -> str:
    return ", ".join(text for text in (BY_KEY[key].name, BY_KEY[key].unit) if text)


def _picture(out: Path, row: dict[str, Any]) -> str | None:
    """The quicklook of a scene as a data URI, where there is one."""
    path = out / SCENES / str(row.get("folder")) / "quicklook.png"
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}" if path.is_file() else None
