"""`sim verify`, `sim compare`, `sim sweep`: rasters, runs and settings beside each other."""

import json
from pathlib import Path
from typing import Annotated

import typer

from payload.bundle import DEFAULT
from sim.commands import options
from sim.commands.console import progress


def verify(
    original: Annotated[Path, typer.Option(help="The raster as it was.")],
    received: Annotated[Path, typer.Option(help="The raster as it came back, on the same grid.")],
    mask: Annotated[Path | None, typer.Option(help="A raster: what is not 0 counts.")] = None,
    model: Annotated[Path | None, typer.Option(help="An ONNX classifier: reflectance [1,B,h,w] -> scores.")] = None,
    lpips_weights: Annotated[Path | None, typer.Option(help="LPIPS as ONNX: two pictures -> a distance.")] = None,
    bundle: Annotated[str, typer.Option(help="Whose cloud mask runs over both; none: no cloud mask.")] = DEFAULT,
    scale: Annotated[float | None, typer.Option(help="Reflectance of one stored unit; else the file's tag.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for verify.json and the maps of NDVI and NDWI.")] = None,
    as_json: options.AsJson = False,
) -> None:
    """What a received raster is still good for: COPEX's metrics, bias and gain, sharpness, indices, classes."""
    from payload.bundle import load_bundle
    from payload.engine import open_engine
    from sim.clouds.ground_mask import open_ground_mask
    from sim.verify import verify as module

    ground = None if bundle == "none" else open_ground_mask(load_bundle(bundle), open_engine("openvino"))
    with progress("verify") as advance:
        request = module.VerifyRequest(original, received, mask, model, lpips_weights, out, scale)
        document = module.verify(request, ground, advance)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        (out / "verify.json").write_text(module.as_json(document), encoding="utf-8")
    print(module.as_json(document) if as_json else module.as_text(document), end="")


def compare(
    reports: Annotated[list[Path], typer.Argument(help="report.json files or their folders; the first is the base.")],
    out: Annotated[Path | None, typer.Option(help="An HTML page with the pictures beside each other.")] = None,
    as_json: options.AsJson = False,
) -> None:
    """Put runs side by side: figures, differences from the first, pictures."""
    from sim.report import side_by_side

    table = side_by_side.compare(side_by_side.read_reports(reports))
    if out is not None:
        side_by_side.write_page(table, out)
    print(json.dumps(table, indent=1) + "\n" if as_json else side_by_side.as_text(table), end="")


def sweep(
    scene: Annotated[str, typer.Option(help="GeoTIFF or COG, Sentinel-2 .SAFE folder or .zip, or: demo.")],
    step: Annotated[str | None, typer.Option(help="Quantiser steps in DN, as in 100,200,400.")] = None,
    rate: Annotated[str | None, typer.Option(help="Budgets of the scene in octets, as in 100000,200000.")] = None,
    loss: Annotated[str | None, typer.Option(help="Shares of packets lost, as in 0,0.01,0.1.")] = None,
    mission: options.Mission = "phisat2",
    bundle: options.Bundle = DEFAULT,
    engine: options.Engine = "openvino",
    seed: Annotated[int, typer.Option(help="Of the channel, and of the demo scene.")] = 0,
    out: Annotated[Path, typer.Option(help="Folder of the runs and of sweep.csv.")] = Path("out/sweep"),
    as_json: options.AsJson = False,
) -> None:
    """One scene at every combination of step, rate and loss: compression ratio, quality and budget in one table."""
    from sim.campaign import sweep as module
    from sim.downlink import Request

    steps, budgets = module.numbers(step, "--step"), module.budgets(rate)
    losses = module.numbers(loss, "--loss")
    with progress("sweep") as advance:
        request = Request(scene, out, mission, bundle, engine, seed)
        rows = module.sweep(request, steps, budgets, losses, advance)
    module.write_csv(rows, out / "sweep.csv")
    print(json.dumps(rows, indent=1) + "\n" if as_json else module.as_text(rows), end="")
