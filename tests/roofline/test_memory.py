"""What a case needs of memory, said before anything loads: against what torch holds, and on GPUs that are too small."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from bench.case.schema import Status
from bench.devices import Device
from bench.methods.registry import methods
from bench.models.build import build
from bench.record.store import Record, open_record
from bench.roofline.memory import need, sentence, too_large
from bench.runner.plan import exit_status, open_tasks
from bench.runner.progress import Display
from bench.runner.scheduler import Scheduler
from bench.sweeps.expand import make_plan
from tests.models.tiny import GPT2, LLAMA, make_case, write_config
from tests.runner.stub_worker import StubWorker

MODERN: dict[str, dict[str, Any]] = {
    "mistral": {**LLAMA, "model_type": "mistral", "sliding_window": None},
    "qwen3": {**LLAMA, "model_type": "qwen3", "head_dim": 16},
    "gemma3": {**LLAMA, "model_type": "gemma3_text", "head_dim": 16, "sliding_window": 64},
    "phi3": {**LLAMA, "model_type": "phi3", "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 1},
}
FIELDS = {"gpt2": GPT2, "llama": LLAMA, **MODERN}
WIDER: dict[str, dict[str, Any]] = {
    "gpt2": {**GPT2, "n_embd": 128, "n_head": 2, "attn_pdrop": 0.0},
    **{
        name: {**fields, "hidden_size": 128, "intermediate_size": 352, "num_attention_heads": 4}
        for name, fields in {"llama": LLAMA, **MODERN}.items()
    },
}
STRATEGIES = [(method, "all") for method in methods()] + [("lora", "upper-1/2"), ("paca", "upper-1/2")]
TWO = ("gpt2", "llama")  # where it is the strategy that matters, and not the architecture
DROPPING = [name for name, found in methods().items() if "dropout" in found.axes]
APART = [("full", "every-2nd"), ("lora", "every-2nd"), ("full", "lisa-1"), ("lora", "lisa-1"), ("paca", "lisa-2")]


def storages(tensors: Iterator[Tensor]) -> int:
    """Bytes behind tensors, what they share once."""
    return sum({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}.values())


@pytest.mark.parametrize(
    ("family", "method", "layers", "precision", "adapters"),
    [(f, *s, "bf16", "fp32") for f in TWO for s in [*STRATEGIES, *APART]]
    + [(f, *s, p, None) for f in TWO for s in STRATEGIES if s[0] != "full" for p in ("fp32", "amp-bf16")]
    + [(f, m, "all", "bf16", "fp32") for f in MODERN for m in ("full", "lora", "paca", "qlora")],
)
def test_at_least_is_what_torch_holds_after_a_step(
    tmp_path: Path, family: str, method: str, layers: str, precision: str, adapters: str | None
) -> None:
    path = write_config(tmp_path, FIELDS[family])
    dtype = "fp32" if precision == "amp-bf16" else adapters
    case = make_case(
        path, method, trainable_layers=layers, precision=precision, adapter_dtype=None if method == "full" else dtype
    )
    work = build(case, "cpu")
    for _ in range(2):
        work.backward(work.forward())
    work.optimizer_step()
    optimizer = work._optimizer
    assert optimizer is not None
    found = need(case, step=True)
    assert found.gradients == storages(p.grad for p in work.model.parameters() if p.grad is not None)
    moments = (s[name] for s in optimizer.state.values() for name in ("exp_avg", "exp_avg_sq"))
    assert found.optimizer == storages(moments)
    usual = {name for name, _ in build(make_case(path), "meta").model.named_buffers()}
    own = [b for name, b in work.model.named_buffers() if name not in usual]
    assert found.weights + found.adapters == storages(iter([*work.model.parameters(), *own]))
    assert need(case, step=False).at_least == found.at_least - found.optimizer


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "method", "layers", "dropout", "precision"),
    [(f, m, "all", 0.0, "bf16") for f in FIELDS for m in methods()]
    + [(f, *s, 0.0, "bf16") for f in TWO for s in [*STRATEGIES, *APART] if s[1] != "all"]
    + [(f, m, "all", 0.1, "bf16") for f in FIELDS for m in DROPPING]
    + [(f, m, "all", 0.1, "fp32") for f in TWO for m in DROPPING],
)
def test_activations_are_about_what_autograd_keeps(
    tmp_path: Path, family: str, method: str, layers: str, dropout: float, precision: str
) -> None:
    """Of the blocks: what four of them keep more than two, so that head and loss drop out. Fused attention on both."""
    kept, told = [], []
    for blocks in (2, 4):
        fields = WIDER[family] | {"n_layer" if family == "gpt2" else "num_hidden_layers": blocks}
        axes: dict[str, Any] = {"trainable_layers": layers, "precision": precision, "batch": 4, "seq": 64}
        axes["dropout"] = dropout if "dropout" in methods()[method].axes else None
        case = make_case(write_config(tmp_path, fields), method, **axes)
        work = build(case, "cpu")
        own = {t.untyped_storage().data_ptr() for t in (*work.model.parameters(), *work.model.buffers())}
        seen: list[Tensor] = []

        def keep(t: Tensor, seen: list[Tensor] = seen) -> Tensor:
            seen.append(t)
            return t

        if work.stages > 1:
            work.select(case.stages.index(min(case.stages)))  # in which gradients go furthest down
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
            work.forward()
        kept.append(storages(t for t in seen if t.untyped_storage().data_ptr() not in own))
        told.append(need(case, step=True).activations or 0)
    assert told[1] - told[0] == pytest.approx(kept[1] - kept[0], rel=0.15)


def plan_of(tmp_path: Path) -> Any:
    path = tmp_path / "large.yaml"
    path.write_text(
        "description: two models\naxes: {level: model, model: [llama2-7b, gpt2-medium], batch: 8, seq: 512,"
        " accumulation: 4}\nmethods: [{method: full}, {method: paca, rank: 16, alpha: 64}]\npasses: [forward, step]\n"
    )
    return make_plan(str(path), on_cpu=False)


def record_of(
    tmp_path: Path, plan: Any, memory_mib: int | None, workers: list[str], monkeypatch: pytest.MonkeyPatch
) -> Record:
    """A run on a GPU with so much memory, whose workers say that they ran and then are out of memory."""
    device = Device("test", "NVIDIA Test", 0, "GPU-1", "1", memory_mib=memory_mib)
    environment = {"gpu": device.name, "source_hash": "0", "torch": "2", "triton": None, "driver": "1"}
    record = open_record(tmp_path / f"out-{memory_mib}", environment)

    class Full(StubWorker):
        """Says of each case that memory did not suffice."""

        def send(self, command: dict[str, Any]) -> None:
            super().send(command)
            if command.get("do") == "prepare":
                workers.append(f"{command['case']['model']} {command['case']['method']}")

        def events(self) -> Any:
            yield {"event": "hello", "own": [], "cuda": "13.0", "gpu_clocks": None}
            if self.job and self.job["ceilings"]:
                yield {"event": "ceilings", "found": {}}
            while True:
                detail = "OutOfMemoryError: CUDA out of memory"
                yield {"event": "failed", "status": Status.oom, "detail": detail, "last": True}

    monkeypatch.setattr("bench.runner.lane.visible_index", lambda device: 0)
    scheduler = Scheduler(plan, device, record, Display(), worker=Full)
    scheduler.run(scheduler.refuse(open_tasks(plan, record, 1, frozenset({"oom"}))))
    workers[:] = dict.fromkeys(workers)  # what was out of memory beside others was tried alone
    return record


def test_what_cannot_fit_is_oom_before_a_worker_is_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """LLaMA2-7B: 12.55 GiB of weights in bf16. Full-FT: as much of gradients, twice as much of AdamW's state."""
    plan, workers = plan_of(tmp_path), []
    record = record_of(tmp_path, plan, 24576, workers, monkeypatch)
    assert workers == ["llama2-7b paca", "gpt2-medium full", "gpt2-medium paca"]
    rows = {(r["model"], r["method"]): r for r in record.rows if r["pass"] == "step"}
    refused = rows["llama2-7b", "full"]
    assert refused["status"] == "oom" and refused["median_ms"] is None and refused["process"] is None
    assert refused["detail"].startswith(
        "needs at least 50.2 GiB (weights 12.6 GiB, gradients 12.6 GiB, optimizer state 25.1 GiB), about "
    )
    assert refused["detail"].endswith("; the GPU has 24 GiB. Nothing was loaded")
    tried = rows["llama2-7b", "paca"]
    assert tried["status"] == "oom" and tried["process"].startswith("1-")
    assert tried["detail"].startswith("needs at least 12.8 GiB (") and tried["detail"].endswith("CUDA out of memory")
    assert exit_status(plan, record, 1, strict=False) == 1

    workers.clear()
    record_of(tmp_path, plan, 12288, workers, monkeypatch)
    assert workers == ["gpt2-medium full", "gpt2-medium paca"], "12 GiB do not hold the weights"
    workers.clear()
    record_of(tmp_path, plan, 81559, workers, monkeypatch)
    assert len(workers) == 4, "on 80 GB all are tried"
    workers.clear()
    record_of(tmp_path, plan, None, workers, monkeypatch)
    assert len(workers) == 4, "and where the GPU's memory is not known"


def test_list_says_what_would_not_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from bench.commands import list as listing

    path = tmp_path / "large.yaml"
    plan_of(tmp_path)
    monkeypatch.setattr(listing, "gpus", lambda: [Device("t4", "Tesla T4", 0, "GPU-1", "1", 40, 15360)])
    listing.show_cases(str(path), "auto", ())
    lines = [line for line in capsys.readouterr().out.splitlines() if " llama2-7b " in line]
    assert "oom: needs at least 50.2 GiB" in lines[0] and lines[0].endswith("the GPU has 15 GiB")
    assert "12.8 GiB" in lines[1] and "oom" not in lines[1]


def test_what_has_no_closed_form_has_no_estimate() -> None:
    case = make_case("llama2-7b", "lora", "block")
    assert need(case, step=True).about is None and "about" not in sentence(case, step=True)
    assert too_large(case, True, 1024) is None and too_large(case, True, 64) is not None
