"""The comparison of `sim evaluate` -> rd.html: tables and charts of the house's one design (sim/design)."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from sim.compare.summary import REFERENCES, TABLE_CR, TABLE_PSNR_DB, Bench
from sim.design import charts, names
from sim.design.page import TEMPLATES, render
from sim.metrics.bd_rate import CR_COARSE, CR_FINE
from sim.metrics.catalogue import BY_KEY, COMPARED, Metric

CURVE_CR = tuple(CR_FINE * (CR_COARSE / CR_FINE) ** (k / 24) for k in range(25))
TICKS_CR = (20, 30, 50, 100, 150, 250)
#: What is drawn along the compression ratio.
PANELS = tuple(BY_KEY[key] for key in ("psnr_10k_db", "ssim_10k", "ssim_own", "sam_deg", "ndvi_mae", "kmeans_oa"))
#: Opponents: one colour a family, dashes for the variant.
STYLES = {
    "klt-jpeg2000": "s5", "klt-jpeg2000-joint": "s5 dash", "jpeg2000": "s1", "jpeg2000-joint": "s1 dash", "htj2k": "s3",
    "klt-diff-jpeg2000": "s5 dash", "klt-diff-jpeg2000-joint": "s5 dash", "jpegxl-e7": "s2", "jpegxl-e3": "s2 dash",
    "klt-hevc": "s4", "klt-av1": "s7", "klt-vvc": "s7 dash", "jpeg": "s8", "ccsds121": "s8 dash",
}  # fmt: skip
#: Bundles, in the order they were named.
OURS = ("s0", "s9", "s6", "s7")
#: Octets over the reference's, on the axis of BD-rates: what is marked there.
RATIOS = {
    0.25: "−75 %", 0.5: "−50 %", 0.75: "−25 %", 1.0: "0", 1.5: "+50 %", 2.0: "+100 %", 4.0: "+300 %", 8.0: "+700 %",
}  # fmt: skip


def render_page(result: Mapping[str, Any]) -> str:
    """The text of rd.html. `result` is what rd.json holds."""
    bench = Bench(result["rows"])
    references = [name for name in REFERENCES if name in result["codecs"]]
    speed = result["measured_on_host"]["speed"]
    return render(
        TEMPLATES / "evaluate.html",
        {
            **{key: result[key] for key in result if key != "rows"},
            "decoder_tables": _decoders(result),
            "key_figures": _key_figures(result, references),
            "curves": [(_title(metric), _curves(bench, metric)) for metric in PANELS],
            "columns": COMPARED,
            "curve_keys": [(css, codec) for codec, css in styles(bench.codecs).items()],
            "strips": {name: _strips(result["bd_rate"], name) for name in references[:2]},
            "encoding": _speeds(speed, "encode_mpx_s"),
            "decoding": _speeds(speed, "decode_mpx_s"),
            "references": references,
            "table_cr": TABLE_CR,
            "table_psnr": [f"{db:g}" for db in TABLE_PSNR_DB],
            "row_count": len(result["rows"]),
        },
    )


def styles(codecs: Sequence[str]) -> dict[str, str]:
    """The classes of every codec's line: bundles thick, each in a colour of its own."""
    ours = [codec for codec in codecs if codec.startswith("nadir")]
    own = {codec: f"{OURS[n % len(OURS)]} ours" for n, codec in enumerate(ours)}
    return {codec: own.get(codec) or STYLES.get(codec, "s6 dash") for codec in codecs}


def _title(metric: Metric) -> str:
    return f"{metric.name}, {'more' if metric.more_is_better else 'less'} is better"


def _curves(bench: Bench, metric: Metric) -> charts.Svg:
    """One metric along the compression ratio, one line a codec, ours on top."""
    css, ordered = styles(bench.codecs), sorted(bench.codecs, key=lambda codec: codec.startswith("nadir"))
    series = [
        charts.Series(css[c], list(zip(CURVE_CR, bench.curve_points(c, metric.key, CURVE_CR), strict=True)))
        for c in ordered
    ]
    across = charts.Axis(CR_FINE, CR_COARSE, log=True, ticks=TICKS_CR)
    return charts.lines(
        series, across, "compression ratio (16 bit), logarithmic", metric.unit or metric.name, metric.name
    )


def _strips(bd_rates: Mapping[str, Any], reference: str) -> charts.Svg:
    """BD-rate of every tile, one row a codec, best on top, over the logarithm of the octets' ratio."""
    found = [(codec, rates[reference]) for codec, rates in bd_rates.items() if rates.get(reference, {}).get("tiles")]
    rows, css = [], styles(list(bd_rates))
    for codec, rate in sorted(found, key=lambda row: row[1]["mean_percent"]):
        values = [_ratio(v) for v in rate["per_tile_percent"].values() if v is not None and math.isfinite(v)]
        rows.append((f"{codec}  {_signed(rate['mean_percent'])} %", css[codec], values, _ratio(rate["mean_percent"])))
    every = [value for _, _, values, _ in rows for value in values]
    if not every:
        return charts.Svg()
    ends = min(0.7, *every) / 1.05, max(1.5, *every) * 1.05
    across = charts.Axis(*ends, log=True, ticks=tuple(RATIOS), texts=RATIOS)
    title = "octets against the reference's, logarithmic axis"
    return charts.strips(rows, across, title, f"BD-rate of every tile against {reference}")


def _ratio(percent: float) -> float:
    return 1 + percent / 100


def _speeds(speeds: Mapping[str, Mapping[str, float]], key: str) -> list[tuple[str, charts.Bar]]:
    """(classes, bar) of every codec, the fastest first."""
    order = sorted(speeds, key=lambda codec: speeds[codec][key], reverse=True)
    css = styles(list(speeds))
    drawn = charts.bars([(codec, speeds[codec][key], f"{speeds[codec][key]:.3g} Mpx/s") for codec in order])
    return [(css[bar.name], bar) for bar in drawn]


def _key_figures(result: Mapping[str, Any], references: Sequence[str]) -> list[tuple[str, str, str, str, str]]:
    """Of the learned codec: BD-rate against each reference, PSNR at CR 20, speed both ways."""
    ours = next((codec for codec in result["codecs"] if codec.startswith("nadir")), None)
    if ours is None:
        return []
    rates = [(name, result["bd_rate"][ours].get(name, {})) for name in references[:2]]
    rows = [
        (f"BD-rate against {name}", _signed(bd["mean_percent"]), "%", f"{bd['tiles']} tiles; below 0: fewer octets", "")
        for name, bd in rates
        if bd.get("tiles")
    ]
    at, speed = result["at_cr"][ours]["20"], result["measured_on_host"]["speed"][ours]
    if at["tiles"]:
        note = f"peak 10 000, mean over {at['tiles']} tiles"
        rows.append(("PSNR at CR 20", f"{at['psnr_10k_mean_db']:.2f}", "dB", note, ""))
    note = "measured on this host, one thread, tile by tile"
    rows += [(f"{word} speed", f"{speed[key]:.3g}", "Mpx/s", note, "") for word, key in WAYS]
    return rows


WAYS = (("Encoder", "encode_mpx_s"), ("Decoder", "decode_mpx_s"))


def _signed(value: float) -> str:
    return f"{value:+.1f}".replace("-", "−")


def _decoders(result: Mapping[str, Any]) -> list[tuple[str, list[tuple[str, str, str]]]]:
    """(codec, rows) of every learned codec: size of its decoder network, and how fast it decodes here."""
    speeds = result["measured_on_host"]["speed"]
    return [
        (codec, [*names.plain_rows(size), names.row("decoder_mpx_s", speeds[codec]["decode_mpx_s"])])
        for codec, size in result.get("decoders", {}).items()
    ]
