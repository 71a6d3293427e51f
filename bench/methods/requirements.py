"""What an implementation needs of a case and of the machine.

Each takes (case, device) and says in a sentence why it cannot be, or None. device: 'cpu', 'cuda', 'cuda:0' ...
No torch: `list` asks them, too.
"""

import os
import shutil
from collections.abc import Callable
from importlib.util import find_spec

from bench.case import Case
from bench.methods.qlora.format import BLOCK, SCALES, odd_rows

Refusal = Callable[[Case, str], str | None]

# 0.50.2 keeps every paged tensor in a list of the process (functional.GlobalPageManager), and has no call to free one.
PAGED_STAYS = "bitsandbytes never frees paged states, and those of each stage would stay"


def all_of(*refusals: Refusal) -> Refusal:
    """The first of their reasons."""
    return lambda case, device: next(filter(None, (refuses(case, device) for refuses in refusals)), None)


def rank_fits(case: Case, _device: str) -> str | None:
    """PaCA picks `rank` distinct input columns, so no layer may have fewer."""
    assert case.rank is not None
    narrow = min(case.target_projections, key=lambda p: p.in_features, default=None)
    if narrow is None or case.rank <= narrow.in_features:
        return None
    return f"rank {case.rank} is above the {narrow.in_features} input columns of {narrow.name}"


def triton(case: Case, device: str) -> str | None:
    """Kernels are timed on GPUs alone: in Triton's interpreter a time says nothing."""
    if device.split(":")[0] != "cuda":
        return f"impl {case.impl} needs an NVIDIA GPU"
    if find_spec("triton") is None:
        return f"impl {case.impl} needs the package triton: pip install triton"
    return None


def peft(case: Case, _device: str) -> str | None:
    """PEFT makes adapters in the model's dtype, and as it comes promotes 16-bit ones to fp32."""
    if find_spec("peft") is None:
        return f"impl {case.impl} needs the package peft: pip install peft"
    model = "fp32" if case.precision.startswith("amp-") else case.precision
    if case.impl in ("peft-fp32", "peft-triton"):
        return None if case.adapter_dtype in (None, "fp32") else "PEFT as it comes promotes adapters to fp32"
    if case.adapter_dtype not in (None, model):
        return f"PEFT does not make {case.adapter_dtype} adapters for a {model} model; fp32 ones are impl peft-fp32"
    return None


def bitsandbytes(case: Case, device: str) -> str | None:
    """Its NF4 runs on CPUs, and on NVIDIA GPUs of compute capability 6.0 and newer, which torch itself needs."""
    if find_spec("bitsandbytes") is None:
        return f"impl {case.impl} needs the package bitsandbytes: pip install bitsandbytes"
    return next(filter(None, (odd_rows(p.name, p.in_features, device) for p in case.target_projections)), None)


def nf4_of_torchao(case: Case, _device: str) -> str | None:
    """Plain PyTorch on any device; it has no scale for what is left over beside whole blocks of scales."""
    if find_spec("torchao") is None:
        return f"impl {case.impl} needs the package torchao: pip install torchao"
    whole = BLOCK * SCALES
    odd = next((p for p in case.target_projections if p.in_features * p.out_features % whole), None)
    if odd is None:
        return None
    return (
        f"torchao's NF4Tensor takes weights of a multiple of {whole} values, and {odd.name} has "
        f"{odd.out_features} x {odd.in_features}"
    )


def no_dropout(why: str) -> Refusal:
    return lambda case, _: f"no adapter dropout: {why}" if case.dropout else None


def bordered(case: Case, _device: str) -> str | None:
    if case.level != "linear":
        return "a baseline for single layers: in a model every X would have to be copied into its padded buffer"
    if case.precision.startswith("amp-"):
        return "W and sB share a buffer, and autocast would cast all of it in every call"
    if case.adapter_dtype not in (None, case.precision):
        return "A and B must have the dtype of W: they are parts of one matrix"
    return no_dropout("X and S' would need two buffers, X itself and drop(X)")(case, _device)


def options(case: Case, device: str) -> str | None:
    """What the axes that every method has ask for."""
    return _compiler(case, device) or optimizer(case.optimizer, device) or _sgd(case, device)


def _sgd(case: Case, device: str) -> str | None:
    trained = case.adapter_dtype or case.precision
    if case.optimizer != "sgd" or device.split(":")[0] != "cpu" or trained not in ("bf16", "fp16"):
        return None
    return "torch's fused SGD leaves 16-bit weights as they are on a CPU (pytorch issue 191763)"


def optimizer(word: str | None, device: str) -> str | None:
    """What an optimizer needs that is not there. word: of the axis, or of a strategy's key."""
    if word in (None, "adamw", "sgd"):
        return None
    if find_spec("bitsandbytes") is None:
        return f"optimizer {word} needs the package bitsandbytes: pip install bitsandbytes"
    if device.split(":")[0] == "cpu" and paged(word):
        return f"optimizer {word} pages what lies on a GPU to the host; on a CPU there is nothing to page"
    return None


def paged(word: str | None) -> bool:
    """Whether an optimizer's states may leave the GPU."""
    return (word or "").startswith("paged-")


def _compiler(case: Case, device: str) -> str | None:
    """torch.compile writes C++ for a CPU and Triton for a GPU, whose launcher is C."""
    if case.compile is None:
        return None
    if device.split(":")[0] == "cpu":
        wanted = (os.environ.get("CXX") or "g++",)
        if case.compile == "reduce-overhead":
            return "compile reduce-overhead makes CUDA graphs, and without a GPU is compile default"
        if not any(map(shutil.which, wanted)):
            return f"torch.compile needs a C++ compiler, and {wanted[0]} is not there: install it, or set CXX"
    else:
        if find_spec("triton") is None:
            return "torch.compile needs the package triton on a GPU: pip install triton"
        if not any(map(shutil.which, (os.environ.get("CC") or "cc", "gcc", "clang"))):
            return "Triton needs a C compiler for its launchers: install gcc, or set CC"
    return None
