"""Fake tensors that stand for a GPU's: for tools that run a model without memory, to see its operators.

A build of torch without CUDA makes no fake CUDA tensors, so theirs are on the CPU. Calls on them leave one custom op
for each pass, as while torch.compile traces.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

_inside = 0


@contextmanager
def stand_for_gpu() -> Iterator[None]:
    """Inside of it, fake tensors on the CPU are taken for a GPU's by lora_linear and paca_linear."""
    global _inside
    _inside += 1
    try:
        yield
    finally:
        _inside -= 1


def stands_for_gpu(x: Tensor) -> bool:
    return bool(_inside) and isinstance(x, FakeTensor)
