"""methods.md and methods.csv, against numbers worked out here from the same samples."""

from typing import Any

import numpy as np
import pytest

from plots.data.load import load
from plots.report import draw
from tests.plots.reading import cells_of, draw_tables, lines_of, pick, samples, section, value, words_of

FULL = {"forward": 10.0, "backward": 20.0, "forward-backward": 30.0, "step": 36.0}
LISA = {"trainable_layers": "lisa-2"}
FULL_AGAIN, LORA_AGAIN = ({"gradient_checkpointing": "full"} for _ in range(2))
FACTORS = [  # of Full-FT's time and memory, by method and what else there is to the case
    ("full", "eager", {}, 1.0, 20000),
    ("full", "eager", FULL_AGAIN, 1.3, 14000),
    ("full", "eager", {"optimizer": "sgd"}, 0.9, 12000),
    ("full", "eager", LISA, 0.7, 9000),
    ("lora", "eager", {}, 1.1, 8000),
    ("lora", "eager", LORA_AGAIN, 1.5, 5000),
    ("lora", "triton", {}, 0.8, 7000),
    ("paca", "eager", {}, 0.75, 7500),
]


def fill(maker: Any, make_case: Any, clock: str = "eager", **more: Any) -> None:
    for method, impl, axes, factor, mib in FACTORS:
        ms = {pass_: factor * truth for pass_, truth in FULL.items()}
        one = make_case(method, impl, **axes)
        maker.timed(one, ms, clock=clock, trainable_params=mib * 10, **({"peak_mib": mib} | more))


def of(maker: Any, pass_: str, method: str, impl: str, **axes: Any) -> float:
    usual = {"gradient_checkpointing": None, "optimizer": None, "trainable_layers": "all"}
    return float(np.median(samples(maker, pass_, method=method, impl=impl, **(usual | axes))))


def test_ratios_are_to_full_ft_and_to_textbook_lora_of_all_layers_without_options(maker: Any, make_case: Any) -> None:
    fill(maker, make_case)
    draw_tables(maker)
    lines = lines_of(maker.path / "methods.csv")
    assert len(lines) == len(FACTORS) * len(FULL)
    for method, impl, axes, _, mib in FACTORS:
        for pass_ in ("forward-backward", "step"):
            ours = of(maker, pass_, method, impl, **axes)
            told = {"gradient_checkpointing": "", "optimizer": "", "trainable_layers": "all", **axes}
            line = pick(maker.path / "methods.csv", method=method, impl=impl, **told, **{"pass": pass_})
            for name in ("full", "lora"):
                ratio = float(line[f"ratio_to_{name}"])
                assert ratio == pytest.approx(ours / of(maker, pass_, name, "eager"))
                low, high = float(line[f"{name}_ci_low"]), float(line[f"{name}_ci_high"])
                assert low <= ratio <= high and (low < high or ratio == 1)
            assert (float(line["peak_mib"]), line["trained"]) == (mib, str(mib * 10))
            without = line["ratio_to_without_options"]
            assert float(without) == pytest.approx(ours / of(maker, pass_, method, impl)) if axes else without == ""


def test_the_table_has_times_memory_and_both_ratios(maker: Any, make_case: Any) -> None:
    fill(maker, make_case)
    draw_tables(maker)
    text = (maker.path / "methods.md").read_text()
    methods = section(text, "### Methods")
    lisa = cells_of(methods, "gpt2-xl", "Full-FT eager layers lisa-2")
    assert lisa["Trained values"] == "90,000" and lisa["Peak memory (MiB)"] == "9000"
    assert value(lisa["Time (ms), step"]) == pytest.approx(0.7 * 36, rel=0.02)
    assert value(lisa["Time / Full-FT, step"]) == pytest.approx(0.7, rel=0.02), "not over itself"
    assert value(lisa["Time / LoRA eager, forward-backward"]) == pytest.approx(0.7 / 1.1, rel=0.02)
    assert "Times do not tell accuracy" in methods
    assert "methods.csv" in (maker.path / "report.md").read_text()
    assert "## Methods" in (maker.path / "report.md").read_text()


def test_an_option_stands_beside_the_case_without_it(maker: Any, make_case: Any) -> None:
    fill(maker, make_case)
    draw_tables(maker)
    options = section((maker.path / "methods.md").read_text(), "### What an option costs")
    lines = [line for line in options.splitlines() if line.startswith("| gpt2-xl")]
    assert len(lines) == 4
    again = next(line for line in lines if "LoRA" in line)
    assert "| checkpointing full |" in again and "| 8000 | 5000 | 0.62 |" in again
    sgd = next(line for line in lines if "| optimizer sgd |" in line)
    assert "| 20000 | 12000 | 0.60 |" in sgd
    cells = [cell for cell in sgd.split("|") if " [" in cell]
    assert len(cells) == 6, "of forward-backward and of the step: without, with, ratio"
    assert [value(cell) for cell in cells] == pytest.approx([30, 27, 0.9, 36, 32.4, 0.9], rel=0.02)


def test_what_cannot_be_is_told_in_a_line_and_has_no_number(maker: Any, make_case: Any) -> None:
    fill(maker, make_case)
    for model in ("tinyllama", "gpt2-medium"):
        maker.failed(make_case("paca", "triton", model=model), "unsupported", "impl triton needs an NVIDIA GPU")
    draw_tables(maker)
    text = (maker.path / "methods.md").read_text()
    told = [line for line in text.splitlines() if "needs an NVIDIA GPU" in line]
    assert len(told) == 1 and "unsupported: PaCA triton" in told[0] and "tinyllama and gpt2-medium" in told[0]
    assert not lines_of(maker.path / "methods.csv", impl="triton", method="paca", status="ok")


def test_the_papers_three_methods_alone_have_their_own_tables(maker: Any, fill: Any) -> None:
    fill(maker, [("full", "eager"), ("lora", "eager"), ("paca", "eager")], [(4, 512)])
    draw_tables(maker)
    assert not (maker.path / "methods.md").exists() and "## Methods" not in (maker.path / "report.md").read_text()


def test_without_memory_and_steps_there_are_no_such_columns(maker: Any, make_case: Any) -> None:
    steps = FULL.pop("step")
    try:
        fill(maker, make_case, peak_mib=None)
    finally:
        FULL["step"] = steps
    draw_tables(maker)
    text = (maker.path / "methods.md").read_text()
    assert "Peak memory" not in text and "Time (ms), step" not in text


def test_a_dozen_training_types_are_told_in_figures(maker: Any, make_case: Any) -> None:
    """Time over memory by a legend, without options; ratios by rows, LISA's to Full-FT of all layers."""
    fill(maker, make_case)
    more = (("dora", "eager"), ("dora", "peft-fp32"), ("lora-fa", "eager"), ("qlora", "peft"), ("bitfit", "eager"))
    for i, kind in enumerate(more):
        ms = {pass_: (0.6 + 0.1 * i) * truth for pass_, truth in FULL.items()}
        maker.timed(make_case(*kind), ms, peak_mib=5000 + 1000 * i)
    draw(load(maker.write()), figures=("memory", "ratio"))
    plain = {"Full-FT eager", "Full-FT eager layers lisa-2", "LoRA triton", "DoRA peft-fp32", "LoRA-FA eager",
             "QLoRA peft", "PaCA eager", "BitFit eager"}  # fmt: skip
    options = {"Full-FT eager checkpointing full", "Full-FT eager optimizer sgd"}
    told = words_of(maker.path / "memory.svg")
    assert plain <= {*told} and not options & {*told} and told.count("DoRA peft-fp32") == 1
    rows = words_of(maker.path / "ratio.svg")
    assert plain - {"Full-FT eager"} | options <= {*rows} and "Full-FT eager" not in rows
    lisa = of(maker, "forward-backward", "full", "eager", **LISA) / of(maker, "forward-backward", "full", "eager")
    assert any(value(word) == pytest.approx(lisa, abs=1e-3) for word in rows if " [" in word)
