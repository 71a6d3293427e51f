"""LISA in a real training (Pan et al., 2024): blocks take turns, and the optimizer keeps nothing of those that rest.

Which blocks train follows from the number of steps alone, so that a training that goes on from a checkpoint goes on
with the right ones. Embeddings, final norm and head train at all times where the weights themselves do.
"""

from typing import Any

from torch import nn
from transformers import TrainerCallback

from bench.errors import UserError
from bench.methods.stages import Stages


class Lisa(TrainerCallback):
    """Changes the blocks that train every `every` optimizer steps.

    Make it when the method is applied and every parameter that ever trains requires grad: Trainer makes the optimizer
    of these, and only then does training begin. `everything` has them by name, for what saves and loads them:
    requires_grad says what trains at the moment.
    """

    def __init__(self, model: nn.Module, trainable_layers: str, every: int) -> None:
        trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        self._stages = Stages(model, trained, trainable_layers)
        self._every = every
        self._selected: int | None = None
        self.everything = dict(trained)

    def stage(self, step: int) -> int:
        """The stage after so many optimizer steps."""
        return step // self._every % self._stages.count

    def on_train_begin(self, args: Any, state: Any, control: Any, **of: Any) -> None:
        if args.world_size > 1:
            raise UserError(
                f"lisa-G trains in one process, and there are {args.world_size}: DistributedDataParallel waits for"
                " gradients of blocks that rest. Start one process, or take another trainable_layers."
            )
        self._select(state.global_step, of["optimizer"])

    def on_step_begin(self, args: Any, state: Any, control: Any, **of: Any) -> None:
        if self.stage(state.global_step) != self._selected:
            self._select(state.global_step, of["optimizer"])

    def _select(self, step: int, optimizer: Any) -> None:
        self._selected = self.stage(step)
        self._stages.select(self._selected, lambda p: optimizer.state.pop(p, None))
