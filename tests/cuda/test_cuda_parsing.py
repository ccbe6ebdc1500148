"""The kernels of reidray/cuda/sources/parsing.cu give the parts of the processor's `parse_grams`, cell by cell."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import reidray.parsing
from reidray.cuda import parsing as on_gpu
from tests.cuda.emulated import EmulatedDevice, needs_compiler
from tests.reference.parsing import parse, silhouettes

pytestmark = needs_compiler

PAPER = {
    "num_parts": 4,
    "max_distance": 6.0,
    "linkage": "average",
    "classes": 3,
    "log_magnitude": False,
    "centre_prior": 0.0,
    "space": "forbid",
}
SWITCHES = [
    {},
    {"linkage": "complete"},
    {"linkage": "single"},
    {"classes": 2},
    {"log_magnitude": True},
    {"centre_prior": 0.15},
    {"centre_prior": 0.15, "log_magnitude": True, "classes": 2},
    {"space": "off"},
    {"space": "kmeans"},
    {"space": "rows"},
    {"space": "rows", "num_parts": 9},
    {"num_parts": 2},
    {"num_parts": 9, "max_distance": 3.0},
]


def grams(cells_BDHW):
    cells_BDP = cells_BDHW.reshape(*cells_BDHW.shape[:2], -1)
    return torch.from_numpy((cells_BDP.transpose(0, 2, 1) @ cells_BDP).astype(np.float32))


def one_dimensional(magnitudes_HW):
    """A map whose cells all point one way."""
    return np.array(magnitudes_HW, float)[None, None]


def parsed(grams_BPP, height, width, *, backward=False, **switches):
    device = EmulatedDevice(backward=backward)
    return on_gpu.parse_grams(grams_BPP, height=height, width=width, device=device, **PAPER | switches)


def assert_as_on_the_processor(grams_BPP, height, width, **switches):
    """Parts, foreground and far shares are equal to the last bit, whatever the order of threads and images."""
    expected = reidray.parsing.parse_grams(grams_BPP, height=height, width=width, **PAPER | switches)
    for backward in (False, True):
        parsing = parsed(grams_BPP, height, width, backward=backward, **switches)
        for name in ("parts_BHW", "foreground_B", "far_share_B"):
            got, wanted = getattr(parsing, name), getattr(expected, name)
            assert isinstance(got, torch.Tensor)
            np.testing.assert_array_equal(got.numpy(), wanted, f"{name}, backward={backward}, {switches}")
            assert got.numpy().dtype == wanted.dtype
    return expected


def test_a_person_of_three_directions_by_hand():
    parts = np.array([[3, 0, 3], [1, 1, 1], [3, 1, 3], [3, 2, 3], [3, 2, 3]])
    looks = np.array([[5, 0, 0], [0, 7, 0], [0, 0, 5], [0.1, 0.1, 0.1]])
    cells = np.moveaxis(looks[parts], 2, 0)[None]
    parsing = parsed(grams(cells), 5, 3, max_distance=4.0)
    assert parsing.parts_BHW[0].tolist() == parts.tolist()
    assert parsing.foreground_B.tolist() == [7]
    assert parsing.far_share_B.tolist() == [0.0]


def test_too_small_a_distance_shows_in_the_far_share():
    column = grams(one_dimensional(np.ones((6, 1))))
    assert parsed(column, 6, 1, num_parts=2, max_distance=3.0).far_share_B.tolist() == [6 / 15]


def test_cells_of_one_direction_are_divided_by_space_alone():
    parts = parsed(grams(one_dimensional(np.ones((6, 1)))), 6, 1, num_parts=3, max_distance=3.0).parts_BHW
    assert parts[0, :, 0].tolist() == [0, 0, 0, 1, 1, 1]


@pytest.mark.parametrize("linkage", ["average", "complete", "single"])
@pytest.mark.parametrize("space", ["forbid", "off"])
def test_ties_are_broken_as_on_the_processor(linkage, space):
    cells = np.random.default_rng(3).integers(0, 3, (60, 2, 5, 4)).astype(float)  # many equal distances and magnitudes
    assert_as_on_the_processor(grams(cells), 5, 4, max_distance=3.0, linkage=linkage, space=space)


@pytest.mark.parametrize("switches", SWITCHES, ids=str)
def test_maps_that_look_like_persons_are_parsed_as_on_the_processor(switches):
    cells = silhouettes(2, 16, 24, 8, seed=11)
    cells[1, :, 9:11, 2] = 0  # dead cells inside the person
    assert_as_on_the_processor(grams(cells), 24, 8, **switches)


@pytest.mark.parametrize("space", ["forbid", "kmeans", "rows"])
def test_the_kernels_agree_with_the_slow_reference(space):
    cells = silhouettes(3, 12, 12, 5, seed=3)
    parsing = parsed(grams(cells), 12, 5, max_distance=4.0, space=space)
    for image in range(3):
        parts, foreground, far_share = parse(cells[image], num_parts=4, max_distance=4.0, space=space)
        np.testing.assert_array_equal(parsing.parts_BHW[image].numpy(), parts)
        assert parsing.foreground_B[image] == foreground
        assert parsing.far_share_B[image] == pytest.approx(far_share, abs=1e-12)


@settings(derandomize=True, deadline=None, max_examples=250)
@given(
    height=st.integers(1, 9),
    width=st.integers(1, 6),
    kind=st.sampled_from(["continuous", "whole", "sparse", "products"]),
    element=st.sampled_from([torch.float32, torch.bfloat16, torch.float16]),
    num_parts=st.integers(2, 7),
    max_distance=st.floats(0.5, 9),
    linkage=st.sampled_from(["average", "complete", "single"]),
    classes=st.sampled_from([2, 3]),
    log_magnitude=st.booleans(),
    centre_prior=st.sampled_from([0.0, 0.1]),
    space=st.sampled_from(["forbid", "forbid", "off", "kmeans", "rows"]),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_map_and_setting_is_parsed_as_on_the_processor(height, width, kind, element, seed, **switches):
    random = np.random.default_rng(seed)
    if kind == "continuous":
        cells = random.random((2, 9, height, width))
    elif kind == "whole":  # many equal magnitudes and distances
        cells = random.integers(0, 3, (2, 2, height, width)).astype(float)
    elif kind == "sparse":
        cells = random.random((2, 4, height, width)) * (random.random((2, 1, height, width)) < 0.4)
    else:  # no inner products of any cells at all, and not symmetric
        cells = random.uniform(-2, 2, (2, height * width, height * width))
        cells += 3 * np.eye(height * width)
        assert_as_on_the_processor(torch.from_numpy(cells).to(element), height, width, **switches)
        return
    assert_as_on_the_processor(grams(cells).to(element), height, width, **switches)


@pytest.mark.parametrize("space", ["forbid", "off", "kmeans", "rows"])
@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("log_magnitude", [False, True])
@pytest.mark.parametrize("centre_prior", [0.0, 0.2])
def test_degenerate_maps_are_parsed_as_on_the_processor(space, classes, log_magnitude, centre_prior):
    magnitudes_BHW = np.array(
        [
            np.zeros((4, 2)),
            np.full((4, 2), 3.0),
            [[2, 1], [1, 2], [2, 1], [1, 1]],
            [[2, 0], [0, 2], [2, 0], [0, 0]],
            [[0, 0], [0, 0], [0, 5], [0, 0]],
            [[3, 2], [1, 1], [2, 3], [1, 1]],
            [[4, 3], [2, 1], [1, 1], [1, 0]],
        ]
    )
    switches = {"space": space, "classes": classes, "log_magnitude": log_magnitude, "centre_prior": centre_prior}
    expected = assert_as_on_the_processor(grams(magnitudes_BHW[:, None]), 4, 2, max_distance=2.5, **switches)
    assert expected.foreground_B[[0, 4]].tolist() == [0, 1]


def test_a_cluster_of_kmeans_that_loses_all_members_is_filled_as_on_the_processor():
    random = np.random.default_rng(1)
    cosines = np.sign(random.uniform(-1, 1, (120, 25, 25))) * random.random((120, 25, 25)) ** 0.3  # of no real cells
    cosines = np.tril(cosines, -1)
    cosines += cosines.transpose(0, 2, 1) + np.eye(25)
    for num_parts in (15, 20):
        assert_as_on_the_processor(torch.from_numpy(cosines).float(), 5, 5, num_parts=num_parts, space="kmeans")


@pytest.mark.parametrize(("element", "scale"), [(torch.float16, 0.004), (torch.float16, 30), (torch.bfloat16, 1e-19)])
def test_tiny_and_huge_products_of_sixteen_bits_are_read_as_they_are(element, scale):
    halves = grams(silhouettes(2, 8, 9, 5, seed=5) * scale).to(element)
    assert_as_on_the_processor(halves, 9, 5)


@pytest.mark.parametrize("switches", [{}, {"linkage": "single"}, {"space": "kmeans"}], ids=str)
def test_images_too_large_for_shared_memory_are_parsed_one_after_the_other(switches, monkeypatch):
    cells = silhouettes(5, 8, 12, 6, seed=9)
    cells[3] = 0
    monkeypatch.setattr(on_gpu, "_SHARED_BYTES", 6000)
    monkeypatch.setattr(on_gpu, "_SCRATCH_BYTES", 2 * 8 * 600)
    assert_as_on_the_processor(grams(cells), 12, 6, max_distance=4.0, **switches)


def test_maps_of_many_cells_are_parsed_up_to_a_limit():
    cells = silhouettes(1, 8, 64, 16, seed=2)  # with all cells in the foreground shared memory would be too small
    expected = assert_as_on_the_processor(grams(cells), 64, 16, max_distance=30.0)
    assert expected.foreground_B[0] > 200
    with pytest.raises(ValueError, match=r"at most 1024 cells on a GPU, got 41 x 25; parse these with .* CPU"):
        parsed(torch.zeros(1, 1025, 1025), 41, 25)


def test_the_parts_of_an_image_do_not_depend_on_its_batch():
    products = grams(silhouettes(4, 12, 12, 6, seed=8))
    together = parsed(products, 12, 6).parts_BHW
    for image in range(4):
        assert torch.equal(parsed(products[image : image + 1], 12, 6).parts_BHW[0], together[image])
    assert torch.equal(parsed(products.flip(0), 12, 6).parts_BHW, together.flip(0))


def test_products_of_any_layout_are_accepted_and_not_modified():
    products = grams(silhouettes(3, 8, 10, 5, seed=1))
    before = products.clone()
    expected = parsed(products, 10, 5, space="kmeans").parts_BHW
    spread = torch.stack([products, products], dim=3)[..., 0].requires_grad_()
    assert not spread.is_contiguous()
    assert torch.equal(parsed(spread, 10, 5, space="kmeans").parts_BHW, expected)
    assert torch.equal(products, before)


def test_an_empty_batch_has_no_parts():
    parsing = parsed(torch.zeros(0, 6, 6), 3, 2)
    assert parsing.parts_BHW.shape == (0, 3, 2)
    assert parsing.foreground_B.shape == parsing.far_share_B.shape == (0,)


def assert_refused_as_on_the_processor(grams_BPP, height, width, **switches):
    with pytest.raises(ValueError, match="expected") as on_processor:
        reidray.parsing.parse_grams(grams_BPP, height=height, width=width, **PAPER | switches)
    with pytest.raises(ValueError, match="expected") as here:
        parsed(grams_BPP, height, width, **switches)
    assert str(here.value) == str(on_processor.value)


@pytest.mark.parametrize("element", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_map_that_is_not_finite_is_named_as_on_the_processor(value, element):
    products = grams(silhouettes(4, 6, 8, 4, seed=0)).to(element)
    products[3, 0, 9] = value
    products[1, 31, 31] = value
    assert_refused_as_on_the_processor(products, 8, 4)
    products[1, 31, 31] = -1.0
    assert_refused_as_on_the_processor(products, 8, 4)


@pytest.mark.parametrize(
    "wrong",
    [
        {"num_parts": 1},
        {"max_distance": 0.0},
        {"max_distance": float("nan")},
        {"linkage": "ward"},
        {"classes": 4},
        {"centre_prior": -0.1},
        {"centre_prior": float("inf")},
        {"space": "maybe"},
    ],
    ids=str,
)
def test_wrong_settings_are_refused_as_on_the_processor(wrong):
    assert_refused_as_on_the_processor(torch.ones(1, 6, 6), 3, 2, **wrong)


@pytest.mark.parametrize(("shape", "height"), [((1, 5, 5), 3), ((6, 6), 3), ((1, 6, 6), 0)])
def test_wrong_shapes_are_refused_as_on_the_processor(shape, height):
    assert_refused_as_on_the_processor(torch.ones(shape), height, 2)


def test_products_of_another_type_are_refused():
    with pytest.raises(ValueError, match=r"float32, bfloat16 or float16 .* got torch.float64"):
        parsed(torch.ones(1, 6, 6, dtype=torch.float64), 3, 2)
