"""dora_linear through the kernels: a plan per case, and the autograd.Function that puts the magnitude on z."""

from typing import Any

import torch
from torch import Tensor

from ..runtime import launch
from ..runtime.architectures import features
from ..runtime.dispatch import MOST_RANK, Case, choose_tile
from ..runtime.sizes import padded
from . import reference


class Plan:
    """What a call with these shapes, strides, dtypes and alignment runs beside lora_linear, forward and backward."""

    __slots__ = ("_apply", "_gradients", "_norms", "case", "device", "dtype", "keep", "magnitude_dtype", "parts", "pdl")

    def __init__(self, case: Case, weight: Tensor, magnitude: Tensor, keep: bool) -> None:
        from .row_norms import row_norms_launch
        from .scale_rows import magnitude_launch

        m, n, k = case.m, case.n, case.k
        self.case, self.dtype, self.device, self.keep = case, weight.dtype, weight.device, keep
        self.magnitude_dtype = magnitude.dtype
        self.pdl = features(case.arch).pdl and not launch.interpreting()
        self.parts, self._norms = 1, None
        if padded(case.rank) <= MOST_RANK:
            tile = choose_tile("row_norms", case, n, 0)
            # A row has to be read by several blocks where there are few: addends of 4 bytes a row and part.
            self.parts = parts_of(-(-n // tile.bm), -(-k // tile.bk), case.sms, most=8)
            self._norms = row_norms_launch(
                n, k, case.rank, tile, stride_wn=weight.stride(0), stride_wk=weight.stride(1), parts=self.parts,
                pdl=self.pdl, dtype=self.dtype, keep=keep,
            )  # fmt: skip
        tile = choose_tile("magnitude", case, m, n)
        self._apply = magnitude_launch(m, n, tile, parts=self.parts, pdl=self.pdl, dtype=self.dtype, keep=keep)
        self._gradients: dict[Any, tuple[int, launch.Launch, launch.Launch]] = {}

    def squares(self, weight: Tensor, a: Tensor, b: Tensor, scale: float) -> Tensor:
        """The squared norms of the rows of W + scale * B A as addends (parts, N) fp32."""
        if self._norms is None:
            return reference.row_norms(weight, a, b, scale).square()[None]
        squares = launch.empty((self.parts, self.case.n), torch.float32, self.device)
        self._norms(p_w=weight, p_a=a, p_b=b, p_squares=squares, scale=scale)
        return squares

    def forward(self, z: Tensor, magnitude: Tensor, bias: Tensor | None, squares: Tensor) -> Tensor:
        """y of z's shape (..., N), contiguous."""
        y = launch.empty(tuple(z.shape), self.dtype, self.device)
        self._apply(p_z=z, p_m=magnitude, p_squares=squares, p_bias=bias, p_y=y)
        return y

    def backward(
        self, dy: Tensor, z: Tensor | None, magnitude: Tensor, squares: Tensor, need_z: bool
    ) -> tuple[Tensor | None, Tensor | None]:
        """dz (M, N) where it is needed, and dm (N,) where z is given; dy (M, N) has unit stride in N."""
        aligned = self.keep and all(t is None or t.data_ptr() % 16 == 0 for t in (dy, z, magnitude, squares))
        key = (dy.stride(0), need_z, z is None, aligned)
        if key not in self._gradients:
            self._gradients[key] = self._build_backward(dy.stride(0), aligned)
        parts, gradient, reduce = self._gradients[key]
        n = self.case.n
        dz = launch.empty((self.case.m, n), self.dtype, self.device) if need_z else None
        addends = None if z is None else launch.empty((parts, n), torch.float32, self.device)
        gradient(p_dy=dy, p_z=z, p_m=magnitude, p_squares=squares, p_dz=dz, p_dm=addends)
        if addends is None:
            return dz, None
        dm = launch.empty((n,), self.magnitude_dtype, self.device)
        reduce(p_left=addends, p_left_out=dm, p_right=None, p_right_out=None, scale=1.0)
        return dz, dm

    def _build_backward(self, stride_dm: int, keep: bool) -> tuple[int, launch.Launch, launch.Launch]:
        from ..runtime.skinny_product import reduce_launch
        from .scale_rows import magnitude_gradient_launch

        m, n = self.case.m, self.case.n
        tile = choose_tile("magnitude_gradient", self.case, m, n)
        # 16 addends a column at most: the reduction reads them one after the other.
        parts = parts_of(-(-n // tile.bn), -(-m // tile.bm), self.case.sms, most=16)
        gradient = magnitude_gradient_launch(
            m, n, tile, stride_dm=stride_dm, squares=self.parts, parts=parts, pdl=self.pdl, dtype=self.dtype, keep=keep
        )
        reduce = reduce_launch(1, left=(n, parts), width=1, pdl=self.pdl, dtype=self.magnitude_dtype)
        return parts, gradient, reduce


def parts_of(blocks: int, steps: int, sms: int, most: int) -> int:
    """Into how many parts a long loop of `steps` is split, a power of two: bandwidth wants four blocks of four warps on
    every SM, for loads to be under way in some while others compute."""
    parts = 1
    while parts < most and blocks * parts < 4 * sms and steps >= 4 * parts:
        parts *= 2
    return parts


class Magnitude(torch.autograd.Function):
    """y = g z + b, g = m / norm: z (..., N) contiguous, magnitude and bias (N,), squares (parts, N) without gradient.

    z is saved, for dm. Made from y as (y - b) / g it would not be exact, least so where the bias is large beside it,
    and would not exist where m is 0. PEFT keeps two tensors of its size, x W^T and x A^T B^T.
    """

    @staticmethod
    def forward(
        ctx: Any, z: Tensor, magnitude: Tensor, bias: Tensor | None, squares: Tensor, plan: Plan
    ) -> Tensor:  # fmt: skip
        ctx.plan = plan
        ctx.save_for_backward(z if ctx.needs_input_grad[1] else None, magnitude, squares)
        return plan.forward(z, magnitude, bias, squares)

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> tuple[Tensor | None, ...]:
        z, magnitude, squares = ctx.saved_tensors
        need_z, need_m, need_bias = ctx.needs_input_grad[:3]
        n, shape = magnitude.shape[0], grad_y.shape
        if not launch.launches_backward(grad_y):
            norm = squares.sum(0).sqrt()
            grad_z = (magnitude / norm * grad_y).to(grad_y.dtype) if need_z else None
            grad_m = grad_bias = None
            if need_m:
                grad_m = ((grad_y.float() * z).reshape(-1, n).sum(0) / norm).to(magnitude.dtype)
            if need_bias:
                grad_bias = grad_y.reshape(-1, n).sum(0)
            return grad_z, grad_m, grad_bias, None, None
        dy = launch.rows(grad_y, n)
        grad_z = grad_m = None
        if need_z or need_m:
            flat = None if z is None else launch.dense(z)
            grad_z, grad_m = ctx.plan.backward(dy, flat, launch.dense(magnitude), launch.dense(squares), need_z)
            grad_z = None if grad_z is None else grad_z.view(shape)
        return grad_z, grad_m, dy.sum(0) if need_bias else None, None, None
