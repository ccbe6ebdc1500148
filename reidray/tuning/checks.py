"""What is checked before a search starts: every candidate with the settings that it is laid over, and the objective."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reidray.config import Settings
from reidray.methods import METHODS
from reidray.settings_io import Layer, from_tree, settings_from
from reidray.tuning.search_file import DEFAULT_OBJECTIVE, Search

_ENTER = {  # settings that enter the computation of a criterion, and so change it for one and the same model
    "silhouette": {"method.k1", "method.k2", "method.k1_counts_itself", "method.eps", "method.camera_centring"},
    "assigned": {"method.eps", "method.min_samples", "method.k1", "method.k2", "method.camera_centring"},
}


def with_values(settings: Settings, values: Mapping[str, Any], source: str = "") -> Settings:
    """The settings with some of them replaced, checked.

    Raises:
      ValueError: a value is not one that its setting takes, or it does not fit the others; one sentence.
    """
    return settings_from([from_tree(settings.model_dump(mode="json"), ""), Layer(source, values)])


def check_search(search: Search, settings: Settings) -> None:
    """Every candidate against the settings it is laid over, and the objective against every method that is tried.

    Raises:
      ValueError: the first that does not fit; one sentence.
    """
    if search.searcher == "random":  # all that will be tried; else every candidate by itself
        trials = [search.values(trial) for trial in range(search.trials)]
    else:
        trials = [{name: value} for name, candidates in search.space.items() for value in candidates.values]
    for values in trials:
        try:
            tried = with_values(settings, values)
        except ValueError as error:
            raise ValueError(f"a trial with {in_words(values)} cannot run: {error}") from None
        _check_objective(search.objective, tried)
        if search.scheduler == "asha" and tried.own is not None and tried.own.has_stages:
            raise ValueError(
                f"scheduler: asha compares trials by train.epochs, which method.name={tried.method.name} does not "
                "read: set scheduler: none"
            )


def cautions(search: Search, settings: Settings) -> list[str]:
    """Warnings about settings that change the objective itself for one and the same model or that have no effect, about
    an objective that has misled, and about an incomplete grid.

    settings: those that trials are laid over.
    """
    sentences = []
    of_methods = {
        f"{name}.{setting}" for name, entry in METHODS.items() for setting in entry.criteria.get(search.objective, ())
    }
    read = sorted((_ENTER.get(search.objective, set()) | of_methods) & set(search.space))
    if read:
        sentences.append(
            f"caution: {', '.join(read)} enter{'s' if len(read) == 1 else ''} the computation of {search.objective}: "
            "trials differ in it also where the models are equally good"
        )
    own = {name for name in search.space if name.startswith(f"{settings.method.name}.")}
    unread = sorted(settings.unread & (set(search.space) if len(own) < 2 else set(search.space) - own))
    if unread and "method.name" not in search.space:
        sentences.append(
            f"caution: {', '.join(unread)} {'has' if len(unread) == 1 else 'have'} no effect under "
            f"method.name={settings.method.name}: trials that differ in nothing else are equal"
        )
    if search.objective == "silhouette" and settings.method.camera_centring:
        sentences.append(
            "caution: on photographs the silhouette chose settings below the median; objective: camera_cycle, for data "
            "with known cameras, chose better ones (docs/tuning.md)"
        )
    if search.trials < search.grid_size:
        sentences.append(
            f"caution: the grid has {search.grid_size} combinations, and trials: {search.trials} leaves the others out"
        )
    return sentences


def in_words(values: Mapping[str, Any]) -> str:
    """name=value name=value."""
    return " ".join(f"{name}={value}" for name, value in values.items())


def _check_objective(objective: str, settings: Settings) -> None:
    if settings.own is not None and settings.own.has_stages and objective != "mAP":
        raise ValueError(
            f"objective: {objective} compares labels that are found anew in every epoch, and method.name="
            f"{settings.method.name} merges them stage by stage: set objective: mAP"
        )
    if objective == "agreement" and "agreement" not in METHODS[settings.method.name].criteria:
        raise ValueError(
            f"objective: agreement compares global and part neighbours, and method.name={settings.method.name} has no "
            f"parts: take another objective, such as {DEFAULT_OBJECTIVE}"
        )
    if settings.method.labels == "ground_truth" and objective != "mAP":
        raise ValueError(
            f"objective: {objective} judges pseudo-labels, and method.labels=ground_truth has none: set objective: mAP"
        )
    if objective == "camera_cycle" and not settings.method.camera_centring:
        raise ValueError(
            "objective: camera_cycle goes by features without their cameras: set method.camera_centring=true"
        )
    if objective == "stability" and settings.train.epochs < 2:
        raise ValueError("objective: stability compares two epochs: set train.epochs to 2 or more")
