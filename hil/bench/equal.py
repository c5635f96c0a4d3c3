"""`hil equal`: the same tiles through several devices, and one fingerprint of the tile codes from each.

The first device is the yardstick. Each device keeps its codes in a folder of its own, as `hil run` does, so that an
emulated processor that takes half an hour goes on where it broke off.
"""

import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from hil.bench.run import RunFolder, RunReport, run
from hil.host.client import open_device
from hil.host.transports import connector
from payload.bundle import Bundle
from payload.errors import InputError
from payload.policy import Policy
from payload.tiles import Tile

#: This machine, x86 without VNNI, a small and a large ARM core. On ARM through ONNX Runtime: OpenVINO 2026.4 has no
#: INT8 convolution of this kind there, and the payload refuses one in float.
PROCESSORS = ("host:", "emulated:Haswell", "emulated:cortex-a53+onnxruntime", "emulated:cortex-a76+onnxruntime")


@dataclass(frozen=True)
class Fingerprint:
    """What one device made of the tiles."""

    device: str
    machine: str
    engine: str
    tiles: int
    octets: int
    sha256: str  # over all tile codes in order
    different: tuple[int, ...]  # numbers of the tiles whose code is not the first device's


def equal(
    devices: Sequence[str],
    tiles: Iterable[Tile],
    bundle: Bundle,
    policy: Policy,
    open_folder: Callable[[str], RunFolder],
    say: Callable[[str], None],
) -> list[Fingerprint]:
    """A fingerprint for each device. InputError before the first tile where a device cannot be had at all."""
    for device in devices:
        connector(device, Path(bundle.directory))
    numbered = [replace(tile, row=n // 256, col=n % 256) for n, tile in enumerate(tiles)]  # of several scenes
    if not numbered:
        raise InputError("there are no tiles to compare; give a scene with pixels")
    found: list[Fingerprint] = []
    yardstick: list[bytes] = []
    for device in devices:
        folder = open_folder(folder_name(device))
        with open_device(device, bundle, policy) as session:
            report = run(session, numbered, bundle, policy, folder, None)
        codes = [kept.octets if (kept := folder.done(tile)) else b"" for tile in numbered]
        yardstick = yardstick or codes
        found.append(_fingerprint(device, report, [n for n, code in enumerate(codes) if code != yardstick[n]]))
        say(f"{device}: {len(codes)} tiles, sha256 {found[-1].sha256[:16]}")
    return found


def write_fingerprints(found: Sequence[Fingerprint], bundle: Bundle, path: Path) -> None:
    """equal.json."""
    fields = {"bundle": bundle.name, "bundle_id": f"{bundle.bundle_id:08x}", "devices": [asdict(one) for one in found]}
    path.write_text(json.dumps(fields, indent=1), encoding="utf-8")


def folder_name(device: str) -> str:
    """A device's URL as the name of a folder."""
    return re.sub(r"[^A-Za-z0-9.+-]+", "-", device).strip("-")


def _fingerprint(device: str, report: RunReport, different: list[int]) -> Fingerprint:
    info = report.device
    processor = f"emulated {info['emulated']}" if info["emulated"] else info["cpu"]
    machine = f"{info['machine']}, {processor}"
    return Fingerprint(device, machine, info["engine"], report.tiles, report.octets, report.sha256, tuple(different))
