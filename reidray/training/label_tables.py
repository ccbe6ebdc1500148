"""What labelling an epoch leaves in the memory bank."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from reidray.bank import MemoryBank
from reidray.methods.label_search import Labels
from reidray.methods.method import Method


@dataclass(frozen=True)
class LabelSummary:
    """How an epoch's labelling went. figures, judged: of the method, see `Labels`."""

    num_clusters: int
    num_outliers: int
    figures: dict[str, float] = field(default_factory=dict)
    judged: float | None = None


def write_labels(bank: MemoryBank, version: int, labels: Labels, method: Method) -> LabelSummary:
    """Labels, tables and memories into the bank; waits until all is there.

    Raises:
      ValueError: they are not what the method says that it writes.
    """
    _check(labels, method, sum(count for _, count in bank.layout("train")))
    for name, rows_RSD in labels.memories.items():
        bank.put_memory(name, version, rows_RSD)
    tables = {"labels": labels.labels_N, **labels.tables}
    for block, (first, count) in enumerate(bank.layout("train")):
        own = {name: np.ascontiguousarray(rows[first : first + count]) for name, rows in tables.items()}
        bank.put_tables("train", version, block, own, {}, kept=["labels"])
    bank.flush()
    outliers = int((labels.labels_N < 0).sum())
    return LabelSummary(int(labels.labels_N.max(initial=-1)) + 1, outliers, dict(labels.figures), labels.judged)


def _check(labels: Labels, method: Method, count: int) -> None:
    """Raises ValueError where a method's `label` breaks its own word, before anything wrong is trained on."""
    what = f"{type(method).__name__}.label"
    for kind, given, named in (
        ("tables", labels.tables, method.tables),
        ("memories", labels.memories, method.memories),
    ):
        if set(given) != set(named):
            raise ValueError(f"{what} must give the {kind} {sorted(named)} that the method names, got {sorted(given)}")
    reserved = {"labels", *method.features} & set(labels.tables)
    if reserved:
        raise ValueError(f"{what} gives a table called {min(reserved)}: that name is taken, choose another")
    for name, rows in {"labels_N": labels.labels_N, **labels.tables}.items():
        if len(rows) != count:
            raise ValueError(f"{what} must give a row for each of the {count} images in {name}, got {len(rows)}")
    for name, rows_RSD in labels.memories.items():
        if rows_RSD.ndim != 3:
            raise ValueError(f"{what} must give memory {name} as rows [R, S, D], got shape {rows_RSD.shape}")
    used_C = np.bincount(labels.labels_N[labels.labels_N >= 0])
    if not used_C.all():
        raise ValueError(f"{what} must number clusters without gaps, and cluster {int(used_C.argmin())} has no image")
