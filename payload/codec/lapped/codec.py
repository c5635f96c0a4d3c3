"""The flight codec: power law, spectral rotation, INT8 lapped transform, nested quantiser, integer entropy model.

    tile [B, T, T] -> companded -> rotated -> latents [B, 64, T/8, T/8] -> indices -> layers of octets

Side information: means 16 bits each, angles 12 bits each, step index 8, shift 8. What runs in C where the kernel was
built, in numpy elsewhere, gives the same octets; who runs the encoder network is the engine's choice.
"""

import math
from collections.abc import Iterator
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from payload.bundle import Bundle
from payload.codec.features import FeatureLevel, of_blocks
from payload.codec.interface import (
    DECODER_FILE,
    ENCODER_FILE,
    PEAK_DN,
    TABLES_FILE,
    CodedTile,
    LatentQuantiser,
    Quality,
    to_dn,
)
from payload.codec.lapped import compiled, layers, quantiser, synthesis, tables
from payload.codec.lapped.compiled_layers import EntropyKernel
from payload.codec.lapped.context_model import frequency_neighbours, zones
from payload.codec.lapped.power_law import LEAST_GAMMA, LINEAR, compand, expand, expanded, stretch, table
from payload.codec.lapped.proof import latent_quantiser
from payload.codec.lapped.quantiser import Indices
from payload.codec.lapped.residual.bounded import BASE_STEP_DN, Bounded
from payload.codec.lapped.transform import BLOCK, COEFFICIENTS, Latents, dct, encode, first_level, planes
from payload.codec.rotation import (
    SHIFT_LIMIT,
    Rotation,
    circle,
    fit,
    held_circle,
    inverse_of,
    pack_rotation,
    rotate,
    rotation_octets,
    unpack_rotation,
    unrotate,
)
from payload.engine import NATIVE, Engine, Network
from payload.errors import BundleError, InputError, StreamError
from payload.link.tile_code import Bound, Kind
from payload.memory import Held, RunsInside
from payload.native import library
from payload.scene import Dn, Mask
from payload.stopwatch import Stopwatch
from payload.tiles import Tile, require_tile

#: Blocks of 8 x 8 px, whose averages go in blocks of 8 x 8 through the second level.
TILE_MULTIPLE_PX = 64
#: Constant quality: the share of the allowed error that quantisation may use. The rest is for magnitudes that are left
#: out as not worth their octets, which the estimate does not see.
QUANTISER_ERROR_SHARE = 0.9


class FsqCodec:
    """One bundle's codec; without an engine it decodes only."""

    code_kind = Kind.CODED
    follows_quality = True
    flight_network = ENCODER_FILE
    ground_network = DECODER_FILE
    decodes_alone = True

    def __init__(self, bundle: Bundle, engine: Engine | None) -> None:
        self._bundle, self._tile_px, self._bands = bundle, bundle.tile_px, len(bundle.bands)
        coarsest_dn = quantiser.step_dn(quantiser.STEP_INDICES - 1)
        self._gamma = bundle.parameter("compand", LINEAR, LEAST_GAMMA, LINEAR)
        self._coarsest_dn = bundle.parameter("coarsest_step_dn", coarsest_dn, 1.0, coarsest_dn)
        if self._tile_px % TILE_MULTIPLE_PX:
            raise BundleError(
                f"bundle {bundle.name}: tiles of {self._tile_px} px, wanted a multiple of {TILE_MULTIPLE_PX}; "
                "restore the bundle or rebuild it"
            )
        model, kernels = _load_tables(bundle)
        cells = self._tile_px // BLOCK
        self._entropy = EntropyKernel(model, cells, cells) if library.available else layers.Plain(model, cells)
        self._buffers = compiled.Buffers(self._bands, self._tile_px) if library.available else None
        self._network = engine.load(bundle.file(ENCODER_FILE), require_int8=True) if engine else None
        self._transform = _transform(bundle, kernels) if engine and engine.name == NATIVE else None
        self.layers = len(model.layers)

    def held(self) -> Iterator[Held]:
        """Tables, weights and scales; nothing of what is written anew for every tile."""
        yield from self._entropy.held()
        if self._transform is not None:
            yield from self._transform.held()
        yield Held("power_law", "scales", table(self._gamma))
        yield Held("second_level", "scales", dct())
        yield from held_circle()

    def runs_inside(self, tile: Tile) -> Iterator[RunsInside]:
        """The encoder where a runtime has it, with `tile` as it goes into it."""
        if self._network is not None and self._transform is None:
            yield RunsInside("encoder", self._network, self.network_inputs(tile))

    @staticmethod
    def forget() -> None:
        """Lets go of tables that are kept for the next codec: what opens after this makes them anew."""
        for kept in (table, dct, circle, zones, frequency_neighbours):
            kept.cache_clear()

    def encode(self, tile: Tile, quality: Quality, watch: Stopwatch) -> CodedTile:
        require_tile(tile, self._bands, self._tile_px)
        if quality.max_error_dn is not None:
            return self._encode_bounded(tile, quality.max_error_dn, watch)
        with watch.stage("rotate"):
            values, rotation, rotated = self._rotate(tile)
        with watch.stage("encode"):
            latents = self._latents(rotated)
        with watch.stage("quantise"):
            dn2_per_value = stretch(values, self._gamma) if quality.with_errors or quality.psnr_db is not None else 1.0
            samples = self._bands * int(np.count_nonzero(tile.valid))
            index, unsent = self._step(latents, rotation, quality, (dn2_per_value, samples))
            indices = self._quantise(latents, index)
            errors: tuple[float, ...] = ()
            if quality.with_errors:
                errors = _errors_dn2(latents, index, self.layers, rotation, dn2_per_value)
        with watch.stage("entropy"):
            keep = min(self.layers if quality.keep is None else quality.keep, self.layers - unsent)
            layers = self._entropy.encode_layers(indices, keep)
        return CodedTile(_pack_side(rotation, index), layers, errors[: len(layers) + 1])

    def _encode_bounded(self, tile: Tile, bound_dn: int, watch: Stopwatch) -> CodedTile:
        coded = self.encode(tile, Quality(BASE_STEP_DN), watch)
        with watch.stage("residual"):
            (rotation, index), indices = self.decode(coded.side, coded.layers)
            layer, bound = self._bounded.layer(tile, indices, rotation, index, bound_dn)
        return CodedTile(coded.side, (*coded.layers, layer), bound=bound)

    def _rotate(self, tile: Tile) -> tuple[NDArray[np.uint16], Rotation, NDArray[np.int16]]:
        """Companded bands, their rotation, rotated bands."""
        if self._buffers is None or not tile.valid.all():
            values = compand(tile.dn, self._gamma)
            rotation = fit(values, tile.valid)
            return values, rotation, rotate(values, tile.valid, rotation).astype(np.int16)
        known = compiled.statistics(tile.dn, table(self._gamma), self._buffers.values)
        rotation = fit(self._buffers.values, tile.valid, known, compiled.diagonalise)
        compiled.rotate(self._buffers.values, rotation, self._buffers.rotated)
        return self._buffers.values, rotation, self._buffers.rotated

    def _latents(self, rotated: NDArray[np.int16]) -> Latents:
        if self._network is None:
            raise BundleError("this codec was opened for decoding only; give it an engine to encode")
        if self._transform is not None and self._buffers is not None:
            return compiled.with_second_level(self._transform.run(rotated, self._buffers))
        return encode(rotated, self._network)

    def _quantise(self, latents: Latents, index: int) -> Indices:
        if self._buffers is None:
            return quantiser.quantise(latents, index)
        return compiled.quantise(latents, index, self._buffers)

    def _step(
        self, latents: Latents, rotation: Rotation, quality: Quality, scale: tuple[float, int]
    ) -> tuple[int, int]:
        """The quantiser's step index, and how many finer layers stay on board: beyond the steps the context model was
        trained on, a tile is coded at half the step, or a quarter, ... and cut after the layer that was asked for."""
        if quality.psnr_db is not None:
            dn2_per_value, samples = scale
            allowed = QUANTISER_ERROR_SHARE * samples * PEAK_DN**2 * 10 ** (-quality.psnr_db / 10)
            coarsest = quantiser.step_index(self._coarsest_dn)
            low, high = -1, coarsest + quantiser.STEPS_PER_OCTAVE * (self.layers - 1)
            while high - low > 1:  # the coarsest step whose error is allowed; -1 stands for one that is
                middle = (low + high) // 2
                index, unsent = _within(middle - quantiser.STEPS_PER_OCTAVE * rotation.shift, coarsest)
                left = _errors_dn2(latents, index, self.layers, rotation, dn2_per_value)[self.layers - unsent]
                low, high = (middle, high) if left <= allowed else (low, middle)
            return _within(max(low, 0) - quantiser.STEPS_PER_OCTAVE * rotation.shift, coarsest)
        unsent = min(max(math.ceil(math.log2(quality.step_dn / self._coarsest_dn)), 0), self.layers - 1)
        return quantiser.step_index(quality.step_dn * 2.0 ** -(rotation.shift + unsent)), unsent

    def decode(self, side: bytes, layers: tuple[bytes, ...]) -> tuple[tuple[Rotation, int], Indices]:
        return _unpack_side(side, self._bands), self._entropy.decode_layers(layers)

    def reconstruct_bounded(self, side: bytes, layers: tuple[bytes, ...], valid: Mask, bound: Bound) -> Dn:
        (rotation, index), indices = self.decode(side, layers[:-1])
        return self._bounded.tile(indices, rotation, index, layers[-1], valid, bound)

    @cached_property
    def _bounded(self) -> Bounded:
        return Bounded(self._kernels, self._gamma)

    def reconstruct(self, indices: tuple[tuple[Rotation, int], Indices], network: Network | None) -> Dn:
        """indices -> levels -> decoder network -> rotated bands -> DN. The network works in steps.

        Without a network, and behind one that gives better levels: the transform undone, and nothing more."""
        (rotation, index), found = indices
        step_dn = quantiser.step_dn(index) * 2.0**found.missing  # in rotated DN
        if network is None:
            return self._untransformed(found, None, rotation, step_dn)
        depth = np.full((1, 1, 1, 1), found.missing / max(1, self.layers - 1), np.float32)
        levels = _levels(found)
        (better,) = network.run(levels[None], depth)
        if better.shape[1:] == levels.shape:
            return self._untransformed(found, better[0], rotation, step_dn)
        return to_dn(expand(unrotate(better[0] * np.float32(step_dn), rotation), self._gamma))

    def _untransformed(
        self, found: Indices, levels: NDArray[np.float32] | None, rotation: Rotation, step_dn: float
    ) -> Dn:
        """DN of levels [B * 64, h, h], or of the indices' own."""
        wide, (inverse, means) = synthesis.wide_functions(step_dn), inverse_of(rotation)
        turn = inverse * np.float32(step_dn), means
        if self._synthesis is not None and levels is None:
            return self._synthesis.of_indices(found, _averages(found), wide, turn)
        if self._synthesis is not None and levels is not None:
            return self._synthesis.of_levels(levels, wide, turn)
        rotated = synthesis.synthesise(_levels(found) if levels is None else levels, *self._functions, wide)
        return to_dn(expand(unrotate(rotated * np.float32(step_dn), rotation), self._gamma))

    @cached_property
    def _functions(self) -> tuple[synthesis.Functions, synthesis.Functions]:
        kernels = self._kernels
        return synthesis.dual_functions(kernels, synthesis.NARROW), synthesis.dual_functions(kernels, synthesis.WIDE)

    @cached_property
    def _kernels(self) -> tables.Kernels:
        kernels = tables.load_kernels(self._bundle.file(TABLES_FILE))
        if kernels is None:
            raise BundleError(
                f"bundle {self._bundle.name}: no kernels in {TABLES_FILE} to decode by without a network, nor for "
                "features; decode with --decoder full, or rebuild the bundle"
            )
        return kernels

    @cached_property
    def _synthesis(self) -> compiled.Synthesis | None:
        if not library.available:
            return None
        return compiled.Synthesis(*self._functions, expanded(self._gamma), self._bands, self._tile_px)

    def features(self, indices: tuple[tuple[Rotation, int], Indices]) -> tuple[FeatureLevel, ...]:
        """Coefficients of the bands, dequantised, in companded DN, and their activity."""
        (rotation, index), found = indices
        levels = _levels(found) * np.float32(quantiser.step_dn(index) * 2.0**found.missing)
        inverse, means = inverse_of(rotation)
        turned = (inverse @ levels.reshape(self._bands, -1)).reshape(self._bands, COEFFICIENTS, *levels.shape[1:])
        turned[:, 0] = turned[:, 0] / np.float32(self._kernels.gain_of_first) + means[:, None, None]
        return of_blocks(turned, self._bundle.bands)

    def step_of(self, side: bytes, layers: int) -> float:
        rotation, index = _unpack_side(side, self._bands)
        return float(quantiser.step_dn(index) * 2.0 ** (rotation.shift + self.layers - layers))

    def finest(self, indices: tuple[tuple[Rotation, int], Indices]) -> NDArray[np.int32]:
        _, found = indices
        return np.where(found.negative, -found.magnitude.astype(np.int32), found.magnitude)

    def network_inputs(self, tile: Tile) -> tuple[NDArray[np.float32]]:
        values = compand(tile.dn, self._gamma)
        return (planes(rotate(values, tile.valid, fit(values, tile.valid))),)

    def latent_quantiser(self, step_dn: float) -> LatentQuantiser:
        return latent_quantiser(self._bands, self._tile_px, step_dn)

    def shorten(self, layers: tuple[bytes, ...], octets: int) -> tuple[bytes, ...]:
        before = sum(len(layer) for layer in layers[:-1])
        if not layers or before + len(layers[-1]) <= octets:
            return layers
        found = self._entropy.decode_layers(layers)
        finest = Indices((found.magnitude << found.missing).astype(np.uint16), found.negative)
        low, high = 0, self._bands * COEFFICIENTS  # channels of the last layer; `low` fits
        best: tuple[bytes, ...] = layers
        while high - low > 1:
            middle = (low + high) // 2
            trial = self._entropy.encode_layers(finest, len(layers), middle)
            if sum(map(len, trial)) <= octets:
                low, best = middle, trial
            else:
                high = middle
        return best


def _levels(indices: Indices) -> NDArray[np.float32]:
    """Levels [B * 64, h, w] in steps of the coarsest layer known, block averages back from the second level."""
    levels = quantiser.dequantise(indices)
    levels[::COEFFICIENTS] = first_level(levels[::COEFFICIENTS]).astype(np.float32)
    return levels


def _averages(indices: Indices) -> NDArray[np.float32]:
    """The block averages [B, h, w] of `_levels` alone."""
    behind = indices.behind
    own = slice(None, None, COEFFICIENTS)
    part = Indices(
        indices.magnitude[own], indices.negative[own], indices.missing, None if behind is None else behind[own]
    )
    return np.ascontiguousarray(first_level(quantiser.dequantise(part)), np.float32)


def _within(index: int, coarsest: int) -> tuple[int, int]:
    """A step index that the model was trained on, and how many layers stay unsent for it."""
    unsent = max(0, -(-(index - coarsest) // quantiser.STEPS_PER_OCTAVE))
    return max(0, index - quantiser.STEPS_PER_OCTAVE * unsent), unsent


def _errors_dn2(
    latents: Latents, index: int, layers: int, rotation: Rotation, dn2_per_value: float
) -> tuple[float, ...]:
    """Squared error left after 0, 1, ..., `layers` layers, summed over the tile, in DN^2."""
    measure = compiled.errors if library.available else quantiser.errors
    unit = dn2_per_value * 4.0 ** (rotation.shift - quantiser.ERROR_BITS)
    return tuple(unit * left for left in measure(latents, index, layers))


def _load_tables(bundle: Bundle) -> tuple[tables.ContextTables, tables.Kernels | None]:
    """The bundle's entropy model and kernels; BundleError where they do not fit its manifest."""
    path, bands = bundle.file(TABLES_FILE), len(bundle.bands)
    if bands > tables.MOST_BANDS:
        raise BundleError(f"bundle {bundle.name}: {bands} bands, wanted {tables.MOST_BANDS} at most; rebuild it")
    model = tables.load_tables(path, bands)
    declared = bundle.codec.get("layers", len(model.layers))
    if declared != len(model.layers):
        raise BundleError(
            f"bundle {bundle.name}: codec.layers is {str(declared)[:60]!r}, {path} holds {len(model.layers)}; "
            "restore the bundle or rebuild it"
        )
    return model, tables.load_kernels(path)


def _transform(bundle: Bundle, kernels: tables.Kernels | None) -> compiled.Transform:
    if not library.available:
        raise InputError(
            "engine 'native' needs the compiled kernel, which was not built; install again where there is a C compiler"
        )
    if kernels is None:
        raise BundleError(f"bundle {bundle.name}: no kernels in {TABLES_FILE} for engine 'native'; rebuild it")
    return compiled.Transform(kernels)


def _pack_side(rotation: Rotation, index: int) -> bytes:
    return pack_rotation(rotation) + bytes([index, rotation.shift])


def _unpack_side(side: bytes, bands: int) -> tuple[Rotation, int]:
    if len(side) != rotation_octets(bands) + 2 or side[-2] >= quantiser.STEP_INDICES or side[-1] > SHIFT_LIMIT:
        raise StreamError(f"{len(side)} octets of side information do not fit {bands} bands")
    return unpack_rotation(side[:-2], bands, side[-1]), side[-2]
