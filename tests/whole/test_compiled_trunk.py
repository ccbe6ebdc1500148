"""train.compile: the same run up to rounding, repeatable; and a sentence where PyTorch cannot compile."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from reidray.launch.launch import launch
from reidray.training.compiling import compile_trunk
from tests.whole.forms import FORMS
from tests.whole.runs import assert_close_losses, assert_same_run, evaluations

COMPILED = {"epochs": 1, "steps": 3, "compile": True}


@pytest.fixture
def uncompiled() -> Any:
    """torch.compile hands over the code as it is."""
    with torch.compiler.set_stance("force_eager"):
        yield


@pytest.mark.usefixtures("uncompiled")
@pytest.mark.parametrize("sections", [{"method": {"name": "scwm"}}, FORMS["ihc"]], ids=["scwm", "ihc"])
def test_the_setting_changes_nothing_but_the_code_that_runs(
    sections: dict[str, Any], tiny_settings: Callable[..., Any], tmp_path: Path
) -> None:
    launch(tiny_settings("plain", **sections, train={"epochs": 1, "steps": 3, "ema": 0.5}))
    launch(tiny_settings("compiled", **sections, train={**COMPILED, "ema": 0.5}))
    assert evaluations(tmp_path / "plain") == evaluations(tmp_path / "compiled")
    assert_close_losses(tmp_path / "plain", tmp_path / "compiled")


@pytest.mark.slow
@pytest.mark.parametrize("sections", [{"method": {"name": "scwm"}}, FORMS["ihc"]], ids=["scwm", "ihc"])
def test_a_compiled_run_has_the_losses_of_an_eager_one_and_is_repeatable(
    sections: dict[str, Any], tiny_settings: Callable[..., Any], tmp_path: Path
) -> None:
    launch(tiny_settings("plain", **sections, train={**COMPILED, "compile": False}))
    for name in ("one", "other"):
        launch(tiny_settings(name, **sections, train=COMPILED))
    assert_close_losses(tmp_path / "plain", tmp_path / "one")
    assert_same_run(tmp_path / "one", tmp_path / "other")


def test_without_a_compiler_there_is_a_sentence() -> None:
    program = (
        "import torch\n"
        "from reidray.features import build_embedder\n"
        "from reidray.training.compiling import compile_trunk\n"
        "network = build_embedder(backbone='small', pooling='avg', num_parts=0, part_pooling='gap', seed=0)\n"
        "try:\n"
        "    compile_trunk(network, torch.device('cpu'))\n"
        "except ValueError as error:\n"
        "    print(error)\n"
    )
    environment = {**os.environ, "CXX": "no-such-compiler", "TORCHINDUCTOR_FORCE_DISABLE_CACHES": "1"}
    ran = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert "train.compile=true, but PyTorch cannot compile on this machine" in ran.stdout, ran.stderr
    assert "install a C++ compiler" in ran.stdout
    assert ran.stdout.count("\n") == 1


@pytest.mark.usefixtures("uncompiled")
def test_a_network_without_a_trunk_is_refused() -> None:
    network: Any = nn.Linear(2, 2)
    with pytest.raises(ValueError, match="its attribute backbone, and Linear has none"):
        compile_trunk(network, torch.device("cpu"))
