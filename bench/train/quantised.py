"""A base of 4 bits under what trains: QLoRA's in bitsandbytes' layers, QPaCA's in this project's own NF4.

Every linear layer of the blocks is quantised, whichever of them are tuned; embeddings, norms and head keep their dtype.
The layer that was there stays beside the quantised one, without its values, so that a plain model can be made again.

qpaca_config.json          which checkpoint was tuned, rank and alpha, and (in, out) features of each tuned layer
qpaca_model.safetensors    <layer>.columns (out_features, rank), fp32, and <layer>.index (rank,) int64
"""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from bench.files import replace_file
from bench.methods.adapt import decoder_blocks, replace
from bench.methods.qlora.format import odd_rows
from bench.methods.qlora.layer import NF4Linear
from bench.methods.qpaca.eager import QPaCALinear
from bench.reading import read_object
from bench.train.formats import QPACA, QPACA_SHAPE
from kernels.modules.plain_linear import features, is_conv1d, is_linear
from kernels.paca.target_layers import seed_of

TENSORS = "qpaca_model.safetensors"


def _quantise(model: nn.Module, device: torch.device | str, make: Callable[[str, nn.Module], nn.Module]) -> None:
    """Puts make(name, layer) in place of each linear layer of the blocks, one after the other on `device`, so that no
    more than one of them is there in full."""
    name, blocks = decoder_blocks(model)
    found = [(f"{name}.{inner}", layer) for inner, layer in blocks.named_modules() if is_linear(layer)]
    for full, layer in found:
        quantised = make(full, layer.to(device)).train(layer.training)
        setattr(quantised, "plain", (layer,))  # noqa: B010  # a tuple, so that it is no submodule
        layer.get_parameter("weight").data = torch.empty(0, dtype=layer.get_parameter("weight").dtype)
        replace(model, full, quantised)
    model.requires_grad_(False)


def quantise_qlora(model: nn.Module, device: torch.device | str, computed: torch.dtype) -> None:
    """bitsandbytes' Linear4bit in NF4 with double quantisation, which multiplies in the dtype `computed`; in place.

    Raises ValueError where bitsandbytes cannot hold a layer on that device.
    """
    from bench.methods.qlora.peft import linear_4bit

    def make(name: str, layer: nn.Module) -> nn.Module:
        if why := odd_rows(name, features(layer)[0], str(device)):
            raise ValueError(why)
        found = linear_4bit(layer, computed)
        if found.bias is not None:  # which forward casts to `computed`, for good
            found.bias = nn.Parameter(found.bias.detach().clone(), requires_grad=False)
        # On some CPUs it would be packed anew for inference, in bf16 and only of widths that 64 divides.
        found.support_avx512bf16_for_cpu = False
        return found

    _quantise(model, device, make)
    setattr(model, "is_loaded_in_4bit", True)  # noqa: B010  # by which PEFT knows


def merge_qlora(tuned: Any) -> Any:
    """transformers' plain model with dequantised weights, the branches of PEFT's model inside of them; in place."""
    from bitsandbytes.functional import dequantize_4bit
    from peft.tuners.lora import LoraLayer

    model = tuned.get_base_model()
    for name, module in list(model.named_modules()):
        branch: Any = module if isinstance(module, LoraLayer) else None
        layer: Any = branch.base_layer if branch else module
        if not hasattr(layer, "plain") or name.endswith(".base_layer"):
            continue
        weight = dequantize_4bit(layer.weight.data, layer.weight.quant_state).float()
        replace(model, name, _plain(layer, weight + branch.get_delta_weight("default") if branch else weight))
    return model


def put_qpaca(
    model: nn.Module, layers: Iterable[str], rank: int, alpha: float, device: torch.device | str, seed: int = 0
) -> nn.Module:
    """Live columns in fp32, of the layers of these names, over a base in NF4; in place. Which they are follows from the
    seed and the name. Raises ValueError where a layer has fewer columns than rank."""
    chosen = set(layers)

    def make(name: str, layer: nn.Module) -> nn.Module:
        if name not in chosen:
            return NF4Linear(layer)
        return QPaCALinear(layer, rank, alpha, seed=seed_of(name, seed), adapter_dtype=torch.float32)

    for name in chosen:
        if rank > (width := features(model.get_submodule(name))[0]):
            raise ValueError(f"rank is {rank}, but {name} has {width} input columns only")
    _quantise(model, device, make)
    for layer in qpaca_layers(model).values():
        layer.columns.requires_grad_(True)
    return model


def qpaca_layers(model: nn.Module) -> dict[str, QPaCALinear]:
    """The layers with live columns, by name."""
    return {name: module for name, module in model.named_modules() if isinstance(module, QPaCALinear)}


def save_qpaca(model: Any, folder: Path, whole: bool) -> None:
    """The live columns alone, for load_qpaca; whole: a checkpoint of plain, dequantised weights with the columns in
    them, and the model is spent then."""
    layers = qpaca_layers(model)
    if whole:
        for name, module in list(model.named_modules()):
            if hasattr(module, "plain"):
                replace(model, name, _plain(module, module.weight))
        model.save_pretrained(folder)
        return
    first = next(iter(layers.values()))
    tensors = {f"{name}.columns": layer.columns.detach().cpu().contiguous() for name, layer in layers.items()}
    tensors |= {f"{name}.index": layer.index.cpu() for name, layer in layers.items()}
    told = {
        "format": 1,
        "base_model": model.config._name_or_path,
        "rank": first.rank,
        "alpha": first.alpha,
        "layers": {name: list(reversed(layer.base.shape)) for name, layer in layers.items()},
    }
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, str(folder / TENSORS), {"format": "pt"})
    replace_file(folder / QPACA, json.dumps(told, indent=1) + "\n")


def load_qpaca(model: nn.Module, folder: Path, device: torch.device | str) -> nn.Module:
    """The model over a base in NF4 with the columns that save_qpaca wrote, frozen; in place.

    Raises ValueError where the files and the model do not fit, before anything is changed.
    """
    told, tensors = read_object(folder / QPACA, QPACA_SHAPE), load_file(str(folder / TENSORS))
    rank, shapes, modules = told["rank"], told["layers"], dict(model.named_modules())
    expected = {f"{name}.{part}" for name in shapes for part in ("columns", "index")}
    if odd := sorted(expected ^ tensors.keys()):
        where = f"missing in {TENSORS}" if odd[0] in expected else f"in {TENSORS} and not in {QPACA}"
        raise ValueError(f"{odd[0]!r} is {where}")
    name, blocks = decoder_blocks(model)
    inside = {f"{name}.{inner}" for inner, layer in blocks.named_modules() if is_linear(layer)}
    for layer, shape in shapes.items():
        if layer not in inside:
            raise ValueError(f"{layer!r} is no linear layer of a block of {type(model).__name__}")
        width, height = features(modules[layer])
        if [width, height] != shape:
            raise ValueError(f"{layer} has (in, out) features {shape}, but the model's has {[width, height]}")
        columns, index = tensors[f"{layer}.columns"], tensors[f"{layer}.index"]
        if tuple(columns.shape) != (height, rank) or columns.dtype != torch.float32:
            raise ValueError(f"{layer}.columns is {columns.dtype} {tuple(columns.shape)}, expected ({height}, {rank})")
        if tuple(index.shape) != (rank,) or index.dtype != torch.int64:
            raise ValueError(f"{layer}.index is {index.dtype} {tuple(index.shape)}, expected int64 ({rank},)")
        if int(index.min()) < 0 or int(index.max()) >= width or len(index.unique()) != rank:
            raise ValueError(f"{layer}.index does not hold {rank} different columns of {width}")
    put_qpaca(model, shapes, rank, told["alpha"], device)
    for layer, module in qpaca_layers(model).items():
        module.columns.data.copy_(tensors[f"{layer}.columns"])
        module.index.copy_(tensors[f"{layer}.index"])
    return model.requires_grad_(False)


def _plain(layer: Any, weight: torch.Tensor) -> nn.Module:
    """The layer that was there before it was quantised, with this weight (N, K) in its own dtype and layout."""
    plain: nn.Module = layer.plain[0]
    held = plain.get_parameter("weight")
    held.data = (weight.t() if is_conv1d(plain) else weight).detach().to(held.dtype).contiguous()
    return plain
