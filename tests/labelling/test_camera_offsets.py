"""What cameras add to features: against the slow definition, whatever the blocks, and by what it is for."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reidray.labelling import camera_sums
from reidray.labelling import centred as centred_by
from tests.reference import camera_offsets as reference


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)


def centred(features_NSD, cameras_N, blocks=1):
    return centred_by(features_NSD, cameras_N, at_once=-(-len(features_NSD) // blocks))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(1, 40), st.integers(1, 3), st.integers(1, 5), st.integers(0, 2**16))
def test_features_are_centred_as_the_definition_says_and_blocks_do_not_matter(count, vectors, blocks, seed):
    random = np.random.default_rng(seed)
    features = unit(random.normal(size=(count, vectors, 6)))
    cameras = random.choice([-1, 3, 7, 40], count)
    found = centred(features, cameras)
    np.testing.assert_allclose(found, reference.centred(features, cameras), atol=2e-6)
    np.testing.assert_array_equal(centred(features, cameras, min(blocks, count)), found)  # the same bits
    np.testing.assert_array_equal(found[cameras < 0], features[cameras < 0])
    order = random.permutation(count)
    np.testing.assert_array_equal(centred(features[order], cameras[order]), found[order])


def test_persons_under_two_cameras_become_neighbours():
    random = np.random.default_rng(0)
    persons, cameras = np.arange(200) // 2, np.arange(200) % 2
    shifts = 3 * unit(random.normal(size=(2, 1, 16)))
    features = unit(unit(random.normal(size=(100, 1, 16)))[persons] + shifts[cameras])

    def right(features_NSD):
        similarities = features_NSD[:, 0] @ features_NSD[:, 0].T
        np.fill_diagonal(similarities, -1)
        return (persons[similarities.argmax(1)] == persons).mean()

    assert right(features) < 0.2
    assert right(centred(features, cameras)) > 0.9


def test_one_camera_changes_nothing_and_a_single_image_is_not_lost():
    features = unit(np.random.default_rng(1).normal(size=(30, 1, 8)))
    np.testing.assert_allclose(centred(features, np.zeros(30)), features, atol=1e-6)
    alone = np.array([5, *[2] * 29])
    found = centred(features, alone)
    assert np.linalg.norm(found, axis=-1) == pytest.approx(1)
    assert (found[0] * features[0]).sum() > 0.9  # a single image tells of a person, not of a camera
    assert len(camera_sums(features, np.full(30, -1), 0)) == 0
    np.testing.assert_array_equal(centred(features, np.full(30, -1)), features)


def test_sums_of_many_images_do_not_overflow():
    ones = np.ones((4096, 1, 2), np.float32)
    sums = camera_sums(ones, np.zeros(4096, np.int64), 1)
    assert sums.tolist() == [[[4096 * 2**36, 4096 * 2**36]]]
