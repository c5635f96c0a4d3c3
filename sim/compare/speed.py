"""How fast payload and ground are on this host beside classical coders, and how much memory a whole granule takes.

Speeds are pixels (all bands of one place count once) a second of processor time, all threads added up, the best of some
rounds over the same tiles in one run. The ratio to OpenJPEG at about the same octets is what travels from host to host,
the speed is not; on a host that others share, caches and clock wander within a run, so look at several.
Memory is the peak resident set of a process of its own that takes a generated scene from imager to report.
"""

import os
import subprocess
import sys
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from payload.bundle import Bundle, load_bundle
from payload.engine import ENGINES, NATIVE, open_engine
from payload.errors import InputError
from payload.link import tile_code
from payload.link.tile_code import TileCode
from payload.native import library
from payload.pipeline import Payload
from payload.policy import SENDS_EVERYTHING, Policy
from payload.scene import Dn
from payload.stopwatch import Stopwatch
from payload.tiles import Tile, split
from sim.compare.classical import LOSSLESS, Codec, open_codecs
from sim.compare.protection_cost import ProtectionCost, protection_costs
from sim.compare.tiles import read_tiles
from sim.ground.decoder import DECODERS, Decoder
from sim.metrics.distortion import psnr_db
from sim.onboard import ran
from sim.progress import Progress, silent
from sim.scenes.demo import demo_scene
from sim.scenes.radiometry import AS_STORED, Reading

SCENE_PX = 1024
ROUNDS, ROUND_S = 3, 1.0
STEP_BISECTIONS = 9
DECODED_RATIOS, DECODING_ROUNDS, PEER = (20.0, 50.0, 100.0), 5, "OpenJPEG, near the same octets"
BISECTIONS = 4  # between two neighbouring settings of an opponent: brings the octets within some per cent
MEMORY_LIMIT_MIB = 1536.0
#: Sends every tile whole: a gate that withholds or flattens would make the encoder look faster than it is.
EVERYTHING = Policy(gate=SENDS_EVERYTHING)


@dataclass(frozen=True)
class Speed:
    """One coder, or one stage of the payload, over all tiles."""

    name: str
    seconds: float
    mpx_s: float
    ratio: float | None  # to OpenJPEG in the same run; None for stages
    octets: int | None  # what came out; None for stages


@dataclass(frozen=True)
class Memory:
    """A scene of side_px x side_px x 4 taken from end to end in a process of its own."""

    side_px: int
    exit_code: int
    seconds: float
    peak_mib: float
    limit_mib: float = MEMORY_LIMIT_MIB

    @property
    def held(self) -> bool:
        return self.peak_mib < self.limit_mib


@dataclass(frozen=True)
class Benchmark:
    host: str
    scene: str
    stages: tuple[Speed, ...]
    coders: tuple[Speed, ...]  # the payload first, then OpenJPEG and the others
    memory: Memory | None
    protection: tuple[ProtectionCost, ...] = ()  # by engine and size of the scene

    @property
    def held(self) -> bool:
        return self.memory is None or self.memory.held

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "held": self.held}


def as_text(result: Benchmark) -> str:
    """The benchmark as a table for people."""
    lines = [f"{result.host}; scene {result.scene}", "", f"{'':34}{'s':>8}{'Mpx/s':>9}{'x OpenJPEG':>12}{'octets':>12}"]
    for speed in result.coders:
        lines.append(f"{speed.name:34}{speed.seconds:8.2f}{speed.mpx_s:9.2f}{speed.ratio:12.1f}{speed.octets:12,}")
    lines += ["", f"{'stages of the coding':34}{'s':>8}{'share':>9}"]
    for speed in result.stages:
        engine = speed.name.split(":")[0]
        whole = sum(s.seconds for s in result.stages if s.name.startswith(f"{engine}:"))
        lines.append(f"  {speed.name:32}{speed.seconds:8.3f}{100 * speed.seconds / whole:8.1f} %")
    if result.protection:
        lines += ["", *(cost.line() for cost in result.protection)]
    if result.memory is not None:
        m = result.memory
        verdict = "held" if m.held else "FAILED"
        lines += [
            "",
            f"memory: {m.side_px} x {m.side_px} x 4 from end to end in {m.seconds:.0f} s, exit code {m.exit_code}",
        ]
        lines += [f"  peak resident {m.peak_mib:.0f} MiB, limit {m.limit_mib:.0f} MiB: {verdict}"]
    return "\n".join(lines)


@dataclass(frozen=True)
class Question:
    """What is to be timed: a bundle under engines, over tiles (None: a generated scene), at a compression ratio."""

    bundle: str
    engines: tuple[str, ...]
    tiles: tuple[Path, ...] = ()
    ratio: float = 20.0
    reading: Reading = AS_STORED


def engines_here() -> tuple[str, ...]:
    """Engines that can run here, the compiled kernel first where it was built."""
    wanted = (*((NATIVE,) if library.available else ()), *(e for e in ENGINES if e != NATIVE))
    return tuple(e for e in wanted if e == NATIVE or find_spec(e) is not None)


def benchmark(question: Question, granule_px: int, advance: Progress = silent) -> Benchmark:
    """Speeds over tiles, coded without the gate and then with it, what the guard against upsets costs, then the memory
    of a scene of granule_px x granule_px (0: leave it out)."""
    bundle = load_bundle(question.bundle)
    tiles = _tiles(question, bundle.tile_px)
    first = Payload(bundle, EVERYTHING, open_engine(question.engines[0], threads=1))
    policy = replace(EVERYTHING, step_dn=_step_for(first, tiles, question.ratio))
    own, stages = [], []
    steps = len(question.engines) + 3
    for engine in question.engines:
        payload = Payload(bundle, policy, open_engine(engine, threads=1))
        gate, payload.clouds = payload.clouds, None
        speed, parts = _time_payload(payload, tiles, f"nadir, {engine}: coded")
        own.append(speed)
        stages += [replace(part, name=f"{engine}: {part.name}") for part in parts]
        if gate is not None and engine == question.engines[0]:
            payload.clouds = gate
            speed, parts = _time_payload(payload, tiles, f"nadir, {engine}: gated and coded")
            own.append(speed)
            stages += [replace(part, name=f"{engine}, gated: {part.name}") for part in parts if part.name == "clouds"]
            stages.append(_speed(f"{engine}, gated: all else", speed.seconds - stages[-1].seconds, tiles))
        advance(engine, steps)
    opponents = _time_opponents(tiles, own[0].octets or 0)
    advance("classical coders", steps)
    yardstick = opponents[0].seconds
    coders = tuple(_against(speed, yardstick) for speed in (*own, *opponents))
    what = ", ".join(str(path) for path in question.tiles) or f"generated, {SCENE_PX} x {SCENE_PX} x 4"
    achieved = sum(2 * tile.dn.size for tile in tiles) / (own[0].octets or 1)
    about = f"{what}: {len(tiles)} tiles of {bundle.tile_px} px at CR {achieved:.1f}, every tile sent"
    guarded = [c for e in question.engines for c in protection_costs(bundle, policy, open_engine(e, threads=1))]
    advance("protection", steps)
    memory = measure_memory(granule_px, question.bundle, question.engines[-1]) if granule_px else None
    advance("memory of a granule", steps)
    host = f"{os.cpu_count()} cores, one thread, processor time, kernel: {ran.kernel()}, {ran.instruction_set()}"
    return Benchmark(host, about, tuple(stages), coders, memory, tuple(guarded))


def _tiles(question: Question, tile_px: int) -> list[Tile]:
    """The tiles that are asked about; of a generated scene where none are."""
    if not question.tiles:
        return list(split(demo_scene(SCENE_PX, SCENE_PX, 0), tile_px))
    everywhere = np.ones((tile_px, tile_px), bool)
    return [
        Tile(0, col, t.dn, everywhere)
        for col, t in enumerate(read_tiles(question.tiles, tile_px, None, question.reading))
    ]


def _step_for(payload: Payload, tiles: Sequence[Tile], ratio: float) -> float:
    """The step (DN) whose tile codes have about this ratio over all tiles; any where the codec knows no steps."""
    payload.clouds = None
    low, high = 1.0, 8192.0
    wanted = sum(2 * tile.dn.size for tile in tiles) / ratio
    for _ in range(STEP_BISECTIONS):
        middle = (low * high) ** 0.5
        payload.policy = replace(payload.policy, step_dn=middle)
        if sum(len(tile_code.pack(payload.encode_tile(tile))) for tile in tiles) > wanted:
            low = middle
        else:
            high = middle
    return high


def _passes(seconds: float) -> int:
    """How often tiles are coded in a round: rounds of fast and slow coders are equally long, a host's hiccups alike."""
    return max(1, round(ROUND_S / max(seconds, 1e-3)))


def _time_payload(payload: Payload, tiles: Sequence[Tile], name: str) -> tuple[Speed, tuple[Speed, ...]]:
    """The best round as a whole, and the stages of that round."""
    payload.watch = Stopwatch(clock=time.process_time)
    octets = sum(len(tile_code.pack(payload.encode_tile(tile))) for tile in tiles)  # the first run pays for its memory
    best_s, best_stages, passes = float("inf"), {}, _passes(sum(payload.watch.seconds.values()))
    for _ in range(ROUNDS):
        payload.watch.seconds.clear()
        start = time.process_time()
        for _ in range(passes):
            for tile in tiles:
                tile_code.pack(payload.encode_tile(tile))
        seconds = (time.process_time() - start) / passes
        if seconds < best_s:
            best_s, best_stages = seconds, {stage: s / passes for stage, s in payload.watch.seconds.items()}
    best_stages["everything else"] = max(0.0, best_s - sum(best_stages.values()))
    stages = tuple(_speed(stage, seconds, tiles) for stage, seconds in best_stages.items())
    return _speed(name, best_s, tiles, octets), stages


def _time_opponents(tiles: Sequence[Tile], octets: int) -> list[Speed]:
    """OpenJPEG and JPEG XL at the setting that comes nearest to `octets`; HTJ2K and CCSDS 121 without loss."""
    openjpeg, xl = open_codecs("jpeg2000")[0], open_codecs("jpegxl")[0]
    speeds = [_time_coder(codec, tiles, _setting_near(codec, tiles, octets)) for codec in (openjpeg, xl)]
    return speeds + [_time_coder(open_codecs(name)[0], tiles, LOSSLESS) for name in ("htj2k", "ccsds121")]


def _setting_near(codec: Codec, tiles: Sequence[Tile], octets: int) -> float:
    """The setting that gives about `octets`: bisection over the codec's settings, coarse to fine, then between two."""

    def too_coarse(setting: float) -> bool:
        return sum(len(codec.encode(tile.dn, setting)) for tile in tiles) < octets

    fine = bisect_left(codec.settings, True, key=lambda setting: not too_coarse(setting))
    if not 0 < fine < len(codec.settings):
        return codec.settings[min(fine, len(codec.settings) - 1)]
    coarse_setting, fine_setting = codec.settings[fine - 1], codec.settings[fine]
    for _ in range(BISECTIONS):
        middle = (coarse_setting * fine_setting) ** 0.5
        if too_coarse(middle):
            coarse_setting = middle
        else:
            fine_setting = middle
    return fine_setting


def _time_coder(codec: Codec, tiles: Sequence[Tile], setting: float) -> Speed:
    best_s, octets = _best(lambda: sum(len(codec.encode(tile.dn, setting)) for tile in tiles))
    mode = "lossless" if setting == LOSSLESS else "near the same octets"
    return _speed(f"{codec.name}, {mode}", best_s, tiles, octets)


def _best(work: Callable[[], int]) -> tuple[float, int]:
    """Seconds of the fastest of ROUNDS, and what the work gave."""
    start = time.process_time()
    result = work()
    best_s, passes = float("inf"), _passes(time.process_time() - start)
    for _ in range(ROUNDS):
        start = time.process_time()
        for _ in range(passes):
            work()
        best_s = min(best_s, (time.process_time() - start) / passes)
    return best_s, result


def _speed(name: str, seconds: float, tiles: Sequence[Tile], octets: int | None = None) -> Speed:
    pixels = sum(tile.dn.shape[1] * tile.dn.shape[2] for tile in tiles)
    return Speed(name, seconds, pixels / seconds / 1e6 if seconds else float("inf"), None, octets)


def _against(speed: Speed, yardstick_s: float) -> Speed:
    return Speed(speed.name, speed.seconds, speed.mpx_s, yardstick_s / speed.seconds, speed.octets)


def measure_memory(side_px: int, bundle: str, engine: str) -> Memory:
    """Runs `sim downlink --scene demo:SIDE` in a process of its own and asks the system for its peak resident set."""
    with TemporaryDirectory(prefix="nadir-bench-") as folder:
        command = [sys.executable, "-m", "sim.cli", "downlink", "--scene", f"demo:{side_px}", "--bundle", bundle]
        command += ["--engine", engine, "--mission", "sentinel2", "--out", str(Path(folder) / "out")]
        start = time.perf_counter()
        with (Path(folder) / "log").open("w+") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, cwd=Path(__file__).parents[2])
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            seconds = time.perf_counter() - start
            log.seek(0)
            said = log.read().split("\n")
    if process.returncode not in (0, 1):  # 1: a requirement of the mission failed, which is not the question
        last = next((line for line in reversed(said) if line.strip()), "nothing")
        raise InputError(f"sim downlink of demo:{side_px} ended with {process.returncode} and said: {last}")
    per_mib = 2**20 if sys.platform == "darwin" else 2**10  # macOS counts octets, Linux kibioctets
    return Memory(side_px, process.returncode, seconds, usage.ru_maxrss / per_mib)


@dataclass(frozen=True)
class DecoderSpeed:
    """One decoder over all tiles at one rate. `ratio` to OpenJPEG; PSNR (peak 10 000) is the mean over tiles."""

    decoder: str
    cr16: float
    mpx_s: float
    ratio: float
    psnr_10k_db: float


def decoder_speeds(question: Question, advance: Progress) -> list[DecoderSpeed]:
    """Every decoder that the bundle has, tile code to DN on one core, at each of DECODED_RATIOS."""
    bundle = load_bundle(question.bundle)
    tiles = _tiles(question, bundle.tile_px)
    payload = Payload(bundle, EVERYTHING, open_engine(question.engines[0], threads=1))
    found = []
    for ratio in DECODED_RATIOS:
        payload.policy = replace(EVERYTHING, step_dn=_step_for(payload, tiles, ratio))
        codes = [payload.encode_tile(tile) for tile in tiles]
        found += list(_decoders_at_one_rate(bundle, tiles, codes))
        advance(f"CR {ratio:g}", len(DECODED_RATIOS))
    return found


def _decoders_at_one_rate(bundle: Bundle, tiles: Sequence[Tile], codes: Sequence[TileCode]) -> Iterator[DecoderSpeed]:
    octets = sum(len(tile_code.pack(code)) for code in codes)
    cr16 = sum(2 * tile.dn.size for tile in tiles) / octets
    openjpeg = open_codecs("jpeg2000-joint")[0]
    setting = _setting_near(openjpeg, tiles, octets)
    streams = [openjpeg.encode(tile.dn, setting) for tile in tiles]
    peer_s, psnr = _timed(openjpeg.decode, streams, tiles)
    pixels = sum(tile.valid.size for tile in tiles) / 1e6
    yield DecoderSpeed(PEER, cr16, pixels / peer_s, 1.0, psnr)
    for decoder in _decoders_of(bundle):
        seconds, psnr = _timed(decoder.decode_tile, codes, tiles)
        yield DecoderSpeed(decoder.kind, cr16, pixels / seconds, peer_s / seconds, psnr)


def _decoders_of(bundle: Bundle) -> Iterator[Decoder]:
    for kind in DECODERS:
        try:
            yield Decoder(bundle, open_engine("openvino", threads=1), kind)
        except InputError:
            continue  # the bundle has none of that name


def _timed(decode: Callable[[Any], Dn], streams: Sequence[Any], tiles: Sequence[Tile]) -> tuple[float, float]:
    """Seconds of the best round of each tile, added up, after one round that pays for memory; and the mean PSNR."""
    errors = [np.mean((decode(s).astype(np.float64) - t.dn) ** 2) for s, t in zip(streams, tiles, strict=True)]
    best = np.full(len(streams), np.inf)
    for _ in range(DECODING_ROUNDS):
        for k, stream in enumerate(streams):
            start_s = time.process_time()
            decode(stream)
            best[k] = min(best[k], time.process_time() - start_s)
    return float(best.sum()), float(np.mean([psnr_db(float(error)) for error in errors]))


def decoders_text(found: Sequence[DecoderSpeed]) -> str:
    """The table for people."""
    host = f"{os.cpu_count()} cores, one thread, processor time, kernel: {ran.kernel()}, {ran.instruction_set()}"
    lines = [host, "", f"{'tile code to DN':34}{'CR':>8}{'Mpx/s':>9}{'x OpenJPEG':>12}{'PSNR, dB':>10}"]
    for row in found:
        lines.append(f"{row.decoder:34}{row.cr16:8.1f}{row.mpx_s:9.2f}{row.ratio:12.2f}{row.psnr_10k_db:10.2f}")
    return "\n".join(lines)
