"""A trained model outside of a run: load a checkpoint, extract a split or a list of image files in order.

N = images, D = feature width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from reidray.arrays import Floats
from reidray.bank import MemoryBank
from reidray.config import Settings
from reidray.features import Network
from reidray.launch.services import chosen_device, worker_context
from reidray.methods import make_method
from reidray.storage.checkpoints import CheckpointStore, load_checkpoint
from reidray.threads import set_threads
from reidray.training.context import Context
from reidray.training.extraction import ExtractedShard, extract_shards
from reidray.training.images import Samples
from reidray.training.label_service import LabelService
from reidray.training.loop import new_model


def load_model(path: Path) -> tuple[Network, Settings]:
    """The network of a checkpoint folder, or of the newest checkpoint of a run folder, with the run's settings.

    Raises:
      ValueError: there is no whole checkpoint, or its tensors do not fit the network that its settings describe.
    """
    if not path.is_dir():
        raise ValueError(f"{path}: expected the folder of a run or of a checkpoint, but no folder is there")
    if (path / "state.json").is_file():
        checkpoint = load_checkpoint(path)
    else:
        found, passed_over = CheckpointStore(path / "checkpoints", keep=1).newest()
        if found is None:
            raise ValueError(f"{path} has no whole checkpoint: {'; '.join(passed_over) or 'there is none'}")
        checkpoint = found
    tensors = checkpoint.network if (path / "state.json").is_file() else checkpoint.reported
    settings = Settings.model_validate(checkpoint.settings)
    anywhere = settings.run.model_copy(update={"device": "auto"})  # not only where it was trained
    settings = settings.model_copy(update={"run": anywhere})
    model = new_model(settings)
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    got = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if expected != got:
        odd = sorted(name for name in expected.keys() | got.keys() if expected.get(name) != got.get(name))[0]
        raise ValueError(
            f"{path} is a checkpoint of another architecture: {odd} should be {expected.get(odd, 'absent')} for "
            f"model.backbone={settings.model.backbone} and is {got.get(odd, 'absent')}"
        )
    model.load_state_dict(tensors)
    return model.to(memory_format=torch.channels_last), settings


def offline_context(
    settings: Settings, packed: str, run_dir: Path, report: Callable[[Mapping[str, Any]], None]
) -> Context:
    """A context for evaluation in this process: nobody labels, nothing is banked."""
    bank = MemoryBank([], {})
    return worker_context(settings, packed, run_dir, bank, LabelService([], settings, bank), report)


def embed(model: Network, settings: Settings, images: Samples, progress: Callable[[int], None]) -> Floats:
    """Evaluated features [N, D] of a whole split, in index order."""
    method = make_method(settings)
    shards = extracted(model, settings, images, method.to_evaluate, progress)
    return np.concatenate([method.evaluated(shard.arrays) for shard in shards])


def extracted(
    model: Network,
    settings: Settings,
    images: Samples,
    keep: Callable[[Any], dict[str, torch.Tensor]],
    progress: Callable[[int], None],
) -> Iterator[ExtractedShard]:
    """What `keep` takes of the outputs, shard by shard of a split, with the device and the threads of the run."""
    device = chosen_device(settings)
    set_threads(settings.run.threads)
    return extract_shards(
        model.to(device),
        images,
        list(range(images.source.num_shards)),
        batch=settings.train.extract_batch,
        device=device,
        precision=settings.train.precision,
        keep=keep,
        progress=progress,
    )
