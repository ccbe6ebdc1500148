"""The page in a real browser, opened from disk: at two widths, light and dark, by mouse and by keyboard."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from reidray.report.page import write_page
from tests.report.run_pages import HARMFUL, contents

sync = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = Path("/usr/bin/chromium")
pytestmark = pytest.mark.skipif(not CHROMIUM.exists(), reason="no Chromium at /usr/bin/chromium")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_page(tmp_path_factory.mktemp("a <run> & 'more'"), contents(700, 45))


def opened(browser: Any, path: Path, *, width: int = 1600, scheme: str = "light") -> tuple[Any, list[str]]:
    """A page that is ready, and a list of everything that it complains of."""
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page, wrong = context.new_page(), []
    page.on("console", lambda message: wrong.append(message.text))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on(
        "request", lambda request: None if request.url.startswith(("file:", "data:")) else wrong.append(request.url)
    )
    page.goto(path.as_uri())
    page.wait_for_selector("html[data-ready=yes]", state="attached", timeout=30_000)
    return page, wrong


def overflow(page: Any) -> int:
    return int(page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth"))


COLOURS = """() => {
  const style = getComputedStyle(document.querySelector('section'));
  return [style.color, style.backgroundColor];
}"""


@pytest.mark.parametrize("width", [400, 1600])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_fits_every_screen_and_complains_of_nothing(
    browser: Any, page_file: Path, width: int, scheme: str
) -> None:
    page, wrong = opened(browser, page_file, width=width, scheme=scheme)
    assert overflow(page) == 0
    assert page.locator("#clusters-list article").count() == 20
    ink, paper = (sum(map(int, colour[4:-1].split(",")[:3])) for colour in page.evaluate(COLOURS))
    assert (ink < paper) == (scheme == "light")
    page.get_by_text("Every setting").click()
    assert overflow(page) == 0
    assert wrong == []
    page.context.close()


def test_one_is_not_said_to_be_several(browser: Any, tmp_path: Path) -> None:
    page, wrong = opened(browser, write_page(tmp_path, contents(40, 1)))
    assert page.locator("#clusters-pager .said").text_content() == "1–1 of 1 cluster"
    assert wrong == []
    page.context.close()


def test_clusters_are_paged_filtered_and_found_by_number(browser: Any, page_file: Path) -> None:
    page, wrong = opened(browser, page_file)
    pager = page.locator("#clusters-pager")
    first = page.locator("#clusters-list h3").all_text_contents()
    pager.get_by_role("button", name="Next").click()
    page.wait_for_function("document.querySelector('#clusters-pager .said').textContent.startsWith('21')")
    page.wait_for_function(f"document.querySelector('#clusters-list h3').textContent !== '{first[0]}'")
    assert not set(first) & set(page.locator("#clusters-list h3").all_text_contents())
    page.locator("#wanted").fill(first[3].removeprefix("Cluster "))
    page.locator("#wanted").press("Enter")
    page.wait_for_selector(f"h3:text-is('{first[3]}')")
    page.locator("#filter").select_option("changed")
    page.wait_for_function("!document.querySelector('#clusters-pager .said').textContent.includes('of 45')")
    assert page.locator("#clusters-list article").count() > 0
    assert wrong == []
    page.context.close()


def test_every_part_is_reached_by_keyboard_alone(browser: Any, page_file: Path) -> None:
    page, wrong = opened(browser, page_file)
    page.locator("#clusters-list .thumb").first.focus()
    assert page.locator("#tip").is_visible()
    page.keyboard.press("Enter")
    assert page.locator("dialog").is_visible()
    page.keyboard.press("Escape")
    assert not page.locator("dialog").is_visible()
    page.locator("#map-canvas").focus()
    for key in ("ArrowRight", "ArrowRight", "ArrowUp"):
        page.keyboard.press(key)
    page.locator("#map-said").get_by_text("camera").wait_for()
    page.keyboard.press("Enter")
    page.wait_for_selector("dialog[open]")
    page.keyboard.press("Enter")  # closes it: the button that does is the one in focus
    assert not page.locator("dialog").is_visible()
    assert wrong == []
    page.context.close()


def test_a_dot_of_the_map_shows_its_image_under_the_mouse(browser: Any, page_file: Path) -> None:
    page, wrong = opened(browser, page_file)
    canvas = page.locator("#map-canvas")
    canvas.scroll_into_view_if_needed()
    x, y = page.evaluate("""(async () => {
      const canvas = document.getElementById('map-canvas');
      let xy = null;
      await new Promise((done) => {
        const kept = window.reidrayPart;
        window.reidrayPart = (name, value) => { xy = value.xy[5]; };
        const script = document.createElement('script');
        script.src = 'report/map.js?again';
        script.onload = () => { window.reidrayPart = kept; done(); };
        document.head.append(script);
      });
      return [14 + xy[0] * (canvas.clientWidth - 28), 14 + (1 - xy[1]) * (canvas.clientHeight - 28)];
    })()""")
    canvas.hover(position={"x": x, "y": y})
    page.wait_for_selector("#tip .thumb")
    assert "camera" in page.locator("#tip").text_content()
    assert wrong == []
    page.context.close()


SHOW_ALL = """() => {
  const every = [...document.querySelectorAll('#clusters-list button')];
  const buttons = every.filter((one) => one.textContent.startsWith('Show'));
  buttons.forEach((one) => one.click());
  return buttons.length === 0;
}"""
LABELS = "all => all.map((one) => one.getAttribute('aria-label'))"


def test_names_are_text_whatever_stands_in_them(browser: Any, page_file: Path) -> None:
    page, wrong = opened(browser, page_file, width=400)
    pager, long, seen = page.locator("#clusters-pager"), page.locator(".thumb[aria-label^='long/']"), set()
    for place in range(3):
        pager.get_by_text(f"{20 * place + 1}–").wait_for()
        page.wait_for_function(SHOW_ALL)
        seen |= set(page.locator(".thumb").evaluate_all(LABELS))
        if long.count() and not page.locator("dialog").text_content():
            long.first.click()
            assert page.locator("dialog").text_content().count("x" * 200) == 1
            box = page.locator("dialog").bounding_box()
            assert box["x"] >= 0
            assert box["x"] + box["width"] <= 400
            assert overflow(page) == 0
            page.keyboard.press("Escape")
        if place < 2:
            pager.get_by_role("button", name="Next").click()
    assert page.locator("dialog").text_content()
    for name in HARMFUL:
        assert any(label.startswith(f"{name}: ") for label in seen), name
    assert page.evaluate("window.harmed === undefined")
    assert wrong == []
    page.context.close()


ATTACK = """() => {
  const add = (tag) => document.body.appendChild(document.createElement(tag));
  add('img').src = 'https://example.invalid/a.png';
  add('div').innerHTML = "<img src='data:,' onerror='window.harmed = 1'>";
  add('script').textContent = 'window.harmed = 2';
  return fetch('https://example.invalid/').catch(() => null);
}"""


def test_the_policy_of_the_page_lets_nothing_out_and_no_markup_run(browser: Any, page_file: Path) -> None:
    page, wrong = opened(browser, page_file)
    failed: dict[str, str] = {}
    page.on("requestfailed", lambda request: failed.update({request.url: request.failure}))
    page.evaluate(ATTACK)
    page.wait_for_timeout(200)
    assert page.evaluate("window.harmed === undefined")
    refused = [text for text in wrong if "Content Security Policy" in text]
    assert len(refused) >= 4
    assert {text for text in wrong if text.startswith("http")} == set(failed)
    assert set(failed.values()) <= {"csp"}
    page.context.close()


def test_a_page_without_its_folder_says_what_is_missing(browser: Any, page_file: Path, tmp_path: Path) -> None:
    (tmp_path / "report.html").write_bytes(page_file.read_bytes())
    page = browser.new_page()
    page.goto((tmp_path / "report.html").as_uri())
    page.wait_for_selector(".error")
    assert "keep the folder report beside the page" in page.locator(".error").first.text_content()
    assert page.locator("#summary").is_visible()
    page.close()


@pytest.mark.slow
def test_a_page_of_100_000_images_is_a_few_hundred_files_and_opens_at_once(browser: Any, tmp_path: Path) -> None:
    path = write_page(tmp_path, contents(100_000, 5_000))
    assert len(list((tmp_path / "report").iterdir())) < 500
    page, wrong = opened(browser, path)
    assert "of 5,000 clusters" in page.locator("#clusters-pager").text_content()
    assert overflow(page) == 0
    page.locator("#wanted").fill("4321")
    page.locator("#go").click()
    page.wait_for_selector("h3:text-is('Cluster 4321')")
    assert wrong == []
    page.context.close()
