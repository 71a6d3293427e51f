"""Where in a model the blocks are, and how a layer is put in place of another."""

from torch import nn


def block_lists(model: nn.Module) -> list[tuple[str, nn.ModuleList]]:
    """The lists of blocks by name: module lists that lie in no other, of which every element has parts and parameters.

    One for most models, two for an encoder with a decoder. A list of heads (each a single linear layer) is none.
    """
    found: list[tuple[str, nn.ModuleList]] = []
    for name, module in model.named_modules():
        inner = any(name.startswith(outer + ".") for outer, _ in found)  # the experts of a block, say
        if isinstance(module, nn.ModuleList) and len(module) > 0 and not inner and all(map(_is_block, module)):
            found.append((name, module))
    return found


def _is_block(module: nn.Module | None) -> bool:
    if module is None:  # Informer's list of convolutions has one, after its last layer
        return False
    return any(True for _ in module.children()) and any(True for _ in module.parameters())


def decoder_blocks(model: nn.Module) -> tuple[str, nn.ModuleList]:
    """The name and the list of the decoder blocks: the longest list of blocks. ValueError where there is none."""
    found = block_lists(model)
    if not found:
        raise ValueError(f"{type(model).__name__} has no list of decoder blocks")
    return max(found, key=lambda item: len(item[1]))


def replace(model: nn.Module, name: str, layer: nn.Module) -> None:
    """Puts `layer` where the module called `name` is."""
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, layer)
