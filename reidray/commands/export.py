"""Write the network of a run as one file for other programs: ONNX, or torch.export (.pt2).

The file takes images at the network's size and gives features of unit length, those of `reidray embed`. Before it is
put in its place, it is compared with PyTorch on 100 images. docs/export.md describes trackers, OpenVINO and TensorRT.
"""

from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path

from reidray.command import parse

_COMPARED = 100


def _options(parser: ArgumentParser) -> None:
    parser.add_argument("--run", metavar="RUN", type=Path, required=True, help="run folder or checkpoint folder")
    parser.add_argument("--format", metavar="FORMAT", default="onnx", help="onnx, or torch for a .pt2 file [onnx]")
    parser.add_argument("--output", metavar="FILE", type=Path, required=True, help="file to write; never overwritten")
    parser.add_argument("--precision", metavar="WORD", default="float32", help="float32 or float16 [float32]")
    parser.add_argument(
        "--input",
        metavar="WORD",
        default="pixels",
        help="pixels: uint8, normalised inside; normalised: by ImageNet's mean and deviation, as trackers do [pixels]",
    )
    parser.add_argument("--opset", metavar="N", type=int, help="of ONNX, 18 or more [18]")


def main(words: Sequence[str], prog: str) -> None:
    """The command."""
    options = parse(words, prog=prog, description=__doc__ or "", extra=_options, settings=False).options

    from reidray.export import check_export, export_model, images_to_compare
    from reidray.inference import load

    asked = {"kind": options.format, "precision": options.precision, "given": options.input, "opset": options.opset}
    check_export(options.output, **asked)
    model = load(options.run)
    images_BHW3, whence = images_to_compare(model.settings, _COMPARED)
    written = export_model(model.network, model.settings, options.output, images_BHW3, model_id=model.id, **asked)
    inside, agreement = written.metadata, written.agreement
    size = f"{inside['input_height']}x{inside['input_width']}"
    opset = f", opset {inside['opset']}" if "opset" in inside else ""
    megabytes = written.path.stat().st_size / 1e6
    print(
        f"{written.path}: {options.format} {inside['precision']}{opset}, {megabytes:.1f} MB, takes "
        f"{inside['input']} of {size} (height x width), gives {inside['feature_width']} numbers of length 1"
    )
    print(
        f"compared with PyTorch on {agreement.images} {whence}: lowest cosine {agreement.least_cosine:.7f}, largest "
        f"difference {agreement.largest_difference:.1e}"
    )
