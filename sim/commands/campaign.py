"""`sim campaign`: many scenes at once, on Dask. `sim geoservice`, `sim moderate`: what many runs say of sites."""

import gc
import json
import os
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

import typer

from payload.bundle import DEFAULT
from payload.errors import InputError
from sim.commands import options
from sim.commands.console import progress

Kind = Literal["downlink", "archive", "verify"]


def campaign(
    catalog: Annotated[str, typer.Option(help="A JSON list or STAC items, a folder of scenes, or demo:N.")],
    scheduler: Annotated[str | None, typer.Option(help="A Dask scheduler's address; workers here if left out.")] = None,
    job: Annotated[Kind, typer.Option(help="What is done with each scene.")] = "downlink",
    mission: options.Mission = "phisat2",
    bundle: options.Bundle = DEFAULT,
    engine: options.Engine = "openvino",
    cr: Annotated[float, typer.Option(help="Compression ratio of --job archive.")] = 50.0,
    workers: Annotated[int, typer.Option(min=0, help="Workers on this host; 0: one a core.")] = 0,
    memory: Annotated[str, typer.Option(help="Most that a worker may hold before it is started anew.")] = "2GiB",
    retries: Annotated[int, typer.Option(min=0, help="Further tries of a scene that failed.")] = 1,
    demo_px: Annotated[int, typer.Option(min=64, help="Side of generated scenes.")] = 512,
    out: Annotated[Path, typer.Option(help="Folder of rows, scenes, results.parquet, summary.html.")] = Path(
        "out/campaign"
    ),
) -> None:
    """Run a job over many scenes; run it again to go on where it stopped. Exit 1 if a scene failed or did not hold."""
    from sim.campaign import nursery
    from sim.campaign.items import read_catalogue
    from sim.campaign.jobs import Job

    items, work = read_catalogue(catalog, demo_px), Job(job, mission, bundle, engine, cr)
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file, wanted a folder; choose another --out")
    if scheduler is None:
        nursery.begin(job)  # it imports while all of this does, too
    from sim.campaign import run, table

    with ThreadPoolExecutor(1) as aside:
        ready = aside.submit(table.prepare)  # while the workers start
        with run.cluster(scheduler, workers or os.cpu_count() or 1, memory) as client, progress("campaign") as advance:
            ready.result()
            outcome = run.campaign(items, work, out, client, retries, advance)
            written = aside.submit(table.write, out, f"{job} of {len(items)} scenes", outcome.failed)  # while they end
        paths = written.result()
    print(f"done {outcome.done}, done before {outcome.skipped}, failed {len(outcome.failed)}, tried again "
          f"{outcome.retried}, requirement missed {outcome.not_held}")  # fmt: skip
    for row in outcome.failed[:10]:
        print(f"failed   {row['scene']} (seed {row['seed']}, {row['tries']} tries): {row['reason']}")
    print(f"wrote {paths[0]} and {paths[1]}")
    gc.freeze()  # all of it goes when the process does: the collector need not look through it first
    if outcome.failed or outcome.not_held:
        raise typer.Exit(1)


def geoservice(
    service: Annotated[Path, typer.Argument(help="SERVICE.toml: sites, indicators, period, recipients, bulletin.")],
    runs: Annotated[Path, typer.Option(help="Folder of runs, however deep: downlink, receive, campaign, mission.")],
    out: Annotated[Path, typer.Option(help="Folder of dashboard, bulletins and outbox.")] = Path("out/geoservice"),
    overwrite: options.Overwrite = False,
    as_json: options.AsJson = False,
) -> None:
    """Sites watched over many runs: figures, alerts, a dashboard, bulletins, mails as files (none is sent)."""
    from sim.geoservice import produce

    with progress("geoservice") as advance:
        record = produce.geoservice(produce.GeoserviceRequest(service, runs, out, overwrite), advance)
    print(json.dumps(record, indent=1) + "\n" if as_json else produce.as_text(record, out), end="")


def moderate(
    service: Annotated[Path, typer.Argument(help="SERVICE.toml, whose verdicts lie beside it.")],
    figure: Annotated[str, typer.Argument(help="The figure's name, as the dashboard shows it.")],
    verdict: Annotated[Literal["accept", "reject", "comment"], typer.Argument(help="What is said of it.")],
    by: Annotated[str, typer.Option(help="Who says so.")],
    comment: Annotated[str, typer.Option(help="Why.")] = "",
    out: Annotated[Path, typer.Option(help="Where sim geoservice wrote the figure.")] = Path("out/geoservice"),
) -> None:
    """A moderator's verdict on a figure; the next sim geoservice takes it up."""
    from sim.geoservice import produce, verdicts
    from sim.geoservice.service import load_service

    load_service(service)
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    said = verdicts.Verdict(figure, verdict, by, now, comment)
    one = produce.figure_in(out, figure)
    path = verdicts.verdicts_file(service)
    verdicts.add_verdict(path, said)
    print(f"{verdict}: figure {figure}, {one['site']}, {one['indicator']}, {one['period']}; written to {path}")
