"""One update: equal to the computation written out with PyTorch's own layers, whatever the number of workers."""

import os
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torch.nn.functional as F
from torch import nn

from reidray.config import Settings
from reidray.data.augment import Augmentation
from reidray.features import Embedder, SmallNet
from reidray.memory import proxy_groups
from reidray.methods import make_method
from reidray.methods.step import Beginning, Targets
from reidray.training.batches import Group, Step, shares
from reidray.training.history import History
from reidray.training.images import as_input
from reidray.training.learner import Learner
from reidray.training.ranks import OneProcess, ProcessGroup
from reidray.training.replica import Replicated
from reidray.training.state import RunState, drawn_from, new_modules
from tests.reference import memory as memory_reference

# N = images, B = global batch of G groups, C = clusters, L = parts, S = vectors, D = feature width, H, W = cells

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
    "weighted_update": "once",
    "diversity_cells": "mean",
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
    "scwm stripes": {"method": {"name": "scwm", "update": "weighted"}, "scwm": {"parts": "stripes"}},
    "aac": {"method": {"name": "aac"}},
    "acrm": {"method": {"name": "acrm"}},
    "acrm of all images": {"method": {"name": "acrm"}, "acrm": {"update": "average", "loss": "all"}},
    "pplr": {"method": {"name": "pplr"}},
    "pplr with cameras": {"method": {"name": "pplr"}, "pplr": {"camera_weight": 0.5, "camera_negatives": 3}},
    "pplr without triplet": {"method": {"name": "pplr"}, "pplr": {"triplet_weight": 0.0}},
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


def settings(method=None, model=None, scwm=None, pplr=None, acrm=None):
    return Settings(
        data={"height": 32, "width": 16},
        model={"pooling": "avg", "part_pooling": "gap", "bn_group_size": SIZE, **(model or {})},
        method={"name": "scwm", **METHOD, **(method or {})},
        scwm={"num_parts": L, **PAPER, **(scwm or {})},
        pplr={"num_stripes": L, "agreement_from": 5, "triplet_weight": 1.0, **(pplr or {})},
        acrm={"k": 1, **(acrm or {})},
        train={"learning_rate": RATE, "weight_decay": DECAY, "steps": 3},
    )


def network(tree):
    return make_method(tree).network()


def plain_network(tree):
    """The same network, with the same weights, as PyTorch alone would have it."""
    like = network(tree)
    plain = Embedder(
        SmallNet(seed=0),
        pooling=tree.model.pooling,
        num_parts=like.num_parts,
        num_stripes=like.num_stripes,
        part_pooling=tree.model.part_pooling,
        seed=0,
    )
    return plain.train()


def num_vectors(tree):
    """S."""
    return len(network(tree).necks)


def num_clusters(tree):
    """C: one more than a batch has."""
    return tree.method.clusters_per_batch + 1


def images(tree):
    """Clusters and cameras of all images: every cluster is under two cameras, and the last under one alone."""
    labels_N = np.repeat(np.arange(num_clusters(tree)), 4)
    cameras_N = (labels_N + np.tile([0, 0, 1, 1], num_clusters(tree))) % 3
    return labels_N, np.where(labels_N == labels_N.max(), 0, cameras_N)


def memories(tree):
    """The rows with which each memory begins."""
    rows = {
        "features": num_clusters(tree),
        "centroids": num_clusters(tree),
        "proxies": len(proxy_groups(*images(tree))[1]),
        "related": num_clusters(tree),
    }
    found = {}
    for number, name in enumerate(make_method(tree).memories):
        shape = rows[name], num_vectors(tree), 2 * D if name == "related" else D
        found[name] = F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(1 + number)), dim=-1)
    return found


def memory(tree):
    """The one memory, or the first."""
    return next(iter(memories(tree).values()))


def replicas_of(tree):
    return {name: Replicated(rows) for name, rows in memories(tree).items()}


def batch(tree, number, method=None):
    """A global batch: the step as all workers know it, and all its groups."""
    random, method, B = np.random.default_rng([3, number]), method or make_method(tree), tree.batch_size
    size, parts = tree.model.bn_group_size, num_vectors(tree) - 1
    pixels = random.integers(0, 256, (B, 32, 16, 3), np.uint8)
    labels_B = torch.from_numpy(np.repeat(random.permutation(num_clusters(tree))[: B // 2], 2))
    tables = {name: torch.from_numpy(random.random((B, parts), np.float32)) for name in method.tables}
    maps = {}
    if method.maps:
        maps["masks"] = torch.from_numpy(random.random((B, parts, *CELLS), np.float32)).softmax(1)
        maps["visible"] = torch.from_numpy(random.random((B, *CELLS)) < 0.8).float()
    uniforms_B = torch.from_numpy(random.random(B, np.float32))
    cameras_B = torch.from_numpy(random.integers(0, 3, B))
    targets = Targets(torch.arange(B), labels_B, cameras_B, tables)
    targets = targets.with_tables(method.targets(targets))
    zeros_B = np.zeros(B, np.int64)
    table = Augmentation(zeros_B.astype(bool), zeros_B, zeros_B, np.zeros((B, 4), np.int64))
    groups = []
    for group in range(tree.num_groups):
        own = slice(group * size, (group + 1) * size)
        of_group = targets.rows(own).with_tables({name: rows[own] for name, rows in maps.items()})
        groups.append(Group(torch.from_numpy(pixels[own]), of_group))
    return Step(number, targets, uniforms_B, np.arange(B)[:, None], table), groups


def begun(tree, *, method=None, ranks=None, epoch=5, replicas=None, rate=1.0, state=None):
    """What an epoch begins with: a state with heads, a new one where none is given, and its learner."""
    method = method or make_method(tree)
    state = state or RunState(method, method.network(), new_modules(method), History("digest", labelled=0))
    state.set_rate(rate)
    replicas = replicas or replicas_of(tree)
    state.new_heads(replicas, *images(tree), goes_on=False)
    return state, Learner(tree, state, replicas, epoch=epoch, ranks=ranks or OneProcess(), device=CPU)


def gradients(module):
    """Of all parameters that have one."""
    named = {} if module is None else dict(module.named_parameters())
    return {name: tensor.grad.clone() for name, tensor in named.items() if tensor.grad is not None}


def trained(tree, ranks, steps=3, replica=None, method=None):
    """A few steps of one rank: losses and moved rows of each, gradients of the first, what there is in the end.

    replica: of the first memory, where it is another one.
    """
    replicas = replicas_of(tree)
    first_memory = next(iter(replicas))
    if replica is not None:
        replicas[first_memory] = replica
    state, one = begun(tree, method=method, ranks=ranks, replicas=replicas)
    own = shares(tree.num_groups, ranks.size)[ranks.rank]
    updates, of_first = [], {}
    for number in range(steps):
        step, groups = batch(tree, number, method)
        updates.append(one.update(step, groups[own.start : own.stop]))
        if number == 0:
            of_first = {**gradients(state.model), **gradients(state.modules)}
            of_first.update(gradients(state.heads and state.heads.layers))
    return {
        "gradients": of_first,
        "losses": [update.losses for update in updates],
        "clusters": [update.moved[first_memory][0] for update in updates if update.moved],
        "rows": [update.moved[first_memory][1] for update in updates if update.moved],
        "network": {
            **state.model.state_dict(),
            **({} if state.modules is None else state.modules.state_dict(prefix="modules.")),
            **({} if state.heads is None else state.heads.layers.state_dict(prefix="heads.")),
        },
        "memory": one.replicas[first_memory].held()[1],
    }


# ---- one process


@dataclass
class ByHand:
    """What PyTorch alone makes of a global batch."""

    network: nn.Module
    modules: nn.Module | None
    heads: nn.Module | None
    features_BSD: torch.Tensor
    losses: dict[str, torch.Tensor]


def by_hand(tree, number=0, epoch=5, method=None):
    """Loss and gradients of a global batch with PyTorch's batch norm, group after group, one backward pass."""
    plain, method = plain_network(tree), method or make_method(tree)
    heads = method.heads(Beginning(replicas_of(tree), *images(tree), {}))
    modules = drawn_modules(method)
    step, groups = batch(tree, number, method)
    outputs, terms = [], []
    for group in groups:
        outputs.append(plain(as_input(group.pixels, CPU)))
        terms.append(method.group_losses(outputs[-1], group.targets, replicas_of(tree), heads, epoch))
    losses = {name: torch.cat([group[name] for group in terms]) for name in terms[0]}
    if method.has_batch_losses:
        parts = [method.to_gather(said) for said in outputs]
        gathered = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        losses.update(method.batch_losses(gathered, step.targets, replicas_of(tree), modules, epoch).terms)
    (sum(loss.sum() for loss in losses.values()) / tree.batch_size).backward()
    features_BSD = torch.cat([said.features_BSD.detach() for said in outputs])
    return ByHand(plain, modules, heads, features_BSD, {name: loss.detach().mean() for name, loss in losses.items()})


def drawn_modules(method):
    """The method's modules as a run draws them, with PyTorch's own batch norm."""
    with drawn_from(method.settings.train.seed):
        return method.modules()


def assert_gradients(found, expected, tolerance):
    """Equal names, and each gradient within a share of its largest number."""
    assert list(found) == list(expected)
    for name, gradient in expected.items():
        scale = gradient.abs().max().item()
        torch.testing.assert_close(found[name], gradient, rtol=0, atol=tolerance * scale + 1e-9, msg=name)


@pytest.mark.parametrize("name", RUNS)
def test_an_update_is_the_mean_loss_over_groups_one_adam_step_and_plain_batch_norm(name):
    tree = settings(**RUNS[name])
    expected = by_hand(tree)
    state, one = begun(tree)
    start = network(tree).state_dict()
    step, groups = batch(tree, 0)
    update = one.update(step, groups)

    assert list(update.losses) == list(expected.losses)
    for term, loss in expected.losses.items():
        torch.testing.assert_close(update.losses[term], loss, rtol=1e-5, atol=1e-6)
    found, wanted = dict(state.model.named_parameters()), dict(expected.network.named_parameters())
    assert list(found) == list(wanted)
    assert_gradients(gradients(state.model), gradients(expected.network), 1e-5)
    for buffer, tensor in expected.network.named_buffers():
        torch.testing.assert_close(state.model.state_dict()[buffer], tensor, rtol=1e-5, atol=1e-6, msg=buffer)
    assert int(state.model.state_dict()["necks.0.num_batches_tracked"]) == G

    # The first step of Adam in closed form: both moments are those of one gradient, decayed weights included.
    for parameter, tensor in found.items():
        if tensor.grad is None:
            assert torch.equal(tensor, start[parameter])
            continue
        gradient = tensor.grad.double() + DECAY * start[parameter].double()
        moved = start[parameter].double() - RATE * gradient / (gradient.abs() + EPS)
        torch.testing.assert_close(tensor.double(), moved, rtol=0, atol=2e-7, msg=parameter)
    assert (expected.heads is None) == (state.heads is None)


@pytest.mark.parametrize("name", RUNS)
def test_an_update_moves_the_memories_as_the_method_says_and_leaves_the_others_alone(name):
    tree = settings(**RUNS[name])
    features_BSD = by_hand(tree).features_BSD
    _, one = begun(tree)
    step, groups = batch(tree, 0)
    update = one.update(step, groups)
    assert list(update.moved) == {"pplr": [], "acrm": ["features", "related"]}.get(tree.method.name, ["features"])
    for memory_name, replica in one.replicas.items():
        if memory_name not in update.moved:
            assert torch.equal(replica.all_rows(), memories(tree)[memory_name])
            continue
        clusters_U, rows_USD = update.moved[memory_name]
        assert torch.equal(replica.all_rows()[clusters_U], rows_USD)
        others_C = torch.ones(num_clusters(tree), dtype=torch.bool).index_fill(0, clusters_U, False)
        assert torch.equal(replica.all_rows()[others_C], memories(tree)[memory_name][others_C])
        loops = {"average": memory_reference.sequential, "hardest": memory_reference.hardest}
        averages = tree.method.name != "acrm" or (tree.acrm.update == "average" and memory_name == "features")
        if tree.method.update in loops and averages:
            rows = memory(tree).tolist(), features_BSD.tolist(), step.targets.labels_B.tolist()
            moved = torch.tensor(loops[tree.method.update](*rows, tree.method.momentum))
            torch.testing.assert_close(replica.all_rows(), moved, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["scwm", "scwm stripes", "pplr", "pplr with cameras", "pplr without triplet"])
def test_the_classifiers_are_trained_beside_the_network(name):
    tree = settings(**RUNS[name])
    (expected,) = by_hand(tree).heads.parameters()
    state, one = begun(tree)
    one.update(*batch(tree, 0))
    (found,) = state.heads.layers.parameters()
    torch.testing.assert_close(found.grad, expected.grad, rtol=1e-3, atol=1e-5)
    gradient = found.grad.double() + DECAY * expected.detach().double()
    wanted = expected.detach().double() - RATE * gradient / (gradient.abs() + EPS)
    torch.testing.assert_close(found.detach().double(), wanted, rtol=0, atol=2e-7)


GROUPS = {1: 16, 2: 8, 4: 4}  # groups of a batch of 16 by the size of a group


@pytest.mark.parametrize("groups", GROUPS)
@pytest.mark.parametrize("name", ["scwm", "pplr", "pplr with cameras", "acrm", "acrm of all images"])
def test_gradients_are_those_of_one_backward_pass_for_every_number_of_groups(name, groups):
    run = RUNS[name]
    tree = settings(
        **{**run, "method": {**run["method"], "clusters_per_batch": 8}, "model": {"bn_group_size": 16 // groups}}
    )
    assert tree.num_groups == groups
    expected = by_hand(tree)
    state, one = begun(tree)
    one.update(*batch(tree, 0))
    assert_gradients(gradients(state.model), gradients(expected.network), 1e-5)
    assert_gradients(gradients(state.heads and state.heads.layers), gradients(expected.heads), 1e-5)
    assert_gradients(gradients(state.modules), gradients(expected.modules), 1e-5)


@pytest.mark.parametrize("name", ["scwm", "pplr"])
def test_classifiers_take_the_learning_rate_of_the_epoch(name):
    tree = settings(**RUNS[name])
    state, one = begun(tree, rate=0.1)
    (heads,) = state.heads.layers.parameters()
    before = heads.detach().clone()
    one.update(*batch(tree, 0))
    assert (heads.detach() - before).abs().max().item() == pytest.approx(0.1 * RATE, rel=1e-2)


@pytest.mark.parametrize("name", ["scwm", "pplr"])
def test_classifiers_that_go_on_take_the_learning_rate_of_a_later_epoch(name):
    state, one = begun(settings(**RUNS[name]))
    (heads,) = state.heads.layers.parameters()
    state.set_rate(0.01)
    before = heads.detach().clone()
    one.update(*batch(settings(**RUNS[name]), 0))
    assert (heads.detach() - before).abs().max().item() == pytest.approx(0.01 * RATE, rel=1e-2)


@pytest.mark.parametrize("name", ["cluster_contrast", "scwm", "pplr", "acrm"])
def test_a_step_meets_the_network_and_the_memory_that_the_last_one_left_and_no_old_gradients(name):
    tree = settings(**RUNS[name])
    state, one = begun(tree)
    first = one.update(*batch(tree, 0)).losses
    copies = {name: Replicated(replica.all_rows().clone()) for name, replica in one.replicas.items()}
    fresh, other = begun(tree, replicas=copies)
    fresh.model.load_state_dict(state.model.state_dict())
    if fresh.heads is not None:
        fresh.heads.layers.load_state_dict(state.heads.layers.state_dict())
    if fresh.modules is not None:
        fresh.modules.load_state_dict(state.modules.state_dict())
    expected = other.update(*batch(tree, 1)).losses
    second = one.update(*batch(tree, 1)).losses
    for term, loss in expected.items():
        assert torch.equal(second[term], loss), term
        assert not torch.equal(second[term], first[term]), term
    of_fresh = dict(other._objective.named_parameters())
    for parameter, tensor in one._objective.named_parameters():
        assert tensor.grad is None or torch.equal(tensor.grad, of_fresh[parameter].grad), parameter


@pytest.mark.parametrize("name", ["scwm", "pplr"])
def test_the_epoch_reaches_the_method(name):
    tree = settings(**RUNS[name])
    early, late = (begun(tree, epoch=epoch)[1].update(*batch(tree, 0)).losses for epoch in (0, 5))
    assert [name for name in early if not torch.equal(early[name], late[name])] == ["part_identity"]


@pytest.mark.parametrize("name", ["scwm", "pplr with cameras"])
def test_the_same_steps_give_the_same_network_bit_for_bit(name):
    tree = settings(**RUNS[name])
    first, second = trained(tree, OneProcess()), trained(tree, OneProcess())
    assert torch.equal(first["memory"], second["memory"])
    assert all(torch.equal(tensor, second["network"][name]) for name, tensor in first["network"].items())


@pytest.mark.parametrize("name", ["scwm", "pplr"])
def test_learning_goes_down_hill(name):
    tree = settings(**RUNS[name])
    _, one = begun(tree)
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
SWITCHES += [
    {"method": {"name": "scwm", "update": update}, "scwm": {"parts": "stripes", "num_parts": 2}}
    for update in ("average", "weighted")
]
SWITCHES += [
    {"method": {"name": "pplr"}, "pplr": switch}
    for switch in (
        {"num_stripes": 1},
        {"agreement_from": 99},
        {"beta": 1.0, "label_smoothing": 0.0},
        {"classifier_moments": "dropped"},
        {"camera_weight": 0.5},
        {"camera_weight": 0.5, "triplet_weight": 0.0, "camera_negatives": 1},
    )
]


def written(switch):
    return ", ".join(f"{name}={value}" for section in switch.values() for name, value in section.items())


@pytest.mark.parametrize("switch", SWITCHES, ids=written)
def test_every_switch_runs_forward_and_backward(switch):
    tree = settings(**switch)
    state, one = begun(tree)
    before = [parameter.detach().clone() for parameter in state.model.backbone.parameters()]
    for number in range(2):
        update = one.update(*batch(tree, number))
        assert all(bool(torch.isfinite(loss)) for loss in update.losses.values())
        for _, rows_USD in update.moved.values():
            torch.testing.assert_close(rows_USD.norm(dim=-1), torch.ones(6, num_vectors(tree)))
    found = gradients(state.model).values()
    assert all(bool(torch.isfinite(gradient).all()) for gradient in found)
    after = state.model.backbone.parameters()
    assert all(not torch.equal(old, new) for old, new in zip(before, after, strict=True))


@pytest.mark.parametrize("name", ["scwm", "pplr with cameras"])
def test_half_precision_runs_and_keeps_losses_in_single_precision(name):
    tree = settings(**RUNS[name])
    single = begun(tree)[1].update(*batch(tree, 0)).losses
    tree = tree.model_copy(update={"train": tree.train.model_copy(update={"precision": "bfloat16"})})
    half = begun(tree)[1].update(*batch(tree, 0)).losses
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


def assert_agree(found, alone, astray=0.0):
    """astray: share of all weights that may be further apart than rounding. Adam divides by the size of the
    gradient, so that a weight whose gradient is rounding alone goes anywhere, by its rate a step."""
    assert_gradients(found["gradients"], alone["gradients"], 1e-5)
    for step, expected in enumerate(alone["losses"]):
        assert list(found["losses"][step]) == list(expected)
        for name, loss in expected.items():
            torch.testing.assert_close(found["losses"][step][name], loss, rtol=1e-5, atol=1e-5)
    assert len(found["clusters"]) == len(alone["clusters"])
    for step, clusters_U in enumerate(alone["clusters"]):
        assert torch.equal(found["clusters"][step], clusters_U)
        torch.testing.assert_close(found["rows"][step], alone["rows"][step], rtol=0, atol=1e-5)
    torch.testing.assert_close(found["memory"], alone["memory"], rtol=0, atol=1e-5)
    wrong = {
        name: (found["network"][name] - tensor).abs() > 1e-5 + 1e-5 * tensor.abs()
        for name, tensor in alone["network"].items()
    }
    share = sum(int(far.sum()) for far in wrong.values()) / sum(far.numel() for far in wrong.values())
    assert share <= astray, (share, [name for name, far in wrong.items() if far.any()])


@pytest.mark.parametrize("name", RUNS)
def test_two_processes_agree_with_one(pair, name):
    alone = trained(settings(**RUNS[name]), OneProcess())
    assert_agree(pair[0][name], alone, astray=5e-3 if name.startswith("acrm") else 0.0)


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
