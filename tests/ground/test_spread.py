"""Work spread over threads: in order, and the same octets and figures whatever the number of threads."""

import json
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from payload.bundle import load_bundle
from payload.errors import InputError
from payload.native import library
from payload.tiles import split
from sim.downlink import Request, downlink
from sim.ground.decoder import decoder_for
from sim.onboard.engine_choice import engine_for
from sim.progress import silent
from sim.scenes.demo import demo_scene
from sim.spread import OneLate, Spread


def test_results_come_in_the_order_of_what_was_given() -> None:
    def late(number: int) -> int:
        time.sleep(0.02 if number == 0 else 0)
        return number

    for jobs in (1, 3):
        with Spread(jobs) as spread:
            assert list(spread.map(late, range(9))) == list(range(9))


def test_few_results_wait_to_be_taken_and_work_begins_at_once() -> None:
    begun: list[int] = []
    with Spread(2) as spread:
        found = spread.few(lambda number: begun.append(number) or number, range(50))
        deadline = time.monotonic() + 10
        while len(begun) < 4 and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(0.05)  # no fifth begins before the first is taken
        assert sorted(begun) == [0, 1, 2, 3]
        assert next(found) == 0 and list(found) == list(range(1, 50))
    assert list(Spread(1).few(abs, [-1, 2])) == [1, 2]


def test_a_scene_read_ahead_is_the_scene() -> None:
    plain = list(split(demo_scene(300, 200, 0), 64))
    with Spread(2) as spread, spread.ahead(demo_scene(300, 200, 0)) as scene:
        for _ in range(2):  # from the top again, as the verification does
            ahead = list(split(scene, 64))
            assert len(ahead) == len(plain)
            assert all(np.array_equal(a.dn, b.dn) for a, b in zip(ahead, plain, strict=True))
            assert all(np.array_equal(a.valid, b.valid) for a, b in zip(ahead, plain, strict=True))


def test_what_is_read_ahead_is_read_once_and_is_only_given_for_what_it_is() -> None:
    scene, asked = demo_scene(300, 200, 0), []

    class Counted:
        info = scene.info

        def read(self, *window: int) -> Any:
            asked.append(window)
            return scene.read(*window)

    strips = [(0, 0, 64, 200), (64, 0, 64, 200), (128, 0, 64, 200)]
    with Spread(2) as spread, spread.ahead(Counted()) as ahead:
        for strip in strips:
            ahead.read(*strip)
        elsewhere, _ = ahead.read(10, 20, 30, 40)
    assert [asked.count(strip) for strip in strips] == [1, 1, 1]
    assert np.array_equal(elsewhere, scene.read(10, 20, 30, 40)[0])


def test_two_strips_are_under_way_while_one_is_worked_on() -> None:
    scene, asked, begun = demo_scene(400, 64, 0), [], threading.Event()

    class Counted:
        info = scene.info

        def read(self, *window: int) -> Any:
            asked.append(window[0])
            if len(asked) == 3:
                begun.set()
            return scene.read(*window)

    with Spread(2) as spread, spread.ahead(Counted()) as ahead:
        ahead.read(0, 0, 64, 64)
        assert begun.wait(20)
    assert asked == [0, 64, 128]


def test_what_waits_for_threads_is_done_once_the_next_has_begun_and_the_last_at_the_end() -> None:
    done: list[int] = []
    with OneLate() as late:
        for number in range(3):
            late.then(partial(done.append, number))
            assert done == list(range(number))
    assert done == [0, 1, 2]
    with pytest.raises(ValueError, match="no"), OneLate() as late:
        late.then(partial(done.append, 9))
        raise ValueError("no")
    assert 9 not in done


def test_the_kernel_codes_large_scenes_unless_an_engine_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = load_bundle("edge")
    large, small = demo_scene(8000, 8000).info, demo_scene(800, 800).info
    engine, said = engine_for("auto", large, bundle)
    assert engine.name == ("native" if library.available else "openvino") and len(said) == library.available
    for asked, info in (("auto", small), ("openvino", large)):
        assert [engine_for(asked, info, bundle)[0].name, engine_for(asked, info, bundle)[1]] == ["openvino", ()]
    monkeypatch.setattr(library, "available", False)
    assert engine_for("auto", large, bundle)[0].name == "openvino"


@pytest.mark.parametrize("jobs", [0, 257])
def test_a_number_of_threads_that_makes_no_sense_is_refused(jobs: int) -> None:
    with pytest.raises(InputError, match="--jobs"):
        Spread(jobs)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, int], Path]:
    folder, found = tmp_path_factory.mktemp("runs"), {}
    for decoder, jobs in (("full", 1), ("full", 3), ("fast", 2)):
        out = folder / f"{decoder}{jobs}"
        downlink(Request("demo:600", out, mission="sentinel2", decoder=decoder, jobs=jobs), silent)
        found[decoder, jobs] = out
    return found


def report(folder: Path) -> dict:
    found = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    del found["measured_on_host"]
    found["checks"] = [c for c in found["checks"] if c["basis"] != "measured on host"]
    found["budgets"] = [b for b in found["budgets"] if b["basis"] != "measured on host"]
    return found


@pytest.mark.slow
def test_octets_figures_and_pictures_do_not_depend_on_the_threads(runs: dict[tuple[str, int], Path]) -> None:
    one, three = runs["full", 1], runs["full", 3]
    for name in ("packets.bin", "reconstruction.tif", "cloud.tif"):
        assert (one / name).read_bytes() == (three / name).read_bytes(), name
    assert report(one) == report(three)


@pytest.mark.slow
def test_the_decoder_changes_the_picture_a_little_and_no_octet(runs: dict[tuple[str, int], Path]) -> None:
    full, fast = runs["full", 1], runs["fast", 2]
    assert (full / "packets.bin").read_bytes() == (fast / "packets.bin").read_bytes()
    figures = [
        next(m["value"] for m in report(f)["quality"]["metrics"] if m["name"].startswith("PSNR, peak 10"))
        for f in (full, fast)
    ]
    assert 0 < figures[0] - figures[1] < 0.6
    assert [report(f)["inputs"]["decoder"] for f in (full, fast)] == ["full", "fast"]
    assert report(full)["decoder"]["parameters"] > 1e6 and report(fast)["decoder"] == {}


@pytest.mark.parametrize(("col", "width"), [(0, 1300), (100, 700), (1290, 10), (512, 256)])
def test_a_window_read_in_parts_is_the_window(col: int, width: int) -> None:
    with Spread(3) as spread, spread.ahead(demo_scene(300, 1300)) as scene:
        found = scene.read(20, col, 260, width)
    wanted = demo_scene(300, 1300).read(20, col, 260, width)
    assert all(np.array_equal(a, b) for a, b in zip(found, wanted, strict=True))


@pytest.mark.parametrize(
    ("asked", "pixels", "kind"),
    [("auto", 4096 * 4096, "full"), ("auto", 10_980**2, "fast"), ("full", 10_980**2, "full"), ("fast", 1, "fast")],
)
def test_a_large_scene_is_decoded_fast_unless_told_otherwise_and_says_so(asked: str, pixels: int, kind: str) -> None:
    chosen, said = decoder_for(asked, pixels, load_bundle("edge"))
    assert chosen == kind and bool(said) == (asked == "auto" and kind == "fast")
    assert not said or ("121 Mpx" in said[0] and "--decoder full" in said[0])


def test_a_bundle_without_a_network_has_one_decoder_for_any_scene() -> None:
    assert decoder_for("auto", 10_980**2, load_bundle("edge-pan")) == ("full", ())
