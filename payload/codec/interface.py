"""What every codec can do with one tile: the one door between the payload, the ground, the proofs and a codec.

    tile -> encode -> side information and layers -> decode -> indices -> reconstruct -> DN

A codec is one class that answers as `Codec` says, registered under the name that bundles carry as `codec.kind`
(payload/codec/registry.py). Nobody asks a codec what it is. docs/your-own-codec.md writes one from nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from payload.engine import Network
from payload.link.tile_code import Bound, Kind
from payload.policy import Policy, Profile
from payload.scene import Dn, Mask
from payload.stopwatch import Stopwatch
from payload.tiles import Tile

#: Where a bundle keeps what the shipped codecs need. A codec of your own may name other files of its bundle.
ENCODER_FILE = "flight/encoder.onnx"
TABLES_FILE = "flight/tables.npz"
DECODER_FILE = "ground/decoder.onnx"
#: Peak of every PSNR that the payload is asked for.
PEAK_DN = 10_000.0


@dataclass(frozen=True)
class Quality:
    """How finely a tile is coded: the finest quantiser step in DN, or the PSNR (peak 10 000) to be reached.

    `keep`: at most so many layers (None: all). `with_errors`: say what error every layer leaves, for rate control.
    `max_error_dn`: no valid sample may be off by more, whatever the rest says; only for a codec that `Bounding` says.
    `profile`: of the entropy coder, for a codec that has several.
    """

    step_dn: float = 200.0
    psnr_db: float | None = None
    keep: int | None = None
    with_errors: bool = False
    max_error_dn: int | None = None
    profile: Profile = "fast"

    @classmethod
    def of(cls, policy: Policy, keep: int | None = None, with_errors: bool = False) -> "Quality":
        """As a policy asks for it."""
        return cls(policy.step_dn, policy.psnr_db, keep, with_errors, policy.max_error_dn, policy.profile)


@dataclass(frozen=True, eq=False)
class CodedTile:
    """One tile, coded: side information, layers coarse first, and the squared error left after 0, 1, 2, ... layers.

    `errors` is an onboard estimate in DN^2 summed over samples, from the latents (the transform is nearly orthonormal);
    empty where it was not asked for or the codec has no such estimate. `bound`: the last layer is a residual layer.
    """

    side: bytes
    layers: tuple[bytes, ...]
    errors: tuple[float, ...] = ()
    bound: Bound | None = None

    @property
    def base_layers(self) -> tuple[bytes, ...]:
        """The layers that `Codec.decode` reads."""
        return self.layers if self.bound is None else self.layers[:-1]

    @property
    def octets(self) -> int:
        return len(self.side) + sum(map(len, self.layers))


@dataclass(frozen=True, eq=False)
class LatentQuantiser:
    """What happens to the outputs of a flight network, for the proofs: to latents, to integer indices, and back.

    `unit_dn`: DN per latent unit, None where latents have no such unit.
    """

    name: str
    latents: Callable[[list[NDArray[Any]]], NDArray[Any]]
    indices: Callable[[NDArray[Any]], NDArray[Any]]
    rebuilt: Callable[[NDArray[Any]], NDArray[Any]]
    unit_dn: float | None = None


@dataclass(frozen=True)
class Grid:
    """Bands of one native resolution: their places among the bundle's, and how many pixels of the tile's grid one of
    theirs covers, along and across."""

    name: str
    places: tuple[int, ...]
    times: int


class Codec(Protocol):
    """One bundle's codec. It is made as `codec(bundle, engine)`; with no engine (None) it decodes only."""

    @property
    def layers(self) -> int:
        """How many layers a tile has at most."""

    @property
    def code_kind(self) -> Kind:
        """The kind of the tile codes that carry its octets: CODED, or FALLBACK where they are read without a bundle."""

    @property
    def follows_quality(self) -> bool:
        """Whether `Quality` changes what it sends. False: it has one rate, and one point on a rate-distortion curve."""

    @property
    def flight_network(self) -> str | None:
        """The bundle's file of the network in its encoder, as the proofs check it; None where it has none."""

    @property
    def ground_network(self) -> str | None:
        """The bundle's file of the network that `reconstruct` is handed; None where it needs none."""

    @property
    def decodes_alone(self) -> bool:
        """Whether `reconstruct` does without its `ground_network`, where it has one: decoder `fast` of the ground."""

    # on board

    def encode(self, tile: Tile, quality: Quality, watch: Stopwatch) -> CodedTile:
        """One tile, coded. BundleError where the codec was opened without an engine."""

    def shorten(self, layers: tuple[bytes, ...], octets: int) -> tuple[bytes, ...]:
        """The layers with the last one cut so that all are at most `octets` long; as they are where that cannot be."""

    # on the ground

    def decode(self, side: bytes, layers: tuple[bytes, ...]) -> Any:
        """Indices, in a form that is the codec's own: integers only. StreamError where the octets make no sense."""

    def reconstruct(self, indices: Any, network: Network | None) -> Dn:
        """What `decode` gave -> DN uint16 [B, T, T]. `network` is `ground_network`, loaded; None where the codec has
        none, or where it `decodes_alone` and the caller wants it fast rather than as good as can be."""

    def step_of(self, side: bytes, layers: int) -> float:
        """Quantiser step in DN of a tile of which so many layers arrived: how far tile edges may be evened out. 0: not
        at all."""

    # for comparisons and proofs

    def finest(self, indices: Any) -> NDArray[Any]:
        """The finest layer of what `decode` gave as one array of plain numbers, to compare two machines by."""

    def network_inputs(self, tile: Tile) -> tuple[NDArray[Any], ...]:
        """What goes into `flight_network` for this tile."""

    def latent_quantiser(self, step_dn: float) -> LatentQuantiser:
        """What happens to the outputs of `flight_network`."""


@runtime_checkable
class Bounding(Protocol):
    """A codec that follows `Quality.max_error_dn`: a residual layer behind its own, which `decode` does not read."""

    def reconstruct_bounded(self, side: bytes, layers: tuple[bytes, ...], valid: Mask, bound: Bound) -> Dn:
        """DN uint16 [B, T, T] of all layers, the residual layer last: the same on every machine. StreamError where the
        octets make no sense, or the valid samples are not those that were sent."""


class Coefficients(Protocol):
    """The coefficients of a codec's tiles f32 [B, C, h, w], in steps: what an archive may move inside the cells that
    were sent. `decoded` is what `Codec.decode` gave of the tile."""

    def cells(self, decoded: Any) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Least and greatest value of every coefficient that has the indices sent."""

    def plain(self, decoded: Any) -> NDArray[np.float32]:
        """What the decoder makes of the indices."""

    def of_picture(self, dn: Dn, valid: Mask, decoded: Any) -> NDArray[np.float32]:
        """The coefficients of another picture [B, T, T] as this tile would have them."""

    def weights(self, blocks: NDArray[np.float32]) -> NDArray[np.float32]:
        """Of every coefficient [C, h, w] the least of what blocks [h, w] have, of all blocks that it reaches."""

    def picture(self, coefficients: NDArray[np.float32], decoded: Any) -> Dn:
        """DN uint16 [B, T, T]."""


@runtime_checkable
class Refinable(Protocol):
    """A codec whose coefficients can be moved inside their cells (sim/aided)."""

    def refining(self, network: Network | None) -> Coefficients | None:
        """They, with the ground's decoder network or none; None where the bundle's tiles have none to move."""


class AtNetwork(Protocol):
    """What stands in front of a flight network and behind it: of a codec the part that the proofs ask for."""

    def network_inputs(self, tile: Tile) -> tuple[NDArray[Any], ...]: ...
    def latent_quantiser(self, step_dn: float) -> LatentQuantiser: ...


@runtime_checkable
class NativeGrids(Protocol):
    """A codec of bands of several resolutions: the ground delivers a picture for each of its grids."""

    @property
    def grids(self) -> tuple[Grid, ...]:
        """Finest first; they share out the bundle's bands."""

    def of_network(self, name: str) -> "AtNetwork | None":
        """Who answers for one of the bundle's networks, as it is in the encoder of a grid; None where none is."""


def to_dn(values: NDArray[np.floating[Any]]) -> Dn:
    """The nearest DN, uint16, same shape."""
    return np.clip(np.rint(values), 0, 65535).astype(np.uint16)
