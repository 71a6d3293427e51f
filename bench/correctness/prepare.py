"""A copy made ready for the correctness check: dropouts off, biases drawn, what trains by its plain name."""

from collections.abc import Mapping
from zlib import crc32

import torch
from torch import Tensor, nn

from bench.methods.reference import ReferenceLayer
from bench.models.work import Work


def leaf_values(work: Work) -> dict[str, Tensor]:
    """What trains in an impl, in any stage, by the reference's names: views of the parameters, so that writing here
    arrives there."""
    return {canonical(name): leaf.detach() for name, leaf in work.everything}


def drawn_values(model: nn.Module, layers: Mapping[str, ReferenceLayer]) -> dict[str, Tensor]:
    """What an impl draws for itself, trained or not, by the reference's names; views, as those of leaf_values."""
    wanted = {f"{name}.{part}" for name, layer in layers.items() for part in layer.drawn}
    found = {canonical(name): parameter.detach() for name, parameter in model.named_parameters()} if wanted else {}
    return {name: value for name, value in found.items() if name in wanted}


def canonical(name: str) -> str:
    """A parameter's name without what PEFT, torch.compile and a layer around another one add to it."""
    name = ".".join(part for part in name.split(".") if part not in ("_orig_mod", "base", "base_layer"))
    for part in ("lora_A", "lora_B"):
        name = name.replace(f"{part}.default.weight", part.lower())
    return name.replace("lora_magnitude_vector.default.weight", "magnitude")


def no_dropout(model: nn.Module) -> None:
    """Turns off every dropout in a model, its own and adapters', for good. Training mode is left as it is."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        for name, value in list(vars(module).items()):
            if name.endswith("dropout") and isinstance(value, float):
                setattr(module, name, 0.0)


@torch.no_grad()
def draw_biases(model: nn.Module, seed: int) -> None:
    """Draws all biases, each by its name: built as zeros, one that is left out would not show."""
    generator = torch.Generator(next(model.parameters()).device)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            generator.manual_seed(seed + 2 + crc32(canonical(name).encode()))
            drawn = torch.randn(parameter.shape, generator=generator, dtype=torch.float32, device=parameter.device)
            parameter.copy_(0.1 * drawn)
