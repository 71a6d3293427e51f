"""Launching: which tensors run Triton, a launch that keeps its compiled kernel, a counter, allocation.

Measured on a server CPU, a JITFunction call costs 8.8 us before the driver is reached and a kept compiled kernel 1.3:
so a Launch is built once per shape, dtype and alignment (by the callers' plan caches) and keeps what the first call
compiled.
"""

from collections.abc import Callable
from functools import cache, partial
from importlib.util import find_spec
from operator import itemgetter
from typing import Any, TypeVar

import torch
import torch.autograd.forward_ad as forward_ad
from torch import Tensor, nn

from .c_launcher import straight
from .tensor_maps import Layout, below_descriptors

MaybeTensor = TypeVar("MaybeTensor", bound=Tensor | None)


class Counts(dict[str, int]):
    """As a Counter, whose += takes 1,100 instructions more, of 8,000 a launch."""

    def __missing__(self, name: str) -> int:
        return 0


#: Launches so far, by kernel name. Tests read it, so that a silent fall-back to the reference fails.
counts = Counts()

#: Where set, every launch is handed to it with its inputs, and runs only if it calls start(): the audit compiles what
#: it receives, tests plant faults.
recorder: Callable[["Launch", dict[str, Any]], None] | None = None


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
def device_name(device: torch.device) -> str:
    """Its name as the driver says it; empty in the interpreter and where there is no CUDA device."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else ""


@cache
def multiprocessors(device: torch.device) -> int:
    """SMs of the device; 16 in the interpreter, so that splits are exercised there."""
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 16


def empty(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """An output or buffer of a kernel. All come from here or from `allocation`, so that tests can poison them."""
    return torch.empty(shape, dtype=dtype, device=device)


def allocation(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Callable[[], Tensor]:
    """empty(shape, dtype, device) at every call, for a plan to keep.

    No function of Python, and empty_strided reads its arguments faster than empty: 0.7 us less of 2.2 a tensor.
    """
    strides = torch.empty(shape, device="meta").stride()
    return partial(torch.empty_strided, shape, strides, dtype=dtype, device=device)


def elsewhere(x: Tensor) -> bool:
    """Whether x lies on another GPU than the current one, to which kernels would go."""
    return x.is_cuda and x.device.index != torch._C._cuda_getDevice()


def launches_backward(grad_y: Tensor) -> bool:
    """Whether backward may launch kernels on this gradient: not where the gradients are to be differentiated again
    (create_graph=True), nor on a batch of gradients (vmap), which has no storage."""
    functorch = torch._C._functorch
    return not (
        torch.is_grad_enabled()
        or functorch.is_legacy_batchedtensor(grad_y)
        or functorch.peek_interpreter_stack() is not None
    )


def ordinary(*tensors: Tensor | None) -> bool:
    """Whether kernels can read these tensors as they are.

    None is empty, sparse, negated lazily (z.conj().imag) or of a subclass (DTensor, quantised, fake; kinds of
    nn.Parameter are plain), and the call is not transformed.
    """
    return not transformed() and all(
        t is None or (_plain(type(t)) and t.layout is torch.strided and t.numel() > 0 and not t.is_neg())
        for t in tensors
    )


def transformed() -> bool:
    """Whether torch.func, torch.jit.trace or forward-mode differentiation makes something else of this call."""
    return (
        forward_ad._current_level >= 0
        or torch._C._functorch.peek_interpreter_stack() is not None
        or torch._C._get_tracing_state() is not None
    )


def _plain(kind: type) -> bool:
    # issubclass, since isinstance counts a DTensor that is a parameter as one.
    return kind is Tensor or issubclass(kind, nn.Parameter)


def rows(t: Tensor, width: int) -> Tensor:
    """t as (rows, width) with unit stride within rows and distinct rows; a gradient of stride 0 is copied, one that
    is negated lazily too."""
    if t.is_neg():
        t = t.resolve_neg()
    if t.dim() != 2:
        t = t.reshape(-1, width)
    if t.stride(1) != 1 or t.stride(0) < width:
        t = t.contiguous()
    return t


def dense(t: MaybeTensor) -> MaybeTensor:
    """t, contiguous: hooks on saved tensors may return a copy of any layout."""
    return t if t is None or t.is_contiguous() else t.contiguous()  # type: ignore[return-value]


class PlanCache(dict[Any, Any]):
    """Plans by what they depend on. Emptied at 4096: lengths that never repeat must not fill the memory."""

    def __init__(self) -> None:
        super().__init__()
        _caches.append(self)

    def __setitem__(self, key: Any, plan: Any) -> None:
        if len(self) >= 4096:
            self.clear()
        super().__setitem__(key, plan)


_caches: list[PlanCache] = []


def forget_plans() -> None:
    """Every call is planned anew: what a plan depends on and its key does not hold (tables, tiles) has changed."""
    for plans in _caches:
        plans.clear()


#: raw_stream(device) is the address of the current CUDA stream; absent from builds of torch without CUDA.
raw_stream: Callable[[int], int] = getattr(torch._C, "_cuda_getCurrentRawStream", None)  # type: ignore[assignment]


class Launch:
    """One kernel with its grid, what all calls have in common, and its compiler options.

    sizes: integer arguments; constants: compile-time ones, in the order of the kernel's parameters, which are inputs,
    sizes, constants. A call gives the inputs by name or, 0.3 us faster, in this order. Calls must agree in all that
    Triton compiles a kernel for: which inputs are None, their dtypes, the 16-byte alignment of tensors, and of an
    integer whether it is 1 or a multiple of 16 (a float's value is free, and that of what the kernel does not
    specialize). Nothing checks it here; tests/kernels/stub_driver does for every caller. Where `keep` is False, calls
    need not agree: each goes through Triton's own look-up.
    layouts: of the inputs that reach the kernel as tensor descriptors; a call gives a tensor that lies so.
    """

    __slots__ = (
        "compiled",
        "constants",
        "fixed",
        "grid",
        "in_order",
        "inputs",
        "keep",
        "kernel",
        "layouts",
        "name",
        "options",
        "sizes",
    )

    def __init__(
        self,
        kernel: Any,
        grid: tuple[int, int, int],
        *,
        sizes: dict[str, int],
        constants: dict[str, Any],
        warps: int = 4,
        stages: int = 3,
        pdl: bool = False,
        keep: bool = True,
        layouts: dict[str, Layout] | None = None,
    ) -> None:
        self.kernel = kernel
        self.name: str = kernel.__name__
        self.grid = grid
        self.sizes = sizes
        self.constants = constants
        names = list(kernel.arg_names)
        count = len(names) - len(sizes) - len(constants)
        self.inputs: tuple[str, ...] = tuple(names[:count])
        if names != [*self.inputs, *sizes, *constants]:
            raise TypeError(f"{self.name} takes {', '.join(names[count:])} last, not {', '.join([*sizes, *constants])}")
        # Bound to positions once: a kept kernel takes everything by position.
        self.in_order = itemgetter(*self.inputs)
        self.layouts = layouts or {}
        if self.inputs[: len(self.layouts)] != tuple(self.layouts):
            raise TypeError(f"{self.name} takes {', '.join(self.inputs)}, expected {', '.join(self.layouts)} first")
        self.fixed = (*sizes.values(), *constants.values())
        self.options: dict[str, Any] = {"num_warps": warps, "num_stages": stages}
        if pdl:
            self.options["launch_pdl"] = True
        self.keep = keep
        self.compiled: Any = None

    def __call__(self, *inputs: Any, **named: Any) -> None:
        if self.compiled is None or recorder is not None:
            named = named or dict(zip(self.inputs, inputs, strict=True))
            self.start(named) if recorder is None else recorder(self, named)
            return
        call, head, device, middle, nested, expand, runtime = self.compiled
        enter, leave = runtime.launch_enter_hook, runtime.launch_exit_hook
        if (enter is None or not getattr(enter, "calls", enter)) and (
            leave is None or not getattr(leave, "calls", leave)
        ):
            counts[self.name] += 1
            if named:
                inputs = self.in_order(named)
            if expand is not None:
                inputs = expand(inputs)
            arguments = inputs + self.fixed
            # Written out here: a call of its own would cost as much as the arguments do.
            if nested:
                call(*head, raw_stream(device), *middle, arguments)
            else:
                call(*head, raw_stream(device), *middle, *arguments)
        else:  # a profiler listens: Triton's own way tells it everything
            self.start(named or dict(zip(self.inputs, inputs, strict=True)))

    def start(self, inputs: dict[str, Any]) -> None:
        """Runs the kernel on these inputs by Triton's own look-up, and keeps what it compiled."""
        counts[self.name] += 1
        self.look_up(inputs)

    def look_up(self, inputs: dict[str, Any]) -> None:
        """Runs the kernel by Triton's own look-up, and keeps what it compiled."""
        if inputs.keys() != set(self.inputs):
            raise TypeError(f"{self.name} takes {', '.join(self.inputs)}, not {', '.join(inputs)}")
        descriptors = {name: layout.descriptor(inputs[name]) for name, layout in self.layouts.items()}
        arguments = self.in_order(inputs | descriptors)
        kernel = self.kernel[self.grid](*arguments, *self.fixed, **self.options)
        # What a kept launch takes for granted of Triton, and tests/kernels/stub_driver shows of the installed one (true
        # of 3.6.0 and 3.7.1): JITFunction.run returns the CompiledKernel whose run(gridX, gridY, gridZ, stream,
        # function, packed_metadata, launch_metadata, enter hook, exit hook, *arguments) it has called itself;
        # `arguments` are all parameters in their order, compile-time ones too, pointers as tensors or None;
        # launch_metadata is read by the hooks alone; the scratch memory that a kernel may want is allocated inside run,
        # which is then called itself, and elsewhere not: see c_launcher.py.
        # Pre-run hooks and the check for changed globals are passed over.
        if self.keep and self.compiled is None and kernel is not None and not interpreting():
            from triton import knobs

            device = next(value.device.index for value in inputs.values() if isinstance(value, Tensor))
            rest = (kernel.function, kernel.packed_metadata, None, None, None)
            run, expand, given = kernel.run, None, self.in_order(inputs)
            if self.layouts:
                start = (*self.grid, 0, *rest)
                run, expand = below_descriptors(run, [*self.layouts.values()], start, given, self.fixed)
                given = expand(given)
            call, head, middle, nested = straight(run, self.grid, rest, (*given, *self.fixed))
            self.compiled = (call, head, device, middle, nested, expand, knobs.runtime)
