"""Windows: the pieces of passes that a mission may use, each with its rate along the time."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from sim.link import link_budget
from sim.link.contacts import Pass, Share, passes, shares
from sim.link.link_budget import Profile
from sim.link.orbit import Station
from sim.link.propagation import look, satellite_of
from sim.link.sunlight import beta_deg, lit
from sim.mission.spec import Mission

#: The link is looked at about this often along a pass.
SAMPLE_S = 2.0


@dataclass(frozen=True, eq=False)
class Window:
    """A piece of a pass, and what it can carry. `lit_share`: of its time, the satellite in the sun."""

    share: Share
    profile: Profile
    capacity_octets: int
    lit_share: float
    beta_deg: float

    @property
    def contact(self) -> Pass:
        return self.share.contact

    @property
    def usable_s(self) -> float:
        return self.share.usable_s

    def sent_s(self, octets: NDArray[np.float64]) -> NDArray[np.float64]:
        """When so many octets [N] are out, in seconds after the rise."""
        ends = self.profile.at_s + self.profile.step_s / 2
        carried = np.concatenate([[0.0], self.profile.octets])
        return np.interp(octets, carried, np.concatenate([[self.share.begin_s], ends]))


def windows(mission: Mission, stations: Sequence[Station], start: datetime, days: float) -> list[Window]:
    """Every window of the stations within `days` days from `start`, in order of time."""
    contacts = [contact for station in stations for contact in passes(mission.orbit, station, start, days)]
    by_name = {station.name: station for station in stations}
    found = shares(contacts, {station.name: station.priority for station in stations})
    return [_window(mission, by_name[share.contact.station], share) for share in found]


def _window(mission: Mission, station: Station, share: Share) -> Window:
    satellite = satellite_of(mission.orbit)
    count = int(np.ceil(share.usable_s / SAMPLE_S))
    step_s = share.usable_s / count if count else 0.0
    at_s = np.asarray(share.begin_s + (np.arange(count) + 0.5) * step_s, np.float64)  # [N], middles
    seen = look(satellite, station, share.contact.rise_at, at_s)
    if mission.radio is None:
        profile = link_budget.constant(mission.link.packet_rate_bps, mission.link.frame_loss, seen, at_s, step_s)
    else:
        ceiling, part = mission.link.packet_rate_bps, mission.link.packet_share
        profile = link_budget.profile(mission.radio, ceiling, part, station, seen, at_s)
    capacity = int(round(float(profile.octets[-1]), 3)) if count else 0
    middle = np.array([share.begin_s + share.usable_s / 2])
    beta = float(beta_deg(satellite, share.contact.rise_at, middle)[0])
    sun = float(lit(satellite, share.contact.rise_at, at_s).mean()) if count else 0.0
    return Window(share, profile, capacity, sun, beta)


def at(window: Window, seconds: float) -> datetime:
    """A time of a window, given in seconds after the rise."""
    return window.contact.rise_at + timedelta(seconds=seconds)
