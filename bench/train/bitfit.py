"""BitFit (Ben Zaken et al., 2022), of linear layers alone: their biases train, and are saved in a folder of their own.

bitfit_config.json          which checkpoint was tuned, and the length of each bias
bitfit_model.safetensors    <layer>.bias (out_features,), fp32, by their names in the plain model
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from bench.files import replace_file
from bench.methods.bitfit.eager import BitFitLinear
from bench.reading import read_object
from bench.train.formats import BITFIT, BITFIT_SHAPE
from kernels.modules.blocks import replace
from kernels.modules.plain_linear import features, is_linear

TENSORS = "bitfit_model.safetensors"


def put_bitfit(model: nn.Module, layers: Iterable[str], whole: bool) -> nn.Module:
    """Freezes the model and lets the biases of the layers of these names train; in place.

    whole: a whole checkpoint is to be saved. Raises ValueError where that would lose biases: transformers builds a
    model anew from its config, and leaves out what this has no place for.
    """
    chosen = {name: model.get_submodule(name) for name in layers}
    without = [name for name, layer in chosen.items() if getattr(layer, "bias", None) is None]
    if whole and without:
        raise ValueError(
            f"--save full: {without[0]} has no bias in {type(model).__name__}, so a whole checkpoint would lose the one"
            " that trains. Pass --save delta, or name layers that have one in targets"
        )
    model.requires_grad_(False)
    for name, layer in chosen.items():
        replace(model, name, BitFitLinear(layer, torch.float32))
    return model


def bias_layers(model: nn.Module) -> dict[str, BitFitLinear]:
    """The layers of put_bitfit by name."""
    return {name: module for name, module in model.named_modules() if isinstance(module, BitFitLinear)}


def save_bitfit(model: Any, folder: Path, whole: bool) -> None:
    """The biases alone, for load_bitfit; whole: a checkpoint of the plain model with them, in its weights' dtype, and
    the model is spent then."""
    layers = bias_layers(model)
    if whole:
        for name, layer in layers.items():
            layer.base.bias = nn.Parameter(layer.bias.detach().to(layer.weight.dtype))
            replace(model, name, layer.base)
        model.save_pretrained(folder)
        return
    biases = {f"{name}.bias": layer.bias.detach().cpu().contiguous() for name, layer in layers.items()}
    told = {
        "format": 1,
        "base_model": model.config._name_or_path,
        "biases": {name: len(bias) for name, bias in biases.items()},
    }
    folder.mkdir(parents=True, exist_ok=True)
    save_file(biases, str(folder / TENSORS), {"format": "pt"})
    replace_file(folder / BITFIT, json.dumps(told, indent=1) + "\n")


def load_bitfit(model: nn.Module, folder: Path) -> nn.Module:
    """Plain layers with the biases that save_bitfit wrote, in their weights' dtype; in place.

    Raises ValueError where the file and the model, or the file and its config, do not fit, before anything is changed.
    """
    sizes, biases = read_object(folder / BITFIT, BITFIT_SHAPE)["biases"], load_file(str(folder / TENSORS))
    modules = dict(model.named_modules())
    if odd := sorted(sizes.keys() ^ biases.keys()):
        raise ValueError(f"{odd[0]!r} is in {BITFIT if odd[0] in sizes else TENSORS} alone")
    for name, bias in biases.items():
        layer = modules.get(name.removesuffix(".bias"))
        if not name.endswith(".bias") or layer is None or not is_linear(layer):
            raise ValueError(f"{name!r} is no bias of a linear layer of {type(model).__name__}")
        _, height = features(layer)
        if tuple(bias.shape) != (height,) or sizes[name] != len(bias):
            raise ValueError(f"{name} has shape {tuple(bias.shape)}, expected ({height},)")
        if not bias.is_floating_point():
            raise ValueError(f"{name} has dtype {bias.dtype}, expected floats")
    for name, bias in biases.items():
        layer = modules[name.removesuffix(".bias")]
        held = bias.to(layer.get_parameter("weight").dtype)
        layer.register_parameter("bias", nn.Parameter(held, requires_grad=False))
    return model
