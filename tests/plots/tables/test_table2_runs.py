"""Real training runs in Table 2: which ratios they give, and what they fill beside a sweep or alone."""

import json
from pathlib import Path
from typing import Any

import pytest

from plots.__main__ import main
from tests.plots.reading import cells_of, section
from tests.plots.tables.steps import TIME, fill_steps, tidy2


def run_dir(folder: Path, train: dict[str, Any] | None, accuracy: dict[str, Any] | None) -> Path:
    folder.mkdir(parents=True)
    for name, found in (("train.json", train), ("accuracy.json", accuracy)):
        if found is not None:
            (folder / name).write_text(json.dumps(found))
    return folder


def train(strategy: str, method: str, layers: str, wall_s: float, **more: Any) -> dict[str, Any]:
    return {
        "strategy": strategy, "method": method, "trainable_layers": layers, "rank": 16, "alpha": 64, "steps": 100,
        "model": "meta-llama/Llama-2-7b-hf", "examples": 3200, "wall_s": wall_s, "device": "NVIDIA H100", **more,
    }  # fmt: skip


def accuracy(strategy: str, model: str = "meta-llama/Llama-2-7b-hf") -> dict[str, Any]:
    shares = {"humanities": 49.25, "stem": 41.5, "social sciences": 60.125, "other": 58.0}
    return {"strategy": strategy, "model": model, "items": 14042, "correct": 7302, "average": 52.001, "shots": 5,
            "categories": shares, "by": "lm-eval 0.4.13"}  # fmt: skip


def test_runs_of_other_steps_or_on_another_gpu_give_no_ratio(tmp_path: Path) -> None:
    """As bench train writes it: `device` is cuda on every GPU, and `gpu` says which."""
    step = {"device": "cuda", "gpu": "NVIDIA H100", "batch": 8, "accumulation": 4, "length": 512, "precision": "bf16"}

    def run(name: str, strategy: str, seconds: float, **changes: Any) -> Path:
        told = train(strategy, strategy, "all", seconds, **(step | {"world_size": 1} | changes))
        return run_dir(tmp_path / name, told, None)

    others = {"gpu": "NVIDIA A100", "batch": 2, "length": 128, "precision": "amp-fp16", "world_size": 8}
    runs = [run("lora", "lora", 1000.0), run("paca", "paca", 800.0)]
    runs += [run(key, "paca", 800.0, **{key: value}) for key, value in others.items()]
    assert main([*map(str, runs), "--out", str(tmp_path / "out")]) == 0
    lines = {line["source"]: line["ratio_to_lora"] for line in tidy2(tmp_path / "out")}
    assert lines["run lora"] == "1.0" and lines["run paca"] == "0.8"
    assert {lines[f"run {key}"] for key in others} == {""}
    assert "on NVIDIA A100" in (tmp_path / "out" / "table2.md").read_text()


def test_real_runs_fill_the_table_beside_a_sweep(maker: Any, make_case: Any, tmp_path: Path) -> None:
    fill_steps(maker, make_case)
    lora = run_dir(tmp_path / "runs" / "a", train("lora", "lora", "all", 1000.0), accuracy("lora"))
    half = run_dir(tmp_path / "runs" / "b", train("upper-half-paca", "paca", "upper-1/2", 600.0), None)
    mine = run_dir(tmp_path / "runs" / "c", train("my-own", "paca", "5", 700.0), accuracy("my-own"))
    none = run_dir(tmp_path / "runs" / "d", None, accuracy("no-tuning"))
    assert main([*map(str, (maker.write(), lora, half, mine, none)), "--examples", "64"]) == 0
    table = section((maker.path / "table2.md").read_text(), "### Table 2")
    model = "llama2-7b"  # as the sweep calls what the runs call meta-llama/Llama-2-7b-hf
    assert cells_of(table, model, "LoRA", "eager")[f"{TIME}, projected"].startswith("0:00:07")
    _, _, _, took, projected, trained, *rest = cells_of(table, model, "LoRA", "run a").values()
    assert (took, projected, trained) == ("7:17:02", "", "0:16:40") and rest[:2] == ["1.000", "1"]
    assert rest[2:] == ["50", "49.25", "42.2", "41.5", "59.7", "60.12", "58", "58", "52.15", "52"]
    half = cells_of(table, model, "Upper Half PaCA", "run b")
    assert (half["Ratio to LoRA, paper"], half["Ratio to LoRA, here"]) == ("0.593", "0.600 (no interval)")
    assert (half["Hums., paper"], half["Hums., here"]) == ("44.8", "")
    own = cells_of(table, model, "my-own", "run c")
    assert (own["Ratio to LoRA, paper"], own["Ratio to LoRA, here"]) == ("", "0.700 (no interval)")
    assert cells_of(table, model, "No tuning", "run d")["Avg., here"] == "52"
    assert "ceil(64 / (8 x 4 = 32)) = 2 steps, for 64 examples; reading" in table, "the source is MMLU's number alone"
    assert (
        "a: 3200 examples in 100 steps, 14042 items, 5 shots, lm-eval 0.4.13, meta-llama/Llama-2-7b-hf, on NVIDIA"
        in table
    )
    line = tidy2(maker.path, source="run b")[0]
    assert (line["trained_s"], line["ratio_to_lora"], line["humanities"]) == ("600.0", "0.6", "")
    assert len(tidy2(maker.path, source="paper")) == 5


def test_runs_alone_make_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = run_dir(tmp_path / "runs" / "a", train("paca", "paca", "all", 60.0), accuracy("paca"))
    assert main([str(run)]) == 0
    assert {p.name for p in (tmp_path / "runs").glob("table2.*")} == {"table2.md", "table2.csv"}
    assert main([str(run), "--out", str(tmp_path / "elsewhere")]) == 0
    text = (tmp_path / "elsewhere" / "table2.md").read_text()
    cells = cells_of(text, "llama2-7b", "PaCA", "run a")
    assert (cells[f"{TIME}, paper"], cells[f"{TIME}, trained"]) == ("6:04:30", "0:01:00")
    assert cells_of(text, "llama2-7b", "LoRA", "")[f"{TIME}, paper"] == "7:17:02"
    assert "elsewhere: table2.md, table2.csv" in capsys.readouterr().out


@pytest.mark.parametrize("broken", ["{", "[1]"])
def test_a_run_that_cannot_be_read_is_named(tmp_path: Path, broken: str, capsys: pytest.CaptureFixture[str]) -> None:
    run = run_dir(tmp_path / "a", train("paca", "paca", "all", 60.0), None)
    (run / "accuracy.json").write_text(broken)
    assert main([str(run)]) == 2
    assert str(run / "accuracy.json") in capsys.readouterr().err and not (tmp_path / "table2.md").exists()
