"""What the registry says of the implementations there are."""

from pathlib import Path

import pytest
import torch
from torch import nn

from bench.case import Case
from bench.errors import UserError
from bench.methods.registry import apply, methods, unsupported
from bench.models.build import build
from bench.models.config import make_config, make_model
from bench.sweeps.expand import make_plan
from tests.models.tiny import GPT2, LLAMA, make_case, write_config


def test_every_method_has_an_eager_impl_that_loads() -> None:
    assert next(iter(methods())) == "full"
    for method in methods().values():
        assert callable(method.impls["eager"].load())
        assert all(impl.says for impl in method.impls.values())


def test_rank_above_the_columns_is_unsupported_by_paca_alone(tmp_path: Path) -> None:
    path = write_config(tmp_path, LLAMA)
    assert unsupported(make_case(path, "paca", rank=32), "cpu") is None
    assert unsupported(make_case(path, "paca", rank=33), "cpu") == (
        "rank 33 is above the 32 input columns of self_attn.q_proj"
    )
    assert unsupported(make_case(path, "paca", rank=33, targets="down_proj"), "cpu") is None
    assert unsupported(make_case(path, "lora", rank=33), "cpu") is None
    assert unsupported(make_case(path, "full"), "cuda") is None
    assert unsupported(make_case(None, "paca", "linear", layer="square-16", rank=17), "cpu") is not None


def _square(method: str, impl: str, **axes: object) -> Case:
    return make_case(None, method, "linear", layer="square-16", impl=impl, **axes)


@pytest.mark.parametrize(
    ("method", "impl", "axes", "reason"),
    [
        ("lora", "merged", {"dropout": 0.1}, "no adapter dropout: a merged weight"),
        ("lora", "bordered", {"dropout": 0.1}, "no adapter dropout: X and S'"),
        ("lora", "bordered", {"precision": "amp-bf16", "adapter_dtype": "fp32"}, "autocast would cast all of it"),
        ("lora", "bordered", {"precision": "bf16", "adapter_dtype": "fp32"}, "must have the dtype of W"),
        ("lora", "peft-fp32", {"precision": "bf16", "adapter_dtype": "bf16"}, "promotes adapters to fp32"),
        ("lora", "peft-triton", {}, "impl peft-triton needs an NVIDIA GPU"),
        ("lora", "peft", {"precision": "bf16", "adapter_dtype": "fp32"}, "fp32 ones are impl peft-fp32"),
        ("lora", "peft", {"precision": "bf16", "adapter_dtype": "fp32", "compile": "default"}, "are impl peft-fp32"),
        ("paca", "official", {"rank": 17}, "rank 17 is above the 16 input columns"),
        ("paca", "swap", {"rank": 17}, "rank 17 is above the 16 input columns"),
        ("paca", "eager", {"rank": 17, "compile": "default"}, "rank 17 is above the 16 input columns"),
    ],
)
def test_what_a_peer_cannot_express(method: str, impl: str, axes: dict[str, object], reason: str) -> None:
    assert reason in (unsupported(_square(method, impl, **axes), "cpu") or "")


def test_what_peers_can_express() -> None:
    for method, found in methods().items():
        for name, impl in found.impls.items():
            more = {"precision": "bf16", "adapter_dtype": "fp32"} if impl.fp32_adapters else {}
            needs_more = name.endswith("triton") or (found.quantises and name != "eager")  # a GPU; larger layers
            assert needs_more or unsupported(_square(method, name, **more), "cpu") is None
    for impl in ("addmm", "peft"):
        assert unsupported(_square("lora", impl, dropout=0.1), "cpu") is None
        assert unsupported(_square("lora", impl, precision="amp-bf16", adapter_dtype="fp32"), "cpu") is None


def test_bordered_is_for_single_layers(tmp_path: Path) -> None:
    path = write_config(tmp_path, GPT2)
    for level in ("block", "model"):
        reason = unsupported(make_case(path, "lora", level, impl="bordered"), "cpu")
        assert reason is not None and reason.startswith("a baseline for single layers")


def test_without_peft_or_a_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    for method in methods():
        assert "no-such-compiler is not there" in (
            unsupported(_square(method, "eager", compile="default"), "cpu") or ""
        )
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX")
    assert "g++ is not there" in (unsupported(_square("lora", "peft", compile="default"), "cpu") or "")
    assert "install gcc, or set CC" in (unsupported(_square("full", "eager", compile="default"), "cuda") or "")
    monkeypatch.undo()
    monkeypatch.setattr("bench.methods.requirements.find_spec", lambda name: None)
    for impl in ("peft", "peft-fp32"):
        reason = unsupported(_square("lora", impl, precision="bf16"), "cpu")
        assert reason == f"impl {impl} needs the package peft: pip install peft"
    assert "pip install triton" in (unsupported(_square("full", "eager", compile="default"), "cuda:0") or "")


def test_adapters_of_peft_as_it_comes_are_fp32(tmp_path: Path) -> None:
    sweep = tmp_path / "s.yaml"
    sweep.write_text(
        "description: x\n"
        "axes: {level: linear, layer: square-16, batch: 1, seq: 16, precision: [bf16, amp-bf16, fp32]}\n"
        "methods: [{method: lora, impl: [eager, peft, peft-fp32, peft-triton], rank: 4, alpha: 8}]\n"
    )
    found = {(c.impl, c.precision): c.adapter_dtype for c in make_plan(str(sweep), on_cpu=True).cases}
    assert found == {
        (impl, precision): "bf16" if precision == "bf16" and impl in ("eager", "peft") else "fp32"
        for impl in ("eager", "peft", "peft-fp32", "peft-triton")
        for precision in ("bf16", "amp-bf16", "fp32")
        if impl != "peft-fp32" or precision == "bf16"  # elsewhere it is impl peft, and measured as that
    }


def test_adapters_are_made_in_the_declared_dtype() -> None:
    wide = dict.fromkeys(("peft-fp32", "peft-triton"), torch.float32)
    for impl, dtype in {**wide, "peft": torch.bfloat16, "addmm": torch.bfloat16}.items():
        work = build(_square("lora", impl, precision="bf16"), "cpu")
        assert {leaf.dtype for name, leaf in work.leaves if name != "x"} == {dtype}


def test_unknown_impl() -> None:
    with pytest.raises(UserError, match="impl of lora"):
        unsupported(make_case(None, "lora", "linear", layer="square-16", impl="nonesuch"), "cpu")


@pytest.mark.parametrize("method", list(methods())[1:])
def test_targets_that_name_nothing(method: str, tmp_path: Path) -> None:
    model = make_model(make_config(GPT2), torch.device("meta"), torch.float32)
    with pytest.raises(ValueError, match="targets: 'q_proj' names no linear layer"):
        apply(model, make_case(write_config(tmp_path, GPT2), method, targets="q_proj"))


def test_targets_follow_peft_s_suffixes(tmp_path: Path) -> None:
    path = write_config(tmp_path, GPT2)
    for targets, expected in [
        ("c_proj", {"attn.c_proj", "mlp.c_proj"}),
        ("attn.c_proj", {"attn.c_proj"}),
        ("mlp.c_proj,c_attn", {"mlp.c_proj", "attn.c_attn"}),
        ("all-linear", {"attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"}),
    ]:
        model = make_model(make_config(GPT2), torch.device("meta"), torch.float32)
        names = [name for name, _ in apply(model, make_case(path, "lora", targets=targets, trainable_layers="1"))]
        assert {name.removeprefix("transformer.h.3.").rpartition(".")[0] for name in names} == expected


def test_apply_keeps_eval_mode(tmp_path: Path) -> None:
    model: nn.Module = make_model(make_config(LLAMA), torch.device("cpu"), torch.float32).eval()
    apply(model, make_case(write_config(tmp_path, LLAMA), "lora", dropout=0.5))
    assert not any(module.training for module in model.modules())
