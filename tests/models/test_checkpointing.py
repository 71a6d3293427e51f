"""Gradient checkpointing: the same gradients, less left behind, and as much of it as the closed form says."""

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from bench.case import Case
from bench.correctness.check import check
from bench.methods.registry import methods
from bench.models.build import build
from bench.models.checkpointing import ATTENTION, PRODUCTS
from bench.models.work import autocast
from bench.roofline.memory import checkpointed_bytes, need
from tests.models.alive import left_behind
from tests.models.tiny import GPT2, LLAMA, NO_DROPOUT, make_case, write_config

# Wide enough for the products that selective keeps.
FIELDS = {
    "llama": {**LLAMA, "hidden_size": 256, "intermediate_size": 320, "num_hidden_layers": 2},
    "gpt2": {**GPT2, **NO_DROPOUT, "n_embd": 256, "n_layer": 2},
}
WAYS = [
    ("full", "eager"), ("lora", "eager"), ("lora", "peft"), ("lora", "peft-fp32"), ("lora", "addmm"),
    ("lora", "merged"), ("lora", "triton"), ("paca", "eager"), ("paca", "official"), ("paca", "swap"),
    ("paca", "triton"),
]  # fmt: skip
WORDS = ["full", "selective"]


def _case(path: str, method: str, impl: str = "eager", level: str = "model", **axes: Any) -> Case:
    wide = axes.get("precision") != "bf16" or impl == "peft-fp32"
    adapters = {} if method == "full" else {"adapter_dtype": "fp32" if wide else "bf16"}
    return make_case(path, method, level, impl=impl, **{**adapters, **axes})


def _run(case: Case) -> dict[str, Tensor]:
    """Output and gradients, under the masks of one seed."""
    work = build(case, "cpu")
    torch.manual_seed(5)
    out = work.forward()
    assert isinstance(out, Tensor)
    work.backward(out)
    work.check_leaves()
    return {"output": out.detach()} | {name: leaf.grad for name, leaf in work.leaves if leaf.grad is not None}


@pytest.mark.parametrize("word", WORDS)
@pytest.mark.parametrize("precision", ["fp32", "amp-bf16", pytest.param("bf16", marks=pytest.mark.slow)])
@pytest.mark.parametrize(("method", "impl"), WAYS)
def test_gradients_are_the_same_to_the_last_bit(
    method: str, impl: str, precision: str, word: str, tmp_path: Path
) -> None:
    """Of whole models of which a part is frozen, and of blocks; with the adapter's dropout where there is one."""
    drops = method == "lora" and impl != "merged"
    for family, axes in (("llama", {"trainable_layers": "1"}), ("gpt2", {"level": "block"})):
        more = {"dropout": 0.2} if drops else {}
        case = _case(write_config(tmp_path, FIELDS[family]), method, impl, precision=precision, **axes, **more)
        plain, found = _run(case), _run(replace(case, gradient_checkpointing=word))
        assert plain.keys() == found.keys()
        assert all(torch.equal(found[name], plain[name]) for name in plain), [
            name for name in plain if not torch.equal(found[name], plain[name])
        ]


def test_the_model_s_own_dropout_is_drawn_again(tmp_path: Path) -> None:
    path = write_config(tmp_path, {**FIELDS["gpt2"], "resid_pdrop": 0.3, "attn_pdrop": 0.0})
    case = _case(path, "full")
    plain = _run(case)
    for word in WORDS:
        found = _run(replace(case, gradient_checkpointing=word))
        assert all(torch.equal(found[name], plain[name]) for name in plain)


class _Counted(TorchDispatchMode):
    """How often each operator ran that may be kept."""

    def __init__(self) -> None:
        super().__init__()
        self.counts = {"products": 0, "attention": 0}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.counts["products"] += func.name() in PRODUCTS
        self.counts["attention"] += func.name() in ATTENTION
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(("method", "again"), [("full", 0), ("lora", 7)])
def test_what_backward_computes_again(method: str, again: int, tmp_path: Path) -> None:
    """Everything under full; under selective of seven layers' products none but the branch's second."""
    case = _case(write_config(tmp_path, FIELDS["llama"]), method, level="block", precision="bf16")
    counts = {}
    for word in (None, *WORDS):
        work = build(replace(case, gradient_checkpointing=word), "cpu")
        with _Counted() as forward:
            out = work.forward()
        with _Counted() as backward:
            work.backward(out)
        counts[word] = (forward.counts, backward.counts)
        assert forward.counts["attention"] == 1
    extra = {w: counts[w][1]["products"] - counts[None][1]["products"] for w in WORDS}
    early = 1 if method == "full" else 3  # those of the last layer, which no other value is made of: it stops before
    assert counts["full"][1]["attention"] == 1 and counts["selective"][1]["attention"] == 0
    assert 0 < counts["full"][0]["products"] - extra["full"] <= early
    assert again - 1 <= extra["selective"] <= again


@pytest.mark.parametrize(
    ("family", "precision", "method"),
    [("gpt2", "amp-bf16", "lora")]
    + [pytest.param(*which, marks=pytest.mark.slow) for which in (("llama", "bf16", "full"), ("llama", "fp32", "paca"))]
    + [pytest.param("llama", "bf16", m, marks=pytest.mark.slow) for m in methods() if m not in ("full", "paca")]
    + [pytest.param("gpt2", "fp32", m, marks=pytest.mark.slow) for m in ("full", "lora", "paca")],
)
def test_a_block_leaves_behind_what_the_closed_form_says(
    family: str, precision: str, method: str, tmp_path: Path
) -> None:
    """The difference of two models, of three blocks and of two: what lies around the blocks is the same in both."""
    sizes: dict[str | None, int] = {}
    paths = [
        write_config(tmp_path, FIELDS[family] | {"n_layer" if family == "gpt2" else "num_hidden_layers": n})
        for n in (3, 2)
    ]
    for word in (None, *WORDS):
        cases = [_case(p, method, precision=precision, gradient_checkpointing=word, batch=1, seq=32) for p in paths]
        more, fewer = (left_behind(build(case, "cpu")) for case in cases)
        sizes[word] = more - fewer
    full, selective = (checkpointed_bytes(replace(cases[0], gradient_checkpointing=w)) for w in WORDS)
    assert sizes["full"] == full
    assert sizes["selective"] == pytest.approx(selective, rel=0.01)  # attention's sums, of a value a head, are left out
    plain = sizes[None]
    assert plain is not None and full < 0.25 * plain
    if methods()[method].reads_x:  # else little is kept anyway
        assert selective < plain


def test_the_estimate_has_one_block_at_a_time(tmp_path: Path) -> None:
    case = _case("tinyllama", "lora", precision="bf16", adapter_dtype="bf16", batch=4, seq=1024)
    found = {w: need(replace(case, gradient_checkpointing=w), step=False) for w in (None, *WORDS)}
    about = {w: n.activations or 0 for w, n in found.items()}
    assert about["full"] < about["selective"] < about[None]
    assert len({n.at_least for n in found.values()}) == 1
    whole = about["full"] - 22 * checkpointed_bytes(replace(case, gradient_checkpointing="full"))
    assert whole == 12 * 4096 * 32000, "of logits and one block the larger"


@pytest.mark.parametrize("word", WORDS)
@pytest.mark.parametrize(
    ("layers", "copied"), [("all", (2, 4)), pytest.param("lisa-1", (1, 1), marks=pytest.mark.slow)]
)
def test_the_estimate_has_the_copies_that_autocast_keeps(
    layers: str, copied: tuple[int, int], word: str, tmp_path: Path
) -> None:
    """Of Full-FT's weights, checkpointed or not, until forward ends: counted within autocast, of two blocks and four.
    The rest of either figure, head and loss, is the same in both."""
    there, told = [], []
    for blocks, copies in zip((2, 4), copied, strict=True):
        path = write_config(tmp_path, FIELDS["llama"] | {"num_hidden_layers": blocks})
        axes = {"precision": "amp-bf16", "gradient_checkpointing": word, "trainable_layers": layers}
        case = _case(path, "full", **axes)
        work = build(case, "cpu")
        if work.stages > 1:
            work.select(case.stages.index(min(case.stages)))
        with autocast(case.precision, work.device):
            there.append(left_behind(work))
        assert case.shape is not None
        assert there[-1] - left_behind(work) >= 0.99 * copies * 2 * case.shape.block_params
        told.append(need(case, step=False).activations or 0)
    assert told[1] - told[0] == pytest.approx(there[1] - there[0], rel=0.02)


@pytest.mark.parametrize("word", WORDS)
@pytest.mark.parametrize(("method", "impl"), [("full", "eager"), ("lora", "addmm"), ("paca", "eager")])
def test_the_correctness_check_takes_it(method: str, impl: str, word: str, tmp_path: Path) -> None:
    path = write_config(tmp_path, LLAMA)
    for level in ("block", "model"):
        result = check(_case(path, method, impl, level, gradient_checkpointing=word), "cpu")
        assert result.passed, result.detail


def test_the_correctness_check_finds_what_is_drawn_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault: a block that, computed again, is another one."""
    path = write_config(tmp_path, LLAMA)
    case = _case(path, "full", level="block", gradient_checkpointing="full")
    calls = random.Random(0)
    monkeypatch.setattr("torch.nn.functional.silu", lambda x, inplace=False: x * torch.sigmoid(x) * calls.random())
    assert not check(case, "cpu").passed


def test_frozen_blocks_below_get_no_gradient(tmp_path: Path) -> None:
    """transformers' switch has the embeddings require grad, so that gradients would go down to them."""
    case = _case(write_config(tmp_path, FIELDS["llama"]), "lora", trainable_layers="1", gradient_checkpointing="full")
    work = build(case, "cpu")
    seen: list[bool] = []
    for layer in work.model.get_submodule("model.layers"):
        layer.register_forward_hook(
            lambda _m, _a, out: seen.append((out if isinstance(out, Tensor) else out[0]).requires_grad)
        )
    work.forward()
    assert seen[:2] == [False, True]
