"""The compiled twin of payload/codec/lapped/dense/layer.py: what the kernel reads of a bundle for it, and its calls."""

import ctypes
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from payload.codec.lapped.dense.given import given_of, squash
from payload.codec.lapped.dense.mixing import THIRD
from payload.codec.lapped.tables import ContextTables
from payload.native.library import BOOL, I16, NONE, U8, U16, U32, U64, call, loaded, span

#: As PLAIN_OCTETS, CHANNEL_OCTETS and LAST_OCTETS of the kernel: nadir_encode_dense asks for so much.
PLAIN_OCTETS, CHANNEL_OCTETS, LAST_OCTETS = 3, 37, 64

#: Copies arrays that the kernel reads: owner, names, arrays and their types -> where they begin, and their octets.
Hold = Callable[[str, Sequence[str], Sequence[tuple[Any, "np.dtype[Any]"]]], tuple[list[int], tuple[int, ...]]]


class _Given(ctypes.Structure):
    arrays = ("squash", "of_class", "of_size", "of_new_bit")
    _fields_ = (
        *((name, ctypes.c_void_p) for name in arrays), ("octets", ctypes.c_size_t * 4),
        ("complements", ctypes.c_void_p * 4),
    )  # fmt: skip


def givens(tables: ContextTables, hold: Hold, complements: Callable[[Sequence[int]], tuple[int, ...]]) -> list[_Given]:
    """What the kernel reads of every layer."""
    found = []
    (chances,), (octets_of_chances,) = hold("kernel.dense", ("squash",), ((squash(), U32),))
    for k, layer in enumerate(tables.layers):
        given = given_of(layer)
        arrays = (given.of_class, I16), (given.of_size, I16), (given.of_new_bit, I16)
        where, octets = hold(f"kernel.dense{k}", _Given.arrays[1:], arrays)
        where = [chances, *where]
        found.append(_Given(*where, (octets_of_chances, *octets), complements(where)))
    return found


class DenseRoom:
    """The kernel's memory for tiles of h x w blocks: scratch, and the mixture of the tile that is coded."""

    def __init__(self, channels: int, h: int, w: int, longest_group: int) -> None:
        self._scratch = np.empty(loaded().nadir_dense_octets(channels, h, w, longest_group), np.uint8)
        self._out = np.empty(PLAIN_OCTETS * channels * h * w + CHANNEL_OCTETS * h * w + LAST_OCTETS, np.uint8)
        self._size = h, w
        self._make_mixture(THIRD)

    def _make_mixture(self, generation: int) -> None:
        """The older generations take more room, and payloads write neither."""
        self._mixture = np.empty(loaded().nadir_mixture_octets(generation) // 8, np.uint64)
        self.generation = generation

    def begin(self, generation: int = THIRD) -> None:
        """Forgets what the layers so far have taught."""
        if generation != self.generation:
            self._make_mixture(generation)
        call("open_mixture", span(self._mixture, U64), generation)

    def encode(
        self, tables: Sequence[Any], k: int, arrays: Sequence[NDArray[Any] | None],
        scale: tuple[int, int], head: tuple[int, NDArray[np.int16]],
    ) -> bytes:  # fmt: skip
        """Layer k behind its head. tables: the kernel's model, layer and given; arrays: magnitude, negative, sizes;
        scale: where a magnitude of one is rebuilt in 64ths, and how many finer layers there are."""
        magnitude, negative, sizes = arrays
        written = ctypes.c_size_t()
        call(
            "encode_dense", *map(ctypes.byref, tables), k, _of(magnitude, U16), _of(negative, BOOL), _of(sizes, U8),
            *scale, *self._size, head[0], span(head[1], I16), span(self._scratch, U8), span(self._mixture, U64),
            span(self._out, U8), ctypes.byref(written),
        )  # fmt: skip
        return self._out[: written.value].tobytes()

    def decode(
        self, tables: Sequence[Any], k: int, body: bytes, head: tuple[int, NDArray[np.int16]],
        here: NDArray[np.uint16], negative: NDArray[np.bool_],
    ) -> tuple[int, int]:  # fmt: skip
        """Layer k into `here`, twice the layer before, and `negative`: what is wrong with the octets or 0, and
        escapes."""
        raw = np.zeros(1, np.uint64)
        failed = call(
            "decode_dense", *map(ctypes.byref, tables), k, span(np.frombuffer(body, np.uint8), U8), *self._size,
            head[0], span(head[1], I16), span(self._scratch, U8), span(self._mixture, U64), span(here, U16),
            span(negative, BOOL), span(raw, U64),
        )  # fmt: skip
        return failed, int(raw[0])


def _of(array: NDArray[Any] | None, dtype: "np.dtype[Any]") -> Any:
    return NONE if array is None else span(array, dtype)
