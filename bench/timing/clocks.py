"""From the name of a clock to the clock."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from bench.case.clocks import CLOCKS
from bench.timing.base import Clock
from bench.timing.settings import MeasureSettings

if TYPE_CHECKING:
    import torch


def make_clock(
    name: str, device: "torch.device", cold_l2: bool, settings: MeasureSettings | None = None, cuda: Any = None
) -> Clock:
    """The clock of that name for a device; `cold_l2` flushes the GPU's L2 cache before each sample.

    cuda: the module torch.cuda, or a fake of it.
    """
    module, _, kind = CLOCKS[name].made_by.partition(":")
    made: Clock = getattr(import_module(f"bench.timing.{module}"), kind)(
        device, cold_l2, settings or MeasureSettings(), cuda
    )
    return made
