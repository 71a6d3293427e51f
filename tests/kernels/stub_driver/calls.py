"""Calls of the public functions, forward and backward, on tensors that can be varied one by one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from kernels import dora_linear, lora_linear, lora_linear_group, paca_linear
from tests.kernels.stub_driver.pretended_gpus import tensors_on

BF16 = torch.bfloat16


def misaligned(t: Tensor) -> Tensor:
    """A copy whose first element is not at a multiple of 16 bytes."""
    buffer = torch.empty(t.numel() + 1, dtype=t.dtype)
    return buffer[1:].view(t.shape).copy_(t.detach()).requires_grad_(t.requires_grad)


@dataclass
class Call:
    """One call: m tokens, its tensors made as described. `off` names the tensors that are misaligned."""

    kind: str = "lora"  # or 'dora', 'group', 'paca'
    scheme: str | None = None
    m: int = 48
    n: int = 64
    k: int = 96
    rank: int = 8
    members: int = 2  # of a group
    dtype: torch.dtype = BF16
    trained: torch.dtype | None = None  # that of the adapters, or of PaCA's columns
    bias: bool = True
    conv1d: bool = False
    dropout: float = 0.0
    scale: Any = 0.5
    x: str = "plain"  # or 'strided', 'wide', 'lead'
    dy: str = "plain"  # or 'wide', 'expanded'
    needs: str = "xab"  # gradients asked for; PaCA's are of x and, for a or b, of columns; DoRA's m is the magnitude
    index: torch.dtype = torch.int64
    off: tuple[str, ...] = ()
    tensors: dict[str, Any] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        m, n, k, rank, trained = self.m, self.n, self.k, self.rank, self.trained or self.dtype

        def draw(*shape: int, dtype: torch.dtype = self.dtype) -> Tensor:
            return torch.randn(*shape).to(dtype)

        x = {
            "plain": lambda: draw(m, k), "strided": lambda: draw(m, 2 * k)[:, ::2],
            "wide": lambda: draw(m, k + 16)[:, :k], "lead": lambda: draw(2, m // 2, k),
        }[self.x]()  # fmt: skip
        dy = {
            "plain": lambda: draw(m, n), "wide": lambda: draw(m, n + 16)[:, :n],
            "expanded": lambda: draw(1, 1).expand(m, n),
        }[self.dy]()  # fmt: skip
        made: dict[str, Tensor] = {
            "x": x.requires_grad_("x" in self.needs), "dy": dy.view(*x.shape[:-1], n) if self.x == "lead" else dy,
            "bias": draw(n),
        }  # fmt: skip
        for i in range(self.members if self.kind == "group" else 1):
            made[f"weight{i}"] = draw(k, n).t() if self.conv1d else draw(n, k)
            made[f"a{i}"] = draw(rank, k, dtype=trained).requires_grad_("a" in self.needs)
            made[f"b{i}"] = draw(n, rank, dtype=trained).requires_grad_("b" in self.needs)
        made["m"] = draw(n, dtype=trained).requires_grad_("m" in self.needs)
        made["index"] = torch.arange(rank, dtype=self.index)
        self.tensors = {name: misaligned(t) if name in self.off else t for name, t in made.items()}

    def __call__(self, gpu: int, hooks: Any = None) -> None:
        """Forward, and backward for what is needed, with tensors on this GPU."""
        t = self.tensors
        options: dict[str, Any] = {"scale": self.scale}
        bias = t["bias"] if self.bias else None
        with tensors_on(gpu):
            if self.kind == "paca":
                inputs = (t["x"], t["b0"])
                ys = (paca_linear(t["x"], t["weight0"], t["b0"], t["index"], bias=bias, scheme=self.scheme, **options),)
            elif self.kind == "dora":
                inputs = (t["x"], t["a0"], t["b0"], t["m"])
                ys = (
                    dora_linear(
                        t["x"], t["weight0"], t["a0"], t["b0"], t["m"], bias=bias, scheme=self.scheme, **options
                    ),
                )
            elif self.kind == "group":
                weights, a, b = ([t[f"{name}{i}"] for i in range(self.members)] for name in ("weight", "a", "b"))
                inputs = (t["x"], *a, *b)
                biases = (bias, *(None,) * (self.members - 1))
                ys = lora_linear_group(
                    t["x"], weights, a, b, biases=biases, dropout_p=self.dropout, scheme=self.scheme, **options
                )
            else:
                inputs = (t["x"], t["a0"], t["b0"])
                y = lora_linear(
                    t["x"], t["weight0"], t["a0"], t["b0"], bias=bias, dropout_p=self.dropout, scheme=self.scheme,
                    **options,
                )  # fmt: skip
                ys = (y,)
            # autograd's thread of a GPU makes it the current one
            with torch.cuda.device(gpu):
                torch.autograd.grad(ys, [t for t in inputs if t.requires_grad], [t["dy"]] * len(ys))
