"""Export: a trained network as one file for other programs (ONNX, torch.export), compared with PyTorch before it is
kept."""

from reidray.export.graph import INPUTS, PRECISIONS, EmbeddingGraph
from reidray.export.images import images_to_compare
from reidray.export.write import FORMATS, Exported, check_export, export_model

__all__ = [
    "FORMATS",
    "INPUTS",
    "PRECISIONS",
    "EmbeddingGraph",
    "Exported",
    "check_export",
    "export_model",
    "images_to_compare",
]
