"""LoRALinear and PaCALinear as modules: both weight layouts, round trips, refresh, optimizer helpers."""

import copy
import subprocess
import sys

import pytest
import torch
from torch import nn

import kernels
from kernels import DoRALinear, LoRALinear, PaCALinear, parameter_groups, refresh_after_step
from kernels.modules.blocks import block_lists


class Conv1D(nn.Module):
    """The layout of transformers' class of this name, which is recognised by it."""

    def __init__(self, nf: int, nx: int) -> None:
        super().__init__()
        self.nf = nf
        self.weight = nn.Parameter(torch.randn(nx, nf) / nx**0.5)
        self.bias = nn.Parameter(torch.randn(nf))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.addmm(self.bias, x.view(-1, x.size(-1)), self.weight).view(*x.shape[:-1], self.nf)


def base_layer(kind: str, dtype: torch.dtype = torch.float32) -> nn.Module:
    torch.manual_seed(0)
    layers = {"linear": lambda: nn.Linear(40, 24), "no-bias": lambda: nn.Linear(40, 24, bias=False)}
    return (layers[kind]() if kind in layers else Conv1D(24, 40)).to(dtype)


KINDS = ["linear", "no-bias", "conv1d"]


@pytest.mark.parametrize("make", [LoRALinear, DoRALinear])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_lora_merge_returns_bit_for_bit(kind: str, dtype: torch.dtype, make: type[LoRALinear]) -> None:
    base = base_layer(kind, dtype)
    before = base.weight.detach().clone()
    layer = make(base, 4, 4 / 3)
    x = torch.randn(3, 5, 40, dtype=dtype)
    if make is LoRALinear:
        assert torch.equal(layer(x), base(x)), "B is zero: the output is the pretrained one"
    else:  # the magnitude is rounded to the adapters' dtype
        torch.testing.assert_close(layer(x), base(x), rtol=2 * torch.finfo(dtype).eps, atol=torch.finfo(dtype).eps)
        nn.init.uniform_(layer.magnitude, -1, 2)
    nn.init.normal_(layer.lora_b)
    branched = layer(x)
    layer.merge()
    layer.merge()
    assert not torch.equal(base.weight, before)
    torch.testing.assert_close(layer(x), branched, rtol=0.05, atol=0.05 if dtype == torch.bfloat16 else 1e-4)
    state = copy.deepcopy(layer.state_dict())
    assert torch.equal(state["base.weight"], before), "a checkpoint taken while merged holds the pretrained weight"
    layer.load_state_dict(state)
    assert not layer.merged
    layer.merge()
    layer.unmerge()
    layer.unmerge()
    assert torch.equal(base.weight, before)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_paca_first_output_and_restore(kind: str, dtype: torch.dtype) -> None:
    base = base_layer(kind, dtype)
    x = torch.randn(3, 5, 40, dtype=dtype)
    before, expected = base.weight.detach().clone(), base(x).detach()
    layer = PaCALinear(base, 5, 7.0, seed=3)
    assert torch.equal(layer(x), expected), "untouched before the first refresh"
    assert layer.index.dtype == torch.int64 and layer.index.tolist() == sorted(set(layer.index.tolist()))
    assert torch.equal(layer.pretrained, layer.weight[:, layer.index])
    optimizer = torch.optim.SGD([layer.columns], lr=0.5)
    refresh_after_step(optimizer, layer)
    layer(x).float().square().sum().backward()
    optimizer.step()
    assert torch.equal(layer.weight[:, layer.index], (layer.scale * layer.columns).to(dtype))
    rest = [i for i in range(40) if i not in layer.index.tolist()]
    stored = before.t() if layer.transposed else before
    assert torch.equal(layer.weight[:, rest], stored[:, rest]), "only the live columns move"
    assert layer.restore() is base
    assert torch.equal(base.weight, before)


@pytest.mark.parametrize("make", [
    lambda b: LoRALinear(b, 4, 8, dropout=0.1), lambda b: DoRALinear(b, 4, 8, dropout=0.1),
    lambda b: PaCALinear(b, 4, 8, seed=5),
])  # fmt: skip
@pytest.mark.parametrize("kind", KINDS)
def test_state_round_trip(make, kind: str) -> None:
    layer = make(base_layer(kind)).eval()
    for parameter in layer.parameters():
        if parameter.requires_grad:
            nn.init.normal_(parameter)
    other = make(base_layer(kind)).eval()
    other.load_state_dict(layer.state_dict())
    x = torch.randn(2, 40)
    assert torch.equal(layer(x), other(x))
    twin = copy.deepcopy(layer)
    assert torch.equal(layer(x), twin(x))
    assert (layer.in_features, layer.out_features, layer.rank, layer.alpha, layer.scale) == (40, 24, 4, 8, 2.0)
    assert layer.weight.shape == (24, 40)


def test_paca_masters_in_fp32_over_a_16_bit_base() -> None:
    layer = PaCALinear(base_layer("linear", torch.bfloat16), 4, 8, adapter_dtype=torch.float32)
    layer(torch.randn(6, 40, dtype=torch.bfloat16)).sum().backward()
    assert layer.columns.dtype == torch.float32 and layer.columns.grad.dtype == torch.float32


@pytest.mark.parametrize(
    "make", [lambda b: LoRALinear(b, 4, 8), lambda b: DoRALinear(b, 4, 8), lambda b: PaCALinear(b, 4, 8)]
)
def test_autocast_gives_16_bit_output_and_fp32_gradients(make) -> None:
    layer = make(base_layer("linear"))
    x = torch.randn(6, 40, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = layer(x)
    assert y.dtype == torch.bfloat16
    y.float().square().sum().backward()
    trained = [p for p in layer.parameters() if p.requires_grad]
    assert trained and all(p.grad is not None and p.grad.dtype == torch.float32 for p in trained)
    assert x.grad is not None and x.grad.dtype == torch.float32


def test_parameter_groups_spare_the_columns() -> None:
    model = nn.Sequential(PaCALinear(base_layer("linear"), 4, 8), nn.LayerNorm(24))
    decayed, spared = parameter_groups(model, 0.1)
    assert spared["weight_decay"] == 0.0 and [p.shape for p in spared["params"]] == [(24, 4)]
    assert decayed["weight_decay"] == 0.1 and len(decayed["params"]) == 2


def test_import_needs_neither_torch_nor_triton() -> None:
    code = (
        "import sys; sys.modules['triton'] = None; import kernels; assert 'torch' not in sys.modules\n"
        "import torch; from kernels import lora_linear, paca_linear, DoRALinear, LoRALinear, PaCALinear, reference\n"
        "y = LoRALinear(torch.nn.Linear(8, 8), 2, 2)(torch.randn(3, 8)); y.sum().backward()\n"
        "y = DoRALinear(torch.nn.Linear(8, 8), 2, 2)(torch.randn(3, 8)); y.sum().backward()\n"
        "y = PaCALinear(torch.nn.Linear(8, 8), 2, 2)(torch.randn(3, 8)); y.sum().backward()\n"
        "assert 'torch._dynamo' not in sys.modules, 'it takes seconds to import'\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        kernels.no_such_name  # noqa: B018


def test_a_list_with_a_gap_is_no_list_of_blocks() -> None:
    """As Informer's convolutions, None after the last layer."""
    block = torch.nn.Sequential(torch.nn.Linear(4, 4))
    model = torch.nn.ModuleDict({"gaps": torch.nn.ModuleList([block, None]), "layers": torch.nn.ModuleList([block])})
    assert [name for name, _ in block_lists(model)] == ["layers"]


@pytest.mark.parametrize("kind", KINDS)
def test_where_no_kernel_runs_nothing_is_laid_out(kind: str) -> None:
    layer = LoRALinear(base_layer(kind), 4, 4)
    before = layer.weight
    assert layer.prepare(4096) == "torch"
    assert layer.weight.data_ptr() == before.data_ptr() and layer.weight.stride() == before.stride()
