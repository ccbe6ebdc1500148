"""Images to compare an export with PyTorch on: the run's own where they are at hand, else drawn pedestrians."""

from __future__ import annotations

import numpy as np

from reidray.arrays import Bytes
from reidray.config import Settings
from reidray.data.drawn import DrawnSettings, draw_picture
from reidray.data.resize import resize
from reidray.launch.prepare import packed_place
from reidray.training.context import open_split, split_exists

_SEED = 20_000  # of drawn pedestrians


def images_to_compare(settings: Settings, count: int) -> tuple[Bytes, str]:
    """Images at the network's size, and in words where they come from.

    Shards on another machine are left alone: an export does not wait for a network.

    Args:
      settings: of the run.
      count: how many; fewer where the run's data have fewer.

    Returns:
      uint8 [B, H, W, 3], and "training images of the run" or "drawn pedestrians".
    """
    place = packed_place(settings)
    if "://" not in place:
        try:
            if split_exists(place, "train"):
                images = open_split(settings, place, "train").images
                number = images.source.count
                chosen = np.unique(np.linspace(0, number - 1, min(count, number)).astype(np.int64))
                return images.rows(chosen), "training images of the run"
        except (ValueError, OSError):  # moved, damaged or of another version: drawn ones serve as well
            pass
    return drawn_images(settings.data.height, settings.data.width, count), "drawn pedestrians"


def drawn_images(height: int, width: int, count: int) -> Bytes:
    """Drawn pedestrians of several cameras, uint8 [B, height, width, 3]; the same ones every time."""
    given = Settings().data.drawn.model_dump()
    cameras = given["num_cameras"]
    settings = DrawnSettings(seed=_SEED, **{**given, "train_persons": -(-count // cameras)})
    pictures = (
        draw_picture(settings, "train", number // cameras, number % cameras, 0).image for number in range(count)
    )
    return np.stack([resize(picture, height=height, width=width) for picture in pictures])
