"""Doubts of labels: the same from the features of all images at once, and by labellers that share the work."""

from dataclasses import astuple

import numpy as np
import pytest

from reidray.config import Settings
from reidray.evaluation.doubts import judge
from reidray.methods.label_search import Space
from reidray.training.label_service import LabelService
from reidray.training.reading import in_space
from tests.training.watched_bank import COUNT, EPOCH, SIZES, empty_bank, in_process, put_features

WHOLE = Space("features")


class Forgetful:
    """A labeller that dies over every call, and is called again as a new one."""

    def __init__(self, settings, bank):
        self.born = lambda: in_process(settings, bank)

    def submit(self, method, *arguments):
        self.born().submit(method, *arguments).result()
        return self.born().submit(method, *arguments)


def drawn():
    """Features [N, 2, 6] around 15 centres, and labels with outliers, of which some clusters have an image or two."""
    draws = np.random.default_rng(0)
    persons_N = draws.integers(0, 15, COUNT)
    persons_N[[5, 40, 41]] = [15, 16, 16]
    features_NSD = draws.normal(size=(17, 2, 6))[persons_N] + 0.4 * draws.normal(size=(COUNT, 2, 6))
    features_NSD /= np.linalg.norm(features_NSD, axis=-1, keepdims=True)
    labels_N = np.where(draws.random(COUNT) < 0.2, -1, persons_N)
    labels_N[[5, 40, 41]] = [15, 16, 16]
    return features_NSD.astype(np.float32), np.unique(labels_N, return_inverse=True)[1] - 1


def judged(block, members, *, space=WHOLE, labels_N=None, make=in_process, told=None):
    """The doubts by labellers, and how many rows were read at once."""
    features_NSD, own_N = drawn()
    bank = empty_bank()
    put_features(bank, features_NSD, range(len(SIZES)))
    settings = Settings(run={"search_block": block})
    service = LabelService([make(settings, bank) for _ in range(members)], settings, bank)
    told = [] if told is None else told
    return service.judge(EPOCH, space, own_N if labels_N is None else labels_N, told.append), bank.most


@pytest.mark.parametrize("space", [WHOLE, Space("features", (0, 1))])
@pytest.mark.parametrize("block", [1, 10, 30, 1000])
def test_pieces_of_any_size_give_what_all_at_once_gives(block, space):
    features_NSD, labels_N = drawn()
    whole = judge(in_space(features_NSD, space.vectors), labels_N)
    pieces, most = judged(block, 2, space=space)
    for mine, theirs in zip(astuple(pieces), astuple(whole), strict=True):
        assert (mine.dtype, mine.shape) == (theirs.dtype, theirs.shape)
        np.testing.assert_allclose(mine, theirs, atol=2e-4 if mine.dtype == np.float32 else 0)
    assert whole.halves_N.max() == 1
    assert len(whole.doubts_C) == 17
    assert most < block + max(SIZES)


@pytest.mark.parametrize(("members", "make"), [(2, in_process), (5, in_process), (2, Forgetful)])
def test_whoever_does_the_work_and_dies_over_it_the_doubts_are_the_same_bit_for_bit(members, make):
    one, several = judged(10, 1)[0], judged(10, members, make=make)[0]
    assert all(mine.tobytes() == theirs.tobytes() for mine, theirs in zip(astuple(one), astuple(several), strict=True))


def test_it_says_how_far_it_is():
    told = []
    judged(10, 2, told=told)
    assert told == sorted(told)
    assert len(told) > 5
    assert told[-1] == 1


def test_where_no_image_has_a_cluster_there_is_nothing_to_say():
    found, most = judged(10, 2, labels_N=np.full(COUNT, -1))
    assert set(found.doubts_N) == {1}
    assert set(found.nearest_N) == set(found.halves_N) == {-1}
    assert len(found.doubts_C) == len(found.nearest_C) == len(found.widths_C) == 0
    assert most == 0
