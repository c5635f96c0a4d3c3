"""A `.nadir` scene file read by window: only its tiles are fetched and decoded, and of those only the layers asked for.

    with nadir.open("scene.nadir") as scene:
        red = scene["B04", 0:1024, 2048:3072]        # uint16 [1024, 1024]

No GDAL: the container, the bundle and numpy. Tiles are as the decoder gives them; their edges are not evened out.
"""

from collections.abc import Iterator, Mapping
from functools import cached_property
from types import EllipsisType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from payload.bundle import Bundle, load_bundle
from payload.engine import open_engine
from payload.errors import BundleError, InputError, StreamError
from payload.link import tile_code
from payload.link.tile_code import Kind, TileCode
from payload.link.valid_mask import unpack_mask
from payload.scene import Dn, Mask, SceneInfo
from sim.archive import layout
from sim.archive.layout import Head
from sim.archive.octets import Octets
from sim.ground.decoder import FAST, Decoder

#: Kinds of tile codes that hold pixels.
PICTURED = (int(Kind.CODED), int(Kind.FALLBACK))
Address = tuple[int, int]


class SceneFile:
    """One archived scene, open for reading. `layers` or `psnr_db` say how much of every tile is fetched: the first so
    many layers, or as many as the index says are needed; None: all. Safe to use from several threads."""

    def __init__(
        self, where: str, bundle: str | None = None, decoder: str = FAST, layers: int | None = None,
        psnr_db: float | None = None, engine: str = "openvino", options: dict[str, Any] | None = None,
    ) -> None:  # fmt: skip
        if layers is not None and psnr_db is not None:
            raise InputError(f"layers {layers} and psnr_db {psnr_db} both say how much to decode; give one")
        if layers is not None and layers < 1:
            raise InputError(f"layers is {layers}, wanted 1 or more, or none for all")
        self.octets = Octets(where, options)
        self._asked = bundle, decoder, engine
        self.head = read_head(self.octets)
        self._body = self.head.octets
        self._layers = self._layers_of(layers, psnr_db)

    def _layers_of(self, layers: int | None, psnr_db: float | None) -> NDArray[np.int64]:
        """How many layers of each tile are fetched, [n]."""
        index = self.head.index
        if layers is not None:
            return np.minimum(index.counts, layers)
        if psnr_db is None:
            return index.counts
        enough = layout.psnr_db(index.psnr) >= psnr_db
        return np.where(enough.any(axis=1), np.minimum(enough.argmax(axis=1) + 1, index.counts), index.counts)

    @property
    def info(self) -> SceneInfo:
        """Name, size, bands, place and time, as they were when the scene was archived."""
        return self.head.header.info

    @property
    def text(self) -> Mapping[str, Any]:
        """What the file says of itself besides: how it was made, and what was asked for."""
        return self.head.text

    @property
    def bands(self) -> tuple[str, ...]:
        return self.info.bands

    @property
    def shape(self) -> tuple[int, int, int]:
        return len(self.bands), self.info.height_px, self.info.width_px

    @property
    def ndim(self) -> int:
        return 3

    @property
    def dtype(self) -> "np.dtype[np.uint16]":
        return np.dtype(np.uint16)

    @property
    def samples_per_px(self) -> float:
        """Samples measured for each pixel of the finest grid: bands of coarser pixels count by their share."""
        found = self.text.get("samples_per_px")
        return float(found if isinstance(found, (int, float)) and 0 < found <= len(self.bands) else len(self.bands))

    @property
    def tile_px(self) -> int:
        return self.head.header.tile_px

    @property
    def fill(self) -> int:
        """DN of a pixel without a measurement."""
        return self.info.nodata or 0

    @property
    def psnr_db(self) -> NDArray[np.float64]:
        """PSNR (peak 10 000) of every tile [rows, cols] at the layers that are read, proved when the scene was
        archived; NaN for a tile without pixels."""
        rows, cols = self.head.header.grid
        kept = layout.psnr_db(self.head.index.psnr)
        found = np.take_along_axis(kept, np.maximum(self._layers - 1, 0)[:, None], axis=1)[:, 0]
        return np.where(self._layers > 0, found, np.nan).reshape(rows, cols)

    @cached_property
    def bundle(self) -> Bundle:
        """The bundle that the scene was coded with. BundleError where it is not at hand."""
        return held_bundle(self.head, self._asked[0])

    @cached_property
    def decoder(self) -> Decoder:
        return Decoder(self.bundle, open_engine(self._asked[2]), self._asked[1])

    def __getitem__(self, key: Any) -> Dn:
        """uint16 [bands, rows, cols]; a whole number takes its axis away, as in numpy. Bands also by name."""
        given = _three_keys(key)
        bands, one_band = _places(given[0], self.bands)
        rows, one_row = _line(given[1], self.shape[1], "rows")
        cols, one_col = _line(given[2], self.shape[2], "columns")
        (top, height), (left, width) = _hull(rows), _hull(cols)
        dn, _ = self.read(top, left, height, width)
        picked = dn[np.ix_(bands, rows - top, cols - left)]
        one = tuple(axis for axis, single in enumerate((one_band, one_row, one_col)) if single)
        return picked.squeeze(one) if one else picked

    def read(self, top: int, left: int, height: int, width: int) -> tuple[Dn, Mask]:
        """dn uint16 [B, height, width] and valid bool [height, width] of a window inside the scene.

        StreamError names a tile whose octets are damaged: nothing is invented."""
        dn = np.full((len(self.bands), height, width), self.fill, np.uint16)
        valid = np.zeros((height, width), bool)
        for (row, col), code in self.codes(top, left, height, width):
            tile, mask = self._tile(code)
            there, here = _overlap(row, top, height, self.tile_px), _overlap(col, left, width, self.tile_px)
            window, part = (there[0], here[0]), (there[1], here[1])
            valid[window] = mask[part]
            dn[:, *window] = np.where(mask[part], tile[:, *part], dn[:, *window])
        return dn, valid

    def _tile(self, code: TileCode) -> tuple[Dn, Mask]:
        try:
            return self.decoder.decode_tile(code), unpack_mask(code.mask, self.tile_px)
        except StreamError as error:
            raise damaged(self.octets.where, (code.row, code.col), str(error)) from None

    def codes(self, top: int, left: int, height: int, width: int) -> Iterator[tuple[Address, TileCode]]:
        """Tile codes that hold pixels of the window, cut to the layers that are read; one row of tiles at a time."""
        if not height or not width:
            return
        side, cols = self.tile_px, self.head.header.grid[1]
        columns = range(left // side, (left + width - 1) // side + 1)
        for row in range(top // side, (top + height - 1) // side + 1):
            tiles = [row * cols + col for col in columns]
            held = [t for t in tiles if self.head.index.kind[t] in PICTURED]
            for tile, octets in zip(held, self.octets.read([self._range(t) for t in held]), strict=True):
                yield (row, tile % cols), self._unpacked(tile, octets)

    def _range(self, tile: int) -> tuple[int, int]:
        begin = self._body + int(self.head.index.offset[tile])
        return begin, begin + self.head.index.octets(tile, int(self._layers[tile]))

    def _unpacked(self, tile: int, octets: bytes) -> TileCode:
        address = divmod(tile, self.head.header.grid[1])
        try:
            code = tile_code.unpack(octets)
        except StreamError as error:
            raise damaged(self.octets.where, address, str(error)) from None
        if len(code.layers) < self._layers[tile] or (code.row, code.col) != address:
            raise damaged(self.octets.where, address, code.cause or "it is another tile's")
        return code

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        self.close()

    def close(self) -> None:
        """Nothing is held open between reads."""

    def __repr__(self) -> str:
        bands, height, width = self.shape
        return f"<nadir scene {self.info.name!r}: {bands} x {height} x {width} uint16, {self.octets.where}>"


def read_head(octets: Octets) -> Head:
    """The head of a file. InputError where it is no archive file, or a damaged one."""
    try:
        (fixed,) = octets.read([(0, layout.FIXED.size)])
        size = layout.head_octets(fixed)
        (rest,) = octets.read([(layout.FIXED.size, size)])
        return layout.unpack(fixed + rest)
    except StreamError as error:
        raise InputError(f"{octets.where}: {error}") from None


def held_bundle(head: Head, where: str | None) -> Bundle:
    """The bundle that a file was coded with: the one at `where`, or the shipped one of the name in the file."""
    wanted = head.header.bundle_id
    name = where or str(head.text.get("bundle", ""))
    try:
        bundle = load_bundle(name)
    except BundleError as error:
        raise BundleError(f"bundle {wanted:08x} is needed to decode this file; name its folder ({error})") from None
    if bundle.bundle_id != wanted:
        raise BundleError(
            f"this file was coded with bundle {wanted:08x}, {name} is {bundle.bundle_id:08x}; name the other's folder"
        )
    return bundle


def damaged(where: str, address: Address, cause: str) -> StreamError:
    row, col = address
    return StreamError(f"{where}: tile ({row}, {col}) is damaged ({cause}); `sim archive verify` lists every damage")


def _three_keys(key: Any) -> list[Any]:
    keys = list(key) if isinstance(key, tuple) else [key]
    dots = [at for at, k in enumerate(keys) if isinstance(k, EllipsisType)]
    if dots:
        keys[dots[0] : dots[0] + 1] = [slice(None)] * (4 - len(keys))
    if len(keys) > 3:
        raise IndexError(f"{len(keys)} indices for a scene of [bands, rows, cols]")
    return keys + [slice(None)] * (3 - len(keys))


def _places(key: Any, bands: tuple[str, ...]) -> tuple[NDArray[np.intp], bool]:
    """Places of the bands of a key, and whether it is one band."""
    if isinstance(key, str):
        if key not in bands:
            raise IndexError(f"no band {key!r}, this scene has {', '.join(bands)}")
        return np.array([bands.index(key)]), True
    if isinstance(key, list | tuple) and all(isinstance(k, str) for k in key):
        return np.concatenate([_places(k, bands)[0] for k in key]), False
    return _line(key, len(bands), "bands")


def _line(key: Any, size: int, what: str) -> tuple[NDArray[np.intp], bool]:
    """Places along an axis, and whether the key is one whole number."""
    try:
        found = np.arange(size)[key]
    except IndexError as error:
        raise IndexError(f"{what}: {error}") from None
    return np.atleast_1d(found), np.ndim(found) == 0


def _hull(places: NDArray[np.intp]) -> tuple[int, int]:
    """First place, and how many from there to the last."""
    if not len(places):
        return 0, 0
    return int(places.min()), int(places.max()) - int(places.min()) + 1


def _overlap(tile: int, first: int, count: int, side: int) -> tuple[slice, slice]:
    """Where a tile lies in a window of `count` pixels from `first` on, and what of the tile lies there."""
    begin, end = max(tile * side, first), min((tile + 1) * side, first + count)
    return slice(begin - first, end - first), slice(begin - tile * side, end - tile * side)
