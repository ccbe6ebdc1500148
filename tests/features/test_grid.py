import pytest
import torch
from torch.nn.functional import conv2d, one_hot

from reidray.features.grid import CellGrid, mask_to_pixels, pixels_to_cells, visible_cells, warp_masks

ALIGNED = CellGrid(8, 3.5)
ORDINARY = CellGrid(8, 0.0)
SIZE = (48, 32)  # pixels; 6 x 4 cells


def soft_masks(batch, parts=3, seed=0):
    return torch.rand(batch, parts, 6, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).softmax(1)


def warp(masks, grid, *, flip=False, dy=10, dx=10, pad=10):
    batch = len(masks)
    return warp_masks(
        masks,
        grid,
        image_size=SIZE,
        flips_B=torch.full((batch,), flip),
        dy_B=torch.full((batch,), dy),
        dx_B=torch.full((batch,), dx),
        pad=pad,
    )


def augment(images_BCHW, *, flip, dy, dx, pad):
    """The augmentation itself, on images."""
    height, width = images_BCHW.shape[2:]
    padded = torch.nn.functional.pad(images_BCHW, (pad, pad, pad, pad))
    cropped = padded[:, :, dy : dy + height, dx : dx + width]
    return cropped.flip(3) if flip else cropped


def ordinary_map(images_BCHW):
    """A strided convolution as in torchvision's ResNets: odd kernel, centred on pixel 8 i."""
    return conv2d(images_BCHW, torch.full((1, 1, 7, 7), 1 / 49, dtype=torch.float64), stride=8, padding=3)


def aligned_map(images_BCHW):
    return conv2d(images_BCHW, torch.full((1, 1, 8, 8), 1 / 64, dtype=torch.float64), stride=8)


def ramp(sideways, downwards):
    """An image whose brightness is linear in the pixel's place: its blurred value tells where a cell is centred."""
    rows, columns = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in SIZE), indexing="ij")
    return (sideways * columns + downwards * rows)[None, None]


def test_centres_are_where_the_convolutions_look():
    assert ORDINARY.centres(4).tolist() == [0, 8, 16, 24]
    assert ALIGNED.centres(4).tolist() == [3.5, 11.5, 19.5, 27.5]
    torch.testing.assert_close(ordinary_map(ramp(1, 0))[0, 0, 2, 1:], ORDINARY.centres(4)[1:])
    torch.testing.assert_close(aligned_map(ramp(1, 0))[0, 0, 2], ALIGNED.centres(4))


@pytest.mark.parametrize("grid", [ALIGNED, ORDINARY])
def test_an_untouched_image_keeps_its_mask(grid):
    masks = soft_masks(2)
    assert torch.equal(warp(masks, grid), masks)


def test_flipping_on_an_aligned_grid_flips_the_array():
    masks = soft_masks(2)
    assert torch.equal(warp(masks, ALIGNED, flip=True), masks.flip(3))


def test_flipping_on_an_ordinary_grid_moves_the_flipped_array_by_nearly_a_cell():
    masks = soft_masks(1)
    warped = warp(masks, ORDINARY, flip=True)
    # cell j is centred on pixel 8 j, which comes from pixel 31 - 8 j: 7/8 of cell 4 - j and 1/8 of cell 3 - j
    for j in (1, 2, 3):
        torch.testing.assert_close(warped[..., j], (7 * masks[..., 4 - j] + masks[..., 3 - j]) / 8)
    # cell 0 comes from pixel 31, 7 pixels beyond the last centre: background
    assert torch.equal(warped[0, :, 0, 0], torch.tensor([0, 0, 1], dtype=torch.float64))
    assert not torch.allclose(warped, masks.flip(3), atol=0.05)


@pytest.mark.parametrize(("grid", "network"), [(ALIGNED, aligned_map), (ORDINARY, ordinary_map)])
@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize(("dy", "dx"), [(10, 10), (13, 4), (6, 14), (16, 7)])
def test_the_warped_map_of_an_image_is_the_map_of_the_augmented_image(grid, network, flip, dy, dx):
    image = ramp(0.01, 0.02)
    expected = network(augment(image, flip=flip, dy=dy, dx=dx, pad=10))
    value = network(image)
    warped = warp(torch.cat([value, 1 - value], 1), grid, flip=flip, dy=dy, dx=dx)[:, :1]
    # away from the borders, where the padding shows in the windows of the convolution
    torch.testing.assert_close(warped[..., 2:4, 2:3], expected[..., 2:4, 2:3])


@pytest.mark.parametrize("grid", [ALIGNED, ORDINARY])
@pytest.mark.parametrize("flip", [False, True])
def test_crops_by_whole_strides_move_whole_cells_and_bring_in_background(grid, flip):
    masks = soft_masks(1)
    moved = torch.zeros_like(masks)
    moved[:, -1] = 1
    moved[:, :, :5, 1:] = masks[:, :, 1:, :3]  # one cell up, one cell to the right
    warped = warp(masks, grid, flip=flip, dy=16, dx=0, pad=8)
    if not flip:
        assert torch.equal(warped, moved)
    elif grid is ALIGNED:
        assert torch.equal(warped, moved.flip(3))
    else:  # but the first column, which pixels beyond the last centre fill
        torch.testing.assert_close(warped[..., 1:3], warp(moved, grid, flip=True)[..., 1:3])


@pytest.mark.parametrize("grid", [ALIGNED, ORDINARY])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_the_parts_of_a_cell_still_sum_to_one(grid, dtype):
    random = torch.Generator().manual_seed(1)
    masks = one_hot(torch.randint(3, (40, 6, 4), generator=random), 3).movedim(3, 1).to(dtype)
    before = masks.clone()
    warped = warp_masks(
        masks,
        grid,
        image_size=SIZE,
        flips_B=torch.rand(40, generator=random) < 0.5,
        dy_B=torch.randint(21, (40,), generator=random),
        dx_B=torch.randint(21, (40,), generator=random),
        pad=10,
    )
    assert warped.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    torch.testing.assert_close(warped.sum(1), torch.ones_like(warped[:, 0]), atol=1e-6, rtol=0)
    assert (warped >= 0).all()
    assert torch.equal(masks, before)


def test_half_a_cell_beyond_the_outermost_centres_the_edge_cells_count():
    masks = torch.tensor([1.0, 0.0]).reshape(1, 2, 1, 1).expand(1, 2, 6, 4).contiguous()
    part = warp(masks, ALIGNED, dy=14, dx=6)[0, 0]  # half a cell down and half a cell to the left: -1/2 and 47.5 pixels
    assert (part == 1).all()
    part = warp(masks, ALIGNED, dy=15, dx=5)[0, 0]
    assert torch.equal(part, torch.tensor([[0.0, 1, 1, 1]] * 5 + [[0.0, 0, 0, 0]]))
    part = warp(masks, ORDINARY, dy=14, dx=10)[0, 0]  # pixel 44 is 4 pixels below the last centre
    assert (part == 1).all()
    part = warp(masks, ORDINARY, dy=15, dx=9)[0, 0]  # pixel 45 is further; pixel -1 is outside the image
    assert torch.equal(part, torch.tensor([[0.0, 1, 1, 1]] * 5 + [[0.0, 0, 0, 0]]))


def test_a_crop_by_half_a_cell_mixes_two_cells_by_hand():
    masks = torch.zeros(1, 2, 6, 4)
    masks[:, 1] = 1
    masks[0, :, 2, 1] = torch.tensor([1.0, 0.0])
    part = warp(masks, ALIGNED, dy=14, dx=10)[0, 0]
    expected = torch.zeros(6, 4)
    expected[1:3, 1] = 0.5
    assert torch.equal(part, expected)


def test_every_image_of_a_batch_moves_by_itself():
    masks = soft_masks(3)
    flips, dy, dx = torch.tensor([False, True, True]), torch.tensor([10, 3, 17]), torch.tensor([10, 20, 0])
    together = warp_masks(masks, ALIGNED, image_size=SIZE, flips_B=flips, dy_B=dy, dx_B=dx, pad=10)
    for i in range(3):
        alone = warp(masks[i : i + 1], ALIGNED, flip=bool(flips[i]), dy=int(dy[i]), dx=int(dx[i]))
        assert torch.equal(together[i : i + 1], alone)


def test_an_empty_batch_of_masks_stays_empty():
    assert warp(torch.zeros(0, 3, 6, 4), ALIGNED).shape == (0, 3, 6, 4)


def test_cells_centred_inside_the_erased_box_are_invisible():
    boxes = torch.tensor([[0, 0, 0, 0], [8, 0, 17, 9], [9, 1, 16, 8], [0, 0, 48, 32]])
    visible = visible_cells(ORDINARY, (6, 4), boxes)
    assert visible.dtype == torch.float32
    expected = torch.ones(6, 4)
    expected[1:3, 0:2] = 0  # rows 8..16 and columns 0..8 hold the centres 8, 16 and 0, 8
    assert torch.equal(visible[0], torch.ones(6, 4))
    assert torch.equal(visible[1], expected)
    assert torch.equal(visible[2], torch.ones(6, 4))
    assert (visible[3] == 0).all()


def test_visibility_flips_with_the_box_on_an_aligned_grid():
    random = torch.Generator().manual_seed(2)
    y, x = (
        torch.randint(49, (50, 2), generator=random).sort(1)[0],
        torch.randint(33, (50, 2), generator=random).sort(1)[0],
    )
    boxes = torch.stack([y[:, 0], x[:, 0], y[:, 1], x[:, 1]], 1)
    mirrored = torch.stack([y[:, 0], 32 - x[:, 1], y[:, 1], 32 - x[:, 0]], 1)
    assert torch.equal(visible_cells(ALIGNED, (6, 4), boxes).flip(2), visible_cells(ALIGNED, (6, 4), mirrored))


def test_pixels_take_the_nearest_cell_by_hand():
    parts = torch.tensor([[0, 1], [2, 3]])
    aligned = mask_to_pixels(parts, CellGrid(4, 1.5), (8, 8))
    assert torch.equal(aligned, parts.repeat_interleave(4, 0).repeat_interleave(4, 1))
    ordinary = mask_to_pixels(parts, CellGrid(4, 0.0), (8, 8))
    assert ordinary[0].tolist() == [0, 0, 1, 1, 1, 1, 1, 1]
    assert ordinary[:, 0].tolist() == [0, 0, 2, 2, 2, 2, 2, 2]


@pytest.mark.parametrize("grid", [ALIGNED, ORDINARY, CellGrid(16, 0.0), CellGrid(5, 2.0)])
def test_drawing_parts_and_reading_them_back_changes_nothing(grid):
    parts = torch.randint(4, (3, 2), generator=torch.Generator().manual_seed(3))
    drawn = mask_to_pixels(parts, grid, SIZE)
    assert torch.equal(pixels_to_cells(drawn[None], grid, (3, 2), SIZE, 4)[0], parts)


def test_the_majority_in_the_window_wins_by_hand():
    mask = torch.tensor([[0, 0, 1, 1], [0, 2, 1, 1], [2, 2, 0, 3], [2, 2, 3, 0]], dtype=torch.uint8)[None]
    cells = pixels_to_cells(mask, CellGrid(2, 0.5), (2, 2), (4, 4), 4)
    assert cells.dtype == torch.int64
    assert cells.tolist() == [[[0, 1], [2, 0]]]  # the last window is a tie of 0 and 3
    # centres on pixels 0 and 2: windows -1..0 and 1..2, less what lies outside
    assert pixels_to_cells(mask, CellGrid(2, 0.0), (2, 2), (4, 4), 4).tolist() == [[[0, 0], [0, 2]]]


def test_truth_of_another_size_is_brought_to_the_image_by_the_nearest_pixel():
    small = torch.tensor([[0, 1], [2, 1]], dtype=torch.uint8)
    large = small.repeat_interleave(24, 0).repeat_interleave(16, 1)
    huge = large.repeat_interleave(2, 0).repeat_interleave(2, 1)
    expected = pixels_to_cells(large[None], ALIGNED, (6, 4), SIZE, 3)
    assert expected[0, 0].tolist() == [0, 0, 1, 1]
    for mask in (small, huge):
        assert torch.equal(pixels_to_cells(mask[None], ALIGNED, (6, 4), SIZE, 3), expected)


def test_wrong_arguments_are_refused():
    masks = soft_masks(2)
    with pytest.raises(ValueError, match="stride >= 1"):
        CellGrid(0, 0.0)
    with pytest.raises(ValueError, match=r"dy_B in 0\.\.20"):
        warp(masks, ALIGNED, dy=21)
    with pytest.raises(ValueError, match="inside the image"):
        warp_masks(
            masks,
            ALIGNED,
            image_size=(24, 32),
            flips_B=torch.zeros(2, dtype=torch.bool),
            dy_B=torch.zeros(2, dtype=torch.int64),
            dx_B=torch.zeros(2, dtype=torch.int64),
            pad=0,
        )
    with pytest.raises(ValueError, match=r"flips_B of shape \(2,\)"):
        warp_masks(
            masks,
            ALIGNED,
            image_size=SIZE,
            flips_B=torch.zeros(3, dtype=torch.bool),
            dy_B=torch.zeros(2, dtype=torch.int64),
            dx_B=torch.zeros(2, dtype=torch.int64),
            pad=0,
        )
    with pytest.raises(ValueError, match="floating-point masks"):
        warp(torch.zeros(2, 3, 6, 4, dtype=torch.int64), ALIGNED)
    with pytest.raises(ValueError, match=r"boxes \[B, 4\]"):
        visible_cells(ALIGNED, (6, 4), torch.zeros(4))
    with pytest.raises(ValueError, match=r"classes 0\.\.2"):
        pixels_to_cells(torch.full((1, 48, 32), 3, dtype=torch.uint8), ALIGNED, (6, 4), SIZE, 3)
    with pytest.raises(ValueError, match="inside the image"):
        mask_to_pixels(torch.zeros(7, 4, dtype=torch.int64), ALIGNED, SIZE)
