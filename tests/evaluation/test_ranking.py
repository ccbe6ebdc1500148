import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from reidray.evaluation import rank
from reidray.neighbours import product_error
from tests.reference.ranking import ranking


def unit(rows):
    rows = np.asarray(rows, np.float64)
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def line(*similarities):
    """Gallery rows with these similarities to the query (1, 0)."""
    return np.array([[s, np.sqrt(1 - s * s)] for s in similarities], np.float32)


QUERY = np.array([[1, 0]], np.float32)


def drawn_case(queries, gallery, width, persons, seed, ties):
    random = np.random.default_rng(seed)
    shape = (queries + gallery, width)
    rows = random.integers(-1, 2, shape) if ties else random.standard_normal(shape)
    rows[np.all(rows == 0, axis=1)] = 1
    rows = unit(rows)
    return (
        rows[:queries],
        rows[queries:],
        random.integers(1, persons + 1, queries),
        random.integers(-1, persons + 1, gallery),
        random.integers(-1, 3, queries),
        random.integers(-1, 3, gallery),
    )


cases = st.builds(
    drawn_case,
    st.integers(1, 8),
    st.integers(1, 40),
    st.integers(2, 10),
    st.integers(1, 5),
    st.integers(0, 2**16),
    st.booleans(),
)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(cases, st.integers(1, 9))
def test_equals_the_definition(case, block):
    expected = ranking(*case)
    if expected is None:
        with pytest.raises(ValueError, match="no query has a true match"):
            rank(*case, block=block)
        return
    result = rank(*case, block=block)
    mine = (result.mAP, result.mAP_trapezoid, result.mINP)
    np.testing.assert_allclose(mine, (expected[0], expected[1], expected[3]), atol=1e-12)
    np.testing.assert_allclose(result.cmc, expected[2], atol=1e-12)
    assert result.num_valid_queries == expected[4]
    assert result.mAP_trapezoid <= result.mAP + 1e-15


def test_three_hits_by_hand():
    # Ranks 1, 3, 4 of five: precisions 1, 2/3, 3/4; before them 1, 1/2, 2/3.
    gallery = line(0.9, 0.8, 0.7, 0.6, 0.5)
    result = rank(QUERY, gallery, [1], [1, 2, 1, 1, 0], [0], [1, 1, 1, 1, 1])
    assert result.mAP == pytest.approx((1 + 2 / 3 + 3 / 4) / 3)
    assert result.mAP_trapezoid == pytest.approx((1 + (2 / 3 + 1 / 2) / 2 + (3 / 4 + 2 / 3) / 2) / 3)
    assert result.mINP == pytest.approx(3 / 4)
    assert result.cmc.tolist() == [1.0] * 50


def test_same_person_under_the_same_camera_and_junk_do_not_count_but_distractors_do():
    gallery = line(0.9, 0.8, 0.7, 0.6)
    persons = [1, -1, 0, 1]
    result = rank(QUERY, gallery, [1], persons, [0], [0, 1, 1, 1])
    assert result.mAP == pytest.approx(1 / 2)
    assert result.cmc[:3].tolist() == [0.0, 1.0, 1.0]
    unknown = rank(QUERY, gallery, [1], persons, [-1], [-1, 1, 1, -1])
    assert unknown.mAP == pytest.approx((1 + 2 / 3) / 2)


def test_equal_similarities_are_ordered_by_gallery_index():
    gallery = np.repeat(line(0.5), 20, axis=0)
    for place in (0, 7, 19):
        persons = np.full(20, 2)
        persons[place] = 1
        result = rank(QUERY, gallery, [1], persons, [0], np.ones(20, int))
        assert result.mINP == pytest.approx(1 / (place + 1))


def test_duplicates_in_a_wide_space_are_ordered_by_gallery_index():
    random = np.random.default_rng(0)
    gallery = unit(random.standard_normal((203, 515)))
    gallery[150:] = gallery[3]
    persons = np.full(203, 2)
    persons[202] = 1
    result = rank(gallery[3:4], gallery, [1], persons, [0], np.ones(203, int))
    assert result.mINP == pytest.approx(1 / 54)


def test_matrix_products_as_wrong_as_they_may_be_change_nothing(monkeypatch):
    random = np.random.default_rng(1)
    rows = unit(random.standard_normal((1, 512)) + 0.01 * random.standard_normal((210, 512)))
    case = (rows[:10], rows[10:], np.ones(10, int), random.integers(1, 4, 200), np.zeros(10, int), np.ones(200, int))
    expected = ranking(*case)
    multiply = np.matmul

    def wrong_product(left, right):
        signs = random.choice([-1, 1], (len(left), right.shape[1])).astype(np.float32)
        return multiply(left, right) + np.float32(0.95 * product_error(512)) * signs

    monkeypatch.setattr(np, "matmul", wrong_product)
    result = rank(*case)
    np.testing.assert_allclose((result.mAP, result.mINP), (expected[0], expected[3]), atol=1e-12)


def test_a_query_without_a_match_is_left_out_of_the_means():
    query = np.repeat(QUERY, 2, axis=0)
    result = rank(query, line(0.9, 0.8), [1, 5], [2, 1], [0, 0], [1, 1])
    assert result.num_valid_queries == 1
    assert result.mAP == 0.5


def test_average_precision_by_step_equals_sklearn_without_ties():
    for seed in range(20):
        random = np.random.default_rng(seed)
        gallery = unit(random.standard_normal((80, 9)))
        query = unit(random.standard_normal((1, 9)))
        persons = random.integers(1, 4, 80)
        scores = gallery.astype(np.float64) @ query[0].astype(np.float64)
        result = rank(query, gallery, [1], persons, [0], np.ones(80, int))
        assert result.mAP == pytest.approx(average_precision_score(persons == 1, scores), abs=1e-12)
        assert result.mAP_trapezoid <= result.mAP


def test_blocks_and_threads_change_no_bit_and_inputs_stay_as_they_are():
    case = drawn_case(70, 300, 33, 12, 5, False)
    copies = [array.copy() for array in case]
    expected = rank(*case)
    threads = numba.get_num_threads()
    for block, count in ((1, 1), (7, threads), (70, 1)):
        numba.set_num_threads(count)
        try:
            result = rank(*case, block=block)
        finally:
            numba.set_num_threads(threads)
        assert result.percent() == expected.percent()
        np.testing.assert_array_equal(result.cmc, expected.cmc)
    for now, before in zip(case, copies, strict=True):
        np.testing.assert_array_equal(now, before)


def test_percent_names_what_a_table_shows():
    result = rank(QUERY, line(0.9, 0.8), [1], [2, 1], [0], [1, 1])
    assert result.percent() == {
        "mAP": 50.0,
        "mAP_trapezoid": 25.0,
        "rank1": 0.0,
        "rank5": 100.0,
        "rank10": 100.0,
        "mINP": 50.0,
    }


def test_impossible_arguments_are_refused():
    gallery = line(0.9, 0.8)
    good = [QUERY, gallery, [1], [1, 2], [0], [1, 1]]

    def with_(place, value):
        return [*good[:place], value, *good[place + 1 :]]

    for place, value, message in (
        (0, np.eye(3, dtype=np.float32)[:1], "same width"),
        (0, np.array([[np.nan, 0]]), "query features must be finite; row 0"),
        (1, gallery * 2, "gallery features must be unit rows; row 0"),
        (2, [0], "query 0 has 0"),
        (2, [-1], "query 0 has -1"),
        (2, [1, 2], "query persons must be 1 integers"),
        (3, [1.5, 2.0], "gallery persons must be 2 integers"),
        (3, [3, 4], "no query has a true match"),
        (5, [0, 0], "no query has a true match"),
    ):
        with pytest.raises(ValueError, match=message):
            rank(*with_(place, value))
    with pytest.raises(ValueError, match="block"):
        rank(*good, block=0)
    with pytest.raises(ValueError, match="no query has a true match"):
        rank(QUERY[:0], gallery, [], [1, 2], [], [1, 1])
    with pytest.raises(ValueError, match="no query has a true match"):
        rank(QUERY, gallery[:0], [1], [], [0], [])
