"""HEVC, AV1 and VVC intra on a tile's KLT components: the strongest coders there are, whatever they cost.

The components stand under each other in one grey picture [B h, w], so that one quantiser and one set of headers serve
all of them. Parameter sets of HEVC and VVC, alike for all tiles at a setting, count as sent once and cost nothing here:
the two sides share them as ours share a bundle. x265, libaom and vvenc come in the FFmpeg of the wheel `imageio-ffmpeg`
(extra `opponents`). Each call starts a process of one thread; its seconds include that.
"""

import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec

import numpy as np
from numpy.typing import NDArray

from payload.errors import InputError
from payload.scene import Dn
from sim.compare.klt import Klt, side_octets

WHEEL = "imageio-ffmpeg"


#: Ahead of every unit of a raw HEVC or VVC stream (Annex B of both).
START_CODE = re.compile(b"\x00\x00(?:\x00)?\x01")


@dataclass(frozen=True)
class VideoCodec:
    """One intra picture. Octets: number of bands 1, tile rows 2, setting 1, KLT (sim/compare/klt.py), raw stream."""

    name: str
    note: str
    settings: tuple[float, ...]
    bits: int
    pixels: str  # FFmpeg's name of the picture's format
    encoder: str  # options, `{q}` stands for the setting
    stream: str  # FFmpeg's name of the raw stream
    _shared: dict[tuple[int, int], bytes] = field(default_factory=dict, repr=False)  # by setting and tile rows

    def encode(self, dn: Dn, setting: float) -> bytes:
        bands, height, width = dn.shape
        middle = 1 << (self.bits - 1)
        klt = Klt.fit(dn, middle - 1, differences=True)
        picture = np.rint(klt.components(dn) + middle).astype("<u2").reshape(bands * height, width)
        source = f"-f rawvideo -pix_fmt {self.pixels} -s {width}x{bands * height} -i -"
        stream = _ffmpeg(f"{source} {self.encoder.format(q=int(setting))} -f {self.stream} -", self._framed(picture))
        own = self._without_shared(stream, (int(setting), height))
        return bytes([bands, *height.to_bytes(2, "big"), int(setting)]) + klt.pack() + own

    def decode(self, octets: bytes) -> Dn:
        bands, height, setting = octets[0], int.from_bytes(octets[1:3], "big"), octets[3]
        klt = Klt.unpack(octets[HEAD_OCTETS:], bands)
        stream = self._shared[setting, height] + octets[HEAD_OCTETS + side_octets(bands, octets[HEAD_OCTETS:]) :]
        raw = _ffmpeg(f"-threads 1 -f {self.stream} -i - -f rawvideo -pix_fmt {self.pixels} -", stream)
        samples = np.frombuffer(raw, "<u2")
        whole = samples[: len(samples) * 2 // 3] if self._has_colour else samples
        return klt.bands(whole.reshape(bands, height, -1) - float(1 << (self.bits - 1)))

    def _without_shared(self, stream: bytes, key: tuple[int, int]) -> bytes:
        """The stream less its parameter sets, which are kept for the decoder."""
        units = list(_units(stream, self.stream))
        shared = b"".join(unit for unit, kind in units if kind in SHARED_UNITS[self.stream])
        if self._shared.setdefault(key, shared) != shared:
            raise InputError(f"{self.name}: parameter sets differ between tiles at setting {key[0]}; leave it out")
        return b"".join(unit for unit, kind in units if kind not in SHARED_UNITS[self.stream] | IDLE_UNITS[self.stream])

    @property
    def _has_colour(self) -> bool:
        return not self.pixels.startswith("gray")

    def _framed(self, picture: NDArray[np.uint16]) -> bytes:
        """The picture, with flat colour planes for a coder that takes no grey ones."""
        grey = np.full(picture.size // 2, 1 << (self.bits - 1), "<u2").tobytes() if self._has_colour else b""
        return picture.tobytes() + grey


HEAD_OCTETS = 4
#: Kinds of units that hold parameter sets (video, sequence, picture), and those that say nothing about the picture
#: (delimiters, supplemental information): ITU-T H.265 table 7-1, H.266 table 5. AV1's sequence header stays: 12 octets.
SHARED_UNITS: dict[str, set[int]] = {"hevc": {32, 33, 34}, "vvc": {14, 15, 16}, "obu": set()}
IDLE_UNITS: dict[str, set[int]] = {"hevc": {35, 39, 40}, "vvc": {20, 23, 24}, "obu": set()}


def _units(stream: bytes, name: str) -> Iterator[tuple[bytes, int]]:
    """The units of a raw stream, start codes included, with their kinds."""
    if name == "obu":
        yield stream, -1
        return
    found = list(START_CODE.finditer(stream))
    ends = [match.start() for match in found[1:]] + [len(stream)]
    for match, end in zip(found, ends, strict=True):
        header = stream[match.end() : match.end() + 2]
        yield stream[match.start() : end], header[0] >> 1 & 63 if name == "hevc" else header[1] >> 3


HEVC = VideoCodec(
    "klt-hevc",
    "x265 intra, 12 bit, preset veryslow, tune PSNR, one picture of the KLT components; setting = QP",
    (50, 44, 38, 32, 27, 22, 17),
    12,
    "gray12le",
    "-c:v libx265 -preset veryslow -tune psnr "
    "-x265-params qp={q}:info=0:keyint=1:pools=none:frame-threads=1:log-level=0",
    "hevc",
)
AV1 = VideoCodec(
    "klt-av1",
    "libaom intra, 12 bit, cpu-used 3, tune PSNR, one picture of the KLT components; setting = constant quality",
    (56, 48, 40, 32, 24, 16, 9),
    12,
    "gray12le",
    "-c:v libaom-av1 -cpu-used 3 -crf {q} -b:v 0 -tune psnr -still-picture 1 -threads 1",
    "obu",
)
VVC = VideoCodec(
    "klt-vvc",
    "vvenc intra, 10 bit, preset medium, QPA off, one picture of the KLT components; setting = QP",
    (51, 46, 40, 34, 28, 22, 17),
    10,
    "yuv420p10le",
    "-c:v libvvenc -preset medium -qp {q} -vvenc-params qpa=0 -threads 1",
    "vvc",
)


CODECS = (HEVC, AV1, VVC)


def missing() -> str | None:
    """What these codecs need and this machine lacks."""
    return None if find_spec("imageio_ffmpeg") else f"the wheel {WHEEL} (extra `opponents`)"


def _ffmpeg(options: str, data: bytes) -> bytes:
    from imageio_ffmpeg import get_ffmpeg_exe

    command = [get_ffmpeg_exe(), "-v", "error", "-nostdin", *options.split()]
    done = subprocess.run(command, input=data, capture_output=True, check=False)
    if done.returncode or not done.stdout:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        cause = said[-1][:200] if said else f"exit {done.returncode}"
        raise InputError(f"FFmpeg gave no picture ({cause}); leave video codecs out of --against")
    return done.stdout
