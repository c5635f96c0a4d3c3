"""`sim campaign`: nothing is lost, nothing is done twice, and one bad scene is one row with its reason."""

import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet
import pytest
import rasterio

from payload.bundle import load_bundle
from payload.codec.interface import DECODER_FILE
from payload.engine import OpenVinoEngine
from payload.errors import InputError
from payload.signature import FILE as SIGNATURE_FILE
from sim.campaign import jobs, run, table
from sim.campaign.items import Item, read_catalogue
from sim.campaign.jobs import Job
from sim.commands.campaign import campaign as command_of
from sim.onboard.kept_engine import kept_engine
from sim.progress import silent

JOB = Job("downlink", "phisat2")
distributed = pytest.importorskip("distributed")


@pytest.fixture(scope="module")
def client():
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, processes=False, dashboard_address=None) as local,
        distributed.Client(local) as client,
    ):
        yield client


@pytest.fixture
def calls(monkeypatch) -> list[Item]:
    """Stands for the job; scenes called `bad` fail: every time, once, or with a bad input."""
    seen: list[Item] = []

    def do(item: Item, job: Job, folder: Path) -> dict:
        seen.append(item)
        if item.scene == "bad input":
            raise InputError("bad input: wanted a good one")
        if item.scene == "bad" or (item.scene == "bad once" and seen.count(item) == 1):
            raise RuntimeError("broken")
        folder.mkdir(parents=True, exist_ok=True)
        return {"folder": folder.name, "held": True, "psnr_10k_db": 40.0 + item.seed, "cr16": 20.0}

    monkeypatch.setitem(jobs.DO, "downlink", do)
    return seen


def go(client, items: list[Item], out: Path, retries: int = 1) -> run.Outcome:
    return run.campaign(items, JOB, out, client, retries, silent)


def test_every_item_is_a_row_once_and_again_is_nothing(client, calls, tmp_path) -> None:
    items = [Item("a", seed) for seed in range(20)]
    first = go(client, [*items, items[3]], tmp_path)  # listed twice, done once
    second = go(client, items, tmp_path)
    assert (first.done, first.skipped, second.done, second.skipped) == (20, 0, 0, 20)
    assert len(calls) == 20 and len(list(table.rows(tmp_path))) == 20
    read = pyarrow.parquet.read_table(table.write_parquet(tmp_path)).to_pylist()
    assert sorted(row["seed"] for row in read) == list(range(20))
    assert {row["psnr_10k_db"] for row in read} == {40.0 + seed for seed in range(20)}
    assert len({row["digest"] for row in read}) == 20


def test_a_failure_is_told_tried_again_and_stops_no_other(client, calls, tmp_path) -> None:
    items = [Item("bad"), Item("a"), Item("bad once"), Item("bad input"), Item("b")]
    outcome = go(client, items, tmp_path)
    assert outcome.done == 3 and outcome.retried == 2
    told = {row["scene"]: (row["reason"], row["tries"]) for row in outcome.failed}
    assert told == {"bad": ("RuntimeError: broken", 2), "bad input": ("bad input: wanted a good one", 1)}
    assert json.loads((tmp_path / "failures.json").read_text()) == outcome.failed
    page = table.write_page(tmp_path, "a campaign", outcome.failed).read_text()
    assert "RuntimeError: broken" in page and "Worst scenes" in page


def test_a_scene_whose_octets_or_job_changed_is_done_again(client, calls, tmp_path) -> None:
    scene = tmp_path / "scene.tif"
    scene.write_bytes(b"one")
    item = Item(str(scene))
    assert go(client, [item], tmp_path / "out").done == 1
    scene.write_bytes(b"two")
    assert go(client, [item], tmp_path / "out").done == 1
    assert jobs.digest(item, JOB) != jobs.digest(item, Job("downlink", "sentinel2"))
    assert jobs.digest(item, JOB) != jobs.digest(Item(str(scene), 1), JOB)


def test_a_better_decoder_network_makes_other_rows_though_the_bundle_s_id_stays(tmp_path: Path) -> None:
    shipped, own = load_bundle("edge"), tmp_path / "edge"
    shutil.copytree(shipped.directory, own, ignore=shutil.ignore_patterns(SIGNATURE_FILE))
    job = Job("downlink", "sentinel2", str(own))
    before = jobs.digest(Item("demo:64"), job)
    (own / DECODER_FILE).write_bytes(b"another network")
    manifest = json.loads((own / "manifest.json").read_text(encoding="utf-8"))
    manifest["files"][DECODER_FILE] = hashlib.sha256(b"another network").hexdigest()
    (own / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    assert load_bundle(own).bundle_id == shipped.bundle_id
    assert jobs.digest(Item("demo:64"), job) != before


def test_few_items_are_at_the_scheduler_at_once(client, calls, tmp_path, monkeypatch) -> None:
    most = 0
    submit = client.submit

    def counted(*args, **kwargs):
        nonlocal most
        future = submit(*args, **kwargs)
        most = max(most, len(client.futures))
        return future

    monkeypatch.setattr(client, "submit", counted)
    go(client, [Item("a", seed) for seed in range(60)], tmp_path)
    assert most <= run.AHEAD * 2 + 1


def test_catalogues_of_all_kinds(tmp_path) -> None:
    assert read_catalogue("demo:3", 256) == [Item("demo:256", 0), Item("demo:256", 1), Item("demo:256", 2)]
    for name in ("b.tif", "a.tif", "notes.txt"):
        (tmp_path / name).touch()
    assert [item.scene for item in read_catalogue(str(tmp_path))] == [str(tmp_path / n) for n in ("a.tif", "b.tif")]
    listed = tmp_path / "list.json"
    listed.write_text(json.dumps(["a.tif", {"scene": "b.tif", "seed": 7, "received": "/x.tif"}, "demo:64"]))
    assert read_catalogue(str(listed)) == [
        Item(str(tmp_path / "a.tif")), Item(str(tmp_path / "b.tif"), 7, "/x.tif"), Item("demo:64")
    ]  # fmt: skip
    asset = {"href": "./b.tif", "type": "image/tiff; application=geotiff", "roles": ["data"]}
    other = {"href": "./m.tif", "type": "image/tiff", "roles": ["metadata"]}
    listed.write_text(json.dumps({"type": "FeatureCollection", "features": [{"assets": {"m": other, "b": asset}}]}))
    assert read_catalogue(str(listed)) == [Item(str(tmp_path / "b.tif"))]


@pytest.mark.parametrize("text", ["{", "[]", "3", '[{"seed": 1}]', '[{"scene": "a", "seed": "x"}]', '{"a": 1}'])
def test_a_catalogue_that_lists_nothing_is_refused(tmp_path, text: str) -> None:
    (tmp_path / "list.json").write_text(text)
    with pytest.raises(InputError, match=r"wanted|whole number"):
        read_catalogue(str(tmp_path / "list.json"))
    for wrong in ("demo:0", "demo:x", str(tmp_path / "none"), "demo:99999999"):
        with pytest.raises(InputError, match="wanted"):
            read_catalogue(wrong)


def test_without_the_extra_it_says_so_in_a_line(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(InputError, match=r"pip install 'nadir-payload\[campaign\]'"):
        run.dask()


def test_a_campaign_that_could_not_write_its_table_does_not_begin(monkeypatch, tmp_path) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setattr(run, "cluster", lambda *_: contextlib.nullcontext())
    monkeypatch.setattr(run, "campaign", lambda *_: pytest.fail("it began"))
    with pytest.raises(InputError, match=r"pyarrow is not installed; pip install 'nadir-payload\[campaign\]'"):
        command_of(catalog="demo:1", out=tmp_path / "out")


def small_pairs(folder: Path, count: int) -> Path:
    """A catalogue of pairs of small rasters for --job verify."""
    random = np.random.default_rng(5)
    entries = []
    for number in range(count):
        dn = random.integers(200, 3000, (4, 32, 32)).astype(np.uint16)
        for name, picture in (("a", dn), ("b", dn + 3)):
            with rasterio.open(
                folder / f"{name}{number}.tif", "w", driver="GTiff", count=4, height=32, width=32, dtype="uint16",
                crs="EPSG:32631", transform=rasterio.Affine(10, 0, 0, 0, -10, 0),
            ) as file:  # fmt: skip
                file.write(picture)
                file.descriptions = ("B02", "B03", "B04", "B08")
        entries.append({"scene": f"a{number}.tif", "received": f"b{number}.tif"})
    (folder / "items.json").write_text(json.dumps(entries))
    return folder / "items.json"


def command(out: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "sim.cli", "-q", "campaign", "--workers", "2", "--out", str(out), *more]


def children(of: int) -> list[int]:
    """Every process below one."""
    listed = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    parents = {int(pid): int(parent) for pid, parent in (line.split() for line in listed.splitlines())}
    found, new = [], [of]
    while new:
        new = [pid for pid, parent in parents.items() if parent in new]
        found += new
    return found


def wait_for_rows(out: Path, count: int, process: subprocess.Popen) -> None:
    end = time.monotonic() + 200
    while len(list((out / "rows").glob("*.json"))) < count:
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.slow
def test_killed_workers_and_a_killed_campaign_lose_nothing_and_repeat_nothing(tmp_path) -> None:
    count, out = 120, tmp_path / "out"
    catalogue = str(small_pairs(tmp_path, count))
    options = command(out, "--catalog", catalogue, "--job", "verify")
    process = subprocess.Popen(options, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        wait_for_rows(out, 10, process)
        worker = next(table.rows(out))["worker"]
        assert worker in children(process.pid)
        os.kill(worker, signal.SIGKILL)
        wait_for_rows(out, 40, process)
    finally:
        for pid in [process.pid, *children(process.pid)]:
            os.kill(pid, signal.SIGKILL)
        process.wait()
    before = {path.name: path.stat().st_mtime_ns for path in (out / "rows").glob("*.json")}
    done = subprocess.run(options, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"done before {len(before)}, failed 0" in done.stdout
    after = {path.name: path.stat().st_mtime_ns for path in (out / "rows").glob("*.json")}
    assert len(after) == count and before.items() <= after.items()  # none is written again
    read = pyarrow.parquet.read_table(out / "results.parquet").to_pylist()
    assert len(read) == len({row["digest"] for row in read}) == len({row["scene"] for row in read}) == count


def test_a_worker_compiles_the_networks_of_a_bundle_once(tmp_path, monkeypatch) -> None:
    loaded = []
    load = OpenVinoEngine.load

    def counted(self, path, *more):
        loaded.append(f"{path.parent.name}/{path.name}")
        return load(self, path, *more)

    monkeypatch.setattr(OpenVinoEngine, "load", counted)
    kept_engine.cache_clear()
    for name in (jobs.ROWS, jobs.SCENES):
        (tmp_path / name).mkdir()
    rows = [jobs.run(Item("demo:64", seed), JOB, str(tmp_path)) for seed in range(3)]
    assert [row["state"] for row in rows] == ["done"] * 3
    assert sorted(loaded) == sorted(set(loaded)) and loaded


def test_why_an_item_failed_is_told_in_300_characters() -> None:
    future = SimpleNamespace(exception=lambda: OSError("x" * 400))
    row = run._row(future, Item("a.tif", 7))
    assert row == {
        "state": "failed", "reason": "OSError: " + "x" * 300, "scene": "a.tif", "seed": 7, "skipped": False,
    }  # fmt: skip
