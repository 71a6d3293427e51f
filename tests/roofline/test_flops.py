"""FLOPs by closed form against torch's own counter on meta tensors."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from torch.utils.flop_counter import FlopCounterMode

from bench.case import Case
from bench.case.shapes import named_models
from bench.methods.registry import methods
from bench.models.build import build
from bench.roofline.peaks import peaks_of
from bench.roofline.roofline import compulsory_bytes, flops, roofline_ms
from tests.models.tiny import make_case, write_config
from tests.roofline.families import FAMILIES, METHODS, TARGETS

FIRST = ("full", "lora", "paca")  # on every model; what others add to a layer is the same on each
FAST = {("gpt2", "lora"), ("llama", "paca"), ("llama", "lora-fa"), ("gpt2", "bitfit")}


def count_flops(run: Callable[[], Any]) -> tuple[int, Any]:
    """FLOPs by torch's own counter, and what `run` gives.

    Attention on meta runs as batched products over the whole square, and nothing else does: they count half.
    """
    with FlopCounterMode(display=False) as counter:
        result = run()
    by_op = counter.get_flop_counts().get("Global", {})
    names = {str(op): n for op, n in by_op.items()}
    assert set(names) <= {"aten.mm", "aten.addmm", "aten.bmm"}, names
    halved = names.pop("aten.bmm", 0)
    assert halved % 2 == 0
    return sum(names.values()) + halved // 2, result


def check_flops(case: Case) -> None:
    """Where stages take turns, the closed form is their mean."""
    work = build(case, "meta")
    forwards, backwards = [], []
    for stage in range(work.stages):
        if stage:
            work.select(stage)
        forward, out = count_flops(work.forward)
        backward, _ = count_flops(lambda out=out: work.backward(out))  # type: ignore[misc]
        work.check_leaves()
        forwards.append(forward)
        backwards.append(backward)
    expected = [round(sum(n) / len(n)) for n in (forwards, backwards)]
    assert [flops(case, "forward"), flops(case, "backward")] == expected, case.describe()
    both = flops(case, "forward-backward")
    assert both == flops(case, "step") == round(sum(forwards + backwards) / work.stages)


@pytest.mark.parametrize(
    ("method", "layers"),
    [
        pytest.param(method, layers, marks=[] if (layers == "all") == (i % 2 == 0) else pytest.mark.slow)
        for i, method in enumerate(METHODS)
        for layers in ("all", "upper-1/2")
        if method in FIRST or (layers == "all") == (i % 2 == 0)
    ]
    + [
        pytest.param("lora", "lisa-1"),
        *(
            pytest.param(method, layers, marks=pytest.mark.slow)
            for method, layers in (("lora", "every-2nd"), ("full", "every-2nd"), ("full", "lisa-2"), ("paca", "lisa-2"))
        ),
    ],
)
def test_flops_of_models(model: str, method: str, layers: str) -> None:
    check_flops(make_case(model, method, trainable_layers=layers))


@pytest.mark.parametrize(
    ("family", "method"),
    [
        pytest.param(family, method, marks=[] if (family, method) in FAST else pytest.mark.slow)
        for family in TARGETS
        for method in METHODS
        if methods()[method].adapts
    ],
)
def test_flops_of_targets(family: str, method: str, tmp_path: Path) -> None:
    two_layers = {"n_layer": 2} if family == "gpt2" else {"num_hidden_layers": 2}
    model = write_config(tmp_path, FAMILIES[family], **two_layers)
    for targets in TARGETS[family]:
        check_flops(make_case(model, method, targets=targets))
        check_flops(make_case(model, method, "block", targets=targets))


@pytest.mark.parametrize("method", METHODS)
def test_flops_of_blocks(model: str, method: str) -> None:
    check_flops(make_case(model, method, "block", batch=3, seq=5))


@pytest.mark.parametrize(
    ("name", "method"),
    [(name, method) for name in ("gpt2-medium", "tinyllama") for method in METHODS]
    + [
        pytest.param(name, method, marks=pytest.mark.slow)
        for name in named_models()
        for method in FIRST
        if name not in ("gpt2-medium", "tinyllama")
    ],
)
def test_flops_of_the_named_models(name: str, method: str) -> None:
    axes: dict[str, Any] = {"precision": "bf16", "batch": 4, "seq": 512}
    axes |= {"rank": 16} if "rank" in methods()[method].axes else {}
    check_flops(make_case(name, method, "block", **axes))
    case = make_case(name, method, "linear", **axes)
    assert case.shape is not None
    for layer in (*(p.name for p in case.shape.projections), *case.shape.groups):
        check_flops(replace(case, layer=layer))


@pytest.mark.slow
def test_flops_of_a_whole_named_model() -> None:
    check_flops(make_case("gpt2-medium", "lora", batch=4, seq=512, precision="bf16"))


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_flops_of_dora_with_dropout(family: str, models: dict[str, str]) -> None:
    """A second product with W, and with it a second for dX."""
    for level in ("block", "model"):
        check_flops(make_case(models[family], "dora", level, dropout=0.1))
    case = make_case(None, "dora", "linear", layer="square-64", dropout=0.1)
    check_flops(case)
    assert flops(case, "forward") == 2 * 2 * 16 * 64**2 + 2 * 16 * 4 * 128 + 2 * 64**2 * 4


def test_flops_by_hand() -> None:
    m, n, k, r = 16, 64, 64, 4
    case = make_case(None, "full", "linear", layer="square-64")
    assert (flops(case, "forward"), flops(case, "backward")) == (2 * m * n * k, 4 * m * n * k)
    case = make_case(None, "lora", "linear", layer="square-64")
    assert flops(case, "forward-backward") == 4 * m * n * k + 6 * m * r * (n + k)
    case = make_case(None, "paca", "linear", layer="square-64")
    assert flops(case, "forward-backward") == 4 * m * n * k + 2 * m * r * n
    case = make_case(None, "lora-fa", "linear", layer="square-64")
    assert flops(case, "forward-backward") == 4 * m * n * k + 2 * m * r * (3 * n + 2 * k)
    case = make_case(None, "bitfit", "linear", layer="square-64")
    assert flops(case, "forward-backward") == 4 * m * n * k
    # 6 FLOPs for each weight in a product and each token, and attention: 6 batch seq^2 width a block
    case = make_case("llama2-7b", "full", batch=1, seq=2048)
    assert case.shape is not None
    weights = 32 * (4 * 4096**2 + 3 * 4096 * 11008) + 32000 * 4096
    assert flops(case, "step") == 6 * 2048 * weights + 32 * 6 * 2048**2 * 4096


def test_an_unknown_architecture_has_no_closed_form_but_of_its_layers(tmp_path: Path) -> None:
    fields = {"model_type": "gpt_neox", "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    fields |= {"intermediate_size": 64, "vocab_size": 101, "max_position_embeddings": 64}
    model = write_config(tmp_path, fields)
    for level in ("block", "model"):
        case = make_case(model, "lora", level)
        assert flops(case, "forward") is None
        assert compulsory_bytes(case, "step") is None
        assert roofline_ms(case, "forward", peaks_of("NVIDIA H200", 132)) is None
    check_flops(make_case(model, "lora", "linear", layer="attention.query_key_value"))
