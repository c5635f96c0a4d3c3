"""Power meters against traces that are known exactly, and the complaints about windows that say nothing."""

import socket
import sys
import threading
import time
import types

import numpy as np
import pytest

from hil.agent.agent import Agent, AgentSettings
from hil.agent.device import SysfsPower
from hil.agent.health import temperatures_c
from hil.bench.energy import PowerTrace, Window, complaints, spread_complaint
from hil.bench.energy_mode import energy_repeat, measure_energy
from hil.bench.fakes import FakeHwmon, FakeSupply, KnownPower
from hil.bench.meters import HostSampler, ModelMeter, ScpiMeter, SysfsMeter, open_meter
from hil.bench.profiling import Plan, profile
from hil.host.client import DeviceSession, Patience
from hil.line.channels import SocketChannel, listen_tcp
from payload.errors import InputError
from payload.policy import Policy

one_percent = 0.01


def square_trace(samples=2001):
    t = np.linspace(0.0, 20.0, samples)
    return PowerTrace(t, np.where(t < 10.0, 2.0, 5.0))


def test_the_integral_of_a_staircase():
    assert square_trace().joules(0.0, 10.0 - 0.01) == pytest.approx(2.0 * 9.99, rel=1e-9)
    assert square_trace().joules(0.0, 20.0) == pytest.approx(70.0, rel=1e-3)


def test_the_integral_of_a_ramp_between_samples_is_exact():
    ramp = PowerTrace(np.arange(11.0), np.arange(11.0) * 2)
    assert ramp.joules(0.25, 7.75) == pytest.approx(7.75**2 - 0.25**2)


def test_a_sound_window_is_not_complained_about():
    assert complaints(square_trace(), Window(0.0, 19.0), "busy") == []


@pytest.mark.parametrize(
    ("trace", "window", "words"),
    [
        (square_trace(), Window(1.0, 4.0), "too short"),
        (square_trace(41), Window(0.0, 20.0), "power samples"),
        (square_trace(), Window(100.0, 120.0), "nothing can be integrated"),
        (PowerTrace(np.r_[0:5:0.01, 12:20:0.01], np.ones(1300)), Window(0.0, 19.0), "timestamps jumped"),
        (PowerTrace(np.r_[0:10:0.01, 9:20:0.01], np.ones(2100)), Window(0.0, 19.0), "go backwards"),
        (PowerTrace(np.r_[0:12:0.01], np.ones(1200)), Window(0.0, 19.0), "timestamps jumped"),
    ],
)
def test_a_doubtful_window_is_complained_about(trace, window, words):
    assert any(words in complaint for complaint in complaints(trace, window, "busy"))


def test_repeats_that_differ_are_complained_about():
    assert spread_complaint("x", [1.0, 1.01, 0.99]) == []
    assert "repeats differ by 20 %" in spread_complaint("x", [1.0, 1.2, 1.0])[0]


def test_a_power_file_in_microwatts(tmp_path):
    hwmon = FakeHwmon(tmp_path, KnownPower(2.5, 0.0))
    assert SysfsPower(str(hwmon.power_path), tmp_path).read_w() == pytest.approx(2.5)
    assert temperatures_c(str(tmp_path)) == {"ina226 temp1": 41.5}


def test_a_power_file_that_is_torn_or_gone_is_no_reading(tmp_path):
    path = tmp_path / "power1_input"
    path.write_text("")
    meter = SysfsPower(str(path), tmp_path)
    assert meter.read_w() is None
    path.unlink()
    assert meter.read_w() is None


def test_an_energy_counter_gives_mean_power_and_wraps(tmp_path, monkeypatch):
    counter, clock = tmp_path / "energy_uj", iter([10.0, 12.0, 14.0])
    (tmp_path / "max_energy_range_uj").write_text("20000000")
    monkeypatch.setattr("hil.agent.device.time", types.SimpleNamespace(monotonic=lambda: next(clock)))
    counter.write_text("0")
    meter, found = SysfsPower(str(counter), tmp_path), []
    for microjoules in (5_000_000, 17_000_000, 1_000_000):
        counter.write_text(str(microjoules))
        found.append(meter.read_w())
    assert found == [None, pytest.approx(6.0), pytest.approx(2.0)]


def wobble(power, seconds):
    end_s = time.monotonic() + seconds
    while time.monotonic() < end_s:
        for busy in (True, False):
            power.set_busy(busy)
            time.sleep(0.3)


def test_scpi_agrees_with_a_known_trace_within_one_percent():
    power = KnownPower(1.5, 3.0)
    supply = FakeSupply(power)
    meter = ScpiMeter(supply.resource)
    sampler, start_s = HostSampler(meter, 0.003), time.monotonic()
    wobble(power, 3.0)
    trace = PowerTrace.of(sampler.stop())
    end_s = trace.t_s[-1]
    assert meter.label == "measured by SCPI NADIR,FAKE-SUPPLY,0,1"
    assert trace.joules(start_s, end_s) == pytest.approx(power.joules(start_s, end_s), rel=one_percent)
    meter.close()
    supply.close()


def test_scpi_volts_times_amperes():
    supply = FakeSupply(KnownPower(2.0, 0.0))
    meter = open_meter(f"scpi:{supply.resource}?query=MEAS:VOLT?;MEAS:CURR?")
    ((_, watts),) = meter.poll()
    assert watts == pytest.approx(2.0)
    meter.close()


def test_a_supply_of_pyvisa_sim_is_read(tmp_path):
    pytest.importorskip("pyvisa_sim", reason="pyvisa-sim is not installed")
    (tmp_path / "supply.yaml").write_text(
        """
spec: "1.1"
devices:
  supply:
    eom:
      TCPIP SOCKET: {q: "\\n", r: "\\n"}
    dialogues:
      - {q: "*IDN?", r: "SIM,SUPPLY,0,1"}
      - {q: "MEAS:POW?", r: "3.25"}
resources:
  TCPIP::localhost::9999::SOCKET: {device: supply}
"""
    )
    meter = ScpiMeter("TCPIP::localhost::9999::SOCKET", backend=f"{tmp_path / 'supply.yaml'}@sim")
    assert [watts for _, watts in meter.poll()] == [3.25]


def test_nobody_at_the_supplys_address_is_an_input_error():
    with pytest.raises(InputError, match="no SCPI meter answers"):
        open_meter("scpi:TCPIP::127.0.0.1::1::SOCKET")


@pytest.mark.parametrize("text", ["", "sysfs:", "volts", "model:1", "model:1,x", "ppk2:"])
def test_a_meter_that_cannot_be_is_refused(text):
    with pytest.raises(InputError, match="power"):
        open_meter(text)


def test_ppk2_through_a_stand_in_of_its_library(monkeypatch):
    class Stand:
        def __init__(self, port):
            self.calls = [port]

        def __getattr__(self, name):
            return lambda *args: self.calls.append((name, *args))

        def get_data(self):
            return b"data"

        def get_samples(self, data):
            return [200_000.0, 400_000.0], [0, 0]  # uA, logic

    module = types.SimpleNamespace(PPK2_API=Stand)
    monkeypatch.setitem(sys.modules, "ppk2_api", types.ModuleType("ppk2_api"))
    monkeypatch.setitem(sys.modules, "ppk2_api.ppk2_api", module)
    meter = open_meter("ppk2:/dev/ttyACM0?volts=5")
    assert [watts for _, watts in meter.poll()] == [pytest.approx(1.5)]
    assert meter.label == "measured by PPK2 at 5 V"
    meter.close()


def test_joulescope_through_a_stand_in_of_its_library(monkeypatch):
    class Stand:
        def open(self): ...
        def close(self): ...
        def __str__(self):
            return "JS220-000001"

        def read(self, contiguous_duration):
            return np.array([[0.5, 5.0], [0.7, 5.0]])

    module = types.ModuleType("joulescope")
    module.scan_require_one = lambda config: Stand()
    monkeypatch.setitem(sys.modules, "joulescope", module)
    meter = open_meter("joulescope:")
    assert [watts for _, watts in meter.poll()] == [pytest.approx(3.0)]
    meter.close()


class LoadedEncoder:
    """An encoder that draws power while it works."""

    engine = "fake 1"
    kind = "coded"

    def __init__(self, power):
        self.ran = {}
        self.stages_s, self._power = {}, power

    def encode(self, tile):
        self._power.set_busy(True)
        time.sleep(0.36)
        self._power.set_busy(False)
        time.sleep(0.12)
        self.stages_s = {"encode": 0.36, "entropy": 0.12}
        return b"octets"


@pytest.fixture
def powered(tiny_bundle, tmp_path):
    """A known power, and a session with an agent of this process that draws it."""
    power = KnownPower(2.0, 3.0)
    agent = Agent(tiny_bundle.directory, lambda *_: LoadedEncoder(power), AgentSettings(sys_root=tmp_path))
    server = listen_tcp("127.0.0.1", 0)
    port = server.getsockname()[1]
    threading.Thread(target=lambda: agent.serve(SocketChannel(server.accept()[0])), daemon=True).start()

    def connect():
        return SocketChannel(socket.create_connection(("127.0.0.1", port)))

    with DeviceSession(connect, "powered", tiny_bundle, Policy(), "fake", 1, Patience(attempts=1)) as session:
        yield power, session
    server.close()


@pytest.mark.parametrize("kind", ["sysfs", "scpi"])
def test_energy_of_tiles_agrees_with_the_known_trace_within_one_percent(kind, powered, tmp_path, make_tiles):
    power, session = powered
    hwmon, supply = FakeHwmon(tmp_path, power), FakeSupply(power)
    meter = SysfsMeter(str(hwmon.power_path)) if kind == "sysfs" else ScpiMeter(supply.resource)
    session.hold(make_tiles(1))
    found = energy_repeat(session, meter, 4.0, 0.004, session.clock())
    supply.close()
    true_j = power.joules(found.busy.start_s, found.busy.end_s)  # one process, one clock
    assert found.idle_w == pytest.approx(2.0, rel=one_percent)
    assert found.busy_w * found.busy.seconds == pytest.approx(true_j, rel=one_percent)
    assert found.peak_w == pytest.approx(5.0, rel=one_percent)


def test_an_energy_figure_says_who_measured_and_what_is_doubtful(powered, tmp_path, make_tiles):
    power, session = powered
    meter, tiles = SysfsMeter(str(FakeHwmon(tmp_path, power).power_path)), make_tiles(1)
    alone = [list(session.encode_tiles(tiles))]
    energy, doubts = measure_energy(session, tiles, alone, meter, 1, 1.5, 0.02, lambda *_: None)
    assert energy.basis == f"measured by sysfs {meter.path}"
    assert energy.clock == "the agent reads the meter: one clock"
    assert any("too short" in doubt for doubt in doubts)
    assert any("tiles in" in doubt for doubt in doubts)
    assert energy.stage_net_j["encode"] == pytest.approx(0.75 * energy.tile_net_j)


def test_a_profile_with_a_modelled_meter_says_so(powered, tiny_bundle, make_tiles):
    _, session = powered
    found = profile(session, make_tiles(2), tiny_bundle, ModelMeter(2.0, 4.5), Plan(repeats=1, window_s=1.5))
    assert found.energy.basis == "modelled: 2 W idle, 4.5 W busy, as given"
    assert found.energy.busy_w == pytest.approx(4.5)
    assert found.energy.tile_gross_j == pytest.approx(found.energy.tile_net_j * 4.5 / 2.5, rel=1e-3)
    assert 0.48 <= found.performance.tile_s.p50_s < 0.7
    assert found.roofline is None  # the tiny bundle has no networks
