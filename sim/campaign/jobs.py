"""What a worker does with one item: a digest of it, the job, and one row of figures. Runs in a process of its own."""

import hashlib
import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from payload.bundle import DEFAULT, load_bundle
from payload.errors import InputError
from payload.stopwatch import peak_memory_mib
from sim.campaign.items import Item
from sim.heap import give_large_arrays_their_own_pages
from sim.progress import silent

CHUNK_OCTETS = 1 << 20
ROWS, SCENES = "rows", "scenes"


@dataclass(frozen=True)
class Job:
    """The same for every item. What is in it changes what comes out, so all of it goes into the digest."""

    kind: str
    mission: str
    bundle: str = DEFAULT
    engine: str = "openvino"
    cr: float = 50.0


def run(item: Item, job: Job, out: str) -> dict[str, Any]:
    """One item's row. What is done already is read, what fails is a row with its reason; nothing is raised."""
    start_s = time.perf_counter()
    give_large_arrays_their_own_pages()
    try:
        key = digest(item, job)
        kept = Path(out) / ROWS / f"{key}.json"
        if kept.is_file():
            return json.loads(kept.read_text(encoding="utf-8")) | {"skipped": True}
        row = {"state": "done", "reason": None} | DO[job.kind](item, job, Path(out) / SCENES / key)
    except Exception as error:  # whatever happens to one scene must not stop the others
        told = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
        row, kept, key = {"state": "failed", "reason": " ".join(told.split())[:500]}, None, ""
        row["worth_another_try"] = not isinstance(error, InputError)
    row |= {"digest": key, "scene": item.scene, "seed": item.seed, "seconds": time.perf_counter() - start_s,
            "worker": os.getpid(), "worker_peak_mib": peak_memory_mib(), "worker_mib": resident_mib()}  # fmt: skip
    if kept is not None:
        write_whole(kept, json.dumps(row))
    return row | {"skipped": False}


def digest(item: Item, job: Job) -> str:
    """SHA-256 of the scene's octets (of a generated one: its name), the item's settings, the job and the bundle."""
    told = asdict(job) | {"seed": item.seed, "bundle": load_bundle(job.bundle).manifest["files"]}
    found = hashlib.sha256(json.dumps(told, sort_keys=True).encode())
    for where in (item.scene, item.received):
        if where is not None:
            _take(found, where)
    return found.hexdigest()[:32]


def _take(found: Any, where: str) -> None:
    path = Path(where)
    if where.partition(":")[0] == "demo" or not path.exists():
        found.update(where.encode())
        return
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if file.is_file():
            found.update(file.name.encode())
            with file.open("rb") as stream:
                while chunk := stream.read(CHUNK_OCTETS):
                    found.update(chunk)


def write_whole(path: Path, text: str) -> None:
    """Whole or not at all, whoever is killed meanwhile."""
    half = path.with_name(f".{path.name}.{os.getpid()}")
    half.write_text(text, encoding="utf-8")
    half.replace(path)


def resident_mib() -> float:
    """Memory of this process now; 0 where the system does not tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except (OSError, ValueError, IndexError):
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def _downlink(item: Item, job: Job, folder: Path) -> dict[str, Any]:
    from sim.downlink import Request, downlink
    from sim.onboard.kept_engine import kept_engine
    from sim.report.files import arrange

    engine = kept_engine(job.engine)  # a worker compiles a bundle's networks once, not for every scene
    request = Request(item.scene, folder, job.mission, job.bundle, engine, item.seed, overwrite=True)
    report = arrange(downlink(request, silent))  # workers share a host: its times are no requirement here
    metrics = {row["key"]: row["value"] for row in report["quality"]["metrics"]}
    tiles = {f"tiles_{kind}": report["tiles"][kind] for kind in ("total", "coded", "withheld", "lost", "refused")}
    names = ("psnr_10k_db", "ssim_10k", "ndvi_mae", "sam_deg", "kmeans_oa", "cover_oa")
    return {
        "folder": folder.name, "held": report["held"], "octets": report["rate"]["octets"],
        "cr16": _number(report["rate"]["cr16"]), "cloud_percent": _number(report["clouds"]["cloud_percent"]),
        **tiles, **{name: _number(metrics.get(name)) for name in names},
    }  # fmt: skip


def _archive(item: Item, job: Job, folder: Path) -> dict[str, Any]:
    from sim.archive import service
    from sim.archive.coding import Quality
    from sim.archive.store import Store
    from sim.archive.writing import Order

    store = folder.parents[1] / "store"
    store.mkdir(exist_ok=True)
    order = Order(Quality(job.cr, None), job.bundle, job.engine, seed=item.seed, overwrite=True)
    entry = service.put(item.scene, Store(str(store)), order, silent)
    return {
        "folder": None, "name": entry.name, "held": not entry.missing, "octets": entry.octets, "cr16": entry.cr16,
        "psnr_10k_db": _number(entry.mean_psnr_db),
    }  # fmt: skip


def _verify(item: Item, job: Job, folder: Path) -> dict[str, Any]:
    from sim.verify import verify as module

    if item.received is None:
        raise InputError(f"{item.scene}: nothing to hold against it; give received beside scene in the catalogue")
    document = module.verify(module.VerifyRequest(Path(item.scene), Path(item.received)), None, silent)
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / "verify.json", module.as_json(document))
    scores = document["thematics"][module.copex.THEMATIC]["metrics"]
    ours = document["nadir"]
    return {
        "folder": folder.name, "held": True, "sam_deg": _number(ours["sam_deg"]),
        "kmeans_oa": _number(scores["overall_accuracy"]["results"]["all"]),
        "psnr_10k_db": _number(min(band["psnr_db"] for band in ours["bands"].values())),
    }  # fmt: skip


def _number(value: Any) -> float | None:
    """JSON's own; None for what is not finite or not known."""
    return float(value) if value is not None and abs(float(value)) < float("inf") else None


DO = {"downlink": _downlink, "archive": _archive, "verify": _verify}
