"""The link budget: EIRP, path, air and station -> Eb/N0 along a pass -> step of rate -> frames that arrive.

    C/N0 = EIRP - free-space loss - atmosphere - pointing + G/T - k        [dBHz]
    Es/N0 = C/N0 - 10 log10(symbol rate) - implementation loss             Eb/N0 = Es/N0 - 10 log10(bits a symbol)

Free-space loss: ITU-R P.525. Atmosphere: sim/link/atmosphere.py. Pointing: 12 (angle / beamwidth)^2 dB, the parabola
of every main lobe (Maral and Bousquet, Satellite Communications Systems, 5th ed., eq. 5.5). k = 1.380649e-23 J/K.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from payload.errors import InputError
from sim.link.atmosphere import Atmosphere, loss_db
from sim.link.orbit import Station
from sim.link.propagation import Look
from sim.link.rate_steps import Family, Step, steps
from sim.toml_tables import check_range

F64 = NDArray[np.float64]
LIGHT_M_S = 299_792_458.0
BOLTZMANN_DBW = 10 * math.log10(1.380649e-23)  # -228.60 dBW/K/Hz
#: The parabola is the main lobe's; side lobes keep an antenna from falling further.
DEEPEST_POINTING_DB = 30.0
#: A normal distribution by points, in standard deviations, and their weights: curves of frame errors are cliffs, which
#: a coarser rule would miss.
FADES = np.linspace(-5.0, 5.0, 41)
WEIGHTS = np.exp(-(FADES**2) / 2) / np.exp(-(FADES**2) / 2).sum()


@dataclass(frozen=True)
class Radio:
    """The transmitter on board, and how its rate follows the link.

    `steps`: the modulations and codes it may use. `adaptation`: `ccm`, one step a pass, that which carries most; `vcm`,
    steps along the pass as this budget foresees them; `acm`, steps that follow the fading, too. A step is used where
    the link is `margin_db` better than it needs. `pointing`: the antenna follows the station, or is fixed to nadir;
    without `beamwidth_deg` (between half-power points) it loses nothing. `fading_db`: standard deviation of what the
    budget does not foresee (scintillation, pointing jitter).
    """

    frequency_hz: float
    power_w: float
    antenna_dbi: float
    symbol_rate_baud: float
    steps: Family = "dvb_s2"
    adaptation: Literal["acm", "vcm", "ccm"] = "vcm"
    margin_db: float = 3.0
    pointing: Literal["station", "nadir"] = "station"
    pointing_error_deg: float = 0.0
    beamwidth_deg: float | None = None
    feeder_loss_db: float = 1.0
    polarisation_loss_db: float = 0.0
    implementation_loss_db: float = 1.0
    fading_db: float = 0.0
    atmosphere: Atmosphere = "one_percent"

    def __post_init__(self) -> None:
        check_range("frequency_hz", self.frequency_hz, 1e8, 4e10)
        check_range("power_w", self.power_w, 1e-3, 1e4)
        check_range("antenna_dbi", self.antenna_dbi, -20, 70)
        check_range("symbol_rate_baud", self.symbol_rate_baud, 1e2, 1e10)
        check_range("margin_db", self.margin_db, 0, 30)
        check_range("beamwidth_deg", self.beamwidth_deg, 0.01, 360)
        for name in ("feeder_loss_db", "polarisation_loss_db", "implementation_loss_db"):
            check_range(name, getattr(self, name), 0, 30)
        check_range("fading_db", self.fading_db, 0, 10)
        check_range("pointing_error_deg", self.pointing_error_deg, 0, 90)

    @property
    def eirp_dbw(self) -> float:
        return 10 * math.log10(self.power_w) + self.antenna_dbi - self.feeder_loss_db


@dataclass(frozen=True, eq=False)
class Budget:
    """Every line of the budget in dB, one value or [N] along a pass."""

    eirp_dbw: float
    free_space_db: F64
    atmosphere_db: F64
    pointing_db: F64
    polarisation_db: float
    g_over_t_db_k: float
    c_n0_dbhz: F64
    es_n0_db: F64


@dataclass(frozen=True, eq=False)
class Profile:
    """A window along its time: what the link gives at the middles [N] of equal intervals of `step_s`.

    `rate_bps` counts packets, after frames and codes; 0 where no step holds. Without a radio there is one rate, and the
    figures of the link are NaN. `step` is the index in `names`, -1 where none holds.
    """

    at_s: F64  # after the rise
    step_s: float
    elevation_deg: F64
    range_km: F64
    eb_n0_db: F64
    margin_db: F64  # Eb/N0 above what the step needs
    step: NDArray[np.int64]
    names: tuple[str, ...]
    rate_bps: F64
    frame_error_rate: F64  # of the frames sent then

    @property
    def octets(self) -> F64:
        """Octets of packets up to the end of each interval [N]."""
        return np.cumsum(self.rate_bps) * self.step_s / 8

    @property
    def lost_share(self) -> float:
        """Share of all the octets that go with frames that are lost."""
        sent = float(self.rate_bps.sum())
        return float((self.rate_bps * self.frame_error_rate).sum()) / sent if sent else 0.0


def budget(radio: Radio, station: Station, seen: Look) -> Budget:
    """The budget's lines at the elevations, ranges and off-nadir angles of `seen`."""
    if station.g_over_t_db_k is None:
        raise InputError(f"station {station.name} has no g_over_t_db_k, which [radio] needs; add it to [[stations]]")
    free = 20 * np.log10(4 * math.pi * seen.range_km * 1e3 * radio.frequency_hz / LIGHT_M_S)
    air = loss_db(radio.atmosphere, radio.frequency_hz, seen.elevation_deg)
    off = _pointing_db(radio, seen.off_nadir_deg) + station.pointing_loss_db
    c_n0 = radio.eirp_dbw - free - air - off - radio.polarisation_loss_db + station.g_over_t_db_k - BOLTZMANN_DBW
    es_n0 = c_n0 - 10 * math.log10(radio.symbol_rate_baud) - radio.implementation_loss_db
    polarisation, g_over_t = radio.polarisation_loss_db, station.g_over_t_db_k
    return Budget(radio.eirp_dbw, free, air, off, polarisation, g_over_t, c_n0, es_n0)


def profile(radio: Radio, ceiling_bps: float, share: float, station: Station, seen: Look, at_s: F64) -> Profile:
    """Rate and losses along a window. `ceiling_bps`: the most that goes out of packets, whatever the link carries;
    `share`: octets of packets in an octet of transfer frame."""
    ladder = steps(radio.steps)
    es_n0 = budget(radio, station, seen).es_n0_db
    needed = np.array([step.needed_es_n0_db for step in ladder])
    bits = np.array([step.efficiency for step in ladder])
    rates = np.minimum(radio.symbol_rate_baud * bits * share, ceiling_bps)  # [S]
    chosen = _choose(radio, es_n0, needed, rates)  # [K, N], K fades that the modem sees
    rate = np.where(chosen >= 0, rates[chosen], 0.0)
    lost = _lost(radio, ladder, es_n0, chosen)
    weights = WEIGHTS[:, None] if len(chosen) > 1 else np.ones((1, 1))
    mean = (weights * rate).sum(axis=0)
    error_rate = np.divide((weights * rate * lost).sum(axis=0), mean, out=np.zeros_like(mean), where=mean > 0)
    usual = chosen[len(chosen) // 2]
    eb_n0 = es_n0 - 10 * np.log10(bits[usual])
    above = np.where(usual >= 0, es_n0 - needed[usual], es_n0 - needed[0])
    step_s = float(at_s[1] - at_s[0]) if len(at_s) > 1 else 2 * float(at_s[0]) if len(at_s) else 0.0
    names = tuple(step.name for step in ladder)
    return Profile(
        at_s, step_s, seen.elevation_deg, seen.range_km, eb_n0, above, usual, names, mean, error_rate
    )  # fmt: skip


def constant(rate_bps: float, frame_loss: float, seen: Look, at_s: F64, step_s: float) -> Profile:
    """The profile of a mission without a radio: one rate, and the loss that the link's own table states."""
    unknown, alike = np.full(len(at_s), np.nan), np.ones(len(at_s))
    none = np.zeros(len(at_s), np.int64)
    return Profile(
        at_s, step_s, seen.elevation_deg, seen.range_km, unknown, unknown, none, ("constant",), rate_bps * alike,
        frame_loss * alike,
    )  # fmt: skip


def _pointing_db(radio: Radio, off_nadir_deg: F64) -> F64:
    if radio.beamwidth_deg is None:
        return np.zeros_like(off_nadir_deg)
    off = radio.pointing_error_deg + (off_nadir_deg if radio.pointing == "nadir" else np.zeros_like(off_nadir_deg))
    return np.minimum(12 * (off / radio.beamwidth_deg) ** 2, DEEPEST_POINTING_DB)


def _choose(radio: Radio, es_n0: F64, needed: F64, rates: F64) -> NDArray[np.int64]:
    """The step [K, N] that is used in each fade the modem sees, -1 where none holds: the fastest, and of equally fast
    ones (under a ceiling) the most robust."""
    seen = es_n0 + (radio.fading_db * FADES[:, None] if radio.adaptation == "acm" and radio.fading_db else 0.0)
    holding = np.atleast_2d(seen)[..., None] >= needed + radio.margin_db  # [K, N, S]
    if radio.adaptation == "ccm":
        best = int(np.argmax(holding[0].sum(axis=0) * rates))
        return np.where(holding[..., best], best, -1)
    fastest = np.where(holding, rates, -1.0)
    return np.where(holding.any(axis=-1), np.argmax(fastest, axis=-1), -1)


def _lost(radio: Radio, ladder: Sequence[Step], es_n0: F64, chosen: NDArray[np.int64]) -> F64:
    """Frame-error rate [K, N] of the steps chosen: in each fade the modem saw, or over all the fades it did not."""
    if not radio.fading_db:
        return _error_rates(ladder, es_n0[None], chosen)
    faded = es_n0 + radio.fading_db * FADES[:, None]
    if len(chosen) > 1:
        return _error_rates(ladder, faded, chosen)
    return (WEIGHTS[:, None] * _error_rates(ladder, faded, np.broadcast_to(chosen, faded.shape))).sum(axis=0)[None]


def _error_rates(ladder: Sequence[Step], es_n0: F64, chosen: NDArray[np.int64]) -> F64:
    found = np.zeros(es_n0.shape)
    for number in np.unique(chosen[chosen >= 0]):
        at = chosen == number
        found[at] = ladder[number].frame_error_rate(es_n0[at])
    return found
