"""Which parameters of a model train at a time. One stage, but for LISA, whose blocks take turns."""

from collections.abc import Callable
from typing import Protocol, TypeVar

from torch import nn

from bench.case.shapes import lisa_stages, takes_turns
from bench.methods.adapt import Trained
from kernels.modules.blocks import decoder_blocks

T = TypeVar("T")


class TakesTurns(Protocol):
    """Work whose leaves change from stage to stage."""

    @property
    def stages(self) -> int: ...
    def select(self, stage: int) -> None: ...


def in_each_stage(work: TakesTurns, look: Callable[[], T]) -> list[T]:
    """What is seen in each stage; the first is selected afterwards. Work without turns is left as it is."""
    if work.stages == 1:
        return [look()]
    found = []
    for stage in range(work.stages):
        work.select(stage)
        found.append(look())
    work.select(0)
    return found


class Stages:
    """The stages of one cycle of a model to which a method was applied; select(0) comes first.

    Whatever does not lie in a block trains in every stage.
    """

    def __init__(self, model: nn.Module, trained: Trained, trainable_layers: str) -> None:
        """trained: what trains in any stage, by name. trainable_layers: as in a case, of all blocks of the model."""
        self.everything = trained
        self.current = 0
        self._place: dict[int, int] = {}  # of a parameter that lies in a block: which
        self._blocks: tuple[tuple[int, ...], ...] = ((),)
        if takes_turns(trainable_layers):
            _, blocks = decoder_blocks(model)
            self._place = {id(p): i for i, block in enumerate(blocks) for p in block.parameters()}
            self._blocks = lisa_stages(trainable_layers, len(blocks))

    @property
    def count(self) -> int:
        return len(self._blocks)

    def trained(self, stage: int) -> Trained:
        """What trains in a stage, in the order of the model."""
        blocks = self._blocks[stage]
        return [(n, p) for n, p in self.everything if (place := self._place.get(id(p))) is None or place in blocks]

    def select(self, stage: int, forget: Callable[[nn.Parameter], None] = lambda _: None) -> Trained:
        """Lets a stage train, and nothing of another: it requires no grad, has none, and `forget` is told of it."""
        found = self.trained(stage)
        if self.count > 1:
            stays = {id(p) for _, p in found}
            for _, p in self.everything:
                p.requires_grad_(id(p) in stays)
                if id(p) not in stays:
                    p.grad = None
                    forget(p)
        self.current = stage
        return found
