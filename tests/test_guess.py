"""Which config `reidray train crops/` takes, and what it says about that."""

import pytest
import torch

from reidray.guess import OSNET_WEIGHTS, guessed
from reidray.settings_io import Layer, settings_from


def choice(**given):
    over = Layer("", {"data.root": "crops", **given})
    layers, (said,) = guessed([over])
    return settings_from([*layers, over]), said


@pytest.fixture(params=[False, True])
def gpu(request, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: request.param)
    return request.param


def test_the_machine_decides_where_there_are_no_weights(gpu, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings, said = choice()
    assert settings.model.backbone == ("resnet50" if gpu else "small")
    assert ("a GPU is here" in said) == gpu
    assert settings.data.dataset == "auto"


def test_weights_that_have_seen_people_come_first(gpu, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / OSNET_WEIGHTS).touch()
    settings, said = choice()
    assert (settings.model.backbone, settings.model.weights) == ("osnet_x0_25", OSNET_WEIGHTS)
    assert f"--config osnet_folder ({OSNET_WEIGHTS} is here" in said


@pytest.mark.parametrize("given", [{"model.backbone": "resnet18", "model.weights": "none"}, {"model.weights": "none"}])
def test_what_was_given_stays(gpu, given, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / OSNET_WEIGHTS).touch()
    settings, said = choice(**given)
    assert (
        settings.model_dump()["model"].items() >= {name.split(".")[1]: value for name, value in given.items()}.items()
    )
    assert f"{next(iter(given))} was given" in said
    assert "osnet_folder" not in said
