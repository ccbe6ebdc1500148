"""The replica of a memory: shared out over one to four ranks it gives what it gives whole."""

import os
from datetime import timedelta

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from reidray.losses import partial
from reidray.training.batches import shares
from reidray.training.ranks import OneProcess, ProcessGroup
from reidray.training.replica import Replicated, Sharded, rounds
from tests.training import test_placement as placed
from tests.training.test_learner import CLUSTERING_ALONE, memory, settings, trained

# B = global batch, C = clusters, S = spaces, D = feature width, W = ranks

SIZES = (1, 2, 3, 4)  # W
SPACES = [0, 2]  # of 3
LABELS = torch.tensor([7, 7, 3, 3, 0, 0, 10, 10, 4, 4])  # five groups of two images
ROUNDS = {size: rounds(shares(5, size), 2) for size in SIZES}
BATCH = {size: [range(own.start * 2, own.stop * 2) for own in shares(5, size)] for size in SIZES}
MANY = {"C": 100_000, "S": 2, "D": 8, "B": 16}

WITHOUT_HEADS = {"global_identity_weight": 0.0, "part_identity_weight": 0.0}
RUNS = {  # five groups of four images each; the ranks of two and more have different numbers of groups
    "cluster_contrast": {"method": {"name": "cluster_contrast", "update": "random"}},
    "scwm": {"scwm": WITHOUT_HEADS},
    "scwm weighted over the batch": {
        "method": {"update": "weighted"},
        "scwm": {**WITHOUT_HEADS, "normalise_weights": "batch", "background_in_losses": False},
    },
    "scwm stripes": {"method": {"update": "weighted"}, "scwm": {**WITHOUT_HEADS, "parts": "stripes"}},
    "scwm hardest, global alone": {
        "method": {"update": "hardest"},
        "scwm": {**WITHOUT_HEADS, "part_memory_weight": 0.0, "separation_weight": 0.0},
    },
    "scwm clustering alone": CLUSTERING_ALONE,
    "acrm": {"method": {"name": "acrm"}},
}


def units(*shape, seed, dtype=torch.float64):
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype), dim=-1)


def tree_of(name):
    run = RUNS[name]
    return settings(method={**run.get("method", {}), "clusters_per_batch": 10}, scwm=run.get("scwm"))


def sharded(centroids_CSD, ranks):
    """This rank's rows, and no storage besides."""
    return Sharded(centroids_CSD[ranks.rank :: ranks.size].clone(), ranks)


# ---- what is done on every rank, and in this process with the whole replica


def contrasted(replica, rank, size, num_clusters):
    """Losses and gradients of this rank's groups, round by round, and the rows of their clusters."""
    labels_B, found = LABELS % num_clusters, []
    features_BSD = units(10, 3, 5, seed=0)
    for view, places in zip(replica.views(labels_B, ROUNDS[size], BATCH[size])[0], ROUNDS[size], strict=True):
        own = slice(places[rank].start, places[rank].stop)
        own_BSD = features_BSD[own].clone().requires_grad_()
        losses_BT = view.contrast(own_BSD, labels_B[own], SPACES, temperature=0.05)
        (losses_BT * torch.tensor([1.0, 3.0])).sum().backward()
        found.append((own, losses_BT.detach(), own_BSD.grad, view.rows(labels_B[own])))
    return found


def contrasted_at_once(replica, size, num_clusters):
    """Losses, gradients and rows of the whole batch, which every rank has."""
    labels_B = LABELS % num_clusters
    _, view = replica.views(labels_B, ROUNDS[size], BATCH[size])
    features_BSD = units(10, 3, 5, seed=0).requires_grad_()
    losses_BT = view.contrast(features_BSD, labels_B, SPACES, temperature=0.05)
    (losses_BT * torch.tensor([1.0, 3.0]) * torch.arange(10.0)[:, None]).sum().backward()
    return losses_BT.detach(), features_BSD.grad, view.rows(labels_B)


def moved(replica):
    """The clusters that a rank holds and their rows, after two writes."""
    for seed, clusters in ((5, [0, 1, 2, 8]), (6, [1, 10])):
        replica.write(torch.tensor(clusters), units(len(clusters), 3, 5, seed=seed))
    return replica.held()


class Largest(TorchDispatchMode):
    """The largest tensor, in numbers, that any operation gave."""

    numbers = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else [result]:
            if isinstance(tensor, torch.Tensor):
                self.numbers = max(self.numbers, tensor.numel())
        return result


def many_labels():
    return torch.randint(0, MANY["C"], (MANY["B"],), generator=torch.Generator().manual_seed(3))


def many(replica, ranks):
    """One round of all ranks against many clusters, and the largest tensor that it took."""
    labels_B, places = many_labels(), [rounds(shares(4, ranks.size), 4)[0]]
    own = slice(places[0][ranks.rank].start, places[0][ranks.rank].stop)
    features_BSD = units(MANY["B"], MANY["S"], MANY["D"], seed=8, dtype=torch.float32)[own].requires_grad_()
    with Largest() as largest:
        ((view,), _) = replica.views(labels_B, places, places[0])
        losses_BT = view.contrast(features_BSD, labels_B[own], [0, 1], temperature=0.05)
        losses_BT.sum().backward()
        view.rows(labels_B[own])
    return own, losses_BT.detach(), features_BSD.grad, largest.numbers


def many_centroids():
    return units(MANY["C"], MANY["S"], MANY["D"], seed=9, dtype=torch.float32)


def work(rank, folder):
    """One of four processes: it belongs to the groups of sizes above its number, one after another."""
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    for size in SIZES[rank:]:
        meeting = f"file://{folder}/meeting{size}"
        dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=size, timeout=timedelta(minutes=10))
        ranks = ProcessGroup()
        replica = sharded(many_centroids(), ranks)
        found = {
            "contrasted": {clusters: contrasted(_small(ranks, clusters), rank, size, clusters) for clusters in (11, 2)},
            "at once": {clusters: contrasted_at_once(_small(ranks, clusters), size, clusters) for clusters in (11, 2)},
            "moved": moved(_small(ranks, 11)),
            "many": many(replica, ranks),
            "held bytes": replica.held()[1].untyped_storage().nbytes(),
            "compared": placed.compared(ranks),
            "trained": {name: trained(tree_of(name), ranks, 2, _start(name, ranks)) for name in RUNS},
        }
        torch.save(found, f"{folder}/{size}-{rank}.pt")
        dist.destroy_process_group()


def _small(ranks, num_clusters):
    return sharded(units(num_clusters, 3, 5, seed=1), ranks)


def _start(name, ranks):
    return sharded(memory(tree_of(name)), ranks)


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """What each rank found: by W, then by rank."""
    folder = tmp_path_factory.mktemp("replica")
    mp.spawn(work, (str(folder),), nprocs=max(SIZES))
    return {
        size: [torch.load(folder / f"{size}-{rank}.pt", weights_only=False) for rank in range(size)] for size in SIZES
    }


@pytest.fixture(scope="module")
def whole():
    """The same runs in this process, with the whole replica."""
    return {name: trained(tree_of(name), OneProcess(), 2) for name in RUNS}


def assert_same_training(found, alone, rank=0, size=1):
    """All but the network of the end: of a gradient as small as its rounding Adam makes a step all the same, up to the
    learning rate of 3.5e-4, so that later rows are compared less closely."""
    for key, gradient in alone["gradients"].items():
        scale = gradient.abs().max().item()
        torch.testing.assert_close(found["gradients"][key], gradient, rtol=1e-4, atol=1e-5 * scale + 1e-9, msg=key)
    for step, expected in enumerate(alone["losses"]):
        assert list(found["losses"][step]) == list(expected)
        for term, loss in expected.items():
            tolerance = 1e-4 if step else 1e-5
            torch.testing.assert_close(found["losses"][step][term], loss, rtol=tolerance, atol=tolerance)
        assert torch.equal(found["clusters"][step], alone["clusters"][step])
        torch.testing.assert_close(found["rows"][step], alone["rows"][step], rtol=0, atol=5e-4 if step else 1e-6)
    torch.testing.assert_close(found["memory"], alone["memory"][rank::size], rtol=0, atol=5e-4)


# ---- ranks of a process group


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("clusters", [11, 2])  # 2: some ranks have no row at all
def test_losses_and_gradients_of_every_image_are_those_of_the_whole_replica(shared, size, clusters):
    for rank, found in enumerate(shared[size]):
        expected = contrasted(Replicated(units(clusters, 3, 5, seed=1)), rank, size, clusters)
        assert len(found["contrasted"][clusters]) == len(expected) == len(ROUNDS[size])
        for one, other in zip(found["contrasted"][clusters], expected, strict=True):
            assert one[0] == other[0]
            for tensor, wanted in zip(one[1:], other[1:], strict=True):
                torch.testing.assert_close(tensor, wanted, rtol=1e-11, atol=1e-11)
            assert torch.equal(one[3], other[3])


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("clusters", [11, 2])
def test_every_rank_has_the_losses_and_gradients_of_the_whole_batch_bit_for_bit(shared, size, clusters):
    expected = contrasted_at_once(Replicated(units(clusters, 3, 5, seed=1)), size, clusters)
    for found in shared[size]:
        for tensor, wanted, first in zip(
            found["at once"][clusters], expected, shared[size][0]["at once"][clusters], strict=True
        ):
            torch.testing.assert_close(tensor, wanted, rtol=1e-11, atol=1e-11)
            assert torch.equal(tensor, first)


@pytest.mark.parametrize("size", SIZES)
def test_written_rows_lie_with_their_owners_and_nowhere_else(shared, size):
    clusters_C, rows_CSD = moved(Replicated(units(11, 3, 5, seed=1)))
    assert clusters_C.tolist() == list(range(11))
    together = sorted(cluster for found in shared[size] for cluster in found["moved"][0].tolist())
    assert together == list(range(11))
    for found in shared[size]:
        clusters_R, rows_RSD = found["moved"]
        assert torch.equal(rows_RSD, rows_CSD[clusters_R])


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", RUNS)
def test_training_gives_the_losses_the_gradients_and_the_memory_of_the_whole_replica(shared, whole, name, size):
    for rank, found in enumerate(shared[size]):
        assert_same_training(found["trained"][name], whole[name], rank, size)


@pytest.mark.parametrize("size", SIZES)
def test_all_ranks_train_the_same_network_bit_for_bit(shared, size):
    first, *others = (found["trained"]["scwm"] for found in shared[size])
    for other in others:
        for key, tensor in first["network"].items():
            assert torch.equal(other["network"][key], tensor), key
        for rows, same in zip(first["rows"], other["rows"], strict=True):
            assert torch.equal(rows, same)


@pytest.mark.parametrize("size", SIZES)
def test_100_000_clusters_give_the_losses_of_the_whole_replica(shared, size):
    for rank, found in enumerate(shared[size]):
        expected = many(Replicated(many_centroids()), _Place(rank, size))
        assert found["many"][0] == expected[0]
        torch.testing.assert_close(found["many"][1], expected[1], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(found["many"][2], expected[2], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", SIZES)
def test_a_rank_holds_one_share_of_the_rows_and_never_more_than_a_block_of_logits(shared, size):
    share = -(-MANY["C"] // size)
    for found in shared[size]:
        assert found["held bytes"] <= share * MANY["S"] * MANY["D"] * 4
        # the rows of one space as a matrix product sees them, or one block of logits
        assert found["many"][3] <= max(share * MANY["D"], MANY["B"] * min(share, partial._BLOCK_ROWS))


@pytest.mark.parametrize("size", SIZES)
def test_each_rank_reads_and_compares_its_own_rows_and_all_hear_of_a_difference(shared, size):
    for rank, found in enumerate(shared[size]):
        for name, banked in (("features", placed.centroids()), ("proxies", placed.proxies())):
            assert torch.equal(found["compared"]["rows"][name], torch.from_numpy(banked[rank::size]))
            assert set(found["compared"]["asked"][name]) == set(range(rank, len(banked), size))
        assert found["compared"]["said"] == ["epoch 4: the memory bank and the replica of the memories differ"]


class _Place:
    """The rank and size that a whole replica does not ask for."""

    def __init__(self, rank, size):
        self.rank, self.size = rank, size


# ---- one process


@pytest.mark.parametrize("name", RUNS)
def test_without_a_process_group_one_process_has_all_rows_and_agrees(whole, name):
    assert_same_training(trained(tree_of(name), OneProcess(), 2, _start(name, OneProcess())), whole[name])


def test_half_precision_agrees_as_far_as_half_precision_does():
    tree = tree_of("scwm")
    half = tree.model_copy(update={"train": tree.train.model_copy(update={"precision": "bfloat16"})})
    found = trained(half, OneProcess(), steps=1, replica=_start("scwm", OneProcess()))["losses"][0]
    for term, loss in trained(half, OneProcess(), steps=1)["losses"][0].items():
        assert found[term].dtype == torch.float32
        torch.testing.assert_close(found[term], loss, rtol=0.02, atol=0.02)


def test_rounds_name_the_images_of_every_rank_until_nobody_has_a_group_left():
    assert rounds([range(0, 2), range(2, 3)], 4) == [[range(0, 4), range(8, 12)], [range(4, 8), range(0)]]
    for groups, size in ((5, 1), (5, 2), (5, 4), (8, 3)):
        found = rounds(shares(groups, size), 3)
        images = [place for round_ in found for own in round_ for place in own]
        assert sorted(images) == list(range(3 * groups))
        assert all(any(own) for own in zip(*found, strict=True))  # everybody has a group in some round
        assert all(len(own) == 3 for own in found[0])  # in the first one, all have


def test_layers_that_need_all_rows_are_refused_in_one_sentence():
    with pytest.raises(ValueError, match=r"run.replica=sharded has no place .* set run.replica=replicated, or"):
        trained(settings(), OneProcess(), replica=sharded(memory(settings()), OneProcess()))


def test_a_cluster_outside_of_the_batch_is_refused_where_its_row_may_be_elsewhere():
    ((view,), _) = _small(OneProcess(), 11).views(torch.tensor([3, 3, 7]), [[range(3)]], [range(3)])
    assert torch.equal(view.rows(torch.tensor([[7], [3]])), units(11, 3, 5, seed=1)[torch.tensor([[7], [3]])])
    for cluster in (0, 5, 10):
        with pytest.raises(AssertionError, match="only the rows of the batch"):
            view.rows(torch.tensor([3, cluster]))


def test_a_view_is_of_all_images_of_the_group():
    ((view,), _) = _small(OneProcess(), 11).views(torch.tensor([3, 3, 7]), [[range(3)]], [range(3)])
    with pytest.raises(AssertionError, match="all images of the group"):
        view.contrast(units(2, 3, 5, seed=0), torch.tensor([3, 3]), SPACES, temperature=0.05)
