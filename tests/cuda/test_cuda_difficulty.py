"""Difficulty by the kernel for a GPU, run on the processor, equals that of reidray.memory."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reidray.cuda.difficulty import difficulty
from reidray.memory.difficulty import difficulty as on_processor
from tests.cuda.emulated import EmulatedDevice, needs_compiler

pytestmark = needs_compiler
DEVICES = (EmulatedDevice(), EmulatedDevice(backward=True))


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    st.integers(1, 40),
    st.integers(0, 12),
    st.lists(st.integers(0, 12), max_size=3),
    st.integers(0, 2**16),
    st.sampled_from(DEVICES),
)
def test_equals_the_score_of_the_processor_bit_for_bit(count, of_global, of_parts, seed, device):
    random = np.random.default_rng(seed)
    whole, *parts = (random.integers(-1, min(count, 15), (count, columns)) for columns in (of_global, *of_parts))
    got = difficulty(torch.from_numpy(whole), (torch.from_numpy(part) for part in parts), device=device)
    assert got.dtype == torch.float32
    np.testing.assert_array_equal(got.numpy(), on_processor(whole, parts))


def test_by_hand():
    of_global = torch.tensor([[0, 1, 2], [1, 0, 2], [-1, 2, -1], [3, 0, 0]])
    of_part = torch.tensor([[1, 3], [3, 1], [2, 2], [0, 3]], dtype=torch.int32)
    alpha = difficulty(of_global, [of_part, of_global], device=DEVICES[0])
    assert alpha.tolist() == [[np.float32(1 / 3), 1.0], [0.0, 1.0], [0.0, 0.0], [1.0, 1.0]]


def test_wrong_lists_are_refused():
    lists = torch.zeros((3, 2), dtype=torch.int64)
    for wrong, message in [
        (lists[:2], "same images; got 3 rows, and 2 in part 1"),
        (lists + 3, r"part 1 neighbours must be indices in \[0, 3\)"),
        (lists - 2, r"part 1 neighbours must be indices in \[0, 3\)"),
        (lists.float(), "part 1 neighbours must be a matrix of integers; got torch.float32"),
        (lists.bool(), "part 1 neighbours must be a matrix of integers; got torch.bool"),
        (lists[0], "part 1 neighbours must be a matrix of integers"),
    ]:
        with pytest.raises(ValueError, match=message):
            difficulty(lists, [lists, wrong], device=DEVICES[0])
