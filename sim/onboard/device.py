"""Scene -> tile codes, the tiles coded by a device under test instead of this host; what its own clock says of them.

A device codes tile by tile: what needs the whole scene (a byte budget, the audit's draw) it does not do.
"""

from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from hil.host.client import DeviceInfo, DeviceSession
from payload.errors import InputError
from payload.link import tile_code
from payload.link.scene_header import SceneHeader
from payload.link.tile_code import Kind, TileCode
from payload.link.valid_mask import pack_mask
from payload.pipeline import Payload
from payload.policy import Policy
from payload.tiles import Tile


@dataclass
class DeviceRun:
    """What a device did in one downlink. Times and memory are its own; an emulated device has none."""

    name: str
    info: DeviceInfo
    tile_s: list[float] = field(default_factory=list)
    stages_s: dict[str, list[float]] = field(default_factory=dict)  # per tile that went through the stage
    peak_memory_mib: float | None = None
    reconnects: int = 0
    work: Counter[str] = field(default_factory=Counter)  # tiles judged, withheld and coded, and valid pixels
    coded_s: list[float] = field(default_factory=list)  # of `tile_s`, the tiles that were coded
    compared: int | None = None  # tiles held against this host's own octets; None: not asked
    different: list[tuple[int, int]] = field(default_factory=list)

    @property
    def timed(self) -> bool:
        return self.info.emulated is None


def refuse_scene_policy(policy: Policy, mission: str, apps: bool = False) -> None:
    """InputError where what is asked for only a whole scene can tell."""
    for asked, what in ((policy.budget_octets is not None, "budget_octets is set"), (apps, "it flies [apps]")):
        if asked:
            raise InputError(
                f"mission {mission}: {what}, and a device codes tile by tile; leave it out, or run without --device"
            )
    if policy.max_error_dn is not None:
        raise InputError("a device is not told of max_error_dn; leave it (--max-error) out, or run without --device")


def codes_of(
    tiles: Iterable[Tile], session: DeviceSession, host: Payload | None, run: DeviceRun
) -> Iterator[tuple[Tile, TileCode]]:
    """Every tile with its code as the device sent it, in order; `host` codes each once more, to compare."""
    under_way: deque[Tile] = deque()

    def sent() -> Iterator[Tile]:
        for tile in tiles:
            under_way.append(tile)
            yield tile

    for coded in session.encode_tiles(sent()):
        tile = under_way.popleft()
        if run.timed:
            run.tile_s.append(coded.latency_s)
            for name, seconds in coded.stages_s.items():
                if seconds > 0.0:
                    run.stages_s.setdefault(name, []).append(seconds)
        if host is not None:
            run.compared = (run.compared or 0) + 1
            if tile_code.pack(host.encode_tile(tile)) != coded.octets:
                run.different.append((tile.row, tile.col))
        code = tile_code.unpack(coded.octets)
        _count(run, tile, code, coded.latency_s)
        yield tile, code
    run.peak_memory_mib = session.peak_memory_mib() if run.timed else None
    run.reconnects = session.incidents.reconnects


def _count(run: DeviceRun, tile: Tile, code: TileCode, seconds: float) -> None:
    run.work["judged"] += code.kind is not Kind.EMPTY
    run.work["withheld"] += code.kind is Kind.WITHHELD
    run.work["coded"] += bool(code.layers)
    run.work["valid_px"] += int(tile.valid.sum())
    if run.timed and code.layers:
        run.coded_s.append(seconds)


def of_scene(tile: Tile, code: TileCode, header: SceneHeader) -> TileCode:
    """A lone tile's code as one of a scene: the host, which knows the scene, adds its id and the valid mask."""
    return replace(code, scene_id=header.scene_id, mask=pack_mask(tile.valid) if code.layers else b"", sent_octets=-1)
