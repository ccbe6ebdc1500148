"""What a run was and what came out of it, in sentences, and what one should be careful about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from reidray.counted import counted
from reidray.report.figure_names import FIGURES
from reidray.report.page.contents import RunContents
from reidray.report.progress import duration

_STAGES = {"extract": "features", "label": "labels", "train": "training", "evaluate": "evaluation"}


def _of_data(data: Mapping[str, Any]) -> str:
    if data["dataset"] == "drawn":
        return "drawn pedestrians"
    place = data.get("root") or data.get("packed") or ""
    return str(place) if data["dataset"] in ("auto", "folder", "list") else f"data set {data['dataset']}"


def sentences(run: RunContents) -> list[str]:
    """What was run and what came out."""
    method, data = run.settings["method"], run.settings["data"]
    cameras = len(np.unique(run.cameras_N[run.cameras_N >= 0]))
    where = f" from {counted(cameras, 'camera')}" if cameras else ", whose cameras are not known"
    supervision = (run.result or {}).get("supervision")
    how = f", {supervision}" if supervision else ""
    trained = [epoch for epoch in run.epochs if any(name.startswith("loss_") for name in epoch)]
    said = [
        f"Method {method['name']}{how}, on {len(run.names):,} {run.unit} of {_of_data(data)}{where}: "
        f"{counted(len(run.epochs), 'epoch')}, {counted(len(run.steps), 'update')}"
        + (f" in {len(trained)} of them." if run.epochs and len(trained) != len(run.epochs) else ".")
    ]
    if run.last is not None:
        said.append(_clusters(run))
    before, after = _mAP(run, "before"), _mAP(run, "after")
    if before is not None and after is not None:
        split = run.settings["evaluate"]["split"]
        said.append(
            f"Retrieval on the {split} split: mAP was {before:.1f} before training and is {after:.1f} percent after."
        )
    elif after is None:
        said.append("Retrieval was not measured: there is no query and gallery with known persons.")
    if run.result is None:
        said.append("The run has not ended: what stands here is as of its newest checkpoint.")
    return said


def cautions(run: RunContents) -> list[str]:
    """What one should be careful about; empty where nothing stands out."""
    found = []
    if run.settings["data"]["dataset"] == "drawn":
        found.append("These are drawn pedestrians, not people: the figures say nothing about real cameras.")
    if run.skipped:
        listed = "; ".join(f"{reason} ({count:,})" for reason, count in run.skipped.items())
        found.append(f"{counted(sum(run.skipped.values()), 'file')} could not be used and took no part: {listed}.")
    if run.last is not None:
        found += _of_labels(run)
    stable = next((epoch["stability"] for epoch in reversed(run.epochs) if epoch.get("stability") is not None), None)
    if stable is not None and stable < 0.7:
        found.append(
            f"The clusters still changed a lot in the last labelling (agreement with those before: {stable:.2f} of 1): "
            "more epochs (train.epochs) may help."
        )
    before, after = _mAP(run, "before"), _mAP(run, "after")
    if before is not None and after is not None and after < before:
        found.append(f"mAP fell by {before - after:.1f} percent points in training: the start weights were better.")
    return found


def _of_labels(run: RunContents) -> list[str]:
    assert run.last is not None
    labels_N, found = run.last.labels_N, []
    clusters, eps = len(run.last.doubts.doubts_C), run.settings["method"].get("eps")
    outliers = float((labels_N < 0).mean())
    if clusters == 1:
        found.append(
            f"All {run.unit} are in one cluster, of which nothing can be learned: lower method.eps (now {eps})."
        )
    if outliers > 0.5:
        found.append(
            f"{100 * outliers:.0f} % of the {run.unit} are outliers and were not trained on: raise method.eps (now "
            f"{eps}), or give more {run.unit} of each person."
        )
    known = run.cameras_N >= 0
    if not known.any():
        found.append("No camera is known, so nobody can see whether clusters follow cameras in the place of persons.")
    elif len(np.unique(run.cameras_N[known])) > 1 and clusters > 1:
        pairs = np.unique(np.stack([labels_N, run.cameras_N])[:, (labels_N >= 0) & known], axis=1)
        single = float((np.bincount(pairs[0], minlength=clusters) == 1).mean())
        if single > 0.5:
            found.append(
                f"{100 * single:.0f} % of the clusters are of one camera only: they may follow cameras in the place of "
                "persons."
            )
    return found


def figures(run: RunContents) -> list[tuple[str, str, str, str]]:
    """Name, before, after and gain of the figures in percent; empty where nothing was evaluated."""
    moments = {line["when"]: line for line in run.evaluations}
    before, after = moments.get("before", {}), moments.get("after", {})
    rows = []
    for name, word in FIGURES.items():
        first, last = before.get(name), after.get(name)
        if last is None and first is None:
            continue
        gain = f"{last - first:+.2f}" if first is not None and last is not None else "–"
        rows.append((word, _figure(first), _figure(last), gain))
    return rows


def seconds(run: RunContents) -> list[tuple[str, str, float]]:
    """Stages, how long they took, and their share in percent of the whole run."""
    spent: Mapping[str, float] = (run.result or {}).get("seconds", {})
    total = spent.get("total", 0.0)
    if not total:
        return []
    rows = [(word, spent.get(name, 0.0)) for name, word in _STAGES.items()]
    rows.append(("everything else", max(0.0, total - sum(own for _, own in rows))))
    return [(word, duration(own), round(100 * own / total, 1)) for word, own in [*rows, ("the whole run", total)]]


def differing(settings: Sequence[Mapping[str, Mapping[str, Any]]]) -> list[tuple[str, list[str]]]:
    """Settings in which runs differ, by dotted name, with the value of each run; places of files are left out."""
    flat = [_flat(tree) for tree in settings]
    names = sorted({name for tree in flat for name in tree} - {"run.dir", "data.root", "data.packed", "data.cache_dir"})
    rows = [(name, [_value(tree.get(name)) for tree in flat]) for name in names]
    return [(name, values) for name, values in rows if len(set(values)) > 1]


def _flat(tree: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            found.update(_flat(value, f"{before}{name}."))
        else:
            found[f"{before}{name}"] = value
    return found


def _value(value: Any) -> str:
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_value(one) for one in value) + "]"
    if value is None or isinstance(value, bool):
        return {True: "true", False: "false", None: "–"}[value]
    return f"{value:g}" if isinstance(value, float) else str(value)


def _clusters(run: RunContents) -> str:
    assert run.last is not None
    labels_N = run.last.labels_N
    clusters, outliers = len(run.last.doubts.doubts_C), int((labels_N < 0).sum())
    mean = (len(labels_N) - outliers) / max(clusters, 1)
    left = (
        f"{counted(outliers, 'outlier')} ({100 * outliers / max(len(labels_N), 1):.0f} %)"
        if outliers
        else "no outliers"
    )
    return (
        f"The labelling of epoch {run.last.epoch + 1} found {counted(clusters, 'cluster')} of {mean:.1f} "
        f"{run.unit} on average, and {left}."
    )


def _mAP(run: RunContents, when: str) -> float | None:
    return next((line["mAP"] for line in reversed(run.evaluations) if line["when"] == when and "mAP" in line), None)


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"
