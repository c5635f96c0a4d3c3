"""How often memory is hit: upsets a bit and day in an orbit, inside and outside the South Atlantic Anomaly."""

import tomllib
from dataclasses import dataclass, fields
from pathlib import Path

DATA = Path(__file__).parent / "data" / "upsets.toml"


@dataclass(frozen=True)
class Environment:
    """The numbers of data/upsets.toml, with their sources."""

    name: str
    upsets_per_bit_day: float
    source: str
    single_bit_share: float
    single_bit_source: str
    saa_share_of_upsets: float
    saa_source: str
    saa_share_of_time: float
    saa_time_source: str
    storm_factor: float
    storm_source: str

    def upsets_a_day(self, octets: int) -> float:
        """Upsets a day in so many octets, averaged over the orbit."""
        return 8.0 * octets * self.upsets_per_bit_day

    @property
    def saa_factor(self) -> float:
        """How much more often than on average memory is hit inside the anomaly."""
        return self.saa_share_of_upsets / self.saa_share_of_time

    @property
    def quiet_factor(self) -> float:
        """The same outside it."""
        return (1.0 - self.saa_share_of_upsets) / (1.0 - self.saa_share_of_time)


def environment() -> Environment:
    table = tomllib.loads(DATA.read_text(encoding="utf-8"))["environment"]
    return Environment(**{field.name: table[field.name] for field in fields(Environment)})
