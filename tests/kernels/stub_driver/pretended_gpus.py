"""torch.cuda over the stub driver: cuda:0 is an sm_90 and cuda:1 an sm_80, and tensors in host memory lie on them.

Only torch is pretended, for the whole process. The kernels' host code and Triton's run as they do on a GPU, up to the
driver.
"""

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import torch

CAPABILITIES = ((9, 0), (8, 0))
SMS = (132, 108)


class Generator:
    """That of a GPU, as far as a host may read it outside a capture."""

    def __init__(self) -> None:
        self.seed, self.offset = 0, 0

    def initial_seed(self) -> int:
        return self.seed

    def get_offset(self) -> int:
        if _capturing:
            raise RuntimeError("the offset was asked for in a capture")
        return self.offset

    def set_offset(self, offset: int) -> None:
        if _capturing or offset % 4:
            raise RuntimeError(f"the offset was set to {offset}, expected a multiple of 4 outside a capture")
        self.offset = offset

    def manual_seed(self, seed: int) -> None:
        self.seed, self.offset = seed, 0


generators = tuple(Generator() for _ in SMS)
_current = 0
_capturing = False
_streams = [0x57AE0, 0x57AE1]
_lies_on: torch.device | None = None


@contextmanager
def tensors_on(index: int) -> Iterator[None]:
    """Within it every tensor says that it lies on cuda:<index>, whichever device is the current one."""
    global _lies_on
    before, _lies_on = _lies_on, torch.device("cuda", index)
    try:
        yield
    finally:
        _lies_on = before


def launches() -> list[dict[str, str]]:
    """What the driver was handed since the last call, launch by launch."""
    return _taken("stub_launches")


def maps() -> list[dict[str, str]]:
    """The tensor maps that the driver was asked to encode since the last call."""
    return _taken("stub_maps")


@contextmanager
def refusing(launches: int = 0, maps: int = 0) -> Iterator[None]:
    """Within it the driver answers launches, or encodings of tensor maps, with this error code."""
    library = ctypes.CDLL("libcuda.so.1")
    library.stub_refuse(launches, maps)
    try:
        yield
    finally:
        library.stub_refuse(0, 0)


@contextmanager
def unwatched() -> Iterator[None]:
    """Within it the driver writes nothing down, so that many launches can be timed."""
    library = ctypes.CDLL("libcuda.so.1")
    library.stub_unwatched(1)
    try:
        yield
    finally:
        library.stub_unwatched(0)


@contextmanager
def on_stream(index: int, address: int) -> Iterator[None]:
    """Within it the current stream of a device is another, as within torch.cuda.stream()."""
    before, _streams[index] = _streams[index], address
    try:
        yield
    finally:
        _streams[index] = before


@contextmanager
def capturing() -> Iterator[None]:
    """Within it the current stream is captured into a CUDA graph."""
    global _capturing
    _capturing = True
    try:
        yield
    finally:
        _capturing = False


def _taken(log: str) -> list[dict[str, str]]:
    take = getattr(ctypes.CDLL("libcuda.so.1"), log)
    take.restype = ctypes.c_char_p
    return [dict(word.split("=", 1) for word in line.split(" ")) for line in take().decode().splitlines()]


def stream_of(index: int) -> int:
    """The address of the current stream of a device."""
    if index not in range(len(SMS)):
        raise RuntimeError(f"asked for the stream of device {index}, expected one of {len(SMS)} GPUs")
    return _streams[index]


def install(tensors: bool = True) -> None:
    """To be called before Triton makes its driver. tensors: whether tensors pretend too, which costs them time."""
    for name, value in {
        "is_available": lambda: True,
        "current_device": lambda: _current,
        "set_device": lambda device: _exchange(_index(device)),
        "get_device_capability": lambda device=None: CAPABILITIES[_index(device)],
        "get_device_name": lambda device=None: "pretended sm_{}{}".format(*CAPABILITIES[_index(device)]),
        "get_device_properties": lambda device=None: SimpleNamespace(multi_processor_count=SMS[_index(device)]),
        "is_current_stream_capturing": lambda: _capturing,
        "synchronize": lambda device=None: None,
        "default_generators": generators,
        "_exchange_device": _exchange,
        "_maybe_exchange_device": _exchange,
    }.items():
        setattr(torch.cuda, name, value)
    torch._C._cuda_getCurrentRawStream = stream_of  # type: ignore[attr-defined]
    torch._C._cuda_getDevice = lambda: _current  # type: ignore[attr-defined]
    if not tensors:
        return
    device, is_cuda = torch.Tensor.device.__get__, torch.Tensor.is_cuda.__get__
    torch.Tensor.device = property(lambda t: _lies_on or device(t))  # type: ignore[assignment, method-assign]
    torch.Tensor.is_cuda = property(lambda t: _lies_on is not None or is_cuda(t))  # type: ignore[assignment, method-assign]
    for name in ("empty", "empty_strided", "full", "randint", "zeros"):
        setattr(torch, name, _in_host_memory(getattr(torch, name)))


def _exchange(index: int) -> int:
    global _current
    before, _current = _current, index
    return before


def _index(device: Any) -> int:
    if device is None:
        return _current
    return device if isinstance(device, int) else torch.device(device).index


def _in_host_memory(make: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    def made(*args: Any, device: Any = None, **options: Any) -> torch.Tensor:
        return make(*args, **options)

    return made
