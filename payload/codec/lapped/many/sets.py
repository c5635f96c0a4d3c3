"""Many rotated bands: sets of at most sixteen, each coded as a tile of few bands is.

The strongest bands are one set with tables of its own; all others, which hold what single bands have left, share the
tables of the rest. What a coder knows, and its memory, is that of one set, whatever the number of bands. A layer is

    | octets of set 0 : 24 | set 0 | octets of set 1 : 24 | set 1 | ...

where 0 octets stand for a set of zeros. A layer that was cut ends behind its last set.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np

from payload.bundle import Bundle
from payload.codec.lapped.many.framing import frame, unframe
from payload.codec.lapped.quantiser import Indices
from payload.codec.lapped.transform import COEFFICIENTS
from payload.codec.rotation import FEW_BANDS
from payload.errors import StreamError
from payload.memory import Held
from payload.policy import Profile


class LayerCoder(Protocol):
    """Indices <-> layers of few bands: layers.Plain, compiled_layers.EntropyKernel."""

    def held(self) -> Iterator[Held]: ...
    def encode_layers(
        self, indices: Indices, keep: int | None = None, last_active: int | None = None, profile: Profile = "fast"
    ) -> tuple[bytes, ...]: ...
    def decode_layers(self, layers: tuple[bytes, ...]) -> Indices: ...
    def profile_of(self, layers: Sequence[bytes]) -> Profile: ...


def set_bands(bands: int) -> int:
    """Rotated bands of a set: all of few; of many, sets are alike in size, the last one filled up with zeros."""
    return -(-bands // sets_of(bands))


def sets_of(bands: int) -> int:
    return -(-bands // FEW_BANDS)


def sets_in(bundle: Bundle) -> tuple[int, int]:
    """How many sets a bundle's bands go in, and the bands of each. Tables that were fitted to other bands say how many
    they are for by `set_bands` in the codec's table. BundleError where that makes no sense."""
    bands = len(bundle.bands)
    if bands <= FEW_BANDS:
        return 1, bands
    each = int(bundle.parameter("set_bands", set_bands(bands), set_bands(bands), FEW_BANDS))
    return -(-bands // each), each


class Sets:
    """The entropy coder of many bands. `leading` codes the first set, `rest` each of the others."""

    def __init__(self, leading: LayerCoder, rest: LayerCoder, sets: tuple[int, int], layers: int) -> None:
        """`sets`: how many there are, and the bands of each."""
        self._leading, self._rest, self._layers = leading, rest, layers
        self._count, of_set = sets
        self._channels, self._zeros = of_set * COEFFICIENTS, bytes(2 + of_set)

    def held(self) -> Iterator[Held]:
        yield from self._leading.held()
        yield from (replace(held, name=f"rest.{held.name}") for held in self._rest.held())

    def encode_layers(
        self, indices: Indices, keep: int | None = None, last_active: int | None = None, profile: Profile = "fast"
    ) -> tuple[bytes, ...]:
        """As of few bands; ranks go on from set to set."""
        whole = self._count * self._channels
        active = whole if last_active is None else min(last_active, whole)
        coded = []
        for number, coder in enumerate(self._coders()):
            left = min(max(active - number * self._channels, 0), self._channels)
            coded.append(coder.encode_layers(self._part(indices, number), keep, left, profile))
        present = max(1, -(-active // self._channels))
        return tuple(
            frame(_body(layer) for layer in of_sets[: present if k == len(coded[0]) - 1 else None])
            for k, of_sets in enumerate(zip(*coded, strict=True))
        )

    def decode_layers(self, layers: tuple[bytes, ...]) -> Indices:
        """As of few bands. StreamError where the octets make no sense."""
        if not 1 <= len(layers) <= self._layers:
            raise StreamError(f"{len(layers)} layers, this bundle has 1 to {self._layers}")
        framed = [self._unframed(octets, k) for k, octets in enumerate(layers)]
        for k, sets in enumerate(framed[:-1]):
            if len(sets) < self._count:
                raise StreamError(f"layer {k}: {len(sets)} sets of {self._count}, and layers behind it")
        parts = [
            self._decoded(coder, tuple(sets[number] for sets in framed if number < len(sets)), len(layers))
            for number, coder in enumerate(self._coders())
        ]
        magnitude, negative, behind = (
            np.concatenate([getattr(part, name) for part in parts]) for name in ("magnitude", "negative", "behind")
        )
        return Indices(magnitude, negative, self._layers - len(layers), behind)

    def profile_of(self, layers: Sequence[bytes]) -> Profile:
        return self._leading.profile_of([part for k, octets in enumerate(layers) for part in self._unframed(octets, k)])

    def _coders(self) -> Sequence[LayerCoder]:
        return [self._leading] + [self._rest] * (self._count - 1)

    def _part(self, indices: Indices, number: int) -> Indices:
        at = slice(number * self._channels, (number + 1) * self._channels)
        sizes = None if indices.size128 is None else indices.size128[at]
        return Indices(indices.magnitude[at], indices.negative[at], size128=sizes)

    def _unframed(self, octets: bytes, k: int) -> list[bytes]:
        return [part or self._zeros for part in unframe(octets, self._count, f"layer {k}")]

    def _decoded(self, coder: LayerCoder, layers: tuple[bytes, ...], wanted: int) -> Indices:
        """A set's indices on the scale of the `wanted` layers of the tile: the last may be missing here."""
        shortfall = wanted - len(layers)
        part = coder.decode_layers(layers or (self._zeros,))
        if not layers or not shortfall:
            behind = part.behind if part.behind is not None else np.zeros(len(part.magnitude), bool)
            return replace(part, behind=behind)
        doubled = (part.magnitude << 1).astype(np.uint16)
        return replace(part, magnitude=doubled, behind=np.ones(len(doubled), bool))


def _body(layer: bytes) -> bytes:
    """A layer without an active channel needs no octets."""
    return b"" if layer[:2] == b"\0\0" else layer
