"""Where a run goes on from: the same checkpoint on every rank."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from reidray.storage.checkpoints import Checkpoint, CheckpointStore
from reidray.training.resume import agreed_checkpoint


class Rank:
    """Says what rank 0 said before."""

    def __init__(self, rank: int, said: list[Any]) -> None:
        self.rank, self._said = rank, said

    def broadcast(self, value: Any) -> Any:
        if self.rank == 0:
            self._said.append(value)
        return self._said[-1]


def agreed(folder: Path, ranks: int = 2) -> list[Checkpoint | None]:
    """What each rank takes."""
    said: list[Any] = []
    found = []
    for rank in range(ranks):
        store = CheckpointStore(folder, keep=2)
        context: Any = SimpleNamespace(ranks=Rank(rank, said), checkpoints=store, run_dir=folder)
        found.append(agreed_checkpoint(context))
        store.close()
    return found


def test_all_ranks_take_the_one_that_was_being_replaced_when_its_writer_was_killed(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep=2)
    store.save(
        Checkpoint(
            epoch=3,
            model={"weight": torch.arange(3.0)},
            optimiser={},
            rng=[torch.zeros(4, dtype=torch.uint8)],
            history={"epochs": []},
            settings={},
        )
    )
    store.close()
    assert [found.folder for found in agreed(tmp_path) if found] == ["epoch_0003"] * 2
    (tmp_path / "epoch_0003").rename(tmp_path / "epoch_0003.replaced")  # between two names
    found = agreed(tmp_path)
    assert all(one is not None and one.name == "epoch_0003" for one in found)
    assert all(one is not None and one.model["weight"].tolist() == [0, 1, 2] for one in found)


def test_a_new_run_has_none(tmp_path: Path) -> None:
    assert agreed(tmp_path) == [None, None]
