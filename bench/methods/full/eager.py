"""full, impl eager: the weights themselves train; nothing in the model is replaced."""

from torch import nn

from bench.case import Case
from bench.methods.adapt import Trained, trained, trained_blocks


def apply(model: nn.Module, case: Case) -> Trained:
    """All parameters train, or those of the upper blocks alone: then embeddings, final norm and head are frozen too."""
    everything = case.level == "linear" or (case.level == "model" and case.trainable_layers == "all")
    model.requires_grad_(everything)
    if not everything:
        for _, block in trained_blocks(model, case):
            block.requires_grad_(True)
    return trained(model)
