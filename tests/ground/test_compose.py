"""Figures of a run -> the report's tables: counted again from the reception, every tile once, every rate by hand."""

import json
from dataclasses import replace

import numpy as np
import pytest

from hil.devices.latency import Work
from payload.bundle import load_bundle
from payload.link.tile_code import Kind, TileCode, pack
from payload.policy import Gate
from payload.scene import SceneInfo
from payload.sensor import RGBN
from sim.ground.decoder import Decoder
from sim.ground.reception import Reception, SceneReception
from sim.link.channel import LinkReport
from sim.link.link import Link
from sim.metrics.distortion import SceneQuality
from sim.mission.spec import load_mission
from sim.onboard.sending import Onboard
from sim.products.quicklooks import Pictures
from sim.report import tables
from sim.report.comparison import Comparison
from sim.report.files import TILE_KINDS, WITH_BASIS, arrange, validate_report
from sim.report.measured import Ground, apart
from sim.report.tables import Run

T = 64
SIDE = bytes.fromhex("0400040004000400" + "00" * 9 + "2000")


@pytest.fixture(scope="module")
def bundle(toy_bundle):
    return load_bundle(toy_bundle)


def reception_of(bundle) -> SceneReception:
    """2 x 3 tiles: coded, coded with a layer lost, withheld / empty, refused, lost; one audit."""
    mine = bundle.bundle_id
    codes = {
        (0, 0): TileCode(Kind.CODED, 0, 0, mine, 12, SIDE, (bytes(100), bytes(200))),
        (0, 1): TileCode(Kind.CODED, 0, 1, mine, 255, SIDE, (bytes(100),), 2, "layer 1 of 2 is cut short",
                         sent_octets=249),
        (0, 2): TileCode(Kind.WITHHELD, 0, 2, mine, 90),
        (1, 0): TileCode(Kind.EMPTY, 1, 0, mine),
    }  # fmt: skip
    audits = {(0, 2): TileCode(Kind.AUDIT, 0, 2, mine, 90, SIDE, (b"\x00\x00" + bytes(4),))}
    return SceneReception(None, None, None, codes, audits, {(1, 1): "layer 0 is damaged"})


def run_of(bundle, info, received: SceneReception) -> Run:
    class Engine:
        name, version = "toy", "0"

    whole = Reception({None: received})
    return Run(7, info, bundle, load_mission("phisat2"), Engine(), link_report(3000, 1000), whole, received)


def link_report(octets: int, beyond: int) -> LinkReport:
    return LinkReport(9, 9, octets, 1, 0, 0, 0, 1 if beyond else 0, beyond, 440.0, 0.1, 0.001)


@pytest.fixture
def run_and_picture(bundle, tmp_path) -> tuple[Run, Comparison]:
    info = SceneInfo("made-up.tif", 2 * T, 3 * T, RGBN, 10.0, bits=12, crs_wkt='PROJCS["WGS 84 / UTM zone 31N",X]')
    run = run_of(bundle, info, reception_of(bundle))
    quality = SceneQuality(bundle.sensor)
    rng = np.random.default_rng(0)
    dn = rng.integers(500, 3000, (4, T, 2 * T)).astype(np.uint16)
    quality.add(dn, (dn + 10).astype(np.uint16), np.ones((T, 2 * T), bool))
    pictures = Pictures({}, 1, 500.0)
    return run, Comparison(quality.figures, pictures, {(0, 0): 60.0, (0, 1): 59.5}, 2 * T * T)


def composed(run_and_picture, seconds: float = 1.0) -> dict:
    run, picture = run_and_picture
    onboard = Onboard({"clouds": 0.25, "encode": 0.75}, 1.5, 200.0)
    return tables.compose(run, onboard, Ground(seconds, 300.0), picture, {"verdicts": []})


def test_every_tile_is_listed_once_with_what_became_of_it(run_and_picture) -> None:
    tiles = composed(run_and_picture)["tiles"]
    keys = ("row", "col", "kind", "octets_sent", "octets_received", "layers", "incomplete", "cloud_percent")
    # header 12 + 19 + 7 a layer + 4, then the layers; 16 octets for a tile that is declared only
    assert [tuple(tile[key] for key in keys) for tile in tiles["list"]] == [
        (0, 0, "coded", 49 + 300, 49 + 300, 2, False, 12),
        (0, 1, "coded", 49 + 200, 49 + 100, 1, True, None),  # its second layer was lost
        (0, 2, "withheld", 16, 16, 0, False, 90),
        (1, 0, "empty", 16, 16, 0, False, None),
        (1, 1, "refused", None, 0, 0, False, None),
        (1, 2, "lost", None, 0, 0, False, None),
    ]
    assert [t["cause"] for t in tiles["list"]] == [
        None, "layer 1 of 2 is cut short", None, None, "layer 0 is damaged", "nothing of it arrived",
    ]  # fmt: skip
    assert [t["psnr_db"] for t in tiles["list"]] == [60.0, 59.5, None, None, None, None]
    counts = {kind: tiles[kind] for kind in TILE_KINDS}
    assert counts == dict.fromkeys(TILE_KINDS, 0) | {"coded": 2, "withheld": 1, "empty": 1, "lost": 1, "refused": 1}
    assert sum(counts.values()) == tiles["total"] == 6
    assert tiles["incomplete"] == 1


def test_rates_by_hand(run_and_picture) -> None:
    """4000 octets (3000 sent, 1000 beyond the pass) for the 8192 pixels that the ground holds, 4 bands."""
    rate = composed(run_and_picture)["rate"]
    assert rate["octets"] == 4000
    assert rate["cr16"] == pytest.approx(8192 * 4 * 16 / 32000)
    assert rate["cr_sensor"] == pytest.approx(8192 * 4 * 12 / 32000)
    assert rate["bpp"] == pytest.approx(32000 / 8192) and rate["bpppb"] == pytest.approx(8000 / 8192)
    assert rate["bpp_of_the_whole_scene"] == pytest.approx(32000 / (6 * T * T))


def test_lost_and_withheld_shares_by_hand(run_and_picture) -> None:
    """Five tiles hold data, four of them were sent: one lost and one refused of four, one withheld of five."""
    fractions = tables._fractions(composed(run_and_picture)["tiles"])
    assert fractions == {"lost_fraction": 0.5, "incomplete_fraction": 0.25, "withheld_fraction": 0.2}
    checks = {c["requirement"]: c for c in composed(run_and_picture)["checks"]}
    assert checks["max_lost_fraction"]["measured"] == 0.5 and checks["max_lost_fraction"]["held"] is False
    assert checks["min_psnr_10k_db"]["held"] is True and checks["min_psnr_10k_db"]["relation"] == ">="
    assert checks["max_lost_fraction"]["relation"] == "<="


def test_figures_of_quality_by_hand(run_and_picture) -> None:
    metrics = {m["key"]: m["value"] for m in composed(run_and_picture)["quality"]["metrics"]}
    assert metrics["psnr_10k_db"] == pytest.approx(60.0)  # every sample is off by 10 of 10 000
    assert metrics["rmse_reflectance"] == pytest.approx(0.001)
    assert metrics["max_error_reflectance"] == pytest.approx(0.001)
    assert metrics["lpips"] is None


def test_clouds_and_inputs_say_what_was_used(run_and_picture) -> None:
    report = composed(run_and_picture)
    assert report["clouds"]["cloud_percent"] == pytest.approx((12 + 90) / 2) and report["clouds"]["tiles_judged"] == 2
    assert report["clouds"]["withheld_tiles"] == 1 and report["clouds"]["audited_tiles"] == 1
    assert report["inputs"]["bundle"]["id"] == f"{run_and_picture[0].bundle.bundle_id:08x}"
    assert report["inputs"]["scene"]["crs"] == "WGS 84 / UTM zone 31N" and report["inputs"]["seed"] == 7
    assert report["measured_on_host"]["throughput_mpx_s"] == pytest.approx(6 * T * T / 1.0 / 1e6)


def test_the_report_is_what_the_writer_wants_and_times_stay_in_their_section(run_and_picture) -> None:
    report = composed(run_and_picture)
    assert validate_report(report) == []
    later = composed(run_and_picture, seconds=99.0)
    one, two = (json.loads(json.dumps(arrange(r), default=str)) for r in (report, later))
    assert one.pop("measured_on_host") != two.pop("measured_on_host")
    assert one == two


def test_coded_and_withheld_tiles_are_timed_apart(bundle) -> None:
    """Four tiles judged at 0.1 s each, one of them withheld: 3 coded in 2.4 - 0.1 s, 1 withheld in 0.1 s."""
    work = {"judged": 4, "withheld": 1, "coded": 4, "valid_px": 4 * T * T}
    onboard = Onboard({"clouds": 0.4, "encode": 1.5, "packets": 0.5}, 3.0, 200.0, 150.0, work)
    told = apart(onboard, T)
    assert told["gate_share_percent"] == pytest.approx(100 / 6)
    assert told["coded_tiles_mpx_s"] == pytest.approx(3 * T * T / 2.3 / 1e6)
    assert told["withheld_tiles_mpx_s"] == pytest.approx(T * T / 0.1 / 1e6)


def test_throughput_counts_every_stage_and_only_pixels_that_hold_data(run_and_picture) -> None:
    run, picture = run_and_picture
    work = {"judged": 4, "withheld": 1, "coded": 3, "valid_px": 5000}
    onboard = Onboard({"clouds": 0.25, "encode": 0.5, "entropy": 1.0, "packets": 0.25}, 9.0, 200.0, 150.0, work)
    host = tables.compose(run, onboard, Ground(1.0, 300.0), picture, {"verdicts": []})["measured_on_host"]
    assert host["throughput_mpx_s"] == pytest.approx(5000 / 2.0 / 1e6)
    memory = [host[f"peak_rss_{what}mib"] for what in ("before_payload_", "", "added_by_payload_", "with_ground_")]
    assert memory == [150.0, 200.0, 50.0, 300.0]
    assert host["kernel"] in ("compiled", "numpy") and host["instruction_set"]


def test_work_on_board_is_what_was_done_there_whatever_arrived(run_and_picture, monkeypatch) -> None:
    """Nine tiles judged and seven coded, though two were received: replaced thumbnails and lost tiles cost as well."""
    run, _ = run_and_picture
    monkeypatch.setattr(tables, "scene_work", lambda bundle, device, judged, coded: Work(macs=1000.0 * judged + coded))
    onboard = Onboard({"encode": 1.0}, 1.0, 1.0, 0.0, {"judged": 9, "coded": 7})
    assert tables._cost(run, onboard).work.macs == 9007


def test_false_discards_found_by_the_audit_are_judged(run_and_picture) -> None:
    run, picture = run_and_picture
    wanted = replace(run.mission.requirements, max_false_discard_fraction=0.02)
    run = replace(run, mission=replace(run.mission, requirements=wanted))
    onboard = Onboard({"encode": 1.0}, 1.0, 200.0)

    def check(audits: dict) -> dict:
        report = tables.compose(run, onboard, Ground(1.0, 300.0), picture, audits)
        return next(c for c in report["checks"] if c["requirement"] == "max_false_discard_fraction")

    assert check({"rate": 1 / 3})["held"] is False and check({"rate": 0.0})["held"] is True
    assert (check({"rate": None})["held"], check({"rate": None})["judged"]) == (False, False)


def test_a_scene_that_is_not_what_the_imager_takes_is_noted(run_and_picture) -> None:
    run, _ = run_and_picture
    info = replace(run.info, gsd_m=10.0, bands=(*run.info.bands, "B05"), bits=16, notes=("read as stored",))
    told = tables.notes(replace(run, info=info))
    assert told[0] == "read as stored" and len(told) == 4
    assert "10 m a pixel and the imager of mission phisat2 4.75 m" in told[1]
    assert "5 bands" in told[2] and "16 bit" in told[3]
    assert tables.notes(replace(run, info=replace(run.info, gsd_m=4.75))) == []


def test_every_table_says_what_it_rests_on(run_and_picture) -> None:
    report = composed(run_and_picture)
    for name in WITH_BASIS:
        assert name in ("measured_on_device", "apps", "bound", "aided") or report[name]["basis"]


def test_stages_tell_what_a_tile_took(run_and_picture) -> None:
    run, picture = run_and_picture
    onboard = Onboard({"clouds": 0.25, "packets": 0.1}, 1.5, 200.0, tile_s={"clouds": [0.01, 0.02, 0.03, 0.19]})
    stages = tables.compose(run, onboard, Ground(1.0, 300.0), picture, {"verdicts": []})["measured_on_host"]["stages"]
    assert stages[0]["median_ms"] == pytest.approx(25.0) and stages[0]["p95_ms"] == pytest.approx(30 + 0.85 * 160)
    assert "median_ms" not in stages[1]


def test_a_reception_of_nothing_composes_and_holds_nothing(run_and_picture) -> None:
    run, picture = run_and_picture
    nothing = Comparison(dict, picture.pictures, {}, 0)
    report = composed((run_of(run.bundle, run.info, SceneReception(0)), nothing))
    assert report["tiles"]["lost"] == 6 and validate_report(report) == []
    assert all(m["value"] is None for m in report["quality"]["metrics"])
    required = {c["requirement"]: c["held"] for c in report["checks"] if c["requirement"].startswith(("min_", "max_"))}
    assert required and not any(required.values())


def test_refused_wins_over_everything_and_codes_over_nothing(bundle) -> None:
    assert tables.kinds(reception_of(bundle), (2, 3)) == [["coded", "coded", "withheld"], ["empty", "refused", "lost"]]


def test_thumbnails_are_judged_and_those_that_do_not_decode_are_unknown(bundle, toy_engine) -> None:
    reception = reception_of(bundle)
    decoder = Decoder(bundle, toy_engine)
    section = tables.audit_section(reception, decoder)
    assert section["audited"] == 1 and section["withheld"] == 1 and section["unknown"] == 0
    reception.audits[0, 2] = replace(reception.audits[0, 2], layers=(b"\xff" * 9,))
    assert tables.audit_section(reception, decoder)["unknown"] == 1


def test_what_the_pass_could_not_carry_counts_as_rate(run_and_picture) -> None:
    run, _ = run_and_picture
    assert tables._octets(replace(run, link=link_report(1, 0))) == 1
    assert tables._octets(replace(run, link=link_report(1, 5))) == 6
    assert Link(8.0, 10.0).capacity_bits == 80 and Gate().audit_count == run.mission.policy.gate.audit_count


def test_octets_of_a_tile_are_those_that_were_packed(bundle, run_and_picture) -> None:
    listed = {(t["row"], t["col"]): t["octets_sent"] for t in composed(run_and_picture)["tiles"]["list"]}
    for address, code in reception_of(bundle).codes.items():
        if not code.incomplete:
            assert listed[address] == len(pack(code))
