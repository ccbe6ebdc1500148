"""benchmarks/gpu.py to its end, in a small size, on the stand-in: whoever has a GPU runs it for the first time."""

import importlib
from pathlib import Path

import pytest

from reidray.cuda import device
from tests.cuda.emulated import needs_compiler
from tests.cuda.stand_in import stand_in_gpu

pytestmark = needs_compiler


def test_it_measures_labelling_and_part_clustering(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[2] / "benchmarks"))
    gpu = importlib.import_module("gpu")
    monkeypatch.setattr(gpu, "WIDTH", 32)
    with stand_in_gpu() as found:
        here = device.cuda_device()
        rows = [*gpu.labelling(150, here, rounds=1), gpu.part_clustering(4, here, rounds=1)]
    assert {"find_foreground", "divide_foreground", "join_border"} <= found.kernels
    assert rows[0].notes["gpu"] == "a stand-in"
    assert rows[0].notes["clusters"] > 1
    assert 20 < rows[-1].notes["mean_foreground"] < 150
