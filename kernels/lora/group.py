"""lora_linear_group: projections that read the same x (q, k, v; gate, up) in one call, and its autograd.Function."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..runtime import launch
from ..runtime.checks import check_lora
from ..runtime.dispatch import MOST_RANK
from ..runtime.schemes import split_scheme
from ..runtime.sizes import padded, unpack_mask
from .arguments import Seed, autocast_dtype, cast, draw_seed, prepared
from .autograd import by_torch, case_of
from .group_plan import OF_ONE, GroupPlan
from .linear import lora_linear

Member = tuple[Tensor, Tensor, Tensor, Tensor | None]  # weight (N, K), A (r, K), B (N, r), bias (N,)


class LoraGroup(torch.autograd.Function):
    """x (..., K), rows of K with unit stride, then weights, A, B and biases of every sibling.

    begun: what wants to know when a backward begins, which frees what is saved here; it is called if it still lives.
    Where every A and weight is frozen, x is not kept, and S' is a last output, which the caller drops: as an output it
    has a place in the graph, so that gradients of gradients flow through it.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, scale: float, p: float, seed: Seed | None, plan: GroupPlan, begun: Any, *rest: Any
    ) -> Any:
        count = len(plan.ranks)
        weights, a, b, biases = (rest[i * count : (i + 1) * count] for i in range(4))
        shape, every_a = x.shape, torch.cat(a)
        ys, s, mask = plan.forward(x.view(plan.m, plan.k), weights, every_a, b, biases, scale, p, seed)
        ctx.set_materialize_grads(False)
        ctx.plan, ctx.scale, ctx.shape, ctx.begun = plan, scale / (1.0 - p), shape, begun
        ctx.served, ctx.left = frozenset(), None
        keeps_x = any(ctx.needs_input_grad[6 : 6 + 2 * count])
        ctx.save_for_backward(x if keeps_x else None, s, mask, every_a, *weights, *a, *b)
        if len(shape) != 2:
            for y in ys:
                y.resize_(*shape[:-1], y.shape[1])  # not view(): autograd lets nobody write into a view made here
        return tuple(ys) if keeps_x else (*ys, s)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> Any:
        plan, count = ctx.plan, len(ctx.plan.ranks)
        grads, grad_s = grads[:count], grads[count] if len(grads) > count else None
        if ctx.begun is not None and (told := ctx.begun()) is not None:
            told()
        x, s, mask, every_a, *rest = _saved(ctx, grads)
        x = None if x is None else x.reshape(plan.m, plan.k)
        weights, a, b = (rest[i * count : (i + 1) * count] for i in range(3))
        # A sibling without a gradient here has none, not a gradient of zeros.
        needs = [need and grads[i % count] is not None for i, need in enumerate(ctx.needs_input_grad[6:])]
        given = next((dy for dy in (*grads, grad_s) if dy is not None), None)
        if given is None:
            return (None,) * len(ctx.needs_input_grad)
        dys = [
            s.new_zeros(plan.m, case.n, dtype=plan.dtype) if dy is None else dy.reshape(plan.m, case.n)
            for dy, case in zip(grads, plan.cases, strict=True)
        ]
        need_x = ctx.needs_input_grad[0]
        if grad_s is not None or not launch.launches_backward(given):
            grad_x, of_members = _by_torch(plan, ctx.scale, need_x, needs, dys, grad_s, x, s, mask, weights, a, b)
            return None if grad_x is None else grad_x.reshape(ctx.shape), *(None,) * 5, *of_members
        dys = [launch.rows(dy, dy.shape[1]) for dy in dys]
        grad_x, grad_a, grad_b = None, [None] * count, [None] * count
        if need_x or any(needs[count : 3 * count]):
            s, mask = launch.dense(s), launch.dense(mask)
            every_a, b = launch.dense(every_a), [launch.dense(t) for t in b]
            need_a = any(needs[count : 2 * count])
            flat = dys[0] if x is None else launch.rows(x, plan.k)
            grad_x, grad_a, grad_b = plan.backward(dys, flat, weights, every_a, b, s, mask, ctx.scale, need_x, need_a)
            grad_x = None if grad_x is None else grad_x.view(ctx.shape)
        grad_bias = [dy.sum(0) if need else None for dy, need in zip(dys, needs[3 * count :], strict=True)]
        grad_w = [dy.t() @ x if need and x is not None else None for dy, need in zip(dys, needs[:count], strict=True)]
        asked = [g if need else None for g, need in zip((*grad_a, *grad_b), needs[count : 3 * count], strict=True)]
        return grad_x, *(None,) * 5, *grad_w, *asked, *grad_bias


def _saved(ctx: Any, grads: Sequence[Tensor | None]) -> Sequence[Any]:
    """What forward saved. Layers that run alone can each have a backward of their own, the first of which would free
    all that a group saved: it is held until every output has had its gradient, or the graph goes."""
    count = len(grads)
    asked = frozenset(i for i, dy in enumerate(grads) if dy is not None)
    saved = None
    # Without x the gradients' own gradients need the S' of the graph, which what is held is not a part of.
    in_graph = ctx.left is not None and ctx.left[0][0] is None and torch.is_grad_enabled()
    if ctx.left is not None and not in_graph and not asked & ctx.served:
        held, versions = ctx.left
        read = [i for i in range(len(held)) if i < 4 or (i - 4) % count in asked]
        if all(held[i] is None or held[i]._version == versions[i] for i in read):
            saved = held
    if saved is None:
        saved = ctx.saved_tensors  # freed, or changed in place: torch says so
    ctx.served |= asked
    ctx.left = None
    if len(ctx.served) < count:
        # S' may be an output of this node, which would hold itself.
        ctx.left = (saved[0], saved[1].detach(), *saved[2:]), [None if t is None else t._version for t in saved]
    return saved


def _by_torch(
    plan: GroupPlan, scale: float, need_x: bool, needs: list[bool], dys: list[Tensor], grad_s: Tensor | None,
    x: Tensor | None, every_s: Tensor, mask: Tensor | None, weights: Any, a: Any, b: Any,
) -> tuple[Tensor | None, list[Tensor | None]]:  # fmt: skip
    """The gradients in torch's operations, which can be differentiated again and batched: on the inputs, or on S' where
    x is not kept. grad_s: the gradient of S'."""
    count = len(dys)
    kept = None if x is None else x.to(plan.adapter)
    if kept is not None and mask is not None:
        kept = kept * unpack_mask(mask, plan.k)
    found = []
    for i, (dy, weight, a_i, b_i, start) in enumerate(zip(dys, weights, a, b, plan.starts, strict=True)):
        s = every_s[:, :, start:] if kept is None else (scale * (kept @ a_i.t())).unsqueeze(0)
        of_s = None if grad_s is None else grad_s[:, :, start:]
        wanted: Any = (need_x, *needs[i::count])
        found.append(by_torch(wanted, plan.ranks[i], plan.adapter, scale, dy, of_s, x, weight, a_i, b_i, s, mask))
    of_x, *others = zip(*found, strict=True)
    return sum(of_x) if need_x else None, [grad for row in others for grad in row]


#: By what their launches depend on, then by whether compiled kernels can be kept.
_plans = launch.PlanCache()


def together(
    x: Tensor,
    members: Sequence[Member],
    scale: float,
    p: float,
    seed: int | None,
    begun: Any = None,
    scheme: str | None = None,
) -> tuple[Tensor, ...] | None:
    """The members' outputs for x by a group's kernels, or None where these do not apply: lora_linear has the answer,
    or the words for what is wrong, of each. begun: a weak reference to what a backward calls when it begins."""
    tensors = [x, *(t for member in members for t in member if t is not None)]
    if not (all(isinstance(t, Tensor) for t in tensors) and launch.runs_triton(x) and launch.ordinary(*tensors)):
        return None
    autocast = autocast_dtype(x.device)
    dtype = x.dtype if autocast is None or x.dtype == torch.float64 else autocast
    if (
        x.dtype == torch.float64
        or (x.is_cuda and (dtype == torch.float32 or launch.architecture(x.device) < 80))
        or len({member[1].dtype for member in members}) > 1
    ):
        return None
    if launch.elsewhere(x):
        with torch.cuda.device(x.device):
            return together(x, members, scale, p, seed, begun, scheme)
    key = (*((t.shape, t.stride(), t.dtype, t.device) for t in tensors), dtype, p, type(scale), type(seed), scheme,
           tuple(member[3] is None for member in members))  # fmt: skip
    plans = _plans.get(key)
    if plans is None:
        try:
            for w, a, b, bias in members:
                check_lora(x, w, a, b, bias, scale, p, seed, autocast is not None)
        except (TypeError, ValueError):
            return None
        if padded(sum(a.shape[0] for _, a, _, _ in members)) > MOST_RANK:
            return None
        plans = _plans[key] = {}
    if autocast is not None:
        members = [cast(dtype, x, *member)[1:] for member in members]
        x = x.to(dtype)
    flat = launch.rows(x, x.shape[-1])
    if flat.untyped_storage().data_ptr() != x.untyped_storage().data_ptr():
        x = flat.view(x.shape)
    ws, as_, bs, biases = zip(*(prepared(*member) for member in members), strict=True)
    keep = all(t is None or t.data_ptr() % 16 == 0 for t in (flat, *ws, *as_, *bs, *biases))
    plan = plans.get(keep)
    if plan is None:
        plan = plans[keep] = _plan(flat, ws, as_, biases, p > 0.0, keep, scheme)
    seeds = draw_seed(seed, x.device) if p > 0.0 else None
    # float: Triton makes a constant of an int 1, and a kept kernel has it for ever.
    return LoraGroup.apply(x, float(scale), float(p), seeds, plan, begun, *ws, *as_, *bs, *biases)[: len(ws)]


def _plan(x: Tensor, weights: Any, a: Any, biases: Any, dropout: bool, keep: bool, scheme: str | None) -> GroupPlan:
    cases = [case_of(x, *member, dropout) for member in zip(weights, a, biases, strict=True)]
    cases = [replace(case, fits_tma=keep and case.fits_tma) for case in cases]
    strides = [(w.stride(0), w.stride(1)) for w in weights]
    return GroupPlan(cases, strides, x.stride(0), x.dtype, a[0].dtype, x.device, keep, *split_scheme(scheme))


def lora_linear_group(
    x: Tensor,
    weights: Sequence[Tensor],
    lora_as: Sequence[Tensor],
    lora_bs: Sequence[Tensor],
    *,
    scale: float,
    biases: Sequence[Tensor | None] | None = None,
    dropout_p: float = 0.0,
    seed: int | None = None,
    scheme: str | None = None,
) -> tuple[Tensor, ...]:
    """lora_linear of one x with several weights: y_i = x W_i^T + bias_i + scale * drop(x) A_i^T B_i^T.

    x (..., K), weights (N_i, K), lora_as (r_i, K), lora_bs (N_i, r_i), biases (N_i,) or None; returns the y_i
    (..., N_i). The dropout mask is drawn once and shared. scheme overrides the dispatcher as lora_linear's does, with
    'cublas', 'epilogue' or 'epilogue_tma' forward, and how the dX are summed backward. Where the kernels do not apply
    (a CPU without the interpreter, fp32 on a GPU, torch.compile, ranks that add up to more than 64) each is a
    lora_linear, and scheme without effect.
    Errors are those of lora_linear, and a ValueError where the sequences differ in length.
    """
    count = len(weights)
    biases = [None] * count if biases is None else biases
    lengths = {"weights": count, "lora_as": len(lora_as), "lora_bs": len(lora_bs), "biases": len(biases)}
    if count == 0 or len(set(lengths.values())) > 1:
        words = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise ValueError(
            f"weights, lora_as, lora_bs and biases have lengths {words}, expected one length of at least 1"
        )
    if split_scheme(scheme)[0] in OF_ONE:
        raise ValueError(f"scheme is {scheme!r}, expected cublas, epilogue or epilogue_tma: a group has one S for all")
    members = list(zip(weights, lora_as, lora_bs, biases, strict=True))
    ys = None if torch.compiler.is_compiling() else together(x, members, scale, dropout_p, seed, None, scheme)
    if ys is not None:
        return ys
    if dropout_p > 0.0 and seed is None:
        seed = int(torch.randint(2**62, (1,)))  # one mask for all
    return tuple(
        lora_linear(x, w, a, b, scale=scale, bias=bias, dropout_p=dropout_p, seed=seed) for w, a, b, bias in members
    )
