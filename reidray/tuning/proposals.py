"""Which trial comes next: interrupted ones first, then new ones, drawn at random or by Optuna.

Trials are counted from 0. A search runs as many as its file says, however often it is interrupted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, final

from reidray.tuning.ledger import Entry
from reidray.tuning.search_file import Candidates, Search


@final
class OptunaSearcher:
    """Optuna's TPE; trials that a scheduler stopped count as pruned.

    Args:
      search: without a grid.
      asked_before: trials that were asked for in earlier sittings; the sampler is seeded by it, so that a resumed
        search does not draw its first values again.

    Raises:
      ValueError: Optuna is not installed.
    """

    def __init__(self, search: Search, asked_before: int) -> None:
        try:
            import optuna
        except ImportError:
            raise ValueError(
                "searcher: optuna needs Optuna, which is not installed: pip install -c constraints.txt -e '.[search]'"
            ) from None
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._optuna: Any = optuna
        self._search = search
        sampler = optuna.samplers.TPESampler(seed=search.seed + 7919 * asked_before)
        self._study: Any = optuna.create_study(direction="maximize", sampler=sampler)
        self._distributions = {name: self._distribution(one) for name, one in search.space.items()}
        self._asked: dict[int, Any] = {}

    def values(self, trial: int) -> dict[str, Any]:
        """The values that Optuna proposes."""
        self._asked[trial] = self._study.ask(self._distributions)
        drawn = self._asked[trial].params
        return {name: self._value(one, drawn[name]) for name, one in self._search.space.items()}

    def learn(self, entry: Entry) -> None:
        """Finished trials by their score, stopped ones by their scores until then, others as failed."""
        states = self._optuna.trial.TrialState
        state = {"finished": states.COMPLETE, "stopped": states.PRUNED}.get(entry.state or "", states.FAIL)
        if entry.score is None:
            state = states.FAIL
        asked = self._asked.pop(entry.trial, None)
        if asked is not None:
            for epochs, score in entry.scores.items():
                asked.report(score, epochs)
            self._study.tell(asked, entry.score if state == states.COMPLETE else None, state=state)
            return
        self._study.add_trial(
            self._optuna.trial.create_trial(
                params={name: self._place(one, entry.values[name]) for name, one in self._search.space.items()},
                distributions=self._distributions,
                value=entry.score if state == states.COMPLETE else None,
                intermediate_values=dict(entry.scores),
                state=state,
            )
        )

    def _distribution(self, candidates: Candidates) -> Any:
        kinds = self._optuna.distributions
        if candidates.kind == "choice":
            return kinds.CategoricalDistribution(range(len(candidates.values)))  # a value may be a list
        kind = kinds.IntDistribution if candidates.whole else kinds.FloatDistribution
        return kind(*candidates.values, log=candidates.kind == "loguniform")

    def _value(self, candidates: Candidates, drawn: Any) -> Any:
        return candidates.values[drawn] if candidates.kind == "choice" else drawn

    def _place(self, candidates: Candidates, value: Any) -> Any:
        return candidates.values.index(value) if candidates.kind == "choice" else value


class Proposals:
    """Hands out the trials that are left, in order; new ones are reported, so that the ledger can record them.

    Args:
      search: what is searched.
      entries: of earlier sittings. Ended ones are not handed out again, unless they crashed.
      began: is told number and values of every trial that was never handed out before.
    """

    def __init__(
        self, search: Search, entries: Sequence[Entry], began: Callable[[int, Mapping[str, Any]], None]
    ) -> None:
        self._interrupted = [(entry.trial, entry.values) for entry in entries if not entry.ended]
        self._optuna = OptunaSearcher(search, len(entries)) if search.searcher == "optuna" else None
        self._search = search
        self._next = len(entries)
        self._began = began
        for entry in entries:
            if entry.ended:
                self.learn(entry)

    @property
    def left(self) -> int:
        """Trials not handed out yet."""
        return len(self._interrupted) + max(0, self._search.trials - self._next)

    def ask(self) -> tuple[int, Mapping[str, Any]] | None:
        """Number and values of the next trial; None when there are enough."""
        if self._interrupted:
            return self._interrupted.pop(0)
        if self._next >= self._search.trials:
            return None
        trial = self._next
        self._next += 1
        values = (self._optuna or self._search).values(trial)
        self._began(trial, values)
        return trial, values

    def learn(self, entry: Entry) -> None:
        """A trial has ended: Optuna learns from it, random draws do not."""
        if self._optuna is not None:
            self._optuna.learn(entry)
