"""`reidray train crops/`: the config that fits the data and this machine, where none was given."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from reidray.packaged import config_file
from reidray.settings_io import Layer, from_file, from_tree

OSNET_WEIGHTS = "osnet_x0_25_msmt17.pth"
"""torchreid's file for OSNet x0.25 that MSMT17 taught, as configs/osnet_folder.yaml names it."""


def guessed(over: Sequence[Layer]) -> tuple[list[Layer], list[str]]:
    """Layers of settings to lie beneath those that were given, and what to say about them.

    Where OSNet's weights lie in the working directory, the config that starts from them: they have seen people. Else,
    with a GPU, that of the papers' network (a ResNet-50 that starts from ImageNet weights), without one the small
    network that ships with reidray, which trains in minutes on two cores. Which data set lies there is for
    data.dataset=auto to find out, unless it was given.

    Args:
      over: the layers that were given.
    """
    given = {name for layer in over for name in layer.values}
    asked = next((layer.values["run.device"] for layer in over if "run.device" in layer.values), "auto")
    gpu = torch.cuda.is_available() and asked != "cpu"
    chosen = {"model.backbone", "model.weights"} & given
    from_people = not chosen and Path(OSNET_WEIGHTS).is_file()
    name = "osnet_folder" if from_people else "scwm_folder" if gpu else "small_folder"
    layers = [from_file(config_file(name))]
    if "data.dataset" not in given:
        layers.append(from_tree({"data.dataset": "auto"}, ""))
    why = "a GPU is here" if gpu else "no GPU is here"
    if from_people:
        why = f"{OSNET_WEIGHTS} is here: training starts from people"
    elif chosen:
        why += f", and {min(chosen)} was given"
    elif not gpu:
        why += ", so the small network is trained"
    return layers, [f"settings: --config {name} ({why}); --config NAME takes others"]
