"""Global batches: the same pixels, masks and weights whatever the number of workers."""

import itertools

import numpy as np
import pytest
import torch

from reidray.config import Settings
from reidray.data import augment
from reidray.data.sampling import epoch_batches
from reidray.features import CellGrid
from reidray.methods import make_method
from reidray.methods.method import Method
from reidray.methods.step import Targets
from reidray.training.batches import EpochBatches, shares
from reidray.training.images import MEAN_PIXEL
from tests.reference import augmentation as reference

# N = images, B = global batch, L = parts, S = vectors, H, W = pixels or cells

N, HEIGHT, WIDTH, PARTS = 40, 32, 16, 3
GRID, CELLS = CellGrid(8, 3.5), (4, 2)
EVERYTHING = {"flip": 0.5, "pad": 3, "erase": 0.5, "erase_area": (0.1, 0.4)}
NOTHING = {"flip": 0.0, "pad": 0, "erase": 0.0}


class Pictures:
    """Random images, as `SizedImages` gives them."""

    def __init__(self):
        self.images_NHW3 = np.random.default_rng(0).integers(0, 256, (N, HEIGHT, WIDTH, 3), np.uint8)

    def chosen(self, indices_B, *, seed, epoch, step):
        return indices_B[:, None]

    def crops(self, indices, augmentation, *, pad):
        images = self.images_NHW3[indices.ravel()]
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


def cameras():
    return np.arange(N) % 3


def batches_of(tree, worker=0, workers=1, epoch=1, images=None, method=None, tables=None, first=0):
    """What one worker iterates over; like the loop, it fetches the maps of its own images only."""
    method = method or make_method(tree)
    planned = method.batches(labels(), np.full(N, -1), epoch)
    groups, size = shares(tree.num_groups, workers)[worker], tree.model.bn_group_size
    own = np.unique(planned[first:, groups.start * size : groups.stop * size])
    return EpochBatches(
        tree,
        method,
        images or Pictures(),
        batches=planned,
        labels_N=labels(),
        cameras_N=cameras(),
        tables={name: alphas() for name in method.tables} if tables is None else tables,
        map_indices=own,
        maps={name: masks()[own] for name in method.maps},
        grid=GRID,
        epoch=epoch,
        groups=groups,
        device=torch.device("cpu"),
        first=first,
    )


def joined(groups, name):
    """A table of the groups' targets, for the whole batch."""
    return torch.cat([group.targets[name] for group in groups])


def same(found, expected):
    if isinstance(expected, torch.Tensor):
        return found.dtype == expected.dtype and torch.equal(found, expected)
    return np.array_equal(found, expected)


def assert_same_targets(found, expected):
    for name in ("indices_B", "labels_B", "cameras_B"):
        assert same(getattr(found, name), getattr(expected, name)), name
    assert list(found.tables) == list(expected.tables)
    for name, rows in expected.tables.items():
        assert same(found[name], rows), name


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


@pytest.mark.parametrize("name", ["scwm", "cluster_contrast", "aac", "pplr"])
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
            assert same(group.pixels, expected.pixels)
            assert_same_targets(group.targets, expected.targets)
        for worker in together:
            other = worker[number][0]
            assert other.number == number
            assert same(other.uniforms_B, step.uniforms_B)
            assert_same_targets(other.targets, step.targets)


@pytest.mark.parametrize("group", [4, 6, 12])
def test_the_size_of_a_group_changes_neither_pixels_nor_targets(group):
    def together(tree):
        return [[np.concatenate([g.pixels for g in groups]), joined(groups, "masks")] for _, groups in batches_of(tree)]

    for found, expected in zip(together(settings(group=group)), together(settings()), strict=True):
        assert same(found[0], expected[0])
        assert same(found[1], expected[1])


# ---- what stands in a batch


def test_without_augmentation_groups_are_the_images_and_their_masks():
    for step, groups in batches_of(settings(NOTHING)):
        assert step.targets.indices_B.shape == (12,)
        assert same(np.concatenate([g.pixels for g in groups]), Pictures().images_NHW3[step.targets.indices_B])
        found = joined(groups, "masks")
        torch.testing.assert_close(found, torch.from_numpy(masks()[step.targets.indices_B]).float())
        assert bool(joined(groups, "visible").all())


def test_a_flip_takes_the_mask_along():
    for step, groups in batches_of(settings({**NOTHING, "flip": 1.0})):
        found = joined(groups, "masks")
        expected = torch.from_numpy(masks()[step.targets.indices_B]).float().flip(-1)
        torch.testing.assert_close(found, expected)
        pixels = np.concatenate([g.pixels for g in groups])
        np.testing.assert_array_equal(pixels, Pictures().images_NHW3[step.targets.indices_B][:, :, ::-1])


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
        images = Pictures().images_NHW3[step.targets.indices_B]
        expected = [reference.augmented(image, *row, 3, MEAN_PIXEL) for image, row in zip(images, rows, strict=True)]
        assert same(np.concatenate([g.pixels for g in groups]), np.stack(expected))


def test_moved_masks_sum_to_1_and_erased_cells_are_not_visible():
    tree = settings({**EVERYTHING, "erase": 1.0})
    for step, groups in batches_of(tree):
        moved = joined(groups, "masks")
        torch.testing.assert_close(moved.sum(1), torch.ones(12, *CELLS), atol=2e-3, rtol=0)
        visible = joined(groups, "visible")
        for box, seen in zip(step.augmentation.boxes_B4, visible, strict=True):
            for row, column in np.ndindex(*CELLS):  # cell centres lie on pixels 8 i + 3.5
                y, x = 8 * row + 3.5, 8 * column + 3.5
                erased = box[0] - 0.5 < y < box[2] - 0.5 and box[1] - 0.5 < x < box[3] - 0.5
                assert bool(seen[row, column]) is not bool(erased)


def test_labels_difficulties_and_weights_are_those_of_the_images():
    tree = settings()
    for step, groups in batches_of(tree):
        assert step.targets.labels_B.tolist() == labels()[step.targets.indices_B].tolist()
        assert bool((step.targets.labels_B >= 0).all())
        assert step.targets.cameras_B.tolist() == cameras()[step.targets.indices_B].tolist()
        assert same(step.targets["alphas"], torch.from_numpy(alphas()[step.targets.indices_B]))
        of_batch = Targets(
            step.targets.indices_B,
            step.targets.labels_B,
            step.targets.cameras_B,
            {"alphas": step.targets["alphas"]},
        )
        assert same(step.targets["weights"], make_method(tree).targets(of_batch)["weights"])
        torch.testing.assert_close(step.targets["weights"].mean(0), torch.ones(1 + PARTS))  # of the whole batch
        for name in ("indices_B", "labels_B", "cameras_B"):
            assert same(torch.cat([getattr(g.targets, name) for g in groups]), getattr(step.targets, name))
        for name in ("alphas", "weights"):
            assert same(joined(groups, name), step.targets[name])


def test_a_method_without_tables_and_maps_has_neither():
    for step, groups in batches_of(settings(name="cluster_contrast")):
        assert step.targets.tables == {}
        assert all(g.targets.tables == {} for g in groups)


class Recorded(Method):
    """A method that notes what it is asked for, with two tables and two maps."""

    tables = ("scores", "marks")
    maps = ("masks", "others")

    def __init__(self, settings):
        super().__init__(settings)
        self.asked = []

    def label(self, search):
        raise NotImplementedError

    def group_losses(self, outputs, targets, memories, heads, epoch):
        raise NotImplementedError

    def targets(self, targets):
        self.asked.append(targets)
        return {"ranks": targets["scores"].argsort().argsort()}  # needs the whole batch

    def moved_maps(self, maps, moved):
        self.asked.append(moved)
        return {"both": torch.stack([maps["masks"], maps["others"]], 1)}


def recorded():
    tree = settings()
    scores = np.random.default_rng(4).random(N)
    marks = np.arange(2 * N, dtype=np.int16).reshape(N, 2)
    method = Recorded(tree)
    return method, scores, marks, batches_of(tree, 1, 2, method=method, tables={"scores": scores, "marks": marks})


def test_tables_of_any_shape_and_type_go_with_their_images_and_targets_see_the_whole_batch():
    method, scores, marks, batches = recorded()
    for step, groups in batches:
        indices = step.targets.indices_B.numpy()
        assert same(step.targets["scores"], torch.from_numpy(scores[indices]))
        assert same(step.targets["marks"], torch.from_numpy(marks[indices]))
        assert step.targets["ranks"].tolist() == scores[indices].argsort().argsort().tolist()
        assert list(step.targets.tables) == ["scores", "marks", "ranks"]
        for place, group in zip(range(3, 6), groups, strict=True):  # the second worker's
            for name in ("scores", "marks", "ranks"):
                assert same(group.targets[name], step.targets[name][2 * place : 2 * place + 2])
    whole_batches = [asked for asked in method.asked if isinstance(asked, Targets)]
    assert [len(asked.labels_B) for asked in whole_batches] == [12] * 3
    assert all(list(asked.tables) == ["scores", "marks"] for asked in whole_batches)


def test_maps_are_those_of_the_groups_images_and_come_with_how_they_moved():
    method, _, _, batches = recorded()
    drawn = []
    for step, groups in batches:
        for place, group in zip(range(3, 6), groups, strict=True):
            own = slice(2 * place, 2 * place + 2)
            expected = torch.from_numpy(masks()[group.targets.indices_B])
            assert same(group.targets["both"], torch.stack([expected, expected], 1))
            assert list(group.targets.tables) == ["scores", "marks", "ranks", "both"]
            drawn.append((step.number, own, step.augmentation.rows(own)))
    asked = [moved for moved in method.asked if not isinstance(moved, Targets)]
    assert len(asked) == len(drawn) == 9
    for name in ("flips_B", "dy_B", "dx_B", "boxes_B4"):  # the steps are prepared by a thread in their order
        found = [getattr(moved, name).tolist() for moved in asked]
        assert found == [getattr(rows, name).tolist() for _, _, rows in drawn]
    assert {(moved.grid, moved.image_size, moved.pad) for moved in asked} == {(GRID, (HEIGHT, WIDTH), 3)}


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
    np.testing.assert_array_equal(make_method(tree).batches(labels(), cameras(), 2), expected)


def test_unknown_cameras_are_not_preferred():
    unknown = np.full(N, -1)
    found, expected = (
        make_method(settings(prefer_other_cameras=preferred)).batches(labels(), unknown, 0)
        for preferred in (True, False)
    )
    np.testing.assert_array_equal(found, expected)


# ---- the threads that work ahead


@pytest.mark.parametrize("data", [{"batches_ahead": 1}, {"batches_ahead": 9}, {"loader_threads": 3}])
def test_how_far_and_by_how_many_batches_are_prepared_changes_nothing(data):
    for (step, groups), (expected_step, expected) in zip(
        batches_of(settings(data=data)), batches_of(settings()), strict=True
    ):
        assert step.number == expected_step.number
        assert same(step.targets.indices_B, expected_step.targets.indices_B)
        for group, other in zip(groups, expected, strict=True):
            assert same(group.pixels, other.pixels)
            assert same(group.targets["masks"], other.targets["masks"])


def test_steps_come_in_order_and_can_be_left_early():
    batches = batches_of(settings())
    assert [step.number for step, _ in batches] == [0, 1, 2]
    for step, _ in batches:
        if step.number == 1:
            break
    assert [step.number for step, _ in batches] == [0, 1, 2]


def test_an_epoch_can_be_gone_on_with_from_any_step():
    whole = list(batches_of(settings()))
    rest = batches_of(settings(), first=1)
    assert len(rest) == 3
    for (step, groups), (expected_step, expected) in zip(rest, whole[1:], strict=True):
        assert step.number == expected_step.number
        assert same(step.uniforms_B, expected_step.uniforms_B)
        assert_same_targets(step.targets, expected_step.targets)
        for group, other in zip(groups, expected, strict=True):
            assert same(group.pixels, other.pixels)
            assert_same_targets(group.targets, other.targets)


def test_an_image_that_cannot_be_read_stops_the_epoch_with_its_error():
    class Broken(Pictures):
        def crops(self, indices, augmentation, *, pad):
            raise ValueError("pictures/7.jpg is damaged")

    with pytest.raises(ValueError, match=r"pictures/7\.jpg is damaged"):
        next(iter(batches_of(settings(), images=Broken())))
