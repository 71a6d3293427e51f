"""The operators of a case as it is, from the same code that is timed, on tensors without values.

Whatever a method, an implementation, autocast, autograd or the optimizer does is seen here: a new method needs nothing.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from bench.case import Case
from bench.causes.attribution import Role
from bench.causes.profiled import run
from bench.causes.roles import Roles
from bench.errors import UserError
from bench.methods.registry import impl_of
from bench.models.build import build
from bench.models.work import Work
from bench.predict.operators import ops_of
from bench.predict.ops import Op, Trace
from bench.predict.stand_in import AsOnGpu
from kernels.runtime.stand_ins import stand_for_gpu


def trace_whole(case: Case, on_gpu: bool = True) -> Trace:
    """The operators of a micro-step, and of what follows the last, with all of the case's blocks. on_gpu: as on a GPU;
    else as on a CPU.

    Raises ValueError where the case cannot be built, and UserError where it runs what no trace can see.
    """
    impl = impl_of(case)
    if case.optimizer not in (None, "sgd"):
        raise UserError(
            f"optimizer {case.optimizer}: no trace sees its kernels, so it cannot be predicted. Take adamw."
        )
    if case.compiles:
        raise UserError(f"compile {case.compile}: what a compiler makes of a model cannot be predicted. Take none.")
    if len(case.stages) > 1:
        raise UserError(
            f"trainable_layers {case.trainable_layers}: the mean over {len(case.stages)} stages cannot be predicted."
            " Take blocks that stay, such as every-2nd or upper-1/2."
        )
    with FakeTensorMode(allow_non_fake_inputs=True), _conversions(), _on_gpu() if on_gpu else nullcontext():
        work = build(case, "cpu")
        run(work, False, lambda _: nullcontext())
        work.optimizer_step()  # makes the optimizer's state, which is there in every other step
        with _Traced(work) as seen:
            run(work, False, seen.during)
            with seen.during("optimizer"):
                work.optimizer_step()
            with seen.during("refresh"):
                work.refresh()
    hidden = impl.tuned and on_gpu and case.precision != "fp32"  # in which they leave the work to cuBLAS
    if hidden and not any(op.name.startswith("lorabench::") for ops in seen.ops.values() for op in ops):
        raise UserError(f"impl {case.impl}: no trace sees its kernels, so it cannot be predicted.")
    return Trace({phase: tuple(ops) for phase, ops in seen.ops.items()})


@contextmanager
def _on_gpu() -> Iterator[None]:
    with stand_for_gpu(), AsOnGpu():
        yield


class _Traced(Roles):
    """Notes Ops by phase, equal ones as the same object."""

    def __init__(self, work: Work) -> None:
        super().__init__(work)
        self.ops: dict[str, list[Op]] = {}
        self._known: dict[Op, Op] = {}

    @contextmanager
    def during(self, phase: str) -> Iterator[None]:
        self.phase = phase
        yield
        self.phase = ""

    def note(self, role: Role, func: Any, args: Any, kwargs: Any, made: list[Tensor]) -> None:
        for op in ops_of(role, func, args, kwargs, made):
            self.ops.setdefault(role.phase, []).append(self._known.setdefault(op, op))


@contextmanager
def _conversions() -> Iterator[None]:
    """Inside of it, module.to() gives new parameters: it swaps those of fake tensors, which fails where anybody knows
    them."""
    plain = nn.Module._apply

    def apply(module: nn.Module, fn: Any, recurse: bool = True) -> nn.Module:
        for child in module.children() if recurse else ():
            child._apply(fn)
        for kept in (module._parameters, module._buffers):
            for name, t in kept.items():
                if t is None:
                    continue
                with torch.no_grad():
                    new = fn(t)
                if new is not t:
                    kept[name] = nn.Parameter(new, t.requires_grad) if isinstance(t, nn.Parameter) else new
        return module

    setattr(nn.Module, "_apply", apply)  # noqa: B010
    try:
        yield
    finally:
        setattr(nn.Module, "_apply", plain)  # noqa: B010
