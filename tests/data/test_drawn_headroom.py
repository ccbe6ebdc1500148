"""The benchmark of hard drawn pedestrians: its pooling by hand, and what its config draws."""

from __future__ import annotations

import importlib
from types import ModuleType

import numpy as np
import pytest
import torch

from reidray.features import stripe_features
from reidray.settings_io import from_file, from_words, settings_from
from tests.shell_lines import ROOT


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("drawn_hard")


def test_a_part_of_a_cell_counts_by_its_share(program):
    truth = np.zeros((1, 4, 2), np.uint8)
    truth[0, 0, 0] = 1  # a quarter of the upper cell: head
    truth[0, 2:] = [[3, 3], [4, 0]]  # three quarters of the lower cell: legs, shoes
    weights = program.part_weights(truth, (2, 1))
    assert weights[0, :, :, 0].tolist() == [[0.25, 0], [0, 0], [0, 0.75]]


def test_a_part_has_the_weighted_mean_of_its_cells_and_nan_where_it_is_not(program):
    map_BDHW = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
    weights = torch.tensor([[[[1.0, 0.5], [0, 0]], [[0, 0], [0, 0]], [[0, 0], [0, 1.0]]]])
    means = program.masked_means(map_BDHW, weights)[0, :, 0]
    assert means[0].item() == pytest.approx((1 + 0.5 * 2) / 1.5)
    assert means[1].isnan()
    assert means[2].item() == 4


def test_stripes_of_the_probe_are_those_of_the_methods(program):
    map_BDHW = torch.rand(2, 5, 12, 6, generator=torch.Generator().manual_seed(0))
    found = program.ways(torch.zeros(2, 3, 12, 6))
    torch.testing.assert_close(program.masked_means(map_BDHW, found["stripes"]), stripe_features(map_BDHW, 3))
    torch.testing.assert_close(program.masked_means(map_BDHW, found["whole"])[:, 0], map_BDHW.mean((2, 3)))


def test_masks_and_stripes_are_equal_where_each_part_is_its_stripe(program):
    parts = torch.zeros(1, 3, 6, 2)
    for part in range(3):
        parts[0, part, 2 * part : 2 * part + 2, 0] = 1
    found = program.ways(parts)
    torch.testing.assert_close(found["masks"], found["stripes inside"])
    assert found["stripes"].sum() == 2 * found["masks"].sum()


def test_joined_parts_have_unit_length_equal_say_and_zeros_for_what_is_not_to_be_seen(program):
    parts = torch.tensor([[[3.0, 0.0], [0.0, 50.0]], [[2.0, 2.0], [torch.nan, torch.nan]]])
    rows = program.joined(parts, torch.zeros(2, 2), torch.ones(2, 2))
    half = 0.5**0.5
    np.testing.assert_allclose(rows, [[half, 0, 0, half], [half, half, 0, 0]], atol=1e-6)


def test_a_picture_without_any_part_is_a_unit_row_like_nobody(program):
    rows = program.joined(torch.full((1, 2, 2), torch.nan), torch.zeros(2, 2), torch.ones(2, 2))
    np.testing.assert_allclose(rows, [[0.5, 0.5, 0.5, 0.5]])


def test_the_config_turns_each_new_knob_on_and_leaves_the_method_open():
    config = from_file(ROOT / "configs" / "drawn_hard.yaml")
    drawn = settings_from([config]).data.drawn
    assert min(drawn.postures, drawn.cut_off, drawn.small_twins) > 0
    assert 0.3 <= drawn.half_hidden <= 0.5
    for method in ("scwm", "pplr", "acrm", "aac", "cluster_contrast", "ihc", "buc"):
        assert settings_from([config, *from_words([f"method.name={method}"])]).method.name == method
