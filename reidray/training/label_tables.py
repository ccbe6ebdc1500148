"""What labelling an epoch leaves in the memory bank."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from reidray.bank import MemoryBank
from reidray.methods.label_search import Labels


@dataclass(frozen=True)
class LabelSummary:
    """How an epoch's labelling went. figures: of the method."""

    num_clusters: int
    num_outliers: int
    figures: dict[str, float] = field(default_factory=dict)


def write_labels(bank: MemoryBank, version: int, labels: Labels) -> LabelSummary:
    """Labels, tables and memories into the bank; waits until all is there."""
    for name, rows_RSD in labels.memories.items():
        bank.put_memory(name, version, rows_RSD)
    tables = {"labels": labels.labels_N, **labels.tables}
    for block, (first, count) in enumerate(bank.layout("train")):
        own = {name: np.ascontiguousarray(rows[first : first + count]) for name, rows in tables.items()}
        bank.put_tables("train", version, block, own, {})
    bank.flush()
    outliers = int((labels.labels_N < 0).sum())
    return LabelSummary(int(labels.labels_N.max(initial=-1)) + 1, outliers, dict(labels.figures))
