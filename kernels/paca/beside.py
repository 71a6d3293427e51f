"""What a model has trained beside PaCA's columns, and what a checkpoint has of it."""

from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor, nn

from .module import PaCALinear
from .whole_modules import embeddings

Shapes = dict[str, tuple[int, ...]]

_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


def parameters_beside(model: nn.Module, new: Iterable[str]) -> dict[str, nn.Parameter]:
    """Every parameter that trains and is no column, and those of these names, by their names in the plain model.

    Tied ones once. The weight under a PaCALinear never is one: its forward refuses a weight that requires grad.
    """
    new = set(new)
    layers = {name: module for name, module in model.named_modules() if isinstance(module, PaCALinear)}
    found = {}
    for name, parameter in model.named_parameters():
        owner, _, part = name.rpartition(".")
        if (owner in layers and part == "columns") or not (parameter.requires_grad or name in new):
            continue
        layer = owner.removesuffix(".base")
        if layer != owner and layer in layers:
            if part == "weight":
                continue
            name = f"{layer}.{part}"
        found[name] = parameter
    return found


def statistics(model: nn.Module) -> dict[str, Tensor]:
    """The running statistics of batch norms, which a forward in training mode changes; other buffers stay out."""
    return {
        f"{name}.{part}" if name else part: buffer
        for name, module in model.named_modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm | nn.InstanceNorm1d | nn.InstanceNorm2d)
        for part in _STATISTICS
        if isinstance(buffer := module._buffers.get(part), Tensor)
    }


def rows_of_embeddings(model: nn.Module) -> tuple[str, int] | None:
    """How many rows a transformers model's input embeddings have, with their weight's name."""
    for module in embeddings(model)[:1]:
        weight = module._parameters.get("weight")
        for name, parameter in model.named_parameters():
            if parameter is weight:
                return name, weight.shape[0]
    return None


def stored(tensor: Tensor) -> Tensor:
    """As safetensors takes it: contiguous, and alone in its storage."""
    tensor = tensor.detach().contiguous()
    return tensor if tensor.untyped_storage().nbytes() == tensor.nbytes else tensor.clone()


def find(model: nn.Module, path: Path, parameters: Shapes, buffers: Shapes) -> dict[str, Tensor]:
    """The model's own parameters and buffers of these names and shapes.

    Raises ValueError, naming the file and the parameter, where one is missing or has another shape.
    """
    found: dict[str, Tensor] = {}
    owned: dict[str, Tensor] = {**statistics(model), **dict(model.named_parameters(remove_duplicate=False))}
    for name, shape in {**parameters, **buffers}.items():
        tensor = owned.get(name)
        if tensor is None:
            raise ValueError(
                f"{path}: {name} was saved, but {type(model).__name__} has none: load onto a model of the class that "
                "was trained"
            )
        if tuple(tensor.shape) != shape:
            raise ValueError(
                f"{path}: {name} was saved with shape {shape}, but the model's has {tuple(tensor.shape)}: "
                + _advice(model, name, shape)
            )
        if tensor.is_meta:
            raise ValueError(f"{name} is on the meta device, expected values in memory")
        found[name] = tensor
    return found


def check_rows(model: nn.Module, path: Path, rows: int | None) -> None:
    """Raises ValueError where the input embeddings have fewer rows than the model had that was saved."""
    found = rows_of_embeddings(model)
    if rows is not None and found is not None and found[1] < rows:
        raise ValueError(
            f"{path}: {found[0]} had {rows} rows, but the model's has {found[1]}: call "
            f"model.resize_token_embeddings({rows}) before load_paca()"
        )


def _advice(model: nn.Module, name: str, shape: tuple[int, ...]) -> str:
    owner = model.get_submodule(name.rpartition(".")[0])
    if shape and (isinstance(owner, nn.Embedding) or any(owner is module for module in embeddings(model))):
        return f"call model.resize_token_embeddings({shape[0]}) before load_paca()"
    return "build the model as it was trained (num_labels=, say)"


@torch.no_grad()
def fill(own: dict[str, Tensor], tensors: dict[str, Tensor]) -> None:
    """Copies the saved values in."""
    for name, tensor in own.items():
        tensor.copy_(tensors[name])
