"""PEFT models made fast in place, and their way back.

    from lorabench.peft import accelerate, restore
    print(accelerate(peft_model))

Importing this needs neither torch nor PEFT; the functions need both. paca, the same for PaCA, needs no PEFT.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..paca import paca
    from .report import Report
    from .swap import accelerate, restore

_HOME = {"accelerate": ".swap", "restore": ".swap", "Report": ".report", "paca": "..paca"}

__all__ = ["Report", "accelerate", "paca", "restore"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOME[name], __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
