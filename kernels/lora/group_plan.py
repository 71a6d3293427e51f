"""The launches of a group: projections that read the same x (q, k, v; gate, up), together.

Forward: one S kernel over the concatenated A, so x is read once for all branches, then a GEMM each. Backward: dS' and
dB of each into slices of one buffer, dX accumulated by GEMMs that add to it, and one dA for all, which reads x once.
Dropout draws one mask, shared: the siblings drop the same elements of x, where separate calls draw one each.
"""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..runtime import launch
from ..runtime.architectures import features
from ..runtime.dispatch import Case, Choice, choose_tile, parts_for
from ..runtime.sizes import padded
from .backward import build_skinny, keeps_range
from .forward import Spec, build_gemm, build_project, project_parts


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
                bias=has_bias, masked=False, pdl=self.pdl and i == 0, dtype=x.dtype, keep=kept,
            )
            for i, (case, w, has_bias, kept) in enumerate(zip(self.cases, weights, bias, self.kept, strict=True))
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
        common: dict[str, Any] = {"dtype": self.dtype}
        branches, gemms = [], []
        for i, (case, dy, w, kept) in enumerate(zip(self.cases, dys, weights, self.kept, strict=True)):
            # The following GEMM may begin early only where it follows its own branch.
            branches.append(branch_gradients_launch(
                m, case.n, k, case.rank, tile, stride_dm=dy.stride(0), stride_xm=x.stride(0), s_parts=self.parts,
                stride_sm=self.width, stride_ds=self.width, parts=parts, wide=self.wide, pdl=self.pdl and need_x,
                keep=keep and kept, **common,
            ))  # fmt: skip
            gemms.append(build_gemm(
                case, m, k, case.n, None, tma=False, stride_xm=dy.stride(0), stride_wk=w.stride(0),
                stride_wn=w.stride(1), stride_vr=k, stride_vn=1, stride_sm=self.width, parts=parts, bias=False,
                masked=masked, pdl=self.pdl, keep=keep and kept, add=i > 0, **common,
            ))  # fmt: skip
        skinny, da_parts = build_skinny(
            self.total, m, k, masked, l_parts=parts, stride_l=self.width, stride_tm=x.stride(0), wide=self.wide,
            keep=keep, **common,
        )  # fmt: skip
        reductions = [reduce_launch(case.rank, left=(case.n, blocks), dtype=self.adapter) for case in self.cases]
        reductions.append(reduce_launch(self.total.rank, right=(k, da_parts), dtype=self.adapter))
        return branches, gemms, skinny, reductions, parts, blocks, da_parts
