import numpy as np
import pytest

from reidray.labelling import labels_from_persons


def test_persons_become_dense_labels_and_unknown_ones_stay_out():
    persons = np.array([7, -1, 0, 7, 1501, 0, -2])
    labels = labels_from_persons(persons)
    assert labels.tolist() == [1, -1, 0, 1, 2, 0, -1]
    assert labels.dtype == np.int64
    assert persons.tolist() == [7, -1, 0, 7, 1501, 0, -2]


def test_nobody_known_and_nobody_at_all():
    assert labels_from_persons(np.array([-1, -1])).tolist() == [-1, -1]
    assert labels_from_persons([]).tolist() == []


def test_names_are_refused():
    with pytest.raises(ValueError, match="integers"):
        labels_from_persons(["anna", "otto"])
