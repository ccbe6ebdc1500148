"""A pack knows the files it was made from: what is added, changed or removed is packed anew, in its place or beside."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from reidray.config import Settings
from reidray.launch.prepare import prepared
from reidray.storage.shards import ShardedImages, read_truth


def picture(path, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (32, 16, 3), np.uint8)).save(path)


@pytest.fixture
def crops(tmp_path):
    root = tmp_path / "crops"
    for number in range(6):
        picture(root / f"door{number % 2}" / f"{number}.png", number)
    return root


def packed(root, *, if_changed="pack", beside=False, **data):
    """The place, and what was said."""
    said = []
    settings = Settings(data={"root": str(root), **data})
    place = prepared(settings, said.append, processes=1, if_changed=if_changed, beside=beside)
    return place, [event["text"] for event in said if event["kind"] == "message"]


def content(place, split="train"):
    images = ShardedImages(f"{place}/{split}")
    return {name: images.read(number) for number, name in enumerate(images.names)}


def inode(place):
    return Path(place, "dataset.json").stat().st_ino


def test_what_has_not_changed_is_used_without_a_word(crops):
    place, said = packed(crops, dataset="folder")
    assert said[0] == f"packing into {crops}-packed (data.packed=DIR packs elsewhere)"
    before = inode(place)
    assert packed(crops, dataset="folder") == (place, [])
    assert inode(place) == before


def test_added_changed_and_removed_files_are_counted_and_packed_anew(crops):
    place, _ = packed(crops, dataset="folder")
    picture(crops / "door0" / "new.png", 77)
    picture(crops / "door0" / "0.png", 78)
    (crops / "door1" / "1.png").unlink()
    (crops / "door1" / "3.png").unlink()
    again, said = packed(crops, dataset="folder")
    assert again == place
    assert said[0] == (
        f"{crops} has changed since it was packed (1 added, 1 changed, 2 removed, such as door0/new.png, door0/0.png, "
        f"door1/1.png, ...): packing anew into {place}"
    )
    assert content(place) == {
        path.relative_to(crops).as_posix(): path.read_bytes() for path in sorted(crops.rglob("*.png"))
    }
    assert packed(crops, dataset="folder") == (place, [])


def test_exchanged_pictures_of_equal_size_are_seen(crops):
    for number in (0, 2):
        (crops / "door0" / f"{number}.bmp").write_bytes(b"")
        Image.new("RGB", (16, 32), (number, 0, 0)).save(crops / "door0" / f"{number}.bmp")
    place, _ = packed(crops, dataset="folder")
    one, two = crops / "door0" / "0.bmp", crops / "door0" / "2.bmp"
    one.rename(crops / "x"), two.rename(one), (crops / "x").rename(two)
    os.utime(one, ns=(1, 1)), os.utime(two, ns=(2, 2))
    _, said = packed(crops, dataset="folder")
    assert "(2 changed, such as door0/0.bmp, door0/2.bmp)" in said[0]
    assert content(place)["door0/0.bmp"] == one.read_bytes()


def test_other_times_alone_are_no_change_and_are_noted(crops):
    place, _ = packed(crops, dataset="folder")
    before = (np.array(sorted(content(place))), json.loads(Path(place, "dataset.json").read_text()))
    for path in crops.rglob("*.png"):
        os.utime(path, (1, 1))
    assert packed(crops, dataset="folder") == (place, [])
    after = json.loads(Path(place, "dataset.json").read_text())
    assert after["fingerprint"] == before[1]["fingerprint"]
    assert after["files"] != before[1]["files"]
    assert set(pq.read_table(f"{place}/source.parquet")["time_ns"].to_pylist()) == {10**9}
    assert packed(crops, dataset="folder") == (place, [])


def test_a_copy_of_the_images_elsewhere_is_the_same_source(crops, tmp_path):
    place, _ = packed(crops, dataset="folder")
    shutil.copytree(crops, tmp_path / "moved", copy_function=shutil.copy)
    assert packed(tmp_path / "moved", dataset="folder", packed=place) == (place, [])


def test_where_nobody_asked_for_a_place_earlier_packs_stay_and_new_ones_lie_beside_them(crops):
    first, _ = packed(crops, dataset="folder", beside=True)
    before = content(first)
    picture(crops / "new.png", 77)
    second, said = packed(crops, dataset="folder", beside=True)
    assert second == f"{first}-2"
    assert said[0] == (
        f"{crops} has changed since it was packed (1 added, such as new.png): {first} stays for the runs that were "
        "made with it"
    )
    assert said[1].startswith(f"packing into {second}")
    third, said = packed(crops, dataset="folder", camera_from="folder", beside=True)
    assert third == f"{first}-3"
    assert "was packed with data.camera_from=none, and the settings say folder: it stays" in said[0]
    assert packed(crops, dataset="folder", beside=True)[0] == second
    assert packed(crops, dataset="folder", camera_from="folder", beside=True)[0] == third
    assert content(first) == before
    assert len(content(second)) == len(before) + 1
    (crops / "new.png").unlink()
    assert packed(crops, dataset="folder", beside=True)[0] == first


def test_another_root_with_other_images_is_refused_and_nothing_is_touched(crops, tmp_path):
    place, _ = packed(crops, dataset="folder")
    before = content(place)
    picture(tmp_path / "others" / "a.png", 99)
    with pytest.raises(
        ValueError, match=r"was packed from .*crops, and data\.root=.*others has other images \(1 added"
    ):
        packed(tmp_path / "others", dataset="folder", packed=place)
    assert content(place) == before


def test_a_root_that_is_gone_leaves_the_pack_in_use(crops):
    place, _ = packed(crops, dataset="folder")
    shutil.rmtree(crops)
    assert packed(crops, dataset="folder") == (
        place,
        [f"data.root={crops} is not there: {place} is used as it was packed"],
    )


def test_a_run_that_goes_on_or_is_evaluated_uses_what_was_packed(crops):
    place, _ = packed(crops, dataset="folder")
    before = content(place)
    picture(crops / "new.png", 77)
    _, said = packed(crops, dataset="folder", if_changed="use")
    assert said[0].startswith(
        f"caution: {crops} has changed since it was packed (1 added, such as new.png): {place} is"
    )
    assert content(place) == before
    (crops / "other").mkdir()
    shutil.rmtree(crops / "door0"), shutil.rmtree(crops / "door1"), (crops / "new.png").unlink()
    _, said = packed(crops, dataset="folder", if_changed="use")
    assert "cannot be read any more" in said[0]
    with pytest.raises(ValueError, match="expected images"):
        packed(crops, dataset="folder")
    assert content(place) == before


def test_the_old_pack_stays_where_the_new_one_fails(crops):
    place, _ = packed(crops, dataset="folder")
    before = content(place)
    for path in crops.rglob("*.png"):
        path.write_bytes(b"")
    with pytest.raises(ValueError, match="expected at least one readable image"):
        packed(crops, dataset="folder")
    assert content(place) == before


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("max_image_mb", 1.0, r"data\.max_image_mb=32\.0, and the settings say 1\.0"),
        ("max_megapixels", 1.0, r"data\.max_megapixels=20\.0, and"),
        ("camera_from", "folder", r"data\.camera_from=none, and the settings say folder"),
        ("pattern", "{camera}/{}", r"data\.pattern=None, and the settings say \{camera\}/\{\}"),
    ],
)
def test_other_settings_of_packing_are_refused_and_no_sentence_tells_to_delete(crops, name, value, said):
    packed(crops, dataset="folder")
    with pytest.raises(ValueError, match=said) as refused:
        packed(crops, dataset="folder", **{name: value})
    assert "give another data.packed=DIR to pack anew" in str(refused.value)
    assert not {"remove", "delete"} & set(str(refused.value).split())
    with pytest.raises(ValueError, match=said):
        packed(crops, dataset="auto", **{name: value})


def test_a_pack_of_an_older_version_is_used_as_it_is(crops):
    place, _ = packed(crops, dataset="folder")
    described = json.loads(Path(place, "dataset.json").read_text())
    del described["files"]
    for name in ("max_image_mb", "camera_from", "pattern"):
        del described["made_with"][name]
    Path(place, "dataset.json").write_text(json.dumps(described))
    Path(place, "source.parquet").unlink()
    picture(crops / "new.png", 77)
    assert packed(crops, dataset="folder") == (
        place,
        [f"{place} does not tell which files it was packed from: it is used as it is"],
    )
    with pytest.raises(ValueError, match=r"data\.camera_from=none, and the settings say folder"):
        packed(crops, dataset="folder", camera_from="folder")


def test_a_pack_without_a_root_is_never_compared(crops):
    place, _ = packed(crops, dataset="folder")
    picture(crops / "new.png", 77)
    settings = Settings(data={"dataset": "folder", "packed": place})
    said = []
    assert prepared(settings, said.append, processes=1) == place
    assert said == []


def test_a_damaged_list_of_files_is_one_sentence(crops):
    place, _ = packed(crops, dataset="folder")
    Path(place, "source.parquet").write_bytes(b"no table")
    picture(crops / "new.png", 77)
    with pytest.raises(
        ValueError, match=r"source\.parquet: expected the list of the files that were packed, found none"
    ):
        packed(crops, dataset="folder")


def test_other_labels_of_the_same_images_are_packed_anew(tmp_path, crops):
    rows = ["path,person", *(f"crops/door{number % 2}/{number}.png,{number % 3}" for number in range(6))]
    (tmp_path / "list.csv").write_text("\n".join(rows))
    place, said = packed(tmp_path / "list.csv", dataset="list")
    assert place == str(tmp_path / "list.csv-packed")
    assert read_truth(f"{place}/train").tolist() == [1, 3, 2, 2, 1, 3]  # door0: 0, 2, 4; door1: 1, 3, 5
    names = pq.read_table(f"{place}/train/truth.parquet")["person_name"].to_pylist()
    assert names == ["0", "2", "1", "1", "0", "2"]
    (tmp_path / "list.csv").write_text("\n".join(rows).replace(",2", ",0"))
    _, said = packed(tmp_path / "list.csv", dataset="list")
    assert "(other persons, cameras, tracklets or attributes of the same images): packing anew" in said[0]
    assert read_truth(f"{place}/train").tolist() == [1, 1, 2, 2, 1, 1]


def test_a_query_that_was_mended_is_seen(tmp_path):
    for folder in ("bounding_box_train", "query", "bounding_box_test"):
        picture(tmp_path / "data" / folder / "0002_c1s1_000451_03.png", 5)
    place, said = packed(tmp_path / "data", dataset="market1501")
    assert "1 queries without an answer in another camera" in said[1]
    picture(tmp_path / "data" / "bounding_box_test" / "0002_c2s1_000451_03.png", 6)
    _, said = packed(tmp_path / "data", dataset="market1501")
    assert "(1 added, such as bounding_box_test/0002_c2s1_000451_03.png): packing anew" in said[0]
    assert "without an answer" not in " ".join(said)
    assert len(content(place, "gallery")) == 2


def test_cameras_have_their_names_in_the_pack(crops):
    place, _ = packed(crops, dataset="folder", camera_from="folder")
    assert json.loads(Path(place, "dataset.json").read_text())["cameras"] == ["door0", "door1"]
    assert ShardedImages(f"{place}/train").cameras_N.tolist() == [0, 0, 0, 1, 1, 1]
    assert read_truth(f"{place}/train") is None
