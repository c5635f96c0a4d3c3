"""The live page and the replay: coarse first, then refined, holes marked, phone width, both schemes."""

import json
import socket
import struct
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chromium import CONTRAST, Page

from payload.bundle import load_bundle
from payload.errors import InputError
from sim import downlink
from sim.ground.arrivals import ARRIVALS_FILE, unwatched
from sim.live import replay
from sim.live.replay import open_run
from sim.live.server import LiveServer, Show
from sim.live.watching import LiveRun

COUNTS = ("whole", "coarse", "holes")


@pytest.fixture
def run(toy_bundle_with_gate, toy_engine, write_scene, write_mission, monkeypatch, tmp_path) -> Any:
    """A scene of 3 x 4 tiles over a link that loses a fifth in bursts; `watch` as the live page has it."""
    monkeypatch.setattr("sim.onboard.engine_choice.open_engine", lambda name: toy_engine)
    monkeypatch.setattr(replay, "open_engine", lambda name: toy_engine)

    def send(dn: np.ndarray, watch: Any = unwatched, **changes: Any) -> Path:
        mission = write_mission(tmp_path / "mission.toml", packet_octets=200, **changes)
        mission.write_text(mission.read_text() + "\n[link.burst]\nenter = 0.05\nleave = 0.2\n")
        scene = write_scene(tmp_path / "made up.tif", dn)
        request = downlink.Request(
            str(scene), tmp_path / "run", str(mission), str(toy_bundle_with_gate), watch=watch, overwrite=True
        )
        downlink.downlink(request, lambda label, total: None)
        return tmp_path / "run"

    return send


@pytest.fixture
def server() -> Any:
    server = LiveServer()
    server.start()
    yield server
    server.close()


def get(server: LiveServer, target: str, host: str | None = None) -> tuple[int, bytes]:
    request = urllib.request.Request(server.address + target, headers={"Host": host} if host else {})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def numbers(page: Page) -> dict[str, int]:
    return {key: int(page.value(f"parseInt(document.querySelector('#{key}').textContent)")) for key in COUNTS}


def until(page: Page, expression: str) -> None:
    """Waits until a condition of the page holds, 20 s at most."""
    look = f"({expression}) ? done(1) : ++n > 200 ? no('never') : setTimeout(look, 100)"
    page.value(f"new Promise((done, no) => {{ let n = 0; const look = () => {look}; look(); }})")


def own(page: Page, server: LiveServer) -> list[str]:
    """Complaints, the page's own requests to its server left out."""
    return [told for told in page.complaints() if not told.startswith((server.address, "blob:"))]


def test_the_record_agrees_with_the_report(run, ground_of) -> None:
    folder = run(ground_of(3, 4))
    record, report = (json.loads((folder / name).read_text()) for name in (ARRIVALS_FILE, "report.json"))
    layers: dict[tuple[int, int], int] = {}
    for _now_s, row, col, kind, count, sent, _octets in record["events"]:
        assert layers.get((row, col), -1) < count <= sent or kind != "coded"
        layers[row, col] = count
    for tile in report["tiles"]["list"]:
        if tile["kind"] != "lost":
            assert layers[tile["row"], tile["col"]] == tile["layers"]
    lost = {(tile["row"], tile["col"]) for tile in report["tiles"]["list"] if tile["kind"] == "lost"}
    assert not lost & set(layers)
    times = [row[0] for row in record["events"]]
    assert times[0] < 0.5 * times[-1]  # on the way, not when all is over
    assert times == sorted(times) and any(row[4] == 1 for row in record["events"])  # coarse first
    last = record["samples"][-1]
    unit = record["scene"]["unit"]
    assert last[1] == report["link"][f"{unit}_sent"] and 0 < last[2] < last[1]


def test_the_server_is_for_this_machine_and_for_what_it_shows(server) -> None:
    assert server.address.startswith("http://127.0.0.1:")
    assert get(server, "")[0] == 503
    server.show = Show({"name": "x"}, False, 1.0, lambda after: {"after": after}, lambda *key: None)
    server.show.page = lambda: "its page"
    assert get(server, "") == (200, b"its page")
    assert get(server, "state?after=7") == (200, b'{"after": 7}') and get(server, "state?after=x")[0] == 200
    assert get(server, "state", host="elsewhere.example")[0] == 403
    for target in ("../etc/passwd", "tile/0/0/1", "tile/0/0", "tile/-1/0/1", "other"):
        assert get(server, target)[0] == 404
    with pytest.raises(InputError, match="choose another --port"):
        LiveServer(server.port)


def test_a_run_waits_for_the_wall_and_never_for_the_past(server, monkeypatch) -> None:
    run, clock, waited = LiveRun(server, speed=2.0), iter([100.0, 101.0, 103.0]), []
    monkeypatch.setattr("sim.live.watching.time.monotonic", lambda: next(clock))
    monkeypatch.setattr(run.stopped, "wait", waited.append)
    for now_s in (0.0, 4.0, 4.5):  # of the pass: 0, 2 and 2.25 s of the wall after the first
        run.pace(now_s)
    assert waited == [1.0]


def test_a_browser_that_goes_away_leaves_no_traceback(server, capfd) -> None:
    server.show = Show({"name": "x"}, False, 1.0, lambda after: {"events": ["x" * 1000] * 20_000}, lambda *key: None)
    with socket.create_connection(("127.0.0.1", server.port)) as line:
        line.sendall(f"GET /state HTTP/1.0\r\nHost: 127.0.0.1:{server.port}\r\n\r\n".encode())
        line.recv(10)
        line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # closed by a reset
    assert get(server, "state")[0] == 200
    time.sleep(0.3)
    assert "Traceback" not in capfd.readouterr().err


def test_a_run_that_is_none_is_refused_with_the_remedy(run, ground_of, toy_bundle_with_gate, tmp_path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        open_run(tmp_path, None, "openvino", 1.0)
    folder = run(ground_of(1, 2))
    with pytest.raises(InputError, match="give its folder as --bundle"):
        open_run(folder, None, "openvino", 1.0)
    bundle = str(toy_bundle_with_gate)
    record = json.loads((folder / ARRIVALS_FILE).read_text())
    for change, told in (
        ({"schema": "nadir-arrivals/9"}, "wanted 'nadir-arrivals/1'"), ({"events": [[0]]}, "run `sim downlink` again"),
        ({"scene": {}}, "run `sim downlink` again"), ({"samples": [["a", 1, 1, 1]]}, "run `sim downlink` again"),
    ):  # fmt: skip
        (folder / ARRIVALS_FILE).write_text(json.dumps(record | change))
        with pytest.raises(InputError, match=told):
            open_run(folder, bundle, "openvino", 1.0)


def test_tiles_are_served_as_far_as_they_came(run, ground_of, toy_bundle_with_gate, server) -> None:
    folder = run(ground_of(2, 2))
    server.show = open_run(folder, str(toy_bundle_with_gate), "openvino", 1.0)
    coarse, fine = (get(server, f"tile/1/1/{layers}") for layers in (1, 3))
    assert coarse[0] == fine[0] == 200 and coarse[1][:4] == b"\x89PNG" and coarse[1] != fine[1]
    assert get(server, "tile/1/1/4")[0] == get(server, "tile/1/1/0")[0] == get(server, "tile/5/5/1")[0] == 404


@pytest.mark.browser
@pytest.mark.slow
def test_the_replay_shows_coarse_then_fine_then_holes_at_any_speed(
    run, ground_of, toy_bundle_with_gate, server, browser
) -> None:
    folder = run(ground_of(3, 4))
    tiles = json.loads((folder / "report.json").read_text())["tiles"]
    server.show = open_run(folder, str(toy_bundle_with_gate), "openvino", 0.0001)
    browser.events.clear()
    browser.open(server.address)
    until(browser, "document.querySelector('#packets').textContent !== '–'")
    assert numbers(browser)["whole"] == 0  # at a ten-thousandth of its speed nothing has come yet
    browser.value("(s => { s.value = 500; s.dispatchEvent(new Event('input')); })(document.querySelector('#time'))")
    middle = numbers(browser)
    assert 0 < middle["whole"] + middle["coarse"] < 12
    assert browser.value("document.querySelector('#play').textContent") == "Play"
    browser.value("document.querySelector('#speed').value = 1000; document.querySelector('#play').click()")
    until(browser, "document.querySelector('#play').textContent === 'Replay'")
    end = numbers(browser)
    assert end == {
        "whole": tiles["coded"] - tiles["incomplete"], "coarse": tiles["incomplete"],
        "holes": tiles["lost"] + tiles["refused"],
    } and end["coarse"] + end["holes"] > 0  # fmt: skip
    until(browser, "performance.getEntriesByType('resource').filter(e => e.name.includes('/tile/')).length >= 6")
    browser.value("new Promise(done => setTimeout(done, 500))")
    shades = "new Set(document.querySelector('#canvas').getContext('2d').getImageData(0, 0, 256, 192).data).size"
    assert browser.value(shades) > 50
    assert own(browser, server) == []


@pytest.mark.browser
@pytest.mark.slow
def test_a_live_page_follows_the_run_and_then_replays_it(run, ground_of, server, browser) -> None:
    live = LiveRun(server, speed=0.02)  # a hundredth of a second of the pass takes half a second
    work = threading.Thread(target=run, args=(ground_of(3, 4), live.watch), kwargs={"rate_bps": 4e6})
    work.start()
    while server.show is None:
        work.join(0.05)
    browser.events.clear()
    browser.open(server.address)
    until(browser, "parseInt(document.querySelector('#whole').textContent) > 0")
    assert browser.value("document.querySelector('#state').textContent") == "live"
    early = numbers(browser)["whole"]
    until(browser, f"parseInt(document.querySelector('#whole').textContent) > {early}")
    live.stopped.set()  # as fast as it goes from here
    until(browser, "document.querySelector('#state').textContent === 'run over: replay'")
    work.join()
    assert browser.value("document.querySelector('#play').textContent") == "Replay"
    browser.value("document.querySelector('#speed').value = 0.001; document.querySelector('#play').click()")
    assert numbers(browser)["whole"] <= early
    assert own(browser, server) == []


@pytest.mark.browser
@pytest.mark.slow
@pytest.mark.parametrize("width_px", [1280, 400])
def test_the_live_page_fits_its_window_and_can_be_read_in_both_themes(
    run, ground_of, toy_bundle_with_gate, server, browser, width_px
) -> None:
    server.show = open_run(run(ground_of(3, 4)), str(toy_bundle_with_gate), "openvino", 1000.0)
    for theme in ("light", "dark"):
        browser.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": theme}])
        browser.open(server.address, width_px=width_px)
        until(browser, "document.querySelector('#play').textContent === 'Replay'")
        assert browser.value("document.documentElement.scrollWidth") <= width_px
        for selector in ("body", ".facts", ".note", "#play", ".keys li"):
            assert browser.value(CONTRAST.replace("SELECTOR", selector)) >= 4.5, (theme, selector)
    browser.call("Emulation.setEmulatedMedia", features=[])


def test_the_toy_bundle_is_none_that_ships(toy_bundle_with_gate) -> None:
    """What the refusal above rests on."""
    from payload.bundle import shipped_bundles

    toy = load_bundle(str(toy_bundle_with_gate)).bundle_id
    assert toy not in {load_bundle(name).bundle_id for name in shipped_bundles()}
