"""The residual layer: its law, its octets, the integers it stands on, and what damage can make of it."""

from dataclasses import replace

import numpy as np
import pytest
from hostile import bounds
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from payload.bundle import load_bundle
from payload.codec.interface import TABLES_FILE, Bounding, Quality
from payload.codec.lapped import synthesis
from payload.codec.lapped.codec import FsqCodec
from payload.codec.lapped.power_law import expand
from payload.codec.lapped.quantiser import Indices, step_dn, step_units
from payload.codec.lapped.range_coder import ONE, PlainDecoder, PlainEncoder
from payload.codec.lapped.residual import base_picture, layer, spreads
from payload.codec.lapped.residual.base_picture import BasePicture
from payload.codec.lapped.tables import load_kernels
from payload.codec.rotation import Rotation, unrotate
from payload.codec.vq.codec import VqCodec
from payload.engine import open_engine
from payload.errors import BundleError, InputError, StreamError
from payload.link.tile_code import Kind, TileCode, crc_of_samples, pack, unpack
from payload.link.valid_mask import pack_mask
from payload.pipeline import Payload
from payload.policy import MOST_BOUND_DN, Gate, Policy
from payload.stopwatch import Stopwatch
from payload.tiles import Tile, split
from sim.ground.decoder import FAST, Decoder
from sim.scenes.demo import demo_scene

BOUNDS = st.sampled_from((0, 0, 1, 2, 5, 10, 100, MOST_BOUND_DN)) | st.integers(0, MOST_BOUND_DN)
SAMPLES = st.sampled_from((0, 1, 500, 65535)) | st.integers(0, 65535)


@st.composite
def tiles(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Samples and a base picture [B, T, T], near each other or not at all, and a mask with a valid pixel."""
    bands, side = draw(st.integers(1, 5)), 2 * draw(st.integers(1, 4))
    base = draw(arrays(np.uint16, (bands, side, side), elements=SAMPLES))
    near = base.astype(int) + draw(arrays(np.int16, base.shape, elements=st.integers(-40, 40)))
    far = draw(arrays(np.uint16, base.shape, elements=SAMPLES))
    dn = np.clip(near, 0, 65535).astype(np.uint16) if draw(st.booleans()) else far
    valid = draw(arrays(np.bool_, (side, side), elements=st.booleans()))
    assume(valid.any())
    return dn, base, valid


@settings(max_examples=80, deadline=None)
@given(tiles(), BOUNDS)
def test_no_valid_sample_of_any_tile_is_off_by_more_than_the_bound(tile, bound_dn) -> None:
    dn, base, valid = tile
    octets, told = layer.encode(dn, base, valid, bound_dn)
    found = layer.decode(octets, base, valid, bound_dn)
    np.testing.assert_array_equal(found, told)
    assert np.abs(found.astype(int) - dn)[:, valid].max() <= bound_dn
    np.testing.assert_array_equal(found[:, ~valid], base[:, ~valid])


@settings(max_examples=20, deadline=None)
@given(tiles(), BOUNDS)
def test_pixels_that_are_not_valid_carry_nothing(tile, bound_dn) -> None:
    dn, base, valid = tile
    other = np.where(valid, dn, 65535 - dn)
    assert layer.encode(dn, base, valid, bound_dn)[0] == layer.encode(other, base, valid, bound_dn)[0]


@settings(max_examples=20, deadline=None)
@given(tiles(), BOUNDS)
def test_the_plain_range_coder_gives_the_same_octets(tile, bound_dn) -> None:
    dn, base, valid = tile
    octets, told = layer.encode(dn, base, valid, bound_dn)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layer, "Encoder", PlainEncoder)
        patch.setattr(layer, "Decoder", PlainDecoder)
        assert layer.encode(dn, base, valid, bound_dn)[0] == octets
        np.testing.assert_array_equal(layer.decode(octets, base, valid, bound_dn), told)


def test_a_tile_that_its_base_tells_by_hand() -> None:
    """Two by two pixels of one band, nothing left over: all weights are 0, all samples of class 0 and spread 0."""
    flat = np.full((1, 2, 2), 100, np.uint16)
    octets, _ = layer.encode(flat, flat, np.ones((2, 2), bool), 0)
    weights = (1 + 4) + (5 + 5) + (5 + 5) + (9 + 5)  # of values and of sizes, grid by grid
    head = bytes(weights) + b"\x00\x01\x00"  # first class 0, one class, its spread 0
    # Four times symbol 96, whose interval is so wide that one word tells it: the lower edge, rounded up.
    lower, share = spreads.tables()[0].lower[96], spreads.tables()[0].counts[96]
    low, span = 0, 2**64 - 1
    for _ in range(4):
        low, span = low + (span >> 24) * lower, (span >> 24) * share
    word = (low + 2**32 - 1) >> 32
    assert octets == b"\x00\x00\x04" + head + word.to_bytes(4, "big")


def test_one_sample_far_off_by_hand() -> None:
    """A single valid pixel 1000 DN above its base: the bias reaches 31.75 DN of it, the rest is one bin."""
    base = np.full((1, 2, 2), 100, np.uint16)
    dn = base.copy()
    dn[0, 0, 0] = 1100
    valid = np.array([[True, False], [False, False]])
    octets, found = layer.encode(dn, base, valid, 0)
    assert found[0, 0, 0] == 1100 and octets[3] == 127  # 127 / 64 times 16 DN, rounded: 32
    classes, chosen = spreads.classes_of(np.array([1 << 19])), octets[-1:]
    assert classes[0] < spreads.CLASSES and len(chosen) == 1


def test_no_entry_lies_where_two_machines_could_round_it_differently() -> None:
    """Doubles err by 1e-9 of these numbers at most; the nearest rounding edge is a thousand times as far."""
    bundle = load_bundle("edge")
    functions = base_picture.unrounded_functions(load_kernels(bundle.file(TABLES_FILE)))
    expansion = base_picture.unrounded_expansion(bundle.codec["compand"], 1)
    for values in (functions, expansion, *(spreads.edges(k) for k in range(spreads.TABLES))):
        assert np.abs(values - np.floor(values) - 0.5).min() > 1e-6
    for table in spreads.tables():
        assert sum(table.counts) == ONE and min(table.counts) >= 1


@pytest.fixture(scope="module")
def picture() -> BasePicture:
    return BasePicture(load_kernels(load_bundle("edge").file(TABLES_FILE)), load_bundle("edge").codec["compand"], 1)


def indices_of(rng: np.random.Generator, bands: int, cells: int, most: int) -> Indices:
    shape = (64 * bands, cells, cells)
    magnitude = np.where(rng.random(shape) < 0.1, rng.integers(0, most, shape), 0).astype(np.uint16)
    return Indices(magnitude, rng.random(shape) < 0.5)


@pytest.mark.parametrize(("most", "step"), [(8, 64), (65536, 0), (65536, 127)])
def test_the_base_picture_is_exact_in_integers_however_large_the_indices(picture, most, step) -> None:
    """Its sums beside the same sums in 64-bit integers, which know no rounding."""
    found = indices_of(np.random.default_rng(most + step), 2, 8, most)
    levels = base_picture._levels(found)
    assert np.abs(levels).max() < 2**26
    functions = picture._functions.astype(np.int64)
    sums = synthesis.synthesise(levels, picture._functions, picture._functions, np.ones(64, bool))
    plain = synthesis.synthesise(levels.astype(np.int64), functions, functions, np.ones(64, bool))
    np.testing.assert_array_equal(sums.astype(np.int64), plain)
    rotated = base_picture._rotated(plain, step_units(step))
    exact = [int(s) * step_units(step) for s in plain.ravel()[:500]]  # of any size
    down = 1 << 24
    for value, sample in zip(exact, rotated.ravel()[:500], strict=True):
        wanted = (2 * value + down) // (2 * down)
        assert sample == min(max(wanted, -base_picture.ROTATED_LIMIT), base_picture.ROTATED_LIMIT)


def test_the_base_picture_is_the_grounds_own_picture_to_a_dn(picture) -> None:
    found = indices_of(np.random.default_rng(3), 2, 8, 6)
    found.magnitude[::64] = 20
    rotation, index = Rotation((3000, 2500), (300,), 0), 64
    functions = picture._functions.astype(np.float32) / 2**14
    levels = base_picture._levels(found).astype(np.float32) / 64
    rotated = synthesis.synthesise(levels, functions, functions, np.ones(64, bool)) * np.float32(step_dn(index))
    wanted = np.clip(expand(unrotate(rotated, rotation), 0.8), 0, 65535)
    assert np.sqrt(np.mean((picture.of(found, rotation, index) - wanted) ** 2)) < 1.0


@pytest.fixture(scope="module")
def coded() -> tuple[Tile, TileCode, Decoder]:
    """A tile with a corner that is not valid, within 2 DN, as one of a scene, and who decodes it."""
    bundle, engine = load_bundle("edge"), open_engine("openvino")
    payload = Payload(bundle, Policy(max_error_dn=2), engine)
    payload.clouds = None
    tile = next(split(demo_scene(bundle.tile_px, bundle.tile_px, 3), bundle.tile_px))
    valid = tile.valid.copy()
    valid[:90, :31] = False
    tile = replace(tile, valid=valid)
    code = payload.encode_tile(tile)
    return tile, replace(code, scene_id=7, mask=pack_mask(valid), sent_octets=-1), Decoder(bundle, engine, FAST)


def test_a_tile_comes_out_of_the_payload_within_its_bound_and_nothing_moves_its_pixels(coded) -> None:
    tile, code, decoder = coded
    found = decoder.decode_tile(unpack(pack(code)))
    assert np.abs(found.astype(int) - tile.dn)[:, tile.valid].max() == 2
    assert decoder.step_of(code) == 0.0


def test_before_its_residual_layer_a_tile_is_what_the_same_layers_are_without_one(coded) -> None:
    _, code, decoder = coded
    cut = unpack(pack(code)[: -len(code.layers[-1])])
    plain = replace(code, layers=code.base_layers, declared=len(code.base_layers), bound=None, sent_octets=-1)
    assert cut.cause is not None and not cut.bounded
    np.testing.assert_array_equal(decoder.decode_tile(cut), decoder.decode_tile(plain))
    assert decoder.step_of(cut) == decoder.step_of(plain) > 0


def test_samples_that_are_not_those_that_were_sent_are_refused_whatever_the_crcs_say(coded) -> None:
    """A payload whose memory was hit writes layers whose CRCs hold: the checksum of the samples does not."""
    _, code, decoder = coded
    wrong = replace(code.bound, samples_crc=code.bound.samples_crc ^ 1)
    with pytest.raises(StreamError, match="not those that were sent"):
        decoder.decode_tile(unpack(pack(replace(code, bound=wrong))))
    coarser = replace(code.bound, error_dn=code.bound.error_dn + 1)
    with pytest.raises(StreamError, match=r"not those that were sent|raw bits|residual|no encoder"):
        decoder.decode_tile(unpack(pack(replace(code, bound=coarser))))


@pytest.mark.slow
def test_a_share_of_the_campaign_finds_no_sample_off_and_no_wrong_tile(capsys) -> None:
    """`make bounds` looks at 10^8 samples."""
    assert bounds.main(samples=2_000_000, streams=40) == 0
    assert " 0 further off" in capsys.readouterr().out


@pytest.mark.slow
@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_no_damage_to_a_residual_layer_shows_a_wrong_tile(coded, data) -> None:
    """Octets changed, cut and added behind the CRCs' back: refused, or the same samples."""
    tile, code, decoder = coded
    octets = bytearray(code.layers[-1])
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(octets) - 1) | st.integers(0, 250))
        octets[at] ^= data.draw(st.integers(1, 255))
    changed = bytes(octets[: data.draw(st.integers(0, len(octets)) | st.just(len(octets)))])
    changed += data.draw(st.binary(max_size=8))
    try:
        found = decoder.decode_tile(replace(code, layers=(*code.base_layers, changed)))
    except StreamError:
        return
    assert crc_of_samples(found, tile.valid) == code.bound.samples_crc


def test_what_no_encoder_writes_is_refused_in_words(coded) -> None:
    _, code, decoder = coded
    whole = code.layers[-1]
    for octets in (b"", whole[:2], whole[:200], whole + b"\x01", whole[:-1]):
        with pytest.raises(StreamError):
            decoder.decode_tile(replace(code, layers=(*code.base_layers, octets)))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"max_error_dn": -1}, "max_error_dn is -1, wanted 0 to 4095"),
        ({"max_error_dn": 0, "budget_octets": 5000}, "max_error_dn and budget_octets are both set"),
        ({"max_error_dn": 0, "psnr_db": 40.0}, "max_error_dn and psnr_db are both set"),
    ],
)
def test_a_policy_that_contradicts_its_bound_is_refused(change, words) -> None:
    with pytest.raises(InputError, match=words):
        Policy(**change)


def test_within_a_bound_the_gate_neither_flattens_nor_reduces() -> None:
    gate = Gate(flatten_clouds=True, reduce_above_percent=10.0)
    used = Policy(max_error_dn=0, gate=gate).gate_in_use
    assert (used.flatten_clouds, used.reduce_above_percent) == (False, None)
    assert used.withhold_above_percent == gate.withhold_above_percent and Policy(gate=gate).gate_in_use is gate


def test_a_codec_without_a_residual_layer_is_refused_before_a_tile_is_coded() -> None:
    assert isinstance(FsqCodec(load_bundle("edge"), None), Bounding) and not isinstance(VqCodec, Bounding)
    with pytest.raises(BundleError, match="no residual layer"):
        Payload(load_bundle("corsa-fpn3-256"), Policy(max_error_dn=0), open_engine("openvino"))


def test_a_bound_does_not_change_what_is_sent_without_one() -> None:
    bundle = load_bundle("edge")
    codec = FsqCodec(bundle, open_engine("native"))
    tile = next(split(demo_scene(256, 256, 1), 256))
    plain = codec.encode(tile, Quality(256.0), Stopwatch())
    within = codec.encode(tile, Quality(max_error_dn=5), Stopwatch())
    assert within.base_layers == plain.layers and within.side == plain.side and plain.bound is None
    assert within.bound is not None and TileCode(Kind.CODED, 0, 0, 0, layers=within.layers, bound=within.bound).bounded
