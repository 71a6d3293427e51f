"""lora_linear through the kernels: a plan per case, and the autograd.Function that runs it."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..runtime import launch
from ..runtime.architectures import features
from ..runtime.dispatch import Case, Choice, choose_backward, choose_forward
from ..runtime.schemes import TMA_FALLBACK, split_scheme
from ..runtime.sizes import unpack_mask
from .arguments import Seed
from .backward import Needs, build_backward
from .backward import Run as BackwardRun
from .bordered_weight import border_of
from .forward import Spec, build_forward, in_parts


class Plan:
    """What a call with these shapes, strides, dtypes and alignment runs, forward and backward."""

    __slots__ = ("adapter", "backward_scheme", "backwards", "copied", "forward", "gpu", "spec", "viewed")

    def __init__(self, spec: Spec, adapter: torch.dtype, backward_scheme: str | None) -> None:
        self.viewed = False  # whether x (..., K) is rows of K as it lies: then nothing is reshaped
        self.copied = spec.choice.scheme == "bordered"  # S' as forward leaves it begins with x
        self.gpu = spec.device.index  # None in the interpreter
        self.spec = spec
        self.adapter = adapter
        self.backward_scheme = backward_scheme
        self.forward = build_forward(spec)
        self.backwards: dict[Any, BackwardRun] = {}

    def backward(
        self, needs: Needs, dy: Tensor, saved_x: Tensor, weight: Tensor, s: Tensor, *others: Tensor | None
    ) -> BackwardRun:
        """The backward for these gradients; dy (M, N) has unit stride in N. others: what else its kernels read.

        What was saved may come back in another layout or at another address: hooks on saved tensors hand out copies.
        """
        streamed = (dy.data_ptr() | weight.data_ptr()) % 16 == 0
        aligned = (
            self.spec.keep and streamed and all(t is None or t.data_ptr() % 16 == 0 for t in (saved_x, s, *others))
        )
        key = (needs, dy.stride(0), saved_x.stride(0), weight.stride(), s.shape, s.stride(1), streamed, aligned)
        run = self.backwards.get(key)
        if run is None:
            spec = replace(self.spec, stride_w=(weight.stride(0), weight.stride(1)))
            fits = fits_tma(dy, weight.t(), spec.case.k) and spec.case.fits_tma
            case = replace(spec.case, fits_tma=fits)
            # What forward computed without kernels (fp32), backward does too, unless it was asked for.
            default = "torch" if spec.choice.scheme == "torch" and spec.choice.reason != "asked for" else None
            choice = choose_backward(case, self.backward_scheme or default)
            if choice.scheme in TMA_FALLBACK and not fits:
                raise ValueError(_tma_words(weight))
            run = build_backward(spec, choice, needs, self.adapter, dy.stride(0), saved_x.stride(0), s, aligned)
            self.backwards[key] = run
        return run


def make_plan(
    x: Tensor, weight: Tensor, a: Tensor, bias: Tensor | None, dropout: bool, scheme: str | None, keep: bool,
    whole: bool = False, lead: tuple[int, ...] | None = None,
) -> Plan:  # fmt: skip
    """The plan for x (M, K) and the logical weight (N, K), both as lora_linear prepared them.

    whole: S' in one part and no border, so that what is saved follows from the shapes alone. lead: where forward is
    given x (*lead, K), with the same rows.
    """
    forward_scheme, backward_scheme = split_scheme(scheme)
    room = not whole and may_copy(a) and border_of(weight, a.shape[0]) is not None
    case = case_of(x, weight, a, bias, dropout, bordered=room)
    choice = choose_forward(case, forward_scheme)
    if forward_scheme is None and x.dtype == torch.float32 and x.is_cuda:
        choice = Choice("torch", "fp32 runs in cuBLAS")
    if choice.scheme in TMA_FALLBACK and not case.fits_tma:
        raise ValueError(_tma_words(weight))
    spec = Spec(
        case=case, choice=choice, dtype=x.dtype, device=x.device, stride_xm=x.stride(0),
        stride_w=(weight.stride(0), weight.stride(1)), bias=bias is not None, keep=keep,
        pdl=features(case.arch).pdl and x.is_cuda, whole=whole, lead=lead,
    )  # fmt: skip
    return Plan(spec, a.dtype, backward_scheme)


def may_copy(a: Tensor) -> bool:
    """Whether a bordered forward, which leaves a copy of x beside S' for backward, keeps no more than another would:
    not where A is frozen, since S' alone is kept then."""
    return a.requires_grad or not torch.is_grad_enabled()


def preferred_forward(weight: Tensor, a: Tensor, bias: Tensor | None, tokens: int, dropout: bool) -> Choice:
    """What a call with `tokens` rows of the weight's dtype would run in training, were there room for the branch beside
    the weight (N, K); a (rank, K)."""
    if not launch.runs_triton(weight):
        return Choice("torch", f"no kernel runs on {weight.device}")
    if weight.dtype not in (torch.bfloat16, torch.float16) and weight.is_cuda:
        return Choice("torch", f"{weight.dtype} runs in cuBLAS")
    x = torch.empty(tokens, weight.shape[1], dtype=weight.dtype, device="meta")
    return choose_forward(case_of(x, weight, a, bias, dropout, bordered=a.requires_grad))


def case_of(
    x: Tensor, weight: Tensor, a: Tensor, bias: Tensor | None, dropout: bool, *, bordered: bool = False
) -> Case:  # fmt: skip
    """What the dispatcher looks at, for x (M, K), the logical weight (N, K), which says the device, and A (rank, K)."""
    (m, k), n, device = x.shape, weight.shape[0], weight.device
    return Case(
        m=m, n=n, k=k, rank=a.shape[0], arch=launch.architecture(device), sms=launch.multiprocessors(device),
        dropout=dropout, bordered=bordered, fits_tma=fits_tma(x, weight, n), interpreted=launch.interpreting(),
        device=launch.device_name(device), fp32_adapters=a.dtype == torch.float32 != x.dtype,
        conv1d=weight.stride(1) != 1, bias=bias is not None,
    )  # fmt: skip


def fits_tma(x: Tensor, weight: Tensor, columns: int) -> bool:
    """Descriptors want 16-byte aligned bases and rows, and a unit stride."""
    stored = weight if weight.stride(1) == 1 else weight.t()
    size = x.element_size()
    rows = (x.stride(0), stored.stride(0), columns)
    return (
        stored.stride(1) == 1
        and all(row * size % 16 == 0 for row in rows)
        and (x.data_ptr() | weight.data_ptr()) % 16 == 0
    )


def _tma_words(weight: Tensor) -> str:
    return (
        f"weight has shape {tuple(weight.shape)}, expected x, weight and the gradient of y to begin, and their rows to "
        "be as long as, multiples of 16 bytes for a TMA scheme"
    )


class LoraLinear(torch.autograd.Function):
    """x is (*lead, K) of the plan, rows of K with unit stride; weight the logical (N, K). call: plan, scale, dropout_p
    and, under dropout, the seed. One argument: autograd asks of each whether it is a tensor.

    The second output is S' as the kernels left it. The caller drops it: as an output it has a place in the graph, so
    that gradients of gradients flow through it, and dB is a function of x and A although x need not be kept.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, a: Tensor, b: Tensor, bias: Tensor | None,
        call: tuple[Plan, float, float, Seed | None],
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        plan, scale, dropout_p, seed = call
        y, s, mask = plan.forward(x, weight, a, b, bias, scale, dropout_p, seed)
        needs = ctx.needs_input_grad
        need_x, need_w, need_a, need_b = needs[:4]
        if True in needs:
            # As set_materialize_grads and save_for_backward do, which are calls of Python functions; a gradient of S'
            # comes from derivatives of gradients alone.
            ctx.materialize_grads = False
            ctx.call = (plan, x.shape, scale if dropout_p == 0.0 else scale / (1.0 - dropout_p))
            ctx.to_save = (
                x if (need_a or need_w) and not plan.copied else None,
                weight if need_x or need_a or need_b else None,
                a if need_x else None,
                b if need_x or need_a else None,
                s,
                mask if need_x or need_a else None,
            )
        return y, s

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor | None, grad_s: Tensor | None) -> tuple[Tensor | None, ...]:
        x, weight, a, b, s, mask = ctx.saved_tensors
        s = in_parts(launch.dense(s))
        grad_s = None if grad_s is None else in_parts(grad_s)
        plan, shape, scale = ctx.call
        needs, spec = ctx.needs_input_grad, plan.spec
        need_x, need_w, need_a, need_b, need_bias = needs[:5]
        m, n, k = spec.case.m, spec.case.n, spec.case.k
        grad_copy: Tensor | None = None
        if plan.copied:
            x, s = s[0, :, :k], s[:, :, k:]
            if grad_s is not None:
                grad_copy, grad_s = grad_s[0, :, :k], grad_s[:, :, k:]
        if grad_y is None or grad_s is not None or not launch.launches_backward(grad_y):
            dy = s.new_zeros(m, n, dtype=spec.dtype) if grad_y is None else grad_y.reshape(m, n)
            flat = None if x is None else x.reshape(m, k)
            grad_x, *others = by_torch(
                needs, spec.case.rank, plan.adapter, scale, dy, grad_s, flat, weight, a, b, s, mask
            )
            if grad_x is not None:
                grad_x = (grad_x if grad_copy is None else grad_x + grad_copy).reshape(shape)
            return (grad_x, *others, None)
        dy = launch.rows(grad_y, grad_y.shape[-1])
        grad_x = grad_a = grad_b = None
        if need_x or need_a or need_b:
            a, b, mask = launch.dense(a), launch.dense(b), launch.dense(mask)
            flat = dy if x is None else launch.rows(x, k)
            run = plan.backward((need_x, need_a, need_b), dy, flat, weight, s, a, b, mask)
            grad_x, grad_a, grad_b = run(dy, flat, weight, a, b, s, mask, scale)
            if grad_x is not None and len(shape) != 2:
                grad_x = grad_x.view(shape)
        grad_w = torch.mm(dy.t(), x.reshape(m, k)) if need_w else None
        grad_bias = dy.sum(0) if need_bias else None
        return grad_x, grad_w, grad_a, grad_b, grad_bias, None


#: LoraLinear.apply(*inputs) where no transform of torch.func is active. apply itself looks through all inputs for what
#: a transform left in them: 3 us. A tensor that outlived its transform has no address, and took the reference.
apply_node = super(torch.autograd.Function, LoraLinear).apply
transforms_active = torch._C._are_functorch_transforms_active


def apply_function(*inputs: Any) -> tuple[Tensor, Tensor]:
    """LoraLinear.apply(*inputs), by the shorter way where it may be."""
    return LoraLinear.apply(*inputs) if transforms_active() else apply_node(*inputs)


def by_torch(
    needs: tuple[bool, ...], rank: int, adapter: torch.dtype, scale: float, dy: Tensor, grad_s: Tensor | None,
    x: Tensor | None, weight: Tensor, a: Tensor, b: Tensor, s: Tensor, mask: Tensor | None,
) -> tuple[Tensor | None, ...]:  # fmt: skip
    """The gradients of x, weight, A, B and bias in torch's operations, which can be differentiated again and batched.
    x is read for those of A and weight alone.

    What is saved stands in the graph: x, weight, A and B as the inputs they are, S' as an output of the same node.
    grad_s: the gradient of S', in the same parts; it reaches x and A. scale: scale / (1 - p), which S' includes.
    """
    need_x, need_w, need_a, need_b, need_bias = needs[:5]
    wide = dy.to(adapter)
    grad_x = grad_a = grad_b = None
    if need_x or need_a:
        ds = wide @ b
        if grad_s is not None:
            ds = ds + grad_s[0, :, :rank].to(adapter)  # the parts are addends: the gradient of each is the same
        ds = scale * ds
    if need_x:
        through_a = ds @ a
        if mask is not None:
            through_a = through_a * unpack_mask(mask, a.shape[1])
        grad_x = dy @ weight + through_a.to(dy.dtype)
    if need_a:
        assert x is not None
        kept = x.to(adapter)
        grad_a = ds.t() @ (kept if mask is None else kept * unpack_mask(mask, kept.shape[1]))
    if need_b:
        grad_b = wide.t() @ s.sum(0)[:, :rank].to(adapter)
    grad_w = dy.t() @ x if need_w and x is not None else None
    return grad_x, grad_w, grad_a, grad_b, dy.sum(0) if need_bias else None
