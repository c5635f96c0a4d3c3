"""Which withheld tiles are sent as thumbnails all the same, so that the ground can measure what the gate destroys."""

from typing import Any, Protocol

import numpy as np

from payload.bundle import Bundle
from payload.link.tile_code import Kind, TileCode
from payload.link.valid_mask import pack_mask
from payload.policy import Policy
from payload.tiles import Tile


class Thumbnail(Protocol):
    """A tile as coded: side information and layers."""

    @property
    def side(self) -> bytes: ...

    @property
    def layers(self) -> tuple[bytes, ...]: ...


class Thumbnails(Protocol):
    """What makes them: the payload."""

    @property
    def bundle(self) -> Bundle: ...

    def thumbnail(self, tile: Tile) -> Thumbnail: ...


class AuditDraw:
    """A uniform draw of `audit_count` withheld tiles without knowing how many there will be (Vitter's algorithm R)."""

    def __init__(self, policy: Policy, scene_id: int) -> None:
        self._scene_id = scene_id
        self._wanted = policy.gate.audit_count
        self._random = np.random.default_rng(policy.gate.audit_seed)
        self._seen = 0
        self._state: Any = None
        self.thumbnails: list[TileCode] = []

    def offer(self, tile: Tile, cloud_percent: int, payload: Thumbnails) -> None:
        place = self.draw()
        if place is None:
            return
        coded = payload.thumbnail(tile)
        code = TileCode(
            Kind.AUDIT, tile.row, tile.col, payload.bundle.bundle_id, cloud_percent, coded.side, coded.layers,
            scene_id=self._scene_id, mask=pack_mask(tile.valid),
        )  # fmt: skip
        self.put(place, code)

    def draw(self) -> int | None:
        """The place that the next withheld tile gets; None where it gets none."""
        self._seen += 1
        self._state = None
        place = len(self.thumbnails) if len(self.thumbnails) < self._wanted else int(self._random.integers(self._seen))
        return place if place < self._wanted else None

    def put(self, place: int, code: TileCode) -> None:
        """A thumbnail into its place."""
        self.thumbnails[place : place + 1] = [code]

    def state(self) -> Any:
        """What is drawn up to now; `restore` goes back to it."""
        if self._state is None:
            self._state = self._seen, tuple(self.thumbnails), self._random.bit_generator.state
        return self._state

    def restore(self, state: Any) -> None:
        """Back to an earlier `state`."""
        self._state = state
        self._seen, thumbnails, self._random.bit_generator.state = state
        self.thumbnails[:] = thumbnails
