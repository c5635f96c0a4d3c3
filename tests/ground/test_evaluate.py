"""The bench: BD-rate against closed forms and another library, tiles from files, the learned codec's octets, page."""

import json
import math
import re
import sys
import time
from dataclasses import dataclass, field

import bjontegaard
import numpy as np
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st
from rasterio.transform import from_origin

from payload.errors import InputError
from payload.link import tile_code
from payload.link.tile_code import Kind, TileCode
from payload.policy import Policy
from payload.sensor import sensor_of
from payload.tiles import Tile
from sim import cli
from sim.compare import evaluate, plots, report
from sim.compare.classical import LOSSLESS, Ccsds121, HtJ2k
from sim.compare.evaluate import measure, open_opponents, opponents_of
from sim.compare.nadir_codec import NadirCodec, decoders, open_bundles, profiles
from sim.compare.summary import Bench
from sim.compare.tiles import BenchTile, read_tiles
from sim.metrics.bd_rate import Curve, bd_rate_percent, spread

RAW_OCTETS = 524_288  # 256 x 256 x 4 at 16 bit
WIDEST = (RAW_OCTETS / 250, RAW_OCTETS / 20)
ROW_KEYS = {
    "codec", "tile", "setting", "octets", "bpp", "cr16", "psnr_10k_db", "psnr_65k_db", "ssim_10k", "sam_deg",
    "ndvi_mae", "kmeans_oa", "encode_s", "decode_s",
}  # fmt: skip


def exponential(octets, gain_db=0.0):
    """6.02 dB for every doubling: PSNR rises linearly in log octets."""
    return 20 * np.log10(np.asarray(octets) / 1000) + 25 + gain_db


# --- BD-rate ------------------------------------------------------------------------------------

OCTETS = np.geomspace(1500, 40_000, 9)


@given(st.floats(-60, 200))
def test_a_codec_shifted_in_bits_has_exactly_that_bd_rate(percent):
    wavy = exponential(OCTETS) + 0.3 * np.sin(OCTETS / 5000)
    reference = Curve.of(OCTETS, wavy)
    test = Curve.of(OCTETS * (1 + percent / 100), wavy)
    everything = (1.0, 1e9)
    assert bd_rate_percent(test, reference, *everything) == pytest.approx(percent, abs=1e-9)


def test_ten_per_cent_within_the_range_that_counts():
    reference = Curve.of(OCTETS, exponential(OCTETS))
    test = Curve.of(OCTETS * 0.9, exponential(OCTETS))
    assert bd_rate_percent(test, reference, *WIDEST) == pytest.approx(-10.0, abs=1e-9)
    assert bd_rate_percent(reference, test, *WIDEST) == pytest.approx(100 / 0.9 - 100, abs=1e-9)


def test_bd_rate_is_that_of_the_bjontegaard_package():
    wavy = exponential(OCTETS) + 0.4 * np.sin(OCTETS / 4000)
    better = exponential(OCTETS * 1.07, 0.8) + 0.2 * np.cos(OCTETS / 3000)
    theirs = bjontegaard.bd_rate(OCTETS, wavy, OCTETS * 1.07, better, method="pchip", min_overlap=0)
    ours = bd_rate_percent(Curve.of(OCTETS * 1.07, better), Curve.of(OCTETS, wavy), 1.0, 1e9)
    assert ours == pytest.approx(theirs, abs=1e-9)


def test_what_lies_outside_the_range_of_rates_does_not_count():
    octets = np.geomspace(500, 100_000, 40)
    reference = Curve.of(octets, exponential(octets))
    inside = (octets > WIDEST[0] / 1.3) & (octets < WIDEST[1] * 1.3)
    elsewhere_better = Curve.of(octets, exponential(octets) + np.where(inside, 0.0, np.where(octets < 5000, -3, 3)))
    assert bd_rate_percent(elsewhere_better, reference, *WIDEST) == pytest.approx(0.0, abs=1e-6)


def test_curves_that_share_no_quality_have_no_bd_rate():
    low, high = Curve.of(OCTETS, exponential(OCTETS)), Curve.of(OCTETS, exponential(OCTETS, 60))
    assert math.isnan(bd_rate_percent(low, high, *WIDEST))
    figures = spread([10.0, float("nan"), 20.0])
    assert (figures["mean_percent"], figures["tiles"], figures["tiles_without_common_range"]) == (15.0, 2, 1)


def test_dominated_and_lossless_points_are_no_part_of_a_curve():
    curve = Curve.of([100, 200, 300, 300, 400, 900], [30, 35, 34, 36, 40, math.inf])
    np.testing.assert_allclose(np.exp(curve.log_octets), [100, 200, 300, 400])
    assert list(curve.psnr_db) == [30, 35, 36, 40]
    assert Curve.of([100, 200, 300], [30, 29, 28]) is None


def test_of_two_points_of_one_cost_the_better_is_the_curves():
    curve = Curve.of([100, 100, 200, 400], [30.0, 31.0, 35.0, 40.0])
    assert np.exp(curve.log_octets) == pytest.approx([100, 200, 400]) and curve.psnr_db.tolist() == [31, 35, 40]


def test_nothing_is_extrapolated():
    curve = Curve.of(OCTETS, exponential(OCTETS))
    assert math.isnan(curve.psnr_at(OCTETS[-1] * 1.01)) and math.isnan(curve.octets_at(10.0))
    assert curve.octets_at(curve.psnr_at(7000.0)) == pytest.approx(7000.0)


# --- summaries ----------------------------------------------------------------------------------


def made_up_rows(codec, tile, gain_db, saving=0.0):
    for octets in OCTETS:
        figures = dict.fromkeys(
            ("psnr_65k_db", "snr_db", "rmse_reflectance", "ssim_10k", "ssim_own", "ms_ssim_10k", "sam_deg",
             "ndvi_mae", "ndvi_p95", "kmeans_oa", "kmeans_fixed_oa"), float(np.log(octets)),
        )  # fmt: skip
        cost = octets * (1 - saving)
        rate = {"octets": cost, "bpp": 8 * cost / 65536, "cr16": RAW_OCTETS / cost}
        seconds = {"encode_s": 0.01, "decode_s": 0.02}
        psnr = {"psnr_10k_db": float(exponential(octets, gain_db))}
        yield {"codec": codec, "tile": tile, "setting": 1.0, **rate, **figures, **psnr, **seconds}


@pytest.fixture
def two_codecs():
    rows = [r for tile, gain in (("easy", 9.0), ("hard", 0.0)) for r in made_up_rows("klt-jpeg2000", tile, gain)]
    rows += [*made_up_rows("nadir-x", "easy", 9.0, saving=0.3), *made_up_rows("nadir-x", "hard", 0.0, saving=0.1)]
    return Bench(rows)


def test_a_bd_rate_counts_what_lies_between_cr_20_and_250_and_nothing_else():
    """From CR 400 to 250, and from 20 to 10, the codec is 3 dB better; between the two it is the reference."""
    rows = []
    for codec in ("klt-jpeg2000", "nadir-x"):
        for octets in RAW_OCTETS / np.geomspace(450, 8, 60):
            outside = not RAW_OCTETS / 255 < octets < RAW_OCTETS / 19.5
            gain = 3.0 if codec == "nadir-x" and outside else 0.0
            psnr = float(exponential(octets, gain if octets > 5000 else -gain))
            rate = {"octets": octets, "bpp": 8 * octets / 65536, "cr16": RAW_OCTETS / octets}
            rows.append({"codec": codec, "tile": "t", "psnr_10k_db": psnr, **rate})
    assert Bench(rows).bd_rate("nadir-x", "klt-jpeg2000")["mean_percent"] == pytest.approx(0.0, abs=0.05)


def test_the_interval_holds_the_mean_and_narrows_with_tiles():
    """Twenty tiles around -15 with a standard deviation of 5: the mean is known to about 2 x 5 / sqrt(20) = 2.2."""
    values = np.random.default_rng(1).normal(-15, 5, 20)
    found = spread(list(values))
    half = 1.96 * values.std(ddof=1) / math.sqrt(20)
    assert found["low_percent"] == pytest.approx(values.mean() - half, abs=0.3)
    assert found["high_percent"] == pytest.approx(values.mean() + half, abs=0.3)
    assert found == spread(list(values))
    assert math.isnan(spread([-15.0])["low_percent"])


def test_bd_rate_is_per_tile_then_the_mean(two_codecs):
    found = two_codecs.bd_rate("nadir-x", "klt-jpeg2000")
    assert found["per_tile_percent"] == {"easy": pytest.approx(-30), "hard": pytest.approx(-10)}
    assert found["mean_percent"] == pytest.approx(-20)
    assert found["std_percent"] == pytest.approx(math.sqrt(200))
    assert (found["best_percent"], found["worst_percent"]) == (pytest.approx(-30), pytest.approx(-10))


def test_figures_at_a_cr_lie_on_the_curves(two_codecs):
    found = two_codecs.at_cr("klt-jpeg2000", 50)
    at_50 = float(exponential(RAW_OCTETS / 50))
    assert found["psnr_10k_mean_db"] == pytest.approx(at_50 + 4.5)
    assert found["psnr_10k_worst_db"] == pytest.approx(at_50)
    assert found["sam_deg"] == pytest.approx(np.log(RAW_OCTETS / 50))  # the made-up metric is the log of the octets
    assert found["tiles"] == 2
    assert two_codecs.at_cr("klt-jpeg2000", 5000)["tiles"] == 0


def test_bits_at_a_quality_by_hand(two_codecs):
    # 45 dB: 20 log10(octets / 1000) = 20 and 11 dB
    wanted = np.mean([1000 * 10 ** (db / 20) * 8 / 65536 for db in (20, 11)])
    assert two_codecs.at_psnr("klt-jpeg2000", 45.0) == {"bpp": pytest.approx(wanted), "tiles": 2}


def test_speed_is_megapixels_of_the_row_nearest_to_cr_20(two_codecs):
    speed = two_codecs.speed("nadir-x")
    assert speed["encode_mpx_s"] == pytest.approx(0.065536 / 0.01)
    assert speed["decode_mpx_s"] == pytest.approx(0.065536 / 0.02)


# --- tiles --------------------------------------------------------------------------------------


def scene_dn(height, width, bands=4, seed=1):
    random = np.random.default_rng(seed)
    ramp = np.linspace(500, 4000, width)[None, None] + 90 * np.arange(bands)[:, None, None]
    dn = ramp + 400 * np.sin(np.arange(height) / 11)[None, :, None] + random.normal(0, 40, (bands, height, width))
    return np.clip(dn, 1, 65535).astype(np.uint16)


def test_an_npz_is_read_by_band_name_and_cut_from_the_top_left(tmp_path):
    x = np.stack([scene_dn(264, 530, bands=5, seed=s) for s in (1, 2)])
    np.savez(tmp_path / "t.npz", x=x, bands=["B08", "B01", "B02", "B03", "B04"], names=["first", "second"])
    tiles = read_tiles([tmp_path / "t.npz"])
    assert [tile.name for tile in tiles] == ["first_r0c0", "first_r0c1", "second_r0c0", "second_r0c1"]
    np.testing.assert_array_equal(tiles[3].dn, x[1][[2, 3, 4, 0], :256, 256:512])
    assert len(read_tiles([tmp_path / "t.npz"], limit=3)) == 3


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"y": np.zeros(3)}, "no array x and no array bands"),
        ({"x": np.zeros((1, 4, 256, 256)), "bands": ["B02", "B03", "B04", "B08"]}, "x is float64"),
        ({"x": np.zeros((1, 3, 256, 256), np.uint16), "bands": ["B02", "B03", "B04"]}, "B08 missing"),
        ({"x": np.zeros((1, 4, 128, 128), np.uint16), "bands": ["B02", "B03", "B04", "B08"]}, "no whole tile of 256"),
        ({"x": np.zeros((1, 4, 256, 256), np.uint16), "bands": ["B02"]}, "with 1 band names"),
    ],
)
def test_tiles_that_cannot_be_used_are_refused_in_one_line(tmp_path, arrays, said):
    np.savez(tmp_path / "t.npz", **arrays)
    with pytest.raises(InputError, match=said) as caught:
        read_tiles([tmp_path / "t.npz"])
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_npz_is_refused(tmp_path):
    (tmp_path / "t.npz").write_bytes(b"not a zip")
    with pytest.raises(InputError, match="not readable as an"):
        read_tiles([tmp_path / "t.npz"])
    with pytest.raises(InputError, match="not readable as an"):
        read_tiles([tmp_path / "absent.npz"])


def test_a_geotiff_gives_its_whole_valid_tiles(tmp_path):
    dn = scene_dn(600, 540)
    dn[:, 300, 300] = 0  # one pixel without data: tile r1c1 is left out
    transform = from_origin(500_000, 4_500_000, 10, 10)
    options = {"count": 4, "height": 600, "width": 540, "dtype": "uint16", "crs": "EPSG:32632", "transform": transform}
    with rasterio.open(tmp_path / "s.tif", "w", driver="GTiff", nodata=0, **options) as file:
        file.write(dn)
        file.descriptions = ("B02", "B03", "B04", "B08")
    tiles = read_tiles([tmp_path / "s.tif"])
    assert [tile.name for tile in tiles] == ["s_r0c0", "s_r0c1", "s_r1c0"]
    np.testing.assert_array_equal(tiles[1].dn, dn[:, :256, 256:512])


# --- the learned codec --------------------------------------------------------------------------


@dataclass
class FakePayload:
    """Codes a tile as the mean of its bands; longer at finer steps."""

    policy: Policy = field(default_factory=Policy)

    def encode_tile(self, tile: Tile) -> TileCode:
        means = np.rint(tile.dn.mean(axis=(1, 2))).astype(">u2").tobytes()
        return TileCode(Kind.CODED, tile.row, tile.col, 7, side=means, layers=(bytes(int(4e5 / self.policy.step_dn)),))


class FakeDecoder:
    def decode_tile(self, code: TileCode) -> np.ndarray:
        means = np.frombuffer(code.side, ">u2").astype(np.uint16)
        return np.broadcast_to(means[:, None, None], (4, 256, 256))


def test_the_learned_codec_counts_packets_tile_header_and_all():
    codec = NadirCodec(FakePayload(), FakeDecoder())
    dn = scene_dn(256, 256)
    octets = codec.encode(dn, 200.0)
    # 12 fixed + 8 side + 7 layer entry + 4 CRC + 2000 = 2031 octets, in packets of 1024 that carry 1016: 2, of 8 each
    assert len(octets) == 2031 + 2 * 8
    assert tile_code.header_octets(8, 1) == 31
    seen = codec.decode(octets)
    np.testing.assert_array_equal(seen[:, 0, 0], np.rint(dn.mean(axis=(1, 2))))


def test_a_picture_of_several_tiles_is_cut_and_put_together_again():
    class Corner:
        def decode_tile(self, code):
            means = np.frombuffer(code.side, ">u2").astype(np.uint16)
            return np.broadcast_to(means[:, None, None], (4, 128, 128))

    dn = scene_dn(256, 256)
    seen = NadirCodec(FakePayload(), Corner(), tile_px=128).decode(
        NadirCodec(FakePayload(), Corner(), tile_px=128).encode(dn, 200.0)
    )
    assert seen.shape == dn.shape
    for row in (0, 128):
        for col in (0, 128):
            square = dn[:, row : row + 128, col : col + 128].mean(axis=(1, 2))
            np.testing.assert_array_equal(seen[:, row, col], np.rint(square))


def test_finer_steps_are_asked_of_the_payload():
    codec = NadirCodec(FakePayload(), FakeDecoder())
    assert len(codec.encode(scene_dn(256, 256), 100.0)) > len(codec.encode(scene_dn(256, 256), 200.0))


def another(folder, **changes):
    """A bundle of fallback tiles: it needs no file but its manifest."""
    manifest = {"format_version": 2, "name": "mine", "bands": ["B02", "B03", "B04", "B08"], "tile_px": 64, "files": {}}
    folder.mkdir()
    (folder / "manifest.json").write_text(json.dumps(manifest | {"codec": {"kind": "none"}} | changes))
    return str(folder)


def test_several_bundles_of_one_name_are_told_apart(tmp_path):
    names = [another(tmp_path / "a"), another(tmp_path / "b", codec={"kind": "none", "tuned": 1})]
    codecs, tile_px, sensor = open_bundles(names, "openvino")
    assert (tile_px, sensor.names) == (64, ("B02", "B03", "B04", "B08")) and len({codec.name for codec in codecs}) == 2
    assert all(codec.name.startswith("nadir-mine-") for codec in codecs)


@pytest.mark.parametrize(
    ("second", "said"),
    [
        ({"tile_px": 64}, "names one bundle twice"),
        ({"tile_px": 128}, r"128 px tiles of sentinel2-rgbn \(B02, .*, wanted 64 px tiles"),
        ({"tile_px": 64, "bands": ["B02", "B03", "B04"]}, r"64 px tiles of .*\(B02, B03, B04\), wanted 64 px tiles"),
    ],
)
def test_bundles_that_cannot_code_the_same_tiles_are_refused(tmp_path, second, said):
    names = [another(tmp_path / "a"), another(tmp_path / "b", **second)]
    with pytest.raises(InputError, match=said):
        open_bundles(names, "openvino")


def test_a_bundle_has_a_row_for_every_profile_and_decoder_and_the_first_decoder_is_not_named():
    codecs, *_ = open_bundles(["edge"], "native", decoders("full, best"), profiles("dense,fast"))
    assert [codec.name for codec in codecs] == [
        "nadir-edge", "nadir-edge-best", "nadir-edge-dense", "nadir-edge-dense-best",
    ]  # fmt: skip
    assert [codec.decoder.kind for codec in codecs] == ["full", "best"] * 2
    assert [codec.payload.policy.profile for codec in codecs] == ["fast", "fast", "dense", "dense"]


@pytest.mark.parametrize("asked", ["", "quick", "full,"])
def test_a_decoder_that_there_is_not_is_refused_with_those_that_there_are(asked):
    with pytest.raises(InputError, match="wanted fast, full, best, or several with commas between"):
        decoders(asked)


# --- the whole ----------------------------------------------------------------------------------


TILES = [BenchTile(f"t{seed}", scene_dn(256, 256, seed=seed)) for seed in (1, 2)]
LEARNED = NadirCodec(FakePayload(), FakeDecoder(), settings=(2000.0, 200.0))
OPPONENTS = [HtJ2k(settings=(4096, 800, 150, 40, 16, LOSSLESS)), Ccsds121()]


@pytest.fixture(scope="module")
def result():
    rows = measure(TILES, [LEARNED, *OPPONENTS])
    return report.document(rows, TILES, [LEARNED, *OPPONENTS], {"hevc": "absent: x265 not installed"}, [])


def test_rows_hold_what_is_promised(result):
    for row in result["rows"]:
        assert row.keys() >= ROW_KEYS
        assert row["bpp"] == pytest.approx(8 * row["octets"] / 65536)
        assert row["cr16"] == pytest.approx(RAW_OCTETS / row["octets"])
        assert row["encode_s"] > 0 and row["decode_s"] > 0
    htj2k = [row for row in result["rows"] if row["codec"] == "htj2k" and row["tile"] == "t1"]
    assert min(row["cr16"] for row in htj2k) < 20 < 250 < max(row["cr16"] for row in htj2k)
    lossless = [row["codec"] for row in result["rows"] if row["psnr_10k_db"] == math.inf]
    assert sorted(set(lossless)) == ["ccsds121", "htj2k"]


def test_the_same_bench_twice_differs_in_seconds_only(result):
    again = measure(TILES, [LEARNED, *OPPONENTS])

    def untimed(rows):
        return [{key: value for key, value in row.items() if key not in ("encode_s", "decode_s")} for row in rows]

    # canonical text: NaN is not equal to itself
    assert report.canonical_json({"rows": untimed(again)}) == report.canonical_json({"rows": untimed(result["rows"])})


def test_results_are_written_whole_and_open_offline(result, tmp_path):
    written = report.write_results(result, tmp_path / "out")
    names = {path.name for path in written}
    assert names == {"rd.json", "rd.html", "rd_curves.png", "rd_curves.svg", "speed.png", "speed.svg"}
    parsed = json.loads((tmp_path / "out" / "rd.json").read_text())
    assert len(parsed["rows"]) == len(result["rows"]) and parsed["schema"] == "nadir-rd/1"
    page = (tmp_path / "out" / "rd.html").read_text()
    assert page.count('<svg class="chart"') == 6 and "data:image" not in page  # drawn by class: dark mode, too
    assert not re.findall(r"""(?:src|href)=["'](?!data:)""", page)
    assert "hevc: absent: x265 not installed" in page and "(0 tiles)" not in page


def test_plots_are_the_same_for_the_same_rows(result):
    once, twice = (
        plots.svg(plots.plots(Bench(result["rows"]), result["measured_on_host"]["speed"])["rd_curves"])
        for _ in range(2)
    )
    assert once == twice


def test_an_opponent_that_is_not_installed_is_said_to_be_absent(monkeypatch):
    monkeypatch.setattr(evaluate, "missing", lambda name: "the wheel" if name == "klt-hevc" else None)
    codecs, absent = open_opponents(["klt-hevc", "jpeg"])
    assert [codec.name for codec in codecs] == ["jpeg"]
    assert absent == {"klt-hevc": "absent: the wheel is not installed on this machine"}


@dataclass
class Slow:
    """Codes at once, decodes for a long time."""

    name: str = "slow"
    note: str = ""
    settings: tuple[float, ...] = (1.0,)

    def encode(self, dn, setting):
        return bytes(RAW_OCTETS // 50)

    def decode(self, octets):
        end = time.process_time() + 0.2
        while time.process_time() < end:
            pass
        return np.full((4, 256, 256), 1000, np.uint16)


def test_seconds_of_encoding_hold_no_decoding():
    (row,) = measure(TILES[:1], [Slow()])
    assert row["encode_s"] < 0.1 and row["decode_s"] >= 0.2


def run_sim(monkeypatch, *arguments):
    """What the console script does, in this process; the exit code."""
    monkeypatch.setattr(sys, "argv", ["sim", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return ended.value.code or 0


def test_the_command_measures_prints_and_writes(tmp_path, monkeypatch, capsys):
    np.savez(tmp_path / "t.npz", x=scene_dn(256, 256)[None], bands=["B02", "B03", "B04", "B08"])
    options = ("--bundle", "none", "--against", "jpeg,ccsds121", "--out", tmp_path / "out", "--json")
    assert run_sim(monkeypatch, "evaluate", "--tiles", tmp_path / "t.npz", *options) == 0
    said = capsys.readouterr()
    assert all(line.startswith("sim: tiles: ") for line in said.err.splitlines())  # progress, where a host is slow
    assert json.loads(said.out) == json.loads((tmp_path / "out" / "rd.json").read_text())
    assert (tmp_path / "out" / "rd.html").is_file()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--tiles", "absent.npz"), "absent.npz"),
        (("--tiles", "absent.tif"), "absent.tif"),
        (("--tiles", "t.npz", "--against", "jpeg3000"), "jpeg3000"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(tmp_path, monkeypatch, capsys, arguments, said):
    monkeypatch.chdir(tmp_path)
    assert run_sim(monkeypatch, "evaluate", *arguments, "--bundle", "none", "--out", tmp_path / "out") == 2
    stderr = capsys.readouterr().err
    assert said in stderr and len(stderr.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_opponents_are_those_of_the_sensors_kind_and_the_absent_standards_are_said() -> None:
    names = {bands: opponents_of(sensor_of([f"C{k}" for k in range(bands)])) for bands in (1, 4, 12)}
    assert not any("klt" in name for name in names[1]) and {"jpeg2000", "jpegxl", "ccsds121"} <= set(names[1])
    assert {"klt-jpeg2000-joint", "jpeg2000-joint", "jpeg2000"} <= set(names[12]) and "klt-vvc" not in names[12]
    assert {"klt-jpeg2000-joint", "klt-vvc", "jpeg"} <= set(names[4])
    codecs, absent = open_opponents(names[1])
    assert set(absent) == {"ccsds122", "ccsds123"} and "jpeg2000" in [codec.name for codec in codecs]
