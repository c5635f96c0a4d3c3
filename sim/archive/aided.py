"""Archived scenes as older dates of a place (`--archive`), and an archived scene refined by such dates."""

from pathlib import Path

from payload.errors import InputError
from sim.aided.archive import Archive
from sim.aided.product import Aided, deliver_aided
from sim.archive import service
from sim.archive.reader import SceneFile, held_bundle
from sim.clouds.ground_mask import open_ground_mask
from sim.ground.reception import SceneReception
from sim.products.origin import Origin
from sim.progress import Progress


def archive_of(folder: Path | None) -> Archive | None:
    """The folder of --archive, with who reads scene files in it; None where none was named."""
    return None if folder is None else Archive(folder, {".nadir": _scene_file})


def _scene_file(where: str) -> SceneFile:
    scene = SceneFile(where)
    held_bundle(scene.head, None)  # refuses a file whose bundle is not at hand, before anything is decoded
    return scene


def get(scene: SceneFile, out: Path, archive: Archive, overwrite: bool, progress: Progress) -> Aided:
    """As service.get of the whole scene, and NAME-aided.tif and NAME-overruled.tif beside it. InputError where those
    are there already, or no date lies over the scene."""
    files = out.with_name(f"{out.stem}-aided{out.suffix}"), out.with_name(f"{out.stem}-overruled{out.suffix}")
    for path in files:
        if path.exists() and not overwrite:
            raise InputError(f"{path} is already there; choose another --out or allow --overwrite")
    header, (_, height, width) = scene.head.header, scene.shape
    origin = Origin("archive", "archive", f"{header.bundle_id:08x}", header.scene_id)
    with archive.over(service.info_of(scene, service.Window(0, 0, height, width)), scene.bundle) as overlay:
        service.get(scene, out, None, progress)
        received = SceneReception(header.scene_id, header, codes=dict(scene.codes(0, 0, height, width)))
        mask = open_ground_mask(scene.bundle, scene.decoder.engine)
        return deliver_aided(received, scene.decoder, mask, overlay, origin, files, progress, blend=False)
