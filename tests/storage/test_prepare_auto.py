"""data.dataset=auto packs a folder under the name of the data set, so that it can be given by that name later."""

import numpy as np
import pytest
from PIL import Image

from reidray.config import Settings
from reidray.launch.prepare import prepared


def market(root):
    """Three images in Market-1501's folders."""
    for place, folder in enumerate(("bounding_box_train", "query", "bounding_box_test")):
        (root / folder).mkdir(parents=True)
        pixels = np.random.default_rng(place).integers(0, 256, (32, 16, 3), np.uint8)
        Image.fromarray(pixels).save(root / folder / "0002_c1s1_000451_03.jpg")


def packed(root, dataset):
    """The place, and what was said."""
    said = []
    settings = Settings(data={"dataset": dataset, "root": str(root)})
    return prepared(settings, said.append, processes=1), [event["text"] for event in said if event["kind"] == "message"]


def test_what_auto_packed_is_used_again_under_its_name_and_as_auto(tmp_path):
    market(tmp_path / "data")
    place, said = packed(tmp_path / "data", "auto")
    assert "is read as market1501: it has bounding_box_train and names with camera and sequence" in said[0]
    assert packed(tmp_path / "data", "market1501") == (place, [])
    again, said = packed(tmp_path / "data", "auto")
    assert again == place
    assert said == [f"data.dataset=auto: {place} was packed as market1501"]
    with pytest.raises(ValueError, match=r"was packed with data\.dataset=market1501, and the settings say dukemtmc"):
        packed(tmp_path / "data", "dukemtmc")


def test_what_was_packed_under_its_name_is_used_by_auto(tmp_path):
    market(tmp_path / "data")
    place, _ = packed(tmp_path / "data", "market1501")
    assert packed(tmp_path / "data", "auto")[0] == place
