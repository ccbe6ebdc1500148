"""A GPU that is not there: tensors of the processor that pass for a GPU's, so that a whole run takes the path of CUDA.

The numbers are real, and so is the difference between the two kinds. `tensor.device` of one that was moved says cuda:0,
`is_cuda` is true, `.numpy()` is refused, and a call that mixes the two kinds raises what PyTorch raises on a GPU. The
kernels of reidray/cuda run thread by thread (`tests.cuda.emulated`). What only a GPU can show is not shown: kernels of
PyTorch itself, speed, memory, and what happens out of order.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from tests.cuda.emulated import EmulatedDevice

CUDA = torch.device("cuda", 0)
_MARK, _PINNED, _ON_ITS_WAY = "_stands_for_a_gpu", "_is_pinned", "_is_on_its_way"
_SAME_DEVICE = "Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu!"
_MOVES = {torch.Tensor.to, torch.Tensor.cpu, torch.Tensor.cuda}
_TO_THE_PROCESSOR = {torch.Tensor.numpy, torch.Tensor.__array__}
_INDEXING = {torch.Tensor.__getitem__, torch.Tensor.__setitem__}  # a GPU's tensor takes indices from the processor
_MAY_MIX = {torch.Tensor.copy_, torch._has_compatible_shallow_copy_type, *_INDEXING}


class StandIn:
    """What a test can ask afterwards.

    Attributes:
      kernels: names of the CUDA kernels that ran.
      collectives: names of the calls between ranks that carried tensors of the GPU.
      autocasts: types that forward passes were cast to.
      waited_for: type and number of axes of tensors that went to the GPU from memory that is not pinned: that waits.
      fetched_beside: of those that went there from pinned memory.
    """

    def __init__(self) -> None:
        self.kernels: set[str] = set()
        self.collectives: set[str] = set()
        self.autocasts: set[torch.dtype] = set()
        self.waited_for: set[tuple[torch.dtype, int]] = set()
        self.fetched_beside: set[tuple[torch.dtype, int]] = set()


@contextmanager
def stand_in_gpu() -> Iterator[StandIn]:
    """Inside, PyTorch seems to see one CUDA device; in threads that are started inside, too."""
    found = StandIn()
    emulated = _Emulated(found)

    class Autocast(torch.autocast):
        def __init__(self, device_type: str, dtype: torch.dtype | None = None, enabled: bool = True, **rest: Any):
            if device_type == "cuda" and enabled and dtype is not None:
                found.autocasts.add(dtype)
            super().__init__("cpu" if device_type == "cuda" else device_type, dtype, enabled, **rest)

    run_thread, backward, copied = threading.Thread.run, torch.autograd.backward, torch.nn.Parameter.__deepcopy__

    def run_in_mode(thread: threading.Thread) -> None:
        with _Mode(found):
            run_thread(thread)

    def lenient_backward(*args: Any, **rest: Any) -> None:
        with torch._C.DisableTorchFunction():  # gradients on their way carry no mark
            backward(*args, **rest)

    def marked_copy(parameter: torch.nn.Parameter, memo: dict[int, Any]) -> Any:
        return _marked(copied(parameter, memo), _is_marked(parameter))

    with (
        mock.patch.multiple(
            torch.cuda,
            is_available=lambda: True,
            device_count=lambda: 1,
            current_device=lambda: 0,
            set_device=lambda _: None,
            synchronize=lambda *_: None,
            is_current_stream_capturing=lambda: False,
            empty_cache=lambda: None,
            reset_peak_memory_stats=lambda *_: None,
            memory_allocated=lambda *_: 0,
            max_memory_allocated=lambda *_: 0,
            Event=_Event,
            get_device_name=lambda *_: "a stand-in",
        ),
        mock.patch.object(torch.accelerator, "current_stream", return_value=_Stream()),
        mock.patch.object(torch, "autocast", Autocast),
        mock.patch.object(torch.autograd, "backward", lenient_backward),
        mock.patch.object(torch.nn.Parameter, "__deepcopy__", marked_copy),
        mock.patch.object(threading.Thread, "run", run_in_mode),
        mock.patch("reidray.cuda.device.cuda_device", return_value=emulated),
        mock.patch("reidray.training.labeller.find_spec"),  # as if CuPy were there
        _checked_collectives(found),
        _Mode(found),
    ):
        yield found


class _Mode(TorchFunctionMode):
    """Follows the marks through every call of PyTorch in this thread."""

    def __init__(self, found: StandIn) -> None:
        super().__init__()
        self._found = found

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        given = list(_tensors((args, kwargs)))
        on = [tensor for tensor in given if _is_marked(tensor)]
        if func == torch.Tensor.device.__get__:  # type: ignore[attr-defined]
            return CUDA if on else func(*args)
        if func == torch.Tensor.is_cuda.__get__:  # type: ignore[attr-defined]
            return bool(on)
        if func == torch.Tensor.is_cpu.__get__:  # type: ignore[attr-defined]
            return not on
        if func == torch.Tensor.get_device:
            return 0 if on else -1
        if func == torch.Tensor.grad.__get__:  # type: ignore[attr-defined]
            return _marked(func(*args), bool(on))
        if func is torch.Tensor.pin_memory:
            return _pinned(args[0])
        if func in _MOVES:
            was, moved = _is_marked(args[0]), _moved(func, args, kwargs)
            if _is_marked(moved) and not was:
                copies = self._found.fetched_beside if _is_pinned(args[0]) else self._found.waited_for
                copies.add((args[0].dtype, args[0].ndim))
            return moved
        if func in _TO_THE_PROCESSOR and any(_may_be_on_its_way(tensor) for tensor in given):
            raise AssertionError("read before the GPU has sent it: nobody waited for an event after that")
        if func in _TO_THE_PROCESSOR and on:
            raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first.")
        if func == torch.Tensor.data.__set__:  # type: ignore[attr-defined]
            func(*args)
            _marked(args[0], _is_marked(args[1]))
            return None
        if "device" in kwargs:
            return _created(func, args, kwargs)
        first = next(iter(_tensors(args)), None)
        if on and func not in _MAY_MIX and any(not _is_marked(tensor) and tensor.ndim for tensor in given):
            raise RuntimeError(f"{_SAME_DEVICE} (in {getattr(func, '__name__', func)})")
        if on and func in _INDEXING and not _is_marked(first):
            raise RuntimeError("indices should be either on cpu or on the same device as the indexed tensor (cpu)")
        if func == torch.mm and "out_dtype" in kwargs:  # which PyTorch has for GPUs alone
            args, kwargs = tuple(rows.to(kwargs["out_dtype"]) for rows in args), {}
        is_marked = _is_marked(first) if func is torch.Tensor.copy_ and first is not None else bool(on)
        return _marked(func(*args, **kwargs), is_marked)


class _Emulated(EmulatedDevice):
    """The kernels, for marked tensors; what it makes is marked."""

    def __init__(self, found: StandIn) -> None:
        super().__init__()
        self._found = found

    def array(self, tensor: Tensor) -> Any:
        assert _is_marked(tensor), "a kernel of a GPU was given a tensor of the processor"
        with torch._C.DisableTorchFunction():
            return super().array(tensor)

    def tensor(self, array: Any) -> Tensor:
        with torch._C.DisableTorchFunction():
            return _marked(super().tensor(array), True)

    def launch(self, source: str, kernel: str, *, arguments: Sequence[Any], **rest: Any) -> None:
        for argument in arguments:
            assert not isinstance(argument, Tensor) or _is_marked(argument), f"{kernel} was given a processor's tensor"
        self._found.kernels.add(kernel)
        with torch._C.DisableTorchFunction():
            super().launch(source, kernel, arguments=arguments, **rest)


class _Event:
    """What was sent before an event was recorded is there when somebody has waited for the event."""

    recorded = reached = 0  # of all events, in order

    def record(self) -> None:
        _Event.recorded += 1
        self._number = _Event.recorded

    def synchronize(self) -> None:
        _Event.reached = max(_Event.reached, self._number)


def _may_be_on_its_way(tensor: Tensor) -> bool:
    return tensor.__dict__.get(_ON_ITS_WAY, 0) > _Event.reached


class _Stream:
    def is_capturing(self) -> bool:
        return False


def _moved(func: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> Tensor:
    """`Tensor.to`, `cpu` and `cuda`: a copy where the kind changes."""
    tensor, *rest = args
    beside = kwargs.get("non_blocking", False)
    was = is_on = _is_marked(tensor)
    if func is torch.Tensor.to:
        names = ["non_blocking", "copy"]
        if rest and isinstance(rest[0], Tensor):
            kwargs |= {"device": CUDA if _is_marked(rest[0]) else "cpu", "dtype": rest.pop(0).dtype}
        elif rest and (rest[0] is None or isinstance(rest[0], torch.device | str)):
            names = ["device", "dtype", *names]
        else:
            names = ["dtype", *names]
        kwargs |= dict(zip(names, rest, strict=False))
        target, dtype = kwargs.pop("device", None), kwargs.pop("dtype", None)
        is_on = was if target is None else torch.device(target).type == "cuda"
        result = tensor.to(tensor.dtype if dtype is None else dtype, **kwargs)
    else:
        result, is_on = tensor, func is torch.Tensor.cuda
    if is_on == was:
        return _marked(result, was)
    moved = _marked(result.clone() if result is tensor else result, is_on)
    if beside and not is_on:
        moved.__dict__[_ON_ITS_WAY] = _Event.recorded + 1
    return moved


def _created(func: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """A call that says where its result lies."""
    target = kwargs.pop("device")
    given = next(iter(_tensors(args)), None)
    if target is None:
        is_on = given is not None and _is_marked(given)
    else:
        is_on = torch.device(target).type == "cuda"
        kwargs["device"] = torch.device("cpu")
    result = func(*args, **kwargs)
    if given is not None and result is given and is_on != _is_marked(given):
        result = result.clone()
    return _marked(result, is_on)


def _pinned(tensor: Tensor) -> Tensor:
    if _is_marked(tensor):
        raise RuntimeError(f"cannot pin '{tensor.type()}' only dense CPU tensors can be pinned")
    copied = tensor.clone()
    copied.__dict__[_PINNED] = True
    return copied


def _is_pinned(tensor: Tensor) -> bool:
    with torch._C.DisableTorchFunction():
        base = tensor if tensor._base is None else tensor._base
    return base.__dict__.get(_PINNED, False)


@contextmanager
def _checked_collectives(found: StandIn) -> Iterator[None]:
    """NCCL takes tensors of a GPU alone."""
    import torch.distributed as dist

    def checked(name: str) -> Callable[..., Any]:
        call = getattr(dist, name)

        def with_check(*args: Any, **rest: Any) -> Any:
            for tensor in _tensors((args, rest)):
                assert _is_marked(tensor), f"NCCL knows no tensors of a CPU: {name}"
            found.collectives.add(name)
            with torch._C.DisableTorchFunction():
                return call(*args, **rest)

        return with_check

    names = ("all_gather", "all_to_all_single", "broadcast", "all_reduce")
    with mock.patch.multiple(dist, **{name: checked(name) for name in names}):
        yield


def _is_marked(tensor: Tensor) -> bool:
    return getattr(tensor, "__dict__", {}).get(_MARK, False)


def _marked(result: Any, is_on: bool) -> Any:
    for tensor in _tensors(result):
        tensor.__dict__[_MARK] = is_on
    return result


def _tensors(tree: Any) -> Iterator[Tensor]:
    if isinstance(tree, Tensor):
        yield tree
    elif isinstance(tree, dict):
        for value in tree.values():
            yield from _tensors(value)
    elif isinstance(tree, list | tuple):
        for value in tree:
            yield from _tensors(value)
