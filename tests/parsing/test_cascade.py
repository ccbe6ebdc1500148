import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reidray.parsing import cascade, parse_grams, parse_parts
from tests.reference.parsing import parse, parse_gram, silhouettes


def grams(cells_BDHW):
    batch, depth, height, width = cells_BDHW.shape
    cells_BDP = cells_BDHW.reshape(batch, depth, height * width)
    return cells_BDP.transpose(0, 2, 1) @ cells_BDP


def random_maps(batch, depth, height, width, seed):
    return np.random.default_rng(seed).random((batch, depth, height, width))


def from_grams(cells_BDHW, **settings):
    height, width = cells_BDHW.shape[2:]
    settings = {"linkage": "average"} | settings
    return parse_grams(grams(cells_BDHW), height=height, width=width, **settings)


def one_dimensional(magnitudes_HW):
    """A map whose cells all point one way."""
    return np.array(magnitudes_HW, float)[None, None]


def assert_as_tree(cells_BDHW, **settings):
    """Ties included: the reference computes distances as the code does."""
    height, width = cells_BDHW.shape[2:]
    parsing = from_grams(cells_BDHW, **settings)
    for image, gram in enumerate(grams(cells_BDHW)):
        parts, foreground, far_share = parse_gram(
            gram, height=height, width=width, **({"linkage": "average"} | settings)
        )
        np.testing.assert_array_equal(parsing.parts_BHW[image], parts, f"image {image}")
        assert parsing.foreground_B[image] == foreground
        assert parsing.far_share_B[image] == pytest.approx(far_share, abs=1e-12)
    return parsing


def assert_as_reference(cells_BDHW, **settings):
    parsing = from_grams(cells_BDHW, **settings)
    for image, cells in enumerate(cells_BDHW):
        parts, foreground, far_share = parse(cells, **settings)
        np.testing.assert_array_equal(parsing.parts_BHW[image], parts, f"image {image}")
        assert parsing.foreground_B[image] == foreground
        assert parsing.far_share_B[image] == pytest.approx(far_share, abs=1e-12)


@pytest.mark.parametrize("maps", [silhouettes, random_maps])
@pytest.mark.parametrize("method", ["average", "complete", "single"])
@pytest.mark.parametrize(("num_parts", "max_distance"), [(4, 4.0), (7, 3.0), (2, 5.0)])
def test_equal_to_the_slow_reference(maps, method, num_parts, max_distance):
    cells = maps(3, 12, 12, 5, seed=3)
    if method == "single":
        max_distance *= 2  # no joins of forbidden pairs: they tie, and SciPy's spanning tree breaks ties in its own way
    settings = {"num_parts": num_parts, "max_distance": max_distance, "linkage": method}
    assert_as_reference(cells, **settings)
    for image, parts in enumerate(parse_parts(cells, **settings)):
        np.testing.assert_array_equal(parts, parse(cells[image], **settings)[0])


@pytest.mark.parametrize(
    "switch",
    [
        {"classes": 2},
        {"log_magnitude": True},
        {"centre_prior": 0.1},
        {"centre_prior": 0.1, "log_magnitude": True, "classes": 2},
        {"space": "off"},
        {"space": "kmeans"},
        {"space": "kmeans", "classes": 2},
        {"space": "rows"},
        {"space": "rows", "classes": 2, "centre_prior": 0.1},
    ],
)
@pytest.mark.parametrize("maps", [silhouettes, random_maps])
def test_every_switch_is_equal_to_the_slow_reference(maps, switch):
    cells = maps(4, 12, 12, 5, seed=4)
    cells[1, :, 3:5, 2] = 0  # dead cells inside the person
    assert_as_reference(cells, num_parts=4, max_distance=5.0, **switch)


@settings(derandomize=True, deadline=None, max_examples=200)
@given(st.integers(1, 7), st.integers(1, 6), st.integers(2, 6), st.floats(0.5, 9), st.integers(0, 2**32 - 1))
def test_any_size_of_map_is_equal_to_scipys_tree(height, width, num_parts, max_distance, seed):
    assert_as_tree(random_maps(2, 9, height, width, seed), num_parts=num_parts, max_distance=max_distance)


@settings(derandomize=True, deadline=None, max_examples=300)
@given(
    st.integers(1, 6),
    st.integers(1, 4),
    st.integers(1, 3),
    st.integers(1, 3),
    st.integers(2, 6),
    st.sampled_from([0.5, 1.0, 2.0, 2.5, 9.0]),
    st.sampled_from(["average", "complete"]),
    st.integers(0, 2**32 - 1),
)
def test_ties_duplicates_and_dead_maps_are_equal_to_scipys_tree(
    height, width, depth, values, num_parts, max_distance, linkage, seed
):
    cells = np.random.default_rng(seed).integers(0, values, (2, depth, height, width)).astype(float)
    setting = {"num_parts": num_parts, "max_distance": max_distance, "linkage": linkage}
    parsing = assert_as_tree(cells, **setting)
    for exact in (torch.float32, torch.float16, torch.bfloat16):  # small whole numbers
        products = torch.from_numpy(grams(cells)).to(exact)
        again = parse_grams(products, height=height, width=width, **setting)
        np.testing.assert_array_equal(again.parts_BHW, parsing.parts_BHW)


def test_a_person_of_three_directions_by_hand():
    parts = np.array([[3, 0, 3], [1, 1, 1], [3, 1, 3], [3, 2, 3], [3, 2, 3]])
    looks = np.array([[5, 0, 0], [0, 7, 0], [0, 0, 5], [0.1, 0.1, 0.1]])
    cells = np.moveaxis(looks[parts], 2, 0)[None]
    np.testing.assert_array_equal(parse_parts(cells, num_parts=4, max_distance=4.0)[0], parts)


def test_far_pairs_of_one_look_are_parted_and_only_just_near_ones_are_not():
    column = np.array([1.0, 0, 0, 1.0])  # direction: shirt, trousers, trousers, shirt
    cells = np.stack([column, 1 - column])[None, :, :, None]
    assert parse_parts(cells, num_parts=3, max_distance=3.1)[0, :, 0].tolist() == [0, 1, 1, 0]
    assert parse_parts(cells, num_parts=3, max_distance=3.0)[0, :, 0].tolist() == [0, 0, 0, 1]
    assert from_grams(cells, num_parts=3, max_distance=3.0, space="off").parts_BHW[0, :, 0].tolist() == [0, 1, 1, 0]


def test_too_small_a_distance_shows_in_the_far_share():
    cells = one_dimensional(np.ones((6, 1)))
    parsing = from_grams(cells, num_parts=2, max_distance=3.0)
    assert parsing.far_share_B.tolist() == [6 / 15]
    assert from_grams(cells, num_parts=2, max_distance=6.0).far_share_B.tolist() == [0.0]


def test_all_zero_is_all_background():
    parsing = from_grams(np.zeros((1, 4, 3, 2)), num_parts=4, max_distance=2.0)
    assert (parsing.parts_BHW == 3).all()
    assert parsing.foreground_B.tolist() == [0]
    assert parsing.far_share_B.tolist() == [0.0]
    assert (parse_parts(np.zeros((1, 4, 3, 2)), num_parts=4, max_distance=2.0) == 3).all()


@pytest.mark.parametrize("lower", [0.0, 1.0])
def test_of_two_magnitudes_the_upper_is_foreground(lower):
    cells = one_dimensional([[2, lower], [lower, 2], [2, lower]])
    assert parse_parts(cells, num_parts=4, max_distance=9.0)[0].tolist() == [[0, 3], [3, 1], [2, 3]]


@pytest.mark.parametrize("space", ["forbid", "off", "kmeans", "rows"])
def test_one_magnitude_is_all_foreground(space):
    parsing = from_grams(one_dimensional(np.full((4, 2), 3.0)), num_parts=3, max_distance=2.5, space=space)
    assert parsing.foreground_B.tolist() == [8]
    assert parsing.parts_BHW.max() <= 1


def test_cells_of_one_direction_are_divided_by_space_alone():
    parts = parse_parts(one_dimensional(np.ones((6, 1))), num_parts=3, max_distance=3.0)[0, :, 0]
    assert parts.tolist() == [0, 0, 0, 1, 1, 1]


@pytest.mark.parametrize("space", ["forbid", "off", "kmeans"])
def test_fewer_foreground_cells_than_parts_are_one_part_each_and_the_rest_is_empty(space):
    cells = np.zeros((1, 3, 4, 2))
    cells[0, :, 1, 1] = [5, 0, 0]
    cells[0, :, 3, 0] = [0, 5, 0]
    parsing = from_grams(cells, num_parts=5, max_distance=9.0, space=space)
    assert parsing.parts_BHW[0].tolist() == [[4, 4], [4, 0], [4, 4], [1, 4]]


def test_as_many_foreground_cells_as_parts_are_one_part_each():
    parts = parse_parts(one_dimensional([[2], [0], [2], [2]]), num_parts=4, max_distance=1.5)
    assert parts[0, :, 0].tolist() == [0, 3, 1, 2]


def test_parts_are_ordered_by_mean_row_not_by_their_first_cell():
    looks = np.array([[9, 0], [0, 9]])
    cells = np.moveaxis(looks[np.array([[0, 1], [0, 1], [0, 0], [0, 0]])], 2, 0)[None]
    assert parse_parts(cells, num_parts=3, max_distance=9.0)[0].tolist() == [[1, 0], [1, 0], [1, 1], [1, 1]]


def test_parts_of_equal_mean_row_are_ordered_by_their_lowest_cell():
    looks = np.array([[9, 0], [0, 9]])
    cells = np.moveaxis(looks[np.array([[1, 0], [1, 0]])], 2, 0)[None]
    assert parse_parts(cells, num_parts=3, max_distance=9.0)[0].tolist() == [[0, 1], [0, 1]]


def test_the_original_cascade_does_not_split_one_direction():
    cells = one_dimensional(np.ones((5, 1)))
    parsing = from_grams(cells, num_parts=4, max_distance=9.0, space="kmeans")
    assert parsing.parts_BHW[0, :, 0].tolist() == [0, 0, 0, 0, 0]


def test_equal_rows_keep_their_numbers_where_the_upper_ones_are_empty():
    cells = one_dimensional([[0], [0], [0], [9], [9], [9], [9]])
    parsing = from_grams(cells, num_parts=4, max_distance=9.0, space="rows", classes=2)
    assert parsing.parts_BHW[0, :, 0].tolist() == [3, 3, 3, 1, 1, 2, 2]  # of seven rows the upper three are part 0
    assert parsing.far_share_B.tolist() == [0.0]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_parts_of_an_image_do_not_depend_on_its_batch(dtype):
    cells = silhouettes(5, 16, 12, 6, seed=8).astype(dtype)
    together = parse_parts(cells, num_parts=4, max_distance=4.0)
    alone = np.concatenate([parse_parts(cells[i : i + 1], num_parts=4, max_distance=4.0) for i in range(5)])
    np.testing.assert_array_equal(together, alone)
    np.testing.assert_array_equal(parse_parts(cells[::-1], num_parts=4, max_distance=4.0), together[::-1])


@pytest.mark.parametrize("pieces", [1, 2, 5, 7])
def test_it_does_not_matter_in_how_many_pieces_a_batch_is_parsed(monkeypatch, pieces):
    cells = silhouettes(7, 16, 12, 6, seed=9).astype(np.float32)
    settings = {"num_parts": 4, "max_distance": 4.0}
    expected, expected_parts = from_grams(cells, **settings), parse_parts(cells, **settings)
    monkeypatch.setattr(cascade, "_pieces", lambda batch: pieces)
    for found, wanted in zip(from_grams(cells, **settings), expected, strict=True):
        np.testing.assert_array_equal(found, wanted)
    np.testing.assert_array_equal(parse_parts(cells, **settings), expected_parts)


def test_an_empty_batch_has_no_parts():
    assert parse_parts(np.zeros((0, 4, 3, 2)), num_parts=3, max_distance=2.0).shape == (0, 3, 2)
    parsing = from_grams(np.zeros((0, 4, 3, 2)), num_parts=3, max_distance=2.0)
    assert parsing.parts_BHW.shape == (0, 3, 2)
    assert parsing.foreground_B.shape == parsing.far_share_B.shape == (0,)


def test_inputs_are_not_modified():
    cells = silhouettes(2, 8, 10, 5, seed=1)
    products = grams(cells)
    cells_before, products_before = cells.copy(), products.copy()
    parse_parts(cells, num_parts=4, max_distance=4.0)
    for space in ("forbid", "off", "kmeans", "rows"):
        parse_grams(products, height=10, width=5, num_parts=4, max_distance=4.0, linkage="average", space=space)
    np.testing.assert_array_equal(cells, cells_before)
    np.testing.assert_array_equal(products, products_before)


def test_read_only_arrays_are_accepted():
    cells = silhouettes(1, 8, 10, 5, seed=1)
    expected = parse_parts(cells, num_parts=4, max_distance=4.0)
    cells.flags.writeable = False
    np.testing.assert_array_equal(parse_parts(cells, num_parts=4, max_distance=4.0), expected)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_tensors_of_any_floating_type_and_layout_are_accepted(dtype):
    cells = torch.from_numpy(silhouettes(2, 8, 10, 5, seed=2)).to(dtype).requires_grad_()
    expected = parse_parts(cells.detach().double().numpy(), num_parts=4, max_distance=4.0)
    parts = parse_parts(cells, num_parts=4, max_distance=4.0)
    assert parts.dtype == np.int64
    np.testing.assert_array_equal(parts, expected)
    in_last_layout = cells.detach().contiguous(memory_format=torch.channels_last)
    np.testing.assert_array_equal(parse_parts(in_last_layout, num_parts=4, max_distance=4.0), expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("scale", [1.0, 2.0**-20])
def test_16_bit_inner_products_are_read_as_the_numbers_they_are(dtype, scale):
    products = torch.from_numpy(grams(silhouettes(4, 32, 12, 6, seed=6)) * scale).to(dtype)
    products[0, :4] = -products[0, :4]
    products[0].fill_diagonal_(1.5 * scale)
    settings = {"height": 12, "width": 6, "num_parts": 4, "max_distance": 4.0, "linkage": "average"}
    expected = parse_grams(products.double(), **settings)
    bits = products.view(torch.uint16).numpy() if dtype == torch.bfloat16 else products.numpy()
    for same in (products, bits):
        for found, wanted in zip(parse_grams(same, **settings), expected, strict=True):
            np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_16_bit_numbers_that_are_not_finite_are_named(dtype, value):
    products = torch.from_numpy(grams(silhouettes(4, 6, 8, 4, seed=0))).to(dtype)
    products[3, 0, 9] = products[1, 7, 7] = value
    with pytest.raises(ValueError, match=r"image 1 of the batch \(2 of 4"):
        parse_grams(products, height=8, width=4, num_parts=4, max_distance=3.0, linkage="average")
    cells = torch.from_numpy(silhouettes(4, 6, 8, 4, seed=0)).to(dtype)
    cells[2, 3, 5, 1] = value
    with pytest.raises(ValueError, match=r"image 2 of the batch \(1 of 4"):
        parse_parts(cells, num_parts=4, max_distance=3.0)


@pytest.mark.parametrize("depth", [1, 3, 16, 511, 513, 1030])
def test_any_number_of_channels_gives_the_parts_of_the_inner_products(depth):
    cells = silhouettes(2, depth, 12, 5, seed=depth)
    if depth == 1:
        cells = np.round(cells)  # in one dimension all cells but zeros have the same direction
    expected = from_grams(cells, num_parts=4, max_distance=4.0).parts_BHW
    np.testing.assert_array_equal(parse_parts(cells, num_parts=4, max_distance=4.0), expected)
    if depth > 1:
        single = parse_parts(cells.astype(np.float32), num_parts=4, max_distance=4.0)
        np.testing.assert_array_equal(single, expected)


def test_float32_inner_products_give_the_same_parts():
    cells = silhouettes(4, 32, 12, 6, seed=6)
    expected = from_grams(cells, num_parts=4, max_distance=4.0)
    parsing = from_grams(cells.astype(np.float32), num_parts=4, max_distance=4.0)
    np.testing.assert_array_equal(parsing.parts_BHW, expected.parts_BHW)


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_tiny_and_huge_float32_maps_are_parsed_alike(scale):
    cells = silhouettes(2, 16, 12, 6, seed=7)
    expected = parse_parts(cells, num_parts=4, max_distance=4.0)
    np.testing.assert_array_equal(
        parse_parts((cells * scale).astype(np.float32), num_parts=4, max_distance=4.0), expected
    )


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_map_that_is_not_finite_is_named(value):
    cells = silhouettes(4, 6, 8, 4, seed=0)
    cells[2, 3, 5, 1] = value
    with pytest.raises(ValueError, match=r"image 2 of the batch \(1 of 4"):
        parse_parts(cells, num_parts=4, max_distance=3.0)
    products = grams(silhouettes(4, 6, 8, 4, seed=0))
    products[3, 0, 9] = value
    products[1, 7, 7] = value
    with pytest.raises(ValueError, match=r"image 1 of the batch \(2 of 4"):
        parse_grams(products, height=8, width=4, num_parts=4, max_distance=3.0, linkage="average")


def test_a_negative_diagonal_is_no_inner_product():
    with pytest.raises(ValueError, match="image 0"):
        parse_grams(-np.eye(6)[None], height=3, width=2, num_parts=3, max_distance=2.0, linkage="average")


def test_products_too_large_for_their_diagonal_do_not_overflow():
    products = np.full((1, 6, 6), 1e300) - np.diag([1e300] * 6) + 1e-300 * np.eye(6)
    parsing = parse_grams(products, height=3, width=2, num_parts=3, max_distance=2.0, linkage="average")
    assert parsing.foreground_B.tolist() == [6]
    assert set(np.unique(parsing.parts_BHW)) == {0, 1}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"num_parts": 1}, "num_parts >= 2"),
        ({"max_distance": 0.0}, "max_distance > 0"),
        ({"max_distance": float("nan")}, "max_distance > 0"),
        ({"linkage": "ward"}, "'ward'"),
        ({"classes": 4}, "classes 2 or 3"),
        ({"centre_prior": -0.1}, "centre_prior >= 0"),
        ({"space": "maybe"}, "'maybe'"),
    ],
)
def test_wrong_settings_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        from_grams(np.ones((1, 2, 3, 2)), **({"num_parts": 3, "max_distance": 2.0} | wrong))


def test_wrong_shapes_are_refused():
    with pytest.raises(ValueError, match=r"\[B, D, H, W\]"):
        parse_parts(np.ones((3, 4, 5)), num_parts=3, max_distance=2.0)
    with pytest.raises(ValueError, match=r"\[B, D, H, W\]"):
        parse_parts(np.ones((2, 3, 0, 5)), num_parts=3, max_distance=2.0)
    with pytest.raises(ValueError, match=r"\[B, 6, 6\] of 3 x 2 cells"):
        parse_grams(np.ones((1, 5, 5)), height=3, width=2, num_parts=3, max_distance=2.0, linkage="average")
