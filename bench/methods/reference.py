"""What the correctness check holds a method against: a textbook layer, dense, in any precision."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.case import Case
from bench.methods.adapt import adapter_dtype


class ReferenceLayer(nn.Module):
    """y = x W^T + b with W (N, K) dense and bias (N,) or None; a method's Reference computes what it adds.

    Nothing of an implementation, nor of the kernels, computes anything here. `stored`: the dtype in which the model
    stores W. `adapter`: that of what trains. A buffer of a Reference, other than bias, that an implementation has under
    the same name must hold the same values in both. What of `drawn` does not train must stay as it was drawn.
    """

    bias: Tensor | None
    drawn: tuple[str, ...] = ()  # parameters that are taken over as an implementation has drawn them
    branch = False  # y is x W^T + b and a branch, whose error is told apart, with B drawn so that it shows

    def __init__(self, base: nn.Module, case: Case, name: str) -> None:
        super().__init__()
        stored = base.get_parameter("weight").detach()
        # Conv1D stores (K, N); it is the only other linear layer that Case.projections knows.
        self.weight = nn.Parameter(stored if isinstance(base, nn.Linear) else stored.t(), requires_grad=False)
        bias = getattr(base, "bias", None)
        self.register_buffer("bias", None if bias is None else bias.detach())
        self.scale, self.stored = case.scale, self.weight.dtype
        self.adapter = adapter_dtype(case) or self.stored

    def base(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias)

    def forward(self, x: Tensor) -> Tensor:
        """x (..., K) -> y (..., N)."""
        return self.base(x)

    @property
    @abstractmethod
    def trained(self) -> dict[str, Tensor]:
        """What the case trains here -> the dense tensor whose gradient says so."""

    def gradient(self, part: str, dense: Tensor) -> Tensor:
        """The gradient of `part`, from that of its dense tensor."""
        return dense

    @torch.no_grad()
    def load(self, part: str, value: Tensor) -> None:
        """Takes over a trained tensor of the implementation."""
        self.get_parameter(part).copy_(value)

    def as_built(self) -> Mapping[str, tuple[Tensor, float]]:
        """Trained parts that follow from the layer: what each is before the first step, and the bound of its error."""
        return {}

    def take_over(self, layer: nn.Module) -> Mapping[str, tuple[float, float, str]]:
        """What an implementation's `layer` stores in place of W, where that is not W itself: held against what this
        layer makes of W by itself, and then taken for W, so that a tie that was rounded the other way is no error.

        (error, bound, words) by what was checked; words, with {error}, as a sentence says it.
        """
        return {}

    def draw(self, values: Mapping[str, Tensor], share: float) -> None:
        """Where zeros would hide half of the check: draws this layer's trained tensors in the implementation, so that
        the branch has `share` of the norm of x W^T."""


class BranchReference(ReferenceLayer):
    """y = x W^T + b + s (drop(x) A^T) B^T, lora_a (r, K) and lora_b (N, r).

    `keep`, boolean and of x's shape, is the dropout mask of the branch; survivors are divided by 1 - dropout.
    """

    branch = True

    def __init__(self, base: nn.Module, case: Case, name: str) -> None:
        super().__init__(base, case, name)
        assert case.rank is not None
        (n, k), options = self.weight.shape, {"dtype": self.adapter, "device": self.weight.device}
        self.lora_a = nn.Parameter(torch.zeros(case.rank, k, **options))  # type: ignore[call-overload]
        self.lora_b = nn.Parameter(torch.zeros(n, case.rank, **options))  # type: ignore[call-overload]
        self.keep: Tensor | None = None
        self.dropout = 0.0

    def forward(self, x: Tensor) -> Tensor:
        y = self.base(x)
        if self.keep is not None:
            x = x * (self.keep.to(x.dtype) / (1.0 - self.dropout))  # 1 / (1 - p) is rounded first, as F.dropout does
        branch = F.linear(F.linear(x, self.lora_a.to(x.dtype)), self.lora_b.to(x.dtype))
        return y + self.scale * branch

    @property
    def trained(self) -> dict[str, Tensor]:
        return {"lora_a": self.lora_a, "lora_b": self.lora_b}

    @torch.no_grad()
    def draw(self, values: Mapping[str, Tensor], share: float) -> None:
        """If the entries of x are independent, exactly that share. A is taken as it is."""
        a, b = values.get("lora_a", self.lora_a), values["lora_b"]
        wide = torch.randn(b.shape, dtype=torch.float32, device=b.device)
        dtype = torch.promote_types(self.weight.dtype, wide.dtype)
        norm_w, norm_a = (torch.linalg.vector_norm(t, dtype=dtype) for t in (self.weight, a))
        b.copy_(wide * (share * norm_w / (abs(self.scale) * b.shape[0] ** 0.5 * norm_a)))

    def masked(self, dy: Tensor) -> Tensor:
        """What the dropout mask multiplies in dX (tokens, K), for dy (tokens, N): dX is dY W and, where an element is
        kept, this over 1 - dropout."""
        return self.scale * (dy @ self.lora_b) @ self.lora_a

    def for_masks(self, values: Mapping[str, Tensor]) -> None:
        """Sets what trains beside A and B in the implementation, where masks will be read off dX: no element of what
        they multiply may be near zero."""


def load_reference(method: str) -> type[ReferenceLayer]:
    """The class Reference of a method's reference.py."""
    from importlib import import_module

    module = f"bench.methods.{method.replace('-', '_')}.reference"
    found: Any = import_module(module).Reference
    assert issubclass(found, ReferenceLayer), f"{module}: Reference is no ReferenceLayer"
    return found
