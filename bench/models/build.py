"""From a case to the work that it times, at each of the three levels."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from bench.case import Case
from bench.case.shapes import Projection
from bench.methods.adapt import DTYPES
from bench.methods.refresh import draw_lora_b
from bench.methods.registry import apply
from bench.models.work import AUTOCAST, Prepared, Work, set_checkpointing

# Values drawn for a weight on a CPU, whatever its size, in whole rows.
DRAWN = 1 << 18


def build(case: Case, device: str, seed: int = 0) -> Work:
    """Makes the model on `device` ('cpu', 'cuda', 'cuda:1', 'meta' to count); weights and inputs are drawn from `seed`.

    Weights never exist elsewhere or in another dtype: fp32 under amp-*, else that of the precision. The same seed gives
    the same weights and inputs under every method and impl, and torch's own random state is left as it was. Inputs:
    x (batch, seq, K) of N(0, 1), or token ids, uniform. Raises ValueError where the model does not have what the case
    asks for.
    """
    where = torch.device(device)
    dtype = torch.float32 if case.precision in AUTOCAST else DTYPES[case.precision]
    with torch.random.fork_rng(devices=[where] if where.type == "cuda" else []):
        torch.manual_seed(seed)
        with _Repeated():
            prepared = _level(case.level)(case, where, dtype)
        leaves: list[tuple[str, Tensor]] = list(apply(prepared.model, case))
        set_checkpointing(prepared.model, case)
        draw_lora_b(prepared.model)
    if prepared.x is not None:
        leaves.append(("x", prepared.x))
    return Work(case, where, prepared.model, leaves, prepared.dropout, prepared.call, seed)


class _Repeated(TorchFunctionMode):
    """A large weight on a CPU is drawn in part and repeats that part: 30 M values in 12 ms, where normal_ took 177 (one
    thread of an AMD EPYC), each time that a case is built and twice for each check.

    Part and rows have no common divisor, so that no two rows, columns or tiles of a weight are alike.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if getattr(func, "__name__", "") not in ("normal_", "uniform_", "kaiming_uniform_"):
            return func(*args, **kwargs)
        whole, *rest = args or (kwargs.pop("tensor"),)
        if whole.device.type != "cpu" or whole.numel() <= 2 * DRAWN:
            return func(whole, *rest, **kwargs)
        rows = max(1, DRAWN // whole[0].numel())
        drawn = func(whole.detach()[:rows].clone(), *rest, **kwargs).view(-1)[:-1]
        for part in whole.detach().view(-1).split(drawn.numel()):
            part.copy_(drawn[: part.numel()])
        return whole


def _level(level: str) -> Callable[[Case, torch.device, torch.dtype], Prepared]:
    if level == "linear":
        return prepare_linear
    from bench.models import decoder  # imports transformers, which a linear layer does without

    return {"block": decoder.prepare_block, "model": decoder.prepare_model}[level]


def prepare_linear(case: Case, device: torch.device, dtype: torch.dtype) -> Prepared:
    """A projection, nn.Linear or Conv1D as in the model, with the standard deviation that both use; or a group of them,
    which read the same x: then the output is a tuple with one y each, and nothing but their GEMMs is timed."""
    if case.shape is not None and case.seq > case.shape.max_positions:
        raise ValueError(f"seq: {case.seq} is above the {case.shape.max_positions} positions of {case.model}")
    with _default_dtype(dtype), device:
        layers = {name.rpartition(".")[2]: _linear(p) for name, p in case.linear_layers.items()}
    width = case.projections[0].in_features
    x = torch.randn(case.batch, case.seq, width, device=device, dtype=dtype, requires_grad=True)
    model = nn.ModuleDict(layers if len(layers) == 1 else {"layer": Siblings(layers)})
    return Prepared(model, x, lambda: model["layer"](x), dropout=0.0)


class Siblings(nn.ModuleDict):
    """Layers that read the same x, as a decoder block calls them: one after the other."""

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """x (..., K) -> a y (..., N_i) for each."""
        return tuple(layer(x) for layer in self.values())


def _linear(p: Projection) -> nn.Module:
    if p.conv1d:
        from transformers.pytorch_utils import Conv1D

        return Conv1D(p.out_features, p.in_features)
    layer = nn.Linear(p.in_features, p.out_features, bias=p.bias)
    nn.init.normal_(layer.weight, std=0.02)
    return layer


@contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
