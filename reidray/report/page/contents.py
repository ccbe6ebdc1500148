"""What the page of a run is made from.

N = images or tracklets, K = cameras.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from reidray.arrays import Array, Bytes, Ints
from reidray.storage.kept_labels import LastLabels

Thumbnails = Callable[[Ints], Bytes]
"""Pictures by their indices: uint8 [B, H, W, 3], all of one size."""


@dataclass(frozen=True)
class RankedList:
    """A query and what was ranked first for it; names and pictures of each, and whether it shows the query's person.

    score: average precision of the query in 0..1, None where it was not kept.
    """

    query: str
    ranked: Sequence[str]
    right: Sequence[bool]
    pictures: Bytes  # the query's, then those of the ranked ones
    score: float | None = None


@dataclass(frozen=True)
class RunContents:
    """A run, to be looked at.

    Attributes:
      title: of the page: the name of the run folder.
      settings: section -> name -> value.
      epochs, steps, evaluations: see `reidray.storage.runfolder.RunFolder`.
      result: result.json, None where the run has not ended.
      unit: "images" or "tracklets".
      names: of the training images or tracklets [N].
      cameras_N: 0-based, -1 unknown.
      thumbnails: pictures of them.
      persons_N: true identities, where they are known.
      last: the last labelling; None: nothing was kept of it.
      labels: the labels of every epoch that labelled, by epoch.
      ranked: worst first.
      skipped: files that were left out when the data set was packed: reason -> how many.
      masks: whether the run folder has pictures/part_masks.png.
      commands: what to do next: a line and its meaning.
      umap: map by UMAP where it is installed; else, and otherwise, by t-SNE.
    """

    title: str
    settings: Mapping[str, Mapping[str, Any]]
    epochs: Sequence[Mapping[str, Any]]
    steps: Sequence[Mapping[str, Any]]
    evaluations: Sequence[Mapping[str, Any]]
    result: Mapping[str, Any] | None
    unit: str
    names: Sequence[str]
    cameras_N: Array
    thumbnails: Thumbnails
    persons_N: Ints | None = None
    last: LastLabels | None = None
    labels: Mapping[int, Ints] = field(default_factory=dict)
    ranked: Sequence[RankedList] = ()
    skipped: Mapping[str, int] = field(default_factory=dict)
    masks: bool = False
    commands: Sequence[tuple[str, str]] = ()
    umap: bool = True
