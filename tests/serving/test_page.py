"""The page in a real browser: a photo is chosen, the ranked list appears, and no name does harm."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.serving.conftest import HARMFUL
from tests.serving.service import IN_URL, Service, picture

CHROMIUM = Path("/usr/bin/chromium")
api = pytest.importorskip("playwright.sync_api")
pytestmark = pytest.mark.skipif(not CHROMIUM.exists(), reason="no Chromium")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with api.sync_playwright() as started:
        own = started.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        yield own
        own.close()


@pytest.fixture
def page(browser: Any, service: Service) -> Iterator[Any]:
    """The page, opened by the address that the command prints; its console must stay empty."""
    context = browser.new_context(viewport={"width": 400, "height": 800})
    own = context.new_page()
    said: list[str] = []
    own.on("console", lambda message: said.append(message.text))
    own.on("pageerror", lambda error: said.append(str(error)))
    own.goto(f"http://127.0.0.1:{service.port}/?token={IN_URL}")
    _until(own, "document.title.startsWith('Search ')")
    yield own
    assert [text for text in said if "status of 400" not in text] == []  # the browser's own line for a refused upload
    context.close()


def _until(page: Any, true: str) -> None:
    """Waits for an expression. Playwright's own way is refused by the page's policy, as any eval should be."""
    for _ in range(600):
        if page.evaluate(true):
            return
        page.wait_for_timeout(20)
    raise AssertionError(true)


def _choose(page: Any, data: bytes) -> None:
    page.set_input_files("#file", {"name": "<script>.jpg", "mimeType": "image/jpeg", "buffer": data})
    page.wait_for_selector("#results li, #error:not([hidden])")


def _names(page: Any) -> list[str]:
    names: list[str] = page.eval_on_selector_all("#results .name", "all => all.map(one => one.textContent)")
    return names


def _shot(page: Any, name: str) -> None:
    """A picture to look at: REIDRAY_SHOTS=FOLDER."""
    if os.environ.get("REIDRAY_SHOTS"):
        page.wait_for_timeout(300)
        page.screenshot(path=f"{os.environ['REIDRAY_SHOTS']}/{name}.png", full_page=True)


def test_a_photo_is_chosen_and_the_ranked_list_appears(page: Any, service: Service) -> None:
    assert page.url == f"http://127.0.0.1:{service.port}/"
    page.set_viewport_size({"width": 1600, "height": 2000})  # images below the window are loaded when they come into it
    _choose(page, picture(4))
    expected = service.gallery.search(service.folder / "crops" / "c1" / "04.jpg", 20)
    assert _names(page) == [match.name for match in expected]
    assert page.text_content("#results li:first-child b") == "1.000"
    assert page.text_content("#results li:first-child .camera") == "camera 1"
    _until(page, "[...document.querySelectorAll('#results img')].every(one => one.complete)")
    assert page.evaluate("[...document.querySelectorAll('#results img')].every(one => one.naturalWidth > 0)")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1600])
def test_names_that_are_meant_to_do_harm_are_only_text(page: Any, service: Service, width: int, scheme: str) -> None:
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 900})
    page.fill("#k", "100")
    _choose(page, picture(4))
    _until(page, f"document.querySelectorAll('#results li').length == {len(service.gallery)}")
    assert sorted(_names(page)) == sorted(service.gallery.names)
    assert page.title() == "Search people.parquet"
    assert page.evaluate("document.querySelectorAll('main script, #results .name *').length") == 0
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "the page is wider than the window"
    _shot(page, f"page-{width}-{scheme}")


def test_cameras_filter_and_k_limits(page: Any) -> None:
    _choose(page, picture(4))
    boxes = page.eval_on_selector_all("#choices input", "all => all.map(one => one.value)")
    assert sorted(boxes) == sorted(["1", "c0", HARMFUL[1]])
    assert HARMFUL[1] in page.text_content("#choices")
    page.check(f"#choices label:nth-child({1 + boxes.index(HARMFUL[1])}) input")
    wanted = json.dumps(f"camera {HARMFUL[1]}")
    _until(page, f"[...document.querySelectorAll('.camera')].every(one => one.textContent == {wanted})")
    assert page.evaluate("document.querySelectorAll('#choices img, .camera img').length") == 0, "a name became markup"
    assert page.title() == "Search people.parquet"
    assert page.locator("#results li").count() > 3
    page.fill("#k", "3")
    page.press("#k", "Enter")
    _until(page, "document.querySelectorAll('#results li').length == 3")


def test_a_result_is_searched_by_in_turn(page: Any) -> None:
    _choose(page, picture(4))
    second = _names(page)[1]
    page.click("#results li:nth-child(2) button")
    _until(page, f"document.querySelector('#results .name')?.textContent === {json.dumps(second)}")


def test_a_file_that_is_no_image_gets_its_sentence_and_the_page_goes_on(page: Any) -> None:
    _choose(page, b"no image")
    assert page.text_content("#error").startswith("image: expected a JPEG, PNG, BMP, WebP, TIFF or GIF image")
    page.set_input_files("#file", {"name": "a.jpg", "mimeType": "image/jpeg", "buffer": picture(2)})
    page.wait_for_selector("#results li")
    assert page.is_hidden("#error")


def test_everything_is_reached_by_the_keyboard(page: Any) -> None:
    page.wait_for_selector("input[value='c0']")  # the cameras come after the page
    expected = page.eval_on_selector_all("#choices input", "all => all.map(one => one.value)")
    assert len(expected) == 3
    reached = []
    for _ in range(8):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id || document.activeElement.value"))
    assert reached[:5] == ["file", "k", *expected]
    _choose(page, picture(4))
    page.focus("#again")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Search by this"
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
