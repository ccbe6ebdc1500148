from collections import Counter

import numpy as np
import pytest

from reidray.data.sampling import epoch_batches


def draw(labels, cameras=None, *, p=4, k=3, steps=10, seed=0, epoch=0, other=False):
    labels = np.asarray(labels)
    cameras = np.full(len(labels), -1) if cameras is None else np.asarray(cameras)
    return epoch_batches(
        labels,
        cameras,
        num_clusters=p,
        num_instances=k,
        steps=steps,
        seed=seed,
        epoch=epoch,
        prefer_other_cameras=other,
    )


def test_every_batch_is_p_distinct_clusters_of_k_distinct_images_standing_together():
    labels = np.repeat(np.arange(9), 5)
    np.random.default_rng(0).shuffle(labels)
    for other in (False, True):
        batches = draw(labels, np.arange(45) % 3, other=other)
        assert batches.shape == (10, 12)
        assert batches.dtype == np.int64
        for batch in batches:
            groups = labels[batch].reshape(4, 3)
            assert (groups == groups[:, :1]).all()
            assert len(set(groups[:, 0])) == 4
            assert len(set(batch)) == 12


def test_a_permutation_is_used_up_before_the_next_begins():
    clusters = draw(np.arange(8), p=4, k=1, steps=6)
    for pair in clusters.reshape(3, 8):
        assert sorted(pair) == list(range(8))


def test_what_is_left_of_a_permutation_is_dropped_when_fewer_than_p_remain():
    clusters = draw(np.arange(6), p=4, k=1, steps=50)
    assert all(len(set(batch)) == 4 for batch in clusters)
    assert set(Counter(clusters.ravel().tolist())) == set(range(6))


def test_outliers_are_never_drawn_and_labels_may_have_gaps():
    labels = np.array([-1, 7, -1, 7, 100, 100, 3, -1, 3])
    batches = draw(labels, p=3, k=2, steps=20)
    assert (labels[batches] >= 0).all()
    assert set(labels[batches].ravel()) == {3, 7, 100}


def test_a_small_cluster_gives_every_image_before_it_repeats_one():
    for other in (False, True):
        for batch in draw([0, 0, 0], [0, 1, 1], p=1, k=7, steps=20, other=other):
            assert sorted(Counter(batch.tolist()).values()) == [2, 2, 3]


def test_with_fewer_clusters_than_p_the_batch_keeps_its_size_and_holds_all_of_them():
    labels = np.repeat([0, 1, 2], 20)
    extra = set()
    for batch in draw(labels, p=8, k=2, steps=30):
        assert len(batch) == 16
        assert len(set(batch)) == 16  # a cluster drawn twice gives other images
        numbers = Counter(labels[batch].tolist())
        assert sorted(numbers.values()) == [4, 6, 6]
        extra.add(min(numbers, key=numbers.get))
        assert (np.diff(labels[batch]) != 0).sum() == 2  # its images stand together
    assert extra == {0, 1, 2}


def test_one_cluster_is_enough():
    assert draw([5, -1, 5], p=16, k=4, steps=2).shape == (2, 64)


def test_all_outliers_is_one_sentence():
    with pytest.raises(ValueError, match="all 3 images are outliers; raise eps or lower min_samples"):
        draw([-1, -1, -1])


def test_other_cameras_come_first_and_by_turns():
    labels, cameras = np.zeros(20, dtype=int), np.array([0] * 14 + [1] * 3 + [2] * 2 + [3])
    firsts = Counter()
    for batch in draw(labels, cameras, p=1, k=6, steps=400, other=True):
        drawn = cameras[batch].tolist()
        assert len(set(drawn[:4])) == 4
        assert 3 not in drawn[4:]
        assert drawn[4] != drawn[5]
        firsts[drawn[0]] += 1
    assert 0.6 < firsts[0] / 400 < 0.8  # the first image is any of the cluster's: 14 in 20


def test_unknown_cameras_change_nothing_about_who_may_be_drawn():
    labels = np.repeat(np.arange(4), 10)
    numbers = Counter(draw(labels, p=4, k=2, steps=300, other=True).ravel().tolist())
    assert len(numbers) == 40
    assert max(numbers.values()) < 2 * min(numbers.values())


def test_cameras_do_not_matter_unless_asked_for():
    labels = np.repeat(np.arange(6), 5)
    np.testing.assert_array_equal(draw(labels, np.arange(30) % 4), draw(labels, np.zeros(30)))


def test_seed_and_epoch_and_nothing_else_decide():
    labels = np.repeat(np.arange(6), 5)
    first = draw(labels)
    np.random.seed(1)
    np.testing.assert_array_equal(first, draw(labels))
    assert (first != draw(labels, epoch=1)).any()
    assert (first != draw(labels, seed=1)).any()
    assert (draw(labels, seed=1, epoch=0) != draw(labels, seed=0, epoch=1)).any()
    np.testing.assert_array_equal(first[:4], draw(labels, steps=4))


def test_lengths_and_numbers_are_checked():
    with pytest.raises(ValueError, match=r"shapes \(3,\) and \(2,\)"):
        draw([0, 0, 0], [0, 0])
    with pytest.raises(ValueError, match="must be at least 1"):
        draw([0, 0], k=0)
    with pytest.raises(ValueError, match="at least 0"):
        draw([0, 0], seed=-1)
