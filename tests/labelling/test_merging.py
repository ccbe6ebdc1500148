import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.cluster.hierarchy import fcluster, linkage

import reidray.labelling.merging as merging
from reidray.labelling import (
    ClusterDistances,
    Criterion,
    choose_merges,
    measure_clusters,
    merge_clusters,
    merge_stage,
    stage_distances,
)
from reidray.threads import set_threads
from tests.reference import merging as reference

BUC = Criterion("minimum", size_weight=0.003, compactness_weight=0.0)
BUC_WITHOUT = Criterion("minimum", size_weight=0.0, compactness_weight=0.0)
IMD = Criterion("intermediate", size_weight=0.0, compactness_weight=0.0)
IHC = Criterion("intermediate", size_weight=0.0, compactness_weight=0.3)


def below_diagonal(distances_NN):
    return np.asarray(distances_NN, np.float32)[np.tril_indices(len(distances_NN), -1)]


def from_matrix(distances_NN, labels_N=None):
    """The state for given distances of images, so that a test can choose them at will."""
    count = len(distances_NN)
    distances_P = below_diagonal(distances_NN)
    distances = ClusterDistances(
        np.arange(count), np.ones(count, np.int64), distances_P, distances_P, distances_P, np.zeros(count)
    )
    if labels_N is not None:
        merge_clusters(distances, np.asarray(labels_N))
    return distances


def unit(rows):
    rows = np.asarray(rows, np.float64)
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def drawn_rows(count, width, seed, duplicates=0):
    random = np.random.default_rng(seed)
    rows = random.standard_normal((max(1, count // 6), width))[random.integers(0, max(1, count // 6), count)]
    rows = unit(rows + 0.5 * random.standard_normal((count, width)))
    rows[count - duplicates :] = rows[random.integers(0, count - duplicates, duplicates)]
    return rows


def drawn_labels(count, clusters, seed):
    """All of 0 .. clusters - 1 in random order."""
    random = np.random.default_rng(seed)
    return random.permutation(np.concatenate([np.arange(clusters), random.integers(0, clusters, count - clusters)]))


def drawn_integers(count, most, seed):
    """Symmetric integer distances 0 .. most: sums are exact, ties are many."""
    upper = np.triu(np.random.default_rng(seed).integers(0, most + 1, (count, count)), 1)
    return (upper + upper.T).astype(float)


def assert_state(distances, distances_NN, exact):
    """Every number of the state, taken anew from the distances of images."""
    clusters = reference.clusters_of(distances.labels_N)
    pairs = [(i, j) for j in range(len(clusters)) for i in range(j)]
    across = [reference.between(distances_NN, clusters[i], clusters[j]) for i, j in pairs]
    assert distances.sizes_C.tolist() == [len(cluster) for cluster in clusters]
    assert len(distances.lowest_P) == len(distances.highest_P) == len(distances.total_P) == len(pairs)
    for found, expected in (
        (distances.lowest_P, [min(some) for some in across]),
        (distances.highest_P, [max(some) for some in across]),
        (distances.total_P, [sum(some) for some in across]),
        (distances.within_C, [sum(reference.inside(distances_NN, cluster)) for cluster in clusters]),
    ):
        if exact:
            np.testing.assert_array_equal(found, np.array(expected, found.dtype))
        else:
            np.testing.assert_allclose(found, expected, rtol=5e-6, atol=1e-6)


# --- by hand ----------------------------------------------------------------------------------------------------------


def on_a_line(*positions):
    return np.abs(np.subtract.outer(positions, positions)).astype(float)


def test_minimum_and_intermediate_distance_disagree_as_in_figure_2_of_ihc():
    # A = {0, 1}, B = {3, 9}, C = {-3}: B is nearer to A by its nearest image, C by the mean of nearest and farthest.
    line, labels = on_a_line(0, 1, 3, 9, -3), [0, 0, 1, 1, 2]
    distances = from_matrix(line, labels)
    assert distances.lowest_P.tolist() == [2, 3, 6]  # AB, AC, BC
    assert distances.highest_P.tolist() == [9, 4, 12]
    assert distances.total_P.tolist() == [2 + 3 + 8 + 9, 3 + 4, 6 + 12]
    assert distances.within_C.tolist() == [1, 6, 0]
    assert choose_merges(distances, 1, criterion=BUC_WITHOUT).tolist() == [0, 0, 1]
    assert choose_merges(distances, 1, criterion=IMD).tolist() == [0, 1, 0]


def test_compactness_makes_single_images_merge_first_as_in_figure_3_of_ihc():
    # {0, 2} and {3, 5}: IMD 3, CPD 2/2 each, D = 3 + .3 (1 + 1) = 3.6. {50} and {53.25}: IMD 3.25, CPD 0.
    distances = from_matrix(on_a_line(0, 2, 3, 5, 50, 53.25), [0, 0, 1, 1, 2, 3])
    assert choose_merges(distances, 1, criterion=IMD).tolist() == [0, 0, 1, 2]
    assert choose_merges(distances, 1, criterion=IHC).tolist() == [0, 1, 2, 2]


@pytest.mark.parametrize(("weight", "expected"), [(0.02, [0, 0, 1, 2]), (0.03, [0, 1, 2, 2])])
def test_the_size_term_counts_the_images_of_both_clusters(weight, expected):
    # {0, .5} and {1, 1.5}: 0.5 + 4 w. {9} and {9.55}: 0.55 + 2 w. They change places at w = .025.
    distances = from_matrix(on_a_line(0, 0.5, 1, 1.5, 9, 9.55), [0, 0, 1, 1, 2, 3])
    assert choose_merges(distances, 1, criterion=Criterion("minimum", weight, 0.0)).tolist() == expected


def test_squaring_the_minimum_weakens_it_against_the_size_term():
    # d: .1 + 4 w against .15 + 2 w; d²: .01 + 4 w against .0225 + 2 w.
    distances = from_matrix(on_a_line(0, 0.1, 0.2, 0.3, 9, 9.15), [0, 0, 1, 1, 2, 3])
    assert choose_merges(distances, 1, criterion=Criterion("minimum", 0.01, 0.0)).tolist() == [0, 0, 1, 2]
    assert choose_merges(distances, 1, criterion=Criterion("squared_minimum", 0.01, 0.0)).tolist() == [0, 1, 2, 2]


def test_a_stage_may_chain_clusters_and_passes_over_pairs_that_are_joined_already():
    # Sorted: (0,1) 1, (1,2) 1.5, (0,2) 2.5 is joined already, (3,4) 3.
    distances = from_matrix(on_a_line(0, 1, 2.5, 20, 23))
    assert merge_stage(distances, 3, criterion=BUC_WITHOUT).tolist() == [0, 0, 0, 1, 1]


def test_a_stage_does_not_measure_anew_between_its_merges():
    # {0} and {1} merge first. Measured anew, {0, 1} would be at (1.5 + 2.5) / 2 = 2 from {2.5}, beyond (3,4) at 1.75.
    line = on_a_line(0, 1, 2.5, 20, 21.75)
    assert merge_stage(from_matrix(line), 2, criterion=IMD).tolist() == [0, 0, 0, 1, 2]
    two_stages = from_matrix(line)
    merge_stage(two_stages, 1, criterion=IMD)
    assert merge_stage(two_stages, 1, criterion=IMD).tolist() == [0, 0, 1, 2, 2]


def test_equal_distances_merge_the_lower_pair_first():
    everywhere_one = np.ones((6, 6)) - np.eye(6)
    assert merge_stage(from_matrix(everywhere_one), 2, criterion=IHC).tolist() == [0, 0, 0, 1, 2, 3]
    # (1, 2) comes before (0, 4) in no order but that of distances; (0, 4) before (1, 3).
    distances = np.full((5, 5), 9.0)
    for i, j in ((0, 4), (1, 3)):
        distances[i, j] = distances[j, i] = 2.0
    assert merge_stage(from_matrix(distances), 1, criterion=BUC_WITHOUT).tolist() == [0, 1, 2, 3, 0]
    distances[1, 2] = distances[2, 1] = 1.0
    assert merge_stage(from_matrix(distances), 1, criterion=BUC_WITHOUT).tolist() == [0, 1, 1, 2, 3]


def test_merging_stops_when_one_cluster_is_left():
    for count in (1, 2, 7):
        distances = from_matrix(drawn_integers(count, 5, 0))
        assert merge_stage(distances, 100, criterion=IHC).tolist() == [0] * count
        assert (distances.num_clusters, len(distances.lowest_P)) == (1, 0)
        assert merge_stage(distances, 3, criterion=IHC).tolist() == [0] * count


def test_no_merges_change_nothing():
    distances = from_matrix(drawn_integers(5, 9, 1))
    before = distances.lowest_P.copy()
    assert merge_stage(distances, 0, criterion=IHC).tolist() == [0, 1, 2, 3, 4]
    np.testing.assert_array_equal(distances.lowest_P, before)


# --- against the reference --------------------------------------------------------------------------------------------


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    st.integers(1, 20),
    st.sampled_from([0, 1, 2, 6, 1000]),
    st.integers(1, 9),
    st.booleans(),
    st.sampled_from(list(merging.LINKAGES)),
    st.sampled_from([0.0, 0.5, 0.003]),
    st.sampled_from([0.0, 0.3, 1.0]),
    st.sampled_from([1, 3, 32]),
    st.sampled_from([1, 40, 1 << 22]),
    st.integers(0, 2**16),
)
def test_every_stage_equals_a_full_sort_of_distances_taken_anew(
    count, most, merges, some_labels, name, size_weight, compactness_weight, strips, at_once, seed
):
    distances_NN = drawn_integers(count, most, seed)
    labels = np.arange(count)
    if some_labels:
        labels = drawn_labels(count, max(1, count * 2 // 3), seed)
        labels = np.unique(np.unique(labels, return_index=True)[1][labels], return_inverse=True)[1]
    criterion = Criterion(name, size_weight, compactness_weight)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(merging, "_STRIPS", strips)
        patched.setattr("reidray.labelling.cluster_distances._AT_ONCE", at_once)
        distances = from_matrix(distances_NN, labels)
        assert_state(distances, distances_NN, exact=True)
        while distances.num_clusters > 1:
            expected = reference.stage(distances_NN, labels, merges, name, size_weight, compactness_weight)
            labels = merge_stage(distances, merges, criterion=criterion)
            assert labels.tolist() == expected
            assert_state(distances, distances_NN, exact=True)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.integers(1, 40), st.integers(1, 24), st.floats(0, 1), st.floats(0, 0.6), st.integers(0, 2**16))
def test_measured_distances_are_those_of_the_rows(count, width, share, doubled, seed):
    rows = drawn_rows(count, width, seed, duplicates=int(doubled * count))
    labels = drawn_labels(count, 1 + int(share * (count - 1)), seed)
    distances = measure_clusters(rows, labels, highest=True, total=True)
    assert distances.labels_N.tolist() == labels.tolist()
    assert_state(distances, reference.euclidean(rows), exact=False)


@pytest.mark.parametrize("criterion", [BUC, BUC_WITHOUT, IMD, IHC, Criterion("squared_minimum", 0.003, 0.0)])
def test_stages_on_features_equal_the_reference(criterion):
    rows = drawn_rows(60, 16, 3)
    distances_NN = reference.euclidean(rows)
    distances = stage_distances(rows, np.arange(60), criterion=criterion)
    labels = np.arange(60)
    weights = criterion.size_weight, criterion.compactness_weight
    for _ in range(19):
        expected = reference.stage(distances_NN, labels, 3, criterion.linkage, *weights)
        again = stage_distances(rows, labels, criterion=criterion)  # as when features are extracted anew
        labels = merge_stage(distances, 3, criterion=criterion)
        assert labels.tolist() == expected == merge_stage(again, 3, criterion=criterion).tolist()
    assert distances.num_clusters == 3


@pytest.mark.parametrize("seed", range(5))
def test_minimum_distance_alone_is_single_linkage_however_it_is_staged(seed):
    rows = drawn_rows(150, 8, seed)
    tree = linkage(rows.astype(np.float64), "single")
    distances = stage_distances(rows, np.arange(150), criterion=BUC_WITHOUT)
    for left in (143, 100, 31, 2):
        labels = merge_stage(distances, distances.num_clusters - left, criterion=BUC_WITHOUT)
        expected = fcluster(tree, left, "maxclust")
        assert len(set(zip(labels, expected, strict=True))) == len(set(expected)) == left


def test_stages_of_a_single_merge_equal_the_reference():
    rows = drawn_rows(24, 6, 9)
    distances_NN, labels = reference.euclidean(rows), np.arange(24)
    distances = stage_distances(rows, labels, criterion=IHC)
    for left in range(23, 0, -1):
        labels = reference.stage(distances_NN, labels, 1, "intermediate", 0.0, 0.3)
        assert merge_stage(distances, 1, criterion=IHC).tolist() == labels
        assert distances.num_clusters == left


# --- invariants -------------------------------------------------------------------------------------------------------


def test_exactly_representable_rows_have_exact_distances():
    rows = np.array([[1, 0, 0, 0], [0.5, 0.5, 0.5, 0.5], [0.5, 0.5, 0.5, 0.5], [-1, 0, 0, 0]], np.float32)
    distances = measure_clusters(rows, np.arange(4), highest=False, total=False)
    np.testing.assert_array_equal(distances.lowest_P, np.array([1, 1, 0, 2, math.sqrt(3), math.sqrt(3)], np.float32))


def test_equal_rows_are_at_distance_zero_and_merge_first():
    rows = drawn_rows(80, 200, 5, duplicates=20)
    distances = stage_distances(rows, np.arange(80), criterion=IHC)
    labels = merge_stage(distances, 20, criterion=IHC)
    np.testing.assert_array_equal(labels[:, None] == labels, (rows[:, None] == rows).all(-1))


def test_blocks_and_threads_change_no_bit(monkeypatch):
    rows = drawn_rows(157, 130, 6, duplicates=30)
    labels = drawn_labels(157, 120, 6)

    def run():
        distances = stage_distances(rows, labels, criterion=IHC)
        measured = [distances.lowest_P.copy(), distances.highest_P.copy(), distances.total_P.copy()]
        measured += [merge_stage(distances, 30, criterion=IHC) for _ in range(3)]
        return [*measured, distances.lowest_P, distances.highest_P, distances.total_P, distances.within_C]

    expected = run()
    for block, threads in ((7, 1), (64, 2), (1000, 1)):
        monkeypatch.setattr("reidray.labelling.cluster_distances._ROWS", block)
        monkeypatch.setattr("reidray.labelling.cluster_distances._COLUMNS", 2 * block + 1)
        monkeypatch.setattr("reidray.labelling.cluster_distances._AT_ONCE", 11 * block)
        monkeypatch.setattr(merging, "_STRIPS", 1 + block % 5)
        try:
            set_threads(threads)
            found = run()
        finally:
            set_threads(1)
        for mine, theirs in zip(found, expected, strict=True):
            np.testing.assert_array_equal(mine, theirs)


def test_merged_state_equals_the_state_measured_from_its_labels():
    rows = drawn_rows(120, 33, 7)
    distances = stage_distances(rows, np.arange(120), criterion=IHC)
    for stages in range(1, 12):
        labels = merge_stage(distances, 10, criterion=IHC)
        anew = stage_distances(rows, labels, criterion=IHC)
        np.testing.assert_array_equal(distances.lowest_P, anew.lowest_P)
        np.testing.assert_array_equal(distances.highest_P, anew.highest_P)
        np.testing.assert_array_equal(distances.sizes_C, anew.sizes_C)
        np.testing.assert_allclose(distances.total_P, anew.total_P, rtol=(stages + 2) * 2.0**-24)
        np.testing.assert_allclose(distances.within_C, anew.within_C, rtol=(stages + 1) * 2.0**-24)


def test_the_order_of_images_changes_only_their_numbers():
    rows = drawn_rows(90, 20, 8)
    shuffled = np.random.default_rng(8).permutation(90)
    straight = stage_distances(rows, np.arange(90), criterion=IHC)
    other = stage_distances(rows[shuffled], np.arange(90), criterion=IHC)
    for _ in range(4):
        labels = merge_stage(straight, 18, criterion=IHC)[shuffled]
        assert len(set(zip(labels, merge_stage(other, 18, criterion=IHC), strict=True))) == straight.num_clusters


def test_only_what_a_criterion_needs_is_kept():
    rows = drawn_rows(9, 4, 0)
    for criterion, highest, total in ((BUC, False, False), (IMD, True, False), (IHC, True, True)):
        distances = stage_distances(rows, np.arange(9), criterion=criterion)
        merge_stage(distances, 2, criterion=criterion)
        assert (distances.highest_P is not None, distances.total_P is not None) == (highest, total)
        assert (distances.within_C is not None) == total


def test_inputs_and_earlier_labels_are_not_modified():
    rows, labels = drawn_rows(30, 5, 1), drawn_labels(30, 25, 1)
    rows.flags.writeable = labels.flags.writeable = False
    distances = stage_distances(rows, labels, criterion=IHC)
    first = merge_stage(distances, 4, criterion=IHC)
    kept = first.copy()
    merge_stage(distances, 4, criterion=IHC)
    np.testing.assert_array_equal(first, kept)


# --- errors -----------------------------------------------------------------------------------------------------------


def test_wrong_features_are_named():
    rows = drawn_rows(6, 4, 0)
    for value, message in ((np.nan, "row 3 holds NaN"), (9.0, "row 3 has length")):
        wrong = rows.copy()
        wrong[3, 1] = value
        with pytest.raises(ValueError, match=message):
            stage_distances(wrong, np.arange(6), criterion=IHC)
    with pytest.raises(ValueError, match="at least one row"):
        stage_distances(rows[:0], np.arange(0), criterion=IHC)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 1, 2], "one for each of 4 images"),
        ([0.0, 1.0, 2.0, 3.0], "must be integers"),
        ([0, 1, 3, 1], "3 labels from 0 to 3"),
        ([0, -1, 1, 1], "from -1 to 1"),
        ([1, 2, 3, 4], "from 1 to 4"),
    ],
)
def test_labels_must_be_numbered_from_zero_without_a_gap(labels, message):
    with pytest.raises(ValueError, match=message):
        stage_distances(drawn_rows(4, 3, 0), np.array(labels), criterion=IHC)


@pytest.mark.parametrize("numbers", [[0, 2, 1], [1, 0, 0], [0, -1, 1], [0, 0], [0, 2, 2]])
def test_new_numbers_must_be_in_the_order_in_which_they_occur(numbers):
    with pytest.raises(ValueError, match="new number"):
        merge_clusters(from_matrix(on_a_line(0, 1, 2)), np.array(numbers))


def test_wrong_settings_are_refused():
    with pytest.raises(ValueError, match="expected linkage one of minimum, squared_minimum, intermediate, got 'mean'"):
        Criterion("mean", 0.0, 0.0)
    for weights in ((-0.1, 0.0), (0.0, math.nan), (math.inf, 0.0)):
        with pytest.raises(ValueError, match="finite and >= 0"):
            Criterion("minimum", *weights)
    with pytest.raises(ValueError, match="count >= 0"):
        merge_stage(from_matrix(on_a_line(0, 1, 2)), -1, criterion=IHC)


def test_distances_measured_for_another_criterion_are_refused():
    distances = stage_distances(drawn_rows(5, 3, 0), np.arange(5), criterion=BUC)
    with pytest.raises(ValueError, match="largest distances"):
        merge_stage(distances, 1, criterion=IMD)
    with pytest.raises(ValueError, match="sums of distances"):
        merge_stage(distances, 1, criterion=Criterion("minimum", 0.0, 0.3))
