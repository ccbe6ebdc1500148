"""Files of TensorBoard's projector: features, their names and labels, and thumbnails of them."""

# M = images, D = feature width

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from reidray.arrays import Array, Bytes, Floats
from reidray.disk import write_whole
from reidray.report.page.sprites import sheet, thumbnails_of

_HEIGHT = 64  # pixels of a thumbnail
_CONFIG = """\
embeddings {{
  tensor_name: "features of the last labelling"
  tensor_path: "projector/tensors.tsv"
  metadata_path: "projector/metadata.tsv"
  sprite {{
    image_path: "projector/sprite.png"
    single_image_dim: {width}
    single_image_dim: {height}
  }}
}}
"""


def write_projector(
    folder: Path, features_MD: Floats, names: Sequence[str], columns: Mapping[str, Array], pictures_MHW3: Bytes
) -> None:
    """Writes projector_config.pbtxt and the folder projector into a folder of TensorBoard's events.

    Args:
      features_MD: float32.
      names: of the images; tabs and line ends in them become spaces, of which the format would make columns.
      columns: further labels by name, a value an image.
      pictures_MHW3: uint8.
    """
    inside = folder / "projector"
    inside.mkdir(parents=True, exist_ok=True)
    rows = ("\t".join(f"{value:.5g}" for value in row) for row in features_MD.tolist())
    write_whole(inside / "tensors.tsv", "\n".join(rows) + "\n")
    lines = ["\t".join(["name", *columns])]
    for place, name in enumerate(names):
        values = [f"{columns[column][place]:.4g}" for column in columns]
        lines.append("\t".join([" ".join(name.split()), *values]))
    write_whole(inside / "metadata.tsv", "\n".join(lines) + "\n")
    height, width = pictures_MHW3.shape[1:3]
    size = (_HEIGHT, max(1, round(_HEIGHT * width / height)))
    across = math.ceil(math.sqrt(len(names)))  # the projector takes as many rows as columns
    sheet(thumbnails_of(pictures_MHW3, size), columns=across).save(inside / "sprite.png", format="PNG")
    write_whole(folder / "projector_config.pbtxt", _CONFIG.format(width=size[1], height=size[0]))
