"""Spatial cascaded clustering: the pseudo parsing masks of SCWM (Sec. 3.2, eq. 2).

First step: the cells of large magnitude are foreground (`foreground.py`). Second step: the foreground is divided into
parts by what its cells look like and where they are (`division.py`, `agglomeration.py`). Parts are numbered from top to
bottom; the background is the last one. Images are independent of each other and run in parallel.

Letters: B images, D feature width, H x W cells of a map, P = H * W cells row-major, F foreground cells of one image.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch

from reidray.arrays import Array, Doubles, Ints
from reidray.compiled import njit
from reidray.parsing.agglomeration import linkage_code
from reidray.parsing.cells import (
    CHANNELS,
    SEGMENT,
    TILE,
    cosines_of_gram,
    gram_of_map,
    magnitudes_of_gram,
    magnitudes_of_map,
)
from reidray.parsing.division import FORBID, SPACES, divide, far_pairs, room_for_division
from reidray.parsing.foreground import foreground_cells, room_for_sums
from reidray.parsing.numbers import readable, widened
from reidray.threads import num_threads, side_by_side

_PIECES = 4  # of a batch, for each thread: the images of a piece follow one another and share their room


class _Rule(NamedTuple):
    """How images are parsed, for the compiled functions."""

    width: int
    num_parts: int
    linkage: int
    classes: int
    log_magnitude: bool
    centre_prior: float
    space: int


class Parsing(NamedTuple):
    """Hard part masks of a batch and the figures that tell whether they are healthy.

    Attributes:
        parts_BHW: int64, 0..num_parts-2 from top to bottom, num_parts-1 background.
        foreground_B: int64, how many cells are foreground.
        far_share_B: float64 in 0..1, share of the pairs of cells within a part that are max_distance or more apart (0
            where there is no pair); above 0.05 on average, max_distance is too small for this number of parts.
    """

    parts_BHW: Ints
    foreground_B: Ints
    far_share_B: Doubles


def parse_parts(
    cells_BDHW: Array | torch.Tensor, *, num_parts: int, max_distance: float, linkage: str = "average"
) -> Ints:
    """Divide every feature map into body parts, as SCWM Sec. 3.2 does: three classes of magnitude, forbidden far pairs.

    Degenerate maps: all cells zero, all background; two distinct magnitudes, the upper is foreground; one distinct
    magnitude that is not zero, all foreground; fewer foreground cells than parts, one cell a part and the remaining
    parts empty.

    Args:
        cells_BDHW: feature maps [B, D, H, W], a NumPy array or a CPU tensor; float16 and bfloat16 are computed in
            float32 (NumPy's uint16 is taken for the bits of bfloat16). Not modified, copied only where not contiguous.
        num_parts: parts counting the background, at least 2.
        max_distance: η, above 0: cells that are this far apart, in cells, are forbidden to share a part (they do so
            only where there would otherwise be more than num_parts - 1 parts).
        linkage: "average", "complete" or "single".

    Returns:
        int64 [B, H, W], 0..num_parts-2 by mean row from the top (ties: the part with the lowest row-major cell first),
        num_parts-1 background. The parts of an image do not depend on the other images of the batch.

    Raises:
        ValueError: a wrong shape or setting, or a map that is not finite (the message has its position in the batch).
    """
    cells, exponent = readable(cells_BDHW, "feature maps")
    if cells.ndim != 4 or min(cells.shape[1:]) < 1:
        raise ValueError(f"expected feature maps [B, D, H, W], got shape {cells.shape}; add the missing axes.")
    batch, depth, height, width = cells.shape
    far_HW = far_offsets(height, width, num_parts, max_distance)
    parsing = _empty_parsing(batch, height, width)
    _in_pieces(
        _parse_some_maps,
        cells.reshape(batch, depth, height * width),
        exponent,
        far_pairs(far_HW),
        _Rule(width, num_parts, linkage_code(linkage), 3, False, 0.0, FORBID),
        parsing,
    )
    refuse_broken(parsing.foreground_B < 0)
    return parsing.parts_BHW


def parse_grams(
    grams_BPP: Array | torch.Tensor,
    *,
    height: int,
    width: int,
    num_parts: int,
    max_distance: float,
    linkage: str,
    classes: int = 3,
    log_magnitude: bool = False,
    centre_prior: float = 0.0,
    space: str = "forbid",
) -> Parsing:
    """Body parts from the inner products of each map's cells, with SCWM's ablations and our switches.

    They are all that the parsing needs of a map, and far smaller than it: 2048 channels of 24 x 8 cells shrink to 1/10.

    Magnitudes are the roots of the diagonal; D_f is the Euclidean distance between the cells at unit length, sqrt(2 - 2
    cos). All in float64.

    Args:
        grams_BPP: inner products [B, P, P], P = height * width row-major, a NumPy array or a CPU tensor of float64,
            float32, float16 or bfloat16 (as a NumPy array: its bits, uint16). Not modified, copied only where not
            contiguous. A factor that is a power of two, one for each image, changes no part.
        height, width: cells of the map.
        num_parts, max_distance, linkage: as in `parse_parts`.
        classes: 3, the two upper classes of magnitude are foreground; or 2, without the foreground correction.
        log_magnitude: take the logarithm of the magnitudes before the k-means; zero cells are background beforehand.
        centre_prior: c >= 0; above 0 the score is magnitude / the map's largest - c * |column - centre column| (with
            log_magnitude: the logarithm of the first term). Degenerate maps are then told by their scores.
        space: "forbid", far pairs are forbidden (the paper); "off", plain agglomeration; "kmeans", the original
            cascade: k-means of the foreground cells at unit length, from the cell of largest magnitude by
            farthest-point initialisation, at most 50 iterations; "rows", the foreground of num_parts - 1 equal rows of
            the map, so that a part is the same height in all images. Linkage has no meaning in the last two.

    Returns:
        A `Parsing`.

    Raises:
        ValueError: a wrong shape or setting, or a matrix that is not finite or has a negative diagonal (the message has
            its position in the batch).
    """
    grams, exponent = readable(grams_BPP, "inner products")
    cells = height * width
    if height < 1 or width < 1 or grams.ndim != 3 or grams.shape[1:] != (cells, cells):
        raise ValueError(
            f"expected inner products [B, {cells}, {cells}] of {height} x {width} cells, got shape {grams.shape}; "
            "pass the height and width of the maps they were computed from."
        )
    refuse_wrong_settings(classes, centre_prior, space)
    far_HW = far_offsets(height, width, num_parts, max_distance)
    parsing = _empty_parsing(len(grams), height, width)
    _in_pieces(
        _parse_some_grams,
        grams,
        exponent,
        far_pairs(far_HW),
        _Rule(
            width, num_parts, linkage_code(linkage), classes, bool(log_magnitude), float(centre_prior), SPACES[space]
        ),
        parsing,
    )
    refuse_broken(parsing.foreground_B < 0)
    return parsing


def _pieces(batch: int) -> int:
    """In how many pieces the batch is parsed: enough to even out the threads' work, few enough to share their room."""
    return min(batch, _PIECES * num_threads())


def refuse_wrong_settings(classes: int, centre_prior: float, space: str) -> None:
    """ValueError for a switch that is not there."""
    if classes not in (2, 3):
        raise ValueError(f"expected classes 2 or 3, got {classes}; correct the setting.")
    if not (centre_prior >= 0 and np.isfinite(centre_prior)):
        raise ValueError(f"expected a finite centre_prior >= 0, got {centre_prior}; 0 switches it off.")
    if space not in SPACES:
        raise ValueError(f"expected space one of {', '.join(SPACES)}, got {space!r}; correct the setting.")


def far_offsets(height: int, width: int, num_parts: int, max_distance: float) -> Array:
    """Whether cells `row` rows and `column` columns apart are max_distance or more apart."""
    if num_parts < 2:
        raise ValueError(f"expected num_parts >= 2 (the background is one), got {num_parts}; correct the setting.")
    if not max_distance > 0:
        raise ValueError(f"expected max_distance > 0 in cells, got {max_distance}; correct the setting.")
    rows_H, columns_W = np.arange(height, dtype=np.float64), np.arange(width, dtype=np.float64)
    return np.sqrt(rows_H[:, None] ** 2 + columns_W**2) >= max_distance


def _empty_parsing(batch: int, height: int, width: int) -> Parsing:
    return Parsing(np.empty((batch, height, width), np.int64), np.zeros(batch, np.int64), np.zeros(batch))


def refuse_broken(broken_B: Array) -> None:
    """ValueError that names the first of the maps that are not finite."""
    if broken_B.any():
        position = int(broken_B.argmax())
        raise ValueError(
            f"expected finite feature maps, got NaN or infinity in image {position} of the batch "
            f"({int(broken_B.sum())} of {len(broken_B)} are broken); look for a diverged network or a bad checkpoint."
        )


def _in_pieces(
    parse_some: Callable[..., None], images: Array, exponent: int, far_PP: Array, rule: _Rule, parsing: Parsing
) -> None:
    """Fills the parsing, a piece of the batch a call of `parse_some`.

    Threads of Python, and no kernel with a `prange`: compiling one would compile all that it calls once more.
    """
    batch, height, width = parsing.parts_BHW.shape
    pieces = _pieces(batch)
    parts_BP = parsing.parts_BHW.reshape(batch, height * width)

    def parse(piece: int) -> None:
        start, stop = piece * batch // pieces, (piece + 1) * batch // pieces
        parse_some(images, exponent, start, stop, far_PP, rule, parts_BP, parsing.foreground_B, parsing.far_share_B)

    side_by_side(parse, range(pieces))


@njit(cache=True, nogil=True)
def _parse_some_grams(
    grams_BPP: Array,
    exponent: int,
    start: int,
    stop: int,
    far_PP: Array,
    rule: _Rule,
    parts_BP: Array,
    foreground_B: Array,
    far_share_B: Array,
) -> None:
    """Images start..stop-1, one after the other: fills parts, foreground (-1: not finite) and far shares."""
    num_cells = len(far_PP)
    room_1P = np.empty((1, num_cells), np.float32)
    magnitudes_P, length_P, cells_P = np.empty(num_cells), np.empty(num_cells), np.empty(num_cells, np.int64)
    sums, division = room_for_sums(num_cells), room_for_division(num_cells, rule.num_parts)
    for image in range(start, stop):
        gram_PP = grams_BPP[image]
        if not magnitudes_of_gram(gram_PP, exponent, room_1P, magnitudes_P):
            foreground_B[image] = -1
            continue
        n = foreground_cells(
            magnitudes_P, rule.width, rule.classes, rule.log_magnitude, rule.centre_prior, sums, cells_P
        )
        cells_F, length_F = cells_P[:n], length_P[:n]
        for i in range(n):
            length_F[i] = magnitudes_P[cells_F[i]]
        cosines_of_gram(gram_PP, exponent, room_1P, cells_F, length_F, division.tree.distances_NS)
        far_share_B[image] = divide(
            division, cells_F, magnitudes_P, far_PP, rule.width, rule.linkage, rule.space, parts_BP[image]
        )
        foreground_B[image] = n


@njit(cache=True, nogil=True)
def _parse_some_maps(
    cells_BDP: Array,
    exponent: int,
    start: int,
    stop: int,
    far_PP: Array,
    rule: _Rule,
    parts_BP: Array,
    foreground_B: Array,
    far_share_B: Array,
) -> None:
    """As `_parse_some_grams`, from the cells."""
    num_cells = len(far_PP)
    room_RP = np.empty((CHANNELS, num_cells), np.float32)
    magnitudes_P, length_P, cells_P = np.empty(num_cells), np.empty(num_cells), np.empty(num_cells, np.int64)
    sums, division = room_for_sums(num_cells), room_for_division(num_cells, rule.num_parts)
    precision = widened(cells_BDP[0, :1], exponent, room_RP).dtype
    scale_P = np.empty(num_cells, precision)
    panel_PD = np.empty((num_cells + TILE - 1, SEGMENT + CHANNELS), precision)
    gram_PP, all_P = np.empty((num_cells + TILE - 1, num_cells + TILE - 1)), np.arange(num_cells)
    for image in range(start, stop):
        cells_DP = cells_BDP[image]
        if not magnitudes_of_map(cells_DP, exponent, room_RP, magnitudes_P):
            foreground_B[image] = -1
            continue
        n = foreground_cells(
            magnitudes_P, rule.width, rule.classes, rule.log_magnitude, rule.centre_prior, sums, cells_P
        )
        cells_F, length_F = cells_P[:n], length_P[:n]
        gram_of_map(cells_DP, exponent, room_RP, cells_F, magnitudes_P, scale_P, panel_PD, gram_PP)
        for i in range(n):
            length_F[i] = np.sqrt(gram_PP[i, i])
        cosines_of_gram(gram_PP, 0, room_RP, all_P[:n], length_F, division.tree.distances_NS)
        far_share_B[image] = divide(
            division, cells_F, magnitudes_P, far_PP, rule.width, rule.linkage, rule.space, parts_BP[image]
        )
        foreground_B[image] = n
