"""Pictures of masks and ranked lists: their size, their colours, their frames."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from reidray.report.pictures import draw_masks, draw_ranked_lists
from reidray.report.pieces import PARTS, RIGHT, WRONG


def read(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB"))


def greys(count: int, height: int = 128, width: int = 64) -> np.ndarray:
    return np.full((count, height, width, 3), 120, dtype=np.uint8)


def bands(count: int, values: list[int], height: int = 128, width: int = 64) -> np.ndarray:
    rows = np.repeat(values, height // len(values))
    return np.broadcast_to(rows[None, :, None], (count, height, width)).astype(np.uint8).copy()


def mixed(part: int) -> np.ndarray:
    return 0.4 * 120 + 0.6 * np.array(PARTS[part])


def test_masks_stand_below_their_images_in_their_colours(tmp_path: Path):
    path = tmp_path / "deep" / "masks.png"
    draw_masks(path, greys(6), bands(6, [0, 1, 2, 3]), [f"{n}.jpg" for n in range(6)], num_parts=4)
    page = read(path)
    assert page.shape == (26 + 2 * 202 + 22 + 10, 56 + 6 * 106, 3)
    column = page[26 + 202 :, 56 + 40]
    for part, row in ((0, 24), (1, 72), (2, 120)):
        np.testing.assert_allclose(column[row], mixed(part), atol=2)
    np.testing.assert_allclose(column[168], 0.45 * 120, atol=2)  # the background: dark, without a colour


def test_true_masks_have_a_row_and_a_legend_of_their_own(tmp_path: Path):
    truth = bands(6, [0, 1, 2, 4])
    draw_masks(tmp_path / "m.png", greys(6), bands(6, [3, 0, 1, 2]), list("abcdef"), num_parts=4, truth_BHW=truth)
    page = read(tmp_path / "m.png")
    assert page.shape[0] == 26 + 3 * 202 + 2 * 22 + 10
    column = page[26 + 2 * 202 :, 56 + 40]
    np.testing.assert_allclose(column[24], 0.45 * 120, atol=2)
    np.testing.assert_allclose(column[72], mixed(0), atol=2)
    np.testing.assert_allclose(column[168], mixed(3), atol=2)


@pytest.mark.parametrize("kind", [np.uint8, np.int64])
def test_many_parts_one_image_and_any_integers_can_be_drawn(tmp_path: Path, kind: type):
    parts = bands(1, [0, 5, 10, 14]).astype(kind)
    draw_masks(tmp_path / "m.png", greys(1), parts, ["x" * 200], num_parts=15)
    assert read(tmp_path / "m.png").std() > 1


def test_inputs_of_masks_are_left_alone(tmp_path: Path):
    images, parts = greys(2), bands(2, [0, 1])
    draw_masks(tmp_path / "m.png", images, parts, ["a", "b"], num_parts=3)
    assert (images == greys(2)).all()
    assert (parts == bands(2, [0, 1])).all()


def test_images_parts_and_names_must_go_together(tmp_path: Path):
    with pytest.raises(ValueError, match=r"must go together; got images \(2, 128, 64, 3\), parts \(3, 128, 64\)"):
        draw_masks(tmp_path / "m.png", greys(2), bands(3, [0, 1]), ["a", "b"], num_parts=2)
    with pytest.raises(ValueError, match="1 names"):
        draw_masks(tmp_path / "m.png", greys(2), bands(2, [0, 1]), ["a"], num_parts=2)
    with pytest.raises(ValueError, match="one shape"):
        draw_masks(tmp_path / "m.png", greys(1), bands(1, [0]), ["a"], num_parts=2, truth_BHW=bands(2, [0]))


def frame_pixels(page: np.ndarray, colour: tuple[int, int, int], row: int) -> np.ndarray:
    return (page[row] == np.array(colour)).all(axis=-1)


def test_right_is_framed_solid_and_wrong_dashed_in_another_colour(tmp_path: Path):
    galleries = [list(greys(10)), list(greys(10))]
    right = [[True] + [False] * 9, [True] * 10]
    draw_ranked_lists(tmp_path / "r.png", greys(2), galleries, right, ["q1.jpg", "q2.jpg"])
    page = read(tmp_path / "r.png")
    outer = 64 + 10
    assert page.shape == (28 + 2 * (138 + 8 + 18) + 30, 12 + outer + 26 + 10 * (outer + 8) + 4, 3)
    first = 12 + outer + 26
    assert frame_pixels(page, RIGHT, 28)[first : first + outer].all()
    second = slice(first + outer + 8, first + 2 * outer + 8)
    dashes = frame_pixels(page, WRONG, 28)[second]
    assert dashes.any()
    assert not dashes.all()
    assert not frame_pixels(page, RIGHT, 28)[second].any()
    assert not frame_pixels(page, WRONG, 28 + 164).any()  # the second row has no wrong one


def test_rows_of_different_length_and_images_of_different_size_can_be_drawn(tmp_path: Path):
    galleries = [[greys(1, 40, 90)[0], greys(1, 300, 20)[0]], []]
    draw_ranked_lists(
        tmp_path / "r.png", [greys(1)[0], greys(1, 1, 1)[0]], galleries, [[True, False], []], ["a", "b" * 300]
    )
    assert read(tmp_path / "r.png").std() > 1


def test_queries_galleries_flags_and_names_must_go_together(tmp_path: Path):
    for queries, galleries, right, names in (
        (greys(2), [list(greys(3))], [[True] * 3], ["a"]),
        (greys(1), [list(greys(3))], [[True] * 2], ["a"]),
        (greys(1), [list(greys(3))], [[True] * 3], []),
        (greys(0), [], [], []),
    ):
        with pytest.raises(ValueError, match="must go together"):
            draw_ranked_lists(tmp_path / "r.png", queries, galleries, right, names)
