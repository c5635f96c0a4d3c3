"""Single flips in memory: what is held, what is worked on, what lies inside a runtime, and what is stored."""

import shutil
import tempfile
import time
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from payload.guard.telemetry import Count
from payload.guard.twins import Twin, octets_of
from payload.pipeline import Payload
from payload.policy import Policy, Protection
from payload.store.files import FolderFiles
from payload.store.recorder import record_scene, stored
from payload.store.store import Store
from sim.faults.outcomes import Outcome
from sim.faults.world import POLICY, World, judged, world

Random = np.random.Generator

@lru_cache(maxsize=4)
def guarded(bundle: str, read_back: bool = False, policy: Policy = POLICY) -> tuple[World, Payload, list[Twin]]:
    """A payload with its guard, and its held memory. The self-test, which could find more, is left out."""
    here = world(bundle, policy=policy)
    payload = here.fresh(Protection(self_test=False, read_back=read_back))
    assert payload.guard is not None
    return here, payload, payload.guard.scrubber.twins


def held_octets(bundle: str, role: str) -> int:
    """How much of it there is."""
    return sum(t.held.octets for t in guarded(bundle)[2] if role in ("all", t.held.role))


def in_held(
    role: str, during: bool, protected: bool, bundle: str = "edge", policy: Policy = POLICY
) -> Callable[[Random], Outcome]:
    """One bit of held memory of a role ("all": any): before the scene, or behind the scrub after its first tile."""

    def trial(random: Random) -> Outcome:
        here, payload, twins = guarded(bundle, policy=policy)
        chosen = [twin for twin in twins if role in ("all", twin.held.role)]
        twin = chosen[int(random.choice(len(chosen), p=_shares(chosen)))]
        place, mask = int(random.integers(twin.held.octets)), 1 << int(random.integers(8))

        def hit() -> None:
            octets_of(twin.held)[place] ^= mask

        outcome = _flown(here, payload, hit, during, protected)
        if not twin.alike:  # nobody mended it
            twin.mend()
        return outcome

    return trial


def _shares(twins: list[Twin]) -> np.ndarray:
    octets = np.array([twin.held.octets for twin in twins], np.float64)
    return octets / octets.sum()


def _flown(here: World, payload: Payload, hit: Callable[[], None], during: bool, protected: bool) -> Outcome:
    """A scene that is hit, with the guard or without."""
    guard, payload.guard = payload.guard, payload.guard if protected else None
    payload.telemetry.counts.clear()
    payload.telemetry.take()
    here.scene.before = {1: hit} if during else {}
    if not during:
        hit()
    start = time.perf_counter()
    try:
        codes = list(payload.tile_codes(here.scene))
    except Exception as error:  # memory that was hit may show as any error
        return Outcome(False, True, hole=True, note=type(error).__name__)
    finally:
        payload.guard = guard
        here.scene.before = {}
    took_s = time.perf_counter() - start
    return judged(here, payload, codes, took_s, payload.telemetry.counts[Count.EVENTS] > 0)


def in_network(protected: bool) -> Callable[[Random], Outcome]:
    """One bit of the gate's weights inside the runtime. The hit copy is made of the bundle's own file of weights, since
    nobody can reach into a runtime; it takes the network's place behind the first tile."""

    def trial(random: Random) -> Outcome:
        here = world("edge")
        payload = here.fresh(Protection(self_test=False, network_tiles=1) if protected else None)
        damaged = _damaged_network(here, random)

        held: Any = payload.clouds.network  # type: ignore[union-attr]
        network = held.network if protected else held

        def hit() -> None:
            network._request = damaged._request
            network._given, network._found = damaged._given, damaged._found

        return _flown(here, payload, hit, True, protected)

    return trial


def _damaged_network(here: World, random: Random) -> Any:
    from payload.engine import open_engine

    side = here.bundle.tile_px // here.payload.clouds.settings.cell_px  # type: ignore[union-attr]
    shape = here.payload.clouds.network.compiled.input(0).shape  # type: ignore[union-attr]
    assert shape[-1] == side
    with tempfile.TemporaryDirectory() as folder:
        for ending in ("xml", "bin"):
            shutil.copy(here.bundle.file(f"flight/clouds.{ending}"), folder)
        weights = Path(folder) / "clouds.bin"
        octets = bytearray(weights.read_bytes())
        octets[int(random.integers(len(octets)))] ^= 1 << int(random.integers(8))
        weights.write_bytes(bytes(octets))
        return open_engine("openvino").load(Path(folder) / "clouds.xml", shape=tuple(shape))


def in_input(protected: bool) -> Callable[[Random], Outcome]:
    """One bit of a pixel between the imager and the payload. Nothing on board knows what it was."""

    def trial(random: Random) -> Outcome:
        here, payload, _ = guarded("edge")
        dn = here.scene.dn
        at, mask = int(random.integers(dn.size)), np.uint16(1 << int(random.integers(16)))
        dn.reshape(-1)[at] ^= mask
        try:
            return _flown(here, payload, lambda: None, False, protected)
        finally:
            dn.reshape(-1)[at] ^= mask

    return trial


def in_indices(protected: bool) -> Callable[[Random], Outcome]:
    """One bit of a tile's magnitudes between quantiser and entropy coder: memory that is written anew for every tile.
    Protected means `read_back`."""

    def trial(random: Random) -> Outcome:
        here, payload, _ = guarded("edge", read_back=True)
        codec = payload.codec
        quantise, left = codec._quantise, [True]  # type: ignore[attr-defined]

        def hit(*arguments: Any) -> Any:
            indices = quantise(*arguments)
            if left and left.pop():
                magnitude = indices.magnitude.reshape(-1)
                magnitude[int(random.integers(magnitude.size))] ^= np.uint16(1 << int(random.integers(8)))
            return indices

        codec._quantise = hit  # type: ignore[attr-defined]
        try:
            return _flown(here, payload, lambda: None, False, protected)
        finally:
            del codec._quantise  # type: ignore[attr-defined]

    return trial


def in_stream(random: Random) -> Outcome:
    """One bit of a stored scene: its record is known as damaged, and its tile becomes a hole."""
    here = world("edge")
    with tempfile.TemporaryDirectory(prefix="nadir-faults-") as folder:
        store = Store(FolderFiles(Path(folder), 1 << 26))
        record_scene(here.payload, store, here.scene)
        path = next(Path(folder).glob("*.scene"))
        octets = bytearray(path.read_bytes())
        octets[int(random.integers(len(octets)))] ^= 1 << int(random.integers(8))
        path.write_bytes(bytes(octets))
        again = Store(FolderFiles(Path(folder), 1 << 26))
        codes = [c.code for log in again.scenes.values() for c in stored(log)]
        told = again.telemetry.counts[Count.STORE_DAMAGED] > 0
        wanted = {(c.row, c.col): c.layers for c in here.clean}
        right = [c.layers for c in codes] == list(wanted.values())
        whole = all(c.layers in (wanted[c.row, c.col], ()) for c in codes)
        return Outcome(right, told, hole=whole and told)

