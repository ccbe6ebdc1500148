"""Runs the kernels of this package: on a GPU through CuPy, or on another implementation of `Device`.

Functions of this package take and return PyTorch's tensors; CuPy compiles and launches the kernels. Both use PyTorch's
current stream, so that no synchronisation is needed between them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch.utils.dlpack import from_dlpack

SOURCES = Path(__file__).parent / "sources"

OPTIONS = ("-std=c++17", "--fmad=false")  # a fused multiply-add rounds once where the processor rounds twice
_SHARED_WITHOUT_ASKING = 48 * 1024


class Device(Protocol):
    """Where arrays live and kernels run."""

    @property
    def xp(self) -> Any:
        """The array module: cupy, or what stands in for it."""

    def array(self, tensor: torch.Tensor) -> Any:
        """The tensor as an `xp` array on the same memory; bfloat16 goes as `tensor.view(torch.int16)`."""

    def tensor(self, array: Any) -> torch.Tensor:
        """The `xp` array as a tensor on the same memory."""

    def in_step(self) -> AbstractContextManager[None]:
        """Runs calls of `xp` inside after PyTorch's earlier work, and PyTorch's later work after them."""

    def launch(
        self, source: str, kernel: str, *, blocks: int, threads: int, shared_bytes: int, arguments: Sequence[Any]
    ) -> None:
        """Runs a kernel on `blocks` x `threads`, in PyTorch's current stream; none at all for 0 blocks.

        Args:
          source: name of a file in `sources`, e.g. "parsing.cu".
          kernel: an `extern "C" __global__` function in it.
          blocks, threads: a one-dimensional grid, and the threads of each block.
          shared_bytes: dynamic shared memory of a block; above 48 KB it is asked for.
          arguments: in the kernel's order: contiguous `xp` arrays or tensors, which arrive as pointers, and NumPy
            scalars of the parameters' types (np.int32, np.int64, np.float32, np.float64).

        Errors:
          TypeError for an argument that is none of these.
        """


@cache
def cuda_device() -> Device:
    """The GPU that is current in PyTorch, through CuPy.

    Errors:
      RuntimeError where PyTorch sees no CUDA device; ImportError where CuPy is missing.
    """
    if not torch.cuda.is_available():
        raise RuntimeError("kernels for GPUs need a CUDA device, and PyTorch sees none; use the functions for arrays.")
    try:
        import cupy
    except ImportError as error:
        raise ImportError("kernels for GPUs need CuPy; install reidray[gpu].") from error
    return _CuPy(cupy)


class _CuPy:
    """CuPy on PyTorch's current device and stream."""

    def __init__(self, cupy: Any) -> None:
        self.xp = cupy

    def array(self, tensor: torch.Tensor) -> Any:
        with self.in_step():
            return self.xp.from_dlpack(tensor.detach())

    def tensor(self, array: Any) -> torch.Tensor:
        with self.in_step():
            return from_dlpack(array)

    @contextmanager
    def in_step(self) -> Iterator[None]:
        with self.xp.cuda.Device(torch.cuda.current_device()), self.xp.cuda.Stream.from_external(_CurrentStream()):
            yield

    def launch(
        self, source: str, kernel: str, *, blocks: int, threads: int, shared_bytes: int, arguments: Sequence[Any]
    ) -> None:
        if blocks == 0:
            return
        given = tuple(self._argument(argument) for argument in arguments)
        with self.in_step():
            function = _function(self.xp, source, kernel)
            if shared_bytes > _SHARED_WITHOUT_ASKING:
                function.max_dynamic_shared_size_bytes = shared_bytes
            function((blocks,), (threads,), given, shared_mem=shared_bytes)

    def _argument(self, argument: Any) -> Any:
        if isinstance(argument, torch.Tensor):
            assert argument.get_device() == torch.cuda.current_device()
            assert argument.is_contiguous()
            return np.uint64(argument.data_ptr())
        if isinstance(argument, self.xp.ndarray):
            assert argument.flags.c_contiguous
            return argument
        if isinstance(argument, np.generic):
            return argument
        raise TypeError(f"a kernel takes arrays, tensors and NumPy scalars; got {type(argument).__name__}.")


class _CurrentStream:
    """PyTorch's current stream, as CuPy asks for one."""

    def __cuda_stream__(self) -> tuple[int, int]:
        return 0, torch.cuda.current_stream().cuda_stream  # version of the protocol, handle


@cache
def _function(cupy: Any, source: str, kernel: str) -> Any:
    return _module(cupy, source).get_function(kernel)


@cache
def _module(cupy: Any, source: str) -> Any:
    """The source, compiled when it is first used; CuPy keeps one binary for each device, and on disk."""
    return cupy.RawModule(code=(SOURCES / source).read_text(), options=OPTIONS)
