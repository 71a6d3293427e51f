"""A case's own model with textbook layers, dense, in any precision.

In the case's precision it is the baseline, what plain eager PyTorch achieves; in a wider dtype it is the reference.
Weights and inputs are built from the seed, never taken from the implementation under test, and no layer of an
implementation or of kernels computes anything here: impl eager is checked as any other.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.case import Case
from bench.case.schema import BASELINE
from bench.correctness.bounds import Finding
from bench.correctness.prepare import draw_biases, no_dropout
from bench.methods import adapt
from bench.methods.reference import ReferenceLayer, load_reference
from bench.methods.registry import method_of
from bench.models.build import build
from bench.models.work import autocast, called_with


@dataclass
class ReferenceModel:
    """A model of textbook layers and what it is called with.

    root: as Work.model. names: of the leaves that train, as in Work.leaves, 'x' aside, in any stage. linear: as
    Case.linear_layers.
    """

    root: nn.Module
    level: str
    precision: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    x: Tensor | None
    layers: dict[str, ReferenceLayer]
    names: list[str]
    linear: list[str]

    @property
    def device(self) -> torch.device:
        return next(self.root.parameters()).device

    @cached_property
    def exact(self) -> "ReferenceModel":
        """The reference to this baseline. Made when first asked for: it takes twice the memory of one in fp32."""
        return reference(self)

    def take_over(self, model: nn.Module, where: str = "") -> list[Finding]:
        """What stands for W in an implementation's layers, checked and from here on this model's own W."""
        return [
            Finding(f"{name}.{part}", error, bound, where, words)
            for name, layer in self.layers.items()
            for part, (error, bound, words) in layer.take_over(model.get_submodule(name)).items()
        ]

    def load(self, values: Mapping[str, Tensor]) -> None:
        """Adapter tensors by name (layer.lora_a, layer.columns ...), here and in what `exact` has made."""
        for name, value in values.items():
            layer, _, part = name.rpartition(".")
            self.layers[layer].load(part, value)
        if "exact" in vars(self):
            self.exact.load(values)

    def run(self, grad_outs: Mapping[str, Tensor], names: Sequence[str] | None = None) -> dict[str, Tensor]:
        """Outputs (or loss and logits) and every gradient by name, or those of `names`; grad_outs: those of the
        outputs, or of the loss."""
        leaves = {} if self.x is None else {"x": self.x}
        for name in self.names if names is None else names:
            layer, _, part = name.rpartition(".")
            leaves[name] = self.layers[layer].trained[part] if layer in self.layers else self.root.get_parameter(name)
        with ieee_gemms(self.device):
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
        """x W^T + b of a single layer with a branch, or of each sibling, by the name of its output; else nothing."""
        if self.x is None or self.level != "linear" or not any(layer.branch for layer in self.layers.values()):
            return {}
        with ieee_gemms(self.device):
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
    """The module that a Work calls: the language model, or the submodule `block` or `layer` of the container."""
    return root if level == "model" else next(root.children())


def baseline(case: Case, device: str, seed: int) -> ReferenceModel:
    """The model in the case's own precision, with the weights and inputs of build(case, device, seed)."""
    untouched = replace(
        case.plain, method=BASELINE, impl="eager", rank=None, alpha=None, dropout=None, adapter_dtype=None
    )
    work = build(untouched, device, seed)
    no_dropout(work.model)
    args, kwargs = called_with(inner(work.model, case.level), work.forward)
    x = next((leaf for name, leaf in work.leaves if name == "x"), None)
    names = [name for name, _ in work.everything]
    layers: dict[str, ReferenceLayer] = {}
    for _, parameter in work.everything:  # in whatever stage
        parameter.requires_grad_(True)
    if method_of(case).adapts:
        kind = load_reference(case.method)
        work.model.requires_grad_(False)
        layers = {name: kind(layer, case, name) for name, layer in adapt.target_layers(work.model, case)}
    draw_biases(work.model, seed)  # those of the layers above, too, which share them, but where biases are what trains
    for name, layer in layers.items():
        adapt.replace(work.model, name, layer)
    if layers:
        names = [f"{name}.{part}" for name, layer in layers.items() for part in layer.trained]
    linear = list(case.linear_layers)
    return ReferenceModel(work.model, case.level, case.precision, args, kwargs, x, layers, names, linear)


def reference(plain: ReferenceModel) -> ReferenceModel:
    """The same weights and inputs in a wider dtype, outside of autocast: fp32 for 16 bits on a GPU, else float64.

    transformers' RMSNorm and loss compute in fp32 whatever they are given: that leaves about 1e-7, far below any bound.
    """
    dtype = torch.float64 if plain.device.type == "cpu" or plain.precision == "fp32" else torch.float32
    root = copy.deepcopy(plain.root).to(dtype)
    x = None if plain.x is None else plain.x.detach().to(dtype).requires_grad_()

    def wide(value: Any) -> Any:
        if value is plain.x:
            return x
        if isinstance(value, Tensor) and value.is_floating_point():
            return value.to(dtype)
        if isinstance(value, tuple):  # rotary tables
            return tuple(wide(v) for v in value)
        return value

    args, kwargs = tuple(wide(v) for v in plain.args), {k: wide(v) for k, v in plain.kwargs.items()}
    layers = {name: module for name, module in root.named_modules() if isinstance(module, ReferenceLayer)}
    return ReferenceModel(root, plain.level, str(dtype), args, kwargs, x, layers, plain.names, plain.linear)


def draw(values: Mapping[str, Tensor], model: ReferenceModel, share: float) -> bool:
    """Draws what zeros would hide (LoRA's B), so that branches have `share` of the norm of x W^T; for a single layer
    exactly, on its own x. True where there was something to draw."""
    drawn = [(name, layer) for name, layer in model.layers.items() if layer.branch]
    for name, layer in drawn:
        layer.draw({part: values[f"{name}.{part}"] for part in layer.trained}, share)
    if drawn and model.level == "linear":
        scale_branch(values, model, share)
    return bool(drawn)


@torch.no_grad()
def scale_branch(values: Mapping[str, Tensor], model: ReferenceModel, share: float) -> None:
    """Scales the B of a single layer, or of each sibling, until its branch has `share` of the norm of x W^T."""
    assert model.x is not None
    x = model.x.to(torch.promote_types(model.x.dtype, torch.float32))
    for name, layer in model.layers.items():
        a, b = (values.get(f"{name}.{part}", layer.get_parameter(part)) for part in ("lora_a", "lora_b"))
        with ieee_gemms(model.device):
            branch = layer.scale * (x @ a.to(x.dtype).t()) @ b.to(x.dtype).t()
            b.mul_(share * F.linear(x, layer.weight.to(x.dtype)).norm() / branch.norm())


@contextmanager
def ieee_gemms(device: torch.device) -> Iterator[None]:
    """GEMMs in fp32 without TF32, 16-bit ones summed in fp32 throughout, as CUDA has them only on request."""
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
