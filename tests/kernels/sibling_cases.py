"""What siblings in a model must satisfy, where kernel_cases.py runs: one pass for all, and never another result."""

from __future__ import annotations

import copy
import gc
import pickle
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor, nn

from kernels import group_siblings
from kernels.lora import keep_mask
from kernels.lora.arguments import draw_seed
from kernels.runtime import launch
from tests.kernels.kernel_correctness import DEVICE, compare, error
from tests.kernels.sibling_models import CLOSE, DTYPE, SIZES, Attention, alone, attention, inputs, observed, passes


def next_seed() -> int:
    """The seed that the next call draws, drawn."""
    drawn = draw_seed(None, inputs().device)
    at, value = drawn if isinstance(drawn, tuple) else (drawn, 0)
    return int(at) + value


@pytest.mark.parametrize("dropout", [0.0, 0.1], ids=["", "dropout"])
def test_siblings_run_together(dropout: float) -> None:
    """The first forward finds them; then one S kernel and one dA, the outputs and gradients of layers that share the
    mask, against float64."""
    model, x = attention(dropout, found=False), inputs()
    model(x)
    assert passes() == 3
    torch.manual_seed(5)
    ours = observed(model, x)
    assert launch.counts["skinny_kernel"] == 1 and passes() == 1
    torch.manual_seed(5)
    keep = keep_mask(x, dropout, next_seed()) if dropout else None
    truth = observed(model, x, keep, lambda t: t.cpu().double())
    compare(ours, observed(model, x, keep, lambda t: t), truth, DTYPE, 32)


def test_siblings_whose_weights_have_room_for_b_run_together() -> None:
    model, x = attention(found=False), inputs()
    expected = observed(model, x)
    for layer in (model.q, model.k, model.v):
        layer.border()
    passes()
    found = observed(model, x)
    assert passes() == 1 and found.keys() == expected.keys()
    assert all(error(found[name], expected[name]) < CLOSE for name in found)


def test_cross_attention_is_found() -> None:
    """k and v of another x than q's are siblings of each other alone; out is nobody's."""
    model, x, context = attention(found=False), inputs(), inputs(2)
    model(x, context)
    passes()
    found = model(x, context)
    assert passes() == 2
    expected = torch.cat([alone(model.q, x), alone(model.k, context), alone(model.v, context)], dim=-1)
    assert error(found, expected) < CLOSE
    model.out(inputs(3))
    model.out(x)
    assert passes() == 2 and model.out.siblings is None
    model.v.scale = 0.5  # of another scale than q's and k's
    other = copy.deepcopy(model)
    group_siblings(other)
    for expected in (3, 2):
        assert error(other(x), torch.cat([alone(other.get_submodule(name), x) for name in SIZES], -1)) < CLOSE
        assert passes() == expected


def changed(what: str, model: Attention, x: Tensor) -> None:
    if what == "x":
        x.add_(1)
    elif what == "parameter":
        model.k.lora_b.data = model.k.lora_b.data * 2
    elif what == "version":
        model.k.lora_b.mul_(2)
    elif what == "replaced":
        model.k.lora_a = nn.Parameter(model.k.lora_a * 3)
    elif what == "training":
        model.k.eval()
    elif what == "scale":
        model.k.scale = 0.25
    elif what == "merged":
        model.k.merge()
    elif what == "bias":
        model.k.base.bias = None


@pytest.mark.parametrize("what", ["x", "parameter", "version", "replaced", "training", "scale", "merged", "bias"])
@torch.no_grad()
def test_a_change_between_the_calls_counts(what: str) -> None:
    """k is computed anew from what is there at its own call; v, of the same x, has its output already."""
    model, x = attention(), inputs()
    if what == "training":  # it matters where there is dropout only: of 0.0, which is 0 in both modes
        for layer in (model.q, model.k, model.v):
            layer.dropout = 0.5
        with torch.enable_grad():
            model.q(x)
            changed(what, model, x)
            assert error(model.k(x), alone(model.k, x)) < CLOSE
        return
    model.q(x)
    changed(what, model, x)
    passes()
    expected = nn.functional.linear(x, model.k.weight, model.k.bias) if what == "merged" else alone(model.k, x)
    assert error(model.k(x), expected) < CLOSE
    assert error(model.v(x), alone(model.v, x)) < CLOSE
    assert passes() == (2 if what == "x" else 0 if what == "merged" else 1)


@pytest.mark.slow
def test_other_surroundings_compute_anew() -> None:
    """Grad mode, autocast and inference mode of a call are its own."""
    model, x = attention(), inputs()
    with torch.no_grad():
        model.q(x)
    k = model.k(x)
    assert k.requires_grad and passes() == 2
    model.q(x)
    with torch.autocast(DEVICE, dtype=torch.bfloat16):
        k, v = model.k(x), model.v(x)
    assert {k.dtype, v.dtype} == {torch.bfloat16} and passes() == 3
    with torch.inference_mode():
        assert error(model(x), torch.cat([alone(model.get_submodule(name), x) for name in SIZES], -1)) < CLOSE


@pytest.mark.slow
def test_calls_out_of_order() -> None:
    """k before q, k twice, another x in between, an exception: each call has the output for its x."""
    model, x, other = attention(), inputs(), inputs(2)
    for order in ("kqkv", "qkkv", "qqkv", "vkq", "q", "kv"):
        for name in order:
            layer = model.get_submodule(name)
            assert error(layer(x), alone(layer, x)) < CLOSE, (order, name)
            assert error(model.k(other), alone(model.k, other)) < CLOSE, (order, name)


@pytest.mark.slow
def test_a_group_that_is_not_one_ends() -> None:
    """Outputs left over twice in a row: the layers run alone from then on. Once, as by an exception, is forgiven."""
    model, x = attention(), inputs()
    with torch.no_grad():
        for _ in range(3):
            model.q(x)
            model(x)
            model(x)
        passes()
        model(x)
        assert passes() == 1
        for _ in range(3):
            model.q(x)
        passes()
        model(x)
        assert passes() == 3


def test_hooks() -> None:
    """A hook that changes k's x, one that changes its y, and backward hooks see and change k's own call."""
    model, x = attention(), inputs()
    hook = model.k.register_forward_hook(lambda _layer, _args, y: 2 * y)
    assert error(model(x)[..., 24:40], 2 * alone(model.k, x)) < CLOSE and passes() == 1
    hook.remove()
    hook = model.k.register_forward_pre_hook(lambda _layer, args: (3 * args[0],))
    assert error(model(x)[..., 24:40], alone(model.k, 3 * x)) < CLOSE and passes() == 3
    hook.remove()
    seen = []
    hook = model.k.register_full_backward_hook(lambda _layer, dx, dy: seen.append((dx[0].shape, dy[0].shape)))
    model(x.requires_grad_()).sum().backward()
    assert seen == [(x.shape, (2, 5, 16))] and passes() == 3
    hook.remove()
    model(x)
    assert passes() == 1


def test_copies_have_groups_of_their_own() -> None:
    """A deepcopy and a pickle find their siblings anew, and the state_dict has no new names."""
    model, x = attention(), inputs()
    assert list(model.state_dict()) == list(Attention().state_dict())
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        model.q(x)
        with torch.no_grad():
            other.k.lora_b.mul_(2)
        assert error(other(x), torch.cat([alone(other.get_submodule(name), x) for name in SIZES], -1)) < CLOSE
        passes()
        other(x)
        assert passes() == 1
        assert other.q.siblings is other.k.siblings is not model.q.siblings
    replica = model.k._replicate_for_data_parallel()  # as nn.DataParallel makes them, in every forward
    for name, parameter in model.k.named_parameters(recurse=False):
        setattr(replica, name, parameter)
    model.q(x)
    passes()
    replica(x)
    assert passes() == 1


def test_threads_exchange_nothing() -> None:
    """Two threads call the layers in turn, one after the other's: each gets what belongs to its own x."""
    model, xs = attention(), [inputs(3), inputs(4)]
    same = model(xs[0])
    passes()
    with ThreadPoolExecutor(1) as first, ThreadPoolExecutor(1) as second:

        def called(name: str, reads: tuple[int, int]) -> list[Tensor]:
            layer = model.get_submodule(name)
            return [pool.submit(layer, xs[i]).result() for pool, i in zip((first, second), reads, strict=True)]

        ys = [called(name, (0, 1)) for name in SIZES]
        assert passes() == 2
        for i, x in enumerate(xs):
            found = torch.cat([y[i] for y in ys], -1)
            assert error(found, torch.cat([alone(model.get_submodule(name), x) for name in SIZES], -1)) < CLOSE
        q = first.submit(model.q, xs[0]).result()
        k, v = second.submit(model.k, xs[0]), second.submit(model.v, xs[0])
        assert error(torch.cat([q, k.result(), v.result()], -1), same) < CLOSE
        assert passes() == 3, "the second thread has no part in the first one's group"


@pytest.mark.slow
def test_parts_of_a_group_may_be_frozen_or_absent() -> None:
    """A frozen A gets no gradient; a merged sibling leaves the others to run alone; x need not require a gradient."""
    model, x = attention(), inputs()
    model.k.lora_a.requires_grad_(False)
    model(x).sum().backward()
    assert passes() == 1 and model.k.lora_a.grad is None and model.k.lora_b.grad is not None
    model.v.merge()
    y = model(x)
    assert passes() == 2
    assert error(y[..., 40:], nn.functional.linear(x, model.v.weight)) < CLOSE
    model.v.unmerge()
    model(x)
    assert passes() == 1


@pytest.mark.slow
def test_nothing_is_kept_without_x() -> None:
    """Outputs that no call can ask for any more are freed with x; no layer is kept alive by its siblings."""
    model, x = attention(), inputs()

    def kept() -> int:
        gc.collect()
        return sum(type(one) is Tensor and one.shape == (2, 5, 16) for one in gc.get_objects())

    before = kept()
    with torch.no_grad():
        model.q(x)
    assert kept() == before + 2
    del x
    assert kept() == before
    gone = weakref.ref(model.v)
    del model.v
    gc.collect()
    assert gone() is None
    x = inputs()
    assert error(model.q(x), alone(model.q, x)) < CLOSE
