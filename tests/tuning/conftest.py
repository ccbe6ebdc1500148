"""Search files for the tests of this folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from reidray.tuning.search_file import Search, read_search


@pytest.fixture
def reading(tmp_path: Path) -> Callable[[str], Search]:
    """Reads a text as a search file."""

    def read(text: str) -> Search:
        path = tmp_path / "search.yaml"
        path.write_text(text)
        return read_search(path)

    return read
