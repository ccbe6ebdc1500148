"""The processor that stands in for a GPU must behave like one, or the tests of the kernels prove nothing."""

from operator import attrgetter
from pathlib import Path

import numpy as np
import pytest
import torch

from reidray.cuda.device import OPTIONS, cuda_device
from tests.cuda.emulated import EmulatedDevice, needs_compiler

SOURCE = r"""
extern "C" __global__ void reversed_in_block(const float* in, float* out, int count) {
  extern __shared__ float held[];
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < count) held[threadIdx.x] = in[i];
  __syncthreads();
  int here = min((int)blockDim.x, count - (int)(blockIdx.x * blockDim.x));
  if (i < count) out[i] = held[here - 1 - threadIdx.x];
}

extern "C" __global__ void sum_of_warps(const int* in, int* total) {
  int value = in[threadIdx.x];
  for (int delta = 16; delta > 0; delta /= 2) value += __shfl_down_sync(0xffffffffu, value, delta);
  if (threadIdx.x % 32 == 0) atomicAdd(total, value);
}

extern "C" __global__ void last_writer(int* place) { *place = blockIdx.x * blockDim.x + threadIdx.x; }

extern "C" __global__ void __launch_bounds__(64) some_stay_away(int* place) {
  if (threadIdx.x == 0) return;
  __syncthreads();
  *place = 1;
}

extern "C" __global__ void scalars(int a, long long b, float c, double d, double* out) { *out = d + c + b + a; }

__device__ float unfused(float a, float b, float c) { return a * b + c; }
extern "C" __global__ void multiply_and_add(const float* abc, float* out) { *out = unfused(abc[0], abc[1], abc[2]); }
"""

pytestmark = needs_compiler


@pytest.fixture(params=[False, True], ids=["forward", "backward"])
def device(request: pytest.FixtureRequest, tmp_path: Path) -> EmulatedDevice:
    (tmp_path / "some.cu").write_text(SOURCE)
    return EmulatedDevice(backward=request.param, sources=tmp_path)


def test_threads_of_a_block_meet_at_a_barrier_and_share_memory(device):
    values = np.arange(70, dtype=np.float32)
    got = np.zeros(70, np.float32)
    device.launch(
        "some.cu", "reversed_in_block", blocks=3, threads=32, shared_bytes=128, arguments=(values, got, np.int32(70))
    )
    assert got.tolist() == [*range(31, -1, -1), *range(63, 31, -1), *range(69, 63, -1)]


def test_lanes_of_a_warp_tell_each_other_what_they_hold(device):
    values = torch.arange(64, dtype=torch.int32)
    total = torch.zeros(1, dtype=torch.int32)
    device.launch("some.cu", "sum_of_warps", blocks=1, threads=64, shared_bytes=0, arguments=(values, total))
    assert total.item() == 64 * 63 // 2


def test_the_order_of_threads_shows_a_race(device):
    place = np.zeros(1, np.int32)
    device.launch("some.cu", "last_writer", blocks=4, threads=8, shared_bytes=0, arguments=(place,))
    assert place[0] == (0 if device.backward else 31)


def test_a_thread_that_misses_a_barrier_is_an_error(device):
    with pytest.raises(TypeError, match="barrier which others never reach"):
        device.launch(
            "some.cu", "some_stay_away", blocks=1, threads=64, shared_bytes=0, arguments=(np.zeros(1, np.int32),)
        )


def test_scalars_arrive_and_wrong_types_are_refused(device):
    out = np.zeros(1)
    given = (np.int32(1), np.int64(2**40), np.float32(0.5), np.float64(0.25), out)
    device.launch("some.cu", "scalars", blocks=1, threads=1, shared_bytes=0, arguments=given)
    assert out[0] == 1 + 2**40 + 0.75
    for wrong in ((np.int64(1), *given[1:]), given[:-1], (*given[:-1], np.zeros(1, np.float32))):
        with pytest.raises(TypeError, match="takes"):
            device.launch("some.cu", "scalars", blocks=1, threads=1, shared_bytes=0, arguments=wrong)
    with pytest.raises(TypeError, match="NumPy scalars; got int"):
        device.launch("some.cu", "scalars", blocks=1, threads=1, shared_bytes=0, arguments=(1, *given[1:]))


def test_products_are_rounded_before_they_are_added(device):
    a = np.float32(1 + 2.0**-12)
    abc = np.array([a, a, -np.float32(a * a)], np.float32)
    out = np.ones(1, np.float32)
    device.launch("some.cu", "multiply_and_add", blocks=1, threads=1, shared_bytes=0, arguments=(abc, out))
    assert out[0] == 0.0


def test_no_blocks_are_no_launch(device):
    device.launch("some.cu", "last_writer", blocks=0, threads=8, shared_bytes=0, arguments=(np.zeros(1, np.int32),))


def test_arrays_and_tensors_share_their_memory(device):
    tensor = torch.zeros(3)
    device.array(tensor)[1] = 5.0
    assert device.tensor(device.array(tensor))[1] == tensor[1] == 5.0


def test_cupy_has_what_is_used_of_it():
    cupy = pytest.importorskip("cupy")
    for name in ("RawModule", "ndarray", "from_dlpack", "cuda.Device", "cuda.Stream.from_external"):
        assert callable(attrgetter(name)(cupy)), name
    module = cupy.RawModule(code=SOURCE, options=OPTIONS)
    assert callable(module.get_function)
    assert hasattr(cupy.RawKernel, "max_dynamic_shared_size_bytes")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_gpu_one_sentence_says_so():
    with pytest.raises(RuntimeError, match="need a CUDA device, and PyTorch sees none"):
        cuda_device()
