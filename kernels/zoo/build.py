"""A tiny model of an architecture with inputs that reach it, or why there is none here."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from .catalogue import classes, config_class
from .configs import LEVELS, tiny
from .inputs import candidates, missing
from .passes import gradients, outputs, same_outputs

MOST_PARAMETERS = 40_000_000
PATIENCE = 40.0  # seconds after which no other class or size is tried
SLOWEST = 5.0  # seconds for a forward; both trials together take about fifty


class NotBuilt(Exception):
    """This tool has no model of the architecture, for the reason in the message."""


@dataclass(frozen=True)
class Specimen:
    """A model class, its tiny configuration, and inputs with which a forward and a backward have worked."""

    model_class: Any
    config: Any
    inputs: Mapping[str, Any]

    def build(self, dtype: torch.dtype = torch.float32) -> nn.Module:
        """A model, in evaluation mode; the same weights in every call."""
        return _model(self.model_class, self.config).to(dtype)

    def inputs_in(self, dtype: torch.dtype) -> dict[str, Any]:
        """The inputs with their floating ones in dtype."""
        return {
            name: value.to(dtype) if isinstance(value, torch.Tensor) and value.is_floating_point() else value
            for name, value in self.inputs.items()
        }


def specimen(name: str) -> Specimen:
    """The first combination of class, sizes and inputs that gives a forward and a backward. Raises NotBuilt."""
    reasons: list[str] = []
    begin = time.monotonic()
    for level in LEVELS:
        for model_class in classes(name):
            if time.monotonic() - begin > PATIENCE:
                break
            try:
                config = tiny(name, config_class(name, model_class), level)
                _check_size(model_class, config)
                model = _model(model_class, config)
            except ImportError as error:
                raise NotBuilt(sentence(error)) from error
            except Exception as error:
                reasons.append(sentence(error))
                continue
            if without := missing(model):
                raise NotBuilt(f"needs {without}, which this tool does not make")
            try:
                for inputs in candidates(model):
                    reason = _tried(model, inputs)
                    if reason is None:
                        return Specimen(model_class, config, inputs)
                    reasons.append(reason)
            except (AttributeError, TypeError, ValueError) as error:  # a size that its configuration does not have
                reasons.append(sentence(error))
    raise NotBuilt(f"no tiny model runs here: {reasons[0]}" if reasons else "needs inputs that this tool does not make")


def _check_size(model_class: Any, config: Any) -> None:
    with torch.device("meta"):
        count = sum(p.numel() for p in model_class(config).parameters())
    if count > MOST_PARAMETERS:
        raise ValueError(f"its smallest configuration found here has {count / 1e6:.0f} million parameters")


def _model(model_class: Any, config: Any) -> nn.Module:
    """Linear weights are drawn anew: as initialised, many a tiny model's output hardly depends on them."""
    torch.manual_seed(0)
    config._experts_implementation = "eager"  # grouped products of experts are none in float64
    model = model_class(config)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.Linear) and module.weight.dim() == 2 and module.weight.numel():
                module.weight.normal_(0, module.weight.shape[1] ** -0.5)
    return model.eval()


def _tried(model: nn.Module, inputs: Mapping[str, Any]) -> str | None:
    """Why the model does not work with these inputs, None where it does."""
    try:
        begin = time.monotonic()
        with torch.no_grad():
            first = outputs(model, inputs)
            if (seconds := time.monotonic() - begin) > SLOWEST:
                return f"a forward of its smallest configuration found here takes {seconds:.0f} s"
            second = outputs(model, inputs)
        if not first:
            return "it returns no floating tensor"
        if any(value.isnan().any() for value in first):
            return "its tiny model returns NaN"
        if not same_outputs(second, first):
            return "two calls with the same seed differ"
        model.requires_grad_()
        for training in (False, True):
            _, grads = gradients(model.train(training), inputs)
            if not any(value.any() for value in grads.values()):
                return "no output depends on a parameter"
            if any(value.isnan().any() for value in grads.values()):
                return "its tiny model has gradients of NaN"
    except ImportError:
        raise
    except Exception as error:
        return sentence(error)
    return None


def sentence(error: BaseException) -> str:
    """An error as one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[0] if lines else ""
    if isinstance(error, ImportError):
        for library in ("timm", "torchvision", "torchaudio", "detectron2", "natten", "scipy"):
            if library in str(error).lower():
                return f"needs {library}"
    return f"{type(error).__name__}: {text}"[:160]
