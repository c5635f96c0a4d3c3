"""A run's folder, a stream, a scene or an archived file -> tile codes, with the place and the bundle they belong to."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from payload.bundle import DEFAULT, Bundle
from payload.engine import open_engine
from payload.errors import InputError
from payload.link.tile_code import TileCode
from payload.pipeline import Payload
from payload.scene import SceneInfo
from payload.tiles import grid
from sim.archive.coding import POLICY
from sim.archive.layout import MAGIC
from sim.archive.reader import SceneFile
from sim.ground.arrivals import ARRIVALS_FILE
from sim.ground.place import scene_info, wkt_of
from sim.ground.reception import SceneReception, by_id, receive_channels
from sim.live.replay import read_record
from sim.mission.spec import DEFAULT as DEFAULT_MISSION
from sim.mission.spec import Mission, load_mission
from sim.mission.trust import load_trusted
from sim.onboard.sending import PACKETS_FILE, header_of
from sim.receive import nothing_there, read_stream, receiver_for
from sim.scenes.open_scene import open_reading
from sim.scenes.radiometry import AS_STORED, Reading

#: How streams are told from rasters.
STREAM = ".bin"
#: What a folder of features is known by.
RECORD = "features.json"


@dataclass(frozen=True)
class Asked:
    """What features are asked of. `step_dn`: how finely a scene is coded; None: as the mission has it. `scene_id`:
    which of several in a stream."""

    where: str
    bundle: str = DEFAULT
    mission: str = DEFAULT_MISSION
    engine: str = "openvino"
    step_dn: float | None = None
    scene_id: str | None = None
    reading: Reading = AS_STORED
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Source:
    """Tile codes of one scene in row order. `kind`: run, stream, scene or file. `scene_id`: eight hexadecimal
    digits."""

    kind: str
    info: SceneInfo
    scene_id: str
    bundle: Bundle
    codes: Iterable[TileCode]

    @property
    def grid(self) -> tuple[int, int]:
        return grid(self.info, self.bundle.tile_px)


@contextmanager
def open_source(asked: Asked) -> Iterator[Source]:
    """The source at a path, or `demo`. InputError where it is none of the four."""
    path = Path(asked.where)
    if path.is_file() and _is_archive(path):
        yield _of_file(asked)
        return
    mission = load_mission(asked.mission)
    bundle = load_trusted(asked.bundle, mission)
    if (path / ARRIVALS_FILE).is_file():
        yield _of_run(path, asked, mission, bundle)
    elif (path / "report.json").is_file():
        raise InputError(f"{path}: a run without {ARRIVALS_FILE}; give the stream that it was received from")
    elif (path / RECORD).is_file():
        raise InputError(f"{path}: features already; give what they were made of, or to search a tile: {path}@ROW,COL")
    elif path.is_file() and path.suffix == STREAM:
        scene = _received(path, asked.scene_id, mission, bundle)
        yield _of_reception("stream", scene, [scene.codes[at] for at in sorted(scene.codes)], bundle)
    else:
        with open_reading(asked.reading, asked.where, bundle.sensor, asked.seed) as opened:
            policy = replace(POLICY, step_dn=asked.step_dn or mission.policy.step_dn)  # nothing is withheld
            payload, header = Payload(bundle, policy, open_engine(asked.engine)), header_of(opened, bundle)
            codes = payload.tile_codes(opened, header)
            yield Source("scene", opened.info, f"{header.scene_id:08x}", bundle, codes)


def _of_run(folder: Path, asked: Asked, mission: Mission, bundle: Bundle) -> Source:
    """What had arrived at the end of a run: of the packets that were sent, the layers that its record says came down
    whole."""
    record = read_record(folder / ARRIVALS_FILE)
    scene = _received(folder / PACKETS_FILE, record["scene"]["id"], mission, bundle)
    arrived = {(row, col): layers for _, row, col, _, layers, *_ in record["events"]}  # the last event of a tile holds
    codes = [
        replace(scene.codes[at], layers=scene.codes[at].layers[: arrived[at]])
        for at in sorted(scene.codes)
        if at in arrived
    ]
    return _of_reception("run", scene, codes, bundle)


def _of_reception(kind: str, scene: SceneReception, codes: Iterable[TileCode], bundle: Bundle) -> Source:
    if scene.bundle_id != bundle.bundle_id:
        wanted = "an unknown one" if scene.bundle_id is None else f"{scene.bundle_id:08x}"
        raise InputError(
            f"coded with bundle {wanted}, {bundle.name} is {bundle.bundle_id:08x}; give the other's name as --bundle"
        )
    return Source(kind, scene_info(scene, bundle), _named(scene.scene_id), bundle, codes)


def _received(path: Path, scene_id: str | None, mission: Mission, bundle: Bundle) -> SceneReception:
    """The scene of a stream that is asked for, or its only one."""
    apid = mission.policy.apid
    receiver = receiver_for(path, mission.link, apid)
    reception = receive_channels(read_stream(path, apid, receiver), by_id([bundle]), apid)
    scenes = {_named(key): scene for key, scene in reception.scenes.items()}
    if not scenes:
        raise InputError(nothing_there(path, reception, apid, receiver.reception if receiver else None))
    listed = ", ".join(sorted(scenes)[:8])
    if scene_id is None and len(scenes) > 1:
        raise InputError(f"{path}: holds {len(scenes)} scenes ({listed}); name one as --scene-id")
    if scene_id is not None and scene_id not in scenes:
        raise InputError(f"{path}: no scene {scene_id[:40]}, wanted one of {listed}")
    return scenes[scene_id or next(iter(scenes))]


def _named(scene_id: int | None) -> str:
    return "none" if scene_id is None else f"{scene_id:08x}"


def _of_file(asked: Asked) -> Source:
    file = SceneFile(asked.where, None if asked.bundle == DEFAULT else asked.bundle)
    info = replace(file.info, crs_wkt=wkt_of(file.info.crs_wkt))
    codes = (code for _, code in file.codes(0, 0, *file.shape[1:]))
    return Source("file", info, f"{file.head.header.scene_id:08x}", file.bundle, codes)


def _is_archive(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}), wanted a scene or an archived one") from None
