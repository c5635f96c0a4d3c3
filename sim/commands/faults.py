"""`sim faults` and `sim soak`: what faults do to the payload, and what it does about them."""

import json
from pathlib import Path
from typing import Annotated

import typer

from sim.commands import options
from sim.commands.console import progress


def faults(
    rows: Annotated[
        list[str] | None, typer.Option(help="memory, channel, process, model, a row's name or a pattern; repeat it.")
    ] = None,
    trials: Annotated[int, typer.Option(min=1, help="Trials a row; rows that take long get a share of them.")] = 200,
    jobs: Annotated[int, typer.Option(min=1, help="Processes.")] = 1,
    seed: Annotated[int, typer.Option(help="Of all random draws.")] = 0,
    out: Annotated[Path, typer.Option(help="Where faults.json and faults.html go.")] = Path("out/faults"),
    as_json: options.AsJson = False,
) -> None:
    """Faults of memory, channel, process and model management, row by row. Exit 1 where a row does not hold."""
    from sim.faults.campaign import Question, run
    from sim.faults.page import as_text, render_page

    question = Question(tuple(rows or Question.rows), trials, jobs, seed)
    with progress("faults") as advance:
        result = run(question, advance)
    out.mkdir(parents=True, exist_ok=True)
    (out / "faults.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    (out / "faults.html").write_text(render_page(result), encoding="utf-8")
    print(json.dumps(result, indent=2) if as_json else f"{as_text(result)}\n{out / 'faults.html'}")
    if result["failed"]:
        raise typer.Exit(1)


def soak(
    days: Annotated[float, typer.Option(min=0.1, help="Simulated days.")] = 7.0,
    factor: Annotated[float, typer.Option(min=0.0, help="Faults at so many times their rates.")] = 100.0,
    seed: Annotated[int, typer.Option(help="Of all random draws.")] = 0,
    as_json: options.AsJson = False,
) -> None:
    """A simulated week of scenes and passes under all faults. Exit 1 where anything wrong left or anything grew."""
    from sim.faults.soak import as_text
    from sim.faults.soak import soak as run

    with progress("soak") as advance:
        week = run(days, factor, seed, advance)
    print(json.dumps(week.as_dict(), indent=2) if as_json else as_text(week))
    if not week.held:
        raise typer.Exit(1)
