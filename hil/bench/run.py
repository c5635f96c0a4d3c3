"""`hil run`: a scene's tiles through a device, every octet compared with this host's own, and packets for the ground.

What is done is kept: each tile code is a file of its own, written whole, and `resume` goes on where a run broke off.
"""

import fcntl
import hashlib
import json
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import mean
from typing import Any

from hil.host.client import DeviceSession
from hil.host.session_values import DeviceError
from hil.host.transports import line_bound
from hil.line.code_id import code_id
from hil.line.messages import policy_fields
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
from payload.version import described

#: Builds whose octets are the same on every device.
EXACT_TARGETS = ("int8-po2w7",)
LOG = "tiles.jsonl"
#: What a run writes beside codes/: removed when one starts anew.
OWN_FILES = ("packets.bin", "report.json", LOG)


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
    kinds: dict[str, int] = field(default_factory=dict)  # what became of the tiles
    timed_tiles: int = 0  # those whose time is known: all, but for tiles that an older run kept without it
    mean_s: dict[str, float] = field(default_factory=dict)  # of a tile of each kind, on the device
    compute_s: float | None = None  # sum of the timed tiles' times on the device
    wall_s: float | None = None  # from tile to tile, this host's own work included
    line: str | None = None  # what the line bounds, where that can be known
    incidents: dict[str, Any] = field(default_factory=dict)
    software: str = field(default_factory=described)  # version and commit of this host

    @property
    def held(self) -> bool:
        return not (self.equality_promised and self.different)


class RunFolder:
    """The output directory of a run: run.json says what it is, codes/ and tiles.jsonl hold what is done.

    Nothing is written before `open`: a run that cannot begin leaves no folder that blocks the next one.
    """

    def __init__(self, out: Path, identity: dict[str, Any], resume: bool, overwrite: bool) -> None:
        self.out, self._codes, self._identity = out, out / "codes", identity
        self._goes_on = resume and (out / "run.json").exists()
        self._log: dict[tuple[int, int], KeptTile] = {}
        self._lock: int | None = None  # descriptor of the folder
        if self._goes_on:
            self._check_identity()
        elif out.exists() and (not out.is_dir() or any(out.iterdir())) and not overwrite:
            raise InputError(f"{out}: is not empty; use --resume to go on with it, --overwrite to start anew")

    def open(self) -> None:
        """Makes the folder, or reads what is done in it. What is not a run's own is left alone."""
        self._take()
        if self._goes_on:
            self._log = {(tile.row, tile.col): tile for tile in self._read_log()}
            return
        for old in (*self._codes.glob("*.tile"), *(self.out / name for name in OWN_FILES)):
            old.unlink(missing_ok=True)
        try:
            self._codes.mkdir(parents=True, exist_ok=True)
            self.write("run.json", json.dumps(self._identity, indent=1).encode())
        except OSError as error:
            raise InputError(f"{self.out}: cannot be written ({error.strerror}); choose another --out") from None

    def _take(self) -> None:
        """One run at a time in one folder; the lock ends with `close` or with this process, however it ends."""
        try:
            self.out.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(self.out, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"{self.out}: another run writes there; wait for it, or choose another --out") from None
        except OSError as error:
            raise InputError(f"{self.out}: cannot be written ({error.strerror}); choose another --out") from None

    def close(self) -> None:
        """Lets another run have the folder."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def done(self, tile: Tile) -> "KeptTile | None":
        """A tile that is done, with what was noted about it; without, its times are unknown."""
        path = self._path(tile.row, tile.col)
        if not path.exists():
            return None
        noted = self._log.get((tile.row, tile.col)) or KeptTile(tile.row, tile.col, "unknown")
        return replace(noted, octets=path.read_bytes())

    def keep(self, tile: "KeptTile") -> None:
        """The code first: a note without a code would be worth nothing."""
        self.write(f"codes/{self._path(tile.row, tile.col).name}", tile.octets)
        with (self.out / LOG).open("a", encoding="utf-8") as log:
            log.write(json.dumps([tile.row, tile.col, tile.kind, tile.device_s, tile.wall_s]) + "\n")

    def write(self, name: str, octets: bytes) -> None:
        """Whole or not at all."""
        fresh = self.out / f"{name}.part"
        fresh.write_bytes(octets)
        fresh.rename(self.out / name)

    def _check_identity(self) -> None:
        try:
            found = json.loads((self.out / "run.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            raise InputError(f"{self.out / 'run.json'}: not readable; use --overwrite to start anew") from None
        if found != self._identity:
            raise InputError(
                f"{self.out}: holds a run of another scene, bundle, policy or code; resume that one, or use --overwrite"
            )

    def _read_log(self) -> Iterator["KeptTile"]:
        path = self.out / LOG
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else ():
            try:
                row, col, kind, device_s, wall_s = json.loads(line)
                yield KeptTile(int(row), int(col), str(kind), _seconds(device_s), _seconds(wall_s))
            except (ValueError, TypeError):
                continue  # the end of a line that was being written when the power went

    def _path(self, row: int, col: int) -> Path:
        return self._codes / f"r{row:05d}c{col:05d}.tile"


@dataclass(frozen=True)
class KeptTile:
    """A tile that is done. Times are None where they are not known, or say nothing (an emulated device)."""

    row: int
    col: int
    kind: str  # what became of it
    device_s: float | None = None
    wall_s: float | None = None  # since the tile before, as this host saw it
    octets: bytes = b""


def _seconds(value: Any) -> float | None:
    return None if value is None else float(value)


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
    tell: Callable[[int], None] = lambda done: None,
) -> RunReport:
    """Every tile through the device; packets.bin and report.json into the folder. DeviceError keeps what is done."""
    folder.open()
    try:
        return _run(session, tiles, bundle, policy, folder, reference, tell)
    finally:
        folder.close()


def _run(
    session: DeviceSession, tiles: Iterable[Tile], bundle: Bundle, policy: Policy, folder: RunFolder,
    reference: Engine | None, tell: Callable[[int], None],
) -> RunReport:  # fmt: skip
    host = Payload(bundle, policy, reference) if reference else None
    exact = bundle.manifest.get("target", "int8-po2w7") in EXACT_TARGETS
    report = RunReport(asdict(session.info), bundle.name, bundle.bundle_id, equality_promised=exact)
    comparison, digest, done = Comparison(bundle), hashlib.sha256(), []
    for tile, kept in _codes(session, tiles, folder):
        report.tiles, report.octets = report.tiles + 1, report.octets + len(kept.octets)
        digest.update(kept.octets)
        done.append(replace(kept, octets=b""))
        if host is not None:
            report.compared += 1
            if not comparison.same(kept.octets, tile_code.pack(host.encode_tile(tile))):
                report.different.append(f"row {tile.row}, column {tile.col}")
        tell(report.tiles)
    if not report.tiles:
        raise InputError("there are no tiles to run; give a scene with pixels")
    report.sha256, report.incidents = digest.hexdigest(), asdict(session.incidents)
    report.index_mismatch = comparison.rates()
    report.kinds = {kind: sum(tile.kind == kind for tile in done) for kind in sorted({tile.kind for tile in done})}
    if session.info.emulated is None:
        _add_times(report, done)
        report.line = line_bound(session.name, 2 * len(bundle.bands) * bundle.tile_px**2, bundle.tile_px)
    folder.write("packets.bin", b"".join(_packets(folder, policy)))
    folder.write("report.json", json.dumps(asdict(report) | {"held": report.held}, indent=1).encode())
    return report


def _add_times(report: RunReport, done: Sequence[KeptTile]) -> None:
    """Times of the tiles that have any; a tile kept without its time counts in no sum and in no divisor."""
    timed = [tile for tile in done if tile.device_s is not None]
    report.timed_tiles = len(timed)
    if not timed:
        return
    report.compute_s = sum(tile.device_s or 0.0 for tile in timed)
    report.wall_s = sum(tile.wall_s or 0.0 for tile in timed)
    for kind in sorted({tile.kind for tile in timed}):
        report.mean_s[kind] = mean(tile.device_s or 0.0 for tile in timed if tile.kind == kind)


def _codes(session: DeviceSession, tiles: Iterable[Tile], folder: RunFolder) -> Iterator[tuple[Tile, KeptTile]]:
    """Every tile with what came of it, in order; tiles that are done are not sent again."""
    sent: deque[Tile] = deque()
    timed = session.info.emulated is None

    def missing() -> Iterator[Tile]:
        for tile in tiles:
            sent.append(tile)
            if folder.done(tile) is None:
                yield tile

    def finished() -> Iterator[tuple[Tile, KeptTile]]:
        while sent and (kept := folder.done(sent[0])) is not None:
            yield sent.popleft(), kept

    before_s = time.monotonic()
    for reply in session.encode_tiles(missing()):
        now_s = time.monotonic()
        device_s, wall_s = (reply.latency_s, now_s - before_s) if timed else (None, None)
        while (reply.row, reply.col) != (sent[0].row, sent[0].col):
            yield from _one_kept(sent, folder)
        kept = KeptTile(reply.row, reply.col, reply.kind, device_s, wall_s, reply.octets)
        folder.keep(kept)
        yield sent.popleft(), kept
        before_s = now_s
    yield from finished()


def _one_kept(sent: deque[Tile], folder: RunFolder) -> Iterator[tuple[Tile, KeptTile]]:
    kept = folder.done(sent[0])
    if kept is None:
        raise DeviceError(
            f"tile row {sent[0].row}, column {sent[0].col}: came back out of its turn; run again with --resume"
        )
    yield sent.popleft(), kept


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
