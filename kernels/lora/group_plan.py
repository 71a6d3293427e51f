"""The launches of a group: projections that read the same x (q, k, v; gate, up), together.

Forward: one S kernel over the concatenated A, so x is read once for all branches, then a GEMM each, by the scheme that
the dispatcher has for it. Backward: dS' and dB of each into slices of one buffer, dX as one sum, and one dA for all,
which reads x once. Dropout draws one mask, shared: the siblings drop the same elements of x, where separate calls draw
one each.
"""

from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..runtime import launch
from ..runtime.architectures import features
from ..runtime.dispatch import Case, Choice, choose_backward, choose_forward, choose_tile, parts_for
from ..runtime.schemes import BACKWARD_SCHEMES, TMA_FALLBACK
from ..runtime.sizes import padded
from ..runtime.tile_model import blocks_per_sm
from .backward import build_skinny, keeps_range
from .forward import Spec, build_gemm, build_project, project_parts

#: Forward schemes whose one product computes S too, which a group's members share.
OF_ONE = ("single_pass", "bordered", "torch")


class GroupPlan:
    """The launches of a group. cases: those of its members, of one x (M, K), with their n, rank, layout and bias.

    forward, backward: schemes in place of the dispatcher's. strides: of each weight as (N, K).
    """

    def __init__(
        self, cases: list[Case], strides: list[tuple[int, int]], stride_xm: int, dtype: torch.dtype,
        adapter: torch.dtype, device: torch.device, keep: bool, forward: str | None = None, backward: str | None = None,
    ) -> None:  # fmt: skip
        self.cases, self.keep, self.dtype, self.device, self.adapter = cases, keep, dtype, device, adapter
        first = cases[0]
        self.m, self.k = first.m, first.k
        self.ranks = [case.rank for case in cases]
        self.starts = [sum(self.ranks[:i]) for i in range(len(cases))]
        self.wide = keeps_range(dtype, adapter)
        self.pdl = features(first.arch).pdl
        # The mean n: cuBLAS passes over dX once for each member, by which the rules weigh a product of n.
        mean = sum(case.n for case in cases) // len(cases)
        same = len({stride[1] == 1 for stride in strides}) == 1
        fits = same and all(case.fits_tma for case in cases)
        self.total = replace(first, n=mean, rank=sum(self.ranks), fits_tma=fits)
        self.width = padded(self.total.rank)
        self.dx_by = BACKWARD_SCHEMES[choose_backward(self.total, backward).scheme][0]
        schemes = [_forward_scheme(case, forward) for case in cases]
        # addmm_ reads S' whole.
        self.parts = 1 if "cublas" in schemes else project_parts(self.total)
        spec = Spec(
            self.total, Choice("epilogue", "grouped"), dtype, device, stride_xm, strides[0], False, keep, self.pdl
        )
        self.project = build_project(spec, self.parts)
        # A slice of S' that begins at an odd rank is not aligned: no kept kernels then.
        self.kept = [keep and start * dtype.itemsize % 16 == 0 for start in self.starts]
        self.gemms = [
            None if scheme == "cublas" else
            build_gemm(
                case, self.m, case.n, self.k, None, tma=scheme == "epilogue_tma", stride_xm=stride_xm, stride_wk=wk,
                stride_wn=wn, stride_vr=1, stride_vn=case.rank, stride_sm=self.width, parts=self.parts,
                bias=case.bias, masked=False, pdl=self.pdl, dtype=dtype, keep=kept,
            )
            for case, scheme, (wn, wk), kept in zip(cases, schemes, strides, self.kept, strict=True)
        ]  # fmt: skip
        self.backwards: dict[Any, Any] = {}

    def forward(
        self, x: Tensor, weights: Any, every_a: Tensor, b: Any, biases: Any, scale: float, p: float, seed: Any
    ) -> tuple[list[Tensor], Tensor, Tensor | None]:
        """The y of each, S' and the mask; every_a (sum of ranks, K): A of all."""
        s, mask = self.project(x, every_a, scale, p, seed)
        ys = []
        for gemm, case, w, v, bias, start in zip(self.gemms, self.cases, weights, b, biases, self.starts, strict=True):
            if gemm is None:
                y = F.linear(x, w, bias)
                y.addmm_(s[0].narrow(1, start, case.rank), v.to(self.dtype).t())
            else:
                y = launch.empty((self.m, case.n), self.dtype, self.device)
                gemm(x, w, y, s[:, :, start:], v, bias, None)
            ys.append(y)
        return ys, s, mask

    def backward(self, dys: list[Tensor], x: Tensor, weights: Any, every_a: Tensor, b: Any, s: Tensor, mask: Any,
                 scale: float, need_x: bool, need_a: bool,
                 ) -> tuple[Tensor | None, list[Any], list[Tensor]]:  # fmt: skip
        """dX or None, the dA or None each, the dB. x is read for the dA alone: without them it may be any of the dY."""
        # What was saved may come back in another layout or at another address: hooks on saved tensors hand out copies.
        read = (x, s, every_a, *dys, *weights, *b, *(() if mask is None else (mask,)))
        keep = self.keep and all(t.data_ptr() % 16 == 0 for t in read)
        key = (need_x, need_a, x.stride(0), tuple(t.stride() for t in (*dys, *weights)), keep)
        launches = self.backwards.get(key)
        if launches is None:
            launches = self.backwards[key] = self._build(dys, x, weights, need_x, need_a, keep)
        branches, dx, skinny, reductions, parts, tile_blocks, da_parts = launches
        m, k, width = self.m, self.k, self.width
        ds = launch.empty((parts, m, width), self.dtype if parts == 1 and not self.wide else torch.float32, self.device)
        db_sums, grad_b = [], []
        for i, (case, dy, start) in enumerate(zip(self.cases, dys, self.starts, strict=True)):
            db_sum = launch.empty((tile_blocks, padded(case.rank), case.n), torch.float32, self.device)
            branches[i](
                p_dy=dy, p_b=b[i], p_s=s[:, :, start:], p_x=x, p_mask=None, p_ds=ds[:, :, start:], p_db=db_sum,
                p_da=None, scale=scale,
            )  # fmt: skip
            db_sums.append(db_sum)
            grad_b.append(launch.empty((case.n, case.rank), self.adapter, self.device))
        grad_x = dx(dys, weights, ds, every_a, mask) if need_x else None
        if skinny is not None:
            da_sum = launch.empty((da_parts, width, k), torch.float32, self.device)
            skinny(p_l=ds, p_index=None, p_t=x, p_mask=mask, p_out=da_sum, scale=1.0)
        for db_sum, grad, reduce in zip(db_sums, grad_b, reductions, strict=False):
            reduce(p_left=db_sum, p_left_out=grad, p_right=None, p_right_out=None, scale=1.0)
        if skinny is None:
            return grad_x, [None] * len(dys), grad_b
        grad_a = launch.empty((self.total.rank, k), self.adapter, self.device)
        reductions[-1](p_left=None, p_left_out=None, p_right=da_sum, p_right_out=grad_a, scale=1.0)
        return grad_x, [grad_a[i : i + r] for i, r in zip(self.starts, self.ranks, strict=True)], grad_b

    def _build(self, dys: list[Tensor], x: Tensor, weights: Any, need_x: bool, need_a: bool, keep: bool) -> Any:
        from ..runtime.skinny_product import reduce_launch
        from .branch_gradients import branch_gradients_launch

        m, k = self.m, self.k
        tile = choose_tile("branch_gradients", self.total, m, min(case.n for case in self.cases))
        blocks = -(-m // tile.bm)
        parts = parts_for(blocks, min(-(-case.n // tile.bn) for case in self.cases), self.total)
        branches = [
            branch_gradients_launch(
                m, case.n, k, case.rank, tile, stride_dm=dy.stride(0), stride_xm=x.stride(0), s_parts=self.parts,
                stride_sm=self.width, stride_ds=self.width, parts=parts, wide=self.wide,
                pdl=self.pdl, keep=keep and kept, dtype=self.dtype,
            )
            for case, dy, kept in zip(self.cases, dys, self.kept, strict=True)
        ]  # fmt: skip
        dx, by_gemm = self._build_dx(dys, weights, parts, keep) if need_x else (None, False)
        skinny, da_parts = (None, 0) if not need_a else build_skinny(
            self.total, m, k, self.total.dropout, l_parts=parts, stride_l=self.width, stride_tm=x.stride(0),
            wide=self.wide, pdl=self.pdl, ahead=by_gemm, dtype=self.dtype, keep=keep,
        )  # fmt: skip
        reducing: dict[str, Any] = {"pdl": self.pdl, "dtype": self.adapter}
        reductions = [reduce_launch(case.rank, left=(case.n, blocks), **reducing) for case in self.cases]
        if need_a:
            reductions.append(reduce_launch(self.total.rank, right=(k, da_parts), **reducing))
        return branches, dx, skinny, reductions, parts, blocks, da_parts

    def _build_dx(self, dys: list[Tensor], weights: Any, parts: int, keep: bool) -> Any:
        """run(dys, weights, ds, every_a, mask) -> dX (M, K), and whether its last launch is our GEMM."""
        from .gemm_sum import MOST, gemm_sum_launch

        total, m, k, dtype, masked = self.total, self.m, self.k, self.dtype, self.total.dropout
        if self.dx_by == "cublas" or not 1 < len(dys) <= MOST:
            return self._dx_by_cublas(parts, keep)
        aligned = keep and all(row * dtype.itemsize % 16 == 0 for row in (k, *(dy.stride(0) for dy in dys)))
        tma = self.dx_by == "epilogue_tma" and aligned and total.fits_tma
        tile = choose_tile("gemm_sum_tma" if tma else "gemm_sum", total, m, k, masked)
        blocks = blocks_per_sm(tile, total.arch, tma=tma, heavy=masked or self.width > 32)
        run = gemm_sum_launch(
            m, k, [case.n for case in self.cases], total.rank, tile, tma=tma,
            strides_xm=[dy.stride(0) for dy in dys], strides_wk=[w.stride(0) for w in weights],
            strides_wn=[w.stride(1) for w in weights], stride_sm=self.width, parts=parts, masked=masked, pdl=self.pdl,
            arch=total.arch, programs=blocks * total.sms, dtype=dtype, keep=keep,
        )  # fmt: skip

        def dx(dys: Any, weights: Any, ds: Tensor, every_a: Tensor, mask: Tensor | None) -> Tensor:
            grad_x = launch.empty((m, k), dtype, self.device)
            run(dys, weights, ds, every_a, mask, grad_x)
            return grad_x

        return dx, True

    def _dx_by_cublas(self, parts: int, keep: bool) -> Any:
        """cuBLAS adds the branch itself, unless it comes in parts or under a mask: then our GEMM does, over no K."""
        total, m, k, dtype = self.total, self.m, self.k, self.dtype
        gemm = build_gemm(
            total, m, k, 0, None, tma=False, stride_xm=k, stride_wk=k, stride_wn=1, stride_vr=k, stride_vn=1,
            stride_sm=self.width, parts=parts, bias=False, masked=total.dropout, pdl=self.pdl, dtype=dtype, keep=keep,
            add=True,
        ) if total.dropout or parts > 1 else None  # fmt: skip

        def dx(dys: Any, weights: Any, ds: Tensor, every_a: Tensor, mask: Tensor | None) -> Tensor:
            grad_x = torch.mm(dys[0], weights[0])
            for dy, weight in zip(dys[1:], weights[1:], strict=True):
                grad_x.addmm_(dy, weight)
            if gemm is None:
                return grad_x.addmm_(ds[0, :, : total.rank].to(dtype), every_a.to(dtype))
            gemm(dys[0], weights[0], grad_x, ds, every_a, None, mask)
            return grad_x

        return dx, gemm is not None


def _forward_scheme(case: Case, asked: str | None) -> str:
    """cublas, epilogue or epilogue_tma."""
    scheme = choose_forward(case, asked).scheme
    if scheme in OF_ONE:
        scheme = "epilogue_tma" if features(case.arch).tma else "epilogue"
    return scheme if case.fits_tma else TMA_FALLBACK.get(scheme, scheme)
