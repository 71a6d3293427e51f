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
from torch.utils.checkpoint import checkpoint

from kernels import LoRALinear, group_siblings, reference
from kernels.lora import keep_mask
from kernels.lora.arguments import seed_tensor
from kernels.runtime import launch
from tests.kernels.kernel_cases import DTYPES, F32
from tests.kernels.kernel_correctness import DEVICE, compare, error

DTYPE = DTYPES[0]
CLOSE = 1e-5 if DTYPE == F32 else 2e-2
SIZES = {"q": 24, "k": 16, "v": 16}


class Attention(nn.Module):
    """q, k, v that read the same x; out, as wide at its input, reads another."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        for name, n in SIZES.items():
            self.add_module(name, LoRALinear(nn.Linear(32, n, bias=name == "k"), 4, 6, dropout))
        self.out = LoRALinear(nn.Linear(32, 16), 4, 6, dropout)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        other = x if context is None else context
        return torch.cat([self.q(x), self.k(other), self.v(other)], dim=-1)


def attention(dropout: float = 0.0, found: bool = True) -> Attention:
    """Drawn from one seed; found: the forward that finds the siblings has been."""
    torch.manual_seed(0)
    model = Attention(dropout).to(DEVICE, DTYPE)
    for name, parameter in model.named_parameters():
        if name.endswith("lora_b"):
            nn.init.normal_(parameter)
    group_siblings(model)
    if found:
        with torch.no_grad():
            model(inputs())
    launch.counts.clear()
    return model


def inputs(seed: int = 1) -> Tensor:
    return torch.randn(2, 5, 32, generator=torch.Generator().manual_seed(seed)).to(DEVICE, DTYPE)


def passes() -> int:
    """Passes over x since the last call: one of a group, one of each layer that ran alone."""
    count = launch.counts["project_kernel"] + launch.counts["single_pass_kernel"]
    launch.counts.clear()
    return count


def alone(layer: LoRALinear, x: Tensor) -> Tensor:
    """What the layer computes without dropout, in eager PyTorch."""
    options = {"scale": layer.scale, "bias": layer.bias}
    return reference.lora_linear(x, layer.weight, layer.lora_a, layer.lora_b, **options)


def observed(model: Attention, x: Tensor, keep: Tensor | None = None, cast=None, **options) -> dict[str, Tensor]:
    """Output and gradients by name: of the model, or of the reference in `cast` of everything under the mask `keep`."""
    turn = cast or (lambda t: t)
    leaf = turn(x).detach().requires_grad_()
    names = [f"{layer}.{part}" for layer in SIZES for part in ("lora_a", "lora_b")]
    leaves = [model.get_parameter(name) for name in names]
    if cast is None:
        y = model(leaf, **options)
    else:
        leaves = [turn(t).detach().requires_grad_() for t in leaves]
        ys = []
        for i, layer in enumerate(map(model.get_submodule, SIZES)):
            bias = None if layer.bias is None else turn(layer.bias).detach()
            masked = {"dropout_p": layer.dropout, "keep": None if keep is None else keep.to(leaf.device)}
            a, b = leaves[2 * i : 2 * i + 2]
            ys.append(
                reference.lora_linear(leaf, turn(layer.weight).detach(), a, b, scale=layer.scale, bias=bias, **masked)
            )
        y = torch.cat(ys, dim=-1)
    dy = torch.randn(y.shape, generator=torch.Generator().manual_seed(7), dtype=torch.float64).to(y.device, y.dtype)
    return {"y": y, **dict(zip(["dx", *names], torch.autograd.grad(y, [leaf, *leaves], dy), strict=True))}


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
    keep = keep_mask(x, dropout, int(seed_tensor(None, x.device))) if dropout else None
    truth = observed(model, x, keep, lambda t: t.cpu().double())
    compare(ours, observed(model, x, keep, lambda t: t), truth, DTYPE, 32)


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


def test_each_output_may_have_a_backward_of_its_own() -> None:
    """As layers alone have: what one backward frees, another still needs; a sibling without one gets no gradient."""
    model, x = attention(), inputs()
    expected = observed(model, x)
    dy = torch.randn((2, 5, 56), generator=torch.Generator().manual_seed(7), dtype=torch.float64).to(DEVICE, DTYPE)
    leaf = x.requires_grad_()
    passes()
    q, k, v = model.q(leaf), model.k(leaf), model.v(leaf)
    assert passes() == 1
    q.backward(dy[..., :24])
    assert model.k.lora_a.grad is None and model.v.lora_b.grad is None
    with pytest.raises(RuntimeError, match="second time"):
        q.backward(dy[..., :24])
    torch.autograd.backward([k, v], [dy[..., 24:40], dy[..., 40:]])
    found = {name: p.grad for name, p in model.named_parameters() if p.grad is not None} | {"dx": leaf.grad}
    assert all(error(found[name], expected[name]) < CLOSE for name in expected if name != "y")
    model.q(leaf).sum().backward()  # frees what v's output of this group would need
    model.v(leaf).sum().backward()
    q, v = model.q(leaf), (model.k(leaf), model.v(leaf))[1]
    q.sum().backward()
    with torch.no_grad():
        model.v.lora_b.mul_(2)
    with pytest.raises(RuntimeError):
        v.sum().backward()


def linear_in_x(model: Attention, forward, x: Tensor) -> float:
    """Without bias y is linear in x where both passes have the same mask: then <x, dX> = <y, dY>."""
    model.k.base.bias = None
    leaf = x.clone().requires_grad_()
    y = forward(leaf)
    dy = torch.randn_like(y)
    y.backward(dy)
    found, expected = ((p.double() * q.double()).sum().item() for p, q in ((leaf, leaf.grad), (y, dy)))
    return abs(found - expected) / (y.double().norm() * dy.double().norm()).item()


@pytest.mark.slow
@pytest.mark.parametrize("reentrant", [False, True], ids=["", "reentrant"])
def test_checkpointing(reentrant: bool) -> None:
    """Recomputation finds the masks and the saved tensors of its forward, before the groups are found and after."""
    model, x = attention(0.5, found=False), inputs()

    def region(leaf: Tensor) -> Tensor:
        return model(leaf * 1)  # the recomputed x is another tensor

    def forward(leaf: Tensor) -> Tensor:
        return checkpoint(region, leaf, use_reentrant=reentrant)

    def each(leaf: Tensor) -> Tensor:
        layers = map(model.get_submodule, SIZES)
        return torch.cat([checkpoint(layer, leaf, use_reentrant=reentrant) for layer in layers], dim=-1)

    for step in range(2):
        passes()
        first = x.clone().requires_grad_()
        y = forward(first)
        assert linear_in_x(model, forward, x) < CLOSE
        y.sum().backward()  # of a forward before another's backward
        assert passes() == (4 if step and not reentrant else 12)
    assert linear_in_x(model, each, x) < CLOSE


@pytest.mark.slow
def test_a_region_may_hold_some_of_the_siblings() -> None:
    """q outside of what is recomputed and k and v within, of the same x: the region recomputes what it had."""
    model, x = attention(), inputs()
    expected = observed(model, x)

    def region(leaf: Tensor) -> Tensor:
        return torch.cat([model.k(leaf).tanh(), model.v(leaf)], dim=-1)

    for _ in range(2):
        leaf = x.clone().requires_grad_()
        y = torch.cat([model.q(leaf), checkpoint(region, leaf, use_reentrant=False)], dim=-1)
        y.sum().backward()
    again = observed(model, x)
    assert all(error(again[name], expected[name]) < CLOSE for name in expected)


@pytest.mark.slow
def test_a_region_may_call_the_siblings_twice() -> None:
    """Whatever is found out within a region, it is recomputed as it was computed."""
    model = attention()

    def region(leaf: Tensor) -> Tensor:
        left = model.q(leaf * 1)  # another x than that of k and v: what is computed for them is left over
        return torch.cat([left, model(leaf * 2)], dim=-1)

    for _ in range(6):
        checkpoint(region, inputs().requires_grad_(), use_reentrant=False).sum().backward()


@pytest.mark.slow
def test_recomputation_may_stop_between_the_siblings() -> None:
    """Non-reentrant checkpointing ends a recomputation at the last tensor it needs: k and v are not asked there."""
    model, x = attention(), inputs()

    def region(leaf: Tensor) -> Tensor:
        leaf = leaf * 1
        q = model.q(leaf)
        squared = q * q
        return torch.cat([squared, model.k(leaf), model.v(leaf)], dim=-1)

    for _ in range(4):
        checkpoint(region, x.clone().requires_grad_(), use_reentrant=False).sum().backward()
    passes()
    region(x)
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
def test_second_derivatives() -> None:
    """Torch's own operations compute gradients that are to be differentiated again, as of layers alone."""
    model, x = attention(), inputs()
    plain = copy.deepcopy(model)
    found = []
    for one in (model, plain):
        leaf = x.clone().requires_grad_()
        (dx,) = torch.autograd.grad(one(leaf).square().sum(), leaf, create_graph=True)
        found.append(torch.autograd.grad(dx.square().sum(), one.k.lora_a)[0])
    assert error(found[0], found[1]) < 10 * CLOSE


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


@pytest.mark.slow
def test_compiled_layers_run_alone() -> None:
    """torch.compile finds no group in its way: one graph, the same results, and groups again in eager mode."""
    model, x = attention(), inputs()
    expected = observed(model, x)
    passes()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    leaf = x.clone().requires_grad_()
    y = compiled(leaf)
    assert passes() == 3 and error(y, expected["y"]) < CLOSE
    model(x)
    assert passes() == 1
