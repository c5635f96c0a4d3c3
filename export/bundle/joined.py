"""Bundles of a sensor's groups -> one bundle that codes every group at its native resolution in one tile code.

    flight/NAME/encoder.onnx, tables.npz    of group NAME, for tiles of tile_px / times px
    manifest["codec"]["groups"][NAME]       what its codec table was
"""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from export.bundle.assemble import Origin, assemble
from export.lapped.adapt import DIFFERENCES_PX
from export.lapped.files import export_encoder
from export.lapped.universal import START
from payload.bundle import Bundle
from payload.codec.interface import TABLES_FILE
from payload.codec.lapped.many.groups import KIND
from payload.errors import InputError
from payload.sensor import Sensor, as_table

#: Whole blocks of blocks on grids of 10, 20 and 60 m: 384, 192 and 64 px.
TILE_PX = 384


def join(name: str, sensor: Sensor, groups: Mapping[str, Bundle], out: Path, tile_px: int = TILE_PX) -> Bundle:
    """The bundle `name` of a sensor from one bundle for each of its groups. InputError where they do not fit."""
    finest_m = min(band.gsd_m for band in sensor.bands)
    files: dict[str, Path | bytes] = {}
    tables: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory(prefix=".joined-") as scratch:
        for group in sensor.grouped:
            part = _part(groups, group.name, group.bands)
            times = round(sensor.bands[sensor.names.index(group.bands[0])].gsd_m / finest_m)
            encoder = Path(scratch) / f"{group.name}.onnx"
            export_encoder(load_file(START / "transform.safetensors"), len(group.bands), tile_px // times, encoder)
            files |= {f"flight/{group.name}/encoder.onnx": encoder}
            files |= {f"flight/{group.name}/tables.npz": part.file(TABLES_FILE)}
            tables[group.name] = {"differences_px": DIFFERENCES_PX} | part.codec
        built = [part.manifest.get("built", {}) for part in groups.values()]
        origin = Origin(
            {"name": name, "kind": KIND, "joined": {key: part.name for key, part in groups.items()}},
            " ".join(made.get("data_sha256", "unknown") for made in built), {"activations": "as their parts have it"},
        )  # fmt: skip
        codec = {"kind": KIND, "layers": max(table["layers"] for table in tables.values()), "groups": tables,
                 "entropy_macs_per_px": _macs_per_px(sensor, tables)}  # fmt: skip
        more = {"sensor": as_table(sensor)}
        return assemble(out, name, sensor.names, tile_px, codec, files, origin, more=more)


def _part(groups: Mapping[str, Bundle], name: str, bands: tuple[str, ...]) -> Bundle:
    if name not in groups:
        raise InputError(f"no bundle for group {name}; give --group {name}=BUNDLE")
    part = groups[name]
    if part.bands != bands or part.codec.get("kind") != "fsq" or "flight/tables-rest.npz" in part.manifest["files"]:
        raise InputError(
            f"bundle {part.name} of {', '.join(part.bands)[:80]} is none for group {name}, wanted one of kind fsq for "
            f"{', '.join(bands)[:80]}; make it with `python -m export adapt --group {name}`"
        )
    return part


def _macs_per_px(sensor: Sensor, tables: Mapping[str, Mapping[str, Any]]) -> float:
    """Of a pixel of the finest grid."""
    finest_m = min(band.gsd_m for band in sensor.bands)
    gsd_m = {group.name: sensor.bands[sensor.names.index(group.bands[0])].gsd_m for group in sensor.grouped}
    return round(sum(t["entropy_macs_per_px"] * (finest_m / gsd_m[name]) ** 2 for name, t in tables.items()), 3)
