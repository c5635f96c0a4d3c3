"""Accuracy on the very tiles that were timed: rate, distortion as the ground sees it, and the cloud mask.

The tile codes and the masks are the device's own. What decodes them and what knows the truth is found through the entry
points `nadir.judges`, so that the bench needs no ground where nobody asks for accuracy.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import numpy as np

from hil.bench.performance import Tell
from hil.host.client import DeviceSession
from hil.line.messages import DeviceReply
from hil.profiles.findings import Accuracy, CloudAgreement
from hil.profiles.profile_file import CODED
from payload.bundle import Bundle
from payload.errors import InputError, StreamError
from payload.tiles import Tile

JUDGES = "nadir.judges"
#: Tiles sent at once to be held for their masks: as many as any device has room for.
AT_ONCE = 16


@dataclass(frozen=True)
class CloudTruth:
    """What is cloud in a tile, and where that is known, by somebody's word; or why nobody knows."""

    basis: str = ""
    of_tile: Callable[[Tile], tuple[Any, Any]] | None = None
    why: str = ""


def find_truth(bundle: Bundle, scene: str | None, reference: Path | None) -> CloudTruth:
    """Before anything is measured: InputError where a reference that was given cannot be used."""
    if reference is None and "clouds" not in bundle.manifest:
        return CloudTruth()
    try:
        known = _judge("cloud_truth")(bundle, scene, reference)
    except InputError as error:
        if reference is not None:
            raise
        return CloudTruth(why=f"no cloud IoU: {error}")
    if known is None:
        why = "no cloud IoU: nobody knows the clouds of these tiles; --cloud-reference FILE.npz says where they are"
        return CloudTruth(why=why)
    return CloudTruth(*known)


def measure_accuracy(
    session: DeviceSession, tiles: Sequence[Tile], replies: Sequence[DeviceReply], bundle: Bundle, truth: CloudTruth,
    tell: Tell,
) -> tuple[Accuracy, list[str]]:  # fmt: skip
    """Figures, and what is missing of them, each as a sentence."""
    pixels, octets = sum(int(tile.valid.sum()) for tile in tiles), sum(len(reply.octets) for reply in replies)
    coded = [(t, r.octets) for t, r in zip(tiles, replies, strict=True) if r.kind == CODED]
    coded_px = sum(int(tile.valid.sum()) for tile, _ in coded)
    distortion, doubts = _distortion(bundle, coded)
    clouds, more = _clouds(session, tiles, truth, tell)
    return Accuracy(
        tiles=len(tiles),
        decoded=len(coded) if distortion else 0,
        octets=octets,
        bpp=8 * octets / pixels if pixels else 0.0,
        coded_bpp=8 * sum(len(code) for _, code in coded) / coded_px if coded_px else None,
        distortion=distortion,
        clouds=clouds,
    ), doubts + more


def _distortion(bundle: Bundle, coded: Sequence[tuple[Tile, bytes]]) -> tuple[dict[str, float], list[str]]:
    if not coded:
        return {}, ["no tile was coded: there is no PSNR; give a scene that is not all cloud"]
    try:
        return dict(_judge("distortion")(bundle, coded)), []
    except (InputError, StreamError) as error:
        return {}, [f"no PSNR: {error}"]


def _clouds(
    session: DeviceSession, tiles: Sequence[Tile], truth: CloudTruth, tell: Tell
) -> tuple[CloudAgreement | None, list[str]]:
    if truth.of_tile is None:
        return None, [truth.why] if truth.why else []
    counts = np.zeros(4, np.int64)  # pixels that are cloud for both, the device only, the truth only, neither
    for done, (tile, found) in enumerate(_masks(session, tiles)):
        tell("cloud masks", done, len(tiles))
        if found is None:
            return None, ["no cloud IoU: the device's bundle has no cloud network"]
        cloud, sure = truth.of_tile(tile)
        counts += np.bincount((2 * ~found + ~cloud)[sure], minlength=4)
    return CloudAgreement(truth.basis, *(int(count) for count in counts)), []


def _masks(session: DeviceSession, tiles: Sequence[Tile]) -> Any:
    """(tile, what the device takes for cloud in it), some tiles held at a time. Bools [T, T], or None."""
    rest = list(tiles)
    while rest:
        held = session.hold(rest[:AT_ONCE])
        if not held:
            raise InputError(f"device {session.name}: has no room for a single tile; use a smaller tile size")
        for number, tile in enumerate(rest[:held]):
            bits = session.mask(number)
            yield tile, None if bits is None else _bools(bits, tile)
        rest = rest[held:]


def _bools(bits: bytes, tile: Tile) -> Any:
    return np.unpackbits(np.frombuffer(bits, np.uint8), count=tile.valid.size).reshape(tile.valid.shape).astype(bool)


def _judge(name: str) -> Callable[..., Any]:
    for point in entry_points(group=JUDGES, name=name):
        try:
            judge: Callable[..., Any] = point.load()
        except ImportError as error:
            raise InputError(f"the ground misses {error.name}; pip install 'nadir-payload[ground]'") from None
        return judge
    raise InputError("the ground is not installed; pip install 'nadir-payload[ground]'")
