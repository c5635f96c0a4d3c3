"""`hil campaign`: several devices, over a day."""

from pathlib import Path
from typing import Annotated

import typer

from hil.campaign.plan import read_plan
from hil.campaign.steps import run_campaign
from hil.commands.options import Out, write_text
from hil.console import say
from hil.profiles.campaign_file import checks
from hil.profiles.campaign_page import as_csv, write_page


def campaign(
    plan: Annotated[Path, typer.Argument(help="a TOML file: devices, work, rounds (docs/hil.md)")],
    out: Out,
    resume: Annotated[bool, typer.Option("--resume", help="go on with a campaign that was stopped")] = False,
) -> None:
    """Devices side by side over a day: campaign.html, campaign.csv. Exit 1 if a step is missing or codes differ."""
    asked = read_plan(plan)
    records = run_campaign(asked, out, resume, say)
    planned = asked.rounds * len(asked.devices) * len(asked.work)
    write_text(out / "campaign.csv", as_csv(records))
    write_page(asked.name, records, asked.rounds, planned, out / "campaign.html")
    judged = list(checks(records, planned))
    for check in judged:
        state, counts = "held" if check.held else "FAILED", f"{check.measured}, wanted {check.wanted}"
        print(f"{state:<7}{check.asked}: {counts} ({check.found})")
    say(f"{out / 'campaign.html'}")
    raise typer.Exit(0 if all(check.held for check in judged) else 1)
