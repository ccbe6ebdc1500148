"""Every file of a folder is in the pack, or named with the reason why it is not."""

import pytest

from reidray.data import folder
from reidray.storage.left_out_table import read_left_out
from reidray.storage.pack import pack
from reidray.storage.shards import ShardedImages
from tests.data import bad_images

LIMITS = {"images_per_shard": 4, "max_pixels": 20_000_000, "max_bytes": 1_000_000}


def test_each_file_is_packed_or_named_with_its_reason(tmp_path):
    root = tmp_path / "crops"
    (root / "more").mkdir(parents=True)
    files = {
        "a.tif": bad_images.encoded(bad_images.picture(), "TIFF"),
        "b.gif": bad_images.several("GIF"),
        "c.jfif": bad_images.jpeg(),
        "more/d.jpg": b"",
        "more/e.jpg": b"\x00\x00\x00\x1cftypavif" + bytes(40),
        "f.heic": b"",
        "\x1b[2Jg.jpg": bad_images.jpeg(),
    }
    for name, data in files.items():
        (root / name).write_bytes(data)
    written = pack(folder.read(root), tmp_path / "out", **LIMITS)
    images = ShardedImages(tmp_path / "out" / "train")
    assert images.names == ["a.tif", "b.gif", "c.jfif"]
    assert [images.read(place) for place in range(3)] == [files[name] for name in images.names]
    left_out = dict(read_left_out(str(tmp_path / "out")))
    assert left_out == {
        "\\x1b[2Jg.jpg": "name has control characters",
        "f.heic": "format that is not read: HEIC",
        "more/d.jpg": "empty file",
        "more/e.jpg": "format that is not read: AVIF",
    }
    assert len(images.names) + len(left_out) == len(files)
    assert written["of_several_frames"] == {"count": 1, "examples": ["b.gif"]}
    assert written["ignored_examples"]["format that is not read: HEIC"] == ["f.heic"]


def test_a_pack_with_a_list_of_what_is_left_out_is_replaced_as_one_without(tmp_path):
    root = tmp_path / "crops"
    root.mkdir()
    (root / "a.png").write_bytes(bad_images.encoded(bad_images.picture(), "PNG"))
    (root / "b.txt").touch()
    pack(folder.read(root), tmp_path / "out", **LIMITS)
    (root / "b.txt").unlink()
    pack(folder.read(root), tmp_path / "out", **LIMITS)
    assert list(read_left_out(str(tmp_path / "out"))) == []


def test_a_damaged_list_is_one_sentence(tmp_path):
    (tmp_path / "left_out.parquet").write_bytes(b"no table")
    with pytest.raises(ValueError, match=r"left_out\.parquet: expected names and reasons, got a damaged file"):
        list(read_left_out(str(tmp_path)))
