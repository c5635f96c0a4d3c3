"""report.html in a real browser, from disk: no error, no request, a swipe that works by mouse, finger and keyboard.

Chromium is driven through its own DevTools protocol over a pipe (JSON messages that end in NUL on file descriptors 3
and 4), so that no driver and no further library is needed.
"""

import fcntl
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sim.report.files import write_report

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
SECONDS_TO_ANSWER = 60
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--hide-scrollbars",
    "--disable-background-networking", "--disable-extensions", "--disable-sync", "--remote-debugging-pipe",
)  # fmt: skip

pytestmark = [pytest.mark.browser, pytest.mark.slow]


class Page:
    """One open page. `events` holds everything the browser told of its own accord."""

    def __init__(self, program: str, profile: Path) -> None:
        (commands, self._write), (self._read, answers) = os.pipe(), os.pipe()
        commands, answers = (fcntl.fcntl(fd, fcntl.F_DUPFD, 10) for fd in (commands, answers))

        def three_and_four() -> None:
            os.dup2(commands, 3)
            os.dup2(answers, 4)

        self._process = subprocess.Popen(
            [program, *FLAGS, f"--user-data-dir={profile}", "about:blank"],
            pass_fds=(3, 4), preexec_fn=three_and_four, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        self.events: list[dict[str, Any]] = []
        self._pending, self._number, self._session = b"", 0, None
        target = next(t for t in self.call("Target.getTargets")["targetInfos"] if t["type"] == "page")
        self._session = self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)["sessionId"]
        for domain in ("Runtime", "Log", "Network", "Page"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        return self._wait(lambda answer: answer.get("id") == self._number)["result"]

    def open(self, address: str, width_px: int = 1280, height_px: int = 900, touch: bool = False) -> None:
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width_px, height=height_px, deviceScaleFactor=1, mobile=touch
        )
        self.call("Emulation.setTouchEmulationEnabled", enabled=touch)
        self.call("Page.navigate", url=address)
        self._wait(lambda event: event.get("method") == "Page.loadEventFired")

    def value(self, expression: str) -> Any:
        """What a JavaScript expression gives, promises awaited."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def mouse(self, kind: str, x: float, y: float) -> None:
        self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", buttons=1, clickCount=1)

    def key(self, name: str) -> None:
        code = {"ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40, "Enter": 13}[name]
        for kind in ("rawKeyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=name, code=name, windowsVirtualKeyCode=code)

    def middle(self, selector: str) -> tuple[float, float]:
        """Where the middle of an element is in the window; it is scrolled into view first."""
        x, y = self.value(
            f"(() => {{ const e = document.querySelector({selector!r}); e.scrollIntoView({{block: 'center'}});"
            "const b = e.getBoundingClientRect(); return [b.x + b.width / 2, b.y + b.height / 2]; })()"
        )
        return x, y

    def complaints(self) -> list[str]:
        """Errors and warnings of the console, exceptions, and requests that left the page."""
        found = []
        for event in self.events:
            method, told = event["method"], event["params"]
            if method == "Runtime.exceptionThrown":
                found.append(str(told["exceptionDetails"]))
            if method == "Runtime.consoleAPICalled" and told["type"] in ("error", "warning", "assert"):
                found.append(str(told["args"]))
            if method == "Log.entryAdded" and told["entry"]["level"] in ("error", "warning"):
                found.append(told["entry"]["text"])
            if method == "Network.requestWillBeSent" and not told["request"]["url"].startswith(("data:", "file:")):
                found.append(told["request"]["url"])
        return found

    def close(self) -> None:
        self._session = None
        self.call("Browser.close")
        self._process.wait(SECONDS_TO_ANSWER)
        for fd in (self._write, self._read):
            os.close(fd)

    def _wait(self, wanted: Any) -> dict[str, Any]:
        """The first message that is wanted, which may be an event that came already. Others are kept as events."""
        for number, event in enumerate(self.events):
            if wanted(event):
                return self.events.pop(number)
        deadline = time.monotonic() + SECONDS_TO_ANSWER
        while time.monotonic() < deadline:
            while b"\0" in self._pending:
                text, _, self._pending = self._pending.partition(b"\0")
                message = json.loads(text)
                if wanted(message):
                    assert "error" not in message, message
                    return message
                if "method" in message:
                    self.events.append(message)
            if select.select([self._read], [], [], 1.0)[0]:
                self._pending += os.read(self._read, 1 << 20)
            assert self._process.poll() is None, "Chromium ended"
        raise TimeoutError(f"Chromium did not answer within {SECONDS_TO_ANSWER} s")


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    program = next((found for name in NAMES if (found := shutil.which(name))), None)
    if program is None:
        pytest.skip(f"no Chromium here (looked for {', '.join(NAMES)}); `apt-get install chromium` brings one")
    page = Page(program, tmp_path_factory.mktemp("profile"))
    yield page
    page.close()


@pytest.fixture
def page(browser: Page, example_report: dict[str, Any], example_pictures: dict[str, Path], tmp_path: Path) -> Page:
    _, html = write_report(example_report, example_pictures, tmp_path)
    browser.events.clear()
    browser.open(html.as_uri())
    return browser


def test_page_opens_from_disk_without_errors_or_requests(page: Page) -> None:
    page.value("new Promise(done => requestAnimationFrame(() => setTimeout(done, 200)))")
    assert page.complaints() == []
    assert page.value("document.title") == "made-up <scene>.tif: downlink report"
    assert page.value("[...document.images].every(i => i.complete && i.naturalWidth > 0)")


def test_complaints_are_heard(page: Page) -> None:
    """The listener itself: an error, a warning and a forbidden request must not pass unseen."""
    page.value("console.error('made up'); new Image().src = 'https://example.org/x.png'; 0")
    page.value("new Promise(done => setTimeout(done, 300))")
    assert any("made up" in complaint for complaint in page.complaints())
    assert any("example.org" in complaint for complaint in page.complaints())


def test_swipe_follows_the_mouse(page: Page) -> None:
    x, y = page.middle("#divider")
    width = page.value("document.querySelector('#stage').clientWidth")
    page.mouse("mousePressed", x, y)
    page.mouse("mouseMoved", x - width / 4, y)
    page.mouse("mouseReleased", x - width / 4, y)
    assert page.value("+document.querySelector('#slider').value") == pytest.approx(25, abs=1)
    assert page.value("getComputedStyle(document.querySelector('#right-layer')).clipPath") == "inset(0px 0px 0px 25%)"
    left, right = (page.value(f"document.querySelector('#{side}-picture').src.length") for side in ("left", "right"))
    assert left != right


def test_swipe_follows_a_finger(page: Page) -> None:
    page.open(page.value("location.href"), width_px=400, height_px=800, touch=True)
    x, y = page.middle("#divider")
    page.call("Input.dispatchTouchEvent", type="touchStart", touchPoints=[{"x": x, "y": y}])
    page.call("Input.dispatchTouchEvent", type="touchMove", touchPoints=[{"x": x + 80, "y": y}])
    page.call("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])
    assert page.value("+document.querySelector('#slider').value") > 60


def test_swipe_follows_the_arrow_keys(page: Page) -> None:
    page.value("document.querySelector('#slider').focus()")
    for _ in range(4):
        page.key("ArrowRight")
    assert page.value("+document.querySelector('#slider').value") == 52
    assert page.value("document.querySelector('#divider').style.left") == "52%"


def test_a_tile_of_the_map_is_told_and_shown(page: Page) -> None:
    page.value("document.querySelector('.map').focus()")
    for name in ("ArrowDown", "ArrowDown", "ArrowRight", "ArrowRight", "ArrowDown", "ArrowDown"):
        page.key(name)
    told = page.value("document.querySelector('#tile-told').textContent")
    assert "tile row 3, column 2" in told
    page.key("ArrowDown")
    assert "refused" in page.value("document.querySelector('#tile-told').textContent")
    page.key("Enter")
    assert page.value("document.querySelector('#zoom-level').textContent") == "2.5×"
    box, frame = (
        page.value(f"(b => [b.left, b.top, b.right, b.bottom])(document.querySelector('{s}').getBoundingClientRect())")
        for s in ("#stage .outline", "#stage")
    )
    assert frame[0] <= box[0] < box[2] <= frame[2] and frame[1] <= box[1] < box[3] <= frame[3]


@pytest.mark.parametrize("width_px", [1280, 400])
def test_nothing_sticks_out_sideways(page: Page, width_px: int) -> None:
    page.open(page.value("location.href"), width_px=width_px)
    assert page.value("document.documentElement.scrollWidth") <= width_px


def test_text_stands_out_in_both_themes(page: Page) -> None:
    """WCAG 2.1 asks for a contrast of 4.5 of text against its ground."""
    for theme in ("light", "dark"):
        page.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": theme}])
        for selector in ("body", ".facts", ".verdict", ".convention", ".basis-modelled", ".row-held .state"):
            assert page.value(CONTRAST.replace("SELECTOR", selector)) >= 4.5, (theme, selector)
    page.call("Emulation.setEmulatedMedia", features=[])


#: Relative luminance and contrast ratio as WCAG 2.1 defines them.
CONTRAST = """(() => {
  const numbers = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const luminance = (c) => [0.2126, 0.7152, 0.0722].reduce((sum, weight, k) => {
    const v = c[k] / 255;
    return sum + weight * (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  }, 0);
  const element = document.querySelector('SELECTOR');
  let ground = element;
  while (ground && numbers(getComputedStyle(ground).backgroundColor)[3] === 0) ground = ground.parentElement;
  const a = luminance(numbers(getComputedStyle(element).color));
  const b = luminance(numbers(getComputedStyle(ground).backgroundColor));
  return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
})()"""
