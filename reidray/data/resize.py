"""PIL's bicubic filter for 8-bit pictures, byte for byte, cut to the part of the resized picture that is wanted.

PIL resizes columns, rounds to 8 bits, then resizes rows (from Pillow 13 on rows first where the height shrinks by more
than twice as many pixels as the width), with weights of 22 fractional bits (`Resample.c`: Catmull-Rom, a = -0.5,
widened where the picture shrinks). Here the same integers are added up in an order that vector instructions like: a
pass adds up whole lines of bytes, and for the pass over columns the picture is turned, so that its columns are lines.
A crop out of the resized picture costs no more than what it shows of it.
"""

# h, w = height and width of a picture, H, W = of the result, R = lines, L = bytes of a line, T = lines added up

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from reidray.arrays import Bytes, Ints
from reidray.compiled import njit

_BITS = 22
_HALF = np.int32(1 << (_BITS - 1))
_LANES = 4  # lines that one loop adds up
_SPARE = _LANES - 1  # lines after a picture's end that are read, and have weight 0
_SUPPORT = 2.0

_NO_BOX = np.zeros(4, np.int64)
_BLACK = np.zeros(3, np.uint8)

Weights = NDArray[np.int32]


def resize(image_hw3: Bytes, *, height: int, width: int) -> Bytes:
    """Resizes with PIL's bicubic filter (antialiased where it shrinks), as the reference code of the papers does.

    Args:
      image_hw3: uint8, any size.
      height: of the result, at least 1.
      width: of the result, at least 1.

    Returns:
      uint8 [height, width, 3], equal to PIL's `resize` in every byte; memory of its own.
    """
    resized_HW3 = np.empty((height, width, 3), np.uint8)
    resize_into(image_hw3, resized_HW3)
    return resized_HW3


def resize_into(image_hw3: Bytes, out_HW3: Bytes) -> None:
    """Writes the picture resized to H x W, as `resize`, into `out_HW3` (uint8, C-contiguous)."""
    if image_hw3.shape == out_HW3.shape:
        out_HW3[:] = image_hw3
    else:
        cut(image_hw3, out_HW3, flip=False, top=0, left=0, box_4=_NO_BOX, fill_3=_BLACK)


def cut(image_hw3: Bytes, out_HW3: Bytes, *, flip: bool, top: int, left: int, box_4: Ints, fill_3: Bytes) -> None:
    """Writes a crop of the picture resized to H x W, perhaps mirrored, with an erased box, into `out_HW3`.

    Pixel (y, x) of the result is pixel (y + top, x + left) of the resized picture, x counted from the right where it is
    mirrored; what lies outside of the resized picture or inside the box has the fill colour.

    Args:
      image_hw3: uint8, any size.
      out_HW3: uint8, C-contiguous; the picture is resized to its size.
      flip: mirror the crop.
      top, left: of the crop, in pixels of the resized picture, of either sign.
      box_4: erased rows y0 <= y < y1 and columns x0 <= x < x1 of the result; all 0 for no box.
      fill_3: uint8.
    """
    (h, w, _), (height, width, _) = image_hw3.shape, out_HW3.shape
    _cut(
        np.ascontiguousarray(image_hw3),
        out_HW3,
        *weights(h, height),
        *weights(w, width),
        height < h and h - height > 2 * (w - width),
        flip,
        top,
        left,
        box_4,
        fill_3,
    )


@lru_cache(maxsize=2048)
def weights(size: int, new_size: int) -> tuple[Ints, Weights]:
    """What each line of a resized picture is made of.

    Args:
      size: lines before, at least 1.
      new_size: lines after, at least 1.

    Returns:
      firsts_R, int64 [new_size]: the first line that counts. weights_RT, int32 [new_size, T], T a multiple of 4: of the
      lines from there on, in units of 2^-22. At most three lines lie behind the picture's end; their weight is 0.
    """
    scale = size / new_size
    wider = max(scale, 1.0)
    centres_R = (np.arange(new_size) + 0.5) * scale
    begins_R = np.maximum((centres_R - _SUPPORT * wider + 0.5).astype(np.int64), 0)
    ends_R = np.minimum((centres_R + _SUPPORT * wider + 0.5).astype(np.int64), size)
    taps_T = np.arange(-(-int((ends_R - begins_R).max()) // _LANES) * _LANES)
    firsts_R = np.minimum(begins_R, size + _SPARE - len(taps_T))
    lines_RT = firsts_R[:, None] + taps_T
    x_RT = np.abs((lines_RT - centres_R[:, None] + 0.5) * (1.0 / wider))
    near_RT = (1.5 * x_RT - 2.5) * x_RT * x_RT + 1
    far_RT = (((x_RT - 5) * x_RT + 8) * x_RT - 4) * -0.5
    exact_RT = np.where(x_RT < 1, near_RT, np.where(x_RT < 2, far_RT, 0.0))
    exact_RT[(lines_RT < begins_R[:, None]) | (lines_RT >= ends_R[:, None])] = 0.0
    totals_R = np.zeros(new_size)
    for tap in taps_T:  # in PIL's order: the last bit of a sum depends on it
        totals_R += exact_RT[:, tap]
    exact_RT /= totals_R[:, None]
    rounded_RT = np.trunc(exact_RT * (1 << _BITS) + np.where(exact_RT < 0, -0.5, 0.5))
    return firsts_R, rounded_RT.astype(np.int32)


@njit(cache=True, nogil=True)
def _cut(  # type: ignore[no-untyped-def]
    image_hw3,
    out_HW3,
    row_firsts_H,
    row_weights_HT,
    column_firsts_W,
    column_weights_WT,
    rows_first,
    flip,
    top,
    left,
    box_4,
    fill_3,
):
    h, w, _ = image_hw3.shape
    height, width, _ = out_HW3.shape
    # What shows the picture: rows y0 <= y < y1 and columns x0 <= x < x1 of the result.
    y0, y1 = max(0, -top), min(height, height - top)
    x0, x1 = (max(0, left), min(width, width + left)) if flip else (max(0, -left), min(width, width - left))
    if y0 >= y1 or x0 >= x1:
        _paint(out_HW3, 0, 0, height, width, fill_3)
        return
    column, step = (width - 1 - x0 + left, -1) if flip else (x0 + left, 1)

    out_HL = out_HW3.reshape(height, 3 * width)
    lines_RL = image_hw3.reshape(h, 3 * w)
    if rows_first:
        lines_RL = _rows(lines_RL, row_firsts_H, row_weights_HT, y0 + top, y1 - y0)
        lines_RL = _columns(lines_RL, column_firsts_W, column_weights_WT, column, step, x1 - x0)
        _copy(lines_RL, out_HL, y1 - y0, 3 * (x1 - x0), y0, 3 * x0)
    else:
        lines_RL = _columns(lines_RL, column_firsts_W, column_weights_WT, column, step, x1 - x0)
        _add_up(lines_RL, row_firsts_H, row_weights_HT, y0 + top, 1, out_HL, y0, y1, 3 * x0, 3 * x1)

    _paint(out_HW3, 0, 0, y0, width, fill_3)
    _paint(out_HW3, y0, 0, y1, x0, fill_3)
    _paint(out_HW3, y0, x1, y1, width, fill_3)
    _paint(out_HW3, y1, 0, height, width, fill_3)
    _paint(out_HW3, box_4[0], box_4[1], box_4[2], box_4[3], fill_3)


@njit(cache=True, nogil=True)
def _paint(image_HW3, y0, x0, y1, x1, fill_3):  # type: ignore[no-untyped-def]
    for y in range(y0, y1):
        for x in range(x0, x1):
            image_HW3[y, x, 0], image_HW3[y, x, 1], image_HW3[y, x, 2] = fill_3[0], fill_3[1], fill_3[2]


@njit(cache=True, nogil=True)
def _copy(lines_RL, out_YL, lines, length, y0, begin):  # type: ignore[no-untyped-def]
    """The first bytes of the first lines to line y0, byte `begin`. As a loop: numba compiles slices for seconds."""
    for y in range(lines):
        for i in range(length):
            out_YL[y0 + y, begin + i] = lines_RL[y, i]


@njit(cache=True, nogil=True)
def _rows(lines_hL, firsts_H, weights_HT, row, count):  # type: ignore[no-untyped-def]
    """`count` lines of the picture resized in height, from `row` on."""
    h, length = lines_hL.shape
    spare_hL = np.empty((h + _SPARE, length), np.uint8)
    _copy(lines_hL, spare_hL, h, length, 0, 0)
    resized_YL = np.empty((count, length), np.uint8)
    _add_up(spare_hL, firsts_H, weights_HT, row, 1, resized_YL, 0, count, 0, length)
    return resized_YL


@njit(cache=True, nogil=True)
def _columns(lines_RL, firsts_W, weights_WT, column, step, count):  # type: ignore[no-untyped-def]
    """Lines resized to W pixels, of which `count` pixels are made, from `column` on or backwards from it.

    There are spare lines behind the last, and spare bytes at the end of each.
    """
    turned_LR = _turned(lines_RL, 3 * _SPARE)
    length = 3 * turned_LR.shape[1]
    pixels_wL = turned_LR.reshape(turned_LR.shape[0] // 3, length)
    resized_XL = np.empty((count, length), np.uint8)
    _add_up(pixels_wL, firsts_W, weights_WT, column, step, resized_XL, 0, count, 0, length)
    return _turned(resized_XL.reshape(3 * count, turned_LR.shape[1]), _SPARE)


@njit(cache=True, nogil=True)
def _turned(lines_RL, spare):  # type: ignore[no-untyped-def]
    """The transpose [L + spare, R rounded up to a multiple of 8]; what is beyond L and R is any number.

    Eight lines are woven into one line of 8-byte words, whose words are then the pieces of eight bytes of the result.
    """
    last = len(lines_RL) - 1
    words = np.empty((lines_RL.shape[1] + spare, (last + 8) // 8), np.uint64)
    for group in range(words.shape[1]):
        line = 8 * group
        a_L, b_L = lines_RL[line], lines_RL[min(line + 1, last)]
        c_L, d_L = lines_RL[min(line + 2, last)], lines_RL[min(line + 3, last)]
        e_L, f_L = lines_RL[min(line + 4, last)], lines_RL[min(line + 5, last)]
        g_L, h_L = lines_RL[min(line + 6, last)], lines_RL[min(line + 7, last)]
        for i in range(lines_RL.shape[1]):
            words[i, group] = (
                np.uint64(a_L[i])
                | np.uint64(b_L[i]) << np.uint64(8)
                | np.uint64(c_L[i]) << np.uint64(16)
                | np.uint64(d_L[i]) << np.uint64(24)
                | np.uint64(e_L[i]) << np.uint64(32)
                | np.uint64(f_L[i]) << np.uint64(40)
                | np.uint64(g_L[i]) << np.uint64(48)
                | np.uint64(h_L[i]) << np.uint64(56)
            )
    return words.view(np.uint8)


@njit(cache=True, nogil=True)
def _add_up(lines_RL, firsts_R, weights_RT, place, step, out_YL, y0, y1, begin, end):  # type: ignore[no-untyped-def]
    """Lines y0 to y1 of the result, bytes `begin` to `end`: sums of bytes 0 to end - begin of some lines each, rounded.

    Line y is made as row place + step (y - y0) of the tables says. No line is cut out as an array of its own: numba
    would count references to each, which takes half as long as the sums. Unsigned numbers are not looked at for being
    negative.
    """
    start = np.uint64(begin)
    if weights_RT.shape[1] == _LANES:
        for y in range(y0, y1):
            row = place + step * (y - y0)
            line = firsts_R[row]
            a, b, c, d = weights_RT[row, 0], weights_RT[row, 1], weights_RT[row, 2], weights_RT[row, 3]
            for i in range(end - begin):
                total = np.int32(lines_RL[line, i]) * a + np.int32(lines_RL[line + 1, i]) * b
                total += np.int32(lines_RL[line + 2, i]) * c + np.int32(lines_RL[line + 3, i]) * d
                out_YL[y, start + np.uint64(i)] = _rounded(np.int32(total))
        return
    sums_L = np.empty(end - begin, np.int32)
    for y in range(y0, y1):
        row = place + step * (y - y0)
        for i in range(end - begin):
            sums_L[i] = 0
        for tap in range(0, weights_RT.shape[1], _LANES):
            line = firsts_R[row] + tap
            a, b = weights_RT[row, tap], weights_RT[row, tap + 1]
            c, d = weights_RT[row, tap + 2], weights_RT[row, tap + 3]
            for i in range(end - begin):
                total = np.int32(lines_RL[line, i]) * a + np.int32(lines_RL[line + 1, i]) * b
                total += np.int32(lines_RL[line + 2, i]) * c + np.int32(lines_RL[line + 3, i]) * d
                sums_L[i] += np.int32(total)
        for i in range(end - begin):
            out_YL[y, start + np.uint64(i)] = _rounded(sums_L[i])


@njit(cache=True, nogil=True)
def _rounded(total):  # type: ignore[no-untyped-def]
    """In units of 2^-22 to a byte. The casts keep 32 bits: numba would take 64, and half as many fit a register."""
    whole = np.int32(np.int32(total + _HALF) >> np.int32(_BITS))
    return np.uint8(min(max(whole, np.int32(0)), np.int32(255)))
