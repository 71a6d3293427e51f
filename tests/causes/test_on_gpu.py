"""Real calls on a GPU: every kernel has a cause, and those of torch's own operators their FLOPs by closed form."""

from pathlib import Path

import pytest

from bench.causes.explain import explain
from tests.causes.test_explain import gemm_flops
from tests.models.tiny import GPT2, NO_DROPOUT, make_case, write_config

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize(
    ("method", "impl", "forward", "backward"),
    [
        ("full", "eager", {"base_forward"}, {"base_dx", "base_dw"}),
        ("lora", "eager", {"base_forward", "branch", "elementwise"}, {"base_dx", "branch", "elementwise"}),
        ("lora", "merged", {"base_forward"}, {"base_dx", "branch"}),
        ("lora", "triton", {"branch", "fused"}, {"branch", "fused"}),
        ("paca", "eager", {"base_forward", "gathers"}, {"base_dx", "branch"}),
    ],
)
def test_every_kernel_has_a_cause(
    tmp_path: Path, method: str, impl: str, forward: set[str], backward: set[str]
) -> None:
    model = write_config(tmp_path, {**GPT2, "n_embd": 1024, "n_head": 16, "n_positions": 512, **NO_DROPOUT})
    case = make_case(model, method, "block", impl=impl, precision="bf16", batch=4, seq=512)
    medians = {(p, "graph"): 1.0 for p in ("forward", "backward")}
    found = {p: split for (p, _), split in explain(case, "cuda:0", medians, calls=5).items()}
    for pass_, causes in (("forward", forward), ("backward", backward)):
        split = found[pass_]
        assert split.source == "kernels" and split.total_ms == pytest.approx(1.0)
        there = {cause for cause, part in split.parts.items() if part.launches}
        # Which schemes the dispatcher takes depends on the GPU.
        assert causes & there if impl == "triton" else causes <= there
        assert "left_over" not in split.parts or split.parts["left_over"].ms < 0.05
        if impl != "triton":
            flops = gemm_flops(case)[pass_]
            assert {c: split.parts[c].flops for c in flops} == flops
