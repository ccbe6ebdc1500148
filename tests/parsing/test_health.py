"""The share of far pairs within parts."""

import numpy as np

from reidray.parsing import far_pair_share, parse_grams


def test_two_cells_at_a_distance_of_exactly_eta_are_far() -> None:
    parts = np.full((1, 5, 1), 2)
    parts[0, [0, 3], 0] = 0
    assert far_pair_share(parts, num_parts=3, max_distance=3.0).tolist() == [1.0]
    assert far_pair_share(parts, num_parts=3, max_distance=3.1).tolist() == [0.0]


def test_the_background_and_parts_of_one_cell_have_no_pairs() -> None:
    parts = np.array([[[0, 1], [2, 2]], [[2, 2], [2, 2]]])
    assert far_pair_share(parts, num_parts=3, max_distance=0.5).tolist() == [0.0, 0.0]


def test_it_is_what_the_part_clustering_reports_of_its_own_masks() -> None:
    cells = np.random.default_rng(0).random((20, 40, 16)).astype(np.float32)
    found = parse_grams(
        cells @ cells.transpose(0, 2, 1),
        height=8,
        width=5,
        num_parts=4,
        max_distance=3.0,
        linkage="average",
        classes=3,
        log_magnitude=False,
        centre_prior=0.0,
        space="forbid",
    )
    shares = far_pair_share(found.parts_BHW, num_parts=4, max_distance=3.0)
    assert shares.max() > 0
    np.testing.assert_allclose(shares, found.far_share_B, rtol=0, atol=1e-12)
