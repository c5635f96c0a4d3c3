"""The spectral Karhunen-Loeve transform that stands in front of the classical coders, and its side information.

Side information for B bands: (B x B + B) float32 big-endian, 80 octets for four bands: the orthonormal basis (rows =
components) times the scale that fits every component into the coder's range, then the band means.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from payload.scene import Dn

F64 = NDArray[np.float64]
#: Distances in px between the pixels whose differences a KLT may be fitted on instead of the values.
DIFFERENCES_PX = (2, 8)
MOST_SCALE = 64.0


@dataclass(frozen=True, eq=False)
class Klt:
    """One tile's transform. A component is `scaled` times the centred bands; |component| <= `reach`."""

    scaled: F64  # [B, B], rows orthogonal, each as long as `scale`
    mean: F64  # [B, 1] DN

    @property
    def scale(self) -> float:
        """How much larger errors of components are than errors of DN."""
        return float(np.sqrt((self.scaled**2).sum(axis=1).mean()))

    @classmethod
    def fit(cls, dn: Dn, reach: int, differences: bool = False) -> "Klt":
        """The transform of a tile [B, h, w], its components as large as |component| <= `reach` allows: bright cloud
        needs the head-room, dark water the precision. `differences`: decorrelates differences of pixels 2 and 8 px
        apart instead of values, which is what the coder behind it codes."""
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
        return in_order(self.scaled, dn.reshape(len(dn), -1) - self.mean).reshape(dn.shape)

    def bands(self, components: NDArray[np.floating]) -> Dn:
        """DN [B, h, w] from components [B, h, w]."""
        flat = components.reshape(len(components), -1)
        dn = in_order(self.scaled.T, flat) / self.scale**2 + self.mean
        return np.rint(np.clip(dn, 0, 65535)).astype(np.uint16).reshape(components.shape)

    def pack(self) -> bytes:
        return np.concatenate([self.scaled.ravel(), self.mean.ravel()]).astype(">f4").tobytes()

    @classmethod
    def unpack(cls, octets: bytes, bands: int) -> "Klt":
        side = np.frombuffer(octets, ">f4", count=bands * bands + bands).astype(np.float64)
        return cls(side[: bands * bands].reshape(bands, bands), side[bands * bands :, None])


def side_octets(bands: int) -> int:
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
