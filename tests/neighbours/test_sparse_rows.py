import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reidray import threads
from reidray.neighbours import sparse_rows


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.sets(st.integers(0, 300_000), max_size=80), st.sets(st.integers(0, 300_000), max_size=80))
def test_a_set_gives_its_members_in_ascending_order_and_is_empty_afterwards(first, second):
    words, groups = sparse_rows.empty_set(300_001)
    found = np.empty(400, np.int32)
    for members in (first, second):
        for index in [*members, *members]:
            sparse_rows.add(words, groups, np.int32(index))
        assert found[: sparse_rows.take_all(words, groups, found)].tolist() == sorted(members)
        assert not words.any()
        assert not groups.any()


@pytest.mark.parametrize("count", [1, 63, 64, 65, 4095, 4096, 4097])
def test_a_set_of_everything(count):
    words, groups = sparse_rows.empty_set(count)
    found = np.empty(count, np.int32)
    for index in range(count):
        sparse_rows.add(words, groups, index)
    assert sparse_rows.take_all(words, groups, found) == count
    np.testing.assert_array_equal(found, np.arange(count))


@pytest.mark.parametrize("count", [1, 2, 3])
def test_pieces_come_back_in_order_of_rows(monkeypatch, count):
    monkeypatch.setattr(threads, "num_threads", lambda: count)
    monkeypatch.setattr(sparse_rows, "_PIECE", 3)

    def kernel(first, last, factor):
        images = np.arange(first, last)
        return images % 3, np.repeat(images, images % 3) * factor

    ends, columns = sparse_rows.joined(sparse_rows.in_pieces(kernel, 8, 10))
    assert ends.tolist() == [0, 0, 1, 3, 3, 4, 6, 6, 7]
    assert columns.tolist() == [10, 20, 20, 40, 50, 50, 70]


def test_an_error_in_a_piece_is_an_error_of_the_whole(monkeypatch):
    monkeypatch.setattr(threads, "num_threads", lambda: 2)
    monkeypatch.setattr(sparse_rows, "_PIECE", 1)

    def kernel(first, last):
        raise ValueError(f"piece {first}")

    with pytest.raises(ValueError, match="piece 0"):
        sparse_rows.in_pieces(kernel, 4)


def test_longer_keeps_what_was_there_and_grows_by_doubling_at_least():
    values = np.arange(5, dtype=np.float32)
    assert len(sparse_rows.longer(values, 6)) == 10
    assert len(sparse_rows.longer(values, 40)) == 40
    np.testing.assert_array_equal(sparse_rows.longer(values, 6)[:5], values)
