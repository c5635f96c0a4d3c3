"""Answers of applications on the ground: through fades, into GeoJSON and the report, and what false alarms are kept."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from payload.apps.first import with_copies
from payload.apps.settings import Alerts, AppSettings, Site
from payload.errors import InputError
from payload.link.app_record import OCTETS, AppRecord, Flag, pack
from payload.link.frames.stack import Stack, packets_on_air
from payload.link.space_packet import SequenceCounter, segment
from payload.link.streams import Stream
from payload.policy import LonLatRegion, Region
from payload.scene import SceneInfo
from payload.sensor import RGBN
from sim.apps.products import geometry_of, write_answers
from sim.apps.quality import qualities
from sim.ground.reception import SceneReception, receive_channels
from sim.link.chances import Burst
from sim.link.frames.channel import FrameChannel
from sim.link.frames.receiver import FrameReceiver, packets_off_air
from sim.link.link import Link
from sim.mission.sites import corners_of, plan_of
from sim.mission.spec import load_mission

MISSION = load_mission("watch")
T = 64


def flying(**tables):
    return replace(MISSION, **tables)


def record(number: int = 0, total: int = 1, **changes) -> AppRecord:
    return replace(AppRecord(7, number, total, 1, 1, 5000, 4000, (0, 0, 10, 20), Flag.ALERT), **changes)


def test_answers_are_down_in_the_first_second_and_survive_fades_that_take_a_fifth_of_the_frames() -> None:
    """The line of frames itself, 60 passes: 16 answers in six copies among 400 kB of pictures at 10 Mb/s."""
    answers = [pack(record(n, 16)) for n in range(16)]
    pictures = [bytes([0x50]) + bytes(4000)] * 100
    counters = {stream: SequenceCounter(MISSION.policy.apid + stream) for stream in Stream}
    sent, octets, positions = [], 0, []
    for octets_of_record in [*answers, *with_copies(pictures, answers, Alerts())]:
        stream = Stream.ALERTS if len(octets_of_record) == OCTETS else Stream.LAYERS
        for packet in segment(octets_of_record, counters[stream], 1024):
            sent.append((int(stream), packet))
            octets += len(packet)
            positions += [octets] if stream is Stream.ALERTS else []
    stack, link = Stack(), Link(rate_bps=10e6, pass_s=440.0, burst=Burst(0.05, 0.2), stack=Stack())
    units = list(packets_on_air(sent, stack))
    assert len(units) * stack.unit_octets * 8 / link.rate_bps < 1.0  # all six copies
    here, gone = 0, 0
    for seed in range(60):
        channel, receiver = FrameChannel(link, seed), FrameReceiver(stack)
        arrived = packets_off_air(channel.send(iter(units)), receiver)
        here += len(receive_channels(arrived, {}, MISSION.policy.apid).scene(7).answers)
        gone += channel.report.frames_lost_in_bursts
    assert 0.15 < gone / (60 * len(units)) < 0.25
    assert here / (60 * 16) > 0.995


def test_a_box_is_a_polygon_where_the_header_came_a_point_where_it_did_not_and_nothing_without_a_place() -> None:
    import rasterio

    wkt = rasterio.crs.CRS.from_epsg(32631).to_wkt()
    info = SceneInfo("x", 100, 100, RGBN, 10.0, crs_wkt=wkt, transform=(10, 0, 500_000, 0, -10, 4_600_000))
    found = geometry_of(record(), info)
    ring = np.array(found["coordinates"][0])
    assert found["type"] == "Polygon" and len(ring) == 5 and ring[0] == pytest.approx(ring[-1])
    assert ring[:, 0].min() == pytest.approx(3.0) and np.ptp(ring[:, 1]) * 111_000 == pytest.approx(100, rel=0.02)
    placed = record(place=(30_000_000, -20_000_000))
    assert geometry_of(placed, None) == {"type": "Point", "coordinates": [3.0, -2.0]}
    assert geometry_of(record(), None) is None and geometry_of(record(), SceneInfo("x", 9, 9, RGBN, 1.0)) is None


def test_what_was_cut_off_or_not_seen_has_no_value_in_the_file(tmp_path: Path) -> None:
    scene = SceneReception(7)
    scene.answers = {
        0: record(0, 3, site=1), 1: record(1, 3, flags=Flag.UNSEEN), 2: record(2, 3, flags=Flag.CUT_OFF, value=2),
    }  # fmt: skip
    area = Region(0, 0, 9, 9)
    assert write_answers([scene], flying(sites=(Site("A", area), Site("B", area))), tmp_path) == 3
    told = [f["properties"] for f in json.loads((tmp_path / "answers.geojson").read_text())["features"]]
    assert [(p["value"], p["site_name"], p["unseen"], p["cut_off"]) for p in told] == [
        (0.5, "B", False, None), (None, None, True, None), (None, None, False, "cost"),
    ]  # fmt: skip
    assert write_answers([SceneReception(8)], MISSION, tmp_path / "none") == 0


def test_the_line_from_scene_to_ground_carries_answers_and_the_report_says_what_they_cost(
    ground_of, toy_line, monkeypatch
) -> None:
    from sim import downlink

    apps = {"shore": AppSettings(app="index", formula="nir > 1", threshold=0.9)}
    monkeypatch.setattr(downlink, "load_mission", lambda name: replace(load_mission(name), apps=apps))
    report, folder = toy_line(ground_of(2, 2))
    told = report["apps"]
    assert (told["answers_made"], told["answers_received"], told["alerts"], told["copies"]) == (4, 4, 4, 6)
    assert told["answer_packet_octets"] == 4 * 6 * (OCTETS + 8) and 0 <= told["first_alert_s"] < 1.0
    (app,) = told["list"]
    assert (app["macs"], app["macs_per_px"], app["false_alarm_percent"]) == (4 * T * T, 1.0, None)
    assert told["energy_j"] > 0 and told["picture_octets"] > 0
    assert len(json.loads((folder / "answers.geojson").read_text())["features"]) == 4
    assert "Answers of applications on board" in (folder / "report.html").read_text()
    monkeypatch.setattr(downlink, "load_mission", load_mission)
    bare, other = toy_line(ground_of(2, 2), out="bare")
    assert "apps" not in bare and not (other / "answers.geojson").exists()


def test_sites_go_up_in_pixels_with_the_corners_of_the_scene() -> None:
    import rasterio

    wkt = rasterio.crs.CRS.from_epsg(32631).to_wkt()
    info = SceneInfo("x", 1000, 1000, RGBN, 10.0, crs_wkt=wkt, transform=(10, 0, 500_000, 0, -10, 4_600_000))
    sites = (Site("far", LonLatRegion(50, 50, 51, 51)), Site("here", LonLatRegion(3.01, 41.5, 3.05, 41.52)))
    plan = plan_of(flying(apps={"water": AppSettings()}, sites=sites), info)
    assert [(s.number, s.name) for s in plan.sites] == [(1, "here")] and plan.mission_has_sites
    assert plan.corners == corners_of(info) and plan.corners[0][0] == pytest.approx(30_000_000, abs=2)
    assert plan_of(flying(apps={}), info) is None
    assert corners_of(SceneInfo("x", 9, 9, RGBN, 1.0)) is None


def test_a_mission_names_its_mistakes_about_applications() -> None:
    with pytest.raises(InputError, match="app water: site 'Lak' is unknown; did you mean 'Lake'"):
        flying(apps={"water": AppSettings(sites=("Lak",))}, sites=(Site("Lake", Region(0, 0, 9, 9)),))
    with pytest.raises(InputError, match="sites share a name"):
        flying(sites=(Site("Lake", Region(0, 0, 9, 9)),) * 2)
    with pytest.raises(InputError, match="17 apps, wanted at most 16"):
        flying(apps={str(n): AppSettings(app="water") for n in range(17)})


def test_figures_of_quality_are_kept_for_every_application_that_ships_with_a_rule() -> None:
    kept = qualities()
    assert set(kept) == {"water", "vegetation", "burned", "vessels"}
    for quality in kept.values():
        assert quality.false_alarm_percent <= quality.false_alarm_upper_percent <= 100 and quality.of.startswith("of ")
