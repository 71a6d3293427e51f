"""Groups at level linear: several layers of one x give each layer's own output and gradients, and the sum of the dX."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from bench.case.shapes import model_shape
from bench.correctness.check import check
from bench.methods.registry import trainable_params
from bench.models.build import build
from bench.models.work import Work
from bench.timing.graph import gradients
from tests.models.tiny import GPT2, LLAMA, make_case, write_config

GROUPS = {"self_attn.qkv": ["q_proj", "k_proj", "v_proj"], "mlp.gate_up": ["gate_proj", "up_proj"]}
IMPLS = [("full", "eager"), ("lora", "eager"), ("lora", "triton"), ("lora", "addmm"), ("paca", "eager")]


@pytest.fixture
def model(tmp_path: Path) -> str:
    return write_config(tmp_path, LLAMA, attention_bias=True)


def wide(t: Tensor) -> Tensor:
    return t.detach().double()


def by_hand(work: Work, name: str, x: Tensor, dy: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """y, dX and the gradients of one layer, alone and in float64."""
    state = {n.removeprefix(f"{name}."): t for n, t in work.model.state_dict().items() if n.startswith(f"{name}.")}
    w = wide(state.get("base.weight", state.get("weight")))  # type: ignore[arg-type]
    bias = state.get("base.bias", state.get("bias"))
    y = x @ w.t() + (0 if bias is None else wide(bias))
    if work.case.method == "full":
        found = {"weight": dy.t() @ x} | ({} if bias is None else {"bias": dy.sum(0)})
        return y, dy @ w, found
    s = work.case.scale
    if work.case.method == "paca":
        return y, dy @ w, {"columns": s * dy.t() @ x[:, state["index"]]}
    a, b = wide(state["lora_a"]), wide(state["lora_b"])
    found = {"lora_a": s * (dy @ b).t() @ x, "lora_b": s * dy.t() @ (x @ a.t())}
    return y + s * x @ a.t() @ b.t(), dy @ w + s * dy @ b @ a, found


@pytest.mark.parametrize(("method", "impl"), IMPLS)
@pytest.mark.parametrize("group", GROUPS)
def test_each_layer_alone_in_float64(model: str, group: str, method: str, impl: str) -> None:
    work = build(make_case(model, method, "linear", layer=group, impl=impl), "cpu", seed=3)
    out = work.forward()
    dys = work.grad_out(out)
    assert isinstance(out, tuple) and isinstance(dys, tuple)
    assert not torch.equal(dys[0], dys[1][..., : dys[0].shape[-1]]), "each has a dY of its own"
    captured = dict(zip([n for n, _ in work.leaves], gradients(work, work.forward()), strict=True))
    work.backward(out)
    work.check_leaves()
    leaves = dict(work.leaves)
    x = wide(leaves["x"]).reshape(16, 32)
    grad_x, expected = torch.zeros_like(x), {}
    for member, y, dy in zip(GROUPS[group], out, dys, strict=True):
        alone, dx, found = by_hand(work, f"layer.{member}", x, wide(dy).reshape(16, -1))
        torch.testing.assert_close(wide(y).reshape(alone.shape), alone, rtol=1e-4, atol=1e-5)
        grad_x += dx
        expected |= {f"layer.{member}.{part}": t for part, t in found.items()}
    expected["x"] = grad_x.view(leaves["x"].shape)
    assert expected.keys() == leaves.keys()
    for name, want in expected.items():
        grad = leaves[name].grad
        assert grad is not None
        torch.testing.assert_close(wide(grad), want, rtol=1e-4, atol=1e-5, msg=lambda m, name=name: f"{name}: {m}")
        torch.testing.assert_close(captured[name], grad, msg=lambda m, name=name: f"{name}, as graphs have it: {m}")


@pytest.mark.parametrize("group", GROUPS)
def test_counts_are_sums_over_the_layers(model: str, group: str) -> None:
    for method in ("full", "lora", "paca"):
        case = make_case(model, method, "linear", layer=group)
        work = build(case, "meta")
        assert work.trainable_params == trainable_params(case) > 0
    case = make_case("llama2-7b", "full", "linear", layer=group)
    count = sum(p.params for p in model_shape("llama2-7b").layer(group))
    assert trainable_params(case) == count


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(("method", "impl"), [*IMPLS, ("lora", "peft"), ("lora", "merged"), ("paca", "official")])
@pytest.mark.parametrize("group", GROUPS)
def test_groups_pass_the_gate(model: str, group: str, method: str, impl: str, precision: str) -> None:
    """Every output and gradient by the name of its layer; with adapter dropout the masks of each layer as well."""
    drop = {"dropout": 0.1} if method == "lora" and impl in ("eager", "triton", "addmm") else {}
    case = make_case(model, method, "linear", layer=group, impl=impl, precision=precision, **drop)
    result = check(case, "cpu", seed=1)
    assert result.passed, result.detail
    for member in GROUPS[group]:
        assert f"output of layer.{member}" in result.errors
        assert any(name.startswith(f"layer.{member}.") for name in result.errors)
        assert any(f"mask of layer.{member}" in name for name in result.errors) == bool(drop)


@pytest.mark.parametrize("broken", ["one output", "one adapter", "dX of the last"])
def test_a_group_with_one_wrong_layer_is_wrong(model: str, broken: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other layers are right, and larger: the fault is found, and named."""
    from bench.methods.lora.triton import LoRASiblings

    right = LoRASiblings.forward

    def forward(self: LoRASiblings, x: Tensor) -> tuple[Tensor, ...]:
        q, k, _ = right(self, x)
        v = right(self, x.detach() if broken == "dX of the last" else x)[2]
        if broken == "one output":
            v = v + (0.05 * v).detach()
        if broken == "one adapter":
            v = v.detach() + (v - v.detach()) * 1.1
        return q, k, v

    monkeypatch.setattr(LoRASiblings, "forward", forward)
    result = check(make_case(model, "lora", "linear", layer="self_attn.qkv", impl="triton"), "cpu")
    assert not result.passed
    wanted = {"one output": "output of layer.v_proj", "one adapter": "layer.v_proj.lora_", "dX of the last": "x"}
    assert result.tensor.startswith(wanted[broken])


def test_gpt2_has_no_groups(tmp_path: Path) -> None:
    assert model_shape(write_config(tmp_path, GPT2)).groups == {}
