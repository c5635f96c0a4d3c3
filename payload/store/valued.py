"""What waits in a store, by what it is worth: value per octet of every layer, from the estimates that tiles carry.

    stored tiles -> points at which each can be cut -> order of layers, for a stock
                                                `-> a pass filled to the octet (payload/link/pass_filling.py)
"""

from collections.abc import Mapping

from payload.link.pass_filling import Waiting, cut_points, values_per_octet
from payload.store.stock import Unit
from payload.store.store import Store


def waiting_scenes(store: Store, worth: Mapping[int, float] | None = None) -> list[Waiting]:
    """The complete scenes. `worth` by scene id, of a squared error in it against one in others; 1 if left out."""
    return [
        Waiting(log.header, [tile for at in log.tiles if (tile := log.tile(at)) is not None], _of(worth, log.scene_id))
        for log in store.waiting()
    ]


def by_value(store: Store, packet_octets: int, worth: Mapping[int, float] | None = None) -> list[Unit]:
    """All layers of all tiles, those first that remove most squared error per octet on the link: an order for a stock.
    Of one tile coarse layers come first, since values never rise along it."""
    rows = [
        (-scene.worth * value, Unit(scene.header.scene_id, tile.code.row, tile.code.col, layer))
        for scene in waiting_scenes(store, worth)
        for tile in scene.tiles
        for layer, value in enumerate(values_per_octet(cut_points(tile, packet_octets)))
    ]
    return [unit for _, unit in sorted(rows)]


def _of(worth: Mapping[int, float] | None, scene_id: int) -> float:
    return 1.0 if worth is None else worth.get(scene_id, 1.0)
