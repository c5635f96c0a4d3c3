"""`sim evaluate-clouds` and `sim audit`: the cloud gate against other detectors, and against its own discards."""

import json
from pathlib import Path
from typing import Annotated

import typer

from sim.commands import options
from sim.commands.console import progress


def evaluate_clouds(
    network: Annotated[list[str] | None, typer.Option(help="A bundle or a trained folder; repeat it.")] = None,
    data: Annotated[Path | None, typer.Option(help="Folder of the Sentinel-2 tiles; else NADIR_DATA.")] = None,
    engine: options.Engine = "openvino",
    out: Annotated[Path, typer.Option(help="Folder for clouds.json and clouds.html.")] = Path("build/clouds-report"),
) -> None:
    """The cloud gate beside people, ukis-csmask, s2cloudless, rules and Sen2Cor. Exit 1 if a bar is missed."""
    from sim.clouds import evaluate, judged, page, requirements
    from sim.clouds.samples import data_folder

    with progress("clouds") as advance:
        folder, networks = data_folder(data), network or judged.default_networks()
        result, material = evaluate.evaluate_clouds(folder, networks, engine, advance)
    paths = page.write_page(result, material, out)
    print(requirements.as_text(result))
    print(f"wrote {paths[0]} and {paths[1]}")
    if not all(check["held"] for check in result["checks"]):
        raise typer.Exit(1)


def evaluate_apps(
    data: Annotated[Path | None, typer.Option(help="Folder of the Sentinel-2 tiles; else NADIR_DATA.")] = None,
    bundle: options.Bundle = "edge",
    engine: options.Engine = "openvino",
    out: Annotated[Path, typer.Option(help="Folder for quality.toml and quality.json.")] = Path("build/apps-report"),
) -> None:
    """The applications that ship on real pixels: what they find, and how often they are wrong."""
    from payload.bundle import load_bundle
    from payload.engine import open_engine
    from sim.apps import evaluate
    from sim.clouds.samples import data_folder

    with progress("applications") as advance:
        figures = evaluate.evaluate_apps(data_folder(data), load_bundle(bundle), open_engine(engine), advance)
    out.mkdir(parents=True, exist_ok=True)
    (out / "quality.toml").write_text(evaluate.as_toml(figures), encoding="utf-8")
    (out / "quality.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    print(evaluate.as_text(figures))
    print(f"wrote {out / 'quality.toml'} and {out / 'quality.json'}")


def audit(
    reports: Annotated[list[Path], typer.Argument(help="report.json of runs.")],
    verdicts: Annotated[Path | None, typer.Option(help="CSV of a person's verdicts: scene, row, col, verdict.")] = None,
    as_json: options.AsJson = False,
) -> None:
    """What the gate destroys, from the audits of many runs: exact bounds. Exit 1 if the claim is not borne out yet."""
    from sim.clouds import audit as module

    result = module.audit(reports, verdicts)
    print(json.dumps(result, indent=2) if as_json else module.as_text(result))
    if not result["claim_held"]:
        raise typer.Exit(1)
