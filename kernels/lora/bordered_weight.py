"""Weights with room for the branch: [W | B] in one buffer, so that one cuBLAS GEMM on [X | S'] gives the layer.

That GEMM of width K + RP is also the time that every other scheme is held to: with S' at no cost, nothing that
computes X W^T + S' B^T by cuBLAS can be faster.
"""

import weakref
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from ..runtime.sizes import padded

#: Shape (N, K) and strides of a weight, and the padded rank that there is room for beside it.
Fit = tuple[tuple[int, ...], tuple[int, ...], int]


class Border(NamedTuple):
    """The buffer (N, K + RP), while it lives; what fits into it; the places (N, rank) for B in it, by rank."""

    buffer: Callable[[], Tensor | None]
    fit: Fit | None
    places: dict[int, Tensor]


# By the address of the weight's first element: parameters made from a view do not remember their base.
borders: dict[int, Border] = {}
NO_BORDER = Border(lambda: None, None, {})


def fit_of(shape: tuple[int, ...], strides: tuple[int, ...], rank: int) -> Fit:
    """What a call with such a weight and this rank needs."""
    return tuple(shape), tuple(strides), padded(rank)


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
    alive = weakref.ref(buffer, lambda _: borders.pop(address, None))
    borders[address] = Border(alive, fit_of(inner.shape, inner.stride(), rank), {})
    return inner, buffer


def room_at(address: int, fit: Fit, rank: int) -> tuple[Tensor, Tensor] | None:
    """The buffer (N, K + RP) that the weight at this address lies in, and the place (N, rank) for B in it; None unless
    `bordered` made it for what is to fit, and it still lives there.

    A place is kept: made at every call, it costs as much as a launch. It is no view that autograd or the buffer knows
    of, and so keeps the memory alive until the buffer is gone, but not the buffer.
    """
    border = borders.get(address)
    if border is None or border.fit != fit:
        return None
    buffer = border.buffer()
    if buffer is None or buffer.data_ptr() != address:
        return None
    place = border.places.get(rank)
    if place is None:
        with torch.inference_mode(False):
            place = border.places[rank] = buffer.data.narrow(1, fit[0][1], rank)
    return buffer, place


def border_of(weight: Tensor, rank: int) -> Tensor | None:
    """The buffer of room_at."""
    room = room_at(weight.data_ptr(), fit_of(weight.shape, weight.stride(), rank), rank) if borders else None
    return None if room is None else room[0]
