"""Labels, difficulties and parts of a whole run equal those of the slow references, at every epoch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.cluster import DBSCAN

from reidray.config import Settings
from reidray.launch.launch import launch
from reidray.methods.label_search import Labels, Space
from reidray.methods.scwm import SCWM
from reidray.training.reading import in_space
from reidray.training.whole_search import WholeSearch
from tests.reference import difficulty, jaccard, parsing


class Witness:
    """Keeps what the method was given and what it answered."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.epochs: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        self.shards: list[tuple[np.ndarray, tuple[int, int], np.ndarray]] = []
        label, label_images = SCWM.label, SCWM.label_images

        def seen_label(method: SCWM, search: WholeSearch) -> Labels:
            labels = label(method, search)
            alphas_NL = labels.tables["alphas"]
            vectors = [search.features(Space("features", (s,))).copy() for s in range(1 + alphas_NL.shape[1])]
            self.epochs.append((np.stack(vectors, axis=1), labels.labels_N, alphas_NL))
            return labels

        def seen_images(method: SCWM, arrays: Any, device: Any) -> Any:
            found = label_images(method, arrays, device)
            assert found is not None
            batch, height, width, cells = arrays["grams"].shape
            grams_BPP = arrays["grams"].reshape(batch, cells, cells).copy()
            self.shards.append((grams_BPP, (height, width), found["parts"]))
            return found

        monkeypatch.setattr(SCWM, "label", seen_label)
        monkeypatch.setattr(SCWM, "label_images", seen_images)


def similarities(features_ND: np.ndarray) -> np.ndarray:
    """In float64, rounded once."""
    wide_ND = features_ND.astype(np.float64)
    return (wide_ND @ wide_ND.T).astype(np.float32)


def neighbours(features_ND: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    all_NN = similarities(features_ND)
    lists_NK = np.argsort(-all_NN, axis=1, kind="stable")[:, :k]
    return lists_NK, np.take_along_axis(all_NN, lists_NK, axis=1)


def assert_labels_are_the_references(settings: Settings, witness: Witness) -> None:
    method, scwm = settings.method, settings.scwm
    assert len(witness.epochs) == settings.train.epochs
    for features_NSD, labels_N, alphas_NL in witness.epochs:
        clustered = range(scwm.num_parts) if scwm.cluster_feature == "concat" else (0,)  # no background
        joined_ND = in_space(features_NSD, tuple(clustered))
        distances_NN = jaccard.jaccard_in_float32(*neighbours(joined_ND, method.k1), joined_ND, method.k1, method.k2)
        theirs = DBSCAN(eps=method.eps, min_samples=method.min_samples, metric="precomputed").fit(distances_NN)
        np.testing.assert_array_equal(labels_N, theirs.labels_)
        lists = [
            neighbours(features_NSD[:, s], scwm.difficulty_neighbours + 1)[0] for s in range(alphas_NL.shape[1] + 1)
        ]
        expected = np.stack([difficulty.difficulty(lists[0], part) for part in lists[1:]], axis=1)
        np.testing.assert_array_equal(alphas_NL, expected.astype(np.float32))


def assert_parts_are_the_references(settings: Settings, witness: Witness, *, every: int) -> None:
    scwm = settings.scwm
    assert witness.shards
    for grams_BPP, (height, width), parts_BHW in witness.shards:
        for gram_PP, parts_HW in list(zip(grams_BPP.astype(np.float64), parts_BHW, strict=True))[::every]:
            expected, _, _ = parsing.parse_gram(
                gram_PP,
                height=height,
                width=width,
                num_parts=scwm.num_parts,
                max_distance=scwm.max_distance * height,
                linkage=scwm.linkage,
                classes=scwm.foreground_classes,
                log_magnitude=scwm.log_magnitude,
                centre_prior=scwm.centre_prior,
            )
            np.testing.assert_array_equal(parts_HW, expected)


def test_a_small_run_has_the_references_labels(
    tiny_settings: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    witness = Witness(monkeypatch)
    settings = tiny_settings("seen")
    launch(settings)
    assert_labels_are_the_references(settings, witness)
    assert_parts_are_the_references(settings, witness, every=5)


@pytest.mark.slow
def test_the_default_run_has_the_references_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    witness = Witness(monkeypatch)
    settings = Settings.model_validate(
        {"data": {"root": str(tmp_path / "drawn")}, "run": {"dir": str(tmp_path / "run"), "workers": 0}}
    )
    launch(settings)
    assert_labels_are_the_references(settings, witness)
    assert_parts_are_the_references(settings, witness, every=20)
