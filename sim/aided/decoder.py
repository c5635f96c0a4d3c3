"""Tile codes -> tiles of DN that an archive refined: as sim.ground.decoder, beside it and never in its place.

tile code -> cells and the decoder's coefficients;  older dates -> matched to the tile -> the same coefficients
          -> moved inside the cells (sim/aided/refine.py) -> DN, and how far what was sent overruled the dates
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter

from payload.codec.interface import Coefficients, Refinable
from payload.link.tile_code import Kind, TileCode
from payload.link.valid_mask import unpack_mask
from payload.scene import Dn, Mask
from sim.aided.archive import Overlay, Seen
from sim.aided.refine import Refined, Sent, refine
from sim.clouds.ground_mask import GroundMask
from sim.ground.decoder import Decoder

#: Dates that a tile is refined by, at most: those most like it.
MOST_DATES = 4
#: Gain and offset of a date are fitted to means over so many pixels.
MEAN_PX, EVERY_PX, MOST_GAIN = 9, 4, 3.0
#: What was sent overrules the forecast by so many times what is usual in a tile: half trusted.
UNUSUAL = 3.0
F32 = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Overruled:
    """Of one tile: what was sent against what the dates foretold.

    `dn` uint16 [T, T]: how far it moved the forecast, root mean square over bands; `trust` uint8 [T, T]: per cent of
    what the dates say that was followed. `share`: of the coefficients that were not sent as zero, those that the
    forecast misses by more than a step.
    """

    dates: tuple[str, ...]
    dn: NDArray[np.uint16]
    trust: NDArray[np.uint8]
    share: float


class AidedDecoder:
    """Decodes as `decoder` does and refines by the dates of `overlay`. What was overruled stays in `overruled` until
    it is taken."""

    def __init__(self, decoder: Decoder, overlay: Overlay, mask: GroundMask) -> None:
        self._decoder, self._overlay, self._mask = decoder, overlay, mask
        self.tile_px, self.bands = decoder.tile_px, decoder.bands
        self.overruled: dict[tuple[int, int], Overruled] = {}

    def decode_tile(self, code: TileCode) -> Dn:
        """DN uint16 [B, T, T]; as the decoder has it where no date shows the tile, or where it was coded otherwise:
        a fallback, or within a bound. StreamError as there."""
        coefficients = None if code.kind is Kind.FALLBACK or code.bounded else self._coefficients(code)
        plain = self._decoder.decode_tile(code)
        seen = [] if coefficients is None else list(self._overlay.tile(code.row, code.col, self.tile_px, self._mask))
        if coefficients is None or not seen:
            return plain
        codec, _ = self._decoder.opened_for(code)
        decoded, valid = codec.decode(code.side, code.layers), unpack_mask(code.mask, self.tile_px)
        dn, self.overruled[code.row, code.col] = aided_tile(coefficients, decoded, plain, valid, seen)
        return dn

    def step_of(self, code: TileCode) -> float:
        return self._decoder.step_of(code)

    def _coefficients(self, code: TileCode) -> Coefficients | None:
        codec, network = self._decoder.opened_for(code)
        return codec.refining(network) if isinstance(codec, Refinable) else None


def aided_tile(
    coefficients: Coefficients, decoded: Any, plain: Dn, valid: Mask, seen: Sequence[Seen]
) -> tuple[Dn, Overruled]:
    """One tile [B, T, T] by the dates that show it, and what was overruled. `decoded` is what the codec made of its
    octets, `plain` the decoder's picture of it."""
    sent = Sent(*coefficients.cells(decoded), coefficients.plain(decoded))
    dates = [coefficients.of_picture(dn, valid, decoded) for dn in matched(seen, plain, valid)]
    chosen = sorted(range(len(dates)), key=lambda k: -likeness(sent.plain, dates[k]))[:MOST_DATES]
    anything = np.any([seen[k].clear for k in chosen], axis=0) & valid
    shown = np.asarray(_blocks(anything, sent.low.shape[2:]).all(axis=(1, 3)))
    refined = refine(sent, [dates[k] for k in chosen], shown)
    moved_dn = _overruled_dn(refined, sent, coefficients, decoded)
    trust = refined.trust * agreement(moved_dn, shown)
    dn = coefficients.picture(refined.coefficients(sent, coefficients.weights(trust)), decoded)
    return dn, _overruled([seen[k].name for k in chosen], moved_dn, trust, refined, sent)


def agreement(overruled_dn: F32, shown: Mask) -> F32:
    """Of every block [h, w], 1 where what was sent overruled the forecast no more than usual in the blocks `shown`,
    towards 0 where it did so by far: there the ground has changed."""
    size = np.sqrt((_blocks(overruled_dn, shown.shape) ** 2).mean(axis=(1, 3)))
    usual = float(np.median(size[shown])) if shown.any() else 0.0
    return np.asarray(1 / (1 + (size / (UNUSUAL * max(usual, 1.0))) ** 4), np.float32)


def _blocks(pixels: NDArray[Any], blocks: tuple[int, ...]) -> NDArray[Any]:
    """Pixels [T, T] as [h, rows, w, columns] of blocks."""
    return pixels.reshape(blocks[0], len(pixels) // blocks[0], blocks[1], -1)


def matched(seen: Sequence[Seen], plain: Dn, valid: Mask) -> list[Dn]:
    """Dates as bright as the tile [B, T, T], band by band. Where one shows nothing stands what the others show on
    average, or else the decoded tile."""
    alike = [_as_bright(date.dn, date.clear & valid, plain) for date in seen]
    clear = np.stack([date.clear & valid for date in seen])
    count = clear.sum(axis=0)
    total = np.where(clear[:, None], alike, 0).sum(axis=0)
    others = np.where(count, total / np.maximum(count, 1), plain)
    return [np.where(c, dn, np.rint(others)).astype(np.uint16) for c, dn in zip(clear, alike, strict=True)]


def _as_bright(dn: Dn, clear: Mask, plain: Dn) -> Dn:
    """Gain and offset of a date's means fitted to those of the decoded tile, where it shows anything."""
    found, filled = plain.copy(), np.where(clear, dn, plain)
    for band, (older, now) in enumerate(zip(filled, plain, strict=True)):
        gain, offset = _fitted(_means(older), _means(now), clear[::EVERY_PX, ::EVERY_PX])
        found[band] = np.clip(np.rint(older * gain + offset), 0, 65535)
    return found


def _means(band: NDArray[np.uint16]) -> NDArray[np.float64]:
    return np.asarray(uniform_filter(band.astype(np.float64), MEAN_PX)[::EVERY_PX, ::EVERY_PX])


def _fitted(older: NDArray[np.float64], now: NDArray[np.float64], there: Mask) -> tuple[float, float]:
    """Gain and offset by least squares; a gain of 0 where the two have nothing in common."""
    x, y = (older[there], now[there]) if there.any() else (older.ravel(), now.ravel())
    variance = float(x.var())
    gain = float(np.clip(((x - x.mean()) * (y - y.mean())).mean() / variance, 0.0, MOST_GAIN)) if variance else 0.0
    return gain, float(y.mean() - gain * x.mean())


def likeness(plain: F32, older: F32) -> float:
    """Correlation of all coefficients but block averages."""
    a, b = plain[:, 1:].ravel(), older[:, 1:].ravel()
    return float(a @ b) / max(float(np.linalg.norm(a) * np.linalg.norm(b)), 1e-9)


def _overruled_dn(refined: Refined, sent: Sent, coefficients: Coefficients, decoded: Any) -> F32:
    """[T, T]: how far the cells move the picture of the forecast, root mean square over bands."""
    corrected = np.clip(refined.foretold, sent.low, sent.high)
    before, behind = (coefficients.picture(c, decoded).astype(np.float32) for c in (refined.foretold, corrected))
    return np.asarray(np.sqrt(((behind - before) ** 2).mean(axis=0)), np.float32)


def _overruled(dates: Sequence[str], moved_dn: F32, trust: F32, refined: Refined, sent: Sent) -> Overruled:
    percent = np.rint(100 * trust).astype(np.uint8)
    cells = len(moved_dn) // len(trust)
    known = (sent.low > 0) | (sent.high < 0)
    outside = known & ((refined.foretold < sent.low - 1) | (refined.foretold > sent.high + 1))
    return Overruled(
        tuple(dates), np.clip(np.rint(moved_dn), 0, 65534).astype(np.uint16),
        percent.repeat(cells, axis=0).repeat(cells, axis=1), float(outside.sum()) / max(1, int(known.sum())),
    )  # fmt: skip
