"""`bench predict`: what it prints, what it writes and what it refuses, on made-up operators."""

import csv
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from bench.case import Case
from bench.case.case import AXES
from bench.case.columns import COLUMNS
from bench.case.predictions import CAUSE_COLUMNS, PREDICTION_ROW, Outcome
from bench.case.predictions import as_markdown as columns_as_markdown
from bench.commands.predict.command import predict
from bench.commands.predict.lines import untraceable
from bench.commands.predict.request import Request, given_host, plan_of
from bench.errors import UserError
from bench.predict.ops import Trace
from bench.predict.predicted import Host
from bench.sweeps.expand import make_plan
from tests.conftest import ROOT, Cli
from tests.predict.made_up_traces import made_up_trace

NARROW = ("impl=eager,peft-fp32", "model=tinyllama")


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "predictions.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def run(tmp_path: Path, gpu: str = "a100", **more: Any) -> list[dict[str, str]]:
    options: dict[str, Any] = {"where": NARROW, "host_us": "12.5", "out": tmp_path / "out"} | more
    assert predict(Request(gpu, **options), made_up_trace) == 0
    return rows(options["out"])


def test_no_column_of_a_prediction_is_a_measured_one() -> None:
    shared = {*AXES, "case_id", "pass", "clock"}
    names = [column.name for column in PREDICTION_ROW]
    assert len(names) == len(set(names))
    assert not (set(names) - shared) & set(COLUMNS)
    assert all(name.startswith("predicted_") for name in names if name not in {*shared, "board", "board_name"})


def test_the_page_has_the_columns() -> None:
    page = (ROOT / "docs" / "predict.md").read_text()
    assert columns_as_markdown() in page, "python -m bench.case.predictions"


def test_a_line_for_each_case_board_pass_and_clock(tmp_path: Path) -> None:
    found = run(tmp_path, "a100,h100")
    keys = {(r["case_id"], r["board"], r["pass"], r["clock"]) for r in found}
    assert len(keys) == len(found) == 8 * 2 * 3 * 2
    for row in found:
        ms = float(row["predicted_ms"])
        ends = [float(row[f"predicted_{end}_ms"]) for end in ("low90", "low80", "high80", "high90")]
        assert ends[0] < ends[1] < ms < ends[2] < ends[3]
        assert sum(float(row[name] or 0) for name in CAUSE_COLUMNS.values()) == pytest.approx(ms)
        assert (row["predicted_host_source"] == "given by --host-us") == (row["clock"] == "eager")


def test_the_ratio_is_to_full_ft_of_the_same_length_board_pass_and_clock(tmp_path: Path) -> None:
    found = run(tmp_path, "a100,h100")
    at = {(r["case_id"], r["board"], r["pass"], r["clock"]): r for r in found}
    compared = [r for r in found if r["predicted_ratio"]]
    assert {r["method"] for r in compared} == {"lora", "paca"}
    for row in compared:
        base = at[row["predicted_ratio_to"], row["board"], row["pass"], row["clock"]]
        assert base["method"] == "full" and base["seq"] == row["seq"]
        assert float(row["predicted_ratio"]) == pytest.approx(float(row["predicted_ms"]) / float(base["predicted_ms"]))


def test_everything_printed_says_that_it_is_predicted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(tmp_path)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("--gpu a100 is here the A100-SXM4-80GB; others by that name are a100-sxm4-40gb")
    assert lines[1].startswith("PREDICTED, not measured: table1, on ") and "fitted numbers" in lines[1]
    assert "Host cost: 12.5 us an operator, given by --host-us" in lines
    heads = [line for line in lines if line.startswith("model ")]
    assert len(heads) == 2 and all("predicted forward ms" in h and "predicted ratio to Full-FT" in h for h in heads)
    told = [line for line in lines if " times Full-FT" in line]
    assert len(told) == 6 and all(" is predicted to take " in line and " takes " not in line for line in told)
    paca = next(line for line in told if line.startswith("PaCA") and "4x1024" in line)
    assert "base dW GEMMs" in paca


def test_a_ratio_whose_interval_holds_one_claims_no_winner(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = run(tmp_path, clock="graph", host_us=None)
    table = [line for line in capsys.readouterr().out.splitlines() if line.startswith("tinyllama ")]
    ratios = {
        (r["impl"], r["method"], r["seq"]): (float(r["predicted_ratio_low80"]), float(r["predicted_ratio_high80"]))
        for r in found
        if r["pass"] == "forward-backward" and r["predicted_ratio"]
    }
    assert len(table) == 8
    for (impl, method, seq), (low, high) in ratios.items():
        line = next(x for x in table if f"{method}/{impl}" in x and f"4 x {seq} " in x)
        word = "slower" if low > 1 else "faster" if high < 1 else "no winner told"
        assert word in line


def test_only_the_clock_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def never() -> Host:
        raise AssertionError("clock graph measures no host")

    request = Request("a100", where=NARROW, out=tmp_path, clock="graph")
    assert predict(request, made_up_trace, never) == 0
    assert {r["clock"] for r in rows(tmp_path)} == {"graph"}
    assert "Host cost: none taken" in capsys.readouterr().out
    assert {r["clock"] for r in run(tmp_path, clock="eager")} == {"eager"}


def test_a_host_that_nobody_gave_is_measured_and_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    request = Request("a100", where=NARROW, out=tmp_path)
    assert predict(request, made_up_trace, lambda: Host(9.0, 11.0, "measured on this machine 2026-01-01")) == 0
    said = "Host cost: 9 us an operator forward, 11 us backward, measured on this machine 2026-01-01"
    assert said in capsys.readouterr().out
    eager = [r for r in rows(tmp_path) if r["clock"] == "eager"]
    assert {(r["predicted_host_forward_us"], r["predicted_host_backward_us"]) for r in eager} == {("9.0", "11.0")}


def test_a_slow_host_makes_a_case_launch_bound(tmp_path: Path) -> None:
    def bound(us: str) -> set[str]:
        found = run(tmp_path, host_us=us, where=(*NARROW, "seq=512"))
        return {r["predicted_launch_bound"] for r in found if r["clock"] == "eager"}

    assert bound("0.1") == {"False"} and bound("5000") == {"True"}


SWEEP = """
description: what cannot be predicted
axes: {level: model, model: llama2-7b, batch: 1, seq: 64, precision: bf16}
methods: [{method: full}, {method: lora, impl: compile, rank: 8, alpha: 32},
          {method: lora, impl: merged, rank: 8, alpha: 32, dropout: 0.1}, {method: lora, rank: 8, alpha: 32}]
passes: [forward-backward]
"""


@pytest.mark.parametrize("gpu", ["rtx4090", "rtx3090"])
def test_what_is_not_predicted_says_why(gpu: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "some.yaml").write_text(SWEEP)
    found = run(tmp_path, gpu, sweep=str(tmp_path / "some.yaml"), where=())
    outcome = {(r["method"], r["compile"] or r["impl"]): (r["predicted_outcome"], r["predicted_detail"]) for r in found}
    assert outcome["full", "eager"][0] == "does not fit" and "24 GiB" in outcome["full", "eager"][1]
    assert outcome["lora", "default"][0] == "not predicted" and "compiler" in outcome["lora", "default"][1]
    assert outcome["lora", "merged"][0] == "unsupported" and "dropout" in outcome["lora", "merged"][1]
    assert outcome["lora", "eager"] == ("predicted", "")
    assert not any(r["predicted_ms"] for r in found if r["predicted_outcome"] != "predicted")
    assert not any(r["predicted_ratio"] for r in found)  # Full-FT does not fit
    out = capsys.readouterr().out
    assert "does not fit: needs at least 25.1 GiB" in out and "no Full-FT is predicted beside it" in out


def test_a_case_that_cannot_be_traced_is_no_end(tmp_path: Path) -> None:
    def tracer(case: Case, on_gpu: bool) -> Trace:
        if case.method == "paca":
            raise ValueError("no such layer")
        return made_up_trace(case)

    assert predict(Request("a100", where=NARROW, out=tmp_path, host_us="10"), tracer) == 0
    told = {r["method"]: (r["predicted_outcome"], r["predicted_detail"]) for r in rows(tmp_path)}
    assert told["paca"] == ("not predicted", "no such layer") and told["lora"][0] == "predicted"


def test_an_interrupt_ends_it_in_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def tracer(case: Case, on_gpu: bool) -> Trace:
        os.kill(os.getpid(), signal.SIGINT)
        return made_up_trace(case)

    assert predict(Request("a100", out=tmp_path / "out", host_us="10"), tracer) == 130
    said = capsys.readouterr()
    assert not said.out and "interrupted; what was traced is kept. To go on: python -m bench" in said.err
    assert not (tmp_path / "out").exists()


def test_a_model_is_predicted_under_table_1s_methods() -> None:
    plan = plan_of(Request("a100", model="llama2-7b", batch="2", seq="256,2048"))
    assert {(c.model, c.size) for c in plan.cases} == {("llama2-7b", (2, 256)), ("llama2-7b", (2, 2048))}
    ways = ["full/eager", "lora/eager r8", "lora/peft-fp32 r8", "lora/triton r8", "paca/eager r16", "paca/triton r16"]
    assert [c.training for c in plan.cases if c.seq == 256] == ways
    narrow = Request("a100", model="tinyllama", method="lora", impl="peft,addmm", rank=64, precision="amp-fp16")
    found = plan_of(narrow).cases
    assert {c.training for c in found} == {"full/eager", "lora/peft r64", "lora/addmm r64"}
    assert {c.precision for c in found} == {"amp-fp16"} and {c.seq for c in found} == {512, 1024}


def test_two_costs_of_a_host_are_forwards_and_backwards() -> None:
    host = given_host("10,14.5")
    assert (host.forward_us, host.backward_us, host.source) == (10, 14.5, "given by --host-us")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("", "--gpu: name the boards to predict for, joined by commas. Valid: a100, "),
        ("--gpu a1000", "--gpu: 'a1000' is not valid. Did you mean 'a100'?"),
        ("--gpu a100,cpu", "--gpu a100,cpu: cpu stands alone"),
        ("--gpu a100 --host-us x", "--host-us: 'x' is no cost of an operator"),
        ("--gpu a100 --host-us 0", "above 0 and at most 10,000"),
        ("--gpu a100 --host-us nan", "--host-us: 'nan'"),
        ("--gpu a100 --host-us 1,2,3", "one number, or forward,backward"),
        ("--gpu a100 --clock device", "--clock: 'device' is not valid."),
        ("--gpu a100 --clock graph --host-us 9", "--clock graph knows no host"),
        ("--gpu cpu --clock eager", "--clock eager: of --gpu cpu there is the clock cpu-time alone"),
        ("--gpu a100 --batch 4", "--batch: this goes with --model."),
        ("--gpu a100 --model tinylama", "--model: 'tinylama' is neither a known model"),
        ("--gpu a100 --model tinyllama --seq 9999", "--seq: 9999 is longer than tinyllama allows. Up to 2048."),
        ("--gpu a100 --model tinyllama --seq 0", "--seq: '0' is no count"),
        ("--gpu a100 --model tinyllama --method lara", "--method: 'lara' is not valid. Did you mean 'lora'?"),
        ("--gpu a100 --model tinyllama --impl fast", "--impl: 'fast' is not valid."),
        ("--gpu a100 --model tinyllama --precision int8", "--precision: 'int8' is not valid."),
        ("--gpu a100 nosweep", "sweep nosweep: no such file or sweep."),
        ("--gpu a100 --where model=x", "--where model=x: 'x' is not in this sweep."),
        ("--check --gpu a100", "--check: found --gpu beside it."),
        ("table1 --check --host-us 3", "--check: found SWEEP, --host-us beside it."),
        ("--gpu a100 --published there", "--published there: this goes with --check alone."),
    ],
)
def test_a_wrong_request_is_one_sentence(cli: Cli, arguments: str, said: str) -> None:
    done = cli("predict", *arguments.split())
    assert done.returncode == 2 and not done.stdout
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1 and said in done.stderr


def test_predictions_never_go_beside_measurements(tmp_path: Path, cli: Cli) -> None:
    (tmp_path / "rows.jsonl").write_text("")
    done = cli("predict", "--gpu", "a100", "--out", tmp_path)
    assert done.returncode == 2 and "this folder holds measurements" in done.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["rows.jsonl"]


def test_the_default_folder_names_sweep_and_boards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert predict(Request("a100,h100", where=NARROW, host_us="9"), made_up_trace) == 0
    assert predict(Request("b200", model="tinyllama", batch="4", impl="eager", host_us="9"), made_up_trace) == 0
    found = {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("predictions.csv")}
    names = ("table1-a100-h100", "tinyllama-batch-4-b200")
    assert found == {f"results/predicted/{name}/predictions.csv" for name in names}


def test_a_damaged_config_is_named_with_what_is_wrong_in_it(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text('{"model_type": "llama", "hidden_size": "x"}')
    with pytest.raises(UserError, match=rf"^--model: {path}: hidden_size is 'x'"):
        predict(Request("a100", model=str(path), out=tmp_path / "out", host_us="10"), made_up_trace)


@pytest.mark.parametrize(
    ("axes", "told"),
    [
        ("method=qlora,qpaca", "4-bit weights cannot be made without memory"),
        ("gradient_checkpointing=full,selective", "computes again"),
        ("optimizer=adamw-8bit,paged-adamw", "have no price"),
        ("compile=default", "a compiler makes its kernels"),
    ],
)
def test_what_has_no_price_says_so_in_a_line(axes: str, told: str) -> None:
    """Before anything is traced, which would fail in the midst of a library."""
    cases = make_plan("methods", False, [axes, "impl=eager", "model=tinyllama"]).cases
    found = [untraceable(case, "cuda") for case in cases]
    assert found and all(f and f[0] == Outcome.untraced and told in f[1] for f in found)


def test_what_has_a_price_is_traced() -> None:
    plain = ["gradient_checkpointing=", "optimizer=,sgd", "compile=", "method=full,lora,dora,lora-fa,paca,bitfit"]
    cases = make_plan("methods", False, [*plain, "impl=eager", "model=tinyllama"]).cases
    assert {c.method for c in cases} == {"full", "lora", "dora", "lora-fa", "paca", "bitfit"}
    assert not any(untraceable(case, "cuda") for case in cases)
