"""Power meters, each behind one method: the samples since the last call. Instrument libraries are imported here only.

    sysfs:PATH             a file of the device's kernel, read on the device: hwmon power1_input, powercap energy_uj
    scpi:RESOURCE          a supply or meter through PyVISA, e.g. scpi:TCPIP::192.168.1.5::5025::SOCKET
                           (?query=MEAS:POW? or ?query=MEAS:VOLT?;MEAS:CURR?, ?backend=@py, several octets are fine)
    ppk2:PORT?volts=5.0    Nordic Power Profiler Kit II as ampere meter; needs ppk2-api
    joulescope:            Joulescope JS110 or JS220; needs joulescope
    model:IDLE,BUSY        no meter: so many watts idle and busy; every figure then says modelled

PPK2 and Joulescope follow their libraries' documentation and are tested against stand-ins of those libraries only.
"""

import contextlib
import threading
import time
from typing import Any, Protocol
from urllib.parse import parse_qs

from payload.errors import InputError

Samples = list[tuple[float, float]]  # (time.monotonic() of the host, W)


class PowerMeter(Protocol):
    """A meter on the host's side."""

    label: str  # 'measured by ...'
    about: str  # what kind of instrument it is, and how it is read

    def poll(self) -> Samples: ...

    def close(self) -> None: ...


class SysfsMeter:
    """Not polled here: the agent reads `path` beside its own clock."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.label = f"measured by sysfs {path}"
        counter = "energy counter, mean power between readings" if path.endswith("energy_uj") else "power sensor"
        self.about = f"{counter} of the device's kernel, read by the agent beside its own clock"


class ModelMeter:
    """Power from whether the device works."""

    def __init__(self, idle_w: float, busy_w: float) -> None:
        self.idle_w, self.busy_w = idle_w, busy_w
        self.label = f"modelled: {idle_w:g} W idle, {busy_w:g} W busy, as given"
        self.about = "no instrument: two figures as given"


class ScpiMeter:
    """One reading per poll. `query` gives watts, or volts and amperes in two queries joined by a semicolon."""

    def __init__(self, resource: str, query: str = "MEAS:POW?", backend: str = "@py") -> None:
        try:
            import pyvisa
        except ImportError:
            raise InputError("scpi: needs PyVISA; pip install 'nadir-payload[bench]'") from None
        self._errors = (pyvisa.errors.Error, OSError, ValueError)
        self._queries = query.split(";")
        try:
            manager: Any = pyvisa.ResourceManager(backend)
            self._instrument = manager.open_resource(resource, read_termination="\n", write_termination="\n")
            self._instrument.timeout = 2000
            name = self._instrument.query("*IDN?").strip()
            self._read_w()
        except self._errors as error:
            raise InputError(
                f"{resource}: no SCPI meter answers {query} there ({_one_line(error)}); check address and query"
            ) from None
        self.label = f"measured by SCPI {name}"
        self.about = f"polled by this host with {query}; a reading counts for the middle of its exchange"

    def poll(self) -> Samples:
        before_s = time.monotonic()
        try:
            watts = self._read_w()
        except self._errors:
            return []  # a lost reading shows as a gap, and a gap is complained about
        return [((before_s + time.monotonic()) / 2, watts)]

    def close(self) -> None:
        with contextlib.suppress(*self._errors):
            self._instrument.close()

    def _read_w(self) -> float:
        watts = 1.0
        for query in self._queries:
            watts *= float(self._instrument.query(query))
        return watts


class Ppk2Meter:
    """100 000 samples a second, averaged over each poll."""

    def __init__(self, port: str, volts: float) -> None:
        try:
            from ppk2_api.ppk2_api import PPK2_API
        except ImportError:
            raise InputError("ppk2: needs ppk2-api; pip install ppk2-api") from None
        self._volts, self._device = volts, PPK2_API(port)
        self._device.get_modifiers()
        self._device.use_ampere_meter()
        self._device.set_source_voltage(round(1000 * volts))
        self._device.start_measuring()
        self._last_s = time.monotonic()
        self.label = f"measured by PPK2 at {volts:g} V"
        self.about = f"ampere meter, 100 000 samples a second averaged over each poll, times {volts:g} V as given"

    def poll(self) -> Samples:
        data = self._device.get_data()
        before_s, self._last_s = self._last_s, time.monotonic()
        if not data:
            return []
        found = self._device.get_samples(data)
        microamps = found[0] if isinstance(found, tuple) else found
        if not len(microamps):
            return []
        return [((before_s + self._last_s) / 2, self._volts * 1e-6 * float(sum(microamps)) / len(microamps))]

    def close(self) -> None:
        self._device.stop_measuring()


class JoulescopeMeter:
    """Statistics of the instrument over each stretch read."""

    STRETCH_S = 0.02

    def __init__(self) -> None:
        try:
            import joulescope
        except ImportError:
            raise InputError("joulescope: needs its library; pip install joulescope") from None
        self._device = joulescope.scan_require_one(config="auto")
        self._device.open()
        self.label = f"measured by {self._device}"
        self.about = f"current times voltage, averaged over {1e3 * self.STRETCH_S:g} ms"

    def poll(self) -> Samples:
        before_s = time.monotonic()
        data = self._device.read(contiguous_duration=self.STRETCH_S)  # [N, 2]: A, V
        after_s = time.monotonic()
        watts = (data[:, 0] * data[:, 1]).mean()
        return [((before_s + after_s) / 2, float(watts))]

    def close(self) -> None:
        self._device.close()


class HostSampler:
    """Polls a meter in a thread of its own."""

    def __init__(self, meter: PowerMeter, period_s: float = 0.02) -> None:
        self._meter, self._period_s = meter, period_s
        self.samples: Samples = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> Samples:
        self._stop.set()
        self._thread.join(10.0)
        return self.samples

    def _run(self) -> None:
        while not self._stop.is_set():
            self.samples += self._meter.poll()
            self._stop.wait(self._period_s)


def open_meter(text: str) -> PowerMeter | SysfsMeter | ModelMeter:
    """The meter called `text`, see this module's head. InputError says what is wrong with it."""
    kind, _, rest = text.partition(":")
    place, _, query = rest.partition("?")
    options = {name: values[-1] for name, values in parse_qs(query).items()} if kind != "scpi" else _scpi_options(query)
    if kind == "sysfs" and rest:
        return SysfsMeter(rest)
    if kind == "scpi" and place:
        return ScpiMeter(place, options.get("query", "MEAS:POW?"), options.get("backend", "@py"))
    if kind == "ppk2" and place:
        return Ppk2Meter(place, _watts(text, options.get("volts", "5.0")))
    if kind == "joulescope":
        return JoulescopeMeter()
    if kind == "model" and rest.count(",") == 1:
        idle_w, busy_w = (_watts(text, value) for value in rest.split(","))
        return ModelMeter(idle_w, busy_w)
    raise InputError(f"power {text!r}: wanted sysfs:PATH, scpi:RESOURCE, ppk2:PORT, joulescope: or model:IDLE_W,BUSY_W")


def _scpi_options(query: str) -> dict[str, str]:
    """`query=` may hold question marks and semicolons of its own."""
    return {name: value for part in query.split("&") for name, _, value in [part.partition("=")] if name}


def _watts(text: str, value: str) -> float:
    try:
        return float(value)
    except ValueError:
        raise InputError(f"power {text!r}: {value!r} is not a number") from None


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:160] or type(error).__name__
