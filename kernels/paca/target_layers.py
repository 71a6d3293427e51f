"""Where PaCA's layers are in a model, and the seed of each layer's columns."""

import hashlib
from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import nn

from ..modules.blocks import block_lists, decoder_blocks
from ..modules.plain_linear import forward_replaced, is_linear, is_plain, read_raw, weight_reason
from ..modules.reasons import by_reason


def seed_of(name: str, seed: int = 0) -> int:
    """The seed of a layer's columns: 63 bits of a hash of `seed` and its full name, the same on every machine."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{name}".encode()).digest()[:8], "big") >> 1


def target_layers(
    model: nn.Module, targets: str | Sequence[str], layers: Sequence[int] | None, kept: Sequence[str] = ()
) -> tuple[dict[str, nn.Module], dict[str, str]]:
    """The linear layers that `targets` and `layers` choose, by their full names, in the model's order; and those that
    'all-linear' leaves aside, each with its reason.

    targets and layers are those of paca(); kept: the names of modules that train whole, whose layers are not chosen.
    Raises ValueError where a target or an index chooses nothing, where a named layer cannot be adapted, and where none
    remains.
    """
    names = None if targets == "all-linear" else [targets] if isinstance(targets, str) else list(targets)
    inside = _blocks(model) if layers is None and names is None else _inside(model, layers)
    found: dict[str, nn.Module] = {}
    missing = set(names or ())
    for name, module in model.named_modules():
        hits = {target for target in names or () if name == target or name.endswith("." + target)}
        missing -= hits
        taken = is_linear(module) if names is None else bool(hits)
        if taken and name.startswith(inside) and not f"{name}.".startswith(tuple(f"{k}." for k in kept)):
            found[name] = module
    if missing:
        known = sorted({name.rpartition(".")[2] for name, module in model.named_modules() if is_linear(module)})
        raise ValueError(
            f"targets names {min(missing)!r}, which {type(model).__name__} does not have; "
            f"expected 'all-linear' or names that end a linear layer's: {', '.join(known) or 'it has none'}"
        )
    if not found:
        beside = f", beside {', '.join(kept)}, which trains whole," if kept else ""
        raise ValueError(
            f"targets {targets!r} with layers {layers!r} choose no linear layer of {type(model).__name__}{beside}"
        )
    if names is not None:
        check_adaptable(model, found)
        return found, {}
    left = _unfit(model, found, name_ties=False)  # without, so that they are one reason
    chosen = {name: module for name, module in found.items() if name not in left}
    if not chosen:
        raise ValueError(f"no linear layer of {type(model).__name__} can be adapted: {'; '.join(by_reason(left))}")
    _check_forwards(chosen)
    return chosen, left


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


def check_adaptable(model: nn.Module, chosen: dict[str, nn.Module]) -> None:
    """Raises ValueError, naming the layer, for a chosen one that PaCA's layer cannot stand in for."""
    for name, reason in _unfit(model, chosen, name_ties=True).items():
        raise ValueError(f"{name} cannot be adapted: {reason}. Choose other layers with targets=")
    _check_forwards(chosen)


def _check_forwards(chosen: dict[str, nn.Module]) -> None:
    """Raises ValueError for a layer whose forward was replaced on the instance. It is refused, and never left aside: it
    is the work of some other library, which PaCA's layer would pass by."""
    for name, layer in chosen.items():
        if forward_replaced(layer):
            raise ValueError(
                f"{name} has a forward of its own, put on this one layer by another library (accelerate's offloading, "
                "say), which PaCA's layer would pass by: take it off before paca()"
            )


def _unfit(model: nn.Module, found: dict[str, nn.Module], name_ties: bool) -> dict[str, str]:
    """Which of these layers cannot be adapted, and why; name_ties: with the name that a weight is tied to."""
    tied, unfit = _tied(model), {}
    for name, layer in found.items():
        reason = _reason(model, name, layer)
        if reason is None and name in tied:
            other = tied[name] if name_ties else "another's"
            reason = f"its weight is tied to {other}, which it would change"
        if reason is not None:
            unfit[name] = reason
    return unfit


def _reason(model: nn.Module, name: str, layer: nn.Module) -> str | None:
    """Why a layer's weight does not stand for its calls; None where it does."""
    if not is_plain(layer):
        return f"it is a {type(layer).__name__}, expected a plain nn.Linear or Conv1D"
    parent, _, child = name.rpartition(".")
    holder = model.get_submodule(parent)
    if read_raw(holder, child):
        return f"{type(holder).__name__} reads its weight in place of calling it, so its columns would get no gradient"
    return weight_reason(layer)


def _tied(model: nn.Module) -> dict[str, str]:
    """The layers whose weight is another's too, or that are in the model twice, each with one of the other names.

    The live columns are written into the weight, and so into whatever shares it.
    """
    holders: dict[int, list[str]] = defaultdict(list)
    for name, parameter in model.named_parameters(remove_duplicate=False):
        holders[id(parameter)].append(name)
    shared = [names for names in holders.values() if len(names) > 1]
    return {
        name.removesuffix(".weight"): next(other for other in names if other != name)
        for names in shared
        for name in names
    }


def dtype_name(dtype: torch.dtype) -> str:
    """float32 for torch.float32."""
    return str(dtype).removeprefix("torch.")
