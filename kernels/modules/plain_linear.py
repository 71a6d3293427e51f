"""Which modules are y = x W^T + b and nothing else, so that their weight can be read in place of a call."""

from torch import nn

#: Subclasses of nn.Linear in transformers whose forward writes x W^T + b in words of its own, and does nothing else.
#: They are known by name: what a forward computes cannot be seen from outside, and transformers is not imported here.
_SAME_BY_NAME = {"FalconLinear"}


def is_conv1d(module: nn.Module) -> bool:
    """Whether it is transformers' Conv1D, whose weight is stored (in, out); by its name: nothing is imported for it."""
    return type(module).__name__ == "Conv1D" and hasattr(module, "nf")


def is_linear(module: nn.Module) -> bool:
    """Whether it is a linear layer of some kind, quantised ones and routers included."""
    return isinstance(module, nn.Linear) or is_conv1d(module)


def is_plain(module: nn.Module) -> bool:
    """Whether its class computes y = x W^T + b. A subclass may read its weight in a forward of its own (quantised
    layers, routers), or be read raw by its parent (nn.MultiheadAttention's out_proj)."""
    kind = type(module)
    known = kind.__name__ in _SAME_BY_NAME and kind.__module__.startswith("transformers")
    return kind is nn.Linear or is_conv1d(module) or (known and isinstance(module, nn.Linear))


def watched(module: nn.Module) -> bool:
    """Whether someone counts on this module being called: hooks, or a forward replaced on the instance."""
    return bool(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
        or "forward" in module.__dict__
    )
