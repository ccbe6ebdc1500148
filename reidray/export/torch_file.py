"""torch.export: a .pt2 file that PyTorch runs without reidray."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from reidray.arrays import Array
from reidray.export.graph import EmbeddingGraph

METADATA = "reidray.json"


def write_torch(graph: EmbeddingGraph, path: Path, metadata: Mapping[str, str]) -> None:
    """One file with its weights inside; the batch is free, height and width are fixed.

    path: its name must end in .pt2, or PyTorch warns.
    """
    program = torch.export.export(graph, (graph.example(),), dynamic_shapes={"images": {0: torch.export.Dim("batch")}})
    for module in program.graph_module.modules():
        if isinstance(module, torch.fx.GraphModule):
            for node in module.graph.nodes:
                node.meta.pop("stack_trace", None)  # paths of this machine
    program.example_inputs = None  # they are of no use to others, and would be a pickle in the file
    torch.export.save(program, path, extra_files={METADATA: json.dumps(dict(metadata), indent=1)})


def torch_runner(path: Path) -> Callable[[Array], Array]:
    """The file in PyTorch: images -> features. For files that this process has written: see docs/security.md."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning, module=r"torch\b")
        module = torch.export.load(path).module()

    @torch.no_grad()
    def run(images: Array) -> Array:
        features: Array = module(torch.from_numpy(images)).numpy()
        return features

    return run
