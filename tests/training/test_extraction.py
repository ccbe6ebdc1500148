"""Extraction: a feature depends on its image alone."""

import numpy as np
import pytest
import torch

from reidray.config import Settings
from reidray.features import build_embedder
from reidray.methods import make_method
from reidray.parsing import gram_matrices
from reidray.spans import Spans
from reidray.training.extraction import autocast, extract_shards
from reidray.training.images import as_input

# B = images, S = spaces, D = feature width, L = parts, H, W = cells, P = H W

SHARDS = [(0, 5), (5, 2), (7, 6)]
N, PARTS, CPU = 13, 3, torch.device("cpu")
STRIPES = PARTS - 1  # as many as there are parts of the foreground


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


def method(name="scwm", **scwm):
    return make_method(Settings(method={"name": name}, scwm={"num_parts": PARTS, **scwm}))


def everything(outputs):
    """What SCWM keeps for labelling, and what it keeps for evaluation."""
    return {**method().to_label(outputs), **method().to_label_images(outputs), **method().to_evaluate(outputs)}


def extracted(model=None, shards=(0, 1, 2), *, batch=4, keep=everything, precision="float32", **more):
    arguments = {"batch": batch, "device": CPU, "precision": precision, "keep": keep, "progress": lambda _: None}
    return list(extract_shards(model or embedder(), Pictures(), list(shards), **(arguments | more)))


def test_every_shard_gives_the_networks_features_in_order():
    model = embedder().eval()
    with torch.no_grad():
        expected = model(as_input(Pictures().images_NHW3, CPU))
    found = extracted(model)
    assert [one.shard for one in found] == [0, 1, 2]
    assert [len(one.arrays["features"]) for one in found] == [5, 2, 6]
    assert all(set(one.arrays) == {"features", "masks", "visibility", "grams"} for one in found)
    visibility_BL = np.concatenate([one.arrays["visibility"] for one in found])
    np.testing.assert_array_equal(visibility_BL, expected.masks_BLHW.half().amax((2, 3)).float().numpy())
    features_BSD = np.concatenate([one.arrays["features"] for one in found])
    assert features_BSD.dtype == np.float32
    np.testing.assert_allclose(features_BSD, expected.features_BSD.numpy(), atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(features_BSD, axis=-1), 1, atol=1e-5)
    masks_BLHW = np.concatenate([one.arrays["masks"] for one in found])
    assert masks_BLHW.dtype == np.float16
    np.testing.assert_allclose(masks_BLHW, expected.masks_BLHW.numpy(), atol=1e-3)
    grams_BHWP = np.concatenate([one.arrays["grams"] for one in found])
    assert grams_BHWP.shape == (N, 4, 2, 8)  # the map's cells, so that a labeller knows their places
    grams_BPP = grams_BHWP.reshape(N, 8, 8)
    cells_BPD = expected.map_BDHW.flatten(2).transpose(1, 2).numpy()
    np.testing.assert_allclose(grams_BPP, cells_BPD @ cells_BPD.transpose(0, 2, 1), rtol=1e-4, atol=1e-4)


def test_a_shard_does_not_depend_on_who_extracts_it_nor_when():
    alone = {one.shard: one for one in extracted()}
    workers = [one for shards in ([2, 0], [1]) for one in extracted(shards=shards)]
    assert [one.shard for one in workers] == [2, 0, 1]
    for one in workers:
        np.testing.assert_array_equal(one.arrays["features"], alone[one.shard].arrays["features"])
        np.testing.assert_array_equal(one.arrays["grams"], alone[one.shard].arrays["grams"])
        np.testing.assert_array_equal(one.arrays["masks"], alone[one.shard].arrays["masks"])


@pytest.mark.parametrize("batch", [1, 3, 100])
def test_the_size_of_a_batch_changes_rounding_at_most(batch):
    for found, expected in zip(extracted(batch=batch), extracted(), strict=True):
        np.testing.assert_allclose(found.arrays["features"], expected.arrays["features"], atol=1e-5)


def test_extraction_leaves_the_network_as_it_was():
    model = embedder().train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    extracted(model)
    assert not model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_methods_without_parts_keep_the_features_alone():
    plain = method("cluster_contrast")
    for keep in (plain.to_label, plain.to_evaluate):
        for one in extracted(embedder(0), keep=keep):
            assert list(one.arrays) == ["features"]
            assert one.arrays["features"].shape[1:] == (1, 192)


def test_grams_are_kept_for_labelling_and_masks_for_evaluation():
    for one in extracted(keep=method().to_label, keep_images=method().to_label_images):
        assert (set(one.arrays), set(one.images)) == ({"features"}, {"grams"})
    for one in extracted(keep=method().to_evaluate):
        assert (set(one.arrays), set(one.images)) == ({"features", "masks", "visibility"}, set())


def test_stripes_have_neither_grams_nor_masks():
    striped = method(parts="stripes")
    for keep in (striped.to_label, striped.to_evaluate):
        for one in extracted(striped.network(), keep=keep, keep_images=striped.to_label_images):
            assert (list(one.arrays), one.images) == (["features"], {})
            assert one.arrays["features"].shape[1:] == (1 + STRIPES, 192)


def test_what_is_kept_is_whatever_the_method_says_in_the_type_it_says():
    def keep(outputs):
        return {"mean": outputs.map_BDHW.mean((1, 2, 3)).double(), "half": outputs.features_BSD[:, 0].half()}

    found = extracted(keep=keep)
    assert [one.arrays["mean"].shape for one in found] == [(5,), (2,), (6,)]
    assert {one.arrays["mean"].dtype for one in found} == {np.dtype(np.float64)}
    assert {one.arrays["half"].dtype for one in found} == {np.dtype(np.float16)}


def test_progress_counts_every_image():
    counts = []
    extracted(progress=counts.append)
    assert counts == [4, 1, 2, 4, 2]


def test_half_precision_is_near_single_precision():
    for found, expected in zip(extracted(precision="bfloat16"), extracted(), strict=True):
        half, single = found.arrays["features"], expected.arrays["features"]
        assert half.dtype == found.arrays["grams"].dtype == np.float32
        assert (half * single).sum(-1).min() > 0.98
        assert not np.array_equal(half, single)


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
    return {"features": features_BSD, "visibility": np.array([[0.25, 1.0, 0.25]], np.float32)}


def joined(arrays, how="concat"):
    return method(feature=how).evaluated(arrays)


def test_the_global_feature_is_evaluated_where_it_is_asked_for_or_is_the_only_one():
    arrays = joined_by_hand()
    np.testing.assert_array_equal(joined(arrays, how="global"), arrays["features"][:, 0])
    only = {"features": arrays["features"][:, :1]}
    np.testing.assert_array_equal(method("cluster_contrast").evaluated(only), arrays["features"][:, 0])


def test_joined_features_weigh_parts_by_visibility_by_hand():
    # Visibilities 1/4 and 1, so the parts are scaled by 1/2 and 1; squared lengths 1 + 1/4 + 1.
    np.testing.assert_allclose(joined(joined_by_hand()), np.array([[1, 0, 0.3, 0.4, 0, 1]]) / 1.5, rtol=1e-6)


def test_joined_features_of_stripes_weigh_all_of_them_alike_by_hand():
    # Two stripes of weight 1, neither of which is a background; squared length 3.
    arrays = {"features": joined_by_hand()["features"][:, : 1 + STRIPES]}
    found = method(parts="stripes", feature="concat").evaluated(arrays)
    np.testing.assert_allclose(found, np.array([[1, 0, 0.6, 0.8, 0, 1]]) / 3**0.5, rtol=1e-6)


def test_the_background_part_has_no_say_in_joined_features():
    arrays = joined_by_hand()
    expected = joined(arrays)
    arrays["features"][:, -1], arrays["visibility"][:, -1] = 0.5, 0.9
    np.testing.assert_array_equal(joined(arrays), expected)


def test_a_part_that_is_missing_in_one_image_does_not_count_in_the_similarity():
    arrays = {name: np.repeat(rows, 2, axis=0) for name, rows in joined_by_hand().items()}
    arrays["visibility"][1, 0] = 0
    arrays["features"][1, 1] = [0.8, -0.6]
    similarity = np.prod(joined(arrays), axis=0).sum()
    arrays["features"][1, 1] = [-0.6, -0.8]
    assert np.prod(joined(arrays), axis=0).sum() == similarity


def test_joined_features_of_a_network_have_unit_length():
    for one in extracted():
        joined_BD = joined(one.arrays)
        assert joined_BD.shape == (len(one.arrays["features"]), 192 * PARTS)
        np.testing.assert_allclose(np.linalg.norm(joined_BD, axis=1), 1, rtol=1e-5)


def test_what_extraction_does_is_recorded_and_counted():
    spans = Spans()
    spans.trace(0)
    extracted_with(spans)
    names = [span.name for span in spans.traced().spans]
    assert {name: names.count(name) for name in set(names)} == {"decode": 3, "data": 3, "forward": 2 + 1 + 2}
    assert spans.counts() == {"extracted images": N}


def extracted_with(spans):
    arguments = {"batch": 4, "device": CPU, "precision": "float32", "keep": everything, "progress": lambda _: None}
    return list(extract_shards(embedder(), Pictures(), [0, 1, 2], spans=spans, **arguments))
