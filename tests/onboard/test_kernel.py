"""The compiled kernel against the numpy definition, with and without its vector loops: one law, three ways."""

import contextlib
import ctypes
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from payload.bundle import load_bundle
from payload.codec import band_statistics, rotation
from payload.codec.lapped import compiled, compiled_layers, layers, quantiser
from payload.codec.lapped.compiled_layers import MOST_OCTETS, EntropyKernel
from payload.codec.lapped.context_model import least_significant
from payload.codec.lapped.power_law import table
from payload.codec.lapped.quantiser import Indices
from payload.codec.lapped.range_coder import ONE, Table
from payload.codec.lapped.tables import load_kernels, load_tables
from payload.codec.lapped.transform import Latents, encode, with_second_level
from payload.engine import open_engine
from payload.errors import BundleError, InputError, StreamError
from payload.native import library

pytestmark = pytest.mark.skipif(not library.available, reason="the kernel was not built: no C compiler at install")

SIDE = 64


@pytest.fixture(params=["vectors", "plain"])
def loops(request):
    """Both sets of the kernel's loops."""
    library.plain_only(request.param == "plain")
    yield request.param
    library.plain_only(False)


both_loops = pytest.mark.parametrize("plain", [False, True])


@pytest.fixture(scope="module")
def tables(make_tables, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tables")
    return [load_tables(make_tables(folder / f"{seed}.npz", 4, 3, seed)) for seed in range(3)]


def random_indices(seed: int, h: int, w: int, density: float) -> Indices:
    rng = np.random.default_rng(seed)
    falling = np.linspace(2 * density, 0, 256)[:, None, None]
    size = 1 + np.minimum(rng.exponential(4, (256, h, w)), 60_000).astype(np.uint16)
    magnitude = np.where(rng.random((256, h, w)) < falling, size, 0).astype(np.uint16)
    if density and seed % 2:
        magnitude.ravel()[rng.integers(magnitude.size, size=3)] = 65535
    sizes = rng.integers(0, 256, magnitude.shape).astype(np.uint8) if seed % 3 else None
    return Indices(magnitude, rng.random(magnitude.shape) < 0.5, size128=sizes)


shapes = st.sampled_from([(8, 8), (8, 16), (16, 8), (32, 32), (24, 40)])


@both_loops
@settings(max_examples=12, deadline=None)
@given(st.integers(0, 2**32), shapes, st.sampled_from([0.0, 0.004, 0.1, 0.6]), st.integers(1, 3), st.data())
def test_layers_are_those_of_the_definition(tables, plain, seed, shape, density, keep, data) -> None:
    chosen, sent = tables[seed % 3], random_indices(seed, *shape, density)
    active = data.draw(st.none() | st.integers(0, 256))
    library.plain_only(plain)
    coder = EntropyKernel(chosen, *shape)
    coded = coder.encode_layers(sent, keep, active)
    assert coded == layers.encode_layers(sent, chosen, keep=keep, last_active=active)
    found, wanted = coder.decode_layers(coded), layers.decode_layers(coded, (256, *shape), chosen)
    library.plain_only(False)
    assert np.array_equal(found.magnitude, wanted.magnitude) and np.array_equal(found.negative, wanted.negative)
    assert np.array_equal(found.behind, wanted.behind) and found.missing == wanted.missing


def test_layers_are_the_same_without_pext_and_in_channels_of_many_chunks(tables) -> None:
    """Coefficients are counted in octets where that many fit, and bits dealt out one by one where pdep is slow."""
    for shape in ((32, 32), (264, 8)):
        sent, coder = random_indices(2, *shape, 0.1), EntropyKernel(tables[1], *shape)
        coded = coder.encode_layers(sent)
        library.older_loops(True)
        again, found = coder.encode_layers(sent), coder.decode_layers(coded)
        library.older_loops(False)
        wanted = layers.decode_layers(coded, (256, *shape), tables[1])
        for indices in (found, coder.decode_layers(coded)):
            assert np.array_equal(indices.magnitude, wanted.magnitude)
            assert np.array_equal(indices.negative, wanted.negative)
        assert again == coded


def test_what_was_encoded_is_not_changed_by_it(tables) -> None:
    sent = random_indices(4, 16, 16, 0.3)
    before = sent.magnitude.copy()
    EntropyKernel(tables[0], 16, 16).encode_layers(sent)
    assert sent.size128 is not None and np.array_equal(sent.magnitude, before)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.integers(0, 2), st.data())
def test_damaged_octets_never_raise_anything_but_stream_error(tables, seed, at, data) -> None:
    coder = EntropyKernel(tables[0], 8, 8)
    coded = list(coder.encode_layers(random_indices(seed, 8, 8, 0.2)))
    octets = bytearray(coded[at])
    how = data.draw(st.sampled_from(["cut", "flip", "noise", "ones"]))
    if how == "cut":
        octets = octets[: data.draw(st.integers(0, len(octets)))]
    elif how == "flip":
        octets[data.draw(st.integers(0, len(octets) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    else:
        octets[4:] = data.draw(st.randoms()).randbytes(len(octets)) if how == "noise" else b"\xff" * len(octets)
    coded[at] = bytes(octets)
    try:
        found = coder.decode_layers(tuple(coded))
    except StreamError:
        with pytest.raises(StreamError):
            layers.decode_layers(tuple(coded), (256, 8, 8), tables[0])
        return
    wanted = layers.decode_layers(tuple(coded), (256, 8, 8), tables[0])
    assert np.array_equal(found.magnitude, wanted.magnitude) and np.array_equal(found.negative, wanted.negative)


@pytest.mark.parametrize("limit", [0, 1, 200, 8191, 32767, 40_000, 65535])
def test_statistics_are_exact(loops, limit) -> None:
    dn = np.random.default_rng(limit).integers(0, limit, (4, SIDE, SIDE), np.uint16, endpoint=True)
    values = np.empty_like(dn)
    found = compiled.statistics(dn, table(0.8), values)
    wanted = band_statistics.statistics(table(0.8)[dn], np.ones((SIDE, SIDE), bool))
    assert np.array_equal(values, table(0.8)[dn]) and np.array_equal(found.products, wanted.products)
    assert (found.count, found.sums, found.least, found.most) == (wanted.count, wanted.sums, wanted.least, wanted.most)


@pytest.mark.parametrize(("limit", "distance_px"), [(1, 1), (200, 2), (65535, 2), (65535, SIDE - 1)])
def test_products_of_differences_are_exact(loops, limit, distance_px) -> None:
    dn = np.random.default_rng(limit).integers(0, limit, (12, SIDE, SIDE), np.uint16, endpoint=True)
    found = compiled.statistics(dn, np.arange(65536, dtype=np.uint16), np.empty_like(dn), distance_px)
    wanted = band_statistics.statistics(dn, np.ones((SIDE, SIDE), bool), distance_px)
    assert np.array_equal(found.differences, wanted.differences) and found.products is None
    assert (found.sums, found.least, found.most) == (wanted.sums, wanted.least, wanted.most)


def test_where_nothing_differs_values_are_what_is_left(loops) -> None:
    dn = np.full((2, SIDE, SIDE), 7, np.uint16)
    found = compiled.statistics(dn, np.arange(65536, dtype=np.uint16), np.empty_like(dn), 2)
    assert found.differences is None and np.array_equal(found.products, np.full((2, 2), 49 * SIDE * SIDE))


@pytest.mark.parametrize("limit", [1, 500, 10_000, 65535])
def test_rotated_bands_are_those_of_the_definition(loops, limit) -> None:
    everywhere = np.ones((SIDE, SIDE), bool)
    dn = np.random.default_rng(limit).integers(0, limit, (4, SIDE, SIDE), np.uint16, endpoint=True)
    dn[:, :8] = limit  # a corner that reaches far
    turned = rotation.fit(dn, everywhere)
    rotated = np.empty(dn.shape, np.int16)
    compiled.rotate(dn, turned, rotated)
    assert np.array_equal(rotated, rotation.rotate(dn, everywhere, turned))


@pytest.mark.parametrize("bands", [1, 3, 4, 5, 13, 16])
@pytest.mark.parametrize("ground", [0, 30_000, 65_535])
def test_rotated_bands_that_pass_32_bits_are_those_of_the_definition(loops, bands, ground) -> None:
    """One pixel at the other end of the range in every band: the sums reach as far as they can."""
    everywhere = np.ones((SIDE, SIDE), bool)
    dn = np.full((bands, SIDE, SIDE), ground, np.uint16)
    dn[:, 5, 7] = 0 if ground == 65_535 else 65_535
    turned = rotation.fit(dn, everywhere)
    rotated = np.empty(dn.shape, np.int16)
    compiled.rotate(dn, turned, rotated)
    assert np.array_equal(rotated, rotation.rotate(dn, everywhere, turned))


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32), st.integers(2, 16), st.floats(0, 12))
def test_vectors_are_those_of_the_definition_to_the_last_bit(seed, bands, exponent) -> None:
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(bands, bands + 2)) * 10.0 ** rng.uniform(0, exponent, (bands, 1))
    covariance = np.rint(rows @ rows.T)
    covariance[rng.integers(bands), :] = 0  # bands of one value only
    covariance = np.triu(covariance) + np.triu(covariance, 1).T
    found, wanted = [(covariance.copy(), np.eye(bands)) for _ in range(2)]
    far = rng.integers(0, 65536, bands).tolist()
    assert compiled.turned(covariance, far) == rotation.turned(covariance, far)
    compiled.diagonalise(*found)
    rotation.diagonalise(*wanted)
    assert all(np.array_equal(f, w) for f, w in zip(found, wanted, strict=True))


@pytest.mark.parametrize("limit", [0, 1, 3000, 8191, 8192, rotation.PLANE_LIMIT])
def test_the_transform_is_the_network(loops, limit) -> None:
    """What flies as ONNX and what runs folded in C: the same integers, folded once or in two parts."""
    bundle = load_bundle()
    kernels = load_kernels(bundle.file("flight/tables.npz"))
    assert kernels is not None
    side = bundle.tile_px
    rng = np.random.default_rng(limit)
    rotated = rng.integers(-limit, limit, (4, side, side), endpoint=True).astype(np.int16)
    rotated[1:, : side // 2] //= 8  # bright below, so that some rows of blocks are folded once and some in two parts
    sums = compiled.Transform(kernels).run(rotated, compiled.Buffers(4, side))
    network = open_engine("openvino").load(bundle.file("flight/encoder.onnx"), require_int8=True)
    wanted = encode(rotated, network).values
    assert np.array_equal(with_second_level(sums.copy()).values, wanted)
    assert np.array_equal(compiled.with_second_level(sums.copy()).values, wanted)


@pytest.mark.parametrize("index", [0, 1, 7, 40, 58, 90, 126, 127])
def test_magnitudes_are_exact_at_every_edge(loops, index) -> None:
    """Every integer around the first levels' edges, random latents, and the largest there are."""
    step = quantiser.step_units(index)
    edges = -(-(5 * np.arange(1, 257) - 1) * step // 5)
    near = (edges[:, None] + np.array([-1, 0, 1])).ravel()
    rng = np.random.default_rng(index)
    values = np.resize(np.concatenate([near, rng.integers(0, 2**26, 4000), [2**26, 2**29, 2**31 - 1]]), 4 * 64 * 64)
    values = (values * np.where(rng.random(values.size) < 0.5, -1, 1)).astype(np.int32).reshape(4, 64, 8, 8)
    found = compiled.quantise(Latents(values), index, compiled.Buffers(4, 64))
    wanted = quantiser.quantise(Latents(values), index)
    assert np.array_equal(found.magnitude, wanted.magnitude) and np.array_equal(found.negative, wanted.negative)
    assert np.array_equal(found.size128, wanted.size128)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([10.0, 4e3, 1e6, 1e8]), st.integers(0, 100), st.integers(1, 5))
def test_errors_are_those_of_the_definition(seed, spread, index, layers) -> None:
    values = np.random.default_rng(seed).laplace(0, spread, (2, 64, 8, 8))
    latents = Latents(np.clip(values, -(2**29), 2**29).astype(np.int32))
    assert compiled.errors(latents, index, layers) == quantiser.errors(latents, index, layers)


def entries(short: int) -> dict[str, tuple]:
    """Every entry of the kernel with arguments that fit; the array at place `short` is one element too short."""
    bands, side, cells, layer_count, place = 2, SIDE, SIDE // 8, 3, iter(range(100))

    def array(dtype: str, count: int) -> library.Span:
        found = np.zeros(count - (next(place) == short), dtype)
        return library.span(found, found.dtype)

    def of(*makers) -> tuple:
        nonlocal place
        place = iter(range(100))
        return tuple(make() if callable(make) else make for make in makers)

    def a(dtype: str, count: int):
        return lambda: array(dtype, count)

    n, step, whole = side * side, ctypes.c_uint32(256), bands * side * side
    return {
        "compand": of(a("u2", whole), a("u2", 65536), bands, n, a("u2", whole), a("u8", bands), a("u2", bands),
                      a("u2", bands)),
        "products": of(a("u2", whole), bands, n, a("u8", bands), a("u2", bands), a("u2", bands), a("u8", bands**2)),
        "difference_products": of(a("u2", whole), bands, side, 2, 4, 32767, a("i8", bands**2)),
        "jacobi": of(a("f8", 9), a("f8", 9), 3, 12),
        "fit": of(a("f8", 9), 3, 12, a("f8", 4096), a("f8", 4096), a("i4", 3), a("i4", 3), a("i8", 1)),
        "rotate": of(a("u2", whole), a("i4", 1), a("f8", 4096), a("f8", 4096), a("i4", bands), bands, n, 1, 32639,
                     a("i2", whole)),
        "transform": of(a("i2", whole), a("i2", 64 * 64), a("i4", 64), a("i4", 64), bands, side,
                        a("i2", 16 * (side + 8)), a("i4", whole)),
        "second_level": of(a("i4", whole), a("i8", 64), bands, cells, cells, 12),
        "quantise": of(a("i4", n), n, step, 0, a("u2", n), a("?", n), a("u1", n)),
        "errors": of(a("i4", n), n, step, layer_count, a("i4", layer_count), a("u8", layer_count + 1)),
        "cloud_planes": of(a("u2", bands * 16 * n), bands, side, 4, 1, 20, 980, 24, a("u1", (2 * bands + 4) * n)),
        "cloud_counts": of(a("i1", 4 * n), a("f4", 256), n, ctypes.c_float(0.5), ctypes.c_float(0.7), a("i4", 3),
                           a("u1", n)),
        "flatten": of(a("i1", 4 * n), a("f4", 256), 1, side, side, ctypes.c_float(0.5), 1, a("u2", 12 * n), 2,
                      a("u2", 4 * bands * n), bands, a("u1", 2 * n), a("u2", 4 * n), a("f4", side * side),
                      a("u2", 4 * bands * n)),
    }  # fmt: skip


@pytest.mark.parametrize("entry", sorted(entries(-1)))
def test_an_array_one_element_too_short_is_refused_by_every_entry(entry) -> None:
    library.call(entry, *entries(-1)[entry])
    arrays = sum(isinstance(argument, library.Span) for argument in entries(-1)[entry])
    for short in range(arrays):
        with pytest.raises(InputError, match="a buffer is too small for the kernel"):
            library.call(entry, *entries(short)[entry])


@pytest.mark.parametrize("entry", sorted(entries(-1)))
@pytest.mark.parametrize("number", [-(2**31), -1, 2**31 - 1, 1 << 24])
def test_a_number_out_of_range_is_refused_by_every_entry(entry, number) -> None:
    arguments = entries(-1)[entry]
    for place in [i for i, argument in enumerate(arguments) if isinstance(argument, int)]:
        with pytest.raises(InputError, match="for the kernel"):
            library.call(entry, *arguments[:place], number, *arguments[place + 1 :])


def arguments_of(coder: EntropyKernel, entry: str) -> list:
    """What `encode` and `heads` are called with for all layers of a tile."""
    sent, layers, handed = random_indices(1, coder.h, coder.w, 0.2), len(coder.tables.layers), []
    coder_call = compiled_layers.call
    compiled_layers.call = lambda name, *arguments: handed.append((name, arguments)) or coder_call(name, *arguments)
    try:
        coder.encode_layers(sent, profile="fast" if entry == "encode" else "dense")
    finally:
        compiled_layers.call = coder_call
    assert layers == 3
    return next(list(arguments) for name, arguments in handed if name == entry)


@pytest.mark.parametrize("entry", ["encode", "heads"])
def test_layers_are_not_coded_from_or_into_less_than_they_take(tables, entry) -> None:
    coder = EntropyKernel(tables[0], 8, 8)
    arguments = arguments_of(coder, entry)
    spans = [i for i, a in enumerate(arguments) if isinstance(a, library.Span)]
    least = {"encode": 7, "heads": 4}[entry]  # as long as there are activities: one at least
    assert len(spans) == {"encode": 8, "heads": 5}[entry] and least in spans
    for place in spans:
        shorter = library.Span(arguments[place].at, 3 if place == least else arguments[place].octets - 1)
        with pytest.raises(InputError, match="a buffer is too small for the kernel"):
            library.call(entry, *arguments[:place], shorter, *arguments[place + 1 :])


@pytest.mark.parametrize("entry", ["encode", "heads"])
@pytest.mark.parametrize("number", [-(2**31), -1, 2**31 - 1, 1 << 24])
def test_layers_are_not_coded_by_numbers_out_of_range(tables, entry, number) -> None:
    coder = EntropyKernel(tables[0], 8, 8)
    arguments = arguments_of(coder, entry)
    numbers = [i for i, a in enumerate(arguments) if isinstance(a, int)]
    assert len(numbers) == {"encode": 5, "heads": 2}[entry]
    for place in numbers:
        with pytest.raises(InputError, match="for the kernel"):
            library.call(entry, *arguments[:place], number, *arguments[place + 1 :])


@pytest.mark.parametrize("shape", [(8, 8), (32, 32)])
def test_heads_are_those_of_the_definition(tables, shape) -> None:
    """Every activity begins where numpy's does, and channels end where nothing more is significant."""
    coder, blocks = EntropyKernel(tables[0], *shape), shape[0] * shape[1]
    least = least_significant(blocks)
    for inner in np.unique(np.clip(np.concatenate([least - 1, least, least + 1]), 0, 63 * blocks)):
        magnitude = np.zeros((256, blocks), np.uint16)
        magnitude[1:64].ravel()[:inner] = 4
        magnitude = magnitude.reshape(256, *shape)
        hits = np.count_nonzero(magnitude >> np.array([2, 1, 0])[:, None, None, None], axis=(2, 3))
        assert coder._heads(magnitude, 3) == layers.heads(hits, blocks, coder.tables, [256] * 3), inner


def test_indices_of_another_size_are_refused(tables) -> None:
    coder = EntropyKernel(tables[0], 16, 16)
    with pytest.raises(InputError, match=r"indices of \[256, 8, 8\], wanted \[256, 16, 16\]"):
        coder.encode_layers(random_indices(1, 8, 8, 0.2))


@pytest.mark.parametrize("held", range(20))
def test_tables_that_change_in_memory_never_lead_outside(tables, held) -> None:
    """An upset in an array that says where others are: it is noticed, or some other class is taken."""
    coder = EntropyKernel(tables[0], 8, 8)
    sent = random_indices(2, 8, 8, 0.3)
    sent = Indices(sent.magnitude & 0x3FFF, sent.negative)
    layers_before = coder.encode_layers(sent)
    octets = coder._held[held].memory.reshape(-1).view(np.uint8)
    octets[:] ^= 0x80
    with contextlib.suppress(BundleError, StreamError):
        coder.encode_layers(sent)
        coder.decode_layers(layers_before)


def test_the_most_that_a_coefficient_can_take_fits(tables) -> None:
    """Every symbol the rarest there is: 24 bits for the token, 24 for the escape, 16 raw, 1 sign."""
    rare = tuple(Table(np.array([1, ONE - 1])) for _ in range(32))
    escapes = tuple(Table(np.array([ONE - 15, *[1] * 15])) for _ in range(8))
    chosen = replace(tables[0], layers=tuple(replace(t, runs=rare, size=escapes) for t in tables[0].layers[:1]))
    shape = (256, 16, 16)
    sent = Indices(np.full(shape, 65535, np.uint16), np.ones(shape, bool))
    coder = EntropyKernel(chosen, 16, 16)
    (octets,) = coder._encode(sent, 1, 256)
    assert 8.1 < len(octets) / sent.magnitude.size < MOST_OCTETS


@both_loops
@pytest.mark.parametrize("hit", [0, 1])
def test_first_guesses_that_are_wrong_lead_to_the_same_indices(tables, plain, hit) -> None:
    coder, sent = EntropyKernel(tables[0], 32, 32), random_indices(3, 32, 32, 0.1)
    coded = coder.encode_layers(sent)
    wanted = coder.decode_layers(coded)
    for held in coder.held():
        if held.name.endswith(".guess"):
            held.memory[:] = hit
    library.plain_only(plain)
    found = coder.decode_layers(coded)
    library.plain_only(False)
    assert np.array_equal(found.magnitude, wanted.magnitude) and np.array_equal(found.negative, wanted.negative)


def test_a_first_guess_beyond_the_longest_run_is_refused(tables) -> None:
    coder = EntropyKernel(tables[0], 32, 32)
    coded = coder.encode_layers(random_indices(3, 32, 32, 0.1))
    (guess,) = (held.memory for held in coder.held() if held.name == "kernel.layer0.guess")
    guess[0, 0] = 255
    with pytest.raises(BundleError, match="tables in memory"):
        coder.decode_layers(coded)


def test_it_can_be_left_out() -> None:
    """NADIR_KERNEL=0: the same payload in numpy."""
    command = [sys.executable, "-c", "from payload.native import library; print(library.available)"]
    done = subprocess.run(command, env=os.environ | {"NADIR_KERNEL": "0"}, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
