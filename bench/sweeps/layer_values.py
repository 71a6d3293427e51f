"""The values of the axis layer: which layers of which models one stands for."""

from collections.abc import Iterator
from typing import Any

from bench.case.shapes import model_shape, square


class Bad(Exception):
    """A combination that cannot be; `axis` is the one to blame."""

    def __init__(self, axis: str, text: str) -> None:
        super().__init__(text)
        self.axis = axis


def layers_of(p: dict[str, Any], models: list[str]) -> Iterator[tuple[str | None, str | None]]:
    """(layer, model) of the cases that one value of the layer axis stands for. `all`: one layer of each shape;
    `groups`: those siblings that read the same x; a name: for each of the sweep's `models` that has it."""
    layer, model = p["layer"], p["model"]
    if p["level"] != "linear":
        if layer is not None:
            raise Bad("layer", f"level {p['level']} has no layer. Remove the key, or use level linear.")
        yield None, model
    elif layer is None or layer == "all":
        yield from ((x.name, model) for x in model_shape(model).distinct_projections())
    elif square(layer):
        yield layer, None
    else:
        if not any(_named(layer, m) for m in models):
            raise Bad("layer", _no_layer(layer, models))
        yield from ((name, model) for name in _named(layer, model))


def _named(layer: str, model: str) -> list[str]:
    """The layers of a model that a value of the layer axis names."""
    shape = model_shape(model)
    return list(shape.groups) if layer == "groups" else [layer] * bool(shape.layer(layer))


def _no_layer(layer: str, models: list[str]) -> str:
    shapes = [model_shape(m) for m in models]
    valid = ["all", "square-N", *["groups"] * any(s.groups for s in shapes)]
    valid += [name for s in shapes for name in (*(p.name for p in s.projections), *s.groups)]
    what = "no model here has groups" if layer == "groups" else f"{layer!r} is no layer of {' or '.join(models)}"
    return f"{what}. Valid: {', '.join(dict.fromkeys(valid))}."
