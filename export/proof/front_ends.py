"""How a tile becomes the input of each network that flies, and how its output becomes indices: the payload's own code.

The proof and the FP16 comparison feed networks through these, so that what is proven is what flies.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.graphs.graph import load_graph
from export.proof.inputs import Arrays, Feeder, FrontEnd, TilePool, random_feeder, real_feeder
from payload.bundle import Bundle
from payload.clouds.mask import CLASSES
from payload.clouds.network import NETWORK_FILE, looked_at, places_in, read_settings
from payload.clouds.planes import input_planes, plane_count
from payload.codec.interface import AtNetwork, LatentQuantiser, NativeGrids
from payload.codec.registry import open_codec
from payload.errors import InputError
from payload.tiles import Tile


def feeder_for(bundle: Bundle, name: str, pool: TilePool | None, seed: int = 0) -> Feeder:
    """Real tiles where there is a pool and the payload has a front end for this network, random integers otherwise."""
    front_end, graph = front_end_for(bundle, name), load_graph(bundle.file(name), free_px=bundle.tile_px)
    if pool is None or front_end is None:
        return random_feeder(graph, seed)
    if pool.dn.shape[1] != len(bundle.bands):
        raise InputError(
            f"tiles of {pool.dn.shape[1]} bands, bundle {bundle.name} is of {len(bundle.bands)}; give --pool with "
            "tiles of its sensor, or --random"
        )
    types = [graph.input_type(n) for n in graph.inputs]

    def cast(tile: Tile) -> Arrays:
        return tuple(a.astype(t, copy=False) for a, t in zip(front_end(tile), types, strict=True))

    return real_feeder(cast, bundle.tile_px, pool)


def front_end_for(bundle: Bundle, name: str) -> FrontEnd | None:
    """What turns a tile into the inputs of network `name`; None where the payload has nothing of the kind."""
    if name == NETWORK_FILE and isinstance(bundle.manifest.get("clouds"), dict):
        return _cloud_planes(bundle)
    codec = _codec_of(bundle, name)
    return None if codec is None else codec.network_inputs


def quantiser_for(bundle: Bundle, name: str, step_dn: float) -> LatentQuantiser:
    """The quantiser behind network `name`. InputError where the payload has none."""
    if name == NETWORK_FILE:
        return _classes()
    codec = _codec_of(bundle, name)
    if codec is not None:
        return codec.latent_quantiser(step_dn)
    raise InputError(
        f"bundle {bundle.name}: nothing quantises the outputs of {name}; compare an encoder or a cloud network"
    )


def _codec_of(bundle: Bundle, name: str) -> AtNetwork | None:
    """The bundle's codec, or the part of it, where `name` is the network in its encoder."""
    codec = open_codec(bundle)
    if isinstance(codec, NativeGrids):
        return codec.of_network(name)
    return codec if codec.flight_network == name else None


def uniform(step: float) -> LatentQuantiser:
    """Every output divided by `step`, rounded half to even: for networks of no particular codec."""
    return LatentQuantiser(
        f"uniform, step {step:g}",
        lambda outputs: np.concatenate([np.asarray(o, np.float64).ravel() for o in outputs]),
        lambda latents: np.rint(latents / step).astype(np.int64),
        lambda indices: indices * step,
    )


def _cloud_planes(bundle: Bundle) -> FrontEnd:
    settings, places = read_settings(bundle.manifest["clouds"]), places_in(bundle)

    def front_end(tile: Tile) -> Arrays:
        seen = looked_at(tile.dn, places)
        found = input_planes(seen, tile.valid, settings)
        if found is None:  # a tile of one value, which the payload does not judge
            sides = (side // settings.cell_px for side in tile.valid.shape)
            found = np.zeros((plane_count(len(seen), settings), *sides), np.uint8)
        return (found[None],)

    return front_end


def _classes() -> LatentQuantiser:
    """The class of each cell: the largest of its logits, the lowest on ties."""

    def classes(latents: NDArray[Any]) -> NDArray[Any]:
        per_class = latents.reshape(len(CLASSES), -1, *latents.shape[1:])
        return per_class.argmax(axis=0)

    return LatentQuantiser("class of each cell", lambda outputs: outputs[0][0], classes, lambda indices: indices)
