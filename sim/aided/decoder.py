"""Tile codes -> tiles of DN that an archive refined: as sim.ground.decoder, beside it and never in its place.

tile code -> cells and the decoder's coefficients;  older dates -> matched to the tile -> the same coefficients
          -> moved inside the cells (sim/aided/refine.py) -> DN, and how far what was sent overruled the dates
"""

from collections.abc import Sequence
from dataclasses import dataclass

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
F32 = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Overruled:
    """Of one tile: what was sent against what the dates foretold.

    `dn` uint16 [T, T]: how far it moved the forecast, root mean square over bands; `trust` uint8 [T, T]: per cent of
    what the dates say that was followed. `share`: of the coefficients that were not sent as zero, those whose cell
    does not hold the forecast.
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
        sent = Sent(*coefficients.cells(decoded), coefficients.plain(decoded))
        dates = [(s.name, coefficients.of_picture(matched(s, plain, valid), valid, decoded)) for s in seen]
        chosen = sorted(dates, key=lambda date: -likeness(sent.plain, date[1]))[:MOST_DATES]
        refined = refine(sent, [date for _, date in chosen])
        forecast, bent = refined.foretold, np.clip(refined.foretold, sent.low, sent.high)
        moved = [coefficients.picture(c, decoded).astype(np.float32) for c in (forecast, bent)]
        names = tuple(name for name, _ in chosen)
        self.overruled[code.row, code.col] = _overruled(names, moved[1] - moved[0], refined, sent)
        return coefficients.picture(refined.coefficients, decoded)

    def step_of(self, code: TileCode) -> float:
        return self._decoder.step_of(code)

    def _coefficients(self, code: TileCode) -> Coefficients | None:
        codec, network = self._decoder.opened_for(code)
        return codec.refining(network) if isinstance(codec, Refinable) else None


def matched(seen: Seen, plain: Dn, valid: Mask) -> Dn:
    """A date as bright as the tile [B, T, T], band by band: gain and offset of its means fitted to those of the decoded
    tile. Where it shows nothing stands the decoded tile, which says nothing new."""
    both = seen.clear & valid
    if not both.any():
        return plain
    found = np.empty_like(plain)
    filled = np.where(both, seen.dn, plain)
    for band, (older, now) in enumerate(zip(filled, plain, strict=True)):
        gain, offset = _fitted(_means(older), _means(now), both[::EVERY_PX, ::EVERY_PX])
        found[band] = np.clip(np.rint(older * gain + offset), 0, 65535)
    return np.where(both, found, plain)


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


def _overruled(dates: Sequence[str], moved: F32, refined: Refined, sent: Sent) -> Overruled:
    """moved [B, T, T]: what was sent did to the forecast's picture."""
    size = np.sqrt((moved**2).mean(axis=0))
    trust = np.rint(100 * refined.trust).astype(np.uint8)
    cells = moved.shape[1] // trust.shape[0]
    known = (sent.low > 0) | (sent.high < 0)
    outside = known & ((refined.foretold < sent.low) | (refined.foretold > sent.high))
    return Overruled(
        tuple(dates), np.clip(np.rint(size), 0, 65534).astype(np.uint16),
        trust.repeat(cells, axis=0).repeat(cells, axis=1), float(outside.sum()) / max(1, int(known.sum())),
    )  # fmt: skip
