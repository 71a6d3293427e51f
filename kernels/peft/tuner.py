"""FusedLoraModel: PEFT's LoRA tuner, whose later adapters find their layers swapped as well."""

from typing import Any

from peft.tuners.lora import LoraModel


class FusedLoraModel(LoraModel):
    """add_adapter and load_adapter end in inject_adapter, which may wrap modules that had no adapter before."""

    def inject_adapter(self, *args: Any, **kwargs: Any) -> None:
        from .swap import swap

        super().inject_adapter(*args, **kwargs)
        swap(self)

    def _get_name(self) -> str:
        return "LoraModel"
