import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import adjusted_mutual_info_score, adjusted_rand_score

from reidray.evaluation import cluster_quality


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.integers(1, 60), st.integers(1, 12), st.integers(1, 12), st.integers(0, 2**16))
def test_equals_sklearn_with_outliers_as_singletons(count, clusters, persons, seed):
    random = np.random.default_rng(seed)
    truth = random.integers(0, persons, count)
    labels = random.integers(-1, clusters, count) if seed % 2 else np.where(random.random(count) < 0.2, -1, truth)
    quality = cluster_quality(labels, truth)
    alone = labels.copy()
    alone[labels < 0] = 1000 + np.arange((labels < 0).sum())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # sklearn wonders about so many classes
        assert pytest.approx(adjusted_rand_score(truth, alone), abs=1e-9) == quality.ARI
        # Both labellings all singletons: possible and gained information are 0, sklearn answers by rounding.
        expected = adjusted_mutual_info_score(truth, alone)
        assert pytest.approx(expected, abs=1e-6) == quality.AMI
    assert quality.num_outliers == (labels < 0).sum()
    assert quality.num_clusters == len(set(labels[labels >= 0]))


def test_purity_by_hand():
    quality = cluster_quality([0, 0, 0, 4, 4, -1, -1], [1, 1, 2, 3, 5, 1, 9])
    assert quality.purity == pytest.approx(3 / 5)
    assert (quality.num_clusters, quality.num_outliers) == (2, 2)


def test_the_truth_is_perfect_and_one_cluster_or_none_is_worth_nothing():
    persons = np.repeat([3, 5, 9], 4)
    perfect = cluster_quality(persons, persons)
    assert (perfect.ARI, perfect.AMI, perfect.purity) == (1.0, 1.0, 1.0)
    one = cluster_quality(np.zeros(12, int), persons)
    assert (one.ARI, one.AMI) == (0.0, 0.0)
    assert one.purity == pytest.approx(1 / 3)
    none = cluster_quality(np.full(12, -1), persons)
    assert none.ARI == 0.0
    assert pytest.approx(0.0, abs=1e-9) == none.AMI
    assert (none.purity, none.num_clusters, none.num_outliers) == (0.0, 0, 12)


def test_images_of_unknown_person_are_left_out():
    known = cluster_quality([0, 0, 1, 1], [1, 1, 2, 1])
    more = cluster_quality([0, 0, 1, 1, 0, 0, -1], [1, 1, 2, 1, -1, -1, -1])
    assert (more.ARI, more.AMI, more.purity) == (known.ARI, known.AMI, known.purity)
    assert more.num_outliers == 1


def test_vectors_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="one length"):
        cluster_quality([0, 1], [0])
    with pytest.raises(ValueError, match="integers"):
        cluster_quality([0.5], [0])
    with pytest.raises(ValueError, match="known persons"):
        cluster_quality([0], [-1])
