"""Fused LoRA, DoRA and PaCA linear layers in Triton, with plain torch references beside them.

    from kernels import lora_linear, dora_linear, paca_linear, LoRALinear, DoRALinear, PaCALinear
    from kernels.paca import paca        adapts any transformers model; `kernels.paca` itself is the subpackage

Nothing heavy is imported until a name is used, and Triton is needed by its own kernels only: where there is none
(macOS, say) every function below works through `kernels.reference`.

Hugging Face's package of the same name may be installed beside a checkout: transformers asks for its names. They and
its modules are found here too, after our own; installed as a wheel, this library is called `lorabench`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .dora import DoRALinear, dora_linear
    from .lora import LoRALinear, group_siblings, lora_linear, lora_linear_group
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
    "dora_linear": ".dora",
    "DoRALinear": ".dora",
    "lora_linear": ".lora",
    "lora_linear_group": ".lora",
    "LoRALinear": ".lora",
    "group_siblings": ".lora",
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
    "DoRALinear",
    "LoRALinear",
    "PaCALinear",
    "dora_linear",
    "group_siblings",
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

_other = None
if __name__ == "kernels":
    from .namesake import namesake

    _other = namesake()
    if _other is not None and str(_other) not in __path__:
        __path__.append(str(_other))
    if _other is None:  # bitsandbytes looks here for a kernel of the Hub for inference on CPUs, does without, and warns
        import logging

        logging.getLogger("bitsandbytes.backends.cpu.ops").addFilter(
            lambda record: not str(record.msg).startswith("Failed to load CPU gemm_4bit_forward from kernels-community")
        )


def __getattr__(name: str) -> Any:
    if name in _HOME:
        value = getattr(import_module(_HOME[name], __name__), name)
    elif _other is None or (name.startswith("__") and name != "__version__") or _own_module(name):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    else:
        theirs = import_module(".hugging_face", __name__)
        value = getattr(theirs, name, globals().get(name, ...))  # the import may have made it one of their modules
        if value is ...:
            raise AttributeError(f"neither module {__name__!r} nor {theirs.__file__} has an attribute {name!r}")
    globals()[name] = value  # the next look-up costs a dictionary access
    return value


def _own_module(name: str) -> bool:
    """`from kernels import paca` asks for an attribute first, and imports the subpackage where there is none."""
    from importlib.machinery import PathFinder

    return PathFinder.find_spec(f"{__name__}.{name}", __path__[:1]) is not None


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
