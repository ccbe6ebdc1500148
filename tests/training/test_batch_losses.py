"""Losses of the whole batch reach the network and the modules beside it as in one backward pass through everything."""

import os
from datetime import timedelta
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

from reidray.features.dropout import KeyedDropout
from reidray.methods.cluster_contrast import ClusterContrast
from reidray.methods.method import Method
from reidray.methods.step import BatchLosses, EpochPlan
from reidray.storage.checkpoints import CheckpointStore, optimiser_tensors
from reidray.training.history import History
from reidray.training.ranks import OneProcess, ProcessGroup
from reidray.training.resume import keep, take_up
from reidray.training.state import RunState, new_modules
from tests.training.test_learner import (
    assert_gradients,
    batch,
    begun,
    by_hand,
    drawn_modules,
    gradients,
    settings,
    trained,
)

# B = global batch, S = vectors, D = feature width

CLUSTERS = 8  # of 2 images each
GROUPS = (1, 2, 4)


class Mixer(nn.Module):
    """What an image comes out as depends on all others: a linear layer, batch norm, and attention over the batch."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(192, 16)
        self.norm = nn.BatchNorm1d(16)

    def forward(self, features_BD):
        seen_BD = self.norm(self.linear(features_BD))
        return (seen_BD @ seen_BD.T / 4).softmax(1) @ seen_BD


class Mixing(Method):
    """Cluster Contrast's own loss, and that of mixed images of a cluster to be alike."""

    has_batch_losses = True

    def __init__(self, settings):
        super().__init__(settings)
        self._base = ClusterContrast(settings)

    def modules(self):
        return Mixer()

    def label(self, search):
        return self._base.label(search)

    def group_losses(self, outputs, targets, memories, heads, epoch):
        return self._base.group_losses(outputs, targets, memories, heads, epoch)

    def batch_losses(self, gathered, targets, memories, modules, epoch):
        mixed_BD = modules(gathered["features"][:, 0])
        same_BB = (targets.labels_B[:, None] == targets.labels_B).float()
        means_BD = same_BB @ mixed_BD / same_BB.sum(1, keepdim=True)
        pulled_BSD = memories["features"].rows(targets.labels_B) * gathered["features"]
        terms = {"mixed": (mixed_BD - means_BD).square().sum(1) + mixed_BD.sum(1), "pulled": -pulled_BSD.sum((1, 2))}
        return BatchLosses(terms, {"mixed": mixed_BD})

    def moved_rows(self, memories, gathered, targets, uniforms_B):
        self.seen = gathered
        return self._base.moved_rows(memories, gathered, targets, uniforms_B)


class MixingAlone(Mixing):
    """No losses of groups."""

    def group_losses(self, outputs, targets, memories, heads, epoch):
        return {}


class MixingLater(Mixing):
    """No losses of the batch yet."""

    def batch_losses(self, gathered, targets, memories, modules, epoch):
        found = super().batch_losses(gathered, targets, memories, modules, epoch) if epoch >= 7 else None
        return found or BatchLosses({})


METHODS = {"mixing": Mixing, "alone": MixingAlone}


def tree_of(groups, **method):
    method = {"name": "cluster_contrast", "clusters_per_batch": CLUSTERS, **method}
    return settings(method=method, model={"bn_group_size": 2 * CLUSTERS // groups})


def updated(groups, kind=Mixing, **options):
    """A state after one update, and what the update says."""
    tree = tree_of(groups)
    state, one = begun(tree, method=kind(tree), **options)
    return state, one.update(*batch(tree, 0))


# ---- one process


@pytest.mark.parametrize("groups", GROUPS)
@pytest.mark.parametrize("kind", METHODS.values(), ids=METHODS)
def test_gradients_of_network_and_modules_are_those_of_one_pass_through_the_whole_batch(kind, groups):
    tree = tree_of(groups)
    expected = by_hand(tree, method=kind(tree))
    state, update = updated(groups, kind)
    assert list(update.losses) == list(expected.losses)
    for term, loss in expected.losses.items():
        torch.testing.assert_close(update.losses[term], loss, rtol=1e-5, atol=1e-6)
    assert_gradients(gradients(state.model), gradients(expected.network), 1e-5)
    assert_gradients(gradients(state.modules), gradients(expected.modules), 1e-5)
    assert set(gradients(state.modules)) == {"linear.weight", "linear.bias", "norm.weight", "norm.bias"}


@pytest.mark.parametrize("groups", GROUPS)
def test_running_statistics_of_modules_are_those_of_pytorchs_batch_norm_over_the_whole_batch(groups):
    tree = tree_of(groups)
    expected = by_hand(tree, method=Mixing(tree)).modules
    state, _ = updated(groups)
    for name, buffer in expected.named_buffers():
        torch.testing.assert_close(state.modules.state_dict()[name], buffer, rtol=1e-5, atol=1e-6, msg=name)
    assert int(state.modules.norm.num_batches_tracked) == 1


def test_an_update_moves_the_modules_by_the_optimiser_of_the_network():
    tree = tree_of(2)
    state, _ = updated(2)
    before, after = drawn_modules(Mixing(tree)).state_dict(), state.modules.state_dict()
    for name, gradient in gradients(state.modules).items():
        wide = gradient.double() + tree.train.weight_decay * before[name].double()
        moved = before[name].double() - tree.train.learning_rate * wide / (wide.abs() + 1e-8)
        torch.testing.assert_close(after[name].double(), moved, rtol=0, atol=2e-7, msg=name)


def test_a_second_update_begins_without_the_gradients_of_the_first():
    tree = tree_of(2, momentum=1.0)  # the memory stays as it is
    state, one = begun(tree, method=Mixing(tree))
    one.update(*batch(tree, 0))
    for group in state.optimiser.param_groups:
        group["lr"] = 0.0
    one.update(*batch(tree, 1))
    first = {**gradients(state.model), **gradients(state.modules)}
    one.update(*batch(tree, 1))
    assert_gradients({**gradients(state.model), **gradients(state.modules)}, first, 1e-5)


def test_a_method_may_have_losses_of_the_batch_in_some_epochs_only():
    early, update = updated(2, MixingLater, epoch=5)
    assert list(update.losses) == ["contrast"]
    plain = by_hand(tree_of(2))
    assert_gradients(gradients(early.model), gradients(plain.network), 1e-5)
    assert gradients(early.modules) == {}
    assert int(early.modules.norm.num_batches_tracked) == 0
    _, update = updated(2, MixingLater, epoch=7)
    assert list(update.losses) == ["contrast", "mixed", "pulled"]


class Apart(Mixing):
    """A loss of the batch that trains the modules alone."""

    def batch_losses(self, gathered, targets, memories, modules, epoch):
        return BatchLosses({"mixed": modules(gathered["features"][:, 0].detach()).square().sum(1)})


def test_a_loss_of_the_batch_may_leave_the_network_alone():
    state, update = updated(2, Apart)
    assert list(update.losses) == ["contrast", "mixed"]
    assert_gradients(gradients(state.model), gradients(by_hand(tree_of(2)).network), 1e-5)
    assert len(gradients(state.modules)) == 4


@pytest.mark.parametrize("groups", GROUPS)
def test_moving_the_memories_sees_the_rows_of_the_losses_of_the_batch_without_their_graph(groups):
    tree = tree_of(groups)
    method = Mixing(tree)
    _, one = begun(tree, method=method)
    one.update(*batch(tree, 0))
    modules, features_BSD = drawn_modules(method), by_hand(tree).features_BSD
    assert set(method.seen) == {"features", "mixed"}
    assert not method.seen["mixed"].requires_grad
    torch.testing.assert_close(method.seen["mixed"], modules(features_BSD[:, 0]).detach(), rtol=1e-4, atol=1e-5)


class Partly(Mixing):
    """Half of the modules runs, in every second epoch."""

    def modules(self):
        return nn.ModuleDict({"seen": Mixer(), "idle": Mixer()})

    def batch_losses(self, gathered, targets, memories, modules, epoch):
        if epoch % 2:
            return BatchLosses({})
        return super().batch_losses(gathered, targets, memories, modules["seen"], epoch)


@pytest.mark.parametrize("epoch", [5, 6])
def test_modules_may_be_left_out_of_a_step(epoch):
    state, update = updated(2, Partly, epoch=epoch)
    ran = epoch == 6
    assert ("mixed" in update.losses) is ran
    assert int(state.modules["seen"].norm.num_batches_tracked) == ran
    assert int(state.modules["idle"].norm.num_batches_tracked) == 0


class Dropping(Mixing):
    """Dropout in the heads and in the modules."""

    def modules(self):
        return nn.Sequential(nn.Linear(192, 16), KeyedDropout(0.5))

    def heads(self, beginning):
        return nn.Sequential(KeyedDropout(0.5), nn.Linear(192, 8))

    def group_losses(self, outputs, targets, memories, heads, epoch):
        return {"said": heads(outputs.necks_BSD[:, 0]).square().sum(1)}


def test_dropout_in_heads_and_modules_belongs_to_the_image_and_is_new_in_every_step():
    found = {}
    for groups in GROUPS:
        tree = tree_of(groups)
        method = Dropping(tree)
        state, one = begun(tree, method=method)
        one.update(*batch(tree, 0))
        dropped = method.seen["mixed"] == 0
        assert 0.3 < dropped.float().mean() < 0.7
        heads = state.heads.layers
        found[groups] = dropped, torch.cat([heads[0].keys_B[:1], state.modules[1].keys_B[:1]])
        one.update(*batch(tree, 1))
        assert not torch.equal(method.seen["mixed"] == 0, dropped)
    for groups in GROUPS:
        assert torch.equal(found[groups][0], found[1][0])
    assert found[1][1][0] != found[1][1][1]


class Summed(Mixing):
    """A loss that is a number for the whole batch."""

    def batch_losses(self, gathered, targets, memories, modules, epoch):
        return BatchLosses({"mixed": modules(gathered["features"][:, 0]).square().sum()})


def test_a_loss_that_is_no_number_an_image_is_refused():
    with pytest.raises(ValueError, match=r"Summed.batch_losses must give a number for each of 16 images in mixed, got"):
        updated(2, Summed)


# ---- a checkpoint


class Alone:
    """As much of a run's context as keeping and taking up need."""

    background = None

    def __init__(self, folder, tree):
        self.settings, self.run_dir, self.packed = tree, folder, "packed"
        self.ranks, self.checkpoints = OneProcess(), CheckpointStore(folder, keep=1)
        self.bank = self._Bank()

    class _Bank:
        generation = 0

        def restore(self, version, files):
            return 1

        def mark(self, tables, version, memories):
            return self

        def write(self, folder):
            return {}

    def split(self, name):
        return SimpleNamespace(source=SimpleNamespace(digest="digest"), image_tables="train")

    def tell(self, **event):
        pass

    def filed(self):
        pass

    def spans(self, name):
        return torch.no_grad()  # any context


def test_modules_go_on_from_a_checkpoint_bit_for_bit(tmp_path):
    tree = tree_of(2)
    state, one = begun(tree, method=Mixing(tree))
    one.update(*batch(tree, 0))
    context = Alone(tmp_path, tree)
    keep(context, state, state.method.schedule(1), 0, step=1)
    context.checkpoints.close()

    method = Mixing(tree)
    fresh = RunState(method, method.network(), new_modules(method), History("digest"))
    checkpoint, _ = context.checkpoints.newest()
    assert take_up(context, checkpoint, fresh, [EpochPlan()] * 2) == 0
    assert set(checkpoint.modules) == set(state.modules.state_dict())
    _, other = begun(tree, method=method, replicas=dict(one.replicas), state=fresh)
    for name, replica in one.replicas.items():
        other.replicas = {**other.replicas, name: type(replica)(replica.all_rows().clone())}
    first, second = one.update(*batch(tree, 1)), other.update(*batch(tree, 1))
    assert all(torch.equal(loss, second.losses[term]) for term, loss in first.losses.items())
    for module in ("model", "modules"):
        expected, found = getattr(state, module).state_dict(), getattr(fresh, module).state_dict()
        assert list(expected) == list(found)
        assert all(torch.equal(tensor, found[name]) for name, tensor in expected.items())
    moments, restored = optimiser_tensors(state.optimiser), optimiser_tensors(fresh.optimiser)
    assert moments.keys() == restored.keys()
    for number, tensors in moments.items():
        assert all(torch.equal(tensor, restored[number][name]) for name, tensor in tensors.items())


# ---- two processes


def work(rank, folder):
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    torch.manual_seed(rank)  # what is drawn must not depend on it
    meeting = f"file://{folder}/meeting"
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=2, timeout=timedelta(minutes=10))
    found = {
        (name, groups): trained(tree_of(groups), ProcessGroup(), 2, method=kind(tree_of(groups)))
        for name, kind in METHODS.items()
        for groups in (2, 4)
    }
    torch.save(found, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    folder = tmp_path_factory.mktemp("batch_losses")
    mp.spawn(work, (str(folder),), nprocs=2)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.parametrize("groups", [2, 4])
@pytest.mark.parametrize("name", METHODS)
def test_two_processes_have_the_gradients_of_one_pass_through_the_whole_batch(pair, name, groups):
    tree = tree_of(groups)
    expected = by_hand(tree, method=METHODS[name](tree))
    wanted = {**gradients(expected.network), **gradients(expected.modules)}
    for found in pair:
        assert_gradients(found[name, groups]["gradients"], wanted, 1e-5)


@pytest.mark.parametrize("groups", [2, 4])
@pytest.mark.parametrize("name", METHODS)
def test_both_processes_hold_the_same_network_and_modules_bit_for_bit_and_agree_with_one(pair, name, groups):
    first, second = (found[name, groups] for found in pair)
    for key, tensor in first["network"].items():
        assert torch.equal(second["network"][key], tensor), key
    alone = trained(tree_of(groups), OneProcess(), 2, method=METHODS[name](tree_of(groups)))
    for key, tensor in alone["network"].items():
        if "running" in key or "tracked" in key:
            torch.testing.assert_close(first["network"][key], tensor, rtol=1e-4, atol=1e-4, msg=key)
    for losses, others in zip(first["losses"], alone["losses"], strict=True):
        for term, loss in others.items():
            torch.testing.assert_close(losses[term], loss, rtol=1e-4, atol=1e-4)
