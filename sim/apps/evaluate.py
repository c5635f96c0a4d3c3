"""The shipped applications on real pixels: how much they find, and how often they are wrong.

Every application runs as on board, behind the gate's network, on tiles of the bundle's size; smaller chips are put
together to tiles and looked at one by one. Truth is a mask that others drew (water), the same pixels on clear dates
(vegetation), or what was drawn into real pixels (vessels, burned ground: composited, and said so).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import isqrt
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from payload.apps.formula import Bands, parse
from payload.apps.index_app import WATER
from payload.apps.interface import App, Finding, Meter, TileView, View
from payload.apps.registry import open_app
from payload.apps.settings import AppSettings
from payload.bundle import Bundle
from payload.clouds.gate import detect_clouds
from payload.clouds.network import CloudNet, load_cloud_net
from payload.engine import Engine
from payload.link.app_record import PARTS
from payload.scene import Dn, Mask
from payload.tiles import Tile
from sim.clouds.samples import read_named
from sim.metrics.intervals import clopper_pearson
from sim.progress import Progress

POOL, FARMS = "train/tiles128.npz", "cloud/worldcereal64.npz"
#: Classes of Sen2Cor that are ground without cloud: vegetation, bare, water.
CLEAR_SCL = (4, 5, 6)
#: Reflectance of burned ground in DN (assumed: charred soil and ash), and how much of a pixel it takes.
CHAR_DN, CHAR_SHARE = (500, 550, 650, 950), 0.85
#: Vessels drawn: length and width in pixels, and how much brighter than the water they are, in DN of every band.
VESSELS = ((2, 1), (4, 1), (6, 2))
VESSEL_DN = (600, 1000, 2000)
VESSELS_PER_CHIP, SEED = 2, 1
MEGAPIXEL = 1_000_000
#: Chips of a flood that lie together.
BLOCK = 10


@dataclass(frozen=True)
class Chip:
    """A chip with what the application found in it, and its clear pixels as the gate's network sees them."""

    number: int
    findings: tuple[Finding, ...]
    clear: Mask


def looked_at(app: App, chips: NDArray[np.uint16], bundle: Bundle, net: CloudNet | None) -> Iterator[Chip]:
    """Every chip [n, B, h, h] through an application, as many at once as a tile holds."""
    side, px = bundle.tile_px, chips.shape[-1]
    a_side = side // px
    for start in range(0, len(chips), a_side**2):
        group = chips[start : start + a_side**2]
        filled = np.concatenate([group, group[np.arange(a_side**2 - len(group)) % len(group)]])
        tile = Tile(0, 0, _mosaic(filled, a_side), np.ones((side, side), bool))
        view = TileView(tile, bundle.sensor, detect_clouds(tile, net) if net else None)
        for k in range(len(group)):
            top, left = k // a_side * px, k % a_side * px
            part = View(view, (slice(top, top + px), slice(left, left + px)), Meter(np.inf, np.inf), 0.0)
            yield Chip(start + k, tuple(app.look(part)), part.clear)


def _mosaic(chips: Dn, a_side: int) -> Dn:
    n, bands, px, _ = chips.shape
    rows = chips.reshape(isqrt(n), a_side, bands, px, px)
    return np.ascontiguousarray(rows.transpose(2, 0, 3, 1, 4).reshape(bands, a_side * px, a_side * px))


@dataclass(frozen=True, eq=False)
class Bench:
    """What every measurement needs."""

    folder: Path
    bundle: Bundle
    engine: Engine
    net: CloudNet | None

    def app(self, name: str) -> App:
        return open_app(name, AppSettings(), self.bundle, self.engine)

    def of(self, app: App, chips: Dn) -> Iterator[Chip]:
        return looked_at(app, chips, self.bundle, self.net)


def evaluate_apps(folder: Path, bundle: Bundle, engine: Engine, progress: Progress) -> dict[str, dict[str, Any]]:
    """Figures by the name of the application, as sim/apps/data/quality.toml holds them."""
    bench, found = Bench(folder, bundle, engine, load_cloud_net(bundle, engine)), {}
    for name, measure in (("water", water), ("vegetation", vegetation), ("burned", burned), ("vessels", vessels)):
        found[name] = measure(bench)
        progress("applications", 4)
    return found


def water(bench: Bench) -> dict[str, Any]:
    """Against masks drawn by others: pixels, and whether a chip is water by half or more."""
    chips, truth, sites = read_named(bench.folder / POOL, "x", "water", "site")
    chips, truth = chips[sites == "cellula"], truth[sites == "cellula"]
    other = np.arange(len(chips)) // BLOCK % 2 == 1  # on the even blocks the formula was chosen
    chips, truth, app = chips[other], truth[other], bench.app("water")
    both = ours = theirs = 0
    said, true = [], []
    for chip in bench.of(app, chips):
        wet = parse(WATER).of(_bands(chips[chip.number], bench.bundle)) & chip.clear
        drawn = (truth[chip.number] == 1) & chip.clear
        both, ours, theirs = both + int((wet & drawn).sum()), ours + int(wet.sum()), theirs + int(drawn.sum())
        (finding,) = chip.findings
        if finding.seen:
            said.append(app.value(finding.counts, finding.seen, None) >= PARTS * app.default_threshold)
            true.append(drawn.sum() >= 0.5 * finding.seen)
    of = (
        f"of {sum(not t for t in true)} chips of 128 px that are less than half water to those who drew the masks "
        "(cellula: floods, rivers, cities; real; the half of the blocks on which the formula was not chosen)"
    )
    pixels = {"precision": both / ours, "recall": both / theirs, "f1": 2 * both / (ours + theirs)}
    return _rates(app, np.array(said), np.array(true), of) | {"pixels": pixels}


def _bands(chip: Dn, bundle: Bundle) -> Bands:
    return lambda name: chip[bundle.sensor.place_of(name)].astype(np.int32)


def vegetation(bench: Bench) -> dict[str, Any]:
    """The drop of a farm against the median of its clear dates: the gate's mask beside Sen2Cor's clear pixels."""
    chips, scl, sites = read_named(bench.folder / FARMS, "x", "scl", "site")
    app = bench.app("vegetation")
    clear = np.isin(scl, CLEAR_SCL)
    true_ndvi = np.array([_ndvi(chip, seen) for chip, seen in zip(chips, clear, strict=True)])
    known = clear.mean(axis=(1, 2)) >= 0.25
    whole = clear.mean(axis=(1, 2)) >= 0.95
    reference = {site: float(np.median(true_ndvi[whole & (sites == site)])) for site in set(sites.tolist())}
    said, true, off = [], [], []
    for chip in bench.of(app, chips):
        (finding,) = chip.findings
        if known[chip.number] and finding.seen >= 0.25 * chip.clear.size:
            normal = reference[str(sites[chip.number])]
            drop = app.value(finding.counts, finding.seen, normal) / PARTS
            real = normal - true_ndvi[chip.number]
            said.append(drop >= app.default_threshold)
            true.append(real >= app.default_threshold)
            off.append(abs(drop - real))
    of = (
        f"of {sum(not t for t in true)} dates of two farms (worldcereal, real) on which Sen2Cor's clear pixels say no "
        "such drop against the median of the clear dates"
    )
    return _rates(app, np.array(said), np.array(true), of) | {"ndvi_off_median": float(np.median(off))}


def _ndvi(chip: Dn, seen: Mask) -> float:
    red, nir = (float(chip[band][seen].sum()) for band in (2, 3))
    return (nir - red) / (nir + red) if nir + red else float("nan")


def burned(bench: Bench) -> dict[str, Any]:
    """Real chips as they are (no fire is known in them), and with a fifth of each burned: composited."""
    chips, sites = read_named(bench.folder / POOL, "x", "site")
    app = bench.app("burned")
    chips = chips[::3]
    rows = [_share(app, chip) for chip in bench.of(app, chips)]
    drawn = [_share(app, chip) for chip in bench.of(app, _burn(chips))]
    said = np.array([row >= PARTS * app.default_threshold for row in (*rows, *drawn) if row is not None])
    true = np.array([k >= len(rows) for k, row in enumerate((*rows, *drawn)) if row is not None])
    of = (
        f"of {int((~true).sum())} chips of 128 px of {len(set(sites.tolist()))} sites (real) in which no fire is "
        "known; found: a fifth of each drawn as burned (composited: assumed reflectance, no real scar was at hand)"
    )
    return _rates(app, said, true, of)


def _share(app: App, chip: Chip) -> int | None:
    (finding,) = chip.findings
    enough = finding.seen >= 0.25 * chip.clear.size
    return app.value(finding.counts, finding.seen, None) if enough else None


def _burn(chips: Dn) -> Dn:
    """A square of a fifth of every chip's area, mixed with char."""
    drawn, side = chips.astype(np.float32), round(chips.shape[-1] * 0.2**0.5)
    inner = drawn[:, :, 30 : 30 + side, 30 : 30 + side]
    inner += CHAR_SHARE * (np.array(CHAR_DN, np.float32)[:, None, None] - inner)
    return np.rint(drawn).astype(np.uint16)


def vessels(bench: Bench) -> dict[str, Any]:
    """Real water as it is, and with bright rectangles drawn into it, blurred as the optics would: composited."""
    chips, truth, sites = read_named(bench.folder / POOL, "x", "water", "site")
    mine = (sites == "cellula") & ((truth == 1).mean(axis=(1, 2)) >= 0.3)
    chips, wet, app = chips[mine], truth[mine] == 1, bench.app("vessels")
    plain = {chip.number: chip for chip in bench.of(app, chips)}
    false = sum(len(chip.findings) for chip in plain.values())
    water_px = int(sum((wet[n] & chip.clear).sum() for n, chip in plain.items()))
    by_kind = {}
    found = drawn = 0
    for size in VESSELS:
        for height in VESSEL_DN:
            hits, number = _found(bench, app, chips, wet, size, height)
            found, drawn = found + hits, drawn + number
            by_kind[f"{size[0]} x {size[1]} px, {height / PARTS:g} brighter"] = hits / number if number else None
    touched = sum(bool(chip.findings) for chip in plain.values())
    upper = clopper_pearson(touched, len(plain))[1]
    of = (
        f"of {len(plain)} chips of 128 px that are water by a third or more (cellula, real): {false} candidates on "
        f"{water_px / MEGAPIXEL:.2f} million pixels of water, boats and rocks that are really there counted as false; "
        "found: rectangles drawn into the same water (composited)"
    )
    return {
        "threshold": app.default_threshold, "false_alarm_percent": 100 * touched / len(plain),
        "false_alarm_upper_percent": 100 * upper, "found_percent": 100 * found / drawn if drawn else 0.0, "of": of,
        "found_by_kind": by_kind,
    }  # fmt: skip


def _found(
    bench: Bench, app: App, chips: Dn, wet: NDArray[np.bool_], size: tuple[int, int], height_dn: int
) -> tuple[int, int]:
    """How many of the vessels drawn were found, and how many were drawn."""
    rng = np.random.default_rng(SEED)
    changed, places = chips.copy(), []
    for n in range(len(chips)):
        rows, cols = np.nonzero(_open_water(wet[n]))
        for k in rng.permutation(len(rows))[:VESSELS_PER_CHIP]:
            changed[n] = _with_vessel(changed[n], int(rows[k]), int(cols[k]), size, height_dn)
            places.append((n, int(rows[k]), int(cols[k])))
    boxes = {chip.number: [f.box for f in chip.findings if f.box] for chip in bench.of(app, changed)}
    return sum(any(_near(box, row, col) for box in boxes[n]) for n, row, col in places), len(places)


def _open_water(wet: Mask, reach: int = 14) -> Mask:
    """Pixels with nothing but water around them."""
    inside = np.zeros_like(wet)
    windows = np.lib.stride_tricks.sliding_window_view(wet, (2 * reach + 1, 2 * reach + 1))
    inside[reach:-reach, reach:-reach] = windows.all(axis=(2, 3))
    return inside


def _with_vessel(chip: Dn, row: int, col: int, size: tuple[int, int], height_dn: int) -> Dn:
    """A bright rectangle with its middle at a pixel, through optics of 1 4 1 over 6 each way."""
    added: NDArray[np.float64] = np.zeros(chip.shape[1:])
    added[row : row + size[1], col - size[0] // 2 : col - size[0] // 2 + size[0]] = height_dn
    for axis in (0, 1):
        added = (np.roll(added, 1, axis) + np.roll(added, -1, axis) + 4 * added) / 6
    return np.rint(chip + added).astype(np.uint16)


def _near(box: tuple[int, int, int, int], row: int, col: int, px: int = 4) -> bool:
    top, left, height, width = box
    return top - px <= row <= top + height + px and left - px <= col <= left + width + px


def _rates(app: App, said: NDArray[np.bool_], true: NDArray[np.bool_], of: str) -> dict[str, Any]:
    """Found and false, with the upper end of the exact 95 % interval."""
    false, clean = int((said & ~true).sum()), int((~true).sum())
    return {
        "threshold": app.default_threshold, "false_alarm_percent": 100 * false / clean,
        "false_alarm_upper_percent": 100 * clopper_pearson(false, clean)[1],
        "found_percent": 100 * float((said & true).sum()) / max(1, int(true.sum())), "of": of,
    }  # fmt: skip


def as_toml(figures: dict[str, dict[str, Any]]) -> str:
    """As sim/apps/data/quality.toml holds them."""
    lines = ["# Written by `sim evaluate-apps`: how often the shipped applications are wrong, and how much they find."]
    for name, table in figures.items():
        lines += ["", f"[{name}]"]
        lines += [f"{key} = {_toml(value)}" for key, value in table.items() if not isinstance(value, dict)]
    return "\n".join(lines) + "\n"


def _toml(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else f'"{value}"'


def as_text(figures: dict[str, dict[str, Any]]) -> str:
    """For a terminal."""
    lines = []
    for name, table in figures.items():
        lines.append(
            f"{name:<11} found {table['found_percent']:.1f} %, false alarms {table['false_alarm_percent']:.2f} % "
            f"(at most {table['false_alarm_upper_percent']:.2f} %) {table['of']}"
        )
        further = {k: v for k, v in table.items() if isinstance(v, dict) or k.endswith("median")}
        lines += [f"            {key}: {value}" for key, value in further.items()]
    return "\n".join(lines)
