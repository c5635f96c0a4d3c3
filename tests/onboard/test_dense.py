"""The profile `dense`: the law of the wire, numpy and the kernel octet for octet, a mixture by hand, hostile octets."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from payload.bundle import load_bundle
from payload.codec.lapped import layers
from payload.codec.lapped.compiled_layers import EntropyKernel
from payload.codec.lapped.dense import mixing, small_mixing
from payload.codec.lapped.dense.compiled import CHANNEL_OCTETS, PLAIN_OCTETS
from payload.codec.lapped.dense.given import LOGIT_SIDE, chance_of, of_logits, squash
from payload.codec.lapped.dense.mixing import (
    FIRST,
    GENERATIONS,
    SECOND,
    SIGN,
    SIGNIFICANCE,
    THIRD,
    Decisions,
    Mixture,
    begins,
    least_worth,
)
from payload.codec.lapped.dense.small_mixing import open_mixture
from payload.codec.lapped.layers import decode_layers, encode_layers, profile_of
from payload.codec.lapped.quantiser import Indices
from payload.codec.lapped.range_coder import ONE, PlainDecoder, PlainEncoder
from payload.codec.lapped.tables import ContextTables, load_tables
from payload.engine import open_engine
from payload.errors import BundleError, InputError, StreamError
from payload.native import library
from payload.pipeline import Payload
from payload.policy import Policy

BANDS, LAYERS = 2, 3
#: Channels by rank of the tables below.
ORDER = np.random.default_rng(7).permutation(64 * BANDS)
#: numpy takes a second an example: a failure is not made smaller.
NO_SHRINKING = (Phase.explicit, Phase.reuse, Phase.generate)
ACTIVE = st.none() | st.integers(0, 99)
CELLS = st.sampled_from([(8, 8), (8, 16), (16, 8)])
needs_kernel = pytest.mark.skipif(not library.available, reason="the kernel was not built: no C compiler at install")


@pytest.fixture(scope="module")
def tables(make_tables, tmp_path_factory) -> ContextTables:
    made = load_tables(make_tables(tmp_path_factory.mktemp("tables") / "t.npz", BANDS, LAYERS))
    return replace(made, order=ORDER)


def random_indices(seed: int, cells: tuple[int, int] = (8, 8), density: float = 0.1) -> Indices:
    """Most in the first of the channels by rank: none behind the twentieth, since numpy is slow."""
    rng, shape = np.random.default_rng(seed), (64 * BANDS, *cells)
    falling = np.zeros((shape[0], 1, 1))
    falling[ORDER[:20], 0, 0] = np.linspace(2 * density, 0, 20)
    size = 1 + np.minimum(rng.exponential(9, shape), 60_000).astype(np.uint16)
    magnitude = np.where(rng.random(shape) < falling, size, 0).astype(np.uint16)
    if seed % 2:
        magnitude[ORDER[3], rng.integers(cells[0]), :3] = 65535
    sizes = rng.integers(0, 256, shape).astype(np.uint8) if seed % 3 == 0 else None
    return Indices(magnitude, rng.random(shape) < 0.4, size128=sizes)


def equal(a: Indices, b: Indices) -> bool:
    return np.array_equal(a.magnitude, b.magnitude) and np.array_equal(a.negative, b.negative)


@pytest.mark.parametrize("generation", [FIRST, SECOND, THIRD])
@settings(max_examples=4, deadline=None, phases=NO_SHRINKING)
@given(st.integers(0, 2**32), st.sampled_from([0.0, 0.01, 0.2]))
def test_any_beginning_of_the_layers_decodes_to_the_coarser_indices(tables, generation, seed, density) -> None:
    sent = replace(random_indices(seed, density=density), size128=None)
    coded = encode_layers(sent, tables, profile="dense", generation=generation)
    assert profile_of(coded) == "dense" or not sent.magnitude.any()
    for count in range(1, LAYERS + 1):
        coarser = (sent.magnitude >> LAYERS - count).astype(np.uint16)
        wanted = Indices(coarser, sent.negative & (coarser > 0))
        assert equal(decode_layers(coded[:count], sent.magnitude.shape, tables), wanted)


@needs_kernel
@pytest.mark.parametrize("generation", [FIRST, SECOND, THIRD])
@settings(max_examples=5, deadline=None, phases=NO_SHRINKING)
@given(st.integers(0, 2**32), CELLS, st.sampled_from([0.01, 0.2]), st.integers(1, LAYERS), ACTIVE, st.booleans())
def test_layers_are_those_of_the_definition(tables, generation, seed, cells, density, keep, active, plain) -> None:
    sent, coder = random_indices(seed, cells, density), EntropyKernel(tables, *cells)
    library.plain_only(plain)
    coded = coder.encode_layers(sent, keep, active, "dense", generation)
    wanted = encode_layers(sent, tables, keep=keep, last_active=active, profile="dense", generation=generation)
    assert coded == wanted
    found, wanted = coder.decode_layers(coded), decode_layers(coded, sent.magnitude.shape, tables)
    library.plain_only(False)
    assert equal(found, wanted)


@needs_kernel
@settings(max_examples=8, deadline=None, phases=NO_SHRINKING)
@given(st.integers(0, 2**32), st.integers(0, LAYERS - 1), st.data())
def test_damaged_octets_are_read_or_refused_alike(tables, seed, at, data) -> None:
    coder = EntropyKernel(tables, 8, 8)
    coded = list(coder.encode_layers(random_indices(seed), profile="dense"))
    octets = bytearray(coded[at])
    start = data.draw(st.integers(0, len(octets)))
    octets[start:] = data.draw(st.sampled_from([b"", b"\xff" * 40, data.draw(st.binary(max_size=40))]))
    coded[at] = bytes(octets)
    outcomes = []
    for decode in (coder.decode_layers, lambda given: decode_layers(given, (64 * BANDS, 8, 8), tables)):
        try:
            outcomes.append(decode(tuple(coded)))
        except StreamError as error:
            outcomes.append(str(error))
    found, wanted = outcomes
    assert found == wanted if isinstance(found, str) or isinstance(wanted, str) else equal(found, wanted)


@needs_kernel
def test_what_plain_bits_say_shorter_is_plain_and_the_mixture_begins_anew(tables) -> None:
    rng, shape = np.random.default_rng(1), (64 * BANDS, 8, 8)
    magnitude = np.zeros(shape, np.uint16)
    magnitude[ORDER[:20]] = rng.integers(0, 2**16, (20, 8, 8))
    noise = Indices(magnitude, rng.random(shape) < 0.5)
    quiet = np.where(rng.random(shape) < 0.5, noise.magnitude & 0xFFFC, noise.magnitude)
    for sent in (noise, Indices(quiet.astype(np.uint16), noise.negative)):
        coded = encode_layers(sent, tables, profile="dense")
        assert coded[0][0] & 0x80
        assert coded == EntropyKernel(tables, 8, 8).encode_layers(sent, profile="dense")
        assert np.array_equal(decode_layers(coded, shape, tables).magnitude, sent.magnitude)


HEADS = (0x4000, 0xC001, 0x4081, 0x6000, 0x2001, 0xE001, 0x6081, 0x5000, 0x7001, 0x1001, 0x3001, 0xD001, 0x5081)


@pytest.mark.parametrize("first", HEADS)
def test_heads_that_no_encoder_writes_are_refused(tables, first) -> None:
    """Nothing in the profile dense, plain bits in it, too many channels; a later generation of nothing; two at once."""
    with pytest.raises(StreamError, match="active channels"):
        decode_layers((first.to_bytes(2, "big") + bytes(BANDS + 40),), (64 * BANDS, 8, 8), tables)


def test_a_reader_without_the_profile_takes_its_layers_for_too_many_channels(tables) -> None:
    """Format 2 reads 15 bits as active channels: a layer of the profile has 16 384 and more."""
    octets = encode_layers(random_indices(5), tables, profile="dense")[0]
    assert int.from_bytes(octets[:2], "big") & 0x7FFF > 16 * 64


def test_symbols_without_octets_for_their_escapes_are_refused(tables) -> None:
    sent = random_indices(4)
    sent = Indices(np.full_like(sent.magnitude, 0xFFF0), sent.negative)
    layer = layers.DenseTile(tables)
    here = (sent.magnitude >> LAYERS - 1).astype(np.uint16)
    body = layer.encode(layers.Layer(0, here, sent.negative, 1, bytes(BANDS)))
    with pytest.raises(StreamError, match=r"do not hold 0 signs and [1-9]\d* escapes|no encoder"):
        decode_layers((bytes.fromhex("5001") + bytes(BANDS) + body[:9],), (64 * BANDS, 8, 8), tables)


def decisions(kind: int, generation: int, given, bits=None, **more) -> Decisions:
    """All of the first contexts there are."""
    counters, rows = (np.tile(each, (len(given), 1)) for each in begins(kind, generation))
    return Decisions(kind, counters, rows, np.asarray(given, np.int64), bits, **more)


def judged(mixture: Mixture, kind: int, given) -> tuple:
    """Inputs, and chances of a yes in 2^-24."""
    d = decisions(kind, mixture.generation, given)
    inputs, logits = mixture._judged(d.counters, d.rows, d.given)
    return inputs, chance_of(logits)


def yes(count: int):
    return np.ones(count, np.int32)


@pytest.mark.parametrize("generation", [FIRST, SECOND, THIRD])
def test_a_mixture_that_has_seen_nothing_says_what_the_bundle_says(generation) -> None:
    """Weights of 21845 three times make 65535 / 65536 of the logit; no counter has a word yet."""
    inputs, chance = judged(open_mixture(generation), SIGN, [0, 256, -512])
    assert (inputs[:, 1:] == 0).all()
    assert chance.tolist() == chance_of(np.array([0, 255, -512])).tolist()
    # no octave: a half; an octave up, less a 256th: nearly two to one; two down: a fifth
    assert chance[0] == ONE // 2 and abs(chance[1] / ONE - 2 / 3) < 1e-3 and abs(chance[2] / ONE - 1 / 5) < 1e-3


def test_what_a_batch_teaches_by_hand() -> None:
    """Three yeses where the bundle expected a half each: log2(4 / 2.5) - log2(2 / 3.5) in 256ths, mantissas linear."""
    mixture = Mixture(FIRST)
    mixture.code(PlainEncoder(), decisions(SIGNIFICANCE, FIRST, [0, 0, 0], yes(3)))
    inputs, _ = judged(mixture, SIGNIFICANCE, [0])
    # 4 = 2^2, 2.5 = 2^1 x 1.25: 2 - 1.25 = .75 octaves; 2 = 2^1, 3.5 = 2^1 x 1.75: -.75 octaves. Together 1.5: 384
    assert inputs[0].tolist() == [0] + [384] * 6
    # all inputs of the batch were 0, so no weight has moved; an error of a half at 384 moves each by 32768 x 384
    before = mixture._weights.copy()
    mixture.code(PlainEncoder(), decisions(SIGNIFICANCE, FIRST, [0], yes(1)))
    moved = (mixture._weights - before)[begins(SIGNIFICANCE, FIRST)[1]]
    assert (moved[:, 0] == 0).all() and len(np.unique(moved[:, 1:7])) == 1 and 0 < moved[0, 1] < 32768 * 384


def test_in_the_second_generation_a_decision_teaches_the_next_one_by_hand() -> None:
    """One yes where a half was expected: log2(2 / 1.5) - log2(1 / 1.5) is one octave, mantissas linear: 256."""
    mixture = Mixture(SECOND)
    mixture.code(PlainEncoder(), decisions(SIGNIFICANCE, SECOND, [0], yes(1)))
    inputs, chance = judged(mixture, SIGNIFICANCE, [0])
    assert inputs[0].tolist() == [0] + [256] * 10
    # five rows of ten weights of 58990 // 50 = 1179: 58950 / 65536 of an octave, 230 of 256ths, in favour of a yes
    assert chance[0] == squash()[230]


@pytest.mark.parametrize("generation", [FIRST, SECOND, THIRD])
def test_a_counter_that_is_full_is_halved(generation) -> None:
    mixture = Mixture(generation)
    mixture.code(PlainEncoder(), decisions(SIGN, generation, [256] * 1024, yes(1024)))
    first = begins(SIGN, generation)[0][0]
    assert (mixture._yes[first], mixture._no[first]) == (512, 0)
    assert mixture._expected[first] == 1024 * int(squash()[256] >> 8) // 2


def third(*seen: int) -> Mixture:
    """A mixture of the third generation whose counters have seen yes, no and expected."""
    mixture = open_mixture(THIRD)
    for kept, value in zip((mixture._yes, mixture._no, mixture._expected), seen, strict=True):
        kept[:] = value
    return mixture


def test_a_counter_of_the_third_generation_stays_within_four_octets() -> None:
    """Full at 255, of which 254 are left to see; what is expected never exceeds what was seen."""
    mixture, first = third(254, 0, 254 << 8), begins(SIGN, THIRD)[0][0]
    mixture.code(PlainEncoder(), decisions(SIGN, THIRD, [4095], yes(1)))
    assert (mixture._yes[first], mixture._no[first], mixture._expected[first]) == (127, 0, 127 << 8)
    mixture = third(100, 154, 60000)
    mixture.code(PlainEncoder(), decisions(SIGN, THIRD, [0], np.zeros(1, np.int32)))
    assert (mixture._yes[first], mixture._no[first], mixture._expected[first]) == (50, 77, 60128 // 2)
    mixture.code(PlainEncoder(), decisions(SIGN, THIRD, [-4095] * 40, np.zeros(40, np.int32)))
    assert mixture._expected[first] == 60128 // 2  # chances below 2^-9 are expected as none


def test_in_the_third_generation_a_decision_teaches_the_next_one_by_hand() -> None:
    """As in the second, 256; then an error at weights of 2^24 x 58990 / 65536 div 50 moves them by what kinds do."""
    mixture = open_mixture(THIRD)
    mixture.code(PlainEncoder(), decisions(SIGNIFICANCE, THIRD, [0], yes(1)))
    inputs, chance = judged(mixture, SIGNIFICANCE, [0])
    assert inputs[0].tolist() == [0] + [256] * 10
    # five rows of (58990 x 256) // 50 = 302028 are 1510140, >> 12 is 368 of 4096: ten times 368 x 256 >> 12 are 230
    assert chance[0] == squash()[230]
    before = mixture._weights.copy()
    mixture.code(PlainEncoder(), decisions(SIGNIFICANCE, THIRD, [0], yes(1)))
    moved = (mixture._weights - before)[begins(SIGNIFICANCE, THIRD)[1]]
    error = 65536 - int(chance[0] >> 8)
    assert (moved[:, 1:11] == error * 200 // 256 * 256 // 256).all() and (moved[:, 0] == 0).all()


def test_weights_of_the_third_generation_have_ends() -> None:
    """Three rows of nearly 8 are used as 32767 / 4096: 7 at a logit of 1, so half an error moves a weight by 160."""
    for limit, bit in ((small_mixing.WEIGHT_LIMIT, 1), (-small_mixing.WEIGHT_LIMIT, 0)):
        mixture, rows = open_mixture(THIRD), begins(SIGN, THIRD)[1]
        mixture._weights[:] = limit - np.sign(limit)
        _, chance = judged(mixture, SIGN, [1])
        assert chance[0] == chance_of(np.array([7 if bit else -8]))[0]
        mixture.code(PlainEncoder(), decisions(SIGN, THIRD, [1], np.full(1, bit, np.int32)))
        assert (mixture._weights[rows, 0] == limit).all()


@needs_kernel
def test_the_kernels_loops_agree_from_any_state_of_the_mixture(tables) -> None:
    """Weights up to their ends and full counters, which no tile of a test comes near."""
    coder, rng = EntropyKernel(tables, 8, 8), np.random.default_rng(11)
    sent, weights = random_indices(3, density=0.2), (library.loaded().nadir_mixture_octets(THIRD) - 8) // 4 - 68_908
    magnitude = (sent.magnitude >> LAYERS - 1).astype(np.uint16)
    for most in (1 << 20, small_mixing.WEIGHT_LIMIT):
        coder._dense.begin()
        words = coder._dense._mixture.view(np.uint32)[2:]
        words[:weights].view(np.int32)[:] = rng.integers(-most, most, weights, endpoint=True)
        yes, no = rng.integers(0, 128, (2, len(words) - weights))
        words[weights:] = yes | no << 8 | rng.integers(0, (yes + no << 8) + 1) << 16
        state, found = coder._dense._mixture.copy(), []
        for plain in (False, True):
            library.plain_only(plain)
            coder._dense._mixture[:] = state
            body = coder._encode_dense(0, 0, (magnitude, sent.negative, None), (40, np.zeros(BANDS, np.int16)))
            found.append((body, coder._dense._mixture.tobytes()))
        library.plain_only(False)
        assert found[0] == found[1] and found[0][1] != state.tobytes()


def test_chances_of_a_logit_and_of_its_opposite_make_one() -> None:
    logits = np.arange(1 - LOGIT_SIDE, LOGIT_SIDE)
    exact = np.clip(np.rint(ONE / (1.0 + np.exp2(-logits / 256))), 256, ONE - 256)
    assert np.array_equal(chance_of(logits), exact)


def test_a_magnitude_of_one_is_left_out_where_it_is_not_worth_its_octets() -> None:
    """Rebuilt at 78 / 64 of a step: (1.22^2 + .175 bits) / (2 x 1.22) of a step, in 128ths. At a logit of 0 a yes and
    its sign cost one bit more: 87.2; ten octaves down eleven bits: 179.1."""
    found = least_worth(np.array([500, 0, -2560]), 78)
    assert found.tolist() == [87, 87, 179]
    assert np.abs(found[1:] - 128 * (1.21875**2 + 0.175 * np.array([1, 11])) / 2.4375).max() < 1
    sizes = np.array([178, 180, 255])
    mixture, given = Mixture(FIRST), [-2560] * 3
    coded = mixture.code(PlainEncoder(), decisions(SIGN, FIRST, given, yes(3), sizes=sizes, rebuilt64=78))
    assert coded.tolist() == [0, 1, 1]


@needs_kernel
def test_layers_of_all_generations_in_one_tile_are_read_alike(tables) -> None:
    """No payload writes that. The mixture begins anew where the generation changes."""
    sent = replace(random_indices(6), size128=None)
    first, second, last = (
        encode_layers(sent, tables, profile="dense", generation=g) for g in (FIRST, SECOND, THIRD)
    )
    mixed, shape = (first[0], second[1], *last[2:]), sent.magnitude.shape
    found, wanted = EntropyKernel(tables, 8, 8).decode_layers(mixed), decode_layers(mixed, shape, tables)
    assert equal(found, wanted)
    assert equal(decode_layers(first[:1], shape, tables), decode_layers(second[:1], shape, tables))
    assert equal(decode_layers(first[:1], shape, tables), decode_layers(last[:1], shape, tables))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(1 << 8, ONE - (1 << 8)), st.integers(0, 1)), max_size=90))
def test_decisions_come_back_from_either_coder_by_the_same_octets(decisions) -> None:
    chance, bits = (np.array(column, np.int64) for column in (zip(*decisions, strict=True) if decisions else ((), ())))
    coder, library_coder = PlainEncoder(), layers.Encoder()
    for each in (coder, library_coder):
        each.put_bits(bits.astype(np.int32), chance)
    assert coder.octets() == library_coder.octets()
    for decoder in (PlainDecoder, layers.Decoder):
        assert decoder(coder.octets()).take_bits(chance).tolist() == bits.tolist()


def test_logits_between_classes_lie_between_theirs() -> None:
    of_class = np.arange(0, 3200, 100).astype(np.int16)
    logits = np.array([0, 128, 256, 384, 31 * 256 + 128, 32 * 256 - 1])
    assert of_logits(of_class, logits).tolist() == [0, 0, 50, 100, 3100, 3100]


@needs_kernel
def test_the_kernel_has_as_many_counters_and_weights_and_they_fit_on_board() -> None:
    """What flies is the third generation: mixture, chances and the bundle's tables are within the 400 kB of a board."""
    counters, rows = (sum(map(sum, sizes)) for sizes in (mixing.TABLE_SIZES, mixing.SET_SIZES))
    octets = library.loaded().nadir_mixture_octets
    assert octets(FIRST) == octets(SECOND) == 8 + 8 * counters + 8 * rows * 12  # a row has room for twelve weights
    significance, sizes, _, signs = (
        sum(of[s] for s in at) for of, at in zip(mixing.SET_SIZES, GENERATIONS[THIRD].rows, strict=True)
    )
    weights = 16 * significance + 2 * 8 * sizes + 16 * signs  # a register of eight for seven words and the given logit
    assert octets(THIRD) == 8 + 4 * counters + 4 * weights <= 345_000
    tables = load_bundle("edge").file("flight/tables.npz").stat().st_size
    assert octets(THIRD) + squash().nbytes + tables <= 400_000
    assert mixing.INPUTS <= 12 and len(GENERATIONS) == 3


@needs_kernel
@pytest.mark.parametrize("name", ["_scratch", "_mixture", "_out"])
def test_layers_are_not_coded_into_less_room_than_they_may_take(tables, name) -> None:
    coder = EntropyKernel(tables, 8, 8)
    setattr(coder._dense, name, getattr(coder._dense, name)[:-1])
    with pytest.raises(InputError, match="a buffer is too small for the kernel"):
        coder.encode_layers(random_indices(1), profile="dense")


@needs_kernel
def test_a_layer_stops_where_plain_bits_are_shorter(tables) -> None:
    """Every decision the dearest: the tables are sure of the opposite."""
    coder = EntropyKernel(tables, 8, 8)
    for held in coder.held():
        if held.name.startswith("kernel.dense") and "squash" not in held.name:
            held.memory[...] = 1 - LOGIT_SIDE
    shape = (64 * BANDS, 8, 8)
    sent = Indices(np.full(shape, 65535, np.uint16), np.ones(shape, bool))
    coder._dense.begin()
    octets = coder._encode_dense(0, 0, (sent.magnitude, sent.negative, None), (shape[0], np.zeros(BANDS, np.int16)))
    assert len(octets) <= PLAIN_OCTETS * sent.magnitude.size + CHANNEL_OCTETS * 64 + 64


def test_a_codec_of_one_profile_is_refused_before_a_tile_is_coded() -> None:
    with pytest.raises(BundleError, match="no profile 'dense'; fly edge, or leave profile out"):
        Payload(load_bundle("corsa-fpn3-256"), Policy(profile="dense"), open_engine("openvino"))
    assert Payload(load_bundle("edge"), Policy(profile="dense"), open_engine("openvino")).codec.layers
