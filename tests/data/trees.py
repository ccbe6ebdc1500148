"""Folders with the file names and the numbers of images of public data sets; the files are empty."""

from pathlib import Path

import numpy as np
from scipy.io import savemat


def write(folder: Path, names: list[str]) -> None:
    """Empty files."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()


def spread(count: int, persons: list[int]) -> list[int]:
    """A person for each of `count` images, each at least once."""
    return [persons[number % len(persons)] for number in range(count)]


def msmt17(root: Path, folders: tuple[str, str] = ("train", "test"), scale: int = 1) -> dict[str, int]:
    """MSMT17 with its lists; scale divides all numbers. What it has."""
    numbers = {"train": 30_248, "val": 2_373, "query": 11_659, "gallery": 82_161}
    persons = {"train": 1_041, "val": 1_041, "query": 3_060, "gallery": 3_060}
    for which in numbers:
        folder = folders[0] if which in ("train", "val") else folders[1]
        count, people = numbers[which] // scale, list(range(persons[which] // scale))
        offset = {"train": 0, "val": 50_000, "query": 0, "gallery": 100_000}[which]
        names = [
            f"{person:04d}/{person:04d}_{number:03d}_{number % 15 + 1:02d}_0303morning_{offset + number:04d}_0.jpg"
            for number, person in enumerate(spread(count, people))
        ]
        write(root / folder, names)
        lines = [f"{name} {int(name[:4])}" for name in names]
        (root / f"list_{which}.txt").write_text("\n".join(lines) + "\n")
        numbers[which] = count
    return numbers


def dukemtmc(root: Path, scale: int = 1) -> None:
    """DukeMTMC-reID."""
    train, test, others = list(range(1, 703)), list(range(1001, 1703)), list(range(2001, 2409))
    for folder, people in (
        ("bounding_box_train", spread(16_522 // scale, train)),
        ("query", spread(2_228 // scale, test)),
        ("bounding_box_test", spread(17_661 // scale, test + others)),
    ):
        write(root / folder, [f"{person:04d}_c{n % 8 + 1}_f{n:07d}.jpg" for n, person in enumerate(people)])


def veri776(root: Path, scale: int = 1) -> None:
    """VeRi-776."""
    train, test = list(range(201, 777)), list(range(1, 201))
    for folder, people in (
        ("image_train", spread(37_778 // scale, train)),
        ("image_query", spread(1_678 // scale, test)),
        ("image_test", spread(11_579 // scale, test)),
    ):
        write(root / folder, [f"{person:04d}_c{n % 20 + 1:03d}_{n:08d}_0.jpg" for n, person in enumerate(people)])


def cuhk03(root: Path) -> None:
    """CUHK03, new protocol, both kinds of boxes."""
    train, test = list(range(1, 768)), list(range(801, 1501))
    for boxes, numbers in (("detected", (7_365, 1_400, 5_332)), ("labeled", (7_368, 1_400, 5_328))):
        for folder, count, people in zip(
            ("bounding_box_train", "query", "bounding_box_test"), numbers, (train, test, test), strict=True
        ):
            names = [f"{person:04d}_c{n % 2 + 1}_{n}.png" for n, person in enumerate(spread(count, people))]
            write(root / boxes / folder, names)


def mars(root: Path, train: list[tuple[int, int, int]], test: list[tuple[int, int, int]], queries: list[int]) -> None:
    """MARS from tracklets (person, camera from 1, frames) and the places of the queries among those of test."""
    (root / "info").mkdir(parents=True, exist_ok=True)
    for part, tracks in (("train", train), ("test", test)):
        names: list[str] = []
        rows = []
        for number, (person, camera, frames) in enumerate(tracks):
            shown = "00-1" if person < 0 else f"{person:04d}"
            rows.append((len(names) + 1, len(names) + frames, person, camera))
            names += [f"{shown}C{camera}T{number:05d}F{frame:03d}.jpg" for frame in range(1, frames + 1)]
        for person in {name[:4] for name in names}:
            (root / f"bbox_{part}" / person).mkdir(parents=True, exist_ok=True)
        for name in names:
            (root / f"bbox_{part}" / name[:4] / name).touch()
        (root / "info" / f"{part}_name.txt").write_text("\n".join(names) + "\n")
        savemat(root / "info" / f"tracks_{part}_info.mat", {f"track_{part}_info": np.array(rows, np.float64)})
    savemat(root / "info" / "query_IDX.mat", {"query_IDX": np.array([queries], np.float64) + 1})


def official_mars(root: Path) -> None:
    """MARS with the official numbers of persons, tracklets, frames and queries."""
    persons = [2 * number + 1 for number in range(625)]
    train = _with_frames([(persons[number % 625], 1 + number // 625 % 6) for number in range(8_298)], total=509_914)
    seen: list[tuple[int, int]] = []
    queries = []
    for number in range(626):
        cameras = 2 if number < 70 else 4 if number < 70 + 172 else 3
        for camera in range(1, cameras + 1):
            queries.append(len(seen))
            tracks = 1 if number < 70 else 4 + (len(queries) - 140 <= 562)
            seen += [(2 * number + 2, camera)] * tracks
    junk = _with_frames([(-1, 1 + number % 6) for number in range(870)], total=681_089 - 657_709)
    others = _with_frames([(0, 1 + number % 6) for number in range(3_248)] + seen, total=657_709)
    mars(root, train, [*junk, *others], [870 + 3_248 + place for place in queries])


def _with_frames(tracks: list[tuple[int, int]], *, total: int) -> list[tuple[int, int, int]]:
    frames, more = divmod(total, len(tracks))
    return [(*track, frames + (number < more)) for number, track in enumerate(tracks)]


def dukemtmc_video(root: Path, tracks: dict[str, list[tuple[int, int, list[int]]]], old: bool = False) -> None:
    """DukeMTMC-VideoReID from tracklets (person, camera from 1, numbers of the frames) by folder."""
    for folder, rows in tracks.items():
        for number, (person, camera, frames) in enumerate(rows):
            place = root / folder / f"{person:04d}" / f"{number:04d}"
            place.mkdir(parents=True)
            for frame in frames:
                form = "{:04d}C{}F{:04d}.jpg" if old else "{:04d}_C{}_F{:04d}_X30823.jpg"
                (place / form.format(person, camera, frame)).touch()
