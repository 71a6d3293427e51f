"""The live columns follow their masters, whoever changes those and however the model is copied or wrapped."""

import copy
import gc
import io
import os
import subprocess
import sys
import warnings
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from kernels import PaCALinear
from kernels.paca import merge_paca, paca, save_paca
from kernels.paca.model import paca_layers
from tests.conftest import ROOT
from tests.kernels.paca.paca_models import batches, is_fresh, live, make, masked_twin, same, step, trained, weights

Optimizers = dict[str, Callable[[Any], torch.optim.Optimizer]]
OPTIMIZERS: Optimizers = {
    "sgd-momentum": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True),
    "adamw-foreach": lambda p: torch.optim.AdamW(p, lr=1e-2, weight_decay=0.0, foreach=True),
    "adamw-fused": lambda p: torch.optim.AdamW(p, lr=1e-2, weight_decay=0.0, fused=True),
    "adafactor": lambda p: torch.optim.Adafactor(p, lr=1e-2),
    "rprop": lambda p: torch.optim.Rprop(p, lr=1e-2),
}


def small(family: str = "llama") -> torch.nn.Module:
    return paca(make(family), 4, 8)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_step_of_any_optimizer_is_written_into_the_weights(name: str) -> None:
    model = small()
    optimizer = OPTIMIZERS[name](trained(model))
    for _ in range(2):
        before = weights(model)
        step(model, optimizer)
        assert is_fresh(model) and not same(weights(model), before)


class _InData(torch.optim.Optimizer):
    """Writes through .data, as some optimizers do: autograd's versions do not tell."""

    def __init__(self, params: Any) -> None:
        super().__init__(params, {})

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for p in self.param_groups[0]["params"]:
            p.data.sub_(0.1 * p.grad.data)


def test_an_optimizer_that_writes_behind_autograds_back() -> None:
    model = small()
    step(model, _InData(trained(model)))
    assert is_fresh(model)


def test_lbfgs_sees_its_own_moves_within_a_step() -> None:
    """It calls the model several times a step, having moved the parameters in between."""
    plain = make("gpt2", torch.float64)
    twin, dense = masked_twin(plain, paca(make("gpt2", torch.float64), 4, 4, adapter_dtype=torch.float64))
    ours = paca(plain, 4, 4, adapter_dtype=torch.float64)  # scale 1: both see the same gradients
    ids = torch.stack([row["input_ids"] for row in batches(2)])
    for model, params in ((ours, trained(ours)), (twin, dense)):
        optimizer = torch.optim.LBFGS(params, lr=0.1, max_iter=6)

        def closure(model: Any = model, optimizer: Any = optimizer) -> torch.Tensor:
            optimizer.zero_grad()
            loss = model(input_ids=ids, labels=ids).loss
            loss.backward()
            return loss

        optimizer.step(closure)
    assert is_fresh(ours)
    expected = weights(twin)
    for name, weight in weights(ours).items():
        torch.testing.assert_close(weight, expected[name], rtol=0, atol=1e-8, msg=name)


def test_two_optimizers_with_half_of_the_layers_each() -> None:
    model = small()
    params = trained(model)
    halves = [torch.optim.SGD(params[::2], lr=0.1), torch.optim.SGD(params[1::2], lr=0.1)]
    before = weights(model)
    step(model, halves[0])
    moved = {name for name, w in weights(model).items() if not torch.equal(w, before[name])}
    assert len(moved) == 14 and is_fresh(model)
    step(model, halves[1])
    assert is_fresh(model)


def test_a_step_that_the_scaler_skips_changes_nothing() -> None:
    model = small()
    optimizer, scaler = torch.optim.SGD(trained(model), lr=0.1), torch.amp.GradScaler("cpu")
    before = weights(model)
    scaler.scale(next(iter(paca_layers(model).values())).columns.sum() * float("inf")).backward()
    scaler.step(optimizer)
    scaler.update()
    assert same(weights(model), before)


def test_columns_changed_by_hand_reach_the_next_forward_and_every_checkpoint(tmp_path: Path) -> None:
    for look in ("forward", "state_dict", "deepcopy", "save", "merge"):
        model = small()
        with torch.no_grad():
            for p in trained(model):
                p.mul_(1.5)
        assert not is_fresh(model)
        if look == "forward":
            model(input_ids=batches(1)[0]["input_ids"][None])
        elif look == "state_dict":
            model.state_dict()
        elif look == "deepcopy":
            model = copy.deepcopy(model)
        elif look == "save":
            save_paca(model, tmp_path)
        else:
            layers = paca_layers(model)
            merge_paca(model)
            for name, layer in layers.items():
                assert torch.equal(model.get_submodule(name).weight[:, layer.index], layer.scale * layer.columns)
            continue
        assert is_fresh(model), look


def test_the_average_of_models_is_fresh() -> None:
    model = small()
    average = torch.optim.swa_utils.AveragedModel(model)
    optimizer = torch.optim.SGD(trained(model), lr=0.5)
    for _ in range(2):
        step(model, optimizer)
        average.update_parameters(model)
    average(input_ids=batches(1)[0]["input_ids"][None])
    assert is_fresh(average.module)
    pairs = zip(paca_layers(average.module).values(), paca_layers(model).values(), strict=True)
    assert any(not torch.equal(one.columns, other.columns) for one, other in pairs)


@pytest.mark.parametrize("how", ["deepcopy", "pickle"])
def test_a_copy_follows_its_own_optimizer_and_leaves_the_original(how: str) -> None:
    model = small()
    if how == "deepcopy":
        twin = copy.deepcopy(model)
    else:
        buffer = io.BytesIO()
        torch.save(model, buffer)
        buffer.seek(0)
        twin = torch.load(buffer, weights_only=False)
    before = weights(model)
    step(twin, _InData(trained(twin)))
    assert is_fresh(twin) and not same(weights(twin), before)
    assert same(weights(model), before)
    step(model, _InData(trained(model)))
    assert same(weights(model), weights(twin))


def test_a_model_moved_to_another_dtype_still_follows() -> None:
    model = small().to(torch.bfloat16)
    step(model, torch.optim.SGD(trained(model), lr=0.5))
    assert is_fresh(model)
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}


def test_evaluation_right_after_a_step_sees_it() -> None:
    model = small()
    ids = batches(1)[0]["input_ids"][None]
    with torch.inference_mode():
        before = model(input_ids=ids).logits
    step(model, torch.optim.SGD(trained(model), lr=0.5))
    with torch.inference_mode():
        after = model.eval()(input_ids=ids).logits
    assert not torch.equal(before, after)
    assert torch.equal(after, merge_paca(model)(input_ids=ids).logits)


def test_other_optimizers_and_layers_that_do_not_follow_are_left_alone() -> None:
    model, other = small(), torch.nn.Linear(4, 4)
    layer = PaCALinear(torch.nn.Linear(8, 8), 2, 4)
    before = weights(model), live(layer)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        optimizer = torch.optim.AdamW([*other.parameters(), layer.columns], lr=0.1, weight_decay=0.1)
        (other(torch.ones(1, 4)).sum() + layer(torch.ones(1, 8)).sum()).backward()
        optimizer.step()
    assert optimizer.param_groups[0]["weight_decay"] == 0.1
    assert same(weights(model), before[0]) and torch.equal(live(layer), before[1])


def test_nothing_keeps_a_model_alive() -> None:
    model = small()
    step(model, torch.optim.SGD(trained(model), lr=0.1))
    gone = [weakref.ref(layer) for layer in paca_layers(model).values()]
    del model
    gc.collect()
    assert all(ref() is None for ref in gone)


@pytest.mark.slow
@pytest.mark.parametrize("compiled_step", [False, True], ids=["eager-step", "compiled-step"])
def test_under_torch_compile(compiled_step: bool) -> None:
    eager, inner = (paca(make("gpt2", n_layer=1), 4, 8) for _ in range(2))
    torch._dynamo.reset()
    compiled = torch.compile(inner, backend="aot_eager")
    one, other = (torch.optim.SGD(trained(m), lr=0.5) for m in (eager, inner))
    if compiled_step:
        other.step = torch.compile(other.step, backend="aot_eager")
    with torch._dynamo.config.patch(error_on_recompile=True):
        for _ in range(3):
            assert step(compiled, other) == pytest.approx(step(eager, one), rel=1e-5)
            assert is_fresh(inner)
    for (name, a), (_, b) in zip(paca_layers(eager).items(), paca_layers(inner).items(), strict=True):
        torch.testing.assert_close(a.columns, b.columns, msg=name)


_DDP = """
import sys, torch, torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from kernels.paca import paca, save_paca
from kernels.paca.model import paca_layers
from tests.kernels.paca.paca_models import batches, is_fresh, make, trained
torch.set_num_threads(1)
dist.init_process_group("gloo")
model = paca(make("gpt2", torch.float64), 4, 8)
versions = [(layer.index._version, layer.pretrained._version) for layer in paca_layers(model).values()]
wrapped = DistributedDataParallel(model)
optimizer = torch.optim.SGD(trained(model), lr=0.1)
for seed in range(3):
    ids = batches(2, seed)[dist.get_rank()]["input_ids"][None]
    optimizer.zero_grad()
    wrapped(input_ids=ids, labels=ids).loss.backward()
    optimizer.step()
    assert is_fresh(model)
after = [(layer.index._version, layer.pretrained._version) for layer in paca_layers(model).values()]
assert after == versions, "broadcasts of buffers that never change"
save_paca(wrapped, f"{sys.argv[1]}/{dist.get_rank()}")
dist.destroy_process_group()
"""


@pytest.mark.slow
def test_two_processes_train_as_one_does(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    script = tmp_path / "train.py"
    script.write_text(_DDP)
    env = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run([*command, str(script), str(tmp_path)], env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    alone = paca(make("gpt2", torch.float64), 4, 8)
    optimizer = torch.optim.SGD(trained(alone), lr=0.1)
    for seed in range(3):
        step(alone, optimizer, seed)
    files = [load_file(tmp_path / rank / "paca_model.safetensors") for rank in "01"]
    assert same(*files)
    for name, layer in paca_layers(alone).items():
        torch.testing.assert_close(files[0][f"{name}.columns"], layer.columns.detach(), rtol=0, atol=1e-6, msg=name)
