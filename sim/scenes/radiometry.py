"""Numbers as a file stores them -> DN = reflectance x 10 000.

By convention reflectance = stored x scale + offset. In practice the offset is often counted in stored units, as
Sentinel-2's -1000 is, and a scale of 1 says that the file already holds DN. The size of the two tells which is meant;
what fits no reading is refused, and the DN that come out are looked at before anything is coded.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from payload.errors import InputError
from payload.scene import Dn
from payload.sensor import Sensor
from sim.scenes.block_rows import Samples

#: Pixels of a scene; nine Sentinel-2 products. The option --max-pixels lifts it.
MAX_PIXELS = 2**30
#: Reflectance 1.
DN_PER_REFLECTANCE = 10_000
FULL_SCALE_DN = 65_535
#: Reflectance above this is not met by more than 2 of 100 pixels, clouds and snow included.
BRIGHTEST_REFLECTANCE = 1.6
#: Some band reaches this by day in 2 of 100 samples, open water included.
DARKEST_DN = 100
#: A scale below this gives reflectance; one around 1 gives DN. Percent is 0.01, an 8-bit full scale 0.0039.
REFLECTANCE_SCALE_LIMIT = 0.05
#: No processing shifts reflectance by more than this.
OFFSET_LIMIT_REFLECTANCE = 2.0
#: Floating-point files whose brightest values lie between the two hold percent, or something else.
FLOAT_DN_FROM = 160.0

F64 = NDArray[np.float64]


@dataclass(frozen=True)
class Reading:
    """How the user says that rasters are to be read: the arguments of `open_scene` of these names. Here, as a command
    line needs no GDAL for it."""

    bands: tuple[str, ...] | None = None
    scale: float | None = None
    offset: float | None = None
    max_pixels: int = MAX_PIXELS


#: Nothing is said: files speak for themselves.
AS_STORED = Reading()


@dataclass(frozen=True)
class Conversion:
    """DN = stored x gain + shift, rounded and clipped to 0..`highest`; one gain and shift a band."""

    gains: tuple[float, ...]
    shifts: tuple[float, ...]
    highest: int = FULL_SCALE_DN

    @property
    def changes(self) -> bool:
        return set(self.gains) != {1.0} or set(self.shifts) != {0.0}

    def apply(self, stored: Samples) -> Dn:
        """dn uint16 [b, h, w] of samples [b, h, w]; uint16 that only lose an offset are changed in place."""
        dn: Dn = stored if stored.dtype == np.uint16 else np.empty(stored.shape, np.uint16)
        for out, plane, gain, shift in zip(dn, stored, self.gains, self.shifts, strict=True):
            _convert(out, plane, gain, shift, self.highest)
        return dn


@dataclass(frozen=True)
class Stated:
    """Scale and offset of each band that is read, and who states them."""

    scales: tuple[float, ...]
    offsets: tuple[float, ...]
    by: str  # for messages

    @property
    def nothing(self) -> bool:
        return set(self.scales) == {1.0} and set(self.offsets) == {0.0}


def stated(
    tags: Sequence[tuple[float, float]], scale: float | None, offset: float | None, stored: np.dtype[Any]
) -> Stated:
    """What the file's tags (scale, offset) of each band say, or the user's options where one is given.

    --offset alone belongs to the file's scale, or to 0.0001 in a file of whole numbers that states none.
    """
    if scale is None and offset is None:
        return Stated(tuple(s for s, _ in tags), tuple(o for _, o in tags), "of the file")
    tagged = {s for s, _ in tags} != {1.0}
    usual = 1.0 if stored.kind == "f" else 1 / DN_PER_REFLECTANCE
    scales = tuple((s if tagged else usual) if scale is None else scale for s, _ in tags)
    return Stated(scales, tuple(offset or 0.0 for _ in tags), "as given")


def conversion_for(where: str, says: Stated, stored: np.dtype[Any], sample: Samples) -> tuple[Conversion, list[str]]:
    """How the samples of a file become DN, and what is to be said about it.

    `sample` [b, n] are measured samples from all over the scene. InputError where scale and offset make no sense.
    """
    if says.nothing:
        return _without_scale(where, stored, sample)
    for scale, offset in zip(says.scales, says.offsets, strict=True):
        _check_numbers(where, scale, offset, says.by)
    units = {_reads_as(scale, stored, sample) for scale in says.scales}
    if len(units) > 1:
        raise InputError(f"{where}: scales {_listed(says.scales)} {says.by} have different units; {_remedy(stored)}")
    rule = _to_reflectance if units == {"reflectance"} else _to_dn
    pairs = [
        rule(where, scale, offset, says.by, stored) for scale, offset in zip(says.scales, says.offsets, strict=True)
    ]
    shifts_meant = {meant for *_, meant in pairs if meant}
    if len(shifts_meant) > 1:
        raise InputError(f"{where}: offsets {_listed(says.offsets)} {says.by} have different units; {_remedy(stored)}")
    conversion = Conversion(tuple(gain for gain, *_ in pairs), tuple(shift for _, shift, _ in pairs))
    unit = f", the offset counted in {shifts_meant.pop()}" if shifts_meant else ""
    note = (
        f"DN = stored x {_listed(conversion.gains)} {_signed(conversion.shifts)}: scale {_listed(says.scales)} "
        f"and offset {_listed(says.offsets)} {says.by}{unit}"
    )
    return conversion, [note] if conversion.changes else []


def is_reflectance(sensor: Sensor) -> bool:
    """Whether a sensor's DN is reflectance x 10 000, so that the rules of this page hold for it."""
    return sensor.unit == "reflectance" and sensor.scale * DN_PER_REFLECTANCE == 1.0 and not sensor.signed


def counts_of(
    where: str, says: Stated, stored: np.dtype[Any], sample: Samples, sensor: Sensor
) -> tuple[Conversion, list[str]]:
    """How samples become counts of any other sensor. Whole numbers are counts unless a scale is stated; numbers with a
    fraction are in the sensor's unit. InputError where more than 2 of 100 lie beyond what the sensor counts."""
    for scale, offset in zip(says.scales, says.offsets, strict=True):
        _check_numbers(where, scale, offset, says.by)
    are_counts = says.nothing and stored.kind != "f"
    unit, zero = (1.0, 0.0) if are_counts else (sensor.scale, sensor.offset)
    pairs = zip(says.scales, says.offsets, strict=True)
    gains, shifts = zip(*((s / unit, (o - zero) / unit - sensor.lowest) for s, o in pairs), strict=True)
    conversion = Conversion(gains, shifts, sensor.highest_dn)
    dn = sample * np.array(gains)[:, None] + np.array(shifts)[:, None]  # [b, n]
    outside = float(((dn < -0.5) | (dn > sensor.highest_dn + 0.5)).mean()) if dn.size else 0.0
    counts = f"{sensor.lowest} to {sensor.highest_dn + sensor.lowest}"
    if outside > 0.02:
        raise InputError(
            f"{where}: {100 * outside:.0f} % of the samples looked at are beyond sensor {sensor.name}, which counts "
            f"{counts} ({sensor.unit} = {sensor.scale:g} x count + {sensor.offset:g}); give --scale and --offset "
            f"({sensor.unit} = stored x scale + offset), or a sensor file with more bits"
        )
    notes = [f"{100 * outside:.2g} % of the samples looked at are beyond {counts} and clipped"] if outside else []
    said = f"samples are {sensor.unit}: count = ({sensor.unit} - {sensor.offset:g}) / {sensor.scale:g}"
    return conversion, notes if are_counts else [said, *notes]


def check_dn(where: str, conversion: Conversion, says: Stated, bands: Sequence[str], sample: Samples) -> list[str]:
    """Looks at the DN of measured samples [b, n]: InputError where they are no picture, else what is to be said."""
    if not sample.shape[1]:
        return []
    dn = conversion.apply(sample.copy()[:, None])[:, 0]  # [b, n]
    full = (dn == FULL_SCALE_DN).mean(axis=1)
    cut = ((dn == 0) & (sample != 0)).mean(axis=1)
    if conversion.changes or not says.nothing:
        _refuse_implausible(where, says, bands, dn, full, cut, sample)
    notes = [
        f"{band}: {100 * share:.1f} % of the samples looked at are at full scale (65535)"
        for band, share in zip(bands, full, strict=True)
        if share > 0
    ]
    return notes + [
        f"{band}: {100 * share:.1f} % of the samples looked at fall below 0 and become DN 0"
        for band, share in zip(bands, cut, strict=True)
        if share >= 0.01
    ]


def _convert(out: Dn, plane: Samples, gain: float, shift: float, highest: int) -> None:
    """One band, DN = stored x gain + shift; `out` may be `plane`."""
    if highest == FULL_SCALE_DN and plane.dtype == np.uint16 and gain == 1.0 and shift == int(shift) <= 0:
        lowest = np.uint16(min(-shift, FULL_SCALE_DN))
        np.maximum(plane, lowest, out=out)
        np.subtract(out, lowest, out=out)
        return
    values = plane.astype(np.float64)
    values *= gain
    values += shift
    np.nan_to_num(values, copy=False, nan=0.0)  # pixels with NaN are not valid; C leaves the cast of a NaN open
    np.copyto(out, np.clip(np.rint(values), 0, highest), casting="unsafe")


def _without_scale(where: str, stored: np.dtype[Any], sample: Samples) -> tuple[Conversion, list[str]]:
    count = len(sample)
    as_stored = Conversion((1.0,) * count, (0.0,) * count)
    if stored.kind == "f":
        return _float_without_scale(where, stored, sample)
    if stored.itemsize == 1:
        raise InputError(
            f"{where}: samples are {stored}, wanted DN = reflectance x {DN_PER_REFLECTANCE} (uint16) or a scale; "
            f"give it, as in --scale {1 / np.iinfo(stored).max:.6f} where {np.iinfo(stored).max} means reflectance 1"
        )
    return as_stored, [] if stored == np.uint16 else [f"{stored} without scale: read as DN = reflectance x 10 000"]


def _float_without_scale(where: str, stored: np.dtype[Any], sample: Samples) -> tuple[Conversion, list[str]]:
    brightest = float(np.percentile(sample, 98)) if sample.size else 0.0
    count = len(sample)
    if brightest <= BRIGHTEST_REFLECTANCE:
        note = f"{stored} without scale, 98 % of it up to {brightest:.3g}: read as reflectance, DN = stored x 10 000"
        return Conversion((float(DN_PER_REFLECTANCE),) * count, (0.0,) * count), [note]
    if brightest >= FLOAT_DN_FROM:
        note = f"{stored} without scale, 98 % of it up to {brightest:.5g}: read as DN = reflectance x 10 000"
        return Conversion((1.0,) * count, (0.0,) * count), [note]
    raise InputError(
        f"{where}: {stored} without scale, 98 % of it up to {brightest:.4g}, is neither reflectance nor DN; "
        "give its scale: --scale 0.01 if it is percent"
    )


def _check_numbers(where: str, scale: float, offset: float, by: str) -> None:
    if not (math.isfinite(scale) and math.isfinite(offset)) or scale <= 0:
        raise InputError(
            f"{where}: scale {scale:g} and offset {offset:g} {by}, wanted finite numbers and a scale above 0; "
            "give --scale and --offset (reflectance = stored x scale + offset)"
        )


def _reads_as(scale: float, stored: np.dtype[Any], sample: Samples) -> str:
    """Whether stored x scale is "reflectance" or "DN"."""
    if stored.kind != "f":
        return "reflectance" if scale < REFLECTANCE_SCALE_LIMIT else "DN"
    brightest = float(np.percentile(sample, 98)) * scale if sample.size else 0.0
    return "reflectance" if scale < REFLECTANCE_SCALE_LIMIT or brightest <= BRIGHTEST_REFLECTANCE else "DN"


def _to_reflectance(
    where: str, scale: float, offset: float, by: str, stored: np.dtype[Any]
) -> tuple[float, float, str]:
    """Gain, shift, and what the offset is counted in."""
    meant = "reflectance" if abs(offset) <= OFFSET_LIMIT_REFLECTANCE else "stored units"
    shift = offset if meant == "reflectance" else offset * scale
    if abs(shift) > OFFSET_LIMIT_REFLECTANCE:
        raise InputError(
            f"{where}: offset {offset:g} with scale {scale:g} {by} shifts reflectance by {shift:g}, "
            f"wanted at most {OFFSET_LIMIT_REFLECTANCE:g}; {_remedy(stored)}"
        )
    return scale * DN_PER_REFLECTANCE, shift * DN_PER_REFLECTANCE, meant if offset else ""


def _to_dn(where: str, scale: float, offset: float, by: str, stored: np.dtype[Any]) -> tuple[float, float, str]:
    if scale > DN_PER_REFLECTANCE or abs(offset) > OFFSET_LIMIT_REFLECTANCE * DN_PER_REFLECTANCE:
        raise InputError(f"{where}: scale {scale:g} and offset {offset:g} {by} fit no unit; {_remedy(stored)}")
    if offset != int(offset) and abs(offset) <= OFFSET_LIMIT_REFLECTANCE:
        raise InputError(
            f"{where}: scale {scale:g} {by} counts in DN, offset {offset:g} in reflectance, wanted one unit; "
            f"{_remedy(stored)}"
        )
    return scale, offset, "DN" if offset else ""


def _remedy(stored: np.dtype[Any]) -> str:
    usual = "1" if stored.kind == "f" else "0.0001" if stored.itemsize > 1 else f"{1 / np.iinfo(stored).max:.6f}"
    return f"give what is right, as in --scale {usual} --offset 0 (reflectance = stored x scale + offset)"


def _refuse_implausible(
    where: str, says: Stated, bands: Sequence[str], dn: Dn, full: F64, cut: F64, sample: Samples
) -> None:
    scale = f"with scale {_listed(says.scales)} and offset {_listed(says.offsets)} {says.by}"
    if says.nothing:
        scale = "read as reflectance"
    end = f"check them; {_remedy(sample.dtype)}"
    worst = int(np.argmax(full))
    if full[worst] >= 0.5:
        raise InputError(f"{where}: {scale}, {100 * full[worst]:.0f} % of {bands[worst]} are at full scale; {end}")
    if np.median(cut) >= 0.5:  # a dark band may lie below its offset, half of the bands do not
        most = int(np.argmax(cut))
        raise InputError(f"{where}: {scale}, {100 * cut[most]:.0f} % of {bands[most]} fall to 0 or below; {end}")
    middle, levels = np.median(dn), len(np.unique(sample[:, :4096]))
    if middle > BRIGHTEST_REFLECTANCE * DN_PER_REFLECTANCE:
        raise InputError(f"{where}: {scale}, half of the reflectance is above {middle / 1e4:.2f}; {end}")
    if np.percentile(dn, 98) < DARKEST_DN and levels > 16:
        raise InputError(f"{where}: {scale}, 98 % of the DN are below {DARKEST_DN} (reflectance 0.01); {end}")


def _listed(numbers: Sequence[float]) -> str:
    """One number where all are the same, else all of them."""
    return " ".join(f"{number:g}" for number in (numbers[:1] if len(set(numbers)) == 1 else numbers))


def _signed(shifts: Sequence[float]) -> str:
    if len(set(shifts)) > 1:
        return f"+ ({_listed(shifts)})"
    return f"{'-' if shifts[0] < 0 else '+'} {abs(shifts[0]):g}"
