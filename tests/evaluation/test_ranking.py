from unittest import mock

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from reidray.evaluation import num_answerable, rank
from reidray.neighbours.product import float32_product, product_error
from reidray.threads import set_threads
from tests.reference.jaccard import exact_similarities
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


def columns_at_once(count):
    """So many gallery images per matrix product."""
    return mock.patch("reidray.evaluation.ranking._COLUMNS", count)


def figures(result):
    return (result.mAP, result.mAP_trapezoid, result.mINP, *result.cmc, result.num_valid_queries)


few_images = st.builds(
    drawn_case,
    st.integers(1, 8),
    st.integers(1, 40),
    st.integers(2, 10),
    st.integers(1, 5),
    st.integers(0, 2**16),
    st.booleans(),
)
many_images_of_few_persons = st.builds(
    drawn_case,
    st.integers(1, 3),
    st.integers(150, 700),
    st.integers(2, 10),
    st.integers(1, 2),
    st.integers(0, 2**16),
    st.booleans(),
)


def assert_equals_the_definition(case, block, columns):
    expected = ranking(*case)
    with columns_at_once(columns):
        if expected is None:
            with pytest.raises(ValueError, match="no query has a true match"):
                rank(*case, block=block)
            return
        result = rank(*case, block=block)
    mine = (result.mAP, result.mAP_trapezoid, result.mINP)
    np.testing.assert_allclose(mine, (expected[0], expected[1], expected[3]), rtol=0, atol=1e-12)
    np.testing.assert_allclose(result.cmc, expected[2], rtol=0, atol=1e-12)
    assert result.num_valid_queries == expected[4]
    assert result.mAP_trapezoid <= result.mAP + 1e-15


@settings(max_examples=300, deadline=None, derandomize=True)
@given(few_images, st.integers(1, 9), st.sampled_from([1, 3, 16, 1024]))
def test_equals_the_definition(case, block, columns):
    assert_equals_the_definition(case, block, columns)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(many_images_of_few_persons, st.integers(1, 3), st.sampled_from([100, 300, 1024]))
def test_equals_the_definition_with_hundreds_of_matches(case, block, columns):
    assert_equals_the_definition(case, block, columns)


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


def test_a_thousand_equal_images_are_ordered_by_gallery_index():
    gallery = np.repeat(line(0.6), 1000, axis=0)
    for matches in (30, 400):
        places = np.sort(np.random.default_rng(matches).permutation(1000)[:matches])
        persons = np.full(1000, 2)
        persons[places] = 1
        result = rank(QUERY, gallery, [1], persons, [0], np.ones(1000, int))
        assert result.mAP == pytest.approx(np.mean(np.arange(1, matches + 1) / (places + 1)))
        assert result.mINP == pytest.approx(matches / (places[-1] + 1))


@pytest.mark.parametrize("persons", [2, 40])
def test_matrix_products_as_wrong_as_they_may_be_change_nothing(persons):
    random = np.random.default_rng(persons)
    rows = unit(random.standard_normal((1, 512)) + 0.01 * random.standard_normal((410, 512)))
    case = (
        rows[:10],
        rows[10:],
        np.ones(10, int),
        random.integers(1, persons + 1, 400),
        np.zeros(10, int),
        np.ones(400, int),
    )
    expected = figures(rank(*case))

    def wrong_product(rows_RD, columns_SD, out_RS):
        float32_product(rows_RD, columns_SD, out_RS)
        out_RS += np.float32(0.95 * product_error(512)) * random.choice([-1, 1], out_RS.shape).astype(np.float32)

    with mock.patch("reidray.evaluation.ranking.float32_product", wrong_product):
        assert figures(rank(*case)) == expected
    plain = ranking(*case)
    np.testing.assert_allclose((expected[0], expected[2]), (plain[0], plain[3]), rtol=0, atol=1e-12)


def test_a_query_without_a_match_is_left_out_of_the_means():
    query = np.repeat(QUERY, 2, axis=0)
    result = rank(query, line(0.9, 0.8), [1, 5], [2, 1], [0, 0], [1, 1])
    assert result.num_valid_queries == 1
    assert result.mAP == 0.5


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.integers(0, 2**16), st.integers(2, 120), st.integers(1, 12))
def test_average_precision_by_step_equals_sklearn_without_ties(seed, count, width):
    random = np.random.default_rng(seed)
    gallery = unit(random.standard_normal((count, width)))
    query = unit(random.standard_normal((1, width)))
    persons = random.integers(1, 4, count)
    scores = exact_similarities(query, gallery)[0]
    assume((persons == 1).any() and len(np.unique(scores)) == count)
    result = rank(query, gallery, [1], persons, [0], np.ones(count, int))
    assert result.mAP == pytest.approx(average_precision_score(persons == 1, scores), abs=1e-12)


def test_blocks_and_threads_change_no_bit_and_inputs_stay_as_they_are():
    case = drawn_case(70, 900, 33, 6, 5, False)
    copies = [array.copy() for array in case]
    expected = figures(rank(*case))
    try:
        for block, columns, threads in ((1, 1024, 1), (7, 64, 2), (70, 333, 1), (2048, 1024, 2)):
            set_threads(threads)
            with columns_at_once(columns):
                assert figures(rank(*case, block=block)) == expected
    finally:
        set_threads(1)
    for now, before in zip(case, copies, strict=True):
        np.testing.assert_array_equal(now, before)


def test_a_person_of_more_images_than_are_held_at_once_changes_no_bit():
    case = drawn_case(30, 200, 12, 2, 6, True)
    expected = figures(rank(*case))
    for held in (1, 150, 1000):
        with mock.patch("reidray.evaluation.ranking._MOST_MATCHES", held):
            assert figures(rank(*case)) == expected


def test_the_order_of_queries_changes_nothing_and_junk_is_as_if_it_were_not_there():
    query, gallery, *rest = drawn_case(40, 300, 7, 9, 8, False)
    query_persons, gallery_persons, query_cameras, gallery_cameras = rest
    result = rank(query, gallery, *rest)
    turned = rank(query[::-1], gallery, query_persons[::-1], gallery_persons, query_cameras[::-1], gallery_cameras)
    np.testing.assert_allclose(figures(turned), figures(result), rtol=1e-12)
    kept = gallery_persons >= 0
    assert 0 < kept.sum() < 300
    clean = rank(query, gallery[kept], query_persons, gallery_persons[kept], query_cameras, gallery_cameras[kept])
    assert figures(clean) == figures(result)


def test_features_that_cannot_be_written_are_read():
    case = drawn_case(20, 100, 16, 5, 7, False)
    expected = figures(rank(*case))
    for array in case:
        array.flags.writeable = False
    assert figures(rank(*case)) == expected


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
        (1, np.array([[1, 0], [np.inf, 0]]), "gallery features must be finite; row 1"),
        (1, np.array([[1, 0], [0, 0]]), "row 1 is all zero"),
        (1, gallery * 2, "gallery features must be unit rows; row 0"),
        (2, [0], "query 0 has 0"),
        (2, [-1], "query 0 has -1"),
        (2, [1, 2], "query persons must be 1 integers"),
        (3, [1.5, 2.0], "gallery persons must be 2 integers"),
        (3, [3, 4], "no query has a true match"),
        (3, [-1, -1], "no query has a true match"),
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


@pytest.mark.parametrize("seed", range(30))
def test_as_many_queries_are_answerable_as_the_ranking_counts(seed):
    generator = np.random.default_rng(seed)
    queries, images, persons, cameras = generator.integers(1, (9, 12, 6, 4))
    query_persons = generator.integers(1, persons + 1, queries)
    gallery_persons = generator.integers(0, persons + 1, images)
    query_cameras, gallery_cameras = (generator.integers(-1, cameras, size) for size in (queries, images))
    found = num_answerable(query_persons, gallery_persons, query_cameras, gallery_cameras)
    rows = [np.eye(3)[generator.integers(0, 3, size)] for size in (queries, images)]
    arguments = (query_persons, gallery_persons, query_cameras, gallery_cameras)
    if found:
        assert rank(*rows, *arguments).num_valid_queries == found
    else:
        with pytest.raises(ValueError, match="no query has a true match"):
            rank(*rows, *arguments)


def test_an_empty_gallery_answers_nobody():
    nobody = np.empty(0, np.int64)
    assert num_answerable(np.array([1, 2]), nobody, np.array([0, 1]), nobody) == 0
