"""Bands that are not registered: the generated scene with its bands apart, and put together again on board."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from payload.errors import InputError
from sim.commands.root import app
from sim.mission.spec import load_mission, mission_file
from sim.scenes.imager.band_shift import as_imaged, displacements
from sim.scenes.open_scene import open_scene


def run(*words: str) -> Any:
    return CliRunner().invoke(app, words)


def test_a_shift_moves_every_band_but_the_first_its_own_way() -> None:
    assert displacements(4, 2) == ((0, 0), (0, 2), (2, 0), (0, -2))
    assert len(set(displacements(9, 1))) == 9 and len(displacements(13, 1)) == 13


@pytest.mark.parametrize("shift_px", [1, 2])
def test_bands_of_the_demo_are_put_together_again(shift_px: int) -> None:
    straight = open_scene("demo:320", seed=3)
    apart, put = (as_imaged(open_scene("demo:320", seed=3), shift_px, register) for register in (False, True))
    wanted = tuple((-y, -x) for y, x in displacements(4, shift_px))
    assert put.info.band_shifts == wanted and not apart.info.band_shifts
    window = (20, 30, 200, 210)
    want = straight.read(*window)[0]
    assert np.array_equal(put.read(*window)[0], want)
    shifted = apart.read(*window)[0]
    assert np.array_equal(shifted[0], want[0]) and not np.array_equal(shifted[1], want[1])


def test_a_scene_whose_bands_are_together_is_left_as_it_is() -> None:
    scene = open_scene("demo:256")
    assert as_imaged(scene, 0, True) is scene


def test_a_shift_out_of_range_is_one_line(tmp_path: Path) -> None:
    for shift in ("-1", "9"):
        found = run("downlink", "--scene", "demo:64", "--band-shift", shift, "--out", str(tmp_path / "out"))
        assert f"band shift is {shift} px, wanted 0 to 8" in str(found.exception)
    assert not (tmp_path / "out").exists()
    path = tmp_path / "m.toml"
    text = mission_file("phisat2").read_text(encoding="utf-8")
    path.write_text(text.replace("[imager]", "[imager]\nband_shift_px = 9"), encoding="utf-8")
    with pytest.raises(InputError, match="band_shift_px is 9, wanted 0 to 8"):
        load_mission(path)


@pytest.mark.slow
def test_a_mission_that_registers_sends_as_little_as_if_bands_were_together(tmp_path: Path) -> None:
    octets = {}
    for name, policy, shift in (("straight", "", 0), ("apart", "", 1), ("put", "register_bands = true", 1)):
        path = tmp_path / f"{name}.toml"
        text = mission_file("phisat2").read_text(encoding="utf-8").replace("[policy]", f"[policy]\n{policy}")
        path.write_text(text.replace("[imager]", f"[imager]\nband_shift_px = {shift}"), encoding="utf-8")
        out = tmp_path / name
        done = run("downlink", "--scene", "demo:512", "--mission", str(path), "--decoder", "fast", "--out", str(out))
        assert done.exit_code in (0, 1), (done.output, done.exception)
        octets[name] = (out / "packets.bin").stat().st_size
    assert octets["apart"] > 1.1 * octets["straight"]
    assert octets["put"] < 1.03 * octets["straight"]
