"""Galleries on disk: what is added is found; other models, damaged files and two writers do no harm."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from reidray.gallery import Gallery
from reidray.gallery.file import ROWS, GalleryFile, Made, Rows, append

MADE = Made("a" * 64, 4, "scwm", "runs/one")


def some_rows(count: int, seed: int = 0, source: str = "/crops") -> Rows:
    features = np.random.default_rng(seed).standard_normal((count, MADE.width))
    features = (features / np.linalg.norm(features, axis=1, keepdims=True)).astype(np.float32)
    return Rows([f"{seed}-{i}.jpg" for i in range(count)], [source] * count, [i % 3 for i in range(count)], features)


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
    assert (best.name, best.row, best.source, best.camera) == ("1-2.jpg", ROWS + 5, "", 2)
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
    query = some_rows(30).features_ND[4]  # of camera 1
    assert {match.camera for match in gallery.search(query, 30)} == {0, 1, 2}
    assert {match.camera for match in gallery.search(query, 30, cameras=[1])} == {1}
    assert {match.camera for match in gallery.search(query, 30, not_cameras=[1])} == {0, 2}
    assert gallery.search(query, 30, cameras=[7]) == []
    similar = gallery.search(query, 30, at_least=0.5)
    assert 0 < len(similar) < 30
    assert min(match.similarity for match in similar) >= 0.5


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
    with pytest.raises(ValueError, match="k must be at least 1, got 0"):
        gallery.search(query, 0)
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
