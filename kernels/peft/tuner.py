"""PEFT's LoRA tuner, whose later adapters find their layers swapped as well; and the swap itself."""

from typing import Any

from peft.tuners.lora import model as peft_model
from torch import nn

from ..lora.siblings import share_among
from ..modules.plain_linear import bound_to
from . import fused_linear
from .peft_siblings import PeftSiblings
from .stand_in import StandIn


class LoraModel(peft_model.LoraModel, StandIn):
    """add_adapter and load_adapter end in inject_adapter, which may wrap modules that had no adapter before."""

    stands_for = peft_model.LoraModel

    def inject_adapter(self, *args: Any, **kwargs: Any) -> None:
        peft_model.LoraModel.inject_adapter(self, *args, **kwargs)
        if isinstance(self, LoraModel):  # bound before restore, it may be called after it
            swap(self)


#: Ours. Other subclasses of PEFT's classes (torchao's, custom ones) have a forward of their own and stay.
CLASSES: tuple[Any, ...] = (fused_linear.Linear, LoraModel)


def swap(model: nn.Module) -> None:
    """Gives every LoRA layer and tuner in model our class, but for a layer whose forward another library replaced; and
    lets the layers find their siblings."""
    for module in model.modules():
        if type(module) is fused_linear.Linear.stands_for and not forward_replaced(module):
            module.__dict__.pop("forward", None)
            module.__class__ = fused_linear.Linear
        elif type(module) is LoraModel.stands_for:
            module.__class__ = LoraModel
    share_among(model, fused_linear.Linear, PeftSiblings)


def forward_replaced(layer: Any) -> bool:
    """Whether the layer has a forward of its own; its class's, left there by who took a hook off, is none."""
    own, ours = layer.__dict__.get("forward"), fused_linear.Linear
    return own is not None and not bound_to(layer, own, ours.forward, ours.stands_for.forward)
