"""NF4 in plain PyTorch: against bitsandbytes, against the arithmetic of its definition, and in the memory it takes."""

from pathlib import Path

import pytest
import torch
from torch import nn

from bench.methods.qlora.format import stored_bytes
from bench.methods.qlora.layer import NF4Linear
from bench.methods.qlora.nf4 import LEVELS, quantise
from bench.methods.qlora.quantised_reference import levels, scale_values

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
SHAPES = ((256, 512), (1024, 256), (100, 72), (33, 64), (5, 7))  # whole blocks of scales, blocks, and neither


def weight_of(shape: tuple[int, int], dtype: torch.dtype) -> torch.Tensor:
    generator = torch.Generator().manual_seed(shape[0])
    return (0.02 * torch.randn(shape, generator=generator)).to(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_stores_what_bitsandbytes_stores(shape: tuple[int, int], dtype: torch.dtype) -> None:
    """The same codes; the same scales, but for those in the middle of two, where its library for CPUs is coarse."""
    functional = pytest.importorskip("bitsandbytes.functional")
    weight = weight_of(shape, dtype)
    found = quantise(weight)
    codes, state = functional.quantize_4bit(weight, blocksize=64, compress_statistics=True, quant_type="nf4")
    assert torch.equal(found.codes[: codes.numel()], codes.view(-1))
    other = found.scale_codes != state.absmax
    assert torch.equal(found.scale_scales, state.state2.absmax) and found.mean == state.offset
    assert int(other.sum()) <= max(2, 0.01 * other.numel())
    largest = weight.float().abs().reshape(-1)
    with torch.compiler.set_stance("force_eager"):  # it compiles what it dequantises odd shapes by
        theirs = functional.dequantize_4bit(codes, state)
    blocks = other.repeat_interleave(64)[: largest.numel()].view(shape)
    ours = found.dequantise(dtype)
    assert torch.equal(ours[~blocks], theirs[~blocks])
    assert (ours.float() - theirs.float()).abs().max() < 0.02 * largest.max()


@pytest.mark.parametrize("shape", SHAPES)
def test_every_value_is_near_its_level(shape: tuple[int, int]) -> None:
    """By the definition: within half of the widest gap between levels of its block's largest, and of the 8-bit scale's
    own error; signs and zeros stay."""
    weight = weight_of(shape, torch.float32)
    weight[0, :4] = 0.0
    found = quantise(weight).dequantise(torch.float32)
    assert found.shape == weight.shape and (found[0, :4] == 0).all()
    flat = torch.nn.functional.pad(weight.reshape(-1), (0, -weight.numel() % 64)).view(-1, 64)
    largest = flat.abs().amax(1).repeat_interleave(64)[: weight.numel()].view(shape)
    widest = max(b - a for a, b in zip(LEVELS, LEVELS[1:], strict=False)) / 2
    assert ((found - weight).abs() <= widest * largest + 0.02 * largest.max()).all()
    assert found.sign().mul(weight.sign()).ge(0).all()


def test_levels_are_quantiles_of_the_normal_distribution() -> None:
    assert levels() == pytest.approx(list(LEVELS), abs=2e-7)
    table = scale_values()
    assert len(set(table)) == 256 and table == sorted(table) and -table[0] < 1.0 == table[-1]


@pytest.mark.parametrize("shape", SHAPES)
def test_takes_four_bits(shape: tuple[int, int]) -> None:
    found = quantise(weight_of(shape, torch.bfloat16))
    assert sum(t.untyped_storage().nbytes() for t in found.tensors()) == stored_bytes(*shape)
    assert 8 * stored_bytes(4096, 4096) / 4096**2 == pytest.approx(4.127, abs=5e-4)


def test_no_dense_weight_is_kept_for_backward() -> None:
    layer = NF4Linear(nn.Linear(256, 128, dtype=torch.bfloat16))
    x = torch.randn(3, 256, dtype=torch.bfloat16, requires_grad=True)
    kept: list[torch.Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        y = layer(x)
    assert sum(t.numel() * t.element_size() for t in kept) == stored_bytes(128, 256)
    y.backward(torch.ones_like(y))
    assert x.grad is not None
    torch.testing.assert_close(x.grad, torch.ones_like(y) @ layer.weight)


def test_another_dtype_leaves_the_scales(tmp_path: Path) -> None:
    """model.to(bf16) casts every buffer of floats; a state dict brings the same values back."""
    layer = NF4Linear(nn.Linear(128, 64))
    before = layer.nf4.dequantise(torch.float32)
    layer.to(torch.bfloat16)
    assert layer.weight.dtype == torch.bfloat16 and torch.equal(layer.nf4.dequantise(torch.float32), before)
    torch.save(layer.state_dict(), tmp_path / "layer.pt")
    other = NF4Linear(nn.Linear(128, 64, dtype=torch.bfloat16))
    other.load_state_dict(torch.load(tmp_path / "layer.pt"))
    assert torch.equal(other.nf4.dequantise(torch.float32), before)
