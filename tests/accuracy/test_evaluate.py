"""bench evaluate: the numbers it writes, what it refuses, and an evaluation that was cut off."""

import csv
import json
import re
import socket
import subprocess
import sys
from dataclasses import replace
from math import sqrt
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers.models.auto.modeling_auto import AutoModelForCausalLM

from bench.accuracy.categories import CATEGORIES, category_of, category_table
from bench.accuracy.partial import Count
from bench.accuracy.question import MakeScorer
from bench.accuracy.result import summary
from bench.commands.evaluate import SIZE
from bench.commands.evaluate import evaluate as run
from bench.errors import UserError
from bench.files import append_json_lines
from tests.accuracy.direct import direct_scorer
from tests.conftest import ROOT, Bench
from tests.mcq import make_items, make_model, make_tokenizer, write_jsonl

NOWHERE = "http://127.0.0.1:9"  # nothing listens there: the Hub out of reach


@pytest.fixture(scope="module")
def always_c(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GPT-2 whose last norm puts out the same vector everywhere, and the output layer reads C from it."""
    folder = tmp_path_factory.mktemp("always-c")
    tokenizer = make_tokenizer(folder)
    make_model("gpt2", folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        model.transformer.ln_f.weight.zero_()
        row = model.transformer.wte.weight[tokenizer.convert_tokens_to_ids("C")]
        model.transformer.ln_f.bias.copy_(100 * row)
    model.save_pretrained(folder)
    return folder


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    for split, n in (("test", 61), ("dev", 40)):
        write_jsonl(make_items(n, split=split), folder / f"{split}.jsonl")
    return folder


def evaluate(
    source: object,
    data: object,
    out: Path | None,
    *,
    shots: int = 0,
    limit: int | None = None,
    batch: int = 8,
    scorer: MakeScorer = direct_scorer,
    size: int = SIZE,
) -> int:
    return run(str(source), str(data), shots, batch, limit, "cpu", out, scorer, size)


def share_of_c(category: str | None = None) -> float:
    items = [i for i in make_items(61, split="test") if category in (None, category_of()[i.subject])]
    return 100 * sum(i.answer == 2 for i in items) / len(items)


@pytest.mark.slow
def test_a_model_that_always_answers_c_is_right_where_c_is(always_c: Path, data: Path, tmp_path: Path) -> None:
    """By the harness, as a person runs it, on local files: and nobody asks the Hub for anything."""
    run = tmp_path / "run"
    run.mkdir()
    (run / "model").symlink_to(always_c)
    (run / "settings.json").write_text("{}")
    told = {"strategy": "paca", "method": "full", "precision": "fp32", "model": "m", "model_path": str(always_c)}
    (run / "train.json").write_text(json.dumps(told))
    with socket.create_server(("127.0.0.1", 0)) as hub:
        bench = Bench(tmp_path)
        bench.env["HF_ENDPOINT"] = f"http://127.0.0.1:{hub.getsockname()[1]}"
        bench.env.pop("HF_HUB_OFFLINE", None)
        done = bench("evaluate", run, "--data", data, "--shots", 2)
        hub.settimeout(0)
        with pytest.raises(BlockingIOError):
            hub.accept()
    assert done.returncode == 0, done.stderr
    found = json.loads((run / "accuracy.json").read_text())
    assert found["average"] == share_of_c()
    assert found["categories"] == {c: share_of_c(c) for c in CATEGORIES}
    assert found["category_mean"] == pytest.approx(sum(map(share_of_c, CATEGORIES)) / 4)
    assert found["stderr"]["average"] == pytest.approx(sqrt(share_of_c() * (100 - share_of_c()) / 61))
    about = {k: found[k] for k in ("strategy", "model", "items", "shots", "by")}
    assert about == {"strategy": "paca", "model": "m", "items": 61, "shots": 2, "by": "lm-eval"}
    heads, row = done.stdout.splitlines()
    assert heads.split() == ["Strategy", "Model", "Hums.", "STEM", "Social", "Other", "Avg."]
    assert [float(p.split("±")[0].split()[-1]) for p in row.split(" ± ")[:-1]] == [
        round(s, 2) for s in (*map(share_of_c, CATEGORIES), share_of_c())
    ]
    assert "to go" in done.stderr and not (run / "accuracy.partial.jsonl").exists()


def test_the_direct_way_finds_the_same_share(always_c: Path, data: Path, tmp_path: Path) -> None:
    assert evaluate(always_c, data, tmp_path / "out") == 0
    found = json.loads((tmp_path / "out" / "accuracy.json").read_text())
    assert (found["average"], found["strategy"], found["limit"]) == (share_of_c(), "no-tuning", None)
    assert evaluate(always_c, data / "test.jsonl", tmp_path / "out", limit=3) == 0
    found = json.loads((tmp_path / "out" / "accuracy.json").read_text())
    assert (found["items"], found["limit"]) == (12, 3)


def test_the_average_is_the_papers() -> None:
    """Over all items: the four tuned rows of Table 2 come out so, and by the mean of categories they do not."""
    sizes = dict(zip(CATEGORIES, (4705, 3153, 3077, 3107), strict=True))
    with open(ROOT / "results" / "paper" / "table2.csv") as f:
        rows = [r for r in csv.DictReader(f) if r["strategy"] != "No tuning"]
    assert len(rows) == 4
    for row in rows:
        shares = dict(zip(CATEGORIES, (float(row[k]) for k in ("hums", "stem", "social", "other")), strict=True))
        counts = [Count(category_table()[c][0], n, round(shares[c] / 100 * n), 0) for c, n in sizes.items()]
        found = summary(counts)
        assert found["average"] == pytest.approx(float(row["avg"]), abs=0.05)
        assert abs(found["category_mean"] - float(row["avg"])) > 0.3


def test_a_name_from_elsewhere_steers_no_terminal(
    always_c: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "settings.json").write_text("{}")
    name = "a\x1b[31m[b]"
    told = {"strategy": name, "method": "none", "precision": "fp32", "model": name, "model_path": str(always_c)}
    (run / "train.json").write_text(json.dumps(told))
    assert evaluate(run, data, None) == 0
    assert r"a\x1b[31m[b]" in capsys.readouterr().out
    assert (run / "accuracy.json").is_file()


def test_a_cut_off_evaluation_goes_on(
    always_c: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[tuple[str, int]] = []

    def scorer(after: int) -> MakeScorer:
        def make(*arguments: Any) -> Any:
            def score(piece: Any) -> Any:
                if len(asked) == after:
                    raise KeyboardInterrupt
                asked.append(piece.key)
                return direct_scorer(*arguments)(piece)

            return score

        return make

    out = tmp_path / "out"
    assert evaluate(always_c, data, out, scorer=scorer(after=3), size=8) == 130
    assert "To go on: python -m bench" in capsys.readouterr().err
    assert {p.name for p in out.iterdir()} == {"accuracy.partial.jsonl", ".lock"}
    with open(out / "accuracy.partial.jsonl", "a") as f:
        f.write('{"subject": "sociology", "fir')  # a kill in the middle of a line

    assert evaluate(always_c, data, out, scorer=scorer(after=-1), size=8) == 0
    assert len(asked) == len(set(asked)) and len(asked) > 8  # none was asked twice
    found = json.loads((out / "accuracy.json").read_text())
    assert (found["average"], found["items"]) == (share_of_c(), 61)
    assert {p.name for p in out.iterdir()} == {"accuracy.json", ".lock"}


def test_what_was_asked_otherwise_is_not_taken_over(always_c: Path, data: Path, tmp_path: Path) -> None:
    def stop(*_: Any) -> Any:
        raise KeyboardInterrupt

    out = tmp_path / "out"
    items = [replace(i, answer=0) for i in make_items(61, split="test")]
    assert evaluate(always_c, data, out, scorer=lambda *_: stop) == 130
    append_json_lines(
        out / "accuracy.partial.jsonl",
        [{"subject": "philosophy", "first": 0, "items": 61, "correct": 61, "cut": 0}],
    )
    write_jsonl(items, data / "test.jsonl")
    assert evaluate(always_c, data, out) == 0
    assert json.loads((out / "accuracy.json").read_text())["correct"] == 0


def refusal(*arguments: Any, **flags: Any) -> str:
    with pytest.raises(UserError) as e:
        evaluate(*arguments, **flags)
    return str(e.value)


def test_data_that_cannot_be_used_is_named(always_c: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    items = make_items(3, split="test")
    text = write_jsonl([*items, replace(items[0], subject="alchemy")], data / "test.jsonl").read_text()
    (data / "test.jsonl").write_text("\n" + text)
    for source in (data, data / "test.jsonl"):
        assert f"{data / 'test.jsonl'}:5: field 'subject' is 'alchemy'" in refusal(always_c, source, out)
    (data / "test.jsonl").write_text('{"question": "?", "choices": ["a", "b", "c"], "answer": 0, "subject": "x"}\n')
    assert f"{data / 'test.jsonl'}:1: field 'choices'" in refusal(always_c, data, out)
    write_jsonl(items, data / "test.jsonl")
    assert "dev.jsonl" in refusal(always_c, data / "test.jsonl", out, shots=1)
    few = refusal(always_c, data, out, shots=40)
    assert re.search(r"Pass --shots 0 to \d+\.$", few), few
    (data / "dev.jsonl").unlink()
    assert "dev.jsonl" in refusal(always_c, data, out, shots=1)
    assert not out.exists()


def test_folders_that_cannot_be_used_are_named(always_c: Path, data: Path, tmp_path: Path) -> None:
    assert "--out" in refusal(always_c, data, None)
    (tmp_path / "file").write_text("")
    assert str(tmp_path / "file") in refusal(always_c, data, tmp_path / "file")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "train.json").write_text("{")
    assert "train.json" in refusal(tmp_path / "run", data, None)
    assert "no-such-folder" in refusal(tmp_path / "no-such-folder", data, tmp_path / "out")


@pytest.mark.parametrize("what", ["model", pytest.param("data", marks=pytest.mark.slow)])
def test_without_a_network_the_answer_says_what_to_pass(what: str, always_c: Path, data: Path, tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.env |= {"HF_ENDPOINT": NOWHERE, "HF_HOME": str(tmp_path / "empty")}
    bench.env.pop("HF_HUB_OFFLINE", None)
    model = "nobody/no-such-model" if what == "model" else always_c
    items = data if what == "model" else "cais/mmlu"
    done = bench("evaluate", model, "--data", items, "--shots", 0, "--out", tmp_path / "out")
    assert done.returncode == 2, done.stderr
    error = done.stderr.splitlines()[-1]
    assert error.startswith("error: ") and "Pass a local folder" in error
    assert ("nobody/no-such-model" if what == "model" else "cais/mmlu") in error
    assert not (tmp_path / "out").exists()


def test_an_adapter_of_a_hub_checkpoint_may_fetch_it(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Adapter and data lie here, what the adapter stands on does not: the Hub is asked for it."""
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "nobody/no-such-model"}))
    with socket.create_server(("127.0.0.1", 0)) as hub:
        bench = Bench(tmp_path)
        bench.env |= {"HF_HOME": str(tmp_path / "empty"), "HF_ENDPOINT": f"http://127.0.0.1:{hub.getsockname()[1]}"}
        bench.env.pop("HF_HUB_OFFLINE", None)
        process = bench.start("evaluate", adapter, "--data", data, "--out", tmp_path / "out")
        try:
            hub.settimeout(60)
            hub.accept()[0].close()
        finally:
            process.kill()
            process.communicate()


@pytest.mark.parametrize(("batch", "kept"), [(8, True), (512, False)])
def test_out_of_memory_promises_what_is_true(
    batch: int, kept: bool, always_c: Path, data: Path, tmp_path: Path
) -> None:
    """What was answered in pieces of more than SIZE items is asked again in smaller ones."""

    def full(*_: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    said = refusal(always_c, data, tmp_path / "out", batch=batch, scorer=lambda *_: full)
    assert f"--batch {batch}: out of memory; pass a smaller one" in said
    assert ("pieces are kept" in said) == kept


def test_a_model_larger_than_the_memory_is_told(
    always_c: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(torch.nn.Module, "to", full)
    assert f"{always_c}: the model does not fit" in refusal(always_c, data, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_without_the_harness_the_command_names_what_installs_it(always_c: Path, data: Path, tmp_path: Path) -> None:
    code = "import sys; sys.modules['lm_eval'] = None; from bench.cli import main; main()"
    arguments = ["evaluate", str(always_c), "--data", str(data), "--out", str(tmp_path / "out")]
    done = subprocess.run([sys.executable, "-c", code, *arguments], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and not (tmp_path / "out").exists()
    assert done.stderr == (
        "error: evaluate needs lm-evaluation-harness, which is not installed."
        " Install it: pip install -c constraints.txt -e '.[accuracy]'\n"
    )
