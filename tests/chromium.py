"""Chromium, driven through its own DevTools protocol over a pipe: no driver and no further library is needed.

JSON messages that end in NUL go in on file descriptor 3 and come out on 4.
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

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
SECONDS_TO_ANSWER = 60
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--hide-scrollbars",
    "--enable-unsafe-swiftshader",  # WebGL without a GPU
    "--disable-background-networking", "--disable-extensions", "--disable-sync", "--remote-debugging-pipe",
)  # fmt: skip


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
        # A page that goes on asking its server would be heard in the next one: it is left first.
        self._go("about:blank")
        self.events.clear()
        self._go(address)

    def _go(self, address: str) -> None:
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


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    program = next((found for name in NAMES if (found := shutil.which(name))), None)
    if program is None:
        pytest.skip(f"no Chromium here (looked for {', '.join(NAMES)}); `apt-get install chromium` brings one")
    page = Page(program, tmp_path_factory.mktemp("profile"))
    yield page
    page.close()


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

#: Cells and texts that are cut off: they stick out of the window, and no box of their own scrolls to them.
CLIPPED = """[...document.querySelectorAll('th, td, dd, p, h1, h2, h3, li, svg.chart text')].filter((cell) => {
  const box = cell.getBoundingClientRect();
  if (!box.width || cell.closest('thead') && cell.closest('.cards')) return false; // a card's rows name its columns
  const scrolls = cell.closest('.scroll');
  if (scrolls) return !['auto', 'scroll'].includes(getComputedStyle(scrolls).overflowX);
  const drawn = cell instanceof SVGElement; // a drawing's text has no box of its own to be cut by
  return box.left < -0.5 || box.right > innerWidth + 0.5 || !drawn && cell.scrollWidth > cell.clientWidth + 1;
}).map((cell) => cell.outerHTML.slice(0, 90))"""
