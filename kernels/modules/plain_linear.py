"""Which modules are y = x W^T + b and nothing else, so that their weight can be read in place of a call."""

from typing import Any

from torch import Tensor, nn

#: Subclasses of nn.Linear in transformers whose forward writes x W^T + b in words of its own, and does nothing else.
#: They are known by name: what a forward computes cannot be seen from outside, and transformers is not imported here.
_SAME_BY_NAME = {"FalconLinear"}

#: Layers that transformers' models do not call, or not always, by the class of the module that holds them: a fused
#: kernel, or an expression of the model's own, takes their weight (found in modeling_*.py of transformers 5.23).
_READ_RAW = {
    **dict.fromkeys(("MambaMixer", "FalconMambaMixer"), ("x_proj", "dt_proj", "out_proj")),
    "JambaMambaMixer": ("dt_proj",),
    **dict.fromkeys(
        (
            "Mamba2Mixer", "BambaMixer", "FalconH1Mixer", "GraniteMoeHybridMambaLayer", "NemotronHMamba2Mixer",
            "Zamba2MambaMixer",
        ),
        ("out_proj",),
    ),
    "WavLMAttention": ("q_proj", "k_proj", "v_proj", "out_proj"),
    "Gemma3nTextAltUp": ("prediction_coefs", "correction_coefs"),
    "LongcatFlashTopkRouter": ("classifier",),
    "TDNNLayer": ("kernel",),
    "DetrMHAttentionMap": ("k_proj",),
    "ConditionalDetrMHAttentionMap": ("k_proj",),
    "MaskFormerDetrMHAttentionMap": ("k_proj",),
    "DabDetrMHAttentionMap": ("k_linear",),
}  # fmt: skip


def is_conv1d(module: nn.Module) -> bool:
    """Whether it is transformers' Conv1D, whose weight is stored (in, out); by its name: nothing is imported for it."""
    return type(module).__name__ == "Conv1D" and hasattr(module, "nf")


def features(layer: nn.Module) -> tuple[int, int]:
    """(in, out) of a plain linear layer, whichever way round its weight is stored."""
    n, k = layer.get_parameter("weight").shape
    return (n, k) if is_conv1d(layer) else (k, n)


def is_linear(module: nn.Module) -> bool:
    """Whether it is a linear layer of some kind, quantised ones and routers included."""
    return isinstance(module, nn.Linear) or is_conv1d(module)


def is_plain(module: nn.Module) -> bool:
    """Whether its class computes y = x W^T + b. A subclass may read its weight in a forward of its own (quantised
    layers, routers), or be read raw by its parent (nn.MultiheadAttention's out_proj)."""
    kind = type(module)
    known = kind.__name__ in _SAME_BY_NAME and kind.__module__.startswith("transformers")
    return kind is nn.Linear or is_conv1d(module) or (known and isinstance(module, nn.Linear))


def read_raw(parent: nn.Module, child: str) -> bool:
    """Whether the parent is known to read the weight of the linear layer it calls `child`, in place of calling it."""
    return any(child in _READ_RAW.get(kind.__name__, ()) for kind in type(parent).__mro__)


def weight_reason(module: nn.Module) -> str | None:
    """Why the weight of a plain layer cannot be read and written as a matrix of numbers in memory; None where it can.

    Its parameters may be of a Tensor subclass (quantised, sharded), computed before each call (weight_norm, prune), on
    the meta device, or integers.
    """
    for name in ("weight", "bias"):
        value = getattr(module, name, None)
        if value is None and name == "bias":
            continue
        if type(value) is not nn.Parameter:
            found = "computed by hooks" if type(value) is Tensor else f"a {type(value).__name__}"
            return f"its {name} is {found}, expected a plain parameter"
        if value.is_meta:
            return f"its {name} is on the meta device, expected values in memory"
        if not value.is_floating_point():
            return f"its {name} is of {value.dtype}, expected a floating dtype"
    return None


def forward_replaced(module: nn.Module) -> bool:
    """Whether someone put a forward on this instance that does more than its class's own.

    accelerate's device_map with several devices puts one on every layer that moves its inputs to the layer's device,
    where the block's has moved them already: without offloading it counts as none.
    """
    own, plain = module.__dict__.get("forward"), type(module).forward
    if own is None or bound_to(module, own, plain):
        return False
    hook, inner = module.__dict__.get("_hf_hook"), module.__dict__.get("_old_forward")
    aligns = type(hook).__name__ == "AlignDevicesHook" and not (hook.offload or hook.io_same_device)  # type: ignore[union-attr]
    return not (aligns and bound_to(module, inner, plain))


def bound_to(module: nn.Module, method: Any, *forwards: Any) -> bool:
    """Whether a method is one of these functions, bound to the module: who takes a hook off leaves its class's so."""
    return getattr(method, "__self__", None) is module and method.__func__ in forwards


def watched(module: nn.Module) -> bool:
    """Whether someone counts on this module being called: hooks, or a forward replaced on the instance."""
    return bool(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
        or "forward" in module.__dict__
    )
