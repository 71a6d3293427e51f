"""build: what a case times is the model it names, with gradients for exactly the declared leaves."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from bench.case import Case
from bench.methods.adapt import decoder_blocks
from bench.methods.registry import methods, trainable_params
from bench.models.build import build
from kernels import LoRALinear
from tests.models.tiny import GPT2, LLAMA, NO_DROPOUT, Operators, make_case, write_config

FIELDS = {"gpt2": GPT2, "llama": LLAMA}
LAYERS = {"gpt2": "mlp.c_proj", "llama": "mlp.down_proj"}
METHODS = tuple(methods())


@pytest.fixture(params=FIELDS)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def model(family: str, tmp_path: Path) -> str:
    return write_config(tmp_path, FIELDS[family])


def _case(family: str, model: str, method: str, level: str, **axes: object) -> Case:
    return make_case(model, method, level, layer=LAYERS[family] if level == "linear" else None, **axes)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16", "amp-bf16", "amp-fp16"])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("level", ["linear", "block", "model"])
def test_one_iteration(family: str, model: str, level: str, method: str, precision: str) -> None:
    case = _case(family, model, method, level, precision=precision)
    work = build(case, "cpu")
    amp = precision.startswith("amp-")
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision, torch.float32)
    assert {p.dtype for p in work.model.parameters()} == {dtype}
    for _ in range(2):
        out = work.forward()
        assert out.isfinite().all()
        if level == "linear":
            assert out.dtype == (
                getattr(torch, {"amp-bf16": "bfloat16", "amp-fp16": "float16"}[precision]) if amp else dtype
            )
        if level == "model":
            assert out.shape == ()
            assert abs(out.item() - math.log(101)) < 1.0
        work.backward(out)
        work.check_leaves()
        work.optimizer_step()
        work.clear()
    assert [name for name, _ in work.leaves if name == "x"] == ([] if level == "model" else ["x"])
    assert work.trainable_params == trainable_params(case)
    assert work.has_refresh == (method == "paca")
    assert all(p.isfinite().all() for p in work.model.parameters())


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("level", ["linear", "block", "model"])
def test_nothing_that_is_timed_reads_a_value_back(family: str, model: str, level: str, method: str) -> None:
    work = build(_case(family, model, method, level, precision="amp-bf16"), "cpu")
    work.backward(work.forward())
    work.optimizer_step()
    with Operators() as operators:
        work.clear()
        work.backward(work.forward())
        work.refresh()
    assert len(operators.names) > 3
    assert "aten::_local_scalar_dense" not in operators.names


@pytest.mark.parametrize("level", ["linear", "block", "model"])
def test_same_seed_same_weights_and_inputs_under_every_method(family: str, model: str, level: str) -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    works = [build(_case(family, model, m, level), "cpu", seed=5) for m in ("full", "lora", "paca", "lora-fa")]
    other = build(_case(family, model, "full", level), "cpu", seed=6)
    assert torch.equal(torch.rand(3), expected), "torch's own random state was changed"

    def base(work: object) -> dict[str, Tensor]:
        state = work.model.state_dict()  # type: ignore[attr-defined]
        kept = ("weight", "bias")
        return {k.replace(".base.", "."): v for k, v in state.items() if k.rsplit(".", 1)[-1] in kept}

    first = base(works[0])
    for work in works[1:]:
        found = base(work)
        assert found.keys() == first.keys()
        assert all(torch.equal(found[k], first[k]) for k in first)
    assert any(not torch.equal(first[k], v) for k, v in base(other).items())
    if level != "model":
        xs = [dict(w.leaves)["x"] for w in works]
        assert torch.equal(xs[0], xs[1]) and torch.equal(xs[0], xs[2])
        assert not torch.equal(xs[0], dict(other.leaves)["x"])
        dys = [w.grad_out(w.forward()) for w in (works[0], works[2])]
        assert isinstance(dys[0], Tensor) and isinstance(dys[1], Tensor)
        assert torch.equal(dys[0], dys[1])


@pytest.mark.parametrize("method", METHODS)
def test_frozen_lower_blocks_build_no_graph(family: str, model: str, method: str) -> None:
    work = build(_case(family, model, method, "model", trainable_layers="upper-1/2"), "cpu")
    blocks = decoder_blocks(work.model)[1]
    seen: dict[int, Tensor] = {}
    for i, block in enumerate(blocks):
        block.register_forward_hook(
            lambda _, __, out, i=i: seen.__setitem__(i, out if isinstance(out, Tensor) else out[0])
        )
    work.backward(work.forward())
    work.check_leaves()
    assert [seen[i].grad_fn is None for i in range(4)] == [True, True, False, False]
    number = {int(part) for name, _ in work.leaves for part in name.split(".") if part.isdigit()}
    assert number == {2, 3}
    assert not any(word in name for name, _ in work.leaves for word in ("wte", "wpe", "embed", "lm_head", "ln_f"))


def test_the_block_is_called_as_in_its_model(family: str, tmp_path: Path) -> None:
    dropout = NO_DROPOUT if family == "gpt2" else {}
    one_layer = {"n_layer": 1} if family == "gpt2" else {"num_hidden_layers": 1}
    path = write_config(tmp_path, FIELDS[family], **dropout, **one_layer)
    block = build(make_case(path, level="block"), "cpu")
    whole = build(make_case(path), "cpu")
    inner = decoder_blocks(whole.model)[1][0]
    inner.load_state_dict(block.model.get_submodule("block").state_dict())
    seen: list[tuple[Tensor, Tensor]] = []
    inner.register_forward_hook(
        lambda _, args, kwargs, out: seen.append((args[0], out if isinstance(out, Tensor) else out[0])),
        with_kwargs=True,
    )
    whole.forward()
    x, y = seen[0]
    with torch.no_grad():
        dict(block.leaves)["x"].copy_(x)
    torch.testing.assert_close(block.forward(), y)


def test_lora_branch_is_a_fair_share(family: str, model: str) -> None:
    for level in ("linear", "model"):
        case = _case(family, model, "lora", level, rank=2, alpha=2 / 3, seq=64, batch=4)
        work = build(case, "cpu")
        shares: list[float] = []

        def share(layer: LoRALinear, args: tuple[Tensor, ...], y: Tensor, shares: list[float] = shares) -> None:
            base = torch.nn.functional.linear(args[0], layer.weight)
            bias = 0.0 if layer.bias is None else layer.bias
            shares.append(float((y - base - bias).norm() / base.norm()))

        for module in work.model.modules():
            if isinstance(module, LoRALinear):
                module.register_forward_hook(share)  # type: ignore[arg-type]
        with torch.no_grad():
            work.forward()
        assert shares and all(0.3 <= s <= 1.0 for s in shares), shares


def test_model_dropout_stays_as_configured(tmp_path: Path) -> None:
    gpt2 = write_config(tmp_path, GPT2, resid_pdrop=0.2)
    for level in ("block", "model"):
        work = build(make_case(gpt2, level=level), "cpu")
        assert work.model_dropout == 0.2
        assert work.model.training
        assert not torch.equal(work.forward(), work.forward())
    assert build(make_case(gpt2, level="linear", layer="attn.c_attn"), "cpu").model_dropout == 0.0
    assert build(make_case(write_config(tmp_path, LLAMA), "lora", dropout=0.5), "cpu").model_dropout == 0.0


def test_square_layers_need_no_model() -> None:
    work = build(make_case(None, "lora", "linear", layer="square-32", precision="bf16"), "cpu")
    assert work.forward().shape == (2, 8, 32)


@pytest.mark.parametrize("level", ["linear", "block", "model"])
def test_more_positions_than_the_model_has(family: str, model: str, level: str) -> None:
    with pytest.raises(ValueError, match=r"seq: 65 is above the.* 64 positions"):
        build(_case(family, model, "full", level, seq=65), "cpu")


def test_check_leaves_names_what_is_wrong(tmp_path: Path) -> None:
    work = build(make_case(write_config(tmp_path, LLAMA), "lora"), "cpu")
    with pytest.raises(RuntimeError, match=r"model\.layers\.0.*lora_a should get a gradient and has none"):
        work.check_leaves()
    work.backward(work.forward())
    frozen = work.model.get_submodule("model.norm").get_parameter("weight")
    frozen.grad = torch.zeros_like(frozen)
    with pytest.raises(RuntimeError, match=r"model\.norm\.weight is frozen and got a gradient"):
        work.check_leaves()


@pytest.mark.parametrize("level", ["linear", "block", "model"])
def test_weights_are_made_in_their_place_and_dtype(level: str) -> None:
    layer = "mlp.c_fc" if level == "linear" else None
    for method in METHODS:
        with Operators() as operators:
            build(make_case("gpt2-medium", method, level, layer=layer, precision="bf16"), "meta")
        big = {(device, dtype) for device, dtype, size in operators.made if size > 500_000}
        assert ("meta", torch.bfloat16) in big and {device for device, _ in big} == {"meta"}
        assert len(big) == 1 or methods()[method].quantises


@pytest.mark.parametrize("upper", ["all", "upper-1/2", "upper-3/4", "1", "3"])
@pytest.mark.parametrize("method", METHODS)
def test_trainable_counts_equal_the_closed_form(family: str, model: str, method: str, upper: str) -> None:
    targets = {"gpt2": "c_proj", "llama": "q_proj,v_proj,mlp.up_proj"}[family]
    for level in ("model", "block", "linear"):
        if level != "model" and upper not in ("all", "1"):
            continue
        case = _case(family, model, method, level, trainable_layers=upper)
        for wanted in ("all-linear", targets) if method != "full" and level != "linear" else (case.targets,):
            case = replace(case, targets=wanted)
            work = build(case, "meta")
            assert work.trainable_params == trainable_params(case) > 0
            assert all(leaf.is_meta for _, leaf in work.leaves)


@pytest.mark.parametrize("adapter_dtype", ["bf16", "fp32"])
def test_adapter_dtype(family: str, model: str, adapter_dtype: str) -> None:
    for method in METHODS[1:]:
        case = _case(family, model, method, "block", precision="bf16", adapter_dtype=adapter_dtype)
        work = build(case, "cpu")
        out = work.forward()
        assert out.dtype == torch.bfloat16
        work.backward(out)
        work.check_leaves()
        expected = {"bf16": torch.bfloat16, "fp32": torch.float32}[adapter_dtype]
        assert {leaf.grad.dtype for name, leaf in work.leaves if name != "x"} == {expected}  # type: ignore[union-attr]


def test_large_weights_on_a_cpu_have_no_two_rows_alike() -> None:
    """They repeat what was drawn for a part of them, shifted."""
    weight = build(make_case(None, level="linear", layer="square-1024"), "cpu").model.get_parameter("layer.weight")
    assert weight.std().item() == pytest.approx(0.02, rel=0.01) and abs(weight.mean().item()) < 1e-4
    cosines = torch.nn.functional.normalize(weight.detach())
    assert (cosines @ cosines.t()).fill_diagonal_(0).abs().max() < 0.2
