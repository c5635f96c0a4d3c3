"""The bundle: the trained, versioned, hashed deliverable, and the narrow waist between workshop, flight and ground.

    <bundle>/manifest.json      what it is, and the sha256 of every other file
    <bundle>/flight/...         what is uplinked: networks and tables
    <bundle>/ground/...         what stays on the ground: the decoder

The id of a bundle is the first four octets of the sha256 of its canonical identity (see `identity`); it rides in every
tile code, so that decoding with the wrong bundle is refused, not garbled.
"""

import hashlib
import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn

from numpy.typing import NDArray

from payload.array_files import ArrayFileError, read_arrays
from payload.errors import BundleError, InputError
from payload.sensor import Sensor, sensor_from, sensor_of
from payload.signature import read_signature, require_signature

FORMAT_VERSION = 2
SHIPPED = Path(__file__).parent / "bundles"
DEFAULT = "edge"
#: Codec kind of what stands for a bundle that failed its checks.
BARE = "none"
#: Draws the mask that a user gets, on the ground. Nothing that comes down is read otherwise for it, so it may be added
#: or exchanged without a bundle's id changing.
GROUND_CLOUDS_FILE = "ground/clouds.onnx"
REQUIRED_KEYS = ("format_version", "name", "bands", "tile_px", "codec", "files")
#: Bounds before anything is parsed: what ships has a hundredth of each.
MOST_MANIFEST_OCTETS, MOST_TABLE_OCTETS = 1 << 20, 1 << 26
LONGEST_NAME = 200


@dataclass(frozen=True)
class Bundle:
    """A checked bundle. `manifest` holds the parsed manifest.json; paths come from `file`."""

    directory: Path
    manifest: dict[str, Any] = field(repr=False)

    @property
    def name(self) -> str:
        return str(self.manifest["name"])

    @property
    def bands(self) -> tuple[str, ...]:
        return tuple(self.manifest["bands"])

    @cached_property
    def sensor(self) -> Sensor:
        """Whose bands these are; Sentinel-2 where the manifest names none."""
        table = self.manifest.get("sensor")
        return sensor_of(self.bands) if table is None else _sensor(self.directory / "manifest.json", table, self.bands)

    @property
    def tile_px(self) -> int:
        return int(self.manifest["tile_px"])

    @property
    def codec(self) -> dict[str, Any]:
        """Parameters of the codec: `kind` ('fsq' or 'vq') and what that kind needs."""
        return dict(self.manifest["codec"])

    def parameter(self, key: str, default: float, low: float, high: float) -> float:
        """A number among the codec's parameters; BundleError where it is none, or not between the edges."""
        found = self.codec.get(key, default)
        if isinstance(found, bool) or not isinstance(found, (int, float)) or not low <= found <= high:
            raise BundleError(
                f"bundle {self.name}: codec.{key} is {str(found)[:60]!r}, wanted a number from {low:g} to {high:g}; "
                "restore the bundle or rebuild it"
            )
        return float(found)

    def switch(self, key: str, may_be: bool = True) -> bool:
        """Whether the codec's parameters say so; BundleError where that is neither true nor false, or may not be."""
        found = self.codec.get(key, False)
        if not isinstance(found, bool) or (found and not may_be):
            raise BundleError(
                f"bundle {self.name}: codec.{key} is {str(found)[:60]!r}, wanted {'true or ' * may_be}false; "
                "restore the bundle or rebuild it"
            )
        return found

    @cached_property
    def bundle_id(self) -> int:
        return int.from_bytes(hashlib.sha256(identity(self.manifest)).digest()[:4], "big")

    def file(self, name: str) -> Path:
        """Path of a file listed in the manifest, e.g. 'flight/encoder.onnx'."""
        if name not in self.manifest["files"]:
            raise BundleError(
                f"bundle {self.name}: no file {name} in its manifest; rebuild it with `python -m export build`"
            )
        return self.directory / name


def identity(manifest: dict[str, Any]) -> bytes:
    """The octets a bundle's id is computed over: what decides the meaning of a stream, in canonical JSON.

    A decoder network may become better while its bundle flies: `first_ground` has the checksums that files of ground/
    had in the bundle of this id that was first, and they stay in the id."""
    decisive = {key: manifest[key] for key in ("format_version", "bands", "tile_px", "codec")}
    files = {name: sha256 for name, sha256 in manifest["files"].items() if name != GROUND_CLOUDS_FILE}
    decisive["files"] = files | manifest.get("first_ground", {})
    decisive |= {key: manifest[key] for key in ("sensor",) if key in manifest}
    return json.dumps(decisive, sort_keys=True, separators=(",", ":")).encode()


def load_bundle(
    where: str | Path = DEFAULT, flight_only: bool = False, trusted_keys: Sequence[bytes] | None = None,
    allow_unsigned: bool = False,
) -> Bundle:  # fmt: skip
    """A bundle by shipped name or by directory, every listed file checked against its sha256.

    `flight_only` checks and needs the flight part alone: what a device under test holds. Twins of networks that another
    engine reads may be missing from it. `trusted_keys` (Ed25519 public keys) demands a signature by one of them; None
    demands none, and `allow_unsigned` lets a bundle pass that has none.
    """
    directory = _find(where)
    if trusted_keys is not None and not (allow_unsigned and read_signature(directory) is None):
        require_signature(directory, trusted_keys)
    manifest = _read_manifest(directory / "manifest.json")
    for name, digest in manifest["files"].items():
        if flight_only and not name.startswith("flight/"):
            continue
        if flight_only and is_spare(name, manifest["files"]) and not (directory / name).exists():
            continue
        _check_file(directory, name, digest)
    return Bundle(directory, manifest)


def is_ir(name: str, files: Collection[str]) -> bool:
    """Whether one of a manifest's `files` is a network's OpenVINO IR: the twin of an ONNX file of the same stem."""
    stem, _, ending = name.rpartition(".")
    return ending in ("xml", "bin") and f"{stem}.onnx" in files


def is_spare(name: str, files: Collection[str]) -> bool:
    """Whether a device may do without one of a manifest's `files`: every engine reads ONNX and needs no IR, and a
    network that was compiled for the device is run from its blob."""
    stem, _, ending = name.rpartition(".")
    return is_ir(name, files) or (ending == "onnx" and f"{stem}.blob" in files)


def bare_bundle(where: str | Path, bands: tuple[str, ...], tile_px: int = 256) -> Bundle:
    """What stands for a bundle that failed its checks: no networks, no tables. Tile size and bands are the manifest's
    where that can be read, `bands` and `tile_px` elsewhere."""
    manifest: dict[str, Any] = {"name": str(where), "bands": list(bands), "tile_px": tile_px}
    kept = (*manifest, "sensor")
    try:
        directory = _find(where)
        manifest |= {k: v for k, v in _read_manifest(directory / "manifest.json").items() if k in kept}
    except BundleError:
        directory = Path(where)
    return Bundle(directory, manifest | {"format_version": FORMAT_VERSION, "codec": {"kind": BARE}, "files": {}})


class ArrayFile:
    """The arrays of an .npz of a bundle: numbers alone, never unpickled, each checked as it is taken.

    BundleError where the file is no such archive, where an array is missing, or is not what its reader can work with.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._arrays = read_arrays(path, most_octets=MOST_TABLE_OCTETS)
        except ArrayFileError as error:
            raise BundleError(f"{path}: not readable as an .npz of numbers ({error}); rebuild the bundle") from None

    def __contains__(self, name: str) -> bool:
        return name in self._arrays

    def take(
        self, name: str, shape: tuple[int | None, ...], low: float, high: float, whole: bool = True
    ) -> NDArray[Any]:
        """The array called `name`, of this shape (None: any length but 0), its values finite and within the edges."""
        wanted = f"{'whole numbers' if whole else 'numbers'} {[n or 'any' for n in shape]} from {low:g} to {high:g}"
        if name not in self._arrays:
            raise self._misfit(name, "missing", wanted)
        array = self._arrays[name]
        fits = array.ndim == len(shape) and all(n in (None, m) for n, m in zip(shape, array.shape, strict=True))
        if not fits or array.size == 0 or array.dtype.kind not in ("iu" if whole else "iuf"):
            raise self._misfit(name, f"{array.dtype} {list(array.shape)}", wanted)
        if not (low <= array.min() and array.max() <= high):  # nor does it hold for what is no number
            raise self._misfit(name, f"from {array.min():g} to {array.max():g}", wanted)
        return array

    def require(self, name: str, held: bool, wanted: str) -> None:
        """BundleError unless `held`: what must be true of an array that was taken."""
        if not held:
            raise self._misfit(name, "something else", wanted)

    def _misfit(self, name: str, found: str, wanted: str) -> BundleError:
        return BundleError(f"{self._path}: {name} is {found}, wanted {wanted}; restore the bundle or rebuild it")


def shipped_bundles() -> list[str]:
    return sorted(p.parent.name for p in SHIPPED.glob("*/manifest.json"))


def _find(where: str | Path) -> Path:
    for candidate in (Path(where), SHIPPED / str(where)):
        if (candidate / "manifest.json").is_file():
            return candidate
    raise BundleError(
        f"bundle {str(where)!r}: no manifest.json there; give a directory or one of "
        f"{', '.join(shipped_bundles()) or '(none shipped)'}"
    )


def _read_manifest(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > MOST_MANIFEST_OCTETS:
            raise ValueError(f"more than {MOST_MANIFEST_OCTETS} octets")
        manifest = json.loads(path.read_text(encoding="utf-8"), parse_constant=_no_number)
    except (OSError, ValueError, RecursionError) as error:
        raise BundleError(f"{path}: not readable as JSON ({error}); restore the file or rebuild the bundle") from None
    missing = [key for key in REQUIRED_KEYS if not isinstance(manifest, dict) or key not in manifest]
    if missing:
        raise BundleError(f"{path}: {', '.join(missing)} missing from the manifest; rebuild the bundle")
    if manifest["format_version"] != FORMAT_VERSION:
        raise BundleError(
            f"{path}: format_version {str(manifest['format_version'])[:60]!r}, this Nadir reads {FORMAT_VERSION}; "
            "rebuild the bundle"
        )
    _check_values(path, manifest)
    return manifest


def _no_number(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number")


def _check_values(path: Path, manifest: dict[str, Any]) -> None:
    """The manifest is not covered by its own checksums: what everything else relies on is looked at here."""
    bands, tile_px, files = manifest["bands"], manifest["tile_px"], manifest["files"]
    for key, held, wanted in (
        ("name", _is_name(manifest["name"]), f"a printable string of {LONGEST_NAME} characters at most"),
        ("bands", isinstance(bands, list) and bands and all(map(_is_name, bands)), "a list of names"),
        ("tile_px", isinstance(tile_px, int) and 8 <= tile_px <= 4096 and not tile_px % 8, "a multiple of 8"),
        ("codec", isinstance(manifest["codec"], dict), "a table"),
        ("files", isinstance(files, dict) and all(map(_is_file_entry, files.items())), "names and checksums"),
        ("first_ground", _are_ground_files(manifest.get("first_ground", {}), files), "checksums of files of ground/"),
    ):
        if not held:
            found = repr(str(manifest[key])[:60])
            raise BundleError(f"{path}: {key} is {found}, wanted {wanted}; restore or rebuild the bundle")
    if "sensor" in manifest:
        _sensor(path, manifest["sensor"], tuple(bands))


def _sensor(path: Path, table: Any, bands: tuple[str, ...]) -> Sensor:
    try:
        sensor = sensor_from(table, f"{path}, sensor")
    except InputError as error:
        raise BundleError(f"{error}; or rebuild the bundle") from None
    if sensor.names != bands:
        raise BundleError(
            f"{path}: bands are {', '.join(bands)[:80]}, the sensor's {', '.join(sensor.names)[:80]}, wanted the same; "
            "rebuild the bundle"
        )
    return sensor


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and value.isprintable() and 0 < len(value) <= LONGEST_NAME


def _is_file_entry(entry: tuple[str, Any]) -> bool:
    name, digest = entry
    return _is_name(name) and isinstance(digest, str)


def _are_ground_files(first: Any, files: Any) -> bool:
    """Of what flies the id always knows the very octets."""
    entries = isinstance(first, dict) and all(map(_is_file_entry, first.items()))
    return entries and all(name.startswith("ground/") and name in files for name in first)


def _check_file(directory: Path, name: str, digest: str) -> None:
    path = directory / name
    if not path.resolve().is_relative_to(directory.resolve()):
        raise BundleError(f"{directory}: manifest names {name}, which lies outside the bundle; do not use this bundle")
    if not path.is_file():
        raise BundleError(f"{path}: listed in the manifest but not there; restore it or rebuild the bundle")
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != digest:
        raise BundleError(
            f"{path}: sha256 is {found[:12]}..., the manifest says {digest[:12]}...; "
            "the bundle was changed after it was built: restore it or rebuild"
        )
