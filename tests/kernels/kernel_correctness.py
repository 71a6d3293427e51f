"""The correctness check of the kernel tests: errors against float64, bounded by what plain eager PyTorch achieves.

Error of a tensor: Frobenius norm of (out - reference) over that of the reference. 16-bit: at most 1.25 x eager's error
plus eps / 8; fp32: at most 2 x plus 4 eps sqrt(K).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from kernels import lora_linear, paca_linear, reference
from kernels.lora import keep_mask
from kernels.runtime import launch

DEVICE = "cpu" if os.environ.get("TRITON_INTERPRET") == "1" else "cuda"


def error(out: Tensor, truth: Tensor) -> float:
    assert out.shape == truth.shape, f"shape {tuple(out.shape)}, expected {tuple(truth.shape)}"
    out, truth = out.detach().cpu().double(), truth.detach().cpu().double()
    assert torch.isfinite(out).all(), "not finite: something was left unwritten"
    return ((out - truth).norm() / truth.norm().clamp_min(1e-300)).item()


def bound(eager: float, dtype: torch.dtype, k: int) -> float:
    eps = torch.finfo(dtype).eps
    return 2 * eager + 4 * eps * k**0.5 if dtype == torch.float32 else 1.25 * eager + eps / 8


def compare(ours: dict[str, Tensor], eager: dict[str, Tensor], truth: dict[str, Tensor], dtype: torch.dtype, k: int):
    """Raises an AssertionError that lists every tensor outside the bound, by name."""
    assert ours.keys() == truth.keys() == eager.keys()
    wrong = []
    for name, right in truth.items():
        ours_error, limit = error(ours[name], right), bound(error(eager[name], right), dtype, k)
        if not ours_error <= limit:
            wrong.append(f"{name}: error {ours_error:.3g}, at most {limit:.3g}")
    assert not wrong, "; ".join(wrong)


@dataclass
class LoraCase:
    m: int = 37
    k: int = 80
    n: int = 72
    r: int = 8
    dtype: torch.dtype = torch.float32
    scale: float = 1 / 3
    bias: bool = False
    conv1d: bool = False
    dropout: float = 0.0
    lead: bool = False  # x is (2, M, K)
    strided: bool = False  # x is every second column of a wider tensor
    adapters: torch.dtype | None = None
    seed: int = 5

    def __str__(self) -> str:
        flags = (
            "".join(f"-{name}" for name in ("bias", "conv1d", "lead", "strided") if getattr(self, name))
            + (f"-drop{self.dropout}" if self.dropout else "")
            + ("-masters" if self.adapters else "")
        )
        return f"m{self.m}-k{self.k}-n{self.n}-r{self.r}-{str(self.dtype)[6:]}{flags}"

    def tensors(self) -> dict[str, Tensor]:
        """x, weight, a, b, bias, dy; B such that the branch is at least 0.3 of X W^T."""
        g = torch.Generator().manual_seed(self.seed)

        def draw(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=g)

        shape = (2, self.m, self.k) if self.lead else (self.m, self.k)
        if self.strided:
            x = draw(*shape[:-1], 2 * self.k).to(self.dtype).to(DEVICE)[..., ::2]
        else:
            x = draw(*shape).to(self.dtype).to(DEVICE)
        weight = draw(self.n, self.k) / self.k**0.5
        a, b = draw(self.r, self.k) / self.k**0.5, draw(self.n, self.r)
        flat = x.float().cpu().reshape(-1, self.k)
        ratio = (self.scale * flat @ a.T @ b.T).norm() / (flat @ weight.T).norm()
        b = b * (0.5 / ratio)
        adapters = self.adapters or self.dtype
        weight = weight.to(self.dtype).to(DEVICE)
        if self.conv1d:
            weight = weight.t().contiguous().t()
        return {
            "x": x, "weight": weight, "a": a.to(adapters).to(DEVICE), "b": b.to(adapters).to(DEVICE),
            "bias": draw(self.n).to(self.dtype).to(DEVICE) if self.bias else None,
            "dy": draw(*shape[:-1], self.n).to(self.dtype).to(DEVICE),
        }  # fmt: skip


def lora_results(function, t: dict[str, Tensor], case: LoraCase, dtype: torch.dtype | None = None, **options):
    """y, the branch alone, and every gradient, by name."""
    t = {name: v if v is None or dtype is None else v.cpu().to(dtype) for name, v in t.items()}
    x, a, b = (t[name].detach().requires_grad_() for name in ("x", "a", "b"))
    bias = None if t["bias"] is None else t["bias"].detach().requires_grad_()
    y = function(x, t["weight"], a, b, scale=case.scale, bias=bias, dropout_p=case.dropout, **options)
    leaves = {"dx": x, "da": a, "db": b} | ({} if bias is None else {"dbias": bias})
    grads = torch.autograd.grad(y, list(leaves.values()), t["dy"])
    if dtype is None and y.is_cuda is False and function is lora_linear:
        assert all(grad.dtype == leaf.dtype for grad, leaf in zip(grads, leaves.values(), strict=True))
    return {"y": y} | dict(zip(leaves, grads, strict=True))


def gate_lora(case: LoraCase, scheme: str | None = None, mutate=None) -> None:
    """The kernels against eager in the same dtype, both measured against float64, under one mask."""
    t = case.tensors()
    keep = keep_mask(t["x"], case.dropout, 11) if case.dropout else None
    options = {"seed": 11} if case.dropout else {}
    mutate = mutate or (lambda out: out)
    truth_keep = None if keep is None else keep.cpu()
    ours = mutate(lora_results(lora_linear, t, case, scheme=scheme, **options))
    # Adapters in fp32 are rounded by the kernels, where the reference computes the branch in fp32.
    rounded = t | {name: t[name].to(case.dtype) for name in ("a", "b")}
    eager = lora_results(reference.lora_linear, rounded, case, keep=keep)
    truth = lora_results(reference.lora_linear, t, case, torch.float64, keep=truth_keep)
    base = torch.nn.functional.linear(
        *(t[name].cpu().double() for name in ("x", "weight")), None if t["bias"] is None else t["bias"].cpu().double()
    )
    for results in (ours, eager, truth):
        results["branch"] = results["y"].detach().cpu().double() - base
    assert truth["branch"].norm() >= 0.3 * base.norm() * (0.5 if case.bias else 1.0)
    compare(ours, eager, truth, case.dtype, case.k)


@dataclass
class PacaCase:
    m: int = 37
    k: int = 80
    n: int = 72
    r: int = 8
    dtype: torch.dtype = torch.float32
    scale: float = 1 / 3
    bias: bool = False
    conv1d: bool = False
    lead: bool = False
    strided: bool = False
    columns: torch.dtype | None = None
    index: torch.dtype = torch.int64

    __str__ = LoraCase.__str__
    dropout = 0.0
    adapters = None


def gate_paca(case: PacaCase, scheme: str | None = None) -> None:
    g = torch.Generator().manual_seed(7)
    shape = (2, case.m, case.k) if case.lead else (case.m, case.k)
    x = torch.randn(*shape[:-1], case.k * (2 if case.strided else 1), generator=g).to(case.dtype).to(DEVICE)
    x = x[..., ::2] if case.strided else x
    weight = (torch.randn(case.n, case.k, generator=g) / case.k**0.5).to(case.dtype).to(DEVICE)
    weight = weight.t().contiguous().t() if case.conv1d else weight
    index = torch.randperm(case.k, generator=g)[: case.r].sort().values.to(case.index).to(DEVICE)
    columns = (weight[:, index.long()] / case.scale).to(case.columns or case.dtype)
    bias = torch.randn(case.n, generator=g).to(case.dtype).to(DEVICE) if case.bias else None
    dy = torch.randn(*shape[:-1], case.n, generator=g).to(case.dtype).to(DEVICE)

    def results(function, cast, **options):
        leaf_x, leaf_c = cast(x).detach().requires_grad_(), cast(columns).detach().requires_grad_()
        bias_ = None if bias is None else cast(bias)
        place = leaf_x.device
        y = function(leaf_x, cast(weight), leaf_c, index.to(place), scale=case.scale, bias=bias_, **options)
        grads = torch.autograd.grad(y, (leaf_x, leaf_c), cast(dy))
        return {"y": y, "dx": grads[0], "dcolumns": grads[1]}

    ours = results(paca_linear, lambda v: v, scheme=scheme)
    eager = results(reference.paca_linear, lambda v: v)
    truth = results(reference.paca_linear, lambda v: v.cpu().double())
    assert ours["dcolumns"].dtype == columns.dtype
    compare(ours, eager, truth, case.dtype, case.k)


def poison(monkeypatch) -> None:
    """From now on what kernels write to is filled with what must never be read: NaN, and ones in masks."""

    def poisoned(shape, dtype, device):
        out = torch.empty(shape, dtype=dtype, device=device)
        return out.fill_(float("nan") if dtype.is_floating_point else 0xAA)

    monkeypatch.setattr(launch, "empty", poisoned)
    monkeypatch.setattr(launch, "allocation", lambda *like: partial(poisoned, *like))
    launch.forget_plans()  # they hold allocations


def launches() -> dict[str, int]:
    return dict(launch.counts)
