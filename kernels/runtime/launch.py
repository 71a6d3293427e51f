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


@torch.compiler.assume_constant_result
def have_triton() -> bool:
    """Whether triton can be imported; it has no wheels for macOS."""
    return _have_triton()


@cache
def _have_triton() -> bool:
    try:
        return find_spec("triton") is not None
    except ValueError:  # a test took it out of sys.modules
        return False


@torch.compiler.assume_constant_result
def interpreting() -> bool:
    """Whether the kernels run in Triton's interpreter, which is decided when they are imported."""
    return _interpreting()


@cache
def _interpreting() -> bool:
    if not _have_triton():
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
    """SMs of the device; 16 in the interpreter, so that splits are exercised there."""
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 16


def empty(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Every output and buffer of a kernel comes from here, so that tests can poison it with NaN."""
    return torch.empty(shape, dtype=dtype, device=device)


def elsewhere(x: Tensor) -> bool:
    """Whether x lies on another GPU than the current one, to which kernels would go."""
    return x.is_cuda and x.device.index != torch._C._cuda_getDevice()


class PlanCache(dict[Any, Any]):
    """Plans by what they depend on. Emptied at 4096: lengths that never repeat must not fill the memory."""

    def __setitem__(self, key: Any, plan: Any) -> None:
        if len(self) >= 4096:
            self.clear()
        super().__setitem__(key, plan)


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
            recorder(self, args)
            return
        counts[self.name] += 1
        if self.compiled is None:
            self._look_up(args)
            return
        kernel, device, run, runtime = self.compiled
        enter, leave = runtime.launch_enter_hook, runtime.launch_exit_hook
        if not (getattr(enter, "calls", enter) or getattr(leave, "calls", leave)):
            grid_x, grid_y, grid_z = self.grid
            stream = _raw_stream(device)
            run(
                grid_x, grid_y, grid_z, stream, kernel.function, kernel.packed_metadata, None, None, None,
                *args, *self.constants.values(),
            )  # fmt: skip
        else:  # a profiler listens: Triton's own way tells it everything
            self._look_up(args)

    def _look_up(self, args: tuple[Any, ...]) -> None:
        kernel = self.kernel[self.grid](*args, **self.constants, **self.options)
        if self.keep and kernel is not None and not interpreting():
            from triton import knobs

            device = next(arg.device.index for arg in args if isinstance(arg, Tensor))
            self.compiled = (kernel, device, kernel.run, knobs.runtime)
