import numpy as np
import pytest

from reidray.neighbours import nearest, nearest_approximately
from reidray.neighbours.product import BFloat16Product, Float32Product
from tests.neighbours.test_nearest import unit


def clustered(count, width, latent, seed):
    random = np.random.default_rng(seed)
    centres = random.standard_normal((count // 20, latent))[random.integers(0, count // 20, count)]
    rows = (centres + 0.6 * random.standard_normal((count, latent))) @ random.standard_normal((latent, width))
    return unit(rows + 0.3 * random.standard_normal((count, width)))


@pytest.mark.parametrize("product", [Float32Product(), BFloat16Product()])
def test_rows_near_a_space_of_few_dimensions_find_almost_all_their_neighbours(product):
    features = clustered(1500, 200, 24, seed=0)
    exact, _ = nearest(features, 10)
    found, _ = nearest_approximately(features, 10, components=32, candidates=20, product=product)
    assert np.mean([len(set(a) & set(b)) / 10 for a, b in zip(exact, found, strict=True)]) > 0.99


def test_what_is_found_has_its_exact_similarity_and_order():
    features = clustered(600, 100, 16, seed=1)
    indices, similarities = nearest_approximately(features, 8, components=16, candidates=16)
    all_indices, all_similarities = nearest(features, 600)
    for i in range(600):
        exact = dict(zip(all_indices[i].tolist(), all_similarities[i].tolist(), strict=True))
        assert [exact[j] for j in indices[i].tolist()] == similarities[i].tolist()
        assert (np.diff(similarities[i]) <= 0).all()
        assert len(set(indices[i].tolist())) == 8


@pytest.mark.parametrize(("components", "candidates"), [(30, 12), (40, 12), (5, 90), (5, 200)])
def test_as_many_components_or_candidates_as_there_are_find_everything(components, candidates):
    features = clustered(90, 30, 8, seed=2)
    found = nearest_approximately(features, 6, components=components, candidates=candidates)
    for mine, theirs in zip(found, nearest(features, 6), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_more_duplicates_than_candidates_are_taken_by_lowest_index():
    features = clustered(400, 40, 8, seed=3)
    features[100:350] = features[5]
    indices, _ = nearest_approximately(features, 4, components=6, candidates=8)
    assert indices[200].tolist() == [5, 100, 101, 102]


def test_impossible_arguments_are_refused():
    features = np.eye(3, dtype=np.float32)
    with pytest.raises(ValueError, match="components >= 1"):
        nearest_approximately(features, 1, components=0, candidates=3)
    with pytest.raises(ValueError, match="candidates >= k = 5"):
        nearest_approximately(features, 5, components=2, candidates=4)
    with pytest.raises(ValueError, match="k must be at least 1"):
        nearest_approximately(features, 0, components=2, candidates=4)
