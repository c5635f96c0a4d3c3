"""What reads octets from anywhere: one target each, with a few whole inputs to begin from.

`read` takes any octets and gives back quietly, or refuses them with an error of ours of one line. Whatever else it
raises is a defect. tests/fuzz/test_fuzz_targets.py runs each a little, tests/fuzz/atheris_run.py as long as one likes.
"""

import hashlib
import io
import json
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from fuzz.link_campaign import whole_line as line
from fuzz.sent_scenes import BANDS, POLICY, TILE_PX
from spacepackets.cfdp import TransmissionMode
from spacepackets.cfdp.conf import PduConfig
from spacepackets.cfdp.pdu import EofPdu, FileDataPdu, NakPdu
from spacepackets.cfdp.pdu.file_data import FileDataParams
from spacepackets.util import ByteFieldU16

from export.bundle import delta
from hil.line.messages import policy_fields, policy_of, unpack_coded, unpack_tile
from hil.line.protocol import Frame, FrameReader, ProtocolError, Type, pack, pack_body, unpack_body
from payload.array_files import ArrayFileError, read_arrays
from payload.bundle import SHIPPED, ArrayFile, load_bundle
from payload.codec.interface import Codec
from payload.codec.jpeg2000 import FallbackCodec
from payload.codec.lapped.dense.mixing import FIRST, SECOND
from payload.codec.lapped.tables import load_tables
from payload.codec.registry import open_codec
from payload.errors import InputError, StreamError
from payload.guard.telemetry import Event, EventId, pack_event
from payload.guard.telemetry import unpack as unpack_event
from payload.link import (
    app_record,
    file_pdu,
    fountain_packet,
    housekeeping,
    scene_header,
    telecommand,
    tile_code,
    valid_mask,
)  # fmt: skip
from payload.link.housekeeping import Housekeeping, Status
from payload.link.space_packet import Reassembler, read_packets
from payload.link.tile_code import TileCode
from payload.signature import read_signature
from payload.store import record
from payload.tiles import Tile
from sim.archive import layout
from sim.mission.spec import SHIPPED as MISSIONS
from sim.mission.spec import load_mission
from sim.scenes.imager.sensor_files import SHIPPED as SENSORS
from sim.scenes.imager.sensor_files import load_sensor
from sim.scenes.open_scene import open_scene

REFUSALS = (InputError, StreamError, ProtocolError, ArrayFileError)


@dataclass(frozen=True)
class Target:
    """`seeds` gives whole inputs, made when they are asked for; `cases` how many a test tries."""

    seeds: Callable[[], Sequence[bytes]]
    read: Callable[[bytes], Any]
    cases: int = 300


def outcome(target: Target, octets: bytes) -> str:
    """ "read", or "refused" with one line of sense; anything else is raised."""
    try:
        target.read(octets)
        return "read"
    except REFUSALS as error:
        if not str(error).strip() or "\n" in str(error) or len(str(error)) > 1000:
            raise AssertionError(f"no single line: {str(error)[:2000]!r}") from error
        return "refused"


@cache
def folder() -> Path:
    kept = tempfile.TemporaryDirectory(prefix="fuzz-")
    _KEPT.append(kept)
    return Path(kept.name)


_KEPT: list[Any] = []


def as_file(name: str, read: Callable[[Path], Any]) -> Callable[[bytes], Any]:
    """Reads octets from a file of that name."""

    def from_file(octets: bytes) -> Any:
        path = folder() / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(octets)
        return read(path)

    return from_file


def packets() -> list[bytes]:
    return [b"".join(scene.packets) for scene in line().sent.values()]


def codes() -> list[bytes]:
    return [tile_code.pack(code) for scene in line().sent.values() for code in scene.codes.values()]


def read_stream(octets: bytes) -> None:
    reassembler = Reassembler(POLICY.apid)
    for packet in read_packets(octets, (POLICY.apid,)):
        reassembler.push(packet)
    reassembler.finish()


def decode_tile(octets: bytes) -> None:
    """To pixels, as a ground does: with a header that is right, whatever its layers are."""
    code = tile_code.unpack(octets)
    if code.bundle_id not in line().bundles:
        raise StreamError(f"bundle {code.bundle_id:08x} is not here")
    line().decode(code)


def layers_of(number: int) -> Callable[[], list[bytes]]:
    """The layers of a scene on the line: each is coded another way (sent_scenes.py)."""
    return lambda: [layer for code in line().sent[number].codes.values() for layer in code.layers]


def layers_of_generation(generation: int) -> Callable[[], list[bytes]]:
    """The layers of the profile dense as older payloads wrote them."""

    def layers() -> list[bytes]:
        codec, found = codec_of(3), []
        for code in line().sent[3].codes.values():
            if code.layers:
                _, indices = codec.decode(code.side, code.layers)
                whole = replace(indices, magnitude=(indices.magnitude << indices.missing).astype(np.uint16))
                found += codec._entropy.encode_layers(whole, len(code.layers), None, "dense", generation)  # type: ignore[attr-defined]
        return found

    return layers


def residual_layers() -> list[bytes]:
    return [code.layers[-1] for code in line().sent[4].codes.values() if code.bounded]


def first_of(number: int) -> TileCode:
    return next(code for code in line().sent[number].codes.values() if code.layers)


@cache
def codec_of(number: int) -> Codec:
    return open_codec(line().bundles[first_of(number).bundle_id])


def decode_layer(number: int) -> Callable[[bytes], None]:
    """A layer that its sender signed for: the CRC is right and the content is anything."""

    def decode(octets: bytes) -> None:
        code = first_of(number)
        codec_of(number).decode(code.side, (octets, *code.layers[1:2]))

    return decode


def decode_residual_layer(octets: bytes) -> None:
    code = first_of(4)
    line().decode(replace(code, layers=(*code.layers[:-1], octets), sent_octets=-1))


def fallback() -> FallbackCodec:
    return FallbackCodec(line().bundle)


@cache
def fallback_tiles() -> tuple[bytes, tuple[bytes, ...]]:
    from payload.codec.interface import Quality
    from payload.stopwatch import Stopwatch

    dn = np.random.default_rng(0).integers(0, 4000, (len(BANDS), TILE_PX, TILE_PX)).astype(np.uint16)
    tile = Tile(0, 0, dn, np.ones(dn.shape[1:], bool))
    coded = fallback().encode(tile, Quality(step_dn=400.0), Stopwatch())
    return coded.side, coded.layers


def decode_jpeg2000(octets: bytes) -> None:
    fallback().decode(fallback_tiles()[0], (octets,))


def read_manifest(path: Path) -> None:
    load_bundle(path.parent, flight_only=True)


def read_tables(path: Path) -> None:
    ArrayFile(path)
    load_tables(path)


def read_scene(path: Path) -> None:
    with open_scene(str(path), max_pixels=1 << 20) as scene:
        scene.read(0, 0, min(64, scene.info.height_px), min(64, scene.info.width_px))


@cache
def geotiffs() -> list[bytes]:
    found = []
    for options in ({}, {"compress": "deflate", "tiled": True, "blockxsize": 16, "blockysize": 16}):
        with rasterio.MemoryFile() as memory:
            place = {"crs": "EPSG:32631", "transform": rasterio.Affine(10, 0, 500_000, 0, -10, 4_600_000)}
            with memory.open(
                driver="GTiff", count=4, height=40, width=40, dtype="uint16", nodata=0, **place, **options
            ) as file:
                file.write(np.random.default_rng(0).integers(1, 5000, (4, 40, 40)).astype(np.uint16))
                file.descriptions = BANDS
            found.append(bytes(memory.read()))
    return found


METADATA = (
    b'<n1:Level-1C_User_Product xmlns:n1="x"><General_Info><Product_Info>'
    b"<PROCESSING_BASELINE>04.00</PROCESSING_BASELINE>"
    b"<Product_Organisation><Granule_List><Granule><IMAGE_FILE>GRANULE/L1C/IMG_DATA/T_B02</IMAGE_FILE></Granule>"
    b"</Granule_List></Product_Organisation></Product_Info></General_Info></n1:Level-1C_User_Product>"
)


@cache
def safe_zips() -> list[bytes]:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("S2B_X.SAFE/MTD_MSIL1C.xml", METADATA)
        archive.writestr("S2B_X.SAFE/GRANULE/L1C/IMG_DATA/T_B02.jp2", bytes(60))
    return [packed.getvalue()]


ENVI = (
    b"ENVI\nsamples = 8\nlines = 8\nbands = 4\nheader offset = 0\nfile type = ENVI Standard\ndata type = 12\n"
    b"interleave = bsq\nbyte order = 0\nwavelength units = Nanometers\n"
    b"wavelength = {490, 560, 665, 842}\nband names = {B02, B03, B04, B08}\n"
)


def read_cube(header: Path) -> None:
    """Of a cube whose samples are whole."""
    header.with_suffix(".img").write_bytes(bytes(range(256)) * 2)
    read_scene(header.with_suffix(".img"))


@cache
def radar_tables() -> tuple[Path, bytes]:
    """A whole Sentinel-1 product's calibration, and where it lies."""
    from ground.test_sentinel1 import make_product

    (path, *_) = sorted(make_product(folder() / "radar").glob("annotation/calibration/calibration-*"))
    return path, path.read_bytes()


def read_radar(octets: bytes) -> None:
    path, _ = radar_tables()
    path.write_bytes(octets)
    with open_scene(str(path.parents[2]), sensor=load_sensor("sentinel1-grd"), max_pixels=1 << 20) as scene:
        scene.read(0, 0, 8, 8)


def app_records() -> list[bytes]:
    answer = app_record.AppRecord(1, 0, 1, 2, 3, 400, 500, (0, 0, 8, 8), app_record.Flag.ALERT, place=(1, 2))
    return [app_record.pack(answer)]


def read_agent_frames(octets: bytes) -> None:
    """Whole frames on the agent's line, and what is in them."""
    for frame in FrameReader().feed(octets):
        fields, _ = unpack_body(frame.body)
        policy_of(fields.get("policy"))


def agent_frames() -> list[bytes]:
    body = pack_body({"policy": policy_fields(POLICY), "engine": "native", "threads": 1})
    return [pack(Frame(kind, 7, 1, body)) for kind in (Type.HELLO, Type.LOAD)]


def read_body(octets: bytes) -> None:
    for read in (unpack_tile, lambda body: unpack_coded(body, 0), lambda body: policy_of(unpack_body(body)[0])):
        try:
            read(octets)
        except ProtocolError:
            continue


def deltas() -> list[bytes]:
    edge = SHIPPED / "edge"
    return [delta.make_delta(edge, edge)[0]]


def masks() -> list[bytes]:
    return [code.mask for code in line().sent[1].codes.values() if code.mask]


def toml_files(where: Path) -> Callable[[], list[bytes]]:
    return lambda: [path.read_bytes() for path in sorted(where.glob("*.toml"))]


def archive_heads() -> list[bytes]:
    """A head of 3 x 3 tiles of two layers of ten octets each."""
    octets = np.full((9, 2), 10, np.uint32)
    offset = np.arange(9, dtype=np.uint64) * np.uint64(60)
    none = np.zeros(9, np.uint8)
    index = layout.Index(offset, none, none, np.full(9, 40, np.uint32), octets, np.zeros((9, 2), np.uint16))
    return [layout.pack(layout.Head(line().sent[1].header, {"made by": "a test"}, index, 540, bytes(32)))]


def read_archive(octets: bytes) -> None:
    """As it is, and as somebody wrote it who can compute its checksum."""
    layout.unpack(octets[:-32] + hashlib.sha256(octets[:-32]).digest())
    layout.unpack(octets)


def file_pdus() -> list[bytes]:
    entity = PduConfig(ByteFieldU16(1), ByteFieldU16(2), ByteFieldU16(3), TransmissionMode.ACKNOWLEDGED)
    return [
        bytes(FileDataPdu(entity, FileDataParams(b"some octets", 0)).pack()),
        bytes(EofPdu(entity, bytes(4), 11).pack()),
        bytes(NakPdu(entity, 0, 11, [(0, 4)]).pack()),
    ]


def symbols() -> list[bytes]:
    return [fountain_packet.pack(fountain_packet.Symbol(fountain_packet.Generation(1, 0, 60, 7, 16), 2, bytes(16)))]


def telecommands() -> list[bytes]:
    return [telecommand.pack(telecommand.Command(code, 7, b"\2"), POLICY.apid, command_key().sign) for code in (1, 3)]


@cache
def command_key() -> Any:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return Ed25519PrivateKey.from_private_bytes(bytes(32))


def read_telecommands(octets: bytes) -> None:
    trusted = [command_key().public_key().public_bytes_raw()]
    for piece in telecommand.split(octets):
        telecommand.unpack(piece, POLICY.apid, trusted)


TARGETS: dict[str, Target] = {
    "tile codes": Target(codes, tile_code.unpack),
    "tile codes to pixels": Target(codes, decode_tile, 100),
    "layers": Target(layers_of(1), decode_layer(1), 150),
    "layers of the profile dense": Target(layers_of(3), decode_layer(3), 60),
    "layers of the profile dense, first generation": Target(layers_of_generation(FIRST), decode_layer(3), 40),
    "layers of the profile dense, second generation": Target(layers_of_generation(SECOND), decode_layer(3), 40),
    "layers of many bands": Target(layers_of(6), decode_layer(6), 40),
    "layers of two grids": Target(layers_of(7), decode_layer(7), 60),
    "residual layers": Target(residual_layers, decode_residual_layer, 40),
    "JPEG 2000 of fallback tiles": Target(lambda: list(fallback_tiles()[1]), decode_jpeg2000),
    "scene headers": Target(lambda: [scene_header.pack(s.header) for s in line().sent.values()], scene_header.unpack),
    "valid masks": Target(masks, lambda octets: valid_mask.unpack_mask(octets, TILE_PX)),
    "packets": Target(packets, read_stream, 60),
    "telecommands": Target(telecommands, read_telecommands),
    "housekeeping": Target(lambda: [housekeeping.pack(Housekeeping(None, 1, status=Status(1, 2, (3, 4))))],
                           housekeeping.unpack),
    "events": Target(lambda: [pack_event(Event(1, EventId.STARTED, 2, 3, (4, 5), "six"))], unpack_event),
    "store records": Target(lambda: [record.pack(record.Record(record.Kind.TILE, 1, 2, b"three"))], record.unpack),
    "CFDP PDUs": Target(file_pdus, file_pdu.parse_pdu),
    "fountain packets": Target(symbols, fountain_packet.unpack),
    "archive files": Target(archive_heads, read_archive),
    "manifests": Target(
        lambda: [(SHIPPED / "edge" / "manifest.json").read_bytes(), json.dumps({"bands": []}).encode()],
        as_file("bundle/manifest.json", read_manifest),
    ),
    "signatures": Target(
        lambda: [(SHIPPED / "edge" / "signature.json").read_bytes()],
        as_file("signed/signature.json", lambda path: read_signature(path.parent)),
    ),
    "tables": Target(
        lambda: [(line().bundle.directory / "flight" / "tables.npz").read_bytes()], as_file("t.npz", read_tables), 60
    ),
    "arrays": Target(
        lambda: [(line().bundle.directory / "flight" / "tables.npz").read_bytes()],
        as_file("a.npz", lambda path: read_arrays(path, most_octets=1 << 26)), 100,
    ),
    "missions": Target(toml_files(MISSIONS), as_file("m.toml", load_mission), 150),
    "sensors": Target(toml_files(SENSORS), as_file("sensor.toml", load_sensor), 150),
    "ENVI headers": Target(lambda: [ENVI], as_file("cube.hdr", read_cube), 150),
    "Sentinel-1 tables": Target(lambda: [radar_tables()[1]], read_radar, 60),
    "application records": Target(app_records, app_record.unpack),
    "GeoTIFFs": Target(geotiffs, as_file("s.tif", read_scene), 150),
    "Sentinel-2 zips": Target(safe_zips, as_file("S2B_X.SAFE.zip", read_scene), 100),
    "Sentinel-2 metadata": Target(
        lambda: [METADATA], as_file("S2B_X.SAFE/MTD_MSIL1C.xml", lambda path: read_scene(path.parent)), 100
    ),
    "agent frames": Target(agent_frames, read_agent_frames),
    "agent bodies": Target(lambda: [pack_body({"row": 0, "col": 0, "bands": 4, "px": 64}, bytes(99))], read_body),
    "deltas": Target(deltas, delta.unpack),
}  # fmt: skip
