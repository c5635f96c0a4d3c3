"""Missions: what ships loads and says where its numbers come from; every mistake is named in one line."""

import re
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

import pytest

from hil.devices.states import States
from payload.apps.settings import Alerts, AppSettings, Site
from payload.errors import InputError
from payload.link.frames.stack import Stack
from payload.policy import Gate, LonLatRegion, Policy, Region
from sim.delivery.spec import Delivery, StreamDelivery, Uplink
from sim.link.chances import BitBurst, Burst
from sim.link.link import Link, Mishaps
from sim.link.link_budget import Radio
from sim.link.orbit import Orbit, Station
from sim.mission.power import Power
from sim.mission.spec import (
    SHIPPED,
    Budgets,
    Imager,
    Mission,
    Requirements,
    load_mission,
    mission_from_table,
    shipped_missions,
)
from sim.toml_tables import from_table, read_toml

MINIMAL = """
name = "small"
title = "As little as a mission can say"
device = "myriad2"
[imager]
swath_px = 1000
gsd_m = 10
[orbit]
altitude_km = 500
epoch = 2026-01-01T00:00:00Z
[link]
rate_bps = 1e6
pass_s = 300
"""


def load(text, tmp_path):
    path = tmp_path / "small.toml"
    path.write_text(text, encoding="utf-8")
    return load_mission(path)


def test_the_reference_mission_is_the_one_asked_for():
    mission = load_mission()
    assert (mission.name, mission.device) == ("phisat2", "myriad2")
    assert (mission.imager.swath_px, mission.imager.gsd_m, mission.imager.bits) == (4096, 4.75, 12)
    assert mission.orbit.altitude_km == 510
    assert (mission.link.rate_bps, mission.link.pass_s, mission.link.capacity_bits) == (10e6, 440, 4_400_000_000)
    assert mission.budgets.memory_mib == 512
    assert mission.policy.apid == 0x2A1


@pytest.mark.parametrize("name", shipped_missions())
def test_shipped_missions_load_by_name_and_by_path(name):
    assert load_mission(name) == load_mission(SHIPPED / f"{name}.toml")
    assert load_mission(name).name == name
    assert load_mission(name).stations


def test_three_missions_ship():
    assert shipped_missions() == ["phisat2", "sentinel2", "watch"]


@pytest.mark.parametrize("name", shipped_missions())
def test_every_number_of_a_shipped_mission_says_where_it_comes_from(name):
    lines = (SHIPPED / f"{name}.toml").read_text(encoding="utf-8").splitlines()
    repeated = ("longitude_deg", "altitude_m", "mask_deg")  # their source stands at the first station
    numbers = [line for line in lines if re.match(r"\w+ = [\d.]", line) and not line.startswith(repeated)]
    assert len(numbers) > (10 if name == "watch" else 20)
    unexplained = [line for line in numbers if "#" not in line]
    assert unexplained == []


def test_what_a_mission_leaves_out_has_its_default(tmp_path):
    mission = load(MINIMAL, tmp_path)
    assert mission.policy == Policy()
    assert mission.requirements == Requirements()
    assert mission.budgets == Budgets()
    assert mission.link.burst is None
    assert mission.stations == ()


def test_whole_numbers_serve_as_numbers(tmp_path):
    gsd_m = load(MINIMAL, tmp_path).imager.gsd_m
    assert gsd_m == 10.0
    assert isinstance(gsd_m, float)


def test_the_policy_is_mapped_from_its_own_fields(tmp_path):
    text = MINIMAL + "[policy]\npacket_octets = 256\n[policy.gate]\nwithhold_above_percent = 12.5\n"
    assert load(text, tmp_path).policy == Policy(packet_octets=256, gate=Gate(withhold_above_percent=12.5))


@pytest.mark.parametrize(
    ("was", "becomes", "message"),
    [
        ("gsd_m = 10", "gsdm = 10", r"unknown key 'gsdm' in \[imager\]; did you mean 'gsd_m'\?"),
        (
            "pass_s = 300",
            "pass_s = 300\ncolour = 1",
            r"unknown key 'colour' in \[link\]; valid here: bit_burst, bit_error_rate, burst, .*rate_bps",
        ),
        ("[link]", "[lnik]", r"unknown key 'lnik' in the top level; did you mean 'link'\?"),
        (
            "pass_s = 300",
            "pass_s = 300\n[policy.gate]\nwithold_above_percent = 3",
            r"\[policy.gate\]; did you mean 'withhold_above_percent'",
        ),
        ("gsd_m = 10", "", r"'gsd_m' is missing from \[imager\]; add it \(a number\)"),
        ("epoch = 2026-01-01T00:00:00Z", "", r"'epoch' is missing from \[orbit\]; add it \(a date and time"),
        ("swath_px = 1000", "swath_px = 1000.5", r"imager.swath_px is 1000.5 \(a number\), wanted a whole number"),
        ("swath_px = 1000", "swath_px = true", r"imager.swath_px is true \(true or false\), wanted a whole number"),
        ("gsd_m = 10", 'gsd_m = "ten"', r"imager.gsd_m is 'ten' \(a string\), wanted a number"),
        ("gsd_m = 10", "gsd_m = nan", r"imager.gsd_m is nan \(a number\), wanted a number"),
        ("gsd_m = 10", "gsd_m = inf", r"imager.gsd_m is inf"),
        ("gsd_m = 10", "gsd_m = -1", r"in \[imager\]: gsd_m is -1, wanted 0.1 to 10000"),
        ("pass_s = 300", "pass_s = 300\npacket_loss = 3", r"in \[link\]: packet_loss is 3, wanted 0 to 1"),
        (
            "pass_s = 300",
            "pass_s = 300\nburst = 3",
            r"link.burst is 3 \(a whole number\), wanted a table \[link.burst\]",
        ),
        (
            "pass_s = 300",
            "pass_s = 300\n[link.burst]\nenter = 2\nleave = 1",
            r"in \[link.burst\]: enter is 2, wanted 0 to 1",
        ),
        ("pass_s = 300", "pass_s = 300\n[policy]\napid = 4000", r"in \[policy\]: apid is 4000, wanted 0 to 2043"),
        ("pass_s = 300", "pass_s = 300\n[stations]\nname = 'x'", r"stations is .*\(a table\), wanted a list"),
        ("pass_s = 300", "pass_s = 300\n[[stations]]\nname = 'x'", r"'latitude_deg' is missing from \[stations\[0\]\]"),
        (
            "epoch = 2026-01-01T00:00:00Z",
            "epoch = 2026-01-01T00:00:00",
            r"orbit.epoch is .*wanted a date and time with its zone",
        ),
        ('device = "myriad2"', 'device = "myriad3"', r"device 'myriad3' is unknown; did you mean"),
        ("gsd_m = 10", "gsd_m = = 10", r"is not valid TOML \(.*line 7"),
    ],
)
def test_a_mistake_is_named_in_one_line(was, becomes, message, tmp_path):
    assert was in MINIMAL
    with pytest.raises(InputError, match=message) as caught:
        load(MINIMAL.replace(was, becomes), tmp_path)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(str(tmp_path / "small.toml"))


@pytest.mark.parametrize("kind", [Requirements, Budgets])
def test_every_requirement_and_budget_checks_its_range(kind):
    for field in fields(kind):
        with pytest.raises(InputError, match=field.name):
            kind(**{field.name: -1.0})


def test_a_mission_that_is_not_there_names_those_that_are():
    with pytest.raises(InputError, match=r"mission 'phisat': no such file.*did you mean 'phisat2'"):
        load_mission("phisat")


def test_a_directory_or_binary_file_is_no_mission(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        load_mission(tmp_path)
    binary = tmp_path / "b.toml"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="not text in UTF-8"):
        load_mission(binary)
    with pytest.raises(InputError, match="cannot be read"):
        read_toml(Path(tmp_path / "none.toml"))


def test_stations_are_found_by_name_whatever_the_case():
    mission = load_mission()
    assert mission.station("svalbard").latitude_deg == pytest.approx(78.23, abs=0.01)
    with pytest.raises(InputError, match="station 'Redo' is unknown; did you mean 'Redu'"):
        mission.station("Redo")


def test_stations_do_not_share_a_name():
    table = read_toml(SHIPPED / "phisat2.toml")
    table["stations"] = table["stations"][:1] * 2
    with pytest.raises(InputError, match="stations share a name"):
        mission_from_table(table)


def test_a_mission_is_a_value():
    assert isinstance(load_mission(), Mission)
    assert hash(load_mission()) == hash(load_mission())


def test_regions_of_the_gate_are_told_apart_by_their_keys(tmp_path):
    on_ground = "west_deg = 8\nsouth_deg = 47\neast_deg = 9\nnorth_deg = 48\n"
    in_scene = "top_px = 0\nleft_px = 1\nbottom_px = 2\nright_px = 3\n"
    regions = "".join(f"[[policy.gate.regions]]\n{box}" for box in (on_ground, in_scene))
    assert load(MINIMAL + regions, tmp_path).policy.gate.regions == (LonLatRegion(8, 47, 9, 48), Region(0, 1, 2, 3))
    with pytest.raises(
        InputError, match=r"unknown key 'westdeg' in \[policy.gate.regions\[0\]\]; did you mean 'west_deg'"
    ):
        load(MINIMAL + regions.replace("west_", "west"), tmp_path)
    with pytest.raises(InputError, match=r"policy.gate.regions\[0\] is 3 .*wanted a table"):
        load(MINIMAL + "[policy.gate]\nregions = [3]\n", tmp_path)


TABLES = [Mission, Imager, Orbit, Station, Link, Burst, BitBurst, Mishaps, Stack]
TABLES += [Radio, States, Power, Budgets, Requirements, Delivery, Uplink, AppSettings, Site, Alerts]


@pytest.mark.parametrize("kind", [*TABLES, StreamDelivery])
def test_the_user_page_names_every_key(kind):
    page = (Path(__file__).parents[2] / "docs" / "mission.md").read_text(encoding="utf-8")
    page = page.replace("delivery.uplink]", "uplink]").replace("delivery.uplink.burst]", "burst]")
    tables = {"imager", "orbit", "link", "budgets", "requirements", "policy", "stations", "radio", "states", "power"}
    tables |= {"delivery", "uplink", "protection", "sites", "alerts"}
    inner = {"burst", "bit_burst", "mishaps", "stack", "security"}
    page = page.replace("[apps.NAME]", "`apps`")
    for field in fields(kind):
        table = f"[link.{field.name}]" if field.name in inner and kind in (Link, Stack) else f"[{field.name}]"
        assert (table if field.name in tables | inner else f"`{field.name}`") in page


@dataclass(frozen=True)
class Kinds:
    pair: tuple[int, int]
    words: tuple[str, ...] = ()
    choice: Literal["a", "b"] = "a"
    maybe: int | None = None


def test_every_kind_of_field_is_read():
    table = {"pair": [1, 2], "words": ["x", "y"], "choice": "b", "maybe": 4}
    assert from_table(Kinds, table, "file") == Kinds((1, 2), ("x", "y"), "b", 4)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"pair": [1]}, "file: pair has 1 entries, wanted 2"),
        ({"pair": [1, "2"]}, r"file: pair\[1\] is '2' \(a string\), wanted a whole number"),
        ({"pair": 3}, "file: pair is 3 .* wanted a list"),
        ({"pair": [1, 2], "choice": "c"}, "file: choice is 'c' .* wanted one of 'a', 'b'"),
        ({"pair": [1, 2], "words": [1]}, r"file: words\[0\] is 1 .* wanted a string"),
    ],
)
def test_every_kind_of_field_refuses_what_does_not_fit(table, message):
    with pytest.raises(InputError, match=message):
        from_table(Kinds, table, "file")
