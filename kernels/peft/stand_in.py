"""StandIn: what our classes have in common that take the place of one of PEFT's."""

import copyreg
from functools import partial
from typing import Any, ClassVar

from torch import nn


class StandIn:
    """Second base of a subclass of a PEFT class, whose instances become ours by their __class__, and PEFT's again.

    Such a subclass has no state of its own, and its name is PEFT's, which is what prints and status reports show. A
    copy made by copy or deepcopy is accelerated too. A pickle (torch.save of a module, a process that was spawned) is
    of PEFT's own class, so that it can be loaded where this package is not; accelerate() does its work there anew.
    """

    __slots__ = ()  # a layout of its own, like the first place among the bases, would forbid to assign __class__
    stands_for: ClassVar[type[nn.Module]]

    def __reduce_ex__(self, protocol: Any) -> Any:
        # Not __deepcopy__ for the copies: PeftModel hands look-ups of what it lacks on to its tuner.
        reduced: Any = super().__reduce_ex__(protocol)
        if "stands_for" not in type(self).__dict__:  # another library derived a class
            return reduced
        return _Empty(type(self)), (self.stands_for,), *reduced[2:]


class _Empty:
    """Makes the object that a copy or a pickle then fills: called (by copy) one of our class, pickled one of PEFT's."""

    def __init__(self, ours: type) -> None:
        self.ours = ours

    def __call__(self, theirs: type) -> Any:
        return object.__new__(self.ours)

    def __reduce__(self) -> Any:
        return partial, (copyreg.__newobj__,)  # type: ignore[attr-defined]
