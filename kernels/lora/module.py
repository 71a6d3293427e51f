"""LoRALinear: a frozen linear layer with a LoRA branch, as a module."""

import math
from typing import Any, Self

import torch
from torch import Tensor, nn

from ..modules.wrapped_linear import WrappedLinear
from .autograd import preferred_forward
from .bordered_weight import border_of, bordered
from .linear import lora_linear


class LoRALinear(WrappedLinear):
    """y = base(x) + alpha / rank * drop(x) A^T B^T.

    base: nn.Linear or transformers Conv1D, kept as submodule `base` and frozen. Parameters lora_a (rank, in_features),
    drawn as PEFT draws it (Kaiming uniform, a = sqrt 5), and lora_b (out_features, rank), zero. Both have
    `adapter_dtype`, by default that of the base weight; dropout acts on the branch's input, in training mode.
    """

    pretrained: Tensor | None
    siblings: Any = None  # a kernels.lora.siblings.Siblings, which group_siblings() gives

    def __init__(
        self,
        base: nn.Module,
        rank: int,
        alpha: float,
        dropout: float = 0.0,
        adapter_dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(base, rank, alpha)
        if not 0.0 <= dropout < 1.0:
            raise ValueError(f"dropout is {dropout}, expected 0 <= dropout < 1")
        self.dropout = dropout
        options: dict[str, Any] = {"dtype": self._dtype_of(adapter_dtype), "device": self.stored_weight.device}
        self.lora_a = nn.Parameter(torch.empty(rank, self.in_features, **options))
        self.lora_b = nn.Parameter(torch.zeros(self.out_features, rank, **options))
        nn.init.kaiming_uniform_(self.lora_a, a=math.sqrt(5))
        # The pretrained weight, only while merged: subtracting the branch again would not give the same bits.
        self.register_buffer("pretrained", None, persistent=False)
        self._border: Tensor | None = None  # what keeps the buffer of a bordered weight alive
        self.register_state_dict_post_hook(_save_pretrained)
        self.register_load_state_dict_pre_hook(_unmerge_first)

    @torch.no_grad()
    def border(self) -> None:
        """Moves the base weight into a buffer with room for B, so that one cuBLAS GEMM gives the layer ('bordered').

        Values and shape stay, the strides grow, and so does the file of a state_dict (by B). The dispatcher may still
        take another scheme, by the number of tokens. load_state_dict(assign=True) and deepcopy() bring a weight without
        room, which runs as any other.
        """
        weight, self._border = bordered(self.weight, self.rank)
        self.base.register_parameter(
            "weight", nn.Parameter(weight.t() if self.transposed else weight, requires_grad=False)
        )

    def prepare(self, tokens: int) -> str:
        """Lays the weight out for the forward scheme that the dispatcher prefers at so many tokens; returns its name.

        Only 'bordered' needs a layout, that of border(); under any other scheme nothing is moved, nor is a weight that
        is bordered already moved back. A bordered forward saves a copy of x of its own: layers that read the same x
        share theirs no longer. While A is frozen, S' alone is kept of a forward, and 'bordered' is not preferred.
        """
        dropout = self.dropout > 0.0 and self.training
        scheme = preferred_forward(self.weight, self.lora_a, self.bias, tokens, dropout).scheme
        if scheme == "bordered" and border_of(self.weight, self.rank) is None:
            self.border()
        return scheme

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        """A bordered weight that changes its device or dtype leaves its buffer, and gets a new one."""
        super()._apply(fn, recurse)
        if self._border is not None and border_of(self.weight, self.rank) is None:
            self.border()
        return self

    @property
    def merged(self) -> bool:
        return self.pretrained is not None

    def forward(self, x: Tensor) -> Tensor:
        parts = self.parts()
        if parts is None:
            return torch.nn.functional.linear(x, self.weight, self.bias)
        if not torch.compiler.is_compiling() and self.siblings is not None:
            y = self.siblings.output(self, x, parts)
            if y is not None:
                return y
        weight, bias, a, b, scale, p = parts
        return lora_linear(x, weight, a, b, scale=scale, bias=bias, dropout_p=p)

    def parts(self) -> tuple[Tensor, Tensor | None, Tensor, Tensor, float, float] | None:
        """weight (N, K), bias, A, B, scale and dropout_p as a call computes with them; None while merged."""
        if self.pretrained is not None:
            return None
        p = self.dropout if self.training else 0.0
        return self.weight, self.bias, self.lora_a, self.lora_b, self.scale, p

    @torch.no_grad()
    def merge(self) -> None:
        """Adds the branch to the weight (in fp32, rounded once); does nothing where it is merged already."""
        if self.merged:
            return
        self.pretrained = self.stored_weight.detach().clone()
        delta = self.scale * (self.lora_b.float() @ self.lora_a.float())
        self.weight.copy_(self.weight.float() + delta)

    @torch.no_grad()
    def unmerge(self) -> None:
        """The pretrained weight again, bit for bit; does nothing where it is not merged."""
        if self.pretrained is None:
            return
        self.stored_weight.copy_(self.pretrained)
        self.pretrained = None


def _save_pretrained(module: nn.Module, state: dict[str, Any], prefix: str, _metadata: Any) -> None:
    """A checkpoint taken while merged holds the pretrained weight: loaded, the branch would be added twice."""
    assert isinstance(module, LoRALinear)
    if module.pretrained is not None:
        state[prefix + "base.weight"] = module.pretrained


def _unmerge_first(module: nn.Module, *_: Any) -> None:
    assert isinstance(module, LoRALinear)
    module.unmerge()
