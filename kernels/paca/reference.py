"""PaCA in plain torch: what the kernels must compute."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..runtime.checks import check_index_values, check_paca


def paca_linear(
    x: Tensor,
    weight: Tensor,
    columns: Tensor,
    index: Tensor,
    *,
    scale: float = 1.0,
    bias: Tensor | None = None,
) -> Tensor:
    """y = x W^T + bias, where the live columns W[:, index] = scale * columns are what trains.

    x (..., K), weight (N, K), columns (N, r), index (r,) int32 or int64, unique. The value of columns is not used: the
    second term is zero, and is there for ordinary autograd to find d columns = scale * dY^T x[:, index] (the product
    rule through W[:, index] = scale * columns). It keeps x[:, index] for backward, not x.
    """
    autocast = torch.is_autocast_enabled(x.device.type) if isinstance(x, Tensor) else False
    check_paca(x, weight, columns, index, bias, scale, autocast)
    check_index_values(index, weight.shape[1])
    return product_rule(x, weight, columns, index, scale, bias)


def product_rule(
    x: Tensor, weight: Tensor, columns: Tensor, index: Tensor, scale: float, bias: Tensor | None
) -> Tensor:
    """The computation alone, without the checks."""
    y = F.linear(x, weight, bias)
    nothing = (columns - columns.detach()).to(x.dtype)
    return y + scale * F.linear(x.index_select(-1, index), nothing)
