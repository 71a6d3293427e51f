"""LoRALinear.prepare(): the weight laid out for the scheme that the dispatcher prefers; the interpreter asks for an
A100's, which takes one GEMM on [W | B] for (3072, 1024) at 4096 tokens and one kernel at 37."""

import pytest
import torch
from torch import nn

from kernels import LoRALinear, lora_linear
from kernels.lora.bordered_weight import border_of, bordered


@pytest.fixture
def layer() -> LoRALinear:
    torch.manual_seed(0)
    layer = LoRALinear(nn.Linear(1024, 3072, dtype=torch.bfloat16), 8, 16)
    nn.init.normal_(layer.lora_b)
    return layer


def has_room(layer: LoRALinear) -> bool:
    return border_of(layer.weight, layer.rank) is not None


def test_only_a_layer_that_gains_by_it_is_moved(layer: LoRALinear) -> None:
    before = {name: value.clone() for name, value in layer.state_dict().items()}
    assert layer.prepare(37) == "single_pass" and not has_room(layer)
    assert layer.prepare(4096) == "bordered" and has_room(layer)
    address = layer.weight.data_ptr()
    assert layer.prepare(4096) == "bordered" and layer.weight.data_ptr() == address, "it is there already"
    after = layer.state_dict()
    assert all(torch.equal(after[name], value) and after[name].shape == value.shape for name, value in before.items())
    assert not layer.base.weight.requires_grad


def test_a_prepared_layer_can_be_moved_merged_and_loaded(layer: LoRALinear) -> None:
    layer.prepare(4096)
    weight = layer.weight.clone()
    layer.to(torch.float16)
    assert has_room(layer) and torch.equal(layer.weight, weight.half())
    layer.to(torch.float16)
    assert has_room(layer)
    layer.merge()
    assert not torch.equal(layer.weight, weight.half())
    layer.unmerge()
    assert torch.equal(layer.weight, weight.half()) and has_room(layer)
    layer.load_state_dict({name: value * 2 for name, value in layer.state_dict().items()})
    assert torch.equal(layer.weight, weight.half() * 2) and has_room(layer)


def test_dropout_counts_only_while_training(layer: LoRALinear) -> None:
    layer.dropout = 0.1
    assert layer.train().prepare(37) == "epilogue"
    assert layer.eval().prepare(37) == "single_pass"


def test_b_is_read_at_every_call_however_it_was_changed() -> None:
    """Through .data no version tells of it, nor where a CUDA graph of the optimizer's step is replayed."""
    layer = LoRALinear(nn.Linear(32, 48), 8, 16)
    layer.border()
    x = torch.randn(5, 32)
    for _ in range(3):
        nn.init.normal_(layer.lora_b.data)
        branch = layer.scale * (x @ layer.lora_a.T) @ layer.lora_b.T
        y = lora_linear(x, layer.weight, layer.lora_a, layer.lora_b, scale=layer.scale, scheme="bordered")
        torch.testing.assert_close(y, x @ layer.weight.T + branch)


def test_a_buffer_that_was_given_other_memory_is_no_border() -> None:
    weight, buffer = bordered(torch.randn(48, 32), 8)
    a, b = torch.randn(8, 32), torch.randn(48, 8)
    lora_linear(torch.randn(5, 32), weight, a, b, scale=2.0, scheme="bordered")
    assert border_of(weight, 8) is buffer
    buffer.data = buffer.clone()
    assert border_of(weight, 8) is None
    with pytest.raises(ValueError, match="expected a weight with room"):
        lora_linear(torch.randn(5, 32), weight, a, b, scale=2.0, scheme="bordered")
