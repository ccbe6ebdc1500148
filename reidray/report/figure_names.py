"""Names of figures on the console, and the lines made of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reidray.spans import STEP_PARTS

FIGURES = {
    "mAP": "mAP",
    "mAP_trapezoid": "mAP (trapezoid)",
    "rank1": "rank-1",
    "rank5": "rank-5",
    "rank10": "rank-10",
    "mINP": "mINP",
    "parsing_mIoU": "parsing mIoU",
}
CLUSTERING = {
    "stability": "stability",
    "silhouette": "silhouette",
    "camera_cycle": "camera cycle",
    "agreement": "agreement",
    "camera_mixing": "camera mixing",
    "ARI": "ARI",
    "AMI": "AMI",
    "purity": "purity",
    "pseudo_mIoU": "mIoU of pseudo masks",
}


def step_words(figures: Mapping[str, Any]) -> list[str]:
    """Milliseconds of a step, and where the most of them went."""
    if "step_ms" not in figures:
        return []
    whole = figures["step_ms"]
    parts = {name: figures.get(f"step_ms_{name}", 0.0) for name in STEP_PARTS}
    named = sorted((name for name in parts if parts[name] >= 0.05 * whole), key=lambda name: -parts[name])
    return [f"step {whole:.3g} ms (" + ", ".join(f"{name} {parts[name]:.3g}" for name in named) + ")"]


def alone(figures: Mapping[str, Any]) -> list[str]:
    """A table of the figures of one network, in percent."""
    return [f"{word:<16}{figures[name]:>8.2f}" for name, word in FIGURES.items() if figures.get(name) is not None]


def comparison(before: Mapping[str, Any] | None, after: Mapping[str, Any]) -> list[str]:
    """A table of the figures before and after training."""
    lines = ["", f"{'':<16}{'before':>8}{'after':>8}{'gain':>8}   (percent)"]
    for name, word in FIGURES.items():
        if after.get(name) is None:
            continue
        first = None if before is None else before.get(name)
        start = "-" if first is None else f"{first:.2f}"
        gain = "-" if first is None else f"{after[name] - first:+.2f}"
        lines.append(f"{word:<16}{start:>8}{after[name]:>8.2f}{gain:>8}")
    return [*lines, ""]
