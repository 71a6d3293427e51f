"""The implementations there are, by method and impl, without importing torch or any of them."""

import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
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
        return f"impl {case.impl} needs an NVIDIA GPU"
    if find_spec("triton") is None:
        return f"impl {case.impl} needs the package triton: pip install triton"
    return _rank_fits(case, device) if case.method == "paca" else None


def _peft(case: Case, _device: str) -> str | None:
    """PEFT makes adapters in the model's dtype, and as it comes promotes 16-bit ones to fp32."""
    if find_spec("peft") is None:
        return f"impl {case.impl} needs the package peft: pip install peft"
    model = "fp32" if case.precision.startswith("amp-") else case.precision
    if case.impl in ("peft-fp32", "peft-triton"):
        if model == "fp32" and case.impl == "peft-fp32":
            return f"the same as peft at precision {case.precision}, where adapters are fp32 already: measured there"
        return None if case.adapter_dtype in (None, "fp32") else "PEFT as it comes promotes adapters to fp32"
    if case.adapter_dtype not in (None, model):
        return f"PEFT does not make {case.adapter_dtype} adapters for a {model} model; fp32 ones are impl peft-fp32"
    return None


def _no_dropout(why: str) -> Callable[[Case, str], str | None]:
    return lambda case, _: f"no adapter dropout: {why}" if case.dropout else None


def _bordered(case: Case, _device: str) -> str | None:
    if case.level != "linear":
        return "a yardstick for single layers: in a model every X would have to be copied into its padded buffer"
    if case.precision.startswith("amp-"):
        return "W and sB share a buffer, and autocast would cast all of it in every call"
    if case.adapter_dtype not in (None, case.precision):
        return "A and B must have the dtype of W: they are parts of one matrix"
    return _no_dropout("X and S' would need two buffers, X itself and drop(X)")(case, _device)


def _compiler(case: Case, device: str) -> str | None:
    """torch.compile writes C++ for a CPU and Triton for a GPU, whose launcher is C."""
    if device.split(":")[0] == "cpu":
        wanted = (os.environ.get("CXX") or "g++",)
        if not any(map(shutil.which, wanted)):
            return f"torch.compile needs a C++ compiler, and {wanted[0]} is not there: install it, or set CXX"
    else:
        if find_spec("triton") is None:
            return "torch.compile needs the package triton on a GPU: pip install triton"
        if not any(map(shutil.which, (os.environ.get("CC") or "cc", "gcc", "clang"))):
            return "Triton needs a C compiler for its launchers: install gcc, or set CC"
    return _peft(case, device) if case.impl == "peft-compile" else None


def _all(*refusals: Callable[[Case, str], str | None]) -> Callable[[Case, str], str | None]:
    """The first of their reasons."""
    return lambda case, device: next(filter(None, (refuses(case, device) for refuses in refusals)), None)


@dataclass(frozen=True)
class Impl:
    """One way of computing a method.

    `module` has a function apply(model, case) -> [(name, parameter)], and where its rows need a remark a function
    note(model, case) -> str, asked after the model has run.
    """

    module: str
    says: str  # one line for people
    refuses: Callable[[Case, str], str | None] = _nothing  # (case, device) -> why it cannot be, or None
    cannot: Mapping[str, str] = field(default_factory=dict)  # passes that are not timed, with the reason
    fp32_adapters: bool = False  # whatever the model's dtype
    compiles: bool = False  # the first call may take minutes

    def load(self) -> Callable[..., Any]:
        """Imports the implementation, torch with it."""
        return import_module(self.module).apply

    def remark(self) -> Callable[..., str] | None:
        """Its function `note`, if it has one."""
        return getattr(import_module(self.module), "note", None)


_FORWARD_ALONE = "bordered is a yardstick for forward alone"

IMPLS: dict[str, dict[str, Impl]] = {
    "full": {
        "eager": Impl("bench.methods.full.eager", "every weight trains, plain PyTorch"),
        "compile": Impl("bench.methods.compiled", "torch.compile of eager", _compiler, compiles=True),
    },
    "lora": {
        "eager": Impl("bench.methods.lora.eager", "textbook PyTorch: two small products beside the frozen one"),
        "triton": Impl("bench.methods.lora.triton", "this project's kernels: a fused branch", _triton),
        "peft-fp32": Impl(
            "bench.methods.lora.peft",
            "Hugging Face PEFT as it comes: adapters promoted to fp32",
            _peft,
            fp32_adapters=True,
        ),
        "peft": Impl("bench.methods.lora.peft", "Hugging Face PEFT with autocast_adapter_dtype=False", _peft),
        "peft-triton": Impl(
            "bench.methods.lora.peft",
            "PEFT as it comes after accelerate(): this project's kernels in its layers",
            _all(_triton, _peft),
            fp32_adapters=True,
        ),
        "addmm": Impl(
            "bench.methods.lora.addmm", "three cuBLAS calls, backward ordered by hand: Unsloth's and Axolotl's scheme"
        ),
        "merged": Impl(
            "bench.methods.lora.merged",
            "X (W + sBA)^T, merged once per optimizer step: RunLoRA's idea",
            _no_dropout("a merged weight cannot drop what only the branch reads"),
        ),
        "bordered": Impl(
            "bench.methods.lora.bordered",
            "one GEMM of [X, S] with [W, sB], its S product included: a yardstick for forward",
            _bordered,
            cannot=dict.fromkeys(("backward", "forward-backward", "step"), _FORWARD_ALONE),
        ),
        "compile": Impl("bench.methods.compiled", "torch.compile of eager", _compiler, compiles=True),
        "peft-compile": Impl("bench.methods.compiled", "torch.compile of peft", _compiler, compiles=True),
    },
    "paca": {
        "eager": Impl(
            "bench.methods.paca.eager", "textbook PyTorch: live columns in the weight, a skinny gradient", _rank_fits
        ),
        "triton": Impl("bench.methods.paca.triton", "this project's kernels: gather and skinny gradient", _triton),
        "compile": Impl("bench.methods.compiled", "torch.compile of eager", _all(_rank_fits, _compiler), compiles=True),
        "official": Impl(
            "bench.methods.paca.official",
            "columns copied into the weight on every forward: its authors' code, which does so on odd ones only",
            _rank_fits,
        ),
        "swap": Impl(
            "bench.methods.paca.swap",
            "columns swapped in, GEMM, swapped out, in both directions: a PEFT branch's code",
            _rank_fits,
        ),
    },
}


def unsupported(case: Case, device: str) -> str | None:
    """Why this case's impl cannot express it on `device` ('cpu', 'cuda', 'cuda:0' ...), in a sentence; None if it can.

    Raises KeyError for a method or impl that is not in IMPLS.
    """
    return IMPLS[case.method][case.impl].refuses(case, device)
