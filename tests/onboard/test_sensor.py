"""Bands by role: one list of them, and no other file that counts on their order without asking it."""

from pathlib import Path

import pytest

from payload.errors import InputError
from payload.sensor import RGBN, ROLES, place_of

ROOT = Path(__file__).parents[2]


def test_a_band_is_found_by_what_it_is_for() -> None:
    assert [place_of(role, RGBN) for role in ("blue", "green", "red", "nir")] == [0, 1, 2, 3]
    assert place_of("nir", ("B08", "B11")) == 0
    with pytest.raises(InputError, match=r"bands are B02, B03: no B08, the nir one, which is needed"):
        place_of("nir", ("B02", "B03"))


def test_only_the_sensor_lists_the_bands() -> None:
    listed = ", ".join(f'"{band}"' for band in ROLES.values())
    for room in ("payload", "sim", "hil", "export"):
        for path in (ROOT / room).rglob("*.py"):
            own = path.name in ("sensor.py", "sentinel2.py")  # the second reads that satellite's products
            assert own or listed not in path.read_text(encoding="utf-8"), path
