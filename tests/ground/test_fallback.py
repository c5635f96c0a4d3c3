"""Tiles without the bundle's networks: their law, hostile octets, when a mission takes them, and a ground that reads
them whatever its bundle."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from payload.bundle import bare_bundle, load_bundle
from payload.codec import jpeg2000
from payload.codec.interface import Quality
from payload.codec.jpeg2000 import FallbackCodec
from payload.errors import BundleError, InputError, StreamError
from payload.link.space_packet import SequenceCounter, segment
from payload.link.tile_code import Kind, TileCode, pack
from payload.pipeline import Payload
from payload.policy import Gate, Policy
from payload.sensor import RGBN
from payload.stopwatch import Stopwatch
from payload.tiles import Tile, split
from sim.downlink import Request, downlink, load_or_stand_in
from sim.ground.decoder import Decoder
from sim.ground.reception import by_id, receive
from sim.mission.spec import load_mission

T = 64


def fallback(tile_px: int = T) -> FallbackCodec:
    return FallbackCodec(bare_bundle("none", RGBN, tile_px))


def tile_of(dn: np.ndarray) -> Tile:
    return Tile(0, 0, dn.astype(np.uint16), np.ones(dn.shape[1:], bool))


@pytest.mark.parametrize("wanted_db", [35.0, 45.0, 55.0])
def test_a_tile_comes_back_with_the_error_that_was_asked_for(ground_of, wanted_db) -> None:
    """On ground with texture; where there is none OpenJPEG may stop a few decibels short."""
    texture = np.random.default_rng(5).normal(0, 200, (4, T, T))
    codec, tile = fallback(), tile_of(np.clip(ground_of(1, 1) + texture, 0, 65535))
    coded = codec.encode(tile, Quality(psnr_db=wanted_db), Stopwatch())
    found = codec.reconstruct(codec.decode(coded.side, coded.layers), None)
    mse = ((found.astype(float) - tile.dn) ** 2).mean()
    assert wanted_db - 1.0 < 10 * np.log10(1e8 / mse) < wanted_db + 1.5
    assert len(coded.side) == 8 + 9 + 1 and len(coded.layers) == 1 and b"\xff\x64" not in coded.layers[0][:200]


def test_the_extremes_survive() -> None:
    """Saturated pixels over darkness need halving to fit 16 bits; a constant tile costs next to nothing."""
    codec, rng = fallback(), np.random.default_rng(1)
    loud = tile_of(np.where(rng.random((4, T, T)) < 0.5, 65535, 0))
    for tile, most_octets in ((loud, 10**6), (tile_of(np.full((4, T, T), 777)), 250)):
        coded = codec.encode(tile, Quality(psnr_db=50.0), Stopwatch())
        found = codec.reconstruct(codec.decode(coded.side, coded.layers), None)
        assert coded.octets < most_octets
        spread = ((tile.dn - tile.dn.mean(axis=(1, 2), keepdims=True)) ** 2).sum()
        assert coded.errors[0] == pytest.approx(spread, rel=0.01, abs=4 * T * T)  # nothing sent: the tile's own energy
        assert np.abs(found.astype(int) - tile.dn).max() < 2000


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=30), st.binary(max_size=200), st.integers(0, 2), st.data())
def test_hostile_octets_are_refused(side, noise, layers, data) -> None:
    codec = fallback()
    good = codec.encode(tile_of(np.arange(4 * T * T).reshape(4, T, T) % 5000), Quality(), Stopwatch())
    damaged = bytearray(good.layers[0])
    damaged[data.draw(st.integers(0, len(damaged) - 1))] ^= data.draw(st.integers(1, 255))
    attempts = [(side, (noise,) * layers), (good.side, (noise,)), (good.side, (bytes(damaged),)), (side, good.layers)]
    for attempt in attempts:
        try:
            found = codec.reconstruct(codec.decode(*attempt), None)
        except StreamError:
            continue
        assert found.shape == (4, T, T) and found.dtype == np.uint16


def test_a_picture_of_another_size_is_no_tile() -> None:
    larger = fallback(2 * T)
    coded = larger.encode(tile_of(np.full((4, 2 * T, 2 * T), 5)), Quality(), Stopwatch())
    with pytest.raises(StreamError, match=r"uint16 \[4, 128, 128\], wanted uint16 \[4, 64, 64\]"):
        fallback().decode(coded.side, coded.layers)


def test_without_the_library_the_message_says_what_to_do(monkeypatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    with pytest.raises(InputError, match="fallback tiles need imagecodecs; pip install it, or set fallback = 'never'"):
        fallback()


@pytest.mark.parametrize("octets", [10, 10**7])
def test_compared_tiles_go_the_way_of_fewer_octets(toy_bundle, toy_engine, ground_of, monkeypatch, octets) -> None:
    """The toy codec, its tables random, is no match for JPEG 2000; one that needed ten megabytes would be no choice."""
    real = FallbackCodec.encode

    def sized(self, tile, quality, watch):
        return replace(real(self, tile, quality, watch), layers=(bytes(octets),))

    monkeypatch.setattr(FallbackCodec, "encode", sized)
    payload = Payload(load_bundle(toy_bundle), Policy(fallback="compare", gate=Gate(audit_count=0)), toy_engine)
    code = payload.encode_tile(tile_of(ground_of(1, 1)))
    assert code.kind is (Kind.FALLBACK if octets == 10 else Kind.CODED)


def test_compared_tiles_have_about_the_same_error(toy_bundle, toy_engine, ground_of) -> None:
    bundle, tile = load_bundle(toy_bundle), tile_of(ground_of(1, 1))
    decoder = Decoder(bundle, toy_engine)
    found = {}
    for rule in ("never", "compare"):
        code = Payload(bundle, Policy(step_dn=60.0, fallback=rule), toy_engine).encode_tile(tile)
        found[code.kind] = ((decoder.decode_tile(code).astype(float) - tile.dn) ** 2).mean(), len(pack(code))
    assert found[Kind.FALLBACK][1] < found[Kind.CODED][1]
    assert 0.5 < found[Kind.FALLBACK][0] / found[Kind.CODED][0] < 1.5


def test_a_ground_with_another_bundle_reads_fallback_tiles(toy_bundle, toy_engine, ground_of) -> None:
    """Nothing in them depends on a bundle, so its id refuses nothing."""
    bundle, tile = load_bundle(toy_bundle), tile_of(ground_of(1, 1))
    coded = fallback().encode(tile, Quality(psnr_db=50.0), Stopwatch())
    code = TileCode(Kind.FALLBACK, 0, 0, 0xDEADBEEF, 0, coded.side, coded.layers)
    reception = receive(segment(pack(code), SequenceCounter(1), 1024), by_id([bundle]), 1).scene(None)
    assert not reception.refused and reception.codes[0, 0].kind is Kind.FALLBACK
    found = Decoder(bundle, toy_engine).decode_tile(reception.codes[0, 0])
    assert np.abs(found.astype(int) - tile.dn).mean() < 60


@pytest.fixture
def broken(toy_bundle, tmp_path) -> Path:
    """The toy bundle with one octet of its tables changed."""
    import shutil

    folder = tmp_path / "broken"
    shutil.copytree(toy_bundle, folder)
    octets = bytearray((folder / "flight/tables.npz").read_bytes())
    octets[len(octets) // 2] ^= 1
    (folder / "flight/tables.npz").write_bytes(bytes(octets))
    return folder


def test_a_broken_bundle_ends_the_run_unless_the_mission_flies_on(broken, write_mission, tmp_path) -> None:
    never = load_mission(write_mission(tmp_path / "never.toml"))
    with pytest.raises(BundleError, match="sha256 is"):
        load_or_stand_in(str(broken), never)
    flies_on = replace(never, policy=replace(never.policy, fallback="broken"))
    bundle, cause = load_or_stand_in(str(broken), flies_on)
    assert bundle.tile_px == T and bundle.bands == RGBN and "sha256 is" in str(cause)
    with pytest.raises(BundleError, match=r"no manifest\.json there"):
        load_or_stand_in(str(tmp_path / "nothing"), flies_on)  # a typing mistake is no damage


def test_a_whole_scene_flies_without_its_bundle(broken, ground_of, write_scene, write_mission, tmp_path) -> None:
    scene = write_scene(tmp_path / "scene.tif", ground_of(2, 3))
    mission = write_mission(tmp_path / "m.toml", fallback="'broken'", step_dn=100.0)
    report = downlink(Request(str(scene), tmp_path / "out", str(mission), str(broken)), lambda label, total: None)
    assert report["tiles"]["fallback"] == report["tiles"]["total"] == 6
    assert "sha256 is" in report["inputs"]["bundle"]["failed_its_checks"]
    stored = json.loads((tmp_path / "out" / "report.json").read_text())
    assert stored["inputs"]["bundle"]["codec"] == "none"
    psnr = next(m["value"] for m in report["quality"]["metrics"] if m["key"] == "psnr_10k_db")
    assert psnr > 48  # asked for an error of 30 DN


def test_a_bundle_whose_manifest_is_lost_keeps_the_bands_it_is_told(tmp_path) -> None:
    bundle = bare_bundle(tmp_path, RGBN)
    assert (bundle.bands, bundle.tile_px, bundle.codec) == (RGBN, 256, {"kind": "none"})


def test_the_mean_step_means_the_mean_error() -> None:
    """RMSE_PER_STEP is about what the shipped codec leaves at steps of everyday use; how much depends on the ground."""
    from payload.codec.registry import open_codec
    from payload.engine import open_engine
    from sim.scenes.demo import demo_scene

    bundle, engine = load_bundle(), open_engine("openvino")
    codec, decoder = open_codec(bundle, engine), Decoder(bundle, engine)
    tile = next(split(demo_scene(256, 256, seed=3), 256))
    for step in (60.0, 200.0):
        coded = codec.encode(tile, Quality(step), Stopwatch())
        found = decoder.decode_tile(TileCode(Kind.CODED, 0, 0, bundle.bundle_id, 0, coded.side, coded.layers))
        rmse = float(((found.astype(float) - tile.dn) ** 2).mean() ** 0.5)
        assert 0.5 < rmse / (jpeg2000.RMSE_PER_STEP * step) < 1.5
