"""Galleries on disk: what is added is found; other models, damaged files and two writers do no harm."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from reidray.gallery import Gallery
from reidray.gallery.file import ROWS, GalleryFile, Made, Rows, append

CAMERAS = ["door1", "door10", "<script>alert(1)</script>"]
MADE = Made("a" * 64, 4, "scwm", "runs/one")


def some_rows(count: int, seed: int = 0, source: str = "/crops") -> Rows:
    features = np.random.default_rng(seed).standard_normal((count, MADE.width))
    features = (features / np.linalg.norm(features, axis=1, keepdims=True)).astype(np.float32)
    return Rows(
        [f"{seed}-{i}.jpg" for i in range(count)], [source] * count, [CAMERAS[i % 3] for i in range(count)], features
    )


def test_rows_are_appended_and_found_in_their_order(tmp_path: Path) -> None:
    path = tmp_path / "people.parquet"
    first, second = some_rows(ROWS + 3), some_rows(5, seed=1, source="")
    append(path, MADE, first)
    gallery = Gallery(path)
    assert len(gallery) == ROWS + 3
    append(path, MADE, second)
    assert len(gallery) == ROWS + 8  # the same object sees what was added
    assert gallery.names == [*first.names, *second.names]
    np.testing.assert_array_equal(gallery.features, np.concatenate([first.features_ND, second.features_ND]))
    best = gallery.search(second.features_ND[2], 1)[0]
    assert (best.name, best.row, best.source, best.camera) == ("1-2.jpg", ROWS + 5, "", CAMERAS[2])
    assert best.similarity == pytest.approx(1.0)
    assert [match.row for match in gallery.search(first.features_ND[7], 1)] == [7]


def test_the_file_is_plain_parquet_with_embeddings_as_lists(tmp_path: Path) -> None:
    path = tmp_path / "people.parquet"
    append(path, MADE, some_rows(3))
    table = pq.read_table(path)
    assert table.column_names == ["name", "source", "camera", "stamp", "embedding"]
    np.testing.assert_array_equal(np.array(table["embedding"].to_pylist(), np.float32), some_rows(3).features_ND)


def test_cameras_are_chosen_and_left_out(tmp_path: Path) -> None:
    path = tmp_path / "people.parquet"
    append(path, MADE, some_rows(30))
    gallery = Gallery(path)
    query = some_rows(30).features_ND[4]  # of door10
    assert {match.camera for match in gallery.search(query, 30)} == set(CAMERAS)
    for one in (["door10"], "door10"):
        assert {match.camera for match in gallery.search(query, 30, cameras=one)} == {"door10"}
        assert {match.camera for match in gallery.search(query, 30, not_cameras=one)} == {"door1", CAMERAS[2]}
    assert len(gallery.search(query, 30, cameras=["door1", "door10"], not_cameras="door1")) == 10
    with pytest.raises(
        ValueError, match=r"no camera 'door2' in the gallery, whose cameras are <script>.*, door1, door10"
    ):
        gallery.search(query, 30, cameras=["door2"])
    similar = gallery.search(query, 30, at_least=0.5)
    assert 0 < len(similar) < 30
    assert min(match.similarity for match in similar) >= 0.5


def test_a_camera_is_the_same_in_all_that_is_added_and_some_are_unknown(tmp_path: Path) -> None:
    path = tmp_path / "people.parquet"
    for number, cameras in enumerate((["b", None, "7"], ["a", "b", "7"], ["10", None, "b"])):
        rows = some_rows(3, seed=number)
        append(path, MADE, Rows(rows.names, rows.sources, cameras, rows.features_ND))
    gallery = Gallery(path)
    assert gallery.cameras == ["b", None, "7", "a", "b", "7", "10", None, "b"]
    assert list(gallery.images_by_camera.items()) == [("7", 2), ("10", 1), ("a", 1), ("b", 3)]
    query = some_rows(3, seed=9).features_ND[0]
    assert {match.row for match in gallery.search(query, 9, cameras=["b"])} == {0, 4, 8}
    assert {match.row for match in gallery.search(query, 9, cameras=[7, "010"])} == {2, 5, 6}  # numbers, as in paths
    assert {match.row for match in gallery.search(query, 9, not_cameras=["b", "7"])} == {1, 3, 6, 7}
    append(path, MADE, Rows([], [], [], np.empty((0, 4), np.float32)), without=[0], cameras={1: "z", 3: "b"})
    assert gallery.cameras == ["z", "7", "b", "b", "7", "10", None, "b"]
    assert pq.read_table(path)["camera"].to_pylist() == gallery.cameras
    again = tmp_path / "again.parquet"
    table = pq.read_table(path)
    plain = table.set_column(2, "camera", table["camera"].cast(pa.string()))
    pq.write_table(plain, again, row_group_size=2)  # as polars and DuckDB write it
    assert Gallery(again).cameras == gallery.cameras


def _first_format(path: Path, rows: Rows, numbers: list[int]) -> None:
    """The file as the first format had it: numbers of cameras from 0, -1 unknown."""
    append(path, MADE, rows)
    table = pq.read_table(path)
    told = {**json.loads(table.schema.metadata[b"reidray"]), "format": 1}
    old = table.set_column(2, pa.field("camera", pa.int32(), nullable=False), pa.array(numbers, pa.int32()))
    pq.write_table(old.replace_schema_metadata({b"reidray": json.dumps(told).encode()}), path)


def test_a_gallery_of_the_first_format_opens_with_the_names_that_its_packs_have(tmp_path: Path) -> None:
    path, rows = tmp_path / "people.parquet", some_rows(6)
    (tmp_path / "pack").mkdir()
    (tmp_path / "pack" / "dataset.json").write_text(json.dumps({"cameras": ["gate", "hall"]}))
    named, numbered = str(tmp_path / "pack" / "train"), str(tmp_path / "gone" / "train")
    sources = [named, named, numbered, numbered, "/crops", named]
    _first_format(path, Rows(rows.names, sources, rows.cameras, rows.features_ND), [0, 1, 0, 1, -1, -1])
    gallery = Gallery(path)
    assert gallery.cameras == ["gate", "hall", "1", "2", None, None]
    assert [match.row for match in gallery.search(rows.features_ND[0], 6, cameras=["hall"])] == [1]
    append(path, MADE, some_rows(3, seed=1))
    assert gallery.cameras == ["gate", "hall", "1", "2", None, None, *CAMERAS]
    assert json.loads(pq.read_schema(path).metadata[b"reidray"])["format"] == 2


def test_a_gallery_of_a_newer_format_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "people.parquet"
    append(path, MADE, some_rows(3))
    table = pq.read_table(path)
    told = {**json.loads(table.schema.metadata[b"reidray"]), "format": 3}
    pq.write_table(table.replace_schema_metadata({b"reidray": json.dumps(told).encode()}), path)
    with pytest.raises(ValueError, match="gallery format 3 is of a newer reidray"):
        Gallery(path)


def test_a_file_that_another_program_wrote_again_and_compressed_gives_the_same_results(tmp_path: Path) -> None:
    path, again = tmp_path / "people.parquet", tmp_path / "again.parquet"
    append(path, MADE, some_rows(2 * ROWS + 7))
    pq.write_table(pq.read_table(path), again, compression="zstd", row_group_size=5000)
    query = some_rows(3, seed=5).features_ND
    assert Gallery(path).search_features(query, 7) == Gallery(again).search_features(query, 7)
    np.testing.assert_array_equal(Gallery(path).features, Gallery(again).features)


def test_another_models_gallery_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "people.parquet"
    append(path, MADE, some_rows(3))
    before = path.read_bytes()
    with pytest.raises(
        ValueError, match=r"was made by another model \(scwm, runs/one, id aaaaaaaaaaaa\) than runs/two"
    ):
        append(path, Made("b" * 64, 4, "scwm", "runs/two"), some_rows(3, seed=1))
    assert path.read_bytes() == before


def test_what_is_no_gallery_is_refused_in_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "people.parquet"
    with pytest.raises(ValueError, match="nothing is there"):
        GalleryFile(path)
    path.write_bytes(b"PAR1 not really")
    with pytest.raises(ValueError, match="got a file that cannot be read"):
        GalleryFile(path)
    pq.write_table(pa.table({"a": [1]}), path)
    with pytest.raises(ValueError, match="got Parquet with the columns a"):
        Gallery(path)


def test_senseless_searches_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "people.parquet"
    append(path, MADE, some_rows(3))
    gallery, query = Gallery(path), some_rows(3).features_ND[0]
    for k in (0, 2.5, "3"):
        with pytest.raises(ValueError, match=f"k must be a whole number of images, at least 1, got {k!r}"):
            gallery.search(query, k)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="expected features of width 4"):
        gallery.search(np.ones(3, np.float32) / np.sqrt(3))
    with pytest.raises(ValueError, match="expected features of length 1"):
        gallery.search(2 * query)
    with pytest.raises(ValueError, match="a model is needed to search by an image"):
        gallery.search("photo.jpg")
    with pytest.raises(ValueError, match="a model is needed to add images"):
        gallery.add("photo.jpg")


def test_writers_at_the_same_time_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "people.parquet"
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda seed: append(path, MADE, some_rows(3, seed=seed)), range(8)))
    names = Gallery(path).names
    assert sorted(names) == sorted(f"{seed}-{i}.jpg" for seed in range(8) for i in range(3))
    assert not list(tmp_path.glob(".people.parquet.[0-9]*"))
