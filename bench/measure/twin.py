"""The gate's twins: a case's own model with textbook layers, dense, in any precision.

In the case's precision a twin is the yardstick, what plain eager PyTorch achieves; in a wider dtype it is the
reference. Weights and inputs are built from the seed, never taken from the implementation under test, and no layer of
bench.methods or kernels computes anything here: impl eager is checked as any other.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.case import Case
from bench.measure.drawn import draw_biases, no_dropout
from bench.methods import places
from bench.models.build import build
from bench.models.work import autocast
from kernels.paca.target_layers import seed_of


class Textbook(nn.Module):
    """y = x W^T + b + s (drop(x) A^T) B^T, with W (N, K) dense. PaCA: W alone, whose gradient holds the columns'.

    weight (N, K), bias (N,) or None, lora_a (r, K) and lora_b (N, r), or index (r,) under PaCA. `keep`, boolean and of
    x's shape, is the dropout mask of the branch; survivors are divided by 1 - dropout.
    """

    bias: Tensor | None

    def __init__(self, base: nn.Module, case: Case, name: str) -> None:
        super().__init__()
        stored = base.get_parameter("weight").detach()
        # Conv1D stores (K, N); it is the only other linear layer that Case.projections knows.
        self.weight = nn.Parameter(stored if isinstance(base, nn.Linear) else stored.t(), requires_grad=False)
        bias = getattr(base, "bias", None)
        self.register_buffer("bias", None if bias is None else bias.detach())
        assert case.rank is not None
        (n, k), self.scale, self.stored = self.weight.shape, case.scale, self.weight.dtype
        self.adapter = places.adapter_dtype(case) or self.stored
        self.keep: Tensor | None = None
        self.dropout = 0.0
        self.lora = case.method == "lora"
        if self.lora:
            options: dict[str, Any] = {"dtype": self.adapter, "device": stored.device}
            self.lora_a = nn.Parameter(torch.zeros(case.rank, k, **options))
            self.lora_b = nn.Parameter(torch.zeros(n, case.rank, **options))
        else:
            self.weight.requires_grad_(True)
            # Which columns train follows from the layer's name: part of the case, the same for every impl.
            generator = torch.Generator().manual_seed(seed_of(name))
            index = torch.randperm(k, generator=generator, device="cpu")[: case.rank].sort().values
            self.register_buffer("index", index.to(stored.device))

    def base(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias)

    def forward(self, x: Tensor) -> Tensor:
        y = self.base(x)
        if not self.lora:
            return y
        if self.keep is not None:
            x = x * (self.keep.to(x.dtype) / (1.0 - self.dropout))  # 1 / (1 - p) is rounded first, as F.dropout does
        branch = F.linear(F.linear(x, self.lora_a.to(x.dtype)), self.lora_b.to(x.dtype))
        return y + self.scale * branch

    @property
    def trained(self) -> dict[str, Tensor]:
        """What the case trains here -> the dense tensor whose gradient says so."""
        return {"lora_a": self.lora_a, "lora_b": self.lora_b} if self.lora else {"columns": self.weight}

    def gradient(self, part: str, dense: Tensor) -> Tensor:
        """The gradient of `part`; W[:, index] = s * columns, so d columns = s * dW[:, index] by the product rule."""
        return dense if part != "columns" else self.scale * dense[:, self.get_buffer("index")]

    def pretrained(self) -> Tensor:
        """PaCA's columns (N, r) before the first step: W[:, index] / s."""
        return self.weight.detach()[:, self.get_buffer("index")].double() / self.scale

    @torch.no_grad()
    def load(self, part: str, value: Tensor) -> None:
        """A and B as they are; of columns, s * columns into W, rounded to the dtype in which the model stores W."""
        if part == "columns":
            live = (self.scale * value.double()).to(self.stored).to(self.weight.dtype)
            self.weight[:, self.get_buffer("index")] = live
        else:
            self.get_parameter(part).copy_(value)


@dataclass
class Twin:
    """A model of textbook layers and what it is called with.

    root: as Work.model. names: of the leaves that train, as in Work.leaves, 'x' aside. linear: as Case.linear_layers.
    """

    root: nn.Module
    level: str
    precision: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    x: Tensor | None
    layers: dict[str, Textbook]
    names: list[str]
    linear: list[str]

    @property
    def device(self) -> torch.device:
        return next(self.root.parameters()).device

    def load(self, values: Mapping[str, Tensor]) -> None:
        """Adapter tensors by name (layer.lora_a, layer.columns ...)."""
        for name, value in values.items():
            layer, _, part = name.rpartition(".")
            self.layers[layer].load(part, value)

    def run(self, grad_outs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Outputs (or loss and logits) and every gradient by name; grad_outs: those of the outputs, or of the loss."""
        leaves = {} if self.x is None else {"x": self.x}
        for name in self.names:
            layer, _, part = name.rpartition(".")
            leaves[name] = self.layers[layer].trained[part] if layer in self.layers else self.root.get_parameter(name)
        with ieee_products(self.device):
            with autocast(self.precision, self.device):
                out = inner(self.root, self.level)(*self.args, **self.kwargs)
            found = outputs(out, self.linear)
            roots = [found[name] for name in grad_outs]
            given = [grad.to(root.dtype) for grad, root in zip(grad_outs.values(), roots, strict=True)]
            gradients = torch.autograd.grad(roots, list(leaves.values()), given)
        found = {name: t.detach() for name, t in found.items()}
        for name, gradient in zip(leaves, gradients, strict=True):
            layer, _, part = name.rpartition(".")
            found[name] = self.layers[layer].gradient(part, gradient) if layer in self.layers else gradient
        return found

    @torch.no_grad()
    def base(self) -> dict[str, Tensor]:
        """x W^T + b of a single layer, or of each sibling, by the name of its output."""
        assert self.level == "linear" and self.x is not None
        with ieee_products(self.device):
            found = tuple(layer.base(self.x) for layer in self.layers.values())
        return outputs(found, self.linear)


def outputs(out: Any, linear: Sequence[str]) -> dict[str, Tensor]:
    """What a module returned, by name: loss and logits of a language model, else the output; the root comes first.

    linear: as Case.linear_layers; where these are siblings, their outputs come as a tuple.
    """
    if getattr(out, "loss", None) is not None:
        return {"loss": out.loss, "logits": out.logits}
    if len(linear) > 1:
        return {f"output of {name}": y for name, y in zip(linear, out, strict=True)}
    return {"output": out if isinstance(out, Tensor) else out[0]}


def inner(root: nn.Module, level: str) -> nn.Module:
    """The module that a Work calls: the language model, or the child `block` or `layer` of the container."""
    return root if level == "model" else next(root.children())


def yardstick(case: Case, device: str, seed: int) -> Twin:
    """The twin in the case's own precision, with the weights and inputs of build(case, device, seed)."""
    plain = replace(case, method="full", impl="eager", rank=None, alpha=None, dropout=None, adapter_dtype=None)
    work = build(plain, device, seed)
    no_dropout(work.model)
    draw_biases(work.model, seed)
    seen: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
    module = inner(work.model, case.level)
    hook = module.register_forward_pre_hook(lambda _, args, kwargs: seen.append((args, kwargs)), with_kwargs=True)
    with torch.no_grad():
        work.forward()
    hook.remove()
    x = next((leaf for name, leaf in work.leaves if name == "x"), None)
    layers, names = {}, [name for name, _ in work.leaves if name != "x"]
    if case.method != "full":
        work.model.requires_grad_(False)
        for name, layer in places.target_layers(work.model, case):
            layers[name] = Textbook(layer, case, name)
            places.replace(work.model, name, layers[name])
        names = [f"{name}.{part}" for name, layer in layers.items() for part in layer.trained]
    args, kwargs = seen[0]
    return Twin(work.model, case.level, case.precision, args, kwargs, x, layers, names, list(case.linear_layers))


def reference(twin: Twin) -> Twin:
    """The same weights and inputs in a wider dtype, outside of autocast: fp32 for 16 bits on a GPU, else float64.

    transformers' RMSNorm and loss compute in fp32 whatever they are given: that leaves about 1e-7, far below any bound.
    """
    dtype = torch.float64 if twin.device.type == "cpu" or twin.precision == "fp32" else torch.float32
    root = copy.deepcopy(twin.root).to(dtype)
    x = None if twin.x is None else twin.x.detach().to(dtype).requires_grad_()

    def wide(value: Any) -> Any:
        if value is twin.x:
            return x
        if isinstance(value, Tensor) and value.is_floating_point():
            return value.to(dtype)
        if isinstance(value, tuple):  # rotary tables
            return tuple(wide(v) for v in value)
        return value

    args, kwargs = tuple(wide(v) for v in twin.args), {k: wide(v) for k, v in twin.kwargs.items()}
    layers = {name: module for name, module in root.named_modules() if isinstance(module, Textbook)}
    return Twin(root, twin.level, str(dtype), args, kwargs, x, layers, twin.names, twin.linear)


@torch.no_grad()
def draw_b(values: Mapping[str, Tensor], exact: Twin, share: float) -> None:
    """Draws every B so that the branch s * x A^T B^T has `share` of the norm of x W^T, if the entries of x are
    independent; for a single layer exactly, on its own x. A is taken as it is, and B = 0 would hide half of the check.
    """
    for name, layer in exact.layers.items():
        a, b = values[f"{name}.lora_a"], values[f"{name}.lora_b"]
        wide = torch.randn(b.shape, dtype=torch.float32, device=b.device)
        norm_w, norm_a = (torch.linalg.vector_norm(t, dtype=layer.weight.dtype) for t in (layer.weight, a))
        b.copy_(wide * (share * norm_w / (abs(layer.scale) * b.shape[0] ** 0.5 * norm_a)))
    if exact.level == "linear":
        scale_branch(values, exact, share)


@torch.no_grad()
def scale_branch(values: Mapping[str, Tensor], exact: Twin, share: float) -> None:
    """Scales the B of a single layer, or of each sibling, until its branch has `share` of the norm of x W^T."""
    x = exact.x
    assert x is not None
    for name, layer in exact.layers.items():
        a, b = (values[f"{name}.{part}"] for part in ("lora_a", "lora_b"))
        with ieee_products(exact.device):
            branch = layer.scale * (x @ a.to(x.dtype).t()) @ b.to(x.dtype).t()
            b.mul_(share * F.linear(x, layer.weight).norm() / branch.norm())


@contextmanager
def ieee_products(device: torch.device) -> Iterator[None]:
    """Products in fp32 without TF32, 16-bit ones summed in fp32 throughout, as CUDA has them only on request."""
    if device.type != "cuda":
        yield
        return
    flags: Any = torch.backends.cuda.matmul
    kinds = [f"allow_{kind}_reduced_precision_reduction" for kind in ("bf16", "fp16")]
    before = [(getattr(flags, kind), getattr(flags, f"{kind}_split_k", True)) for kind in kinds]
    precision = flags.fp32_precision
    try:
        flags.fp32_precision = "ieee"
        for kind in kinds:
            setattr(flags, kind, False)
        yield
    finally:
        flags.fp32_precision = precision
        for kind, value in zip(kinds, before, strict=True):
            setattr(flags, kind, value)
