"""A whole run that is labelled by blocks is the run that is labelled at once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from reidray.launch.launch import launch
from tests.whole.runs import assert_same_run


def test_a_run_labelled_by_blocks_is_the_run_labelled_at_once(
    tiny_settings: Callable[..., Any], tmp_path: Path
) -> None:
    launch(tiny_settings("whole"))
    launch(tiny_settings("blocks", run={"labelling": "blocks", "search_block": 64}))
    assert_same_run(tmp_path / "whole", tmp_path / "blocks")
