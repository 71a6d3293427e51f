"""What the correctness check holds LoRA against."""

from bench.methods.reference import BranchReference


class Reference(BranchReference):
    """A and B both train."""
