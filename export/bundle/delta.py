"""What must be uplinked to turn the bundle on board into a new one: per file the smaller of a patch and the whole.

    octet 0   b"NDLT", version u8 = 1
    octet 5   sha256 of the manifest on board (32), sha256 of the new manifest (32)
    octet 69  number of files u16, then per file:
              name length u8, name UTF-8, how u8 (0 kept, 1 whole, 2 patched), payload length u32, payload

All numbers big-endian. A whole payload is the file in xz. A patch payload is xz over: number of copies u32, per copy
(length u32, offset in the old file i32 + 2^31), then the octet-wise difference to what was copied, as long as the new
file. Retrained weights sit at the same places with similar values, so the difference is mostly small numbers, which
pack well. Files are the manifest, the signature and what one device runs of the flight part; a file of the old bundle
that the new one lacks disappears because the new manifest does not name it.
"""

import hashlib
import lzma
import shutil
import struct
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from payload.bundle import Bundle, is_spare, load_bundle
from payload.errors import InputError

MAGIC = b"NDLT\x01"
KEPT, WHOLE, PATCHED = 0, 1, 2
HEAD = struct.Struct(">5s32s32sH")
ENTRY = struct.Struct(">BI")
COPY = struct.Struct(">II")
OFFSET_ZERO = 2**31
#: Octets that two files must share to be taken for the same place.
ANCHOR_OCTETS = 16
LARGEST_FILE_OCTETS = 2**30
LEAST_WINDOW_OCTETS = 4096


@dataclass(frozen=True)
class FileDelta:
    """One file of the uplink: how it is sent and what that takes."""

    name: str
    how: int
    payload: bytes
    new_octets: int

    @property
    def sent_octets(self) -> int:
        return len(self.payload)


def make_delta(old: Path, new: Path, with_ir: bool = False) -> tuple[bytes, list[FileDelta]]:
    """The uplink from the bundle in `old` to the one in `new`, and what each file takes in it.

    `with_ir`: for a device that boots networks from their OpenVINO IR, which holds the weights once more."""
    load_bundle(old, flight_only=True)
    load_bundle(new, flight_only=True)
    files = []
    for name in uplinked(new, with_ir):
        content = (new / name).read_bytes()
        before = (old / name).read_bytes() if (old / name).is_file() else b""
        how, payload = _smallest(before, content)
        files.append(FileDelta(name, how, payload, len(content)))
    digests = [hashlib.sha256((d / "manifest.json").read_bytes()).digest() for d in (old, new)]
    return pack(digests[0], digests[1], files), files


def apply_delta(old: Path, delta: bytes, out: Path) -> Bundle:
    """Builds the new bundle's flight part in `out` from the old one and the uplink, and checks every sha256.

    InputError if the delta is damaged or was made for another bundle; `out` is then untouched.
    """
    before, after, files = unpack(delta)
    if hashlib.sha256((old / "manifest.json").read_bytes()).digest() != before:
        raise InputError(f"{old}: the delta was made for another bundle; build it again from the one on board")
    if out.exists() and any(out.iterdir()):
        raise InputError(f"{out}: exists and is not empty; choose another folder")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as scratch:
        folder = Path(scratch) / out.name
        for name, how, payload in files:
            path = folder / name
            if not path.resolve().is_relative_to(folder.resolve()):
                raise InputError(f"delta names {name}, which lies outside the bundle; do not use this delta")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(_restore(old / name, how, payload))
        if hashlib.sha256((folder / "manifest.json").read_bytes()).digest() != after:
            raise InputError("the manifest that came out is not the one the delta was made for; uplink it again")
        load_bundle(folder, flight_only=True)
        if out.exists():
            out.rmdir()
        shutil.move(folder, out)
    return load_bundle(out, flight_only=True)


def uplinked(directory: Path, with_ir: bool = False) -> list[str]:
    """Files of a bundle that are sent up: manifest, signature, and of the flight part what one device runs.

    Every engine of the payload reads networks as ONNX; their IR is left out unless it is asked for. Of a variant that
    holds blobs those go up."""
    names = [n for n in ("manifest.json", "signature.json") if (directory / n).is_file()]
    listed = load_bundle(directory, flight_only=True).manifest["files"]
    return names + sorted(n for n in listed if n.startswith("flight/") and (with_ir or not is_spare(n, listed)))


def pack(before: bytes, after: bytes, files: list[FileDelta]) -> bytes:
    """The octets of the uplink."""
    parts = [HEAD.pack(MAGIC, before, after, len(files))]
    for file in files:
        name = file.name.encode()
        if len(name) > 255:
            raise InputError(f"file name {file.name[:40]}... is longer than 255 octets; shorten it")
        parts += [bytes([len(name)]), name, ENTRY.pack(file.how, len(file.payload)), file.payload]
    return b"".join(parts)


def unpack(delta: bytes) -> tuple[bytes, bytes, list[tuple[str, int, bytes]]]:
    """Old digest, new digest, and (name, how, payload) of every file. InputError if the octets do not add up."""
    try:
        magic, before, after, count = HEAD.unpack_from(delta)
        place, files = HEAD.size, []
        for _ in range(count):
            length = delta[place]
            name = delta[place + 1 : place + 1 + length].decode()
            how, size = ENTRY.unpack_from(delta, place + 1 + length)
            start = place + 1 + length + ENTRY.size
            place = start + size
            files.append((name, how, delta[start:place]))
    except (struct.error, IndexError, UnicodeDecodeError):
        raise InputError("the delta is cut short or damaged; uplink it again") from None
    if magic != MAGIC or place != len(delta):
        raise InputError(f"not a delta of version {MAGIC[4]}, or damaged; make it with `python -m export delta`")
    return before, after, files


def patch(old: bytes, new: bytes) -> bytes:
    """The payload that turns `old` into `new`."""
    copies = _copies(_array(old), _array(new))
    base = _copied(_array(old), copies)
    difference = (_array(new) - base).tobytes()  # modulo 256
    head = struct.pack(">I", len(copies)) + b"".join(COPY.pack(n, at + OFFSET_ZERO) for n, at in copies)
    return _xz(head + difference)


def unpatch(old: bytes, payload: bytes) -> bytes:
    """Inverse of `patch`. InputError if the payload is damaged."""
    body = _unxz(payload)
    try:
        (count,) = struct.unpack_from(">I", body)
        pairs = [COPY.unpack_from(body, 4 + COPY.size * i) for i in range(count)]
    except struct.error:
        raise InputError("a patch of the delta is damaged; uplink it again") from None
    difference = _array(body[4 + COPY.size * count :])
    copies = [(n, at - OFFSET_ZERO) for n, at in pairs]
    if sum(n for n, _ in copies) != difference.size:
        raise InputError("a patch of the delta does not add up; uplink it again")
    return (difference + _copied(_array(old), copies)).tobytes()


def as_text(files: list[FileDelta], delta: bytes) -> str:
    """What goes up, file by file, against sending everything."""
    names = {KEPT: "kept", WHOLE: "whole", PATCHED: "patched"}
    lines = [f"{f.name:28} {f.new_octets:>9} octets  {names[f.how]:8} {f.sent_octets:>9} sent" for f in files]
    everything = sum(f.new_octets for f in files)
    lines.append(
        f"uplink: {len(delta)} octets, {100 * len(delta) / everything:.1f} % of the {everything} of the new flight part"
    )
    return "\n".join(lines)


def _smallest(old: bytes, new: bytes) -> tuple[int, bytes]:
    if old == new:
        return KEPT, b""
    choices = [(WHOLE, _xz(new))] + ([(PATCHED, patch(old, new))] if old else [])
    return min(choices, key=lambda choice: len(choice[1]))


def _restore(old: Path, how: int, payload: bytes) -> bytes:
    if how == WHOLE:
        return _unxz(payload)
    if how not in (KEPT, PATCHED) or not old.is_file():
        raise InputError(f"{old}: the delta builds on this file, which is not there; restore the old bundle")
    return old.read_bytes() if how == KEPT else unpatch(old.read_bytes(), payload)


def _copies(old: NDArray[np.uint8], new: NDArray[np.uint8]) -> list[tuple[int, int]]:
    """(length, offset in old) runs that cover `new`: from each shared place to the next one with another shift."""
    places, shifts = _anchors(old, new)
    turns = np.flatnonzero(np.diff(shifts, prepend=shifts[:1] + 1)) if shifts.size else np.array([], np.int64)
    starts = [0, *(int(places[t]) for t in turns[1:])]
    chosen = [int(shifts[t]) for t in turns] or [0]
    ends = [*starts[1:], new.size]
    return [(end - start, start + shift) for start, end, shift in zip(starts, ends, chosen, strict=True) if end > start]


def _anchors(old: NDArray[np.uint8], new: NDArray[np.uint8]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Places in `new` whose next ANCHOR_OCTETS occur exactly once in both files, and the shift to them in `old`."""
    nothing = np.zeros(0, np.int64)
    if min(old.size, new.size) < ANCHOR_OCTETS:
        return nothing, nothing
    old_keys, old_at = _unique_windows(old)
    new_keys, new_at = _unique_windows(new)
    _, in_old, in_new = np.intersect1d(old_keys, new_keys, assume_unique=True, return_indices=True)
    order = np.argsort(new_at[in_new])
    places = new_at[in_new][order]
    shifts = old_at[in_old][order] - places
    same = np.all(_windows(new)[places] == _windows(old)[places + shifts], axis=1) if places.size else np.zeros(0, bool)
    return places[same], shifts[same]


def _windows(octets: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.lib.stride_tricks.sliding_window_view(octets, ANCHOR_OCTETS)


def _unique_windows(octets: NDArray[np.uint8]) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Hashes of the windows that occur once, sorted, and where."""
    powers = np.array([pow(0x9E3779B97F4A7C15, k + 1, 2**64) for k in range(ANCHOR_OCTETS)], np.uint64)
    hashes = np.zeros(octets.size - ANCHOR_OCTETS + 1, np.uint64)
    for k in range(ANCHOR_OCTETS):
        hashes += (octets[k : octets.size - ANCHOR_OCTETS + 1 + k].astype(np.uint64) + np.uint64(1)) * powers[k]
    keys, first, counts = np.unique(hashes, return_index=True, return_counts=True)
    return keys[counts == 1], first[counts == 1].astype(np.int64)


def _copied(old: NDArray[np.uint8], copies: list[tuple[int, int]]) -> NDArray[np.uint8]:
    """What the copies give: octets of `old`, 0 beyond its ends."""
    total = sum(n for n, _ in copies)
    if total > LARGEST_FILE_OCTETS:
        raise InputError(
            f"a patch asks for {total} octets, more than {LARGEST_FILE_OCTETS}; it is damaged: uplink it again"
        )
    out, place = np.zeros(total, np.uint8), 0
    for length, at in copies:
        low, high = max(0, min(at, old.size)), max(0, min(at + length, old.size))
        if high > low:
            out[place + low - at : place + high - at] = old[low:high]
        place += length
    return out


def _array(octets: bytes) -> NDArray[np.uint8]:
    return np.frombuffer(octets, np.uint8)


def _xz(octets: bytes) -> bytes:
    window = max(LEAST_WINDOW_OCTETS, len(octets))  # no larger than it needs to be: the window is what xz sets up
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": window}]
    return lzma.compress(octets, lzma.FORMAT_XZ, lzma.CHECK_CRC32, filters=filters)


def _unxz(octets: bytes) -> bytes:
    try:
        return lzma.decompress(octets, lzma.FORMAT_XZ)
    except lzma.LZMAError:
        raise InputError("a file of the delta is damaged; uplink it again") from None
