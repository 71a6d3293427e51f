"""paca_linear through the kernels: cuBLAS and one gather forward, cuBLAS and one skinny product backward.

gather   x[:, index] (M, r) is gathered once in forward and is all that is saved.
fused    the gather sits in dP's kernel: one launch less in forward, but x (M, K) is saved, and two-byte loads are never
         asynchronous. A measured alternative; no table chooses it.
torch    index_select and cuBLAS: fp32 on a GPU, CPU tensors, ranks above the tables.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..runtime import launch
from ..runtime.architectures import features
from ..runtime.dispatch import MOST_RANK, Case, Choice, choose_tile, parts_for
from ..runtime.sizes import padded

SCHEMES = ("gather", "fused", "torch")


class Plan:
    """What a call with this shape, rank and dtype runs. case: in place of that of x, for what no GPU is at hand."""

    __slots__ = ("case", "choice", "columns_dtype", "device", "dtype", "gather", "keep", "pdl", "skinnies", "viewed")

    def __init__(
        self, x: Tensor, n: int, rank: int, columns_dtype: torch.dtype, scheme: str | None, keep: bool,
        case: Case | None = None,
    ) -> None:  # fmt: skip
        m, k = x.shape
        arch = launch.architecture(x.device)
        self.case = case or Case(
            m, n, k, rank, arch, launch.multiprocessors(x.device), interpreted=launch.interpreting()
        )
        self.pdl = features(self.case.arch).pdl
        self.choice = choose(x, self.case, scheme)
        self.columns_dtype = columns_dtype
        self.dtype, self.device, self.keep = x.dtype, x.device, keep
        self.viewed = False  # whether x (..., K) is rows of K as it lies: then nothing is reshaped under autograd
        self.skinnies: dict[Any, Callable[..., Tensor]] = {}
        self.gather: Any = None
        if self.choice.scheme == "gather":
            from .gather import gather_launch

            self.gather = gather_launch(
                m, rank, choose_tile("gather", self.case, m, 0), stride_xm=x.stride(0), pdl=self.pdl, keep=keep
            )

    def selected(self, x: Tensor, index: Tensor) -> Tensor:
        """What backward needs of x (M, K): x[:, index] (M, r), or x itself under 'fused'."""
        if self.choice.scheme == "fused":
            return x
        if self.gather is None:
            return x.index_select(1, index)
        x_idx = launch.empty((x.shape[0], self.case.rank), self.dtype, self.device)
        self.gather(p_x=x, p_index=index, p_out=x_idx)
        return x_idx

    def grad_columns(self, dy: Tensor, selected: Tensor, index: Tensor, scale: float) -> Tensor:
        """scale * dY^T x[:, index] (N, r) in the dtype of columns, accumulated in fp32."""
        if self.choice.scheme == "torch":
            return scale * (dy.to(self.columns_dtype).t() @ selected.to(self.columns_dtype))
        # A hook on saved tensors may have handed out copies of any layout.
        fused = self.choice.scheme == "fused"
        selected = launch.rows(selected, self.case.k) if fused else launch.dense(selected)
        index = launch.dense(index)
        aligned = self.keep and (dy.data_ptr() | selected.data_ptr() | index.data_ptr()) % 16 == 0
        key = (dy.stride(0), selected.stride(0), aligned)
        run = self.skinnies.get(key)
        if run is None:
            run = self.skinnies[key] = self._build_skinny(dy.stride(0), selected.stride(0), aligned)
        return run(dy, selected, index, scale)

    def _build_skinny(self, stride_dm: int, stride_lm: int, keep: bool) -> Callable[..., Tensor]:
        from ..runtime.skinny_product import reduce_launch, skinny_launch

        case, fused = self.case, self.choice.scheme == "fused"
        m, n, rank = case.m, case.n, case.rank
        tile = choose_tile("skinny", case, m, n)
        parts = parts_for(-(-n // tile.bn), -(-m // tile.bm), case, most=16)
        direct = parts == 1
        launch_dp = skinny_launch(
            m, n, rank, tile, stride_l=rank, stride_lm=stride_lm, stride_tm=stride_dm, gather=fused, parts=parts,
            direct=direct, pdl=self.pdl, dtype=self.dtype, keep=keep,
        )  # fmt: skip
        launch_reduce = None if direct else reduce_launch(rank, left=(n, parts), pdl=self.pdl, dtype=self.columns_dtype)
        width = padded(rank)

        def run(dy: Tensor, selected: Tensor, index: Tensor, scale: float) -> Tensor:
            grad = launch.empty((n, rank), self.columns_dtype, self.device)
            columns = index if fused else None  # not read where x_idx was gathered
            if launch_reduce is None:
                launch_dp(p_l=selected, p_index=columns, p_t=dy, p_mask=None, p_out=grad, scale=scale)
                return grad
            addends = launch.empty((parts, width, n), torch.float32, self.device)
            launch_dp(p_l=selected, p_index=columns, p_t=dy, p_mask=None, p_out=addends, scale=1.0)
            launch_reduce(p_left=addends, p_left_out=grad, p_right=None, p_right_out=None, scale=scale)
            return grad

        return run


def choose(x: Tensor, case: Case, scheme: str | None) -> Choice:
    """The scheme, with its reason."""
    if scheme is not None:
        if scheme not in SCHEMES:
            raise ValueError(f"scheme is {scheme!r}, expected one of {', '.join(SCHEMES)}")
        return Choice(scheme, "asked for")
    if not launch.runs_triton(x):
        return Choice("torch", "no Triton for tensors of this device")
    if x.dtype not in (torch.bfloat16, torch.float16) and not case.interpreted:
        return Choice("torch", "fp32 runs in cuBLAS")
    if 0 < case.arch < 80:
        return Choice("torch", "no bf16 tensor cores or asynchronous copies below sm_80")
    if padded(case.rank) > MOST_RANK or x.dtype == torch.float64:
        return Choice("torch", f"the tables hold no tile for ranks above {MOST_RANK}")
    return Choice("gather", "x[:, index] is M * r values to save and re-read in place of M * K")


class PacaLinear(torch.autograd.Function):
    """x is (..., K), rows of K with unit stride; weight the logical (N, K). Saves x[:, index] and the weight; never x.

    The second output is x[:, index], None where it is not needed. The caller drops it: as an output it has a place in
    the graph, so that gradients of gradients flow through it to x, which is not kept.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        columns: Tensor,
        index: Tensor,
        bias: Tensor | None,
        scale: float,
        plan: Plan,
    ) -> tuple[Tensor, Tensor | None]:
        needs, shape = ctx.needs_input_grad, x.shape
        flat = x if len(shape) == 2 else x.view(-1, shape[-1])
        selected = None
        if True in needs:
            ctx.set_materialize_grads(False)  # a gradient of x[:, index] comes from derivatives of gradients alone
            ctx.plan, ctx.scale, ctx.shape = plan, scale, shape
            if needs[2]:
                selected = plan.selected(flat, index)
            # 'fused' keeps x itself, an input: it has its place in the graph already.
            ctx.save_for_backward(weight if needs[0] else None, x if selected is flat else selected, index)
            # Its value is never read, only its place in the graph: an optimizer may change it before backward.
            ctx.columns = columns
        y = F.linear(flat, weight, bias)
        if len(shape) != 2:
            y.resize_(*shape[:-1], y.shape[1])  # not view(): autograd lets nobody write into a view made here
        return y, None if selected is flat else selected

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor | None, grad_selected: Tensor | None) -> tuple[Tensor | None, ...]:
        weight, selected, index = ctx.saved_tensors
        needs = ctx.needs_input_grad
        if grad_y is None or grad_selected is not None or not launch.launches_backward(grad_y):
            return _by_torch(ctx, grad_y, grad_selected, weight, selected, index)
        dy = launch.rows(grad_y, grad_y.shape[-1])
        grad_x = torch.mm(dy, weight) if needs[0] else None
        if grad_x is not None and len(ctx.shape) != 2:
            grad_x = grad_x.view(ctx.shape)
        grad_columns = ctx.plan.grad_columns(dy, selected, index, ctx.scale) if needs[2] else None
        grad_bias = dy.sum(0) if needs[4] else None
        return grad_x, None, grad_columns, None, grad_bias, None, None


def _by_torch(
    ctx: Any, dy: Tensor | None, grad_selected: Tensor | None, weight: Tensor, selected: Tensor, index: Tensor
) -> tuple[Tensor | None, ...]:
    """What backward returns, in torch's operations, which can be differentiated again and batched."""
    plan, needs = ctx.plan, ctx.needs_input_grad
    grad_x = grad_columns = grad_bias = None
    if dy is None:
        dy = grad_selected.new_zeros(plan.case.m, plan.case.n)  # type: ignore[union-attr]
    dy = dy.reshape(plan.case.m, plan.case.n)
    if needs[0]:
        grad_x = input_gradient(dy, grad_selected, weight, ctx.columns, index, ctx.scale).reshape(ctx.shape)
    if needs[2]:
        if plan.choice.scheme == "fused":
            selected = selected.reshape(-1, plan.case.k).index_select(1, index)
        wide = plan.columns_dtype
        grad_columns = ctx.scale * (dy.to(wide).t() @ selected.to(wide))
    if needs[4]:
        grad_bias = dy.sum(0)
    return grad_x, None, grad_columns, None, grad_bias, None, None


def input_gradient(
    dy: Tensor, grad_selected: Tensor | None, weight: Tensor, columns: Tensor, index: Tensor, scale: float
) -> Tensor:
    """dX (M, K) as a function of columns too, by the product rule through weight[:, index] = scale * columns.

    grad_selected: the gradient of x[:, index] (M, r), None where nothing else depends on it.
    """
    nothing = (scale * (columns - columns.detach())).to(dy.dtype)
    through = dy @ nothing if grad_selected is None else dy @ nothing + grad_selected
    return (dy @ weight).index_add(1, index, through)
