"""The file of a search: which settings are tried with which values, and by which objective the trials are compared.

Draws are keyed by (seed, draw, name of the setting): more trials, or one more setting, leave the values of the others
as they were.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import yaml

from reidray.settings_io import Layer, check_value, from_tree, known, nearest, read_mapping

Kind = Literal["choice", "grid", "uniform", "loguniform"]

CRITERIA = ("camera_cycle", "silhouette", "stability", "agreement", "camera_mixing", "assigned")
OBJECTIVES = (*CRITERIA, "mAP")
DEFAULT_OBJECTIVE = "silhouette"

_KEYS = {
    "settings": None,
    "search": None,
    "objective": DEFAULT_OBJECTIVE,
    "trials": 20,
    "scheduler": "asha",
    "grace_epochs": None,
    "reduction": 3,
    "searcher": "random",
    "seed": 0,
}
_INCOMPARABLE = {
    "data": "trials on other images cannot be compared",
    "evaluate": "trials that are measured differently cannot be compared",
    "run": "it must not change what a run finds, so there is nothing to search",
}
_DIGITS = 4  # of drawn numbers, so that people can read and repeat them


@dataclass(frozen=True)
class Candidates:
    """The values that a search tries for one setting: those listed, or a range from low to high.

    whole: the setting is a whole number; ranges then include both ends.
    """

    kind: Kind
    values: tuple[Any, ...]
    whole: bool = False

    def drawn(self, generator: np.random.Generator) -> Any:
        """One value; of a grid none is drawn."""
        if self.kind == "choice":
            return self.values[int(generator.integers(len(self.values)))]
        low, high = self.values
        if self.whole and self.kind == "uniform":
            return int(generator.integers(low, high + 1))
        if self.kind == "uniform":
            value = float(generator.uniform(low, high))
        else:
            value = math.exp(float(generator.uniform(math.log(low), math.log(high))))
        return min(max(round(value), low), high) if self.whole else min(max(_rounded(value), low), high)


@dataclass(frozen=True)
class Search:
    """What a search file says.

    space: candidates by dotted setting. objective: one of OBJECTIVES, more is better. trials: how many in all.
    scheduler: asha stops trials whose objective lags behind that of others after as many epochs, for the first time
    after grace_epochs, then whenever `reduction` times as many are done, letting one in `reduction` go on; none lets
    all end. searcher: random, or optuna. seed: of all draws.
    """

    space: Mapping[str, Candidates]
    objective: str
    trials: int
    scheduler: str
    grace_epochs: int | None
    reduction: int
    searcher: str
    seed: int

    @property
    def grid(self) -> list[str]:
        """The settings that are tried in every combination."""
        return [name for name, candidates in self.space.items() if candidates.kind == "grid"]

    @property
    def grid_size(self) -> int:
        """Combinations of the grid; 1 without one."""
        return math.prod(len(self.space[name].values) for name in self.grid)

    def values(self, trial: int) -> dict[str, Any]:
        """The values of a trial, counted from 0, of a random search.

        Trial t has combination t mod G of the grid's G and the draw t // G: every draw meets every combination.
        """
        draw, place = divmod(trial, self.grid_size)
        values: dict[str, Any] = {}
        for name, candidates in self.space.items():
            if candidates.kind == "grid":
                place, chosen = divmod(place, len(candidates.values))
                values[name] = candidates.values[chosen]
            else:
                values[name] = candidates.drawn(np.random.default_rng([self.seed, draw, *name.encode()]))
        return values

    def as_yaml(self) -> str:
        """As a search file has it."""
        tree = {name: getattr(self, name) for name in _KEYS if name not in ("settings", "search")}
        space = {name: {one.kind: list(one.values)} for name, one in self.space.items()}
        return yaml.safe_dump({"search": space, **tree}, sort_keys=False, width=120)


def read_search(path: Path) -> Search:
    """The search of a YAML file, each of its names and candidates checked.

    Raises:
      ValueError: the file or a value in it is not as it should be; one sentence.
    """
    tree = {**_KEYS, **_checked_keys(read_mapping(path), path)}
    space = tree["search"]
    if not isinstance(space, dict) or not space:
        raise ValueError(
            f"{path}: 'search' must name the settings to try, such as method.eps: {{uniform: [0.3, 0.7]}}, got {space}"
        )
    candidates = {str(name): _candidates(str(name), given, path) for name, given in space.items()}
    _one_of(tree, "objective", OBJECTIVES, path)
    _one_of(tree, "scheduler", ("asha", "none"), path)
    _one_of(tree, "searcher", ("random", "optuna"), path)
    for name, least in (("trials", 1), ("reduction", 2), ("seed", 0)):
        _count(tree, name, least, path)
    if tree["grace_epochs"] is not None:
        _count(tree, "grace_epochs", 1, path)
    search = Search(space=candidates, **{name: tree[name] for name in _KEYS if name not in ("settings", "search")})
    if search.searcher == "optuna" and search.grid:
        raise ValueError(f"{path}: {search.grid[0]} has a grid, which searcher: optuna does not walk: make it a choice")
    if search.scheduler == "asha" and "train.epochs" in search.space:
        raise ValueError(f"{path}: scheduler: asha compares epoch by epoch: set scheduler: none to search train.epochs")
    return search


def override(search: Search, trials: int | None, objective: str | None) -> Search:
    """The search with what the command line says; ValueError as `read_search`."""
    given: dict[str, Any] = {
        "trials": search.trials if trials is None else trials,
        "objective": objective or search.objective,
    }
    _one_of(given, "objective", OBJECTIVES, Path("--objective"))
    _count(given, "trials", 1, Path("--trials"))
    return replace(search, **given)


def settings_of(path: Path) -> Layer:
    """The values that a search file gives under `settings`, to be laid under --config and the command line."""
    tree = _checked_keys(read_mapping(path), path).get("settings") or {}
    if not isinstance(tree, dict):
        raise ValueError(f"{path}: 'settings' must be a mapping of sections such as 'train: {{epochs: 3}}', got {tree}")
    return from_tree(tree, str(path))


def _candidates(name: str, given: Any, path: Path) -> Candidates:
    if name not in known():
        guess = nearest(name)
        raise ValueError(f"{path}: unknown setting {name}: " + (f"did you mean {guess}?" if guess else "see --help"))
    reason = _INCOMPARABLE.get(name.split(".")[0])
    if name == "method.labels":
        reason = "training with the truth would win and teach nothing"
    if reason:
        raise ValueError(f"{path}: {name} cannot be searched: {reason}")
    kinds = get_args(Kind)
    if not isinstance(given, dict) or len(given) != 1 or next(iter(given)) not in kinds:
        raise ValueError(f"{path}: {name} must have one of {', '.join(kinds)}, such as {{choice: [3, 6]}}, got {given}")
    kind, values = next(iter(given.items()))
    if not isinstance(values, list) or not values:
        raise ValueError(f"{path}: {name}: {kind} must have a list of values, got {values}")
    if kind in ("uniform", "loguniform"):
        _check_range(name, kind, values, path)
    elif any(value in values[:place] for place, value in enumerate(values)):
        raise ValueError(f"{path}: {name}: {kind} has a value twice: {values}")
    for value in values:
        check_value(name, value, str(path))
    return Candidates(kind, tuple(values), _whole(name, kind, values, path))


def _whole(name: str, kind: str, values: Sequence[Any], path: Path) -> bool:
    """Whether a range has whole numbers alone."""
    expected = known()[name].expected
    if not expected.startswith("a whole number"):
        return False
    whole = [isinstance(value, int) for value in values]
    if "or a number" in expected and kind != "choice" and len(set(whole)) > 1:
        raise ValueError(
            f"{path}: {name}: {kind} must be a range of whole numbers, or of numbers below 1, which are shares of the "
            f"run; got {values}"
        )
    return all(whole)


def _check_range(name: str, kind: str, values: Sequence[Any], path: Path) -> None:
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    if not (numbers and len(values) == 2 and values[0] < values[1] and (kind == "uniform" or values[0] > 0)):
        above = " above 0" if kind == "loguniform" else ""
        raise ValueError(f"{path}: {name}: {kind} must be [low, high] with low < high{above}, got {values}")
    if not any(words in known()[name].expected for words in ("a number", "a whole number")):
        raise ValueError(f"{path}: {name} must be {known()[name].expected}: {kind} draws numbers; take choice")


def _checked_keys(tree: Mapping[str, Any], path: Path) -> Mapping[str, Any]:
    for key in tree:
        if key not in _KEYS:
            near = difflib.get_close_matches(str(key), list(_KEYS), 1)
            hint = f"did you mean {near[0]}?" if near else f"a search file has {', '.join(_KEYS)}"
            raise ValueError(f"{path}: unknown key {key}: {hint}")
    return tree


def _one_of(tree: Mapping[str, Any], name: str, known_words: Sequence[str], path: Path) -> None:
    if tree[name] not in known_words:
        raise ValueError(f"{path}: {name} must be one of {', '.join(known_words)}, got {tree[name]}")


def _count(tree: Mapping[str, Any], name: str, least: int, path: Path) -> None:
    value = tree[name]
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"{path}: {name} must be a whole number >= {least}, got {value}")


def _rounded(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")
