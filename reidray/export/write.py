"""Writes an export beside its place, compares it with PyTorch, and only then puts it in its place."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from reidray.arrays import Bytes
from reidray.config import Settings
from reidray.export.compare import Agreement, compared
from reidray.export.graph import INPUTS, PRECISIONS, EmbeddingGraph, embedded
from reidray.export.onnx_file import DEFAULT_OPSET, check_onnx, onnx_runner, write_onnx
from reidray.export.torch_file import torch_runner, write_torch
from reidray.features import Network
from reidray.features.normalisation import MEAN, STD
from reidray.version import __version__

ENDINGS = {"onnx": ".onnx", "torch": ".pt2"}
FORMATS = tuple(ENDINGS)


@dataclass(frozen=True)
class Exported:
    """A file that was written.

    metadata: what is inside, by name. agreement: with PyTorch.
    """

    path: Path
    metadata: dict[str, str]
    agreement: Agreement


def check_export(path: Path, *, kind: str, precision: str, given: str, opset: int | None) -> None:
    """See that an export can begin.

    Raises:
      ValueError: the file is there, its folder is not, a word is unknown, or a package is missing.
    """
    words = (("format", kind, FORMATS), ("precision", precision, PRECISIONS), ("input", given, INPUTS))
    for name, word, known in words:
        if word not in known:
            raise ValueError(f"--{name} must be one of {', '.join(known)}; got {word}")
    ending = ENDINGS[kind]
    if path.suffix.lower() != ending:
        raise ValueError(f"--format {kind} writes a file that ends in {ending}; got --output {path}")
    if path.exists():
        raise ValueError(f"{path} exists and is not overwritten: choose another --output")
    if not path.absolute().parent.is_dir():
        raise ValueError(f"--output {path}: there is no folder {path.absolute().parent}")
    if kind == "torch":
        if opset is not None:
            raise ValueError("--opset is of ONNX: leave it out with --format torch")
    else:
        check_onnx(DEFAULT_OPSET if opset is None else opset)


def export_model(
    network: Network,
    settings: Settings,
    path: Path,
    images_BHW3: Bytes,
    *,
    model_id: str,
    kind: str = "onnx",
    precision: str = "float32",
    given: str = "pixels",
    opset: int | None = None,
) -> Exported:
    """Write a network as one file that needs no reidray; nothing is left behind where it differs from PyTorch.

    Args:
      network: trained; stays as it is.
      settings: of its run.
      path: of the file; must not exist.
      images_BHW3: uint8 at the network's size, to compare on.
      model_id: written into the file, so that galleries can tell models apart.
      kind: "onnx", or "torch" for torch.export (.pt2).
      precision: "float32" or "float16".
      given: what the file takes, "pixels" or "normalised": see `EmbeddingGraph`.
      opset: of ONNX; None: 18.

    Returns:
      What was written and how well it agrees.

    Raises:
      ValueError: as `check_export`, or the file does not give PyTorch's features.
      OSError: it could not be written.
    """
    check_export(path, kind=kind, precision=precision, given=given, opset=opset)
    opset = DEFAULT_OPSET if opset is None else opset
    expected_BD = embedded(network, settings, images_BHW3)
    graph = EmbeddingGraph(network, settings, given=given, precision=precision)
    metadata = {
        "reidray_version": __version__,
        "model_id": model_id,
        "method": settings.method.name,
        "backbone": settings.model.backbone,
        "input": given,
        "input_layout": "batch, channels (RGB), height, width",
        "input_height": str(settings.data.height),
        "input_width": str(settings.data.width),
        "resize": "PIL bicubic with antialias, no padding, aspect ratio not kept",
        "mean": json.dumps(MEAN),
        "std": json.dumps(STD),
        "feature_width": str(expected_BD.shape[1]),
        "feature_length": "1",
        "precision": precision,
    }
    if kind == "onnx":
        metadata["opset"] = str(opset)
    beside = path.with_name(f".{path.stem}.{os.getpid()}{'.onnx' if kind == 'onnx' else '.pt2'}")
    try:
        if kind == "onnx":
            write_onnx(graph, beside, metadata, opset=opset)
            run = onnx_runner(beside)
        else:
            write_torch(graph, beside, metadata)
            run = torch_runner(beside)
        agreement = compared(run, graph.as_given(images_BHW3), expected_BD, precision=precision)
        with beside.open("rb") as file:
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)  # after an error only
    return Exported(path, metadata, agreement)
