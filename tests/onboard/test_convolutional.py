"""The convolutional code: its answer to one bit by hand, libfec's decoder beside ours, and what it corrects."""

import ctypes
import ctypes.util

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from payload.link.frames.convolutional import ConvolutionalEncoder, viterbi
from payload.native import library


def symbols_of(octets: bytes) -> np.ndarray:
    """Sure soft symbols [n, 2]."""
    return (np.unpackbits(np.frombuffer(ConvolutionalEncoder().encode(octets), np.uint8)) * np.uint8(255)).reshape(
        -1, 2
    )


def bits_of(octets: bytes) -> np.ndarray:
    return np.unpackbits(np.frombuffer(octets, np.uint8))


def test_one_bit_by_hand() -> None:
    """A one and zeros: the first symbols spell G1 = 1111001, the second G2 = 1011011 turned round."""
    pairs = ["10", "11", "10", "10", "01", "00", "10"]
    wanted = "".join(pairs) + "01" * 9
    assert f"{int.from_bytes(ConvolutionalEncoder().encode(bytes([0x80, 0])), 'big'):032b}" == wanted


@given(st.lists(st.binary(max_size=20), max_size=5))
def test_the_encoder_runs_on_from_piece_to_piece(pieces) -> None:
    encoder = ConvolutionalEncoder()
    assert b"".join(map(encoder.encode, pieces)) == ConvolutionalEncoder().encode(b"".join(pieces))


@settings(deadline=None)
@given(st.binary(min_size=30, max_size=200))
def test_what_was_encoded_is_decoded_but_for_the_unsure_ends(octets) -> None:
    bits, cost = viterbi(symbols_of(octets))
    assert cost == 0 and np.array_equal(bits[:-8], bits_of(octets)[:-8])


@settings(deadline=None, max_examples=20)
@given(st.binary(min_size=2, max_size=40), st.integers(0, 2**32 - 1))
def test_the_kernel_and_numpy_say_the_same(octets, seed) -> None:
    if not library.available:
        pytest.skip("the kernel was not built")
    symbols = np.random.default_rng(seed).integers(0, 256, (8 * len(octets), 2), dtype=np.uint8)
    found = viterbi(symbols)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(library, "available", False)
        told = viterbi(symbols)
    assert np.array_equal(found[0], told[0]) and found[1] == told[1]


def test_libfec_decodes_our_symbols_as_we_do() -> None:
    """Soft symbols with noise at Eb/N0 = 3 dB: the same bits, apart from a few ties at most."""
    name = ctypes.util.find_library("fec")
    if name is None:
        pytest.skip("libfec is not installed (Debian: libfec0)")
    fec, rng = ctypes.CDLL(name), np.random.default_rng(5)
    fec.create_viterbi27.restype = ctypes.c_void_p
    octets = rng.bytes(10_000) + bytes(1)
    sent = symbols_of(octets).reshape(-1)
    noisy = np.clip(127.5 + 40 * ((sent / 127.5 - 1) + rng.normal(0, 0.5**0.5 * 10**-0.15 * 2**0.5, sent.size)), 0, 255)
    symbols = noisy.round().astype(np.uint8)
    theirs_in = np.empty_like(symbols)  # libfec has G2 first, and does not turn it round
    theirs_in[0::2], theirs_in[1::2] = 255 - symbols[1::2], symbols[0::2]
    count = len(octets) * 8 - 6
    state = ctypes.c_void_p(fec.create_viterbi27(count))
    fec.init_viterbi27(state, 0)
    fec.update_viterbi27_blk(state, theirs_in.ctypes.data_as(ctypes.c_char_p), count + 6)
    out = np.zeros(len(octets), np.uint8)
    fec.chainback_viterbi27(state, out.ctypes.data_as(ctypes.c_char_p), count, 0)
    ours, _ = viterbi(symbols.reshape(-1, 2))
    truth = bits_of(octets)[:count]
    assert np.count_nonzero(np.unpackbits(out)[:count] != ours[:count]) <= 20
    assert np.count_nonzero(ours[:count] != truth) < 1e-3 * count < np.count_nonzero((symbols > 127) != (sent > 127))
