"""Ten optimizer steps of two-block models through the modules: kernels in the interpreter against plain torch."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from kernels import LoRALinear, PaCALinear, group_siblings, parameter_groups, reference, refresh_after_step
from kernels.runtime import dispatch, launch
from kernels.runtime.tile_tables import Tile

transformers = pytest.importorskip("transformers")

STEPS = 10

# Coarser than the interpreter's usual tiles: its time goes by the program, and these tests ask about modules.
COARSE = {
    "gemm": Tile(32, 128, 64, 2, 4, ""), "gemm_sum": Tile(32, 128, 64, 2, 4, ""),
    "single_pass": Tile(32, 128, 64, 2, 4, ""),
    "project": Tile(32, 0, 64, 2, 4, ""), "branch_gradients": Tile(32, 128, 0, 2, 4, ""),
    "branch_gradients_da": Tile(32, 128, 0, 2, 4, ""), "skinny": Tile(32, 128, 0, 2, 4, ""),
    "skinny_parts": Tile(32, 128, 0, 2, 4, ""), "gather": Tile(32, 0, 0, 1, 4, ""),
}  # fmt: skip


@pytest.fixture(autouse=True)
def coarse_tiles():
    with dispatch.using_tiles(COARSE):
        yield


def gpt2() -> nn.Module:
    sizes = {"n_embd": 32, "n_layer": 2, "n_head": 2, "vocab_size": 61, "n_positions": 32}
    off = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    return transformers.GPT2LMHeadModel(transformers.GPT2Config(**sizes, **off, use_cache=False))


def llama() -> nn.Module:
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 48, "vocab_size": 61}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 32}
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**sizes, **heads, use_cache=False))


def adapt(model: nn.Module, method: str) -> nn.Module:
    """Every linear layer of the blocks, the head left out."""
    model.requires_grad_(False)
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            linear = isinstance(child, nn.Linear) or type(child).__name__ == "Conv1D"
            if linear and name != "lm_head":
                make = LoRALinear if method == "lora" else PaCALinear
                setattr(parent, name, make(child, 4, 8))
    for module in model.modules():
        if isinstance(module, LoRALinear):
            nn.init.normal_(module.lora_b, std=0.05)
    return model


def train(model: nn.Module, ids: torch.Tensor, eager: bool, refresh: bool = True) -> tuple[list[float], dict]:
    optimizer = torch.optim.AdamW(parameter_groups(model, 0.01), lr=1e-2)
    if refresh:
        refresh_after_step(optimizer, model)
    losses = []
    with pytest.MonkeyPatch.context() as patch:
        if eager:
            import kernels.lora.module
            import kernels.paca.module

            patch.setattr(kernels.lora.module, "lora_linear", reference.lora_linear)
            patch.setattr(kernels.paca.module, "paca_linear", reference.paca_linear)
        for _ in range(STEPS):
            loss = model(input_ids=ids, labels=ids).loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    return losses, {name: p.detach() for name, p in model.named_parameters()}


def both(make, method: str, refresh: bool = True):
    torch.manual_seed(0)
    model = adapt(make(), method)
    twin = copy.deepcopy(model)
    group_siblings(model)  # the copy is without: its eager run would launch kernels
    ids = torch.randint(61, (2, 10))
    launch.counts.clear()
    ours = train(model, ids, eager=False, refresh=refresh)
    counts = dict(launch.counts)
    launch.counts.clear()
    eager = train(twin, ids, eager=True)
    assert not launch.counts, "the eager run launched a kernel"
    return ours, eager, counts


def assert_same(ours, eager) -> None:
    """fp32: Adam divides by sqrt(v), which amplifies last-bit differences of small gradients at the first steps."""
    torch.testing.assert_close(torch.tensor(ours[0]), torch.tensor(eager[0]), rtol=1e-5, atol=1e-6)
    for name, weight in eager[1].items():
        distance = (ours[1][name] - weight).norm() / weight.norm().clamp_min(1e-12)
        assert distance < 1e-4, f"{name}: {distance:.2g}"


MODELS = [pytest.param(gpt2, id="gpt2"), pytest.param(llama, id="llama", marks=pytest.mark.slow)]


@pytest.mark.slow
@pytest.mark.parametrize("make", MODELS)
def test_lora_steps(make) -> None:
    ours, eager, counts = both(make, "lora")
    first, later, groups = (8, 8, 0) if make is gpt2 else (14, 4, 4)  # layers alone in a step, and groups
    assert counts["branch_gradients_kernel"] == STEPS * first, "one backward per layer and step, through the kernels"
    assert counts.get("skinny_kernel", 0) == (STEPS - 1) * groups, "q, k, v and gate, up from step 2 on"
    assert counts["single_pass_kernel"] == first + (STEPS - 1) * later
    assert ours[0][-1] < ours[0][0]
    assert_same(ours, eager)


@pytest.mark.parametrize("make", MODELS)
def test_paca_steps(make) -> None:
    ours, eager, counts = both(make, "paca")
    layers = 8 if make is gpt2 else 14
    assert counts["gather_kernel"] == counts["skinny_kernel"] == STEPS * layers
    assert ours[0][-1] < ours[0][0]
    assert_same(ours, eager)


def test_stale_columns_are_caught() -> None:
    """Without the refresh after each step the weight keeps the first columns: the same check fails."""
    ours, eager, _ = both(gpt2, "paca", refresh=False)
    with pytest.raises(AssertionError):
        assert_same(ours, eager)


@pytest.mark.slow
@pytest.mark.parametrize("group", ["self_attn.qkv", "mlp.gate_up"])
def test_a_group_passes_the_check(group: str, tmp_path) -> None:
    """As the suite times them at level linear: S of all siblings in one launch, dropout masks checked by layer."""
    from bench.correctness.check import check
    from tests.models.tiny import LLAMA, make_case, write_config

    model = write_config(tmp_path, LLAMA, attention_bias=True)
    case = make_case(model, "lora", "linear", layer=group, impl="triton", precision="bf16", dropout=0.1)
    launch.counts.clear()
    result = check(case, "cpu", seed=1)
    assert result.passed, result.detail
    members = 3 if group == "self_attn.qkv" else 2
    assert launch.counts["branch_gradients_kernel"] == members * launch.counts["skinny_kernel"] > 0, (
        "dA of all in one launch"
    )
    assert launch.counts["project_kernel"] >= launch.counts["skinny_kernel"]


@pytest.mark.slow
@pytest.mark.parametrize("dropout", [0.0, 0.1], ids=["", "dropout"])
def test_a_block_with_siblings_passes_the_check(dropout: float, tmp_path) -> None:
    """As the suite times it at levels block and model: groups, and under dropout the masks of the smallest group."""
    from bench.correctness.check import check
    from tests.models.tiny import LLAMA, make_case, write_config

    case = make_case(
        write_config(tmp_path, LLAMA), "lora", "block", impl="triton", dropout=dropout, targets="all-linear"
    )
    launch.counts.clear()
    result = check(case, "cpu", seed=1)
    assert result.passed, result.detail
    assert launch.counts["skinny_kernel"] > 0, "a group's dA, which layers alone compute with dB in the interpreter"
    masks = {name.split()[2] for name in result.errors if name.startswith("mask of layer")}
    assert masks == ({"layer.q_proj", "layer.k_proj", "layer.v_proj"} if dropout else set())
