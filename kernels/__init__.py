"""Fused LoRA and PaCA linear layers in Triton, with plain torch references beside them.

    from kernels import lora_linear, paca_linear, LoRALinear, PaCALinear
    from kernels.paca import paca        adapts any transformers model; `kernels.paca` itself is the subpackage

Nothing heavy is imported until a name is used, and Triton is needed by its own kernels only: where there is none
(macOS, say) every function below works through `kernels.reference`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .lora import LoRALinear, lora_linear, lora_linear_group
    from .paca import (
        PaCALinear,
        load_paca,
        merge_paca,
        paca_linear,
        parameter_groups,
        refresh_after_step,
        remove_paca,
        save_paca,
    )

_HOME = {
    "lora_linear": ".lora",
    "lora_linear_group": ".lora",
    "LoRALinear": ".lora",
    "paca_linear": ".paca",
    "PaCALinear": ".paca",
    "load_paca": ".paca",
    "merge_paca": ".paca",
    "remove_paca": ".paca",
    "save_paca": ".paca",
    "parameter_groups": ".paca",
    "refresh_after_step": ".paca",
}

__all__ = [
    "LoRALinear",
    "PaCALinear",
    "load_paca",
    "lora_linear",
    "lora_linear_group",
    "merge_paca",
    "paca_linear",
    "parameter_groups",
    "refresh_after_step",
    "remove_paca",
    "save_paca",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOME[name], __name__), name)
    globals()[name] = value  # the next look-up costs a dictionary access
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
