"""Frames that nobody else can read, change or send again: in the manner of CCSDS 355.0-B (SDLS), AES-256-GCM.

    | primary header | SPI 16 | IV 96 | data, encrypted | MAC 128 | CRC 16, if any |

The header goes in clear and is authenticated with the rest. The IV is a number that counts frames and is never used
twice under a key; the receiver refuses one that it has seen, or that lies behind its window. docs/format.md has it.
Not checked against another implementation of the standard. `cryptography` is needed only where this is switched on.
"""

from binascii import crc_hqx
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from payload.errors import InputError, StreamError
from payload.link.frames.transfer_frame import FECF_OCTETS, FrameFormat
from payload.signature import read_key_file

SPI_OCTETS, IV_OCTETS, MAC_OCTETS, KEY_OCTETS = 2, 12, 16, 32
SECURITY_OCTETS = SPI_OCTETS + IV_OCTETS + MAC_OCTETS
#: So many numbers behind the newest a frame may come and still be taken once.
WINDOW_FRAMES = 64


@dataclass(frozen=True)
class Security:
    """`key_file`: 64 hex digits. `spi` names the key to the receiver. `first_iv`: number of the first frame sent; a
    satellite keeps counting, a simulated run begins here, so its keys are for nothing else."""

    key_file: str
    spi: int = 1
    first_iv: int = 0

    def __post_init__(self) -> None:
        for name, value, most in (("spi", self.spi, (1 << 16) - 1), ("first_iv", self.first_iv, 1 << 90)):
            if not 0 <= value <= most:
                raise InputError(f"{name} is {value}, wanted 0 to {most}")

    def cipher(self) -> Any:
        """AES-256-GCM under the key. InputError where there is none, or nothing to compute it with."""
        try:
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM
        except ImportError:
            raise InputError("[link.security] needs the cryptography package; pip install cryptography") from None
        return AESGCM(read_key(Path(self.key_file)))


def read_key(path: Path) -> bytes:
    """The 32 octets of a key file."""
    wanted = f"no key of frames; wanted {2 * KEY_OCTETS} hex digits, as `hil key FILE` writes them"
    return read_key_file(path, KEY_OCTETS, wanted)


def without_security(layout: FrameFormat) -> FrameFormat:
    """Frames as they are before security is added to them, so that they come out as `layout` says."""
    return replace(layout, octets=layout.octets - SECURITY_OCTETS)


class Sealer:
    """The sender: whole frames of `without_security(layout)` -> frames of `layout`."""

    def __init__(self, security: Security, layout: FrameFormat) -> None:
        self._cipher, self._layout, self._next = security.cipher(), layout, security.first_iv
        self._spi = security.spi.to_bytes(SPI_OCTETS, "big")

    def seal(self, frame: bytes) -> bytes:
        iv, self._next = self._next.to_bytes(IV_OCTETS, "big"), self._next + 1
        header, data = _parts(frame, self._layout)
        clear = header + self._spi + iv
        return _with_fecf(clear + self._cipher.encrypt(iv, data, clear), self._layout)


def sealed(frames: Iterable[bytes], security: Security, layout: FrameFormat) -> Iterator[bytes]:
    """Every frame of a run, sealed."""
    sealer = Sealer(security, layout)
    for frame in frames:
        yield sealer.seal(frame)


@dataclass(frozen=True)
class SecurityCounts:
    """Frames that were refused, by cause."""

    other_key: int = 0  # of another SPI
    bad_mac: int = 0
    replayed: int = 0  # seen, or behind the window


class Opener:
    """The receiver: frames of `layout` -> frames as they were before. Never raises but StreamError, which it counts."""

    def __init__(self, security: Security, layout: FrameFormat) -> None:
        self._cipher, self._layout, self._spi = security.cipher(), layout, security.spi
        self._newest, self._seen = -1, 0  # bit k of `seen`: the number `newest - k` was taken
        self._tally = asdict(SecurityCounts())

    @property
    def counts(self) -> SecurityCounts:
        return SecurityCounts(**self._tally)

    def open(self, frame: bytes) -> bytes:
        """StreamError where the frame is not of this sender, was changed, or was taken already."""
        header, rest = _parts(frame, self._layout)
        spi, iv = rest[:SPI_OCTETS], rest[SPI_OCTETS : SPI_OCTETS + IV_OCTETS]
        if int.from_bytes(spi, "big") != self._spi:
            raise self._refused("other_key", f"secured under SPI {int.from_bytes(spi, 'big')}, wanted {self._spi}")
        try:
            data = self._cipher.decrypt(iv, rest[SPI_OCTETS + IV_OCTETS :], header + spi + iv)
        except _invalid_tag():
            raise self._refused("bad_mac", "the MAC does not match") from None
        if not self._take(int.from_bytes(iv, "big")):
            raise self._refused("replayed", "a frame that was taken already, or is behind the window")
        return _with_fecf(header + data, self._layout)

    def _take(self, number: int) -> bool:
        """Whether this number may come; only one whose MAC matched moves the window."""
        ahead = number - self._newest
        if ahead > 0:
            self._seen = (self._seen << min(ahead, WINDOW_FRAMES) | 1) & (1 << WINDOW_FRAMES) - 1
            self._newest = number
            return True
        if -ahead >= WINDOW_FRAMES or self._seen >> -ahead & 1:
            return False
        self._seen |= 1 << -ahead
        return True

    def _refused(self, cause: str, text: str) -> StreamError:
        self._tally[cause] += 1
        return StreamError(text)


def _parts(frame: bytes, layout: FrameFormat) -> tuple[bytes, bytes]:
    """Primary header, and all between it and the CRC."""
    end = len(frame) - FECF_OCTETS * layout.fecf
    return frame[: layout.header_octets], frame[layout.header_octets : end]


def _with_fecf(octets: bytes, layout: FrameFormat) -> bytes:
    return octets + crc_hqx(octets, 0xFFFF).to_bytes(FECF_OCTETS, "big") if layout.fecf else octets


def _invalid_tag() -> type[Exception]:
    from cryptography.exceptions import InvalidTag

    return InvalidTag
