"""Performance mode and energy mode speak of the same tiles; coded and withheld ones are never one figure."""

import re
import socket
import threading
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from hil.agent.agent import HELD_OCTETS, Agent, AgentSettings
from hil.agent.ceilings import copied_octets
from hil.bench.energy_mode import representative
from hil.bench.meters import ModelMeter
from hil.bench.performance import performance_doubts
from hil.bench.profiling import Plan, profile
from hil.bench.run import RunFolder, run, run_identity
from hil.host.client import DeviceSession, Patience, open_device
from hil.host.emulation import WHEELS, pinned_wheels
from hil.host.greeting import device_info, with_remedy
from hil.host.transports import ProcessChannel
from hil.line.channels import SocketChannel, listen_tcp
from hil.line.code_id import code_id
from hil.profiles.demand import Demand, margins
from hil.profiles.headline import headline
from payload.policy import Policy
from payload.tiles import Tile

PATIENT = Patience(hello_s=5.0, silence_s=10.0, attempts=2, pause_s=0.05)


class MadeUpClock:
    """Time that passes only where the agent works or rests: exact, whatever else runs on this machine."""

    def __init__(self):
        self.now_s, self.thread = 0.0, None

    def monotonic(self):
        return self.now_s

    def sleep(self, seconds):
        if threading.current_thread() is self.thread:
            self.now_s += seconds
        else:
            time.sleep(seconds)


class TwoKinds:
    """Dark tiles take the given time on a made-up clock, bright ones are withheld in 2 ms, as a cloud gate has it."""

    engine = "fake 1"

    def __init__(self, clock, pauses):
        self.clock = clock
        self.ran = {"codec": "numpy", "encoder network": "fake 1"}
        self.kind, self.stages_s, self._pauses, self.seen = "", {}, pauses, []

    def encode(self, tile):
        self.kind = "withheld" if tile.dn.max() >= 4000 else "coded"
        pause_s = 0.002 if self.kind == "withheld" else float(self._pauses[tile.col])
        self.seen.append(tile.col)
        self.clock.now_s += pause_s
        self.stages_s = {"clouds": 0.001} if self.kind == "withheld" else {"clouds": 0.001, "encode": pause_s - 0.001}
        return bytes([tile.col])


def tiles_of(kinds):
    valid = np.ones((32, 32), bool)
    return [
        Tile(0, col, np.full((4, 32, 32), 5000 if kind == "w" else 500, np.uint16), valid)
        for col, kind in enumerate(kinds)
    ]


@pytest.fixture
def two_kinds(tiny_bundle, monkeypatch):
    """Starts an agent of this process on a made-up clock; gives (session, encoder)."""
    servers = []

    def start(pauses):
        clock = MadeUpClock()
        monkeypatch.setattr("hil.agent.agent.time", clock)
        encoder = TwoKinds(clock, pauses)
        agent = Agent(tiny_bundle.directory, lambda *_: encoder, AgentSettings(watchdog_s=1e9))
        server = listen_tcp("127.0.0.1", 0)
        servers.append(server)
        clock.thread = threading.Thread(target=lambda: agent.serve(SocketChannel(server.accept()[0])), daemon=True)
        clock.thread.start()
        connect = partial(socket.create_connection, server.getsockname())
        session = DeviceSession(
            lambda: SocketChannel(connect()), "two kinds", tiny_bundle, Policy(), "fake", 1, PATIENT
        )
        return session, encoder

    yield start
    for server in servers:
        server.close()


def test_coded_and_withheld_tiles_are_apart_with_the_gates_share(two_kinds, tiny_bundle):
    """p50 of all ten tiles would be 2 ms: a figure of the clouds, not of the device."""
    session, _ = two_kinds([0.03] * 10)
    with session:
        found = profile(session, tiles_of("cccwwwwwww"), tiny_bundle, ModelMeter(1, 3), Plan(repeats=2, window_s=0.3))
    speed, energy = found.performance, found.energy
    assert speed.gate_share == 0.7
    assert {kind: times.tiles for kind, times in speed.kinds.items()} == {"coded": 3, "withheld": 7}
    assert speed.kinds["coded"].tile_s.p50_s == pytest.approx(0.03)
    assert speed.kinds["withheld"].tile_s.p50_s == pytest.approx(0.002)
    assert speed.tile_s.p50_s == pytest.approx(0.002)
    assert "encode" not in speed.kinds["withheld"].stages_s
    assert speed.stages_s["encode"].n == 6  # of the tiles that went through it, not of all
    assert speed.coded_mpx_s < 0.5 * speed.tile_mpx_s
    assert energy.kind_gross_j["coded"] == pytest.approx(3 * 0.03, rel=1e-4)
    assert energy.kind_net_j["withheld"] == pytest.approx(2 * 0.002, rel=1e-4)
    assert speed.latency_kinds.count("withheld") == 14
    assert found.device.ran["codec"] == "numpy"
    names = [figure.name for figure in headline(found)]
    assert "coded tile, p50" in names and "withheld tile, p50" in names


def test_every_figure_of_the_headline_says_whether_it_is_modelled(two_kinds, tiny_bundle):
    session, _ = two_kinds([0.01] * 4)
    with session:
        found = profile(session, tiles_of("cccw"), tiny_bundle, ModelMeter(1, 3), Plan(repeats=1, window_s=0.2))
    for figure in headline(found):
        assert figure.basis.startswith("modelled" if figure.unit in ("mJ", "W") else "measured"), figure


def test_energy_mode_works_on_all_tiles_and_on_each_equally_often(two_kinds, tiny_bundle):
    """On the tree before it held the first eight, which here take a third of the time of the others."""
    pauses = [0.005] * 8 + [0.015] * 12
    session, encoder = two_kinds(pauses)
    with session:
        encoder.seen.clear()
        found = profile(session, tiles_of("c" * 20), tiny_bundle, ModelMeter(1, 3), Plan(repeats=1, window_s=0.4))
    assert found.energy.held == tuple(range(20))
    in_energy_mode = encoder.seen[1 + 2 * 20 :]  # after the cold start, alone, streamed
    assert len(in_energy_mode) % 20 == 0 and len(set(map(in_energy_mode.count, range(20)))) == 1
    assert found.energy.tile_s == pytest.approx(0.011)  # the first eight alone: 0.005


def test_tiles_that_do_not_fit_are_sampled_over_all_times(two_kinds, tiny_bundle, monkeypatch):
    monkeypatch.setattr("hil.agent.agent.HELD_OCTETS", 5 * 4 * 32 * 32 * 2)
    pauses = [0.002 + 0.003 * k for k in range(20)]
    session, _ = two_kinds(pauses)
    with session:
        found = profile(session, tiles_of("c" * 20), tiny_bundle, ModelMeter(1, 3), Plan(repeats=1, window_s=0.3))
    assert len(found.energy.held) == 5
    assert np.mean([pauses[n] for n in found.energy.held]) == pytest.approx(np.mean(pauses), rel=0.06)
    assert any("energy is of 5 of the 20 tiles" in doubt for doubt in found.complaints)


def test_a_sample_by_times_has_their_mean():
    random = np.random.default_rng(1)
    seconds = random.lognormal(-3, 0.5, 200)
    chosen = representative(seconds, 40)
    assert len(set(chosen)) == 40 and list(chosen) == sorted(chosen)
    assert seconds[list(chosen)].mean() == pytest.approx(seconds.mean(), rel=0.02)


def test_speeds_that_contradict_each_other_are_complained_about(two_kinds, tiny_bundle):
    """The device slows down after performance mode, as one does that gets hot."""
    session, encoder = two_kinds([0.006] * 6)
    with session:
        original, calls = encoder.encode, [0]

        def slower(tile):
            calls[0] += 1
            encoder.clock.now_s += 0.003 if calls[0] > 7 else 0.0  # cold start and the first pass are fast
            return original(tile)

        encoder.encode = slower
        found = profile(session, tiles_of("c" * 6), tiny_bundle, ModelMeter(1, 3), Plan(repeats=1, window_s=0.3))
    assert any("while tiles are streamed" in doubt and "contradict" in doubt for doubt in found.complaints)
    assert any("energy mode takes" in doubt for doubt in found.complaints)
    assert any("too few for p95 and p99" in doubt for doubt in performance_doubts(found.performance))


def test_a_roofline_of_integers_under_a_ceiling_of_floats_gives_no_share():
    from hil.profiles.profile_file import Roofline

    under_floats = Roofline("b", 0.2, 0.007, 28.0, 120.0, 65.0, 8.0, "f32", "INT8")
    under_integers = Roofline("b", 0.2, 0.007, 28.0, 120.0, 65.0, 8.0, "INT8", "INT8")
    assert under_floats.share is None
    assert under_integers.share == pytest.approx(28 / 65)


def test_the_memorys_ceiling_is_of_more_than_the_caches_hold():
    mib = 2**20
    assert copied_octets(32 * mib, 16_000 * mib) == 128 * mib
    assert copied_octets(0, 16_000 * mib) == 64 * mib  # a board that tells of no cache
    assert copied_octets(480 * mib, 64_000 * mib) == 1024 * mib
    assert copied_octets(32 * mib, 512 * mib) == 64 * mib  # within an eighth of the memory


def test_held_tiles_are_bounded_by_the_memory_they_take():
    assert HELD_OCTETS <= 64 * 2**20


def test_the_missions_realtime_factor_is_applied_as_sim_downlink_does(two_kinds, tiny_bundle):
    """A payload at a tenth of the imager's rate holds a mission that asks for 0.05 of it, and fails at 0.2."""
    session, _ = two_kinds([0.01] * 4)
    with session:
        found = profile(session, tiles_of("cccc"), tiny_bundle, None, Plan(repeats=1))
    imager = 10 * found.performance.coded_mpx_s
    for factor, held in ((0.05, True), (0.2, False)):
        (margin,) = margins(found, Demand("m", imager, 5700.0, realtime_factor=factor))
        assert margin.held is held
        assert margin.used == pytest.approx(factor * imager)
    assert margins(found, Demand("m", imager, 5700.0)) == []


def test_what_a_mission_wants_and_nobody_measured_is_not_held(two_kinds, tiny_bundle):
    session, _ = two_kinds([0.01] * 4)
    with session:
        found = profile(session, tiles_of("cccc"), tiny_bundle, None, Plan(repeats=1))
    demand = Demand("m", 1.0, 5700.0, energy_per_orbit_j=100.0, power_w=5.0, imaging_s_per_orbit=60.0)
    missing = {margin.name: margin for margin in margins(found, demand) if margin.used is None}
    assert {name.partition(",")[0] for name in missing} == {"energy of an orbit", "peak power"}
    assert not any(margin.held for margin in missing.values())
    assert all("not held" in margin.words for margin in missing.values())


HELLO = {
    "machine": "aarch64", "cpu": "x", "cores": 1, "memory_mib": 1, "system": "s", "python": "3", "window": 3,
    "kernel": "numpy",
}  # fmt: skip


def test_an_emulated_device_tells_no_time_of_its_load():
    loaded = {"engine": "e", "load_s": 55.0, "ran": {}}
    assert device_info("d", HELLO | {"emulated": "cortex-a53"}, loaded).load_s is None
    assert device_info("d", HELLO | {"emulated": None}, loaded).load_s == 55.0


def test_openvino_on_arm_is_told_what_helps():
    refusal = (
        "device emulated:cortex-a53: x.xml: 3 convolutions run in float (a, ...); rebuild with `python -m export build`"
    )
    assert "use emulated:cortex-a53+onnxruntime" in with_remedy("emulated:cortex-a53", "openvino", refusal)
    assert "--engine onnxruntime" in with_remedy("tcp://board:1", "openvino", refusal)
    assert "`python -m export" not in with_remedy("tcp://board:1", "openvino", refusal)
    assert with_remedy("tcp://board:1", "openvino", "another") == "another"


def test_wheels_for_arm_are_held_to_the_pins(tmp_path):
    pins = dict(
        line.split("==") for line in (Path(__file__).parents[2] / "constraints.txt").read_text().split() if "==" in line
    )
    assert pinned_wheels() == [f"{name}=={pins[name]}" for name in WHEELS]
    from importlib.metadata import version

    assert pinned_wheels(tmp_path / "none")[0] == f"numpy=={version('numpy')}"


def test_under_emulation_only_the_agents_own_words_reach_stderr(caplog):
    script = "import sys; print('Error in cpuinfo', file=sys.stderr); print('agent: I start', file=sys.stderr)"
    import sys

    channel = ProcessChannel([sys.executable, "-c", script], agents_words_only=True)
    channel.process.wait(10)
    deadline_s = time.monotonic() + 5
    while "I start" not in caplog.text and time.monotonic() < deadline_s:
        time.sleep(0.01)
    channel.close()
    assert "agent: I start" in caplog.text and "cpuinfo" not in caplog.text


def test_a_resumed_run_that_was_finished_keeps_its_figures(two_kinds, tiny_bundle, tmp_path, monkeypatch):
    """On the tree before it rewrote its report with 0 ms a tile."""
    monkeypatch.setattr("hil.bench.run.Comparison", lambda bundle: type("None_", (), {"rates": lambda self: []})())
    session, encoder = two_kinds([0.01] * 6)
    identity, tiles = run_identity("s", tiny_bundle, Policy()), tiles_of("ccwccc")
    with session:
        first = run(session, tiles, tiny_bundle, Policy(), RunFolder(tmp_path / "o", identity, False, False), None)
        encoder.seen.clear()
        again = run(session, tiles, tiny_bundle, Policy(), RunFolder(tmp_path / "o", identity, True, False), None)
    assert encoder.seen == []
    assert (again.compute_s, again.wall_s, again.mean_s) == (first.compute_s, first.wall_s, first.mean_s)
    assert again.kinds == {"coded": 5, "withheld": 1}
    assert again.mean_s == {"coded": pytest.approx(0.01), "withheld": pytest.approx(0.002)}


def test_tiles_kept_without_their_times_count_in_no_divisor(two_kinds, tiny_bundle, tmp_path, monkeypatch):
    """Fifteen kept tiles at 0 s made 16.7 ms a tile into 1.0."""
    monkeypatch.setattr("hil.bench.run.Comparison", lambda bundle: type("None_", (), {"rates": lambda self: []})())
    session, _ = two_kinds([0.01] * 6)
    identity, tiles = run_identity("s", tiny_bundle, Policy()), tiles_of("cccccc")
    with session:
        run(session, tiles[:5], tiny_bundle, Policy(), RunFolder(tmp_path / "o", identity, False, False), None)
        (tmp_path / "o" / "tiles.jsonl").write_text('[0, 0, "coded", 0.5, 0.6]\n[0, 1, "cod')  # torn at a power cut
        again = run(session, tiles, tiny_bundle, Policy(), RunFolder(tmp_path / "o", identity, True, False), None)
    assert (again.tiles, again.timed_tiles) == (6, 2)
    assert again.compute_s == pytest.approx(0.51)
    assert again.mean_s["coded"] == pytest.approx(0.255)


def scenes():
    """Times of tiles in s as a payload takes them: a clear scene, one whose clouds come first, one whose come last."""
    random = np.random.default_rng(2)
    rough, cloud = random.lognormal(np.log(0.0065), 0.25, 25), np.full(25, 0.0015)
    return {
        "clear": rough,
        "clouds first": np.concatenate([cloud[:10], rough[:15]]),
        "clouds last": np.concatenate([rough[:10], cloud[:15]]),
    }


@pytest.mark.parametrize("scene", ["clear", "clouds first", "clouds last"])
def test_energy_mode_implies_performance_modes_time_within_5_percent_on_three_scenes(scene, two_kinds, tiny_bundle):
    seconds = scenes()[scene]
    session, _ = two_kinds(seconds)
    with session:
        made = profile(session, tiles_of("c" * 25), tiny_bundle, ModelMeter(2, 5), Plan(repeats=2, window_s=1.0))
    assert made.performance.tile_s.mean_s == pytest.approx(seconds.mean())
    assert made.energy.tile_s == pytest.approx(made.performance.tile_s.mean_s, rel=0.05)
    assert made.energy.tile_gross_j == pytest.approx(5 * seconds.mean(), rel=0.05)
    if scene != "clear":  # what the tree before worked on
        assert abs(seconds[:8].mean() / seconds.mean() - 1) > 0.25


def test_hello_says_which_kernel_is_there_and_load_what_ran(steady_agent, tiny_bundle):
    with open_device(steady_agent.url, tiny_bundle, Policy(), "fake", patience=PATIENT) as session:
        assert session.info.kernel in ("compiled", "numpy")
        assert session.info.ran == {"codec": "fake"}
    assert re.fullmatch("[0-9a-f]{16}", code_id())
