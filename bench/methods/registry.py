"""The implementations there are, by method and impl, without importing torch or any of them."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from bench.case import Case


def _nothing(_case: Case, _device: str) -> str | None:
    return None


def _rank_fits(case: Case, _device: str) -> str | None:
    """PaCA picks `rank` distinct input columns, so no layer may have fewer."""
    assert case.rank is not None
    narrow = min(case.target_projections, key=lambda p: p.in_features, default=None)
    if narrow is None or case.rank <= narrow.in_features:
        return None
    return f"rank {case.rank} is above the {narrow.in_features} input columns of {narrow.name}"


def _triton(case: Case, device: str) -> str | None:
    """Kernels are timed on GPUs alone: in Triton's interpreter a time says nothing."""
    if device.split(":")[0] != "cuda":
        return "impl triton needs an NVIDIA GPU"
    if find_spec("triton") is None:
        return "impl triton needs the package triton: pip install triton"
    return _rank_fits(case, device) if case.method == "paca" else None


@dataclass(frozen=True)
class Impl:
    """One way of computing a method. `module` has a function apply(model, case) -> [(name, parameter)]."""

    module: str
    says: str  # one line for people
    refuses: Callable[[Case, str], str | None] = _nothing  # (case, device) -> why it cannot be, or None

    def load(self) -> Callable[..., Any]:
        """Imports the implementation, torch with it."""
        return import_module(self.module).apply


IMPLS: dict[str, dict[str, Impl]] = {
    "full": {"eager": Impl("bench.methods.full_eager", "every weight trains, plain PyTorch")},
    "lora": {
        "eager": Impl("bench.methods.lora_eager", "textbook PyTorch: two small products beside the frozen one"),
        "triton": Impl("bench.methods.lora_triton", "this project's kernels: a fused branch", _triton),
    },
    "paca": {
        "eager": Impl(
            "bench.methods.paca_eager", "textbook PyTorch: live columns in the weight, a skinny gradient", _rank_fits
        ),
        "triton": Impl("bench.methods.paca_triton", "this project's kernels: gather and skinny gradient", _triton),
    },
}


def unsupported(case: Case, device: str) -> str | None:
    """Why this case's impl cannot express it on `device` ('cpu', 'cuda', 'cuda:0' ...), in a sentence; None if it can.

    Raises KeyError for a method or impl that is not in IMPLS.
    """
    return IMPLS[case.method][case.impl].refuses(case, device)
