"""Folders with the file names and the numbers of images of public data sets; the files are empty."""

from pathlib import Path


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
