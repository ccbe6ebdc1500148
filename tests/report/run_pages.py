"""Contents of pages for tests: drawn colours in the place of people, and names that want to do harm."""

from __future__ import annotations

from typing import Any

import numpy as np

from reidray.config import Settings
from reidray.evaluation.doubts import judge
from reidray.report.page import RankedList, RunContents
from reidray.storage.kept_labels import LastLabels

HARMFUL = (
    "<script>window.harmed = 1</script>.jpg",
    "<img src=x onerror='window.harmed = 2'>.jpg",
    '"><svg onload="window.harmed = 3">\'.jpg',
    "</script><script>window.harmed = 4</script>.jpg",
    "cam/\u202egpj.exe\u202c \u2028 \u2029 {{ 7 * 7 }} ${7 * 7}.jpg",
    "long/" + "x" * 200 + ".jpg",
    "&lt;b&gt; &amp; 'quotes' \"and\" `ticks` \\u003c.jpg",
)


def contents(count: int, clusters: int, *, seed: int = 0, **other: Any) -> RunContents:
    """A run of `count` images: clusters are directions in space; every tenth image is an outlier."""
    draws = np.random.default_rng(seed)
    persons_N = np.sort(draws.integers(0, clusters, count))
    features_ND = draws.normal(size=(clusters, 16))[persons_N] + 0.6 * draws.normal(size=(count, 16))
    features_ND = (features_ND / np.linalg.norm(features_ND, axis=1, keepdims=True)).astype(np.float32)
    labels_N = np.where(draws.random(count) < 0.1, -1, persons_N)
    labels_N = np.unique(labels_N, return_inverse=True)[1] - 1
    before_N = np.where(draws.random(count) < 0.2, draws.integers(0, clusters, count), labels_N)
    before_N = np.unique(before_N, return_inverse=True)[1] - 1
    sample_M = np.unique(np.linspace(0, count - 1, min(300, count)).astype(np.int64))
    last = LastLabels(1, labels_N, judge(features_ND, labels_N), sample_M, features_ND[sample_M])
    names = [HARMFUL[place] if place < len(HARMFUL) else f"camera 1/{place:06d}.jpg" for place in range(count)]

    def thumbnails(indices: np.ndarray) -> np.ndarray:
        colours = np.stack([persons_N[indices] * 37 % 256, persons_N[indices] * 91 % 256, indices % 256], axis=1)
        return np.broadcast_to(colours[:, None, None, :].astype(np.uint8), (len(indices), 64, 32, 3))

    epochs = [
        {"epoch": epoch, "clusters": clusters, "outliers": 9, "silhouette": 0.3, "loss_total": 3.0, "ARI": 0.5}
        for epoch in range(2)
    ]
    epochs[1]["stability"] = 0.6
    ranked = RankedList(HARMFUL[0], list(HARMFUL[1:4]), [True, False, True], thumbnails(np.arange(4)), 0.5)
    fields: dict[str, Any] = {
        "title": "<b>run</b> of tests",
        "settings": Settings().model_dump(mode="json"),
        "epochs": epochs,
        "steps": [{"epoch": step // 10, "step": step % 10, "terms": {"total": 3 - step / 10}} for step in range(20)],
        "evaluations": [
            {"when": "before", "epoch": None, "mAP": 50.0, "rank1": 60.0},
            {"when": "after", "epoch": 1, "mAP": 45.0, "rank1": 70.0},
        ],
        "result": {"seconds": {"extract": 1.0, "total": 3.0}, "supervision": "unsupervised"},
        "unit": "images",
        "names": names,
        "cameras_N": draws.integers(0, 3, count).astype(np.int32),
        "thumbnails": thumbnails,
        "persons_N": persons_N + 1,
        "last": last,
        "labels": {0: before_N, 1: labels_N},
        "ranked": [ranked],
        "skipped": {"<i>cut short</i>": 2},
        "commands": [("python jobs/embed.py", "Vectors")],
        "umap": False,
    }
    return RunContents(**{**fields, **other})
