"""What the clocks drive: one forward, one backward, one optimizer step, and nothing of how they are timed."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from bench.case import Case
from bench.methods.state import paca_layers
from kernels import PaCALinear, parameter_groups

AUTOCAST = {"amp-bf16": torch.bfloat16, "amp-fp16": torch.float16}

# Steps are timed on one fixed batch, thousands of times over: at a useful rate the weights would run away.
LEARNING_RATE = 1e-8


def autocast(precision: str, device: torch.device, cache: bool = True) -> AbstractContextManager[object]:
    """The context in which a forward runs: autocast under amp-*, else none."""
    dtype = AUTOCAST.get(precision)
    return (
        nullcontext()
        if dtype is None or device.type == "meta"
        else torch.autocast(device.type, dtype=dtype, cache_enabled=cache)
    )


@dataclass
class Prepared:
    """A model before any method is applied to it, and its forward."""

    model: nn.Module
    x: Tensor | None  # the input, where it requires grad
    call: Callable[[], Tensor]
    dropout: float  # the largest of the model's own, in training mode


@dataclass
class Work:
    """A model, its inputs, and exactly what should get gradients.

    leaves: the trained parameters by their names in the model, and 'x' where the input requires grad.
    model: at level model the language model; at levels block and linear a container with the child `block` or `layer`.
    Autocast casts as usual for eager code; set `autocast_cache` to False to capture a CUDA graph.
    """

    case: Case
    device: torch.device
    model: nn.Module
    leaves: list[tuple[str, Tensor]]
    model_dropout: float  # largest dropout of the model itself, adapters aside
    call: Callable[[], Tensor] = field(repr=False)  # the forward alone, outside of autocast
    seed: int = 0
    autocast_cache: bool = True
    _grad_out: Tensor | None = field(default=None, init=False, repr=False)
    _optimizer: torch.optim.Optimizer | None = field(default=None, init=False, repr=False)
    _paca: list[PaCALinear] = field(default_factory=list, init=False, repr=False)

    def __post_init__(self) -> None:
        self._paca = paca_layers(self.model)

    def forward(self) -> Tensor:
        """The loss (a scalar) at level model, else y (batch, seq, N)."""
        with autocast(self.case.precision, self.device, self.autocast_cache):
            return self.call()

    def backward(self, out: Tensor) -> None:
        """Gradients of all leaves into .grad; the graph is freed.

        amp-fp16 has no GradScaler: it would add one multiplication here, and its check belongs to the step.
        """
        if out.dim() == 0:
            out.backward()
        else:
            out.backward(self.grad_out(out))

    def grad_out(self, out: Tensor) -> Tensor:
        """dY of the shape and dtype of `out`: fixed, N(0, 1) / sqrt(tokens), so that a weight's gradient is about 1."""
        if self._grad_out is None or self._grad_out.shape != out.shape or self._grad_out.dtype != out.dtype:
            generator = None if out.is_meta else torch.Generator(out.device).manual_seed(self.seed + 1)
            drawn = torch.randn(out.shape, generator=generator, device=out.device, dtype=torch.float32)
            self._grad_out = (drawn / self.case.tokens**0.5).to(out.dtype)
        return self._grad_out

    def clear(self) -> None:
        """Drops the gradients of all leaves."""
        for _, leaf in self.leaves:
            leaf.grad = None

    def check_leaves(self) -> None:
        """After forward and backward: every leaf has a gradient of its shape, and nothing else in the model has one.

        Raises RuntimeError that names what is wrong.
        """
        for name, leaf in self.leaves:
            if leaf.grad is None:
                raise RuntimeError(f"{name} should get a gradient and has none")
            if leaf.grad.shape != leaf.shape:
                raise RuntimeError(f"{name} of shape {tuple(leaf.shape)} got a gradient of {tuple(leaf.grad.shape)}")
        declared = {id(leaf) for _, leaf in self.leaves}
        for name, parameter in self.model.named_parameters():
            if id(parameter) not in declared and parameter.grad is not None:
                raise RuntimeError(f"{name} is frozen and got a gradient")

    @property
    def trainable_params(self) -> int:
        """Trained values, counted on what was built; x is none of them."""
        return sum(leaf.numel() for name, leaf in self.leaves if name != "x")

    def optimizer_step(self) -> None:
        """One AdamW step on the gradients that are there, PaCA's column refresh included.

        The optimizer is made at the first call: its state takes two values for each trained one.
        """
        if self._optimizer is None:
            groups = [g for g in parameter_groups(self.model, weight_decay=0.01) if g["params"]]
            self._optimizer = torch.optim.AdamW(groups, lr=LEARNING_RATE, fused=self.device.type in ("cpu", "cuda"))
        self._optimizer.step()
        self.refresh()

    @property
    def has_refresh(self) -> bool:
        return bool(self._paca)

    def refresh(self) -> None:
        """PaCA's column refresh of all layers, due once per optimizer step; nothing under other methods."""
        for layer in self._paca:
            layer.refresh()
