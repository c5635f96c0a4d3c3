"""What a user would make of both pictures: land cover by a frozen rule, NDWI, sharpness, bias; summed over pieces."""

from payload.scene import Dn, Mask
from payload.sensor import Sensor
from sim.metrics.pixels import REFLECTANCE_PER_DN, PixelSums
from sim.metrics.radiometry import BandSums, ClassTally, Roles, Sharpness

#: One window of the sharpness in so many, along and across: four a tile of 256 px are plenty.
WINDOWS_APART = 2


class CoverAgreement:
    """Figures of a pair of pictures in DN; those that need bands which are not there are NaN."""

    def __init__(self, sensor: Sensor) -> None:
        self._sensor, self._roles, count = sensor, Roles.of(sensor), len(sensor.bands)
        self.bands, self.sharpness, self.classes = BandSums(count), Sharpness(count), ClassTally()
        self._ndwi_error = 0.0

    def add(self, original: Dn, received: Dn, valid: Mask, pixels: PixelSums | None = None) -> None:
        """A piece: dn uint16 [B, h, w], mask bool [h, w]. `pixels`: its sums, where they are at hand."""
        seen = pixels or PixelSums.of(self._sensor, original, received, valid)
        self.bands.add_sums(seen.pixels, seen.bands)
        self.sharpness.add(original, received, valid, WINDOWS_APART)
        self.classes.add_table(seen.cover, seen.cover_squares, len(original))
        self._ndwi_error += seen.ndwi_error

    @classmethod
    def of(
        cls, sensor: Sensor, original: Dn, received: Dn, valid: Mask, pixels: PixelSums | None = None
    ) -> "CoverAgreement":
        """That of one piece alone, to be merged."""
        found = cls(sensor)
        found.add(original, received, valid, pixels)
        return found

    def merge(self, other: "CoverAgreement") -> None:
        """Adds what another has seen."""
        self.bands.merge(other.bands)
        self.sharpness.merge(other.sharpness)
        self.classes.merge(other.classes)
        self._ndwi_error += other._ndwi_error

    def figures(self) -> dict[str, float]:
        pixels, agreed = self.bands.pixels, self.classes.agreement()
        known = pixels and self._roles is not None
        biases = [abs(band["bias"]) for band in self.bands.figures(1.0)]
        return {
            "cover_oa": agreed["oa"], "cover_kappa": agreed["kappa"],
            "ndwi_mae": self._ndwi_error / pixels if known else float("nan"),
            "largest_bias_reflectance": max(biases) * REFLECTANCE_PER_DN, **self.sharpness.figures(),
        }  # fmt: skip
