"""Power on board: what the panels give, what the battery holds, what everything but the payload draws."""

from dataclasses import dataclass

from sim.toml_tables import check_range


@dataclass(frozen=True)
class Power:
    """`solar_w`: what reaches the bus in full sun, on average over attitudes. `deepest_discharge`: the share of the
    battery that may be used; below it the payload neither images nor codes. `platform_w` is drawn all the time,
    `transmitter_w` in windows, `imager_w` while it images."""

    solar_w: float
    battery_wh: float
    platform_w: float
    transmitter_w: float = 0.0
    imager_w: float = 0.0
    deepest_discharge: float = 0.2

    def __post_init__(self) -> None:
        check_range("solar_w", self.solar_w, 0, 1e5)
        check_range("battery_wh", self.battery_wh, 1e-3, 1e6)
        for name in ("platform_w", "transmitter_w", "imager_w"):
            check_range(name, getattr(self, name), 0, 1e5)
        check_range("deepest_discharge", self.deepest_discharge, 0.01, 1.0)
