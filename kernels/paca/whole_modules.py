"""Modules that train whole beside PaCA's columns: new heads, and those that the user names."""

import re
from collections.abc import Sequence

from torch import nn

from ..modules.blocks import block_lists

#: transformers' classes for tasks that no model is pretrained on: from_pretrained() draws their heads at random.
_NEW_HEAD = re.compile(
    r"For\w*(SequenceClassification|TokenClassification|QuestionAnswering|MultipleChoice|ImageClassification"
    r"|VideoClassification|AudioFrameClassification|AudioClassification|XVector)(Simple)?$"
)


def new_heads(model: nn.Module) -> list[str]:
    """The heads of a model for classification, question answering or multiple choice: 'classifier', 'score' ...

    They are known by the model's class, as PEFT knows them by its task_type: all of it with parameters but the base
    model; where it has no part of that name, but what holds blocks or embeddings.
    """
    if not any(_NEW_HEAD.search(kind.__name__) for kind in type(model).__mro__):
        return []
    parts = {name: module for name, module in model.named_children() if any(True for _ in module.parameters())}
    base = getattr(model, "base_model_prefix", "")
    if base in parts:
        return [name for name in parts if name != base]
    bases = [name for name, _ in block_lists(model)]
    bases += [name for name, module in model.named_modules() if any(module is words for words in embeddings(model))]
    return [name for name in parts if not any(f"{inner}.".startswith(f"{name}.") for inner in bases)]


def new_parameters(model: nn.Module) -> list[str]:
    """The parameters that are in no checkpoint, of a model from from_pretrained(): it marks those that it has loaded,
    so that what it drew at random and what the user built around the model have no mark.

    None for a model without any mark: one built from its config, or a copy. New weights inside blocks count too; rows
    that resize_token_embeddings() added have their parameter's mark.
    """
    marked = {name: getattr(p, "_is_hf_initialized", False) for name, p in model.named_parameters()}
    return [name for name, loaded in marked.items() if not loaded] if any(marked.values()) else []


def new_beside_blocks(model: nn.Module, new: list[str]) -> list[str]:
    """Those of the new parameters that are to train: outside of the blocks, no embeddings, not frozen (as
    fixed positions are)."""
    inside = tuple(f"{name}." for name, _ in block_lists(model))
    kept = {id(p) for module in embeddings(model) for p in module.parameters()}
    outside = {name: model.get_parameter(name) for name in new if not name.startswith(inside)}
    return [name for name, p in outside.items() if p.requires_grad and id(p) not in kept]


def embeddings(model: nn.Module) -> list[nn.Module]:
    """The input and output embeddings of a transformers model, or of the one inside of a model."""
    found = []
    for module in model.modules():
        for name in ("get_input_embeddings", "get_output_embeddings"):
            try:
                words = getattr(module, name)()
            except (AttributeError, NotImplementedError):
                continue
            if isinstance(words, nn.Module) and words not in found:
                found.append(words)
    return found


def named_modules(model: nn.Module, names: Sequence[str]) -> list[str]:
    """The full names of the modules that modules_to_save names, each by the end of its full name.

    Raises TypeError for a string in place of a list, ValueError for a name that the model does not have, and for a
    module without parameters or with some that cannot train.
    """
    if isinstance(names, str) or not all(isinstance(name, str) for name in names):
        raise TypeError(f"modules_to_save is {names!r}, expected a list of names, such as ['classifier']")
    with_parameters = {n: m for n, m in model.named_modules() if n and any(True for _ in m.parameters())}
    found: list[str] = []
    for wanted in names:
        hits = [name for name in with_parameters if name == wanted or name.endswith("." + wanted)]
        if not hits:
            known = ", ".join(sorted({name.rpartition(".")[2] for name in with_parameters} - set(map(str, range(999)))))
            raise ValueError(
                f"modules_to_save names {wanted!r}, which {type(model).__name__} does not have or which has no "
                f"parameters; expected names that end a module's: {known}"
            )
        found += [name for name in hits if name not in found]
    for name in found:
        for part, parameter in with_parameters[name].named_parameters():
            if not parameter.is_floating_point():
                raise ValueError(
                    f"modules_to_save names {name}, whose {part} is of {parameter.dtype}, expected a floating dtype"
                )
    return found
