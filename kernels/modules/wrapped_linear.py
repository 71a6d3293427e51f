"""What both adapter modules share: reading the wrapped linear layer in either weight layout."""

import torch
from torch import Tensor, nn

from .plain_linear import is_conv1d


class WrappedLinear(nn.Module):
    """A frozen nn.Linear, or transformers' Conv1D (weight stored (in, out)), kept as the submodule `base`."""

    def __init__(self, base: nn.Module, rank: int, alpha: float) -> None:
        super().__init__()
        weight = getattr(base, "weight", None)
        if not isinstance(weight, Tensor) or weight.dim() != 2:
            raise TypeError(f"base is a {type(base).__name__}, expected an nn.Linear or a Conv1D with a 2-D weight")
        self.transposed = is_conv1d(base)
        if not self.transposed and not isinstance(base, nn.Linear):
            raise TypeError(f"base is a {type(base).__name__}, expected an nn.Linear or a transformers Conv1D")
        if isinstance(rank, bool) or not isinstance(rank, int) or rank < 1:
            raise ValueError(f"rank is {rank!r}, expected an int of at least 1")
        self.base = base
        base.requires_grad_(False)
        self.rank = rank
        self.alpha = alpha
        self.scale = alpha / rank

    @property
    def stored_weight(self) -> Tensor:
        """The weight as the base module stores it."""
        # From the dictionaries: nn.Module's own look-ups of the two cost two microseconds.
        weight = self._modules["base"]._parameters.get("weight")  # type: ignore[union-attr]
        return self.base.get_parameter("weight") if weight is None else weight

    @property
    def weight(self) -> Tensor:
        """The weight as a view of shape (out_features, in_features), whatever the base's own layout."""
        stored = self.stored_weight
        return stored.t() if self.transposed else stored

    @property
    def bias(self) -> Tensor | None:
        return getattr(self.base, "bias", None)

    @property
    def in_features(self) -> int:
        return self.stored_weight.shape[0 if self.transposed else 1]

    @property
    def out_features(self) -> int:
        return self.stored_weight.shape[1 if self.transposed else 0]

    def _dtype_of(self, adapter_dtype: torch.dtype | None) -> torch.dtype:
        return self.stored_weight.dtype if adapter_dtype is None else adapter_dtype

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, rank={self.rank}, alpha={self.alpha}"
