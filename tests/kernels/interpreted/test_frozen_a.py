"""LoRA whose A is frozen: no dA is computed and x is not kept, alone, in a group, bordered, compiled and under PEFT."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from kernels import LoRALinear, lora_linear, lora_linear_group, reference
from kernels.lora.bordered_weight import bordered
from kernels.runtime import launch
from tests.kernels.kernel_correctness import LoraCase, compare, error, poison
from tests.kernels.sibling_models import attention, inputs, passes

M, K = 37, 80


@pytest.fixture(autouse=True)
def poison_and_count(monkeypatch: pytest.MonkeyPatch) -> None:
    poison(monkeypatch)
    launch.counts.clear()


def kept(run: Callable[[], object], *own: Tensor) -> tuple[object, list[tuple[int, ...]]]:
    """What `run` gives, and the shapes of what autograd saved in it, without the tensors `own`."""
    addresses, shapes = {t.data_ptr() for t in own}, []

    def pack(t: Tensor) -> Tensor:
        if t.data_ptr() not in addresses:
            shapes.append(tuple(t.shape))
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        return run(), shapes


def largest(shapes: list[tuple[int, ...]]) -> int:
    """Values in the largest of them."""
    return max(torch.Size(shape).numel() for shape in shapes)


SCHEMES = ("cublas/cublas", "epilogue/epilogue", "epilogue_tma/epilogue_tma", "single_pass/cublas_fused_da", None)


@pytest.mark.parametrize("dropout", [0.0, 0.1], ids=["", "dropout"])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_layer_keeps_s_in_place_of_x(scheme: str | None, dropout: float) -> None:
    if dropout and scheme and scheme.startswith("single_pass"):
        pytest.skip("a single pass draws no mask")
    t = LoraCase(M, K, 72, 8).tensors()
    x, b = t["x"].requires_grad_(), t["b"].requires_grad_()
    options = {"scale": 0.5, "dropout_p": dropout, "seed": 11 if dropout else None, "scheme": scheme}
    y, shapes = kept(lambda: lora_linear(x, t["weight"], t["a"], b, **options), t["weight"], t["a"], b)
    # S' with its rank padded to 16, in up to four parts, and of a mask a bit for each element of x.
    assert shapes and largest(shapes) <= 4 * M * 16
    assert isinstance(y, Tensor)
    launch.counts.clear()
    grad_x, grad_b = torch.autograd.grad(y, (x, b), t["dy"])
    assert launch.counts["skinny_kernel"] == 0, "no pass over x for dA"
    trained = lora_linear(x, t["weight"], t["a"].requires_grad_(), b, **options)
    expected = (trained, *torch.autograd.grad(trained, (x, b), t["dy"]))
    assert all(error(*pair) < 1e-5 for pair in zip((y, grad_x, grad_b), expected, strict=True))


@pytest.mark.parametrize("frozen", [(0, 1, 2), (1,)], ids=["all", "one"])
@pytest.mark.parametrize("dropout", [0.0, 0.1], ids=["", "dropout"])
@pytest.mark.parametrize("scheme", ["cublas/cublas", None])
def test_a_group_keeps_x_for_trained_a_alone(scheme: str | None, dropout: float, frozen: tuple[int, ...]) -> None:
    cases = [LoraCase(M, K, n, r, seed=n) for n, r in ((72, 8), (40, 3), (24, 8))]
    t = [case.tensors() for case in cases]
    x = t[0]["x"].requires_grad_()
    weights, b = [one["weight"] for one in t], [one["b"].requires_grad_() for one in t]
    a = [one["a"].requires_grad_(i not in frozen) for i, one in enumerate(t)]
    options = {"scale": 0.5, "dropout_p": dropout, "seed": 11 if dropout else None}

    def run() -> tuple[Tensor, ...]:
        return lora_linear_group(x, weights, a, b, scheme=scheme, **options)

    ys, shapes = kept(run, *weights, *a, *b)
    assert isinstance(ys, tuple) and len(ys) == 3
    assert ((M, K) in shapes) == (len(frozen) < 3)
    launch.counts.clear()
    leaves = [x, *(p for p in a if p.requires_grad), *b]
    found = torch.autograd.grad(ys, leaves, [one["dy"] for one in t])
    assert launch.counts["skinny_kernel"] == (len(frozen) < 3)
    alone = [lora_linear(x, w, p, q, **options) for w, p, q in zip(weights, a, b, strict=True)]
    for got, want in zip(found, torch.autograd.grad(alone, leaves, [one["dy"] for one in t]), strict=True):
        assert error(got, want) < 1e-5


def test_siblings_of_a_model_with_frozen_a() -> None:
    """One pass over x forward, and none for dA, against float64."""
    model, x = attention(), inputs()
    for layer in (model.q, model.k, model.v):
        layer.lora_a.requires_grad_(False)
    model(x)  # a group from here on
    passes()
    x = x.requires_grad_()
    y, shapes = kept(lambda: model(x), *model.parameters(), *(layer.weight for layer in (model.q, model.k, model.v)))
    assert isinstance(y, Tensor) and passes() == 1
    assert all(shape[-2:] != x.shape[-2:] and shape != (10, 32) for shape in shapes), shapes
    leaves = {"x": x} | {name: p for name, p in model.named_parameters() if "lora_b" in name and "out" not in name}
    found = dict(zip(leaves, torch.autograd.grad(y.square().sum(), list(leaves.values())), strict=True))
    assert launch.counts["skinny_kernel"] == 0
    truth = {}
    for dtype in (torch.float32, torch.float64):
        doubled = {name: p.detach().to(dtype).requires_grad_() for name, p in leaves.items()}
        parts = [
            reference.lora_linear(
                doubled["x"], layer.weight.detach().to(dtype), layer.lora_a.to(dtype), doubled[f"{name}.lora_b"],
                scale=layer.scale, bias=None if layer.bias is None else layer.bias.to(dtype),
            )
            for name, layer in (("q", model.q), ("k", model.k), ("v", model.v))
        ]  # fmt: skip
        gradients = torch.autograd.grad(torch.cat(parts, -1).square().sum(), list(doubled.values()))
        truth[dtype] = dict(zip(doubled, gradients, strict=True))
    compare(found, truth[torch.float32], truth[torch.float64], torch.float32, 32)


def test_outputs_of_a_group_may_go_backward_one_by_one() -> None:
    """The first backward frees what autograd saved; the node holds it until the last one, and not beyond itself."""
    t = [LoraCase(M, K, n, 8, seed=n).tensors() for n in (72, 40)]
    x, b = t[0]["x"].requires_grad_(), [one["b"].requires_grad_() for one in t]
    weights, a = [one["weight"] for one in t], [one["a"] for one in t]
    ys = lora_linear_group(x, weights, a, b, scale=0.5)
    for y, p, one, w, q in zip(ys, b, t, weights, a, strict=True):
        (found,) = torch.autograd.grad(y, p, one["dy"])
        expected = torch.autograd.grad(lora_linear(x, w, q, p, scale=0.5), p, one["dy"])[0]
        assert error(found, expected) < 1e-5
    ys = lora_linear_group(x, weights, a, b, scale=0.5)
    torch.autograd.grad(ys[0], b[0], t[0]["dy"])
    node = weakref.ref(ys[0].grad_fn)
    del ys
    gc.collect()
    assert node() is None, "what is left for the second backward does not keep its own node"


def test_a_bordered_weight_runs_without_its_copy_of_x() -> None:
    """A bordered forward leaves [x, S']: while A is frozen another scheme runs, and prepare() gives no room."""
    torch.manual_seed(0)
    layer = LoRALinear(nn.Linear(1024, 3072, dtype=torch.bfloat16), 8, 16)
    layer.lora_a.requires_grad_(False)
    assert layer.prepare(4096) != "bordered"
    layer.lora_a.requires_grad_(True)
    assert layer.prepare(4096) == "bordered"
    t = LoraCase(M, K, 72, 8).tensors()
    weight, buffer = bordered(t["weight"], 8)
    x, b = t["x"].requires_grad_(), t["b"].requires_grad_()
    for trains in (True, False, True):
        a = t["a"].requires_grad_(trains)
        y, shapes = kept(lambda a=a: lora_linear(x, weight, a, b, scale=0.5), weight, a, b)
        assert trains or largest(shapes) <= 4 * M * 16
        assert isinstance(y, Tensor)
        assert error(y, reference.lora_linear(x, t["weight"], a, b, scale=0.5)) < 1e-5
    assert buffer.shape[1] > K


@pytest.mark.parametrize("dropout", [0.0, 0.1], ids=["", "dropout"])
def test_a_compiled_layer_keeps_no_x(dropout: float) -> None:
    t = LoraCase(20, 40, 24, 8, bias=True, lead=True).tensors()
    x, b = t["x"].requires_grad_(), t["b"].requires_grad_()

    def layer(x: Tensor, b: Tensor) -> Tensor:
        seed = 7 if dropout else None
        return lora_linear(x, t["weight"], t["a"], b, scale=0.5, bias=t["bias"], dropout_p=dropout, seed=seed)

    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    try:
        y, shapes = kept(lambda: compiled(x, b), t["weight"], t["a"], b)
    finally:
        torch._dynamo.reset()
    assert isinstance(y, Tensor)
    assert shapes and largest(shapes) <= 40 * 16, shapes  # S' of 40 tokens
    launch.counts.clear()
    found = torch.autograd.grad(y, (x, b), t["dy"])
    assert launch.counts["skinny_kernel"] == 0 and launch.counts["branch_gradients_kernel"] == 1
    for got, want in zip(found, torch.autograd.grad(layer(x, b), (x, b), t["dy"]), strict=True):
        assert error(got, want) < 1e-5


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_layers_of_peft_with_frozen_a() -> None:
    """accelerate() serves them: PEFT's gradients, groups of siblings, no dA, and no layer's input kept."""
    pytest.importorskip("peft")
    from tests.kernels.peft.peft_models import assert_same, config, llama, tune

    targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    ids, seen = torch.arange(20).reshape(2, 10), []
    for accelerated in (False, True):
        torch.manual_seed(0)
        model = tune(llama(), accelerated, config(target_modules=targets))
        for name, parameter in model.named_parameters():
            parameter.requires_grad_("lora_B" in name)
        for _ in range(2):  # siblings are found in the first, and groups in the second
            model(input_ids=ids, labels=ids)
        launch.counts.clear()
        inputs_of: list[Tensor] = []
        hooks = [
            m.register_forward_pre_hook(lambda _, args, seen=inputs_of: seen.append(args[0]), prepend=True)
            for name, m in model.named_modules()
            if name.endswith("mlp")  # x of gate and up, which nothing else keeps
        ]
        addresses: set[int] = set()

        def pack(t: Tensor, addresses: set[int] = addresses) -> Tensor:
            addresses.add(t.data_ptr())
            return t

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
            loss = model(input_ids=ids, labels=ids).loss
        for hook in hooks:
            hook.remove()
        assert len(inputs_of) == 2 and all(x.data_ptr() not in addresses for x in inputs_of)
        if accelerated:
            assert launch.counts["project_kernel"] + launch.counts["single_pass_kernel"] == 2 * 4, "four groups a block"
            launch.counts.clear()
        loss.backward()
        assert launch.counts["skinny_kernel"] == 0
        seen.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None} | {"loss": loss})
    assert launch.counts["branch_gradients_kernel"] > 0
    assert_same(seen[1], seen[0])
