"""`sim verify`: any two rasters beside each other."""

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
