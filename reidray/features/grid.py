"""Where the cells of a feature map lie in the image; all conversions between part masks and pixels use it.

A strided convolution centres cell i on pixel stride * i, not on the middle of its stride: the map of a flipped image is
then not the flipped map but nearly that map moved by one cell. Every function below asks the grid for the centres.
Pixels are numbered by their centres: pixel k covers k - 1/2 .. k + 1/2, an image of n pixels -1/2 .. n - 1/2.

Letters: B images, L parts (background = last), H x W cells.
"""

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class CellGrid:
    """Centres of the cells in pixels of the network's input: cell i of either axis is centred on stride * i + offset.

    Attributes:
        stride: pixels from one cell to the next, at least 1.
        offset: centre of cell 0, at least -1/2: 0 for torchvision's ResNets on even sizes, (stride - 1) / 2 for aligned
            strides.
    """

    stride: int
    offset: float

    def __post_init__(self) -> None:
        if self.stride < 1 or not self.offset >= -0.5:
            raise ValueError(
                f"expected stride >= 1 and offset >= -0.5, got {self.stride} and {self.offset}; correct the grid."
            )

    def centres(self, count: int, device: torch.device | None = None) -> torch.Tensor:
        """float64 [count]: the pixels on which the first `count` cells of an axis are centred."""
        return torch.arange(count, dtype=torch.float64, device=device) * self.stride + self.offset

    def nearest(self, count: int, pixels: int, device: torch.device | None = None) -> torch.Tensor:
        """int64 [pixels]: for each pixel of an axis the nearest of `count` cells (half-way: the higher one)."""
        positions = torch.arange(pixels, dtype=torch.float64, device=device)
        return ((positions - self.offset) / self.stride + 0.5).floor().long().clamp(0, count - 1)


def warp_masks(
    masks_BLHW: torch.Tensor,
    grid: CellGrid,
    *,
    image_size: tuple[int, int],
    flips_B: torch.Tensor,
    dy_B: torch.Tensor,
    dx_B: torch.Tensor,
    pad: int,
) -> torch.Tensor:
    """The part masks of augmented images, from the masks of the images as they were.

    The augmentation: the image is padded by `pad` pixels on all sides, cropped to its old size from row dy and column
    dx of the padded image on, then flipped left to right where flips is true. Pixel (y, x) of the result therefore
    comes from pixel (y + dy - pad, (flipped ? width - 1 - x : x) + dx - pad) of the image. Each cell takes the mask at
    the place its centre comes from, bilinear between the centres of the cells; up to half a cell beyond the outermost
    centres, but within the image, the edge cells count; everywhere else is background.

    Args:
        masks_BLHW: soft masks [B, L, H, W], background last; any floating type, not modified.
        grid: the cells' centres.
        image_size: pixel (rows, columns) of the network's input.
        flips_B: bool [B].
        dy_B, dx_B: integers [B] in 0..2*pad; pad itself leaves the image where it was.
        pad: pixels added on each side, at least 0.

    Returns:
        [B, L, H, W] on the masks' device, float32 (float64 stays): where the parts of a cell summed to 1, they still
        do.

    Raises:
        ValueError: shapes that do not fit each other, an offset outside 0..2*pad (looked for on CPU tensors only, not
            to wait for an accelerator).
    """
    if masks_BLHW.ndim != 4 or not masks_BLHW.is_floating_point():
        raise ValueError(
            f"expected floating-point masks [B, L, H, W], got {masks_BLHW.dtype} of shape {tuple(masks_BLHW.shape)}; "
            "turn part numbers into one mask a part first."
        )
    batch, _, height, width = masks_BLHW.shape
    for name, values_B in (("flips_B", flips_B), ("dy_B", dy_B), ("dx_B", dx_B)):
        if values_B.shape != (batch,):
            raise ValueError(
                f"expected {name} of shape ({batch},), got {tuple(values_B.shape)}; pass one value an image."
            )
    for name, values_B in (("dy_B", dy_B), ("dx_B", dx_B)):
        if batch and values_B.device.type == "cpu" and (int(values_B.min()) < 0 or int(values_B.max()) > 2 * pad):
            raise ValueError(
                f"expected {name} in 0..{2 * pad}, got {values_B.tolist()}; pass the pad that cropped them."
            )
    _check_fit(grid, (height, width), image_size)
    device = masks_BLHW.device
    masks_BLHW = masks_BLHW if masks_BLHW.dtype == torch.float64 else masks_BLHW.float()

    rows_BH = (grid.centres(height, device) - pad)[None] + dy_B.to(device)[:, None]
    columns_W = grid.centres(width, device)
    columns_BW = torch.where(flips_B.to(device)[:, None], image_size[1] - 1 - columns_W, columns_W)
    columns_BW = columns_BW + dx_B.to(device)[:, None] - pad
    warped_BLHW, inside_BH = _sample(masks_BLHW, 2, rows_BH, grid, image_size[0])
    warped_BLHW, inside_BW = _sample(warped_BLHW, 3, columns_BW, grid, image_size[1])
    inside_BHW = inside_BH[:, :, None] & inside_BW[:, None, :]
    warped_BLHW = torch.where(inside_BHW[:, None], warped_BLHW, 0.0)
    warped_BLHW[:, -1] += ~inside_BHW
    return warped_BLHW


def visible_cells(grid: CellGrid, map_size: tuple[int, int], boxes_B4: torch.Tensor) -> torch.Tensor:
    """Which cells random erasing left visible.

    Args:
        grid: the cells' centres.
        map_size: (rows, columns) of cells.
        boxes_B4: erased boxes [B, 4] in pixels of the augmented image, rows y0..y1-1 and columns x0..x1-1 as (y0, x0,
            y1, x1); an empty box is all zeros.

    Returns:
        float32 [B, H, W]: 0 where the cell's centre lies inside the box, 1 elsewhere (on its very edge: 1).

    Raises:
        ValueError: boxes of another shape.
    """
    if boxes_B4.ndim != 2 or boxes_B4.shape[1] != 4:
        raise ValueError(
            f"expected boxes [B, 4] as (y0, x0, y1, x1), got shape {tuple(boxes_B4.shape)}; pass one an image."
        )
    top_B1, left_B1, bottom_B1, right_B1 = (boxes_B4.double() - 0.5)[:, :, None].unbind(1)
    rows_H, columns_W = (grid.centres(count, boxes_B4.device) for count in map_size)
    erased_BH = (top_B1 < rows_H) & (rows_H < bottom_B1)
    erased_BW = (left_B1 < columns_W) & (columns_W < right_B1)
    return (~(erased_BH[:, :, None] & erased_BW[:, None, :])).float()


def mask_to_pixels(parts_HW: torch.Tensor, grid: CellGrid, image_size: tuple[int, int]) -> torch.Tensor:
    """Part numbers of the pixels, for drawing: each pixel takes the part of the nearest cell.

    Args:
        parts_HW: integer part numbers [H, W].
        grid: the cells' centres.
        image_size: pixel (rows, columns) of the network's input.

    Returns:
        The parts' integer type, [rows, columns].

    Raises:
        ValueError: a map that does not fit the image.
    """
    height, width = parts_HW.shape
    _check_fit(grid, (height, width), image_size)
    rows = grid.nearest(height, image_size[0], parts_HW.device)
    columns = grid.nearest(width, image_size[1], parts_HW.device)
    return parts_HW[rows][:, columns]


def pixels_to_cells(
    mask_BHW: torch.Tensor, grid: CellGrid, map_size: tuple[int, int], image_size: tuple[int, int], num_classes: int
) -> torch.Tensor:
    """True part masks on the cells: the majority class in the stride x stride window around each cell's centre.

    The window is the pixels nearest to that cell and no further than half a stride away, less those outside the image.

    Args:
        mask_BHW: uint8 or int64 ground truth [B, h, w], classes 0..num_classes-1, at any resolution; it is brought to
            image_size by the nearest pixel first.
        grid: the cells' centres.
        map_size: (rows, columns) of cells.
        image_size: pixel (rows, columns) of the network's input.
        num_classes: classes of the truth.

    Returns:
        int64 [B, H, W]; of equally frequent classes the lowest.

    Raises:
        ValueError: a mask of another shape, a class outside 0..num_classes-1, or a map that does not fit the image.
    """
    if mask_BHW.ndim != 3 or 0 in mask_BHW.shape[1:]:
        raise ValueError(f"expected masks [B, h, w], got shape {tuple(mask_BHW.shape)}; add the missing axes.")
    if mask_BHW.numel() and (int(mask_BHW.min()) < 0 or int(mask_BHW.max()) >= num_classes):
        raise ValueError(
            f"expected classes 0..{num_classes - 1}, got {int(mask_BHW.min())}..{int(mask_BHW.max())}; "
            "check num_classes."
        )
    _check_fit(grid, map_size, image_size)
    rows_HS, in_rows_HS = _windows(grid, map_size[0], image_size[0], mask_BHW.shape[1], mask_BHW.device)
    columns_WS, in_columns_WS = _windows(grid, map_size[1], image_size[1], mask_BHW.shape[2], mask_BHW.device)
    windows_BHSWS = mask_BHW[:, rows_HS][:, :, :, columns_WS]
    counted_HSWS = in_rows_HS[:, :, None, None] & in_columns_WS
    votes = [((windows_BHSWS == label) & counted_HSWS).sum(dim=(2, 4)) for label in range(num_classes)]
    best_BHW, cells_BHW = votes[0], torch.zeros_like(votes[0])
    for label in range(1, num_classes):
        cells_BHW = torch.where(votes[label] > best_BHW, label, cells_BHW)
        best_BHW = torch.maximum(votes[label], best_BHW)
    return cells_BHW


def _check_fit(grid: CellGrid, map_size: tuple[int, int], image_size: tuple[int, int]) -> None:
    for cells, pixels in zip(map_size, image_size, strict=True):
        if cells < 1 or grid.stride * (cells - 1) + grid.offset > pixels - 0.5:
            raise ValueError(
                f"expected all cells centred inside the image, got {map_size} cells of {grid} on {image_size} pixels; "
                "pass the size of the network's input, not of the file."
            )


def _sample(
    masks_BLHW: torch.Tensor, axis: int, pixels_BX: torch.Tensor, grid: CellGrid, num_pixels: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Masks at the given pixels of one axis, linear between cells, and whether each pixel is on the map."""
    count = masks_BLHW.shape[axis]
    position_BX = (pixels_BX - grid.offset) / grid.stride
    inside_BX = (position_BX >= -0.5) & (position_BX <= count - 0.5)
    inside_BX &= (pixels_BX >= -0.5) & (pixels_BX <= num_pixels - 0.5)
    position_BX = position_BX.clamp(0, count - 1)
    below_BX = position_BX.floor()
    batch, places = pixels_BX.shape
    shape = (batch, 1, places, 1) if axis == 2 else (batch, 1, 1, places)
    share = (position_BX - below_BX).to(masks_BLHW.dtype).reshape(shape)
    low = torch.take_along_dim(masks_BLHW, below_BX.long().reshape(shape), dim=axis)
    high = torch.take_along_dim(masks_BLHW, (below_BX.long() + 1).clamp(max=count - 1).reshape(shape), dim=axis)
    return low * (1 - share) + high * share, inside_BX


def _windows(
    grid: CellGrid, cells: int, pixels: int, source: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Source pixels [cells, stride] around the cells' centres of one axis, and which of them lie in the image."""
    first_H = (grid.centres(cells, device) - grid.stride / 2).ceil().long()
    places_HS = first_H[:, None] + torch.arange(grid.stride, device=device)
    inside_HS = (places_HS >= 0) & (places_HS < pixels)
    places_HS = places_HS.clamp(0, pixels - 1)
    return (2 * places_HS + 1) * source // (2 * pixels), inside_HS
