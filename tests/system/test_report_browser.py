"""report.html in a real browser, from disk: no error, no request, a swipe that works by mouse, finger and keyboard."""

from pathlib import Path
from typing import Any

import pytest
from chromium import CONTRAST, Page

from sim.report.files import write_report

pytestmark = [pytest.mark.browser, pytest.mark.slow]


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
