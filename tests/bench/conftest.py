"""A tiny bundle, seeded tiles, and agents as processes: what the tests of the bench stand on."""

import hashlib
import importlib.util
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from payload.bundle import FORMAT_VERSION, Bundle, load_bundle
from payload.tiles import Tile

REPOSITORY = Path(__file__).parents[2]
FAKE_AGENT = Path(__file__).parent / "fake_agent.py"


@pytest.fixture(scope="session")
def fake_agent() -> ModuleType:
    spec = importlib.util.spec_from_file_location("fake_agent", FAKE_AGENT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle without networks: enough for an agent whose encoder is a fake."""
    directory = tmp_path_factory.mktemp("bundle")
    (directory / "flight").mkdir()
    (directory / "flight" / "table.bin").write_bytes(b"tables")
    manifest = {
        "format_version": FORMAT_VERSION,
        "name": "tiny",
        "bands": ["B02", "B03", "B04", "B08"],
        "tile_px": 32,
        "codec": {"kind": "fsq"},
        "files": {"flight/table.bin": hashlib.sha256(b"tables").hexdigest(), "ground/none.bin": "00"},
    }
    (directory / "manifest.json").write_text(json.dumps(manifest))
    return load_bundle(directory, flight_only=True)


@pytest.fixture
def make_tiles() -> Callable[..., list[Tile]]:
    return seeded_tiles


def seeded_tiles(count: int, px: int = 32, seed: int = 1) -> list[Tile]:
    random = np.random.default_rng(seed)
    tiles = []
    for k in range(count):
        valid = random.random((px, px)) > 0.1 if k % 3 == 0 else np.ones((px, px), bool)
        tiles.append(Tile(k // 8, k % 8, random.integers(0, 4096, (4, px, px), np.uint16), valid))
    return tiles


@pytest.fixture
def agent_command(tiny_bundle: Bundle) -> Callable[[float | str], list[str]]:
    """Command line of an agent with a fake encoder that takes so long a tile; the transport is to be added."""
    return lambda pause: [sys.executable, str(FAKE_AGENT), str(pause), "--bundle", str(tiny_bundle.directory)]


class PacedCable:
    """Two ptys joined back to back at a bit rate: ten bits an octet, as 8N1 has it. `spoil` may change what passes."""

    def __init__(self, baud: int, spoil: Callable[[bytes], bytes]) -> None:
        self._ends = [os.openpty(), os.openpty()]
        self.ports = [os.ttyname(slave) for _, slave in self._ends]
        self._baud, self._spoil = baud, spoil
        self._stop = threading.Event()
        masters = [master for master, _ in self._ends]
        for source, sink in (masters, masters[::-1]):
            threading.Thread(target=self._pump, args=(source, sink), daemon=True).start()

    def close(self) -> None:
        self._stop.set()

    def _pump(self, source: int, sink: int) -> None:
        due_s = time.monotonic()
        while not self._stop.is_set():
            if not select.select([source], [], [], 0.1)[0]:
                continue
            try:
                data = os.read(source, 2048)
            except OSError:
                return
            due_s = max(due_s, time.monotonic()) + 10 * len(data) / self._baud
            time.sleep(max(0.0, due_s - time.monotonic()))
            rest = memoryview(self._spoil(data))
            while rest and not self._stop.is_set():
                rest = rest[os.write(sink, rest) :]


@pytest.fixture
def paced_cable() -> Iterator[Callable[..., PacedCable]]:
    """Lays cables: a bit rate, and what may happen to what passes."""
    laid: list[PacedCable] = []

    def lay(baud: int, spoil: Callable[[bytes], bytes] = lambda data: data) -> PacedCable:
        laid.append(PacedCable(baud, spoil))
        return laid[-1]

    yield lay
    for cable in laid:
        cable.close()


class RunningAgent:
    """A supervised agent on a free port of this machine."""

    def __init__(self, command: list[str]) -> None:
        self._process = subprocess.Popen(
            [*command, "--tcp", "127.0.0.1:0"], stderr=subprocess.PIPE, text=True, cwd=REPOSITORY
        )
        self.url, self._agent_pid = "", 0
        self._ready = threading.Event()
        threading.Thread(target=self._follow, daemon=True).start()
        assert self._ready.wait(20)

    def _follow(self) -> None:
        for line in self._process.stderr:
            if "listening on " in line:
                self.url = line.split()[-1]
            if "runs as process" in line:
                self._agent_pid = int(line.split()[-1])
                self._ready.set()

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def kill_agent(self) -> None:
        """kill -9 of the agent, not of its supervisor."""
        os.kill(self._agent_pid, signal.SIGKILL)

    def end(self) -> None:
        self._process.kill()
        self._process.wait()


@pytest.fixture
def tcp_agent(agent_command: Callable[[float | str], list[str]]) -> Iterator[Callable[[float | str], RunningAgent]]:
    """Starts supervised agents with a fake encoder."""
    started: list[RunningAgent] = []

    def start(pause: float | str = 0.0) -> RunningAgent:
        started.append(RunningAgent(agent_command(pause)))
        return started[-1]

    yield start
    for agent in started:
        agent.end()


@pytest.fixture(scope="session")
def steady_agent(tiny_bundle: Bundle) -> Iterator[RunningAgent]:
    """One agent for all tests that do it no harm: starting Python takes longer than they do."""
    agent = RunningAgent([sys.executable, str(FAKE_AGENT), "0", "--bundle", str(tiny_bundle.directory)])
    yield agent
    agent.end()
