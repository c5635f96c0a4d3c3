"""A small share of the link's campaign (tests/fuzz/link_campaign.py), and that it hears what it listens for."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from fuzz import link_campaign, link_layers
from fuzz.link_campaign import UNITS, Line, bad_in, read_record, trial, units_in
from fuzz.sent_scenes import POLICY, WAYS

from payload.codec.registry import open_codec
from payload.link import tile_code
from payload.link.frames.stack import Stack
from payload.link.tile_code import Kind
from sim.link.frames.receiver import FrameReceiver, packets_off_air


@pytest.fixture(scope="module")
def line() -> Line:
    return link_campaign.whole_line()


def test_every_way_of_coding_is_on_the_line(line) -> None:
    """Every kind of tile code and every version that is written for scenes; both profiles; layers within a bound."""
    sent = [code for scene in line.sent.values() for code in (*scene.codes.values(), *scene.audits.values())]
    assert {code.kind for code in sent} == set(Kind) - {Kind.OMITTED}
    assert {tile_code.pack(code)[0] >> 4 for code in sent} == {5, 7, 9}
    assert {len(bundle.bands) for bundle in line.bundles.values()} == {4, 5, 80} and any(code.mask for code in sent)
    dense, fast = ([code.layers for code in line.sent[n].codes.values() if code.layers] for n in (3, 1))
    profiles = [{open_codec(line.bundle)._entropy.profile_of(layers) for layers in of} for of in (dense, fast)]
    assert profiles == [{"dense"}, {"fast"}]


def test_damaged_units_crash_nothing_and_give_no_wrong_tile(tmp_path) -> None:
    record = tmp_path / "campaign.jsonl"
    found = link_campaign.run(4000, record)
    assert bad_in(found) == 0 and units_in(found) >= 4000, found
    assert all(found[unit] for unit in UNITS)
    assert min(found[f"tile {outcome}"] for outcome in ("right", "cut", "refused", "missing")) > 50, found
    assert read_record(record)[0] == found == link_campaign.run(4000, record)  # nothing is run again


def test_it_hears_that_tile_codes_with_the_packets_crc_let_damage_pass(monkeypatch) -> None:
    """Version 3, which the tree before wrote: some 200 wrong tiles in 20 000 units."""
    monkeypatch.setattr(tile_code, "VERSION", 3)
    older = Line({number: WAYS[number] for number in (1, 2)})
    found = sum((trial(older, seed) for seed in range(200)), Counter())
    assert found["tile WRONG"] > 3, found


def test_it_hears_that_frames_with_no_check_at_all_let_octets_through_to_the_tiles_own(line) -> None:
    """Frames without code and CRC: packets' and tiles' checks must refuse what Reed-Solomon never saw."""
    bare = Stack(reed_solomon="none", frame_octets=240, fecf=False)
    found = Counter()
    for seed in range(20):
        rng = np.random.default_rng(seed)
        units, _ = link_layers.happened(rng, link_layers.units_on_air(line.sent[1].packets, bare, POLICY.apid), [b"?"])
        pieces = packets_off_air([b"".join(units)], FrameReceiver(bare))
        found += link_campaign.received(line, pieces, False)
    assert bad_in(found) == 0 and found["tile refused"] + found["tile cut"] > 20 and found["tile right"] > 20, found


def test_it_hears_a_word_within_reach_that_does_not_come_back() -> None:
    assert link_layers.word(True, 3, within=True) == "word right"
    assert bad_in(Counter([link_layers.word(False, 3, within=True), link_layers.word(True, -1, within=True)])) == 2
    assert bad_in(Counter([link_layers.word(False, 3, within=False)])) == 0


def test_it_hears_a_tile_of_another_scene_place_or_content(line) -> None:
    code = line.sent[1].codes[0, 1]
    assert line.verdict(code, True) == "right"
    assert line.verdict(replace(code, layers=code.layers[:1]), True) == "cut"
    for change in ({"scene_id": 2}, {"scene_id": 9}, {"col": 2}, {"cloud_percent": 7}, {"mask": b"m"}):
        assert line.verdict(replace(code, **change), True) == "WRONG", change


def test_a_trial_that_raises_or_hangs_is_counted(line, monkeypatch) -> None:
    def hang(rng: np.random.Generator, *rest: object) -> Counter[str]:
        raise link_campaign.HangError

    monkeypatch.setattr(link_campaign, "LAYERS", (hang,))
    assert link_campaign.watched(line, 0) == {"HANG": 1} and bad_in(Counter({"HANG": 1, "CRASH": 2})) == 3
    monkeypatch.setattr(link_campaign, "LAYERS", (lambda *rest: 1 / 0,))
    assert link_campaign.watched(line, 0) == {"CRASH": 1}
