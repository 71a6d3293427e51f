"""What adapters hold: saved, loaded, taken off again; and LoRA's B drawn at random for timing."""

from collections.abc import Iterator, Mapping
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from bench.methods.adapt import replace
from kernels import LoRALinear, PaCALinear


def adapter_state(model: nn.Module) -> dict[str, Tensor]:
    """Copies of all adapter tensors by name: lora_a and lora_b, or columns and index, of every adapted layer.

    PaCA's pretrained columns are not among them: they are the base model's, and load_adapter_state finds them there.
    """
    state = {}
    for name, layer in _adapted(model):
        for part in _parts(layer):
            state[f"{name}.{part}"] = getattr(layer, part).detach().clone()
    return state


@torch.no_grad()
def load_adapter_state(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Loads what adapter_state gave into a model with the same base weights and the same method applied.

    PaCA's columns go where the state's index says, whatever index the model was made with. Raises ValueError before
    anything is changed where names or shapes do not fit.
    """
    layers = dict(_adapted(model))
    expected = {f"{name}.{part}": getattr(layer, part) for name, layer in layers.items() for part in _parts(layer)}
    if expected.keys() != state.keys():
        odd = ", ".join(sorted(expected.keys() ^ state.keys())[:3])
        raise ValueError(f"the adapters of model and state are not the same: {odd}")
    for name, tensor in expected.items():
        if tensor.shape != state[name].shape:
            raise ValueError(f"{name}: shape {tuple(state[name].shape)}, expected {tuple(tensor.shape)}")
    for layer in layers.values():
        if isinstance(layer, PaCALinear):
            layer.restore()
    for name, tensor in expected.items():
        tensor.copy_(state[name])
    for layer in layers.values():
        if isinstance(layer, PaCALinear):
            layer.pretrained.copy_(layer.weight.index_select(1, layer.index))
            layer.refresh()


def remove(model: nn.Module) -> None:
    """Takes all adapters off: every layer is the base module again, its weight pretrained bit for bit."""
    for name, layer in _adapted(model):
        if isinstance(layer, PaCALinear):
            layer.restore()
        else:
            layer.unmerge()
        replace(model, name, layer.base)


@torch.no_grad()
def draw_lora_b(model: nn.Module, share: float = 0.5) -> None:
    """Draws every B so that the branch s * x A^T B^T is about `share` of x W^T in root mean square.

    With B = 0, dA is 0, and half of any check or timing says nothing. For x with independent entries the two are as
    s ||B A|| to ||W|| (Frobenius), and E ||B A||^2 = std^2 N ||A||^2. At a half, outputs grow by sqrt(1.25) only and
    the norm in front of each block takes that back, so 48 blocks in fp16 stay finite. Nothing is read back from a GPU.
    """
    for weight, a, b, scale in _branches(model):
        wide = torch.promote_types(weight.dtype, torch.float32)
        norm_w, norm_a = (torch.linalg.vector_norm(t, dtype=wide) for t in (weight, a))
        std = share * norm_w / (scale * b.shape[0] ** 0.5 * norm_a)
        b.copy_(torch.randn_like(b, dtype=wide) * std)
    for layer in refreshed_layers(model):  # what an impl made of B = 0
        layer.refresh()


def _branches(model: nn.Module) -> Iterator[tuple[Tensor, Tensor, Tensor, float]]:
    """(stored weight, A, B, scale) of every LoRA layer, this project's or PEFT's, in the order of the modules."""
    for module in model.modules():
        layer: Any = module
        if isinstance(module, LoRALinear):
            yield module.stored_weight, module.lora_a, module.lora_b, module.scale
        elif hasattr(module, "lora_A") and "default" in layer.lora_A:
            a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
            yield layer.get_base_layer().weight, a, b, layer.scaling["default"]


class Refreshed(Protocol):
    """A layer that keeps something made of its trained tensors."""

    def refresh(self) -> None: ...


def refreshed_layers(model: nn.Module) -> list[Refreshed]:
    """The layers that are due for a refresh after every optimizer step: PaCA's, whose live columns lie in the weight,
    and those that say so, as a merged LoRA does. PaCA layers that need none say refresh_due = False.
    """
    due = (m for m in model.modules() if getattr(m, "refresh_due", isinstance(m, PaCALinear)))
    return [cast(Refreshed, m) for m in due]


def _adapted(model: nn.Module) -> list[tuple[str, LoRALinear | PaCALinear]]:
    return [(name, layer) for name, layer in model.named_modules() if isinstance(layer, LoRALinear | PaCALinear)]


def _parts(layer: LoRALinear | PaCALinear) -> tuple[str, str]:
    return ("columns", "index") if isinstance(layer, PaCALinear) else ("lora_a", "lora_b")
