"""What an accelerated model is called, what it leaves on disk, and that a pickle of it needs this package no more."""

from __future__ import annotations

import copy
import io
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from peft import get_layer_status, get_model_status
from peft.tuners.lora import LoraModel
from peft.tuners.lora.layer import Linear
from torch import nn

from kernels.peft import accelerate, restore
from tests.kernels.peft.peft_models import assert_same, config, inputs, observe, stack

KINDS = ["linear", "conv1d"]


@pytest.mark.parametrize("dora", [False, True], ids=["lora", "dora"])
@pytest.mark.parametrize("kind", KINDS)
def test_copies_are_accelerated(kind: str, dora: bool, fused: list) -> None:
    model = stack(kind, True, config(use_dora=dora))
    expected = observe(model, inputs())
    twin, shallow = copy.deepcopy(model), copy.copy(model.base_model.model.first)
    assert shallow.lora_A is model.base_model.model.first.lora_A
    fused.clear()
    shallow(inputs())
    assert len(fused) == 1
    for parameter in model.parameters():
        parameter.data.zero_()
    fused.clear()
    assert_same(observe(twin, inputs()), expected, rtol=0, atol=0)
    assert len(fused) == 2
    twin.add_adapter("wider", config(target_modules=["rest"]))
    twin.set_adapter("wider")
    twin(inputs())
    assert len(fused) == 3, "the copied tuner is accelerated too"
    restore(twin)
    twin(inputs())
    assert len(fused) == 3


@pytest.mark.parametrize("dora", [False, True], ids=["lora", "dora"])
@pytest.mark.parametrize("protocol", [0, 2, pickle.HIGHEST_PROTOCOL])
def test_pickles_are_pefts(protocol: int, dora: bool, fused: list) -> None:
    model = stack("linear", True, config(use_dora=dora))
    expected = observe(model, inputs())
    written = pickle.dumps(model, protocol)
    assert b"kernels" not in written.replace(b"tests.kernels", b"")  # Stack is of the tests
    loaded = pickle.loads(written)
    assert type(loaded.base_model) is LoraModel and type(loaded.base_model.model.first) is Linear
    fused.clear()
    assert_same(observe(loaded, inputs()), expected)
    assert not fused
    assert len(accelerate(loaded).accelerated) == 2
    assert_same(observe(loaded, inputs()), expected, rtol=0, atol=0)
    assert len(fused) == 2


LOADER = """
import sys
sys.modules["kernels"] = None
import torch
model, x, expected = torch.load(sys.argv[1], weights_only=False)
torch.testing.assert_close(model(x), expected)
print(type(model.base_model), type(model.base_model.model[0]))
"""


@pytest.mark.slow
def test_a_saved_model_loads_without_this_package(tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    model = get_peft_model(nn.Sequential(nn.Linear(8, 8)), LoraConfig(target_modules=["0"], init_lora_weights=False))
    accelerate(model)
    x = torch.randn(3, 8)
    torch.save((model, x, model(x).detach()), tmp_path / "model.pt")
    command = [sys.executable, "-c", LOADER, str(tmp_path / "model.pt")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "peft.tuners.lora.model.LoraModel" in done.stdout and "peft.tuners.lora.layer.Linear" in done.stdout


def test_our_classes_can_be_pickled_by_name() -> None:
    model = stack("linear", True)
    for kind in (type(model.base_model), type(model.base_model.model.first)):
        assert pickle.loads(pickle.dumps(kind)) is kind


def test_names_are_pefts() -> None:
    theirs, ours = stack("linear", False), stack("linear", True)
    assert get_model_status(ours) == get_model_status(theirs)
    assert get_layer_status(ours) == get_layer_status(theirs)
    assert (repr(ours), str(ours)) == (repr(theirs), str(theirs))
    assert [type(module).__name__ for module in ours.modules()] == [
        type(module).__name__ for module in theirs.modules()
    ]
    assert isinstance(ours.base_model, LoraModel) and isinstance(ours.base_model.model.first, Linear)
    assert ours.base_model.prefix == theirs.base_model.prefix
    for ours_layer, theirs_layer in zip(ours.modules(), theirs.modules(), strict=True):
        if isinstance(theirs_layer, Linear):  # what Mamba's and others' fused forwards read raw
            assert torch.equal(ours_layer.weight, theirs_layer.weight)
            assert torch.equal(ours_layer.bias, theirs_layer.bias)


def test_saved_files_are_the_same(tmp_path: Path) -> None:
    written = []
    for accelerated in (False, True):
        folder = tmp_path / str(accelerated)
        stack("conv1d", accelerated, config(modules_to_save=["rest"])).save_pretrained(folder)
        buffer = io.BytesIO()
        torch.save(stack("conv1d", accelerated).state_dict(), buffer)
        files = {path.name: path.read_bytes() for path in folder.iterdir()}
        written.append(files | {"state_dict": buffer.getvalue()})
    assert set(written[0]) > {"README.md", "adapter_config.json", "adapter_model.safetensors"}
    assert written[1] == written[0]
