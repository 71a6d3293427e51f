"""LoRALinear.prepare(): the weight laid out for the scheme that the dispatcher prefers; the interpreter asks for an
A100's, which takes one GEMM on [W | B] for (3072, 1024) at 4096 tokens and one kernel at 37."""

import pytest
import torch
from torch import nn

from kernels import LoRALinear
from kernels.lora.bordered_weight import border_of


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
