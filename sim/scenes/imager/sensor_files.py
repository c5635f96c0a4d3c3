"""Sensor files: a shipped sensor by name, or any TOML file by path (docs/sensors.md)."""

from pathlib import Path

from payload.errors import InputError
from payload.sensor import Sensor, sensor_from
from sim.toml_tables import nearest, read_toml

#: The sensors that ship with Nadir, a TOML file each.
SHIPPED = Path(__file__).parents[2] / "sensors"


def load_sensor(where: str | Path) -> Sensor:
    """A sensor by shipped name or by path. InputError names file and key, what was found and what was wanted."""
    path = sensor_file(where)
    return sensor_from(read_toml(path), str(path))


def sensor_file(where: str | Path) -> Path:
    """The file of a sensor. InputError if there is none."""
    for candidate in (SHIPPED / f"{where}.toml", Path(where)):
        if candidate.is_file():
            return candidate
    hint = nearest(str(where), shipped_sensors())
    raise InputError(f"sensor '{str(where)[:80]}': no such file, and no sensor of that name; {hint}")


def shipped_sensors() -> list[str]:
    return sorted(path.stem for path in SHIPPED.glob("*.toml"))
