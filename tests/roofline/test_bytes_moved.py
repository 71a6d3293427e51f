"""Bytes by closed form against tensors: of a real iteration at level linear, else of modules on meta."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from bench.case import Case
from bench.methods.adapt import decoder_blocks
from bench.methods.bitfit.eager import BitFitLinear
from bench.models import attention
from bench.models.build import build
from bench.roofline.roofline import compulsory_bytes
from kernels import DoRALinear, LoRALinear, PaCALinear
from tests.models.tiny import GPT2, LLAMA, make_case, write_config
from tests.roofline.families import GROUPS, TARGETS

METHODS = ("full", "lora", "paca", "lora-fa", "bitfit")


def size(*tensors: Tensor | None) -> int:
    return sum(t.numel() * t.element_size() for t in tensors if t is not None)


@pytest.mark.parametrize("adapter_dtype", [None, "fp32"])
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16", "amp-bf16"])
@pytest.mark.parametrize("method", (*METHODS, "dora"))
@pytest.mark.parametrize("name", ["attn.c_attn", "mlp.down_proj", "square-24"])
def test_bytes_of_a_layer(name: str, method: str, precision: str, adapter_dtype: str | None, tmp_path: Path) -> None:
    """Recounted from the tensors of a real iteration: what goes in, what comes out, what autograd keeps."""
    model = {"attn.c_attn": write_config(tmp_path, GPT2), "mlp.down_proj": write_config(tmp_path, LLAMA)}.get(name)
    case = make_case(model, method, "linear", layer=name, precision=precision, adapter_dtype=adapter_dtype)
    work = build(case, "cpu")
    out = work.forward()
    dy = work.grad_out(out)
    work.backward(out)
    x = dict(work.leaves)["x"]
    layer = work.model.get_submodule("layer")
    base = getattr(layer, "base", layer)
    assert isinstance(base, nn.Module)
    gradients = size(*(leaf.grad for _, leaf in work.leaves))
    amp = {torch.float32: torch.bfloat16} if precision.startswith("amp-") else {}

    def again(*tensors: Tensor) -> int:
        """Read by backward as autocast has cast them."""
        return sum(t.numel() * amp.get(t.dtype, t.dtype).itemsize for t in tensors)

    weight = base.get_parameter("weight")
    expected = [size(x, *base.parameters(), out), size(dy) + again(weight) + gradients]
    if isinstance(layer, LoRALinear):
        s = x.detach().to(layer.lora_a.dtype) @ layer.lora_a.t()  # kept for dB
        expected[0] += size(layer.lora_a, layer.lora_b) + again(s)
        expected[1] += again(layer.lora_a, layer.lora_b, s) + again(x) * layer.lora_a.requires_grad
        if isinstance(layer, DoRALinear):
            m = layer.magnitude
            kept = again(out) + again(m)  # z, of y's size and dtype, and the norm
            expected[0] += size(m) + kept
            expected[1] += again(m) + kept
    elif isinstance(layer, PaCALinear):
        live = x.detach()[..., layer.index]
        expected[0] += size(layer.index) + again(live)
        expected[1] += again(live)
    elif isinstance(layer, BitFitLinear):
        expected[0] += size(layer.bias)
    else:
        expected[1] += again(x)
    assert [compulsory_bytes(case, p) for p in ("forward", "backward")] == expected


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("group", GROUPS)
def test_bytes_of_a_group(group: str, method: str, tmp_path: Path) -> None:
    """Those of its layers, but that x is read once in each pass, and dX written once."""
    model = write_config(tmp_path, {**LLAMA, "attention_bias": True})
    case = make_case(model, method, "linear", layer=group, precision="bf16")
    members = [replace(case, layer=p.name) for p in case.projections]
    assert len(members) == (3 if group == "self_attn.qkv" else 2)
    x = case.tokens * 32 * 2
    once_in_backward = x + x * (method in ("full", "lora"))  # dX; the others' read no x
    for part, once in (("forward", x), ("backward", once_in_backward)):
        alone = [compulsory_bytes(member, part) for member in members]
        assert None not in alone
        assert compulsory_bytes(case, part) == sum(b or 0 for b in alone) - (len(members) - 1) * once


class Recount:
    """Bytes of a block or a model on meta tensors, from its modules and from what passes through them."""

    def __init__(self, case: Case, patch: pytest.MonkeyPatch, stage: int = 0) -> None:
        self.work = build(case, "meta")
        if stage:
            self.work.select(stage)
        self.forward = self.backward = 0
        self.seen: set[tuple[str, int]] = set()
        self.keep: list[Tensor] = []  # so that no id is used twice
        modules = list(self.work.model.modules())
        bases = {id(m.base) for m in modules if isinstance(m, LoRALinear | PaCALinear | BitFitLinear)}
        head = {id(m.weight) for m in modules if isinstance(m, nn.Linear)}
        self.forward += size(*self.work.model.parameters())
        for module in modules:
            if (
                isinstance(module, LoRALinear | PaCALinear | BitFitLinear | nn.Linear | Conv1D)
                and id(module) not in bases
            ):
                module.register_forward_hook(self.linear)
            if isinstance(module, nn.Embedding) and id(module.weight) not in head:
                self.forward -= size(module.weight)
                module.register_forward_hook(self.embedding)
        model: Any = self.work.model
        whole = case.level == "model"
        for block in decoder_blocks(model)[1] if whole else [model.block]:
            block.register_forward_hook(self.block, with_kwargs=True)
        if whole:
            ids, hidden = case.tokens * 8, case.tokens * model.config.hidden_size * self.dtype.itemsize
            self.forward += ids + hidden
            self.backward += (ids + hidden) * any("emb" in n or "wte" in n for n, _ in self.work.leaves)
        real = attention.sdpa_attention_forward

        def attend(module: Any, q: Tensor, k: Tensor, v: Tensor, *args: Any, **kwargs: Any) -> Any:
            out, rest = real(module, q, k, v, *args, **kwargs)
            self.forward += size(q, k, v, out)
            if out.requires_grad:
                self.backward += size(q, k, out)  # as large as out: its gradient
                self.backward += size(v, out) * (q.requires_grad or k.requires_grad)
                self.backward += sum(size(t) for t in (q, k, v) if t.requires_grad)
            return out, rest

        with patch.context() as p:
            p.setattr(attention, "sdpa_attention_forward", attend)
            out = self.work.forward()
        self.work.backward(out)
        self.backward += size(*(leaf.grad for name, leaf in self.work.leaves if name != "x"))

    @property
    def dtype(self) -> torch.dtype:
        return next(self.work.model.parameters()).dtype

    def once(self, what: str, x: Tensor) -> int:
        """Its size the first time, then nothing."""
        self.keep.append(x)
        new = (what, id(x)) not in self.seen
        self.seen.add((what, id(x)))
        return size(x) * new

    def block(self, _: Any, args: Any, kwargs: Any, y: Any) -> None:
        for t in (args[0] if args else kwargs["hidden_states"], y if isinstance(y, Tensor) else y[0]):
            self.forward += size(t)
            self.backward += size(t) * t.requires_grad

    def embedding(self, module: nn.Embedding, args: tuple[Tensor], _: Tensor) -> None:
        self.forward += size(module.weight[: args[0].numel()])

    def linear(self, module: Any, args: tuple[Tensor], y: Tensor) -> None:
        (x,) = args
        base = getattr(module, "base", module)
        tokens = x.numel() // x.shape[-1]
        self.forward += self.once("x", x) + size(y)
        self.backward += self.once("dx", x) * x.requires_grad + size(y) * y.requires_grad
        self.backward += size(base.weight) * x.requires_grad
        if isinstance(module, PaCALinear) and module.columns.requires_grad:
            self.forward += size(module.index) + tokens * module.rank * x.element_size()
            self.backward += tokens * module.rank * x.element_size()
        if isinstance(module, LoRALinear) and not module.lora_b.requires_grad:
            self.backward += size(module.lora_a, module.lora_b) * x.requires_grad
        elif isinstance(module, LoRALinear):
            s = tokens * module.rank * module.lora_a.element_size()
            self.forward += s
            trains = module.lora_a.requires_grad  # else dS, and so B, is for dX alone
            self.backward += s + size(module.lora_b) * (x.requires_grad or trains)
            self.backward += size(module.lora_a) * x.requires_grad
        if base.weight.requires_grad or (isinstance(module, LoRALinear) and module.lora_a.requires_grad):
            self.backward += self.once("dw", x)


def check_bytes(case: Case, patch: pytest.MonkeyPatch) -> None:
    found = Recount(case, patch)
    # PaCA's columns are copies of what lies in the weight: forward never reads them.
    columns = sum(size(p) for n, p in found.work.model.named_parameters() if n.endswith("columns"))
    expected = [found.forward - columns, found.backward]
    assert [compulsory_bytes(case, p) for p in ("forward", "backward")] == expected, case.describe()
    assert compulsory_bytes(case, "forward-backward") == sum(expected)


@pytest.mark.parametrize("method", METHODS)
def test_bytes_of_models_and_blocks(model: str, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    check_bytes(make_case(model, method, "block", precision="bf16", batch=3), monkeypatch)
    for upper in ("all", "1"):
        check_bytes(make_case(model, method, trainable_layers=upper, precision="bf16"), monkeypatch)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_bytes_of_blocks_apart_and_by_turns(
    family: str, method: str, models: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    check_bytes(make_case(models[family], method, trainable_layers="every-2nd", precision="bf16"), monkeypatch)
    case = make_case(models[family], method, trainable_layers="lisa-1", precision="bf16")
    found = [Recount(case, monkeypatch, stage) for stage in range(len(case.stages))]
    columns = sum(size(p) for n, p in found[0].work.model.named_parameters() if n.endswith("columns"))
    forward, backward = (sum(getattr(f, part) for f in found) / len(found) for part in ("forward", "backward"))
    expected = [round(forward - columns), round(backward)]
    assert [compulsory_bytes(case, p) for p in ("forward", "backward")] == expected


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_bytes_of_targets(family: str, models: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for targets in TARGETS[family]:
        for level in ("block", "model"):
            check_bytes(make_case(models[family], "lora", level, targets=targets), monkeypatch)


@pytest.mark.parametrize(("precision", "adapter_dtype"), [("bf16", None), ("bf16", "fp32"), ("amp-bf16", None)])
@pytest.mark.parametrize("method", METHODS)
def test_bytes_of_the_optimizer(models: dict[str, str], method: str, precision: str, adapter_dtype: str | None) -> None:
    case = make_case(models["llama"], method, precision=precision, adapter_dtype=adapter_dtype)
    work = build(case, "cpu")
    work.backward(work.forward())
    work.optimizer_step()
    assert work._optimizer is not None
    expected = 0
    for parameter, state in work._optimizer.state.items():
        expected += size(parameter, parameter.grad) + size(parameter)
        expected += 2 * size(state["exp_avg"], state["exp_avg_sq"])
    for layer in work.model.modules():
        if isinstance(layer, PaCALinear):
            expected += size(layer.columns, layer.index, layer.pretrained)
    done = [compulsory_bytes(case, p) for p in ("step", "forward-backward")]
    assert done[0] is not None and done[1] is not None
    assert done[0] - done[1] == expected


def test_bytes_under_autocast(models: dict[str, str]) -> None:
    """What passes through the layers is 16 bit wide; parameters and the residual stream stay fp32."""
    for level in ("block", "model"):
        wide, narrow, mixed = (
            compulsory_bytes(make_case(models["llama"], "full", level, precision=p), "forward")
            for p in ("fp32", "bf16", "amp-bf16")
        )
        assert wide is not None and narrow is not None and mixed is not None
        assert narrow < mixed < wide
