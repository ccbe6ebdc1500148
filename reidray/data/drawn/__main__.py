"""A contact sheet to look at, persons by cameras: `python -m reidray.data.drawn --sheet OUT.png [--masks]`."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from .picture import draw_picture
from .population import population
from .settings import LATER, SPLITS, DrawnSettings

_PART_COLOURS = np.array([(30, 30, 30), (240, 200, 60), (60, 140, 240), (60, 200, 90), (230, 60, 80)], np.uint8)
_GAP = 4


def contact_sheet(settings: DrawnSettings, split: str, *, persons: int, pictures: int, masks: bool) -> np.ndarray:
    """Persons (rows) by cameras and pictures (columns), whether or not the cameras visit them; uint8 (h, w, 3).

    A twin among the persons stands in a row of its own; with `masks` each picture is followed by its parts in colours.
    """
    rows = []
    for person in range(min(persons, len(population(settings, split).identities))):
        tiles = []
        for camera in range(settings.num_cameras):
            for number in range(pictures):
                picture = draw_picture(settings, split, person, camera, number)
                tiles += [picture.image, _PART_COLOURS[picture.mask]] if masks else [picture.image]
        rows.append(
            np.concatenate([np.pad(tile, ((_GAP, 0), (_GAP, 0), (0, 0)), constant_values=255) for tile in tiles], 1)
        )
    return np.concatenate(rows)


def main() -> None:
    """Read the command line and write the sheet."""
    parser = argparse.ArgumentParser(
        prog="python -m reidray.data.drawn", description="Draw a contact sheet of pedestrians."
    )
    parser.add_argument("--sheet", type=Path, required=True, help="PNG file to write")
    parser.add_argument("--masks", action="store_true", help="show the part mask after each picture")
    parser.add_argument("--persons", type=int, default=8, help="rows")
    parser.add_argument("--pictures", type=int, default=2, help="pictures per camera")
    parser.add_argument("--cameras", type=int, default=6, help="cameras")
    parser.add_argument("--split", choices=SPLITS, default="train")
    parser.add_argument("--scale", type=int, default=2, help="enlargement")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--twins", type=float, default=0.25, help="share of near-copies, 0..1")
    parser.add_argument("--fresh-scenes", type=int, default=0, help="number of scenes; 0 gives each camera its own")
    parser.add_argument(
        "--difficulty", type=float, default=0.4, help="camera strength, occlusion, misalignment and passers-by, 0..1"
    )
    for knob in LATER:
        name = f"--{knob.replace('_', '-')}"
        parser.add_argument(name, type=float, default=0.0, help=f"data.drawn.{knob}, 0..1")
    told = parser.parse_args()
    settings = DrawnSettings(
        seed=told.seed,
        train_persons=told.persons,
        validation_persons=told.persons,
        test_persons=told.persons,
        num_cameras=told.cameras,
        cameras_per_person=(1, told.cameras),
        images_per_camera=(1, 1),
        twins=told.twins,
        twin_changes=2,
        camera_strength=0.9 * told.difficulty,
        camera_blur=min(2.5 * told.difficulty, 1.0),
        camera_noise=min(2.5 * told.difficulty, 1.0),
        view_spread=1.0,
        occlusion=told.difficulty,
        misalignment=told.difficulty,
        pedestrians_behind=0.4 * told.difficulty,
        frames=0,
        fresh_scenes=told.fresh_scenes,
        camera_seed=told.seed,
        **{knob: getattr(told, knob) for knob in LATER},
    )
    sheet = contact_sheet(settings, told.split, persons=told.persons, pictures=told.pictures, masks=told.masks)
    size = (sheet.shape[1] * told.scale, sheet.shape[0] * told.scale)
    Image.fromarray(sheet).resize(size, Image.Resampling.BICUBIC).save(told.sheet)


if __name__ == "__main__":
    main()
