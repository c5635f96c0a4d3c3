"""Steps of rate a modem chooses from, each with its frame-error rate over Es/N0 (sim/link/data/rate_steps.toml).

Nothing here is coded or decoded: LDPC and the inner code are curves. Those of DVB-S2 go through the one point that the
standard states; those of CCSDS's Reed-Solomon are computed from theory below, those of its LDPC codes are modelled from
published thresholds (sim/link/ldpc_curves.py).
"""

import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtrc, ndtr

from sim.link.ldpc_curves import frame_error_rate

Family = Literal[
    "dvb_s2", "ccsds_rs", "ccsds_concatenated",
    "ccsds_ldpc_1024", "ccsds_ldpc_4096", "ccsds_ldpc_16384", "ccsds_ldpc_7_8",
]  # fmt: skip
F64 = NDArray[np.float64]
FILE = Path(__file__).parent / "data" / "rate_steps.toml"
#: Said in every report.
NOT_CODED = "LDPC and DVB-S2 are curves of frame errors in the link budget; no octet here is coded so"
#: The frame-error rate at which a link is said to hold; margins count from there.
HOLDS_AT = 1e-7
#: A frame of five RS(255,223) codewords: octets of the transfer frame, and on the channel with its sync marker.
FRAME_OCTETS, CHANNEL_OCTETS, CODEWORDS, CORRECTED = 1115, 1279, 5, 16
#: Information bits in error over all paths at each distance from the best: code (171, 133), K = 7 (Odenwalder 1970).
DISTANCES = np.array([10, 12, 14, 16, 18, 20, 22])
BIT_WEIGHTS = np.array([36, 211, 1404, 11633, 77433, 502690, 3322763])


@dataclass(frozen=True, eq=False)
class Step:
    """One step: bits of transfer frames in a symbol, and log10 of the frame-error rate [N] over Es/N0 [N] in dB."""

    name: str
    efficiency: float
    es_n0_db: F64
    log10_error_rate: F64

    def frame_error_rate(self, es_n0_db: F64) -> F64:
        """Chance that a frame cannot be decoded, same shape. Beyond the curve's ends it stays what it is there."""
        return np.asarray(10 ** np.interp(es_n0_db, self.es_n0_db, self.log10_error_rate))

    @property
    def needed_es_n0_db(self) -> float:
        """Es/N0 at which the link holds."""
        return float(np.interp(-np.log10(HOLDS_AT), -self.log10_error_rate, self.es_n0_db))


@cache
def steps(family: Family) -> tuple[Step, ...]:
    """The steps of a family from slow to fast, without those that ask for more than a faster one does."""
    found = sorted(_all_steps(family), key=lambda step: step.efficiency)
    useful = [
        step for n, step in enumerate(found)
        if all(step.needed_es_n0_db < faster.needed_es_n0_db for faster in found[n + 1 :])
    ]  # fmt: skip
    return tuple(useful)


def source(family: Family) -> str:
    return str(_tables()["ldpc" if family in _tables()["ldpc"]["families"] else family]["source"])


def _all_steps(family: Family) -> list[Step]:
    if family == "dvb_s2":
        table = _tables()["dvb_s2"]
        fall = np.array([0.0, np.log10(table["error_rate"])])
        return [Step(name, bits, np.array([at - table["cliff_db"], at]), fall) for name, bits, at in table["steps"]]
    if family in _tables()["ldpc"]["families"]:
        codes = _tables()["ldpc"]["families"][family]
        return [_ldpc(f"{name} ", bits, *code) for code in codes for name, bits in (("BPSK", 1), ("QPSK", 2))]
    inner = 1.0 if family == "ccsds_rs" else 0.5
    words = "RS (255,223)" if family == "ccsds_rs" else "conv. 1/2 + RS"
    bit_errors = _uncoded if family == "ccsds_rs" else _viterbi
    return [_computed(f"{name} {words}", bits, inner, bit_errors) for name, bits in (("BPSK", 1), ("QPSK", 2))]


def _computed(name: str, bits: int, inner: float, bit_errors: Callable[[F64], F64]) -> Step:
    """The curve of a Reed-Solomon frame: lost with any codeword, a codeword with more than 16 wrong octets."""
    es_n0_db = np.arange(-6.0, 16.0, 0.05)
    symbol = -np.expm1(8 * np.log1p(-bit_errors(10 ** (es_n0_db / 10) / bits)))  # chance that an octet is wrong
    word = bdtrc(CORRECTED, 255, symbol)
    frame = np.clip(-np.expm1(CODEWORDS * np.log1p(-np.minimum(word, 1 - 1e-12))), 1e-12, 1.0)
    return Step(name, bits * inner * FRAME_OCTETS / CHANNEL_OCTETS, es_n0_db, np.log10(frame))


def _ldpc(modulation: str, bits: int, name: str, k: int, n: int, marker_bits: int, threshold_db: float) -> Step:
    """The curve of an LDPC code, a frame a codeword, down to HOLDS_AT: nothing better is claimed."""
    table = _tables()["ldpc"]
    allowance_db = table["allowance_db"] * np.sqrt(table["allowance_at_bits"] / n)
    eb_n0_db = np.arange(-2.0, 8.0, 0.01)
    log_rate = np.log10(np.maximum(frame_error_rate(eb_n0_db, k, n, threshold_db, allowance_db), 1e-30))
    holds_db = float(np.interp(-np.log10(HOLDS_AT), -log_rate, eb_n0_db))
    above = log_rate > np.log10(HOLDS_AT)
    es_n0_db = np.append(eb_n0_db[above], holds_db) + 10 * np.log10(bits * k / n)
    return Step(
        modulation + name, bits * k / (n + marker_bits), es_n0_db, np.append(log_rate[above], np.log10(HOLDS_AT))
    )


def _uncoded(per_bit: F64) -> F64:
    """Bit-error rate of BPSK, and of each half of QPSK, over the energy a channel bit has (times N0)."""
    return np.asarray(np.minimum(ndtr(-np.sqrt(2 * per_bit)), 0.5))


def _viterbi(per_bit: F64) -> F64:
    """Union bound on the bit-error rate after a soft Viterbi decoder, over the energy of a coded bit."""
    paths = BIT_WEIGHTS * ndtr(-np.sqrt(2 * DISTANCES * per_bit[:, None]))
    return np.asarray(np.minimum(paths.sum(axis=1), 0.5))


@cache
def _tables() -> dict[str, Any]:
    return tomllib.loads(FILE.read_text(encoding="utf-8"))
