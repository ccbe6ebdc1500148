"""The site is built without a warning and loads nothing from elsewhere; the tutorial is run as it is written."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.shell_lines import ROOT, python_blocks, shell_blocks


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Strict: links, anchors, docstrings, and pages that nothing leads to, are errors."""
    place = tmp_path_factory.mktemp("site") / "built"
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(place)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return place


class _Loaded(HTMLParser):
    """Addresses that a page loads when it is opened; links that a person follows are not among them."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag in ("script", "img", "iframe", "source", "video") and given.get("src"):
            self.found.append(str(given["src"]))
        if tag == "link" and given.get("href") and given.get("rel") not in ("canonical", "next", "prev"):
            self.found.append(str(given["href"]))


def test_every_page_of_the_site_is_made_of_its_own_files(site: Path) -> None:
    pages = sorted(site.rglob("*.html"))
    assert {path.relative_to(ROOT / "docs").with_suffix(".html") for path in (ROOT / "docs").rglob("*.md")} <= {
        page.relative_to(site) for page in pages
    }
    for page in pages:
        reader = _Loaded()
        reader.feed(page.read_text())
        for address in reader.found:
            assert not re.match(r"(\w+:)?//", address), f"{page.name} loads {address}"
            assert page.name == "404.html" or (page.parent / address.split("?")[0]).exists(), f"{page.name}: {address}"
    for sheet in site.rglob("*.css"):
        assert not re.search(r"url\(\s*[\"']?(https?:)?//|@import", sheet.read_text()), sheet.name


def test_the_page_about_python_has_what_the_package_offers(site: Path) -> None:
    page = (site / "api.html").read_text()
    for name in ("train", "load", "Model", "Model.embed", "Gallery", "Gallery.search", "evaluate"):
        assert f'id="reidray.{name}"' in page, name


@pytest.mark.slow
def test_the_tutorial_about_ones_own_crops_runs_as_it_is_written(tmp_path: Path) -> None:
    """Line by line in an empty folder, but for `reidray browse`, which serves until it is stopped."""
    tutorial = (ROOT / "docs" / "tutorials" / "your-crops.md").read_text()
    (tools := tmp_path / "bin").mkdir()
    (tools / "reidray").write_text(
        f"#!/bin/sh\nexec {sys.executable} -c 'from reidray.commands import main; main()' \"$@\"\n"
    )
    (tools / "reidray").chmod(0o755)
    environment = {**os.environ, "PATH": f"{tools}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    (work := tmp_path / "work").mkdir()

    def run(*words: str) -> None:
        done = subprocess.run(words, cwd=work, env=environment, capture_output=True, text=True, timeout=3600)
        assert done.returncode == 0, f"{words[-1]}\n{done.stdout}\n{done.stderr}"

    lines = [line for line in shell_blocks(tutorial).splitlines() if line and not line.startswith("reidray browse")]
    export = next(at for at, line in enumerate(lines) if line.startswith("reidray export"))
    for line in lines[:export]:
        run("bash", "-c", line)
    for block in python_blocks(tutorial):
        run(sys.executable, "-c", block)
    for line in lines[export:]:
        run("bash", "-c", line)
    for file in ("runs/crops/report.html", "runs/looser/report.html", "people.parquet", "ranked.png", "model.onnx"):
        assert (work / file).stat().st_size > 1000, file
