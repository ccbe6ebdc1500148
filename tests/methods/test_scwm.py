"""SCWM's terms: each against the loops of tests/reference/losses.py, and every switch."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from reidray.config import Settings
from reidray.features import Features
from reidray.methods import make_method
from reidray.methods.step import Beginning, Targets
from reidray.training.replica import Replicated
from tests.reference import losses as reference
from tests.reference import memory as memory_reference

# B = images, C = clusters, L = parts (the background last), S = 1 + L vectors, H, W = cells, D = feature width

B, C, L, D, H, W = 6, 4, 3, 5, 4, 2
LABELS = torch.tensor([2, 0, 0, 2, 3, 0])
TERMS = ["parsing", "diversity", "global_contrast", "part_contrast", "separation", "global_identity", "part_identity"]
WEIGHT_OF = {
    "parsing": "parsing_weight",
    "diversity": "diversity_weight",
    "global_contrast": "global_memory_weight",
    "part_contrast": "part_memory_weight",
    "separation": "separation_weight",
    "global_identity": "global_identity_weight",
    "part_identity": "part_identity_weight",
}
PAPER = {  # spelled out, so that the defaults may be others
    **dict.fromkeys(WEIGHT_OF.values(), 1.0),
    "weight_place": "outside",
    "normalise_weights": "cluster",
    "weighted_update": "once",
    "diversity_cells": "mean",
    "background_in_losses": True,
    "background_in_difficulty": True,
    "beta": 0.35,
    "part_refinement_from": 5,
    "label_smoothing": 0.1,
}


def random(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def method(temperature=0.1, update="average", momentum=0.2, **scwm):
    settings = Settings(
        method={"name": "scwm", "temperature": temperature, "update": update, "momentum": momentum},
        scwm={"num_parts": L, **PAPER, **scwm},
    )
    return make_method(settings)


def memory():
    return F.normalize(random(C, 1 + L, D, seed=1), dim=-1)


def replica():
    return {"features": Replicated(memory())}


def heads_of(one, memories=None):
    return one.heads(Beginning(memories or replica(), LABELS.numpy(), np.full(B, -1), {}))


def alphas():
    return torch.rand(B, L, generator=torch.Generator().manual_seed(2))


def features():
    necks_BSD, logits_BLHW = 2 * random(B, 1 + L, D, seed=3), random(B, L, H, W, seed=4)
    return Features(
        torch.zeros(B, D, H, W), necks_BSD, F.normalize(necks_BSD, dim=-1), logits_BLHW, logits_BLHW.softmax(1)
    )


def of_batch(labels_B=LABELS, alphas_BL=None):
    """Targets of a global batch before its maps."""
    tables = {"alphas": alphas() if alphas_BL is None else alphas_BL}
    return Targets(torch.arange(len(labels_B)), labels_B, torch.full_like(labels_B, -1), tables)


def contrast_weights(one, labels_B=LABELS, alphas_BL=None):
    return one.targets(of_batch(labels_B, alphas_BL))["weights"]


def targets(one):
    visible_BHW = torch.ones(B, H, W)
    visible_BHW[1, :2] = 0
    masks_BLHW = random(B, L, H, W, seed=5).softmax(1)
    maps = {"masks": masks_BLHW, "visible": visible_BHW}
    return of_batch().with_tables({"weights": contrast_weights(one), **maps})


def losses(epoch=9, **scwm):
    one = method(**scwm)
    return one.group_losses(features(), targets(one), replica(), heads_of(one), epoch)


def close(found_B, expected):
    torch.testing.assert_close(found_B, torch.tensor(expected, dtype=torch.float32), rtol=1e-4, atol=1e-5)


def image_by_image(term):
    return [term(i) for i in range(B)]


# ---- the terms


def test_all_terms_stand_in_the_dictionary_one_value_an_image():
    terms = losses()
    assert list(terms) == TERMS
    assert all(term.shape == (B,) and bool(torch.isfinite(term).all()) for term in terms.values())


def test_clustering_terms_are_equations_4_and_5():
    terms, said, wanted = losses(), features(), targets(method())
    close(
        terms["parsing"],
        image_by_image(
            lambda i: reference.parsing(
                said.part_logits_BLHW[i].tolist(), wanted["masks"][i].tolist(), wanted["visible"][i].tolist()
            )
        ),
    )
    close(terms["diversity"], image_by_image(lambda i: reference.diversity(said.masks_BLHW[i].tolist())))


def contrast_of(i, space, weight=1.0):
    return reference.cluster_nce(
        features().features_BSD[i, space].tolist(), int(LABELS[i]), memory()[:, space].tolist(), 0.1, weight
    )


@pytest.mark.parametrize("over", ["cluster", "batch"])
@pytest.mark.parametrize("place", ["outside", "inside", "none"])
@pytest.mark.parametrize("background", [True, False])
def test_memory_terms_are_equations_10_and_11(place, over, background):
    switches = {"weight_place": place, "normalise_weights": over, "background_in_losses": background}
    terms = losses(**switches)
    kept = range(1, 1 + L) if background else range(1, L)

    raw = [[1 - sum(row) / L, *row] for row in alphas().tolist()]
    weights = memory_reference.weights(raw, LABELS.tolist(), over)
    means = [sum(column) / B for column in zip(*weights, strict=True)]
    weights = [[weight / mean for weight, mean in zip(row, means, strict=True)] for row in weights]

    def contrast(i, space):
        if place == "outside":
            return weights[i][space] * contrast_of(i, space)
        return contrast_of(i, space, weights[i][space] if place == "inside" else 1.0)

    close(terms["global_contrast"], image_by_image(lambda i: contrast(i, 0)))
    close(terms["part_contrast"], image_by_image(lambda i: sum(contrast(i, s) for s in kept) / len(kept)))
    own = list(kept)
    close(
        terms["separation"],
        image_by_image(
            lambda i: reference.separation(
                features().features_BSD[i, own].tolist(), memory()[LABELS[i], own].tolist(), 0.1
            )
        ),
    )


def logits_of(i, space):
    """Classifier rows are the centroids; they are applied to the features before unit length."""
    return [reference.dot(features().necks_BSD[i, space].tolist(), row) for row in memory()[:, space].tolist()]


@pytest.mark.parametrize("background", [True, False])
@pytest.mark.parametrize("epoch", [4, 5])
def test_identity_terms_are_equations_13_to_15(epoch, background):
    terms = losses(epoch=epoch, background_in_losses=background, label_smoothing=0.15)
    parts = L if background else L - 1

    def global_term(i):
        part_logits = [logits_of(i, 1 + part) for part in range(parts)]
        wanted = reference.global_targets(int(LABELS[i]), alphas()[i, :parts].tolist(), part_logits, 0.35)
        return reference.cross_entropy(logits_of(i, 0), wanted)

    def part_term(i):
        alphas_L = alphas()[i, :parts].tolist() if epoch >= 5 else [0.85] * parts
        wanted = reference.part_targets(int(LABELS[i]), alphas_L, C)
        each = [reference.cross_entropy(logits_of(i, 1 + part), wanted[part]) for part in range(parts)]
        return sum(each) / parts

    close(terms["global_identity"], image_by_image(global_term))
    close(terms["part_identity"], image_by_image(part_term))


@pytest.mark.parametrize(("start", "smoothed"), [(0, []), (3, [0, 1, 2]), (5, [0, 1, 2, 3, 4])])
def test_parts_are_refined_from_the_epoch_of_the_settings_and_smoothed_before(start, smoothed):
    found = [losses(epoch=epoch, part_refinement_from=start)["part_identity"] for epoch in range(7)]
    plain = losses(epoch=0, part_refinement_from=99)["part_identity"]
    assert [epoch for epoch, loss in enumerate(found) if torch.equal(loss, plain)] == smoothed
    # the global term knows no such epoch
    early, late = (losses(epoch=epoch, part_refinement_from=start)["global_identity"] for epoch in (0, 6))
    assert torch.equal(early, late)


def test_the_background_part_moves_no_loss_where_it_is_left_out():
    one = method(background_in_losses=False)
    said, other_memory = features(), memory()
    changed = said._replace(necks_BSD=said.necks_BSD.clone(), features_BSD=said.features_BSD.clone())
    changed.necks_BSD[:, -1], changed.features_BSD[:, -1] = 7.0, D**-0.5
    other_memory[:, -1] = other_memory[:, -1].flip(0)
    expected = one.group_losses(said, targets(one), replica(), heads_of(one), 9)
    others = {"features": Replicated(other_memory)}
    found = one.group_losses(changed, targets(one), others, heads_of(one, others), 9)
    for name in TERMS:
        assert torch.equal(found[name], expected[name]), name


# ---- weights of terms


@pytest.mark.parametrize("term", TERMS)
def test_a_term_of_weight_0_is_left_out_and_moves_no_other(term):
    terms, whole = losses(**{WEIGHT_OF[term]: 0.0}), losses()
    assert list(terms) == [name for name in TERMS if name != term]
    for name, loss in terms.items():
        assert torch.equal(loss, whole[name]), name


@pytest.mark.parametrize("term", TERMS)
def test_a_term_is_proportional_to_its_weight(term):
    torch.testing.assert_close(losses(**{WEIGHT_OF[term]: 2.5})[term], 2.5 * losses()[term])


def test_there_are_heads_only_where_an_identity_term_has_a_weight():
    assert heads_of(method(global_identity_weight=0.0)) is not None
    assert heads_of(method(part_identity_weight=0.0)) is not None
    assert heads_of(method(global_identity_weight=0.0, part_identity_weight=0.0)) is None
    terms = losses(global_identity_weight=0.0, part_identity_weight=0.0)
    assert list(terms) == TERMS[:5]


def test_heads_start_as_the_centroids_and_leave_them_alone():
    centroids_CSD = memory()
    heads = heads_of(method(), {"features": Replicated(centroids_CSD)})
    assert [tuple(parameter.shape) for parameter in heads.parameters()] == [(1 + L, C, D)]
    logits_BSC = heads(features().necks_BSD)
    assert logits_BSC.shape == (B, 1 + L, C)
    close(logits_BSC[2, 1], logits_of(2, 1))
    with torch.no_grad():
        heads.weight_SCD.zero_()
    assert torch.equal(centroids_CSD, memory())


# ---- difficulty


@pytest.mark.parametrize("background", [True, False])
def test_raw_weights_are_1_minus_the_mean_for_the_whole_and_alpha_for_the_parts(background):
    raw_BS = method(background_in_difficulty=background).raw_weights(torch.tensor([[0.5, 0.25, 0.0], [1.0, 1.0, 1.0]]))
    of_whole = 1 - 0.75 / 3 if background else 1 - 0.75 / 2
    torch.testing.assert_close(raw_BS, torch.tensor([[of_whole, 0.5, 0.25, 0.0], [0.0, 1.0, 1.0, 1.0]]))


@pytest.mark.parametrize("over", ["cluster", "batch"])
@pytest.mark.parametrize("place", ["outside", "inside"])
def test_contrast_weights_have_mean_1_in_every_vector(over, place):
    weights_BS = contrast_weights(method(weight_place=place, normalise_weights=over))
    assert weights_BS.shape == (B, 1 + L)
    torch.testing.assert_close(weights_BS.mean(0), torch.ones(1 + L))


def test_a_hard_whole_and_an_easy_part_weigh_more():
    alphas_BL = torch.tensor([[0.9, 0.8, 0.9], [0.2, 0.1, 0.3]])
    weights_BS = contrast_weights(method(), torch.tensor([0, 0]), alphas_BL)
    assert weights_BS[1, 0] > weights_BS[0, 0]
    assert bool((weights_BS[0, 1:] > weights_BS[1, 1:]).all())


def test_without_a_place_there_are_no_weights():
    assert torch.equal(contrast_weights(method(weight_place="none")), torch.ones(B, 1 + L))


def test_images_without_any_difficulty_weigh_alike():
    for value in (0.0, 1.0):
        weights_BS = contrast_weights(method(), torch.tensor([0, 1, 0, 1, 2, 2]), torch.full((B, L), value))
        torch.testing.assert_close(weights_BS, torch.ones(B, 1 + L))


# ---- memory


@pytest.mark.parametrize("background", [True, False])
@pytest.mark.parametrize("over", ["cluster", "batch"])
def test_the_weighted_memory_is_equations_8_and_9(over, background):
    one = method(update="weighted", normalise_weights=over, background_in_difficulty=background)
    features_BSD = features().features_BSD
    found = one.moved_rows(replica(), {"features": features_BSD}, of_batch(), torch.zeros(B))
    assert list(found) == ["features"]
    clusters_U, rows_USD = found["features"]
    counted = L if background else L - 1
    raw = [[1 - sum(row[:counted]) / counted, *row] for row in alphas().tolist()]
    weights = memory_reference.weights(raw, LABELS.tolist(), over)
    expected = memory_reference.weighted(memory().tolist(), features_BSD.tolist(), LABELS.tolist(), weights, 0.2)
    assert clusters_U.tolist() == [0, 2, 3]
    torch.testing.assert_close(rows_USD, torch.tensor(expected)[[0, 2, 3]], rtol=0, atol=2e-6)


@pytest.mark.parametrize("over", ["cluster", "batch"])
def test_the_weighted_memory_image_after_image(over):
    one, features_BSD = (
        method(update="weighted", weighted_update="sequence", normalise_weights=over),
        features().features_BSD,
    )
    _, rows_USD = one.moved_rows(replica(), {"features": features_BSD}, of_batch(), torch.zeros(B))["features"]
    raw = [[1 - sum(row) / L, *row] for row in alphas().tolist()]
    weights = memory_reference.weights(raw, LABELS.tolist(), over)
    if over == "cluster":  # of mean 1
        weights = [
            [LABELS.tolist().count(label) * w for w in row] for row, label in zip(weights, LABELS.tolist(), strict=True)
        ]
    arguments = memory().tolist(), features_BSD.tolist(), LABELS.tolist()
    expected = memory_reference.weighted_sequence(*arguments, weights, 0.2)
    torch.testing.assert_close(rows_USD, torch.tensor(expected)[[0, 2, 3]], rtol=0, atol=2e-6)


@pytest.mark.parametrize(("rule", "loop"), [("average", "sequential"), ("hardest", "hardest")])
def test_other_rules_are_ablations(rule, loop):
    features_BSD = features().features_BSD
    one = method(update=rule)
    found = one.moved_rows(replica(), {"features": features_BSD}, of_batch(), torch.zeros(B))
    _, rows_USD = found["features"]
    expected = getattr(memory_reference, loop)(memory().tolist(), features_BSD.tolist(), LABELS.tolist(), 0.2)
    torch.testing.assert_close(rows_USD, torch.tensor(expected)[[0, 2, 3]], rtol=0, atol=2e-6)


# ---- gradients


@pytest.mark.parametrize(("term", "spaces"), [("global_identity", [0]), ("part_identity", [1, 2, 3])])
def test_an_identity_term_trains_the_classifiers_of_its_own_vectors_only(term, spaces):
    one = method()
    heads = heads_of(one)
    one.group_losses(features(), targets(one), replica(), heads, 9)[term].sum().backward()
    assert heads.weight_SCD.grad.flatten(1).any(1).nonzero().flatten().tolist() == spaces


# ---- stripes


def stripes(**scwm):
    """With as many stripes as there are foreground parts: vectors 0 .. L - 1, no background, no masks."""
    return method(parts="stripes", **scwm)


def test_stripes_have_the_terms_of_parts_without_a_background_and_no_clustering_terms():
    one, kept = stripes(), slice(0, L)
    said = features()
    striped = Features(said.map_BDHW, said.necks_BSD[:, kept], said.features_BSD[:, kept], None, None)
    rows = {"features": Replicated(memory()[:, kept])}
    of_stripes = of_batch(alphas_BL=alphas()[:, : L - 1])
    of_stripes = of_stripes.with_tables(one.targets(of_stripes))
    found = one.group_losses(striped, of_stripes, rows, heads_of(one, rows), 9)
    assert list(found) == TERMS[2:]
    expected = losses(background_in_losses=False, background_in_difficulty=False)
    for name, loss_B in found.items():
        torch.testing.assert_close(loss_B, expected[name], msg=name)


def test_stripes_have_no_maps_and_keep_nothing_for_the_labeller_but_features():
    one = stripes()
    assert one.maps == ()
    assert one.averages(0) == {}
    assert list(one.to_label(features())) == ["features"]
    assert one.to_label_images(features()) == {}
    assert one.label_images({}, torch.device("cpu")) is None


def test_all_stripes_count_in_the_difficulty_of_the_whole():
    for background in (True, False):
        raw_BS = stripes(background_in_difficulty=background).raw_weights(torch.tensor([[0.5, 0.25]]))
        torch.testing.assert_close(raw_BS, torch.tensor([[1 - 0.75 / 2, 0.5, 0.25]]))
