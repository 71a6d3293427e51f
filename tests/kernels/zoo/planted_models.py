"""Models that behave differently as soon as our layers are in them, to be named with --model planted_models:Class."""

import os
import time

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel


class PlantedConfig(PreTrainedConfig):
    model_type = "planted"

    def __init__(self, hidden_size: int = 16, num_hidden_layers: int = 2, vocab_size: int = 50, **more) -> None:
        self.hidden_size, self.num_hidden_layers, self.vocab_size = hidden_size, num_hidden_layers, vocab_size
        super().__init__(**more)


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.proj, self.norm = nn.Linear(width, width), nn.LayerNorm(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.tanh(self.proj(self.norm(x)))


class Sound(PreTrainedModel):
    config_class = PlantedConfig

    def __init__(self, config: PlantedConfig) -> None:
        super().__init__(config)
        self.embed = nn.Embedding(config.vocab_size, config.hidden_size)
        self.blocks = nn.ModuleList(Block(config.hidden_size) for _ in range(config.num_hidden_layers))
        self.post_init()

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        x = self.embed(input_ids)
        for block in self.blocks:
            x = block(x)
        kinds = {kind.__module__ for module in self.modules() for kind in type(module).__mro__}
        return x + self.planted({kind.rpartition(".")[0] for kind in kinds})

    def planted(self, folders: set[str]) -> float:
        return 0.0


class NotEqual(Sound):
    """A thousandth off where accelerate() has been."""

    def planted(self, folders: set[str]) -> float:
        return 1e-3 if "kernels.peft" in folders else 0.0


class Crashes(Sound):
    """Takes its process with it where paca() has been."""

    def planted(self, folders: set[str]) -> float:
        if "kernels.paca" in folders:
            os.abort()
        return 0.0


class Reads(Sound):
    """Reads a weight past its layer, so that no gradient reaches the columns."""

    def planted(self, folders: set[str]) -> torch.Tensor:
        return 100 * self.blocks[0].proj.weight.sum()


class Hangs(Sound):
    """Never returns where accelerate() has been."""

    def planted(self, folders: set[str]) -> float:
        while "kernels.peft" in folders:
            time.sleep(1)
        return 0.0


class CannotRun(Sound):
    """Its own forward fails, with nothing of ours in it."""

    def planted(self, folders: set[str]) -> float:
        raise RuntimeError("its own fault")
