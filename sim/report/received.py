"""What `sim receive` says of a stream: a report without reference figures, as there is no original to compare with."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

from payload.scene import SceneInfo
from sim.aided.product import Aided
from sim.apps.products import ANSWERS_FILE, answer_row
from sim.ground.place import name_of
from sim.ground.reception import Reception, SceneReception
from sim.link.frames.receiver import FrameReception
from sim.report import housekeeping
from sim.report.files import canonical_json
from sim.report.link import frames_read
from sim.report.tables import kinds, tile_row

SCHEMA = "nadir-received/1"


class Product(Protocol):
    """One scene on disk."""

    @property
    def scene(self) -> SceneReception: ...
    @property
    def info(self) -> SceneInfo: ...
    @property
    def files(self) -> tuple[Path, ...]: ...
    @property
    def known_px(self) -> int: ...
    @property
    def decoder(self) -> str: ...
    @property
    def notes(self) -> tuple[str, ...]: ...
    @property
    def aided(self) -> Aided | None: ...


def write_received_report(
    stream: Path, mission: str, reception: Reception, frames: FrameReception | None, products: Sequence[Product],
    folder: Path,
) -> dict[str, Any]:
    """report.json in `folder`; gives what it says."""
    report: dict[str, Any] = {
        "schema": SCHEMA,
        "inputs": {"stream": stream.name, "mission": mission},
        "packets": asdict(reception.counts),
        "frames": None if frames is None else frames_read(frames),
        "housekeeping": [asdict(record) for record in reception.housekeeping],
        "guard": housekeeping.told(reception.housekeeping),
        "records_refused": Counter(reception.unaddressed),
        "scenes": [_scene(product, folder) for product in products],
        "scenes_not_shown": len(reception.scenes) - len(products),
        "answers": [answer_row(a) for s in reception.scenes.values() for _, a in sorted(s.answers.items())],
    }
    (folder / "report.json").write_text(canonical_json(report), encoding="utf-8", newline="\n")
    return report


def as_text(report: dict[str, Any], out: Path) -> str:
    """A few lines for a terminal."""
    packets = report["packets"]
    lines = _frames(report["frames"])
    lines.append(
        f"packets  {packets['received']} pieces: {packets['refused']} damaged, {packets['foreign']} of other "
        f"applications, {packets['missing']} missing"
    )
    if (guard := housekeeping.in_a_line(report["guard"])) is not None:
        lines.append(f"guard    {guard}")
    lines += _answers(report["answers"], out)
    for scene in report["scenes"]:
        counts = ", ".join(f"{n} {kind}" for kind, n in scene["tiles"].items() if n)
        lines.append(f"scene    {scene['name']}: {counts}; {out / scene['picture']}")
        lines += [f"         {note}" for note in scene["notes"]]
        if (aided := scene["aided"]) is not None:
            dates = f"{aided['tiles_refined']} tiles by {len(aided['dates'])} dates"
            lines.append(f"aided    {dates}; {(out / scene['picture']).parent / aided['product']}")
    return "\n".join(lines) + "\n"


def _answers(answers: list[dict[str, Any]], out: Path) -> list[str]:
    if not answers:
        return []
    alerts, cut = (sum(bool(answer[key]) for answer in answers) for key in ("alert", "cut_off"))
    told = f"; {cut} applications were cut off" if cut else ""
    return [f"answers  {len(answers)} of applications, {alerts} alerts{told}; {out / ANSWERS_FILE}"]


def _frames(frames: dict[str, Any] | None) -> list[str]:
    if frames is None:
        return []
    return [
        f"frames   {frames['sync_frames']} found: {frames['frames_refused']} refused, {frames['frames_missing']} "
        f"missing, {frames['symbols_corrected']} symbols corrected"
    ]


def _scene(product: Product, folder: Path) -> dict[str, Any]:
    scene, info = product.scene, product.info
    named = kinds(scene, scene.grid)
    rows = [tile_row(scene, (row, col), kind, None) for row, line in enumerate(named) for col, kind in enumerate(line)]
    return {
        "id": None if scene.scene_id is None else f"{scene.scene_id:08x}",
        "name": name_of(scene),
        "bundle": None if scene.bundle_id is None else f"{scene.bundle_id:08x}",
        "sensed_at": info.sensed_at, "height_px": info.height_px, "width_px": info.width_px,
        "bands": list(info.bands), "gsd_m": info.gsd_m, "has_a_place": info.transform is not None,
        "tiles": Counter(row["kind"] for row in rows) | {"incomplete": sum(row["incomplete"] for row in rows)},
        "known_px": product.known_px, "picture": str(product.files[0].relative_to(folder)),
        "coarser_pictures": [str(path.relative_to(folder)) for path in product.files[1:]],
        "aided": None if product.aided is None else product.aided.section(),
        "decoder": product.decoder, "notes": [*_notes(scene), *product.notes], "list": rows,
    }  # fmt: skip


def _notes(scene: SceneReception) -> list[str]:
    notes = []
    if scene.header is None:
        notes.append("no scene header arrived: size from the tiles, no place, no time")
    elif scene.fates is None:
        notes.append("the end of the scene did not arrive: more may come")
    if scene.outside:
        notes.append(f"{len(scene.outside)} tiles beyond the scene's grid were left out")
    return notes
