"""paca() on every linear layer of the blocks: its first output, gradients, a step, a round trip, merge and remove."""

import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from ..paca import load_paca, merge_paca, paca, remove_paca, save_paca
from ..paca.model import paca_layers
from .build import Specimen, sentence
from .passes import gradients, loss_of, outputs, put_buffers, same_gradients, same_outputs
from .row import Paca

RANK, ALPHA = 4, 8.0


class Fault(Exception):
    """A check that did not hold."""


def try_paca(specimen: Specimen) -> Paca:
    """What paca() does to the architecture; float64 decides where float32 differs, as for accelerate()."""
    found = _trial(specimen, torch.float32)
    if found.works is not False:
        return found
    try:
        exact = _trial(specimen, torch.float64)
    except Exception:  # the architecture itself does not run in float64
        return found
    return exact if exact.works else found


def _trial(specimen: Specimen, dtype: torch.dtype) -> Paca:
    inputs = specimen.inputs_in(dtype)
    plain = specimen.build(dtype).requires_grad_(False)  # as paca() leaves it: torch chooses products by it
    with torch.no_grad():
        pretrained = outputs(plain, inputs)
    expected_output, expected = gradients(plain.requires_grad_().train(), inputs)
    model = specimen.build(dtype)
    try:
        paca(model, RANK, ALPHA)
    except (ValueError, TypeError) as error:
        return Paca(reason=str(error))
    except Exception as error:
        return Paca(works=False, reason=sentence(error))
    found = Paca(len(paca_layers(model)), left=dict(Counter(getattr(model, "paca_left", {}).values())))
    try:
        reached = _check(specimen, model, inputs, pretrained, expected_output, expected)
    except Fault as fault:
        return replace(found, works=False, reason=str(fault))
    except Exception as error:
        return replace(found, works=False, reason=sentence(error))
    return replace(found, reached=reached, works=True)


def _check(
    specimen: Specimen,
    model: nn.Module,
    inputs: Mapping[str, Any],
    pretrained: list[Tensor],
    trained_output: list[Tensor],
    expected: Mapping[str, Tensor],
) -> int:
    """All checks in turn; returns how many layers had a gradient. Raises Fault for the first that does not hold.

    pretrained: the plain model's outputs in evaluation; trained_output, expected: its outputs and gradients in
    training, by autograd alone.
    """
    with torch.no_grad():
        _require(same_outputs(outputs(model, inputs), pretrained), "the first output is not the pretrained one")
    before = {name: value.clone() for name, value in _plain_values(model).items()}
    found_output, found = gradients(model.train(), inputs)
    _require(same_outputs(found_output, trained_output), "the output in training is not the pretrained one")
    reached = _check_gradients(model, found, expected)
    _step(model, inputs)
    _check_step(model, before, found)
    model.eval()
    with torch.no_grad():
        trained = outputs(model, inputs)
        with tempfile.TemporaryDirectory() as folder:
            save_paca(model, folder)
            loaded = load_paca(specimen.build(trained[0].dtype), folder).eval()
        put_buffers(dict(model.named_buffers()), loaded)
        _require(same_outputs(outputs(loaded, inputs), trained), "the output after save_paca and load_paca differs")
        merge_paca(loaded)
        _require(not paca_layers(loaded), "merge_paca leaves layers behind")
        _require(same_outputs(outputs(loaded, inputs), trained), "the output after merge_paca differs")
        remove_paca(model)
        fresh = specimen.build(trained[0].dtype)
        for name, value in fresh.named_parameters():
            if model.get_parameter(name).requires_grad:  # it trained whole, and no copy is kept
                model.get_parameter(name).copy_(value)
            _require(torch.equal(model.get_parameter(name), value), f"remove_paca leaves {name} changed")
        put_buffers(dict(fresh.named_buffers()), model)
        _require(
            _identical(outputs(model, inputs), pretrained), "the output after remove_paca is not the pretrained one"
        )
    return reached


def _check_gradients(model: nn.Module, found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> int:
    """The product rule: d columns = scale * (d weight)[:, index], for which plain autograd knows d weight.

    A head that trains whole has the gradients that it has in the plain model.
    """
    whole = {name for name, p in model.named_parameters() if p.requires_grad and not name.endswith(".columns")}
    wanted = {name: grad for name, grad in expected.items() if name in whole}
    for name, layer in paca_layers(model).items():
        grad = expected.get(f"{name}.weight")
        if grad is not None:
            wanted[f"{name}.columns"] = layer.scale * (grad.t() if layer.transposed else grad)[:, layer.index]
    wrong = same_gradients(found, wanted)
    _require(wrong is None, f"the gradient of {wrong} is not the one that plain autograd finds")
    return sum(bool(grad.any()) for name, grad in wanted.items() if name.endswith(".columns"))


def _step(model: nn.Module, inputs: Mapping[str, Any]) -> None:
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    # An eps far below any gradient: a tiny model's may lie below the usual 1e-8, and would move nothing.
    optimizer = torch.optim.AdamW(trained, lr=1e-2, eps=1e-20, weight_decay=0.0)
    loss_of(outputs(model, inputs)).backward()
    optimizer.step()
    model.zero_grad()


def _check_step(model: nn.Module, before: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> None:
    """Columns with a gradient have changed, the weights follow them, and nothing else is another."""
    allowed = {}
    for name, layer in paca_layers(model).items():
        live = (layer.scale * layer.columns.detach()).to(layer.stored_weight.dtype)
        _require(torch.equal(layer.live(), live), f"the weight of {name} does not follow its columns")
        grad = found.get(f"{name}.columns")
        changed = not torch.equal(layer.live(), layer.pretrained)
        moved = grad is not None and float(grad.abs().max()) > 1e-15  # the square of a smaller one is zero in float32
        _require(changed or not moved, f"a step leaves {name} as it was")
        allowed[f"{name}.base.weight"] = (layer.index, layer.transposed)
    for name, value in _plain_values(model).items():
        was, now = before[name], value.detach()
        if name in allowed:
            index, transposed = allowed[name]
            was, now = was.clone(), now.clone()
            for tensor in (was, now):
                (tensor.t() if transposed else tensor)[:, index] = 0
        _require(torch.equal(was, now), f"a step changes {name}, which does not train")


def _plain_values(model: nn.Module) -> dict[str, Tensor]:
    return {name: value for name, value in model.named_parameters() if not value.requires_grad}


def _identical(found: list[Tensor], expected: list[Tensor]) -> bool:
    return len(found) == len(expected) and all(
        torch.equal(a.nan_to_num(), b.nan_to_num()) for a, b in zip(found, expected, strict=True)
    )


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise Fault(message)
