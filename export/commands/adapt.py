"""`adapt`: a bundle for another sensor in minutes."""

import argparse
import tomllib
from pathlib import Path

from export.commands.shared import HELD, Commands, add_command, positive, print_bundle
from payload.errors import InputError
from payload.sensor import Sensor, sensor_from

#: The sensors that ship, one TOML file each.
SENSORS = Path(__file__).parents[2] / "sim" / "sensors"


def add_to(commands: Commands) -> None:
    adapt = add_command(commands, "adapt", _adapt, "a bundle for another sensor, refitted from a universal start")
    adapt.add_argument("--sensor", required=True, help="a sensor's TOML file, or the name of one that is shipped")
    source = adapt.add_mutually_exclusive_group(required=True)
    source.add_argument("--tiles", type=Path, help="the pool: .npz, Zarr, or a folder with splits.toml")
    source.add_argument("--tables-of", metavar="BUNDLE", help="no pool: the tables of this one")
    adapt.add_argument("--tile", type=positive, metavar="PX", help="side of a tile; 256, of over 16 bands 64")
    adapt.add_argument("--group", help="only the sensor's bands of this group, as 20m: a part of `export join`")
    adapt.add_argument("--out", type=Path, help="default build/SENSOR; a run that was cut off goes on from there")
    adapt.add_argument("--name", help="of the bundle; default the sensor's")
    adapt.add_argument("--hold-out", action="append", default=[], metavar="SITE", help="a site to measure on, or -")
    adapt.add_argument("--steps", type=positive, default=500, help="of the context model; default 500")
    adapt.add_argument("--no-page", action="store_true", help="leave out the comparison with the classical codecs")
    adapt.add_argument("--threads", type=positive, default=1, help="default 1: on a busy host two wait for each other")


    joined = add_command(commands, "join", _join, "bundles of a sensor's groups -> one for native resolutions")
    joined.add_argument("--sensor", required=True, help="as of adapt: its groups, or bands of one GSD, are joined")
    joined.add_argument("--group", action="append", default=[], metavar="NAME=BUNDLE", help="one for each group")
    joined.add_argument("--name", help="of the bundle; default the sensor's")
    joined.add_argument("--out", type=Path, help="default build/NAME")


def _join(arguments: argparse.Namespace) -> int:
    from export.bundle.joined import join
    from payload.bundle import load_bundle

    sensor, given = read_sensor(arguments.sensor), [entry.partition("=") for entry in arguments.group]
    if not all(name and where for name, _, where in given):
        raise InputError(f"--group is {arguments.group}, wanted NAME=BUNDLE each")
    name = arguments.name or sensor.name
    parts = {group: load_bundle(where) for group, _, where in given}
    print_bundle(join(name, sensor, parts, arguments.out or Path("build") / name))
    return HELD


def _adapt(arguments: argparse.Namespace) -> int:
    import torch

    from export.bundle.adapted import adapted, compare, with_tables_of
    from export.pools import read_pool
    from payload.bundle import load_bundle

    sensor = of_group(read_sensor(arguments.sensor), arguments.group)
    torch.set_num_threads(arguments.threads)
    out, name = arguments.out or Path("build") / sensor.name, arguments.name or sensor.name
    if arguments.tables_of is not None:
        print_bundle(with_tables_of(load_bundle(arguments.tables_of), sensor, out / "bundle", name, arguments.tile))
        return HELD
    pool = read_pool(arguments.tiles, sensor, arguments.hold_out)
    print(
        f"{len(pool.training)} squares of {pool.dn.shape[2]} px to fit on, {len(pool.held_out)} of "
        f"{', '.join(pool.held_out_sites) or 'no site'} held out",
        flush=True,
    )
    print_bundle(adapted(sensor, pool, out, name, {"steps": arguments.steps}, arguments.tile))
    if pool.held_out_sites and not arguments.no_page:
        print(f"written: {compare(out)}")
    return HELD


def read_sensor(where: str) -> Sensor:
    """A sensor by path or shipped name. InputError says what is wrong with its file."""
    path = next((p for p in (Path(where), SENSORS / f"{where}.toml") if p.is_file()), None)
    if path is None:
        names = ", ".join(sorted(p.stem for p in SENSORS.glob("*.toml")))
        raise InputError(f"sensor {where!r}: no such file; give a TOML file or one of {names}")
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not readable as TOML ({error}); mend it, or copy one of {SENSORS}") from None
    return sensor_from(table, str(path))


def of_group(sensor: Sensor, name: str | None) -> Sensor:
    """The sensor with the bands of one of its groups; whole where none is named."""
    if name is None:
        return sensor
    group = next((group for group in sensor.grouped if group.name == name), None)
    if group is None:
        known = ", ".join(group.name for group in sensor.grouped)
        raise InputError(f"sensor {sensor.name} has no group {name!r}; name one of {known}")
    return sensor.only([sensor.names.index(band) for band in group.bands])
