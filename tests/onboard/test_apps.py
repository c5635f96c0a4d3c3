"""Applications on board: what they answer, when they are cut off, and that no tile and no octet of others suffers."""

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from toys import ArrayScene

from payload.apps import apps as at_work
from payload.apps.counting import plain_window_sums
from payload.apps.first import with_copies
from payload.apps.interface import Finding, Indicator
from payload.apps.registry import GROUP, SHIPPED, open_app
from payload.apps.settings import Alerts, AppPlan, AppSettings, PlacedSite
from payload.apps.vessels import window_areas
from payload.bundle import load_bundle
from payload.errors import InputError
from payload.link.app_record import AppRecord, Cause, Flag, unpack
from payload.link.frames.stack import Stack, packets_on_air
from payload.link.space_packet import unpack as unpack_packet
from payload.link.streams import Stream, with_channels
from payload.pipeline import Payload
from payload.policy import Policy, Region
from payload.scene import SceneInfo
from payload.sensor import RGBN

T = 64
LAND, WATER = (800, 900, 1000, 3000), (700, 800, 500, 300)
POLICY = Policy()


def scene(rows: int = 2, cols: int = 2) -> ArrayScene:
    """Land; the left column of tiles is water, and the top left one has a vessel of 4 x 2 pixels."""
    rng = np.random.default_rng(0)
    dn = np.array(LAND)[:, None, None] + rng.integers(0, 60, (4, rows * T, cols * T))
    dn[:, :, :T] = np.array(WATER)[:, None, None] + rng.integers(0, 20, (4, rows * T, T))
    dn[:, 30:32, 40:44] += 2000
    info = SceneInfo("made up", rows * T, cols * T, RGBN, 10.0, sensed_at="2026-04-18T10:51:07Z")
    return ArrayScene(info, dn.astype(np.uint16), np.ones((rows * T, cols * T), bool))


@pytest.fixture
def fly(toy_bundle, toy_engine):
    def run(apps: dict[str, AppSettings], sites: tuple[PlacedSite, ...] = (), **more) -> tuple[Payload, list[bytes]]:
        plan = AppPlan(apps, sites, mission_has_sites=bool(sites), **more) if apps else None
        payload = Payload(load_bundle(toy_bundle), POLICY, toy_engine, None, plan)
        return payload, list(payload.transmit(scene()))

    return run


def of_stream(packets: list[bytes], stream: Stream) -> list[bytes]:
    return [p for p in packets if unpack_packet(p).apid == POLICY.apid + stream]


def answers(packets: list[bytes]) -> list[AppRecord]:
    """The first copy of every record."""
    found = {r.number: r for r in map(unpack, (unpack_packet(p).data for p in of_stream(packets, Stream.ALERTS)))}
    return [found[number] for number in sorted(found)]


def test_without_applications_not_an_octet_changes_and_with_them_the_picture_does_not(fly) -> None:
    _, bare = fly({})
    _, flown = fly({"water": AppSettings()})
    assert of_stream(bare, Stream.ALERTS) == [] and of_stream(flown, Stream.ALERTS)
    assert of_stream(flown, Stream.LAYERS) == of_stream(bare, Stream.LAYERS)


def test_every_tile_of_water_is_an_alert_and_comes_before_everything_else(fly) -> None:
    _, packets = fly({"water": AppSettings()}, alerts=Alerts(copies=3, spacing_octets=100))
    found = answers(packets)
    assert [(r.box, r.alert, r.value, r.site) for r in found] == [
        ((0, 0, T, T), True, 10_000 * (T * T - 8) // (T * T), None), ((T, 0, T, T), True, 10_000, None),
    ]  # fmt: skip
    apids = [unpack_packet(p).apid - POLICY.apid for p in packets]
    assert apids[:3] == [Stream.ALERTS, Stream.ALERTS, Stream.TELEMETRY]
    assert apids.count(Stream.ALERTS) == 3 * 2 and found[0].time == "2026-04-18T10:51:07Z"


def test_a_site_over_two_tiles_is_one_answer_and_below_its_threshold_no_alert(fly) -> None:
    site = PlacedSite(7, "Lake", Region(0, 32, 128, 96), ndvi=0.5)  # half water, half land; vessel inside
    _, packets = fly({"water": AppSettings(threshold=0.6), "vegetation": AppSettings()}, (site,))
    vegetation, water = sorted(answers(packets), key=lambda r: -r.indicator)
    assert (water.site, water.box, water.confidence) == (7, (0, 32, 128, 64), 100)
    assert water.value == 10_000 * (64 * 64 - 8 + 64 * 0) // (128 * 64) and not water.alert
    dn = scene().dn[:, :128, 32:96].astype(int)
    ndvi = 10_000 * int((dn[3] - dn[2]).sum()) // int((dn[3] + dn[2]).sum())
    assert (vegetation.value, vegetation.alert) == (5_000 - ndvi, 5_000 - ndvi >= 1_500)


def test_a_vessel_is_found_where_it_is_and_a_shore_is_none(fly) -> None:
    _, packets = fly({"vessels": AppSettings(threshold=0.1)})
    (vessel,) = answers(packets)
    assert vessel.box == (30, 40, 2, 4) and vessel.alert
    assert vessel.value == pytest.approx(2000, abs=40)


def test_a_site_that_no_tile_shows_clear_is_told_as_unseen(fly, monkeypatch) -> None:
    monkeypatch.setattr(at_work.TileView, "clear", property(lambda self: np.zeros((T, T), bool)))
    site = PlacedSite(0, "Lake", Region(0, 0, 64, 64))
    (answer,) = answers(fly({"water": AppSettings()}, (site,))[1])
    assert Flag.UNSEEN in answer.flags and not answer.alert and answer.confidence == 0


class Own:
    """An application of somebody else: does what a test says, at the second tile."""

    indicator = Indicator(200, "own")
    needs: frozenset = frozenset()
    identity = "own 1"
    default_threshold = 0.0
    macs_per_px = 1.0
    memory_octets = 1

    def __init__(self, misdeed) -> None:
        self.misdeed, self.tiles = misdeed, 0

    def look(self, view):
        self.tiles += 1
        if self.tiles == 2:
            self.misdeed(view)
        return [Finding((1,), view.clear.size)]

    def value(self, counts, seen, ndvi):
        return counts[0]


def fails(view) -> None:
    raise ZeroDivisionError("its own")


def dawdles(view) -> None:
    start = time.process_time()
    while time.process_time() - start < 0.02:
        pass


MISDEEDS = {
    Cause.FAILED: (fails, AppSettings()),
    Cause.COST: (lambda view: view.meter.charge(1e9), AppSettings()),
    Cause.LATE: (dawdles, AppSettings(tile_deadline_s=0.01)),
    Cause.RECORDS: (lambda view: None, AppSettings(records=2)),
}


@pytest.mark.parametrize("cause", list(Cause))
def test_an_application_that_fails_or_overruns_is_cut_off_and_says_so_and_every_tile_flies(cause, fly, monkeypatch):
    misdeed, settings = MISDEEDS[cause]
    own = Own(misdeed)
    real = open_app
    monkeypatch.setattr(at_work, "open_app", lambda name, *rest: own if name == "own" else real(name, *rest))
    payload, packets = fly({"own": settings, "water": AppSettings()})
    found = answers(packets)
    told = [r for r in found if Flag.CUT_OFF in r.flags]
    assert [(r.indicator, r.value) for r in told] == [(200, cause)]
    assert sum(r.indicator == 1 for r in found) == 2  # the other one works on
    assert of_stream(packets, Stream.LAYERS) == of_stream(fly({})[1], Stream.LAYERS)
    assert "own" in payload.apps.found.cut_off


def test_one_that_needs_more_than_its_budget_never_begins(fly) -> None:
    _, packets = fly({"water": AppSettings(macs_per_px=0.5)})
    assert [(r.flags, r.value) for r in answers(packets)] == [(Flag.CUT_OFF, Cause.COST)]


def test_copies_are_spread_over_the_scene_and_the_last_comes_last() -> None:
    others = [bytes(100)] * 10
    sent = list(with_copies(others, [b"a"], Alerts(copies=4, spacing_octets=1 << 20)))
    places = [n for n, record in enumerate(sent) if record == b"a"]
    assert len(places) == 3 and places[-1] == len(sent) - 1 and min(np.diff([-1, *places])) >= 3


def test_records_do_not_wait_for_their_frame_to_fill() -> None:
    packets = [(Stream.ALERTS, bytes([2, 0xA3, 0xC0, 0, 0, 2, 65, 0, 0])), (Stream.LAYERS, bytes(64))]
    stack = Stack(reed_solomon="none", randomiser=False, lead_in_frames=0)
    channels = [(unit[5] >> 1) & 7 for unit in packets_on_air(packets, stack)]
    assert channels == [Stream.ALERTS, Stream.LAYERS]
    assert [c for c, _ in with_channels([bytes([0x0, 0xA3]) + bytes(7)], 0xA1)] == [Stream.ALERTS]


def test_the_applications_registered_are_those_that_ship() -> None:
    import tomllib

    text = (Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8")
    assert tomllib.loads(text)["project"]["entry-points"][GROUP] == SHIPPED


def test_sums_over_windows_are_those_of_a_loop() -> None:
    values = np.random.default_rng(1).integers(0, 99, (23, 17)).astype(np.int32)
    padded = np.pad(values, 3)
    wanted = [[padded[r : r + 7, c : c + 7].sum() for c in range(17)] for r in range(23)]
    assert np.array_equal(plain_window_sums(values, 3), wanted)
    assert np.array_equal(window_areas((23, 17), 3), plain_window_sums(np.ones((23, 17), np.uint8), 3))


@pytest.mark.parametrize(
    ("apps", "sites", "said"),
    [
        ({"watr": AppSettings()}, (), "app 'watr' is unknown, wanted one of burned, index, vegetation, vessels, water"),
        ({"a": AppSettings(app="index")}, (), "formula is missing"),
        ({"a": AppSettings(app="index", formula="swir > 1")}, (), "'swir' is no band of bundle"),
        ({"water": AppSettings(formula="nir > 1")}, (), "has a formula of its own"),
        ({"vegetation": AppSettings()}, (), "the mission has none"),
        ({"vegetation": AppSettings()}, (PlacedSite(0, "X", Region(0, 0, 9, 9)),), "site X has no ndvi"),
    ],
)
def test_what_cannot_fly_is_said_before_it_does(apps, sites, said, fly) -> None:
    with pytest.raises(InputError, match=said):
        fly(apps, sites)


def test_what_decides_an_answer_is_in_the_digest(toy_bundle) -> None:
    def digest(**settings) -> int:
        plan = AppPlan({"a": AppSettings(app="index", formula="nir > 9", **settings)})
        return at_work.Apps(plan, load_bundle(toy_bundle), None).flown[0].digest

    assert digest() == digest(least_seen_percent=3) != digest(threshold=0.1)
    assert replace(AppSettings(), threshold=0.5).threshold == 0.5
