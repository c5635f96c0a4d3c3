"""A campaign over several devices: what is done stays done, who is away is asked again, one page tells it all."""

import json
from dataclasses import asdict, replace

import pytest

from hil.campaign.plan import read_plan
from hil.campaign.steps import Clock, run_campaign
from hil.host.session_values import DeviceError, DeviceLostError
from hil.profiles.campaign_file import (
    AWAY,
    DONE,
    FAILED,
    StepRecord,
    append_record,
    checks,
    codes_of_work,
    file_sha256,
    read_journal,
)  # fmt: skip
from hil.profiles.campaign_page import as_csv, render
from payload.errors import InputError

PLAN = """
name = "a day"
rounds = 2
every = "1h"
tries = 2
pause = "1m"
[[devices]]
name = "here"
url = "host:"
[[devices]]
name = "there"
url = "tcp://127.0.0.1:1"
[[work]]
name = "demo"
scene = "demo"
"""


class MadeUpDay:
    """Time passes by waiting only."""

    def __init__(self):
        self.now, self.waits = 1000.0, []

    def clock(self):
        return Clock(lambda: self.now, self.sleep)

    def sleep(self, seconds):
        self.waits.append(seconds)
        self.now += seconds


class Bench:
    """Stands for the devices: keeps what was asked, answers as it was told to."""

    def __init__(self, answers=None):
        self.asked, self._answers = [], answers or {}

    def __call__(self, step, plan, out):
        self.asked.append(step.key)
        answer = self._answers.get((step.device.name, self.asked.count(step.key)), "aa")
        if isinstance(answer, BaseException):
            raise answer
        folder = out / step.folder
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "profile.json").write_text(json.dumps(step.key))
        name = f"{step.folder}/profile.json"
        return StepRecord(
            *step.key, DONE, 0.0, file=name, sha256=file_sha256(out / name), codes_sha256=answer * 32,
            codes_of="bundle b", figures={"p50": 5.0 + step.round},
        )  # fmt: skip


@pytest.fixture
def plan(tmp_path):
    (tmp_path / "day.toml").write_text(PLAN)
    return read_plan(tmp_path / "day.toml")


def go(plan, out, bench, day, resume=False):
    return run_campaign(plan, out, resume, lambda words: None, day.clock(), bench)


def test_every_device_does_all_work_in_every_round_an_hour_apart(plan, tmp_path):
    day, bench = MadeUpDay(), Bench()
    records = go(plan, tmp_path / "o", bench, day)
    assert bench.asked == [(1, "here", "demo"), (1, "there", "demo"), (2, "here", "demo"), (2, "there", "demo")]
    assert day.waits == [3600.0]
    assert all(check.held for check in checks(records, 4))


def test_a_device_that_is_away_is_asked_again_after_the_others_and_told_of(plan, tmp_path):
    gone = DeviceLostError("device there: lost after 3 attempts (connection refused)")
    bench = Bench({("there", 1): gone})
    records = go(replace(plan, rounds=1), tmp_path / "back", bench, MadeUpDay())
    assert [r.state for r in records] == [DONE, DONE] and [r.tries for r in records] == [1, 2]
    records = go(
        replace(plan, rounds=1), tmp_path / "gone", Bench({("there", 1): gone, ("there", 2): gone}), MadeUpDay()
    )
    assert [r.state for r in records] == [DONE, AWAY]
    found = {check.asked: (check.measured, check.wanted) for check in checks(records, 2)}
    assert found["steps done"] == (1, 2)
    page = render("a day", records, 1, 2)
    assert "away after 2 tries" in page and "connection refused" in page


@pytest.mark.parametrize(
    "refusal",
    [
        DeviceError("device there: bundle 7 wanted, the device holds 8; deploy it again"),
        InputError("no tiles"),
        ValueError("nobody foresaw this"),
    ],
)
def test_what_a_device_refuses_is_not_asked_again_and_ends_no_day(refusal, plan, tmp_path):
    bench = Bench({("there", 1): refusal})
    records = go(replace(plan, rounds=1), tmp_path / "o", bench, MadeUpDay())
    assert [r.state for r in records] == [DONE, FAILED] and len(bench.asked) == 2


def test_a_campaign_that_was_stopped_goes_on_and_does_nothing_twice(plan, tmp_path):
    out, day = tmp_path / "o", MadeUpDay()
    with pytest.raises(KeyboardInterrupt):
        go(plan, out, Bench({("there", 1): KeyboardInterrupt()}), day)
    bench = Bench()
    records = go(plan, out, bench, day, resume=True)
    assert bench.asked == [(1, "there", "demo"), (2, "here", "demo"), (2, "there", "demo")]
    assert [r.state for r in records] == [DONE] * 4


def test_a_result_that_was_changed_since_is_measured_again(plan, tmp_path):
    out = tmp_path / "o"
    go(replace(plan, rounds=1), out, Bench(), MadeUpDay())
    (out / "steps/r001-here-demo/profile.json").write_text("{}")
    with (out / "journal.jsonl").open("a") as journal:
        journal.write('{"round": 1, "dev')  # torn when the power went
    bench = Bench()
    go(replace(plan, rounds=1), out, bench, MadeUpDay(), resume=True)
    assert bench.asked == [(1, "here", "demo")]


def test_a_folder_holds_one_campaign(plan, tmp_path):
    out = tmp_path / "o"
    go(replace(plan, rounds=1), out, Bench(), MadeUpDay())
    with pytest.raises(InputError, match="--resume"):
        go(plan, out, Bench(), MadeUpDay())
    other = replace(plan, devices=plan.devices[:1])
    with pytest.raises(InputError, match="other devices or work"):
        go(other, out, Bench(), MadeUpDay(), resume=True)
    bench = Bench()
    go(plan, out, bench, MadeUpDay(), resume=True)  # one more round of the same is the same campaign
    assert [key[0] for key in bench.asked] == [2, 2]


def test_unequal_codes_of_the_same_tiles_fail_and_say_who_has_which(plan, tmp_path):
    records = go(replace(plan, rounds=1), tmp_path / "o", Bench({("there", 1): "bb"}), MadeUpDay())
    (codes,) = codes_of_work(records)
    assert not codes.equal and codes.by_sha256 == {"aa" * 32: ("here",), "bb" * 32: ("there",)}
    assert any(not check.held and "bbbb" in check.found for check in checks(records, 2))


def test_codes_of_another_bundle_are_another_work(plan, tmp_path):
    records = go(replace(plan, rounds=1), tmp_path / "o", Bench({("there", 1): "bb"}), MadeUpDay())
    apart = [records[0], replace(records[1], codes_of="bundle c")]
    assert all(codes.equal for codes in codes_of_work(apart))


def test_the_page_shows_devices_side_by_side_and_the_day(plan, tmp_path):
    records = go(plan, tmp_path / "o", Bench(), MadeUpDay())
    page = render("a <day>", records, 2, 4)
    assert "a &lt;day&gt;" in page and "<script" not in page and "http://" not in page
    assert page.count("<svg") == 1 and "Coded tile, p50" in page  # the trend of what was measured twice
    assert "6 to 7, 2 rounds" in page
    assert as_csv(records).splitlines()[0].endswith(",why,p50")


def test_the_journal_comes_back_as_it_was(tmp_path):
    record = StepRecord(3, "d", "w", DONE, 12.5, 1.0, 2, "", "f", "s", "c", "b", False, "cpu", {"p50": 1.5})
    append_record(tmp_path, replace(record, state=AWAY))
    append_record(tmp_path, record)
    assert read_journal(tmp_path) == {(3, "d", "w"): record}
    assert json.loads((tmp_path / "journal.jsonl").read_text().splitlines()[1]) == asdict(record)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("rounds = 2", "rounds = 0"), "rounds is 0, wanted 1 to 10000"),
        (("rounds = 2", 'rounds = "two"'), "rounds is 'two', wanted a number"),
        (('every = "1h"', 'every = "1 fortnight"'), "wanted a number and s, m, h or d"),
        (('name = "there"', 'name = "here"'), "each name once"),
        (('name = "there"', 'name = "../x"'), "wanted letters, digits"),
        (('url = "host:"', 'url = "nowhere:"'), "is no URL of a device"),
        (('url = "host:"\n', ""), "'url' is missing"),
        (('scene = "demo"', ""), "wanted one of scene and tiles"),
        (('scene = "demo"', 'scene = "demo"\nmeasure = "all"'), "measure is 'all', wanted profile or run"),
        (('scene = "demo"', 'scene = "demo"\ncolour = 1'), "colour is unknown"),
        (('scene = "demo"', 'scene = "demo"\nlimit = 0'), "limit and repeats are 1 at least"),
        (("[[work]]", "[work]"), "no [[work]]"),
        (("name", "\x00"), "not readable as a plan"),
    ],
)
def test_a_plan_that_cannot_be_is_refused_in_one_line(change, words, tmp_path):
    path = tmp_path / "day.toml"
    path.write_text(PLAN.replace(*change, 1))
    with pytest.raises(InputError) as refusal:
        read_plan(path)
    assert words in str(refusal.value) and "\n" not in str(refusal.value)


@pytest.mark.slow
def test_two_agents_of_this_machine_and_one_that_is_away(tmp_path):
    """The real thing in small: the payload on this host, octets compared, and a port where nobody listens."""
    pytest.importorskip("rasterio", reason="the ground is not installed")
    text = PLAN.replace("rounds = 2", "rounds = 1").replace('pause = "1m"', 'pause = "0.1s"')
    text = text.replace('scene = "demo"', 'scene = "demo:512"\nmeasure = "run"\nlimit = 2')
    text += '[[devices]]\nname = "onnx"\nurl = "host:"\nengine = "onnxruntime"\n'
    (tmp_path / "day.toml").write_text(text)
    records = run_campaign(read_plan(tmp_path / "day.toml"), tmp_path / "o", False, lambda words: None)
    states = {r.device: r.state for r in records}
    assert states == {"here": DONE, "there": AWAY, "onnx": DONE}
    (codes,) = codes_of_work(records)
    assert codes.equal and set(next(iter(codes.by_sha256.values()))) == {"here", "onnx"}
