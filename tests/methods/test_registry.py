"""What the registry says of the implementations there are."""

from pathlib import Path

import pytest
import torch
from torch import nn

from bench.methods import IMPLS, apply, unsupported
from bench.models.config import make_config, make_model
from bench.words import METHODS
from tests.models.tiny import GPT2, LLAMA, make_case, write_config


def test_every_method_has_an_eager_impl_that_loads() -> None:
    assert tuple(IMPLS) == METHODS
    for method in METHODS:
        assert callable(IMPLS[method]["eager"].load())
        assert all(impl.says for impl in IMPLS[method].values())


def test_rank_above_the_columns_is_unsupported_by_paca_alone(tmp_path: Path) -> None:
    path = write_config(tmp_path, LLAMA)
    assert unsupported(make_case(path, "paca", rank=32), "cpu") is None
    assert unsupported(make_case(path, "paca", rank=33), "cpu") == (
        "rank 33 is above the 32 input columns of self_attn.q_proj"
    )
    assert unsupported(make_case(path, "paca", rank=33, targets="down_proj"), "cpu") is None
    assert unsupported(make_case(path, "lora", rank=33), "cpu") is None
    assert unsupported(make_case(path, "full"), "cuda") is None
    assert unsupported(make_case(None, "paca", "linear", layer="square-16", rank=17), "cpu") is not None


def test_unknown_impl() -> None:
    with pytest.raises(KeyError):
        unsupported(make_case(None, "lora", "linear", layer="square-16", impl="nonesuch"), "cpu")


@pytest.mark.parametrize("method", ["lora", "paca"])
def test_targets_that_name_nothing(method: str, tmp_path: Path) -> None:
    model = make_model(make_config(GPT2), torch.device("meta"), torch.float32)
    with pytest.raises(ValueError, match="targets: 'q_proj' names no linear layer"):
        apply(model, make_case(write_config(tmp_path, GPT2), method, targets="q_proj"))


def test_targets_follow_peft_s_suffixes(tmp_path: Path) -> None:
    path = write_config(tmp_path, GPT2)
    for targets, expected in [
        ("c_proj", {"attn.c_proj", "mlp.c_proj"}),
        ("attn.c_proj", {"attn.c_proj"}),
        ("mlp.c_proj,c_attn", {"mlp.c_proj", "attn.c_attn"}),
        ("all-linear", {"attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"}),
    ]:
        model = make_model(make_config(GPT2), torch.device("meta"), torch.float32)
        names = [name for name, _ in apply(model, make_case(path, "lora", targets=targets, trainable_layers="1"))]
        assert {name.removeprefix("transformer.h.3.").rpartition(".")[0] for name in names} == expected


def test_apply_keeps_eval_mode(tmp_path: Path) -> None:
    model: nn.Module = make_model(make_config(LLAMA), torch.device("cpu"), torch.float32).eval()
    apply(model, make_case(write_config(tmp_path, LLAMA), "lora", dropout=0.5))
    assert not any(module.training for module in model.modules())
