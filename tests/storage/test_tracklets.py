"""Packed tracklets: one record each, no tar has a part of one, and lists that do not fit are refused."""

import gc
import tarfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from reidray.data import dukemtmc_video
from reidray.data.records import Dataset, Split
from reidray.storage import index
from reidray.storage.pack import pack
from reidray.storage.shards import ShardedImages, read_truth
from reidray.storage.tar_scan import scan
from reidray.storage.tracklets import ShardedTracklets, open_samples
from tests.data import bad_images

LIMITS = {"images_per_shard": 5, "max_pixels": 1_000_000, "max_bytes": 1_000_000}
FRAMES = [2, 3, 1, 7, 4]  # 5 to a tar: [2, 3], [1], [7], [4]
PERSONS = [3, 3, 5, 5, 8]


@pytest.fixture
def root(tmp_path):
    """DukeMTMC-VideoReID's layout with FRAMES frames a training tracklet."""
    root, seed = tmp_path / "video", 0
    tracks = {"train": list(zip(PERSONS, FRAMES, strict=True)), "query": [(9, 1)], "gallery": [(9, 2)]}
    for folder, rows in tracks.items():
        for number, (person, frames) in enumerate(rows):
            place = root / folder / f"{person:04d}" / f"{number:04d}"
            place.mkdir(parents=True)
            for frame in range(1, frames + 1):
                seed += 1
                path = place / f"{person:04d}_C{number % 3 + 1}_F{frame:04d}_X1.jpg"
                path.write_bytes(bad_images.jpeg(seed=seed))
    return root


@pytest.fixture
def packed(root, tmp_path):
    pack(dukemtmc_video.read(root), tmp_path / "packed", **LIMITS)
    return tmp_path / "packed"


def test_every_frame_comes_back_byte_for_byte_and_knows_its_tracklet(root, packed):
    train = dukemtmc_video.read(root).splits["train"]
    tracklets = open_samples(packed / "train")
    assert isinstance(tracklets, ShardedTracklets)
    assert tracklets.count == len(FRAMES)
    assert tracklets.counts_N.tolist() == FRAMES
    assert tracklets.firsts_N.tolist() == [0, 2, 5, 6, 13]
    assert tracklets.names == [one.name for one in train.tracklets]
    assert tracklets.cameras_N.tolist() == train.cameras
    assert tracklets.frames.names == [image.name for image in train.images]
    assert [tracklets.frames.read(place) for place in range(17)] == [image.path.read_bytes() for image in train.images]
    assert read_truth(packed / "train").tolist() == PERSONS


def test_a_tar_holds_whole_tracklets(packed):
    tracklets = open_samples(packed / "train")
    assert [tracklets.shard_range(shard) for shard in range(tracklets.num_shards)] == [(0, 2), (2, 1), (3, 1), (4, 1)]
    assert [tracklets.frames.shard_range(shard)[1] for shard in range(4)] == [5, 1, 7, 4]
    with tarfile.open(packed / "train" / "train-000000.tar") as tar:
        assert tar.getnames() == [
            "000000000.0000.jpg",
            "000000000.0001.jpg",
            "000000000.json",
            "000000001.0000.jpg",
            "000000001.0001.jpg",
            "000000001.0002.jpg",
            "000000001.json",
        ]


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # webdataset leaves its files open
def test_webdataset_reads_a_tracklet_as_one_sample(packed, monkeypatch):
    monkeypatch.setenv("WDS_SECURE", "1")
    import webdataset

    tars = sorted(str(path) for path in (packed / "train").glob("*.tar"))
    samples = list(webdataset.WebDataset(tars, shardshuffle=False))
    gc.collect()
    assert [sum(key.endswith(".jpg") for key in sample) for sample in samples] == FRAMES


def test_a_frame_that_cannot_be_read_is_left_out_and_so_is_a_tracklet_without_any(root, tmp_path):
    folders = sorted((root / "train").glob("*/*"))
    (folders[1] / "0003_C2_F0002_X1.jpg").write_bytes(b"no image")
    (folders[2] / "0005_C3_F0001_X1.jpg").write_bytes(b"no image")
    written = pack(dukemtmc_video.read(root), tmp_path / "packed", **LIMITS)
    assert written["splits"]["train"] == 4
    assert written["skipped"]["not an image"]["count"] == 2
    tracklets = open_samples(tmp_path / "packed" / "train")
    assert tracklets.counts_N.tolist() == [2, 2, 7, 4]
    assert [name.split("_F")[1][:4] for name in tracklets.frames.names[2:4]] == ["0001", "0003"]
    assert read_truth(tmp_path / "packed" / "train").tolist() == [3, 3, 5, 8]


def test_equal_tracklets_give_equal_tars(root, tmp_path):
    for out in ("one", "two"):
        pack(dukemtmc_video.read(root), tmp_path / out, **LIMITS)
    for path in (tmp_path / "one" / "train").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / "train" / path.name).read_bytes()


def test_images_are_no_tracklets(root, tmp_path):
    split = dukemtmc_video.read(root).splits["train"]
    plain = Dataset("folder", root, {"train": Split("train", split.images, None)}, {})
    pack(plain, tmp_path / "plain", **LIMITS)
    assert isinstance(open_samples(tmp_path / "plain" / "train"), ShardedImages)


def test_lists_that_belong_to_other_tars_or_are_damaged_are_refused(packed):
    path = packed / "train" / index.TRACKLETS
    whole = path.read_bytes()
    path.write_bytes((packed / "query" / index.TRACKLETS).read_bytes())
    with pytest.raises(ValueError, match=r"tracklets\.parquet: the list of tracklets is stale"):
        open_samples(packed / "train")
    path.write_bytes(whole[:-50])
    with pytest.raises(ValueError, match=r"expected a whole list of tracklets, got a damaged one"):
        open_samples(packed / "train")
    path.write_bytes(whole)
    table = pq.read_table(path)
    for column, values in (("frames", [2, 3, 1, 7, 3]), ("first", [0, 2, 5, 7, 13]), ("frames", [3, 2, 1, 7, 4])):
        place = table.column_names.index(column)
        pq.write_table(
            table.set_column(place, table.schema.field(place), pa.array(values, table.schema.field(place).type)), path
        )
        with pytest.raises(ValueError, match=r"its tracklets are not those of the shards"):
            open_samples(packed / "train")
    more = pa.table({"name": ["more"], "camera": [0], "first": [17], "frames": [1]}).cast(table.schema)
    pq.write_table(pa.concat_tables([table, more]).replace_schema_metadata(table.schema.metadata), path)
    with pytest.raises(ValueError, match=r"its tracklets are not those of the shards"):
        open_samples(packed / "train")
    place = table.column_names.index("camera")
    pq.write_table(table.set_column(place, table.schema.field(place), pa.nulls(5, pa.int32())), path)
    with pytest.raises(ValueError, match=r"expected a value in every place, got empty ones"):
        open_samples(packed / "train")
    path.unlink()
    for read in (open_samples, read_truth):
        with pytest.raises(ValueError, match=r"tracklets\.parquet: expected the list of tracklets, found none"):
            read(packed / "train")


def test_a_tracklet_with_too_many_frames_is_refused_before_anything_is_written(root, tmp_path, monkeypatch):
    monkeypatch.setattr(index, "MAX_FRAMES", 6)
    with pytest.raises(ValueError, match=r"at most 6 frames in a tracklet, got 7 in train/0005/0003; divide it"):
        pack(dukemtmc_video.read(root), tmp_path / "packed", **LIMITS)
    assert not (tmp_path / "packed").exists()


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["000000000.0000.jpg", "000000000.0002.jpg"], "expected key 000000000 at member 1, got 000000000.0002.jpg"),
        (["000000000.jpg"], "expected key 000000000 at member 0, got 000000000.jpg"),
        (["000000000.0000.pkl"], "expected only files like 000000000.0000.jpg"),
        (["000000000.json"], "000000000 has no image"),
        (["000000000.0000.jpg", "000000000.json"], r"expected name and camera in 000000000.json, got KeyError"),
    ],
)
def test_tars_that_hold_something_else_are_refused(tmp_path, names, words):
    path = tmp_path / "one.tar"
    with tarfile.open(path, "w") as tar:
        for name in names:
            (tmp_path / "content").write_text("{}")
            tar.add(tmp_path / "content", name)
    with pytest.raises(ValueError, match=words):
        scan(path, first=0, tracklets=True)


def test_a_shard_range_of_a_split_in_one_tar(root, tmp_path):
    pack(dukemtmc_video.read(root), tmp_path / "packed", **{**LIMITS, "images_per_shard": 100})
    tracklets = open_samples(tmp_path / "packed" / "train")
    assert tracklets.shard_range(0) == (0, 5)
    assert np.diff([*tracklets.firsts_N, tracklets.frames.count]).tolist() == FRAMES
