"""Instruments without hardware, with a trace that is known exactly: the meters are held against these.

A `KnownPower` is a staircase in time; its true energy has a closed form. The fake hwmon tree and the fake SCPI supply
both show it, each through its own interface.
"""

import contextlib
import socket
import threading
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path


class KnownPower:
    """Power that is `idle_w` plus `load_w` while busy; remembers every change, so that its energy is known exactly."""

    def __init__(self, idle_w: float, load_w: float) -> None:
        self._idle_w, self._load_w = idle_w, load_w
        self._changes: list[tuple[float, float]] = [(time.monotonic(), idle_w)]
        self._lock = threading.Lock()
        self.watchers: list[Callable[[float], None]] = []  # told of every change, at once

    def set_busy(self, busy: bool) -> None:
        watts = self._idle_w + (self._load_w if busy else 0.0)
        with self._lock:
            self._changes.append((time.monotonic(), watts))
        for watcher in self.watchers:
            watcher(watts)

    def now_w(self) -> float:
        return self._changes[-1][1]

    def joules(self, start_s: float, end_s: float) -> float:
        """Exact energy between two times."""
        with self._lock:
            changes = [*self._changes, (float("inf"), 0.0)]
        total = 0.0
        for (since_s, watts), (until_s, _) in pairwise(changes):
            total += watts * max(0.0, min(until_s, end_s) - max(since_s, start_s))
        return total


class FakeHwmon:
    """A hwmon tree under `root` whose power1_input follows a KnownPower. Written by rename: none sees half."""

    def __init__(self, root: Path, power: KnownPower) -> None:
        self._folder = root / "class/hwmon/hwmon0"
        self._folder.mkdir(parents=True)
        (self._folder / "name").write_text("ina226\n")
        (self._folder / "temp1_input").write_text("41500\n")
        self.power_path = self._folder / "power1_input"
        self._write(power.now_w())
        power.watchers.append(self._write)

    def _write(self, watts: float) -> None:
        fresh = self._folder / "power1_input.part"
        fresh.write_text(f"{round(1e6 * watts)}\n")
        fresh.rename(self.power_path)


class FakeSupply:
    """A SCPI supply on a TCP port of this machine that delivers a KnownPower at `volts`."""

    def __init__(self, power: KnownPower, volts: float = 5.0) -> None:
        self._power, self._volts = power, volts
        self._server = socket.create_server(("127.0.0.1", 0))
        self.resource = f"TCPIP::127.0.0.1::{self._server.getsockname()[1]}::SOCKET"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._server.close()

    def answer(self, command: str) -> str | None:
        """What the supply says to one command; None to what it does not know."""
        answers = {
            "*IDN?": "NADIR,FAKE-SUPPLY,0,1",
            "MEAS:POW?": f"{self._power.now_w():.6f}",
            "MEAS:VOLT?": f"{self._volts:.6f}",
            "MEAS:CURR?": f"{self._power.now_w() / self._volts:.9f}",
        }
        return answers.get(command.strip().upper())

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._server.accept()
                threading.Thread(target=self._talk, args=(connection,), daemon=True).start()

    def _talk(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError), connection.makefile("rw", newline="\n") as line:
            for command in line:
                said = self.answer(command)
                if said is not None:
                    line.write(said + "\n")
                    line.flush()
