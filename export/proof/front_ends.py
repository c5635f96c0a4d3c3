"""How a tile becomes the input of each network that flies, and how its output becomes indices: the payload's own code.

The proof and the FP16 comparison feed networks through these, so that what is proven is what flies.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.graphs.graph import load_graph
from export.proof.inputs import Arrays, Feeder, FrontEnd, TilePool, random_feeder, real_feeder
from payload.bundle import Bundle
from payload.clouds.gate import BIN_PX, CLASSES, NETWORK_FILE, input_planes, read_settings
from payload.codec.lapped import quantiser
from payload.codec.lapped.power_law import LINEAR, compand
from payload.codec.lapped.transform import LATENT_BITS, Latents, encode, planes
from payload.codec.registry import ENCODER_FILE, TABLES_FILE
from payload.codec.rotation import fit, rotate
from payload.codec.vq import codebooks
from payload.errors import InputError
from payload.tiles import Tile

Outputs = list[NDArray[Any]]


@dataclass(frozen=True, eq=False)
class LatentQuantiser:
    """What happens to a network's outputs: to latents, to integer indices, and back. `unit_dn`: DN per latent unit,
    None where latents have no such unit."""

    name: str
    latents: Callable[[Outputs], NDArray[Any]]
    indices: Callable[[NDArray[Any]], NDArray[Any]]
    rebuilt: Callable[[NDArray[Any]], NDArray[Any]]
    unit_dn: float | None = None


def feeder_for(bundle: Bundle, name: str, pool: TilePool | None, seed: int = 0) -> Feeder:
    """Real tiles where there is a pool and the payload has a front end for this network, random integers otherwise."""
    front_end, graph = front_end_for(bundle, name), load_graph(bundle.file(name), free_px=bundle.tile_px)
    if pool is None or front_end is None:
        return random_feeder(graph, seed)
    types = [graph.input_type(n) for n in graph.inputs]

    def cast(tile: Tile) -> Arrays:
        return tuple(a.astype(t, copy=False) for a, t in zip(front_end(tile), types, strict=True))

    return real_feeder(cast, bundle.tile_px, pool)


def front_end_for(bundle: Bundle, name: str) -> FrontEnd | None:
    """What turns a tile into the inputs of network `name`; None where the payload has nothing of the kind."""
    if name == NETWORK_FILE and isinstance(bundle.manifest.get("clouds"), dict):
        return _cloud_planes(bundle)
    if name == ENCODER_FILE and bundle.codec.get("kind") == "fsq":
        return _rotated_planes(float(bundle.codec.get("compand", LINEAR)))
    if name == ENCODER_FILE and bundle.codec.get("kind") == "vq":
        books = codebooks.load_codebooks(bundle.file(TABLES_FILE))
        return lambda tile: (codebooks.normalise(tile.dn, books),)
    return None


def quantiser_for(bundle: Bundle, name: str, step_dn: float) -> LatentQuantiser:
    """The quantiser behind network `name`. InputError where the payload has none."""
    if name == NETWORK_FILE:
        return _classes()
    if name == ENCODER_FILE and bundle.codec.get("kind") == "fsq":
        return _nested(len(bundle.bands), bundle.tile_px, step_dn)
    if name == ENCODER_FILE and bundle.codec.get("kind") == "vq":
        return _codebooks(bundle)
    raise InputError(
        f"bundle {bundle.name}: nothing quantises the outputs of {name}; compare an encoder or a cloud network"
    )


def uniform(step: float) -> LatentQuantiser:
    """Every output divided by `step`, rounded half to even: for networks of no particular codec."""
    return LatentQuantiser(
        f"uniform, step {step:g}",
        lambda outputs: np.concatenate([np.asarray(o, np.float64).ravel() for o in outputs]),
        lambda latents: np.rint(latents / step).astype(np.int64),
        lambda indices: indices * step,
    )


def _rotated_planes(gamma: float) -> FrontEnd:
    def front_end(tile: Tile) -> Arrays:
        values = compand(tile.dn, gamma)
        return (planes(rotate(values, tile.valid, fit(values, tile.valid))),)

    return front_end


def _cloud_planes(bundle: Bundle) -> FrontEnd:
    settings = read_settings(bundle.manifest["clouds"])

    def front_end(tile: Tile) -> Arrays:
        found = input_planes(tile.dn, tile.valid, settings)
        if found is None:  # a tile of one value, which the payload does not judge
            found = np.zeros((2 * len(tile.dn), *(side // BIN_PX for side in tile.valid.shape)), np.uint8)
        return (found[None],)

    return front_end


class _Given:
    """Stands in for a network whose output is known."""

    def __init__(self, outputs: Outputs) -> None:
        self.outputs = outputs

    def run(self, *inputs: NDArray[Any]) -> Outputs:
        return self.outputs


def _nested(bands: int, tile_px: int, step_dn: float) -> LatentQuantiser:
    index = quantiser.step_index(step_dn)
    step = quantiser.step_units(index)
    blank = np.zeros((bands, tile_px, tile_px), np.int32)

    def indices(latents: NDArray[Any]) -> NDArray[Any]:
        found = quantiser.quantise(Latents(latents), index)
        return np.where(found.negative, -found.magnitude.astype(np.int64), found.magnitude)

    def rebuilt(values: NDArray[Any]) -> NDArray[Any]:
        levels = quantiser.dequantise(quantiser.Indices(np.abs(values).astype(np.uint16), values < 0))
        return (levels.astype(np.float64) * step).reshape(bands, -1, *values.shape[1:])

    return LatentQuantiser(
        f"nested, step {step_dn:g} DN",
        lambda outputs: encode(blank, _Given(outputs)).values,
        indices,
        rebuilt,
        2.0**-LATENT_BITS,
    )


def _codebooks(bundle: Bundle) -> LatentQuantiser:
    """Indices of all codebooks in a row, latents flattened one after the other."""
    books = codebooks.load_codebooks(bundle.file(TABLES_FILE)).books
    shapes: list[tuple[int, ...]] = []

    def latents(outputs: Outputs) -> NDArray[Any]:
        shapes[:] = [o.shape for o in outputs]
        return np.concatenate([np.asarray(o, np.float32).ravel() for o in outputs])

    def indices(flat: NDArray[Any]) -> NDArray[Any]:
        ends = np.cumsum([int(np.prod(s)) for s in shapes])
        parts = [part.reshape(s) for part, s in zip(np.split(flat, ends[:-1]), shapes, strict=True)]
        return np.concatenate([codebooks.nearest(z, book).ravel() for z, book in zip(parts, books, strict=True)])

    def rebuilt(found: NDArray[Any]) -> NDArray[Any]:
        ends = np.cumsum([int(np.prod(s[2:])) for s in shapes])
        parts = np.split(found, ends[:-1])
        return np.concatenate([book.vectors[i].T.ravel() for i, book in zip(parts, books, strict=True)])

    return LatentQuantiser("codebooks", latents, indices, rebuilt)


def _classes() -> LatentQuantiser:
    """The class of each cell: the largest of its logits, the lowest on ties."""

    def classes(latents: NDArray[Any]) -> NDArray[Any]:
        per_class = latents.reshape(len(CLASSES), -1, *latents.shape[1:])
        return per_class.argmax(axis=0)

    return LatentQuantiser("class of each cell", lambda outputs: outputs[0][0], classes, lambda indices: indices)
