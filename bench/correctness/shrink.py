"""The case that is checked in place of one that is timed: fewer tokens, and of a model few blocks."""

from dataclasses import asdict, dataclass, replace
from functools import cache

import torch

from bench.case import Case
from bench.case.shapes import ModelShape, lisa_stages, model_shape, takes_turns

# Tokens in a sequence: the error of one or two tokens is a matter of luck.
LEAST = 64

# The vocabulary of the two-block copy: random logits say as much over 1024 words as over 50257.
VOCABULARY = 1024


def default_tokens(case: Case, device: torch.device, brief: bool = False) -> int:
    """How many tokens a case is checked on. brief: after timing. A CPU then checks half as many: with a single run of
    each impl it takes 3.9 s for Table 1's 24 blocks in place of 8.4 (one thread of an AMD EPYC)."""
    if device.type == "cpu":
        return 32 if brief else 64
    return 128 if case.level == "model" else 2048


def shrink(case: Case, tokens: int) -> Case:
    """The case on at most `tokens` tokens, its sequence cut before its batch, and no sequence shorter than LEAST where
    `tokens` and the model's positions allow; at level model with two blocks."""
    seq = min(tokens, max(case.seq, LEAST))
    if case.shape is not None:
        seq = min(seq, case.shape.longest)
    small = replace(case, seq=seq, batch=max(1, min(case.batch, tokens // seq)))
    return TwoBlocks(**asdict(small)) if case.level == "model" else small


@dataclass(frozen=True)
class TwoBlocks(Case):
    """A case at level model on a copy of its model that has two blocks and few words, at full width.

    Three under every-Nth, so that one is frozen between two that train. Under lisa-G one of the two trains at a time,
    once the lower, with a frozen one above it, and once the upper; or all, where in the model all do.
    """

    def __post_init__(self) -> None:
        object.__setattr__(self, "trainable_layers", self._layers())

    def _layers(self) -> str:
        word = self.trainable_layers
        if word.startswith("every-"):
            return "every-2nd"
        if takes_turns(word):
            assert self.model is not None
            return "lisa-1" if len(lisa_stages(word, model_shape(self.model).num_layers)) > 1 else "all"
        return str(min(int(word), self.blocks)) if word.isdigit() else word

    @property
    def shape(self) -> ModelShape:
        assert self.model is not None
        return _few_blocks(self.model, 3 if self.trainable_layers.startswith("every-") else 2)


@cache
def _few_blocks(model: str, blocks: int) -> ModelShape:
    from bench.models.config import make_config

    whole = model_shape(model)
    config = make_config({**whole.config, "model_type": whole.model_type})
    layers = min(blocks, whole.num_layers)
    config.num_hidden_layers = layers
    if getattr(config, "layer_types", None):
        config.layer_types = config.layer_types[:layers]
    config.vocab_size = min(config.vocab_size, VOCABULARY)
    config.bos_token_id = config.eos_token_id = None
    return replace(whole, num_layers=layers, config=config.to_dict())
