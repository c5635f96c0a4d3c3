"""The complete scenes of a store, drawn from layer by layer: a plan says what is worth most, the ledger what goes.

    units of the store -> order of the plan -> drawn for a pass -> acknowledged: noted in the scene's file
                                          `-> no room: layers are let go of, the scene's file is written anew

What is noted and what is let go of outlives any cut. A tile on disk is always a whole tile code, cut to so many layers.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from payload.errors import InputError
from payload.store.ledger import Ledger
from payload.store.store import THUMBNAIL, Layer, SceneLog, Store

#: A scene's file is written anew where it takes so many times the octets that wait in it.
MOST_SPREAD = 2


class Unit(NamedTuple):
    """One layer of a stored tile; `layer` THUMBNAIL: the thumbnail of a withheld one."""

    scene_id: int
    row: int
    col: int
    layer: int


def units_of(store: Store) -> dict[Unit, int]:
    """Octets of all that waits: of complete scenes of which no pass has begun to send the whole."""
    begun = store.state.now.sending if store.state.now.sent else None
    return {
        Unit(log.scene_id, *address): octets
        for log in store.waiting() if log.scene_id != begun
        for address, octets in _octets_of(log)
    }  # fmt: skip


def _octets_of(log: SceneLog) -> Iterator[tuple[tuple[int, int, int], int]]:
    for row, col in log.tiles:
        candidate = log.tile((row, col))
        for layer, octets in enumerate(candidate.code.layers if candidate else ()):
            if (row, col, layer) not in log.down and octets:
                yield (row, col, layer), len(octets)
    for row, col in log.audits:
        thumbnail = log.audit((row, col))
        if (row, col, THUMBNAIL) not in log.down and thumbnail is not None:
            yield (row, col, THUMBNAIL), sum(map(len, thumbnail.layers))


class Stock:
    """What waits in a store, in the order of a plan. Every pass is planned anew: so is this."""

    def __init__(self, store: Store, order: Iterable[Unit], octets: dict[Unit, int] | None = None) -> None:
        """`order`: what is worth most first; units that do not wait are passed over, those that it leaves out are not
        touched. `octets` as `units_of` gives them, where they are known."""
        known = units_of(store) if octets is None else octets
        self._store, self.units = store, [unit for unit in order if unit in known]
        _require_coarse_first(self.units)
        self._place = {unit: n for n, unit in enumerate(self.units)}
        self.ledger = Ledger(np.array([known[unit] for unit in self.units], float), np.ones(len(self.units), np.int64))
        self.ledger.enter(np.ones(len(self.units), bool))

    def draw(self, room_octets: float) -> list[Unit]:
        """What a pass of so many octets takes."""
        return [self.units[n] for n in self.ledger.draw(room_octets)[0]]

    def acknowledge(self, units: Sequence[Unit]) -> None:
        """These are on the ground. A scene of which nothing waits any more is removed."""
        places = np.array([self._place[unit] for unit in units], np.int64)
        self.ledger.acknowledge(places, np.ones(len(places), np.int64))
        for log, gone in self._by_scene(units):
            log.acknowledge(gone)
            left = sum(octets for _, octets in _octets_of(log))
            if not left:
                self._store.remove(log)
            elif log.length > MOST_SPREAD * left:
                log.let_go(())

    def make_room(self, capacity_octets: float) -> list[Unit]:
        """What is let go of so that the rest takes no more than so many octets. What lies on a disk that has no room
        for a scene's file to be written anew stays."""
        places = np.flatnonzero(self.ledger.make_room(capacity_octets))
        gone: list[Unit] = []
        for log, layers in self._by_scene([self.units[n] for n in places]):
            units = [Unit(log.scene_id, *layer) for layer in layers]
            if log.let_go(layers):
                gone += units
            else:
                self.ledger.waiting[[self._place[unit] for unit in units]] += 1
        return gone

    def _by_scene(self, units: Iterable[Unit]) -> list[tuple[SceneLog, list[Layer]]]:
        found: dict[int, list[Layer]] = defaultdict(list)
        for unit in units:
            found[unit.scene_id].append(unit[1:])
        return [(self._store.scenes[scene_id], layers) for scene_id, layers in found.items()]


def _require_coarse_first(units: Sequence[Unit]) -> None:
    """A fine layer is worth nothing without those before it, so an order that lets go of a coarser one first is wrong.
    """
    last: dict[tuple[int, int, int], int] = {}
    for scene_id, row, col, layer in units:
        if layer < last.get((scene_id, row, col), layer):
            raise InputError(f"tile ({row}, {col}) of scene {scene_id:08x}: layer {layer} comes behind a finer one")
        last[scene_id, row, col] = layer
