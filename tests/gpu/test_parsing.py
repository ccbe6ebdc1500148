"""Part clustering on a real GPU gives the parts of the processor's `parse_grams`, cell by cell."""

import numpy as np
import pytest
import torch

import reidray.parsing
from reidray.cuda.device import cuda_device
from reidray.cuda.parsing import parse_grams
from tests.reference.parsing import silhouettes

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

HEIGHT, WIDTH = 24, 8
PAPER = {
    "height": HEIGHT,
    "width": WIDTH,
    "num_parts": 4,
    "max_distance": 8.0,
    "linkage": "average",
    "classes": 3,
    "log_magnitude": False,
    "centre_prior": 0.15,
    "space": "forbid",
}


@pytest.fixture(scope="module")
def products_BPP():
    """Inner products of a thousand drawn maps, some of them degenerate, the same numbers wherever they are parsed."""
    cells = silhouettes(1000, 32, HEIGHT, WIDTH, seed=0)
    cells[10] = 0
    cells[11] = 1
    cells[12, :, 12:] = 0
    cells[13] = np.random.default_rng(1).integers(0, 2, cells[13].shape)
    cells_BDP = cells.reshape(1000, 32, HEIGHT * WIDTH).astype(np.float32)
    return torch.from_numpy(cells_BDP.transpose(0, 2, 1) @ cells_BDP)


def both(products_BPP, **switches):
    expected = reidray.parsing.parse_grams(products_BPP, **PAPER | switches)
    parsing = parse_grams(products_BPP.cuda(), device=cuda_device(), **PAPER | switches)
    assert all(tensor.is_cuda for tensor in parsing)
    return expected, [tensor.cpu().numpy() for tensor in parsing]


@pytest.mark.parametrize(
    "switches",
    [
        {},
        {"linkage": "complete"},
        {"linkage": "single"},
        {"classes": 2, "centre_prior": 0.0},
        {"space": "off"},
        {"space": "kmeans"},
        {"space": "rows"},
        {"num_parts": 7, "max_distance": 6.0},
    ],
    ids=str,
)
def test_a_thousand_maps_are_parsed_as_on_the_processor(products_BPP, switches):
    expected, parsing = both(products_BPP, **switches)
    for got, wanted in zip(parsing, expected, strict=True):
        np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize("element", [torch.bfloat16, torch.float16])
def test_products_of_sixteen_bits_are_parsed_as_on_the_processor(products_BPP, element):
    expected, parsing = both(products_BPP.to(element))
    for got, wanted in zip(parsing, expected, strict=True):
        np.testing.assert_array_equal(got, wanted)


def test_logarithms_change_no_more_than_ties(products_BPP):
    expected, (parts_BHW, _, _) = both(products_BPP, log_magnitude=True)
    assert (parts_BHW == expected.parts_BHW).all((1, 2)).mean() > 0.99


def test_large_maps_are_parsed_as_on_the_processor():
    cells = silhouettes(20, 16, 64, 16, seed=3).reshape(20, 16, 1024).astype(np.float32)
    products = torch.from_numpy(cells.transpose(0, 2, 1) @ cells)
    expected, parsing = both(products, height=64, width=16, max_distance=21.0)
    assert expected.foreground_B.max() > 200  # their distances do not fit shared memory
    for got, wanted in zip(parsing, expected, strict=True):
        np.testing.assert_array_equal(got, wanted)


def test_a_second_parsing_is_equal_to_the_first(products_BPP):
    products = products_BPP.cuda()
    first, second = (parse_grams(products, device=cuda_device(), **PAPER) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_a_map_that_is_not_finite_is_named(products_BPP):
    broken = products_BPP[:50].clone()
    broken[17, 3, 90] = float("nan")
    with pytest.raises(ValueError, match=r"image 17 of the batch \(1 of 50"):
        parse_grams(broken.cuda(), device=cuda_device(), **PAPER)
