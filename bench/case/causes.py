"""What the time of a pass goes into: the causes, in the order of tables and figures, and the columns of causes.csv.
No torch."""

from dataclasses import dataclass

from bench.case.columns import Column, column_table
from bench.case.schema import PASSES


@dataclass(frozen=True)
class Cause:
    """One cause. label: in legends and sentences; meaning: what counts as it, for docs/why.md."""

    label: str
    meaning: str


CAUSES = {
    "base_forward": Cause("base forward GEMMs", "y = x W^T of the linear layers that the method adapts or trains"),
    "base_dx": Cause("base dX GEMMs", "dX = dY W of the same layers"),
    "base_dw": Cause("base dW GEMMs", "dW = dY^T x, and a bias's gradient; of full fine-tuning alone"),
    "branch": Cause(
        "branch GEMMs",
        "of LoRA: S = x A^T, S B^T, and backward dS, dB, dA and dS A; of PaCA: the gradient of its live columns",
    ),
    "elementwise": Cause("branch elementwise", "scaling the branch, adding it to y, and the sums of dX"),
    "gathers": Cause("column gathers", "PaCA's reading of the chosen columns of x, and of the weight's"),
    "dropout": Cause("adapter dropout", "drawing the mask, applying it, and its backward"),
    "casts": Cause("dtype casts", "copies from one dtype to another, those of autocast included"),
    "fused": Cause(
        "fused kernels", "a kernel that computes base and branch together, or one that a compiler made of several parts"
    ),
    "attention": Cause("attention", "softmax(Q K^T) V, rotary embedding and masks included"),
    "norms": Cause("norms/activations", "normalization, GELU or SiLU, the model's own dropout, residual sums"),
    "outside": Cause("embedding/head/loss", "what lies outside of the decoder blocks"),
    "accumulation": Cause("gradient sums", "zeroing gradients, and adding a micro-step's to them"),
    "optimizer": Cause("optimizer", "AdamW on the trained values"),
    "refresh": Cause("column refresh", "PaCA's copy of its columns into the weight, or the merge of a merged LoRA"),
    "gaps": Cause(
        "launches/gaps",
        "time in which no kernel or operator works: launch cost on a GPU; on a CPU Python and autograd's own work",
    ),
    "left_over": Cause("left over", "what could not be put down to one of the others"),
}

AGREES = 0.05  # largest remainder at which profile and clock are taken to agree

SOURCES = ("kernels", "operators")  # what was timed: a GPU's kernels, or a CPU's operators by their self time

CAUSE_ROW = (
    Column("case_id", "the case, as in rows.csv"),
    Column("pass", f"one of {', '.join(PASSES)}"),
    Column("clock", "the clock whose median the times are scaled to"),
    Column("cause", f"one of {', '.join(CAUSES)}"),
    Column(
        "ms", "time of the cause in one call; all causes of a pass add up to its median_ms in rows.csv", "ms", "amount"
    ),
    Column("low", "lower end of the 95 % interval of ms over the profiled calls", "ms", "amount"),
    Column("high", "upper end of the 95 % interval of ms over the profiled calls", "ms", "amount"),
    Column("launches", "kernels, or on a CPU operators, in one call", kind="count"),
    Column("bytes", "what they read and wrote, by the sizes of their operands", "bytes", "amount"),
    Column("flops", "of their matrix products, as torch counts them", "FLOP", "amount"),
    Column("scale", "median_ms over the time of the same calls in the process that was profiled", kind="amount"),
    Column(
        "remainder",
        "part of that time by which the profile's causes and the clock differ, before the causes were made to add up",
        kind="share",
    ),
    Column("source", f"what was timed: {' or '.join(SOURCES)}"),
)


def as_markdown() -> str:
    """The tables of docs/why.md: the causes, and the columns of causes.csv."""
    causes = [f"| {cause.label} | `{name}` | {cause.meaning} |" for name, cause in CAUSES.items()]
    head = ["| Cause | In causes.csv | What counts as it |", "| --- | --- | --- |"]
    return "\n".join([*head, *causes, "", *column_table(CAUSE_ROW), ""])


if __name__ == "__main__":
    print(as_markdown(), end="")
