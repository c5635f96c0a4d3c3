"""Every target of tests/fuzz/targets.py for a moment: whole inputs are read, damaged ones read or refused in a line."""

import numpy as np
import pytest
from fuzz.damage import damaged
from fuzz.targets import TARGETS, outcome
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

#: Nobody's whole input is at hand: what is tried begins from a torn one.
TORN = ("Sentinel-2 zips", "Sentinel-2 metadata", "manifests", "tables")
#: Damage is data there: counted, never refused.
COUNTED = ("packets", "agent bodies")
#: The reader looks for the next whole frame, and refuses another version alone, which damage seldom makes.
SELDOM = ("agent frames",)


@pytest.mark.parametrize("name", TARGETS)
def test_damaged_input_is_read_or_refused_with_one_line(name) -> None:
    target, rng = TARGETS[name], np.random.default_rng(17)
    seeds = list(target.seeds())
    found = [outcome(target, seed) for seed in seeds]
    if name not in TORN:
        assert "read" in found, "no whole input is read: the target tests nothing"
    for _ in range(target.cases):
        octets = seeds[int(rng.integers(len(seeds)))]
        for _ in range(int(rng.choice([1, 1, 2, 4]))):
            octets = damaged(rng, octets)
        found.append(outcome(target, octets))
    if name not in SELDOM:
        assert ("refused" in found) is (name not in COUNTED)


@pytest.mark.parametrize("name", TARGETS)
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(octets=st.binary(max_size=300))
def test_any_octets_are_read_or_refused_with_one_line(name, octets) -> None:
    outcome(TARGETS[name], octets)
