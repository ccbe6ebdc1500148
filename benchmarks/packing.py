"""Packing a folder of crops: seconds and memory of the one process that does it, for two sizes.

    python benchmarks/packing.py [--images 20000 200000] [--output FILE]

Every file has the same small JPEG, under the names of Market-1501's layout, twelve a person. Memory is over that
of the same process after it has packed a few images.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np
from measure import Row, Timing, peak_mb, report
from PIL import Image

from reidray.config import Settings
from reidray.launch.prepare import prepared

A_PERSON = 12
A_FILE = 10_000
FEW = 600


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs="+", default=[20_000, 200_000])
    parser.add_argument("--output", type=Path, help="where the JSON is kept")
    options = parser.parse_args()
    rows = []
    for count in options.images:
        with tempfile.TemporaryDirectory() as place:
            needed = peak_mb(crops, packed, place, count, threads=1)
            seconds, cpu = (float(text) for text in (Path(place) / "seconds").read_text().split())
        timing = Timing(seconds=seconds, cpu_seconds=cpu, first_seconds=seconds)
        size = f"N = {count:,} files of 64x128"
        rows.append(
            Row(
                "read and pack",
                size,
                ours=timing,
                peak_mb=needed,
                notes={"ms an image": round(1e3 * seconds / count, 2)},
            )
        )
    report("packing", rows, threads=1, output=options.output)


def crops(place: str, count: int) -> Path:
    """A folder with so many training crops; a small one was packed before, so that what is imported is not counted."""
    packed(links(Path(place) / "few", FEW))
    return links(Path(place) / "many", count)


def links(root: Path, count: int) -> Path:
    """Crops under names of Market-1501's layout; ten thousand of them are one file, since disks have a limit."""
    for folder in ("bounding_box_train", "query", "bounding_box_test"):
        (root / folder).mkdir(parents=True)
    noise = np.random.default_rng(0).integers(0, 255, (16, 8, 3), np.uint8)
    picture = root / "picture.jpg"
    Image.fromarray(noise).resize((64, 128), Image.Resampling.BICUBIC).save(picture, quality=85)
    for copy in range(0, count, A_FILE):
        shutil.copyfile(picture, root / f"{copy}.jpg")
    names = [f"{1 + n // A_PERSON:06d}_c{1 + n % 2}s1_{n % A_PERSON:06d}_00.jpg" for n in range(count)]
    for n, name in enumerate(names):
        os.link(root / f"{n - n % A_FILE}.jpg", root / "bounding_box_train" / name)
    for folder, camera in (("query", 1), ("bounding_box_test", 2)):
        os.link(picture, root / folder / f"999999_c{camera}s1_000000_00.jpg")
    return root


def packed(root: Path) -> None:
    """Pack it, and note the seconds beside it."""
    settings = Settings.model_validate(
        {"data": {"dataset": "market1501", "root": str(root), "packed": f"{root}-packed"}}
    )
    began, cpu = time.perf_counter(), time.process_time()
    prepared(settings, lambda _: None, processes=1)
    (root.parent / "seconds").write_text(f"{time.perf_counter() - began} {time.process_time() - cpu}")
    shutil.rmtree(f"{root}-packed")


if __name__ == "__main__":
    main()
