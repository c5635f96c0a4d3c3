"""Figures that reports quote, each against another source or a sum by hand: memory, work, times, seams."""

import dataclasses
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from hil.bench import energy, energy_mode
from hil.bench.energy import PowerTrace, Window
from hil.bench.energy_mode import DoneTile, EnergyRepeat
from hil.bench.performance import performance_doubts
from hil.bench.run import KeptTile, RunFolder
from hil.devices.latency import Work, coding_work, gate_work
from hil.devices.targets import load_target
from hil.profiles.profile_file import Performance, Spread
from payload.bundle import load_bundle
from payload.clouds.mask import CLEAR, THICK, CloudMask
from payload.link.tile_code import Kind
from payload.stopwatch import peak_memory_mib
from payload.tiles import Tile
from sim.clouds import evaluate, other_light, requirements
from sim.clouds.figures import at_threshold, by_threshold, flattening_figures, gate_figures
from sim.clouds.human import EVERY_CHIP
from sim.clouds.judged import OURS
from sim.clouds.samples import FIRM, CloudSample, HumanChip
from sim.compare.report import TABLE_CR, as_text
from sim.ground.mosaic import even_out, reconstruct
from sim.report import tables

T = 32


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_peak_memory_is_what_the_kernel_says() -> None:
    kib = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert kib is not None
    assert peak_memory_mib() == pytest.approx(int(kib[1]) / 1024, rel=0.02)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_peak_memory_is_not_that_of_a_larger_process_that_started_this_one() -> None:
    held = np.ones(50_000_000)  # 381 MiB
    asked = [sys.executable, "-c", "from payload.stopwatch import peak_memory_mib; print(peak_memory_mib())"]
    said = subprocess.run(asked, capture_output=True, text=True, check=True).stdout
    assert 0 < float(said) < held.nbytes / 2**20


def test_the_entropy_coders_work_is_part_of_a_coded_tile_and_of_no_withheld_one() -> None:
    bundle, target = load_bundle("edge"), load_target("myriad2")
    assert coding_work(bundle, target).entropy_macs == bundle.codec["entropy_macs_per_px"] * 256**2 > 0
    assert gate_work(bundle, target).entropy_macs == 0


def test_a_tile_kept_without_its_times_has_none_after_the_run_goes_on(tmp_path: Path) -> None:
    tile = Tile(2, 3, np.zeros((4, 8, 8), np.uint16), np.ones((8, 8), bool))
    first = RunFolder(tmp_path, {"scene": "s"}, resume=False, overwrite=False)
    first.open()
    first.keep(KeptTile(2, 3, "coded", None, None, b"octets"))
    first.keep(KeptTile(2, 4, "coded", 0.25, 0.5, b"others"))
    first.close()
    again = RunFolder(tmp_path, {"scene": "s"}, resume=True, overwrite=False)
    again.open()
    assert again.done(tile) == KeptTile(2, 3, "coded", None, None, b"octets")
    assert again.done(Tile(2, 4, tile.dn, tile.valid)) == KeptTile(2, 4, "coded", 0.25, 0.5, b"others")
    again.close()


def test_every_seam_of_a_picture_is_evened_once() -> None:
    """Four flat tiles that differ by 10 DN: what comes out is the two strips, each evened once, from the top."""
    values, step = {(0, 0): 1000, (0, 1): 1010, (1, 0): 1010, (1, 1): 1020}, 60.0
    scene: Any = SimpleNamespace(
        grid=(2, 2), codes={at: SimpleNamespace(kind=Kind.CODED, mask=b"", value=v) for at, v in values.items()}
    )
    decoder: Any = SimpleNamespace(
        tile_px=T, bands=1, step_of=lambda code: step,
        decode_tile=lambda code: np.full((1, T, T), code.value, np.uint16),
    )  # fmt: skip
    upper, lower = (strip.dn.copy() for strip in reconstruct(scene, decoder, blend=False))
    even_out(upper, [step, step])
    even_out(lower, [step, step], upper, [step, step])
    found = [strip.dn for strip in reconstruct(scene, decoder)]
    assert np.array_equal(found[0], upper) and np.array_equal(found[1], lower)
    assert found[0][0, 5, T - 1] > 1000  # something was evened


def test_the_table_on_the_terminal_has_every_figure_in_its_column() -> None:
    result = {
        "codecs": ["nadir-edge", "klt-jpeg2000-joint"],
        "inputs": {"tiles": ["a", "b"]},
        "absent": {"klt-vvc": "no vvenc here"},
        "bd_rate": {
            "nadir-edge": {
                "klt-jpeg2000-joint": {"mean_percent": -14.66, "low_percent": -15.84, "high_percent": -13.41}
            },
            "klt-jpeg2000-joint": {},
        },
        "at_cr": {
            name: {str(cr): {"tiles": 2 if cr != 250 else 1, "psnr_10k_db": 50.128 - cr / 10} for cr in TABLE_CR}
            for name in ("nadir-edge", "klt-jpeg2000-joint")
        },
        "lossless_cr16": {"nadir-edge": None, "klt-jpeg2000-joint": 1.936},
        "measured_on_host": {
            "speed": {
                name: {"encode_s_per_tile": 0.0123456, "encode_mpx_s": 5.3084, "decode_mpx_s": 0.5567}
                for name in ("nadir-edge", "klt-jpeg2000-joint")
            }
        },
    }
    text = as_text(result, Path("out/rd.html")).replace("\N{MINUS SIGN}", "-").replace("\N{EN DASH}", "-")
    head, ours, theirs, legend, *notes = text.splitlines()
    assert head.split() == ["codec", "BD/klt-jpeg2000-joint", *(f"dB@{cr}" for cr in TABLE_CR), "lossless", "s/tile",
                            "enc", "dec"]  # fmt: skip
    levels = [f"{50.128 - cr / 10:.2f}" if cr != 250 else "-" for cr in TABLE_CR]
    assert ours.split() == ["nadir-edge", "-14.7", "(-15.8..-13.4)", *levels, "-", "0.0123", "5.31", "0.56"]
    assert theirs.split() == ["klt-jpeg2000-joint", "-", *levels, "1.94", "0.0123", "5.31", "0.56"]
    assert len({len(head), len(ours), len(theirs)}) == 1 and legend.startswith("2 tiles. BD-rate in %")
    assert notes == ["klt-vvc: no vvenc here", "page: out/rd.html"]


def test_the_first_tiles_stages_stand_one_after_the_other_in_the_trace() -> None:
    """Two tiles at 11 s and 12.5 s, idle from 10 s on: everything counts from the start of the idle window."""
    done = (
        DoneTile(11.0, 11.5, {"clouds": 0.1, "encoder": 0.3}, "coded"),
        DoneTile(12.5, 12.6, {"clouds": 0.1}, "withheld"),
    )
    trace = PowerTrace(np.array([10.0, 11.2, 12.0, 13.0]), np.array([2.0, 5.0, 3.0, 4.0]))
    repeat = EnergyRepeat(trace, Window(10.0, 11.0), Window(11.0, 13.0), done, 2.0, 4.0, 5.0)
    found = energy_mode._first_tiles(repeat)
    spans = [(s.name, round(s.start_s, 9), round(s.end_s, 9)) for s in found["first_tiles"]]
    assert spans == [("clouds", 1.0, 1.1), ("encoder", 1.1, 1.4), ("clouds", 2.5, 2.6)]
    assert found["first_t_s"] == (1.0, 1.2, 2.0, 2.6) and found["first_w"] == (4.5, 5.0, 3.0, 3.6)
    assert energy_mode._first_tiles(dataclasses.replace(repeat, done=())) == {}


@pytest.mark.parametrize(("streamed_ms", "said"), [(5.0, "(+25 %)"), (3.0, "(-25 %)"), (4.15, None), (3.85, None)])
def test_throughputs_that_contradict_each_other_are_doubted_with_their_difference(streamed_ms, said) -> None:
    spread = Spread.of([0.004] * 200)
    found = Performance("b", 1, spread, {}, 0.1, 1.0, 1.0, 0.0, 10.0, {}, (), streamed_tile_s=streamed_ms / 1e3)
    doubts = performance_doubts(found)
    assert len(doubts) == (said is not None)
    assert said is None or (
        said in doubts[0] and f"{streamed_ms:.3g} ms while" in doubts[0] and "4 ms alone" in doubts[0]
    )


def test_a_tile_under_another_light_is_counted_by_hand(monkeypatch) -> None:
    """Chips of 10 m only. Of a tile with 48 pixels of cloud and 16 of ground, what the gate drops is lost ground."""
    dn = np.full((4, 8, 8), 500, np.uint16)
    dn[:, :, :4] = 9000  # what the detector below takes for cloud: 32 pixels
    drawn = np.zeros((8, 8), bool)
    drawn[:, :2] = True  # what people took for it: 16
    scl = np.full((8, 8), 9, np.uint8)
    scl[:, 6:] = 4
    chips = [HumanChip(n, "s", dn, drawn, None, gsd_m, "L2A") for n, gsd_m in (("ten", 10.0), ("thirty", 30.0))]
    seen = []

    def judge(picture: Any, net: Any, gsd_m: float) -> Any:
        seen.append(gsd_m)
        return SimpleNamespace(cloudy=picture[0] > 5000)

    def candidate(sure: float) -> Any:
        """Its mask is the detector's, its gate is as sure as that."""
        drawn_by = lambda picture, mask, gsd_m: np.where(picture[0] > 5000, np.uint8(THICK), np.uint8(CLEAR))  # noqa: E731
        return SimpleNamespace(net=SimpleNamespace(sure=sure), classes=drawn_by)

    def detect(picture: Any, net: Any) -> Any:
        return SureOf(net.sure, -(-picture.shape[1] // 4) * 4)

    monkeypatch.setattr(other_light, "judge_picture", judge)
    monkeypatch.setattr(other_light, "detect_padded", detect)
    tile: Any = CloudSample("t", "site", dn, scl, 10)
    kept, gone = other_light.WITHHELD_ABOVE, other_light.WITHHELD_ABOVE + 0.01
    row = other_light.light_rows(chips, [(tile, candidate(kept)), (tile, candidate(gone))], None)[0]  # type: ignore[arg-type]
    assert seen[0] == 10.0 and len(seen) == len(other_light.LIGHTS)
    assert (row["human_iou"], row["human_precision"], row["human_recall"]) == (16 / 32, 16 / 32, 1.0)
    border = 32 / 48  # firm: class 9 has no border pixels, all of the tile is known
    assert row["scl_iou"] == pytest.approx(border)
    assert row["let_through"] == 48 / 96 and row["usable_lost"] == row["usable_lost_there"] == 16 / 32
    assert row["cloud_with_detail"] == 48 / 96 and row["lost_either_way_there"] == 16 / 32  # too small to be flattened


def test_times_that_stand_still_count_as_backwards() -> None:
    trace = PowerTrace(np.array([0.0, 1.0, 1.0, 0.5, 2.0]), np.full(5, 3.0))
    told = energy.complaints(trace, Window(0.0, 2.0), "busy")
    assert any("timestamps go backwards 2 times" in line for line in told)


def test_what_a_gate_lets_through_and_loses_is_counted_in_pixels_of_known_reference() -> None:
    """Two sites; of 64 pixels a tile 48 cloud and 8 ground, 8 unknown. One tile of the first site is dropped."""
    scl = np.full((8, 8), 9, np.uint8)
    scl[:, 7], scl[:, 6] = 4, 7  # a column of ground, one of nothing known
    clear = np.full((8, 8), 4, np.uint8)
    dn = np.zeros((4, 8, 8), np.uint16)
    tiles = [("a", scl, 0.85), ("a", scl, 0.5), ("a", clear, 0.0), ("b", clear, 0.99), ("b", clear, 0.1)]
    judged: Any = [
        SimpleNamespace(sample=CloudSample(str(i), site, dn, classes, 10), mask=SureOf(sure), teacher=None)
        for i, (site, classes, sure) in enumerate(tiles)
    ]
    gated = evaluate._gated(judged)
    gate = at_threshold(gated, 0.7)
    assert gate_figures(gated, 0.7) == {
        "let_through": 48 / 96, "usable_lost": (8 + 64) / (8 + 8 + 64 * 3),
        "worst_site": "b", "usable_lost_there": 64 / 128,
    }  # fmt: skip
    rows = {row["withheld_above"]: row for row in by_threshold(gated)}
    assert rows[0.7]["ours"] == gate and gate["withheld_above"] == 0.7 and rows[0.7]["ours"]["worst_site"] == "b"
    assert rows[0.8]["ours"]["let_through"] == 48 / 96 and rows[0.8]["ours"]["usable_lost_there"] == 0.5  # 8 of 80 in a
    assert rows[0.9]["ours"]["let_through"] == 1.0 and rows[0.9]["ours"]["usable_lost_there"] == 0.5
    knowing = rows[0.85]["knowing"]  # both cloudy tiles are 48 / 56 cloud
    assert (knowing["let_through"], knowing["worst_site"], knowing["usable_lost_there"]) == (0.0, "a", 16 / 80)
    assert rows[0.9]["knowing"]["let_through"] == 1.0 and rows[0.9]["knowing"]["usable_lost"] == 0.0
    assert gate_figures([], 0.7)["worst_site"] is None


def test_cloud_that_is_flattened_does_not_count_as_sent_with_its_detail_and_ground_in_it_counts_as_lost() -> None:
    """Tiles of 12 x 12 cells of 2 px, the upper half closed cloud to the gate: five rows of cells are flattened where a
    tile is sent, the last one's neighbours are open. Half of each is ground to the classification, and half of what
    is flattened; all of it is cloud to the teacher."""
    scl = np.full((24, 24), 9, np.uint8)
    scl[:, :12] = 4
    dn = np.zeros((4, 24, 24), np.uint16)
    judged: Any = [
        SimpleNamespace(sample=CloudSample(str(i), "a", dn, scl, 10), mask=SureOf(sure, 24), teacher=told)
        for i, (sure, told) in enumerate(((0.9, None), (0.5, np.ones((24, 24), np.uint8))))
    ]
    found = flattening_figures(evaluate._gated(judged), 0.7)
    half, flat = 24 * 12, 10 * 12
    assert (found["cloud_withheld"], found["cloud_flattened"]) == (0.5, flat / (2 * half))
    assert found["cloud_with_detail"] == (half - flat) / (2 * half)
    assert (found["ground_flattened"], found["worst_site_either_way"]) == (flat / (2 * half), "a")
    assert found["lost_either_way"] == found["lost_either_way_there"] == (half + flat) / (2 * half)
    (taught,) = evaluate._gated(judged, evaluate.CSMASK)
    assert (taught.cloud_px, taught.ground_px, taught.flat_cloud_px, taught.flat_ground_px) == (24 * 24, 0, 2 * flat, 0)
    row = by_threshold([taught])[0]
    assert row["ours"]["cloud_with_detail"] == (24 * 24 - 2 * flat) / 24**2
    assert row["ours"]["let_through"] == 1.0
    assert flattening_figures([], 0.7)["cloud_with_detail"] is None


class SureOf(CloudMask):
    """A mask that says to be sure of so much of its tile, and whose upper half is closed cloud."""

    def __init__(self, share: float, size: int = 8) -> None:
        cells = np.zeros((4, 1, 1, size // 2, size // 2), np.float32)
        cells[THICK, :, :, : size // 4] = 1.0
        super().__init__(cells, np.ones((size, size), bool))
        object.__setattr__(self, "share", share)

    @property
    def sure_fraction(self) -> float:
        return self.share  # type: ignore[attr-defined,no-any-return]


def test_the_bars_of_the_cloud_gate_are_these_and_hold_at_their_limit() -> None:
    limits = {"people": (0.82, 0.93, 0.87), "landsat": 0.85, "tiles": (494 / 528, 0.0), "pixels": 0.81, "snow": 0.02,
              "sand": 0.02, "site": 0.005, "cloud": 0.22, "teacher": (0.85, 0.55), "speed": 30.0,
              "gate": 0.20}  # fmt: skip

    def result(off: float) -> dict[str, Any]:
        """Every figure at its limit, or `off` by so much for the worse."""
        more, less = (lambda value: value - off), (lambda value: value + off)
        people = dict(zip(("iou", "precision", "recall"), map(more, limits["people"]), strict=True))
        return {
            "human": [
                {"source": "human_cloud_512", "chip": EVERY_CHIP, "method": OURS} | people,
                {"source": "landsat8_human_384", "chip": EVERY_CHIP, "method": OURS, "iou": more(limits["landsat"])},
            ],
            "tiles": {FIRM: {OURS: {"accuracy": more(limits["tiles"][0]), "false_discards": less(0.0)}}},
            "pixels": {FIRM: {OURS: {"iou": more(limits["pixels"])}}},
            "slices": {OURS: {kind: {"false_discards": less(limits[kind])} for kind in ("snow", "sand")}},
            "gate": {"lost_either_way_there": less(limits["site"]), "cloud_with_detail": less(limits["cloud"])},
            "scene": {"iou_with_s2cloudless": {requirements.SEN2COR: 0.9, OURS: more(0.9 - 0.03)}},
            "teacher": {"cloud": {"iou": more(0.85)}, "shadow": {"iou": more(0.55)}},
            "measured_on_host": {
                "megapixels_per_s": more(30.0),
                "gate": [{"ratio": 21.0, "added": less(0.20)}, {"ratio": 40.0, "added": 9.0}],
            },
        }

    assert len(requirements.checks(result(0.0))) == 16 and all(c["held"] for c in requirements.checks(result(0.0)))
    assert not any(check["held"] for check in requirements.checks(result(1e-4)))


@pytest.mark.parametrize(("timed", "said"), [(True, "device"), (False, "emulated")])
def test_times_of_an_emulated_device_are_known_as_such(monkeypatch, timed: bool, said: str) -> None:
    monkeypatch.setattr(tables, "scene_work", lambda *given: Work())
    monkeypatch.setattr(tables, "_octets", lambda run: 17)
    run: Any = SimpleNamespace(
        bundle=None, mission=SimpleNamespace(device="d"), info=SimpleNamespace(height_px=3, width_px=5)
    )
    device = SimpleNamespace(timed=timed, tile_s=[0.25, 0.5], peak_memory_mib=7.0)
    onboard: Any = SimpleNamespace(work={}, device=device, apps=None)
    cost = tables._cost(run, onboard)
    assert (cost.timed_on, cost.onboard_s, cost.peak_memory_mib) == (said, 0.75, 7.0)
    assert (cost.scene_px, cost.downlinked_octets) == (15, 17)
