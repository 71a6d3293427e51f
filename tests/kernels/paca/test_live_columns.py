"""Whatever changes columns, and by whichever way: the next forward computes with the new ones."""

import copy
import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kernels.paca import paca
from kernels.paca.model import paca_layers
from tests.kernels.paca.paca_models import make, same, weights

X = torch.arange(24.0).view(3, 8).sin()
NEW = torch.arange(32.0).view(8, 4).cos()


def net(seed: int = 0) -> Any:
    torch.manual_seed(seed)
    return paca(nn.ModuleDict({"a": nn.Linear(8, 8)}), 4, 10, targets=["a"])


def expected(layer: Any, columns: Tensor) -> Tensor:
    """The layer's output with these columns, by plain torch."""
    weight = layer.base.weight.detach().clone()
    weight[:, layer.index] = layer.scale * columns.detach()
    return F.linear(X, weight, layer.bias)


def _ema(layer: Any) -> None:
    """Keeps .data of before, as some do for their whole life, and writes through it."""
    kept = [p.data for p in layer.parameters() if p.requires_grad]
    layer(X)
    kept[0].copy_(NEW)


def _swap_two(layer: Any) -> None:
    other = net(1)["a"]
    for each in (layer, other):
        with torch.no_grad():
            each.columns.mul_(1)
        each(X)
    with torch.no_grad():
        other.columns.copy_(NEW)
        layer.columns.mul_(1)
    other(X), layer(X)
    assert other.columns._version == layer.columns._version, "so that it is not the version that tells"
    torch.utils.swap_tensors(layer.columns, other.columns)


def _assigned(layer: Any) -> None:
    state = {name: t.clone() for name, t in layer.state_dict().items()}
    state["columns"] = NEW.clone()
    state["weight"][:, state["index"]] = layer.scale * NEW
    layer.load_state_dict(state, assign=True)
    layer.columns.data.mul_(2)
    layer.columns.data.div_(2)


def _set(layer: Any) -> None:
    with torch.no_grad():
        layer.columns.set_(NEW.clone())


def _converted(layer: Any) -> None:
    torch.__future__.set_swap_module_params_on_conversion(True)
    try:
        layer.double().float()
    finally:
        torch.__future__.set_swap_module_params_on_conversion(False)
    layer.columns.data.copy_(NEW)


def _in_inference_mode(layer: Any) -> None:
    with torch.inference_mode():
        layer.columns.copy_(NEW)


WAYS: dict[str, Callable[[Any], Any]] = {
    "data-copy": lambda layer: layer.columns.data.copy_(NEW),
    "data-sub": lambda layer: layer.columns.data.sub_(layer.columns.data - NEW),
    "data-item": lambda layer: layer.columns.data.__setitem__(slice(None), NEW),
    "data-set": lambda layer: setattr(layer.columns, "data", NEW.clone()),
    "data-set-inference": lambda layer: setattr(layer.columns, "data", torch.inference_mode()(NEW.clone)()),
    "detach": lambda layer: layer.columns.detach().copy_(NEW),
    "alias-kept": _ema,
    "foreach": lambda layer: torch._foreach_copy_([layer.columns.data], [NEW]),
    "vector": lambda layer: nn.utils.vector_to_parameters(NEW.flatten().clone(), [layer.columns]),
    "swap": lambda layer: torch.utils.swap_tensors(layer.columns, nn.Parameter(NEW.clone())),
    "swap-two": _swap_two,
    "replaced": lambda layer: setattr(layer, "columns", nn.Parameter(NEW.clone())),
    "assigned": _assigned,
    "set_": _set,
    "converted": _converted,
    "inference": _in_inference_mode,
}


@pytest.mark.parametrize("grad", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("way", WAYS)
def test_no_way_to_change_columns_goes_unseen(way: str, grad: bool) -> None:
    layer = net()["a"]
    layer(X)
    with torch.set_grad_enabled(grad):
        WAYS[way](layer)
        torch.testing.assert_close(layer(X), expected(layer, NEW))
        layer.columns.data.mul_(3)
        torch.testing.assert_close(layer(X), expected(layer, 3 * NEW), msg="and the change after it")


def test_the_loop_of_tutorials_trains_as_an_optimizer_does() -> None:
    ours, theirs = net(), net()
    optimizer = torch.optim.SGD([theirs["a"].columns], lr=0.1)
    for _ in range(4):
        for model in (ours, theirs):
            model.zero_grad()
            model["a"](X).square().mean().backward()
        ours["a"].columns.data -= 0.1 * ours["a"].columns.grad.data
        optimizer.step()
    torch.testing.assert_close(ours["a"].columns, theirs["a"].columns)
    torch.testing.assert_close(ours["a"](X), theirs["a"](X))


def test_moving_a_model_does_not_round_what_has_not_trained() -> None:
    """At scale 2.5 scale * columns is off by a rounding: only a change of columns may write it."""
    model, before = paca(make("llama"), 4, 10), weights(make("llama"))
    assert any(not torch.equal(x.scale * x.columns, x.pretrained) for x in paca_layers(model).values())
    model.to("cpu").double().float().requires_grad_(False).train()
    model(input_ids=torch.arange(3, 9)[None])
    twin = copy.deepcopy(model)
    twin(input_ids=torch.arange(3, 9)[None])
    assert same(weights(model), before) and same(weights(twin), before)


def test_parameters_are_saved_as_plain_ones() -> None:
    model, buffer = net(), io.BytesIO()
    torch.save(dict(model.named_parameters()), buffer)
    buffer.seek(0)
    assert {type(p) for p in torch.load(buffer, weights_only=True).values()} == {nn.Parameter}
    assert all(type(t) is Tensor for t in model.state_dict().values())


def test_functional_calls_compute_with_the_columns_they_are_given() -> None:
    model = net()
    layer = model["a"]
    before, own = layer(X).detach(), layer.columns.detach().clone()
    given = NEW.clone().requires_grad_()
    y = torch.func.functional_call(layer, {"columns": given}, (X,))
    torch.testing.assert_close(y, expected(layer, NEW))
    y.sum().backward()
    torch.testing.assert_close(given.grad, layer.scale * torch.ones(8, 3) @ X[:, layer.index])

    def loss(columns: dict[str, Tensor], row: Tensor) -> Tensor:
        return torch.func.functional_call(layer, columns, (row,)).sum()

    each = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))({"columns": own}, X)["columns"]
    rows = [layer.scale * torch.ones(8, 1) @ row[None, layer.index] for row in X]
    torch.testing.assert_close(each, torch.stack(rows))
    torch.testing.assert_close(torch.func.vmap(layer)(X), before)
    torch.testing.assert_close(torch.func.grad(lambda x: layer(x).sum())(X), layer.weight.detach().sum(0).expand(3, 8))
    assert torch.equal(layer(X), before) and torch.equal(layer.columns, own), "the layer's own are as they were"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_optimizers_group_columns_as_they_group_plain_parameters() -> None:
    layer = net()["a"].cuda()
    optimizer = torch.optim.AdamW([layer.columns], lr=0.1, weight_decay=0.0)
    layer(X.cuda()).sum().backward()
    optimizer.step()
    assert optimizer.param_groups[0]["foreach"] is True
