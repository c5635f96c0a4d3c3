"""Sensors: what a plain table may say, bands by role, and no other file that lists bands."""

import json
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from payload.bundle import SHIPPED, Bundle, identity, load_bundle
from payload.errors import BundleError, InputError
from payload.sensor import RGBN, SENTINEL2_RGBN, Band, Group, Sensor, as_table, sensor_from, sensor_of

ROOT = Path(__file__).parents[2]
WORDS = st.text("abcdefghijklmnopqrstuvwxyzABC019_- ", min_size=1, max_size=12)
PAN: dict[str, Any] = {"name": "p", "kind": "panchromatic", "bits": 8, "bands": [{"name": "PAN", "gsd_m": 1.0}]}


@st.composite
def sensors(draw: st.DrawFn) -> Sensor:
    names = draw(st.lists(WORDS, min_size=1, max_size=6, unique=True))
    roles = draw(st.lists(WORDS, min_size=len(names), max_size=len(names), unique=True))
    length = st.none() | st.floats(1, 1e6)
    bands = tuple(
        Band(name, draw(st.floats(0.01, 1e4)), draw(st.sampled_from(("", role))), draw(length), draw(length))
        for name, role in zip(names, roles, strict=True)
    )
    bits, signed = draw(st.integers(1, 16)), draw(st.booleans())
    least = -(1 << (bits - 1)) if signed else 0
    count = st.none() | st.integers(least + 1, least + 65_535)
    cut = draw(st.integers(0, len(names)))
    groups = (Group("first", tuple(names[:cut])), Group("rest", tuple(names[cut:]))) if cut else ()
    return Sensor(
        draw(WORDS), draw(st.sampled_from(("optical", "radar", "hyperspectral", "panchromatic"))), bands, bits, signed,
        draw(WORDS), draw(st.floats(1e-9, 1e9)), draw(st.floats(-1e9, 1e9)), draw(count), draw(count), groups,
    )  # fmt: skip


@settings(deadline=None)
@given(sensors())
def test_the_manifest_s_table_is_the_sensor(sensor: Sensor) -> None:
    assert sensor_from(json.loads(json.dumps(as_table(sensor))), "manifest") == sensor


@settings(deadline=None)
@given(sensors())
def test_the_toml_file_is_the_sensor(sensor: Sensor) -> None:
    assert sensor_from(tomllib.loads(_toml(as_table(sensor))), "s.toml") == sensor


def _toml(table: dict[str, Any]) -> str:
    """JSON's numbers, strings and lists are TOML's; tables are not."""
    lines = [f"{key} = {json.dumps(value)}" for key, value in table.items() if key not in ("bands", "groups")]
    for band in table["bands"]:
        lines += ["[[bands]]", *(f"{key} = {json.dumps(value)}" for key, value in band.items())]
    return "\n".join([*lines, "[groups]", *(f"{k} = {json.dumps(v)}" for k, v in table.get("groups", {}).items())])


def test_a_spectrum_is_written_out_evenly() -> None:
    spectrum = {"count": 5, "first_nm": 400, "last_nm": 500, "width_nm": 12.0, "gsd_m": 30.0}
    sensor = sensor_from({**{k: v for k, v in PAN.items() if k != "bands"}, "spectrum": spectrum}, "s.toml")
    assert sensor.names == ("C001", "C002", "C003", "C004", "C005")
    assert [band.centre_nm for band in sensor.bands] == [400, 425, 450, 475, 500]
    assert sensor_from(as_table(sensor), "s.toml") == sensor


def test_signed_counts_start_at_dn_0() -> None:
    sensor = sensor_from(PAN | {"bits": 12, "signed": True, "nodata": -2048}, "s.toml")
    assert (sensor.lowest, sensor.highest_dn, sensor.nodata_dn) == (-2048, 4095, 0)
    assert sensor_from(PAN | {"saturation": 250}, "s.toml").highest_dn == 250


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"gain": 2}, "s.toml: unknown key 'gain'; valid here: bits, "),
        ({"bands": [{"name": "A", "gsd_m": 1.0, "colour": "red"}]}, "unknown key 'bands[0].colour'; valid here"),
        ({"bands": [{"name": "A"}]}, "s.toml: 'bands[0].gsd_m' is missing; add it (a number from 0.0001 to 1e+06)"),
        ({"bands": []}, "s.toml: bands is 0 bands, wanted 1 to 512"),
        ({"bands": "red"}, "s.toml: bands is 'red', wanted a list [[bands]]"),
        ({"bands": [7]}, "s.toml: bands[0] is '7', wanted a table"),
        ({"bands": [{"name": "A,B", "gsd_m": 1}]}, "bands[0].name is 'A,B', wanted a name without a comma"),
        ({"bands": [{"name": "A", "gsd_m": float("nan")}]}, "bands[0].gsd_m is nan, wanted a number from 0.0001"),
        ({"bands": [{"name": n, "gsd_m": 1} for n in "AA"]}, "bands share the names A, wanted each once"),
        ({"bands": [{"name": n, "gsd_m": 1, "role": "red"} for n in "AB"]}, "bands share the roles red"),
        ({"groups": {"g": ["B"]}}, "s.toml: groups do not hold every band once (B, PAN)"),
        ({"groups": {"g": ["PAN", "PAN"]}}, "groups do not hold every band once (PAN)"),
        ({"groups": {"g": 3}}, "wanted at most 512 names, each with a list of bands"),
        ({"kind": "sonar"}, "kind is 'sonar', wanted one of optical, panchromatic, radar, hyperspectral"),
        ({"bits": 17}, "bits is 17, wanted a whole number from 1 to 16"),
        ({"bits": True}, "bits is 'True', wanted a whole number"),
        ({"bits": 10**400}, "bits is 1000"),
        ({"scale": 0}, "scale is 0, wanted a number from 1e-12"),
        ({"signed": 1}, "signed is '1', wanted true or false"),
        ({"name": ""}, "name is '', wanted a printable text"),
        ({"spectrum": {}}, "spectrum is given beside bands, wanted one of the two"),
    ],
)  # fmt: skip
def test_what_is_wrong_in_a_table_is_named_with_its_key_and_file(change: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError) as caught:
        sensor_from(PAN | change, "s.toml")
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_a_band_is_found_by_what_it_is_for() -> None:
    assert [SENTINEL2_RGBN.place_of(role) for role in ("blue", "green", "red", "nir", "B08")] == [0, 1, 2, 3, 3]
    assert sensor_of(("B08", "B11")).places("nir", "swir16") == (0, 1)
    assert sensor_of(("B08", "B11")).places("nir", "red") is None
    with pytest.raises(InputError, match=r"B02 \(blue\), B03 \(green\): none is the nir one"):
        sensor_of(("B02", "B03")).place_of("nir")


def test_only_the_sensor_lists_the_bands() -> None:
    listed = ", ".join(f'"{band}"' for band in RGBN)
    for room in ("payload", "sim", "hil", "export"):
        for path in (ROOT / room).rglob("*.py"):
            own = path.name in ("sensor.py", "sentinel2.py")  # the second reads that satellite's products
            assert own or listed not in path.read_text(encoding="utf-8"), path


def test_a_bundle_that_names_no_sensor_is_sentinel_2_s_and_keeps_its_id() -> None:
    bundle = load_bundle("edge")
    assert bundle.sensor == SENTINEL2_RGBN and bundle.bundle_id == 0x92A7272C


def test_a_bundle_s_sensor_is_in_its_id() -> None:
    manifest = load_bundle("edge").manifest
    other = as_table(replace(SENTINEL2_RGBN, bits=10))
    assert len({identity(manifest), identity(manifest | {"sensor": other})}) == 2
    assert Bundle(SHIPPED, manifest | {"sensor": other}).sensor.bits == 10


def test_a_bundle_whose_sensor_cannot_be_is_refused(tmp_path: Path) -> None:
    manifest = load_bundle("edge").manifest
    for table, words in (
        (PAN, "bands are B02, B03, B04, B08, the sensor's PAN, wanted the same; rebuild the bundle"),
        (PAN | {"gain": 2}, "manifest.json, sensor: unknown key 'gain'"),
    ):
        (tmp_path / "manifest.json").write_text(json.dumps(manifest | {"sensor": table}), encoding="utf-8")
        with pytest.raises(BundleError) as caught:
            load_bundle(tmp_path)
        assert words in str(caught.value)
