"""Reed-Solomon: published coefficients, other people's coders, one law, the kernel beside numpy, what is beyond it."""

import ctypes
import ctypes.util

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from payload.errors import InputError
from payload.link.frames import reed_solomon
from payload.link.frames.reed_solomon import EXP, LOG, UNCORRECTABLE, ReedSolomon, multiply
from payload.native import library

codes = st.builds(
    lambda parity, interleave, dual, short: ReedSolomon(parity, interleave, dual, 255 - parity - short),
    st.sampled_from([16, 32]), st.integers(1, 8), st.booleans(), st.integers(0, 200),
)  # fmt: skip


def libfec() -> ctypes.CDLL:
    name = ctypes.util.find_library("fec")
    if name is None:
        pytest.skip("libfec is not installed (Debian: libfec0)")
    found = ctypes.CDLL(name)
    found.init_rs_char.restype = ctypes.c_void_p
    return found


def damaged(code: ReedSolomon, blocks: np.ndarray, errors: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Blocks with so many [n, interleave] wrong symbols in each codeword."""
    words = blocks.reshape(len(blocks), code.data_symbols + code.parity, code.interleave).copy()
    for (n, c), count in np.ndenumerate(errors):
        places = rng.choice(words.shape[1], count, replace=False)
        words[n, places, c] ^= rng.integers(1, 256, count, dtype=np.uint8)
    return words.reshape(blocks.shape)


def test_the_generator_is_the_published_one() -> None:
    """131.0-B, annex on the generator polynomial, E = 16: powers of a of its coefficients, the same backwards."""
    power_of = {int(EXP[k]): 11 * k % 255 for k in range(255)}
    published = [0, 249, 59, 66, 4, 43, 126, 251, 97, 30, 3, 213, 50, 66, 170, 5, 24]
    found = [power_of[int(c)] for c in reed_solomon._generator(32)]
    assert found == published + published[-2::-1]


def test_the_dual_basis_is_dual() -> None:
    """Bit i of a symbol in it is the trace of the symbol times b^i, b = a^117 (131.0-B, annex F)."""
    to_dual = ReedSolomon().tables[1024:1280]
    symbols = np.arange(256, dtype=np.uint8)

    def trace(x: np.ndarray) -> np.ndarray:
        total, power = x.copy(), x
        for _ in range(7):
            power = multiply(power, power)
            total ^= power
        return total

    base = EXP[117 * pow(11, -1, 255) % 255]
    factor = np.uint8(1)
    for bit in range(8):
        assert np.array_equal(to_dual >> (7 - bit) & 1, trace(multiply(symbols, np.full(256, factor, np.uint8))))
        factor = np.uint8(multiply(np.array([factor]), np.array([base]))[0])


def test_a_codeword_of_one_symbol_by_hand() -> None:
    """The last data symbol is 1: its parity is the generator without its first coefficient."""
    code = ReedSolomon(32, 1, dual_basis=False, data_symbols=1)
    parity = "5b7f56101e0deb61a5082a3656ab207120ab56362a08a561eb0d1e10567f5b01"
    assert code.encode(np.array([[1]], np.uint8)).tobytes().hex() == "01" + parity


@settings(max_examples=60, deadline=None)
@given(codes, st.integers(0, 2**32 - 1))
def test_what_can_be_corrected_is_and_what_cannot_is_told(code, seed) -> None:
    rng = np.random.default_rng(seed)
    data = rng.integers(0, 256, (3, code.data_octets), dtype=np.uint8)
    blocks = code.encode(data)
    assert np.array_equal(blocks[:, : code.data_octets], data)
    errors = rng.integers(0, code.parity // 2 + 1, (3, code.interleave))
    found, corrected = code.decode(damaged(code, blocks, errors, rng))
    assert np.array_equal(found, data) and np.array_equal(corrected, errors)


@settings(max_examples=25, deadline=None)
@given(codes, st.integers(0, 2**32 - 1), st.integers(0, 2))
def test_the_kernel_and_numpy_say_the_same(code, seed, count) -> None:
    if not library.available:
        pytest.skip("the kernel was not built")
    rng = np.random.default_rng(seed)
    data = rng.integers(0, 256, (count, code.data_octets), dtype=np.uint8)
    blocks = code.encode(data)
    bad = damaged(code, blocks, rng.integers(0, code.parity // 2 + 4, (count, code.interleave)), rng)
    found = code.decode(bad)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(library, "available", False)
        assert np.array_equal(code.encode(data), blocks)
        told = code.decode(bad)
    assert np.array_equal(found[0], told[0]) and np.array_equal(found[1], told[1])


@pytest.mark.parametrize(("parity", "first"), [(32, 112), (16, 120)])
def test_libfec_writes_the_same_parity(parity, first) -> None:
    """10 000 codewords in the usual basis; (255,223) in the dual one, too."""
    fec, rng = libfec(), np.random.default_rng(parity)
    coder = ctypes.c_void_p(fec.init_rs_char(8, 0x187, first, 11, parity, 0))
    code = ReedSolomon(parity, 1, dual_basis=False, data_symbols=255 - parity)
    data = rng.integers(0, 256, (10_000, 255 - parity), dtype=np.uint8)
    ours, theirs = code.encode(data), np.zeros((10_000, parity), np.uint8)
    for n in range(len(data)):
        fec.encode_rs_char(coder, data[n].ctypes.data_as(ctypes.c_char_p), theirs[n].ctypes.data_as(ctypes.c_char_p))
    assert np.count_nonzero((ours[:, 255 - parity :] != theirs).any(axis=1)) == 0
    if parity == 32:
        ours = ReedSolomon(32, 1).encode(data)
        for n in range(len(data)):
            fec.encode_rs_ccsds(data[n].ctypes.data_as(ctypes.c_char_p), theirs[n].ctypes.data_as(ctypes.c_char_p), 0)
        assert np.count_nonzero((ours[:, 223:] != theirs).any(axis=1)) == 0


def test_libfec_corrects_our_frames_as_we_do() -> None:
    """10 000 codewords with 0 to 18 wrong symbols: the same number corrected, or given up."""
    fec, rng = libfec(), np.random.default_rng(3)
    code = ReedSolomon(32, 1)
    blocks = code.encode(rng.integers(0, 256, (10_000, 223), dtype=np.uint8))
    bad = damaged(code, blocks, rng.integers(0, 19, (10_000, 1)), rng)
    data, corrected = code.decode(bad)
    theirs = bad.copy()
    counts = [fec.decode_rs_ccsds(word.ctypes.data_as(ctypes.c_char_p), None, 0, 0) for word in theirs]
    assert np.array_equal(np.maximum(counts, UNCORRECTABLE), corrected[:, 0])
    whole = corrected[:, 0] >= 0
    assert 8000 < whole.sum() < 9200 and np.array_equal(theirs[whole, :223], data[whole])


@pytest.mark.parametrize("interleave", [1, 5])
def test_reed_solomon_ccsds_writes_and_reads_the_same_blocks(interleave) -> None:
    judge = pytest.importorskip("reed_solomon_ccsds")
    code, rng = ReedSolomon(32, interleave), np.random.default_rng(interleave)
    data = rng.integers(0, 256, (2, code.data_octets), dtype=np.uint8)
    blocks = code.encode(data)
    bad = damaged(code, blocks, np.full((2, interleave), 16), rng)
    for n in range(len(data)):
        assert judge.encode(data[n].tobytes(), dual_basis=True, interleaving=interleave) == blocks[n].tobytes()
        found = judge.decode(bad[n].tobytes(), dual_basis=True, interleaving=interleave)
        assert found == ([16] * interleave, data[n].tobytes())


@pytest.mark.parametrize("parity", [32, 16])
def test_beyond_its_half_of_the_parity_a_code_gives_up_as_often_as_theory_says(parity) -> None:
    """Words with one to many errors too many are never silently taken for another codeword, but for the share of words
    that lie within the code's reach of one: sum C(255, i) 255^i / 256^parity."""
    rng, trials = np.random.default_rng(parity), 40_000
    code = ReedSolomon(parity, 1, True, 255 - parity)
    words = rng.integers(0, 256, (trials, 255), dtype=np.uint8)
    _, corrected = code.decode(words)
    taken = int((corrected >= 0).sum())
    log_share = np.logaddexp.reduce([binom_log(i) for i in range(parity // 2 + 1)]) - parity * np.log(256)
    assert taken <= binom.ppf(1 - 1e-9, trials, np.exp(log_share))


def binom_log(i: int) -> float:
    """log of C(255, i) 255^i."""
    return float(np.sum(np.log(np.arange(255 - i + 1, 256))) - np.sum(np.log(np.arange(1, i + 1))) + i * np.log(255))


def test_one_error_too_many_is_told_and_changes_nothing() -> None:
    code, rng = ReedSolomon(32, 5), np.random.default_rng(1)
    data = rng.integers(0, 256, (200, code.data_octets), dtype=np.uint8)
    bad = damaged(code, code.encode(data), np.full((200, 5), 17), rng)
    found, corrected = code.decode(bad)
    assert (corrected == UNCORRECTABLE).all() and np.array_equal(found, bad[:, : code.data_octets])


@pytest.mark.parametrize(
    ("fields", "cause"),
    [
        ({"parity": 20}, "20 symbols, wanted 32 or 16"),
        ({"interleave": 9}, "9, wanted 1 to 8"),
        ({"data_symbols": 224}, "224 symbols of data, wanted 1 to 223"),
    ],
)
def test_a_code_that_is_none_of_the_standards_is_misuse(fields, cause) -> None:
    with pytest.raises(InputError, match=cause):
        ReedSolomon(**fields)


def test_logarithms_and_powers_belong_together() -> None:
    assert np.array_equal(EXP[LOG[1:]], np.arange(1, 256, dtype=np.uint8)) and np.array_equal(EXP[:255], EXP[255:510])


def test_the_usual_code_has_five_codewords_of_255_symbols_in_a_block() -> None:
    usual = ReedSolomon()
    assert (usual.parity, usual.interleave, usual.dual_basis, usual.data_symbols) == (32, 5, True, 223)
