"""The correctness check over a base of 4 bits: every impl passes it, and what is planted is found."""

from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.case import Case
from bench.correctness.check import check
from bench.methods.adapt import Trained
from bench.methods.qlora.layer import NF4Linear
from bench.methods.qlora.nf4 import NF4
from bench.methods.registry import methods, unsupported
from tests.models.tiny import GPT2, LLAMA, make_case, write_config

IMPLS = [(m, impl) for m in ("qlora", "qpaca") for impl in methods()[m].impls]
NEEDS = {"peft": "bitsandbytes", "peft-fp32": "bitsandbytes", "torchao": "torchao"}


@pytest.fixture(autouse=True)
def _uncompiled() -> Iterator[None]:
    """bitsandbytes compiles what it dequantises by on a CPU, once for each shape: 10 s, and the same numbers."""
    with torch.compiler.set_stance("force_eager"):
        yield


def case_on(method: str, impl: str = "eager", precision: str = "fp32", layer: str = "self_attn.k_proj") -> Case:
    """On a real layer: 256 x 2048 of TinyLLaMA, or a Conv1D of GPT-2 (1024 x 1024) with its bias."""
    model = "gpt2-medium" if "c_" in layer else "tinyllama"
    return make_case(model, method, "linear", impl=impl, layer=layer, precision=precision, batch=1, seq=64)


@pytest.mark.parametrize(
    ("layer", "precision"),
    [("self_attn.k_proj", "fp32"), ("self_attn.k_proj", "bf16"), ("self_attn.k_proj", "amp-bf16"),
     ("attn.c_proj", "bf16")],
)  # fmt: skip
@pytest.mark.parametrize(("method", "impl"), IMPLS)
def test_every_impl_is_right(method: str, impl: str, layer: str, precision: str) -> None:
    if impl == "peft-fp32" and precision != "bf16":
        pytest.skip("it is impl peft there")
    if (package := NEEDS.get(impl)) and find_spec(package) is None:
        pytest.skip(f"needs {package}")
    case = case_on(method, impl, precision, layer)
    assert unsupported(case, "cpu") is None
    found = check(case, "cpu")
    assert found.passed, found.detail
    assert {f"layer.{part} as built" for part in ("codes", "scales")} <= found.errors.keys()


@pytest.mark.parametrize("impl", ["peft", "torchao"])
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_every_impl_is_right_in_a_block(family: str, impl: str, tmp_path: Path) -> None:
    """Of widths that 64 divides."""
    if find_spec(NEEDS[impl]) is None:
        pytest.skip(f"needs {NEEDS[impl]}")
    wide = {"n_embd": 128} if family == "gpt2" else {"hidden_size": 128, "intermediate_size": 256, "head_dim": 32}
    fields = {"gpt2": GPT2, "llama": {**LLAMA, "num_key_value_heads": LLAMA["num_attention_heads"]}}[family]
    case = make_case(write_config(tmp_path, fields | wide), "qlora", "block", impl=impl)
    assert unsupported(case, "cpu") is None
    found = check(case, "cpu")
    assert found.passed, found.detail


def test_bitsandbytes_takes_no_odd_rows_on_a_cpu(tmp_path: Path) -> None:
    """What it would compute there is caught, should it be asked."""
    pytest.importorskip("bitsandbytes")
    case = make_case(write_config(tmp_path, LLAMA), "qlora", "linear", impl="peft", layer="self_attn.q_proj")
    assert "no multiple of 64 values, and self_attn.q_proj has 32" in (unsupported(case, "cpu") or "")
    assert unsupported(case, "cuda:0") is None
    found = check(case, "cpu")
    assert not found.passed and "output differs from the reference" in found.detail


def test_torchao_takes_whole_blocks_of_scales_only() -> None:
    pytest.importorskip("torchao")
    words = unsupported(make_case("gpt2-xl", "qlora", "linear", impl="torchao", layer="attn.c_proj"), "cpu")
    assert words == ("torchao's NF4Tensor takes weights of a multiple of 16384 values, and attn.c_proj has 1600 x 1600")


Change = Callable[[NF4Linear], None]


def _nibbles(base: NF4Linear) -> None:
    base.codes.copy_(base.codes << 4 | base.codes >> 4)


def _one_code(base: NF4Linear) -> None:
    base.codes[7] ^= 16


def _neighbour(base: NF4Linear) -> None:
    base.scale_codes.copy_(base.scale_codes.roll(1))


def _no_mean(base: NF4Linear) -> None:
    base.mean.zero_()


def _other_scales(base: NF4Linear) -> None:
    base.scale_scales.mul_(1.02)


STORED: dict[str, tuple[Change, str]] = {
    "nibbles swapped": (_nibbles, "codes"),
    "one code of a million bits": (_one_code, "codes"),
    "scales of the block before": (_neighbour, "scales"),
    "mean of the scales forgotten": (_no_mean, "scales"),
    "scales of scales off by a fiftieth": (_other_scales, "scales"),
}


def planted(method: str, change: Callable[[Any], None], monkeypatch: pytest.MonkeyPatch) -> Any:
    """The check of impl eager, whose layers are changed after they are made."""
    right = methods()[method].impls["eager"].load()

    def apply(model: nn.Module, case: Case) -> Trained:
        found: Trained = right(model, case)
        change(model.get_submodule("layer"))
        return found

    monkeypatch.setattr(f"bench.methods.{method}.eager.apply", apply)
    return check(case_on(method), "cpu")


@pytest.mark.parametrize("method", ["qlora", "qpaca"])
@pytest.mark.parametrize("fault", STORED)
def test_a_wrong_store_is_found(method: str, fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    change, part = STORED[fault]
    found = planted(method, lambda layer: change(layer.base), monkeypatch)
    assert not found.passed and found.errors[f"layer.{part} as built"] > 0.5, found.detail


def _forward(forward: Callable[[Any, Tensor], Tensor]) -> Callable[[Any], None]:
    def change(layer: Any) -> None:
        layer.plain = layer.base.weight + 1e-3 * layer.base.weight.std() * torch.randn_like(layer.base.weight)
        layer.forward = lambda x: forward(layer, x)

    return change


def _dense_dx(layer: Any, x: Tensor) -> Tensor:
    """The right output; dX by a weight that is off by a thousandth, as the one before it was quantised is by more."""
    y = NF4Linear.forward(layer.base, x.detach())
    through = F.linear(x, layer.plain)
    s = F.linear(x, layer.lora_a)
    return y + (through - through.detach()) + layer.scale * F.linear(s, layer.lora_b)


def _swapped(layer: Any, x: Tensor) -> Tensor:
    """The branch on the wrong side: of the output's features in place of the input's."""
    y = layer.base(x)
    n, k = layer.base.shape
    s = F.linear(F.pad(y, (0, k - n)), layer.lora_a)
    return y + layer.scale * F.linear(s, layer.lora_b)


def _unquantised(layer: Any, x: Tensor) -> Tensor:
    return F.linear(x, layer.plain) + layer.scale * F.linear(F.linear(x, layer.lora_a), layer.lora_b)


COMPUTED = {"dX by another weight": (_dense_dx, "x"), "branch on the wrong side": (_swapped, "output"),
            "another weight": (_unquantised, "output")}  # fmt: skip


@pytest.mark.parametrize("fault", COMPUTED)
def test_a_wrong_computation_is_found(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    forward, tensor = COMPUTED[fault]
    found = planted("qlora", _forward(forward), monkeypatch)
    assert not found.passed and found.tensor == tensor, found.detail


def test_columns_in_nf4_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Live columns that a forward leaves as NF4 has them."""

    def change(layer: Any) -> None:
        packed = NF4.of(layer.base.nf4.tensors(), layer.base.shape).dequantise(torch.float32)
        right = layer.forward
        layer.forward = lambda x: (
            right(x) + F.linear(x[..., layer.index], packed[:, layer.index] - layer.weight[:, layer.index]).detach()
        )

    found = planted("qpaca", change, monkeypatch)
    assert not found.passed and found.tensor == "output"


def test_a_dense_weight_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """An impl that quantises nothing passes for no QLoRA."""
    monkeypatch.setattr("bench.methods.qlora.eager.apply", methods()["lora"].impls["eager"].load())
    found = check(case_on("qlora"), "cpu")
    assert not found.passed and found.errors["layer.weight as built"] == 1.0 and "codes" not in str(found.errors)
