"""Losses of PPLR: by hand, against tests/reference/pplr.py, by invariants, and their gradients."""

import math

import pytest
import torch
import torch.nn.functional as F

from reidray.losses import (
    agreement_smoothed_loss,
    camera_proxy_contrast,
    distilled_global_targets,
    identity_loss,
    label_smoothed_loss,
    refined_part_targets,
    soft_margin_triplet,
)
from tests.reference import pplr as reference

# B = images, P = parts, C = clusters, D = feature width, Q = proxies

SEEDS = range(5)


def doubles(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def integers(high, count, seed):
    return torch.randint(high, (count,), generator=torch.Generator().manual_seed(seed))


def assert_close(found, expected):
    torch.testing.assert_close(found, torch.as_tensor(expected, dtype=found.dtype))


# ---- labels smoothed by agreement, and by a number


def parts(seed, clusters=6):
    """Logits, labels and agreements of 7 images with 3 parts; agreements 0 and 1 occur."""
    agreements_BP = torch.rand(7, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    agreements_BP[0, 0], agreements_BP[1, 1] = 0.0, 1.0
    return 2 * doubles(7, 3, clusters, seed=seed + 100), integers(clusters, 7, seed), agreements_BP


def test_agreement_weighs_the_label_against_the_uniform_distribution_by_hand():
    logits_BPC = torch.tensor([[[0.0, math.log(3)]] * 3], dtype=torch.float64)  # p = (1/4, 3/4)
    losses_BP = agreement_smoothed_loss(logits_BPC, torch.tensor([1]), torch.tensor([[1.0, 0.0, 0.25]]).double())
    of_label, of_uniform = math.log(4 / 3), 0.5 * math.log(2) + 0.5 * math.log(2 / 3)
    assert_close(losses_BP, [[of_label, of_uniform, 0.25 * of_label + 0.75 * of_uniform]])


@pytest.mark.parametrize("seed", SEEDS)
def test_losses_of_parts_agree_with_the_loops(seed):
    logits_BPC, labels_B, agreements_BP = parts(seed, clusters=2 + seed)
    by_agreement_BP = agreement_smoothed_loss(logits_BPC, labels_B, agreements_BP)
    by_number_BP = label_smoothed_loss(logits_BPC, labels_B, smoothing=0.1)
    for i, label in enumerate(labels_B.tolist()):
        for p, logits_C in enumerate(logits_BPC[i].tolist()):
            expected = reference.agreement_smoothed(logits_C, label, agreements_BP[i, p].item())
            assert_close(by_agreement_BP[i, p], expected)
            assert_close(by_number_BP[i, p], reference.label_smoothed(logits_C, label, 0.1))


def test_full_agreement_is_cross_entropy_and_none_asks_for_equal_logits():
    logits_BPC, labels_B, agreements_BP = parts(0)
    ones_BP, zeros_BP = torch.ones_like(agreements_BP), torch.zeros_like(agreements_BP)
    for part in range(3):
        expected_B = F.cross_entropy(logits_BPC[:, part], labels_B, reduction="none")
        assert_close(agreement_smoothed_loss(logits_BPC, labels_B, ones_BP)[:, part], expected_B)
    assert bool((agreement_smoothed_loss(logits_BPC, labels_B, zeros_BP) > 0).all())
    assert_close(agreement_smoothed_loss(torch.full_like(logits_BPC, 3.0), labels_B, zeros_BP), zeros_BP)


def test_smoothing_by_agreement_is_the_refined_target_of_scwm_but_for_a_constant():
    logits_BPC, labels_B, agreements_BP = parts(1)
    logits_BPC.requires_grad_()
    here_BP = agreement_smoothed_loss(logits_BPC, labels_B, agreements_BP)
    there_BP = identity_loss(logits_BPC, refined_part_targets(labels_B, agreements_BP, 6))
    assert_close(there_BP - here_BP, (1 - agreements_BP) * math.log(6))
    weights_BP = doubles(7, 3, seed=9)
    (of_here,) = torch.autograd.grad(here_BP, logits_BPC, weights_BP)
    (of_there,) = torch.autograd.grad(there_BP, logits_BPC, weights_BP)
    torch.testing.assert_close(of_here, of_there)
    assert bool((of_here != 0).all())


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_smoothing_by_a_number_is_that_of_pytorch(smoothing):
    logits_BPC, labels_B, _ = parts(2)
    losses_BP = label_smoothed_loss(logits_BPC, labels_B, smoothing=smoothing)
    for part in range(3):
        expected_B = F.cross_entropy(logits_BPC[:, part], labels_B, label_smoothing=smoothing, reduction="none")
        assert_close(losses_BP[:, part], expected_B)


def by_number(logits_BPC, labels_B, _):
    return label_smoothed_loss(logits_BPC, labels_B, smoothing=0.1)


@pytest.mark.parametrize("loss", [agreement_smoothed_loss, by_number])
def test_losses_of_parts_move_with_the_batch_and_do_not_see_a_constant_in_the_logits(loss):
    logits_BPC, labels_B, agreements_BP = parts(3)
    losses_BP = loss(logits_BPC, labels_B, agreements_BP)
    order = torch.randperm(7, generator=torch.Generator().manual_seed(0))
    assert_close(loss(logits_BPC[order], labels_B[order], agreements_BP[order]), losses_BP[order])
    assert_close(loss(logits_BPC + 5, labels_B, agreements_BP), losses_BP)
    assert loss(logits_BPC[:0], labels_B[:0], agreements_BP[:0]).shape == (0, 3)


@pytest.mark.parametrize("loss", [agreement_smoothed_loss, by_number])
def test_losses_of_parts_have_right_gradients(loss):
    logits_BPC, labels_B, agreements_BP = parts(3)
    assert torch.autograd.gradcheck(lambda logits: loss(logits, labels_B, agreements_BP), logits_BPC.requires_grad_())


def test_losses_of_parts_are_finite_for_sure_and_wrong_predictions():
    logits_BPC = torch.tensor([[[0.0, 200.0, -200.0]]], requires_grad=True)
    loss = agreement_smoothed_loss(logits_BPC, torch.tensor([2]), torch.tensor([[0.5]])).sum()
    loss.backward()
    assert math.isfinite(loss.item())
    assert bool(torch.isfinite(logits_BPC.grad).all())


@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0])
def test_labels_of_the_whole_that_parts_refine_are_those_of_scwm(beta):
    logits_BPC, labels_B, agreements_BP = parts(4)
    global_logits_BC = doubles(7, 6, seed=5)
    targets_BC = distilled_global_targets(labels_B, agreements_BP, logits_BPC, beta=beta)
    expected = [
        reference.part_guided(*image, beta)
        for image in zip(
            global_logits_BC.tolist(), logits_BPC.tolist(), labels_B.tolist(), agreements_BP.tolist(), strict=True
        )
    ]
    assert_close(identity_loss(global_logits_BC, targets_BC), expected)


# ---- triplets


def test_triplets_on_a_line_by_hand():
    features_BD = torch.tensor([[0.0], [1.0], [3.0]], dtype=torch.float64, requires_grad=True)
    losses_B = soft_margin_triplet(features_BD, torch.tensor([4, 4, 7]))
    expected = [math.log1p(math.exp(1 - 3)), math.log1p(math.exp(1 - 2)), math.log1p(math.exp(1e-6 - 2))]
    assert_close(losses_B, expected)
    # The first image's loss is log(1 + exp((x1 - x0) - (x2 - x0))): it moves positive and negative, not the anchor.
    (gradient_BD,) = torch.autograd.grad(losses_B[0], features_BD)
    slope = 1 / (1 + math.exp(2))
    assert_close(gradient_BD, [[0.0], [slope], [-slope]])


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("labels", [[0] * 4 + [1] * 4, [2, 0, 2, 2, 5, 0, 2, 9], [0, 1, 2, 3], [1, 1, 1]])
def test_triplets_agree_with_the_loop(seed, labels):
    features_BD = doubles(len(labels), 5, seed=seed)
    expected = [reference.triplet(features_BD.tolist(), labels, anchor) for anchor in range(len(labels))]
    assert_close(soft_margin_triplet(features_BD, torch.tensor(labels)), expected)


def test_triplets_of_one_cluster_have_no_loss_and_no_gradient():
    features_BD = doubles(4, 3, seed=0).requires_grad_()
    losses_B = soft_margin_triplet(features_BD, torch.full((4,), 3))
    losses_B.sum().backward()
    assert torch.equal(losses_B, torch.zeros_like(losses_B))
    assert torch.equal(features_BD.grad, torch.zeros_like(features_BD))


def test_an_image_alone_of_its_cluster_is_pushed_from_its_nearest_negative_only():
    features_BD = torch.tensor([[0.0, 0.0], [3.0, 4.0], [30.0, 40.0]], dtype=torch.float64, requires_grad=True)
    losses_B = soft_margin_triplet(features_BD, torch.tensor([0, 1, 1]))
    assert losses_B[0].item() == pytest.approx(math.log1p(math.exp(1e-6 - 5)))
    (gradient_BD,) = torch.autograd.grad(losses_B[0], features_BD)
    slope = 1 / (1 + math.exp(5))
    expected = torch.tensor([[0.6, 0.8], [-0.6, -0.8], [0.0, 0.0]], dtype=torch.float64) * slope
    torch.testing.assert_close(gradient_BD, expected, rtol=1e-5, atol=0)


def test_equal_images_have_finite_gradients():
    features_BD = torch.ones(6, 3, requires_grad=True)
    losses_B = soft_margin_triplet(features_BD, torch.tensor([0, 0, 0, 1, 1, 2]))
    losses_B.sum().backward()
    assert_close(losses_B, [math.log(2)] * 6)
    assert torch.equal(features_BD.grad, torch.zeros(6, 3))


def test_triplets_of_far_images_are_finite():
    features_BD = torch.tensor([[0.0], [1e6], [2.0], [3.0]], requires_grad=True)
    losses_B = soft_margin_triplet(features_BD, torch.tensor([0, 0, 1, 1]))
    losses_B.sum().backward()
    assert losses_B[0].item() == pytest.approx(1e6 - 2)
    assert bool(torch.isfinite(features_BD.grad).all())


def test_triplets_depend_on_distances_and_nothing_else():
    features_BD, labels_B = doubles(9, 4, seed=1), torch.tensor([2, 0, 0, 1, 2, 1, 2, 2, 0])
    losses_B = soft_margin_triplet(features_BD, labels_B)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(0))
    assert_close(soft_margin_triplet(features_BD[order], labels_B[order]), losses_B[order])
    assert_close(soft_margin_triplet(features_BD, 100 - 7 * labels_B), losses_B)
    turned, _ = torch.linalg.qr(doubles(4, 4, seed=2))
    assert_close(soft_margin_triplet(features_BD @ turned + 10, labels_B), losses_B)
    # log(exp(loss) - 1) is d_p - d_n, which grows with the features
    assert_close(soft_margin_triplet(3 * features_BD, labels_B).expm1().log(), 3 * losses_B.expm1().log())


@pytest.mark.parametrize("labels", [[0, 0, 0, 1, 1, 1], [0, 1, 1, 2, 2, 2]])
def test_triplets_have_right_gradients_in_all_their_images(labels):
    features_BD = doubles(6, 4, seed=3).requires_grad_()
    assert torch.autograd.gradcheck(lambda features: soft_margin_triplet(features, torch.tensor(labels)), features_BD)
    soft_margin_triplet(features_BD, torch.tensor(labels)).sum().backward()
    assert bool((features_BD.grad != 0).all())


def test_triplets_take_a_group_without_images():
    features_BD = torch.ones(0, 4, requires_grad=True)
    losses_B = soft_margin_triplet(features_BD, torch.ones(0, dtype=torch.int64))
    assert losses_B.shape == (0,)
    losses_B.sum().backward()


# ---- contrast between cameras


def seen(seed, images=8, width=5):
    """Features of a batch, and proxies of 4 clusters; cluster 2 is under one camera only."""
    pairs = torch.tensor([[0, 0], [0, 2], [0, 5], [1, 1], [1, 2], [2, 0], [3, 0], [3, 1], [3, 2], [3, 5]])
    proxies_QD = F.normalize(doubles(len(pairs), width, seed=seed), dim=1)
    labels_Q, cameras_Q = pairs.T
    chosen = torch.cat([torch.tensor([5]), integers(len(pairs), images - 1, seed)])
    features_BD = F.normalize(doubles(images, width, seed=seed + 50), dim=1)
    return features_BD, labels_Q[chosen], cameras_Q[chosen], proxies_QD, labels_Q, cameras_Q


def test_contrast_between_cameras_by_hand():
    # Of cluster 0 under cameras 0 (the image's own), 1 and 2, and of cluster 1 under cameras 0, 1 and 2.
    similarities = torch.tensor([0.9, 0.5, 0.1, 0.3, -0.2, 0.2], dtype=torch.float64)
    labels_Q, cameras_Q = torch.tensor([0, 0, 0, 1, 1, 1]), torch.tensor([0, 1, 2, 0, 1, 2])
    one = torch.tensor([0])
    arguments = (torch.ones(1, 1).double(), one, one, similarities[:, None], labels_Q, cameras_Q)
    (loss,) = camera_proxy_contrast(*arguments, temperature=0.1, num_negatives=2)
    total = math.exp(5) + math.exp(1) + math.exp(3) + math.exp(2)
    assert loss.item() == pytest.approx(math.log(total) - (5 + 1) / 2)
    (loss,) = camera_proxy_contrast(*arguments, temperature=0.1, num_negatives=50)
    assert loss.item() == pytest.approx(math.log(total + math.exp(-2)) - (5 + 1) / 2)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("temperature", "num_negatives"), [(0.07, 1), (0.07, 3), (0.5, 6), (1.0, 50)])
def test_contrast_between_cameras_agrees_with_the_loop(seed, temperature, num_negatives):
    batch = seen(seed)
    settings = {"temperature": temperature, "num_negatives": num_negatives}
    expected = [
        reference.camera_contrast(*image, *(rows.tolist() for rows in batch[3:]), *settings.values())
        for image in zip(*(rows.tolist() for rows in batch[:3]), strict=True)
    ]
    found_B = camera_proxy_contrast(*batch, **settings)
    assert_close(found_B, expected)
    assert found_B[0].item() == 0  # cluster 2
    assert bool((found_B[batch[1] != 2] > 0).all())


def test_an_image_without_a_positive_has_no_gradient_and_counts_in_the_mean():
    features_BD, *rest = seen(0)
    features_BD.requires_grad_()
    losses_B = camera_proxy_contrast(features_BD, *rest, temperature=0.07, num_negatives=3)
    losses_B.mean().backward()
    assert torch.equal(features_BD.grad[0], torch.zeros(5, dtype=torch.float64))
    assert bool(torch.isfinite(features_BD.grad).all())
    with_positive = rest[0] != 2
    assert_close(losses_B.mean(), losses_B[with_positive].sum() / len(features_BD))
    alone = [rows[:1] for rows in (features_BD, *rest[:2])]
    assert camera_proxy_contrast(*alone, *rest[2:], temperature=0.07, num_negatives=3).tolist() == [0]


def test_without_other_clusters_the_cameras_of_the_own_one_share_the_target():
    features_BD, labels_B, cameras_B, proxies_QD, _, _ = seen(1, images=2)
    cameras_Q, zeros_Q = torch.arange(10), torch.zeros(10, dtype=torch.int64)
    arguments = (features_BD, torch.zeros_like(labels_B), cameras_B, proxies_QD, zeros_Q, cameras_Q)
    losses_B = camera_proxy_contrast(*arguments, temperature=0.1, num_negatives=50)
    logits_BQ = features_BD @ proxies_QD.T / 0.1
    for i, camera in enumerate(cameras_B.tolist()):
        others_Q = logits_BQ[i, cameras_Q != camera]
        assert_close(losses_B[i], -others_Q.log_softmax(0).mean())


def test_neither_the_own_camera_nor_easy_negatives_matter():
    features_BD, labels_B, cameras_B, proxies_QD, labels_Q, cameras_Q = (rows.clone() for rows in seen(2))
    settings = {"temperature": 0.07, "num_negatives": 2}
    image = slice(1, 2)
    arguments = (features_BD[image], labels_B[image], cameras_B[image])
    loss = camera_proxy_contrast(*arguments, proxies_QD, labels_Q, cameras_Q, **settings)
    similarities_Q = features_BD[1] @ proxies_QD.T
    other_Q = labels_Q != labels_B[1]
    least_needed = similarities_Q[other_Q].sort(descending=True).values[1]
    idle_Q = (other_Q & (similarities_Q < least_needed)) | (~other_Q & (cameras_Q == cameras_B[1]))
    assert 0 < idle_Q.sum() < len(idle_Q)
    proxies_QD[idle_Q] = -features_BD[1]
    assert torch.equal(camera_proxy_contrast(*arguments, proxies_QD, labels_Q, cameras_Q, **settings), loss)


def test_contrast_between_cameras_does_not_depend_on_the_order_of_images_or_proxies():
    batch = seen(3)
    settings = {"temperature": 0.07, "num_negatives": 3}
    losses_B = camera_proxy_contrast(*batch, **settings)
    images, rows = (torch.randperm(n, generator=torch.Generator().manual_seed(1)) for n in (8, 10))
    moved = [x[images] for x in batch[:3]] + [x[rows] for x in batch[3:]]
    assert_close(camera_proxy_contrast(*moved, **settings), losses_B[images])
    for image in range(8):
        single = [x[image : image + 1] for x in batch[:3]]
        assert_close(camera_proxy_contrast(*single, *batch[3:], **settings), losses_B[image : image + 1])


def test_contrast_between_cameras_has_similarities_over_the_temperature():
    features_BD, *rest = seen(4)
    losses_B = camera_proxy_contrast(features_BD, *rest, temperature=0.07, num_negatives=3)
    assert_close(camera_proxy_contrast(4 * features_BD, *rest, temperature=0.28, num_negatives=3), losses_B)


@pytest.mark.parametrize("num_negatives", [2, 50])
def test_contrast_between_cameras_has_right_gradients(num_negatives):
    features_BD, *rest = seen(5)
    assert torch.autograd.gradcheck(
        lambda features: camera_proxy_contrast(features, *rest, temperature=0.5, num_negatives=num_negatives),
        features_BD.requires_grad_(),
    )


def test_contrast_between_cameras_takes_a_group_without_images():
    batch = seen(6)
    features_BD = batch[0][:0].requires_grad_()
    arguments = (features_BD, *(rows[:0] for rows in batch[1:3]), *batch[3:])
    losses_B = camera_proxy_contrast(*arguments, temperature=0.07, num_negatives=3)
    assert losses_B.shape == (0,)
    losses_B.sum().backward()
