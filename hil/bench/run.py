"""`hil run`: a scene's tiles through a device, every octet compared with this host's own, and packets for the ground.

What is done is kept: each tile code is a file of its own, written whole, and `resume` goes on where a run broke off.
"""

import hashlib
import json
import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from hil.host.client import DeviceError, DeviceSession
from hil.host.transports import line_bound
from hil.line.code_id import code_id
from hil.line.messages import DeviceReply, policy_fields
from payload.bundle import Bundle
from payload.codec.interface import Codec
from payload.codec.registry import open_codec
from payload.engine import Engine
from payload.errors import InputError, StreamError
from payload.link import tile_code
from payload.link.space_packet import SequenceCounter, segment
from payload.link.tile_code import TileCode
from payload.pipeline import Payload
from payload.policy import Policy
from payload.tiles import Tile

#: Builds whose octets are the same on every device.
EXACT_TARGETS = ("int8-po2w7",)


@dataclass
class RunReport:
    """What a run found. Times are None where the device is emulated."""

    device: dict[str, Any]
    bundle: str
    bundle_id: int
    tiles: int = 0
    octets: int = 0
    sha256: str = ""  # over all tile codes in order
    compared: int = 0
    different: list[str] = field(default_factory=list)  # addresses of tiles whose octets differ
    equality_promised: bool = True
    index_mismatch: list[float] = field(default_factory=list)  # per layer, over the compared tiles
    compute_s: float | None = None  # sum of the tiles' times on the device
    wall_s: float | None = None
    line: str | None = None  # what the line bounds, where that can be known
    incidents: dict[str, Any] = field(default_factory=dict)

    @property
    def held(self) -> bool:
        return not (self.equality_promised and self.different)


class RunFolder:
    """The output directory of a run: run.json says what it is, codes/ holds what is done."""

    def __init__(self, out: Path, identity: dict[str, Any], resume: bool, overwrite: bool) -> None:
        self.out, self._codes = out, out / "codes"
        note = out / "run.json"
        if note.exists() and resume:
            if json.loads(note.read_text()) != identity:
                raise InputError(
                    f"{out}: holds a run of another scene, bundle, policy or code; resume that one, or use --overwrite"
                )
        elif out.exists() and any(out.iterdir()) and not overwrite:
            raise InputError(f"{out}: is not empty; use --resume to go on with it, --overwrite to start anew")
        else:
            for old in self._codes.glob("*.tile"):
                old.unlink()
            self._codes.mkdir(parents=True, exist_ok=True)
            self.write("run.json", json.dumps(identity, indent=1).encode())

    def done(self, tile: Tile) -> bytes | None:
        path = self._path(tile.row, tile.col)
        return path.read_bytes() if path.exists() else None

    def keep(self, coded: DeviceReply) -> None:
        self.write(f"codes/{self._path(coded.row, coded.col).name}", coded.octets)

    def write(self, name: str, octets: bytes) -> None:
        """Whole or not at all."""
        fresh = self.out / f"{name}.part"
        fresh.write_bytes(octets)
        fresh.rename(self.out / name)

    def _path(self, row: int, col: int) -> Path:
        return self._codes / f"r{row:05d}c{col:05d}.tile"


def run_identity(scene: str, bundle: Bundle, policy: Policy) -> dict[str, Any]:
    """What has to agree for a run to go on where another broke off, as JSON gives it back."""
    identity = {"scene": scene, "bundle_id": bundle.bundle_id, "policy": policy_fields(policy), "code_id": code_id()}
    found: dict[str, Any] = json.loads(json.dumps(identity))
    return found


def run(
    session: DeviceSession,
    tiles: Iterable[Tile],
    bundle: Bundle,
    policy: Policy,
    folder: RunFolder,
    reference: Engine | None,
) -> RunReport:
    """Every tile through the device; packets.bin and report.json into the folder. DeviceError keeps what is done."""
    host = Payload(bundle, policy, reference) if reference else None
    exact = bundle.manifest.get("target", "int8-po2w7") in EXACT_TARGETS
    report = RunReport(asdict(session.info), bundle.name, bundle.bundle_id, equality_promised=exact)
    comparison = Comparison(bundle)
    digest, before_s, compute_s = hashlib.sha256(), time.monotonic(), 0.0
    for tile, octets, seconds in _codes(session, tiles, folder):
        report.tiles, report.octets = report.tiles + 1, report.octets + len(octets)
        digest.update(octets)
        compute_s += seconds
        if host is not None:
            report.compared += 1
            if not comparison.same(octets, tile_code.pack(host.encode_tile(tile))):
                report.different.append(f"row {tile.row}, column {tile.col}")
    if not report.tiles:
        raise InputError("there are no tiles to run; give a scene with pixels")
    report.sha256, report.incidents = digest.hexdigest(), asdict(session.incidents)
    report.index_mismatch = comparison.rates()
    if session.info.emulated is None:
        report.compute_s, report.wall_s = compute_s, time.monotonic() - before_s
        report.line = line_bound(session.name, 2 * len(bundle.bands) * bundle.tile_px**2, bundle.tile_px)
    folder.write("packets.bin", b"".join(_packets(folder, policy)))
    folder.write("report.json", json.dumps(asdict(report) | {"held": report.held}, indent=1).encode())
    return report


def _codes(session: DeviceSession, tiles: Iterable[Tile], folder: RunFolder) -> Iterator[tuple[Tile, bytes, float]]:
    """(tile, its code, seconds on the device) in order; tiles that are done are not sent again."""
    sent: deque[Tile] = deque()

    def missing() -> Iterator[Tile]:
        for tile in tiles:
            sent.append(tile)
            if folder.done(tile) is None:
                yield tile

    def finished() -> Iterator[tuple[Tile, bytes, float]]:
        while sent and (octets := folder.done(sent[0])) is not None:
            yield sent.popleft(), octets, 0.0

    for coded in session.encode_tiles(missing()):
        while (coded.row, coded.col) != (sent[0].row, sent[0].col):
            yield from _one_kept(sent, folder)
        folder.keep(coded)
        yield sent.popleft(), coded.octets, coded.latency_s
    yield from finished()


def _one_kept(sent: deque[Tile], folder: RunFolder) -> Iterator[tuple[Tile, bytes, float]]:
    octets = folder.done(sent[0])
    if octets is None:
        raise DeviceError(
            f"tile row {sent[0].row}, column {sent[0].col}: came back out of its turn; run again with --resume"
        )
    yield sent.popleft(), octets, 0.0


def _packets(folder: RunFolder, policy: Policy) -> Iterator[bytes]:
    """The space packets of every code, by address: what the ground reads."""
    counter = SequenceCounter(policy.apid)
    for path in sorted((folder.out / "codes").glob("*.tile")):
        yield from segment(path.read_bytes(), counter, policy.packet_octets)


class Comparison:
    """Octets of the device against the host's; where they differ, which share of each layer's indices."""

    def __init__(self, bundle: Bundle) -> None:
        self._codec = open_codec(bundle, None)
        self._tiles = [0] * self._codec.layers  # tiles that have this layer
        self._differing = [0.0] * self._codec.layers  # sum over tiles of the share of indices that differ

    def same(self, device: bytes, host: bytes) -> bool:
        ours = tile_code.unpack(host)
        for k in range(len(ours.layers)):
            self._tiles[k] += 1
            if device != host:
                self._differing[k] += _differing_share(self._codec, ours, device, k)
        return device == host

    def rates(self) -> list[float]:
        """Share of the indices of each layer that differ, coarse first."""
        return [share / tiles for share, tiles in zip(self._differing, self._tiles, strict=True) if tiles]


def _differing_share(codec: Codec, ours: TileCode, device: bytes, layer: int) -> float:
    """Share of a layer's indices that differ. A code that does not decode differs everywhere."""
    try:
        theirs = tile_code.unpack(device)
        found = [codec.finest(codec.decode(code.side, code.layers[: layer + 1])) for code in (ours, theirs)]
    except StreamError:
        return 1.0
    return float((found[0] != found[1]).mean()) if found[0].shape == found[1].shape else 1.0
