"""Global batches: the same pixels, masks and weights whatever the number of workers."""

import itertools
from dataclasses import fields

import numpy as np
import pytest
import torch

from reidray.config import Settings
from reidray.data import augment
from reidray.data.sampling import epoch_batches
from reidray.features import CellGrid
from reidray.methods import make_method
from reidray.training.batches import EpochBatches, plan_batches, shares
from reidray.training.images import MEAN_PIXEL
from tests.reference import augmentation as reference

# N = images, B = global batch, L = parts, S = spaces, H, W = pixels or cells

N, HEIGHT, WIDTH, PARTS = 40, 32, 16, 3
GRID, CELLS = CellGrid(8, 3.5), (4, 2)
EVERYTHING = {"flip": 0.5, "pad": 3, "erase": 0.5, "erase_area": (0.1, 0.4)}
NOTHING = {"flip": 0.0, "pad": 0, "erase": 0.0}


class Pictures:
    """Random images, as `SizedImages` gives them."""

    def __init__(self):
        self.images_NHW3 = np.random.default_rng(0).integers(0, 256, (N, HEIGHT, WIDTH, 3), np.uint8)

    def crops(self, indices, augmentation, *, pad):
        images = self.images_NHW3[indices]
        return augment.augmented(images, augmentation, height=HEIGHT, width=WIDTH, pad=pad, fill=MEAN_PIXEL)


def settings(augmentation=EVERYTHING, name="scwm", group=2, data=None, **method):
    return Settings(
        data={"height": HEIGHT, "width": WIDTH} | (data or {}),
        augment=augmentation,
        model={"bn_group_size": group},
        method={"name": name, "clusters_per_batch": 6, "images_per_cluster": 2, **method},
        scwm={"num_parts": PARTS, "weight_place": "outside", "normalise_weights": "cluster"},
        train={"steps": 3, "seed": 5},
    )


def labels():
    labels_N = np.arange(N) % 8
    labels_N[::9] = -1
    return labels_N


def alphas(parts=PARTS):
    return np.random.default_rng(1).random((N, parts), dtype=np.float32)


def masks():
    soft = np.random.default_rng(2).random((N, PARTS, *CELLS)).astype(np.float32)
    return (soft / soft.sum(1, keepdims=True)).astype(np.float16)


def batches_of(tree, worker=0, workers=1, epoch=1, images=None):
    """What one worker iterates over; like the loop, it fetches the masks of its own images only."""
    planned = plan_batches(tree, labels(), np.full(N, -1), epoch)
    groups, size = shares(tree.num_groups, workers)[worker], tree.model.bn_group_size
    own = np.unique(planned[:, groups.start * size : groups.stop * size])
    return EpochBatches(
        tree,
        make_method(tree),
        images or Pictures(),
        batches=planned,
        labels_N=labels(),
        alphas_NL=alphas(tree.num_parts),
        mask_indices=own if tree.num_parts else None,
        masks_NLHW=masks()[own] if tree.num_parts else None,
        grid=GRID,
        epoch=epoch,
        groups=groups,
    )


def same(found, expected):
    if expected is None:
        return found is None
    if isinstance(expected, torch.Tensor):
        return found.dtype == expected.dtype and torch.equal(found, expected)
    return np.array_equal(found, expected)


# ---- shares


def test_shares_are_contiguous_and_as_even_as_can_be():
    for num_groups, size in itertools.product(range(1, 40), range(1, 20)):
        groups = shares(num_groups, size)
        counts = [len(share) for share in groups]
        assert len(groups) == size
        assert [group for share in groups for group in share] == list(range(num_groups))
        assert max(counts) - min(counts) <= 1
        assert size > num_groups or min(counts) >= 1


def test_shares_by_hand():
    assert shares(4, 1) == [range(4)]
    assert shares(4, 2) == [range(2), range(2, 4)]
    assert shares(3, 2) == [range(2), range(2, 3)]


# ---- one batch, any number of workers


@pytest.mark.parametrize("name", ["scwm", "cluster_contrast"])
@pytest.mark.parametrize("workers", [1, 2, 3, 4])
def test_the_groups_of_all_workers_are_the_batch_of_one_process_bit_for_bit(workers, name):
    tree = settings(name=name)
    alone = list(batches_of(tree))
    together = [list(batches_of(tree, worker, workers)) for worker in range(workers)]
    assert len(alone) == 3
    for number, (step, groups) in enumerate(alone):
        found = [group for worker in together for group in worker[number][1]]
        assert len(groups) == len(found) == 6
        for group, expected in zip(found, groups, strict=True):
            assert same(group.pixels_BHW3, expected.pixels_BHW3)
            for field in fields(expected.targets):
                assert same(getattr(group.targets, field.name), getattr(expected.targets, field.name)), field.name
        for worker in together:
            other = worker[number][0]
            assert other.number == number
            for name_ in ("indices_B", "labels_B", "alphas_BL", "weights_BS", "uniforms_B"):
                assert same(getattr(other, name_), getattr(step, name_)), name_


@pytest.mark.parametrize("group", [4, 6, 12])
def test_the_size_of_a_group_changes_neither_pixels_nor_targets(group):
    def joined(tree):
        return [
            [np.concatenate([g.pixels_BHW3 for g in groups]), torch.cat([g.targets.masks_BLHW for g in groups])]
            for _, groups in batches_of(tree)
        ]

    for found, expected in zip(joined(settings(group=group)), joined(settings()), strict=True):
        assert same(found[0], expected[0])
        assert same(found[1], expected[1])


# ---- what stands in a batch


def test_without_augmentation_groups_are_the_images_and_their_masks():
    for step, groups in batches_of(settings(NOTHING)):
        assert step.indices_B.shape == (12,)
        assert same(np.concatenate([g.pixels_BHW3 for g in groups]), Pictures().images_NHW3[step.indices_B])
        found = torch.cat([g.targets.masks_BLHW for g in groups])
        torch.testing.assert_close(found, torch.from_numpy(masks()[step.indices_B]).float())
        assert bool(torch.cat([g.targets.visible_BHW for g in groups]).all())


def test_a_flip_takes_the_mask_along():
    for step, groups in batches_of(settings({**NOTHING, "flip": 1.0})):
        found = torch.cat([g.targets.masks_BLHW for g in groups])
        expected = torch.from_numpy(masks()[step.indices_B]).float().flip(-1)
        torch.testing.assert_close(found, expected)
        pixels = np.concatenate([g.pixels_BHW3 for g in groups])
        np.testing.assert_array_equal(pixels, Pictures().images_NHW3[step.indices_B][:, :, ::-1])


def test_pixels_are_the_tables_draws_for_the_whole_batch():
    tree = settings()
    for step, groups in batches_of(tree, epoch=4):
        drawn = augment.draw(
            augment.AugmentSettings(**tree.augment.model_dump()),
            seed=5,
            epoch=4,
            step=step.number,
            batch_size=12,
            height=HEIGHT,
            width=WIDTH,
        )
        rows = zip(drawn.flips_B, drawn.dy_B, drawn.dx_B, drawn.boxes_B4, strict=True)
        images = Pictures().images_NHW3[step.indices_B]
        expected = [reference.augmented(image, *row, 3, MEAN_PIXEL) for image, row in zip(images, rows, strict=True)]
        assert same(np.concatenate([g.pixels_BHW3 for g in groups]), np.stack(expected))


def test_moved_masks_sum_to_1_and_erased_cells_are_not_visible():
    tree = settings({**EVERYTHING, "erase": 1.0})
    for step, groups in batches_of(tree):
        moved = torch.cat([g.targets.masks_BLHW for g in groups])
        torch.testing.assert_close(moved.sum(1), torch.ones(12, *CELLS), atol=2e-3, rtol=0)
        visible = torch.cat([g.targets.visible_BHW for g in groups])
        for box, seen in zip(step.augmentation.boxes_B4, visible, strict=True):
            for row, column in np.ndindex(*CELLS):  # cell centres lie on pixels 8 i + 3.5
                y, x = 8 * row + 3.5, 8 * column + 3.5
                erased = box[0] - 0.5 < y < box[2] - 0.5 and box[1] - 0.5 < x < box[3] - 0.5
                assert bool(seen[row, column]) is not bool(erased)


def test_labels_difficulties_and_weights_are_those_of_the_images():
    tree = settings()
    for step, groups in batches_of(tree):
        assert step.labels_B.tolist() == labels()[step.indices_B].tolist()
        assert bool((step.labels_B >= 0).all())
        assert same(step.alphas_BL, torch.from_numpy(alphas()[step.indices_B]))
        expected = make_method(tree).contrast_weights(step.labels_B, step.alphas_BL)
        assert same(step.weights_BS, expected)
        torch.testing.assert_close(step.weights_BS.mean(0), torch.ones(1 + PARTS))  # over the batch, not a group
        for name in ("labels_B", "alphas_BL", "weights_BS"):
            assert same(torch.cat([getattr(g.targets, name) for g in groups]), getattr(step, name))


def test_a_method_without_parts_has_neither_masks_nor_difficulties():
    for step, groups in batches_of(settings(name="cluster_contrast")):
        assert step.alphas_BL.shape == (12, 0)
        assert same(step.weights_BS, torch.ones(12, 1))
        assert all(g.targets.masks_BLHW is None and g.targets.visible_BHW is None for g in groups)


# ---- chance


def test_what_is_random_is_keyed_by_seed_epoch_and_step():
    def draws(tree, epoch):
        return [(step.uniforms_B, step.augmentation.boxes_B4) for step, _ in batches_of(tree, epoch=epoch)]

    one, again = draws(settings(), 1), draws(settings(), 1)
    for (uniforms, boxes), (uniforms_again, boxes_again) in zip(one, again, strict=True):
        assert same(uniforms, uniforms_again)
        assert same(boxes, boxes_again)
        assert bool(((uniforms >= 0) & (uniforms < 1)).all())
    other_seed = settings().model_copy(update={"train": settings().train.model_copy(update={"seed": 6})})
    every = [uniforms for run in (one, draws(settings(), 2), draws(other_seed, 1)) for uniforms, _ in run]
    assert all(not torch.equal(a, b) for a, b in itertools.combinations(every, 2))


def test_batches_are_the_samplers_with_the_settings_numbers():
    tree = settings()
    expected = epoch_batches(
        labels(),
        np.arange(N) % 3,
        num_clusters=6,
        num_instances=2,
        steps=3,
        seed=5,
        epoch=2,
        prefer_other_cameras=True,
    )
    np.testing.assert_array_equal(plan_batches(tree, labels(), np.arange(N) % 3, 2), expected)


def test_unknown_cameras_are_not_preferred():
    unknown = np.full(N, -1)
    found = plan_batches(settings(prefer_other_cameras=True), labels(), unknown, 0)
    np.testing.assert_array_equal(found, plan_batches(settings(prefer_other_cameras=False), labels(), unknown, 0))


# ---- the threads that work ahead


@pytest.mark.parametrize("data", [{"batches_ahead": 1}, {"batches_ahead": 9}, {"loader_threads": 3}])
def test_how_far_and_by_how_many_batches_are_prepared_changes_nothing(data):
    for (step, groups), (expected_step, expected) in zip(
        batches_of(settings(data=data)), batches_of(settings()), strict=True
    ):
        assert step.number == expected_step.number
        assert same(step.indices_B, expected_step.indices_B)
        for group, other in zip(groups, expected, strict=True):
            assert same(group.pixels_BHW3, other.pixels_BHW3)
            assert same(group.targets.masks_BLHW, other.targets.masks_BLHW)


def test_steps_come_in_order_and_can_be_left_early():
    batches = batches_of(settings())
    assert [step.number for step, _ in batches] == [0, 1, 2]
    for step, _ in batches:
        if step.number == 1:
            break
    assert [step.number for step, _ in batches] == [0, 1, 2]


def test_an_image_that_cannot_be_read_stops_the_epoch_with_its_error():
    class Broken(Pictures):
        def crops(self, indices, augmentation, *, pad):
            raise ValueError("pictures/7.jpg is damaged")

    with pytest.raises(ValueError, match=r"pictures/7\.jpg is damaged"):
        next(iter(batches_of(settings(), images=Broken())))
