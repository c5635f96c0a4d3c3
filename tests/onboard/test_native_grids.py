"""Bands of several resolutions in one tile code: each group is coded as it would be alone, and nothing is resampled."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from payload.bundle import Bundle, load_bundle
from payload.codec.interface import NativeGrids, Quality
from payload.codec.lapped.codec import FsqCodec
from payload.codec.lapped.many.framing import frame, unframe
from payload.codec.lapped.many.groups import GroupsCodec
from payload.codec.registry import open_codec
from payload.errors import BundleError, StreamError
from payload.stopwatch import Stopwatch
from payload.tiles import Tile

SIDE, COARSE = 128, 64
BANDS = [("B02", 10.0), ("B05", 20.0), ("B03", 10.0), ("B11", 20.0), ("B08", 10.0)]
FINE_PLACES, COARSE_PLACES = [0, 2, 4], [1, 3]
everywhere = np.ones((SIDE, SIDE), bool)


def manifest_of(bands: list[tuple[str, float]], tile_px: int, tables: dict) -> dict:
    listed = [{"name": name, "gsd_m": gsd_m} for name, gsd_m in bands]
    sensor = {"name": "two grids", "kind": "optical", "bits": 12, "bands": listed}
    codec = {"kind": "fsq-groups", "layers": 3, "groups": tables}
    return {"bands": [name for name, _ in bands], "tile_px": tile_px, "codec": codec, "sensor": sensor}


@pytest.fixture(scope="module")
def made(make_tables, tmp_path_factory) -> tuple[Bundle, list[Bundle]]:
    """A bundle of two groups, and a bundle for each of them alone: the coarse one first."""
    from toys import write_bundle

    folder, own = tmp_path_factory.mktemp("grids"), {"kind": "fsq", "layers": 3, "differences_px": 2}
    tables = {n: make_tables(folder / f"{n}.npz", n, 3, n).read_bytes() for n in (2, 3)}
    files = {"flight/10m/tables.npz": tables[3], "flight/20m/tables.npz": tables[2],
             "flight/10m/encoder.onnx": b"toy", "flight/20m/encoder.onnx": b"toy"}  # fmt: skip
    whole = write_bundle(folder / "whole", files, **manifest_of(BANDS, SIDE, {"10m": own, "20m": own}))
    alone = [
        write_bundle(folder / f"alone{n}", {"flight/tables.npz": tables[n], "flight/encoder.onnx": b"toy"},
                     bands=[f"C{k}" for k in range(n)], tile_px=side, codec=own)
        for n, side in ((2, COARSE), (3, SIDE))
    ]  # fmt: skip
    return load_bundle(whole), [load_bundle(folder) for folder in alone]


def pictures(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Coarse [2, 64, 64] and fine [3, 128, 128] pictures of the same ground."""
    rng = np.random.default_rng(seed)
    waves = [np.sin(np.add.outer(np.arange(SIDE) / rng.uniform(3, 30), np.arange(SIDE) / 7)) for _ in range(5)]
    noisy = 3000 + 900 * np.array(waves) + rng.normal(0, rng.choice([1, 100, 900]), (5, SIDE, SIDE))
    dn = np.clip(noisy, 0, 65535).astype(np.uint16)
    return dn[3:, ::2, ::2], dn[:3]


def tile_of(coarse: np.ndarray, fine: np.ndarray) -> Tile:
    dn = np.empty((5, SIDE, SIDE), np.uint16)
    dn[FINE_PLACES], dn[COARSE_PLACES] = fine, coarse.repeat(2, axis=1).repeat(2, axis=2)
    return Tile(0, 0, dn, everywhere)


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 2**32), step=st.sampled_from([1.0, 40.0, 300.0, 9000.0]), kept=st.integers(1, 3))
def test_every_group_is_coded_as_it_would_be_alone_and_comes_back_on_its_grid(
    made, toy_engine, seed, step, kept
) -> None:
    whole, alone = made
    coarse, fine = pictures(seed)
    codec, quality = open_codec(whole, toy_engine), Quality(step, keep=kept, with_errors=True)
    coded = codec.encode(tile_of(coarse, fine), quality, Stopwatch())
    own = [
        FsqCodec(bundle, toy_engine).encode(Tile(0, 0, dn, np.ones(dn.shape[1:], bool)), quality, Stopwatch())
        for bundle, dn in zip(alone, (coarse, fine), strict=True)
    ]
    assert coded.side == own[0].side + own[1].side
    assert coded.layers == tuple(map(frame, zip(own[0].layers, own[1].layers, strict=True)))
    assert coded.errors == tuple(a + b for a, b in zip(own[0].errors, own[1].errors, strict=True))
    found = codec.decode(coded.side, coded.layers)
    parts = [FsqCodec(b, toy_engine).decode(c.side, c.layers) for b, c in zip(alone, own, strict=True)]
    assert np.array_equal(
        codec.finest(found),
        np.concatenate([FsqCodec(b, None).finest(p).ravel() for b, p in zip(alone, parts, strict=True)]),
    )
    assert isinstance(codec, NativeGrids) and [(g.name, g.times) for g in codec.grids] == [("10m", 1), ("20m", 2)]


def test_what_is_decoded_is_each_groups_own_picture_coarse_pixels_repeated(made, toy_engine) -> None:
    whole, alone = made
    for path in (*(whole.directory / "flight").glob("*/tables.npz"), *(b.file("flight/tables.npz") for b in alone)):
        with_shipped_kernels(path)
    codec = GroupsCodec(whole, toy_engine)
    coded = codec.encode(tile_of(*pictures(1)), Quality(8.0), Stopwatch())
    found = codec.decode(coded.side, coded.layers)
    dn = codec.reconstruct(found, None)
    coarse, fine = (FsqCodec(b, None).reconstruct(own, None) for b, own in zip(alone, found, strict=True))
    assert np.array_equal(dn[FINE_PLACES], fine)
    assert np.array_equal(dn[COARSE_PLACES], coarse.repeat(2, axis=1).repeat(2, axis=2))


def with_shipped_kernels(path: Path) -> None:
    shipped = np.load(load_bundle("edge").file("flight/tables.npz"))
    np.savez(path, **{**np.load(path), "kernels": shipped["kernels"], "exponents": shipped["exponents"]})


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**32), share=st.floats(0.0, 1.0))
def test_a_layer_is_cut_to_any_budget_and_what_is_left_decodes(made, toy_engine, seed, share) -> None:
    codec = GroupsCodec(made[0], toy_engine)
    coded = codec.encode(tile_of(*pictures(seed)), Quality(60.0), Stopwatch())
    before = sum(map(len, coded.layers[:-1]))
    budget = before + int(share * len(coded.layers[-1]))
    cut = codec.shorten(coded.layers, budget)
    assert cut[:-1] == coded.layers[:-1]
    assert sum(map(len, cut)) <= budget or cut == coded.layers
    assert len(codec.finest(codec.decode(coded.side, cut))) == (2 * COARSE**2 + 3 * SIDE**2)


def test_a_coarse_pixel_is_the_mean_of_what_is_valid_below_it(made, toy_engine) -> None:
    codec = GroupsCodec(made[0], toy_engine)
    coarse, fine = pictures(2)
    tile = tile_of(coarse, fine)
    dn, valid = tile.dn.copy(), everywhere.copy()
    valid[:2, :2], valid[0, 2:4], dn[1, 0, 2:4] = False, False, 0
    dn[1, 4:6, 4:6] = [[10, 11], [11, 11]]
    part = codec._parts[0].of(Tile(0, 0, dn, valid))
    assert not part.valid[0, 0] and part.valid[0, 1] and part.dn[0, 0, 1] == coarse[0, 0, 1]
    assert part.dn[0, 2, 2] == 11 and np.array_equal(part.dn[0, 3:], coarse[0, 3:])


def test_by_hand_a_layer_of_two_groups(made) -> None:
    assert frame([b"ab", b""]) == b"\0\0\2ab\0\0\0"
    assert unframe(b"\0\0\2ab\0\0\0", 2, "layer 0") == [b"ab", b""]


@pytest.mark.parametrize(
    ("layers", "words"),
    [
        ((), "0 layers"), ((b"",), "no octets"), ((b"\0\0\5ab",), "ends at octet 8 of 5"),
        ((b"\0\0\0" * 3,), "part 2 of 2"),
        ((b"\0\0\0", b"\0\0\4\0\0\0\0"), "layer 0: nothing of group 0 of 2, and more of it behind"),
    ],
)  # fmt: skip
def test_layers_that_are_no_groups_are_refused(made, layers, words) -> None:
    codec = GroupsCodec(made[0], None)
    with pytest.raises(StreamError, match=words):
        codec.decode(bytes(21), layers)


def test_side_information_of_another_length_is_refused(made) -> None:
    with pytest.raises(StreamError, match="12 octets of side information, wanted"):
        GroupsCodec(made[0], None).decode(bytes(12), (b"\0\0\0",))


@pytest.mark.parametrize(
    ("bands", "tile_px", "words"),
    [
        (BANDS, 192, "2 x the finest pixel, in tiles of 192 px"),
        ([("B02", 10.0), ("B05", 25.0)], 128, r"2\.5 x the finest"),
    ],
)
def test_groups_that_no_tile_holds_whole_are_refused_with_the_mend(
    tmp_path: Path, make_bundle, bands, tile_px, words
) -> None:
    bundle = load_bundle(make_bundle(tmp_path / "b", {"flight/none": b""}, **manifest_of(bands, tile_px, {})))
    with pytest.raises(BundleError, match=words):
        GroupsCodec(bundle, None)


def test_a_group_without_a_table_is_said(tmp_path: Path, make_bundle) -> None:
    manifest = manifest_of(BANDS, SIDE, {"10m": {"kind": "fsq"}})
    bundle = load_bundle(make_bundle(tmp_path / "b", {"flight/none": b""}, **manifest))
    with pytest.raises(BundleError, match="groups has no table 20m"):
        GroupsCodec(bundle, None)
