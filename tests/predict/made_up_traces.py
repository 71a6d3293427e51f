"""Traces that nobody has to trace: few operators, so that what a prediction must be can be worked out by hand."""

from bench.case import Case
from bench.predict.ops import Op, Trace

LAYERS = 40


def made_up_trace(case: Case, on_gpu: bool = True) -> Trace:
    """One base product in forward, dX in backward; under Full-FT dW beside it, under LoRA a branch in both passes."""
    m, n = case.tokens, 4096
    forward = [Op("aten::mm", "base_forward", "gemm", (m, n, n, 1))]
    backward = [Op("aten::mm", "base_dx", "gemm", (m, n, n, 1))]
    if case.method == "full":
        backward.append(Op("aten::mm", "base_dw", "gemm", (n, n, m, 1)))
    if case.method == "lora":
        branch = Op("aten::mul", "elementwise", "elementwise", bytes=6.0 * m * n)
        forward.append(branch)
        backward.append(branch)
    return Trace({"forward": tuple(forward * LAYERS), "backward": tuple(backward * LAYERS)})
