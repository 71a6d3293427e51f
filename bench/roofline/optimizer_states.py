"""Bytes of an optimizer's state, by closed form and without torch.

torch's AdamW keeps two moments in the parameter's dtype, SGD without momentum nothing. bitsandbytes' AdamW keeps two in
fp32, its 8-bit one two of a byte a value with an fp32 scale for each block of BLOCK values; a tensor of fewer than
LEAST_8BIT values has fp32 ones there too. Paged, the states of tensors of LEAST_PAGED values and more lie in CUDA's
unified memory, which may hold them on the host, but for the blocks' scales (bitsandbytes 0.50, optim/optimizer.py). The
steps counted in each state, and two tables of 256 values that all share, are left out.
"""

from collections.abc import Iterator

from bench.case import Case
from bench.methods.method import Linear
from bench.methods.registry import method_of, trainable_params
from bench.methods.requirements import paged

BLOCK = 256
LEAST_8BIT = 4096
LEAST_PAGED = 100_000


def state_bytes(case: Case, width: int) -> int:
    """All of it, wherever it lies; width: bytes of a trained value."""
    return sum(_tensor_bytes(case, n, width) * count for n, count in _tensors(case))


def resident_bytes(case: Case, width: int) -> int:
    """What must lie in the GPU's memory."""
    pages = paged(case.optimizer)
    return sum(_tensor_bytes(case, n, width, pages and n >= LEAST_PAGED) * count for n, count in _tensors(case))


def _tensor_bytes(case: Case, n: int, width: int, resident: bool = False) -> int:
    """Of one tensor's state; resident: without what is paged."""
    if case.optimizer is None:
        return 2 * n * width
    if case.optimizer == "sgd":
        return 0
    if case.optimizer.endswith("8bit") and n >= LEAST_8BIT:
        return 2 * (n * (not resident) + 4 * -(-n // BLOCK))
    return 2 * n * 4 * (not resident)


def _tensors(case: Case) -> Iterator[tuple[int, int]]:
    """(values, how many such tensors) of what trains. What is no projection, such as norms, is taken as tensors of the
    model's width, and the embeddings as tensors of the vocabulary's size together."""
    method, rank = method_of(case), case.rank or 0
    blocks = case.trained_at_a_time
    projections = case.target_projections if method.adapts or case.level == "linear" else case.shape.projections  # type: ignore[union-attr]
    left = trainable_params(case)
    for p in projections:
        for n in method.tensors(Linear(p.out_features, p.in_features, p.params), rank):
            yield n, blocks
            left -= n * blocks
    shape = case.shape
    if left <= 0 or shape is None:
        return
    width = shape.hidden_size
    norms = blocks * (shape.block_params - sum(p.params for p in shape.projections))
    yield width, norms // width
    if rest := left - norms // width * width:
        yield rest, 1
