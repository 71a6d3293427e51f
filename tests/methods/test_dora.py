"""dora's eager layers beside Hugging Face PEFT's, on the same weights: outputs, gradients, merging, dropout."""

from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from bench.correctness.prepare import canonical
from bench.methods.dora.eager import EagerDoRALinear
from bench.methods.refresh import draw_lora_b
from bench.models.build import build
from bench.models.work import Work
from kernels import DoRALinear
from tests.models.tiny import GPT2, LLAMA, NO_DROPOUT, make_case, write_config

FIELDS = {"gpt2": {**GPT2, **NO_DROPOUT}, "llama": LLAMA}


def _layers(kind: str, dropout: float, dtype: torch.dtype, adapter: torch.dtype | None = None) -> tuple[Any, Any]:
    """An eager layer and PEFT's own over the same weight, with the same A, B and magnitude."""
    torch.manual_seed(0)
    base = (Conv1D(40, 24) if kind == "conv1d" else nn.Linear(24, 40, bias=kind == "linear")).to(dtype)
    ours = EagerDoRALinear(base, 4, 14.0, dropout, adapter)
    model = nn.ModuleDict({"layer": Conv1D(40, 24) if kind == "conv1d" else nn.Linear(24, 40, kind == "linear")})
    model["layer"].to(dtype).load_state_dict(base.state_dict())
    config = peft.LoraConfig(
        r=4, lora_alpha=14, lora_dropout=dropout, target_modules=["layer"], use_dora=True,
        fan_in_fan_out=kind == "conv1d",
    )  # fmt: skip
    theirs = peft.inject_adapter_in_model(config, model)["layer"]
    if adapter is not None:
        for name in ("lora_A", "lora_B", "lora_magnitude_vector"):
            getattr(theirs, name).to(adapter)
    started = theirs.lora_magnitude_vector["default"].weight
    torch.testing.assert_close(ours.magnitude, started.to(ours.magnitude.dtype), rtol=1e-2 if adapter else 1e-6, atol=0)
    with torch.no_grad():
        ours.lora_b.normal_(std=0.3)
        ours.magnitude.mul_(1 + 0.3 * torch.randn_like(ours.magnitude))
        theirs.lora_A["default"].weight.copy_(ours.lora_a)
        theirs.lora_B["default"].weight.copy_(ours.lora_b)
        started.copy_(ours.magnitude)
    return ours, theirs


def _seen(layer: nn.Module, dtype: torch.dtype) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(3, 5, 24, generator=generator).to(dtype).requires_grad_()
    torch.manual_seed(5)
    y = layer(x)
    y.backward(torch.randn(y.shape, generator=generator).to(y.dtype))
    leaves = {canonical(name): p.grad for name, p in layer.named_parameters() if p.requires_grad}
    assert x.grad is not None
    return {"y": y.detach(), "x": x.grad, **leaves}  # type: ignore[dict-item]


@pytest.mark.parametrize("dropout", [0.0, 0.3], ids=["plain", "dropout"])
@pytest.mark.parametrize("kind", ["linear", "linear-nobias", "conv1d"])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 1e-2)]
)
def test_one_layer_equals_peft(kind: str, dropout: float, dtype: torch.dtype, tolerance: float) -> None:
    ours, theirs = (_seen(layer, dtype) for layer in _layers(kind, dropout, dtype))
    assert ours.keys() == theirs.keys() == {"y", "x", "lora_a", "lora_b", "magnitude"}
    for name, value in theirs.items():
        assert (ours[name] - value).norm() <= tolerance * value.norm(), name


def test_fp32_adapters_on_a_16_bit_weight_compute_as_in_peft() -> None:
    ours, theirs = (_seen(layer, torch.bfloat16) for layer in _layers("linear", 0.0, torch.bfloat16, torch.float32))
    assert ours["y"].dtype == torch.bfloat16 and ours["magnitude"].dtype == torch.float32
    for name, value in theirs.items():
        assert (ours[name] - value).norm() <= 1e-5 * value.norm(), name


@pytest.mark.parametrize("kind", ["linear", "conv1d"])
def test_merged_is_what_peft_merges(kind: str) -> None:
    ours, theirs = _layers(kind, 0.0, torch.float32)
    before = ours(torch.ones(1, 24))
    ours.merge()
    theirs.merge()
    torch.testing.assert_close(ours.stored_weight, theirs.get_base_layer().weight, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(ours(torch.ones(1, 24)), before, rtol=1e-4, atol=1e-5)


def _run(work: Work) -> dict[str, Tensor]:
    work.clear()
    out = work.forward()
    work.backward(out)
    return {"output": out.detach()} | {canonical(name): leaf.grad for name, leaf in work.leaves}  # type: ignore[misc]


@pytest.mark.parametrize("scaling", [None, "rslora"])
@pytest.mark.parametrize("impl", ["peft", "peft-fp32", "peft-triton", "triton"])
@pytest.mark.parametrize("family", FIELDS)
def test_every_impl_equals_eager_on_a_block(impl: str, family: str, scaling: str | None, tmp_path: Path) -> None:
    path = write_config(tmp_path, FIELDS[family])
    works = [
        build(make_case(path, "dora", "block", impl=i, scaling=scaling, dropout=0.0), "cpu") for i in ("eager", impl)
    ]
    draw_lora_b(works[0].model)
    values = {canonical(name): leaf for name, leaf in works[0].leaves}
    with torch.no_grad():
        for name, leaf in works[0].leaves:
            if name.endswith("magnitude"):
                leaf.mul_(1 + 0.3 * torch.randn_like(leaf))
        for name, leaf in works[1].leaves:
            leaf.copy_(values[canonical(name)])
    wanted, found = map(_run, works)
    assert found.keys() == wanted.keys() and len(found) == {"gpt2": 14, "llama": 23}[family]
    for name, want in wanted.items():
        assert (found[name] - want).norm() <= 1e-5 * want.norm(), name


def test_b_is_drawn_in_every_impl(tmp_path: Path) -> None:
    for impl in ("eager", "peft", "triton"):
        work = build(make_case(write_config(tmp_path, GPT2), "dora", impl=impl), "cpu")
        draw_lora_b(work.model)
        drawn = [leaf for name, leaf in work.leaves if canonical(name).endswith("lora_b")]
        assert len(drawn) == 16 and all(leaf.any() for leaf in drawn)


def test_dropout_of_the_library_is_that_of_the_reference() -> None:
    """In training mode; the mean over masks is the layer without them."""
    torch.manual_seed(0)
    layer = DoRALinear(nn.Linear(16, 24), 4, 8, dropout=0.3).double()
    nn.init.normal_(layer.lora_b)
    nn.init.uniform_(layer.magnitude, 0.5, 2)
    x = torch.randn(4, 16, dtype=torch.float64)
    mean = torch.stack([layer(x).detach() for _ in range(4000)]).mean(0)
    plain = layer.eval()(x)
    assert torch.equal(plain, layer(x)) and (mean - plain).norm() < 0.05 * plain.norm()
