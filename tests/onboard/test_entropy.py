"""The context model on small random tables: the law of the wire, octets by hand, hostile octets, exact floats."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from payload.bundle import load_bundle
from payload.codec.lapped import layers
from payload.codec.lapped.context_model import feature_count, parts
from payload.codec.lapped.layers import decode_layers, encode_layers
from payload.codec.lapped.quantiser import Indices
from payload.codec.lapped.range_coder import ONE, PlainDecoder, PlainEncoder
from payload.codec.lapped.tables import ContextTables, load_tables
from payload.errors import BundleError, StreamError

BANDS, CELLS = 2, 8
SHAPE = (64 * BANDS, CELLS, CELLS)
LAYERS = 3


@pytest.fixture(scope="module")
def tables(make_tables, tmp_path_factory) -> ContextTables:
    return load_tables(make_tables(tmp_path_factory.mktemp("tables") / "t.npz", BANDS, LAYERS))


def random_indices(seed: int, density: float, spread: float) -> Indices:
    """`density` of the coefficients are not zero, geometric in size, more in the low channels; some are huge."""
    rng = np.random.default_rng(seed)
    falling = np.linspace(2 * density, 0, SHAPE[0])[:, None, None]
    size = 1 + np.minimum(rng.exponential(spread, SHAPE), 60_000).astype(np.uint16)
    magnitude = np.where(rng.random(SHAPE) < falling, size, 0).astype(np.uint16)
    if seed % 4 == 0:
        magnitude.ravel()[rng.integers(magnitude.size, size=3)] = 65535
    return Indices(magnitude, rng.random(SHAPE) < 0.5)


indices = st.builds(
    random_indices, st.integers(0, 2**32), st.sampled_from([0.0, 0.002, 0.05, 0.4]), st.sampled_from([0.3, 4, 200])
)


def known(found: Indices, missing: int) -> Indices:
    """What remains of indices when the `missing` finest layers are left out."""
    magnitude = (found.magnitude >> missing).astype(np.uint16)
    return Indices(magnitude, found.negative & (magnitude > 0), missing)


def equal(a: Indices, b: Indices) -> bool:
    same_values = np.array_equal(a.magnitude, b.magnitude) and np.array_equal(a.negative, b.negative)
    return same_values and a.missing == b.missing


@settings(max_examples=25, deadline=None)
@given(indices)
def test_any_beginning_of_the_layers_decodes_to_the_coarser_indices(tables, sent) -> None:
    layers = encode_layers(sent, tables)
    assert len(layers) == LAYERS
    for count in range(1, LAYERS + 1):
        assert equal(decode_layers(layers[:count], SHAPE, tables), known(sent, LAYERS - count))


@settings(max_examples=6, deadline=None)
@given(indices)
def test_a_board_without_the_library_writes_and_reads_the_same_octets(tables, sent) -> None:
    coded = encode_layers(sent, tables)
    assert encode_layers(sent, tables, PlainEncoder) == coded
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layers, "Decoder", PlainDecoder)
        assert equal(decode_layers(coded, SHAPE, tables), known(sent, 0))


def flat_tables(path: Path) -> ContextTables:
    """One band, one layer, every weight zero, every distribution flat: octets can be worked out by hand."""
    zeros = {
        "weight0": (64, feature_count(1)), "gain0": (64, 4), "mix0": (feature_count(1),), "base0": (64,),
        "position0": (1, 8, 8), "activity0": (64,), "worth0": (32,),
    }  # fmt: skip
    flat = {"runs0": (32, 2), "refinement0": (3, 2), "size0": (8, 16)}
    arrays = {name: np.zeros(shape, np.int32) for name, shape in zeros.items()}
    arrays |= {name: np.full(shape, ONE // shape[1]) for name, shape in flat.items()}
    np.savez(path, order=np.arange(64), starts=np.array([0]), layers=np.array(1), floor0=np.ones(4, int), **arrays)  # type: ignore[arg-type]
    return load_tables(path)


def one_coefficient(channel: int, magnitude: int, negative: bool) -> Indices:
    found = Indices(np.zeros((64, 8, 8), np.uint16), np.zeros((64, 8, 8), bool))
    found.magnitude[channel, 0, 0], found.negative[channel, 0, 0] = magnitude, negative
    return found


def test_octets_of_a_layer_by_hand(tmp_path) -> None:
    flat = flat_tables(tmp_path / "flat.npz")
    nothing = one_coefficient(0, 0, False)
    # no active channel; no activity; no token, so no word; no sign
    assert encode_layers(nothing, flat)[0].hex() == "0000" + "00"
    # rank 0 is active: 64 places, and with nothing known all of class 23 (logit 0). Activity leaves block averages out.
    # Runs are one long: token 0 is a significant coefficient, token 1 a zero. So 0, then 63 times 1, then size 1 as
    # symbol 0 of 16: the range is halved 64 times and cut to a sixteenth. Token 0 leaves low at 0; every 1 adds the
    # upper half of what is left: low = (2^63 - 1) of 2^64 after 64 halvings, which are two words: 7fffffff ffffffff.
    # Written as plain bits it would take a width octet (1), 64 bits and the sign: 10 octets, fewer than 12 + 1.
    assert encode_layers(one_coefficient(0, 1, True), flat)[0].hex() == "8001" + "00" + "01" + "80" + 7 * "00" + "80"
    assert encode_layers(one_coefficient(0, 1, False), flat)[0][-1] == 0x00
    # rank 5 alone: six active channels. One of 64 blocks: 2 log2(1 + 1024 / 64) = 8.17, rounded 8
    assert encode_layers(one_coefficient(5, 1, False), flat)[0][:3].hex() == "8006" + "08"


def test_octets_of_runs_by_hand(tmp_path) -> None:
    """Runs of up to 8: tokens 0..7 are so many zeros and then a one, a sixteenth each; token 8, eight zeros, a half."""
    flat_tables(tmp_path / "t.npz")
    eight = load_tables(rewrite(tmp_path / "t.npz", runs0=np.tile([ONE // 16] * 8 + [ONE // 2], (32, 1))))
    # 64 places, the first significant: token 0, the lowest sixteenth; then 63 zeros, 8 times token 8, the upper half
    # each time: low = 1/16 - 1/16 x 2^-8 = 2^-4 - 2^-12. Then size 1 as symbol 0 of 16, which leaves low where it is.
    # The range is 2^-16 by then, so one word says it: 2^-4 - 2^-12 is 0ff00000; then the sign.
    octets = encode_layers(one_coefficient(0, 1, False), eight)[0]
    assert octets.hex() == "000100" + "0ff00000" + "00"
    assert equal(decode_layers((octets,), (64, 8, 8), eight), one_coefficient(0, 1, False))
    # the escape, 16, is symbol 15 of 16; the magnitude follows raw, 0x1234, before the sign
    escaped = encode_layers(one_coefficient(0, 0x1234, True), eight)[0]
    assert escaped[-3:].hex() == "1234" + "80"


@pytest.mark.parametrize(
    ("flags", "longest", "wanted"),
    [
        ([], 4, []),
        ([1, 0, 0, 1], 4, [0, 2]),
        ([0, 0, 0, 0], 4, [4]),
        ([0, 0, 0, 0, 1], 4, [4, 0]),  # the run is as long as the longest: that, and then a one at once
        ([0, 0, 0, 0, 0, 1], 4, [4, 1]),
        ([1, 0, 0], 4, [0, 4]),  # the last token reaches beyond the end
        ([0] * 9, 4, [4, 4, 4]),
        ([0, 1, 1], 1, [1, 0, 0]),  # longest 1: a token a place
    ],
)
def test_tokens_by_hand(flags, longest, wanted) -> None:
    assert layers.tokens(np.array(flags, bool), longest).tolist() == wanted


@settings(max_examples=25, deadline=None)
@given(indices, st.integers(0, SHAPE[0]), st.integers(1, LAYERS))
def test_a_layer_cut_behind_some_channels_leaves_the_others_as_the_layer_before_had_them(
    tables, sent, active, keep
) -> None:
    layers = encode_layers(sent, tables, keep=keep, last_active=active)
    found = decode_layers(layers, SHAPE, tables)
    missing = LAYERS - keep
    here = tables.order[:active]
    wanted = ((sent.magnitude >> missing + 1) << 1).astype(np.uint16) if keep > 1 else np.zeros_like(sent.magnitude)
    wanted[here] = sent.magnitude[here] >> missing
    assert np.array_equal(found.magnitude, wanted) and found.missing == missing
    assert found.behind is not None
    beyond = np.setdiff1d(np.flatnonzero(wanted.any(axis=(1, 2))), here)
    assert found.behind[beyond].all() == (keep > 1 or not len(beyond))


@settings(max_examples=25, deadline=None)
@given(indices, st.integers(0, 2**32), st.integers(1, 3))
def test_what_is_not_worth_its_octets_is_left_out_of_the_last_layer_alone(tables, sent, seed, keep) -> None:
    sizes = np.random.default_rng(seed).integers(102, 230, SHAPE).astype(np.uint8)
    rich, lean = (encode_layers(one, tables, keep=keep) for one in (sent, replace(sent, size128=sizes)))
    assert rich[:-1] == lean[:-1]
    found = decode_layers(lean, SHAPE, tables)
    whole, worth = sent.magnitude >> found.missing, tables.layers[keep - 1].worth
    changed = found.magnitude != whole
    assert (whole[changed] == 1).all() and (found.magnitude[changed] == 0).all()
    assert not changed[::64].any()  # block averages stay
    assert (sizes[changed] < max(worth)).all()
    sure = (whole == 1) & (sizes < min(worth))
    sure[::64] = False
    assert changed[sure].all()


def test_the_largest_magnitude_and_every_boundary_of_the_escape(tmp_path) -> None:
    flat = flat_tables(tmp_path / "flat.npz")
    for magnitude in (1, 14, 15, 16, 17, 255, 256, 65535):
        sent = one_coefficient(3, magnitude, True)
        assert equal(decode_layers(encode_layers(sent, flat), (64, 8, 8), flat), sent)


@settings(max_examples=60, deadline=None)
@given(indices, st.integers(0, LAYERS - 1), st.data())
def test_damaged_octets_never_raise_anything_but_stream_error(tables, sent, at, data) -> None:
    layers = list(encode_layers(sent, tables))
    octets = bytearray(layers[at])
    damage = data.draw(st.sampled_from(["cut", "flip", "noise", "all ones", "grow"]))
    if damage == "cut":
        octets = octets[: data.draw(st.integers(0, len(octets)))]
    elif damage == "flip":
        octets[data.draw(st.integers(0, len(octets) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    elif damage == "noise":
        octets[4:] = data.draw(st.randoms()).randbytes(max(0, len(octets) - 4))
    elif damage == "all ones":
        octets[4:] = b"\xff" * max(40, len(octets))
    else:
        octets += data.draw(st.binary(min_size=1, max_size=9))
    layers[at] = bytes(octets)
    try:
        found = decode_layers(tuple(layers), SHAPE, tables)
    except StreamError:
        return
    assert found.magnitude.shape == SHAPE  # it made sense: the CRC of the layer is there to tell


@settings(max_examples=60, deadline=None)
@given(octets=st.lists(st.binary(max_size=80), max_size=LAYERS + 1))
def test_any_octets_decode_or_are_refused(tables, octets) -> None:
    try:
        decode_layers(tuple(octets), SHAPE, tables)
    except StreamError:
        return
    assert 1 <= len(octets) <= LAYERS


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        (b"", "0 octets"),
        (b"\x00\x00\x00", "3 octets"),  # one of two octets of activity is missing
        (b"\x00\x81\x00\x00", "129 active channels of 128"),
        (b"\x00\x00\x31\x00", "0 active channels"),  # activity 49: past what the exactness bound allows for
        (b"\x00\x80\x00\x00" + b"\xff" * 64, "no encoder"),
        (b"\x80\x80\x00\x00" + b"\x11\x01", "widths"),  # plain bits, 17 a magnitude
        (b"\x80\x80\x00\x00" + b"\x01\x01" + bytes(5), "do not hold 8192 raw bits"),
    ],
)
def test_layers_that_make_no_sense_are_refused_with_their_cause(tables, layer, words) -> None:
    with pytest.raises(StreamError, match=words):
        decode_layers((layer,), SHAPE, tables)


def test_symbols_without_octets_for_their_signs_are_refused(tmp_path) -> None:
    flat_tables(tmp_path / "t.npz")
    nearly_sure = load_tables(rewrite(tmp_path / "t.npz", runs0=np.tile([ONE - 1, 1], (32, 1))))
    # 64 channels, all 4096 coefficients significant at next to no octets, of which the signs alone would take 512
    with pytest.raises(StreamError, match="4 octets do not hold 4096 signs"):
        decode_layers((bytes.fromhex("0040 00 01000000"),), (64, 8, 8), nearly_sure)


@pytest.mark.parametrize("count", [0, LAYERS + 1])
def test_a_wrong_number_of_layers_is_refused(tables, count) -> None:
    with pytest.raises(StreamError, match=f"{count} layers, this bundle has 1 to {LAYERS}"):
        decode_layers((b"\x00\x00\x00\x00",) * count, SHAPE, tables)


def rewrite(path: Path, **changes: np.ndarray | None) -> Path:
    """The .npz with arrays replaced, or left out where None."""
    with np.load(path) as data:
        arrays = {name: data[name] for name in data.files} | changes
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    return path


def test_sums_that_could_leave_16_bits_are_refused(make_tables, tmp_path) -> None:
    """An inner sum reaches floor + 15 x its mix at most; 2^15 itself is refused, one below is not."""
    path = make_tables(tmp_path / "t.npz", BANDS, 1)
    arrays = dict(np.load(path))
    begin, end = parts(BANDS)[1]
    floor = arrays["floor0"].copy()
    floor[1] = 2**15 - 1 - 15 * int(arrays["mix0"][begin:end].sum())
    load_tables(rewrite(path, floor0=floor))
    floor[1] += 1
    with pytest.raises(BundleError, match="floor0 is something else, wanted inner sums up to 32767, not 32768"):
        load_tables(rewrite(path, floor0=floor))


def test_logits_that_could_leave_16_bits_are_refused(make_tables, tmp_path) -> None:
    path = make_tables(tmp_path / "t.npz", BANDS, 2)
    base = dict(np.load(path))["base1"]
    base[7] = -32767
    with pytest.raises(BundleError, match=r"base1 is something else, wanted logits up to 32767, not \d+; restore"):
        load_tables(rewrite(path, base1=base))


@pytest.mark.parametrize("octets", [b"", b"no archive at all", b"PK\x03\x04 cut short", b"\x93NUMPY\x01\x00"])
def test_a_file_that_is_no_archive_is_a_bundle_error(tmp_path, octets) -> None:
    (tmp_path / "t.npz").write_bytes(octets)
    with pytest.raises(BundleError, match="rebuild the bundle"):
        load_tables(tmp_path / "t.npz")


def test_an_archive_with_objects_is_never_unpickled(make_tables, tmp_path) -> None:
    path = tmp_path / "t.npz"
    np.savez(path, order=np.array([{"not": "numbers"}], object))
    with pytest.raises(BundleError, match="rebuild the bundle"):
        load_tables(path)


def test_the_shipped_tables_carry_the_same_law() -> None:
    bundle = load_bundle()
    shipped = load_tables(bundle.file("flight/tables.npz"))
    bands, cells = len(bundle.bands), bundle.tile_px // 8
    rng = np.random.default_rng(5)
    shape = (64 * bands, cells, cells)
    rank = np.argsort(shipped.order)[:, None, None]
    magnitude = np.floor(rng.exponential(20 / (1 + rank), shape)).astype(np.uint16)
    sent = Indices(magnitude, rng.random(shape) < 0.5)
    layers = encode_layers(sent, shipped)
    for count in range(1, len(layers) + 1):
        assert equal(decode_layers(layers[:count], shape, shipped), known(sent, len(layers) - count))
