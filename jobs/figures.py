"""Draw the figures of SCWM's paper from finished runs, or from a finished search.

parsings (Fig. 3): pseudo parts of the same training images, a row a run. predictions (Fig. 4): the parts that networks
predict on the same images. grid (Fig. 5): a measure over two settings that a search tried. persons (Fig. 6): t-SNE of
the images of some persons, a panel a run. A run is a folder, or TITLE=FOLDER.
"""

import sys
from argparse import ArgumentParser
from pathlib import Path

from reidray.command import parse
from reidray.launch.paper_figures import Run, draw_parsings, draw_persons, draw_predictions
from reidray.tuning.grid_figure import draw_search
from reidray.user_errors import user_errors


def _options(parser: ArgumentParser) -> None:
    parser.add_argument("--figure", choices=("parsings", "predictions", "grid", "persons"), required=True)
    parser.add_argument("--runs", nargs="+", default=[], metavar="RUN", help="run folders, or TITLE=FOLDER")
    parser.add_argument("--search", type=Path, metavar="DIR", help="search folder (grid)")
    parser.add_argument(
        "--across", default="scwm.num_parts", metavar="NAME", help="setting of the grid's columns (scwm.num_parts)"
    )
    parser.add_argument(
        "--up", default="scwm.max_distance", metavar="NAME", help="setting of its rows (scwm.max_distance)"
    )
    parser.add_argument("--measure", default="mAP", help="what the grid shows (mAP)")
    parser.add_argument("--images", type=int, default=8, help="images of parsings and predictions (8)")
    parser.add_argument("--persons", type=int, default=11, help="persons of the map (11)")
    parser.add_argument("--output", metavar="FILE", type=Path, required=True, help="PNG to write")


def _run(text: str) -> Run:
    title, separator, folder = text.partition("=")
    if separator and not Path(text).is_dir():
        return Run(title, Path(folder).resolve())
    return Run(Path(text).name, Path(text).resolve())


def main() -> None:
    """The job."""
    with user_errors():
        asked = parse(sys.argv[1:], prog="jobs/figures.py", description=__doc__, extra=_options, settings=False).options
        runs, output = [_run(text) for text in asked.runs], asked.output.resolve()
        if asked.images < 1 or asked.persons < 1:
            raise ValueError("--images and --persons must be 1 or more")
        if output.exists():
            raise ValueError(f"{output} exists and is not overwritten: choose another --output")
        if asked.figure == "grid":
            if asked.search is None:
                raise ValueError("--figure grid needs --search DIR")
            draw_search(output, asked.search.resolve(), (asked.across, asked.up), asked.measure)
        elif not runs:
            raise ValueError(f"--figure {asked.figure} needs --runs")
        elif asked.figure == "parsings":
            draw_parsings(output, runs, images=asked.images)
        elif asked.figure == "predictions":
            draw_predictions(output, runs, images=asked.images)
        else:
            draw_persons(output, runs, persons=asked.persons)
        print(f"wrote {output}")


if __name__ == "__main__":
    main()
