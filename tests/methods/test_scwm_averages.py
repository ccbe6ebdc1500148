"""The momentum of SCWM's pseudo masks: gamma of eq. 3, epoch by epoch (Sec. 4.2)."""

import numpy as np
import pytest

from reidray.config import Settings
from reidray.methods import make_method
from reidray.methods.step import Average


def averages(epoch, **scwm):
    return make_method(Settings(method={"name": "scwm"}, scwm=scwm)).averages(epoch)


def gammas(epochs, **scwm):
    return [averages(epoch, **scwm)["masks"].momentum for epoch in epochs]


def test_masks_are_an_average_of_the_parts_of_all_classes():
    assert averages(0, num_parts=5, mask_momentum=0.2) == {"masks": Average("parts", 5, 0.2)}


def test_gamma_falls_in_a_line_from_its_first_value_to_0_over_20_epochs():
    found = gammas(range(30), mask_momentum=0.2, mask_momentum_epochs=20)
    assert found[0] == 0.2
    assert found[10] == pytest.approx(0.1)
    np.testing.assert_allclose(-np.diff(found[:21]), 0.01)
    assert found[19] > 0
    assert found[20:] == [0.0] * 10


def test_gamma_over_one_epoch_is_never_used():
    assert gammas((0, 1, 2), mask_momentum=0.2, mask_momentum_epochs=1) == [0.2, 0.0, 0.0]


def test_stripes_have_no_masks_to_average():
    assert averages(0, parts="stripes") == {}
