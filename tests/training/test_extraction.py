"""Extraction: a feature depends on its image alone."""

import numpy as np
import pytest
import torch

from reidray.features import build_embedder
from reidray.spans import Spans
from reidray.training.extraction import autocast, extract_shards, gram_matrices, joined_features
from reidray.training.images import as_input

# B = images, S = spaces, D = feature width, L = parts, H, W = cells, P = H W

SHARDS = [(0, 5), (5, 2), (7, 6)]
N, PARTS, CPU = 13, 3, torch.device("cpu")


class Pictures:
    """Random images in shards, as `SizedImages` gives them."""

    def __init__(self):
        self.images_NHW3 = np.random.default_rng(0).integers(0, 256, (N, 32, 16, 3), np.uint8)

    def shard(self, shard):
        first, count = SHARDS[shard]
        return self.images_NHW3[first : first + count]


def embedder(num_parts=PARTS):
    model = build_embedder(backbone="small", pooling="avg", num_parts=num_parts, part_pooling="gap", seed=0)
    generator = torch.Generator().manual_seed(1)
    for name, buffer in model.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_(std=0.1, generator=generator)
    return model


def extracted(model=None, shards=(0, 1, 2), *, batch=4, grams=True, precision="float32", progress=lambda _: None):
    arguments = {"batch": batch, "device": CPU, "precision": precision, "grams": grams, "progress": progress}
    return list(extract_shards(model or embedder(), Pictures(), list(shards), **arguments))


def test_every_shard_gives_the_networks_features_in_order():
    model = embedder().eval()
    with torch.no_grad():
        expected = model(as_input(Pictures().images_NHW3, CPU))
    found = extracted(model)
    assert [one.shard for one in found] == [0, 1, 2]
    assert [len(one.features_BSD) for one in found] == [5, 2, 6]
    assert {one.map_size for one in found} == {(4, 2)}
    features_BSD = np.concatenate([one.features_BSD for one in found])
    assert features_BSD.dtype == np.float32
    np.testing.assert_allclose(features_BSD, expected.features_BSD.numpy(), atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(features_BSD, axis=-1), 1, atol=1e-5)
    masks_BLHW = np.concatenate([one.masks_BLHW for one in found])
    assert masks_BLHW.dtype == np.float16
    np.testing.assert_allclose(masks_BLHW, expected.masks_BLHW.numpy(), atol=1e-3)
    grams_BPP = np.concatenate([one.grams_BPP for one in found])
    cells_BPD = expected.map_BDHW.flatten(2).transpose(1, 2).numpy()
    np.testing.assert_allclose(grams_BPP, cells_BPD @ cells_BPD.transpose(0, 2, 1), rtol=1e-4, atol=1e-4)


def test_a_shard_does_not_depend_on_who_extracts_it_nor_when():
    alone = {one.shard: one for one in extracted()}
    workers = [one for shards in ([2, 0], [1]) for one in extracted(shards=shards)]
    assert [one.shard for one in workers] == [2, 0, 1]
    for one in workers:
        np.testing.assert_array_equal(one.features_BSD, alone[one.shard].features_BSD)
        np.testing.assert_array_equal(one.grams_BPP, alone[one.shard].grams_BPP)
        np.testing.assert_array_equal(one.masks_BLHW, alone[one.shard].masks_BLHW)


@pytest.mark.parametrize("batch", [1, 3, 100])
def test_the_size_of_a_batch_changes_rounding_at_most(batch):
    for found, expected in zip(extracted(batch=batch), extracted(), strict=True):
        np.testing.assert_allclose(found.features_BSD, expected.features_BSD, atol=1e-5)


def test_extraction_leaves_the_network_as_it_was():
    model = embedder().train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    extracted(model)
    assert not model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_methods_without_parts_leave_no_masks_and_grams_are_kept_on_demand():
    for one in extracted(embedder(0), grams=False):
        assert one.features_BSD.shape[1:] == (1, 192)
        assert one.masks_BLHW is None
        assert one.grams_BPP is None
    assert all(one.grams_BPP.shape[1:] == (8, 8) for one in extracted())


def test_progress_counts_every_image():
    counts = []
    extracted(progress=counts.append)
    assert counts == [4, 1, 2, 4, 2]


def test_half_precision_is_near_single_precision():
    for found, expected in zip(extracted(precision="bfloat16"), extracted(), strict=True):
        assert found.features_BSD.dtype == found.grams_BPP.dtype == np.float32
        assert (found.features_BSD * expected.features_BSD).sum(-1).min() > 0.98
        assert not np.array_equal(found.features_BSD, expected.features_BSD)


@pytest.mark.parametrize(("precision", "dtype"), [("float32", torch.float32), ("bfloat16", torch.bfloat16)])
def test_the_settings_precision_is_that_of_products(precision, dtype):
    with autocast(CPU, precision):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == dtype


def test_gram_matrices_by_hand():
    map_BDHW = torch.tensor([[[[1.0, 2.0], [0.0, -1.0]], [[0.0, 1.0], [3.0, 1.0]]]])  # cells (1,0) (2,1) (0,3) (-1,1)
    expected = [[[1, 2, 0, -1], [2, 5, 3, -1], [0, 3, 9, 3], [-1, -1, 3, 2]]]
    assert gram_matrices(map_BDHW).tolist() == expected
    assert gram_matrices(map_BDHW.bfloat16()).dtype == torch.float32


# ---- the evaluated feature


def joined_by_hand():
    features_BSD = np.array([[[1, 0], [0.6, 0.8], [0, 1], [1, 0]]], np.float32)  # global, two parts, background
    masks_BLHW = np.zeros((1, 3, 2, 1), np.float16)
    masks_BLHW[0, :, :, 0] = [[0.25, 0.0], [0.5, 1.0], [0.25, 0.0]]
    return features_BSD, masks_BLHW


def test_the_global_feature_is_evaluated_by_default():
    features_BSD, masks_BLHW = joined_by_hand()
    np.testing.assert_array_equal(joined_features(features_BSD, masks_BLHW, how="global"), features_BSD[:, 0])
    np.testing.assert_array_equal(joined_features(features_BSD, None, how="concat"), features_BSD[:, 0])


def test_joined_features_weigh_parts_by_visibility_by_hand():
    # Visibilities 1/4 and 1, so the parts are scaled by 1/2 and 1; squared lengths 1 + 1/4 + 1.
    found = joined_features(*joined_by_hand(), how="concat")
    np.testing.assert_allclose(found, np.array([[1, 0, 0.3, 0.4, 0, 1]]) / 1.5, rtol=1e-6)


def test_the_background_part_has_no_say_in_joined_features():
    features_BSD, masks_BLHW = joined_by_hand()
    expected = joined_features(features_BSD, masks_BLHW, how="concat")
    features_BSD[:, -1], masks_BLHW[:, -1] = 0.5, 0.9
    np.testing.assert_array_equal(joined_features(features_BSD, masks_BLHW, how="concat"), expected)


def test_a_part_that_is_missing_in_one_image_does_not_count_in_the_similarity():
    features_BSD, masks_BLHW = (np.repeat(rows, 2, axis=0) for rows in joined_by_hand())
    masks_BLHW[1, 0] = 0
    features_BSD[1, 1] = [0.8, -0.6]
    similarity = np.prod(joined_features(features_BSD, masks_BLHW, how="concat"), axis=0).sum()
    features_BSD[1, 1] = [-0.6, -0.8]
    assert np.prod(joined_features(features_BSD, masks_BLHW, how="concat"), axis=0).sum() == similarity


def test_joined_features_of_a_network_have_unit_length():
    for one in extracted():
        joined_BD = joined_features(one.features_BSD, one.masks_BLHW, how="concat")
        assert joined_BD.shape == (len(one.features_BSD), 192 * PARTS)
        np.testing.assert_allclose(np.linalg.norm(joined_BD, axis=1), 1, rtol=1e-5)


def test_what_extraction_does_is_recorded_and_counted():
    spans = Spans()
    spans.trace(0)
    extracted_with(spans)
    names = [span.name for span in spans.traced().spans]
    assert {name: names.count(name) for name in set(names)} == {"decode": 3, "data": 3, "forward": 2 + 1 + 2}
    assert spans.counts() == {"extracted images": N}


def extracted_with(spans):
    arguments = {"batch": 4, "device": CPU, "precision": "float32", "grams": True, "progress": lambda _: None}
    return list(extract_shards(embedder(), Pictures(), [0, 1, 2], spans=spans, **arguments))
