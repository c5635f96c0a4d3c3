"""Rows of the bench -> out/: rd.json, plots (PNG and SVG) and one page that opens offline. Fields: docs/metrics.md.

rd.json is the same for the same tiles, bundle and libraries, except for `encode_s` and `decode_s` of the rows and the
section `measured_on_host`.
"""

import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from payload.errors import InputError
from sim.compare import plots
from sim.compare.classical import Codec, library_versions
from sim.compare.page import render_page
from sim.compare.summary import REFERENCES, TABLE_CR, Bench, Row
from sim.compare.tiles import BenchTile, digest
from sim.design.figures import fixed, signed
from sim.metrics.catalogue import conventions
from sim.report.files import canonical_json

SCHEMA = "nadir-rd/1"
ATTRIBUTION = "Contains modified Copernicus Sentinel data where the tiles come from Sentinel-2."

#: The convention of every figure, beside the figures: docs/metrics.md says more.
CONVENTIONS = {
    "octets": "all octets a decoder needs: headers, side information, lengths; of the learned codec the whole space "
    "packets with their headers and CRCs. Opponents carry no packets and no comments, HEVC and VVC no parameter sets; "
    "in one codestream there is one set of headers",
    "pixels": "DN = reflectance x 10 000, offset removed; bands B02 B03 B04 B08; only tiles without invalid pixels; "
    "clouds are measured like the rest",
    "bd_rate": "per tile: log octets over PSNR (10k) as PCHIP, over the PSNR both reach within CR 20 to 250; then the "
    "mean over tiles, its 95 % interval (bootstrap over tiles) and the spread. Negative: fewer octets than the "
    "reference. A difference under 5 points between two codecs is none",
    "at_cr": "each tile at this CR along its own curve, then the mean over tiles; psnr_10k_pooled_db from the mean MSE",
    "at_psnr": "each tile at this PSNR, mean bits per pixel",
    "seconds": "encode_s and decode_s: processor time of one call on one thread, after one untimed call; speed is the "
    "median over tiles at the setting nearest to CR 20",
    **conventions(),
}


def document(
    rows: Sequence[Row],
    tiles: Sequence[BenchTile],
    codecs: Sequence[Codec],
    absent: Mapping[str, str],
    paths: Sequence[Path],
) -> dict[str, Any]:
    """Everything rd.json holds, as plain values."""
    bench = Bench(rows)
    return {
        "schema": SCHEMA,
        "inputs": {
            "files": [{"name": path.name, "sha256": digest(path)} for path in paths],
            "tiles": [tile.name for tile in tiles],
            "bands": list(tiles[0].sensor.names),
            "height_px": int(tiles[0].dn.shape[1]),
            "width_px": int(tiles[0].dn.shape[2]),
            "sensor_bits": tiles[0].sensor.bits,
        },
        "codecs": {codec.name: {"note": codec.note, "settings": list(codec.settings)} for codec in codecs},
        "absent": dict(absent),
        "libraries": library_versions(),
        "conventions": CONVENTIONS,
        "attribution": ATTRIBUTION,
        **bench.summary(),
        "rows": list(rows),
        "measured_on_host": {
            "machine": platform.machine(),
            "processor": _processor(),
            "speed": {codec: bench.speed(codec) for codec in bench.codecs},
        },
    }


def write_results(result: Mapping[str, Any], out_dir: Path) -> list[Path]:
    """rd.json, rd.html and plots under `out_dir`; everything is rendered before anything is written."""
    figures = plots.plots(Bench(result["rows"]), result["measured_on_host"]["speed"])
    drawn = {f"{name}.svg": plots.svg(plot) for name, plot in figures.items()}
    files = {f"{name}.png": plots.png(plot) for name, plot in figures.items()} | drawn
    files["rd.json"] = canonical_json(result).encode()
    files["rd.html"] = render_page(result).encode()
    try:
        out_dir.mkdir(parents=True, exist_ok=True)
        for name, octets in files.items():
            (out_dir / name).write_bytes(octets)
    except OSError as error:
        raise InputError(f"--out {out_dir}: {error.strerror}, wanted a directory to write to; give another") from None
    return [out_dir / name for name in sorted(files)]


def as_text(result: Mapping[str, Any], page: Path) -> str:
    """The comparison as a table for a terminal."""
    references = [name for name in REFERENCES if name in result["codecs"]]
    head = ["codec", *(f"BD/{name}" for name in references), *(f"dB@{cr}" for cr in TABLE_CR)]
    head += ["lossless", "s/tile", "enc", "dec"]
    lines, tiles = [head], len(result["inputs"]["tiles"])
    for codec in result["codecs"]:
        speed = result["measured_on_host"]["speed"][codec]
        rates = [_with_interval(result["bd_rate"][codec].get(name, {})) for name in references]
        at_cr = [result["at_cr"][codec][str(cr)] for cr in TABLE_CR]
        # a mean over fewer than all tiles compares with nothing
        levels = [at["psnr_10k_db"] if at["tiles"] == tiles else None for at in at_cr]
        speeds = [
            f"{speed['encode_s_per_tile']:.3g}",
            *(fixed(speed[way], 2) for way in ("encode_mpx_s", "decode_mpx_s")),
        ]
        lines.append([codec, *rates, *(fixed(v, 2) for v in (*levels, result["lossless_cr16"][codec])), *speeds])
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    text = ["  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in lines]
    notes = [f"{name}: {why}" for name, why in result["absent"].items()]
    legend = f"{tiles} tiles. BD-rate in % (95 % interval over tiles; under 5 points is no difference), "
    legend += "PSNR peak 10 000 at a CR, lossless CR, encoder s/tile and Mpx/s at CR 20."
    return "\n".join([*text, legend, *notes, f"page: {page}"])


def _with_interval(bd: Mapping[str, Any]) -> str:
    """A BD-rate with its interval: -14.7 (-15.9..-13.5)."""
    mean, low, high = (bd.get(f"{name}_percent") for name in ("mean", "low", "high"))
    return f"{signed(mean, 1)} ({signed(low, 1)}..{signed(high, 1)})" if mean is not None else signed(None, 1)


def _processor() -> str:
    """The processor's name where Linux tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
