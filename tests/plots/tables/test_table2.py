"""Table 2 from synthetic rows and runs: what stands where, ratios, epochs, and what is left empty."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from plots.__main__ import main
from plots.data.load import load
from plots.data.training_runs import EXAMPLES, clock_word, is_papers, paper_ratio, published, steps_of
from plots.report import draw
from tests.plots.reading import cells_of, draw_tables, lines_of, section, value

TIME = "Training time, one epoch"
# (method, layers) -> rank, forward and backward of a micro-step, optimizer, refresh, in ms
STEPS: dict[tuple[str, str], tuple[int, float, float, float, float]] = {
    ("lora", "all"): (8, 400.0, 500.0, 9.0, 0.0),
    ("lora", "upper-3/4"): (8, 380.0, 380.0, 8.0, 0.0),
    ("lora", "upper-1/2"): (8, 360.0, 260.0, 7.0, 0.0),
    ("paca", "all"): (16, 300.0, 420.0, 9.0, 1.0),
    ("paca", "upper-3/4"): (24, 300.0, 320.0, 9.0, 1.0),
    ("paca", "upper-1/2"): (32, 300.0, 220.0, 9.0, 1.0),
}


def whole(parts: tuple[int, float, float, float, float]) -> float:
    _, forward, backward, optimizer, refresh = parts
    return 4 * (forward + backward) + optimizer + refresh


def fill_steps(maker: Any, make_case: Callable[..., Any], clock: str = "eager", **axes: Any) -> None:
    axes = {"model": "llama2-7b", "batch": 8, "accumulation": 4, "impl": "eager"} | axes
    impl = axes.pop("impl")
    for (method, layers), parts in STEPS.items():
        case = make_case(method, impl, trainable_layers=layers, rank=parts[0], **axes)
        _, forward, backward, optimizer, refresh = parts
        truth = {"forward": forward, "backward": backward, "forward-backward": forward + backward, "step": whole(parts)}
        step = {"optimizer_ms": optimizer, "parts_ms": 1.02 * whole(parts), "peak_mib": 30000.0}
        extra = {name: {p: v if p == "step" else None for p in truth} for name, v in step.items()}
        extra["refresh_ms"] = dict.fromkeys(truth, refresh or None)
        maker.timed(case, truth, clock=clock, noise=0.0005, **extra)


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


def tidy2(folder: Path, **wanted: str) -> list[dict[str, str]]:
    return lines_of(folder / "table2.csv", **wanted)


def test_an_epochs_steps_and_hours() -> None:
    assert EXAMPLES == 99_842 and steps_of(EXAMPLES, 8, 4) == 3121 and 3121 * 32 >= EXAMPLES > 3120 * 32
    assert steps_of(64, 8, 4) == 2 and steps_of(65, 8, 4) == 3 and steps_of(1, 8, 4) == 1
    assert [clock_word(s) for s in (26221.79, 59.6, 3600, 36000)] == ["7:17:02", "0:01:00", "1:00:00", "10:00:00"]


def test_the_published_table_is_read_as_it_is() -> None:
    assert [p.strategy for p in published()] == [
        "No tuning", "LoRA", "PaCA", "Upper Half PaCA", "Three Quarters PaCA",
    ]  # fmt: skip
    ratios = [paper_ratio(p) for p in published()]
    assert ratios[0] is None
    assert [round(r, 3) for r in ratios[1:] if r] == [1.0, 0.834, 0.593, 0.722]
    assert published()[3].scores == {
        "humanities": 44.8, "stem": 38.4, "social sciences": 52.7, "other": 53.9, "average": 47.10
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "is_it"),
    [("llama2-7b", True), ("meta-llama/Llama-2-7b-hf", True), ("/data/Llama-2-7b", True), ("tinyllama", False),
     ("meta-llama/Llama-2-7b-chat-hf", False), ("llama2-70b", False), ("meta-llama/Llama-3-8B", False)],
)  # fmt: skip
def test_which_model_is_the_papers(name: str, is_it: bool) -> None:
    assert is_papers(name) == is_it


def test_measured_and_published_side_by_side(maker: Any, make_case: Any) -> None:
    fill_steps(maker, make_case)
    said = draw_tables(maker)
    text = (maker.path / "table2.md").read_text()
    table = section(text, "### Table 2")
    names = [line.split(" | ")[1] for line in table.splitlines() if line.startswith("| llama2-7b")]
    assert names == ["No tuning", "LoRA", "PaCA", "Upper Half PaCA", "Three Quarters PaCA"], "in the paper's order"
    assert cells_of(table, "llama2-7b", "No tuning", "") == {
        "Model": "llama2-7b", "Strategy": "No tuning", "Computed as": "", f"{TIME}, paper": "",
        f"{TIME}, projected": "", "Ratio to LoRA, paper": "", "Ratio to LoRA, here": "", "Hums., paper": "44",
        "STEM, paper": "37", "Social, paper": "51.5", "Other, paper": "53.1", "Avg., paper": "45.9",
    }, "columns that nothing fills are left out"  # fmt: skip
    cells = cells_of(table, "llama2-7b", "Upper Half PaCA", "eager")
    seconds = 3121 * whole(STEPS["paca", "upper-1/2"]) / 1e3
    assert cells[f"{TIME}, paper"] == "4:19:18" and cells["Ratio to LoRA, paper"] == "0.593"
    assert cells[f"{TIME}, projected"][:6] == clock_word(seconds)[:6]
    assert value(cells["Ratio to LoRA, here"]) == pytest.approx(2090 / 3609, abs=0.002)
    lora = cells_of(table, "llama2-7b", "LoRA", "eager")
    assert (lora["Ratio to LoRA, paper"], lora["Ratio to LoRA, here"]) == ("1.000", "1")
    assert "ceil(99842 / (8 x 4 = 32)) = 3121 steps, for 99842 examples (MMLU's auxiliary_train" in table
    assert "PaCA eager 0.80" in said and "(the paper: 0.834)" in said and "of LoRA's on the same layers" in said
    for name in ("report.md", "report.html"):
        report = (maker.path / name).read_text()
        assert "Table 2: training time and accuracy" in report and "An optimizer step by its parts" in report


def test_a_step_by_its_parts_and_lora_on_the_same_layers(maker: Any, make_case: Any) -> None:
    fill_steps(maker, make_case)
    maker.failed(make_case("paca", "triton", trainable_layers="all", model="llama2-7b", batch=8, accumulation=4), "oom",
                 "needs at least 12.8 GiB")  # fmt: skip
    draw_tables(maker)
    table = section((maker.path / "table2.md").read_text(), "### An optimizer step by its parts")
    cells = cells_of(table, "llama2-7b", "Three Quarters PaCA", "eager")
    parts = [value(cells[f"Parts (ms), {part}"]) for part in ("forward x 4", "backward x 4", "optimizer", "refresh")]
    assert parts == pytest.approx([1200, 1280, 9, 1], rel=0.002)
    assert value(cells["Step (ms)"]) == pytest.approx(2490, rel=0.002)
    assert cells["Sum (%)"] in ("+1.9", "+2.0", "+2.1") and cells["Peak (MiB)"] == "30000"
    assert value(cells["Ratio to LoRA, on all layers"]) == pytest.approx(2490 / 3609, abs=0.002)
    assert value(cells["Ratio to LoRA, on the same"]) == pytest.approx(2490 / 3048, abs=0.002)
    assert cells["Ratio to LoRA, paper"] == "0.722"
    lora = cells_of(table, "llama2-7b", "Upper Half LoRA", "eager")
    assert lora["Parts (ms), refresh"] == "none", "LoRA refreshes nothing"
    assert cells_of(table, "llama2-7b", "PaCA", "triton")["Step (ms)"] == "oom"
    line = tidy2(maker.path, method="paca", trainable_layers="upper-3/4", source="sweep")[0]
    assert float(line["epoch_s"]) == pytest.approx(3121 * 2.49, rel=0.002) and line["steps"] == "3121"
    assert (
        float(line["ratio_to_lora_on_the_same_layers_ci_low"])
        < 2490 / 3048
        < float(line["ratio_to_lora_on_the_same_layers_ci_high"])
    )
    assert line["paper_ratio_to_lora"].startswith("0.722") and line["paper_s"] == "18944.61"
    # The generic table would take the difference of a step and one micro-step for the optimizer.
    assert "Forward-backward and the whole step" not in (maker.path / "table1.md").read_text()


@pytest.mark.parametrize(("off", "void"), [(1.015, False), (0.985, False), (1.025, True), (0.975, True)])
def test_a_step_whose_parts_and_whole_disagree_has_no_ratio(maker: Any, make_case: Any, off: float, void: bool) -> None:
    """Forward-backward's interval is 0.02 % wide here, so that the 2 % between the parts decide."""
    fill_steps(maker, make_case)
    for row in maker.rows:
        if row["parts_ms"]:
            is_it = (row["method"], row["trainable_layers"]) == ("paca", "all")
            row["parts_ms"] = row["median_ms"] * (off if is_it else 1.0)
    said = draw_tables(maker)
    text = (maker.path / "table2.md").read_text()
    words = "parts and whole disagree"
    cells = cells_of(section(text, "### An optimizer step by its parts"), "llama2-7b", "PaCA", "eager")
    assert cells["Sum (%)"] == f"{100 * (off - 1):+.1f}"
    for head in ("Ratio to LoRA, on all layers", "Ratio to LoRA, on the same"):
        assert (cells[head] == words) == void and (void or cells[head].startswith("0.80"))
    told = cells_of(section(text, "### Table 2"), "llama2-7b", "PaCA", "eager")["Ratio to LoRA, here"]
    assert (told == words) == void and (void or told.startswith("0.80"))
    assert ("PaCA eager 0.80" in said) == (not void) and "Upper Half PaCA eager 0.5" in said
    assert (tidy2(maker.path, method="paca", trainable_layers="all", source="sweep")[0]["ratio_to_lora"] == "") == void
    assert "Parts and whole disagree' stands in place of a ratio" in text


def test_wide_intervals_void_nothing_and_a_voided_lora_voids_the_ratios_to_it(maker: Any, make_case: Any) -> None:
    fill_steps(maker, make_case)
    for row in maker.rows:
        if row["parts_ms"] and row["method"] == "paca":
            row["parts_ms"] *= 1.08
        if row["method"] == "paca" and row["pass"] == "forward-backward":
            row |= {"ci_low_ms": 0.85 * row["median_ms"], "ci_high_ms": 1.15 * row["median_ms"]}
        if row["parts_ms"] and (row["method"], row["trainable_layers"]) == ("lora", "upper-1/2"):
            row["parts_ms"] *= 0.9
    draw_tables(maker)
    table = section((maker.path / "table2.md").read_text(), "### An optimizer step by its parts")
    cells = cells_of(table, "llama2-7b", "Upper Half PaCA", "eager")
    assert value(cells["Ratio to LoRA, on all layers"]) == pytest.approx(2090 / 3609, abs=0.002)
    assert cells["Ratio to LoRA, on the same"] == "LoRA there: parts and whole disagree"
    assert value(cells_of(table, "llama2-7b", "PaCA", "eager")["Ratio to LoRA, on all layers"]) < 0.81
    half = cells_of(table, "llama2-7b", "Upper Half LoRA", "eager")
    assert half["Ratio to LoRA, on the same"] == "parts and whole disagree", "not 1"


def test_where_every_step_disagrees_or_is_noisy_there_is_no_answer(maker: Any, make_case: Any) -> None:
    fill_steps(maker, make_case)
    for row in maker.rows:
        row["parts_ms"] = row["parts_ms"] and 1.2 * row["parts_ms"]
    assert draw_tables(maker) == "No answer: parts and whole disagree in 6 of 6 optimizer steps."
    for row in maker.rows:
        row["parts_ms"] = None
    for line in maker.samples:
        line["samples_ms"] = [x * (0.7 if i % 2 else 1.0) for i, x in enumerate(line["samples_ms"])]
    assert draw_tables(maker).startswith("No answer: too noisy (3 of 3 ratios are uncertain by more than 5 %).")


def test_two_precisions_are_told_apart_and_compared_each_with_its_own(maker: Any, make_case: Any) -> None:
    fill_steps(maker, make_case)
    mixed = {key: (r, 2 * f, 3 * b, o, c) for key, (r, f, b, o, c) in STEPS.items()}
    for (method, layers), parts in mixed.items():
        axes = {"trainable_layers": layers, "rank": parts[0], "model": "llama2-7b", "batch": 8, "accumulation": 4}
        case = make_case(method, "eager", precision="amp-fp16", **axes)
        maker.timed(case, {"forward": parts[1], "backward": parts[2], "step": whole(parts)}, noise=0.0005)
    peft = make_case("lora", "peft-fp32", model="llama2-7b", batch=8, accumulation=4)
    maker.timed(peft, {"forward": 500.0, "backward": 700.0, "step": 4809.0}, noise=0.0005)
    draw_tables(maker)
    text = (maker.path / "table2.md").read_text()
    for how, steps in (("eager, bf16", STEPS), ("eager, amp-fp16", mixed)):
        cells = cells_of(section(text, "### Table 2"), "llama2-7b", "PaCA", how)
        expected = whole(steps["paca", "all"]) / whole(steps["lora", "all"])
        assert value(cells["Ratio to LoRA, here"]) == pytest.approx(expected, abs=0.002)
    parts_of = section(text, "### An optimizer step by its parts")
    to_peft = {
        how: cells_of(parts_of, "llama2-7b", "PaCA", f"eager, {how}")["Ratio to LoRA, peft-fp32's"]
        for how in ("bf16", "amp-fp16")
    }
    assert value(to_peft["bf16"]) == pytest.approx(2890 / 4809, abs=0.002) and to_peft["amp-fp16"] == "no PEFT"


def test_on_a_cpu_nothing_is_projected_and_all_of_it_says_so(maker: Any, make_case: Any) -> None:
    maker.run |= {"gpu_key": "cpu", "gpu": "Some CPU, 2 cores"}
    fill_steps(maker, make_case, clock="cpu", model="tinyllama-4-blocks", batch=2, seq=32, precision="fp32")
    draw_tables(maker)
    for name in ("table2.md", "report.md", "report.html"):
        text = (maker.path / name).read_text()
        assert (
            "4 blocks of tinyllama on a CPU" in text
            and "no GPU times" in text
            and "whole models on a CPU" not in text.lower()
        )
        assert "No epoch is projected: these steps are of 32 tokens" in text
    table = section((maker.path / "table2.md").read_text(), "### Table 2")
    *_, theirs, ours = cells = cells_of(table, "tinyllama-4-blocks", "PaCA", "eager")
    assert (theirs, ours) == ("Ratio to LoRA, paper", "Ratio to LoRA, here"), "the paper's hours and accuracies are not"
    assert cells[theirs] == "0.834" and cells[ours].startswith("0.80")
    assert {line["epoch_s"] for line in tidy2(maker.path, source="sweep")} == {""}


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
    assert (took, projected, trained) == ("7:17:02", "", "0:16:40") and rest[:2] == ["1.000", "1.000"]
    assert rest[2:] == ["50", "49.25", "42.2", "41.5", "59.7", "60.12", "58", "58", "52.15", "52"]
    half = cells_of(table, model, "Upper Half PaCA", "run b")
    assert (half["Ratio to LoRA, paper"], half["Ratio to LoRA, here"]) == ("0.593", "0.600")
    assert (half["Hums., paper"], half["Hums., here"]) == ("44.8", "")
    own = cells_of(table, model, "my-own", "run c")
    assert (own["Ratio to LoRA, paper"], own["Ratio to LoRA, here"]) == ("", "0.700")
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
    assert {p.name for p in (tmp_path / "runs").iterdir()} == {"a", "table2.md", "table2.csv"}
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


def test_examples_and_out_are_checked(maker: Any, make_case: Any, capsys: pytest.CaptureFixture[str]) -> None:
    fill_steps(maker, make_case)
    assert main([str(maker.write()), "--examples", "0"]) == 2
    assert "--examples 0: an epoch has at least 1 example" in capsys.readouterr().err
    assert main([str(maker.path), "--out", "x"]) == 2
    assert "--out x" in capsys.readouterr().err and not (maker.path / "table2.md").exists()


def test_the_figure_is_drawn_and_goes_when_there_are_no_steps(maker: Any, make_case: Any) -> None:
    fill_steps(maker, make_case)
    fill_steps(maker, make_case, model="tinyllama", impl="triton")
    draw(load(maker.write()), figures=("steps",))
    assert (maker.path / "steps.png").read_bytes().startswith(b"\x89PNG") and (maker.path / "steps.svg").exists()
    assert "](steps.png)" in (maker.path / "report.md").read_text()
    svg = (maker.path / "steps.svg").read_text()
    assert svg.count("<path") > 40
    for row in maker.rows:
        row |= {"status": "oom", "median_ms": None}
    maker.samples = []
    draw(load(maker.write()), figures=("steps",))
    assert not (maker.path / "steps.png").exists() and " oom " in (maker.path / "table2.md").read_text()
