"""A processor in the place of a GPU: the sources of reidray/cuda, compiled by g++ behind `cuda_on_cpu.h`."""

from __future__ import annotations

import ctypes
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from reidray.cuda.device import SOURCES

_HEADER = Path(__file__).with_name("cuda_on_cpu.h")
_FLAGS = ("-std=c++17", "-O2", "-ffp-contract=off", "-fno-strict-aliasing", "-shared", "-fPIC", "-w")
_FOLDER = tempfile.TemporaryDirectory(prefix="cuda_on_cpu_")

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++, which stands in for a GPU")


class EmulatedDevice:
    """Runs each kernel thread by thread, blocks and threads forward or backward.

    A kernel whose result depends on `backward` has a race.
    """

    xp = np

    def __init__(self, *, backward: bool = False, sources: Path = SOURCES) -> None:
        self.backward = backward
        self.sources = sources

    def array(self, tensor: torch.Tensor) -> np.ndarray:
        return tensor.detach().numpy()

    def tensor(self, array: Any) -> torch.Tensor:
        return torch.from_numpy(array)

    @contextmanager
    def in_step(self) -> Iterator[None]:
        yield

    def launch(
        self, source: str, kernel: str, *, blocks: int, threads: int, shared_bytes: int, arguments: Sequence[Any]
    ) -> None:
        assert 1 <= threads <= 1024
        assert shared_bytes <= 227 * 1024
        if blocks == 0:
            return
        kinds, places, kept = [], [], []
        for argument in arguments:
            kind, value = _argument(argument)
            kinds.append(kind.encode())
            kept.append(value)
            places.append(ctypes.addressof(value))
        count = len(kinds)
        function = getattr(_library(self.sources / source), f"emulated_{kernel}")
        function.restype = ctypes.c_char_p
        complaint = function(
            ctypes.c_int(blocks),
            ctypes.c_int(threads),
            ctypes.c_int(shared_bytes),
            ctypes.c_int(self.backward),
            ctypes.c_int(count),
            (ctypes.c_char_p * count)(*kinds),
            (ctypes.c_void_p * count)(*places),
        )
        if complaint:
            raise TypeError(f"{kernel} in {source} {complaint.decode()}")


def _argument(argument: Any) -> tuple[str, Any]:
    """Its type as `cuda_on_cpu.h` writes it, and its bytes: of a scalar, or of the pointer to an array."""
    if isinstance(argument, torch.Tensor):
        assert argument.is_contiguous()
        kind = "f" if argument.is_floating_point() and argument.dtype != torch.bfloat16 else "i"
        return f"p{kind}{argument.element_size()}", ctypes.c_void_p(argument.data_ptr())
    if isinstance(argument, np.ndarray):
        assert argument.flags.c_contiguous
        return f"p{_kind(argument.dtype)}", ctypes.c_void_p(argument.ctypes.data)
    if isinstance(argument, np.generic):
        return _kind(argument.dtype), ctypes.create_string_buffer(argument.tobytes(), argument.dtype.itemsize)
    raise TypeError(f"a kernel takes arrays, tensors and NumPy scalars; got {type(argument).__name__}.")


def _kind(dtype: np.dtype) -> str:
    return f"{'f' if dtype.kind == 'f' else 'i'}{dtype.itemsize}"


@cache
def _library(source: Path) -> ctypes.CDLL:
    """The compiled source, with a function `emulated_<kernel>` for each of its kernels."""
    text = source.read_text()
    kernels = re.findall(r"__global__\s+void\s+(?:__launch_bounds__\([^)]*\)\s*)?(\w+)\s*\(", text)
    text = re.sub(
        r"extern\s+__shared__\s+(?:__align__\(\d+\)\s+)?([\w ]+?)\s+(\w+)\s*\[\s*\]\s*;",
        r"\1* \2 = reinterpret_cast<\1*>(emulated::dynamic_shared);",
        text,
    )
    doors = "".join(
        f'extern "C" const char* emulated_{kernel}(int blocks, int threads, int shared_bytes, int backward, int count,'
        " const char** kinds, void** arguments)\n"
        f"{{ return emulated::launch({kernel}, blocks, threads, shared_bytes, backward, count, kinds, arguments); }}\n"
        for kernel in kernels
    )
    folder = Path(tempfile.mkdtemp(dir=_FOLDER.name))
    program, library = folder / f"{source.stem}.cpp", folder / f"{source.stem}.so"
    program.write_text(f'#include "{_HEADER}"\n#line 1 "{source}"\n{text}\n{doors}')
    subprocess.run(["g++", *_FLAGS, "-o", str(library), str(program)], check=True)
    return ctypes.CDLL(str(library))
