"""data.root without data.dataset: what lies there is looked at, and never passed over for drawn pedestrians."""

import numpy as np
import pytest
from PIL import Image

from reidray.config import Settings
from reidray.launch.data_sets import with_unspoken
from reidray.launch.prepare import prepared, with_places
from reidray.settings_io import as_yaml, from_file, settings_from

DRAWN = {
    "train_persons": 2,
    "validation_persons": 2,
    "test_persons": 2,
    "num_cameras": 2,
    "cameras_per_person": [2, 2],
    "images_per_camera": [2, 2],
}


def crop(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 16, 3), np.uint8)).save(path)


def packed(**data):
    said = []
    place = prepared(Settings.model_validate({"data": data}), said.append, processes=1)
    return place, [event["text"] for event in said if event["kind"] == "message"]


def test_a_folder_of_crops_is_read_and_it_is_said_why(tmp_path):
    crop(tmp_path / "crops" / "a.png")
    place, said = packed(root=str(tmp_path / "crops"))
    assert said[:2] == [
        f"data.dataset=auto: {tmp_path / 'crops'} is read as folder: it has the folders of no known data set",
        f"packing into {place} (data.packed=DIR packs elsewhere)",
    ]
    assert packed(root=str(tmp_path / "crops")) == (place, [f"data.dataset=auto: {place} was packed as folder"])
    crop(tmp_path / "crops" / "b.png")
    assert "1 added, such as b.png" in packed(root=str(tmp_path / "crops"))[1][1]


def test_a_list_is_read(tmp_path):
    crop(tmp_path / "crops" / "a.png")
    (tmp_path / "images.csv").write_text("path\ncrops/a.png\n")
    _, said = packed(root=str(tmp_path / "images.csv"))
    assert said[0] == f"data.dataset=auto: {tmp_path / 'images.csv'} is read as list: it is a file with a column path"


def test_a_folder_of_texts_or_a_file_is_one_sentence_and_nothing_is_drawn_into_it(tmp_path):
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").touch()
    with pytest.raises(ValueError, match="expected images"):
        packed(root=str(tmp_path / "texts"))
    with pytest.raises(ValueError, match="got another file"):
        packed(root=str(tmp_path / "texts" / "a.txt"))
    assert [path.name for path in tmp_path.rglob("*")] == ["texts", "a.txt"]


def test_an_empty_folder_or_none_is_drawn_into_as_ever_and_known_again(tmp_path):
    (tmp_path / "empty").mkdir()
    for name in ("empty", "none"):
        place, said = packed(root=str(tmp_path / name), drawn=DRAWN)
        assert "auto" not in " ".join(said)
        assert packed(root=str(tmp_path / name), drawn=DRAWN) == (place, [])


def test_a_pack_alone_is_used_as_what_it_was_packed(tmp_path):
    crop(tmp_path / "crops" / "a.png")
    place, _ = packed(root=str(tmp_path / "crops"))
    assert packed(packed=place) == (place, [f"data.dataset=auto: {place} was packed as folder"])


def test_a_data_set_that_was_named_is_not_looked_for(tmp_path):
    crop(tmp_path / "crops" / "a.png")
    settings = Settings.model_validate({"data": {"dataset": "drawn", "root": str(tmp_path / "crops")}})
    assert with_unspoken(settings) is settings


def test_a_run_folder_keeps_what_was_understood(tmp_path):
    crop(tmp_path / "crops" / "a.png")
    settings = with_places(Settings.model_validate({"data": {"root": str(tmp_path / "crops")}}))
    (tmp_path / "settings.yaml").write_text(as_yaml(settings))
    again = settings_from([from_file(tmp_path / "settings.yaml")])
    assert again.data.dataset == "auto"
    assert again.hash() == settings.hash()
