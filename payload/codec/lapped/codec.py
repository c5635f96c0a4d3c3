"""The flight codec: power law, spectral rotation, INT8 lapped transform, nested quantiser, integer entropy model.

    tile [B, T, T] -> companded -> rotated -> latents [B, 64, T/8, T/8] -> indices -> layers of octets

Side information: many/side.py. What runs in C where the kernel was built, in numpy elsewhere, gives
the same octets; who runs the encoder network is the engine's choice. More than sixteen bands go in sets (many/sets.py).
"""

import math
from collections.abc import Iterator
from copy import copy
from functools import cached_property, partial

import numpy as np
from numpy.typing import NDArray

from payload.bundle import Bundle
from payload.codec.band_statistics import DISTANCE_PX, MOST_DISTANCE_PX
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
from payload.codec.lapped import compiled, layers, quantiser, synthesis, tables, transform
from payload.codec.lapped.compiled_layers import EntropyKernel
from payload.codec.lapped.context_model import frequency_neighbours, zones
from payload.codec.lapped.dense.given import squash
from payload.codec.lapped.many.sets import LayerCoder, Sets, sets_in
from payload.codec.lapped.many.side import pack_side, unpack_side
from payload.codec.lapped.power_law import LEAST_GAMMA, LINEAR, MOST_GAIN, compand, expand, expanded, stretch, table
from payload.codec.lapped.proof import latent_quantiser
from payload.codec.lapped.quantiser import Indices
from payload.codec.lapped.refined.cells import Refining
from payload.codec.lapped.residual.bounded import BASE_STEP, Bounded
from payload.codec.lapped.transform import BLOCK, COEFFICIENTS, Latents, dct, encode, first_level, planes
from payload.codec.rotation import FEW_BANDS, Rotation, circle, fit, held_circle, inverse_of, rotate, unrotate
from payload.engine import NATIVE, Engine, Network
from payload.errors import BundleError
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
#: Tables of all sets of bands but the first.
REST_TABLES_FILE = "flight/tables-rest.npz"
F32 = NDArray[np.float32]


class FsqCodec:
    """One bundle's codec; without an engine it decodes only."""

    code_kind = Kind.CODED
    follows_quality = True
    flight_network = ENCODER_FILE
    decodes_alone = True

    def __init__(self, bundle: Bundle, engine: Engine | None) -> None:
        self._bundle, self._tile_px, self._bands = bundle, bundle.tile_px, len(bundle.bands)
        coarsest_dn = quantiser.step_dn(quantiser.STEP_INDICES - 1)
        gain = int(bundle.parameter("gain", 1, 1, MOST_GAIN))
        self._law = bundle.parameter("compand", LINEAR, LEAST_GAMMA, LINEAR), gain
        self._distance_px = int(bundle.parameter("differences_px", DISTANCE_PX, 0, MOST_DISTANCE_PX))
        self._coarsest_dn = bundle.parameter("coarsest_step_dn", coarsest_dn, 1.0, coarsest_dn)
        if self._tile_px % TILE_MULTIPLE_PX:
            raise BundleError(
                f"bundle {bundle.name}: tiles of {self._tile_px} px, wanted a multiple of {TILE_MULTIPLE_PX}; "
                "restore the bundle or rebuild it"
            )
        self._averages_tell = bundle.switch("averages_tell", may_be=self._bands <= FEW_BANDS)
        self._sets, self._set_bands = sets = sets_in(bundle)
        model, kernels = tables.of_bundle(bundle, TABLES_FILE)
        self._entropy = self._coder(model)
        if self._sets > 1:
            rest, _ = tables.of_bundle(bundle, REST_TABLES_FILE)
            self._entropy = Sets(self._entropy, self._coder(rest), sets, len(model.layers))
        self._buffers = compiled.Buffers(self._bands, self._tile_px, sets) if library.available else None
        self._by_kernel = engine is not None and engine.name == NATIVE
        self._at_once = 1 if getattr(engine, "reshapes", False) and not self._by_kernel else None
        self._network = self._encoder(engine) if engine else None
        self._transform = compiled.transform_of(kernels, self._by_kernel, bundle.name) if engine else None
        self.layers, self._holds_kernels = len(model.layers), kernels is not None

    @property
    def ground_network(self) -> str | None:
        """None in a bundle that was adapted: its decoder undoes the transform."""
        return DECODER_FILE if DECODER_FILE in self._bundle.manifest["files"] else None

    def _encoder(self, engine: Engine) -> Network:
        """For one plane where the engine can."""
        one = (1, COEFFICIENTS, *(n + 1 for n in self._cells)) if self._at_once else None
        return engine.load(self._bundle.file(ENCODER_FILE), require_int8=True, shape=one)

    def _coder(self, model: tables.ContextTables) -> LayerCoder:
        cells = self._tile_px // BLOCK
        return EntropyKernel(model, cells, cells) if library.available else layers.Plain(model, cells)

    def held(self) -> Iterator[Held]:
        """Tables, weights and scales; nothing of what is written anew for every tile."""
        yield from self._entropy.held()
        if self._transform is not None:
            yield from self._transform.held()
        yield Held("power_law", "scales", table(*self._law))
        yield Held("second_level", "scales", dct())
        yield from held_circle()

    def runs_inside(self, tile: Tile) -> Iterator[RunsInside]:
        """The encoder where a runtime has it, with what `tile` puts into it at a time: of all its planes, or the low
        one of the first rotated band, which has every value there is."""
        if self._network is not None and not self._by_kernel:
            (given,) = self.network_inputs(tile)
            first = 0 if self._at_once is None else self._set_bands
            yield RunsInside("encoder", self._network, (given[first:][: self._at_once],))

    def smallest(self) -> tuple["FsqCodec", int] | None:
        """This codec for the smallest tiles there are, by the same memory, and their side; the kernel runs the encoder,
        also where a runtime does for other tiles. None where it cannot, or was not built."""
        if self._transform is None or not isinstance(self._entropy, EntropyKernel):
            return None
        other, side = copy(self), TILE_MULTIPLE_PX
        other._by_kernel = True
        other._tile_px, other._buffers = side, compiled.Buffers(self._bands, side)
        other._entropy = self._entropy.of_size(side // BLOCK, side // BLOCK)
        return other, side

    @staticmethod
    def forget() -> None:
        """Lets go of tables that are kept for the next codec: what opens after this makes them anew."""
        for kept in (table, dct, circle, zones, frequency_neighbours, squash):
            kept.cache_clear()

    def encode(self, tile: Tile, quality: Quality, watch: Stopwatch) -> CodedTile:
        require_tile(tile, self._bands, self._tile_px)
        if quality.max_error_dn is not None:
            coded = self.encode(tile, Quality(BASE_STEP / self._law[1], profile=quality.profile), watch)
            with watch.stage("residual"):
                return self._bounded.behind(coded, self.decode(coded.side, coded.layers), tile, quality.max_error_dn)
        with watch.stage("rotate"):
            values, rotation, rotated = self._rotate(tile, quality)
        with watch.stage("encode"):
            latents = self._latents(rotated)
        with watch.stage("quantise"):
            dn2_per_value = stretch(values, *self._law) if quality.with_errors or quality.psnr_db is not None else 1.0
            samples = self._bands * int(np.count_nonzero(tile.valid))
            index, unsent = self._step(latents, rotation, quality, (dn2_per_value, samples))
            keep = min(self.layers if quality.keep is None else quality.keep, self.layers - unsent)
            indices = self._quantise(latents, index, self.layers - keep)
            errors: tuple[float, ...] = ()
            if quality.with_errors:
                errors = _errors_dn2(latents, index, self.layers, rotation, dn2_per_value)
        with watch.stage("entropy"):
            layers = self._entropy.encode_layers(indices, keep, profile=quality.profile)
        return CodedTile(pack_side(rotation, index), layers, errors[: len(layers) + 1])

    def _rotate(self, tile: Tile, quality: Quality) -> tuple[NDArray[np.uint16], Rotation, NDArray[np.int16]]:
        """Companded bands, their rotation, rotated bands."""
        if self._buffers is None or not tile.valid.all() or self._sets > 1:
            values = compand(tile.dn, *self._law)
            solve, turn = (compiled.diagonalise, compiled.turned) if library.available else (None, None)
            allowed = quantiser.allowed_error(quality, self._law[1])
            rotation = fit(values, tile.valid, None, solve, turn, allowed, True, self._distance_px)
            return values, rotation, rotate(values, tile.valid, rotation).astype(np.int16)
        known = compiled.statistics(tile.dn, table(*self._law), self._buffers.values, self._distance_px)
        rotation = fit(self._buffers.values, tile.valid, known, compiled.diagonalise, compiled.turned)
        compiled.rotate(self._buffers.values, rotation, self._buffers.rotated)
        return self._buffers.values, rotation, self._buffers.rotated

    def _latents(self, rotated: NDArray[np.int16]) -> Latents:
        """Of every set of bands."""
        if self._sets == 1:
            return self._latents_of(rotated)
        n, found = self._set_bands, np.empty((self._sets * self._set_bands, COEFFICIENTS, *self._cells), np.int32)
        for first in range(0, len(found), n):
            part = rotated[first : first + n]
            whole = np.concatenate([part, np.zeros((n - len(part), *part.shape[1:]), np.int16)])
            found[first : first + n] = self._latents_of(whole).values
        return Latents(found)

    def _latents_of(self, rotated: NDArray[np.int16]) -> Latents:
        if self._network is None:
            raise BundleError("this codec was opened for decoding only; give it an engine to encode")
        if self._by_kernel and self._transform is not None and self._buffers is not None:
            sums = self._transform.run(rotated, self._buffers)
            if self._averages_tell:
                transform.take_slopes(sums)
            return compiled.with_second_level(sums)
        return encode(rotated, self._network, self._at_once, self._averages_tell)

    @property
    def _cells(self) -> tuple[int, int]:
        return self._tile_px // BLOCK, self._tile_px // BLOCK

    def _quantise(self, latents: Latents, index: int, unsent: int) -> Indices:
        if self._buffers is None:
            return quantiser.quantise(latents, index, unsent)
        return compiled.quantise(latents, index, self._buffers, unsent)

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
                index, unsent = quantiser.within(middle - quantiser.STEPS_PER_OCTAVE * rotation.shift, coarsest)
                left = _errors_dn2(latents, index, self.layers, rotation, dn2_per_value)[self.layers - unsent]
                low, high = (middle, high) if left <= allowed else (low, middle)
            return quantiser.within(max(low, 0) - quantiser.STEPS_PER_OCTAVE * rotation.shift, coarsest)
        step = quality.step_dn * self._law[1]
        unsent = min(max(math.ceil(math.log2(step / self._coarsest_dn)), 0), self.layers - 1)
        return quantiser.step_index(step * 2.0 ** -(rotation.shift + unsent)), unsent

    def decode(self, side: bytes, layers: tuple[bytes, ...]) -> tuple[tuple[Rotation, int], Indices]:
        return unpack_side(side, self._bands), self._entropy.decode_layers(layers)

    def reconstruct_bounded(self, side: bytes, layers: tuple[bytes, ...], valid: Mask, bound: Bound) -> Dn:
        return self._bounded.tile(self.decode(side, layers[:-1]), layers[-1], valid, bound)

    @cached_property
    def _bounded(self) -> Bounded:
        return Bounded(self._kernels, *self._law, self._averages_tell)

    def reconstruct(self, indices: tuple[tuple[Rotation, int], Indices], network: Network | None) -> Dn:
        """indices -> the transform undone, in steps -> decoder network -> rotated bands -> DN.

        Without a network: the transform undone, and nothing more."""
        (rotation, index), found = indices
        step_dn = quantiser.step_dn(index) * 2.0**found.missing  # in rotated DN
        if network is None:
            return self._untransformed(found, None, rotation, step_dn)
        return self._turned_back(self._better(found, step_dn, network), rotation, step_dn)

    def _better(self, found: Indices, step_dn: float, network: Network) -> NDArray[np.float32]:
        """Rotated bands [B, T, T] in steps, as the network has them; without kernels it undoes the transform itself."""
        depth = np.full((1, 1, 1, 1), found.missing / max(1, self.layers - 1), np.float32)
        plain = (self._plain(found, step_dn)[None],) if self._holds_kernels else ()
        (better,) = network.run(*plain, self._levels(found)[None], depth)
        return np.asarray(better[0], np.float32)

    def _plain(self, found: Indices, step_dn: float, levels: F32 | None = None) -> F32:
        """Rotated bands [B, T, T] in steps, the transform undone, of levels [B * 64, h, h] or of the indices' own;
        written over by the next call."""
        wide = synthesis.wide_functions(step_dn)
        if self._sets > 1:
            return np.concatenate([self._synthesised(part, wide).copy() for part in self._parts(found)])[: self._bands]
        if levels is None and not self._averages_tell:
            return self._synthesised(found, wide)
        levels, kernel = self._levels(found) if levels is None else levels, self._synthesis
        return kernel.of_levels(levels, wide) if kernel else synthesis.synthesise(levels, *self._functions, wide)

    def refining(self, network: Network | None) -> Refining | None:
        """What the ground may change of a tile; None where indices are not of coefficients alone, or of sets."""
        if self._sets > 1 or self._averages_tell:
            return None
        gained = None if network is None else partial(self._gained, network)
        return Refining(self._kernels, self._law, self._levels, gained, self._untransformed)

    def _gained(self, network: Network, found: Indices, step_dn: float) -> NDArray[np.float32]:
        """What the network adds to rotated bands [B, T, T], in steps."""
        return self._better(found, step_dn, network) - self._plain(found, step_dn)

    def _turned_back(self, rotated: NDArray[np.float32], rotation: Rotation, step_dn: float) -> Dn:
        """DN of rotated bands [B, T, T] in steps."""
        if self._holds_kernels and self._synthesis is not None and self._sets == 1:
            inverse, means = inverse_of(rotation)
            return self._synthesis.turned_back(rotated, (inverse * np.float32(step_dn), means))
        return to_dn(expand(unrotate(rotated * np.float32(step_dn), rotation), *self._law))

    def _untransformed(self, found: Indices, levels: F32 | None, rotation: Rotation, step_dn: float) -> Dn:
        """DN of levels [B * 64, h, h], or of the indices' own."""
        return self._turned_back(self._plain(found, step_dn, levels), rotation, step_dn)

    def _parts(self, found: Indices) -> Iterator[Indices]:
        """The indices of each set of bands."""
        channels = self._set_bands * COEFFICIENTS
        for at in (slice(first, first + channels) for first in range(0, len(found.magnitude), channels)):
            behind = None if found.behind is None else found.behind[at]
            yield Indices(found.magnitude[at], found.negative[at], found.missing, behind)

    def _levels(self, found: Indices) -> NDArray[np.float32]:
        levels = _dequantised(found)
        if self._averages_tell:
            transform.add_slopes(levels.reshape(-1, COEFFICIENTS, *levels.shape[1:]))
        return levels

    def _synthesised(self, found: Indices, wide: NDArray[np.bool_]) -> NDArray[np.float32]:
        """Rotated bands of a set, in steps."""
        if self._synthesis is not None:
            return self._synthesis.rotated(found, _averages(found), wide)
        return synthesis.synthesise(self._levels(found), *self._functions, wide)

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
        return compiled.Synthesis(*self._functions, expanded(*self._law), self._set_bands, self._tile_px)

    def features(self, indices: tuple[tuple[Rotation, int], Indices]) -> tuple[FeatureLevel, ...]:
        """Coefficients of the bands, dequantised, in companded DN, and their activity."""
        (rotation, index), found = indices
        levels = self._levels(found)[: self._bands * COEFFICIENTS]
        levels = levels * np.float32(quantiser.step_dn(index) * 2.0**found.missing)
        inverse, means = inverse_of(rotation)
        turned = (inverse @ levels.reshape(self._bands, -1)).reshape(self._bands, COEFFICIENTS, *levels.shape[1:])
        turned[:, 0] = turned[:, 0] / np.float32(self._kernels.gain_of_first) + means[:, None, None]
        return of_blocks(turned, self._bundle.bands)

    def step_of(self, side: bytes, layers: int) -> float:
        rotation, index = unpack_side(side, self._bands)
        return float(quantiser.step_dn(index) * 2.0 ** (rotation.shift + self.layers - layers)) / self._law[1]

    def finest(self, indices: tuple[tuple[Rotation, int], Indices]) -> NDArray[np.int32]:
        _, found = indices
        return np.where(found.negative, -found.magnitude.astype(np.int32), found.magnitude)

    def network_inputs(self, tile: Tile) -> tuple[NDArray[np.float32]]:
        values = compand(tile.dn, *self._law)
        rotated = rotate(values, tile.valid, fit(values, tile.valid, distance_px=self._distance_px))
        return (planes(rotated[: self._set_bands]),)

    def latent_quantiser(self, step_dn: float) -> LatentQuantiser:
        return latent_quantiser(self._set_bands, self._tile_px, step_dn)

    def shorten(self, layers: tuple[bytes, ...], octets: int) -> tuple[bytes, ...]:
        before = sum(len(layer) for layer in layers[:-1])
        if not layers or before + len(layers[-1]) <= octets:
            return layers
        found = self._entropy.decode_layers(layers)
        profile = self._entropy.profile_of(layers)
        finest = Indices((found.magnitude << found.missing).astype(np.uint16), found.negative)
        low, high = 0, len(found.magnitude)  # channels of the last layer; `low` fits
        best: tuple[bytes, ...] = layers
        while high - low > 1:
            middle = (low + high) // 2
            trial = self._entropy.encode_layers(finest, len(layers), middle, profile)
            if sum(map(len, trial)) <= octets:
                low, best = middle, trial
            else:
                high = middle
        return best


def _dequantised(indices: Indices) -> NDArray[np.float32]:
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


def _errors_dn2(
    latents: Latents, index: int, layers: int, rotation: Rotation, dn2_per_value: float
) -> tuple[float, ...]:
    """Squared error left after 0, 1, ..., `layers` layers, summed over the tile, in DN^2."""
    measure = compiled.errors if library.available else quantiser.errors
    unit = dn2_per_value * 4.0 ** (rotation.shift - quantiser.ERROR_BITS)
    return tuple(unit * left for left in measure(latents, index, layers))
