"""The stand-in for a GPU refuses what a GPU refuses, and nothing else."""

import threading

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tests.cuda.stand_in import CUDA, stand_in_gpu


@pytest.fixture(autouse=True)
def gpu():
    with stand_in_gpu() as found:
        yield found


def on_gpu(*shape):
    return torch.ones(shape, device=CUDA)


WRONG = {
    "a sum": lambda: on_gpu(3) + torch.ones(3),
    "a product": lambda: on_gpu(3, 3) @ torch.ones(3, 3),
    "a list": lambda: torch.stack([on_gpu(3), torch.ones(3)]),
    "a network": lambda: nn.Linear(3, 2)(on_gpu(1, 3)),
    "a moved network": lambda: nn.Linear(3, 2).to(CUDA)(torch.ones(1, 3)),
    "a loss": lambda: F.cross_entropy(on_gpu(2, 3), torch.zeros(2, dtype=torch.int64)),
    "an index": lambda: torch.ones(3)[torch.zeros(2, dtype=torch.int64, device=CUDA)],
    "in place": lambda: torch.zeros(3).add_(on_gpu(3)),
    "an argument by name": lambda: torch.index_select(on_gpu(3), 0, index=torch.zeros(1, dtype=torch.int64)),
}


@pytest.mark.parametrize("name", WRONG)
def test_the_two_kinds_cannot_be_mixed(name):
    with pytest.raises(RuntimeError, match="same device"):
        WRONG[name]()


@pytest.mark.parametrize("name", WRONG)
def test_where_all_of_it_is_on_the_processor_nothing_is_wrong(name, monkeypatch):
    monkeypatch.setitem(globals(), "CUDA", torch.device("cpu"))
    WRONG[name]()


def test_arrays_come_from_the_processor_alone():
    with pytest.raises(TypeError, match="to numpy"):
        on_gpu(3).numpy()
    assert on_gpu(3).cpu().numpy().tolist() == [1, 1, 1]


def test_what_is_made_of_a_tensor_lies_where_it_does():
    rows = on_gpu(4, 3)
    made = [
        rows[1:],
        rows.T,
        rows.new_zeros(2),
        torch.zeros_like(rows),
        rows.detach(),
        rows.double(),
        rows.to(torch.float16),
        *rows.split(2),
        rows.max(0).values,
        rows[torch.tensor([0, 2])],
        rows * torch.tensor(2.0),
        torch.arange(3, device=CUDA),
        torch.tensor([1, 2], device=CUDA),
        torch.as_tensor([1.0], device="cuda"),
        torch.ones(2).to(rows),
        torch.ones(2).cuda(),
    ]
    for tensor in made:
        assert tensor.is_cuda
        assert tensor.device == CUDA
    for tensor in (rows.cpu(), rows.to("cpu"), rows.new_zeros(2, device="cpu"), torch.ones(2)):
        assert not tensor.is_cuda
        assert tensor.device.type == "cpu"


def test_moving_copies_and_staying_does_not():
    here = torch.zeros(2)
    there = here.to(CUDA)
    there += 1
    assert here.tolist() == [0, 0]
    assert there.to(CUDA) is there


def test_a_network_that_was_moved_learns_there():
    network = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 1)).to(CUDA)
    optimiser = torch.optim.Adam(network.parameters())
    before = [parameter.detach().clone() for parameter in network.parameters()]
    torch.autograd.backward(network(torch.randn(8, 3, device=CUDA)).sum())
    optimiser.step()
    for parameter, old in zip(network.parameters(), before, strict=True):
        assert parameter.is_cuda
        assert parameter.grad is not None
        assert parameter.grad.is_cuda
        assert old.is_cuda
    assert all(tensor.is_cuda for tensor in network.state_dict().values())
    assert not torch.equal(before[0], next(network.parameters()))


def test_threads_that_start_inside_follow():
    complaints = []

    def mix():
        try:
            on_gpu(3) + torch.ones(3)
        except RuntimeError as error:
            complaints.append(str(error))

    thread = threading.Thread(target=mix)
    thread.start()
    thread.join()
    assert "same device" in complaints[0]


def test_half_precision_is_taken_and_noted(gpu):
    with torch.autocast("cuda", dtype=torch.bfloat16):
        assert (on_gpu(2, 2) @ on_gpu(2, 2)).dtype == torch.bfloat16
    assert gpu.autocasts == {torch.bfloat16}


def test_copies_from_pinned_memory_are_told_from_others(gpu):
    bytes_5, numbers_5 = torch.arange(5, dtype=torch.uint8), torch.arange(5.0)
    assert bytes_5.pin_memory().view(1, 5)[:, 1:].to(CUDA).tolist() == [[1, 2, 3, 4]]
    assert gpu.fetched_beside == {(torch.uint8, 2)}
    assert not gpu.waited_for
    numbers_5.to(CUDA, non_blocking=True)
    assert gpu.waited_for == {(torch.float32, 1)}
    with pytest.raises(RuntimeError, match="cannot pin"):
        on_gpu(2).pin_memory()


def test_what_a_gpu_sends_beside_its_work_is_there_after_an_event():
    early, late = on_gpu(2).to("cpu", non_blocking=True), torch.cuda.Event()
    late.record()
    later = on_gpu(3).to("cpu", non_blocking=True)
    for rows in (early, later):
        with pytest.raises(AssertionError, match="before the GPU has sent it"):
            rows.numpy()
    late.synchronize()
    assert early.numpy().tolist() == [1, 1]
    with pytest.raises(AssertionError, match="before the GPU has sent it"):
        later.numpy()
    assert on_gpu(2).to("cpu").numpy().tolist() == [1, 1]
