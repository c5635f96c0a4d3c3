"""What a report holds besides times and joules: accuracy, sustained runs, sweeps, intervals, the meter."""

import socket
import threading
import time

import numpy as np
import pytest

from hil.agent.agent import Agent, AgentSettings
from hil.bench import accuracy as accuracy_module
from hil.bench.accuracy import find_truth, measure_accuracy
from hil.bench.energy_mode import measure_energy
from hil.bench.fakes import FakeHwmon, FakeSupply, KnownPower
from hil.bench.meters import ScpiMeter, SysfsMeter
from hil.bench.profiling import Plan
from hil.bench.soak import duration_s, measure_soak
from hil.bench.sweep import SweepPlan, sweep, tile_size
from hil.host.client import DeviceSession, Patience
from hil.line.channels import SocketChannel, listen_tcp
from hil.profiles import sweep_page
from hil.profiles.findings import CloudAgreement
from hil.profiles.profile_file import Spread
from hil.profiles.sweep_file import NETWORKS, PAYLOAD, Sweep, SweepPoint, as_csv, with_front
from payload.bundle import load_bundle
from payload.errors import InputError
from payload.policy import Policy
from payload.tiles import Tile

EVERY_OTHER = np.indices((32, 32)).sum(axis=0) % 2 == 0


class Encoder:
    """Codes a tile in `pauses[n]`, the n-th time it is asked; every other pixel is cloud to it."""

    engine, ran, kind = "fake 1", {}, "coded"

    def __init__(self, pauses=(0.002,)):
        self.stages_s, self._pauses, self._done = {}, pauses, 0

    def encode(self, tile):
        time.sleep(self._pauses[min(self._done, len(self._pauses) - 1)])
        self._done += 1
        return bytes(10)

    def mask(self, tile):
        return np.packbits(EVERY_OTHER).tobytes()


@pytest.fixture
def with_encoder(tiny_bundle, tmp_path):
    """A session with an agent of this process around a given encoder."""
    servers, sessions = [], []

    def start(encoder):
        agent = Agent(tiny_bundle.directory, lambda *_: encoder, AgentSettings(sys_root=tmp_path))
        server = listen_tcp("127.0.0.1", 0)
        servers.append(server)
        threading.Thread(target=lambda: agent.serve(SocketChannel(server.accept()[0])), daemon=True).start()
        address = ("127.0.0.1", server.getsockname()[1])
        patience = Patience(attempts=1, silence_s=30.0)
        sessions.append(
            DeviceSession(
                lambda: SocketChannel(socket.create_connection(address)),
                "d",
                tiny_bundle,
                Policy(),
                "fake",
                1,
                patience,
            )
        )
        return sessions[-1]

    yield start
    for session in sessions:
        session.close()
    for server in servers:
        server.close()


def quiet(what, done, total): ...


def test_the_cloud_iou_is_of_the_masks_that_the_device_sends(with_encoder, make_tiles, tiny_bundle, monkeypatch):
    """Every other pixel is found, the upper half is cloud, all is known: 256 of 768 pixels are both."""
    truth = np.zeros((32, 32), bool)
    truth[:16] = True
    judges = {
        "distortion": lambda bundle, pairs: {"psnr_10k_pooled_db": 40.0 + len(pairs)},
        "cloud_truth": lambda bundle, scene, reference: ("a drawing", lambda tile: (truth, np.ones((32, 32), bool))),
    }
    monkeypatch.setattr(accuracy_module, "_judge", judges.__getitem__)
    monkeypatch.setitem(tiny_bundle.manifest, "clouds", {})
    session, tiles = with_encoder(Encoder()), make_tiles(20)
    replies = list(session.encode_tiles(tiles))
    found, doubts = measure_accuracy(session, tiles, replies, tiny_bundle, find_truth(tiny_bundle, "demo", None), quiet)
    assert doubts == []
    assert (found.clouds.both_px, found.clouds.found_only_px, found.clouds.true_only_px) == (20 * 256,) * 3
    assert found.clouds.iou == pytest.approx(1 / 3) and found.clouds.basis == "a drawing"
    assert found.distortion == {"psnr_10k_pooled_db": 60.0} and found.decoded == 20
    valid = sum(int(tile.valid.sum()) for tile in tiles)
    assert found.bpp == found.coded_bpp == pytest.approx(20 * 10 * 8 / valid)


def test_what_nobody_knows_of_the_accuracy_is_said(with_encoder, make_tiles, tiny_bundle, monkeypatch):
    def judge(name):
        raise InputError("the ground is not installed; pip install it")

    monkeypatch.setattr(accuracy_module, "_judge", judge)
    session, tiles = with_encoder(Encoder()), make_tiles(1)
    replies, truth = list(session.encode_tiles(tiles)), find_truth(tiny_bundle, None, None)
    found, doubts = measure_accuracy(session, tiles, replies, tiny_bundle, truth, quiet)
    assert found.distortion == {} and found.clouds is None
    assert doubts == ["no PSNR: the ground is not installed; pip install it"]


def test_agreement_without_a_single_cloud_is_no_figure():
    assert CloudAgreement("b", 0, 0, 0, 9).iou is None
    assert CloudAgreement("b", 0, 0, 5, 9).precision is None and CloudAgreement("b", 0, 0, 5, 9).recall == 0.0


def test_a_reference_of_clouds_covers_scene_or_tiles(tmp_path):
    accuracy = pytest.importorskip("sim.onboard.accuracy", reason="the ground is not installed")
    cloud = np.zeros((40, 48), bool)
    cloud[:, 32:] = True
    np.savez(tmp_path / "scene.npz", cloud=cloud)
    whose, truth = accuracy.cloud_truth(None, None, tmp_path / "scene.npz")
    tile = Tile(0, 1, np.zeros((4, 32, 32), np.uint16), np.ones((32, 32), bool))
    found, known = truth(tile)
    assert whose == "cloud mask of scene.npz"
    assert (int(found.sum()), int(known.sum())) == (32 * 16, 32 * 16)  # the scene ends after 16 columns of this tile
    scl = np.full((2, 32, 32), 4, np.uint8)
    scl[1, :, :16] = 9
    np.savez(tmp_path / "tiles.npz", scl=scl)
    whose, truth = accuracy.cloud_truth(None, None, tmp_path / "tiles.npz")
    found, known = truth(tile)
    assert "Sen2Cor" in whose and int(found.sum()) == 32 * 16 and known.all()
    assert not truth(Tile(1, 0, tile.dn, tile.valid))[1].any()  # tile 256 is not in the file
    np.savez(tmp_path / "none.npz", y=scl)
    with pytest.raises(InputError, match="wanted `cloud` or `scl`"):
        accuracy.cloud_truth(None, None, tmp_path / "none.npz")


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90.0), ("10m", 600.0), ("1.5h", 5400.0), ("7", 7.0), ("1d", 86400.0)]
)
def test_times_as_people_write_them(text, seconds):
    assert duration_s(text) == seconds


@pytest.mark.parametrize("text", ["", "m", "10 fortnights", "-5m", "1e3"])
def test_a_time_that_is_none_is_refused(text):
    with pytest.raises(InputError, match="wanted a number and s, m, h or d"):
        duration_s(text)


def test_a_sustained_run_shows_that_a_device_gets_slower(with_encoder, make_tiles, tmp_path, monkeypatch):
    """After 60 tiles they take three times as long, as on a board that lowers its clock; its counter rises."""
    counter = tmp_path / "devices/system/cpu/cpu0/thermal_throttle/core_throttle_count"
    counter.parent.mkdir(parents=True)
    counter.write_text("3\n")

    class Throttling(Encoder):
        def encode(self, tile):
            if self._done == 60:
                counter.write_text("8\n")
            return super().encode(tile)

    session = with_encoder(Throttling([0.01] * 60 + [0.03]))
    found, doubts = measure_soak(session, make_tiles(2), 2.0, quiet)
    assert found.seconds >= 1.9 and found.tiles > 60
    assert found.slowdown > 1.5
    assert found.throttling == {"core throttle count": 5.0}
    assert {"temperature", "governor"} <= set(found.missing)
    assert any("longer at the end" in doubt for doubt in doubts)
    assert any("core throttle count by 5" in doubt for doubt in doubts)
    assert sum(point.tiles for point in found.points) == found.tiles


def test_what_cannot_be_measured_is_refused_before_anything_is(tiny_bundle, tmp_path):
    with pytest.raises(InputError, match="wanted 1 s to 7 days"):
        Plan(soak_s=0.0)
    with pytest.raises(InputError, match="--window-s nan: wanted more than 0"):
        Plan(window_s=float("nan"))
    pytest.importorskip("rasterio", reason="the ground is not installed")
    with pytest.raises(InputError, match="not a usable"):
        find_truth(tiny_bundle, None, tmp_path / "none.npz")


def test_tiles_are_drawn_whole_for_the_interval():
    """Ten tiles that always take their own time, a hundred repeats: a thousand values, but ten tiles only."""
    own = np.linspace(1.0, 2.0, 10)
    seconds, tiles = np.tile(own, 100), list(range(10)) * 100
    apart, whole = Spread.of(seconds), Spread.of(seconds, tiles)
    width = [high - low for low, high in (apart.mean_range_s, whole.mean_range_s)]
    assert width[1] > 5 * width[0]
    assert whole.mean_range_s[0] < own.mean() < whole.mean_range_s[1]
    assert apart.p99_range_s and not Spread.of(seconds[:75]).p99_range_s  # no p99 of 75 values


@pytest.mark.parametrize("kind", ["sysfs", "scpi"])
def test_energy_says_what_the_meter_is_and_what_rest_is(kind, with_encoder, make_tiles, tmp_path):
    power = KnownPower(2.0, 3.0)

    class Loaded(Encoder):
        def encode(self, tile):
            power.set_busy(True)
            return super().encode(tile)

    session, tiles = with_encoder(Loaded((0.01,))), make_tiles(1)
    supply = FakeSupply(power)
    meter = SysfsMeter(str(FakeHwmon(tmp_path, power).power_path)) if kind == "sysfs" else ScpiMeter(supply.resource)
    alone = [list(session.encode_tiles(tiles))]
    power.set_busy(False)
    energy, _ = measure_energy(session, tiles, alone, meter, 1, 0.6, 0.01, quiet, "2026-03-01, 0.5 %")
    supply.close()
    assert energy.states_w["agent up, nothing loaded"] == pytest.approx(2.0, rel=0.01)
    assert list(energy.states_w) == ["agent up, nothing loaded", "bundle loaded, at rest", "at work"]
    assert energy.meter.calibration == "2026-03-01, 0.5 %" and energy.meter.samples_per_s > 1
    assert (energy.meter.sync_uncertainty_s == 0.0) is (kind == "sysfs")  # the agent reads it: one clock
    assert energy.meter.sync_error_j == pytest.approx(
        2 * energy.meter.sync_uncertainty_s * abs(energy.busy_w - energy.idle_w)
    )
    assert energy.tile_gross_range_j == (energy.tile_gross_j, energy.tile_gross_j)  # of one repeat


def point(call_s, mpx_s, what=PAYLOAD):
    return SweepPoint(what, "fake", 1, 1, 256, call_s, mpx_s, 3)


def test_the_pareto_front_by_hand():
    points = [
        point(1.0, 5.0),
        point(2.0, 6.0),
        point(2.0, 4.0),
        point(3.0, 6.0),
        SweepPoint(PAYLOAD, "f", 9, 1, 256, why="no"),
    ]
    assert [p.front for p in with_front(points)] == [True, True, False, False, False]
    apart = with_front([point(1.0, 5.0), point(9.0, 1.0, NETWORKS)])
    assert [p.front for p in apart] == [True, True]  # of two kinds


def test_the_page_and_the_table_of_a_sweep():
    refused = SweepPoint(PAYLOAD, "f", 2, 1, 512, why="too <big>")
    points = with_front([point(0.01, 5.0), point(0.02, 6.0), point(0.02, 7.0, NETWORKS), refused])
    found = Sweep("now", "host:", "CPU", "edge", 7, "v", points)
    page = sweep_page.render(found)
    assert page.count("<svg") == 2 and "too &lt;big&gt;" in page and "<script" not in page
    assert as_csv(found).splitlines()[0] == "what,engine,threads,batch,tile_px,call_s,mpx_s,n,why,front"
    assert len(as_csv(found).splitlines()) == 5


@pytest.mark.parametrize(("values", "words"), [
    ({"threads": (0,)}, "--threads 0: wanted"), ({"batches": (17,)}, "--batch 17: wanted"),
    ({"tile_px": (100,)}, "--tile-px 100: wanted multiples of 64"), ({"threads": ()}, "--threads"),
])  # fmt: skip
def test_a_sweep_over_what_cannot_be_is_refused(values, words):
    with pytest.raises(InputError, match=words):
        SweepPlan(**values)


def test_a_board_is_not_swept_over_tile_sizes_that_it_does_not_hold(tiny_bundle):
    with pytest.raises(InputError, match="holds its own bundle, of 32 px tiles"):
        sweep("tcp://127.0.0.1:1", tiny_bundle, Policy(), lambda bundle: [], SweepPlan(tile_px=(64,)), quiet)


def test_another_tile_size_is_the_same_files_under_another_manifest(tiny_bundle):
    with tile_size(tiny_bundle, 64) as other:
        assert other.tile_px == 64 and other.bundle_id != tiny_bundle.bundle_id
        assert other.manifest["files"]["flight/table.bin"] == tiny_bundle.manifest["files"]["flight/table.bin"]
        folder = other.directory
    assert not folder.exists()
    with tile_size(tiny_bundle, 32) as same:
        assert same is tiny_bundle


@pytest.mark.slow
def test_the_payload_is_swept_over_tile_sizes_under_the_compiled_kernel():
    scenes = pytest.importorskip("hil.host.tiles_in")
    pytest.importorskip("rasterio", reason="the ground is not installed")
    edge = load_bundle("edge", flight_only=True)
    plan = SweepPlan((1,), (1,), (128, 256), "native", 1)
    found = sweep(
        "host:", edge, Policy(), lambda b: list(scenes.scene_tiles("demo:256", b.tile_px, b.sensor).tiles), plan, quiet
    )
    assert [(p.what, p.tile_px, p.why) for p in found.points if p.what == PAYLOAD] == [
        (PAYLOAD, 128, ""),
        (PAYLOAD, 256, ""),
    ]
