"""Write the embeddings of images to a gallery, a Parquet file, or add them to it.

IMAGES are folders (searched at any depth), image files, patterns such as "crops/*.jpg" in quotes, @FILE (a text file
with a path a line), or packed splits. What is in the gallery already is not embedded again. Columns: name, source (the
folder that the name lies in), camera (its name, null where unknown), stamp (by which a changed file is known),
embedding (unit length, float32). Cameras are read as the run read them in training (data.camera_from); --camera-from
says otherwise.
"""

from __future__ import annotations

import shlex
import sys
from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path

from reidray import compiled
from reidray.command import parse
from reidray.counted import counted
from reidray.data.camera_from import KINDS
from reidray.events import message, stage
from reidray.gallery import Gallery
from reidray.inference import load
from reidray.inference.model import packed_split
from reidray.report.console import Console


def _options(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--run", "--checkpoint", dest="run", metavar="DIR", type=Path, required=True, help="run folder or checkpoint"
    )
    parser.add_argument(
        "--output", "--gallery", dest="output", metavar="FILE.parquet", type=Path, required=True, help="the gallery"
    )
    parser.add_argument(
        "--camera-from",
        choices=KINDS,
        help="what tells the camera: the first folder of a path, c<number> in a file's name, --pattern, or nothing",
    )
    parser.add_argument("--pattern", metavar="TEMPLATE", help="how paths are read, such as {camera}/{}: docs/data.md")
    parser.add_argument("--list-skipped", action="store_true", help="print the name of every file that is left out")
    parser.add_argument("images", metavar="IMAGES", nargs="+", help="what to embed")


def main(words: Sequence[str], prog: str) -> None:
    """The command."""
    options = parse(words, prog=prog, description=__doc__, extra=_options, settings=False).options
    check_output(options.output)
    model = load(options.run)
    gallery = Gallery(options.output, model)
    with Console(None, model.settings, stream=sys.stderr) as console:
        if not_kept := compiled.caution():
            console.handle(message(not_kept))
        words = given(options.images)
        packs = [word for word in words if packed_split(word) is not None]
        for images in [*packs, *([[word for word in words if word not in packs]] if len(packs) < len(words) else [])]:
            added = gallery.add(
                images,
                camera_from=options.camera_from,
                pattern=options.pattern,
                progress=lambda done, total: console.handle(stage("embed", done=done, total=total)),
                list_all=options.list_skipped,
            )
            for sentence in added.left_out:
                console.handle(message(sentence))
            for sentence in added.notes:
                console.handle(message(sentence))
            known = f", {added.known:,} were there already" if added.known else ""
            known += f", {added.changed:,} of them in the place of earlier pictures" if added.changed else ""
            known += f", {added.moved:,} have another camera now" if added.moved else ""
            what = images if isinstance(images, str) else ", ".join(images[:3]) + (", ..." if len(images) > 3 else "")
            console.handle(message(f"{what}: added {added.added:,}{known}"))
        console.handle(message(f"{options.output} has {counted(len(gallery), 'image')}"))
        console.handle(message(f"search it with: reidray search --gallery {shlex.quote(str(options.output))} PHOTO"))


def check_output(path: Path) -> None:
    """Raises ValueError for what cannot become a gallery."""
    if path.suffix.lower() not in (".parquet", ".pq"):
        raise ValueError(
            f"--output {path}: expected a name that ends in .parquet; pandas, polars and DuckDB read it, and "
            "reidray.Gallery(FILE).features is the array"
        )
    if not path.absolute().parent.is_dir():
        raise ValueError(f"--output {path}: there is no folder {path.absolute().parent}")


def given(words: Sequence[str]) -> list[str]:
    """The images that were named, those of @FILE line by line."""
    found = []
    for word in words:
        if not word.startswith("@") or Path(word).exists():
            found.append(word)
            continue
        try:
            lines = Path(word[1:]).read_text().splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(
                f"{word}: expected a text file with a path a line, which cannot be read ({error})"
            ) from None
        found += [line.strip() for line in lines if line.strip()]
    return found
