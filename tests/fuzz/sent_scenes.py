"""A scene of every way of coding that the link carries, sent once by a payload of toys: what damage is done to.

Both profiles of the entropy coder, layers within a bound, fallback tiles, thumbnails of withheld tiles, many bands with
long side information, bands of several resolutions; tiles with masks and empty ones.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from toys import ArrayScene, ToyEngine, dct_kernels, random_tables, write_bundle

from payload.bundle import Bundle, load_bundle
from payload.codec.lapped.many.sets import set_bands
from payload.link.scene_header import SceneHeader
from payload.link.tile_code import Kind, TileCode
from payload.pipeline import Payload
from payload.policy import Gate, Policy
from payload.scene import SceneInfo
from sim.ground.reception import by_id, receive

TILE_PX, ROWS, COLS = 64, 3, 3
BANDS = ("B02", "B03", "B04", "B08")
#: So many that their side information is longer than an octet can say.
MANY_BANDS = 80
POLICY = Policy(step_dn=400.0, packet_octets=200, gate=Gate(audit_count=1))
Address = tuple[int, int]


@dataclass(frozen=True)
class Sent:
    """One scene as it was sent."""

    header: SceneHeader
    codes: dict[Address, TileCode]
    audits: dict[Address, TileCode]
    packets: tuple[bytes, ...]

    def code(self, kind: Kind, address: Address) -> TileCode | None:
        """What was sent of a tile: its thumbnail, if that is the kind."""
        return (self.audits if kind is Kind.AUDIT else self.codes).get(address)


@dataclass(frozen=True)
class Way:
    """How a scene is coded: by which bundle, under which policy, and whether without the bundle's networks."""

    make: Callable[[Path], Bundle]
    policy: Policy = POLICY
    fallback: bool = False
    rows: int = ROWS
    cols: int = COLS


def few_bands(folder: Path) -> Bundle:
    """Four bands, with a gate."""
    networks = {"flight/encoder.onnx": b"toy", "ground/decoder.onnx": b"toy", "flight/clouds.onnx": b"toy"}
    files = {"flight/tables.npz": tables(folder, len(BANDS)), **networks}
    return load_bundle(write_bundle(folder / "bundle", files, clouds={}))


def tables(folder: Path, bands: int, seed: int = 0) -> bytes:
    """Random tables, and the transform that a ground without a network, or within a bound, undoes."""
    arrays = dict(np.load(random_tables(folder / "tables.npz", bands, 3, seed)))
    arrays |= {"kernels": dct_kernels().astype(np.int8), "exponents": np.full(64, 8, np.int8)}
    np.savez_compressed(folder / "tables.npz", **arrays)  # type: ignore[arg-type]
    return (folder / "tables.npz").read_bytes()


def many_bands(folder: Path) -> Bundle:
    names = ("flight/tables.npz", "flight/tables-rest.npz")
    files = {name: tables(folder, set_bands(MANY_BANDS), k) for k, name in enumerate(names)}
    files["flight/encoder.onnx"] = b"toy"
    bands = [f"C{k:03}" for k in range(MANY_BANDS)]
    return load_bundle(write_bundle(folder / "bundle", files, name="many", bands=bands))


def two_grids(folder: Path) -> Bundle:
    """Three bands, and two of half the resolution."""
    fine, coarse = ("B02", "B03", "B08"), ("B05", "B11")
    files = {}
    for name, bands in (("10m", fine), ("20m", coarse)):
        files |= {f"flight/{name}/tables.npz": tables(folder, len(bands)), f"flight/{name}/encoder.onnx": b"toy"}
    listed = [{"name": n, "gsd_m": gsd_m} for names, gsd_m in ((fine, 10.0), (coarse, 20.0)) for n in names]
    own = {"kind": "fsq", "layers": 3}
    manifest = {
        "name": "grids", "bands": [*fine, *coarse], "tile_px": 2 * TILE_PX,
        "codec": {"kind": "fsq-groups", "layers": 3, "groups": {"10m": own, "20m": own}},
        "sensor": {"name": "two grids", "kind": "optical", "bits": 12, "bands": listed},
    }  # fmt: skip
    return load_bundle(write_bundle(folder / "bundle", files, **manifest))


WAYS: dict[int, Way] = {
    1: Way(few_bands), 2: Way(few_bands), 3: Way(few_bands, replace(POLICY, profile="dense")),
    4: Way(few_bands, replace(POLICY, max_error_dn=40)), 5: Way(few_bands, fallback=True),
    6: Way(many_bands, rows=1, cols=1), 7: Way(two_grids, rows=2, cols=1),
}  # fmt: skip


def bundles_in(folder: Path, ways: Iterable[Way]) -> dict[Callable[[Path], Bundle], Bundle]:
    """Of every maker of these ways its bundle."""
    made = {}
    for number, make in enumerate(dict.fromkeys(way.make for way in ways)):
        (own := folder / str(number)).mkdir()
        made[make] = make(own)
    return made


def send(number: int, bundle: Bundle, engine: ToyEngine) -> Sent:
    """Scene `number`, coded its way, and received undamaged."""
    way = WAYS[number]
    payload = Payload(bundle, way.policy, engine)
    if way.fallback:
        payload.fall_back()
    scene = ground(number, bundle, way)
    header = payload.header_of(scene, number)
    packets = tuple(payload.transmit(scene, header))
    received = receive(iter(packets), by_id([bundle]), way.policy.apid).scenes[number]
    if received.missing or received.refused:
        raise AssertionError("an undamaged scene did not arrive whole")
    return Sent(header, received.codes, received.audits, packets)


def ground(seed: int, bundle: Bundle, way: Way) -> ArrayScene:
    """Some of it a swath's edge, so that tiles have masks; one tile as bright as cloud, and one empty."""
    rng, tile_px, bands = np.random.default_rng(seed), bundle.tile_px, bundle.bands
    height, width = way.rows * tile_px, way.cols * tile_px
    pictures = rng.integers(200, 4000, (4, height // 16, width // 16)).repeat(16, axis=1).repeat(16, axis=2)
    coarse = pictures[np.arange(len(bands)) % 4]
    dn = (coarse + rng.integers(0, 80, coarse.shape)).astype(np.uint16)
    valid = np.ones(dn.shape[1:], bool)
    valid[:, :20] = False
    if way.cols == COLS:
        valid[-tile_px:, -tile_px:] = False
        dn[:, :tile_px, -tile_px:] += 12_000
    return ArrayScene(SceneInfo(f"scene {seed}", height, width, bands, 10.0), dn, valid)
