"""The command line of `sim`, put together: what each group adds, and the options that hold for all of them."""

from collections.abc import Callable
from typing import Annotated

import typer

from hil.command_group import Root
from hil.console import set_up_logging
from payload.version import described
from sim.commands import archive, bench, campaign, clouds, faults, features, live, missions, scenes
from sim.commands import verify as verification

app = typer.Typer(
    name="sim",
    cls=Root,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Nadir: an onboard inference payload, from scene to ground.",
)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"sim {described()}")
        raise typer.Exit


@app.callback()
def _root(
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Also what libraries say; tracebacks.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Errors only: no progress, no notes.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Version and commit.")
    ] = False,
) -> None:
    """Nadir: an onboard inference payload, from scene to ground."""
    set_up_logging("sim", verbose, quiet)


COMMANDS: dict[str, Callable[..., None]] = {
    "downlink": scenes.downlink,
    "receive": scenes.receive,
    "view": live.view,
    "features": features.features,
    "search": features.search,
    "change": features.change,
    "verify": verification.verify,
    "compare": verification.compare,
    "sweep": verification.sweep,
    "campaign": campaign.campaign,
    "geoservice": campaign.geoservice,
    "moderate": campaign.moderate,
    "serve": live.serve,
    "passes": missions.passes,
    "bench": bench.bench,
    "evaluate": bench.evaluate,
    "evaluate-clouds": clouds.evaluate_clouds,
    "evaluate-apps": clouds.evaluate_apps,
    "evaluate-corsa": bench.evaluate_corsa,
    "evaluate-aided": bench.evaluate_aided,
    "evaluate-cubes": bench.evaluate_cubes,
    "evaluate-tasks": bench.evaluate_tasks,
    "audit": clouds.audit,
    "command": scenes.command,
    "faults": faults.faults,
    "soak": faults.soak,
    "missions": missions.missions,
    "bundles": missions.bundles,
    "sensors": missions.sensors,
    "devices": missions.devices,
    "engines": missions.engines,
}
for name, command in COMMANDS.items():
    app.command(name)(command)
app.add_typer(missions.mission_app, name="mission")
app.add_typer(archive.archive_app, name="archive")
