"""A file of weights, read by what is in it, whatever it is called; nothing in it is run.

Read are safetensors and PyTorch's two formats (zip archives, and the older pickles), the latter through the unpickler
that builds tensors and plain containers only. What a person is likely to have in their place (a web page, a Git LFS
pointer, a whole pickled model, a TorchScript program) is recognised and named; the words of PyTorch's own error, which
advise to run the code, are not passed on.
"""

from __future__ import annotations

import argparse
import io
import pickle
import pickletools
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

_LOOK = 4096  # bytes from the beginning that tell what a file is
_MOST_PICKLE = 2**26  # bytes; tensors lie outside of it
_ZIP, _PICKLE = b"PK\x03\x04", b"\x80"
_LFS = b"version https://git-lfs"
_PAGE = re.compile(rb"\s*(<!--.*?-->\s*)*<(!doctype|html|head|body|\?xml)", re.IGNORECASE | re.DOTALL)
_ARCHIVES = ((b"\x1f\x8b", "a gzip archive"), (b"7z\xbc\xaf", "a 7z archive"), (b"Rar!", "a RAR archive"))
_OTHERS = ((b"\x89HDF", "an HDF5 file, as Keras writes"), (b"\x93NUMPY", "a NumPy array"), (b"PAR1", "a Parquet file"))
_PLAIN = re.compile(r"[A-Za-z_][\w.]{0,99}")  # names that may be shown on a terminal

_SAVE = "where you trust it, load it with the code that made it, and save its tensors alone"


def is_safetensors(path: Path) -> bool:
    """Whether a file begins as safetensors do: the length of a header, which is JSON."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        start = file.read(9)
    return start[8:] == b"{" and int.from_bytes(start[:8], "little") >= 2


def read_weights_file(path: Path) -> Any:
    """Whatever a file of weights holds: tensors, and plain containers around them.

    Args:
      path: of the file; its ending does not matter.

    Raises:
      ValueError: one sentence: there is none, it is something else, damaged, or holds code, which is never run.
    """
    if not path.is_file():
        raise ValueError(f"model.weights must be shipped, imagenet, none or a checkpoint file; there is no file {path}")
    if is_safetensors(path):
        return read_safetensors(path)
    with path.open("rb") as file:
        start = file.read(_LOOK)
    if start.startswith(_ZIP):
        _check_zip(path)
    elif not start.startswith(_PICKLE):
        raise ValueError(f"{path} {_what(start, path.stat().st_size)}")
    return _tensors(path)


def read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a safetensors file; `ValueError` where it is damaged."""
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{path} could not be read as safetensors ({error}); copy it again") from error


def _tensors(path: Path) -> Any:
    # Harmless things that checkpoints carry beside their tensors: options, and a best mAP as a NumPy number.
    scalar = np._core.multiarray.scalar  # type: ignore[attr-defined]
    harmless: list[Any] = [argparse.Namespace, np.dtype, scalar, (scalar, "numpy.core.multiarray.scalar")]
    harmless += [type(np.dtype(kind)) for kind in ("f2", "f4", "f8", "i4", "i8", "?")]
    try:
        with torch.serialization.safe_globals(harmless):
            return torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, EOFError, OSError, RuntimeError, LookupError, ValueError, TypeError) as error:
        raise ValueError(f"{path} {_why_not(path)}") from error


def _why_not(path: Path) -> str:
    """Why PyTorch's harmless unpickler did not read a file, from the names that the file asks for."""
    names = list(dict.fromkeys(_asked_for(path)))
    strange = [name for name in names if not name.startswith(("torch.", "collections.", "numpy.", "argparse."))]
    shown = [name for name in strange if _PLAIN.fullmatch(name)]
    if any(name.startswith(("torch.nn.modules.", "torch.nn.parallel.")) for name in names):
        # The first name that is asked for is the model's own class.
        kind = names[0] if _PLAIN.fullmatch(names[0]) else "a class"
        return (
            f"holds a whole pickled model ({kind}), not its weights; a pickled model is code, which is never run: "
            f"{_SAVE}: torch.save(model.state_dict(), 'weights.pth')"
        )
    if strange:
        many = f" and {len(strange) - 1} more" if len(strange) > 1 else ""
        return (
            f"could not be read as tensors alone: it holds code, which is never run (it asks for "
            f"{shown[0] if shown else 'names that cannot be shown'}{many}): {_SAVE}: "
            "torch.save(checkpoint['state_dict'], 'weights.pth')"
        )
    return "could not be read as a PyTorch checkpoint: it is damaged or cut short; copy or download it again"


def _asked_for(path: Path) -> Iterator[str]:
    """The names of classes and functions in a file's pickles, read without making any of them."""
    try:
        with path.open("rb") as file:
            if file.read(len(_ZIP)) == _ZIP:
                with zipfile.ZipFile(path) as archive:
                    inner = next(entry for entry in archive.infolist() if entry.filename.endswith("/data.pkl"))
                    if inner.file_size <= _MOST_PICKLE:
                        yield from _names(io.BytesIO(archive.read(inner)))
                return
            file.seek(0)
            for _ in range(4):  # a number, a version, sizes of that machine, then the object
                yield from _names(file)
    except Exception:  # damaged in whatever way: what was found so far is what can be said
        return


def _names(file: IO[bytes]) -> Iterator[str]:
    strings: list[str] = []
    for opcode, argument, _ in pickletools.genops(file):
        if opcode.name == "GLOBAL":
            yield str(argument).replace(" ", ".")
        elif opcode.name == "STACK_GLOBAL" and len(strings) > 1:
            yield ".".join(strings[-2:])
        elif isinstance(argument, str):
            strings.append(argument)


def _check_zip(path: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise ValueError(
            f"{path} could not be read as a PyTorch checkpoint: it is a zip archive that is cut short or damaged; copy "
            "or download it again"
        ) from error
    if any(name.endswith(("/constants.pkl", "/archive_format")) for name in names):
        kind = (
            "TorchScript program" if any(name.endswith("/constants.pkl") for name in names) else "torch.export program"
        )
        raise ValueError(
            f"{path} could not be read as tensors alone: it is a {kind}, and holds code, which is never run: "
            f"{_SAVE}: torch.save(model.state_dict(), 'weights.pth')"
        )
    if not any(name.endswith("/data.pkl") for name in names):
        raise ValueError(
            f"{path} could not be read as a PyTorch checkpoint: it is a zip archive of other files; unpack it and give "
            "the checkpoint inside"
        )


def _what(start: bytes, size: int) -> str:
    """A sentence's rest about a file that is neither safetensors nor a zip archive nor a pickle."""
    again = "download it again, in a browser or from another place"
    if not start:
        return f"could not be read as a checkpoint: it is empty; {again}"
    if start.startswith(_LFS):
        return (
            "could not be read as a checkpoint: it is a Git LFS pointer, not the file; get the file with git lfs pull"
        )
    if _PAGE.match(start):
        return (
            "could not be read as a checkpoint: it is a web page (HTML) that was saved under this name, such as a "
            f"login or a warning; {again}"
        )
    for magic, name in _ARCHIVES:
        if start.startswith(magic):
            return f"could not be read as a checkpoint: it is {name}; unpack it and give the checkpoint inside"
    if start[257:262] == b"ustar":
        return "could not be read as a checkpoint: it is a tar archive; unpack it and give the checkpoint inside"
    for magic, name in _OTHERS:
        if start.startswith(magic):
            return f"could not be read as a checkpoint: it is {name}; safetensors and PyTorch's files are read"
    return (
        f"could not be read as a checkpoint: its {size:,} bytes are neither safetensors nor one of PyTorch's two "
        "formats; copy it again, or save its tensors as one of these"
    )
