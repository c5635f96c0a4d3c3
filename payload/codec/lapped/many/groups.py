"""Bands at their native resolutions in one tile code: groups of 10, 20 and 60 m, each coded as it is.

A tile is a piece of ground: T x T px of the finest grid, on which pixels of coarser bands stand repeated. Every group
has an `fsq` codec of its own, with tables of its own, on its own grid of T / times px. Coarser groups come first, so
that a layer that was cut keeps the few octets of most bands:

    side:   | side of the coarsest group | ... | side of the finest |
    layer:  | octets of the coarsest : 24 | its layer | ... | octets of the finest : 24 | its layer |
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from payload.bundle import Bundle
from payload.codec.interface import CodedTile, Grid, LatentQuantiser, Quality
from payload.codec.lapped.codec import TILE_MULTIPLE_PX, FsqCodec
from payload.codec.lapped.many.framing import LENGTH_OCTETS, frame, unframe
from payload.codec.rotation import FEW_BANDS, rotation_octets
from payload.engine import Engine, Network
from payload.errors import BundleError, StreamError
from payload.link.tile_code import Kind
from payload.memory import Held, RunsInside
from payload.scene import Dn
from payload.stopwatch import Stopwatch
from payload.tiles import Tile, require_tile

KIND = "fsq-groups"
#: A group's name is part of file names.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,31}")


class OfGroup(Bundle):
    """What a bundle holds of one group, as a bundle of its own: files of flight/NAME/ in the place of flight/."""

    def file(self, name: str) -> Path:
        found = super().file(name)
        return found.parent / str(self.manifest["group"]) / found.name


@dataclass(frozen=True, eq=False)
class Part:
    """A group of bands and its codec."""

    grid: Grid
    codec: FsqCodec
    tile_px: int
    side_octets: int

    def of(self, tile: Tile) -> Tile:
        """The tile on the group's grid: a pixel is the mean of what it covers and is valid, of repeated ones itself."""
        dn = tile.dn[list(self.grid.places)]
        if self.grid.times == 1:
            return replace(tile, dn=np.ascontiguousarray(dn))
        valid, times = tile.valid.astype(np.int64), self.grid.times
        count, total = self._sums(valid[None]), self._sums(dn * valid)
        mean = (total + count // 2) // np.maximum(count, 1)
        own = np.where(count > 0, mean, dn[:, ::times, ::times]).astype(np.uint16)
        return replace(tile, dn=own, valid=count[0] > 0)

    def network_inputs(self, tile: Tile) -> tuple[NDArray[np.float32]]:
        return self.codec.network_inputs(self.of(tile))

    def latent_quantiser(self, step_dn: float) -> LatentQuantiser:
        return self.codec.latent_quantiser(step_dn)

    def _sums(self, values: NDArray[np.int64]) -> NDArray[np.int64]:
        cells, times = self.tile_px, self.grid.times
        found: NDArray[np.int64] = values.reshape(len(values), cells, times, cells, times).sum(axis=(2, 4))
        return found


class GroupsCodec:
    """One bundle's codec for bands of several resolutions; without an engine it decodes only."""

    code_kind = Kind.CODED
    follows_quality = True
    ground_network = None
    decodes_alone = True

    def __init__(self, bundle: Bundle, engine: Engine | None) -> None:
        self._tile_px, self._bands = bundle.tile_px, len(bundle.bands)
        self.grids = grids_of(bundle)
        self._parts = [_part(bundle, engine, grid) for grid in reversed(self.grids)]  # coarse first
        self.layers = max(part.codec.layers for part in self._parts)
        self.flight_network = _network_of(self.grids[0])

    # on board

    def encode(self, tile: Tile, quality: Quality, watch: Stopwatch) -> CodedTile:
        require_tile(tile, self._bands, self._tile_px)
        coded = [part.codec.encode(part.of(tile), quality, watch) for part in self._parts]
        count = max(len(one.layers) for one in coded)
        layers = tuple(frame(one.layers[k] if k < len(one.layers) else b"" for one in coded) for k in range(count))
        errors: tuple[float, ...] = ()
        if all(one.errors for one in coded):
            errors = tuple(sum(one.errors[min(k, len(one.layers))] for one in coded) for k in range(count + 1))
        return CodedTile(b"".join(one.side for one in coded), layers, errors)

    def shorten(self, layers: tuple[bytes, ...], octets: int) -> tuple[bytes, ...]:
        left = octets - sum(map(len, layers[:-1]))
        if not layers or len(layers[-1]) <= left:
            return layers
        kept: list[bytes] = []
        for number, own in enumerate(self._of_parts(layers)):
            part = own[-1] if len(own) == len(layers) else b""
            left -= LENGTH_OCTETS
            if len(part) > left:
                before = sum(map(len, own[:-1]))
                (*_, part) = self._parts[number].codec.shorten(own, before + left) if left > 0 else (part,)
                kept += [part] if len(part) <= left else []
                break
            kept.append(part)
            left -= len(part)
        return (*layers[:-1], frame(kept)) if kept else layers

    def held(self) -> Iterator[Held]:
        for part in self._parts:
            yield from (replace(held, name=f"{part.grid.name}.{held.name}") for held in part.codec.held())

    def runs_inside(self, tile: Tile) -> Iterator[RunsInside]:
        for part in self._parts:
            own = part.codec.runs_inside(part.of(tile))
            yield from (replace(inside, name=f"{part.grid.name}/{inside.name}") for inside in own)

    @staticmethod
    def forget() -> None:
        FsqCodec.forget()

    # on the ground

    def decode(self, side: bytes, layers: tuple[bytes, ...]) -> tuple[Any, ...]:
        """The indices of every group, coarse first."""
        zeros = (bytes(2 + len(part.grid.places)) for part in self._parts)
        each = zip(self._parts, self._sides(side), self._of_parts(layers), zeros, strict=True)
        return tuple(part.codec.decode(own_side, own or (zero,)) for part, own_side, own, zero in each)

    def reconstruct(self, indices: tuple[Any, ...], network: Network | None) -> Dn:
        dn = np.empty((self._bands, self._tile_px, self._tile_px), np.uint16)
        for part, found in zip(self._parts, indices, strict=True):
            own = part.codec.reconstruct(found, None)
            dn[list(part.grid.places)] = own.repeat(part.grid.times, axis=1).repeat(part.grid.times, axis=2)
        return dn

    def step_of(self, side: bytes, layers: int) -> float:
        return max(part.codec.step_of(own, layers) for part, own in zip(self._parts, self._sides(side), strict=True))

    def _sides(self, side: bytes) -> list[bytes]:
        wanted = [part.side_octets for part in self._parts]
        if len(side) != sum(wanted):
            raise StreamError(f"{len(side)} octets of side information, wanted {sum(wanted)} of {len(wanted)} groups")
        ends = np.cumsum(wanted).tolist()
        return [side[end - octets : end] for octets, end in zip(wanted, ends, strict=True)]

    def _of_parts(self, layers: tuple[bytes, ...]) -> list[tuple[bytes, ...]]:
        """The layers of every group, coarse group first. StreamError where a group lacks a layer before one it has."""
        if not 1 <= len(layers) <= self.layers:
            raise StreamError(f"{len(layers)} layers, this bundle has 1 to {self.layers}")
        count = len(self._parts)
        framed = [unframe(octets, count, f"layer {k}") for k, octets in enumerate(layers)]
        found = []
        for number in range(count):
            own = [parts[number] if number < len(parts) else b"" for parts in framed]
            there = own.index(b"") if b"" in own else len(own)
            if any(own[there:]):
                raise StreamError(f"layer {there}: nothing of group {number} of {count}, and more of it behind")
            found.append(tuple(own[:there]))
        return found

    # for comparisons and proofs

    def finest(self, indices: tuple[Any, ...]) -> NDArray[np.int32]:
        own = zip(self._parts, indices, strict=True)
        return np.concatenate([part.codec.finest(found).ravel() for part, found in own])

    def of_network(self, name: str) -> Part | None:
        return next((part for part in self._parts if _network_of(part.grid) == name), None)

    def network_inputs(self, tile: Tile) -> tuple[NDArray[np.float32]]:
        return self._parts[-1].network_inputs(tile)

    def latent_quantiser(self, step_dn: float) -> LatentQuantiser:
        return self._parts[-1].latent_quantiser(step_dn)


def _network_of(grid: Grid) -> str:
    return f"flight/{grid.name}/encoder.onnx"


def grids_of(bundle: Bundle) -> tuple[Grid, ...]:
    """The groups of a bundle's sensor on their grids, finest first. BundleError where tiles do not hold whole pixels of
    every grid, or bands of a group differ in resolution."""
    sensor, grids = bundle.sensor, []
    finest_m = min(band.gsd_m for band in sensor.bands)
    for group in sensor.grouped:
        places = tuple(sensor.names.index(name) for name in group.bands)
        ratios = {sensor.bands[place].gsd_m / finest_m for place in places}
        times = round(min(ratios))
        whole = ratios == {float(times)} and bundle.tile_px % (times * TILE_MULTIPLE_PX) == 0
        if not whole or not NAME.fullmatch(group.name) or len(places) > FEW_BANDS:
            raise BundleError(
                f"bundle {bundle.name}: group {group.name[:40]!r} of {len(places)} bands, {min(ratios):g} x the finest "
                f"pixel, in tiles of {bundle.tile_px} px; wanted a plain name, {FEW_BANDS} bands at most, whole pixels "
                f"and tiles of a multiple of {TILE_MULTIPLE_PX} of them; rebuild it with other groups or tiles"
            )
        grids.append(Grid(group.name, places, times))
    return tuple(sorted(grids, key=lambda grid: grid.times))


def _part(bundle: Bundle, engine: Engine | None, grid: Grid) -> Part:
    tables, tile_px = bundle.codec.get("groups"), bundle.tile_px // grid.times
    own = tables.get(grid.name) if isinstance(tables, dict) else None
    if not isinstance(own, dict):
        raise BundleError(f"bundle {bundle.name}: codec.groups has no table {grid.name}; restore it or rebuild it")
    inside = f"flight/{grid.name}/"
    files = {f"flight/{name.removeprefix(inside)}": digest for name, digest in bundle.manifest["files"].items()
             if name.startswith(inside)}  # fmt: skip
    bands = [bundle.bands[place] for place in grid.places]
    kept = {key: value for key, value in bundle.manifest.items() if key != "sensor"}
    manifest = kept | {"bands": bands, "tile_px": tile_px, "codec": own, "files": files, "group": grid.name}
    codec = FsqCodec(OfGroup(bundle.directory, manifest), engine)
    return Part(grid, codec, tile_px, rotation_octets(len(bands)) + 2)
