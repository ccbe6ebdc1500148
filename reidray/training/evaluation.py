"""Evaluation of a model on a query and a gallery split, with the true identities of these splits.

Q = queries, G = gallery images, D = feature width, L = parts, T = classes of the true masks, H, W = cells.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from reidray.arrays import Array, Floats, Ints
from reidray.config import Settings
from reidray.evaluation import Ranking, confusion, mean_iou, rank, stripes
from reidray.features import Network
from reidray.features.grid import CellGrid, pixels_to_cells
from reidray.training.context import Context, Meter, evaluation_splits
from reidray.training.extraction import ExtractedShard, extract_shards
from reidray.training.ranked_examples import examples

_AT_ONCE = 4096  # images whose masks are looked at together
_TRUE_CLASSES = 5  # background, head, torso, legs, shoes
_MERGED = {4: 3}  # shoes count as legs: a map has too few cells for them


@dataclass(frozen=True)
class Evaluation:
    """The figures of one evaluation, mAP and CMC in percent; masks None where there is no truth or no parts."""

    ranking: Ranking
    parsing_mIoU: float | None
    stripes_mIoU: float | None
    foreground_IoU: float | None

    def figures(self) -> dict[str, Any]:
        """By name, as they stand in result.json."""
        return {
            **self.ranking.percent(),
            "parsing_mIoU": self.parsing_mIoU,
            "stripes_mIoU": self.stripes_mIoU,
            "foreground_IoU": self.foreground_IoU,
            "num_valid_queries": self.ranking.num_valid_queries,
        }


def can_evaluate(context: Context) -> bool:
    """Whether there are queries that the gallery can answer."""
    return bool(context.num_answerable)


def remark(context: Context) -> str | None:
    """Why nothing is evaluated, or less than one would think; None where all is well."""
    query, gallery = evaluation_splits(context.settings)
    answerable = context.num_answerable
    if answerable is None:
        return f"nothing is evaluated: there is no {query} and {gallery} with known persons"
    if answerable == 0:
        why = f"nothing is evaluated: no person of {query} is in {gallery}"
        if context.settings.evaluate.same_camera:
            return why
        return f"{why} under another camera (evaluate.same_camera=true counts matches of the same camera, too)"
    total = context.split(query).source.count
    if 2 * answerable < total:
        few = f"{answerable:,} of {total:,} queries"
        return f"evaluations are of {few}: no other camera saw the persons of the others"
    return None


def evaluate(context: Context, model: Network, epoch: int | None, *, lists: int = 0) -> dict[str, Any]:
    """Extract both splits on all workers, rank on rank 0; the figures on every rank.

    `epoch` is the last finished one, None before training. With `lists` > 0 the figures have "examples" among them:
    so many ranked lists, and parts (see `reidray.training.ranked_examples`).
    """
    settings, method = context.settings, context.method
    names = evaluation_splits(settings)
    splits = [context.split(name) for name in names]
    meter = Meter(context, "evaluate", sum(split.source.count for split in splits), splits[0].unit, epoch)
    found = _Found({name: [] for name in names}, [], np.zeros((2, method.num_parts, _TRUE_CLASSES), np.int64))
    for name in names:
        truth = context.true_masks(name) if method.num_parts else None
        for shard in _extract(context, model, name, meter):
            masks_BLHW = shard.arrays.get("masks")
            found.features[name].append((shard.shard, method.evaluated(shard.arrays)))
            if masks_BLHW is None:
                continue
            if name == names[0] and lists:
                found.query_parts.append((shard.shard, masks_BLHW.argmax(1)))
            if truth is not None:
                first, count = context.split(name).source.shard_range(shard.shard)
                found.parsing[:] += _confusions(masks_BLHW, truth[first : first + count], model.grid, context)
    meter.finish()
    with context.spans("workers"):
        gathered = context.ranks.gather(found)
    return context.ranks.broadcast(_figures(context, gathered, lists) if context.ranks.rank == 0 else {})


@dataclass(frozen=True)
class _Found:
    """What a worker found in its shards: features by split, parts of the queries, confusions of parts [2, L, T]."""

    features: dict[str, list[tuple[int, Floats]]]
    query_parts: list[tuple[int, Array]]
    parsing: Ints


def _figures(context: Context, gathered: list[_Found], lists: int) -> dict[str, Any]:
    """Rank the queries in the gallery by Market's protocol, and judge the masks."""
    settings, names = context.settings, evaluation_splits(context.settings)
    query_QD, gallery_GD = (_in_order([part for found in gathered for part in found.features[name]]) for name in names)
    query_persons, gallery_persons = (context.true_persons(name) for name in names)
    cameras = context.compared_cameras
    if query_persons is None or gallery_persons is None:
        raise ValueError(f"{context.packed} has no true identities for {' and '.join(names)}: nothing to measure")
    persons = [query_persons, gallery_persons]
    with context.spans("rank"):
        ranking = rank(query_QD, gallery_GD, *persons, *cameras, block=settings.evaluate.block)
    counts = np.sum([found.parsing for found in gathered], axis=0)
    qualities = [mean_iou(table) for table in counts] if counts.any() else None
    figures = Evaluation(
        ranking,
        parsing_mIoU=100 * qualities[0].mIoU if qualities else None,
        stripes_mIoU=100 * qualities[1].mIoU if qualities else None,
        foreground_IoU=100 * qualities[0].foreground_IoU if qualities else None,
    ).figures()
    if lists:
        parts = [part for found in gathered for part in found.query_parts]
        shown = _in_order(parts) if parts else None
        figures["examples"] = examples(query_QD, gallery_GD, persons, cameras, shown, ranking.precisions_Q, lists=lists)
    return figures


def _extract(context: Context, model: Network, name: str, meter: Meter) -> Sequence[ExtractedShard]:
    train = context.settings.train
    return list(
        extract_shards(
            model,
            context.split(name),
            context.own_shards(name),
            batch=train.extract_batch,
            device=context.device,
            precision=train.precision,
            keep=context.method.to_evaluate,
            progress=meter.add,
            spans=context.spans,
        )
    )


def _confusions(masks_BLHW: Array, truth_Bhw: Array, grid: Any, context: Context) -> Ints:
    """Counts [2, L, T] of cells by part and true class: of the predicted masks, and of stripes of their foreground."""
    num_parts = context.method.num_parts
    parts_BHW = masks_BLHW.argmax(1)
    truth_BHW = true_cells(truth_Bhw, grid, (parts_BHW.shape[1], parts_BHW.shape[2]), context.settings)
    bands_BHW = stripes(parts_BHW != num_parts - 1, num_parts)
    return np.stack([confusion(parts, truth_BHW, num_parts, _TRUE_CLASSES) for parts in (parts_BHW, bands_BHW)])


def true_cells(truth_Bhw: Array, grid: CellGrid, map_size: tuple[int, int], settings: Settings) -> Ints:
    """The true class of each cell [B, H, W] from pixel masks at any resolution; shoes count as legs."""
    truth = torch.from_numpy(np.array(truth_Bhw))  # a copy: masks may be mapped from a file
    size = (settings.data.height, settings.data.width)
    cells = pixels_to_cells(truth, grid, map_size, size, _TRUE_CLASSES).numpy()
    for old, new in _MERGED.items():
        cells[cells == old] = new
    return cells


def parsing_quality(parts_NHW: Array, truth_Nhw: Array, grid: Any, context: Context) -> float:
    """mIoU in percent of hard parts of all images against true masks, which are looked at a few at a time."""
    table_LT = np.zeros((context.method.num_parts, _TRUE_CLASSES), np.int64)
    for first in range(0, len(parts_NHW), _AT_ONCE):
        parts_BHW = parts_NHW[first : first + _AT_ONCE].astype(np.int64)
        truth_Bhw = truth_Nhw[first : first + _AT_ONCE]
        truth_BHW = true_cells(truth_Bhw, grid, (parts_BHW.shape[1], parts_BHW.shape[2]), context.settings)
        table_LT += confusion(parts_BHW, truth_BHW, context.method.num_parts, _TRUE_CLASSES)
    return 100 * mean_iou(table_LT).mIoU


def _in_order(parts: list[tuple[int, Any]]) -> Any:
    """Rows of all shards in the order of the split."""
    return np.concatenate([rows for _, rows in sorted(parts, key=lambda part: part[0])])
