"""Tile codes of the shipped bundle do not change unnoticed, whoever computes them."""

import json

import pytest
from golden import tile_codes

from payload.native import library


@pytest.mark.parametrize("engine", ["openvino", "native"])
def test_tile_codes_are_those_on_record(engine) -> None:
    if engine == "native" and not library.available:
        pytest.skip("the kernel was not built")
    found = json.loads(tile_codes.GOLDEN.read_text(encoding="utf-8"))
    assert tile_codes.tile_codes(engine) == {name: found[name] for name in found if "generation" not in name}


@pytest.mark.skipif(not library.available, reason="the kernel was not built")
def test_layers_of_the_first_generation_of_dense_are_those_on_record() -> None:
    found = json.loads(tile_codes.GOLDEN.read_text(encoding="utf-8"))
    assert tile_codes.older_layers() == {name: found[name] for name in found if "generation" in name}
