"""Weights with room for the branch: [W | B] in one buffer, so that one cuBLAS GEMM on [X | S'] gives the layer.

That GEMM of width K + RP is also the time that every other scheme is held to: with S' at no cost, nothing that
computes X W^T + S' B^T by cuBLAS can be faster.
"""

import weakref

import torch
from torch import Tensor

from ..runtime.sizes import padded

# By the address of the weight's first element: parameters made from a view do not remember their base.
borders: dict[int, weakref.ref[Tensor]] = {}


def bordered(weight: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """A copy of weight (N, K) inside a buffer (N, K + RP) in the same layout; returns (the copy, the buffer).

    Keep the buffer alive for as long as the scheme is to be used. Columns K + rank to the end stay zero.
    """
    n, k = weight.shape
    width = k + padded(rank)
    rows = weight.stride(1) == 1
    buffer = weight.new_zeros(n, width) if rows else weight.new_zeros(width, n).t()
    inner = buffer[:, :k]
    with torch.no_grad():
        inner.copy_(weight)
    address = inner.data_ptr()
    borders[address] = weakref.ref(buffer, lambda _: borders.pop(address, None))
    return inner, buffer


def border_of(weight: Tensor, rank: int) -> Tensor | None:
    """The buffer (N, K + RP) that weight lies in, if it was made by `bordered` for this padded rank and still lives."""
    if not borders:
        return None
    reference = borders.get(weight.data_ptr())
    buffer = None if reference is None else reference()
    if buffer is None or buffer.shape != (weight.shape[0], weight.shape[1] + padded(rank)):
        return None
    return buffer if buffer.stride() == weight.stride() else None
