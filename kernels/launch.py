"""Launching: which tensors run Triton, a launch that keeps its compiled kernel, a counter, allocation.

Measured on a server CPU, a JITFunction call costs 8.8 us before the driver is reached and a kept compiled kernel 1.3:
so a Launch is built once per shape, dtype and alignment (by the callers' plan caches) and keeps what the first call
compiled.
"""

from collections import Counter
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

#: Launches so far, by kernel name. Tests read it, so that a silent fall-back to the reference fails.
counts: Counter[str] = Counter()

#: Where set, every launch is handed to it and not run: the audit compiles what it receives.
recorder: Callable[["Launch", tuple[Any, ...]], None] | None = None


@cache
def have_triton() -> bool:
    """Whether triton can be imported; it has no wheels for macOS."""
    try:
        return find_spec("triton") is not None
    except ValueError:  # a test took it out of sys.modules
        return False


@cache
def interpreting() -> bool:
    """Whether the kernels run in Triton's interpreter, which is decided when they are imported."""
    if not have_triton():
        return False
    import triton

    return bool(triton.knobs.runtime.interpret)


def runs_triton(x: Tensor) -> bool:
    """CUDA tensors run the kernels; CPU tensors do in the interpreter; others take the reference."""
    return (x.is_cuda and have_triton()) or (interpreting() and x.device.type == "cpu")


@cache
def architecture(device: torch.device) -> int:
    """Compute capability as in sm_90 -> 90; 0 in the interpreter and where there is no CUDA device."""
    if device.type != "cuda":
        return 0
    major, minor = torch.cuda.get_device_capability(device)
    return 10 * major + minor


@cache
def multiprocessors(device: torch.device) -> int:
    """SMs of the device; 4 in the interpreter, so that splits are exercised there."""
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 4


def empty(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Every output and buffer of a kernel comes from here, so that tests can poison it with NaN."""
    return torch.empty(shape, dtype=dtype, device=device)


def _raw_stream(device: int) -> int:
    return torch._C._cuda_getCurrentRawStream(device)


class Launch:
    """One kernel with its grid, its compile-time constants (the kernel's last parameters) and its compiler options.

    Calls must agree in the dtypes, integers and 16-byte alignment of their arguments, except where `keep` is False:
    then every call goes through Triton's own look-up.
    """

    __slots__ = ("compiled", "constants", "grid", "keep", "kernel", "name", "options")

    def __init__(
        self,
        kernel: Any,
        grid: tuple[int, int, int],
        constants: dict[str, Any],
        *,
        warps: int = 4,
        stages: int = 3,
        pdl: bool = False,
        keep: bool = True,
    ) -> None:
        self.kernel = kernel
        self.name: str = kernel.__name__
        self.grid = grid
        self.constants = constants
        self.options: dict[str, Any] = {"num_warps": warps, "num_stages": stages}
        if pdl:
            self.options["launch_pdl"] = True
        self.keep = keep
        self.compiled: Any = None

    def __call__(self, *args: Any) -> None:
        if recorder is not None:
            return recorder(self, args)
        counts[self.name] += 1
        if self.compiled is None:
            return self._look_up(args)
        kernel, device, run = self.compiled
        grid_x, grid_y, grid_z = self.grid
        enter, leave, constants = _hooks.launch_enter_hook, _hooks.launch_exit_hook, self.constants.values()
        stream = _raw_stream(device)
        metadata = None if not enter else kernel.launch_metadata(self.grid, stream, *args, *constants)
        run(
            grid_x, grid_y, grid_z, stream, kernel.function, kernel.packed_metadata, metadata, enter, leave,
            *args, *constants,
        )  # fmt: skip

    def _look_up(self, args: tuple[Any, ...]) -> None:
        kernel = self.kernel[self.grid](*args, **self.constants, **self.options)
        if self.keep and kernel is not None and not interpreting():
            device = next(arg.device.index for arg in args if isinstance(arg, Tensor))
            self.compiled = (kernel, device, kernel.run)


class _Hooks:
    """triton.knobs.runtime, imported when the first kept kernel is launched."""

    def __getattr__(self, name: str) -> Any:
        import triton

        return getattr(triton.knobs.runtime, name)


_hooks: Any = _Hooks()
