"""Lists from blocks by the kernels for a GPU, run on the processor, equal those of reidray.neighbours."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reidray import neighbours
from reidray.cuda.blocks import ready_block, search_strip
from tests.cuda.emulated import EmulatedDevice, needs_compiler
from tests.neighbours.test_blocks import assert_same, lists_by
from tests.neighbours.test_nearest import drawn_rows

pytestmark = needs_compiler
DEVICE = EmulatedDevice()


def search(rows, known, columns):
    return search_strip(rows, known, columns, device=DEVICE)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    st.builds(drawn_rows, st.integers(1, 40), st.integers(1, 19), st.integers(1, 40), st.integers(0, 2**16)),
    st.integers(1, 50),
    st.lists(st.integers(0, 40), max_size=4),
    st.integers(0, 2**16),
)
def test_any_blocks_in_any_order_give_the_lists_of_the_processor(features, k, ends, seed):
    firsts = sorted(min(end, len(features)) for end in ends)
    bounds = zip([0, *firsts], [*firsts, len(features)], strict=True)
    blocks = [ready_block(torch.from_numpy(features[first:last]), first) for first, last in bounds]
    assert_same(lists_by(search, blocks, min(k, len(features)), seed), neighbours.nearest(features, k))


def test_bad_rows_are_named_by_their_index_in_the_training_set():
    with pytest.raises(ValueError, match="row 12 is all zero"):
        ready_block(torch.from_numpy(np.array([[1, 0], [0, 1], [0, 0]], np.float32)), 10)
