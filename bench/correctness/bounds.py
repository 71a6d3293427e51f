"""Errors of tensors, the bounds they are held to, and the check's verdict. Bounds and sources: see judge."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bench.case import Case
from bench.methods.adapt import DTYPES
from bench.models.work import AUTOCAST

OUTPUTS = ("output", "loss", "logits")


@dataclass(frozen=True)
class Finding:
    """One thing that was checked. where: empty, or what was different ('after a step')."""

    tensor: str
    error: float
    bound: float
    where: str = ""
    words: str = "differs from the reference by {error:.3g} of its norm"

    @property
    def passed(self) -> bool:
        return self.error <= self.bound  # False for NaN

    @property
    def excess(self) -> float:
        """error / bound; infinite for NaN."""
        return self.error / self.bound if self.bound > 0 and not math.isnan(self.error) else math.inf

    def __str__(self) -> str:
        return f"{self.name} {self.words.format(error=self.error)}, bound {self.bound:.3g}"

    @property
    def name(self) -> str:
        return f"{self.tensor} {self.where}".strip()


@dataclass(frozen=True)
class CheckResult:
    """What the check found. tensor, error, bound: of the worst finding, by error / bound.

    detail: one sentence. errors: all that was checked, by the tensor's name and where.
    """

    passed: bool
    tensor: str
    error: float
    bound: float
    detail: str
    errors: Mapping[str, float]


def result(findings: Sequence[Finding]) -> CheckResult:
    """The verdict. A wrong output makes wrong gradients, so where one failed, outputs alone are asked for the worst."""
    failed = [f for f in findings if not f.passed]
    outputs = [f for f in failed if f.tensor.split()[0] in OUTPUTS]
    worst = max(outputs or failed or findings, key=lambda f: f.excess)
    others = [f.name for f in failed if f is not worst]
    also = f"; also wrong: {', '.join(others[:3])}" if others else ""
    more = f" and {len(others) - 3} more" if len(others) > 3 else ""
    errors = {f.name: f.error for f in findings}
    return CheckResult(not failed, worst.tensor, worst.error, worst.bound, f"{worst}{also}{more}", errors)


def good(findings: Sequence[Finding]) -> bool:
    return all(f.passed for f in findings)


def relative_errors(
    found: Mapping[str, Tensor],
    wanted: Mapping[str, Tensor],
    base: Mapping[str, Tensor] | None = None,
    pooled: bool = False,
) -> dict[str, float]:
    """||found - wanted|| / ||wanted|| (Frobenius) by name; where `pooled`, over all of a kind (lora_a, weight ...).

    base: x W^T + b by the name of the output that it is part of; then also of 'branch', the output less that. A wrong
    shape counts as infinite; of zeros, zeros have the error 0 and all else an infinite one.
    """
    norms: dict[str, list[Tensor]] = {}
    for name, want in wanted.items():
        got = found[name].to(want.dtype)
        if got.shape != want.shape:
            return {name: math.inf}
        norms.setdefault(name.rpartition(".")[2] if pooled else name, []).append(_norms(got - want, want))
        if base and name in base:
            norms[name.replace("output", "branch")] = [_norms(got - want, want - base[name])]
    sums = torch.stack([torch.stack(parts).square().sum(0).sqrt() for parts in norms.values()])
    ratio = torch.where(sums[:, 0] == 0, 0.0, sums[:, 0] / sums[:, 1]).tolist()  # read back once
    return dict(zip(norms, ratio, strict=True))


def all_finite(t: Tensor) -> Tensor:
    """A boolean, told by the extremes, which a NaN takes over: isfinite of all values took 25 times as long (10 M, one
    thread of an AMD EPYC)."""
    return torch.stack(t.aminmax()).isfinite().all()


def near(
    found: Mapping[str, Tensor], plain: Mapping[str, Tensor], base: Mapping[str, Tensor], pooled: bool, case: Case
) -> dict[str, float] | None:
    """Relative errors against the baseline where these alone show that those against the reference are in bounds, by
    the triangle inequality: (found - reference) <= (found - plain) + (plain - reference), whose last part every bound
    allows once and more. Else None. Half of a bound's fixed part leaves room for the norm of plain not being that of
    the reference."""
    if all(torch.equal(found[name], t) and all_finite(t) for name, t in plain.items()):
        names = [*plain, *(name.replace("output", "branch") for name in base)]
        return {name.rpartition(".")[2] if pooled else name: 0.0 for name in names}
    errors = relative_errors(found, plain, base, pooled)
    return errors if good(judge(errors, dict.fromkeys(errors, 0.0), case, slack=0.5)) else None


def _norms(*tensors: Tensor) -> Tensor:
    return torch.stack([torch.linalg.vector_norm(t, dtype=torch.float64) for t in tensors])


def judge(
    errors: Mapping[str, float], plain: Mapping[str, float], case: Case, where: str = "", slack: float = 1.0
) -> list[Finding]:
    """Errors held against those of plain eager PyTorch.

    16-bit: 1.25 x plain + eps / 8, which a doubled or a slightly wrong scale does not pass. fp32: 2 x plain +
    4 eps sqrt(K), K the widest input: two orders of summation differ by about eps sqrt(K). slack: a factor on these.
    """
    dtype = AUTOCAST.get(case.precision) or DTYPES[case.precision]
    eps = torch.finfo(dtype).eps
    projections = case.projections if case.level == "linear" or case.shape is None else case.shape.projections
    width = max(p.in_features for p in projections)
    if dtype == torch.float32:
        bounds = {name: 2 * plain[name] + 4 * eps * width**0.5 for name in errors}
    else:
        bounds = {name: 1.25 * plain[name] + eps / 8 for name in errors}
    found = [Finding(name, error, slack * bounds[name], where) for name, error in errors.items()]
    if any(f.tensor.startswith("output") and not f.passed for f in found):
        return [f for f in found if not f.tensor.startswith("branch")]  # which says the same, less directly
    return found
