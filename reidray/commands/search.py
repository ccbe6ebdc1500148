"""Find the images of a gallery that are most like a photo.

Prints names and similarities, the most similar first; --output draws the ranked list. The run that made the gallery is
known to it; --run names it where it was moved.
"""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path

from reidray.command import parse
from reidray.gallery import Gallery, Match
from reidray.gallery.file import GalleryFile
from reidray.gallery.picture import draw_matches
from reidray.inference import load


def _options(parser: ArgumentParser) -> None:
    parser.add_argument("--gallery", metavar="FILE.parquet", type=Path, required=True, help="written by reidray embed")
    parser.add_argument("--run", metavar="DIR", type=Path, help="run folder or checkpoint (default: the gallery's)")
    parser.add_argument("-k", metavar="N", type=int, default=10, help="how many images (10)")
    parser.add_argument(
        "--camera", metavar="NAME", action="append", help="only images of this camera; several times: of these"
    )
    parser.add_argument("--not-camera", metavar="NAME", action="append", default=[], help="no image of this camera")
    parser.add_argument("--at-least", metavar="S", type=float, default=-1.0, help="no image that is less similar")
    parser.add_argument("--output", metavar="FILE.png", type=Path, help="draw the ranked list")
    parser.add_argument("photos", metavar="PHOTO", nargs="+", help="images to search by")


def main(words: Sequence[str], prog: str) -> None:
    """The command."""
    options = parse(words, prog=prog, description=__doc__, extra=_options, settings=False).options
    if options.output is not None and options.output.suffix.lower() != ".png":
        raise ValueError(f"--output {options.output}: expected a name that ends in .png")
    if options.output is not None and options.output.exists():
        raise ValueError(f"{options.output} exists and is not overwritten: choose another --output")
    if options.output is not None and not options.output.absolute().parent.is_dir():
        raise ValueError(f"--output {options.output}: there is no folder {options.output.absolute().parent}")
    for photo in options.photos:
        if not Path(photo).is_file():
            there = "a folder is" if Path(photo).is_dir() else "nothing is"
            raise ValueError(f"{photo}: expected an image to search by, but {there} there")
    place = options.run or Path(GalleryFile(options.gallery).made.run)
    if not place.is_dir():
        raise ValueError(f"{options.gallery} was made by the run {place}, which is gone: give it with --run DIR")
    gallery = Gallery(options.gallery, load(place))
    found = [
        gallery.search(
            photo, options.k, cameras=options.camera, not_cameras=options.not_camera, at_least=options.at_least
        )
        for photo in options.photos
    ]
    for photo, matches in zip(options.photos, found, strict=True):
        if len(options.photos) > 1:
            print(f"{photo}:")
        for rank, match in enumerate(matches, start=1):
            camera = "" if match.camera is None else f"  camera {printable(match.camera)}"
            print(f"{rank:4}  {match.similarity:.4f}  {printable(_place(match))}{camera}")
    if options.output is not None:
        draw_matches(options.output, options.photos, found)
        print(f"wrote {options.output}")


def _place(match: Match) -> str:
    """The path of the image's file, as one would type it here; its name where there is no file."""
    if match.path is None:
        return match.name
    here = Path.cwd()
    return str(match.path.relative_to(here) if match.path.is_relative_to(here) else match.path)


def printable(name: str) -> str:
    """A name that does nothing to a terminal."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in name)
