"""The spectral Karhunen-Loeve transform that stands in front of the classical coders, and its side information.

Side information for B bands: (B x B + B) float32 big-endian, 80 octets for four bands: the orthonormal basis (rows =
components) times the scale that fits every component into the coder's range, then the band means. Of more than four
bands that would be a burden: they have the payload's own rotation, angles of 12 bits and means of 16, and the scale as
float32: 127 octets for twelve bands. Of more than sixteen the leading components alone, as many as are worth it.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from payload.codec import rotation as spectral
from payload.codec.rotation import FEW_BANDS, MATRIX_BITS, Rotation
from payload.scene import Dn

F64 = NDArray[np.float64]
#: Distances in px between the pixels whose differences a KLT may be fitted on instead of the values.
DIFFERENCES_PX = (2, 8)
MOST_SCALE = 64.0
#: Up to so many bands the basis is sent as it is.
PLAIN_BANDS = 4


@dataclass(frozen=True, eq=False)
class Klt:
    """One tile's transform. A component is `scaled` times the centred bands; |component| <= `reach`."""

    scaled: F64  # [B, B], rows orthogonal, each as long as `scale`
    mean: F64  # [B, 1] DN
    rotation: Rotation | None = None  # how more than four bands say it

    @property
    def scale(self) -> float:
        """How much larger errors of components are than errors of DN."""
        return float(np.sqrt((self.scaled**2).sum(axis=1).mean()))

    @classmethod
    def _of_many(cls, dn: Dn, reach: int, error_dn2: float, distance_px: int) -> "Klt":
        valid = np.ones(dn.shape[1:], bool)
        rotation = spectral.fit(dn, valid, error_dn2=error_dn2, bounded=False, distance_px=distance_px)
        known = cls._of_rotation(rotation, 1.0)
        largest = max(np.abs(known.components(dn)).max(), 1.0)
        return cls._of_rotation(rotation, float(np.float32(min(MOST_SCALE, reach / largest))))

    @classmethod
    def _of_rotation(cls, rotation: Rotation, scale: float) -> "Klt":
        means = np.array(rotation.means, np.float64)[:, None]
        return cls(rotation.matrix.astype(np.float64) * (scale / 2.0**MATRIX_BITS), means, rotation)

    @classmethod
    def fit(cls, dn: Dn, reach: int, differences: bool = False, error_dn2: float = 400.0) -> "Klt":
        """The transform of a tile [B, h, w], its components as large as |component| <= `reach` allows: bright cloud
        needs the head-room, dark water the precision. `differences`: decorrelates differences of pixels 2 and 8 px
        apart instead of values, which is what the coder behind it codes; of more than four bands 2 px. `error_dn2`:
        the squared error wanted, which says how many components of many bands are worth their angles."""
        if len(dn) > PLAIN_BANDS:
            return cls._of_many(dn, reach, error_dn2, DIFFERENCES_PX[0] if differences else 0)
        x = dn.reshape(len(dn), -1).astype(np.float64)  # [B, n]
        mean = x.mean(axis=1, keepdims=True).astype(np.float32).astype(np.float64)  # what the decoder will know
        centred = x - mean
        covariance = _of_differences(dn) if differences else centred @ centred.T
        _, vectors = np.linalg.eigh(covariance)
        basis = vectors.T[::-1]  # by falling variance
        basis = basis * np.where(basis.sum(axis=1, keepdims=True) < 0, -1.0, 1.0)
        largest = max(np.abs(in_order(basis, centred)).max(), 1.0)
        return cls(basis * min(MOST_SCALE, reach / largest), mean)

    def components(self, dn: Dn) -> F64:
        """[B, h, w], not rounded."""
        centred = dn.reshape(len(dn), -1) - self.mean
        found = in_order(self.scaled, centred) if self.rotation is None else self.scaled @ centred
        return found.reshape(dn.shape)

    def bands(self, components: NDArray[np.floating]) -> Dn:
        """DN [B, h, w] from components [B, h, w]."""
        flat = components.reshape(len(components), -1)
        turned = in_order(self.scaled.T, flat) if self.rotation is None else self.scaled.T @ flat
        dn = turned / self.scale**2 + self.mean
        return np.rint(np.clip(dn, 0, 65535)).astype(np.uint16).reshape(components.shape)

    def pack(self) -> bytes:
        if self.rotation is not None:
            return spectral.pack_rotation(self.rotation) + np.array(self.scale, ">f4").tobytes()
        return np.concatenate([self.scaled.ravel(), self.mean.ravel()]).astype(">f4").tobytes()

    @classmethod
    def unpack(cls, octets: bytes, bands: int) -> "Klt":
        if bands > PLAIN_BANDS:
            end = side_octets(bands, octets)
            rotation = spectral.unpack_rotation(octets[: end - 4], bands, 0)
            return cls._of_rotation(rotation, float(np.frombuffer(octets[end - 4 : end], ">f4")[0]))
        side = np.frombuffer(octets, ">f4", count=bands * bands + bands).astype(np.float64)
        return cls(side[: bands * bands].reshape(bands, bands), side[bands * bands :, None])


def side_octets(bands: int, octets: bytes) -> int:
    """How long the side information is that `octets` begin with."""
    if bands > PLAIN_BANDS:
        return spectral.rotation_octets(bands, octets[0] if bands > FEW_BANDS else None) + 4
    return 4 * (bands * bands + bands)


def in_order(matrix: NDArray[np.floating], x: NDArray[np.floating]) -> F64:
    """matrix @ x with a fixed order of additions: octets must not depend on a linear algebra library's kernels."""
    return np.stack([sum(weight * band for weight, band in zip(row, x, strict=True)) for row in matrix])


def _of_differences(dn: Dn) -> F64:
    """Sum over both directions and DIFFERENCES_PX of the second moments [B, B] of differences."""
    x = dn.astype(np.float64)
    total = np.zeros((len(dn), len(dn)))
    for distance in DIFFERENCES_PX:
        for difference in (x[:, distance:] - x[:, :-distance], x[:, :, distance:] - x[:, :, :-distance]):
            flat = difference.reshape(len(dn), -1)
            total += flat @ flat.T
    return total
