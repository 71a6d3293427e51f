"""FusedLoraModel: PEFT's LoRA tuner, whose later adapters find their layers swapped as well; and the swap itself."""

from typing import Any

from peft.tuners.lora import LoraModel
from peft.tuners.lora.layer import Linear
from torch import nn

from .fused_linear import FusedLinear


class FusedLoraModel(LoraModel):
    """add_adapter and load_adapter end in inject_adapter, which may wrap modules that had no adapter before."""

    def inject_adapter(self, *args: Any, **kwargs: Any) -> None:
        super().inject_adapter(*args, **kwargs)
        swap(self)

    def _get_name(self) -> str:
        return "LoraModel"


#: PEFT's class and ours. Subclasses of theirs (torchao's, custom ones) have a forward of their own and stay.
CLASSES: tuple[tuple[Any, Any], ...] = ((Linear, FusedLinear), (LoraModel, FusedLoraModel))


def swap(model: nn.Module) -> None:
    """Gives every LoRA layer and tuner in model our class, but for an instance with a forward of its own."""
    for module in model.modules():
        for theirs, ours in CLASSES:
            if type(module) is theirs and "forward" not in module.__dict__:
                module.__class__ = ours
