"""full, impl eager: the weights themselves train; nothing in the model is replaced."""

from torch import nn

from bench.case import Case
from bench.case.shapes import trains_ends
from bench.methods.adapt import Trained, trained, trained_blocks


def apply(model: nn.Module, case: Case) -> Trained:
    """All parameters train, or those of some blocks alone: then embeddings, final norm and head are frozen too.

    Under lisa-G these train at all times, as in LISA (Pan et al., 2024), and the blocks by turns: see stages.py.
    """
    everything = case.level == "linear" or (case.level == "model" and trains_ends(case.trainable_layers))
    model.requires_grad_(everything)
    if not everything:
        for _, block in trained_blocks(model, case):
            block.requires_grad_(True)
    return trained(model)
