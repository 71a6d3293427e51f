"""paca(): any transformers model under PaCA, in one call; and the ways back to a plain one."""

import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import nn

from ..modules.blocks import replace
from ..modules.plain_linear import features
from ..modules.reasons import by_reason
from .module import PaCALinear
from .target_layers import dtype_name, seed_of, target_layers
from .whole_modules import named_modules, new_beside_blocks, new_heads, new_parameters

Model = TypeVar("Model", bound=nn.Module)

#: Classes of modules whose weights are parts of flat or sharded tensors; by name, so that nothing is imported for them.
_SHARDS = {"FullyShardedDataParallel", "FSDPModule", "DeepSpeedEngine"}


@dataclass(frozen=True)
class PacaConfig:
    """What paca() was asked for; it stays with the adapted model as `paca_config`."""

    rank: int
    alpha: float
    targets: str | tuple[str, ...]
    layers: tuple[int, ...] | None
    seed: int
    adapter_dtype: torch.dtype
    modules_to_save: tuple[str, ...] = ()


def paca(
    model: Model,
    rank: int,
    alpha: float,
    *,
    targets: str | Sequence[str] = "all-linear",
    layers: Sequence[int] | None = None,
    seed: int = 0,
    adapter_dtype: torch.dtype = torch.float32,
    modules_to_save: Sequence[str] | None = None,
) -> Model:
    """Adapts the model in place and returns it: `rank` input columns of each target layer train, all else is frozen.

    targets: 'all-linear' (every nn.Linear and Conv1D inside the blocks; not the head), or names, each the end of a
    layer's full name, as PEFT's target_modules. layers: the indices of the blocks to adapt, such as range(16, 32) for
    the upper half of 32; None for all. Which columns train follows from seed and the layer's full name. The trained
    values, `columns` (out_features, rank) = weight[:, index] * rank / alpha, have adapter_dtype; the live ones stay in
    the weight.

    'all-linear' leaves aside what cannot be adapted (routers, quantised layers, tied weights, weights that the model
    reads without a call) and says so in one warning; model.paca_left has each layer's reason by its name. Such a layer
    among the names of targets is refused.

    modules_to_save, as PEFT's: the ends of names of modules that train whole, such as ['embed_tokens']. Without being
    named, the head of a transformers model for classification, question answering or multiple choice trains whole, and
    so does what is in no checkpoint outside of the blocks and embeddings (from_pretrained() drew it, or the user built
    it around the model); a warning says so. save_paca() saves all of them.

    Hooks of an adapted layer stay, and are called with the PaCALinear as their module; so are those that are put on the
    layer or its `base` later. Global module hooks see the PaCALinear in place of the linear layer.

    Nothing is to be wired: each step() of a torch optimizer that holds the columns writes them into the weights, in
    Trainer, accelerate or a loop of one's own. Optimizers that step on flattened copies (FSDP, DeepSpeed) do not hold
    them and are not supported. Columns changed in any other way that torch can see, .data included, are written by the
    next forward; what goes through numpy or raw pointers is not seen, and needs refresh() of the layer. Under
    torch.compile only an optimizer's step writes them. Weight decay would pull pretrained weights to zero: a step sets
    it to 0 for a group of columns, with a warning, and a group with other parameters beside them is refused with a
    ValueError (see parameter_groups). A step warns of columns that get no gradient.

    state_dict() and save_pretrained() give a checkpoint of the plain model with the trained weights inside, from which
    an adapted model also resumes exactly; save_paca() writes the trained values alone. A pickle of the whole model
    (torch.save(model)) needs this library to be read: hand on merge_paca()'s model, or save_paca()'s folder.

    Raises ValueError or TypeError, naming the argument or the layer, or RuntimeError inside torch.inference_mode(),
    before anything is changed.
    """
    if paca_layers(model):
        raise ValueError("the model is under paca() already: call merge_paca(model) or remove_paca(model) first")
    if hasattr(model, "peft_config"):
        raise ValueError("the model has PEFT adapters: call merge_and_unload() or unload() on it first")
    if torch.is_inference_mode_enabled():
        raise RuntimeError(
            "paca() was called inside torch.inference_mode(), whose tensors cannot train: call it outside"
        )
    check_bare(model)
    asked = named_modules(model, modules_to_save or ())
    new = new_parameters(model)
    heads, drawn = new_heads(model), new_beside_blocks(model, new)
    whole = list(dict.fromkeys([*heads, *(name.rpartition(".")[0] or name for name in drawn)]))
    chosen, left = target_layers(model, targets, layers, [*asked, *whole])
    config = PacaConfig(
        rank=rank,
        alpha=alpha,
        targets=targets if isinstance(targets, str) else tuple(targets),
        layers=None if layers is None else tuple(layers),
        seed=seed,
        adapter_dtype=adapter_dtype,
        modules_to_save=tuple(modules_to_save or ()),
    )
    check(config, chosen)
    adapt(model, config, chosen, lambda name: {"seed": seed_of(name, seed)}, left, new)
    for name in (*asked, *heads):
        for parameter in model.get_submodule(name).parameters():
            parameter.requires_grad_(parameter.is_floating_point())
    for name in drawn:
        model.get_parameter(name).requires_grad_(True)
    if whole := [name for name in whole if name not in asked]:
        warnings.warn(
            f"{', '.join(whole)} of {type(model).__name__} is new, as heads are: it trains whole, beside PaCA's "
            "columns, and save_paca() saves it. Where it is to stay as it is, call its requires_grad_(False)",
            stacklevel=2,
        )
    if left:
        lines = "\n  ".join(by_reason(left))
        warnings.warn(f"paca() left {len(left)} linear layers of the blocks as they are:\n  {lines}", stacklevel=2)
    return model


def check_bare(model: nn.Module) -> None:
    """Raises ValueError for a wrapped model, and for one that a library has sharded."""
    if unwrapped(model) is not model:
        raise ValueError(f"the model is wrapped in {type(model).__name__}: call paca() before wrapping it")
    for name, module in model.named_modules():
        if kinds := _SHARDS.intersection(kind.__name__ for kind in type(module).__mro__):
            where = f"{name} is" if name else "the model is"
            raise ValueError(f"{where} under {min(kinds)}, which does not keep whole weights: PaCA does not work there")


def check(config: PacaConfig, chosen: dict[str, nn.Module]) -> None:
    """Raises ValueError or TypeError, naming the argument, where the chosen layers cannot be adapted so."""
    rank, alpha, dtype = config.rank, config.alpha, config.adapter_dtype
    if isinstance(rank, bool) or not isinstance(rank, int) or rank < 1:
        raise ValueError(f"rank is {rank!r}, expected an int of at least 1")
    if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not 0 < alpha <= sys.float_info.max:
        raise ValueError(f"alpha is {alpha!r}, expected a positive number")
    if isinstance(config.seed, bool) or not isinstance(config.seed, int):
        raise TypeError(f"seed is {config.seed!r}, expected an int")
    for name, layer in chosen.items():
        weight = layer.get_parameter("weight")
        width, _ = features(layer)
        if rank > width:
            raise ValueError(f"rank is {rank}, but {name} has {width} input columns only")
        if dtype not in (torch.float32, weight.dtype):
            valid = " or ".join(dict.fromkeys(("float32", dtype_name(weight.dtype))))
            raise TypeError(f"adapter_dtype is {dtype}, expected torch.{valid} for {name}")


def adapt(
    model: nn.Module,
    config: PacaConfig,
    chosen: dict[str, nn.Module],
    columns: Callable[[str], dict[str, Any]],
    left: dict[str, str],
    new: list[str],
) -> None:
    """Freezes the model and puts a layer that follows its optimizer in place of each chosen one.

    columns gives, by a layer's name, the seed or the index of its columns; left and new stay with the model, for its
    user and for save_paca(), which saves the parameters that `new` names, frozen or not. Nothing is changed where a
    layer fails.
    """
    flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    adapters = {}
    try:
        for name, layer in chosen.items():
            made = PaCALinear(layer, config.rank, config.alpha, adapter_dtype=config.adapter_dtype, **columns(name))
            adapters[name] = made.train(layer.training)
    except BaseException:
        for parameter, flag in flags:
            parameter.requires_grad_(flag)
        raise
    model.requires_grad_(False)
    for name, adapter in adapters.items():
        adapter.follow(name)
        replace(model, name, adapter)
    model.paca_config, model.paca_left, model.paca_new = config, left, new  # type: ignore[assignment]
    # DistributedDataParallel would broadcast these buffers in every forward, and they never change.
    kept = getattr(model, "_ddp_params_and_buffers_to_ignore", [])
    buffers = [f"{name}.{buffer}" for name in chosen for buffer in ("index", "pretrained")]
    model._ddp_params_and_buffers_to_ignore = [*kept, *buffers]  # type: ignore[assignment]


def merge_paca(model: Model) -> Model:
    """Plain layers again, with the trained weights; in place. What was frozen stays so: requires_grad_() thaws it.

    Raises ValueError where the model is not under paca().
    """
    return _unwrap(model, _merged)


def remove_paca(model: Model) -> Model:
    """Plain layers again, with the pretrained weights, bit for bit; in place. What was frozen stays so.

    Of what trained beside the columns (a head, modules_to_save) no copy is kept: it stays as it was trained.
    Raises ValueError where the model is not under paca().
    """
    return _unwrap(model, PaCALinear.restore)


def _merged(layer: PaCALinear) -> nn.Module:
    layer.refresh()
    return layer.base


def _unwrap(model: Model, plain: Callable[[PaCALinear], nn.Module]) -> Model:
    inner = unwrapped(model)
    layers = adapted(inner)
    for name, layer in layers.items():
        replace(inner, name, plain(layer).train(layer.training))
    if hasattr(inner, "paca_config"):
        del inner.paca_config, inner.paca_left, inner.paca_new
        ours = {f"{name}.{buffer}" for name in layers for buffer in ("index", "pretrained")}
        ignored: Any = inner._ddp_params_and_buffers_to_ignore
        kept = [name for name in ignored if name not in ours]
        inner._ddp_params_and_buffers_to_ignore = kept  # type: ignore[assignment]
        if not kept:
            del inner._ddp_params_and_buffers_to_ignore
    return model


def paca_layers(model: nn.Module) -> dict[str, PaCALinear]:
    """The adapted layers by their full names."""
    return {name: module for name, module in model.named_modules() if isinstance(module, PaCALinear)}


def adapted(model: nn.Module) -> dict[str, PaCALinear]:
    """The same, of a model that has some. Raises ValueError where it has none."""
    found = paca_layers(model)
    if not found:
        raise ValueError(f"{type(model).__name__} has no PaCA layers, expected a model that paca() has adapted")
    return found


def unwrapped(model: nn.Module) -> nn.Module:
    """The model inside of torch.compile's, DataParallel's and DistributedDataParallel's wrappers."""
    if isinstance(model, nn.parallel.DistributedDataParallel | nn.DataParallel):
        return unwrapped(model.module)
    compiled = model._modules.get("_orig_mod")
    return model if compiled is None else unwrapped(compiled)
