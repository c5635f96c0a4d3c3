"""Codebook indices: fixed-length packing, nearest vectors against brute force, codebooks that cannot be used."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from payload.codec.vq.codebooks import CHUNK, Codebook, load_codebooks, nearest, normalise, pack_indices, unpack_indices
from payload.errors import BundleError, StreamError


def book_of(bits: int, depth: int = 1) -> Codebook:
    return Codebook(np.zeros((1 << bits, depth), np.float32))


@settings(deadline=None)
@given(st.integers(1, 12), st.integers(1, 16), st.integers(0, 2**32))
def test_unpack_is_the_inverse_of_pack(bits, side, seed) -> None:
    indices = np.random.default_rng(seed).integers(0, 1 << bits, (side, side)).astype(np.uint16)
    octets = pack_indices(indices, book_of(bits))
    assert len(octets) == -(-side * side * bits // 8)  # log2 K bits an index, padded once
    assert np.array_equal(unpack_indices(octets, book_of(bits), side), indices)


def test_octets_by_hand() -> None:
    # K = 8, three bits: 5 = 101, 0 = 000, 7 = 111, 2 = 010 -> 10100011 1010(0000)
    octets = pack_indices(np.array([[5, 0], [7, 2]], np.uint16), book_of(3))
    assert octets == bytes([0b10100011, 0b10100000])


@pytest.mark.parametrize("length", [0, 1, 3])
def test_another_length_is_refused(length) -> None:
    with pytest.raises(StreamError, match=f"{length} octets for 4 indices of 3 bits"):
        unpack_indices(bytes(length), book_of(3), 2)


def test_padding_is_not_looked_at() -> None:
    assert unpack_indices(bytes([0b10100011, 0b10101111]), book_of(3), 2).tolist() == [[5, 0], [7, 2]]


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([2, 16, 64]), st.integers(1, 5))
def test_nearest_is_the_lowest_index_of_least_distance(seed, size, depth) -> None:
    rng = np.random.default_rng(seed)
    # few values, so that vectors repeat and distances tie
    vectors = rng.choice([-128, -3, 0, 1, 127], (size, depth)).astype(np.float32)
    latents = rng.choice([-128, -2, 0, 127], (1, depth, 4, 5)).astype(np.int8)
    rows = latents[0].reshape(depth, -1).T.astype(np.int64)
    distance = ((rows[:, None] - vectors[None].astype(np.int64)) ** 2).sum(axis=2)  # [20, K]
    assert nearest(latents, Codebook(vectors)).ravel().tolist() == distance.argmin(axis=1).tolist()


def test_chunks_join_without_a_seam() -> None:
    rng = np.random.default_rng(3)
    side = int(CHUNK**0.5) + 7
    latents = rng.integers(-128, 128, (1, 2, side, side)).astype(np.int8)
    book = Codebook(rng.integers(-128, 128, (8, 2)).astype(np.float32))
    halves = [nearest(part, book) for part in (latents[:, :, :9], latents[:, :, 9:])]
    assert np.array_equal(nearest(latents, book), np.concatenate(halves))


def arrays(**changes) -> dict:
    good = {
        "strides": np.array([8, 4]), "book0": np.zeros((4, 3), np.int8), "book1": np.ones((2, 3), np.int8),
        "mean_dn": np.array([1000.0, 2000.0]), "scale_dn": np.array([10.0, 20.0]),
    }  # fmt: skip
    return {name: array for name, array in (good | changes).items() if array is not None}


def test_codebooks_of_a_file(tmp_path) -> None:
    np.savez(tmp_path / "t.npz", **arrays())
    found = load_codebooks(tmp_path / "t.npz")
    assert [book.bits for book in found.books] == [2, 1] and found.strides == (8, 4)
    # (1015 - 1000) / 10 = 1.5 rounds to even 2; (0 - 2000) / 20 = -100; far out is clipped to int8
    dn = np.array([[[1015, 65535]], [[0, 65535]]], np.uint16)
    assert normalise(dn, found)[0].tolist() == [[[2.0, 127.0]], [[-100.0, 127.0]]]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"book1": None}, "book1 is missing"),
        ({"mean_dn": None}, "mean_dn is missing"),
        ({"book0": np.zeros((3, 3), np.int8)}, "wanted 2, 4, ... 65536 vectors"),
        ({"book0": np.zeros((1, 3), np.int8)}, "wanted 2, 4, ... 65536 vectors"),
        ({"book0": np.full((4, 3), 300)}, "book0 is from 300 to 300"),
        ({"book0": np.zeros((4, 0), np.int8)}, r"book0 is int8 \[4, 0\]"),
        ({"strides": np.array([4, 8])}, "wanted strides that fall"),
        ({"strides": np.array([8, 0])}, "strides is from 0 to 8"),
        ({"scale_dn": np.array([10.0, 0.0])}, "scale_dn is from 0 to 10"),
        ({"scale_dn": np.array([10.0, np.nan])}, "scale_dn is from nan to nan"),
        ({"mean_dn": np.array([np.inf, 0.0])}, "mean_dn is from 0 to inf"),
        ({"scale_dn": np.array([10.0])}, r"scale_dn is float64 \[1\], wanted numbers \[2\]"),
    ],
)
def test_codebooks_that_cannot_be_used_are_a_bundle_error(tmp_path, change, words) -> None:
    np.savez(tmp_path / "t.npz", **arrays(**change))
    with pytest.raises(BundleError, match=words):
        load_codebooks(tmp_path / "t.npz")


def test_a_file_that_is_no_archive_is_a_bundle_error(tmp_path) -> None:
    (tmp_path / "t.npz").write_bytes(b"nothing of the kind")
    with pytest.raises(BundleError, match="rebuild the bundle"):
        load_codebooks(tmp_path / "t.npz")
