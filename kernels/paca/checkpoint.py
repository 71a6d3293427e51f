"""The delta checkpoint of paca(): the trained columns of every layer, and what trained beside them; no more.

paca_config.json          what paca() was asked for, the base model's name, every layer's shape
paca_model.safetensors    <layer>.columns (out_features, rank) and <layer>.index (rank,) int64; every other parameter
                          that trained, and the running statistics of batch norms, by their names in the plain model

Format 1 had columns alone.
"""

import json
import os
from collections.abc import Iterable
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..modules.plain_linear import features, is_linear
from ..runtime.checks import FLOATING, check_index_values
from ..runtime.files import write_atomically
from .beside import check_rows, fill, find, parameters_beside, rows_of_embeddings, statistics, stored
from .config_file import FORMAT, parse, plain, read_described, understood
from .model import PacaConfig, adapt, adapted, check, check_bare, merge_paca, paca_layers, unwrapped
from .module import PaCALinear
from .target_layers import check_adaptable, dtype_name
from .whole_modules import new_parameters

CONFIG, TENSORS = "paca_config.json", "paca_model.safetensors"


def save_paca(model: nn.Module, folder: str | os.PathLike[str], *, merged: bool = False) -> None:
    """Writes what has trained to `folder`, for load_paca(); the folder is made where there is none.

    That is the columns, every other parameter with requires_grad (heads, embeddings, thawed biases and norms; tied ones
    once), parameters that from_pretrained() did not find in the base model's checkpoint, and the running statistics of
    batch norms. Other buffers, and parameters that were changed while frozen, stay out: rows that
    resize_token_embeddings() added to embeddings are saved where those train (modules_to_save of paca()).

    merged=True writes a full checkpoint of the plain transformers model instead, with the trained weights, as its
    save_pretrained() does; the model in memory stays as it is. Each file is complete or not there at all, and a pair
    that two saves left is refused by load_paca(). Raises ValueError where the model is not under paca().
    """
    from safetensors.torch import save_file

    model = unwrapped(model)
    layers = adapted(model)
    for layer in layers.values():
        layer.refresh()
    folder = Path(folder)
    if merged:
        _save_merged(model, layers, folder)
        return
    config = getattr(model, "paca_config", None)
    if config is None:
        raise ValueError("the model has PaCALinear layers, but no paca_config: save_paca() saves what paca() adapted")
    beside = parameters_beside(model, [*getattr(model, "paca_new", ()), *new_parameters(model)])
    changed = statistics(model)
    described = _described(model, config, layers)
    for key, found in (("parameters", beside), ("statistics", changed)):
        described[key] = {name: list(tensor.shape) for name, tensor in found.items()}
    described["frozen"] = [name for name, parameter in beside.items() if not parameter.requires_grad]
    written = json.dumps(described, indent=2)
    tensors = {name: stored(tensor) for name, tensor in (*beside.items(), *changed.items())}
    for name, layer in layers.items():
        tensors[f"{name}.columns"] = stored(layer.columns).to(_dtype_of(layers, config))
        tensors[f"{name}.index"] = stored(layer.index)
    folder.mkdir(parents=True, exist_ok=True)
    metadata = {"format": "pt", "paca_config": written}
    write_atomically(folder / TENSORS, lambda path: save_file(tensors, path, metadata))
    write_atomically(folder / CONFIG, lambda path: path.write_text(written, encoding="utf-8"))


def _save_merged(model: nn.Module, layers: dict[str, PaCALinear], folder: Path) -> None:
    save = getattr(model, "save_pretrained", None)
    if save is None:
        raise TypeError(f"model is a {type(model).__name__}, expected a transformers model for merged=True")
    ours = {f"{name}.{part}" for name in layers for part in ("columns", "index", "pretrained")}
    save(str(folder), state_dict={name: t for name, t in model.state_dict().items() if name not in ours})


def _described(model: nn.Module, config: PacaConfig, layers: dict[str, PaCALinear]) -> dict[str, Any]:
    base = getattr(getattr(model, "config", None), "_name_or_path", None)
    words = rows_of_embeddings(model)
    return {
        "format": FORMAT,
        "base_model": base or None,
        "architecture": type(model).__name__,
        "num_labels": getattr(getattr(model, "config", None), "num_labels", None),
        **asdict(config),
        "adapter_dtype": dtype_name(_dtype_of(layers, config)),
        "embedding_rows": None if words is None else words[1],
        "shapes": {name: {"in": layer.in_features, "out": layer.out_features} for name, layer in layers.items()},
    }


def _dtype_of(layers: dict[str, PaCALinear], config: PacaConfig) -> torch.dtype:
    """That of all columns: another than paca() gave them where the model has been cast since."""
    found = {layer.columns.dtype for layer in layers.values()}
    return found.pop() if len(found) == 1 else config.adapter_dtype


def load_paca(model: nn.Module | str, folder: str | os.PathLike[str], *, trainable: bool = True) -> Any:
    """What save_paca() wrote to `folder`, on the base model it was trained from; returns the model, adapted in place.

    model: the base model, or a path or hub id that transformers' from_pretrained takes. What trained beside the columns
    is put into its parameters (their dtype stays), whatever a new head held, and trains on. trainable=False gives plain
    layers with the trained weights, frozen, in evaluation mode. Raises ValueError, naming the file and the layer or the
    parameter, before the model is changed where the two do not fit, in dtype too, or a field is none that save_paca()
    writes; FileNotFoundError where a file is missing. Values are not looked at: NaN is loaded as NaN.
    """
    folder = Path(folder)
    described, tensors = _read(folder)
    config, shapes, others = understood(folder / CONFIG, described)
    if not isinstance(model, nn.Module):
        model = _from_pretrained(os.fspath(model), described.get("architecture"), described.get("num_labels"))
    if paca_layers(model) or unwrapped(model) is not model:
        raise ValueError("the model is under paca() or wrapped already, expected the plain base model")
    check_bare(model)
    chosen = _layers(model, shapes, folder / CONFIG)
    check_adaptable(model, chosen)
    _check_widths(folder / CONFIG, shapes, chosen)
    check(config, chosen)
    check_rows(model, folder / CONFIG, others.embedding_rows)
    own = find(model, folder / CONFIG, others.parameters, others.statistics)
    training = others.parameters.keys() - others.frozen
    for name in sorted(training):
        if not (own[name].is_floating_point() or own[name].is_complex()):
            raise ValueError(
                f"{folder / CONFIG}: {name} has dtype {own[name].dtype} and cannot train, yet is not frozen"
            )
    _check_tensors(folder / TENSORS, config, shapes, own, tensors)
    adapt(model, config, chosen, lambda name: {"index": tensors[f"{name}.index"]}, {}, list(others.frozen))
    fill(own, tensors)
    for name in training:
        own[name].requires_grad_(True)
    with torch.no_grad():
        for name, layer in paca_layers(model).items():
            layer.columns.copy_(tensors[f"{name}.columns"])
            layer.refresh()
    return model if trainable else merge_paca(model).requires_grad_(False).eval()


def _read(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The configuration and the tensors of one save."""
    from safetensors import SafetensorError, safe_open

    for name in (CONFIG, TENSORS):
        path, expected = folder / name, "expected what save_paca(model, folder) writes"
        if not path.exists():
            raise FileNotFoundError(f"{path} is missing, {expected}")
        if not path.is_file():  # a pipe would be waited at, a device read for ever
            raise ValueError(f"{path} is no plain file, {expected}")
    described = read_described(folder / CONFIG)
    try:
        with safe_open(str(folder / TENSORS), "pt") as file:
            same = parse((file.metadata() or {}).get("paca_config", "null"), folder / TENSORS) == described
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, it is no dictionary
    except SafetensorError as error:
        raise ValueError(f"{folder / TENSORS} cannot be read: {plain(str(error))}") from error
    if not same:
        raise ValueError(f"{folder / TENSORS} was saved with another {CONFIG} than the one beside it: save both again")
    return described, tensors


def _layers(model: nn.Module, names: Iterable[str], path: Path) -> dict[str, nn.Module]:
    """The model's layers of these names, which are not those of its properties: `base_model` is another word for one
    of its modules."""
    modules = dict(model.named_modules())
    for name in names:
        if name not in modules:
            known = ", ".join([n for n, module in modules.items() if is_linear(module)][:3]) or "none"
            raise ValueError(
                f"{path}: {name} is no layer of {type(model).__name__}, whose linear layers are {known} ..."
            )
    return {name: modules[name] for name in names}


def _check_widths(path: Path, shapes: dict[str, tuple[int, int]], chosen: dict[str, nn.Module]) -> None:
    """Raises ValueError for a layer that has not the (in_features, out_features) it was saved with."""
    for name, layer in chosen.items():
        found = features(layer)
        if found != shapes[name]:
            raise ValueError(f"{path}: {name} has (in, out) features {shapes[name]}, but the model's has {found}")


def _check_tensors(
    path: Path,
    config: PacaConfig,
    shapes: dict[str, tuple[int, int]],
    own: dict[str, Tensor],
    tensors: dict[str, Tensor],
) -> None:
    """Raises ValueError where the file lacks a tensor, has one too many, or one of another shape or dtype: a cast would
    go unseen, and what it loses with it. own: the model's, of what trained beside columns; those keep their own dtype,
    so that another precision, of 16 bits or more, will do."""
    expected = {f"{name}.{part}" for name in shapes for part in ("columns", "index")} | own.keys()
    if odd := sorted(expected ^ tensors.keys()):
        raise ValueError(f"{path}: {plain(odd[0])} is {'missing' if odd[0] in expected else 'not expected'}")
    for name, tensor in own.items():
        _check_tensor(path, name, tensors[name], tuple(tensor.shape), tensor.dtype)
    for name, (width, height) in shapes.items():
        columns, index = f"{name}.columns", f"{name}.index"
        _check_tensor(path, columns, tensors[columns], (height, config.rank), config.adapter_dtype, exactly=True)
        _check_tensor(path, index, tensors[index], (config.rank,), torch.int64, exactly=True)
        try:
            check_index_values(tensors[index], width)
        except ValueError as error:
            raise ValueError(f"{path}: {name}.{error}") from error
        if not tensors[index].equal(tensors[index].sort().values):  # PaCALinear sorts it: columns would change places
            raise ValueError(f"{path}: {index} is not in ascending order, as save_paca() writes it")


def _check_tensor(
    path: Path, name: str, found: Tensor, shape: tuple[int, ...], dtype: torch.dtype, exactly: bool = False
) -> None:
    if tuple(found.shape) != shape:
        raise ValueError(f"{path}: {name} has shape {tuple(found.shape)}, expected {shape}")
    alike = found.dtype in FLOATING and dtype in FLOATING and not exactly
    if found.dtype != dtype and not alike:
        raise ValueError(f"{path}: {name} has dtype {found.dtype}, expected {dtype}")


def _from_pretrained(name: str, architecture: str | None, labels: int | None) -> nn.Module:
    """The model in its weights' dtype, of the class and with the number of labels that were trained, which its own
    config need not have."""
    transformers = import_module("transformers")
    config = transformers.AutoConfig.from_pretrained(name, trust_remote_code=False)
    own = getattr(transformers, (config.architectures or [""])[0], transformers.AutoModelForCausalLM)
    kind = getattr(transformers, architecture or "", own)
    of_models = isinstance(kind, type) and issubclass(kind, transformers.PreTrainedModel)
    if not of_models or kind.forward is nn.Module.forward:  # LlamaPreTrainedModel is a base, and no model
        kind = own  # a checkpoint may name anything
    more = {"num_labels": labels} if labels not in (None, config.num_labels) else {}
    return kind.from_pretrained(name, dtype="auto", trust_remote_code=False, **more)
