"""The axes that go with every method: in sweep files, on the command line, and in a run from outside."""

import json
from pathlib import Path
from typing import Any

import pytest

from bench.case import Case
from bench.errors import UserError
from bench.sweeps.expand import make_plan
from bench.sweeps.of_model import model_plan, model_request
from tests.models.tiny import LLAMA, write_config

HEAD = "description: x\naxes: {level: LEVEL, model: ./MODEL, batch: 1, seq: 16, precision: fp32}\n"
CPU = "measure: {min_samples: 8, budget_s: 0.05, wall_s: 1, warmup_s: 0.01, warmup_calls: 1}\n"


def _sweep(folder: Path, methods: str, level: str = "block", more: str = "") -> str:
    model = Path(write_config(folder, LLAMA)).name
    path = folder / "options.yaml"
    path.write_text(HEAD.replace("LEVEL", level).replace("MODEL", model) + f"methods:\n{methods}" + CPU + more)
    return str(path)


def _options(case: Case) -> tuple[str | None, str | None, str | None]:
    return case.gradient_checkpointing, case.optimizer, case.compile


def test_lists_of_them_are_cases_and_the_usual_word_is_an_empty_cell(tmp_path: Path) -> None:
    sweep = _sweep(tmp_path, "  - {method: full, gradient_checkpointing: [none, full], optimizer: [adamw, sgd]}\n")
    cases = make_plan(sweep, on_cpu=True).cases
    assert [_options(c) for c in cases] == [
        (None, None, None), (None, "sgd", None), ("full", None, None), ("full", "sgd", None),
    ]  # fmt: skip
    for where, count in (
        (["optimizer=adamw"], 2), (["gradient_checkpointing=none"], 2), (["gradient_checkpointing=none,full"], 4),
        (["compile=none", "optimizer=sgd"], 2), (["optimizer="], 2),
    ):  # fmt: skip
        assert len(make_plan(sweep, True, where).cases) == count, where
    with pytest.raises(UserError, match=r"'adam' is not in this sweep\. Did you mean 'adamw'"):
        make_plan(sweep, True, ["optimizer=adam"])


def test_former_impls_are_read_as_the_axis(tmp_path: Path) -> None:
    sweep = _sweep(
        tmp_path,
        "  - {method: full, impl: [eager, compile]}\n"
        "  - {method: lora, impl: [peft-compile, compile, peft], rank: 4, alpha: 8}\n"
        "  - {method: paca, impl: compile, compile: [none, max-autotune], rank: 4, alpha: 8}\n",
    )
    found = {(c.method, c.impl, c.compile) for c in make_plan(sweep, on_cpu=True).cases}
    assert found == {
        ("full", "eager", None), ("full", "eager", "default"), ("lora", "peft", "default"), ("lora", "peft", None),
        ("lora", "eager", "default"), ("paca", "eager", "default"), ("paca", "eager", "max-autotune"),
    }  # fmt: skip
    asked = make_plan(sweep, True, ["impl=compile,peft-compile"]).cases
    assert {(c.method, c.impl, c.compile) for c in asked} == {c for c in found if c[2] == "default"}


def test_a_single_layer_has_nothing_to_compute_again(tmp_path: Path) -> None:
    sweep = _sweep(tmp_path, "  - method: full\n    gradient_checkpointing: full\n", "linear")
    with pytest.raises(UserError) as told:
        make_plan(sweep, on_cpu=True)
    assert str(told.value) == (
        f"{sweep}:5: methods.0.gradient_checkpointing: level linear has no decoder block, which full would compute"
        " again. Valid: none."
    )


def _asked(path: str, **options: str) -> list[Case]:
    request = model_request(path, **options)
    assert request is not None
    return list(model_plan(request, on_cpu=True).cases)


def test_the_command_line_has_them_for_one_s_own_model(tmp_path: Path) -> None:
    path = write_config(tmp_path, LLAMA)
    cases = _asked(path, gradient_checkpointing="none,full", optimizer="sgd", compile="default", seq="16", batch="1")
    assert {_options(c) for c in cases} == {(None, "sgd", "default"), ("full", "sgd", "default")}
    assert {c.method for c in cases} == {"full", "lora", "paca"}
    compiled = _asked(path, impl="compile", seq="16", batch="1")
    assert {(c.method, c.impl, c.compile) for c in compiled} == {
        ("full", "eager", None), ("lora", "eager", "default"), ("paca", "eager", "default"),
    }  # fmt: skip
    for flag, word in (("gradient_checkpointing", "some"), ("optimizer", "adam"), ("compile", "fast")):
        with pytest.raises(UserError, match=f"--{flag.replace('_', '-')}: '{word}' is not valid"):
            _asked(path, **{flag: word})


@pytest.mark.slow
def test_a_run_measures_them_or_says_why_not(bench: Any, tmp_path: Path) -> None:
    sweep = _sweep(
        tmp_path,
        "  - {method: full, gradient_checkpointing: [none, full], optimizer: [adamw, sgd, paged-adamw]}\n"
        "  - {method: lora, gradient_checkpointing: [none, selective], rank: 4, alpha: 8}\n"
        "  - {method: paca, compile: reduce-overhead, rank: 4, alpha: 8}\n",
        more="passes: [forward-backward, step]\n",
    )
    out = tmp_path / "out"
    ended = bench("run", sweep, "--gpu", "cpu", "--out", out)
    assert ended.returncode == 0, ended.stderr
    rows = [json.loads(line) for line in (out / "rows.jsonl").read_text().splitlines()]
    for row in rows:
        refused = row["optimizer"] == "paged-adamw" or row["compile"] is not None
        assert row["status"] == ("unsupported" if refused else "ok"), row["detail"]
        if row["compile"]:
            assert "without a GPU is compile default" in row["detail"]
        elif refused:
            assert row["detail"].startswith("optimizer paged-adamw ")
        elif row["method"] == "lora":
            assert row["ratio"] > 0, "Full-FT without any option is there"
    ways = {(r["method"], r["gradient_checkpointing"], r["optimizer"]) for r in rows if r["status"] == "ok"}
    assert ways == {
        ("full", None, None), ("full", "full", None), ("full", None, "sgd"), ("full", "full", "sgd"),
        ("lora", None, None), ("lora", "selective", None),
    }  # fmt: skip
