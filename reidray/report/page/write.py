"""The page of a run: text and curves into report.html, thumbnails and lists into the folder beside it."""

from __future__ import annotations

import base64
import hashlib
import shutil
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from reidray.disk import write_whole
from reidray.report.page import cameras, clusters, origins, words
from reidray.report.page.charts import Chart, Line, chart
from reidray.report.page.contents import RankedList, RunContents
from reidray.report.page.embedding_map import draw_map
from reidray.report.page.sprites import (
    COLUMNS,
    SHEET,
    thumbnail_size,
    thumbnails_of,
    write_part,
    write_sheet,
    write_sheets,
)
from reidray.version import __version__

MAPPED = 1000
"""Images on the map, at most: a few seconds."""


def write_page(folder: Path, run: RunContents) -> Path:
    """Writes report.html and the folder report/ into a run folder, in the place of older ones.

    Returns:
      the page.
    """
    place, building = folder / "report", folder / ".report"
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir(parents=True)
    facts: dict[str, Any] = {"sheet": SHEET, "columns": COLUMNS, "unit": run.unit}
    view: dict[str, Any] = {"flags": {}, "map": None, "splits": 0, "outliers": 0, "clusters": 0}
    if run.last is not None and len(run.names):
        view.update(_write_clusters(building, run, facts))
    _write_ranked(building, run.ranked, facts)
    write_part(building, "facts", facts)
    shutil.rmtree(place, ignore_errors=True)
    building.rename(place)
    before_epoch = max((epoch for epoch in run.labels if run.last and epoch < run.last.epoch), default=None)
    labels_N = run.last.labels_N if run.last is not None else None
    page = rendered(
        "run.html.j2",
        run=run,
        view=view,
        version=__version__,
        sentences=words.sentences(run),
        cautions=words.cautions(run),
        figures=words.figures(run),
        seconds=words.seconds(run),
        charts=charts({"": run}),
        kinds=origins.by_epoch(run.labels),
        kind_names=origins.MEANINGS,
        before_epoch=before_epoch,
        flag_names=clusters.FLAGS,
        cameras=[] if labels_N is None else cameras.of_cameras(labels_N, run.cameras_N),
        pairs=None if labels_N is None else cameras.of_pairs(labels_N, run.cameras_N, run.persons_N),
        truth=run.persons_N is not None,
        ranked=len(run.ranked),
    )
    path = folder / "report.html"
    write_whole(path, page)
    return path


def charts(runs: Mapping[str, RunContents]) -> list[Chart]:
    """The curves of a run, or of several over each other, which are then told apart by their names."""
    found = [
        chart("Loss", _lines(runs, _loss), across="updates", up="loss", whole=True),
        chart("Retrieval", _lines(runs, _evaluated), across="epochs finished", up="percent", whole=True),
        chart("Clusters and outliers", _lines(runs, _sizes), across="epoch", up="number", zero=True, whole=True),
        chart("Quality of the clusters, without truth", _lines(runs, _criteria), across="epoch", up="", whole=True),
        chart("Agreement with the true persons", _lines(runs, _agreement), across="epoch", up="1: perfect", whole=True),
    ]
    return [one for one in found if one is not None]


def rendered(template: str, **values: Any) -> str:
    """A template of this package, escaped, with the style and the script of the page and a policy that names both."""
    style, script = _text("page.css"), _text("page.js")
    return (
        _environment()
        .get_template(template)
        .render(
            style=Markup(style),  # noqa: S704 (our own file)
            script=Markup(script),  # noqa: S704
            style_hash=_hash(style),
            script_hash=_hash(script),
            **values,
        )
    )


def _write_clusters(folder: Path, run: RunContents, facts: dict[str, Any]) -> dict[str, Any]:
    """Sheets, names, clusters, the map and wrong splits; what the template wants to know of them."""
    last = run.last
    assert last is not None
    before_N = next((run.labels[epoch] for epoch in sorted(run.labels, reverse=True) if epoch < last.epoch), None)
    if before_N is not None and len(before_N) != len(last.labels_N):
        before_N = None
    found = clusters.shown(last.labels_N, last.doubts, run.cameras_N, persons_N=run.persons_N, before_N=before_N)
    order_N = found.order_N
    size = thumbnail_size(len(order_N), *run.thumbnails(order_N[:1]).shape[1:3])
    facts.update(height=size[0], width=size[1], images=len(order_N), outliers=found.outliers)
    facts["sheets"] = write_sheets(folder, order_N, run.thumbnails, size)
    _write_names(folder, run, order_N)
    write_part(folder, "clusters", found.clusters)
    view: dict[str, Any] = {
        "clusters": len(found.clusters),
        "outliers": found.outliers,
        "flags": clusters.counts(found.clusters),
        "map": _write_map(folder, run, order_N),
        "splits": 0,
    }
    if run.persons_N is not None:
        splits = clusters.wrong_splits(last.labels_N, run.persons_N)
        place_N = np.empty(len(order_N), np.int64)
        place_N[order_N] = np.arange(len(order_N))
        for row in splits[:500]:
            own = run.persons_N == row["person"]
            row["shown"] = [
                [int(place) for place in place_N[own & (last.labels_N == cluster)][:4]]
                for cluster, _ in row["clusters"]
            ]
        write_part(folder, "splits", splits[:500])
        view["splits"] = len(splits)
    return view


def _write_names(folder: Path, run: RunContents, order_N: np.ndarray) -> None:
    """What is said of single images, a file for each sheet."""
    assert run.last is not None
    doubts = run.last.doubts
    for number in range(0, len(order_N), SHEET):
        own = order_N[number : number + SHEET]
        part: dict[str, Any] = {
            "names": [run.names[image] for image in own],
            "clusters": run.last.labels_N[own].tolist(),
            "cameras": run.cameras_N[own].tolist(),
            "doubts": [round(float(doubt), 3) for doubt in doubts.doubts_N[own]],
            "nearest": doubts.nearest_N[own].tolist(),
            "halves": doubts.halves_N[own].tolist(),
        }
        if run.persons_N is not None:
            part["persons"] = run.persons_N[own].tolist()
        write_part(folder, f"names-{number // SHEET:04d}", part)


def _write_map(folder: Path, run: RunContents, order_N: np.ndarray) -> dict[str, Any] | None:
    assert run.last is not None
    sample_M, features_MD = run.last.sample_M, run.last.features_MD
    chosen = np.unique(np.linspace(0, len(sample_M) - 1, min(MAPPED, len(sample_M))).astype(np.int64))
    drawn = draw_map(features_MD[chosen], umap=run.umap) if len(sample_M) else None
    if drawn is None:
        return None
    place_N = np.empty(len(order_N), np.int64)
    place_N[order_N] = np.arange(len(order_N))
    images_M = sample_M[chosen]
    part: dict[str, Any] = {
        "xy": [[round(float(x), 4), round(float(y), 4)] for x, y in drawn[1]],
        "places": place_N[images_M].tolist(),
        "clusters": run.last.labels_N[images_M].tolist(),
        "cameras": run.cameras_N[images_M].tolist(),
        "doubts": [round(float(doubt), 3) for doubt in run.last.doubts.doubts_N[images_M]],
    }
    if run.persons_N is not None:
        part["persons"] = run.persons_N[images_M].tolist()
    write_part(folder, "map", part)
    return {"method": drawn[0], "count": len(images_M)}


def _write_ranked(folder: Path, ranked: Sequence[RankedList], facts: dict[str, Any]) -> None:
    if not ranked:
        return
    every = np.concatenate([one.pictures for one in ranked])
    size = thumbnail_size(len(every), *every.shape[1:3])
    write_sheet(folder / "ranked.jpg", thumbnails_of(every, size))
    facts["ranked"] = {"height": size[0], "width": size[1]}
    rows = [
        {
            "query": one.query,
            "ranked": list(one.ranked),
            "right": [bool(right) for right in one.right],
            "score": one.score,
        }
        for one in ranked
    ]
    write_part(folder, "ranked", rows)


def _lines(runs: Mapping[str, RunContents], curves: Any) -> list[Line]:
    several = len(runs) > 1
    lines = []
    for title, run in runs.items():
        own = curves(run)
        for name, points in own[:1] if several else own:
            lines.append(Line(title if several else name, points))
    return lines


_Curves = list[tuple[str, list[tuple[float, float | None]]]]


def _loss(run: RunContents) -> _Curves:
    totals = [step["terms"].get("total") for step in run.steps]
    window = max(1, len(totals) // 30)
    points: list[tuple[float, float | None]] = []
    for end in range(window, len(totals) + 1):
        own = [value for value in totals[end - window : end] if value is not None]
        points.append((end - (window - 1) / 2, sum(own) / len(own) if own else None))
    return [("mean of " + (f"{window} updates" if window > 1 else "the batch"), points)]


def _evaluated(run: RunContents) -> _Curves:
    def at(line: Mapping[str, Any]) -> float:
        if line["when"] == "before":
            return 0
        epoch = line.get("epoch")
        return len(run.epochs) if epoch is None else epoch + 1

    lines = sorted((line for line in run.evaluations if line["when"] != "last"), key=at)
    return [
        (word, [(at(line), line.get(name)) for line in lines]) for name, word in (("mAP", "mAP"), ("rank1", "rank-1"))
    ]


def _sizes(run: RunContents) -> _Curves:
    return _of_epochs(run, ("clusters", "outliers"))


def _criteria(run: RunContents) -> _Curves:
    return _of_epochs(run, ("camera_cycle", "silhouette", "stability", "camera_mixing"))


def _agreement(run: RunContents) -> _Curves:
    return _of_epochs(run, ("ARI", "AMI", "purity"))


def _of_epochs(run: RunContents, names: Sequence[str]) -> _Curves:
    labelled = [epoch for epoch in run.epochs if "clusters" in epoch]
    return [(name.replace("_", " "), [(epoch["epoch"] + 1, epoch.get(name)) for epoch in labelled]) for name in names]


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("reidray.report.page", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


@cache
def _text(name: str) -> str:
    return (resources.files("reidray.report.page") / "templates" / name).read_text("utf-8")


def _hash(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
