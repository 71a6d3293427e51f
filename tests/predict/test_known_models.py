"""Published timings of whole models become cases by their stated conditions; those that lack one say which."""

import json
from pathlib import Path

import pytest

from bench.case.shapes import model_shape
from bench.errors import UserError
from bench.predict.boards import board
from bench.predict.changes import changed, plain_attention
from bench.predict.known_models import Known, read_model_level, understood, with_config
from bench.predict.ops import Op, Trace

NEUSIGHT = {
    "gpu": "H100 80GB HBM3", "n_gpus": "1", "model": "GPT-2 large (36 layers)", "method": "full eager training",
    "dtype": "fp32 (no TF32)", "batch": "4", "seq": "1024", "grad_ckpt": "no", "what": "forward", "value": "2",
    "unit": "ms", "source": "sitar-lab/NeuSight@1:a.json", "note": "",
}  # fmt: skip
TUNING = NEUSIGHT | {
    "gpu": "A100-80GB", "model": "mistralai/Mistral-7B-v0.1", "method": "LoRA [none] r=16 q_proj k_proj v_proj o_proj",
    "dtype": "bfloat16", "seq": "4094", "grad_ckpt": "yes", "what": "training", "value": "4096", "unit": "tokens/s/GPU",
    "source": "foundation-model-stack/fms-acceleration@1:a.csv",
}  # fmt: skip
BLOCK = NEUSIGHT | {
    "gpu": "RTX-3090Ti", "model": "GPT2-medium, one block", "method": "full, HF eager", "dtype": "fp16", "seq": "512",
    "what": "GPT2-medium block forward+backward seq 512", "value": "30", "unit": "TFLOP/s", "grad_ckpt": "",
    "source": "mli/transformers-benchmarks@1:a.ipynb",
}  # fmt: skip


def known(row: dict[str, str]) -> Known:
    found = understood(row)
    assert isinstance(found, Known), found
    return found


def test_training_in_fp32_with_attention_that_is_not_fused() -> None:
    found = known(NEUSIGHT)
    assert (found.board, found.pass_, found.ms) == (board("h100"), "forward", 2.0)
    assert (found.case.precision, found.case.method, found.case.size) == ("fp32", "full", (4, 1024))
    assert set(found.changes) == {"plain attention", "no loss"} and found.training
    assert not known(NEUSIGHT | {"method": "full eager inference"}).training


def test_tokens_a_second_become_a_step_of_packed_sequences() -> None:
    found = known(TUNING)
    assert (found.pass_, found.ms) == ("step", 4 * 4096 / 4096 * 1e3)
    case = found.case
    assert (case.method, case.impl, case.rank, case.seq) == ("lora", "peft", 16, 4096)
    assert case.targets == "q_proj,k_proj,v_proj,o_proj" and found.changes == ("recompute",)


def test_a_rate_becomes_a_time_by_its_source_s_own_count() -> None:
    found = known(BLOCK)
    # 72 b s h^2 + 12 b h s^2 operations at 30 TFLOP/s.
    assert found.ms == pytest.approx((72 * 4 * 512 * 1024**2 + 12 * 4 * 1024 * 512**2) / 30e12 * 1e3)
    assert (found.case.level, found.pass_, found.board.sms) == ("block", "forward-backward", 84)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"n_gpus": "8"}, "more than one GPU"),
        ({"n_gpus": ""}, "number of GPUs not stated"),
        ({"gpu": "Tesla T4"}, "a GPU without a board here"),
        ({"method": "QLoRA"}, "quantized weights"),
        ({"method": "DoRA r384"}, "DoRA"),
        ({"method": "full torch.compile fusion inference"}, "compiled"),
        ({"note": "torch.compile on"}, "compiled"),
        ({"grad_ckpt": "not stated (script default on)"}, "gradient checkpointing not stated"),
        ({"seq": "max 512, padded per batch"}, "batch or length not stated, or not the same in each step"),
        ({"batch": "1 x 8 accumulation"}, "batch or length not stated, or not the same in each step"),
        ({"model": "Switch-XL-4"}, "a model without a config here"),
    ],
)
def test_what_lacks_a_condition_is_left_out_with_it(row: dict[str, str], reason: str) -> None:
    assert understood(NEUSIGHT | row) == reason


def test_rows_are_counted_by_what_they_lack(tmp_path: Path) -> None:
    lines = [NEUSIGHT, NEUSIGHT | {"n_gpus": "8"}, NEUSIGHT | {"n_gpus": "4"}]
    write(tmp_path, lines)
    found = read_model_level(tmp_path)
    assert len(found.known) == 1
    assert found.left_out == {("sitar-lab/NeuSight", "more than one GPU"): 2}


def write(folder: Path, rows: list[dict[str, str]]) -> None:
    lines = [",".join(rows[0]), *[",".join(f'"{v}"' for v in row.values()) for row in rows]]
    (folder / "model_level.csv").write_text("\n".join(lines) + "\n")


def test_a_damaged_folder_is_refused_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"model_level\.csv: not there\. --published is the folder"):
        read_model_level(tmp_path)
    write(tmp_path, [{k: v for k, v in NEUSIGHT.items() if k != "seq"}])
    with pytest.raises(UserError, match="no column seq"):
        read_model_level(tmp_path)
    write(tmp_path, [NEUSIGHT, NEUSIGHT | {"value": "fast"}])
    with pytest.raises(UserError, match=r"model_level\.csv:3: value is 'fast'"):
        read_model_level(tmp_path)
    (tmp_path / "model_level.csv").write_bytes(b'a,"b\n\xff')
    with pytest.raises(UserError, match="not CSV"):
        read_model_level(tmp_path)


def test_a_model_that_infers_has_no_dropout(tmp_path: Path) -> None:
    inference = with_config(known(NEUSIGHT | {"method": "full eager inference"}), tmp_path)
    training = with_config(known(NEUSIGHT), tmp_path)
    assert (model_shape(str(inference.case.model)).dropout, model_shape(str(training.case.model)).dropout) == (0, 0.1)
    assert json.loads(Path(str(training.case.model)).read_text())["n_layer"] == 36


GEMM = Op("aten::mm", "base_forward", "gemm", (8, 8, 8, 1))
HEAD = Op("aten::mm", "outside", "gemm", (8, 8, 8, 1))
LOSS = Op("aten::_log_softmax", "outside", "softmax", bytes=8)
FUSED = Op("aten::flash", "attention", "attention", flops=1)
BACK = Op("aten::flash_backward", "attention", "attention", flops=1, backward=True)
TRACE = Trace({"forward": (GEMM, FUSED, HEAD, LOSS), "backward": (BACK, GEMM)})


def test_checkpointing_runs_the_blocks_forward_again() -> None:
    found = changed(TRACE, known(NEUSIGHT).case, ["recompute"])
    assert found.phases["backward"] == (GEMM, FUSED, BACK, GEMM) and found.phases["forward"] == TRACE.phases["forward"]


def test_loss_and_head_are_left_out_of_the_forward_alone() -> None:
    found = changed(TRACE, known(NEUSIGHT).case, ["no loss", "no head"])
    assert found.phases == {"forward": (GEMM, FUSED), "backward": TRACE.phases["backward"]}


def test_attention_that_is_not_fused_does_the_same_products(tmp_path: Path) -> None:
    case = with_config(known(NEUSIGHT), tmp_path).case
    forward, backward = plain_attention(case)
    # Q K^T and P V: 4 b s^2 h in all; dP, dV, dQ and dK twice that.
    products = [sum(op.flops for op in ops if op.kind == "gemm") for ops in (forward, backward)]
    assert products == [4 * 4 * 1024**2 * 1280, 8 * 4 * 1024**2 * 1280]
    for op in forward + backward:
        if op.kind == "gemm":
            m, n, k, batch = op.sizes
            assert op.flops == 2 * m * n * k * batch and op.fp32 and op.width == 4
    found = changed(TRACE, case, ["plain attention"])
    assert found.phases["forward"] == (GEMM, *forward, HEAD, LOSS)
    assert found.phases["backward"] == (*backward, GEMM)
    assert [op.kind for op in forward].count("random") == 1


def test_where_nothing_is_dropped_no_mask_is_drawn(tmp_path: Path) -> None:
    forward, _ = plain_attention(with_config(known(NEUSIGHT | {"method": "full eager inference"}), tmp_path).case)
    assert all(op.kind != "random" for op in forward)
