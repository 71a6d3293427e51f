"""Traces: what is seen without values is what the timed code does, and few blocks stand for many."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from bench.case.shapes import model_shape
from bench.errors import UserError
from bench.models.build import build
from bench.predict.ops import Op, Trace
from bench.predict.trace import trace
from bench.predict.whole import trace_whole
from bench.roofline.roofline import compulsory_bytes, flops
from tests.models.tiny import GPT2, LLAMA, Operators, make_case, write_config

SQUARE = {"level": "linear", "layer": "square-256", "batch": 2, "seq": 64, "targets": None, "l2": "cold"}


@pytest.fixture
def traces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LORABENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "traces"


def of_kind(found: Trace, phase: str, kind: str) -> list[Op]:
    return [op for op in found.phases[phase] if op.kind == kind]


def total(found: Trace, phase: str) -> float:
    """FLOPs; of attention's backward without the products that it computes anew, one of five."""
    again = {True: 0.8, False: 1.0}
    return sum(op.flops * again[op.backward] for op in found.phases[phase])


@pytest.mark.parametrize("method", ["full", "lora", "paca"])
@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_the_flops_of_a_linear_layer_are_those_of_the_roofline(method: str, precision: str, traces: Path) -> None:
    case = make_case(None, method, **SQUARE, precision=precision)
    found = trace(case)
    assert total(found, "forward") == flops(case, "forward")
    assert total(found, "backward") == flops(case, "backward")


def test_the_bytes_of_a_linear_layer_are_those_of_the_roofline(traces: Path) -> None:
    case = make_case(None, "full", **SQUARE, precision="bf16")
    found = trace(case)
    assert sum(op.bytes for op in found.phases["forward"]) == compulsory_bytes(case, "forward")
    dy = 2 * case.tokens * 256  # dX and dW read it each, a roofline once; and there is no bias here
    assert sum(op.bytes for op in found.phases["backward"]) == (compulsory_bytes(case, "backward") or 0) + dy


@pytest.mark.parametrize("fields", [GPT2, LLAMA], ids=["gpt2", "llama"])
@pytest.mark.parametrize("method", ["full", "lora", "paca"])
def test_a_model_has_the_flops_of_the_roofline(
    fields: dict[str, Any], method: str, tmp_path: Path, traces: Path
) -> None:
    case = make_case(write_config(tmp_path, fields), method, precision="bf16")
    found = trace(case)
    assert total(found, "forward") == flops(case, "forward")
    assert total(found, "backward") == pytest.approx(flops(case, "backward"))


@pytest.mark.parametrize("fields", [GPT2, LLAMA], ids=["gpt2", "llama"])
@pytest.mark.parametrize(
    "method, impl, layers",
    [
        ("full", "eager", "all"),
        ("lora", "eager", "upper-3/4"),
        ("paca", "triton", "all"),
        ("lora", "eager", "every-2nd"),
        *(
            pytest.param(*way, marks=pytest.mark.slow)
            for way in (
                ("full", "eager", "upper-1/2"),
                ("lora", "peft", "all"),
                ("lora", "triton", "upper-1/2"),
                ("paca", "eager", "upper-1/2"),
                ("full", "eager", "every-3rd"),
                ("paca", "eager", "every-4th"),
            )
        ),
    ],
)
def test_few_blocks_stand_for_all(
    fields: dict[str, Any], method: str, impl: str, layers: str, tmp_path: Path, traces: Path
) -> None:
    model = write_config(tmp_path, fields, n_layer=6, num_hidden_layers=6)
    case = make_case(model, method, impl=impl, trainable_layers=layers, accumulation=4, precision="bf16")
    few, whole = trace(case), trace_whole(case)
    for phase in ("forward", "backward", "optimizer", "refresh"):
        assert Counter(few.phases.get(phase, ())) == Counter(whole.phases.get(phase, ())), phase


def test_blocks_that_take_turns_are_refused(tmp_path: Path, traces: Path) -> None:
    case = make_case(write_config(tmp_path, LLAMA), "lora", trainable_layers="lisa-1")
    with pytest.raises(UserError, match="trainable_layers lisa-1: the mean over 4 stages cannot be predicted"):
        trace(case)


def test_the_operators_are_those_that_run_with_values(tmp_path: Path, traces: Path) -> None:
    """Of a model without dropout on a CPU: then no operator differs between a CPU with values and one without."""
    case = make_case(write_config(tmp_path, LLAMA), "lora", precision="fp32")
    found = trace(case, on_gpu=False)
    work = build(case, "cpu")
    with Operators() as forward:
        out = work.forward()
    with Operators() as backward:
        work.backward(out)
    for phase, seen in (("forward", forward), ("backward", backward)):
        traced = Counter(op.name for op in found.phases[phase])
        assert traced == Counter(name for name in seen.names if name in traced), phase


def test_a_gpu_draws_a_mask_in_one_kernel_and_has_flash_attention(tmp_path: Path, traces: Path) -> None:
    case = make_case(write_config(tmp_path, GPT2), "lora", dropout=0.1, precision="bf16")
    on_gpu, on_cpu = trace(case), trace(case, on_gpu=False)
    # Of each of 4 blocks the dropout of 4 adapters and of 2 residuals, and the embedding's; attention has its own.
    assert len(of_kind(on_gpu, "forward", "random")) == 4 * 6 + 1
    assert {op.name for op in of_kind(on_gpu, "forward", "random")} == {"aten::native_dropout"}
    assert len(of_kind(on_gpu, "forward", "attention")) == len(of_kind(on_gpu, "backward", "attention")) == 4
    assert not any(op.name == "aten::native_dropout" for op in on_cpu.phases["forward"])


def test_autocast_has_the_lists_of_a_gpu(tmp_path: Path, traces: Path) -> None:
    """GPT-2's GELU takes a power, which a GPU's autocast computes in fp32: the cast doubles its bytes."""
    found = trace(make_case(write_config(tmp_path, GPT2), precision="amp-fp16"))
    inner = 2 * 8 * 4 * 32
    assert [op.bytes for op in found.phases["forward"] if op.name == "aten::pow"] == [2 * 4.0 * inner] * 4
    casts = [op for op in of_kind(found, "forward", "cast") if op.cause == "casts"]
    assert len(casts) > 4 * 8  # a weight and a bias of each of four layers in each block
    assert {op.width for op in of_kind(found, "forward", "gemm")} == {2}


@pytest.mark.parametrize("method, of_forward", [("lora", "lora_forward"), ("paca", "gemm")])
def test_our_kernels_are_seen_as_one_operator_each(method: str, of_forward: str, tmp_path: Path, traces: Path) -> None:
    model = write_config(tmp_path, LLAMA)
    found = trace(make_case(model, method, impl="triton", precision="bf16"))
    layers = [(p.out_features, p.in_features) for p in model_shape(model).projections] * 4
    assert Counter(op.sizes[1:3] for op in of_kind(found, "forward", of_forward) if op.cause != "outside") == Counter(
        layers
    )
    backward = of_kind(found, "backward", "lora_backward" if method == "lora" else "paca_product")
    assert len(backward) == len(layers)


def test_embeddings_are_read_where_they_are_picked(tmp_path: Path, traces: Path) -> None:
    found = trace(make_case(write_config(tmp_path, LLAMA, vocab_size=10_000), precision="bf16"))
    picked = next(op for op in found.phases["forward"] if op.name == "aten::embedding")
    assert picked.bytes == 2 * (2 * 16 * 32) + 8 * 16  # read and written, and the ids


def test_a_gradient_of_an_embedding_is_zeros_and_the_rows_that_were_picked(tmp_path: Path, traces: Path) -> None:
    found = trace(make_case(write_config(tmp_path, LLAMA, vocab_size=10_000), precision="bf16"))
    added = next(op for op in found.phases["backward"] if op.name == "aten::embedding_dense_backward")
    zeros = next(op for op in found.phases["backward"] if op.name == "aten::zero_")
    assert (zeros.bytes, added.bytes) == (2 * 10_000 * 32, 2 * (2 * 16 * 32) + 8 * 16)


def test_adamw_reads_four_tensors_of_a_weights_size_and_writes_three(tmp_path: Path, traces: Path) -> None:
    found = trace(make_case(None, **SQUARE, precision="fp32"))
    step = next(op for op in found.phases["optimizer"] if "adamw" in op.name)
    assert step.bytes == pytest.approx(7 * 4 * 256 * 256, rel=1e-3)  # and the count of steps


def test_the_second_time_nothing_is_traced(tmp_path: Path, traces: Path) -> None:
    case = make_case(write_config(tmp_path, LLAMA), "paca", precision="bf16")
    first = trace(case)
    (file,) = traces.iterdir()
    kept = json.loads(file.read_text())
    kept["ops"][0]["name"] = "aten::as_kept"
    file.write_text(json.dumps(kept))
    assert first.phases["forward"][0].name != trace(case).phases["forward"][0].name == "aten::as_kept"


@pytest.mark.parametrize(
    "damage", ["", "{", "[]", '{"ops": [], "phases": {"forward": [3]}}', '{"ops": 1, "phases": 2}']
)
def test_a_damaged_file_is_made_anew(damage: str, tmp_path: Path, traces: Path) -> None:
    case = make_case(None, **SQUARE)
    first = trace(case)
    (file,) = traces.iterdir()
    file.write_text(damage.replace("-1", file.read_text().replace('"forward": [0', '"forward": [-1')))
    assert trace(case) == first
    assert json.loads(file.read_text())["ops"]


def test_without_a_folder_for_it_nothing_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LORABENCH_CACHE", str(tmp_path / "file" / "cache"))
    assert trace(make_case(None, **SQUARE)).phases["forward"]


def test_another_shape_of_a_config_file_is_another_trace(tmp_path: Path, traces: Path) -> None:
    path = Path(write_config(tmp_path, LLAMA))
    before = trace(make_case(str(path), precision="bf16"))
    path.write_text(json.dumps({**LLAMA, "vocab_size": 300}))
    model_shape.cache_clear()
    assert trace(make_case(str(path), precision="bf16")) != before


def test_what_a_compiler_makes_is_refused(traces: Path) -> None:
    with pytest.raises(UserError, match=r"compile default: .* cannot be predicted"):
        trace(make_case(None, compile="default", **SQUARE))


def test_nothing_of_torch_stays_changed(traces: Path) -> None:
    before = nn.Module.__call__, nn.Module._apply, torch.nn.functional.dropout
    trace(make_case(None, "lora", **SQUARE, dropout=0.1))
    with pytest.raises(ValueError, match="names no linear layer"):
        trace(make_case("gpt2-medium", "lora", "block", targets="nothing"))
    assert (nn.Module.__call__, nn.Module._apply, torch.nn.functional.dropout) == before


def test_in_fp32_our_kernels_leave_the_work_to_cublas_and_a_columns_gradient_is_on_the_ordinary_cores(
    tmp_path: Path, traces: Path
) -> None:
    model = write_config(tmp_path, LLAMA)
    lora, paca = (trace(make_case(model, method, impl="triton", precision="fp32")) for method in ("lora", "paca"))
    assert not of_kind(lora, "forward", "lora_forward") and of_kind(lora, "forward", "gemm")
    assert all(op.fp32 for op in of_kind(paca, "backward", "paca_product"))


def test_where_a_is_frozen_our_backward_reads_no_x(traces: Path) -> None:
    lora, frozen = (
        trace(make_case(None, method, impl="triton", precision="bf16", **SQUARE)) for method in ("lora", "lora-fa")
    )
    for phase, less in (("forward", 0), ("backward", 2 * 64 * 256 * 2)):  # x: tokens x inputs x bytes
        (theirs,), (ours,) = (of_kind(t, phase, f"lora_{phase}") for t in (lora, frozen))
        assert ours.sizes == theirs.sizes == (128, 256, 256, theirs.sizes[3])
        assert ours.flops == theirs.flops and ours.bytes == theirs.bytes - less


def test_a_mixture_of_experts_is_refused(tmp_path: Path, traces: Path) -> None:
    more = {"model_type": "mixtral", "num_local_experts": 4, "num_experts_per_tok": 2, "num_hidden_layers": 1}
    case = make_case(write_config(tmp_path, LLAMA, **more), precision="bf16")
    with pytest.raises(UserError, match="are not predicted"):
        trace(case)
