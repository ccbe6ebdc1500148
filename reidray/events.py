"""What a run tells its listeners (console, files, loggers, metrics): plain dicts, made here where several need them.

The kinds and their fields are listed at `reidray.report.console.Console.handle`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Event = dict[str, Any]


def message(text: str, *, detail: bool = False) -> Event:
    """A sentence for the console and the log; a detail is for the log alone."""
    return {"kind": "message", "text": text, "detail": detail}


def stage(
    name: str,
    *,
    done: int,
    total: int,
    unit: str = "images",
    epoch: int | None = None,
    images_per_second: float | None = None,
    losses: Mapping[str, float] | None = None,
) -> Event:
    """Progress of a stage such as "extract": `done` of `total` images or steps; epoch None outside of the epochs."""
    return {
        "kind": "stage",
        "stage": name,
        "epoch": epoch,
        "done": done,
        "total": total,
        "unit": unit,
        "images_per_second": images_per_second,
        "losses": losses,
    }
