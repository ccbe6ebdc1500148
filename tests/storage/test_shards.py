import errno
import gc
import hashlib
import io
import json
import os
import pickle
import tarfile
import threading
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import webdataset
from safetensors.numpy import load_file, save_file

from reidray.data import folder, market1501
from reidray.data.attributes import Attributes
from reidray.data.records import Dataset, ImageRecord, Split
from reidray.storage import cache, shards
from reidray.storage import pack as packing
from reidray.storage.masks_file import read_masks
from reidray.storage.shards import ShardedImages, pack, read_attributes, read_truth
from reidray.storage.tar_scan import scan
from tests.data import bad_images

LIMITS = {"images_per_shard": 4, "max_pixels": 1_000_000, "max_bytes": 1_000_000}
PERSONS = [2, 2, 7, 7, 7, 9, 9, 11, 11, 11]


@pytest.fixture
def market(tmp_path):
    """A small tree in Market-1501's layout: 10 training images, 2 queries, 3 gallery images."""
    root = tmp_path / "market"
    images = {
        "bounding_box_train": [(person, i % 3 + 1) for i, person in enumerate(PERSONS)],
        "query": [(20, 1), (21, 2)],
        "bounding_box_test": [(0, 3), (20, 2), (21, 3)],
    }
    seed = 0
    for where, entries in images.items():
        (root / where).mkdir(parents=True)
        for frame, (person, camera) in enumerate(entries):
            name = f"{person:04d}_c{camera}s1_{frame:06d}_00.jpg"
            (root / where / name).write_bytes(bad_images.jpeg(seed=seed))
            seed += 1
    return root


@pytest.fixture
def packed(market, tmp_path):
    out = tmp_path / "packed"
    pack(market1501.read(market), out, **LIMITS)
    return out


NOTED = np.array([[person % 3 + 1, -1 if person == 9 else 2] for person in PERSONS], np.int32)


def with_attributes(dataset, values_NA=NOTED):
    train = replace(dataset.splits["train"], attributes=Attributes(("hat", "bag"), values_NA))
    return replace(dataset, splits={**dataset.splits, "train": train})


@pytest.fixture
def annotated(market, tmp_path):
    """The same with attributes of the training split."""
    out = tmp_path / "annotated"
    pack(with_attributes(market1501.read(market)), out, **LIMITS)
    return out


def sums(root):
    return {
        str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest() for p in root.rglob("*") if p.is_file()
    }


def leftovers(out):
    return [path.name for path in out.parent.iterdir() if "partial" in path.name]


# reading what was packed


def test_every_image_comes_back_byte_for_byte(market, packed):
    dataset = market1501.read(market)
    for name, split in dataset.splits.items():
        images = ShardedImages(packed / name)
        assert images.count == len(images) == len(split.images)
        assert images.names == [record.name for record in split.images]
        assert images.cameras_N.tolist() == [record.camera for record in split.images]
        assert images.cameras_N.dtype == np.int32
        for place in reversed(range(images.count)):
            assert images.read(place) == split.images[place].path.read_bytes()
        images.close()
        assert images.read(np.int64(0)) == split.images[0].path.read_bytes()


def test_shards_follow_each_other_and_streams_give_all_images_in_order(packed, monkeypatch):
    images = ShardedImages(packed / "train")
    assert [images.shard_range(s) for s in range(images.num_shards)] == [(0, 4), (4, 4), (8, 2)]
    for block in (1, 3000, 8 * 2**20):
        monkeypatch.setattr(shards, "_BLOCK", block)
        streamed = [pair for s in range(images.num_shards) for pair in images.stream(s)]
        assert streamed == [(i, images.read(i)) for i in range(10)]


def test_persons_are_in_truth_and_nowhere_else(packed):
    assert read_truth(packed / "train").tolist() == PERSONS
    assert read_truth(packed / "train").dtype == np.int64
    assert read_truth(packed / "gallery").tolist() == [0, 20, 21]
    assert "person" not in pq.read_schema(packed / "train" / "index.parquet").names
    with tarfile.open(packed / "train" / "train-000000.tar") as tar:
        meta = json.load(tar.extractfile("000000000.json"))
    assert set(meta) == {"name", "camera"}


def test_attributes_come_back_in_the_order_of_the_images_and_lie_in_a_file_of_their_own(annotated, packed):
    found = read_attributes(annotated / "train")
    assert found.names == ("hat", "bag")
    np.testing.assert_array_equal(found.values_NA, NOTED)
    assert found.values_NA.dtype == np.int32
    table = pq.read_table(annotated / "train" / "attributes.parquet")
    assert table["name"].to_pylist() == ShardedImages(packed / "train").names
    assert [str(field.type) for field in table.schema] == ["string", "int32", "int32"]
    assert read_attributes(annotated / "query") is None
    assert read_attributes(packed / "train") is None  # also what was packed before there were any


def test_attributes_change_no_other_file(annotated, packed):
    noted = sums(annotated)
    assert noted.pop("train/attributes.parquet")
    assert noted == sums(packed)


def test_images_left_out_take_their_attributes_with_them(market, tmp_path):
    bad = sorted((market / "bounding_box_train").iterdir())[3]
    bad.write_bytes(b"")
    pack(with_attributes(market1501.read(market)), tmp_path / "out", **LIMITS)
    np.testing.assert_array_equal(read_attributes(tmp_path / "out" / "train").values_NA, np.delete(NOTED, 3, axis=0))


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # webdataset leaves its files open
def test_webdataset_reads_the_tars(packed):
    files = sorted(str(path) for path in (packed / "train").glob("*.tar"))
    samples = list(webdataset.WebDataset(files, shardshuffle=False))
    gc.collect()
    images = ShardedImages(packed / "train")
    assert [sample["jpg"] for sample in samples] == [images.read(i) for i in range(10)]
    assert [json.loads(sample["json"])["name"] for sample in samples] == images.names


def test_the_index_knows_sizes_and_extensions(tmp_path):
    root = tmp_path / "crops"
    root.mkdir()
    for kind, extension in (("PNG", "png"), ("WEBP", "webp"), ("BMP", "bmp"), ("JPEG", "JPEG")):
        (root / f"{kind}.{extension}").write_bytes(bad_images.encoded(bad_images.picture(10, 6), kind))
    pack(folder.read(root), tmp_path / "out", **LIMITS)
    table = pq.read_table(tmp_path / "out" / "train" / "index.parquet")
    assert table["extension"].to_pylist() == ["bmp", "jpeg", "png", "webp"]
    assert set(table["height"].to_pylist()) == {10}
    assert set(table["width"].to_pylist()) == {6}
    images = ShardedImages(tmp_path / "out" / "train")
    assert [images.read(i) for i in range(4)] == [(root / name).read_bytes() for name in images.names]
    assert images.cameras_N.tolist() == [-1] * 4
    assert read_truth(tmp_path / "out" / "train") is None
    assert read_masks(tmp_path / "out" / "train") is None


def test_a_pickle_is_small_and_opens_the_place_anew(packed):
    images = ShardedImages(packed / "train")
    images.read(0)
    data = pickle.dumps(images)
    assert len(data) < 1000
    copy = pickle.loads(data)
    assert copy.digest == images.digest
    assert copy.read(9) == images.read(9)


def test_an_index_out_of_range_is_an_index_error(packed):
    images = ShardedImages(packed / "train")
    for wrong in (-1, 10):
        with pytest.raises(IndexError, match=f"from 0 to 9, got {wrong}"):
            images.read(wrong)


def test_many_threads_read_right_even_when_few_tars_may_stay_open(packed, monkeypatch):
    monkeypatch.setattr(shards, "_MAX_OPEN", 1)
    images = ShardedImages(packed / "train")
    expected = [images.read(i) for i in range(10)]
    wrong = []

    def work(seed):
        for i in np.random.default_rng(seed).integers(10, size=200):
            if images.read(int(i)) != expected[i]:
                wrong.append(i)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert len(images._open) == 1


# packing


def test_packing_twice_gives_equal_files_and_says_the_same(market, tmp_path):
    dataset = market1501.read(market)
    first = pack(dataset, tmp_path / "one", **LIMITS)
    for path in market.rglob("*.jpg"):
        os.utime(path, (1, 1))
    second = pack(dataset, tmp_path / "two", **LIMITS)
    assert first == second
    assert sums(tmp_path / "one") == sums(tmp_path / "two")
    assert any(name.endswith(".tar") for name in sums(tmp_path / "one"))


def test_the_fingerprint_follows_bytes_and_names(market, tmp_path):
    first = pack(market1501.read(market), tmp_path / "one", **LIMITS)["fingerprint"]
    image = next((market / "query").glob("*.jpg"))
    image.write_bytes(bad_images.jpeg(seed=77))
    second = pack(market1501.read(market), tmp_path / "two", **LIMITS)["fingerprint"]
    image.rename(image.with_name("0020_c6s1_000000_00.jpg"))
    third = pack(market1501.read(market), tmp_path / "three", **LIMITS)["fingerprint"]
    assert len({first, second, third}) == 3
    other_shards = pack(market1501.read(market), tmp_path / "four", **{**LIMITS, "images_per_shard": 3})
    assert other_shards["fingerprint"] == third


def test_the_description_counts_and_lies_beside_the_splits(market, tmp_path):
    (market / "query" / "Thumbs.db").touch()
    description = pack(market1501.read(market), tmp_path / "out", **LIMITS)
    assert description == json.loads((tmp_path / "out" / "dataset.json").read_text())
    assert description["splits"] == {"train": 10, "query": 2, "gallery": 3}
    assert description["ignored"] == {"not an image": 1}
    assert description["skipped"] == {}
    split = json.loads((tmp_path / "out" / "train" / "split.json").read_text())
    assert (split["format"], split["count"], len(split["shards"])) == (1, 10, 3)
    for shard in split["shards"]:
        data = (tmp_path / "out" / "train" / shard["file"]).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (shard["bytes"], shard["sha256"])


def test_bad_images_are_left_out_and_counted_with_examples(market, tmp_path):
    train = market / "bounding_box_train"
    bad = {
        "0002_c1s1_000100_00.jpg": b"",
        "0002_c1s1_000101_00.jpg": bad_images.text(),
        "0002_c1s1_000102_00.jpg": bad_images.truncated_jpeg(),
        "0002_c1s1_000103_00.png": bad_images.huge_png(),
        "0002_c1s1_000104_00.png": bad_images.damaged_png(),
        "0002_c1s1_000105_00.jpg": bad_images.jpeg() + bytes(LIMITS["max_bytes"]),
    }
    for name, data in bad.items():
        (train / name).write_bytes(data)
    good = {
        "0002_c1s1_000200_00.png": bad_images.encoded(bad_images.picture(1, 1), "PNG"),
        "0002_c1s1_000201_00.jpg": bad_images.encoded(bad_images.picture()[..., 0]),
    }
    for name, data in good.items():
        (train / name).write_bytes(data)
    skipped = pack(market1501.read(market), tmp_path / "out", **LIMITS)["skipped"]
    names = [f"bounding_box_train/{name}" for name in bad]
    assert skipped == {
        "empty file": {"count": 1, "examples": names[:1]},
        "not an image": {"count": 1, "examples": names[1:2]},
        "cut short or damaged": {"count": 2, "examples": [names[2], names[4]]},
        "too many pixels": {"count": 1, "examples": names[3:4]},
        "file too large": {"count": 1, "examples": names[5:6]},
    }
    images = ShardedImages(tmp_path / "out" / "train")
    assert images.count == 12
    assert not set(names) & set(images.names)
    truth = read_truth(tmp_path / "out" / "train")
    assert truth.tolist() == [int(name.split("/")[1][:4]) for name in images.names]


def test_only_the_first_few_bad_names_are_kept(tmp_path):
    root = tmp_path / "crops"
    root.mkdir()
    for i in range(8):
        (root / f"{i}.jpg").touch()
    (root / "good.jpg").write_bytes(bad_images.jpeg())
    skipped = pack(folder.read(root), tmp_path / "out", **LIMITS)["skipped"]
    assert skipped == {"empty file": {"count": 8, "examples": ["0.jpg", "1.jpg", "2.jpg", "3.jpg", "4.jpg"]}}


def test_a_file_that_vanished_is_counted(market, tmp_path):
    dataset = market1501.read(market)
    dataset.splits["query"].images[0].path.unlink()
    assert list(pack(dataset, tmp_path / "out", **LIMITS)["skipped"]) == ["cannot be read"]


def test_no_readable_image_is_an_error_and_leaves_nothing(tmp_path):
    (tmp_path / "crops").mkdir()
    (tmp_path / "crops" / "a.jpg").touch()
    with pytest.raises(ValueError, match="got none out of 1 files; first reasons: empty file"):
        pack(folder.read(tmp_path / "crops"), tmp_path / "out", **LIMITS)
    assert not (tmp_path / "out").exists()
    assert not leftovers(tmp_path / "out")


def test_two_records_of_one_name_are_refused(market, tmp_path):
    path = next(market.rglob("*.jpg"))
    twice = Split("train", (ImageRecord(path, "a.jpg", 0),) * 2, None)
    with pytest.raises(ValueError, match=r"expected unique names, got a\.jpg twice"):
        pack(Dataset("folder", market, {"train": twice}, {}), tmp_path / "out", **LIMITS)


def test_progress_counts_up(market, tmp_path):
    seen = []
    pack(market1501.read(market), tmp_path / "out", **LIMITS, progress=lambda *state: seen.append(state))
    assert seen[:2] == [("train", 1, 10), ("train", 2, 10)]
    assert seen[-1] == ("gallery", 3, 3)
    assert len(seen) == 15


def test_masks_are_packed_when_every_image_of_a_split_has_one(market, tmp_path):
    records = market1501.read(market).splits["query"].images
    (market / "masks" / "query").mkdir(parents=True)
    masks = [np.full((6, 3), part, dtype=np.uint8) for part in (4, 2)]
    for record, mask in zip(records, masks, strict=True):
        path = (market / "masks" / record.name).with_suffix(".png")
        path.write_bytes(bad_images.encoded(mask, "PNG"))
    pack(market1501.read(market), tmp_path / "out", **LIMITS)
    file = tmp_path / "out" / "query" / "masks.safetensors"
    found = read_masks(file.parent)
    assert isinstance(found, np.memmap)
    np.testing.assert_array_equal(found, np.stack(masks))
    np.testing.assert_array_equal(load_file(file)["masks"], np.stack(masks))
    np.testing.assert_array_equal(read_masks(file.parent.as_uri()), np.stack(masks))
    assert read_masks(tmp_path / "out" / "train") is None
    path.write_bytes(bad_images.encoded(np.zeros((5, 3), dtype=np.uint8), "PNG"))
    with pytest.raises(ValueError, match="expected a mask of"):
        pack(market1501.read(market), tmp_path / "other", **LIMITS)


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        ({"masks": np.zeros((2, 6, 3), np.uint8)}, "expected 3 masks of uint8, got uint8 \\(2, 6, 3\\)"),
        ({"masks": np.zeros((3, 6, 3), np.float32)}, "expected 3 masks of uint8, got float32"),
        ({"masks": np.zeros((0, 6, 3), np.uint8)}, "expected 3 masks of uint8, got uint8 \\(0, 6, 3\\)"),
        ({"others": np.zeros((3, 6, 3), np.uint8)}, "expected masks, got a damaged file"),
        (None, "expected masks, got a damaged file"),
    ],
)
def test_masks_that_do_not_belong_to_the_images_are_refused(packed, tensors, said):
    file = packed / "gallery" / "masks.safetensors"
    save_file({"masks": np.zeros((3, 6, 3), np.uint8)}, file)
    assert read_masks(file.parent).shape == (3, 6, 3)
    if tensors is None:
        file.write_bytes(file.read_bytes()[:-1])
    else:
        save_file(tensors, file)
    with pytest.raises(ValueError, match=said):
        read_masks(file.parent)


def test_a_folder_with_something_else_in_it_is_not_touched(market, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").touch()
    with pytest.raises(ValueError, match=r"got a folder with thesis\.tex"):
        pack(market1501.read(market), tmp_path / "out", **LIMITS)
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="got a file"):
        pack(market1501.read(market), tmp_path / "file", **LIMITS)


def test_an_earlier_pack_is_replaced_as_a_whole(market, packed):
    for path in (market / "bounding_box_train").glob("0011*"):
        path.unlink()
    pack(market1501.read(market), packed, **LIMITS)
    assert ShardedImages(packed / "train").count == 7
    assert sorted(path.name for path in (packed / "train").glob("*.tar")) == ["train-000000.tar", "train-000001.tar"]
    assert not leftovers(packed)
    (packed / "notes.txt").touch()
    with pytest.raises(ValueError, match=r"notes\.txt"):
        pack(market1501.read(market), packed, **LIMITS)


class FullDisk(io.BytesIO):
    def write(self, data):
        if self.tell() + len(data) > 20_000:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(data)


@pytest.mark.parametrize("opened", [lambda path: FullDisk(), lambda path: Path("/dev/full").open("wb")])  # noqa: SIM115
def test_a_full_disk_is_one_sentence_and_leaves_nothing(market, tmp_path, monkeypatch, opened):
    for i, path in enumerate(sorted(market.rglob("*.jpg"))):
        path.write_bytes(bad_images.encoded(bad_images.picture(64, 64, seed=i), "PNG"))
    monkeypatch.setattr(packing, "_create", opened)
    with pytest.raises(ValueError, match=r"the disk is full while packing; free some space and pack again\.$"):
        pack(market1501.read(market), tmp_path / "out", **{**LIMITS, "images_per_shard": 100})
    assert not (tmp_path / "out").exists()
    assert not leftovers(tmp_path / "out")


def test_a_full_disk_keeps_the_earlier_pack(market, packed, monkeypatch):
    before = sums(packed)
    monkeypatch.setattr(packing, "_create", lambda path: FullDisk(bytes(20_000)))
    monkeypatch.setattr(FullDisk, "tell", lambda self: 20_000)
    with pytest.raises(ValueError, match="disk is full"):
        pack(market1501.read(market), packed, **LIMITS)
    assert sums(packed) == before


def test_an_interrupted_pack_leaves_nothing(market, tmp_path):
    def stop(split, done, total):
        if done == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pack(market1501.read(market), tmp_path / "out", **LIMITS, progress=stop)
    assert not (tmp_path / "out").exists()
    assert not leftovers(tmp_path / "out")


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_a_pack_that_is_interrupted_within_an_image_says_so(market, tmp_path, monkeypatch, error):
    def stop(*arguments):
        raise error

    monkeypatch.setattr(packing.json, "dumps", stop)  # of what stands beside an image whose size is noted
    with pytest.raises(error):
        pack(market1501.read(market), tmp_path / "out", **LIMITS)
    assert not (tmp_path / "out").exists()
    assert not leftovers(tmp_path / "out")


def test_settings_out_of_range_are_refused(market, tmp_path):
    for wrong in ({"images_per_shard": 0}, {"max_bytes": 2**40}):
        with pytest.raises(ValueError, match="expected images_per_shard"):
            pack(market1501.read(market), tmp_path / "out", **{**LIMITS, **wrong})


# what happened to the files since


def test_a_shard_cut_short_is_found_when_opening(packed):
    tar = packed / "train" / "train-000001.tar"
    size = tar.stat().st_size
    tar.chmod(0o644)
    tar.write_bytes(tar.read_bytes()[:-5000])
    with pytest.raises(ValueError, match=rf"train-000001\.tar: expected a tar of {size} bytes, got {size - 5000} "):
        ShardedImages(packed / "train")
    tar.unlink()
    with pytest.raises(ValueError, match=r"train-000001\.tar: expected a tar of .* got no such file"):
        ShardedImages(packed / "train")


def test_a_shard_cut_short_after_opening_is_found_when_reading(packed):
    images = ShardedImages(packed / "train")
    images.read(4)
    os.truncate(packed / "train" / "train-000001.tar", 600)
    with pytest.raises(ValueError, match=r"train-000001\.tar: expected .* bytes with checksum .* pack it again"):
        images.read(5)
    with pytest.raises(ValueError, match=r"train-000001\.tar"):
        list(images.stream(1))


def test_a_changed_byte_is_found_when_reading(packed):
    images = ShardedImages(packed / "train")
    offset = int(images._index.offsets_N[2])
    with (packed / "train" / "train-000000.tar").open("r+b") as file:
        file.seek(offset + 10)
        file.write(b"?!")
    images.read(1)
    name = images.names[2]
    with pytest.raises(ValueError, match=rf"train-000000\.tar: expected .* for image 2 \({name}\), got checksum"):
        images.read(2)
    with pytest.raises(ValueError, match=r"for image 2 .*reidray prepare"):
        list(images.stream(0))


def test_a_stale_index_is_refused(market, packed, tmp_path):
    path = sorted((market / "bounding_box_train").glob("*.jpg"))[0]
    path.write_bytes(bad_images.jpeg(seed=3))
    pack(market1501.read(market), tmp_path / "new", **LIMITS)
    old = (packed / "train" / "index.parquet").read_bytes()
    (tmp_path / "new" / "train" / "index.parquet").write_bytes(old)
    with pytest.raises(ValueError, match=r"index\.parquet: the index is stale"):
        ShardedImages(tmp_path / "new" / "train")


def test_an_index_of_another_length_is_refused(packed):
    (packed / "train" / "index.parquet").write_bytes((packed / "query" / "index.parquet").read_bytes())
    with pytest.raises(ValueError, match=r"expected 10 rows as in split\.json, got 2"):
        ShardedImages(packed / "train")


def test_a_damaged_or_missing_index_is_refused(packed):
    path = packed / "train" / "index.parquet"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="expected a whole index, got a damaged one"):
        ShardedImages(packed / "train")
    path.unlink()
    with pytest.raises(ValueError, match="found none; pack it again"):
        ShardedImages(packed / "train")


def test_truth_of_other_images_is_refused(packed):
    (packed / "train" / "truth.parquet").write_bytes((packed / "query" / "truth.parquet").read_bytes())
    with pytest.raises(ValueError, match=r"truth\.parquet: expected the 10 names of the index"):
        read_truth(packed / "train")


def test_attributes_of_other_images_are_refused(annotated):
    path = annotated / "train" / "attributes.parquet"
    table = pq.read_table(path)
    for other in (table.slice(1), table.take(list(range(9, -1, -1))), table.drop_columns("name")):
        pq.write_table(other, path)
        with pytest.raises(ValueError, match=r"attributes\.parquet: expected the 10 names of the index, got others"):
            read_attributes(annotated / "train")


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (None, "expected whole columns of int32"),
        (pa.array([1.0] * 10), "expected whole columns of int32"),
        (pa.array([1] * 10, pa.int64()), "expected whole columns of int32"),
        (pa.array([1] * 9 + [None], pa.int32()), "expected whole columns of int32"),
        (
            pa.array([1] * 9 + [-2], pa.int32()),
            r"expected attributes of -1 \(not noted\) or more, got -2; pack",
        ),
    ],
    ids=range(5),
)
def test_attributes_of_another_form_are_refused(annotated, column, message):
    path = annotated / "train" / "attributes.parquet"
    table = pq.read_table(path).select(["name"])
    pq.write_table(table if column is None else table.append_column("hat", column), path)
    with pytest.raises(ValueError, match=rf"attributes\.parquet: {message}"):
        read_attributes(annotated / "train")


def test_an_attribute_whose_name_a_terminal_would_obey_is_refused_and_not_repeated(annotated):
    path = annotated / "train" / "attributes.parquet"
    table = pq.read_table(path)
    pq.write_table(table.rename_columns(["name", "hat", "\x1b[2J"]), path)
    with pytest.raises(ValueError, match="different plain names") as refused:
        read_attributes(annotated / "train")
    assert "\x1b" not in str(refused.value)


def test_damaged_attributes_and_truth_are_refused(annotated):
    for file, read in (("attributes.parquet", read_attributes), ("truth.parquet", read_truth)):
        path = annotated / "train" / file
        path.write_bytes(path.read_bytes()[:-20])
        with pytest.raises(ValueError, match=rf"{file}: expected names and .*, got a damaged file .* pack it again"):
            read(annotated / "train")


def test_a_changed_byte_among_the_attributes_is_found(annotated):
    path = annotated / "train" / "attributes.parquet"
    data, group = bytearray(path.read_bytes()), pq.read_metadata(path).row_group(0)
    column = group.column(2)
    data[column.data_page_offset + column.total_compressed_size // 2 - 1] ^= 1
    data[(column.dictionary_page_offset or column.data_page_offset) + column.total_compressed_size - 1] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(ValueError, match=r"attributes\.parquet: expected names and attributes, got a damaged file"):
        read_attributes(annotated / "train")


def test_truth_without_persons_is_refused(packed):
    path = packed / "train" / "truth.parquet"
    pq.write_table(pq.read_table(path).drop_columns("person"), path)
    with pytest.raises(ValueError, match=r"truth\.parquet: expected names and persons, got no persons; pack it again"):
        read_truth(packed / "train")


def edit(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 3}, "expected format 1, got 3"),
        ({"count": 11}, "expected 11 images in the shards, got 10"),
        ({"shards": [{"file": "a.tar"}]}, "expected reidray's list of shards"),
        ({"shards": 3}, "expected reidray's list of shards"),
    ],
)
def test_a_split_at_odds_with_itself_is_refused(packed, changes, message):
    edit(packed / "train" / "split.json", **changes)
    with pytest.raises(ValueError, match=message):
        ShardedImages(packed / "train")


def test_a_place_that_holds_no_packed_split_is_named(tmp_path):
    with pytest.raises(
        ValueError, match=r"expected a packed split with split\.json, found none; pack with reidray prepare"
    ):
        ShardedImages(tmp_path / "nowhere")


# what somebody might smuggle in


def tar_with(path, *members):
    with tarfile.open(path, "w") as tar:
        for name, data, *kind in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            info.type = kind[0] if kind else tarfile.REGTYPE
            info.linkname = "/etc/passwd" if kind else ""
            tar.addfile(info, io.BytesIO(data))
    return path


META = json.dumps({"name": "a.jpg", "camera": 0}).encode()


@pytest.mark.parametrize(
    ("member", "message"),
    [
        (("000000000.pyd", b"cos\nsystem\n"), "expected only files like"),
        (("000000000.pkl", b"cos\nsystem\n"), "expected only files like"),
        (("000000000.pth", b"x"), "expected only files like"),
        (("../000000000.jpg", b"x"), "expected only files like"),
        (("/etc/000000000.jpg", b"x"), "expected only files like"),
        (("a/000000000.jpg", b"x"), "expected only files like"),
        (("000000000.jpg", b"", tarfile.SYMTYPE), "expected only files like"),
        (("000000001.jpg", b"x"), "expected key 000000000"),
        (("000000000.png", b"x"), "got two images"),
        (("000000000.json", b"[1]"), "expected name and camera"),
        (("000000000.json", b"x" * 100_000), "expected at most 65536 bytes"),
    ],
)
def test_members_that_do_not_belong_in_a_shard_are_refused(tmp_path, member, message):
    path = tar_with(tmp_path / "a.tar", ("000000000.jpg", b"data"), member)
    with pytest.raises(ValueError, match=message):
        scan(path, first=0)


def test_an_honest_tar_is_indexed(tmp_path):
    path = tar_with(tmp_path / "a.tar", ("000000007.json", META), ("000000007.webp", b"data"))
    ((member,),) = scan(path, first=7)
    assert (member.name, member.camera, member.extension, member.size) == ("a.jpg", 0, "webp", 4)
    assert path.read_bytes()[member.offset :][:4] == b"data"


def test_a_tar_cut_short_is_not_indexed(tmp_path):
    path = tar_with(tmp_path / "a.tar", ("000000000.jpg", b"x" * 5000), ("000000000.json", META))
    whole = path.read_bytes()
    for size in (300, 3000):
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError, match="cut short"):
            scan(path, first=0)
    path.write_bytes(whole[: 512 + 5120])
    with pytest.raises(ValueError, match=r"expected an image and its \.json"):
        scan(path, first=0)


@pytest.mark.parametrize(
    "file", ["../../etc/passwd.tar", "/abs.tar", "a b.tar", "passwd", ".hidden.tar", "pipe:ls.tar"]
)
def test_split_json_cannot_point_elsewhere(packed, file):
    text = json.loads((packed / "train" / "split.json").read_text())
    text["shards"][0]["file"] = file
    edit(packed / "train" / "split.json", shards=text["shards"])
    with pytest.raises(ValueError, match=r"expected plain names of \.tar files"):
        ShardedImages(packed / "train")


def test_an_index_cannot_point_outside_its_tars(packed):
    path = packed / "train" / "index.parquet"
    table = pq.read_table(path)
    for column, value in (("offset", -1), ("size", 2**40), ("shard", 1)):
        values = table[column].to_pylist()
        values[0] = value
        position = table.column_names.index(column)
        field = table.schema.field(column)
        pq.write_table(table.set_column(position, field, pa.array(values, field.type)), path)
        with pytest.raises(ValueError, match="some images lie outside their tars"):
            ShardedImages(packed / "train")


@pytest.mark.parametrize("name", ["a\x1b[2J.jpg", "a\nb.jpg", "a\x9b2J.jpg", "a\x00.jpg"])
def test_an_index_with_names_that_a_terminal_would_obey_is_refused(packed, name):
    path = packed / "train" / "index.parquet"
    table = pq.read_table(path)
    position = table.column_names.index("name")
    for first, refused in (("\u00e9 \u4e09.jpg", False), (name, True)):
        values = [first, *table["name"].to_pylist()[1:]]
        pq.write_table(table.set_column(position, table.schema.field(position), pa.array(values)), path)
        with pytest.raises(ValueError, match="names have control characters") if refused else nullcontext():
            ShardedImages(packed / "train")


@pytest.mark.parametrize(
    "url",
    ["pipe:cat /etc/passwd", "pipe:touch x.tar", "shell://x", "simplecache::file:///tmp/x", "tar://a::http://b/c.tar"],
)
def test_commands_and_chained_urls_are_never_opened(tmp_path, url):
    for read in (ShardedImages, read_truth, read_attributes, read_masks):
        with pytest.raises(ValueError, match="commands and chained URLs are never opened"):
            read(url)
    with pytest.raises(ValueError, match="never opened"):
        ShardedImages(url, cache_dir=tmp_path)


def test_a_password_in_a_url_does_not_reach_a_message():
    assert cache.hide_login("s3://key:secret@bucket/a") == "s3://bucket/a"


# URLs


@pytest.fixture
def bucket(packed):
    """The packed data in fsspec's memory file system."""
    system = fsspec.filesystem("memory")
    for path in packed.rglob("*"):
        if path.is_file():
            system.pipe(f"/bucket/{path.relative_to(packed)}", path.read_bytes())
    yield system
    system.rm("/bucket", recursive=True)


def test_a_url_is_read_through_copies_made_once(packed, bucket, tmp_path):
    copies = tmp_path / "cache"
    images = ShardedImages("memory://bucket/train", cache_dir=copies)
    local = ShardedImages(packed / "train")
    assert not copies.exists()  # nothing is copied before it is needed
    assert images.read(9) == local.read(9)
    assert len(list(copies.glob("*.tar"))) == 1
    assert [images.read(i) for i in range(10)] == [local.read(i) for i in range(10)]
    assert len(list(copies.glob("*.tar"))) == 3
    assert not list(copies.glob("*.partial"))
    for shard in range(3):
        bucket.rm(f"/bucket/train/train-{shard:06d}.tar")
    again = pickle.loads(pickle.dumps(images))
    assert [pair for s in range(3) for pair in again.stream(s)] == [(i, local.read(i)) for i in range(10)]
    np.testing.assert_array_equal(read_truth("memory://bucket/train"), PERSONS)
    assert read_masks("memory://bucket/train") is None


def test_new_shards_behind_an_old_url_are_not_mistaken_for_the_copies(packed, bucket, market, tmp_path):
    copies = tmp_path / "cache"
    assert ShardedImages("memory://bucket/query", cache_dir=copies).read(0)
    path = sorted((market / "query").glob("*.jpg"))[0]
    path.write_bytes(bad_images.jpeg(seed=99))
    pack(market1501.read(market), packed, **LIMITS)
    for name in ("split.json", "index.parquet", "query-000000.tar"):
        bucket.pipe(f"/bucket/query/{name}", (packed / "query" / name).read_bytes())
    assert ShardedImages("memory://bucket/query", cache_dir=copies).read(0) == path.read_bytes()


def test_a_copy_that_arrives_changed_is_refused_and_removed(bucket, tmp_path):
    copies = tmp_path / "cache"
    data = bytearray(bucket.cat("/bucket/train/train-000000.tar"))
    data[700] ^= 1
    bucket.pipe("/bucket/train/train-000000.tar", bytes(data))
    images = ShardedImages("memory://bucket/train", cache_dir=copies)
    with pytest.raises(ValueError, match=r"train-000000\.tar: expected .* bytes with sha256"):
        images.read(0)
    assert images.read(4)
    assert len(list(copies.glob("*.tar"))) == 1
    assert not list(copies.glob("*.partial"))


def test_a_tar_missing_behind_a_url_is_named(bucket, tmp_path):
    bucket.rm("/bucket/train/train-000000.tar")
    images = ShardedImages("memory://bucket/train", cache_dir=tmp_path / "cache")
    with pytest.raises(ValueError, match=r"memory://bucket/train/train-000000\.tar: expected a file, found none"):
        images.read(0)


def test_workers_of_a_node_copy_a_tar_once(bucket, tmp_path, monkeypatch):
    copied = []
    original = cache.CachedFolder._copy

    def counted(self, file, copy, **options):
        copied.append(file)
        original(self, file, copy, **options)

    monkeypatch.setattr(cache.CachedFolder, "_copy", counted)
    workers = [ShardedImages("memory://bucket/train", cache_dir=tmp_path / "cache") for _ in range(4)]
    threads = [threading.Thread(target=worker.read, args=(0,)) for worker in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert copied == ["train-000000.tar"]


def test_a_file_url_is_read_in_place_or_copied(packed, tmp_path):
    url = (packed / "train").as_uri()
    assert ShardedImages(url).read(3) == ShardedImages(packed / "train").read(3)
    assert ShardedImages(url, cache_dir=tmp_path / "cache").read(3) == ShardedImages(packed / "train").read(3)
    assert len(list((tmp_path / "cache").glob("*.tar"))) == 1


def test_a_url_without_a_place_for_copies_is_refused(bucket):
    with pytest.raises(ValueError, match=r"set data\.cache_dir"):
        ShardedImages("memory://bucket/train")


def test_a_full_disk_while_copying_is_one_sentence(bucket, tmp_path, monkeypatch):
    def full(self, file, copy, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(cache.CachedFolder, "_copy", full)
    images = ShardedImages("memory://bucket/train", cache_dir=tmp_path / "cache")
    with pytest.raises(ValueError, match=r"the disk is full while copying .*; free some space\.$"):
        images.read(0)
