"""A finished run from its folder, for the page: what arrived when, and the tiles decoded again as far as they had."""

from pathlib import Path
from typing import Any

from payload.bundle import Bundle, load_bundle, shipped_bundles
from payload.engine import open_engine
from payload.errors import BundleError, InputError
from payload.link.space_packet import read_packets
from payload.link.tile_code import TileCode
from sim.ground.arrivals import ARRIVALS_FILE, SCHEMA
from sim.ground.reception import by_id, receive
from sim.live.server import Show
from sim.live.tile_pictures import TilePictures
from sim.toml_tables import read_json

WANTED = f"the {ARRIVALS_FILE} that `sim downlink` leaves in its folder"
#: Fields of the scene and what they may be.
WHOLE = {"height_px": 2**31, "width_px": 2**31, "tile_px": 4096, "rows": 65536, "cols": 65536}


def open_run(folder: Path, bundle: str | None, engine: str, speed: float) -> Show:
    """The show of a run in `folder`. InputError where it is none, or where no bundle here decodes it."""
    record = read_record(folder / ARRIVALS_FILE)
    scene, events, samples = record["scene"], record["events"], record["samples"]
    held = _bundle(bundle, int(scene["bundle"], 16))
    codes = codes_in(folder / "packets.bin", held, int(scene["id"], 16))
    pictures = TilePictures(codes, held, open_engine(engine), max(scene["height_px"], scene["width_px"]))
    end_s = max([row[0] for row in [*events, *samples]], default=0.0)

    def state(after: int) -> dict[str, Any]:
        return {"now_s": end_s, "over": True, "events": events[after:], "samples": samples, "unit": scene["unit"]}

    return Show(scene, False, speed, state, pictures.png)


def read_record(path: Path) -> dict[str, Any]:
    """arrivals.json, checked. InputError names what is wrong."""
    record: Any = read_json(path, WANTED)
    schema = record.get("schema") if isinstance(record, dict) else None
    if schema != SCHEMA:
        raise InputError(f"{path}: schema is {str(schema)[:60]!r}, wanted {SCHEMA!r}; run `sim downlink` again")
    scene = record.get("scene")
    fits = isinstance(scene, dict) and all(_is_whole(scene.get(key), most) for key, most in WHOLE.items())
    fits = fits and all(_is_hex(scene.get(key)) for key in ("id", "bundle"))
    fits = fits and isinstance(scene.get("name"), str) and scene.get("unit") in ("packets", "frames")
    if not (fits and _are_rows(record.get("events"), 7) and _are_rows(record.get("samples"), 4)):
        raise InputError(f"{path}: scene, events or samples are not as {SCHEMA} has them; run `sim downlink` again")
    return record


def codes_in(path: Path, bundle: Bundle, scene_id: int) -> dict[tuple[int, int], TileCode]:
    """The tile codes of a scene as they were sent. InputError where the file cannot be read."""
    try:
        with path.open("rb") as stream:
            reception = receive_any(list(read_packets(stream)), bundle)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}), wanted the packets of the run") from None
    return reception.get(scene_id, {})


def receive_any(packets: list[bytes], bundle: Bundle) -> dict[int | None, dict[tuple[int, int], TileCode]]:
    """Tile codes by scene of packets, whatever their application is."""
    apids = {int.from_bytes(packet[:2], "big") & 0x7FF for packet in packets}
    found: dict[int | None, dict[tuple[int, int], TileCode]] = {}
    for apid in sorted(apids)[:16]:
        for scene_id, scene in receive(packets, by_id([bundle]), apid).scenes.items():
            found.setdefault(scene_id, {}).update(scene.codes)
    return found


def _bundle(where: str | None, bundle_id: int) -> Bundle:
    """The bundle of a run: the one given, else the shipped one of that id."""
    for name in [where] if where else shipped_bundles():
        try:
            bundle = load_bundle(name)
        except BundleError:
            if where:
                raise
            continue
        if bundle.bundle_id == bundle_id:
            return bundle
    given = f"{where} is another" if where else "none that ships has that id"
    raise InputError(f"the run was coded with bundle {bundle_id:08x}, {given}; give its folder as --bundle")


def _is_whole(value: Any, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= most


def _is_hex(value: Any) -> bool:
    return isinstance(value, str) and len(value) == 8 and set(value) <= set("0123456789abcdef")


def _are_rows(rows: Any, width: int) -> bool:
    """Rows of numbers; of events the fourth is a word."""
    word = 3 if width == 7 else None
    return isinstance(rows, list) and all(isinstance(row, list) and len(row) == width for row in rows) and all(
        isinstance(value, str if k == word else int | float) and not isinstance(value, bool)
        for row in rows
        for k, value in enumerate(row)
    )  # fmt: skip
