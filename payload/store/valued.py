"""What waits in a store, by what it is worth: value per octet of every layer, from the estimates that tiles carry.

    stored tiles -> points at which each can be cut -> order of layers, for a stock
                                                `-> a pass filled to the octet (payload/link/pass_filling.py)
"""

from collections.abc import Iterator, Mapping

from payload.link.pass_filling import Waiting, clear_px, cut_points, values_per_octet, worth_when_whole
from payload.link.rate_control import Candidate
from payload.store.stock import Unit
from payload.store.store import SceneLog, Store


def waiting_scenes(store: Store, worth: Mapping[int, float] | None = None, whole_tiles: bool = False) -> list[Waiting]:
    """The complete scenes. `worth` by scene id, of what is lacking in it against the same in others; 1 if left out.
    Lacking is squared error, or with `whole_tiles` clear pixels that have not all their layers."""
    return [
        Waiting(log.header, list(_tiles(log, whole_tiles)), _of(worth, log.scene_id)) for log in store.waiting()
    ]


def by_value(
    store: Store, packet_octets: int, worth: Mapping[int, float] | None = None, whole_tiles: bool = False
) -> list[Unit]:
    """All layers of all tiles, those first that are worth most per octet on the link: an order for a stock. Of one tile
    coarse layers come first, since values never rise along it."""
    rows = [
        (-scene.worth * value, Unit(scene.header.scene_id, tile.code.row, tile.code.col, layer))
        for scene in waiting_scenes(store, worth, whole_tiles)
        for tile in scene.tiles
        for layer, value in enumerate(values_per_octet(cut_points(tile, packet_octets)))
    ]
    return [unit for _, unit in sorted(rows)]


def _tiles(log: SceneLog, whole_tiles: bool) -> Iterator[Candidate]:
    for address in log.tiles:
        tile = log.tile(address)
        if tile is not None:
            yield worth_when_whole(tile, clear_px(tile.code, log.header.tile_px)) if whole_tiles else tile


def _of(worth: Mapping[int, float] | None, scene_id: int) -> float:
    return 1.0 if worth is None else worth.get(scene_id, 1.0)
