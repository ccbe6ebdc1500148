"""What is known of a run so far; it goes into every checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

Figures = dict[str, Any]


@dataclass
class UnderWay:
    """Of an epoch that is not finished.

    figures: of its labels. losses, measured: so far, a number a step for each term and each figure of the method.
    """

    figures: Figures
    losses: dict[str, list[float]] = field(default_factory=dict)
    measured: dict[str, list[float]] = field(default_factory=dict)


@dataclass
class History:
    """Of a run.

    images: digest of the training images. labelled: the epoch whose labels and memories are in use, -1 before the
    first. updates: steps of the optimiser. epochs: figures of each. seconds: by stage. evaluations: "before" and
    "after" the run, and of the "last" network where another is reported; None where there is nothing to evaluate on.
    examples: to look at, of the last evaluation. under_way: the epoch that is not finished. to_evaluate: the epoch that
    is being evaluated while training goes on. selected: the epoch whose network is reported and the criterion that
    chose it, where the method chooses. not_kept: why the last checkpoint could not be written, though all else is done;
    None where it was.
    """

    images: str
    labelled: int = -1
    updates: int = 0
    epochs: list[Figures] = field(default_factory=list)
    seconds: dict[str, float] = field(
        default_factory=lambda: dict.fromkeys(("extract", "label", "train", "evaluate"), 0.0)
    )
    evaluations: dict[str, Figures | None] = field(default_factory=dict)
    examples: Figures | None = None
    under_way: UnderWay | None = None
    to_evaluate: int | None = None
    selected: tuple[int, float] | None = None
    not_kept: str | None = None

    def as_tree(self) -> dict[str, Any]:
        """For a checkpoint's JSON, which knows nothing of whether it will be written."""
        tree = asdict(self)
        del tree["not_kept"]
        return tree

    @staticmethod
    def from_tree(tree: Mapping[str, Any]) -> History:
        """The inverse of `as_tree`."""
        under_way = tree["under_way"]
        selected = tree.get("selected")
        return History(
            **{
                **tree,
                "under_way": None if under_way is None else UnderWay(**under_way),
                "selected": None if selected is None else (int(selected[0]), float(selected[1])),
            }
        )
