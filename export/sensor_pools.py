"""Pools of the bundles that ship beside `edge`, collected from the data folder (docs/export.md).

    python -m export.sensor_pools pan --out build/pools/pan.npz

What is thin is thin: radar of eleven places, three hyperspectral cubes, six planetary frames. The benchmark
(bench/rd20.npz) is in none of them.
"""

import argparse
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.data import data_folder, read_all, read_named
from export.pools import squares
from payload.errors import InputError
from payload.sensor import RGBN

Pictures = Iterator[tuple[str, NDArray[Any]]]
L2A_12 = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B11", "B12")
#: How many times coarser than 10 m each band is.
COARSER = {name: {"B01": 6, "B09": 6}.get(name, 2) for name in L2A_12} | dict.fromkeys(RGBN, 1)
L2A_20M = ("B05", "B06", "B07", "B8A", "B11", "B12")
#: Sites with bands of 20 m as they were measured, and how often each of their pixels stands repeated.
NATIVE_20M = {"t33uub": 2, "chesapeake": 1}
#: Sites whose bands were interpolated before they came here: too smooth to learn rates from.
SMOOTH = ("amsterdam", "aquileia", "montcalm")
#: PhiSat-2's bands of Sentinel-2's: its published centres and widths are those of B02 to B08; its panchromatic band is
#: the mean of the bands inside it, by the width they share.
PHISAT2_ALIKE = ("B02", "B03", "B04", "B05", "B06", "B07", "B08")
PAN_SHARES = {"B02": 25, "B03": 35, "B04": 30, "B05": 14, "B06": 14}
#: Sentinel-1's counts: hundredths of a dB above -60 dB, 1 to 10 000 (sim/sensors/sentinel1-grd.toml).
DB_FLOOR, COUNTS_PER_DB = -60.0, 100.0


def sentinel2() -> Pictures:
    """Twelve bands of the multi-band pool and of the pairs with radar."""
    train = read_all(data_folder() / "train" / "tiles_s2_13.npz")
    places = [train["bands"].tolist().index(band) for band in L2A_12]
    for x, has, site in zip(train["x"], train["has"], train["site"], strict=True):
        if has[places].all() and site not in SMOOTH:
            yield str(site), interpolated(x[places])
    x, ids = read_named(data_folder() / "downstream" / "terramind_multimodal_224.npz", "l2a12", "ids")
    yield from (
        (f"terramind_{name}", interpolated(picture.astype(np.uint16))) for name, picture in zip(ids, x, strict=True)
    )
    clear, cloudy, bands, names = read_named(
        data_folder() / "sensors" / "sen12mscr_l1c13_s1_256.npz", "clear", "cloudy", "bands", "names"
    )
    places = [bands.tolist().index(band) for band in L2A_12]
    for name, pair in zip(names, zip(clear, cloudy, strict=True), strict=True):
        yield from ((str(name)[:18], picture[places]) for picture in pair)
    (full,) = read_named(data_folder() / "downstream" / "sundarbans_seg.npz", "full")
    yield "sundarbans", full[0]


def interpolated(picture: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """Bands of 20 and 60 m that were replicated on the grid of 10 m, interpolated on it instead, as people do who
    want one grid; other bands as they are. [12, h, w], whole blocks from the first pixel."""
    return np.stack([_smooth(band, COARSER[name]) for name, band in zip(L2A_12, picture, strict=True)])


def _smooth(band: NDArray[np.uint16], times: int) -> NDArray[np.uint16]:
    native = band[::times, ::times]
    replicated = np.kron(native, np.ones((times, times), band.dtype))[: band.shape[0], : band.shape[1]]
    if times == 1 or not np.array_equal(replicated, band):
        return band
    smooth = _along(_along(native.astype(np.float64), times).T, times).T
    return np.rint(smooth[: band.shape[0], : band.shape[1]]).astype(np.uint16)


def _along(native: NDArray[np.float64], times: int) -> NDArray[np.float64]:
    """Linear between the centres of native pixels, down the rows."""
    at = (np.arange(len(native) * times) + 0.5) / times - 0.5
    first = np.clip(np.floor(at).astype(int), 0, len(native) - 2)
    share = np.clip(at - first, 0.0, 1.0)[:, None]
    return native[first] * (1 - share) + native[first + 1] * share


def sentinel2_20m() -> Pictures:
    """The six bands of 20 m on their own grid."""
    train = read_all(data_folder() / "train" / "tiles_s2_13.npz")
    places = [train["bands"].tolist().index(band) for band in L2A_20M]
    for x, site in zip(train["x"], train["site"], strict=True):
        if site in NATIVE_20M:
            yield str(site), x[places][:, :: NATIVE_20M[site], :: NATIVE_20M[site]]
    x, ids = read_named(data_folder() / "downstream" / "terramind_multimodal_224.npz", "l2a12", "ids")
    own = [L2A_12.index(band) for band in L2A_20M]
    yield from ((f"terramind_{i}", p[own, ::2, ::2].astype(np.uint16)) for i, p in zip(ids, x, strict=True))


def sentinel2_60m() -> Pictures:
    """No site has room for a square of 60 m pixels: blue and near infrared of pictures of 63 and 120 m stand for B01
    and B09."""
    x, site, res_m = read_named(data_folder() / "train" / "tiles128.npz", "x", "site", "res_m")
    yield from ((str(site[k]), x[k, [0, 3]]) for k in np.flatnonzero(res_m > 60))


def phisat2() -> Pictures:
    """Eight bands made of Sentinel-2's."""
    yield from ((site, as_phisat2(picture, L2A_12)) for site, picture in sentinel2())


def as_phisat2(picture: NDArray[np.uint16], bands: tuple[str, ...]) -> NDArray[np.uint16]:
    """Sentinel-2 DN [B, h, w] -> PhiSat-2's PAN, B, G, R, RE1, RE2, RE3, NIR, in whole numbers."""
    held = {band: picture[bands.index(band)].astype(np.int64) for band in PHISAT2_ALIKE}
    total = sum(PAN_SHARES.values())
    pan = (sum(share * held[band] for band, share in PAN_SHARES.items()) + total // 2) // total
    return np.stack([pan, *held.values()]).astype(np.uint16)


def pan() -> Pictures:
    """Planetary frames, and the red band of Sentinel-2 sites as what a panchromatic camera sees of the Earth."""
    bodies = {"europa_mosaic": "europa", "galileo_ssi_42": "galileo", "galileo_venus2_16bit": "venus"}
    for name, picture in read_all(data_folder() / "planetary" / "orbital.npz").items():
        yield bodies[name], picture[None]
    (frames,) = read_named(data_folder() / "planetary" / "mer_12bit_1024.npz", "x")
    yield from (("mars", frame) for frame in frames)
    x, site, res_m = read_named(data_folder() / "train" / "tiles128.npz", "x", "site", "res_m")
    for k in np.flatnonzero(res_m == 10)[::12]:
        yield f"earth_{site[k]}", x[k, 2:3]


def radar() -> Pictures:
    """VV and VH of Sentinel-1, in hundredths of a dB."""
    held = read_all(data_folder() / "sensors" / "s1_patches_db.npz")
    for name, db in zip(held["terramind_ids"], held["terramind_rtc_224"], strict=True):
        yield f"terramind_{name}", as_counts(db)
    yield "spain", as_counts(held["sen1floods11_spain_512"][0])
    s1, names = read_named(data_folder() / "sensors" / "sen12mscr_l1c13_s1_256.npz", "s1_db", "names")
    yield from ((str(name)[:18], as_counts(db)) for name, db in zip(names, s1, strict=True))


def rgbn() -> Pictures:
    """What `tiles128.npz` does not hold of Sentinel-2's four bands at 10 m: other places and dates, on native grids."""
    x, names = read_named(data_folder() / "downstream" / "fields_two_dates_379x578.npz", "x", "bands")
    order = [names.tolist().index(band) for band in RGBN]
    yield from (("danube_fields", date[order]) for date in x)
    clear, cloudy, bands, ids = read_named(
        data_folder() / "sensors" / "sen12mscr_l1c13_s1_256.npz", "clear", "cloudy", "bands", "names"
    )
    places = [bands.tolist().index(band) for band in RGBN]
    for name, pair in zip(ids, zip(clear, cloudy, strict=True), strict=True):
        yield from ((str(name)[:18], picture[places]) for picture in pair)
    chips, labels = read_named(data_folder() / "downstream" / "bigearthnet_examples_120.npz", "x", "names")
    for name, chip in zip(labels, chips, strict=True):
        yield f"bigearthnet_{str(name)[:12]}", np.pad(chip, ((0, 0), (4, 4), (4, 4)), mode="symmetric")
    train = read_all(data_folder() / "train" / "tiles_s2_13.npz")
    places = [train["bands"].tolist().index(band) for band in RGBN]
    for tile, site in zip(train["x"], train["site"], strict=True):
        if str(site).startswith("worldcereal"):
            yield str(site), tile[places]


def as_counts(db: NDArray[np.floating]) -> NDArray[np.uint16]:
    counts = np.rint((np.nan_to_num(db.astype(np.float64), nan=DB_FLOOR) - DB_FLOOR) * COUNTS_PER_DB)
    return np.clip(counts, 1, 10_000).astype(np.uint16)


def hyperspectral() -> Pictures:
    """Two cubes of 198 bands."""
    for name in ("aviris_jasper_ridge_100x100x198", "aviris_abu_urban2_100x100x198"):
        (x,) = read_named(data_folder() / "hyperspectral" / f"{name}.npz", "x")
        yield name.split("_")[1], x.astype(np.int16)


POOLS: dict[str, Callable[[], Pictures]] = {
    "s2-12": sentinel2, "s2-20m": sentinel2_20m, "s2-60m": sentinel2_60m, "phisat2": phisat2, "pan": pan, "s1": radar,
    "hyper": hyperspectral, "rgbn": rgbn,
}  # fmt: skip


#: Bands by name, as their sensors have them.
BANDS: dict[str, tuple[str, ...]] = {
    "s2-12": L2A_12, "s2-20m": L2A_20M, "s2-60m": ("B01", "B09"),
    "phisat2": ("PAN", "B", "G", "R", "RE1", "RE2", "RE3", "NIR"), "pan": ("PAN",), "s1": ("VV", "VH"), "rgbn": RGBN,
    "hyper": tuple(f"C{k:03d}" for k in range(1, 199)),
}  # fmt: skip


def write_pool(name: str, path: Path, side: int) -> int:
    """An .npz of squares of at most `side` px, by site. Gives their number."""
    found = [(site, np.asarray(picture)) for site, picture in POOLS[name]()]
    x, site = squares(found, path, side)
    res_m = np.full(len(x), 10, np.int64)
    if name == "rgbn":  # behind the usual tiles
        usual = read_named(data_folder() / "train" / "tiles128.npz", "x", "site", "res_m")
        x, site, res_m = (np.concatenate(pair) for pair in zip(usual, (x, site, res_m), strict=True))
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays = {"x": x, "site": site, "bands": np.array(BANDS[name])} | ({"res_m": res_m} if name == "rgbn" else {})
    np.savez_compressed(path, allow_pickle=False, **arrays)
    return len(x)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m export.sensor_pools", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("pool", choices=POOLS)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--side", type=int, default=128, help="of a square in px; default 128")
    arguments = parser.parse_args()
    out = arguments.out or Path("build/pools") / f"{arguments.pool}.npz"
    try:
        sys.stdout.write(f"written: {out}, {write_pool(arguments.pool, out, arguments.side)} squares\n")
    except InputError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
