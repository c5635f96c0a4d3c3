"""Hyperspectral cubes through a bundle and KLT + JPEG 2000: what their users look for, before and behind.

    cube.npz    x [B, h, w] counts; label [h, w]: anomalies, or [K, h, w]: abundances

Each codec codes the whole cube at some compression ratios; a bundle in tiles, those beyond the cube not valid.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from payload.array_files import ArrayFileError, read_arrays
from payload.bundle import load_bundle
from payload.errors import InputError
from payload.scene import Dn
from payload.sensor import Sensor
from sim.compare.classical import Codec, open_codecs
from sim.compare.nadir_codec import NadirCodec, open_bundle
from sim.metrics.distortion import psnr_db, spectral_angle_deg
from sim.metrics.spectra import auc, endmembers, rx, unmixed
from sim.scenes.band_names import OWN_BUNDLE

AGAINST = "klt-jpeg2000-joint"
#: The finest and the coarsest setting that is looked at, a step or an RMSE in DN, and how often the range is halved.
SETTINGS, HALVINGS = (1.0, 8192.0), 11
WANTED = "wanted x [bands, rows, columns] of whole numbers, and label [rows, columns] or [abundances, rows, columns]"


@dataclass(frozen=True, eq=False)
class Cube:
    """DN uint16 [B, h, w], and what people have labelled: bool [h, w], abundances [K, h, w], or nothing. `zero_dn`: the
    DN of a count of 0."""

    name: str
    dn: Dn
    label: NDArray[Any] | None
    zero_dn: int = 0


def read_cube(path: Path, sensor: Sensor) -> Cube:
    """InputError says what is wrong with the file."""
    try:
        arrays = read_arrays(path, kinds="iufbSU")
    except ArrayFileError as error:
        raise InputError(f"{path}: not readable as an .npz of plain arrays ({error}); {WANTED}") from None
    x, label = arrays.get("x"), arrays.get("label")
    if x is None or x.ndim != 3 or x.dtype.kind not in "iu" or (label is not None and label.shape[-2:] != x.shape[1:]):
        raise InputError(f"{path}: holds {', '.join(f'{k} {list(v.shape)}' for k, v in arrays.items())}; {WANTED}")
    if len(x) != len(sensor.bands):
        wanted = f"sensor {sensor.name} has {len(sensor.bands)}"
        raise InputError(f"{path}: {len(x)} bands, {wanted}; {OWN_BUNDLE}")
    dn = x.astype(np.int64) - sensor.lowest
    if dn.min() < 0 or dn.max() > 65535:
        wanted = f"sensor {sensor.name} counts {sensor.lowest} to {sensor.lowest + 65535}"
        raise InputError(f"{path}: samples from {x.min()} to {x.max()}, {wanted}; give a bundle of its sensor")
    return Cube(path.stem, dn.astype(np.uint16), label, -sensor.lowest)


def evaluate_cubes(
    paths: Sequence[Path], bundle: str, ratios: Sequence[float], engine: str, advance: Callable[[str, int], None]
) -> list[dict[str, Any]]:
    """A row for each cube, codec and ratio."""
    loaded = load_bundle(bundle)
    codecs: list[Codec] = [open_bundle(loaded, engine, decoder="fast"), *open_codecs(AGAINST)]
    cubes = [read_cube(path, loaded.sensor) for path in paths]
    rows = []
    for cube in cubes:
        for codec in codecs:
            for row in _rows(cube, codec, ratios):
                rows.append(row)
                advance("cubes", len(cubes) * len(codecs) * len(ratios))
    return rows


def _rows(cube: Cube, codec: Codec, ratios: Sequence[float]) -> Iterator[dict[str, Any]]:
    for ratio in ratios:
        row, octets = {"cube": cube.name, "codec": codec.name, "asked": ratio}, _at_ratio(cube.dn, codec, ratio)
        if octets is None:
            yield row | {"cr16": None}
            continue
        found = _whole(codec.decode(octets), cube.dn)
        yield row | {"cr16": 2 * cube.dn.size / len(octets)} | figures(cube, found)


def _at_ratio(dn: Dn, codec: Codec, ratio: float) -> bytes | None:
    """The finest coding of at most so many octets; None where not even the coarsest is."""
    fine, coarse = np.log(SETTINGS)
    best: bytes | None = None
    for _ in range(HALVINGS):
        middle = (fine + coarse) / 2
        octets = codec.encode(_padded(dn, codec), float(np.exp(middle)))
        if 2 * dn.size / len(octets) >= ratio:
            best, coarse = octets, middle
        else:
            fine = middle
    return best


def _padded(dn: Dn, codec: Codec) -> Dn:
    """The cube in whole tiles of a bundle, its edge repeated."""
    if not isinstance(codec, NadirCodec):
        return dn
    down, right = (-side % codec.tile_px for side in dn.shape[1:])
    return np.pad(dn, ((0, 0), (0, down), (0, right)), mode="edge")


def _whole(found: Dn, like: Dn) -> Dn:
    return found[:, : like.shape[1], : like.shape[2]]


def figures(cube: Cube, found: Dn) -> dict[str, float]:
    """Of one decoded cube."""
    angles = spectral_angle_deg(cube.dn, found, cube.zero_dn)
    difference = cube.dn.astype(np.float64) - found
    told = {
        "psnr_10k_db": psnr_db(float((difference**2).mean())),
        "sam_deg": float(angles.mean()), "sam_p95_deg": float(np.percentile(angles, 95)),
    }  # fmt: skip
    return told | _labelled(cube, found)


def _labelled(cube: Cube, found: Dn) -> dict[str, float]:
    if cube.label is None:
        return {}
    if cube.label.ndim == 2:
        here = cube.label > 0
        return {"rx_auc_before": auc(rx(cube.dn), here), "rx_auc_after": auc(rx(found), here)}
    shares = cube.label.astype(np.float64)
    counts = [dn.astype(np.int64) - cube.zero_dn for dn in (cube.dn, found)]
    spectra = endmembers(counts[0], shares)
    before, after = (unmixed(picture, spectra) for picture in counts)
    return {
        "abundance_rmse_before": _rms(before - shares), "abundance_rmse_after": _rms(after - shares),
        "abundance_rmse_between": _rms(after - before),
    }  # fmt: skip


def _rms(difference: NDArray[np.float64]) -> float:
    return float(np.sqrt((difference**2).mean()))


def as_text(rows: Sequence[dict[str, Any]]) -> str:
    """A line for each row."""
    lines = []
    for row in rows:
        known = {key: value for key, value in row.items() if isinstance(value, float) and key != "asked"}
        told = ", ".join(f"{key} {value:.4g}" for key, value in known.items())
        lines.append(f"{row['cube']}  {row['codec']}  CR {row['asked']:g}: {told or 'out of reach'}")
    return "\n".join(lines) + "\n"
