"""A whole run on a GPU that is not there (tests.cuda.stand_in): its path, its kernels, and the processor's numbers."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from reidray.launch.launch import launch
from reidray.training.ranks import ProcessGroup
from tests.cuda.emulated import needs_compiler
from tests.cuda.stand_in import stand_in_gpu
from tests.whole.forms import FORMS
from tests.whole.runs import epochs, evaluations, losses

pytestmark = needs_compiler
GPU = {"device": "cuda", "labeller_gpus": 1.0}
PARSING = {"find_foreground", "divide_foreground"}
PICTURES, MASKS = (torch.uint8, 4), (torch.float32, 4)  # as they go to the GPU: type, and number of axes

MORE_FORMS: dict[str, dict[str, Any]] = {
    "cluster_contrast": {"method": {"name": "cluster_contrast"}},
    "cluster_contrast_chosen": {
        "method": {"name": "cluster_contrast", "camera_centring": True},
        "run": {"keep_best": "camera_cycle"},
    },
    "scwm_rows": {"method": {"name": "scwm"}, "scwm": {"space": "rows"}},
    **FORMS,
}
slow_forms = [pytest.param(sections, id=name, marks=pytest.mark.slow) for name, sections in MORE_FORMS.items()]
SCWM: dict[str, Any] = {"method": {"name": "scwm"}}


def on_both(tiny_settings: Callable[..., Any], sections: dict[str, Any], run: dict[str, Any]) -> Any:
    """The same run on the processor and on the stand-in; what the latter saw."""
    own = sections.get("run", {})
    launch(tiny_settings("cpu", **{**sections, "run": {**own, **run}}))
    with stand_in_gpu() as gpu:
        launch(tiny_settings("gpu", **{**sections, "run": {**own, **run, **GPU}}))
    return gpu


def assert_same_figures(folder: Path) -> None:
    cpu, gpu = folder / "cpu", folder / "gpu"
    assert losses(cpu) == losses(gpu)
    assert epochs(cpu) == epochs(gpu)
    assert evaluations(cpu) == evaluations(gpu)


@pytest.mark.parametrize("sections", [pytest.param(SCWM, id="scwm"), *slow_forms])
def test_a_run_gives_the_losses_labels_and_figures_of_the_processor(
    sections: dict[str, Any], tiny_settings: Callable[..., Any], tmp_path: Path
) -> None:
    gpu = on_both(tiny_settings, sections, {})
    assert_same_figures(tmp_path)
    name = sections["method"]["name"]
    assert gpu.kernels or name in ("buc", "ihc")  # their clusters merge on the processor
    if name == "scwm" and sections.get("scwm", {}).get("parts") != "stripes":
        assert gpu.kernels >= PARSING
        assert MASKS in gpu.fetched_beside
    assert PICTURES in gpu.fetched_beside
    assert PICTURES not in gpu.waited_for


@pytest.mark.slow
def test_a_run_in_half_precision_that_is_labelled_by_blocks(tiny_settings: Callable[..., Any], tmp_path: Path) -> None:
    run = {"labelling": "blocks", "search_block": 64, "labellers": 2}
    gpu = on_both(tiny_settings, {**SCWM, "train": {"precision": "bfloat16"}}, run)
    assert_same_figures(tmp_path)
    assert gpu.autocasts == {torch.bfloat16}


@pytest.fixture
def one_rank(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Runs without Ray train as the only rank of a process group."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/meeting", rank=0, world_size=1)
    monkeypatch.setattr("reidray.launch.services.OneProcess", ProcessGroup)
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("one_rank")
@pytest.mark.parametrize("replica", ["replicated", "sharded"])
def test_what_ranks_exchange_lies_on_the_gpu(replica: str, tiny_settings: Callable[..., Any], tmp_path: Path) -> None:
    """NCCL knows no other tensors."""
    gpu = on_both(tiny_settings, {"method": {"name": "acrm"}, "acrm": {"graph": 8}}, {"replica": replica})
    assert_same_figures(tmp_path)
    assert gpu.collectives >= {"all_gather", "broadcast"}
    assert ("all_to_all_single" in gpu.collectives) == (replica == "sharded")
