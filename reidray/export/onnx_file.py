"""ONNX: written by PyTorch's exporter, checked by onnx, run by onnxruntime on the CPU.

The packages are those of the extra `export`; nothing here is imported before an export asks for it.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from reidray.arrays import Array
from reidray.export.graph import EmbeddingGraph
from reidray.threads import num_threads

LEAST_OPSET, DEFAULT_OPSET = 18, 18
"""PyTorch's exporter writes 18 and newer; 18 is read by ONNX Runtime 1.14, TensorRT 8.6, OpenVINO 2023 and later."""

_PACKAGES = ("onnx", "onnxruntime", "onnxscript")


def check_onnx(opset: int) -> None:
    """See that the packages are there and know the opset, before anything long begins.

    Raises:
      ValueError: a package is missing, or the opset is none that can be written here.
    """
    missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        verb = "is" if len(missing) == 1 else "are"
        raise ValueError(
            f"--format onnx needs the extra `export`, and {' and '.join(missing)} {verb} not installed: pip install "
            "'reidray[export]' (in a clone: pip install -c constraints.txt -e '.[export]')"
        )
    import onnx

    newest = onnx.defs.onnx_opset_version()
    if not LEAST_OPSET <= opset <= newest:
        raise ValueError(f"--opset must be {LEAST_OPSET} to {newest} with the installed onnx; got {opset}")


def write_onnx(graph: EmbeddingGraph, path: Path, metadata: Mapping[str, str], *, opset: int) -> None:
    """One file with its weights inside; the batch is free, height and width are fixed."""
    import onnx

    with warnings.catch_warnings():
        # What PyTorch's exporter says of itself and of onnxscript is nothing that a user can act on.
        warnings.filterwarnings("ignore", category=DeprecationWarning, module=r"(torch|onnxscript|onnx|copyreg)\b")
        warnings.filterwarnings("ignore", category=FutureWarning, module=r"(torch|onnxscript|onnx|copyreg)\b")
        program: Any = torch.onnx.export(
            graph,
            (graph.example(),),
            dynamo=True,
            dynamic_shapes={"images": {0: torch.export.Dim("batch")}},
            input_names=["images"],
            output_names=["features"],
            opset_version=opset,
            verbose=False,
        )
    model = program.model_proto
    _without_traces(model)
    written = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    if written != opset:
        raise ValueError(f"--opset {opset} could not be written: PyTorch's exporter gave {written}; take that one")
    onnx.helper.set_model_props(model, dict(metadata))
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString())


def onnx_runner(path: Path) -> Callable[[Array], Array]:
    """The file in onnxruntime on the CPU: images -> features."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = num_threads()
    options.log_severity_level = 3  # errors
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def run(images: Array) -> Array:
        return session.run(["features"], {"images": images})[0]

    return run


def _without_traces(model: Any) -> None:
    """Remove the exporter's notes: stack traces with this machine's paths, and names of Python classes."""
    for part in (model.graph, *model.functions):
        del part.metadata_props[:]
        for entry in (*part.node, *part.value_info, *getattr(part, "input", ()), *getattr(part, "output", ())):
            if hasattr(entry, "metadata_props"):
                del entry.metadata_props[:]
            if hasattr(entry, "doc_string"):
                entry.doc_string = ""
    for tensor in model.graph.initializer:
        del tensor.metadata_props[:]
        tensor.doc_string = ""
    model.doc_string = ""
