"""`sim campaign`: many scenes at once, on Dask."""

import os
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
    from sim.campaign import run, table
    from sim.campaign.items import read_catalogue
    from sim.campaign.jobs import Job

    items, work = read_catalogue(catalog, demo_px), Job(job, mission, bundle, engine, cr)
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file, wanted a folder; choose another --out")
    with run.cluster(scheduler, workers or os.cpu_count() or 1, memory) as client, progress("campaign") as advance:
        outcome = run.campaign(items, work, out, client, retries, advance)
    paths = table.write_parquet(out), table.write_page(out, f"{job} of {len(items)} scenes", outcome.failed)
    print(f"done {outcome.done}, done before {outcome.skipped}, failed {len(outcome.failed)}, tried again "
          f"{outcome.retried}, requirement missed {outcome.not_held}")  # fmt: skip
    for row in outcome.failed[:10]:
        print(f"failed   {row['scene']} (seed {row['seed']}, {row['tries']} tries): {row['reason']}")
    print(f"wrote {paths[0]} and {paths[1]}")
    if outcome.failed or outcome.not_held:
        raise typer.Exit(1)
