"""Tile -> octets -> tile: the classical opponents, each at its best honest setting, every octet counted.

A codec takes dn uint16 [B, h, w] and a setting and gives the octets that would be downlinked; the decoder gets those
octets alone. Settings run from coarse to fine; `LOSSLESS` (0) is the reversible mode where there is one.
Sources: OpenJPEG 2.5 (ISO 15444-1), OpenJPH 0.26 (ISO 15444-15), libjxl 0.11 (ISO 18181), libjpeg-turbo 3 (ISO 10918),
libaec 1.1 (CCSDS 121.0-B), all through imagecodecs. HEVC, AV1 and VVC stand in sim/compare/video.py.

Octets of several streams in one tile code:
    | number n : 1 | length of stream 1 : LEB128 | ... | length of stream n - 1 | stream 1 | ... | stream n |
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import imagecodecs
import numpy as np

from payload.errors import InputError
from payload.scene import Dn
from sim.compare import video
from sim.compare.klt import Klt, side_octets

LOSSLESS = 0.0
#: Components around the middle of 16 bits, none of which may wrap round.
COMPONENT_REACH = 32_700


class Codec(Protocol):
    """An opponent, or the learned codec behind the same face."""

    @property
    def name(self) -> str: ...
    @property
    def note(self) -> str:
        """One line for the report: what exactly ran."""
        ...

    @property
    def settings(self) -> tuple[float, ...]:
        """From coarse to fine, wide enough for a curve over CR 20 to 250 on easy and hard tiles."""
        ...

    def encode(self, dn: Dn, setting: float) -> bytes: ...

    def decode(self, octets: bytes) -> Dn: ...


def geometric(coarse: float, fine: float, count: int) -> tuple[float, ...]:
    return tuple(float(f"{value:.4g}") for value in np.geomspace(coarse, fine, count))


#: Wanted RMSE in DN: 15 to 66 dB (peak 10 000) in steps of about 2 dB; the coarsest are for clouds at CR 250.
RMSE_DN = geometric(1792, 5, 27)
#: Beyond them: smooth pictures of few bits are at CR 20 only there.
FINER_RMSE_DN = geometric(4, 0.25, 13)


def pack_streams(streams: Sequence[bytes]) -> bytes:
    lengths = b"".join(_leb128(len(stream)) for stream in streams[:-1])
    return bytes([len(streams)]) + lengths + b"".join(streams)


def unpack_streams(octets: bytes) -> list[bytes]:
    count, at = octets[0], 1
    lengths = []
    for _ in range(count - 1):
        length, at = _read_leb128(octets, at)
        lengths.append(length)
    streams = []
    for length in lengths:
        streams.append(octets[at : at + length])
        at += length
    return [*streams, octets[at:]]


def _leb128(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _read_leb128(octets: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while octets[at] & 0x80:
        value, shift, at = value | (octets[at] & 0x7F) << shift, shift + 7, at + 1
    return value | octets[at] << shift, at + 1


# --- JPEG 2000 -------------------------------------------------------------------------------------------------------


def _j2k(samples: Dn, rmse: float) -> bytes:
    """One codestream of uint16 [h, w] or [B, h, w]: irreversible 9/7, one tile, 6 resolutions, no colour transform, at
    the fixed quality `rmse`. With several components OpenJPEG spends across them by slope."""
    codestream = imagecodecs.jpeg2k_encode(
        np.ascontiguousarray(samples),
        level=20 * np.log10(65535 / rmse),  # OpenJPEG wants a PSNR at the container's peak
        codecformat="j2k",
        reversible=False,
        resolutions=None,
        mct=False,
        planar=True if samples.ndim == 3 else None,
        numthreads=1,
    )
    return bytes(codestream)


def _from_j2k(octets: bytes, planar: bool) -> Dn:
    return imagecodecs.jpeg2k_decode(octets, planar=True if planar else None, numthreads=1)


def without_comment(codestream: bytes) -> bytes:
    """A J2K codestream less the comment OpenJPEG signs it with (ISO 15444-1 A.9.2): 39 octets that carry no picture."""
    at = codestream.find(b"\xff\x64")
    if not 0 <= at < codestream.find(b"\xff\x90"):  # only ahead of the first tile-part
        return codestream
    return codestream[:at] + codestream[at + 2 + int.from_bytes(codestream[at + 2 : at + 4], "big") :]


@dataclass(frozen=True)
class Jpeg2000:
    """Every band a codestream of its own, all at one quality."""

    name: str = "jpeg2000"
    note: str = "OpenJPEG 9/7, a codestream per band, common quality, no comments; setting = wanted RMSE in DN"
    settings: tuple[float, ...] = RMSE_DN
    finer: tuple[float, ...] = FINER_RMSE_DN

    def encode(self, dn: Dn, setting: float) -> bytes:
        return pack_streams([without_comment(_j2k(band, setting)) for band in dn])

    def decode(self, octets: bytes) -> Dn:
        return np.stack([_from_j2k(stream, planar=False) for stream in unpack_streams(octets)])


@dataclass(frozen=True)
class Jpeg2000Joint:
    """All bands in one codestream: rate goes to the band where it removes most error."""

    name: str = "jpeg2000-joint"
    note: str = "OpenJPEG 9/7, one codestream, rate by slope across bands, no comment; setting = wanted RMSE in DN"
    settings: tuple[float, ...] = RMSE_DN
    finer: tuple[float, ...] = FINER_RMSE_DN

    def encode(self, dn: Dn, setting: float) -> bytes:
        return without_comment(_j2k(dn, setting))

    def decode(self, octets: bytes) -> Dn:
        return _from_j2k(octets, planar=True)


@dataclass(frozen=True)
class KltJpeg2000:
    """A spectral KLT fitted on the tile, then JPEG 2000 on its components.

    Octets: number of bands 1, side information (sim/compare/klt.py), the streams. `joint`: one codestream for all
    components instead of one each. `differences`: the KLT decorrelates differences between pixels, not values.
    """

    joint: bool = False
    differences: bool = False
    settings: tuple[float, ...] = RMSE_DN
    finer: tuple[float, ...] = FINER_RMSE_DN

    @property
    def name(self) -> str:
        return f"klt{'-diff' if self.differences else ''}-jpeg2000{'-joint' if self.joint else ''}"

    @property
    def note(self) -> str:
        how = "one codestream, rate by slope" if self.joint else "a codestream per component, common quality"
        on = " on differences over 2 and 8 px" if self.differences else ""
        klt = f"spectral KLT per tile{on}, its octets counted"
        return f"{klt}, OpenJPEG 9/7, {how}, no comment; setting = wanted RMSE in DN"

    def encode(self, dn: Dn, setting: float) -> bytes:
        klt = Klt.fit(dn, COMPONENT_REACH, self.differences, setting**2)
        samples = np.rint(klt.components(dn) + 32768).astype(np.uint16)
        wanted = setting * klt.scale
        if self.joint:
            streams = [without_comment(_j2k(samples, wanted))]
        else:
            streams = [without_comment(_j2k(component, wanted)) for component in samples]
        return bytes([len(dn)]) + klt.pack() + pack_streams(streams)

    def decode(self, octets: bytes) -> Dn:
        bands = octets[0]
        streams = unpack_streams(octets[1 + side_octets(bands, octets[1:]) :])
        if self.joint:
            samples = _from_j2k(streams[0], planar=True)
        else:
            samples = np.stack([_from_j2k(stream, planar=False) for stream in streams])
        return Klt.unpack(octets[1:], bands).bands(samples.reshape(bands, *samples.shape[-2:]) - 32768.0)


# --- the others ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class JpegXl:
    """Every band a grey JPEG XL picture: imagecodecs gives libjxl no four-band lossy picture that is better."""

    effort: int
    settings: tuple[float, ...] = (*geometric(25, 0.1, 13), LOSSLESS)

    @property
    def name(self) -> str:
        return f"jpegxl-e{self.effort}"

    @property
    def note(self) -> str:
        return f"libjxl effort {self.effort}, a grey codestream per band; setting = Butteraugli distance, 0 = lossless"

    def encode(self, dn: Dn, setting: float) -> bytes:
        return pack_streams([self._encode_band(np.ascontiguousarray(band), setting) for band in dn])

    def _encode_band(self, band: Dn, setting: float) -> bytes:
        distance, lossless = (None, True) if setting == LOSSLESS else (setting, None)
        return bytes(
            imagecodecs.jpegxl_encode(band, effort=self.effort, distance=distance, lossless=lossless, numthreads=1)
        )

    def decode(self, octets: bytes) -> Dn:
        return np.stack([imagecodecs.jpegxl_decode(stream, numthreads=1) for stream in unpack_streams(octets)])


@dataclass(frozen=True)
class HtJ2k:
    """High-throughput JPEG 2000: all bands in one codestream, the quantiser step sets the quality."""

    name: str = "htj2k"
    note: str = "OpenJPH 9/7, all bands in one codestream; setting = quantiser step in DN, 0 = lossless 5/3"
    settings: tuple[float, ...] = (*geometric(16384, 16, 23), LOSSLESS)

    def encode(self, dn: Dn, setting: float) -> bytes:
        step = None if setting == LOSSLESS else setting / 65536
        samples = np.ascontiguousarray(dn)
        return bytes(imagecodecs.htj2k_encode(samples, level=step, reversible=step is None, rgb=False, planar=True))

    def decode(self, octets: bytes) -> Dn:
        return imagecodecs.htj2k_decode(octets, planar=True)


LIBAEC = {"bitspersample": 16, "blocksize": 32, "rsi": 128, "flags": 8}  # flags: AEC_DATA_PREPROCESS


@dataclass(frozen=True)
class Ccsds121:
    """The flight standard for lossless coding: Rice coding of differences to the sample before."""

    name: str = "ccsds121"
    note: str = "libaec, 16 bit, unit-delay predictor, blocks of 32 samples, reference every 128 blocks; lossless"
    settings: tuple[float, ...] = (LOSSLESS,)

    def encode(self, dn: Dn, setting: float) -> bytes:
        size = b"".join(edge.to_bytes(2, "big") for edge in dn.shape)
        return size + imagecodecs.aec_encode(np.ascontiguousarray(dn), **LIBAEC)

    def decode(self, octets: bytes) -> Dn:
        bands, height, width = (int.from_bytes(octets[at : at + 2], "big") for at in (0, 2, 4))
        raw = imagecodecs.aec_decode(octets[6:], out=2 * bands * height * width, **LIBAEC)
        return np.frombuffer(raw, np.uint16).reshape(bands, height, width)


@dataclass(frozen=True)
class JpegLs:
    """LOCO-I, with a bound on the error of every sample: near-lossless as its standard has it."""

    name: str = "jpegls"
    note: str = "CharLS, a grey picture per band; setting = largest error in DN (NEAR), 0 = lossless"
    settings: tuple[float, ...] = (20, 10, 5, LOSSLESS)

    def encode(self, dn: Dn, setting: float) -> bytes:
        return pack_streams([bytes(imagecodecs.jpegls_encode(band, level=int(setting))) for band in dn])

    def decode(self, octets: bytes) -> Dn:
        return np.stack([imagecodecs.jpegls_decode(stream) for stream in unpack_streams(octets)])


@dataclass(frozen=True)
class Jpeg2000Lossless:
    """The reversible 5/3 filters, every band a codestream of its own."""

    name: str = "jpeg2000-lossless"
    note: str = "OpenJPEG 5/3, a codestream per band, no comments; lossless"
    settings: tuple[float, ...] = (LOSSLESS,)

    def encode(self, dn: Dn, setting: float) -> bytes:
        streams = [
            bytes(imagecodecs.jpeg2k_encode(band, level=0, codecformat="j2k", reversible=True, mct=False, numthreads=1))
            for band in dn
        ]
        return pack_streams([without_comment(stream) for stream in streams])

    def decode(self, octets: bytes) -> Dn:
        return np.stack([_from_j2k(stream, planar=False) for stream in unpack_streams(octets)])


@dataclass(frozen=True)
class Jpeg:
    """Baseline JPEG, 8 bit, every band a grey picture (12 bit JPEG stays under CR 20 at its coarsest)."""

    name: str = "jpeg"
    note: str = "libjpeg-turbo 8 bit, optimised Huffman tables, a picture per band, stretched; setting = quality"
    settings: tuple[float, ...] = (1, 3, 5, 7, 10, 14, 20, 28, 40, 55, 70, 82, 90, 95, 98)

    def encode(self, dn: Dn, setting: float) -> bytes:
        top = max(int(dn.max()), 255)
        levels = np.rint(dn * (255 / top)).astype(np.uint8)
        streams = [bytes(imagecodecs.jpeg8_encode(band, level=int(setting), optimize=True)) for band in levels]
        return top.to_bytes(2, "big") + pack_streams(streams)

    def decode(self, octets: bytes) -> Dn:
        top = int.from_bytes(octets[:2], "big")
        levels = np.stack([imagecodecs.jpeg8_decode(stream) for stream in unpack_streams(octets[2:])])
        return np.rint(levels * (top / 255)).astype(np.uint16)


#: What `--against` understands; one name may stand for several codecs.
MAKERS: dict[str, Callable[[], list[Codec]]] = {
    "jpeg2000": lambda: [Jpeg2000()],
    "jpeg2000-joint": lambda: [Jpeg2000Joint()],
    "klt-jpeg2000": lambda: [KltJpeg2000()],
    "klt-jpeg2000-joint": lambda: [KltJpeg2000(joint=True)],
    "klt-diff-jpeg2000": lambda: [KltJpeg2000(differences=True)],
    "klt-diff-jpeg2000-joint": lambda: [KltJpeg2000(joint=True, differences=True)],
    "jpegxl": lambda: [JpegXl(3), JpegXl(7)],
    "htj2k": lambda: [HtJ2k()],
    "ccsds121": lambda: [Ccsds121()],
    "jpegls": lambda: [JpegLs()],
    "jpeg2000-lossless": lambda: [Jpeg2000Lossless()],
    "jpeg": lambda: [Jpeg()],
    **{codec.name: lambda codec=codec: [codec] for codec in video.CODECS},  # type: ignore[misc]
}
VIDEO = tuple(codec.name for codec in video.CODECS)


def open_codecs(name: str) -> list[Codec]:
    """The codecs behind one name of `--against`."""
    if name not in MAKERS:
        raise InputError(f"codec {name!r} is not known, wanted any of {', '.join(MAKERS)}")
    return MAKERS[name]()


def missing(name: str) -> str | None:
    """What codec `name` needs and this machine lacks; None where it runs."""
    return video.missing() if name in VIDEO else None


def library_versions() -> dict[str, str]:
    """Versions of the image libraries inside imagecodecs, for the report."""
    wanted = ("openjpeg", "openjph", "libjxl", "libaec", "libjpeg_turbo")
    found = dict(part.rsplit("-", 1) for part in imagecodecs.version().split(", ") if "-" in part)
    return {"imagecodecs": imagecodecs.__version__} | {name: found[name] for name in wanted if name in found}
