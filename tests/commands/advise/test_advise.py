"""`bench advise`: what it ranks and says, measured on tiny models in real processes, predicted from made-up operators,
and what it refuses."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from bench.case.schema import SCHEMA
from bench.commands.advise import advise, timed
from bench.commands.advise.request import SWEEP, Asked
from bench.devices import Device
from bench.errors import UserError
from bench.predict.predicted import Host
from bench.sweeps.of_model import ModelRequest
from tests.commands.advise.tiny import TINY
from tests.conftest import Bench, Cli
from tests.predict.made_up_traces import made_up_trace


def predicted(capsys: pytest.CaptureFixture[str], model: str = "tinyllama", gpu: str = "h100", **more: Any) -> str:
    request = ModelRequest(model, batch=(2,), seq=(512,), rank=8, sweep=SWEEP)
    assert advise(Asked(request, gpu, **more), made_up_trace, lambda: Host(12.5, 12.5, "given by a test")) in (0, 1)
    return capsys.readouterr().out


def lines_of(text: str) -> list[str]:
    """The lines of the ranked table."""
    lines = text.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("training"))
    return lines[start + 1 : lines.index("", start)]


def test_a_board_that_is_not_here_is_predicted_and_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    text = predicted(capsys, price=1.8)
    assert text.startswith("PREDICTED, not measured: tinyllama, the whole model, bf16 2x512, on H100 80GB HBM3")
    assert "12.5 us an operator (given by a test); memory 80 GiB" in text
    ranked = [line for line in lines_of(text) if re.search(r" \d+(\.\d+)? \(", line)]
    assert 3 <= len(ranked) <= 8 and sum("Full-FT eager" in line for line in ranked) == 1
    times = [float(re.search(r"(\d[\d.]*) \(", line)[1]) for line in ranked]  # type: ignore[index]
    assert times == sorted(times), "the fastest first"
    assert "[" not in "".join(ranked), "nothing predicted is written as measured"
    said = text.splitlines()[len(text.splitlines()) - 2]
    assert said.startswith("PREDICTED, not measured: ") and "fastest" in said
    last = text.splitlines()[-1]
    assert last.startswith("Not known: accuracy, which no time tells, and in which methods differ, since they train ")


def test_tokens_and_price_follow_from_the_time(capsys: pytest.CaptureFixture[str]) -> None:
    text = predicted(capsys, price=2.0)
    line = next(line for line in lines_of(text) if line.startswith("Full-FT eager"))
    cells = re.split(r"\s{2,}", line)
    ms, rate = float(cells[1].split(" ")[0]), float(cells[2].replace(",", ""))
    assert rate == pytest.approx(2 * 512 / ms * 1e3, rel=0.01)
    head = re.split(r"\s{2,}", next(x for x in text.splitlines() if x.startswith("training")))
    cost = float(cells[head.index("price of 1M tokens")])
    assert cost == pytest.approx(2.0 / 3600 * 1e6 / rate, rel=0.02)


def test_what_fits_by_formula_is_marked_and_grows_with_memory(capsys: pytest.CaptureFixture[str]) -> None:
    sizes = []
    for memory in (12, 24):
        text = predicted(capsys, memory=memory * 2**30)
        head = re.split(r"\s{2,}", next(x for x in text.splitlines() if x.startswith("training")))
        line = next(line for line in lines_of(text) if line.startswith("PaCA eager"))
        cell = re.split(r"\s{2,}", line)[head.index("largest batch")]
        assert cell.startswith("~")
        sizes.append(int(cell[1:]))
    assert 1 <= sizes[0] < sizes[1]


def test_what_does_not_fit_by_estimate_is_no_answer(capsys: pytest.CaptureFixture[str]) -> None:
    text = predicted(capsys, memory=6 * 2**30)  # Full-FT takes more, LoRA and PaCA do not
    ranked = {re.split(r"\s{2,}", line)[0]: line.rstrip() for line in lines_of(text)}
    assert ranked["Full-FT eager"].endswith("does not fit in 6 GiB, by estimate")
    assert "fastest" in text and "does not fit" not in ranked["PaCA eager"]
    text = predicted(capsys, memory=2**29, trained=1_000_000)  # less than 4-bit weights take
    assert "PREDICTED, not measured: No answer: nothing fits. Give more --memory" in text
    assert "fastest" not in text and "not even one block would" in text.splitlines()[-1]


@pytest.mark.parametrize("budget", [{"trained": 1_000_000}, {"step_ms": 1e6}])
def test_layers_are_chosen_within_a_budget(budget: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    text = predicted(capsys, **budget)
    table = [line for line in text.splitlines() if re.search(r"\(\d+ blocks\)", line)]
    counts = [int(re.search(r"\((\d+) blocks\)", line)[1]) for line in table]  # type: ignore[index]
    assert counts[0] == 22 and {22, 17, 11} <= {*counts}
    said = text.splitlines()[-1]
    assert said.startswith("The most layers within --") and "LoRA" in said and "no time tells" in said
    if "trained" in budget:  # 22 blocks of PaCA rank 8 train 8 values for each output of a block's seven layers
        outputs = 2 * 2048 + 2 * 256 + 2 * 5632 + 2048
        most = 1_000_000 // (8 * outputs)
        assert most in counts and f"the top {most} blocks" in said
        assert next(x for x in table if f"({most} blocks)" in x).rstrip().endswith("PaCA")
    else:
        assert "PaCA" in said.split(",")[0] and "top" not in said.split(",")[0], "all layers are within"


def test_a_missing_answer_is_no_answer(capsys: pytest.CaptureFixture[str]) -> None:
    request = ModelRequest("tinyllama", batch=(2,), seq=(512,), sweep=SWEEP, method=("paca",), impl=("eager",))
    assert advise(Asked(request, "h100"), made_up_trace, lambda: Host(12.5, 12.5, "given")) == 0
    assert "PEFT" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ("", "Missing option '--model'"),
        ("--model tinylama", "--model: 'tinylama' is neither a known model"),
        ("--model tinyllama --memory 24", "--memory: '24' is no size of memory. Write it as 24GiB"),
        ("--model tinyllama --memory 0GiB", "--memory: '0GiB' is no size"),
        ("--model tinyllama --time soon", "--time: 'soon' is no duration"),
        ("--model tinyllama --price free", "--price: 'free' is no price of an hour"),
        ("--model tinyllama --price 0", "--price: '0' is no price"),
        ("--model tinyllama --trained many", "--trained: 'many' is no number of values"),
        ("--model tinyllama --step-ms -3", "--step-ms"),
        ("--model tinyllama --gpu v99", "--gpu v99"),
        ("--model tinyllama --batch 1,2", "advise answers for one of them"),
        ("--model tinyllama --seq 99999", "--seq: 99999 is longer than tinyllama allows"),
        ("--model qwen3-8b --gpu cpu --batch 2 --seq 4096", "on this CPU at the very least. Give a shorter --seq"),
        ("--model tinyllama --level linear", "--level: 'linear' is not valid"),
        ("--model tinyllama --gpu cpu --step-ms 30", "one decoder block is measured. Add --level model"),
    ],
)
def test_bad_requests_are_told_in_a_line(
    cli: Cli, options: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = cli("advise", *options.split())
    assert done.returncode == 2 and told in done.stderr, done.stderr
    assert done.stdout == "" and not [*tmp_path.iterdir()], "nothing was begun"


def test_a_gpu_that_is_here_is_measured_by_its_key_however_it_was_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = Asked(ModelRequest("tinyllama", sweep=SWEEP), "a100-80gb-pcie", out=tmp_path / "out")
    commands: list[list[str]] = []

    def refuse(command: list[str], *_: Any, **__: Any) -> int:
        commands.append(command)
        return 2

    monkeypatch.setattr(timed, "run_command", refuse)
    with pytest.raises(UserError, match="could not begin"):
        timed.Timed(asked, Device("a100", "NVIDIA A100 80GB PCIe", 0, "GPU-1", memory_mib=81920)).find(asked.model)
    assert commands[0][commands[0].index("--gpu") + 1] == "a100"  # which is what `bench run` knows it by


def test_what_can_run_is_measured_four_at_a_time_while_there_is_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The most informative first, beside Full-FT; what could not begin any more is told, and is no answer."""
    asked = Asked(ModelRequest("tinyllama", batch=(1,), seq=(16,), sweep=SWEEP), "cpu", out=tmp_path, seconds=200)
    now, runs = [0.0], list[tuple[list[str], float]]()
    monkeypatch.setattr(timed, "monotonic", lambda: now[0])

    def measure(command: list[str], *_: Any, seconds: float, **__: Any) -> int:
        runs.append((command[command.index("--where") + 1].removeprefix("case_id=").split(","), seconds))
        now[0] += 98
        return 0

    monkeypatch.setattr(timed, "run_command", measure)
    source = timed.Timed(asked, Device("cpu", "a CPU"))
    cases = {c.case_id: c for c in source.plan(asked.model).cases}
    found = source.find(asked.model)
    (first, left), (second, less) = runs
    assert [(cases[i].method, cases[i].impl) for i in first] == [
        ("full", "eager"), ("lora", "peft"), ("paca", "eager"), ("lora", "eager"),
    ]  # fmt: skip
    assert cases[second[0]].method == "full" and not {*second[1:]} & {*first}, "Full-FT, and others than before"
    assert (left, less) == (200, 102) and "The time is over; not measured: " in capsys.readouterr().err
    late = {cases[i].method for i in cases if i not in {*first, *second}} & {c.method for c, _ in found.lost}
    assert "bitfit" in late and not found.options


def test_a_record_of_another_sweep_is_left_alone(cli: Cli, tmp_path: Path) -> None:
    run = {"schema": SCHEMA, "run_id": "x", "gpu": "other", "invocations": [{"sweep": {"name": "table1"}}]}
    (tmp_path / "run.json").write_text(json.dumps(run))
    done = cli("advise", "--model", "tinyllama", "--gpu", "cpu", "--batch", "1", "--seq", "16", "--out", tmp_path)
    assert done.returncode == 2 and "it holds a record of sweep table1" in done.stderr
    assert [*tmp_path.iterdir()] == [tmp_path / "run.json"]


def test_no_time_is_no_answer(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "tiny.json").write_text(json.dumps(TINY))
    done = cli("advise", "--model", tmp_path / "tiny.json", "--gpu", "cpu", "--batch", "1", "--seq", "16", "--time",
               "1s", "--out", tmp_path / "out")  # fmt: skip
    assert done.returncode == 1 and "No time was found" in done.stderr and not done.stdout


@pytest.mark.slow
def test_a_tiny_model_is_measured_then_read_and_layers_chosen(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "tiny.json").write_text(json.dumps(TINY))
    command = ["advise", "--model", "tiny.json", "--level", "model", "--batch", "2", "--seq", "32", "--rank", "4",
               "--time", "9m", "--step-ms", "1000", "--out", "out"]  # fmt: skip
    first = bench(*command, cwd=tmp_path, timeout=580)
    assert first.returncode in (0, 1), first.stderr
    assert first.stdout.startswith("tiny, the whole model, fp32 2x32, on ")
    ranked = lines_of(first.stdout)
    names = [re.split(r"\s{2,}", line)[0] for line in ranked]
    assert {"Full-FT eager", "LoRA peft", "LoRA eager", "PaCA eager"} <= {*names}
    head = re.split(r"\s{2,}", next(x for x in first.stdout.splitlines() if x.startswith("training")))
    for line in ranked:
        assert 0.05 < float(re.split(r"\s{2,}", line)[head.index("peak GiB")]) < 5, "the process's own peak"
    assert len([x for x in first.stdout.splitlines() if re.search(r"\([432] blocks\)", x)]) == 3
    again = bench(*command, cwd=tmp_path, timeout=120)
    assert again.returncode == first.returncode and again.stdout == first.stdout, "what is on record is read"
    assert "Measuring" not in again.stderr
