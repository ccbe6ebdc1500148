"""Every source compiles for a GPU, by the compiler that CuPy uses and by CUDA's own."""

import ctypes
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path

import pytest

from reidray.cuda.device import OPTIONS, SOURCES

ARCHITECTURES = ("sm_80", "sm_90")
sources = pytest.mark.parametrize("source", sorted(SOURCES.glob("*.cu")), ids=lambda path: path.name)


def _nvrtc() -> Path | None:
    """The library that PyTorch's wheel for CUDA brings along."""
    spec = find_spec("nvidia")
    folders = list(spec.submodule_search_locations or []) if spec else []
    return next((found for folder in folders for found in sorted(Path(folder).glob("*/lib/libnvrtc.so.*"))), None)


def _compiled(library: Path, text: str, options: list[str]) -> tuple[bool, str]:
    """Whether NVRTC accepts the source, and its log."""
    nvrtc = ctypes.CDLL(str(library))
    program = ctypes.c_void_p()
    assert nvrtc.nvrtcCreateProgram(ctypes.byref(program), text.encode(), b"source.cu", 0, None, None) == 0
    given = (ctypes.c_char_p * len(options))(*[option.encode() for option in options])
    accepted = nvrtc.nvrtcCompileProgram(program, len(options), given) == 0
    size = ctypes.c_size_t()
    nvrtc.nvrtcGetProgramLogSize(program, ctypes.byref(size))
    log = ctypes.create_string_buffer(size.value)
    nvrtc.nvrtcGetProgramLog(program, log)
    nvrtc.nvrtcDestroyProgram(ctypes.byref(program))
    return accepted, log.value.decode()


@pytest.mark.skipif(_nvrtc() is None, reason="needs NVRTC, which comes with PyTorch for CUDA")
@sources
def test_the_compiler_of_cupy_accepts_the_source_without_a_warning(source):
    library = _nvrtc()
    assert library is not None
    for architecture in ARCHITECTURES:
        accepted, log = _compiled(library, source.read_text(), [*OPTIONS, f"-arch={architecture}"])
        assert accepted, log
        assert "warning" not in log, log


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="needs nvcc")
@sources
def test_nvcc_accepts_the_source(source, tmp_path):
    command = ["nvcc", "-cubin", "-arch=sm_90", *OPTIONS, "-o", str(tmp_path / "out.cubin"), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
