"""What the correctness check holds QLoRA against."""

from bench.methods.qlora.quantised_reference import QuantisedReference
from bench.methods.reference import BranchReference


class Reference(QuantisedReference, BranchReference):
    """A and B both train, beside W as NF4 holds it."""
