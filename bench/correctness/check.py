"""Right before fast: whether a case's implementation computes what its method says, before anyone times it.

The error of a tensor is the Frobenius norm of (found - reference) over that of the reference, for the output, every
gradient by name, and LoRA's branch alone; bounds are multiples of what plain eager PyTorch achieves in the case's
precision on the same weights and inputs (bench.correctness.reference, bench.correctness.bounds). Where the distance
from plain eager PyTorch shows already that the error is in bounds, the reference is not computed, and that distance is
what is told as the error (bench.correctness.bounds.near).
"""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor, nn

from bench.case import Case
from bench.case.schema import BASELINE
from bench.correctness.at_linear import smallest_group, smallest_layer
from bench.correctness.bounds import CheckResult, Finding, all_finite, good, judge, near, relative_errors, result
from bench.correctness.dropout_mask import check_masks
from bench.correctness.prepare import canonical, draw_biases, drawn_values, leaf_values, no_dropout
from bench.correctness.reference import ReferenceModel, baseline, draw, outputs
from bench.correctness.shrink import default_tokens, shrink
from bench.methods.registry import method_of
from bench.methods.stages import in_each_stage
from bench.models.build import build
from bench.models.work import Work

# An impl may sum with atomics, whose order changes from run to run: the worst of so many counts.
RUNS = 3

# LoRA's branch over x W^T in norm: at 0.3 and more a wrong branch cannot hide behind the base GEMM.
SHARE = 0.5

# The scale of a second check: no power of two, so that a scale that is rounded, or applied twice, shows.
THIRD = 1 / 3

# On dY, as a GradScaler has it: fp16 rounds what is below 6e-5 coarsely. A power of two, which changes nothing else.
LOSS_SCALE = 64


def check(
    case: Case, device: str | torch.device, seed: int = 0, tokens: int | None = None, brief: bool = False
) -> CheckResult:
    """Checks the case's impl on weights and inputs drawn from `seed`; builds what it needs and keeps none of it.

    Levels linear and block: the case's own layers on at most `tokens` tokens (see shrink). Level model: a copy of two
    blocks at full width, gradients pooled by kind, in each stage where blocks take turns. By default 64 tokens on a
    CPU, 32 after timing; on a GPU 128 at level model and else 2048, since kernels choose tiles by tokens. Dropouts
    are off, the model's own and the adapter's. Adapters are checked once more after an optimizer step and PaCA's
    refresh; then one layer alone at scale 1/3 and, where the case has adapter dropout, its masks; `brief` leaves all
    that out, for the check after timing. Stops at what is wrong first. Memory: three copies of the block (two blocks at
    level model) and their gradients, one of the three in float64 on a CPU or for fp32, else in fp32, and made only
    where the other two do not settle it.
    """
    where = torch.device(device)
    small = shrink(case, default_tokens(case, where, brief) if tokens is None else tokens)
    with _own_random_state(where, seed):
        if not brief:
            return result(_findings(small, where, seed))
        runs = 1 if where.type == "cpu" else RUNS  # before timing it had them all
        return result(_compare(_undropped(small), where, seed, after_step=False, runs=runs))


def finite(work: Work) -> str | None:
    """One forward and backward of all of it, dropout included: in a sentence what is missing or not finite, or None."""
    with _own_random_state(work.device, work.seed):
        work.clear()
        out = work.forward()
        work.backward(out)
    complaint = _leaves(work)
    outs = (out,) if isinstance(out, Tensor) else out
    named = [("the loss" if y.dim() == 0 else "the output", y.detach()) for y in outs]
    named += [(f"the gradient of {name}", leaf.grad) for name, leaf in work.leaves if leaf.grad is not None]
    work.clear()
    if complaint:
        return complaint
    fine = torch.stack([all_finite(t) for _, t in named]).tolist()  # read back once
    bad = [name for (name, _), ok in zip(named, fine, strict=True) if not ok]
    return f"{bad[0]} is not finite" + (f", nor are {len(bad) - 1} more" if bad[1:] else "") if bad else None


@contextmanager
def _own_random_state(device: torch.device, seed: int) -> Iterator[None]:
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def _findings(case: Case, device: torch.device, seed: int) -> list[Finding]:
    found = _compare(_undropped(case), device, seed)
    if not method_of(case).adapts or not good(found):
        return found
    alone = smallest_layer(case)
    if case.rank is not None and (case.level != "linear" or not math.isclose(case.scale, THIRD)):
        third = replace(_undropped(alone), alpha=THIRD * case.rank, scaling=None)
        found += _compare(third, device, seed, "in one layer at scale 1/3", after_step=False)
    if case.dropout and good(found):
        found += check_masks(alone, device, seed)
        if good(found) and (siblings := smallest_group(case)) is not None:
            found += check_masks(siblings, device, seed)
    return found


def _compare(
    case: Case, device: torch.device, seed: int, where: str = "", after_step: bool = True, runs: int = RUNS
) -> list[Finding]:
    """An impl beside the baseline and the reference, as built and, if it has adapters, after a step."""
    work = build(case, str(device), seed)
    no_dropout(work.model)
    if device.type == "cpu" and _plain(case) and case.method == BASELINE:
        draw_biases(work.model, seed)
        return _itself(work, where)
    plain = baseline(case, str(device), seed)
    values = leaf_values(work)
    if values.keys() != set(plain.names):
        odd = min(values.keys() ^ set(plain.names))
        words = "trains and should not" if odd in values else "should train and does not"
        return [Finding(odd, math.inf, 0.0, where, words)]
    found = _as_built(work.model, values, plain, where)
    draw_biases(work.model, seed)  # only now: a bias that an impl trains is held against the layer's own first
    plain.load(drawn_values(work.model, plain.layers))
    if draw(values, plain, SHARE):
        in_each_stage(work, work.refresh)
        plain.load(values)
    found += _run(work, plain, where, runs)
    for stage in range(1, work.stages):
        if good(found):
            work.select(stage)
            found += _run(work, plain, f"in stage {stage + 1} {where}".strip(), runs)
    if after_step and method_of(case).adapts and good(found):
        _step(work)
        plain.load(values)
        found += _run(work, plain, f"after a step {where}".strip(), runs)
        found += _as_drawn(work.model, plain, f"after a step {where}".strip())
    return found


def _plain(case: Case) -> bool:
    return case.impl == "eager" and case.gradient_checkpointing is None and not case.compiles


def _as_built(model: nn.Module, values: Mapping[str, Tensor], plain: ReferenceModel, where: str) -> list[Finding]:
    """What follows from the layer alone, before the first step: PaCA's columns, and its index if an impl shows one."""
    found = plain.take_over(model, f"as built {where}".strip())
    for name, layer in plain.layers.items():
        for part, (expected, bound) in layer.as_built().items():
            error = relative_errors({"": values[f"{name}.{part}"]}, {"": expected})[""]
            found.append(Finding(f"{name}.{part}", error, bound, f"as built {where}".strip()))
    shared = {f"{n}.{b}": t for n, layer in plain.layers.items() for b, t in layer.named_buffers() if b != "bias"}
    words = "has {error:g} columns that are not the sorted ones of its name"
    for name, buffer in ((canonical(name), b) for name, b in model.named_buffers()):
        if (wanted := shared.get(name)) is not None:
            off = (buffer != wanted).sum().item() if buffer.shape == wanted.shape else math.inf
            found.append(Finding(name, off, 0.5, where, words))
    return found


def _as_drawn(model: nn.Module, plain: ReferenceModel, where: str) -> list[Finding]:
    """Whether what an impl draws and does not train is what was taken over from it, bit for bit."""
    trained, found = set(plain.names), []
    for name, value in drawn_values(model, plain.layers).items():
        if name not in trained:
            layer, _, part = name.rpartition(".")
            off = (value != plain.layers[layer].get_parameter(part)).sum().item()
            found.append(Finding(name, off, 0.5, where, "is frozen, and {error:g} of its values have changed"))
    return found


def _itself(work: Work, where: str) -> list[Finding]:
    """The baseline's own case: on a CPU its errors are those that it is allowed, so that declared and finite is all
    there is to check. On a GPU the baseline runs under other settings (see ieee_gemms), and this is not called."""

    def look() -> list[Finding]:
        found, _ = _outputs(work)
        errors = {name: 0.0 if all_finite(t) else math.nan for name, t in found.items()}
        return _undeclared(work, where) or judge(errors, dict.fromkeys(errors, 0.0), work.case, where)

    return [finding for findings in in_each_stage(work, look) for finding in findings]


def _undeclared(work: Work, where: str) -> list[Finding]:
    """After a backward: what is wrong with the gradients that are there, or not there."""
    complaint = _leaves(work)
    if complaint is None:
        return []
    return [Finding(complaint.split()[0], math.inf, 0.0, where, f"is not as declared: {complaint}")]


def _run(work: Work, plain: ReferenceModel, where: str, runs: int) -> list[Finding]:
    """The impl, at its worst of some runs, against the baseline, and against the reference from the first run on that
    the baseline does not settle."""
    case = work.case
    pooled = case.level == "model"
    worst: dict[str, float] = {}
    wanted: dict[str, Tensor] = {}
    allowed: dict[str, float] = {}
    base = plain.base()
    expected: dict[str, Tensor] = {}
    for _ in range(1 if _plain(case) else runs):
        found, grad_outs = _outputs(work)
        if undeclared := _undeclared(work, where):
            return undeclared
        leaves = [canonical(name) for name, _ in work.leaves if name != "x"]
        expected = expected or plain.run(grad_outs, leaves)
        errors = None if wanted else near(found, expected, base, pooled, case)
        if errors is None:
            if not wanted:
                wanted, base = plain.exact.run(grad_outs, leaves), plain.exact.base()
                allowed = relative_errors(expected, wanted, base, pooled)
                expected = wanted
            errors = relative_errors(found, wanted, base, pooled)
        for name, error in errors.items():
            worst[name] = error if math.isnan(error) else max(error, worst.get(name, 0.0))
    return judge(worst, allowed or dict.fromkeys(worst, 0.0), case, where)


def _outputs(work: Work) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """One forward and backward: outputs and gradients by name, and the dY. Logits are seen on their way to the loss."""
    work.clear()
    linear = list(work.case.linear_layers)
    seen: list[dict[str, Tensor]] = []
    hooks = []
    if work.case.level == "model":
        hooks.append(work.model.register_forward_hook(lambda _module, _args, out: seen.append(outputs(out, linear))))
    try:
        out = work.forward()
    finally:
        for hook in hooks:
            hook.remove()
    found = seen[0] if seen else outputs(out, linear)
    dys = {"loss": torch.ones_like(found["loss"])} if seen else outputs(work.grad_out(out), linear)
    grad_outs = {name: LOSS_SCALE * dy for name, dy in dys.items()}
    torch.autograd.backward([found[name] for name in grad_outs], list(grad_outs.values()))
    found = {name: t.detach() for name, t in found.items()}
    return found | {canonical(name): leaf.grad for name, leaf in work.leaves if leaf.grad is not None}, grad_outs


def _leaves(work: Work) -> str | None:
    """What Work.check_leaves complains about; its sentences begin with the tensor's name."""
    try:
        work.check_leaves()
    except RuntimeError as e:
        return str(e)
    return None


def _step(work: Work) -> None:
    """A step of SGD, PaCA's refresh included, that moves each tensor by its own norm: what was kept must show.

    Gradients are drawn for it. Along the true ones LoRA's branch grows to be all of the output, rounding with it.
    """
    for name, leaf in work.leaves:
        if name != "x":
            move = torch.randn_like(leaf)
            moved, by = (torch.linalg.vector_norm(t.detach(), dtype=torch.float32) for t in (leaf, move))
            leaf.detach().add_(move, alpha=-(moved / by).item())
    work.refresh()


def _undropped(case: Case) -> Case:
    return replace(case, dropout=None if case.dropout is None else 0.0)
