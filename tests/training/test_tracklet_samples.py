"""A tracklet is one sample: its feature is the mean over its frames, and a step takes some of them."""

import numpy as np
import pytest
import torch

from reidray.config import Settings
from reidray.data import augment
from reidray.data.frames import draw_frames
from reidray.features import apply_statistics, build_embedder, build_embedding_network, take_statistics
from reidray.methods import make_method
from reidray.training.extraction import extract_shards
from reidray.training.images import SizedTracklets, as_input

# N = tracklets, B = batch, T = frames taken, H, W = pixels

H, W, CPU = 32, 16, torch.device("cpu")
COUNTS = [3, 1, 4, 2, 6]
SHARDS = [(0, 2), (2, 3)]
FIRSTS = np.cumsum([0, *COUNTS[:-1]])
PIXELS = np.random.default_rng(0).integers(0, 256, (sum(COUNTS), H, W, 3), np.uint8)
NOTHING = augment.AugmentSettings(flip=0, pad=0, erase=0, erase_area=(0.1, 0.2), erase_ratio=(0.5, 2.0))


class Frames:
    """Random images, as `SizedImages` gives them."""

    def rows(self, indices):
        return PIXELS[indices]

    def crops(self, images, augmentation, *, pad):
        return augment.augmented(
            PIXELS[images.reshape(-1)], augmentation, height=H, width=W, pad=pad, fill=np.zeros(3, np.uint8)
        )


class Images:
    """Which images are in a shard, as `ShardedImages` says it."""

    def shard_range(self, shard):
        first, count = SHARDS[shard]
        return int(FIRSTS[first]), sum(COUNTS[first : first + count])


class Packed:
    """Tracklets in shards, as `ShardedTracklets` gives them."""

    firsts_N, counts_N, frames = FIRSTS, np.array(COUNTS, np.int32), Images()

    def shard_range(self, shard):
        return SHARDS[shard]


def tracklets(taken=4):
    return SizedTracklets(Packed(), Frames(), taken)


def networks():
    plain = build_embedder(backbone="small", pooling="avg", num_parts=3, part_pooling="gap", seed=0)
    embedding = build_embedding_network(
        backbone="small", poolings=("avg", "max"), embedding=8, dropout=0.0, non_local="norm", seed=0
    )
    return [plain, embedding]


FIELDS = ("necks_BSD", "features_B1P")


@torch.no_grad()
def slowly(model, field):
    """An output for each tracklet by itself, frame by frame: [N, S, D]."""
    rows = []
    for first, count in zip(FIRSTS, COUNTS, strict=True):
        pooled = [model.pool(as_input(PIXELS[[frame]], CPU)) for frame in range(first, first + count)]
        means = [sum(one[place] for one in pooled) / count for place in range(model.averaged)]
        rows.append(getattr(model.finish(means), field))
    return torch.cat(rows).numpy()


# ---- which frames a step takes


def test_frames_are_drawn_without_replacement_and_in_order():
    drawn_BT = draw_frames(np.array([16, 40, 900]), 16, seed=1, epoch=2, step=3)
    assert drawn_BT[0].tolist() == list(range(16))
    for drawn_T, count in zip(drawn_BT, (16, 40, 900), strict=True):
        assert len(set(drawn_T.tolist())) == 16
        assert (np.diff(drawn_T) > 0).all()
        assert 0 <= drawn_T.min() <= drawn_T.max() < count


def test_short_tracklets_give_their_frames_as_evenly_as_possible():
    drawn_BT = draw_frames(np.array([1, 3, 5]), 8, seed=0, epoch=0, step=0)
    assert drawn_BT[0].tolist() == [0] * 8
    for drawn_T, count in ((drawn_BT[1], 3), (drawn_BT[2], 5)):
        times = np.bincount(drawn_T, minlength=count)
        assert times.max() - times.min() <= 1


def test_frames_depend_on_their_key_alone_and_each_is_drawn_in_time():
    counts = np.full(64, 20)
    one = draw_frames(counts, 4, seed=1, epoch=2, step=3)
    np.testing.assert_array_equal(one, draw_frames(counts, 4, seed=1, epoch=2, step=3))
    for other in ({"seed": 2}, {"epoch": 1}, {"step": 0}):
        assert (one != draw_frames(counts, 4, **({"seed": 1, "epoch": 2, "step": 3} | other))).any()
    times = np.bincount(
        np.concatenate([draw_frames(counts, 4, seed=0, epoch=0, step=step).ravel() for step in range(40)])
    )
    expected = 40 * 64 * 4 / 20
    assert np.abs(times - expected).max() < 5 * np.sqrt(expected)


def test_crops_are_of_the_frames_that_were_drawn():
    samples, indices = tracklets(), np.array([4, 0, 4])
    images_BT = samples.chosen(indices, seed=3, epoch=1, step=2)
    frames_BT = draw_frames(np.array([6, 3, 6]), 4, seed=3, epoch=1, step=2)
    np.testing.assert_array_equal(images_BT, FIRSTS[indices][:, None] + frames_BT)
    table = augment.draw(NOTHING, seed=0, epoch=0, step=0, batch_size=12, height=H, width=W)
    np.testing.assert_array_equal(samples.crops(images_BT, table, pad=0), PIXELS[images_BT])


def test_the_picture_of_a_tracklet_is_its_middle_frame():
    np.testing.assert_array_equal(tracklets().rows(np.array([0, 4, 1])), PIXELS[[1, 13, 3]])


# ---- features


@pytest.mark.parametrize("batch", [1, 3, 100])
@pytest.mark.parametrize("which", [0, 1])
def test_a_feature_is_that_of_the_mean_over_all_frames_whatever_the_batch(which, batch):
    model, field, counted = networks()[which].eval(), FIELDS[which], []
    found = list(
        extract_shards(
            model,
            tracklets(),
            [1, 0],
            batch=batch,
            device=CPU,
            precision="float32",
            keep=lambda outputs: {"rows": getattr(outputs, field)},
            keep_images=lambda pooled: {"vectors": pooled[0].flatten(1)},
            progress=counted.append,
        )
    )
    assert ([one.shard for one in found], counted) == ([1, 0], [3, 2])
    rows = np.concatenate([found[1].arrays["rows"], found[0].arrays["rows"]])
    np.testing.assert_allclose(rows, slowly(model, field), atol=1e-5)
    assert [len(one.images["vectors"]) for one in found] == [12, 4]  # a row a frame


@pytest.mark.parametrize("feature", ["concat", "global"])
def test_a_tracklet_of_one_frame_is_ranked_as_that_image(feature):
    """Also where parts count by their visibility, which is averaged over frames."""
    method = make_method(Settings(method={"name": "scwm"}, scwm={"num_parts": 3, "feature": feature}))
    model, arguments = method.network(), {"batch": 3, "device": CPU, "precision": "float32"}
    generator = torch.Generator().manual_seed(0)
    torch.nn.init.normal_(model.part_classifier.weight, std=0.3, generator=generator)  # masks that differ

    class Single(Packed):
        firsts_N, counts_N = np.arange(sum(COUNTS)), np.ones(sum(COUNTS), np.int32)
        frames = type("All", (), {"shard_range": lambda self, _: (0, sum(COUNTS))})()

        def shard_range(self, shard):
            return 0, sum(COUNTS)

    class Whole:
        def shard(self, shard):
            return PIXELS

    found = []
    for samples in (SizedTracklets(Single(), Frames(), 2), Whole()):
        (one,) = extract_shards(model, samples, [0], keep=method.to_evaluate, progress=lambda _: None, **arguments)
        found.append(method.evaluated(one.arrays))
    np.testing.assert_allclose(found[0], found[1], atol=1e-6)


@pytest.mark.parametrize("which", [0, 1])
def test_a_tracklet_of_one_frame_is_that_image(which):
    model = networks()[which].eval()
    images = as_input(PIXELS[:6], CPU)
    with torch.no_grad():
        for one, other in zip(model(images), model(images.unsqueeze(1)), strict=True):
            torch.testing.assert_close(one, other)


@pytest.mark.parametrize("which", [0, 1])
def test_the_order_of_the_frames_changes_nothing(which):
    model = networks()[which].eval()
    tracks = as_input(PIXELS[:12].reshape(3, 4, H, W, 3), CPU)
    assert tracks.shape == (3, 4, 3, H, W)
    with torch.no_grad():
        one, other = (model(some)[1] for some in (tracks, tracks[:, [2, 0, 3, 1]]))
    torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


def test_gradients_reach_all_frames_alike():
    """The mean over T frames gives each a T-th of the gradient: of T equal frames, together what one would have."""
    model = networks()[0].eval()
    image = as_input(PIXELS[:2], CPU).requires_grad_()
    tracks = as_input(PIXELS[:2], CPU).unsqueeze(1).repeat(1, 3, 1, 1, 1).requires_grad_()
    weights = torch.randn(2, 4, 192, generator=torch.Generator().manual_seed(0))
    for given in (image, tracks):
        (model(given).features_BSD * weights).sum().backward()
    torch.testing.assert_close(tracks.grad.sum(1), image.grad, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(tracks.grad[:, 0], tracks.grad[:, 2])


def test_batch_norms_of_the_trunk_see_frames_and_those_of_the_necks_tracklets():
    model = networks()[0].train()
    model(as_input(PIXELS[:12].reshape(3, 4, H, W, 3), CPU))
    statistics = take_statistics(model)
    apply_statistics(model, statistics.unsqueeze(0))
    with torch.no_grad():
        model.train()
        pooled = model.pool(as_input(PIXELS[:12], CPU))[0].unflatten(0, (3, 4)).mean(1)
    neck = model.necks[0]
    torch.testing.assert_close(neck.running_mean, 0.1 * pooled.mean(0), atol=1e-4, rtol=1e-3)


# ---- SCWM: parts of frames


def test_losses_of_parts_are_means_over_the_frames_of_a_tracklet():
    method = make_method(Settings(method={"name": "scwm"}, scwm={"num_parts": 3, "foreground_classes": 2}))
    model = method.network().train()
    generator = torch.Generator().manual_seed(0)
    outputs = model(as_input(PIXELS[:12].reshape(3, 4, H, W, 3), CPU))
    masks = torch.rand(outputs.part_logits_BLHW.shape, generator=generator).softmax(1)
    visible = torch.ones(len(masks), *masks.shape[2:])

    class OfFrames(dict):
        labels_B = torch.zeros(12)

    class OfTracklets(dict):
        labels_B = torch.zeros(3)

    tables = {"masks": masks, "visible": visible}
    by_frame = method._clustering_terms(outputs, OfFrames(tables))
    found = method._clustering_terms(outputs, OfTracklets(tables))
    assert set(found) == {"parsing", "diversity"}
    for name, loss_B in found.items():
        torch.testing.assert_close(loss_B, by_frame[name].view(3, 4).mean(1))
