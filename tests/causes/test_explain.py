"""Real calls on a CPU: which causes there are, their FLOPs by closed form, and launches by torch's own count."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from bench.case import Case
from bench.causes.explain import NO_KERNELS, WARMUP_CALLS, explain
from bench.causes.profiled import Profiled
from bench.methods.lora.eager import EagerLoRALinear
from bench.models.build import build
from bench.record.causes import Split
from bench.timing.cpu import CpuClock
from tests.models.tiny import GPT2, LLAMA, NO_DROPOUT, make_case, write_config

PASSES = ("forward", "backward", "forward-backward", "step")
ALWAYS = {"base_forward", "attention", "norms", "gaps", "left_over"}
LORA = {"branch", "elementwise"}


@pytest.fixture(params=["gpt2", "llama"])
def model(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    gpt2 = {**GPT2, "n_embd": 128, "n_layer": 2, **NO_DROPOUT}
    llama = {**LLAMA, "hidden_size": 128, "num_hidden_layers": 2}
    return write_config(tmp_path, {"gpt2": gpt2, "llama": llama}[request.param])


def splits(case: Case, *passes: str, **more: Any) -> dict[str, Split]:
    """By pass, for a measured median of 100 ms; of one profiled call, since that takes most of the time."""
    medians = {(p, "cpu-time"): 100.0 for p in passes or PASSES}
    found = explain(case, "cpu", medians, **{"calls": 1, **more})
    return {p: split for (p, _), split in found.items()}


def gemm_flops(case: Case) -> dict[str, dict[str, float]]:
    """2 M N K and so on of all linear layers of the block, by cause."""
    m, r = case.tokens, case.rank or 0
    sizes = [(p.out_features, p.in_features) for p in case.shape.projections]  # type: ignore[union-attr]
    base = sum(2 * m * n * k for n, k in sizes)
    skinny, wide = sum(2 * m * r * n for n, _ in sizes), sum(2 * m * r * k for _, k in sizes)  # products with N, with K
    if case.method == "full":
        return {"forward": {"base_forward": base}, "backward": {"base_dx": base, "base_dw": base}}
    if case.method == "paca":
        return {"forward": {"base_forward": base}, "backward": {"base_dx": base, "branch": skinny}}
    if case.impl == "merged":  # S is computed in backward; dX is one product
        return {"forward": {"base_forward": base}, "backward": {"base_dx": base, "branch": 2 * skinny + 2 * wide}}
    return {
        "forward": {"base_forward": base, "branch": skinny + wide},
        "backward": {"base_dx": base, "branch": 2 * skinny + 2 * wide},
    }


CASES: list[tuple[str, str, dict[str, Any], set[str], set[str]]] = [
    # method, impl, more axes, causes of forward and of backward beside those that every one has
    ("full", "eager", {}, set(), {"base_dw"}),
    ("lora", "eager", {}, LORA, LORA),
    ("lora", "eager", {"dropout": 0.1}, LORA | {"dropout"}, LORA | {"dropout"}),
    ("lora", "peft", {}, LORA, LORA),
    ("lora", "peft-fp32", {"precision": "bf16"}, LORA | {"casts"}, LORA | {"casts"}),
    ("lora", "triton", {}, LORA, LORA),
    ("lora", "peft-triton", {}, LORA, LORA),
    ("lora", "addmm", {}, {"branch"}, {"branch"}),
    ("lora", "merged", {}, set(), {"branch"}),
    ("paca", "eager", {}, {"gathers"}, {"branch", "elementwise"}),
]


@pytest.mark.parametrize(
    ("method", "impl", "axes", "forward", "backward"),
    [
        pytest.param(*c, id=f"{c[0]}-{c[1]}", marks=[pytest.mark.slow] if c[1] in ("peft", "triton") else [])
        for c in CASES
    ],
)
def test_causes_and_their_flops(
    model: str, method: str, impl: str, axes: dict[str, Any], forward: set[str], backward: set[str]
) -> None:
    case = make_case(model, method, "block", impl=impl, **axes)
    found = splits(case, "forward", "backward", calls=3)
    llama_casts = {"casts"} if "llama" in model and case.precision != "fp32" else set()  # its norms compute in fp32
    assert found["forward"].parts.keys() - {"left_over"} == (ALWAYS - {"left_over"}) | forward | llama_casts
    expected = (ALWAYS - {"base_forward", "left_over"}) | {"base_dx", "accumulation"} | backward | llama_casts
    assert found["backward"].parts.keys() - {"left_over"} == expected
    for pass_, flops in gemm_flops(case).items():
        parts = found[pass_].parts
        assert {c: parts[c].flops for c in flops} == flops
        assert all(not part.flops for c, part in parts.items() if c not in (*flops, "attention"))
        assert "left_over" not in parts or parts["left_over"].ms < 5.0
        assert found[pass_].total_ms == pytest.approx(100.0)


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_the_base_is_the_same_with_a_branch_and_without(model: str, dropout: float) -> None:
    lora = make_case(model, "lora", "block", dropout=dropout)
    full = make_case(model, "full", "block")
    ours, theirs = (splits(case, "forward")["forward"].parts["base_forward"] for case in (lora, full))
    assert (ours.launches, ours.bytes, ours.flops) == (theirs.launches, theirs.bytes, theirs.flops)


def test_a_step_is_its_micro_steps_and_what_is_due_after_them(model: str) -> None:
    case = make_case(model, "paca", "block", accumulation=2)
    found = splits(case, calls=3)
    for part in found["step"].parts.values():
        assert part.low is not None and part.high is not None and part.low <= part.ms <= part.high
    step, micro = found["step"].parts, found["forward-backward"].parts
    assert step["base_dx"].flops == 2 * (micro["base_dx"].flops or 0)
    assert step["gathers"].launches == 2 * (micro["gathers"].launches or 0)
    assert {"optimizer", "refresh", "accumulation"} <= step.keys()
    assert not {"optimizer", "refresh"} & micro.keys()
    # A micro-step adds to gradients that are there, and so does the second of a step: two read and one written each. In
    # a step those of x add up as well.
    columns = sum(p.out_features for p in case.shape.projections) * 4  # type: ignore[union-attr]
    assert micro["accumulation"].bytes == 3 * 4 * columns
    assert step["accumulation"].bytes == 3 * 4 * (columns + case.tokens * 128)


@pytest.mark.parametrize("method", ["full", "lora"])
def test_launches_are_as_many_as_the_profiler_counts(model: str, method: str) -> None:
    case = make_case(model, method)
    work = build(case, "cpu")
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        work.backward(work.forward())
    counted = sum(e.count for e in profiler.key_averages() if e.key.startswith("aten::"))
    parts = splits(case, "forward-backward")["forward-backward"].parts
    assert sum(part.launches or 0 for part in parts.values()) == counted


def test_what_lies_outside_of_the_blocks_is_neither_base_nor_norm(model: str) -> None:
    case = make_case(model, "lora")
    found = splits(case, "forward")["forward"].parts
    width, vocabulary = 128, 101
    assert found["outside"].flops == 2 * case.tokens * width * vocabulary  # the head
    assert found["base_forward"].flops == case.blocks * gemm_flops(case)["forward"]["base_forward"]


def test_layers_that_the_method_leaves_alone_are_base_too(model: str) -> None:
    target = {"gpt2": "attn.c_attn", "llama": "self_attn.q_proj"}["gpt2" if "gpt2" in model else "llama"]
    case = make_case(model, "lora", "block")
    parts = splits(replace(case, targets=target), "forward")["forward"].parts
    flops = gemm_flops(case)["forward"]
    assert parts["base_forward"].flops == flops["base_forward"]
    assert 0 < (parts["branch"].flops or 0) < flops["branch"]


@torch.library.custom_op("planted::slow", mutates_args=())
def slow(s: Tensor) -> Tensor:
    """An operator that nobody knows, and that takes much longer than all the others."""
    return torch.linalg.matrix_power(s.new_ones(256, 256) / 256, 16).sum() * s


@slow.register_fake
def _(s: Tensor) -> Tensor:
    return torch.empty_like(s)


slow.register_autograd(lambda ctx, grad: grad)


def products(s: Tensor) -> Tensor:
    """More products in the branch than all the others take."""
    wide = s.new_ones(s.shape[-1], 1 << 13)
    for _ in range(8):
        s = s @ wide @ wide.t() / wide.numel()
    return s


PLANTED: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "products": (products, "branch"),
    "unknown": (slow, "elementwise"),
}


@pytest.fixture(params=PLANTED)
def cause(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Plants something slow in every branch; the cause that it should show up under."""
    branch, expected = PLANTED[request.param]

    def forward(self: EagerLoRALinear, x: Tensor) -> Tensor:
        return self.base(x) + self.scale * F.linear(branch(F.linear(x, self.lora_a)), self.lora_b)

    monkeypatch.setattr(EagerLoRALinear, "forward", forward)
    yield expected


def test_a_planted_slow_operator_shows_up_under_its_cause(model: str, cause: str) -> None:
    parts = splits(make_case(model, "lora", "block"), "forward", calls=3)["forward"].parts
    operators = {c: part.ms for c, part in parts.items() if c != "gaps"}
    assert operators[cause] > 0.6 * sum(operators.values())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gpt2-medium", "tinyllama"])
def test_the_difference_to_full_fine_tuning_is_the_sum_of_its_causes(name: str) -> None:
    """As measured by this project's own clock in the same test."""
    of: dict[str, tuple[dict[tuple[str, str], float], dict[tuple[str, str], Split]]] = {}
    for method, impl in (("full", "eager"), ("lora", "eager"), ("lora", "peft"), ("lora", "addmm"), ("paca", "eager")):
        case = make_case(name, method, "block", impl=impl, batch=1, seq=128)
        work, clock = build(case, "cpu"), CpuClock()
        samples = [clock.sample(work, step=False) for _ in range(4)][1:]
        medians = {(p, "cpu-time"): median(s[p, "cpu-time"] for s in samples) for p in PASSES[:3]}
        found = explain(case, "cpu", medians, calls=3)
        for pass_, flops in gemm_flops(case).items():
            parts = found[pass_, "cpu-time"].parts
            assert {c: parts[c].flops for c in flops} == flops
            assert "left_over" not in parts or parts["left_over"].ms < 0.05 * medians[pass_, "cpu-time"]
        of[f"{method}/{impl}"] = medians, found
    full_ms, full = of.pop("full/eager")
    for medians, found in of.values():
        for key, split in found.items():
            causes = split.beyond(full[key])
            assert sum(e.value for e in causes.values()) == pytest.approx(medians[key] - full_ms[key], rel=0.05)
            assert causes["base_forward" if key[0] == "forward" else "base_dx"].low is not None


def test_a_trace_is_kept_on_request(tmp_path: Path) -> None:
    path = tmp_path / "trace.json"
    case = make_case(None, "lora", "linear", layer="square-64")
    found = splits(case, trace=path)
    assert list(found) == list(PASSES)
    names = {event.get("name") for event in json.loads(path.read_text())["traceEvents"]}
    assert {"aten::mm", "lorabench::forward", "lorabench::backward"} <= names


def test_only_what_can_be_explained_is(tmp_path: Path) -> None:
    case = make_case(None, "full", "linear", layer="square-64")
    medians = {("forward", "cpu"): 1.0, ("forward", "cpu-time"): 1.0, ("forward", "host"): 1.0}
    assert list(explain(case, "cpu", medians, calls=3)) == [("forward", "cpu-time")]


def test_modules_are_called_as_before_when_a_call_has_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = torch.nn.Module.__call__
    calls: list[Tensor] = []

    def forward(self: EagerLoRALinear, x: Tensor) -> Tensor:
        calls.append(x)
        if len(calls) > WARMUP_CALLS:  # the next is the one that is looked into
            assert torch.nn.Module.__call__ is not plain
            raise RuntimeError("planted")
        return self.base(x) + F.linear(F.linear(x, self.lora_a), self.lora_b)

    monkeypatch.setattr(EagerLoRALinear, "forward", forward)
    with pytest.raises(RuntimeError, match="planted"):
        splits(make_case(None, "lora", "linear", layer="square-64"), "forward")
    assert torch.nn.Module.__call__ is plain


def test_a_profiler_that_sees_no_kernel_is_an_error_in_plain_words(monkeypatch: pytest.MonkeyPatch) -> None:
    work = build(make_case(None, "lora", "linear", layer="square-64"), "cpu")
    work.backward(work.forward())  # draws dY
    work.device = torch.device("cuda")
    monkeypatch.setattr("bench.causes.explain.build", lambda case, device: work)
    monkeypatch.setattr("bench.causes.explain.profiled", lambda *_, **__: Profiled([], []))
    with pytest.raises(RuntimeError, match=r"no kernel on the GPU.*NVreg_RestrictProfilingToAdminUsers=0"):
        explain(work.case, "cuda", {("forward", "eager"): 1.0})
    assert len(NO_KERNELS) <= 300, "what a worker tells is cut there"
