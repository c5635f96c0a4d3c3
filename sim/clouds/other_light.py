"""Another sensor, another sky, drawn over tiles whose clouds are known: what each costs the mask and the gate.

Every change is a function of DN alone, so that the reference stays the reference; a change of the ground sampling
distance resamples the reference, too. The tiles are the chips people drew, every fourth labelled tile of the sites left
out for the mask that users read, and all of them for the gate.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import zoom

from sim.clouds import figures
from sim.clouds.figures import WITHHELD_ABOVE, at_threshold
from sim.clouds.judged import Candidate, detect_padded, gated_tile, judge_picture
from sim.clouds.outline import is_cloud
from sim.clouds.samples import CloudSample, HumanChip

#: Rayleigh scattering of a clear sky in DN, blue to near infrared: the top of the atmosphere instead of the ground.
AIR_DN = (700.0, 350.0, 180.0, 60.0)
HAZE_DN = 5000.0
EVERY = 4
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Light:
    """One change: of DN, and by how much pixels grow along a side (less than 1: they shrink)."""

    name: str
    change: Callable[[Floats], Floats]
    pixel: float = 1.0


def _gain(factor: float) -> Light:
    return Light(f"gain x{factor:g}", lambda dn: dn * factor)


def _haze(share: float) -> Light:
    return Light(f"even haze, {100 * share:.0f} %", lambda dn: dn * (1.0 - share) + HAZE_DN * share)


def _shift(by_px: int) -> Light:
    def change(dn: Floats) -> Floats:
        moved = dn.copy()
        moved[0], moved[3] = np.roll(dn[0], by_px, axis=1), np.roll(dn[3], -by_px, axis=0)
        return moved

    return Light(f"blue and near infrared {by_px} px out of register", change)


def _air(dn: Floats) -> Floats:
    return dn + np.array(AIR_DN)[:, None, None]


def _low_sun(dn: Floats) -> Floats:
    """Little direct light, and more of it blue: as at a sun 20 degrees above the horizon."""
    return dn * np.array((0.5, 0.47, 0.45, 0.45))[:, None, None] + 0.5 * np.array(AIR_DN)[:, None, None]


def _glint(dn: Floats) -> Floats:
    """Sun glint and a bright sky: the same added to every band."""
    return dn + 800.0


def _noise(dn: Floats) -> Floats:
    return dn + np.random.default_rng(0).normal(0.0, 50.0, dn.shape)


AS_IT_IS = Light("as it is", lambda dn: dn)
LIGHTS = (
    AS_IT_IS, _gain(0.5), _gain(0.7), _gain(1.4), _gain(2.0),
    Light("top of the atmosphere (path radiance added)", _air), Light("low sun", _low_sun), _haze(0.1), _haze(0.2),
    Light("glint: 800 DN in every band", _glint), Light("noise of 50 DN", _noise), _shift(1), _shift(2),
    Light("pixels of 4.75 m", lambda dn: dn, 0.475), Light("pixels of 20 m", lambda dn: dn, 2.0),
    Light("pixels of 30 m", lambda dn: dn, 3.0),
)  # fmt: skip


def lit(dn: NDArray[np.uint16], light: Light) -> NDArray[np.uint16]:
    """dn [4, H, W] under another light, on its own grid."""
    changed = _resampled(light.change(dn.astype(np.float64)), light.pixel)
    return np.clip(np.round(changed), 0, 65_535).astype(np.uint16)


def _resampled(planes: Floats, pixel: float) -> Floats:
    """Means over larger pixels, linear between smaller ones. [C, H, W]"""
    if pixel == 1.0:
        return planes
    if pixel < 1.0:
        return np.stack([zoom(p, 1.0 / pixel, order=1, mode="nearest", grid_mode=True) for p in planes])
    k = round(pixel)
    height, width = (side // k for side in planes.shape[1:])
    return np.asarray(planes[:, : height * k, : width * k].reshape(-1, height, k, width, k).mean(axis=(2, 4)))


def _resampled_mask(mask: NDArray[np.bool_], pixel: float) -> NDArray[np.bool_]:
    return mask if pixel == 1.0 else _resampled(mask[None].astype(np.float64), pixel)[0] >= 0.5


def light_rows(
    chips: Sequence[HumanChip], samples: Sequence[tuple[CloudSample, Candidate]], by: Candidate
) -> list[dict[str, Any]]:
    """A row per light: IoU with people on the 10 m chips, IoU with the classification, and what the gate does."""
    chips = [chip for chip in chips if chip.gsd_m == 10.0]
    return [
        {"light": light.name} | _on_chips(chips, by, light) | _mask(samples[::EVERY], light) | _gate(samples, light)
        for light in LIGHTS
    ]


def _on_chips(chips: Sequence[HumanChip], by: Candidate, light: Light) -> dict[str, float | None]:
    counts = []
    for chip in chips:
        wanted = _resampled_mask(chip.cloud, light.pixel)
        found = judge_picture(lit(chip.dn, light), by, chip.gsd_m * light.pixel).cloudy
        counts.append(figures.count(found, wanted, np.ones(wanted.shape, bool)))
    scores = figures.pooled(counts).scores()
    return {"human_iou": scores["iou"], "human_precision": scores["precision"], "human_recall": scores["recall"]}


def _mask(samples: Sequence[tuple[CloudSample, Candidate]], light: Light) -> dict[str, float | None]:
    counts = []
    for sample, by in samples:
        cloud, known = (_resampled_mask(m, light.pixel) for m in sample.reference())
        dn = lit(sample.dn, light)
        drawn = by.classes(dn, detect_padded(dn, by.net), sample.gsd_m * light.pixel)
        counts.append(figures.count(is_cloud(drawn), cloud, known))
    return {"scl_iou": figures.pooled(counts).scores()["iou"]}


def _gate(samples: Sequence[tuple[CloudSample, Candidate]], light: Light) -> dict[str, Any]:
    tiles = []
    for sample, by in samples:
        cloud, known = (_resampled_mask(m, light.pixel) for m in sample.reference())
        tiles.append(gated_tile(sample.site, cloud, known, detect_padded(lit(sample.dn, light), by.net)))
    return at_threshold(tiles, WITHHELD_ABOVE)
