"""Embeddings are taken from the map of a gallery's file as any reader of Parquet reads them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from reidray.arrays import Floats
from reidray.gallery import Gallery
from reidray.gallery.file import GalleryFile, Made, Rows, append, rows_of_a_group


def _drawn(count: int, width: int, seed: int = 0) -> Floats:
    rows_ND = np.random.default_rng(seed).standard_normal((count, width)).astype(np.float32)
    unit_ND: Floats = rows_ND / np.linalg.norm(rows_ND, axis=1, keepdims=True)
    return unit_ND


def _added(path: Path, features_ND: Floats, prefix: str = "") -> None:
    names = [f"{prefix}{number}.jpg" for number in range(len(features_ND))]
    made = Made("m" * 64, features_ND.shape[1], "method", "run")
    append(path, made, Rows(names, ["folder"] * len(names), [None] * len(names), features_ND))


def _read(file: GalleryFile) -> tuple[list[int], Floats]:
    """Numbers of first rows, and all rows, as a search gets them."""
    firsts, blocks = [], []
    for group in range(file.num_groups):
        for first, rows_BD in file.blocks(group):
            firsts.append(first)
            blocks.append(rows_BD.copy())
    return firsts, np.concatenate(blocks)


def _lie_together(file: GalleryFile) -> list[bool]:
    return [place is not None for place in file._places]


@pytest.mark.parametrize(("count", "width"), [(1, 1), (7, 3), (20_000, 5), (5_000, 512)])
def test_rows_are_taken_from_the_map_to_the_last_bit(tmp_path: Path, count: int, width: int) -> None:
    features_ND = _drawn(count, width)
    _added(tmp_path / "a.parquet", features_ND)
    file = GalleryFile(tmp_path / "a.parquet")
    assert file.num_groups == -(-count // rows_of_a_group(width))
    assert all(_lie_together(file)), "the slow way, which is right as well"
    firsts, rows_ND = _read(file)
    np.testing.assert_array_equal(rows_ND, features_ND)
    assert firsts[0] == 0
    assert firsts == sorted(set(firsts))
    np.testing.assert_array_equal(np.concatenate([file.features(group) for group in range(file.num_groups)]), rows_ND)
    column = pq.read_table(tmp_path / "a.parquet")["embedding"].combine_chunks()
    np.testing.assert_array_equal(np.asarray(column.flatten()).reshape(-1, width), features_ND)


def test_wide_rows_are_in_more_row_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the embeddings of each are one page still."""
    monkeypatch.setattr("reidray.gallery.file._MOST_BYTES", 1 << 16)
    features_ND = _drawn(100, 512)
    _added(tmp_path / "a.parquet", features_ND)
    file = GalleryFile(tmp_path / "a.parquet")
    assert _lie_together(file) == [True] * 4
    np.testing.assert_array_equal(_read(file)[1], features_ND)


def test_rows_that_were_added_in_several_goes_too(tmp_path: Path) -> None:
    parts = [_drawn(count, 24, seed) for seed, count in enumerate((3, 17_000, 1, 40))]
    for number, part in enumerate(parts):
        _added(tmp_path / "a.parquet", part, f"{number}-")
    file = GalleryFile(tmp_path / "a.parquet")
    assert all(_lie_together(file))
    np.testing.assert_array_equal(_read(file)[1], np.concatenate(parts))


@pytest.mark.parametrize(
    "options",
    [
        {"compression": "zstd"},
        {"compression": "none", "use_dictionary": True},
        {"compression": "none", "use_dictionary": False, "data_page_size": 1000},
        {"compression": "none", "use_dictionary": False, "data_page_version": "2.0"},
        {"compression": "none", "use_dictionary": False, "write_page_checksum": True},
        {"compression": "none", "use_dictionary": False, "use_byte_stream_split": ["embedding.list.element"]},
        {"compression": "none", "use_dictionary": False, "row_group_size": 7},
        {"compression": "none", "use_dictionary": False},
    ],
    ids=str,
)
def test_a_file_that_another_program_wrote_anew_gives_the_same(tmp_path: Path, options: dict[str, Any]) -> None:
    features_ND = _drawn(300, 16)
    _added(tmp_path / "a.parquet", features_ND)
    pq.write_table(pq.read_table(tmp_path / "a.parquet"), tmp_path / "b.parquet", **options)
    file = GalleryFile(tmp_path / "b.parquet")
    np.testing.assert_array_equal(_read(file)[1], features_ND)
    query_D = features_ND[123]
    assert Gallery(tmp_path / "b.parquet").search(query_D, 3) == Gallery(tmp_path / "a.parquet").search(query_D, 3)


def test_a_file_that_was_opened_stays_what_it_was_while_another_takes_its_place(tmp_path: Path) -> None:
    before_ND, more_ND = _drawn(50, 8, 1), _drawn(20_000, 8, 2)
    _added(tmp_path / "a.parquet", before_ND)
    file = GalleryFile(tmp_path / "a.parquet")
    _added(tmp_path / "a.parquet", more_ND, "more-")
    with ThreadPoolExecutor(1) as pool:  # a thread has readers of its own
        np.testing.assert_array_equal(pool.submit(_read, file).result()[1], before_ND)
        assert len(pool.submit(file.names).result()) == 50
    assert len(GalleryFile(tmp_path / "a.parquet")) == 20_050


def test_a_search_finds_what_a_plain_product_finds(tmp_path: Path) -> None:
    features_ND, queries_QD = _drawn(17_000, 32, 3), _drawn(9, 32, 4)
    _added(tmp_path / "a.parquet", features_ND)
    gallery = Gallery(tmp_path / "a.parquet")
    exact_QN = queries_QD.astype(np.float64) @ features_ND.T.astype(np.float64)
    for query, found in enumerate(gallery.search_features(queries_QD, 12)):
        assert [match.row for match in found] == np.argsort(-exact_QN[query])[:12].tolist()
        np.testing.assert_allclose(
            [match.similarity for match in found], np.sort(exact_QN[query])[::-1][:12], rtol=0, atol=1e-6
        )


@pytest.mark.parametrize("data", [b"", b"PAR1", b"no Parquet at all" * 10])
def test_a_file_that_is_no_parquet_is_refused_in_a_sentence(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.parquet").write_bytes(data)
    with pytest.raises(ValueError, match="expected a gallery"):
        GalleryFile(tmp_path / "a.parquet")


def test_parquet_that_reidray_did_not_write_is_refused_in_a_sentence(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": [1]}), tmp_path / "a.parquet")
    with pytest.raises(ValueError, match="expected a gallery that reidray embed wrote"):
        GalleryFile(tmp_path / "a.parquet")
