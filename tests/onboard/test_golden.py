"""Tile codes of the shipped bundle do not change unnoticed, whoever computes them."""

import json

import pytest
from golden import tile_codes

from payload.native import library


@pytest.mark.parametrize("engine", ["openvino", "native"])
def test_tile_codes_are_those_on_record(engine) -> None:
    if engine == "native" and not library.available:
        pytest.skip("the kernel was not built")
    assert tile_codes.tile_codes(engine) == json.loads(tile_codes.GOLDEN.read_text(encoding="utf-8"))
