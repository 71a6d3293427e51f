"""Whether the optimizer of a case moves what trains: bench.correctness.check makes its steps by itself."""

import torch

from bench.correctness.bounds import relative_errors
from bench.models.work import Work

RATE = 0.1  # far above what 16 bits round of a weight, and above decay, a thousandth of the weight
BOUND = 0.25  # of the move


def unmoved(work: Work) -> str | None:
    """One step on gradients that are drawn, +1 and -1: in a sentence what does not move by RATE against them, as every
    value does in a first step of AdamW and of SGD alike; or None. The weights are spoiled afterwards."""
    leaves = {name: leaf for name, leaf in work.leaves if name != "x"}
    before = {name: leaf.detach().clone() for name, leaf in leaves.items()}
    generator = torch.Generator(work.device).manual_seed(work.seed + 3)
    for leaf in leaves.values():
        signs = torch.randint(2, leaf.shape, generator=generator, device=leaf.device)
        leaf.grad = (2 * signs - 1).to(leaf.dtype)
    wanted = {name: -RATE * leaf.grad.float() for name, leaf in leaves.items() if leaf.grad is not None}
    work.optimizer_step(RATE)
    moves = {name: leaf.detach().float() - before[name].float() for name, leaf in leaves.items()}
    word = work.case.optimizer or "adamw"
    for name, error in relative_errors(moves, wanted).items():
        if not error <= BOUND:  # or NaN
            return f"a step of optimizer {word} moves {name} wrongly: off by {error:.3g} of the move, bound {BOUND}"
    return None
