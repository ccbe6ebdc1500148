"""One service for all tests of a file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from reidray.gallery import Gallery
from tests.serving.service import Service, picture, served, tiny_model

HARMLESS = [f"{number:02}.jpg" for number in range(12)]
HARMFUL = [
    "<script>document.title='ran'</script>.jpg".replace("/", "\N{FRACTION SLASH}"),
    "<img src=x onerror=document.title='ran'>.jpg",
    "\"quoted\" 'twice' & more.jpg",
    "\N{RIGHT-TO-LEFT OVERRIDE}gpj.txt\N{RIGHT-TO-LEFT MARK}.jpg",
    "a" * 196 + ".jpg",
]
CAMERAS = {"c1": "1", "c2": HARMFUL[1]}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A gallery of drawn pictures, with names that are meant to do harm among them, and a server."""
    place = tmp_path_factory.mktemp("serving")
    folder = place / "crops"
    for camera in (0, 1, 2):
        (folder / f"c{camera}").mkdir(parents=True)
    model = tiny_model(place / "run")
    gallery = Gallery(place / "people.parquet", model)
    for number, name in enumerate([*HARMLESS, *HARMFUL]):
        (folder / f"c{number % 3}" / name).write_bytes(picture(number))
    add(gallery, folder)
    with served(model, gallery, place) as there:
        yield there


def add(gallery: Gallery, folder: Path) -> None:
    """All files of a folder, whatever they are called, with their folder as the camera, one by a harmful name."""
    from reidray.gallery.file import Made, Rows, append

    model = gallery.model
    assert model is not None
    files = sorted(folder.rglob("*.jpg"))
    features_ND = model.embed([str(file) for file in files]).features_ND
    names = [str(file.relative_to(folder)) for file in files]
    cameras = [CAMERAS.get(file.parent.name, file.parent.name) for file in files]
    made = Made(model.id, features_ND.shape[1], model.settings.method.name, model.place)
    append(gallery.path, made, Rows(names, [str(folder)] * len(files), cameras, features_ND))
