"""Where PaCA's layers are in a model, and the seed of each layer's columns."""

import hashlib
from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import nn

from ..modules.blocks import block_lists, decoder_blocks
from ..modules.plain_linear import is_linear, is_plain


def seed_of(name: str, seed: int = 0) -> int:
    """The seed of a layer's columns: 63 bits of a hash of `seed` and its full name, the same on every machine."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{name}".encode()).digest()[:8], "big") >> 1


def target_layers(model: nn.Module, targets: str | Sequence[str], layers: Sequence[int] | None) -> dict[str, nn.Module]:
    """The linear layers that `targets` and `layers` choose, by their full names, in the model's order.

    targets and layers are those of paca(). Raises ValueError where a target or an index chooses nothing, and where what
    it chooses cannot be adapted: anything but a plain nn.Linear or Conv1D, or a weight that other modules share.
    """
    names = None if targets == "all-linear" else [targets] if isinstance(targets, str) else list(targets)
    inside = _blocks(model) if layers is None and names is None else _inside(model, layers)
    chosen: dict[str, nn.Module] = {}
    missing = set(names or ())
    for name, module in model.named_modules():
        hits = {target for target in names or () if name == target or name.endswith("." + target)}
        missing -= hits
        taken = is_linear(module) if names is None else bool(hits)
        if taken and name.startswith(inside):
            check_adaptable(name, module)
            chosen[name] = module
    if missing:
        known = sorted({name.rpartition(".")[2] for name, module in model.named_modules() if is_linear(module)})
        raise ValueError(
            f"targets names {min(missing)!r}, which {type(model).__name__} does not have; "
            f"expected 'all-linear' or names that end a linear layer's: {', '.join(known) or 'it has none'}"
        )
    if not chosen:
        raise ValueError(f"targets {targets!r} with layers {layers!r} choose no linear layer of {type(model).__name__}")
    check_unshared(model, chosen)
    return chosen


def _blocks(model: nn.Module) -> tuple[str, ...]:
    """The prefixes of all that lies in blocks."""
    found = tuple(f"{name}." for name, _ in block_lists(model))
    if not found:
        raise ValueError(f"{type(model).__name__} has no list of decoder blocks: name the layers with targets=")
    return found


def _inside(model: nn.Module, layers: Sequence[int] | None) -> tuple[str, ...]:
    """The prefixes of the chosen blocks; None chooses everything."""
    if layers is None:
        return ("",)
    name, blocks = decoder_blocks(model)
    equal = [other for other, found in block_lists(model) if len(found) == len(blocks)]
    if len(equal) > 1:
        raise ValueError(f"layers is {layers!r}, but the model has the blocks of {' and '.join(equal)}: use targets=")
    indices = list(layers)
    if not indices or any(isinstance(i, bool) or not isinstance(i, int) for i in indices):
        raise ValueError(f"layers is {layers!r}, expected None or the indices of blocks, such as range(2, 4)")
    for i in indices:
        if not 0 <= i < len(blocks):
            raise ValueError(f"layers holds {i}, expected 0 to {len(blocks) - 1}, the blocks of {name}")
    return tuple(f"{name}.{i}." for i in indices)


def check_adaptable(name: str, module: nn.Module) -> None:
    """Raises ValueError for a module that is no plain nn.Linear or Conv1D with a floating weight in memory.

    A subclass may read its weight in a forward of its own (quantised layers, nn.MultiheadAttention's out_proj).
    """
    if not is_plain(module):
        raise ValueError(
            f"{name} is a {type(module).__name__}, expected a plain nn.Linear or Conv1D: choose others with targets="
        )
    weight = module.get_parameter("weight")
    if not weight.is_floating_point() or weight.is_meta:
        found = "on the meta device" if weight.is_meta else f"of {weight.dtype}"
        raise ValueError(f"{name}.weight is {found}, expected a floating dtype and values in memory")


def check_unshared(model: nn.Module, chosen: dict[str, nn.Module]) -> None:
    """The live columns are written into the weight, and so into whatever shares it."""
    holders: dict[int, list[str]] = defaultdict(list)
    for name, parameter in model.named_parameters(remove_duplicate=False):
        holders[id(parameter)].append(name)
    for name, layer in chosen.items():
        others = [h for h in holders[id(layer.get_parameter("weight"))] if h != f"{name}.weight"]
        if others:
            raise ValueError(f"{name}.weight is tied to {others[0]}, which it would change: leave it out of targets=")


def dtype_name(dtype: torch.dtype) -> str:
    """float32 for torch.float32."""
    return str(dtype).removeprefix("torch.")
