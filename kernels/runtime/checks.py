"""Input validation: one sentence that names the argument, what it is, and what was expected, before any launch."""

import weakref
from numbers import Real

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

FLOATING = (torch.bfloat16, torch.float16, torch.float32, torch.float64)


class MismatchError(ValueError, RuntimeError):
    """Shapes or devices do not go together: also the RuntimeError that F.linear raises there."""


class DtypeMismatchError(TypeError, RuntimeError):
    """Dtypes do not go together: also the RuntimeError that F.linear raises there."""


def _tensor(name: str, value: object) -> None:
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} is a {type(value).__name__}, expected a torch.Tensor")


def _floating(name: str, value: Tensor) -> None:
    if value.dtype not in FLOATING:
        raise DtypeMismatchError(
            f"{name} has dtype {value.dtype}, expected a floating dtype (bfloat16, float16 or float32)"
        )


def _shape(name: str, value: Tensor, expected: tuple[int, ...], words: str) -> None:
    if tuple(value.shape) != expected:
        raise ValueError(f"{name} has shape {tuple(value.shape)}, expected {words} = {expected}")


def _device(name: str, value: Tensor, x: Tensor) -> None:
    if value.device != x.device:
        raise MismatchError(f"{name} is on {value.device}, expected {x.device}, the device of x")


def check_base(x: Tensor, weight: Tensor, bias: Tensor | None, autocast: bool) -> tuple[int, int]:
    """Checks x (..., K), weight (N, K) and bias (N,); returns (N, K)."""
    _tensor("x", x)
    _tensor("weight", weight)
    _floating("x", x)
    _floating("weight", weight)
    if weight.dim() != 2:
        raise ValueError(f"weight has shape {tuple(weight.shape)}, expected two dimensions (out_features, in_features)")
    n, k = weight.shape
    if x.dim() == 0 or x.shape[-1] != k:
        raise MismatchError(f"x has shape {tuple(x.shape)}, expected (..., {k}) for weight of shape {(n, k)}")
    _device("weight", weight, x)
    if not autocast and weight.dtype != x.dtype:
        raise DtypeMismatchError(f"weight has dtype {weight.dtype}, expected {x.dtype}, the dtype of x")
    if bias is not None:
        _tensor("bias", bias)
        _shape("bias", bias, (n,), "(out_features,)")
        _device("bias", bias, x)
        _floating("bias", bias)
        if not autocast and bias.dtype != x.dtype:
            raise DtypeMismatchError(f"bias has dtype {bias.dtype}, expected {x.dtype}, the dtype of x")
    return n, k


def _trained(name: str, value: Tensor, x: Tensor, autocast: bool) -> None:
    _floating(name, value)
    _device(name, value, x)
    if not autocast and value.dtype not in (x.dtype, torch.float32):
        raise TypeError(f"{name} has dtype {value.dtype}, expected {x.dtype}, the dtype of x, or torch.float32")


def _scale(scale: object) -> None:
    if isinstance(scale, bool) or not isinstance(scale, Real):  # numpy's numbers are Reals too
        raise TypeError(f"scale is a {type(scale).__name__}, expected a Python number")


def check_lora(
    x: Tensor,
    weight: Tensor,
    lora_a: Tensor,
    lora_b: Tensor,
    bias: Tensor | None,
    scale: float,
    dropout_p: float,
    seed: int | None,
    autocast: bool = False,
) -> None:
    """Raises ValueError (shape, device, range) or TypeError (kind, dtype) for the arguments of lora_linear."""
    n, k = check_base(x, weight, bias, autocast)
    _tensor("lora_a", lora_a)
    _tensor("lora_b", lora_b)
    if lora_a.dim() != 2 or lora_a.shape[1] != k:
        raise ValueError(f"lora_a has shape {tuple(lora_a.shape)}, expected (rank, in_features) = (rank, {k})")
    rank = lora_a.shape[0]
    if rank == 0:
        raise ValueError(f"lora_a has shape {tuple(lora_a.shape)}, expected a rank of at least 1")
    _shape("lora_b", lora_b, (n, rank), "(out_features, rank)")
    _trained("lora_a", lora_a, x, autocast)
    _trained("lora_b", lora_b, x, autocast)
    if lora_b.dtype != lora_a.dtype:
        raise TypeError(f"lora_b has dtype {lora_b.dtype}, expected {lora_a.dtype}, the dtype of lora_a")
    _scale(scale)
    check_dropout(dropout_p, seed)


def check_dora(
    x: Tensor,
    weight: Tensor,
    lora_a: Tensor,
    lora_b: Tensor,
    magnitude: Tensor,
    bias: Tensor | None,
    scale: float,
    dropout_p: float = 0.0,
    seed: int | None = None,
    autocast: bool = False,
) -> None:
    """As check_lora, for the arguments of dora_linear."""
    check_lora(x, weight, lora_a, lora_b, bias, scale, dropout_p, seed, autocast)
    _tensor("magnitude", magnitude)
    _shape("magnitude", magnitude, (weight.shape[0],), "(out_features,)")
    _trained("magnitude", magnitude, x, autocast)


def check_dropout(dropout_p: float, seed: int | None) -> None:
    """0 <= dropout_p < 1; seed is None or an int that fits 64 bits."""
    if isinstance(dropout_p, bool) or not isinstance(dropout_p, Real):
        raise TypeError(f"dropout_p is a {type(dropout_p).__name__}, expected a Python number")
    if not 0.0 <= dropout_p < 1.0:
        raise ValueError(f"dropout_p is {dropout_p}, expected 0 <= dropout_p < 1")
    if seed is not None:
        if isinstance(seed, bool) or not isinstance(seed, int):
            raise TypeError(f"seed is a {type(seed).__name__}, expected an int or None")
        if not -(2**63) <= seed < 2**63:
            raise ValueError(f"seed is {seed}, expected an int of at most 64 bits")


def check_paca(
    x: Tensor,
    weight: Tensor,
    columns: Tensor,
    index: Tensor,
    bias: Tensor | None,
    scale: float,
    autocast: bool = False,
) -> None:
    """Raises ValueError or TypeError for the arguments of paca_linear; the values of index too, once per tensor."""
    n, k = check_base(x, weight, bias, autocast)
    _tensor("columns", columns)
    _tensor("index", index)
    if index.dim() != 1:
        raise ValueError(f"index has shape {tuple(index.shape)}, expected (rank,)")
    rank = index.shape[0]
    if rank == 0:
        raise ValueError(f"index has shape {tuple(index.shape)}, expected a rank of at least 1")
    if index.dtype not in (torch.int32, torch.int64):
        raise TypeError(f"index has dtype {index.dtype}, expected torch.int32 or torch.int64")
    _device("index", index, x)
    _shape("columns", columns, (n, rank), "(out_features, rank)")
    _trained("columns", columns, x, autocast)
    _scale(scale)
    if torch.is_grad_enabled() and weight.requires_grad:
        raise ValueError(
            f"weight of shape {(n, k)} requires grad, expected a frozen weight (PaCA trains columns): "
            "call weight.requires_grad_(False)"
        )


_seen_index: dict[int, tuple[weakref.ref, int, int]] = {}


def check_index_values(index: Tensor, k: int) -> None:
    """0 <= index < k and no repetition. Reads the values (a GPU synchronises), so once per tensor and version."""
    key = id(index)
    seen = _seen_index.get(key)
    if seen is not None and seen[0]() is index and seen[1] == index._version and seen[2] == k:
        return
    if index.is_meta or isinstance(index, FakeTensor):
        return
    values = index.tolist()
    for value in values:
        if not 0 <= value < k:
            raise ValueError(
                f"index of shape {tuple(index.shape)} holds {value}, expected 0 <= index < {k} (in_features)"
            )
    if len(set(values)) != len(values):
        twice = next(value for value in values if values.count(value) > 1)
        raise ValueError(f"index of shape {tuple(index.shape)} holds {twice} more than once, expected unique columns")
    _seen_index[key] = (weakref.ref(index, lambda _: _seen_index.pop(key, None)), index._version, k)
