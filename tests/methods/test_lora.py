"""LoRA, impl eager: the same output and gradients as Hugging Face PEFT on the same weights."""

from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from bench.methods.refresh import draw_lora_b
from bench.methods.registry import apply
from bench.models.config import make_config, make_model
from kernels import LoRALinear
from tests.models.tiny import GPT2, LLAMA, NO_DROPOUT, make_case, write_config

CPU = torch.device("cpu")
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-10}
PARTS = {"lora_a": "lora_A.default.weight", "lora_b": "lora_B.default.weight"}


def _peft(model: nn.Module, targets: list[str], dropout: float, **more: Any) -> nn.Module:
    """PEFT's adapters on `model`, in place: rank 4, alpha 16."""
    config = peft.LoraConfig(
        r=4, lora_alpha=16, lora_dropout=dropout, target_modules=targets, bias="none", init_lora_weights=False, **more
    )
    return peft.inject_adapter_in_model(config, model)


def _copy_adapters(ours: nn.Module, theirs: nn.Module) -> dict[str, str]:
    """Our adapters' values into PEFT's; returns PEFT's parameter name for each of ours."""
    names = {}
    parameters = dict(theirs.named_parameters())
    for name, p in ours.named_parameters():
        head, _, part = name.rpartition(".")
        if part in PARTS:
            names[name] = f"{head}.{PARTS[part]}" if head else PARTS[part]
            with torch.no_grad():
                parameters[names[name]].copy_(p)
    trained = {name for name, p in parameters.items() if p.requires_grad}
    assert trained == set(names.values())
    return names


def _close(found: Tensor | None, expected: Tensor | None, name: str) -> None:
    assert found is not None and expected is not None, name
    error = torch.linalg.vector_norm((found - expected).detach()) / torch.linalg.vector_norm(expected.detach())
    assert float(error) <= TOLERANCE[found.dtype], f"{name}: {float(error):.1e}"


def _compare(ours: nn.Module, theirs: nn.Module, run: Any, seed: int = 7) -> None:
    """Runs both from the same random state; compares output and all gradients by name."""
    names = _copy_adapters(ours, theirs)
    outs = []
    for model in (ours, theirs):
        torch.manual_seed(seed)
        out = run(model)
        out.backward(torch.randn(out.shape, dtype=out.dtype, generator=torch.Generator().manual_seed(1)))
        outs.append(out)
    _close(outs[0], outs[1], "output")
    theirs_by_name = dict(theirs.named_parameters())
    for name, p in ours.named_parameters():
        if name in names:
            _close(p.grad, theirs_by_name[names[name]].grad, name)
        else:
            assert p.grad is None, name


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("dropout", [0.0, 0.3], ids=["plain", "dropout"])
@pytest.mark.parametrize("kind", ["linear", "linear-nobias", "conv1d"])
def test_one_layer_equals_peft(kind: str, dropout: float, dtype: torch.dtype) -> None:
    torch.manual_seed(0)

    def layer() -> nn.Module:
        made = Conv1D(40, 24) if kind == "conv1d" else nn.Linear(24, 40, bias=kind == "linear")
        return nn.ModuleDict({"layer": made}).to(dtype)

    ours, theirs = layer(), layer()
    theirs.load_state_dict(ours.state_dict())
    case = make_case(None, "lora", "linear", layer="square-24", dropout=dropout)
    apply(ours, case)
    draw_lora_b(ours)
    theirs = _peft(theirs, ["layer"], dropout, fan_in_fan_out=kind == "conv1d")
    inputs = [torch.randn(3, 5, 24, dtype=dtype).requires_grad_() for _ in range(2)]
    inputs[1].data.copy_(inputs[0].data)
    xs = {id(ours): inputs[0], id(theirs): inputs[1]}
    _compare(ours, theirs, lambda model: model["layer"](xs[id(model)]))
    _close(inputs[0].grad, inputs[1].grad, "x")


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("dropout", [0.0, 0.1], ids=["plain", "dropout"])
@pytest.mark.parametrize(
    ("fields", "targets"),
    [
        pytest.param({**GPT2, "n_layer": 2}, "all-linear", id="gpt2"),
        pytest.param({**GPT2, "n_layer": 2}, "attn.c_proj,c_fc", id="gpt2-some"),
        pytest.param({**LLAMA, "num_hidden_layers": 2}, "all-linear", id="llama"),
        pytest.param({**LLAMA, "num_hidden_layers": 2}, "q_proj,v_proj", id="llama-qv"),
    ],
)
def test_a_model_equals_peft(
    fields: dict[str, Any], targets: str, dropout: float, dtype: torch.dtype, tmp_path: Path
) -> None:
    """GPT-2's own dropouts are on with the adapters': the masks are drawn in the same order."""
    case = make_case(write_config(tmp_path, fields), "lora", targets=targets, dropout=dropout)
    config = make_config({**fields, **({} if dropout else NO_DROPOUT)} if fields["model_type"] == "gpt2" else fields)
    ours, theirs = make_model(config, CPU, dtype), make_model(config, CPU, dtype)
    theirs.load_state_dict(ours.state_dict())
    apply(ours, case)
    draw_lora_b(ours)
    conv1d = fields["model_type"] == "gpt2"
    names = [p.name for p in case.target_projections]
    _peft(theirs, names, dropout, fan_in_fan_out=conv1d).train()
    ids = torch.randint(101, (2, 12))
    _compare(ours, theirs, lambda model: model(input_ids=ids, labels=ids, use_cache=False).loss)


def test_fp32_adapters_on_a_16_bit_weight_compute_as_in_peft() -> None:
    torch.manual_seed(0)
    ours, theirs = (nn.ModuleDict({"layer": nn.Linear(24, 40)}).bfloat16() for _ in range(2))
    theirs.load_state_dict(ours.state_dict())
    apply(ours, make_case(None, "lora", "linear", layer="square-24", adapter_dtype="fp32"))
    draw_lora_b(ours)
    theirs = _peft(theirs, ["layer"], 0.0)
    for name in ("lora_A", "lora_B"):
        theirs.get_submodule(f"layer.{name}").float()  # as get_peft_model does with 16-bit adapters
    x = torch.randn(3, 24).bfloat16()
    _copy_adapters(ours, theirs)
    assert torch.equal(ours["layer"](x), theirs["layer"](x))


def test_dropout_leaves_the_frozen_product_alone() -> None:
    model = nn.ModuleDict({"layer": nn.Linear(16, 16)})
    apply(model, make_case(None, "lora", "linear", layer="square-16", dropout=0.9))
    x = torch.randn(4, 16)
    layer = model["layer"]
    assert isinstance(layer, LoRALinear)
    assert torch.equal(layer(x), layer.base(x)), "B is zero after apply, as in training"
    draw_lora_b(model)
    assert not torch.equal(layer(x), layer(x))
    layer.eval()
    assert torch.equal(layer(x), layer(x))


def test_merged_equals_unmerged_and_comes_back() -> None:
    model = nn.ModuleDict({"layer": Conv1D(12, 16)}).double()
    apply(model, make_case(None, "lora", "linear", layer="square-16"))
    draw_lora_b(model)
    layer, x = model["layer"], torch.randn(4, 16, dtype=torch.float64)
    assert isinstance(layer, LoRALinear)
    before, weight = layer(x), layer.stored_weight.clone()
    layer.merge()
    torch.testing.assert_close(layer(x), before, rtol=1e-6, atol=1e-6)
    layer.unmerge()
    assert torch.equal(layer.stored_weight, weight)
    assert torch.equal(layer(x), before)
