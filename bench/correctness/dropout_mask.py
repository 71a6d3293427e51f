"""Adapter dropout: its masks in distribution, and that forward and backward use the same one.

The mask is read off the gradient of x, so an implementation need not export it. A has no zeros, the columns of B do not
overlap, and each token's dY meets one of them: every element of dX then holds one element of the mask times a number
that is known and not small, beside the base GEMM.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from bench.case import Case
from bench.correctness.bounds import Finding, good, judge, relative_errors
from bench.correctness.prepare import canonical, draw_biases, drawn_values, leaf_values
from bench.correctness.reference import ReferenceModel, baseline, outputs, scale_branch
from bench.methods.adapt import DTYPES
from bench.methods.reference import BranchReference
from bench.models.build import build
from bench.models.work import AUTOCAST, Work

# Of the branch over x W^T, in norm: large enough for dX to show the mask through the rounding of the base GEMM.
SHARE = 4.0

# Of a binomial count: a right implementation fails about one in two million of these checks.
SIGMAS = 5.0

# On the bounds of errors. With so regular an input few roundings make up an error, so that it varies more between two
# right ways: one that rounds S twice reached 1.01 of the plain bound in the worst of 432 checks in 16 bits, on a CPU.
# Another mask is off by sqrt(p) and more.
SLACK = 2.0


@dataclass(frozen=True)
class Mask:
    """keep (tokens, K), boolean. gain: mean factor of the survivors, over 1 / (1 - p); 1 is right."""

    keep: Tensor
    gain: float


def check_masks(case: Case, device: torch.device, seed: int) -> list[Finding]:
    """Findings on the masks of a linear case with adapter dropout, then its errors by name under the mask read.

    Of a group layer by layer, with dY zero for the others: siblings may have one mask or one each. Which layers are
    siblings an impl may find out in a first forward.
    """
    assert case.level == "linear" and case.dropout
    work = build(case, str(device), seed)
    draw_biases(work.model, seed)
    plain = baseline(case, str(device), seed)
    findings = plain.take_over(work.model)
    exact = plain.exact
    if len(exact.layers) > 1:
        work.forward()
    for name in exact.layers:
        if good(findings):
            findings += _masks_of(name, work, plain, exact)
    return findings


def _masks_of(name: str, work: Work, plain: ReferenceModel, exact: ReferenceModel) -> list[Finding]:
    case, device = work.case, work.device
    values = leaf_values(work) | drawn_values(work.model, exact.layers)
    alone = len(exact.layers) == 1
    output = "output" if alone else f"output of {name}"
    assert exact.x is not None
    tokens, (n, rank) = exact.x[..., 0].numel(), values[f"{name}.lora_b"].shape
    classes = min(rank, n)
    mine = torch.arange(n, device=device) % classes
    dtype = AUTOCAST.get(case.precision) or DTYPES[case.precision]  # of the output
    with torch.no_grad():
        a, b = values[f"{name}.lora_a"], values[f"{name}.lora_b"]
        a.copy_(_away_from_zero(a.shape, device) / a.shape[1] ** 0.5)
        b.copy_((mine[:, None] == torch.arange(rank, device=device)) * (1 + torch.rand((n, 1), device=device)))
        scale_branch(values, exact, SHARE)
        layer = exact.layers[name]
        assert isinstance(layer, BranchReference)
        layer.for_masks({part: values[f"{name}.{part}"] for part in layer.trained})
        work.refresh()
        plain.load(values)
        meets = torch.arange(tokens, device=device)[:, None] % classes == mine
        grad_out = (meets * _away_from_zero((tokens, 1), device) / tokens**0.5).to(dtype)

    def given(outs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """dY by the name of the output: zero but for this layer's."""
        return {k: grad_out.view(y.shape).to(y.dtype) if k == output else torch.zeros_like(y) for k, y in outs.items()}

    def run() -> tuple[dict[str, Tensor], Mask]:
        work.clear()
        outs = outputs(work.forward(), exact.linear)
        found = {key: y.detach() for key, y in outs.items()}
        torch.autograd.backward(list(outs.values()), list(given(found).values()))
        found |= {canonical(leaf): t.grad for leaf, t in work.leaves if t.grad is not None}
        return found, read_mask(found["x"], grad_out, layer, case.dropout or 0.0)

    found, mask = run()
    findings = []
    for finding in distribution(mask, case, lambda: run()[1]):
        findings.append(finding if alone else replace(finding, tensor=f"{finding.tensor} of {name}"))
        if not finding.passed:
            return findings
    for model in (plain, exact):
        used = model.layers[name]
        assert isinstance(used, BranchReference)
        used.dropout, used.keep = case.dropout or 0.0, mask.keep.view(exact.x.shape)
    where = f"at dropout {case.dropout:g}, with the mask that the gradient of x shows,"
    base = exact.base()
    dys = given({key: found[key] for key in base})
    own = {output, "x", f"{name}.lora_a", f"{name}.lora_b"}
    wanted = {key: t for key, t in exact.run(dys).items() if key in own}
    allowed = relative_errors(plain.run(dys), wanted, base)
    return findings + judge(relative_errors(found, wanted, base), allowed, case, where, SLACK)


def _away_from_zero(shape: tuple[int, ...], device: torch.device) -> Tensor:
    """Uniform on [-2, -1] and [1, 2]: not of one size, so that rounding does not move all elements alike."""
    return (torch.randint(0, 2, shape, device=device) * 2 - 1) * (1 + torch.rand(shape, device=device))


@torch.no_grad()
def read_mask(grad_x: Tensor, grad_out: Tensor, layer: BranchReference, dropout: float) -> Mask:
    """The mask behind grad_x (..., K) = dY W + keep / (1 - p) * masked(dY), where dY is grad_out (tokens, N)."""
    dtype = layer.weight.dtype
    dy = grad_out.to(dtype)
    whole = layer.masked(dy) / (1.0 - dropout)
    factor = (grad_x.reshape(whole.shape).to(dtype) - dy @ layer.weight) / whole
    keep = factor > 0.25  # far from 0 and from 1, also where survivors are not scaled at p up to 0.7
    return Mask(keep, (factor * keep).sum().item() / max(int(keep.sum()), 1))


def distribution(mask: Mask, case: Case, again: Callable[[], Mask]) -> Iterator[Finding]:
    """Neighbours drawn independently, as the binomial bound has it; rate; scaling; another mask at the next call."""
    p, keep = case.dropout or 0.0, mask.keep
    drawn, dtype = keep.numel(), AUTOCAST.get(case.precision) or DTYPES[case.precision]
    if drawn * p * p >= 25:  # pairs that are dropped together: with fewer a correlation says little
        shifts = ((0, 1), (1, 0), (1, 1), (1, -1))
        worst = max(abs(_correlation(keep, *shift)) for shift in shifts)
        yield Finding("mask", worst, SIGMAS / math.sqrt(drawn / 2), "neighbours", "are correlated by {error:.3g}")
    rate = 1.0 - keep.sum().item() / drawn
    words = f"drops {rate:.4g} of the elements at dropout {p:g}, off by {{error:.3g}}"
    yield Finding("mask", abs(rate - p), SIGMAS * math.sqrt(p * (1 - p) / drawn), words=words)
    # 1 / (1 - p) rounded to 16 bits moves all survivors alike, by at most eps / 2; in fp32 that is nothing.
    bound = max(torch.finfo(dtype).eps, 1e-3)
    words = f"multiplies survivors by {mask.gain / (1 - p):.4g}, not {1 / (1 - p):.4g}: off by {{error:.3g}}"
    yield Finding("mask", abs(mask.gain - 1.0), bound, "scaling", words)
    if drawn * p >= 25:
        same = float(torch.equal(keep, again().keep))
        yield Finding("mask", same, 0.5, "of the next call", "is the same one again ({error:g})")


def _correlation(keep: Tensor, down: int, right: int) -> float:
    """Of elements (i, j) and (i + down, j + right); 0 where there are none or no element differs."""
    k = keep.double()
    k = k - k.mean()
    rows, columns = k.shape
    right_end = columns - max(right, 0)
    first = k[: rows - down, max(-right, 0) : right_end]
    second = k[down:, max(right, 0) : columns - max(-right, 0)]
    variance = k.square().mean().item()
    return (first * second).mean().item() / variance if first.numel() and variance else 0.0
