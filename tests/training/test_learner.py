"""One update: equal to the computation written out with PyTorch's own layers, whatever the number of workers."""

import os
from datetime import timedelta

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torch.nn.functional as F

from reidray.config import Settings
from reidray.data.augment import Augmentation
from reidray.features import Embedder, SmallNet, build_embedder
from reidray.methods import Targets, make_method
from reidray.training.batches import Group, Step, shares
from reidray.training.images import as_input
from reidray.training.learner import Learner
from reidray.training.ranks import OneProcess, ProcessGroup
from reidray.training.replica import Replicated
from tests.reference import memory as memory_reference

# B = global batch of G groups, C = clusters, L = parts, S = spaces, D = feature width, H, W = cells

B, G, SIZE, L, D, CELLS = 12, 3, 4, 3, 192, (4, 2)
RATE, DECAY, EPS = 3.5e-4, 5e-4, 1e-8
CPU = torch.device("cpu")

WEIGHTS = (
    "global_memory_weight",
    "part_memory_weight",
    "separation_weight",
    "parsing_weight",
    "diversity_weight",
    "global_identity_weight",
    "part_identity_weight",
)
PAPER = {  # spelled out, so that the defaults may be others
    **dict.fromkeys(WEIGHTS, 1.0),
    "weight_place": "outside",
    "normalise_weights": "cluster",
    "background_in_losses": True,
    "background_in_difficulty": True,
    "beta": 0.35,
    "part_refinement_from": 5,
    "label_smoothing": 0.1,
}
METHOD = {
    "clusters_per_batch": 6,
    "images_per_cluster": 2,
    "temperature": 0.05,
    "momentum": 0.1,
    "update": "average",
}

# What is run by one process and by two: method, its settings, and the network's.
RUNS = {
    "cluster_contrast": {"method": {"name": "cluster_contrast"}},
    "cluster_contrast hardest, gem": {
        "method": {"name": "cluster_contrast", "update": "hardest"},
        "model": {"pooling": "gem"},
    },
    "scwm": {"method": {"name": "scwm"}},
    "scwm weighted, masked": {
        "method": {"name": "scwm", "update": "weighted"},
        "model": {"part_pooling": "masked"},
        "scwm": {"part_refinement_from": 0},
    },
    "scwm without background": {"method": {"name": "scwm"}, "scwm": {"background_in_losses": False}},
    "scwm without identity": {
        "method": {"name": "scwm"},
        "scwm": {"global_identity_weight": 0.0, "part_identity_weight": 0.0},
    },
    "scwm without parts' losses": {
        "method": {"name": "scwm"},
        "scwm": {"part_memory_weight": 0.0, "separation_weight": 0.0, "part_identity_weight": 0.0},
    },
    "scwm random, without parsing": {
        "method": {"name": "scwm", "update": "random"},
        "scwm": {"parsing_weight": 0.0, "diversity_weight": 0.0},
    },
}
CLUSTERING_ALONE = {
    "method": {"name": "scwm"},
    "scwm": {
        "global_memory_weight": 0.0,
        "part_memory_weight": 0.0,
        "separation_weight": 0.0,
        "global_identity_weight": 0.0,
        "part_identity_weight": 0.0,
    },
}


def settings(method=None, model=None, scwm=None):
    return Settings(
        data={"height": 32, "width": 16},
        model={"pooling": "avg", "part_pooling": "gap", "bn_group_size": SIZE, **(model or {})},
        method={"name": "scwm", **METHOD, **(method or {})},
        scwm={"num_parts": L, **PAPER, **(scwm or {})},
        train={"learning_rate": RATE, "weight_decay": DECAY, "steps": 3},
    )


def arguments(tree):
    model = tree.model
    return {
        "pooling": model.pooling,
        "num_parts": tree.num_parts,
        "part_pooling": model.part_pooling,
        "seed": 0,
    }


def network(tree):
    return build_embedder(backbone="small", **arguments(tree))


def adam(model):
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return torch.optim.Adam(trained, lr=RATE, weight_decay=DECAY)


def memory(tree):
    generator = torch.Generator().manual_seed(1)
    return F.normalize(torch.randn(num_clusters(tree), 1 + tree.num_parts, D, generator=generator), dim=-1)


def num_clusters(tree):
    """C: one more than a batch has."""
    return tree.method.clusters_per_batch + 1


def batch(tree, number):
    """A global batch: the step as all workers know it, and all its groups."""
    random, parts, B = np.random.default_rng([3, number]), tree.num_parts, tree.batch_size
    pixels = random.integers(0, 256, (B, 32, 16, 3), np.uint8)
    labels_B = torch.from_numpy(np.repeat(random.permutation(num_clusters(tree))[: B // 2], 2))
    alphas_BL = torch.from_numpy(random.random((B, parts), np.float32))
    weights_BS = make_method(tree).contrast_weights(labels_B, alphas_BL)
    masks_BLHW = torch.from_numpy(random.random((B, parts, *CELLS), np.float32)).softmax(1) if parts else None
    visible_BHW = torch.from_numpy(random.random((B, *CELLS)) < 0.8).float() if parts else None
    uniforms_B = torch.from_numpy(random.random(B, np.float32))
    zeros_B = np.zeros(B, np.int64)
    table = Augmentation(zeros_B.astype(bool), zeros_B, zeros_B, np.zeros((B, 4), np.int64))
    step = Step(number, np.arange(B), labels_B, alphas_BL, weights_BS, uniforms_B, table)
    groups = []
    for group in range(tree.num_groups):
        own = slice(group * SIZE, (group + 1) * SIZE)
        masks, visible = (None if rows is None else rows[own] for rows in (masks_BLHW, visible_BHW))
        groups.append(Group(pixels[own], Targets(labels_B[own], alphas_BL[own], weights_BS[own], masks, visible)))
    return step, groups


def learner(tree, model, optimiser=None, *, ranks=None, epoch=5, centroids_CSD=None, replica=None):
    return Learner(
        tree,
        make_method(tree),
        model,
        optimiser or adam(model),
        replica or Replicated(memory(tree) if centroids_CSD is None else centroids_CSD),
        epoch=epoch,
        ranks=ranks or OneProcess(),
        device=CPU,
    )


def trained(tree, ranks, steps=3, replica=None):
    """A few steps of one rank: losses and moved rows of each, gradients of the first, what there is in the end."""
    model = network(tree)
    one = learner(tree, model, ranks=ranks, replica=replica)
    own = shares(tree.num_groups, ranks.size)[ranks.rank]
    updates, gradients = [], {}
    for number in range(steps):
        step, groups = batch(tree, number)
        updates.append(one.update(step, groups[own.start : own.stop]))
        if number == 0:
            gradients = {
                key: tensor.grad.clone() for key, tensor in model.named_parameters() if tensor.grad is not None
            }
    return {
        "gradients": gradients,
        "losses": [update.losses for update in updates],
        "clusters": [update.clusters_U for update in updates],
        "rows": [update.rows_USD for update in updates],
        "network": model.state_dict(),
        "memory": one.replica.held()[1],
    }


# ---- one process


def by_hand(tree, number=0, epoch=5):
    """Loss and gradients of a global batch with PyTorch's batch norm, group after group, one backward pass."""
    plain, method = Embedder(SmallNet(seed=0), **arguments(tree)).train(), make_method(tree)
    heads = method.heads(Replicated(memory(tree)))
    _, groups = batch(tree, number)
    features, terms = [], []
    for group in groups:
        said = plain(as_input(group.pixels_BHW3, CPU))
        features.append(said.features_BSD.detach())
        terms.append(method.losses(said, group.targets, Replicated(memory(tree)), heads, epoch))
    losses = {name: torch.cat([group[name] for group in terms]) for name in terms[0]}
    (sum(loss.sum() for loss in losses.values()) / B).backward()
    return plain, heads, torch.cat(features), {name: loss.detach().mean() for name, loss in losses.items()}


@pytest.mark.parametrize("name", RUNS)
def test_an_update_is_the_mean_loss_over_groups_one_adam_step_and_plain_batch_norm(name):
    tree = settings(**RUNS[name])
    plain, heads, features_BSD, losses = by_hand(tree)
    model, start = network(tree), network(tree).state_dict()
    one = learner(tree, model)
    step, groups = batch(tree, 0)
    update = one.update(step, groups)

    assert list(update.losses) == list(losses)
    for term, loss in losses.items():
        torch.testing.assert_close(update.losses[term], loss, rtol=1e-5, atol=1e-6)
    found, wanted = dict(model.named_parameters()), dict(plain.named_parameters())
    assert list(found) == list(wanted)
    for parameter, expected in wanted.items():
        if expected.grad is None:
            assert found[parameter].grad is None, parameter
            continue
        scale = expected.grad.abs().max().item()
        torch.testing.assert_close(found[parameter].grad, expected.grad, rtol=1e-3, atol=1e-4 * scale + 1e-9)
    for buffer, expected in plain.named_buffers():
        torch.testing.assert_close(model.state_dict()[buffer], expected, rtol=1e-5, atol=1e-6, msg=buffer)
    assert int(model.state_dict()["necks.0.num_batches_tracked"]) == G

    # The first step of Adam in closed form: both moments are those of one gradient, decayed weights included.
    for parameter, tensor in found.items():
        if tensor.grad is None:
            assert torch.equal(tensor, start[parameter])
            continue
        gradient = tensor.grad.double() + DECAY * start[parameter].double()
        expected = start[parameter].double() - RATE * gradient / (gradient.abs() + EPS)
        torch.testing.assert_close(tensor.double(), expected, rtol=0, atol=2e-7, msg=parameter)

    loops = {"average": memory_reference.sequential, "hardest": memory_reference.hardest}
    if tree.method.update in loops:
        rows = memory(tree).tolist(), features_BSD.tolist(), step.labels_B.tolist()
        moved = torch.tensor(loops[tree.method.update](*rows, tree.method.momentum))
        torch.testing.assert_close(one.replica.all_rows(), moved, rtol=0, atol=1e-5)
    torch.testing.assert_close(one.replica.all_rows()[update.clusters_U], update.rows_USD, rtol=0, atol=0)
    assert (heads is None) == (one._heads_optimiser is None)


def test_the_classifiers_are_trained_beside_the_network():
    tree = settings(**RUNS["scwm"])
    _, heads, _, _ = by_hand(tree)
    one = learner(tree, network(tree))
    one.update(*batch(tree, 0))
    (found,) = one._objective.heads.parameters()
    (expected,) = heads.parameters()
    torch.testing.assert_close(found.grad, expected.grad, rtol=1e-3, atol=1e-5)
    gradient = found.grad.double() + DECAY * expected.detach().double()
    wanted = expected.detach().double() - RATE * gradient / (gradient.abs() + EPS)
    torch.testing.assert_close(found.detach().double(), wanted, rtol=0, atol=2e-7)


def test_classifiers_take_the_learning_rate_of_the_epoch():
    tree = settings(**RUNS["scwm"])
    model = network(tree)
    optimiser = adam(model)
    optimiser.param_groups[0]["lr"] = 0.1 * RATE
    one = learner(tree, model, optimiser)
    (heads,) = one._objective.heads.parameters()
    before = heads.detach().clone()
    one.update(*batch(tree, 0))
    assert (heads.detach() - before).abs().max().item() == pytest.approx(0.1 * RATE, rel=1e-2)


@pytest.mark.parametrize("name", ["cluster_contrast", "scwm"])
def test_a_step_meets_the_network_and_the_memory_that_the_last_one_left_and_no_old_gradients(name):
    tree = settings(**RUNS[name])
    model, fresh = network(tree), network(tree)
    one = learner(tree, model)
    first = one.update(*batch(tree, 0)).losses
    fresh.load_state_dict(model.state_dict())
    other = learner(tree, fresh, centroids_CSD=one.replica.all_rows().clone())
    if other._objective.heads is not None:
        other._objective.heads.load_state_dict(one._objective.heads.state_dict())
    expected = other.update(*batch(tree, 1)).losses
    second = one.update(*batch(tree, 1)).losses
    for term, loss in expected.items():
        assert torch.equal(second[term], loss), term
        assert not torch.equal(second[term], first[term]), term
    of_fresh = dict(other._objective.named_parameters())
    for parameter, tensor in one._objective.named_parameters():
        assert tensor.grad is None or torch.equal(tensor.grad, of_fresh[parameter].grad), parameter


def test_the_epoch_reaches_the_method():
    tree = settings(**RUNS["scwm"])
    early, late = (learner(tree, network(tree), epoch=epoch).update(*batch(tree, 0)).losses for epoch in (0, 5))
    assert [name for name in early if not torch.equal(early[name], late[name])] == ["part_identity"]


def test_the_same_steps_give_the_same_network_bit_for_bit():
    tree = settings(**RUNS["scwm"])
    first, second = trained(tree, OneProcess()), trained(tree, OneProcess())
    assert torch.equal(first["memory"], second["memory"])
    assert all(torch.equal(tensor, second["network"][name]) for name, tensor in first["network"].items())


def test_learning_goes_down_hill():
    tree = settings(**RUNS["scwm"])
    one = learner(tree, network(tree))
    step, groups = batch(tree, 0)
    totals = [float(sum(one.update(step, groups).losses.values())) for _ in range(6)]
    assert totals[-1] < totals[0] - 1


SWITCHES = [
    {"method": {"name": "cluster_contrast", "update": update}} for update in ("average", "hardest", "random")
] + [{"method": {"name": "scwm", "update": update}} for update in ("average", "hardest", "random", "weighted")]
SWITCHES += [{"model": {"pooling": pooling}} for pooling in ("max", "gem", "avg+max")]
SWITCHES += [
    {"scwm": {"weight_place": place, "normalise_weights": over}}
    for place in ("outside", "inside", "none")
    for over in ("cluster", "batch")
]
SWITCHES += [
    {"model": {"part_pooling": "masked"}},
    {"scwm": {"background_in_losses": False}},
    {"scwm": {"background_in_difficulty": False}},
    {"scwm": {"part_refinement_from": 99}},
    {"scwm": {"num_parts": 2, "background_in_losses": False}},
    {"scwm": {"beta": 1.0, "label_smoothing": 0.0}},
    CLUSTERING_ALONE,
]
SWITCHES += [{"scwm": {weight: 0.0}} for weight in WEIGHTS]


def written(switch):
    return ", ".join(f"{name}={value}" for section in switch.values() for name, value in section.items())


@pytest.mark.parametrize("switch", SWITCHES, ids=written)
def test_every_switch_runs_forward_and_backward(switch):
    tree = settings(**switch)
    model = network(tree)
    before = [parameter.detach().clone() for parameter in model.backbone.parameters()]
    one = learner(tree, model)
    for number in range(2):
        update = one.update(*batch(tree, number))
        assert all(bool(torch.isfinite(loss)) for loss in update.losses.values())
        torch.testing.assert_close(update.rows_USD.norm(dim=-1), torch.ones(6, 1 + tree.num_parts))
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    assert all(bool(torch.isfinite(gradient).all()) for gradient in gradients)
    after = model.backbone.parameters()
    assert all(not torch.equal(old, new) for old, new in zip(before, after, strict=True))


def test_half_precision_runs_and_keeps_losses_in_single_precision():
    tree = settings()
    tree = tree.model_copy(update={"train": tree.train.model_copy(update={"precision": "bfloat16"})})
    single = learner(settings(), network(tree)).update(*batch(tree, 0)).losses
    half = learner(tree, network(tree)).update(*batch(tree, 0)).losses
    for name, loss in half.items():
        assert loss.dtype == torch.float32
        torch.testing.assert_close(loss, single[name], rtol=0.1, atol=0.1)


# ---- two processes


def work(rank, folder):
    """A rank of two: three groups are shared as two and one."""
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    meeting = f"file://{folder}/meeting"
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=2, timeout=timedelta(minutes=10))
    found = {name: trained(settings(**run), ProcessGroup()) for name, run in RUNS.items()}
    try:
        found["clustering alone"] = trained(settings(**CLUSTERING_ALONE), ProcessGroup())
    except RuntimeError as error:
        found["clustering alone"] = str(error)
    torch.save(found, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    folder = tmp_path_factory.mktemp("learner")
    mp.spawn(work, (str(folder),), nprocs=2)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


def assert_agree(found, alone):
    for step, expected in enumerate(alone["losses"]):
        assert list(found["losses"][step]) == list(expected)
        for name, loss in expected.items():
            torch.testing.assert_close(found["losses"][step][name], loss, rtol=1e-5, atol=1e-5)
        assert torch.equal(found["clusters"][step], alone["clusters"][step])
        torch.testing.assert_close(found["rows"][step], alone["rows"][step], rtol=0, atol=1e-5)
    torch.testing.assert_close(found["memory"], alone["memory"], rtol=0, atol=1e-5)
    for name, tensor in alone["network"].items():
        torch.testing.assert_close(found["network"][name], tensor, rtol=1e-5, atol=1e-5, msg=name)


@pytest.mark.parametrize("name", RUNS)
def test_two_processes_agree_with_one(pair, name):
    alone = trained(settings(**RUNS[name]), OneProcess())
    assert_agree(pair[0][name], alone)


@pytest.mark.parametrize("name", RUNS)
def test_both_processes_hold_the_same_network_and_memory_bit_for_bit(pair, name):
    first, second = pair[0][name], pair[1][name]
    assert torch.equal(first["memory"], second["memory"])
    for key, tensor in first["network"].items():
        assert torch.equal(second["network"][key], tensor), key
    for losses, others in zip(first["losses"], second["losses"], strict=True):
        assert all(torch.equal(losses[term], others[term]) for term in losses)


def test_two_processes_can_train_the_part_classifier_alone(pair):
    assert not isinstance(pair[0]["clustering alone"], str), pair[0]["clustering alone"].splitlines()[0]
    assert_agree(pair[0]["clustering alone"], trained(settings(**CLUSTERING_ALONE), OneProcess()))
