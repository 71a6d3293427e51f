"""Projections that read the same x (q, k, v; gate, up), together.

Forward: one S kernel over the concatenated A, so x is read once for all branches, then a GEMM each. Backward: dS' and
dB of each into slices of one buffer, dX accumulated by GEMMs that add to it, and one dA for all, which reads x once.
Dropout draws one mask, shared: the siblings drop the same elements of x, where separate calls draw one each.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..runtime import launch
from ..runtime.architectures import features
from ..runtime.checks import check_lora
from ..runtime.dispatch import MOST_RANK, Case, Choice, choose_tile, parts_for
from ..runtime.sizes import padded, unpack_mask
from .arguments import Seed, draw_seed, prepared
from .autograd import by_torch
from .backward import build_skinny, keeps_range
from .forward import Spec, build_gemm, build_project, project_parts
from .linear import lora_linear


class GroupPlan:
    """The launches of a group; x (M, K), weights (N_i, K), ranks r_i."""

    def __init__(
        self, x: Tensor, weights: list[Tensor], a: list[Tensor], dropout: bool, bias: list[bool], keep: bool
    ) -> None:
        m, k = x.shape
        self.m, self.k = m, k
        self.ranks = [t.shape[0] for t in a]
        self.starts = [sum(self.ranks[:i]) for i in range(len(a))]
        self.adapter = a[0].dtype
        self.dtype, self.device, self.keep = x.dtype, x.device, keep
        self.wide = keeps_range(self.dtype, self.adapter)
        arch, sms = launch.architecture(x.device), launch.multiprocessors(x.device)
        self.pdl = features(arch).pdl and x.is_cuda
        total = Case(m, max(w.shape[0] for w in weights), k, sum(self.ranks), arch, sms, dropout,
                     interpreted=launch.interpreting(),
                     fp32_adapters=self.adapter == torch.float32 != x.dtype)  # fmt: skip
        self.total, self.width = total, padded(total.rank)
        self.cases = [replace(total, n=w.shape[0], rank=rank) for w, rank in zip(weights, self.ranks, strict=True)]
        self.parts = project_parts(total)
        spec = Spec(total, Choice("epilogue", "grouped"), x.dtype, x.device, x.stride(0), (k, 1), False, keep, self.pdl)
        self.project = build_project(spec, self.parts)
        # A slice of S' that begins at an odd rank is not aligned: no kept kernels then.
        self.kept = [keep and start * x.element_size() % 16 == 0 for start in self.starts]
        self.gemms = [
            build_gemm(
                case, m, case.n, k, None, tma=False, stride_xm=x.stride(0), stride_wk=w.stride(1),
                stride_wn=w.stride(0), stride_vr=1, stride_vn=case.rank, stride_sm=self.width, parts=self.parts,
                bias=has_bias, masked=False, pdl=self.pdl, dtype=x.dtype, keep=kept,
            )
            for case, w, has_bias, kept in zip(self.cases, weights, bias, self.kept, strict=True)
        ]  # fmt: skip
        self.backwards: dict[Any, Any] = {}

    def forward(self, x: Tensor, weights: Any, a: Any, b: Any, biases: Any, scale: float, p: float, seed: Any) -> Any:
        s, mask = self.project(x, torch.cat(a), scale, p, seed)
        ys = []
        for gemm, case, w, v, bias, start in zip(self.gemms, self.cases, weights, b, biases, self.starts, strict=True):
            y = launch.empty((self.m, case.n), self.dtype, self.device)
            gemm(p_x=x, p_w=w, p_s=s[:, :, start:], p_v=v, p_bias=bias, p_mask=None, p_y=y)
            ys.append(y)
        return ys, s, mask

    def backward(self, dys: list[Tensor], x: Tensor, weights: Any, a: Any, b: Any, s: Tensor, mask: Any, scale: float,
                 need_x: bool) -> Any:  # fmt: skip
        """dX or None, the dA, the dB."""
        # What was saved may come back in another layout or at another address: hooks on saved tensors hand out copies.
        read = (x, s, *dys, *weights, *a, *b, *(() if mask is None else (mask,)))
        keep = self.keep and all(t.data_ptr() % 16 == 0 for t in read)
        key = (need_x, x.stride(0), tuple(t.stride() for t in (*dys, *weights)), keep)
        launches = self.backwards.get(key)
        if launches is None:
            launches = self.backwards[key] = self._build(dys, x, weights, need_x, keep)
        branches, gemms, skinny, reductions, parts, tile_blocks, da_parts = launches
        m, k, width = self.m, self.k, self.width
        ds = launch.empty((parts, m, width), self.dtype if parts == 1 and not self.wide else torch.float32, self.device)
        grad_x = launch.empty((m, k), self.dtype, self.device) if need_x else None
        grad_a = launch.empty((sum(self.ranks), k), self.adapter, self.device)
        da_sum = launch.empty((da_parts, width, k), torch.float32, self.device)
        db_sums, grad_b = [], []
        for i, (case, dy, start) in enumerate(zip(self.cases, dys, self.starts, strict=True)):
            db_sum = launch.empty((tile_blocks, padded(case.rank), case.n), torch.float32, self.device)
            sliced = ds[:, :, start:]
            branches[i](
                p_dy=dy, p_b=b[i], p_s=s[:, :, start:], p_x=x, p_mask=None, p_ds=sliced, p_db=db_sum, p_da=None,
                scale=scale,
            )  # fmt: skip
            if need_x:
                gemms[i](p_x=dy, p_w=weights[i], p_s=sliced, p_v=a[i], p_bias=None, p_mask=mask, p_y=grad_x)
            db_sums.append(db_sum)
            grad_b.append(launch.empty((case.n, case.rank), self.adapter, self.device))
        skinny(p_l=ds, p_index=None, p_t=x, p_mask=mask, p_out=da_sum, scale=1.0)
        for db_sum, grad, reduce in zip(db_sums, grad_b, reductions[:-1], strict=True):
            reduce(p_left=db_sum, p_left_out=grad, p_right=None, p_right_out=None, scale=1.0)
        reductions[-1](p_left=None, p_left_out=None, p_right=da_sum, p_right_out=grad_a, scale=1.0)
        return grad_x, [grad_a[i : i + r] for i, r in zip(self.starts, self.ranks, strict=True)], grad_b

    def _build(self, dys: list[Tensor], x: Tensor, weights: Any, need_x: bool, keep: bool) -> Any:
        from ..runtime.skinny_product import reduce_launch
        from .branch_gradients import branch_gradients_launch

        m, k, masked = self.m, self.k, self.total.dropout
        tile = choose_tile("branch_gradients", self.total, m, min(case.n for case in self.cases))
        blocks = -(-m // tile.bm)
        parts = parts_for(blocks, min(-(-case.n // tile.bn) for case in self.cases), self.total)
        common: dict[str, Any] = {"pdl": self.pdl, "dtype": self.dtype}
        branches, gemms = [], []
        for i, (case, dy, w, kept) in enumerate(zip(self.cases, dys, weights, self.kept, strict=True)):
            branches.append(branch_gradients_launch(
                m, case.n, k, case.rank, tile, stride_dm=dy.stride(0), stride_xm=x.stride(0), s_parts=self.parts,
                stride_sm=self.width, stride_ds=self.width, parts=parts, wide=self.wide, keep=keep and kept, **common,
            ))  # fmt: skip
            gemms.append(build_gemm(
                case, m, k, case.n, None, tma=False, stride_xm=dy.stride(0), stride_wk=w.stride(0),
                stride_wn=w.stride(1), stride_vr=k, stride_vn=1, stride_sm=self.width, parts=parts, bias=False,
                masked=masked, keep=keep and kept, add=i > 0, **common,
            ))  # fmt: skip
        skinny, da_parts = build_skinny(
            self.total, m, k, masked, l_parts=parts, stride_l=self.width, stride_tm=x.stride(0), wide=self.wide,
            ahead=need_x, keep=keep, **common,
        )  # fmt: skip
        reducing: dict[str, Any] = {"pdl": self.pdl, "dtype": self.adapter}
        reductions = [reduce_launch(case.rank, left=(case.n, blocks), **reducing) for case in self.cases]
        reductions.append(reduce_launch(self.total.rank, right=(k, da_parts), **reducing))
        return branches, gemms, skinny, reductions, parts, blocks, da_parts


class LoraGroup(torch.autograd.Function):
    """x (M, K), then weights, A, B and biases of every sibling."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: float, p: float, seed: Seed | None, plan: GroupPlan, *rest: Any) -> Any:
        count = len(plan.ranks)
        weights, a, b, biases = (rest[i * count : (i + 1) * count] for i in range(4))
        ys, s, mask = plan.forward(x, weights, a, b, biases, scale, p, seed)
        ctx.plan, ctx.scale = plan, scale / (1.0 - p)
        ctx.save_for_backward(x, s, mask, *weights, *a, *b)
        return tuple(ys)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        plan, count = ctx.plan, len(grads)
        x, s, mask, *rest = ctx.saved_tensors
        weights, a, b = (rest[i * count : (i + 1) * count] for i in range(3))
        needs = ctx.needs_input_grad[5:]
        if not all(map(launch.launches_backward, grads)):
            return _by_torch(ctx, grads, x, mask, weights, a, b)
        dys = [launch.rows(dy, dy.shape[-1]) for dy in grads]
        grad_x, grad_a, grad_b = None, [None] * count, [None] * count
        if ctx.needs_input_grad[0] or any(needs[count : 3 * count]):
            x, s, mask = launch.rows(x, x.shape[1]), launch.dense(s), launch.dense(mask)
            a, b = ([launch.dense(t) for t in row] for row in (a, b))
            grad_x, grad_a, grad_b = plan.backward(dys, x, weights, a, b, s, mask, ctx.scale, ctx.needs_input_grad[0])
        grad_bias = [dy.sum(0) if need else None for dy, need in zip(dys, needs[3 * count :], strict=True)]
        grad_w = [dy.t() @ x if need else None for dy, need in zip(dys, needs[:count], strict=True)]
        asked = [g if need else None for g, need in zip((*grad_a, *grad_b), needs[count : 3 * count], strict=True)]
        return grad_x, None, None, None, None, *grad_w, *asked, *grad_bias


def _by_torch(
    ctx: Any, dys: tuple[Tensor, ...], x: Tensor, mask: Tensor | None, weights: Any, a: Any, b: Any
) -> tuple[Tensor | None, ...]:
    """What backward returns, in torch's operations on the inputs, which can be differentiated again and batched."""
    plan, count = ctx.plan, len(dys)
    need_x, needs = ctx.needs_input_grad[0], ctx.needs_input_grad[5:]
    kept = x.to(plan.adapter)
    if mask is not None:
        kept = kept * unpack_mask(mask, x.shape[1])
    found = []
    for i, (dy, weight, a_i, b_i) in enumerate(zip(dys, weights, a, b, strict=True)):
        # Computed again from x, which is kept, so that it has its place in the graph.
        s = (ctx.scale * (kept @ a_i.t())).unsqueeze(0)
        wanted = (need_x, *needs[i::count])
        found.append(by_torch(wanted, plan.ranks[i], plan.adapter, ctx.scale, dy, None, x, weight, a_i, b_i, s, mask))
    of_x, *others = zip(*found, strict=True)
    return (sum(of_x) if need_x else None, None, None, None, None, *(grad for row in others for grad in row))


_plans = launch.PlanCache()


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
) -> tuple[Tensor, ...]:
    """lora_linear of one x with several weights: y_i = x W_i^T + bias_i + scale * drop(x) A_i^T B_i^T.

    x (..., K), weights (N_i, K), lora_as (r_i, K), lora_bs (N_i, r_i), biases (N_i,) or None; returns the y_i
    (..., N_i). The dropout mask is drawn once and shared. Where the kernels do not apply (a CPU without the
    interpreter, fp32 on a GPU, torch.compile, ranks that add up to more than 64) each is a lora_linear.
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
    members = list(zip(weights, lora_as, lora_bs, biases, strict=True))
    tensors = (x, *weights, *lora_as, *lora_bs, *biases)
    kernels = (
        not torch.compiler.is_compiling()
        and all(t is None or isinstance(t, Tensor) for t in tensors)
        and launch.runs_triton(x)
        and launch.ordinary(*tensors)
    )
    if kernels and torch.is_autocast_enabled(x.device.type) and x.dtype != torch.float64:
        for w, a, b, bias in members:
            check_lora(x, w, a, b, bias, scale, dropout_p, seed, autocast=True)
        dtype = torch.get_autocast_dtype(x.device.type)
        cast = [None if bias is None else bias.to(dtype) for bias in biases]
        as_, bs_ = ([t if t.dtype == torch.float32 else t.to(dtype) for t in row] for row in (lora_as, lora_bs))
        with torch.autocast(x.device.type, enabled=False):
            return lora_linear_group(
                x.to(dtype), [w.to(dtype) for w in weights], as_, bs_, scale=scale, biases=cast, dropout_p=dropout_p,
                seed=seed,
            )  # fmt: skip
    if (
        not kernels
        or x.dtype == torch.float64
        or (x.is_cuda and (x.dtype == torch.float32 or launch.architecture(x.device) < 80))
        or padded(sum(a.shape[0] for a in lora_as)) > MOST_RANK
        or len({a.dtype for a in lora_as}) > 1
    ):
        if dropout_p > 0.0 and seed is None:
            seed = int(torch.randint(2**62, (1,)))  # one mask for all
        return tuple(
            lora_linear(x, w, a, b, scale=scale, bias=bias, dropout_p=dropout_p, seed=seed) for w, a, b, bias in members
        )
    for w, a, b, bias in members:
        check_lora(x, w, a, b, bias, scale, dropout_p, seed)
    if launch.elsewhere(x):
        with torch.cuda.device(x.device):
            return lora_linear_group(
                x, weights, lora_as, lora_bs, scale=scale, biases=biases, dropout_p=dropout_p, seed=seed
            )
    flat = launch.rows(x, x.shape[-1])
    ready = [prepared(*member) for member in members]
    ws, as_, bs, given = (list(column) for column in zip(*ready, strict=True))
    operands = [flat, *ws, *as_, *bs, *(bias for bias in given if bias is not None)]
    keep = all(t.data_ptr() % 16 == 0 for t in operands)
    key = (*((t.shape, t.stride(), t.dtype) for t in operands), x.device, keep, dropout_p,
           tuple(bias is None for bias in biases))  # fmt: skip
    plan = _plans.get(key)
    if plan is None:
        plan = _plans[key] = GroupPlan(flat, ws, as_, dropout_p > 0.0, [bias is not None for bias in biases], keep)
    seeds = draw_seed(seed, x.device) if dropout_p > 0.0 else None
    # float: Triton makes a constant of an int 1, and a kept kernel has it for ever.
    ys = LoraGroup.apply(flat, float(scale), float(dropout_p), seeds, plan, *ws, *as_, *bs, *given)
    return tuple(y.view(*x.shape[:-1], y.shape[-1]) for y in ys)
