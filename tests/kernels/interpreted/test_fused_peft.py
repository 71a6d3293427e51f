"""accelerate with the kernels themselves: PEFT's outputs, gradients, masks under checkpointing, and loss curves."""

from __future__ import annotations

import copy

import pytest
import torch

from kernels.runtime import dispatch, launch
from kernels.runtime.tile_tables import Tile

pytest.importorskip("peft")

from tests.kernels.peft.peft_models import assert_same, config, gpt2, inputs, llama, observe, stack, tune
from tests.kernels.peft.peft_training import distance, spread, train
from tests.kernels.peft.situations import SITUATIONS, assert_agree, outcome

pytestmark = pytest.mark.filterwarnings("ignore")

# Coarser than the interpreter's usual tiles: its time goes by the program, and these tests ask about models.
COARSE = {
    "gemm": Tile(32, 128, 64, 2, 4, ""), "gemm_sum": Tile(32, 128, 64, 2, 4, ""),
    "single_pass": Tile(32, 128, 64, 2, 4, ""),
    "project": Tile(32, 0, 64, 2, 4, ""), "branch_gradients": Tile(32, 128, 0, 2, 4, ""),
    "branch_gradients_da": Tile(32, 128, 0, 2, 4, ""), "skinny": Tile(32, 128, 0, 2, 4, ""),
    "skinny_parts": Tile(32, 128, 0, 2, 4, ""), "gather": Tile(32, 0, 0, 1, 4, ""),
}  # fmt: skip


@pytest.fixture(autouse=True)
def coarse_tiles():
    launch.counts.clear()
    with dispatch.using_tiles(COARSE):
        yield


OPTIONS = {
    "plain": {},
    "rank_pattern": {"rank_pattern": {"second": 20}, "alpha_pattern": {"first": 3}},
    "bias_all": {"bias": "all"},
    "rslora": {"use_rslora": True},
}


@pytest.mark.parametrize("kind", ["linear", "conv1d"])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=list(OPTIONS))
def test_outputs_and_gradients(kind: str, options: dict) -> None:
    theirs = observe(stack(kind, False, config(**options)), inputs())
    assert not launch.counts
    ours = observe(stack(kind, True, config(**options)), inputs())
    assert launch.counts["reduce_kernel"] == 2, "one backward a layer, through the kernels"
    assert_same(ours, theirs)


@pytest.mark.parametrize("frozen", ["lora_A", "lora_B"])
def test_frozen_a_or_b(frozen: str) -> None:
    seen = []
    for accelerated in (False, True):
        model = stack("linear", accelerated)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_("lora_" in name and frozen not in name)
        seen.append(observe(model, inputs()))
    assert launch.counts and not any(frozen in name for name in seen[1])
    assert_same(seen[1], seen[0])


def test_fp32_adapter_over_bf16() -> None:
    seen = []
    for accelerated in (False, True):
        model = stack("conv1d", False).bfloat16()
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.data = parameter.data.float()
        if accelerated:
            from kernels.peft import accelerate

            assert len(accelerate(model).accelerated) == 2
        seen.append(observe(model, inputs().bfloat16()))
    assert launch.counts["reduce_kernel"] == 2
    for name, value in seen[0].items():
        assert seen[1][name].dtype == value.dtype
        assert (seen[1][name].float() - value.float()).norm() < 0.03 * value.float().norm(), name


@pytest.mark.slow
def test_autocast_again_and_in_another_dtype() -> None:
    """A plan remembered for one autocast dtype serves that one, and the same call outside autocast has its own."""
    theirs, ours = stack("conv1d", False), stack("conv1d", True)
    for dtype in (torch.bfloat16, torch.bfloat16, torch.float16, None, torch.bfloat16):
        launch.counts.clear()
        seen = []
        for model in (theirs, ours):
            with torch.autocast("cpu", dtype=dtype or torch.bfloat16, enabled=dtype is not None):
                assert model(inputs()).dtype == (dtype or torch.float32)
                seen.append(observe(model, inputs()))
        assert launch.counts["reduce_kernel"] == 2
        tolerance = 0.04 if dtype is not None else 1e-5
        for name, value in seen[0].items():
            assert seen[1][name].dtype == value.dtype
            assert (seen[1][name].float() - value.float()).norm() < tolerance * value.float().norm(), (dtype, name)


@pytest.mark.parametrize("reentrant", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["", "reentrant"])
def test_checkpointing_drops_the_same_elements(reentrant: bool) -> None:
    torch.manual_seed(0)
    model = tune(gpt2(), True, config(target_modules=["c_attn", "c_fc"], lora_dropout=0.4, fan_in_fan_out=True))
    twin = copy.deepcopy(model)
    twin.enable_input_require_grads()
    twin.gradient_checkpointing_enable({"use_reentrant": reentrant})
    ids = torch.arange(10)[None]
    seen = []
    for tried in (model, twin):
        launch.counts.clear()
        torch.manual_seed(8)
        loss = tried(input_ids=ids, labels=ids).loss
        loss.backward()
        gradients = {name: p.grad for name, p in tried.named_parameters() if p.grad is not None}
        seen.append({"loss": loss.detach()} | gradients)
    assert launch.counts["project_kernel"] == 8, "each of four layers draws its mask twice"
    assert_same(seen[1], seen[0])


def test_layers_over_the_compiled_path() -> None:
    """torch.compile goes by the custom ops, in one graph."""
    layer = stack("linear", True).base_model.model.first
    x = inputs()
    y = torch.compile(layer, backend="aot_eager", fullgraph=True)(x)
    torch._dynamo.reset()
    torch.testing.assert_close(y, stack("linear", False).base_model.model.first(x), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["export", "strict_export"])
def test_exports_as_without_accelerate(name: str) -> None:
    test_situations_as_without_accelerate(name)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_loss_curve_is_pefts(kind: str) -> None:
    """The first ten steps of tests/kernels/peft/test_training.py, which runs the reference: the interpreter is slow."""
    steps = 10
    theirs = train(kind, steps=steps)
    allowed = 4 * spread(kind, theirs, steps)
    assert not launch.counts
    ours = train(kind, accelerated=True, steps=steps)
    # Two blocks. GPT-2's four layers read an x each. In a Llama's seven q, k and v are a group, and gate and up, once
    # the first step has found them: they have one dA for all, and so 4 and 3 sums in place of 3 and 2.
    assert launch.counts["reduce_kernel"] == (8 * steps if kind == "gpt2" else 14 + 18 * (steps - 1))
    assert distance(ours, theirs) <= allowed


def test_llama_gradients() -> None:
    seen = []
    for accelerated in (False, True):
        torch.manual_seed(0)
        model = tune(llama(), accelerated, config(target_modules="all-linear"))
        ids = torch.arange(10)[None]
        loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
        seen.append({"loss": loss.detach()} | gradients)
    assert launch.counts["reduce_kernel"] == 14
    assert_same(seen[1], seen[0])


# Computed weights are known before the kernels are, whatever these run in. Exports take seconds.
MET = [name for name in SITUATIONS if " of " not in name and "export" not in name]


@pytest.mark.parametrize("name", MET)
def test_situations_as_without_accelerate(name: str) -> None:
    theirs, ours = (outcome(name, stack("linear", accelerated)) for accelerated in (False, True))
    assert_agree(ours, theirs)
