"""The flight codec for any number of bands: numpy and kernel, truncation, what a decoder refuses, what it costs."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from payload.bundle import Bundle, load_bundle
from payload.codec.interface import Quality
from payload.codec.lapped.codec import FsqCodec
from payload.codec.lapped.many.sets import Sets, set_bands, sets_of
from payload.codec.lapped.quantiser import Indices
from payload.codec.leading import leading
from payload.codec.rotation import (
    MANY_PX,
    SIDE_PER_SAMPLE,
    diagonalise,
    fit,
    pack_rotation,
    rotate,
    rotation_octets,
    unpack_rotation,
    unrotate,
)
from payload.engine import open_engine
from payload.errors import BundleError, StreamError
from payload.native import library
from payload.stopwatch import Stopwatch
from payload.tiles import Tile

SIDE = 64
BANDS = (1, 2, 4, 8, 12, 13, 16, 17, 40)
everywhere = np.ones((SIDE, SIDE), bool)


def spectra(bands: int, seed: int = 0, most: int = 9000, side: int = SIDE) -> np.ndarray:
    """Bands mixed from five pictures by smooth curves, and a little noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side]
    pictures = [np.sin(x / 9 + k) * np.cos(y / (5 + k)) for k in range(5)]
    curves = np.cos(np.linspace(0, 3, bands)[:, None] * np.arange(5)[None]) / (1 + np.arange(5))
    mixed = 0.5 + 0.2 * np.einsum("bk,kyx->byx", curves, pictures) + rng.normal(0, 0.002, (bands, side, side))
    return np.clip(mixed * most, 0, most).astype(np.uint16)


@pytest.fixture(scope="module")
def bundle_of(make_tables, tmp_path_factory):
    """A toy bundle of so many bands; `codec` adds to the manifest's table."""
    from toys import write_bundle

    def make(bands: int, **codec):
        folder = tmp_path_factory.mktemp(f"bands{bands}")
        names = ["flight/tables.npz", "flight/tables-rest.npz"][: min(2, sets_of(bands))]
        each = codec.get("set_bands", set_bands(bands))
        files = {n: make_tables(folder / f"{k}.npz", each, 3, k).read_bytes() for k, n in enumerate(names)}
        manifest = {"bands": [f"C{k:03}" for k in range(bands)], "codec": {"kind": "fsq", "layers": 3} | codec}
        return load_bundle(write_bundle(folder / "bundle", files | {"flight/encoder.onnx": b"toy"}, **manifest))

    return make


@pytest.fixture(params=["kernel", "numpy"])
def built(request, monkeypatch):
    if request.param == "kernel" and not library.available:
        pytest.skip("the kernel was not built: no C compiler at install")
    monkeypatch.setattr(library, "available", request.param == "kernel")
    return request.param


@pytest.mark.parametrize("distance_px", (0, 2))
@pytest.mark.parametrize("bands", BANDS)
def test_any_number_of_bands_goes_there_and_back_and_codes_the_same_without_the_kernel(
    bundle_of, toy_engine, monkeypatch, bands, distance_px
):
    bundle, coded = bundle_of(bands, differences_px=distance_px), []
    tile = Tile(0, 0, spectra(bands), everywhere)
    for available in (True, False):
        monkeypatch.setattr(library, "available", available and library.available)
        coded.append(FsqCodec(bundle, toy_engine).encode(tile, Quality(4.0, with_errors=True), Stopwatch()))
    assert (coded[0].side, coded[0].layers, coded[0].errors) == (coded[1].side, coded[1].layers, coded[1].errors)
    codec = FsqCodec(bundle, toy_engine)
    (rotation, _), found = codec.decode(coded[0].side, coded[0].layers)
    assert len(rotation.means) == bands and len(found.magnitude) == sets_of(bands) * set_bands(bands) * 64
    assert codec.ground_network is None


def test_tables_of_other_bands_code_these_in_sets_of_their_own_size(bundle_of, toy_engine, monkeypatch) -> None:
    """20 bands are two sets of ten; by tables of sixteen, a set of sixteen and one of four that is filled up."""
    tile, coded = Tile(0, 0, spectra(20), everywhere), []
    for available in (True, False):
        monkeypatch.setattr(library, "available", available and library.available)
        codec = FsqCodec(bundle_of(20, set_bands=16), toy_engine)
        coded.append(codec.encode(tile, Quality(4.0), Stopwatch()))
    assert coded[0].layers == coded[1].layers
    (rotation, _), found = codec.decode(coded[0].side, coded[0].layers)
    assert len(rotation.means) == 20 and len(found.magnitude) == 32 * 64
    assert not found.magnitude[20 * 64 :].any() and found.magnitude[16 * 64 : 20 * 64].any()


@pytest.mark.parametrize("said", (9, 17, "16"))
def test_sets_that_do_not_hold_the_bands_are_refused(bundle_of, said) -> None:
    bundle = bundle_of(20)
    bundle.manifest["codec"]["set_bands"] = said
    with pytest.raises(BundleError, match="set_bands is"):
        FsqCodec(bundle, None)


def test_a_bundle_that_does_not_say_decorrelates_differences_over_four_pixels(bundle_of, toy_engine) -> None:
    tile = Tile(0, 0, spectra(4), everywhere)
    default, four, values = (
        FsqCodec(bundle_of(4, **said), toy_engine).encode(tile, Quality(4.0), Stopwatch()).side
        for said in ({}, {"differences_px": 4}, {"differences_px": 0})
    )
    assert default == four != values


@pytest.mark.parametrize(("bands", "law"), [(1, {}), (13, {"compand": 0.8}), (17, {"gain": 4})])
def test_what_is_decoded_is_the_tile_but_for_the_quantiser(bundle_of, built, bands, law):
    """The shipped transform: its inverse is what the decoder undoes it with."""
    bundle = with_shipped_kernels(bundle_of(bands, **law))
    write_encoder(load_bundle("edge").file("flight/encoder.onnx"), bundle.directory / "flight/encoder.onnx", bands)
    codec = FsqCodec(bundle, open_engine("onnxruntime", 1))
    dn = spectra(bands)
    coded = codec.encode(Tile(0, 0, dn, everywhere), Quality(4.0), Stopwatch())
    back = codec.reconstruct(codec.decode(coded.side, coded.layers), None)
    assert np.sqrt(((back.astype(float) - dn) ** 2).mean()) < 4
    half = codec.reconstruct(codec.decode(coded.side, coded.layers[:2]), None)
    assert 1 < np.sqrt(((half.astype(float) - dn) ** 2).mean()) < 16


def with_shipped_kernels(bundle: Bundle) -> Bundle:
    kernels, path = np.load(load_bundle("edge").file("flight/tables.npz")), bundle.directory / "flight/tables.npz"
    np.savez(path, **{**np.load(path), "kernels": kernels["kernels"], "exponents": kernels["exponents"]})
    return bundle


def write_encoder(source: Path, target: Path, bands: int) -> None:
    """The shipped encoder for tiles of this test: its batch is any, its size is not fixed."""
    onnx = pytest.importorskip("onnx", reason="onnx is no part of the payload's own environment")
    model = onnx.load(source)
    for value in (*model.graph.input, *model.graph.output):
        for at, size in ((0, 2 * set_bands(bands)), (2, SIDE // 8), (3, SIDE // 8)):
            value.type.tensor_type.shape.dim[at].dim_value = size + (at > 0 and value in model.graph.input)
    onnx.save(model, target)


@pytest.mark.parametrize("bits", (1, 8, 16))
def test_samples_of_one_to_sixteen_bits_come_back(bundle_of, toy_engine, bits):
    """A gain makes the finest step a fraction of a DN: one bit comes back as it was."""
    bundle = bundle_of(1, gain=1 << max(0, 12 - bits))
    dn = (spectra(1, most=(1 << bits) - 1) if bits > 1 else spectra(1) >> 12).astype(np.uint16)
    codec = FsqCodec(bundle, toy_engine)
    coded = codec.encode(Tile(0, 0, dn, everywhere), Quality(2.0**-11 if bits == 1 else 1.0), Stopwatch())
    assert codec.step_of(coded.side, len(coded.layers)) <= (2.0**-11 if bits == 1 else 2.0)
    assert codec.decode(coded.side, coded.layers)


class Raw:
    """In a coder's place: a layer is its magnitudes as they are, behind what says how many channels it has."""

    def __init__(self, channels: int, layers: int) -> None:
        self._shape, self._layers = (channels, 2, 2), layers

    def held(self):
        return iter(())

    def encode_layers(self, indices, keep=None, last_active=None, profile="fast"):
        count, coded = self._layers if keep is None else keep, []
        for k in range(count):
            here = (indices.magnitude >> (self._layers - 1 - k)).astype(">u2")
            active = last_active if k == count - 1 and last_active is not None else len(here)
            here[active:] = 0
            head = (active if here.any() else 0).to_bytes(2, "big") + bytes(len(here) // 64)
            coded.append(head + (here.tobytes() if here.any() else b""))
        return tuple(coded)

    def decode_layers(self, layers):
        here, active = np.zeros(self._shape, np.uint16), 0
        for octets in layers:
            active = int.from_bytes(octets[:2], "big")
            new = np.frombuffer(octets[2 + len(here) // 64 :], ">u2")
            fresh = new.reshape(self._shape) if len(new) else np.zeros(self._shape, np.uint16)
            here = np.where(np.arange(len(here))[:, None, None] < active, fresh, here << 1).astype(np.uint16)
        behind = np.arange(len(here)) >= active if len(layers) > 1 else np.zeros(len(here), bool)
        return Indices(here, np.zeros(self._shape, bool), self._layers - len(layers), behind)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32), st.integers(1, 3), st.integers(0, 3 * 14 * 64), st.sampled_from([0.0, 0.02, 1.0]))
def test_sets_are_cut_anywhere_and_say_which_channels_know_a_layer_less(seed, keep, active, busy) -> None:
    """40 bands: three sets of fourteen. What is known is the magnitude, shifted, of every channel before the cut."""
    rng = np.random.default_rng(seed)
    channels = set_bands(40) * 64
    sets = Sets(Raw(channels, 3), Raw(channels, 3), (3, 14), 3)
    some = rng.random((3 * channels, 1, 1)) < busy
    magnitude = (rng.integers(1, 200, (3 * channels, 2, 2)) * some).astype(np.uint16)
    magnitude[active:] &= 0xFFFF << (4 - keep) & 0xFFFF  # behind the cut nothing is new in the layer
    layers = sets.encode_layers(Indices(magnitude, np.zeros(magnitude.shape, bool)), keep, active)
    found = sets.decode_layers(layers)
    assert len(layers) == keep and found.missing == 3 - keep
    known = magnitude >> (3 - keep)
    if keep == 1:
        known[active:] = 0
    assert np.array_equal(found.magnitude, known)
    whole = sets.decode_layers(sets.encode_layers(Indices(magnitude, np.zeros(magnitude.shape, bool)), keep))
    assert np.array_equal(whole.magnitude, magnitude >> (3 - keep))


@pytest.mark.parametrize(
    ("layers", "words"),
    [
        ((), "0 layers"), ((b"",), "no octets"), ((b"\0\0\5ab",), "ends at octet 8 of 5"),
        ((b"\0\0\0" * 4,), "part 3 of 3"), ((b"\0\0\0", b"\0\0\0"), "1 sets of 3, and layers behind"),
        ((b"\0\0",), "ends at octet 3 of 2"),
    ],
)  # fmt: skip
def test_layers_that_are_no_sets_are_refused(layers, words) -> None:
    channels = set_bands(40) * 64
    with pytest.raises(StreamError, match=words):
        Sets(Raw(channels, 3), Raw(channels, 3), (3, 14), 3).decode_layers(layers)


def test_by_hand_an_empty_set_is_three_octets_of_zeros() -> None:
    channels = set_bands(40) * 64
    empty = Indices(np.zeros((3 * channels, 2, 2), np.uint16), np.zeros((3 * channels, 2, 2), bool))
    assert Sets(Raw(channels, 3), Raw(channels, 3), (3, 14), 3).encode_layers(empty) == (bytes(9),) * 3


@settings(deadline=None, max_examples=15)
@given(st.integers(17, 60), st.integers(0, 2**32), st.sampled_from([1.0, 100.0, 1e6]))
def test_a_rotation_of_many_bands_goes_down_and_comes_back(bands, seed, error_dn2) -> None:
    dn = spectra(bands, seed)
    rotation = fit(dn, everywhere, error_dn2=error_dn2)
    octets = pack_rotation(rotation)
    assert unpack_rotation(octets, bands, rotation.shift) == rotation
    assert len(octets) == rotation_octets(bands, octets[0])
    assert np.abs(unrotate(rotate(dn, everywhere, rotation), rotation) - dn).max() < 4 * 2**rotation.shift


def test_leading_components_are_those_of_lapack() -> None:
    dn = spectra(120, 3).reshape(120, -1).astype(np.float64)
    covariance = np.cov(dn)
    vectors, values = leading(covariance, 4, diagonalise)
    wanted, exact = np.linalg.eigh(covariance)
    assert np.allclose(values, wanted[::-1][:4], rtol=1e-3)
    assert (np.abs(np.sum(vectors * exact.T[::-1][:4], axis=1)) > 0.999).all()


def test_a_tile_of_one_value_has_a_rotation_of_many_bands() -> None:
    flat = np.full((30, SIDE, SIDE), 7, np.uint16)
    assert np.array_equal(rotate(flat, everywhere, fit(flat, everywhere)), np.zeros(flat.shape))


@pytest.mark.parametrize("bands", (50, 200))
def test_side_information_of_many_bands_is_one_per_cent_at_a_ratio_of_fifty(bands) -> None:
    """Of tiles of 256 px; smaller ones have no more."""
    dn = spectra(bands, side=MANY_PX)
    whole, part = (
        pack_rotation(fit(piece, np.ones(piece.shape[1:], bool), error_dn2=1e-3)) for piece in (dn, dn[:, :64, :64])
    )
    assert len(part) <= len(whole) <= SIDE_PER_SAMPLE * dn.size == pytest.approx(0.01 * (2 * dn.size / 50))


def test_components_lead_that_change_little_between_neighbours() -> None:
    """Three smooth components under noise, at a coarse step: judged by differences of neighbours, one led, and two
    hundred bands paid for the others, each for itself."""
    rng, (y, x) = np.random.default_rng(6), np.mgrid[:64, :64] / 64
    shapes = [np.sin(3 * x), np.cos(2 * y), np.sin(2 * x + 3 * y)]
    weights = np.cos(np.pi * np.arange(3)[None] * (2 * np.arange(200)[:, None] + 1) / 400)
    dn = 4000 + np.einsum("bk,kyx->byx", 900 * weights, np.array(shapes)) + rng.normal(0, 5, (200, 64, 64))
    rotation = fit(dn.astype(np.uint16), np.ones((64, 64), bool), error_dn2=250.0**2 / 8, distance_px=2)
    assert pack_rotation(rotation)[0] == 3


def test_more_bands_than_there_may_be_are_refused(bundle_of, toy_engine) -> None:
    bundle = bundle_of(17)
    wide = replace(bundle, manifest=bundle.manifest | {"bands": [str(k) for k in range(513)]})
    with pytest.raises(BundleError, match="513 bands, wanted at most 512 bands"):
        FsqCodec(wide, toy_engine)


@pytest.mark.parametrize(("bands", "law"), [(1, {}), (3, {"gain": 16}), (13, {"compand": 0.8}), (17, {}), (40, {})])
@pytest.mark.parametrize("bound_dn", [0, 7])
def test_a_tile_of_any_number_of_bands_keeps_its_bound(bundle_of, toy_engine, monkeypatch, bands, law, bound_dn):
    """And its octets and samples are the same without the kernel."""
    bundle, found = with_shipped_kernels(bundle_of(bands, **law)), []
    tile = Tile(0, 0, spectra(bands, bands, 3000), everywhere & (np.arange(SIDE) > 9))
    for there in (library.available, False):
        monkeypatch.setattr(library, "available", there)
        codec = FsqCodec(bundle, toy_engine)
        coded = codec.encode(tile, Quality(max_error_dn=bound_dn), Stopwatch())
        found.append((coded, codec.reconstruct_bounded(coded.side, coded.layers, tile.valid, coded.bound)))
    (coded, dn), (again, same) = found
    assert (coded.side, coded.layers, coded.bound) == (again.side, again.layers, again.bound)
    np.testing.assert_array_equal(dn, same)
    assert np.abs(dn.astype(int) - tile.dn)[:, tile.valid].max() == bound_dn
