"""Campaigns of hostile input: damaged bundles, crafted layers, and the kernel under sanitizers (tests/hostile)."""

import os
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hostile import bundles, sanitized
from hostile.kernel import ENTRIES, OTHERS, REAL, decode_both, hostile_indices, shape_of, some_coder
from hypothesis import given, settings
from hypothesis import strategies as st

from payload.codec.lapped import layers
from payload.codec.lapped.quantiser import MAGNITUDE_LIMIT
from payload.errors import StreamError
from payload.native import library

needs_kernel = pytest.mark.skipif(not library.available, reason="the kernel was not built: no C compiler at install")
needs_sanitizers = pytest.mark.skipif(sanitized.missing() is not None, reason=f"no sanitizers: {sanitized.missing()}")
BUNDLES = 150


def campaign(folder: Path, seeds: range, made: Callable[[int, Path], str] = bundles.case) -> dict[str, int]:
    found = {bundles.REFUSED: 0, bundles.RIGHT: 0}
    for seed in seeds:
        case = folder / str(seed)
        found[made(seed, case)] += 1
        shutil.rmtree(case)
    return found


@needs_kernel
def test_damaged_bundles_whose_hashes_fit_are_refused_or_right(tmp_path) -> None:
    found = campaign(tmp_path, range(BUNDLES))
    assert found[bundles.REFUSED] > BUNDLES // 2 and found[bundles.RIGHT] > BUNDLES // 20, found


@needs_kernel
def test_damaged_bundles_of_two_grids_are_refused_or_right(tmp_path) -> None:
    found = campaign(tmp_path, range(40), bundles.grids_case)
    assert min(found.values()) > 4, found


@needs_kernel
def test_a_bundle_whose_coarsest_step_leaves_layers_unsent_is_right(tmp_path) -> None:
    """Seed 4129 of the campaign: a tile that is coded at a finer step and cut."""
    assert bundles.case(4129, tmp_path / "4129") == bundles.RIGHT


@needs_kernel
@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_many_damaged_bundles_are_refused_or_right(tmp_path) -> None:
    """NADIR_BUNDLES=10000 for the whole campaign (`make fuzz-kernel`); a fifth more of two grids."""
    many = int(os.environ.get("NADIR_BUNDLES", "500"))
    assert sum(campaign(tmp_path, range(1000, 1000 + many)).values()) == many
    assert sum(campaign(tmp_path, range(1000, 1000 + many // 5), bundles.grids_case).values()) == many // 5


@needs_kernel
@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.integers(0, 3))
def test_coarse_magnitudes_that_no_encoder_writes_are_refused_by_both_with_the_same_words(seed, finer) -> None:
    """A first layer as a bundle of one layer writes it, which may hold 65 535, before the others of another."""
    rng = np.random.default_rng(seed)
    coder = some_coder(rng)
    sent = replace(hostile_indices(rng, shape_of(coder)), size128=None)
    one = replace(coder.tables, layers=coder.tables.layers[:1])
    crafted = (*layers.encode_layers(sent, one), *layers.encode_layers(sent, coder.tables)[1 : 1 + finer])
    most = MAGNITUDE_LIMIT >> (len(coder.tables.layers) - 1)
    said = decode_both(coder, crafted)
    assert said == "refused" or sent.magnitude.max() <= most
    if sent.magnitude.max() > most:
        said = f"layer 0: a magnitude of {sent.magnitude.max()}, .* holds {most} at most"
        with pytest.raises(StreamError, match=said):
            coder.decode_layers(crafted)


@needs_kernel
@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.lists(st.binary(max_size=60), min_size=1, max_size=4))
def test_any_octets_are_decoded_or_refused_alike_by_both(seed, octets) -> None:
    decode_both(some_coder(np.random.default_rng(seed)), tuple(octets))


def test_every_entry_of_the_kernel_is_handed_what_it_takes() -> None:
    """A call that hands over less than the entry reads finds what lies in the registers."""
    takes = {"int": None, "uint32_t": None, "float": REAL}
    found = {}
    for source in sorted(Path(library.__file__).parent.glob("*.c")):
        for name, arguments in re.findall(r"EXPORT \w+ nadir_(\w+)\(([^)]*)\)", source.read_text(encoding="utf-8")):
            kinds = [argument.split()[0] for argument in arguments.split(",")]
            found[name] = [takes.get(kind, kind) for kind in kinds]
    handed = {name: [kind if kind in (None, REAL) else "Span" for kind in kinds] for name, kinds in ENTRIES.items()}
    assert {name: kinds for name, kinds in found.items() if name not in OTHERS} == handed


@needs_sanitizers
@needs_kernel
def test_hostile_layers_encodes_arguments_and_bundles_give_no_report_under_sanitizers(tmp_path) -> None:
    cases = ["--decode", "400", "--encode", "300", "--entry", "1000", "--frames", "300", "--bundle", "15"]
    done = sanitized.run(cases, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr[-4000:]
    assert "_kernel.so" in done.stdout and "bundle: 15 cases" in done.stdout


@needs_sanitizers
@needs_kernel
@pytest.mark.slow
def test_the_sanitizers_hear_a_kernel_that_believes_every_length(tmp_path) -> None:
    """The listener hears: without its checks the kernel is reported within a thousand cases."""
    source = shutil.copytree(sanitized.SOURCE.parent, tmp_path / "native") / "kernel.c"
    header, check = source.with_suffix(".h"), "#define HOLDS(span, type, count) ("
    header.write_text(header.read_text().replace(check, check + "1 || "))
    done = sanitized.run(["--entry", "1000"], tmp_path, source)
    assert done.returncode == 99 and "ERROR: AddressSanitizer" in done.stderr, done.stderr[-2000:]
