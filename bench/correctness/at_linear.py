"""Of a case at level block or model, the layer and the group of siblings that are checked by themselves."""

from dataclasses import asdict

from bench.case import Case
from bench.methods.registry import method_of


def smallest_layer(case: Case) -> Case:
    """The smallest layer that the case adapts, at level linear; the case itself where it is at that level."""
    if case.level == "linear":
        return case
    return _at_linear(case, min(case.target_projections, key=lambda p: p.params).name)


def smallest_group(case: Case) -> Case | None:
    """The smallest group of siblings (q, k, v; gate, up) that the case adapts, at level linear.

    None where its impl does not run this project's kernels, which may compute siblings together and under one mask,
    where there are no siblings, and for a case at level linear.
    """
    if case.level == "linear" or case.shape is None or not method_of(case).impls[case.impl].tuned:
        return None
    targets = {p.name for p in case.target_projections}
    groups = {
        name: sum(p.params for p in group)
        for name, group in case.shape.groups.items()
        if targets.issuperset(p.name for p in group)
    }
    return _at_linear(case, min(groups, key=lambda name: groups[name])) if groups else None


def _at_linear(case: Case, layer: str) -> Case:
    axes = asdict(case) | {"level": "linear", "layer": layer, "trainable_layers": "all", "targets": "all-linear"}
    return Case(**axes | {"gradient_checkpointing": None})  # which is of blocks
